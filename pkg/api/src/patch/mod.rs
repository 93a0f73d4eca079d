//! The three kinds of patch that change a tree in place: JSON patch (RFC 6902), merge patch (RFC 7396) and strategic
//! merge patch.

mod strategic;

use serde_json::Value;

use crate::schema::TypeRef;

/// Why a patch does not apply.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum PatchError {
    /// The patch itself is malformed: 400.
    #[error("{0}")]
    Malformed(String),
    /// It does not fit the object: 422.
    #[error("{0}")]
    Unprocessable(String),
}

/// RFC 6902. Nothing is changed when an operation fails.
pub fn json(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    json_patch::patch(target, &operations).map_err(|error| {
        PatchError::Unprocessable(format!(
            "the server rejected our request due to an error in our request: {error}"
        ))
    })
}

/// RFC 7396.
pub fn merge(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed(
            "error decoding patch: a merge patch is a JSON object".into(),
        ));
    }
    json_patch::merge(target, patch);
    Ok(())
}

/// Upstream's strategic merge, with all its directives, driven by the type's merge keys and strategies.
pub fn strategic(target: &mut Value, patch: &Value, ty: TypeRef) -> Result<(), PatchError> {
    strategic::apply(target, patch, ty)
}
