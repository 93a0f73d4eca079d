//! apiextensions.k8s.io.

use serde_json::Value;

use super::{Errors, Path};
use crate::meta;
use crate::schema::custom;
use crate::status::FieldError;

/// What no object could be checked by is refused.
pub fn custom_resource_definition(definition: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    let versions = spec.child("versions");
    for (at, version) in meta::items(definition, &["spec", "versions"]).iter().enumerate() {
        let version_path = versions.index(at);
        let schema_path = version_path.child("schema");
        let Some(schema) = meta::at(version, &["schema", "openAPIV3Schema"]) else {
            errors.push(FieldError::required(schema_path, "schemas are required"));
            continue;
        };
        let schema_path = schema_path.child("openAPIV3Schema");
        if let Err(error) = custom::compile(schema) {
            errors.push(FieldError::invalid(schema_path, "", error.to_string()));
        }
        let path = schema_path.to_string();
        errors.extend(custom::check_definition(schema, &path, false));
    }
}
