//! apiextensions.k8s.io.

use serde_json::Value;

use super::{Errors, Path};
use crate::meta;
use crate::status::FieldError;

/// What a definition asks for that is not held yet is refused: schemas that say more than that anything goes.
pub fn custom_resource_definition(definition: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    let versions = spec.child("versions");
    for (at, version) in meta::items(definition, &["spec", "versions"]).iter().enumerate() {
        let version_path = versions.index(at);
        let schema_path = version_path.child("schema");
        let Some(schema) = meta::map_at(version, &["schema", "openAPIV3Schema"]) else {
            errors.push(FieldError::required(schema_path, "schemas are required"));
            continue;
        };
        let open = ["type", "x-kubernetes-preserve-unknown-fields", "description"];
        if let Some(key) = schema.keys().find(|key| !open.contains(&key.as_str())) {
            let schema_path = schema_path.child("openAPIV3Schema");
            errors.push(FieldError::forbidden(
                schema_path.child(key),
                "not in this version of mk8s",
            ));
        }
    }
}
