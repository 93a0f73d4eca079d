//! What controllers ask of a pod: is it active, ready, available, finished?

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use mk8s_api::conditions;

use crate::driver::Next;
use crate::meta;

/// The pod's phase; Pending where none is set.
pub fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|s| s.phase.as_deref())
        .unwrap_or("Pending")
}

/// Succeeded or Failed: it will not run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !meta::deleting(pod)
}

/// A condition by its type.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    conditions::find(pod.status.as_ref()?.conditions.as_ref(), type_)
}

/// Is condition Ready true?
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// When the pod became ready.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |t| t.0))
}

/// How long until a ready pod counts as available; zero when it does, None when it is not ready.
pub fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    let since = ready_since(pod)?;
    if min_ready_seconds <= 0 {
        return Some(Duration::ZERO);
    }
    let age = now.as_second().saturating_sub(since.as_second());
    let left = i64::from(min_ready_seconds).saturating_sub(age).max(0);
    Some(Duration::from_secs(left.unsigned_abs()))
}

/// Ready for at least `min_ready_seconds`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_in(pod, min_ready_seconds, now) == Some(Duration::ZERO)
}

/// When the next ready pod becomes available, in case availability takes time.
pub fn next_availability<'p>(
    pods: impl IntoIterator<Item = &'p Arc<Pod>>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Next {
    let times = pods
        .into_iter()
        .filter_map(|pod| available_in(pod, min_ready_seconds, now));
    let soonest = times.filter(|left| !left.is_zero()).min();
    soonest.map_or(Next::Done, Next::After)
}

/// The node it runs on; empty while it has none.
pub fn node(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|s| s.node_name.as_deref())
        .unwrap_or_default()
}

/// Its volumes, as far as informers keep them.
pub fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// The restarts of the container that restarted most.
pub fn restarts(pod: &Pod) -> i32 {
    pod.status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten())
        .map(|c| c.restart_count)
        .max()
        .unwrap_or(0)
}

/// The restarts of all its containers.
pub fn all_restarts(pod: &Pod) -> i32 {
    let status = pod.status.iter();
    let containers = status.flat_map(|s| {
        let first = s.init_container_statuses.iter().flatten();
        first.chain(s.container_statuses.iter().flatten())
    });
    containers.map(|c| c.restart_count).sum()
}

/// A condition that begins now.
pub fn new_condition(type_: &str, status: &str, reason: &str, message: &str, now: &Time) -> PodCondition {
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(now.clone()),
        ..PodCondition::default()
    }
}
