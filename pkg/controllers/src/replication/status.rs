//! What a set says of its pods: counts, availability, and whether making or deleting them fails. Pure but for the clock that stamps a
//! condition when it is set.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::set::Set;
use crate::error::Error;
use crate::meta::{self, nonzero, to_i32};
use crate::pod;

/// The status that the pods amount to.
pub fn status<S: Set>(
    set: &S,
    claimed: &[Arc<Pod>],
    failure: Option<&Error>,
    active_count: usize,
    now: Timestamp,
) -> ReplicaSetStatus {
    let before = set.status();
    let template = set.template().and_then(|t| t.metadata.as_ref()?.labels.clone());
    let template = template.unwrap_or_default();
    let min_ready = set.min_ready_seconds();
    let active: Vec<&Arc<Pod>> = claimed.iter().filter(|p| pod::is_active(p)).collect();
    let count = |keep: &dyn Fn(&Pod) -> bool| to_i32(active.iter().filter(|p| keep(p)).count());
    let terminating = to_i32(
        claimed
            .iter()
            .filter(|p| meta::deleting(&***p) && !pod::is_terminal(p))
            .count(),
    );

    let mut conditions: Vec<ReplicaSetCondition> = before.conditions.unwrap_or_default();
    let known = conditions.iter().position(|c| c.type_ == "ReplicaFailure");
    match failure {
        Some(error) if known.is_none() => {
            let reason = if active_count < set.wanted() {
                "FailedCreate"
            } else {
                "FailedDelete"
            };
            let text = error.message();
            conditions.push(ReplicaSetCondition {
                type_: "ReplicaFailure".to_owned(),
                status: "True".to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(text),
                last_transition_time: Some(meta::now()),
            });
        }
        None => conditions.retain(|c| c.type_ != "ReplicaFailure"),
        Some(_) => {}
    }
    ReplicaSetStatus {
        replicas: to_i32(active.len()),
        fully_labeled_replicas: nonzero(count(&|p| meta::selects(&template, meta::labels(p)))),
        ready_replicas: nonzero(count(&pod::is_ready)),
        available_replicas: nonzero(count(&|p| pod::is_available(p, min_ready, now))),
        terminating_replicas: S::TELLS_TERMINATING.then_some(terminating),
        observed_generation: set.meta().generation.or(before.observed_generation),
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use k8s_openapi::api::apps::v1::ReplicaSet;
    use serde_json::json;

    use super::*;
    use crate::driver::Next;

    #[test]
    fn status_counts_active_pods_and_sets_failure_once() {
        let set: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"name": "rs", "generation": 3},
            "spec": {"replicas": 4, "selector": {}, "minReadySeconds": 10, "template": {"metadata": {"labels": {"a": "b"}}}},
        }))
        .unwrap();
        let now: Timestamp = "2024-01-01T00:01:00Z".parse().unwrap();
        let pod = |since: &str, phase: &str, deleting: bool| -> Arc<Pod> {
            let at = deleting.then_some("2024-01-01T00:00:00Z");
            let value = json!({"metadata": {"labels": {"a": "b"}, "deletionTimestamp": at},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]}});
            Arc::new(serde_json::from_value(value).unwrap())
        };
        let pods = [
            pod("2024-01-01T00:00:00Z", "Running", false),
            pod("2024-01-01T00:00:55Z", "Running", false),
            pod("2024-01-01T00:00:00Z", "Failed", false),
            pod("2024-01-01T00:00:00Z", "Running", true),
        ];
        let error = Error::Invalid("no quota".to_owned());
        let found = status(&set, &pods, Some(&error), 2, now);
        assert_eq!(
            (found.replicas, found.ready_replicas, found.available_replicas),
            (2, Some(2), Some(1))
        );
        assert_eq!(
            (
                found.fully_labeled_replicas,
                found.terminating_replicas,
                found.observed_generation
            ),
            (Some(2), Some(1), Some(3))
        );
        let condition = &found.conditions.as_ref().unwrap()[0];
        assert_eq!(
            (condition.reason.as_deref(), condition.message.as_deref()),
            (Some("FailedCreate"), Some("no quota"))
        );
        let mut next = set.clone();
        next.status = Some(found);
        assert_eq!(status(&next, &pods, None, 4, now).conditions, None);
        let active: Vec<_> = pods[..2].to_vec();
        assert_eq!(
            pod::next_availability(&active, 10, now),
            Next::After(Duration::from_secs(5))
        );
    }
}
