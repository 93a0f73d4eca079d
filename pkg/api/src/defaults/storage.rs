//! storage.k8s.io.

use serde_json::{Value, json};

use super::{map, object, unset, value};

pub fn storage_class(class: &mut Value) {
    if let Some(map) = map(class) {
        value(map, "reclaimPolicy", "Delete");
        value(map, "volumeBindingMode", "Immediate");
    }
}

pub fn csi_driver(driver: &mut Value) {
    let Some(spec) = map(driver).and_then(|map| object(map, "spec")) else {
        return;
    };
    value(spec, "attachRequired", true);
    for key in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        value(spec, key, false);
    }
    value(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec
        .get("volumeLifecycleModes")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
    {
        spec.insert("volumeLifecycleModes".into(), json!(["Persistent"]));
    }
}

/// Lists that Go prints as `null` when a client sent none.
pub fn csi_node(node: &mut Value) {
    if let Some(spec) = map(node).and_then(|map| object(map, "spec")) {
        spec.entry("drivers").or_insert(Value::Null);
    }
}

pub fn volume_attachment(attachment: &mut Value) {
    let Some(map) = map(attachment) else { return };
    if let Some(spec) = object(map, "spec") {
        object(spec, "source");
    }
    if let Some(status) = object(map, "status")
        && unset(status, "attached")
    {
        status.insert("attached".into(), false.into());
    }
}
