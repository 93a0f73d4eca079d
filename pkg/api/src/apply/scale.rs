//! Managers seen through `/scale`: who owns an object's replicas owns those of its Scale.

use std::collections::HashMap;

use super::managed::{Entry, Managed, Owner};
use super::set::Set;

const REPLICAS: &[&str] = &["spec", "replicas"];

/// Where the versions of a kind have their replicas; none: the version has no scale.
pub type ReplicasPath<'a> = &'a dyn Fn(&str) -> Option<Set>;

/// The managers of an object's Scale of a version.
pub fn to_scale(object: &Managed, scale_version: &str, path: ReplicasPath<'_>) -> Managed {
    let owners = object.entries().iter().filter(|entry| owns_replicas(entry, path));
    let entries = owners.map(|entry| {
        let owner = Owner {
            api_version: scale_version.into(),
            ..entry.owner().clone()
        };
        Entry::new(owner, &Set::of_fields(&[REPLICAS]), entry.time)
    });
    Managed::of(entries.collect())
}

/// The managers of an object whose Scale was written: whoever lost the Scale's replicas has lost the object's, and who gained
/// them owns them in the object's version.
pub fn from_scale(object: &Managed, scale: &Managed, api_version: &str, path: ReplicasPath<'_>) -> Managed {
    let replicas = Set::of_fields(&[REPLICAS]);
    let of_scale = |entry: &&Entry| entry.set().intersection(&replicas) == replicas;
    let called = |owner: &Owner| (owner.manager.clone(), owner.operation, owner.subresource.clone());
    let mut gained: HashMap<_, Vec<&Entry>> = HashMap::new();
    for entry in scale.entries().iter().filter(of_scale) {
        gained.entry(called(entry.owner())).or_default().push(entry);
    }
    let mut entries = Vec::with_capacity(object.entries().len() + 1);
    for entry in object.entries() {
        if !owns_replicas(entry, path) {
            entries.push(entry.clone());
            continue;
        }
        match gained.get_mut(&called(entry.owner())).and_then(Vec::pop) {
            Some(_) => entries.push(entry.clone()),
            None => {
                let taken = path(&entry.owner().api_version).unwrap_or_default();
                entries.push(entry.with(&entry.set().difference(&taken)));
            }
        }
    }
    let own = path(api_version).unwrap_or_default();
    entries.extend(gained.into_values().flatten().map(|entry| {
        let owner = Owner {
            api_version: api_version.into(),
            ..entry.owner().clone()
        };
        // As upstream's, these have no time.
        Entry::new(owner, &own, None)
    }));
    Managed::of(entries)
}

fn owns_replicas(entry: &Entry, path: ReplicasPath<'_>) -> bool {
    let replicas = path(&entry.owner().api_version);
    replicas.is_some_and(|replicas| !replicas.is_empty() && entry.set().intersection(&replicas) == replicas)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    const SCALE: &str = "autoscaling/v1";

    #[test]
    fn replicas_change_hands_through_the_scale() {
        let entry = |manager: &str, version: &str, operation: &str, subresource: &str, fields: serde_json::Value| {
            json!({"apiVersion": version, "fieldsType": "FieldsV1", "fieldsV1": fields, "manager": manager,
                "operation": operation, "subresource": subresource, "time": "2026-01-02T03:04:05Z"})
        };
        let both = json!({"f:spec": {"f:paused": {}, "f:replicas": {}}});
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        let path = |version: &str| (version == "apps/v1").then(|| Set::of_fields(&[REPLICAS]));
        let managed = |entries: serde_json::Value| Managed::from_value(&entries).unwrap();
        let object = managed(json!([
            entry("one", "apps/v1", "Apply", "", both.clone()),
            entry("two", "apps/v1", "Update", "", json!({"f:spec": {"f:paused": {}}})),
            entry("old", "apps/v0", "Update", "", replicas.clone()),
        ]));
        let scale = to_scale(&object, SCALE, &path);
        assert_eq!(
            scale,
            managed(json!([entry("one", SCALE, "Apply", "", replicas.clone())]))
        );
        assert_eq!(from_scale(&object, &scale, "apps/v1", &path), object);
        let taken = managed(json!([entry("hpa", SCALE, "Update", "scale", replicas.clone())]));
        let after = from_scale(&object, &taken, "apps/v1", &path).to_value();
        let owners: Vec<String> = after
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| format!("{} {} {}", entry["manager"], entry["apiVersion"], entry["fieldsV1"]))
            .collect();
        assert_eq!(
            owners,
            [
                r#""one" "apps/v1" {"f:spec":{"f:paused":{}}}"#,
                r#""hpa" "apps/v1" {"f:spec":{"f:replicas":{}}}"#,
                r#""old" "apps/v0" {"f:spec":{"f:replicas":{}}}"#,
                r#""two" "apps/v1" {"f:spec":{"f:paused":{}}}"#,
            ]
        );
    }
}
