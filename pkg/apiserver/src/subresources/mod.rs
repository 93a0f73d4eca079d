//! Subresources: status and scale for every kind that has them, and those that Pods, Namespaces and a few more have alone.

pub mod binding;
pub mod eviction;
pub mod nodes;
pub mod proxy;
pub mod rollback;
pub mod scale;
pub mod streams;
pub mod token;
