//! The API server: one generic pipeline over the registry's rows, and the only user of the store.

pub mod admission;
pub mod identity;
pub mod request;
