//! Defaults, preparation and validation against what upstream v1.35.4 itself answers: `upstream.jsonl` was recorded
//! from its strategies (create, or update with `old`). A line has the object as a client sends it and either the causes
//! of the refusal, in order, or what the object becomes. `hack/update-upstream-answers.sh` records them again.
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
    meta::remove(&mut object, &["status", "lastPhaseTransitionTime"]);
    for condition in meta::items_mut(&mut object, &["status", "conditions"]) {
        meta::remove(condition, &["lastTransitionTime"]);
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
        let (sent, stored) = (row.serving(group, version).unwrap(), row.stored());
        let to_stored = |object: &mut Value| {
            sent.to_stored(stored, object);
            (stored.default)(object);
        };
        if case.get("old").is_none() {
            meta::set(&mut object, &["metadata", "uid"], "u");
        }
        to_stored(&mut object);
        let errors = if let Some(old) = case.get("old") {
            let mut old = old.clone();
            to_stored(&mut old);
            if let (Some(_), Some(status)) = (sent.subresource("status"), old.get("status")) {
                object["status"] = status.clone();
            }
            row.prepare_update(&mut object, &old);
            validation::update(row, sent, &object, &old, &mut Vec::new())
        } else {
            row.prepare_create(&mut object);
            validation::create(row, sent, &object)
        };
        sent.from_stored(stored, &mut object);
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

/// Every path of a value, deepest last.
fn paths(value: &Value, prefix: &str, all: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, value)| (index.to_string(), value))
            .collect(),
        _ => return,
    };
    for (key, child) in children {
        let path = format!("{prefix}/{key}");
        all.push(path.clone());
        paths(child, &path, all);
    }
}

/// Whatever stands where: hooks and columns answer, they never panic.
#[test]
fn no_shape_of_an_object_panics() {
    let now = "2024-01-01T00:00:00Z".parse().unwrap();
    let odd = [
        Value::Null,
        "".into(),
        "x".into(),
        0.into(),
        (-1).into(),
        true.into(),
        Value::Array(vec![]),
        serde_json::json!([{}]),
        serde_json::json!({}),
    ];
    for (index, line) in include_str!("upstream.jsonl").lines().enumerate() {
        let case: Value = serde_json::from_str(line).unwrap();
        let mut base = case["object"].clone();
        let (group, version) = meta::split_api_version(meta::api_version(&base));
        let row = registry::find_kind(group, version, meta::kind(&base)).unwrap();
        let sent = row.serving(group, version).unwrap();
        if index % 3 == 0 {
            (sent.default)(&mut base);
        }
        let mut all = Vec::new();
        paths(&base, "", &mut all);
        for (number, path) in all.iter().enumerate() {
            let mut object = base.clone();
            *object.pointer_mut(path).unwrap() = odd[(number + index) % odd.len()].clone();
            let old = base.clone();
            (sent.default)(&mut object);
            registry::columns::cells(&sent.columns, &object, now);
            row.selectable(&object).count();
            validation::update(row, sent, &object, &old, &mut Vec::new());
            row.prepare_update(&mut object, &old);
            row.prepare_create(&mut object);
            validation::create(row, sent, &object);
            validation::warnings(row, &object, None);
            if let Some(convert) = &sent.convert {
                (convert.to_stored)(&mut object);
                (convert.from_stored)(&mut object);
            }
        }
    }
}
