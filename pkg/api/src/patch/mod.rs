//! The three kinds of patch that change a tree in place: JSON patch (RFC 6902), merge patch (RFC 7396) and strategic
//! merge patch. The result is not yet what its type allows: `codec::conform` decides that.

mod bounds;
mod strategic;

use serde_json::{Map, Value};

use bounds::Bounds;

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

/// Upstream's limit of operations in one JSON patch.
const MAX_OPERATIONS: usize = 10_000;

/// RFC 6902. A tree whose patch fails is to be thrown away: it holds what the operations before the failed one did.
pub fn json(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if let Value::Array(operations) = patch
        && operations.len() > MAX_OPERATIONS
    {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    // What is no operation is found out when it is its turn.
    let are_objects = patch
        .as_array()
        .is_some_and(|all| all.iter().all(|one| one.is_object() || one.is_null()));
    let operations: json_patch::Patch = serde_json::from_value(patch.clone()).map_err(|error| match are_objects {
        true => PatchError::Unprocessable(error.to_string()),
        false => PatchError::Malformed(format!("error decoding patch: {error}")),
    })?;
    let mut bounds = Bounds::default();
    for operation in &operations.0 {
        bounds.admit(target, operation)?;
        json_patch::patch_unsafe(target, std::slice::from_ref(operation))
            .map_err(|error| PatchError::Unprocessable(refusal(operation, &error.kind)))?;
    }
    Ok(())
}

/// The failed operation in the words of upstream's library.
fn refusal(operation: &json_patch::PatchOperation, kind: &json_patch::PatchErrorKind) -> String {
    use json_patch::{PatchErrorKind, PatchOperation};
    let path = operation.path();
    match (operation, kind) {
        (_, PatchErrorKind::TestFailed) => format!("testing value {path} failed: test failed"),
        (PatchOperation::Move(operation), PatchErrorKind::InvalidFromPointer) => format!(
            "move operation does not apply: doc is missing from path: {}: missing value",
            operation.from
        ),
        (PatchOperation::Copy(operation), PatchErrorKind::InvalidFromPointer) => format!(
            "copy operation does not apply: doc is missing from path: {}: missing value",
            operation.from
        ),
        (PatchOperation::Add(_), _) => {
            format!("add operation does not apply: doc is missing path: \"{path}\": missing value")
        }
        (PatchOperation::Remove(_), _) => {
            let key = path
                .last()
                .map(|token| token.decoded().into_owned())
                .unwrap_or_default();
            format!("error in remove for path: '{path}': Unable to remove nonexistent key: {key}: missing value")
        }
        (PatchOperation::Replace(_), _) => {
            format!("replace operation does not apply: doc is missing key: {path}: missing value")
        }
        (PatchOperation::Test(_), _) => {
            format!("test operation does not apply: is missing path: {path}: missing value")
        }
        (PatchOperation::Move(_), _) => {
            format!("move operation does not apply: doc is missing destination path: {path}: missing value")
        }
        (PatchOperation::Copy(_), _) => {
            format!("copy operation does not apply: doc is missing destination path: {path}: missing value")
        }
    }
}

/// RFC 7396.
pub fn merge(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed("Invalid JSON Patch".into()));
    }
    json_patch::merge(target, patch);
    Ok(())
}

/// Upstream's strategic merge, with all its directives, driven by the type's merge keys and strategies.
pub fn strategic(target: &mut Value, patch: &Value, ty: &Schema) -> Result<(), PatchError> {
    strategic::apply(target, patch, ty)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_patch_in_upstreams_words() {
        let mut target = json!({"a": {"b": 1}});
        assert_eq!(
            json(&mut target, &json!([{"op": "add", "path": "/a/c", "value": 2}])),
            Ok(())
        );
        assert_eq!(target, json!({"a": {"b": 1, "c": 2}}));
        let cases = [
            (
                json!([{"op": "test", "path": "/a/b", "value": 3}]),
                "testing value /a/b failed: test failed",
            ),
            (
                json!([{"op": "remove", "path": "/x"}]),
                "error in remove for path: '/x': Unable to remove nonexistent key: x: missing value",
            ),
            (
                json!([{"op": "replace", "path": "/a/x", "value": 1}]),
                "replace operation does not apply: doc is missing key: /a/x: missing value",
            ),
        ];
        for (patch, expected) in cases {
            assert_eq!(
                json(&mut target.clone(), &patch),
                Err(PatchError::Unprocessable(expected.into()))
            );
        }
    }
}
