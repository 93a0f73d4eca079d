//! Strategic merge patch.

use serde_json::Value;

use super::PatchError;
use crate::schema::TypeRef;

pub(super) fn apply(target: &mut Value, patch: &Value, _ty: TypeRef) -> Result<(), PatchError> {
    super::merge(target, patch)
}
