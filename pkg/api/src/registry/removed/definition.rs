//! apiextensions.k8s.io/v1beta1: what all versions of a CRD have in common stands above them, a conversion's webhook stands
//! in the conversion itself, and a column's path is spelled `JSONPath`.

use serde_json::{Map, Value, json};

use crate::meta;

/// (field above the versions, field of a version).
const SHARED: [(&str, &str); 4] = [
    ("subresources", "subresources"),
    ("validation", "schema"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

/// (path in v1beta1, path in v1), both in `spec.conversion`.
const CONVERSION: [(&str, [&str; 2]); 2] = [
    ("webhookClientConfig", ["webhook", "clientConfig"]),
    ("conversionReviewVersions", ["webhook", "conversionReviewVersions"]),
];

/// What contradicts itself stays where it stood, and validation refuses it.
pub(super) fn to_stored(definition: &mut Value) {
    let first = meta::items(definition, &["spec", "versions"]).first();
    let version = meta::string(definition, &["spec", "version"]);
    if version.is_empty() || first.is_some_and(|first| meta::string(first, &["name"]) == version) {
        meta::remove(definition, &["spec", "version"]);
    }
    for (above, own) in SHARED {
        let says = |version: &Value| {
            version
                .get(own)
                .is_some_and(|said| !said.is_null() && *said != json!([]))
        };
        let both = meta::items(definition, &["spec", "versions"]).iter().any(says);
        let shared = meta::at(definition, &["spec", above]).filter(|shared| !shared.is_null());
        let shared = shared.cloned();
        if !both || shared.is_none() {
            meta::remove(definition, &["spec", above]);
        }
        let Some(shared) = shared else {
            if says_the_same(definition, own) {
                meta::set(definition, &["spec", above], true);
            }
            continue;
        };
        for version in meta::items_mut(definition, &["spec", "versions"]) {
            meta::set(version, &[own], shared.clone());
        }
    }
    rename_columns(definition, "JSONPath", "jsonPath");
    if let Some(conversion) = meta::at_mut(definition, &["spec", "conversion"]) {
        for (old, path) in CONVERSION {
            meta::relocate(conversion, &[old], &path);
        }
        if let Some(Value::Object(webhook)) = meta::at_mut(conversion, &["webhook"]) {
            // Go prints it whatever it is.
            webhook.entry("conversionReviewVersions").or_insert(Value::Null);
        }
    }
    // A plain bool there.
    if meta::bool_at(definition, &["spec", "preserveUnknownFields"]) == Some(false) {
        meta::remove(definition, &["spec", "preserveUnknownFields"]);
    }
}

/// Whether all versions say the same, which was to be said above them: what v1 says below is shown there.
fn says_the_same(definition: &Value, own: &str) -> bool {
    let mut said = meta::items(definition, &["spec", "versions"])
        .iter()
        .map(|version| &version[own]);
    let first = said
        .next()
        .filter(|first| own != "selectableFields" && !first.is_null() && **first != json!([]));
    first.is_some_and(|first| said.all(|other| other == first))
}

pub(super) fn from_stored(definition: &mut Value) {
    meta::set_default(definition, &["spec", "preserveUnknownFields"], false);
    if let Some(conversion) = meta::at_mut(definition, &["spec", "conversion"]) {
        for (old, path) in CONVERSION {
            meta::relocate(conversion, &path, &[old]);
        }
        meta::remove(conversion, &["webhook"]);
    }
    rename_columns(definition, "jsonPath", "JSONPath");
    let Some(Value::Object(spec)) = meta::at_mut(definition, &["spec"]) else {
        return;
    };
    let Some(Value::Array(versions)) = spec.get_mut("versions") else {
        return;
    };
    let mut above = Map::new();
    if let Some(name) = versions.first().and_then(|first| first.get("name")) {
        above.insert("version".into(), name.clone());
    }
    for (shared, own) in SHARED {
        let first = versions.first().and_then(|first| first.get(own)).cloned();
        if !versions.iter().all(|version| version.get(own) == first.as_ref()) {
            continue;
        }
        for version in versions.iter_mut() {
            meta::remove(version, &[own]);
        }
        above.extend(first.map(|first| (shared.to_string(), first)));
    }
    spec.append(&mut above);
}

fn rename_columns(definition: &mut Value, from: &str, to: &str) {
    for version in meta::items_mut(definition, &["spec", "versions"]) {
        for column in meta::items_mut(version, &["additionalPrinterColumns"]) {
            meta::relocate(column, &[from], &[to]);
        }
    }
}
