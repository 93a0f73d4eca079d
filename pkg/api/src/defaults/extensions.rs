//! apiextensions.k8s.io.

use serde_json::{Value, json};

use super::{text, value};
use crate::meta;

pub fn custom_resource_definition(definition: &mut Value) {
    let spec = meta::object_mut(definition, &["spec"]);
    value(spec, "conversion", json!({"strategy": "None"}));
    if let Some(Value::Object(service)) = spec
        .get_mut("conversion")
        .and_then(|conversion| conversion.pointer_mut("/webhook/clientConfig/service"))
    {
        value(service, "port", 443);
    }
    let names = meta::object_mut(definition, &["spec", "names"]);
    let kind = names
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_string();
    text(names, "singular", &kind.to_lowercase());
    if !kind.is_empty() {
        text(names, "listKind", &format!("{kind}List"));
    }
    if meta::items(definition, &["status", "storedVersions"]).is_empty() {
        stores_in_its_version(definition);
    }
}

pub fn definition_create(definition: &mut Value) {
    meta::set(definition, &["status"], json!({}));
    stores_in_its_version(definition);
    printed_status(definition);
}

pub fn definition_update(definition: &mut Value, _: &Value) {
    stores_in_its_version(definition);
}

/// What is stored from now on is in the storage version.
fn stores_in_its_version(definition: &mut Value) {
    let versions = meta::items(definition, &["spec", "versions"]);
    let Some(version) = versions.iter().find(|version| version["storage"] == true) else {
        return;
    };
    let name = version["name"].clone();
    let mut stored = meta::items(definition, &["status", "storedVersions"]).to_vec();
    if !stored.contains(&name) {
        stored.push(name);
        meta::set(definition, &["status", "storedVersions"], stored);
    }
}

/// Go prints these even when they are empty.
fn printed_status(definition: &mut Value) {
    let status = meta::object_mut(definition, &["status"]);
    value(status, "conditions", Value::Null);
    value(status, "acceptedNames", json!({"plural": "", "kind": ""}));
}
