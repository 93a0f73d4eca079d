//! The smallest strategic merge patch from one status to another.
//!
//! Conditions are merged by type, so that what a controller or a user set stays; addresses likewise by ip; everything else
//! is replaced whole.

use serde_json::{Map, Value, json};

use super::conditions;

/// None: nothing changed.
pub fn patch(uid: &str, old: &Value, new: &Value) -> Option<Value> {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let mut changes = Map::new();
    for (key, value) in new {
        let before = old.get(key);
        if before == Some(value) {
            continue;
        }
        let change = match key.as_str() {
            "conditions" => changed_conditions(before, value),
            "podIPs" | "hostIPs" => Some(replaced_by_key(before, value, "ip")),
            _ => Some(value.clone()),
        };
        if let Some(change) = change {
            changes.insert(key.clone(), change);
        }
    }
    for key in old.keys().filter(|k| !new.contains_key(*k)) {
        changes.insert(key.clone(), Value::Null);
    }
    if changes.is_empty() {
        return None;
    }
    Some(json!({"metadata": {"uid": uid}, "status": changes}))
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn changed_conditions(old: Option<&Value>, new: &Value) -> Option<Value> {
    let before = items(old);
    let is_owned = |c: &&Value| conditions::OWNED.contains(&c["type"].as_str().unwrap_or_default());
    let is_shown = |c: &&Value| items(Some(new)).iter().any(|n| n["type"] == c["type"]);
    let gone = before.iter().filter(is_owned).filter(|c| !is_shown(c));
    let gone = gone.map(|c| json!({"$patch": "delete", "type": c["type"]}));
    let changed: Vec<Value> = items(Some(new))
        .iter()
        .filter(is_owned)
        .filter(|c| !before.contains(c))
        .map(|c| {
            let mut c = c.clone();
            // What a condition no longer says has to be taken back by name.
            let previous = before.iter().find(|b| b["type"] == c["type"]);
            if let (Some(Value::Object(previous)), Value::Object(c)) = (previous, &mut c) {
                for key in previous.keys() {
                    if !c.contains_key(key) {
                        c.insert(key.clone(), Value::Null);
                    }
                }
            }
            c
        })
        .chain(gone)
        .collect();
    (!changed.is_empty()).then_some(Value::Array(changed))
}

fn replaced_by_key(old: Option<&Value>, new: &Value, key: &str) -> Value {
    let wanted = items(Some(new));
    let gone = items(old).iter().filter(|o| !wanted.iter().any(|n| n[key] == o[key]));
    let deletions = gone.map(|o| json!({"$patch": "delete", key: o[key]}));
    Value::Array(wanted.iter().cloned().chain(deletions).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches() {
        let ready = json!({"type": "Ready", "status": "True"});
        let unready = json!({"type": "Ready", "status": "False", "reason": "ContainersNotReady"});
        let resize = json!({"type": "PodResizePending", "status": "True"});
        let foreign = json!({"type": "example.com/x", "status": "True"});
        for (old, new, expected) in [
            (json!({"phase": "Pending"}), json!({"phase": "Pending"}), None),
            (
                json!({"phase": "Pending"}),
                json!({"phase": "Running"}),
                Some(json!({"phase": "Running"})),
            ),
            (json!({"reason": "x"}), json!({}), Some(json!({"reason": null}))),
            (
                json!({"conditions": [foreign.clone(), unready]}),
                json!({"conditions": [foreign.clone(), ready.clone()]}),
                Some(json!({"conditions": [{"type": "Ready", "status": "True", "reason": null}]})),
            ),
            (
                json!({"conditions": [ready.clone(), foreign.clone()]}),
                json!({"conditions": [foreign, ready]}),
                None,
            ),
            (
                json!({"conditions": [ready.clone(), resize, foreign.clone()]}),
                json!({"conditions": [ready.clone()]}),
                Some(json!({"conditions": [{"$patch": "delete", "type": "PodResizePending"}]})),
            ),
            (
                json!({"podIPs": [{"ip": "10.0.0.1"}]}),
                json!({"podIPs": [{"ip": "10.0.0.2"}]}),
                Some(json!({"podIPs": [{"ip": "10.0.0.2"}, {"$patch": "delete", "ip": "10.0.0.1"}]})),
            ),
        ] {
            let expected = expected.map(|status| json!({"metadata": {"uid": "u"}, "status": status}));
            assert_eq!(patch("u", &old, &new), expected);
        }
    }
}
