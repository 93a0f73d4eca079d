//! Kubernetes protobuf: the magic `k8s\0`, runtime.Unknown around it, and the messages of the built-in types, all
//! driven by the schema's field numbers.

/// What a protobuf body starts with.
pub const MAGIC: &[u8; 4] = b"k8s\0";
