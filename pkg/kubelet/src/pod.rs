//! Short readings of a Pod: the API type is all options, and every module asks the same few questions of it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, ObjectReference, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The terminal phases: a pod never leaves them.
pub fn is_terminal_phase(phase: &str) -> bool {
    phase == "Succeeded" || phase == "Failed"
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// `name_namespace(uid)`: how the node's messages have always named a pod.
pub fn display(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

pub fn status(pod: &Pod) -> &PodStatus {
    static EMPTY: std::sync::LazyLock<PodStatus> = std::sync::LazyLock::new(PodStatus::default);
    pod.status.as_ref().unwrap_or(&EMPTY)
}

pub fn phase(pod: &Pod) -> &str {
    status(pod).phase.as_deref().unwrap_or("Pending")
}

pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

pub fn containers(pod: &Pod) -> &[Container] {
    &spec(pod).containers
}

/// Init containers first, as they run.
pub fn all_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    init_containers(pod).iter().chain(containers(pod))
}

pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    all_containers(pod).find(|c| c.name == name)
}

pub fn is_init(pod: &Pod, name: &str) -> bool {
    init_containers(pod).iter().any(|c| c.name == name)
}

/// A sidecar: an init container that keeps running beside the pod's own.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The container's own policy, else its pod's.
fn restart_policy<'a>(pod: &'a Pod, container: &'a Container) -> &'a str {
    let own = container.restart_policy.as_deref();
    own.or(spec(pod).restart_policy.as_deref()).unwrap_or("Always")
}

/// Whether a container that ended with this code runs again: by the first of its rules that speaks of the code, else by its policy
/// (KEP-5307). Init containers that succeeded have done their part, whatever this says.
pub fn restarts(pod: &Pod, container: &Container, code: i32) -> bool {
    has_rule(container, code)
        || match restart_policy(pod, container) {
            "Never" => false,
            "OnFailure" => code != 0,
            _ => true,
        }
}

/// Whether it runs again when its node ends it: there is no code yet of which a rule could speak.
pub fn restarts_when_ended(pod: &Pod, container: &Container) -> bool {
    restart_policy(pod, container) != "Never"
}

/// All that a rule can ask for is a restart: the API takes no other action. Without a policy of its own a container has no rules.
fn has_rule(container: &Container, code: i32) -> bool {
    let mut rules = container.restart_policy_rules.iter().flatten();
    let speaks = |rule: &ContainerRestartRule| {
        let codes = rule.exit_codes.as_ref();
        codes.is_some_and(
            |on| match (on.operator.as_str(), on.values.iter().flatten().any(|own| *own == code)) {
                ("In", among) => among,
                ("NotIn", among) => !among,
                _ => false,
            },
        )
    };
    container.restart_policy.is_some() && rules.any(|rule| rule.action == "Restart" && speaks(rule))
}

pub fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network.unwrap_or(false)
}

pub fn deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Grace of a pod that is being stopped: the deletion's, else the spec's.
pub fn grace_seconds(pod: &Pod) -> i64 {
    if deleting(pod)
        && let Some(grace) = pod.metadata.deletion_grace_period_seconds
    {
        return grace.max(0);
    }
    spec(pod).termination_grace_period_seconds.unwrap_or(30).max(0)
}

/// When the last process of a pod that ends now is to be gone. The API's deletionTimestamp is that moment, in whole seconds;
/// where its clock is ahead of this node's, no more than the grace is granted.
pub fn deadline(pod: &Pod, now: jiff::Timestamp) -> jiff::Timestamp {
    let later = |at: jiff::Timestamp, seconds: i64| {
        let duration = jiff::SignedDuration::from_secs(seconds);
        at.checked_add(duration).unwrap_or(jiff::Timestamp::MAX)
    };
    let granted = later(now, grace_seconds(pod));
    let asked = pod.metadata.deletion_timestamp.as_ref().map(|at| later(at.0, 1));
    asked.map_or(granted, |asked| asked.min(granted))
}

pub fn labels(pod: &Pod) -> &BTreeMap<String, String> {
    static EMPTY: BTreeMap<String, String> = BTreeMap::new();
    pod.metadata.labels.as_ref().unwrap_or(&EMPTY)
}

pub fn annotations(pod: &Pod) -> &BTreeMap<String, String> {
    static EMPTY: BTreeMap<String, String> = BTreeMap::new();
    pod.metadata.annotations.as_ref().unwrap_or(&EMPTY)
}

/// What an event about the pod points at.
pub fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// What an event about one of its containers points at.
pub fn container_reference(pod: &Pod, container: &str) -> ObjectReference {
    let list = if is_init(pod, container) {
        "initContainers"
    } else {
        "containers"
    };
    ObjectReference {
        field_path: Some(format!("spec.{list}{{{container}}}")),
        ..reference(pod)
    }
}

/// API times have whole seconds.
pub fn time(at: jiff::Timestamp) -> Time {
    Time(jiff::Timestamp::from_second(at.as_second()).unwrap_or(at))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_runs_again_by_its_rules_its_policy_or_its_pods() {
        let rule = |operator: &str, codes: &[i32]| json!([{"action": "Restart", "exitCodes": {"operator": operator, "values": codes}}]);
        let own = |policy: &str| json!({"name": "a", "restartPolicy": policy});
        let ruled =
            |rules: serde_json::Value| json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules": rules});
        // By exit code 0, 1 and 42, and when its node ends it.
        for (policy, container, expected) in [
            ("Always", json!({"name": "a"}), [true, true, true, true]),
            ("OnFailure", json!({"name": "a"}), [false, true, true, true]),
            ("Never", json!({"name": "a"}), [false, false, false, false]),
            ("Never", own("Always"), [true, true, true, true]),
            ("Never", own("OnFailure"), [false, true, true, true]),
            ("Always", own("Never"), [false, false, false, false]),
            ("Always", ruled(rule("In", &[42])), [false, false, true, false]),
            ("Always", ruled(rule("NotIn", &[0, 42])), [false, true, false, false]),
            (
                "Never",
                json!({"name": "a", "restartPolicyRules": rule("In", &[42])}),
                [false, false, false, false],
            ),
        ] {
            let spec = json!({"restartPolicy": policy, "containers": [container]});
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            let own = &containers(&pod)[0];
            let [zero, one, answer] = [0, 1, 42].map(|code| restarts(&pod, own, code));
            assert_eq!([zero, one, answer, restarts_when_ended(&pod, own)], expected, "{spec}");
        }
    }

    #[test]
    fn deadlines() {
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        for (deleted, grace, now, expected, why) in [
            (Some(130), 30, 100, 130, "told at once"),
            (
                Some(130),
                30,
                110,
                131,
                "told late: the rest of it, to the end of the second",
            ),
            (Some(130), 30, 500, 131, "told when it was over"),
            (Some(900), 30, 100, 130, "the API's clock is ahead"),
            (Some(100), 0, 100, 100, "at once"),
            (None, 30, 100, 130, "nobody deleted it: the spec's grace from now"),
        ] {
            let mut pod = Pod::default();
            pod.metadata.deletion_timestamp = deleted.map(|second| time(at(second)));
            pod.metadata.deletion_grace_period_seconds = deleted.map(|_| grace);
            assert_eq!(deadline(&pod, at(now)), at(expected), "{why}");
        }
    }
}
