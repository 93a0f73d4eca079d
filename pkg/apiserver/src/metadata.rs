//! What the server itself says in every object's metadata, whatever its kind.

use mk8s_api::registry::{Resource, Served};
use mk8s_api::status::Status;
use mk8s_api::{meta, names, time};
use serde_json::{Map, Value};

use crate::request::RequestInfo;

/// The namespace in an object must be the request's; an absent one is filled in.
pub fn match_namespace(resource: &Resource, info: &RequestInfo, object: &mut Value) -> Result<(), Status> {
    let wanted = if resource.is_namespaced() {
        info.namespace.as_str()
    } else {
        ""
    };
    let own = meta::namespace(object);
    if own.is_empty() {
        if !wanted.is_empty() {
            meta::metadata_mut(object).insert("namespace".into(), wanted.into());
        }
        return Ok(());
    }
    if own == wanted {
        return Ok(());
    }
    if wanted.is_empty() {
        meta::metadata_mut(object).remove("namespace");
        return Ok(());
    }
    Err(elsewhere())
}

/// What an object of another namespace than the request's is answered.
pub fn elsewhere() -> Status {
    Status::bad_request("the namespace of the provided object does not match the namespace sent on the request")
}

/// What the server sets on a new object.
pub fn begin_create(resource: &Resource, object: &mut Value) {
    let generation = resource.generation;
    let metadata = meta::metadata_mut(object);
    for key in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "resourceVersion",
    ] {
        metadata.remove(key);
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), time::rfc3339(jiff::Timestamp::now()).into());
    // A kind that does not count keeps what it is given, as upstream does.
    if generation {
        metadata.insert("generation".into(), 1.into());
    }
}

/// Whether the name is still to be made from generateName.
pub fn wants_generated_name(object: &Value) -> bool {
    meta::name(object).is_empty() && !meta::string(object, &["metadata", "generateName"]).is_empty()
}

pub fn generate_name(object: &mut Value) {
    let name = names::generate(
        meta::string(object, &["metadata", "generateName"]),
        rand::random::<u64>(),
    );
    meta::metadata_mut(object).insert("name".into(), name.into());
}

/// What an update can't change, whatever it says.
pub fn begin_update(object: &mut Value, old: &Value) {
    let Some(old) = meta::map_at(old, &["metadata"]) else {
        return;
    };
    let metadata = meta::metadata_mut(object);
    metadata.remove("selfLink");
    keep(metadata, old, "creationTimestamp");
    keep(metadata, old, "generation");
    if old.contains_key("deletionTimestamp") {
        keep(metadata, old, "deletionTimestamp");
    }
    for key in ["uid", "deletionGracePeriodSeconds", "namespace", "name"] {
        if !metadata.contains_key(key) || metadata[key] == "" {
            keep(metadata, old, key);
        }
    }
}

fn keep(metadata: &mut Map<String, Value>, old: &Map<String, Value>, key: &str) {
    match old.get(key) {
        Some(value) => metadata.insert(key.into(), value.clone()),
        None => metadata.remove(key),
    };
}

/// Whether anything but metadata and the status, where that is written apart, differs.
pub fn spec_changed(working: &Served, new: &Value, old: &Value) -> bool {
    let status_apart = working.has_status();
    let (Value::Object(new), Value::Object(old)) = (new, old) else {
        return true;
    };
    let of_spec = |key: &&String| match key.as_str() {
        "metadata" | "kind" | "apiVersion" => false,
        "status" => !status_apart,
        _ => true,
    };
    new.keys().filter(of_spec).any(|key| old.get(key) != new.get(key))
        || old.keys().filter(of_spec).any(|key| !new.contains_key(key))
}

pub fn set_generation(object: &mut Value, generation: i64) {
    meta::metadata_mut(object).insert("generation".into(), generation.into());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spec_changes_are_seen() {
        let resource = mk8s_api::registry::find("apps", "v1", "deployments").expect("a row");
        let old = json!({"kind": "X", "metadata": {"a": 1}, "spec": {"r": 1}, "status": {"x": 1}});
        let rows = [
            (
                json!({"kind": "X", "metadata": {"a": 2}, "spec": {"r": 1}, "status": {}}),
                false,
            ),
            (json!({"kind": "X", "metadata": {"a": 1}, "spec": {"r": 2}}), true),
            (json!({"kind": "X", "metadata": {"a": 1}}), true),
            (json!({"kind": "X", "spec": {"r": 1}, "data": {}}), true),
        ];
        for (new, changed) in rows {
            assert_eq!(spec_changed(resource.stored(), &new, &old), changed, "{new}");
        }
    }
}
