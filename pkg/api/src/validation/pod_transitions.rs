//! What a pod's status says against its spec: a container that ended stays so unless its policy lets it begin again, and claims
//! are told of that the spec names. Most statuses say nothing of it, and are judged without the spec (see [`pod_status_by_itself`]).

use std::collections::HashMap;

use serde_json::Value;

use super::{Errors, Path, each, list, text};
use crate::meta as object;
use crate::status::FieldError;

/// Of a status the containers of a kind, and where the spec has them; ephemeral ones never begin again.
const KINDS: [(&str, &str); 3] = [
    ("containerStatuses", "containers"),
    ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", ""),
];

/// Whether a pod's status can be judged without its spec.
pub fn pod_status_by_itself(new: &Value, old: &Value) -> bool {
    let (status, before) = (&new["status"], &old["status"]);
    let nominated = text(status, "nominatedNodeName");
    let claims = status.get("resourceClaimStatuses");
    (claims.is_none_or(Value::is_null) || claims == before.get("resourceClaimStatuses"))
        && (nominated.is_empty() || nominated == text(before, "nominatedNodeName"))
        && KINDS
            .iter()
            .all(|(field, _)| resumed(status, before, field).next().is_none())
}

/// The statuses of before that had ended and are no more, with their index.
fn resumed<'a>(status: &'a Value, before: &'a Value, field: &'a str) -> impl Iterator<Item = (usize, &'a Value)> {
    let ended = |status: &Value| object::at(status, &["state", "terminated"]).is_some();
    let now = by_name(status, field);
    each(before, field).filter(move |(_, had)| ended(had) && now.get(text(had, "name")).is_some_and(|own| !ended(own)))
}

/// The items of a list, the first of each name: there may be hundreds of thousands of them.
fn by_name<'a>(of: &'a Value, field: &'a str) -> HashMap<&'a str, &'a Value> {
    let mut named = HashMap::new();
    for (_, item) in each(of, field) {
        named.entry(text(item, "name")).or_insert(item);
    }
    named
}

/// No container goes on whose policy is to stay ended.
pub(super) fn transitions(status: &Value, before: &Value, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (field, containers) in KINDS {
        let containers = by_name(spec, containers);
        for (index, had) in resumed(status, before, field) {
            let name = text(had, "name");
            let exit = object::i64_at(had, &["state", "terminated", "exitCode"]).unwrap_or(0);
            let container = containers.get(name);
            if !container.is_some_and(|container| begins_again(container, spec, exit)) {
                let path = path.child(field);
                let path = path.index(index);
                let why = "may not be transitioned to non-terminated state";
                errors.push(FieldError::forbidden(path.child("state"), why));
            }
        }
    }
}

/// By the container's own rules, then its own policy, then its pod's.
fn begins_again(container: &Value, spec: &Value, exit: i64) -> bool {
    let own = text(container, "restartPolicy");
    if !own.is_empty() && each(container, "restartPolicyRules").any(|(_, rule)| matches(rule, exit)) {
        return true;
    }
    match (own, text(spec, "restartPolicy")) {
        ("Never", _) | ("", "Never") => false,
        ("OnFailure", _) | ("", "OnFailure") => exit != 0,
        _ => true,
    }
}

/// A rule's only action is to restart: who could ask for another is dropped.
fn matches(rule: &Value, exit: i64) -> bool {
    let Some(codes) = object::at(rule, &["exitCodes"]) else {
        return false;
    };
    let named = list(codes, "values").iter().any(|code| code.as_i64() == Some(exit));
    match text(codes, "operator") {
        "In" => named,
        "NotIn" => !named,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(field: &str, state: &Value) -> Value {
        json!({"status": {field: [{"name": "b", "state": {"running": {}}}, {"name": "a", "state": state}]}})
    }

    #[test]
    fn what_ended_begins_again_by_its_policy_alone() {
        let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [3]}}]);
        let [main, init, ephemeral] = KINDS.map(|(field, _)| field);
        let by_rule = json!({"restartPolicy": "Never", "restartPolicyRules": rules});
        for (field, policy, container, exit, expected) in [
            (main, "Always", json!({}), 0, true),
            (main, "OnFailure", json!({}), 0, false),
            (main, "OnFailure", json!({}), 1, true),
            (main, "Never", json!({}), 1, false),
            (main, "Never", json!({"restartPolicy": "OnFailure"}), 1, true),
            (main, "Always", json!({"restartPolicy": "Never"}), 1, false),
            (main, "Always", by_rule.clone(), 3, true),
            (main, "Always", by_rule, 4, false),
            (init, "Never", json!({"restartPolicy": "Always"}), 0, true),
            (init, "Never", json!({}), 0, false),
            (ephemeral, "Always", json!({}), 1, false),
        ] {
            let mut container = container;
            container["name"] = "a".into();
            let spec = json!({"restartPolicy": policy, "containers": [container], "initContainers": [container]});
            let (old, new) = (
                of(field, &json!({"terminated": {"exitCode": exit}})),
                of(field, &json!({"running": {}})),
            );
            assert!(
                !pod_status_by_itself(&new, &old) && pod_status_by_itself(&old, &old),
                "{field}"
            );
            let mut errors = Errors::new();
            transitions(&new["status"], &old["status"], &spec, &Path::new("status"), &mut errors);
            let paths: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
            let path = format!("status.{field}[1].state");
            let wanted = if expected { vec![] } else { vec![path.as_str()] };
            assert_eq!(paths, wanted, "{policy} {container} {exit}");
        }
    }

    #[test]
    fn what_the_spec_has_a_say_in() {
        let old = json!({"status": {"nominatedNodeName": "n", "resourceClaimStatuses": [{"name": "b"}]}});
        for (status, expected) in [
            (
                json!({"phase": "Running", "containerStatuses": [{"name": "a", "state": {"running": {}}}]}),
                true,
            ),
            (json!({"nominatedNodeName": "n"}), true),
            (json!({"nominatedNodeName": "m"}), false),
            (json!({"resourceClaimStatuses": [{"name": "c"}]}), false),
            (json!({"resourceClaimStatuses": [{"name": "b"}]}), true),
        ] {
            assert_eq!(
                pod_status_by_itself(&json!({"status": status}), &old),
                expected,
                "{status}"
            );
        }
        // And it has none in what stays as it is.
        let mut errors = Errors::new();
        crate::validation::pod_status(&old, &old, &mut errors);
        assert!(errors.is_empty());
    }
}
