//! Defaults, preparation and validation against what upstream v1.35.4 itself answers: `upstream.jsonl` was recorded
//! from its strategies (create, or update with `old`). A line has the object as a client sends it and either the causes
//! of the refusal, in order, or what the object becomes.
#![allow(clippy::unwrap_used)]

use mk8s_api::{meta, registry, validation};
use serde_json::Value;

/// Absent and `null` are the same; the server's own metadata differs by time.
fn plain(mut object: Value) -> Value {
    fn drop_nulls(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|_, value| !value.is_null());
                map.values_mut().for_each(drop_nulls);
            }
            Value::Array(items) => items.iter_mut().for_each(drop_nulls),
            _ => {}
        }
    }
    drop_nulls(&mut object);
    for key in ["uid", "creationTimestamp", "resourceVersion", "generation"] {
        meta::remove(&mut object, &["metadata", key]);
    }
    object
}

#[test]
fn answers_are_upstreams() {
    let mut wrong = Vec::new();
    for line in include_str!("upstream.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let name = case["name"].as_str().unwrap();
        let mut object = case["object"].clone();
        let (group, version) = meta::split_api_version(meta::api_version(&object));
        let row = registry::find_kind(group, version, meta::kind(&object)).unwrap();
        (row.hooks.default)(&mut object);
        let errors = if let Some(old) = case.get("old") {
            let mut old = old.clone();
            (row.hooks.default)(&mut old);
            if let (Some(_), Some(status)) = (row.subresource("status"), old.get("status")) {
                object["status"] = status.clone();
            }
            (row.hooks.prepare_update)(&mut object, &old);
            validation::update(row, &object, &old)
        } else {
            meta::set(&mut object, &["metadata", "uid"], "u");
            (row.hooks.prepare_create)(&mut object);
            validation::create(row, &object)
        };
        let causes: Vec<Value> = errors
            .iter()
            .map(|error| serde_json::json!([error.field, error.body()]))
            .collect();
        let expected = case["causes"].as_array().cloned().unwrap_or_default();
        if causes != expected {
            wrong.push(format!("{name}: {causes:?}, upstream {expected:?}"));
        } else if let Some(expected) = case.get("becomes")
            && plain(object.clone()) != *expected
        {
            wrong.push(format!("{name}: {}, upstream {expected}", plain(object)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
