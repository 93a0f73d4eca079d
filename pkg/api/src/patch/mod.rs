//! The three kinds of patch that change a tree in place: JSON patch (RFC 6902), merge patch (RFC 7396) and strategic
//! merge patch. The result is not yet what its type allows: `codec::conform` decides that.

mod bounds;
mod json;
mod strategic;

use serde_json::{Map, Value};

pub use json::{json, reaches};

use crate::schema::Schema;
use crate::status::Status;

/// Why a patch does not apply.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum PatchError {
    /// The patch itself is malformed: 400.
    #[error("{0}")]
    Malformed(String),
    /// More operations than upstream allows: 413.
    #[error("{0}")]
    TooLarge(String),
    /// It does not fit the object: 422.
    #[error("{0}")]
    Unprocessable(String),
    /// What upstream answers 500 without a reason to.
    #[error("{0}")]
    Other(String),
}

impl From<PatchError> for Status {
    fn from(error: PatchError) -> Status {
        match error {
            PatchError::Malformed(text) => Status::bad_request(text),
            PatchError::TooLarge(text) => Status::too_large(text),
            // Which error it was, upstream keeps to itself.
            PatchError::Unprocessable(_) => Status {
                details: Some(Value::Object(Map::new())),
                ..Status::new(
                    422,
                    "Invalid",
                    "the server rejected our request due to an error in our request",
                )
            },
            PatchError::Other(text) => Status::new(500, "", text),
        }
    }
}

/// RFC 7396.
pub fn merge(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed("Invalid JSON Patch".into()));
    }
    merge_into(target, patch);
    Ok(())
}

fn merge_into(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(merged) = target else { return };
    for (key, value) in fields {
        match value {
            Value::Null => _ = merged.remove(key),
            value => merge_into(merged.entry(key.as_str()).or_insert(Value::Null), value),
        }
    }
}

/// Upstream's strategic merge, with all its directives, driven by the type's merge keys and strategies.
pub fn strategic(target: &mut Value, patch: &Value, ty: &Schema) -> Result<(), PatchError> {
    strategic::apply(target, patch, ty)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    /// The cases of RFC 7396's appendix that begin with an object.
    #[test]
    fn merges() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (mut target, patch, expected) in cases {
            merge(&mut target, &patch).unwrap();
            assert_eq!(target, expected, "{patch}");
        }
        let refused = merge(&mut json!({}), &json!(["c"]));
        assert!(matches!(refused, Err(PatchError::Malformed(_))));
    }
}
