//! Short readings of a Pod: the API type is all options, and every module asks the same few questions of it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, PodSpec, PodStatus};
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

pub fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
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
    use super::*;

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
