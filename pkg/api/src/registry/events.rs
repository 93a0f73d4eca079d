//! events.k8s.io/v1: the core group's Events under newer field names. One object is stored (the core form).

use serde_json::{Map, Value};

use super::{Convert, Resource};
use crate::{meta, validation};

/// (name in core/v1, name in events.k8s.io/v1); every other field has one name.
const FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// The newer version of the core group's Event.
pub(super) fn served(core: Resource) -> Resource {
    core.also("events.k8s.io", "v1", Some(Convert { to_stored, from_stored }))
        .default(|_| {})
        .validate_version(validation::newer_event)
        .validate_version_update(validation::newer_event_update)
        .other_fields()
        .field("regarding.kind", &["involvedObject", "kind"])
        .field("regarding.namespace", &["involvedObject", "namespace"])
        .field("regarding.name", &["involvedObject", "name"])
        .field("regarding.uid", &["involvedObject", "uid"])
        .field("regarding.apiVersion", &["involvedObject", "apiVersion"])
        .field("regarding.resourceVersion", &["involvedObject", "resourceVersion"])
        .field("regarding.fieldPath", &["involvedObject", "fieldPath"])
        .fields(&["reason"])
        .field("reportingController", &["reportingComponent"])
        .fields(&["type"])
}

/// events.k8s.io/v1 → v1, in place.
pub fn to_stored(object: &mut Value) {
    rename(object, |(core, new)| (new, core));
    if let Value::Object(map) = object {
        // both are always there in the core form
        for key in ["involvedObject", "source"] {
            map.entry(key).or_insert_with(|| Value::Object(Map::new()));
        }
    }
    meta::remove_zero(object, &["series", "count"]);
}

/// v1 → events.k8s.io/v1, in place.
pub fn from_stored(object: &mut Value) {
    rename(object, |(core, new)| (core, new));
    for key in ["reportingController", "reportingInstance"] {
        meta::remove_zero(object, &[key]);
    }
    if let Some(Value::Object(series)) = meta::at_mut(object, &["series"]) {
        series.entry("count").or_insert_with(|| 0.into());
    }
}

fn rename(object: &mut Value, order: fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    let Value::Object(map) = object else { return };
    for pair in FIELDS {
        let (from, to) = order(pair);
        if let Some(value) = map.remove(from) {
            map.insert(to.into(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_ways_without_loss() {
        let core = json!({
            "kind": "Event", "metadata": {"name": "e"}, "message": "m", "reason": "r", "type": "Normal",
            "involvedObject": {"kind": "Pod"}, "source": {"component": "kubelet"}, "count": 3,
            "firstTimestamp": "2024-01-01T00:00:00Z", "lastTimestamp": null, "eventTime": null,
            "reportingComponent": "kubelet", "reportingInstance": "n1"});
        let mut object = core.clone();
        from_stored(&mut object);
        assert_eq!(object["note"], "m");
        assert_eq!(object["deprecatedCount"], 3);
        assert_eq!(object["regarding"]["kind"], "Pod");
        assert!(object.get("message").is_none());
        to_stored(&mut object);
        assert_eq!(object, core);
    }
}
