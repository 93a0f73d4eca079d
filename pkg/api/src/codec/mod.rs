//! Bytes ↔ the tree: JSON, YAML and Kubernetes protobuf. Decoding finds unknown and duplicate fields, checks Go's types
//! and leaves the tree as upstream would print it; all three formats share that one pass.

mod converter;
pub mod cut;
mod doubles;
mod error;
pub mod json;
pub mod protobuf;
mod scalar;
pub mod syntax;
mod typed;
pub mod yaml;

pub use error::{DecodeError, MAX_DEPTH};
pub use scalar::check_time;
pub use typed::{Decoded, Validation, conform, convert, unknown_fields};
