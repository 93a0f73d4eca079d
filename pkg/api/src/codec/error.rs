//! Why bytes or a tree are no object. Who answers a request tells these apart: a value of the wrong type is answered
//! otherwise than a text that is none of its format's.

/// Levels of objects and arrays that a tree may have, the root's own counted. More than any sane object has (schemas of
/// CRDs are the deepest), and few enough for everything that walks a tree by recursion, serde_json's reader with its limit
/// of 128 among them. What one format stores, every other can be asked for.
pub const MAX_DEPTH: u8 = 100;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not of the format they claim.
    #[error("{0}")]
    Syntax(String),
    /// A value does not fit its field's type; in Go's words.
    #[error("{0}")]
    Type(String),
    #[error("the object nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
}
