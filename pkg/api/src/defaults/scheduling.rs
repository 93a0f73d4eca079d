//! scheduling.k8s.io and node.k8s.io.

use serde_json::Value;

use super::{get, map, value};

pub fn priority_class(class: &mut Value) {
    if let Some(map) = map(class) {
        value(map, "preemptionPolicy", "PreemptLowerPriority");
        value(map, "value", 0);
    }
}

pub fn runtime_class(class: &mut Value) {
    if let Some(overhead) = map(class).and_then(|map| get(map, "overhead")) {
        super::resource_list(overhead, "podFixed");
    }
}
