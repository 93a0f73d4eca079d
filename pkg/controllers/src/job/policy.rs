//! What a failed pod means for its Job (podFailurePolicy), and which successes are enough (successPolicy). Pure.

use k8s_openapi::api::batch::v1::{PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, SuccessPolicy};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::indexes::Indexes;
use crate::meta;

/// What becomes of a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It counts towards the back-off limit.
    Count,
    /// It does not count.
    Ignore,
    /// Its index has failed.
    FailIndex,
    /// The Job has failed, for this reason.
    FailJob(String),
}

/// The verdict of the first rule that matches.
pub fn verdict(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let rules = policy.map(|p| p.rules.as_slice()).unwrap_or_default();
    for (at, rule) in rules.iter().enumerate() {
        let cause = if let Some(codes) = &rule.on_exit_codes {
            exit_code(pod, codes).map(|(container, code)| {
                format!(
                    "Container {container} for pod {}/{} failed with exit code {code}",
                    meta::namespace(pod),
                    meta::name(pod)
                )
            })
        } else {
            let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
            let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
            conditions
                .filter(|c| {
                    patterns
                        .iter()
                        .any(|p| p.type_ == c.type_ && p.status.as_deref().unwrap_or("True") == c.status)
                })
                .map(|c| {
                    format!(
                        "Pod {}/{} has condition {}",
                        meta::namespace(pod),
                        meta::name(pod),
                        c.type_
                    )
                })
                .next()
        };
        let Some(cause) = cause else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!("{cause} matching FailJob rule at index {at}")),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn exit_code(pod: &Pod, wanted: &PodFailurePolicyOnExitCodesRequirement) -> Option<(String, i32)> {
    let status = pod.status.as_ref()?;
    let found = |all: &Option<Vec<ContainerStatus>>| {
        all.iter().flatten().find_map(|container| {
            let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
            let named = wanted
                .container_name
                .as_ref()
                .is_none_or(|name| *name == container.name);
            let listed = wanted.values.contains(&code);
            let matches = match wanted.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            };
            (code != 0 && named && matches).then(|| (container.name.clone(), code))
        })
    };
    found(&status.container_statuses).or_else(|| found(&status.init_container_statuses))
}

/// The rule that the successes meet, in words.
pub fn success(policy: Option<&SuccessPolicy>, completions: i32, succeeded: &Indexes) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let met = policy?.rules.iter().position(|rule| {
        let Some(text) = &rule.succeeded_indexes else {
            return rule.succeeded_count.is_some_and(|count| succeeded.len() >= count);
        };
        let required = Indexes::parse(text, completions);
        let shared = required.shared(succeeded);
        !required.is_empty() && (shared == required.len() || rule.succeeded_count.is_some_and(|count| shared >= count))
    })?;
    Some(format!("Matched rules at index {met}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn first_matching_rule_decides() {
        let policy: PodFailurePolicy = serde_json::from_value(json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1]}},
        ]}))
        .unwrap();
        let pod = |container: &str, code: i32, disrupted: bool| -> Pod {
            let conditions = if disrupted {
                json!([{"type": "DisruptionTarget", "status": "True"}])
            } else {
                json!([])
            };
            let status = json!([{"name": container, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code}}}]);
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "d"},
                "status": {"conditions": conditions, "containerStatuses": status}}))
            .unwrap()
        };
        let fail = "Container main for pod d/p failed with exit code 42 matching FailJob rule at index 1".to_owned();
        for (p, expected) in [
            (pod("main", 42, true), Verdict::Ignore),
            (pod("main", 42, false), Verdict::FailJob(fail)),
            (pod("side", 42, false), Verdict::FailIndex),
            (pod("main", 1, false), Verdict::Count),
        ] {
            assert_eq!(verdict(Some(&policy), &p), expected);
        }
        assert_eq!(verdict(None, &pod("main", 42, true)), Verdict::Count);
    }

    #[test]
    fn success_needs_all_listed_indexes_or_enough_of_them() {
        let met = |rule: serde_json::Value, done: &str| {
            let policy: SuccessPolicy = serde_json::from_value(json!({"rules": [rule]})).unwrap();
            success(Some(&policy), 10, &Indexes::parse(done, 10)).is_some()
        };
        assert!(met(json!({"succeededIndexes": "0,2-3"}), "0-3"));
        assert!(!met(json!({"succeededIndexes": "0,2-3"}), "0,2"));
        assert!(met(json!({"succeededIndexes": "0,2-3", "succeededCount": 2}), "0,2"));
        assert!(met(json!({"succeededCount": 1}), "5"));
        assert!(!met(json!({"succeededCount": 1}), ""));
    }
}
