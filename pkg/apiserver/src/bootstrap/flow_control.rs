//! What becomes of the flow schemas and priority levels that a cluster begins with when somebody changed them: the fixed ones
//! are as they were, of the others those whose annotation says so, or that nobody ever changed.

use mk8s_api::meta;
use serde_json::{Value, json};

use super::{objects, roles};

pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";

const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// All of them. They are asked for each minute: of no other line of the table is a tree made.
pub fn wanted() -> Vec<Value> {
    let lines = roles::lines().filter(|line| line.contains(GROUP));
    let objects = lines.filter_map(|line| serde_json::from_str(line).ok());
    let mut objects: Vec<Value> = objects.filter(is_one).collect();
    objects.iter_mut().for_each(with_level);
    objects
}

/// Whether an object is one of them.
pub fn is_one(object: &Value) -> bool {
    meta::split_api_version(meta::api_version(object)).0 == GROUP
}

/// A flow schema's condition that its priority level exists (all of them are in the table).
pub fn with_level(object: &mut Value) {
    if object["kind"] != "FlowSchema" {
        return;
    }
    let level = object["spec"]["priorityLevelConfiguration"]["name"]
        .as_str()
        .unwrap_or_default();
    let message =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} and it exists");
    object["status"] = json!({"conditions": [{
        "type": "Dangling", "status": "False", "reason": "Found", "message": message,
        "lastTransitionTime": objects::now(),
    }]});
}

/// What is stored, with the spec and the annotation that it ought to have. None where it has them.
pub fn revised(stored: &Value, wanted: &Value) -> Option<Value> {
    let said = meta::annotation(stored, AUTO_UPDATE).and_then(flag);
    let is_fixed = matches!(meta::name(wanted), "exempt" | "catch-all");
    let generation = meta::i64_at(stored, &["metadata", "generation"]);
    let is_kept = is_fixed || said.unwrap_or(generation == Some(1));
    let changed = is_kept && !alike(&stored["spec"], &wanted["spec"]);
    if said == Some(is_kept) && !changed {
        return None;
    }
    let mut object = stored.clone();
    let metadata = meta::metadata_mut(&mut object);
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    annotations[AUTO_UPDATE] = is_kept.to_string().into();
    if changed {
        metadata.insert("generation".into(), (generation.unwrap_or(0) + 1).into());
        object["spec"] = wanted["spec"].clone();
    }
    Some(object)
}

/// But for the share of those who are exempt, which an administrator chooses.
fn alike(stored: &Value, wanted: &Value) -> bool {
    if !wanted["exempt"].is_object() {
        return stored == wanted;
    }
    let mut stored = stored.clone();
    for chosen in ["lendablePercent", "nominalConcurrencyShares"] {
        match stored.get_mut("exempt") {
            Some(exempt @ Value::Object(_)) => exempt[chosen] = wanted["exempt"][chosen].clone(),
            _ => return false,
        }
    }
    stored == *wanted
}

/// As Go reads a bool.
fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, generation: i64, said: Option<&str>, spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": name, "generation": generation}, "spec": spec});
        if let Some(said) = said {
            object["metadata"]["annotations"] = json!({AUTO_UPDATE: said});
        }
        object
    }

    #[test]
    fn what_is_not_an_administrators_comes_back() {
        let (own, other) = (json!({"a": 1}), json!({"a": 2}));
        for (name, generation, said, spec, becomes) in [
            ("system", 1, Some("true"), &own, None),
            ("system", 3, Some("true"), &other, Some(("true", 4, &own))),
            ("system", 3, Some("T"), &own, None),
            ("system", 3, Some("false"), &other, None),
            ("system", 1, Some("odd"), &other, Some(("true", 2, &own))),
            ("system", 1, None, &own, Some(("true", 1, &own))),
            ("system", 2, None, &other, Some(("false", 2, &other))),
            ("catch-all", 2, Some("false"), &own, Some(("true", 2, &own))),
            ("catch-all", 2, Some("false"), &other, Some(("true", 3, &own))),
        ] {
            let stored = object(name, generation, said, spec.clone());
            let wanted = object(name, 1, Some("true"), own.clone());
            let expected = becomes.map(|(said, generation, spec)| object(name, generation, Some(said), spec.clone()));
            assert_eq!(revised(&stored, &wanted), expected, "{stored}");
        }
    }

    #[test]
    fn the_share_of_those_who_are_exempt_is_chosen() {
        let share =
            |of: i64| json!({"type": "Exempt", "exempt": {"lendablePercent": of, "nominalConcurrencyShares": of}});
        let wanted = object("exempt", 1, Some("true"), share(0));
        assert_eq!(revised(&object("exempt", 2, Some("true"), share(9)), &wanted), None);
        let without = object("exempt", 2, Some("true"), json!({"type": "Exempt"}));
        assert_eq!(
            revised(&without, &wanted),
            Some(object("exempt", 3, Some("true"), share(0)))
        );
    }
}
