//! What the root of a schema may say where the status is checked by itself.

use serde_json::Value;

use super::super::{Errors, Path, has, text};
use crate::status::FieldError;

/// In the order of Go's struct: what it may say, and what it may not.
const ROOT: [(&str, &str, bool); 36] = [
    ("id", "ID", false),
    ("$schema", "Schema", false),
    ("$ref", "Ref", false),
    ("description", "Description", true),
    ("type", "Type", true),
    ("nullable", "Nullable", false),
    ("format", "Format", true),
    ("title", "Title", true),
    ("default", "Default", false),
    ("maximum", "Maximum", true),
    ("exclusiveMaximum", "ExclusiveMaximum", true),
    ("minimum", "Minimum", true),
    ("exclusiveMinimum", "ExclusiveMinimum", true),
    ("maxLength", "MaxLength", true),
    ("minLength", "MinLength", true),
    ("pattern", "Pattern", true),
    ("maxItems", "MaxItems", true),
    ("minItems", "MinItems", true),
    ("uniqueItems", "UniqueItems", true),
    ("multipleOf", "MultipleOf", true),
    ("enum", "Enum", false),
    ("maxProperties", "MaxProperties", false),
    ("minProperties", "MinProperties", false),
    ("required", "Required", true),
    ("items", "Items", true),
    ("allOf", "AllOf", false),
    ("oneOf", "OneOf", false),
    ("anyOf", "AnyOf", false),
    ("not", "Not", false),
    ("properties", "Properties", true),
    ("additionalProperties", "AdditionalProperties", false),
    ("externalDocs", "ExternalDocs", true),
    ("example", "Example", true),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields", true),
    ("x-kubernetes-embedded-resource", "XEmbeddedResource", false),
    ("x-kubernetes-validations", "XValidations", true),
];

pub(super) fn with_status(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let says = |key: &str| match has(schema, key) {
        None | Some(Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(_) => true,
    };
    let own = text(schema, "type");
    for (key, _, allowed) in ROOT.iter().filter(|(key, ..)| says(key)) {
        if *key == "type" && own != "object" {
            let why =
                "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
            errors.push(FieldError::invalid(path.child("openAPIV3Schema.type"), own, why));
            return;
        }
        if !allowed {
            let words: Vec<&str> = ROOT
                .iter()
                .filter(|(.., allowed)| *allowed)
                .map(|(_, go, _)| *go)
                .collect();
            let what = "fields are allowed at the root of the schema if the status subresource is enabled";
            let why = format!("only [{}] {what}", words.join(" "));
            errors.push(FieldError::invalid(path.child("openAPIV3Schema"), schema.clone(), why));
            return;
        }
    }
}
