//! What the types that a document defines are called, and how one is pointed at.

use serde_json::{Value, json};

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// The version of OpenAPI.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Flavor {
    V2,
    V3,
}

impl Flavor {
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Flavor::V2 => "#/definitions/",
            Flavor::V3 => "#/components/schemas/",
        }
    }
}

/// A schema that is another's.
pub(super) fn reference(name: &str, flavor: Flavor) -> Value {
    json!({"$ref": format!("{}{name}", flavor.prefix())})
}

/// `example.org`, `v1`, `Car` → `org.example.v1.Car`
pub(super) fn model_name(group: &str, version: &str, kind: &str) -> String {
    let parts: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{version}.{kind}", parts.join("."))
}

/// A word as it stands within a name: `deployment` → `Deployment`
pub(super) fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map(|first| first.to_ascii_uppercase().to_string() + chars.as_str())
        .unwrap_or_default()
}
