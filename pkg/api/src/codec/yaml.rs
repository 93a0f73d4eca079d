//! YAML in: read to a tree first, then through the same pass as JSON.

use serde_json::Value;

use super::typed::{Decoded, Validation, conform};
use crate::schema::TypeRef;

/// Decodes a YAML body of one document.
pub fn decode(bytes: &[u8], ty: Option<TypeRef>, validation: Validation) -> Result<Decoded, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("yaml: {error}"))?;
    let value: Value =
        serde_saphyr::from_str(text).map_err(|error| format!("error converting YAML to JSON: yaml: {error}"))?;
    match ty {
        Some(ty) => conform(value, ty, validation),
        None => Ok(Decoded {
            value,
            problems: Vec::new(),
        }),
    }
}
