//! How long a Job waits before it replaces failed pods: 10 s after the first failure since the last success, twice as long after each further.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::{meta, pod};

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

/// A Job's failures since its last success.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    failures: i32,
    last: Option<Timestamp>,
}

impl Record {
    /// The record after these pods finished as well.
    pub fn after(self, succeeded: &[&Pod], failed: &[&Pod]) -> Record {
        let last_success = succeeded.iter().map(|p| finished_at(p)).max();
        let base = if last_success.is_some() {
            Record::default()
        } else {
            self
        };
        let since = failed
            .iter()
            .map(|p| finished_at(p))
            .filter(|at| last_success.is_none_or(|s| *at > s));
        let times: Vec<Timestamp> = since.collect();
        let count = i32::try_from(times.len()).unwrap_or(i32::MAX);
        Record {
            failures: base.failures.saturating_add(count),
            last: times.into_iter().max().or(base.last),
        }
    }

    /// What is left to wait.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        self.last
            .map_or(Duration::ZERO, |last| remaining(self.failures, last, now))
    }
}

/// What is left to wait after so many failures in a row.
pub fn remaining(failures: i32, last: Timestamp, now: Timestamp) -> Duration {
    if failures <= 0 {
        return Duration::ZERO;
    }
    let factor = 1_u32
        .checked_shl(u32::try_from(failures - 1).unwrap_or(0))
        .unwrap_or(u32::MAX);
    let wait = FIRST.saturating_mul(factor).min(LONGEST);
    let elapsed = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    wait.saturating_sub(elapsed)
}

/// When a pod finished: by its containers, else by its condition, else by its deletion.
pub fn finished_at(pod: &Pod) -> Timestamp {
    if let Some(at) = containers_finished(pod) {
        return at;
    }
    let unready = pod::condition(pod, "Ready").filter(|c| c.status == "False");
    if let Some(at) = unready.and_then(|c| c.last_transition_time.as_ref()) {
        return at.0;
    }
    if let Some(at) = &pod.metadata.deletion_timestamp {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        return Timestamp::from_second(at.0.as_second().saturating_sub(grace)).unwrap_or(at.0);
    }
    meta::created(pod)
}

/// When the last container ended, if all have: those that run to their end, and the sidecars, which outlive them.
fn containers_finished(pod: &Pod) -> Option<Timestamp> {
    let init = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten());
    let sidecars: Vec<&str> = init
        .filter(|c| c.restart_policy.as_deref() == Some("Always"))
        .map(|c| c.name.as_str())
        .collect();
    let status = pod.status.as_ref()?;
    let of_init = status.init_container_statuses.iter().flatten();
    let of_sidecars = of_init.filter(|c| sidecars.contains(&c.name.as_str()));
    let all = status.container_statuses.iter().flatten().chain(of_sidecars);
    let ends = all.map(|c| Some(c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0));
    ends.collect::<Option<Vec<_>>>()?.into_iter().max()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn pod(at: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "status": {"containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": 1, "finishedAt": at}}}]}}))
        .unwrap()
    }

    #[test]
    fn waits_double_with_failures_and_end_with_a_success() {
        let (a, b, c) = (
            pod("2024-01-01T00:00:00Z"),
            pod("2024-01-01T00:00:05Z"),
            pod("2024-01-01T00:00:10Z"),
        );
        let now: Timestamp = "2024-01-01T00:00:10Z".parse().unwrap();
        let two = Record::default().after(&[], &[&a, &b]);
        assert_eq!(two.remaining(now), Duration::from_secs(15));
        assert_eq!(two.after(&[&c], &[]).remaining(now), Duration::ZERO);
        assert_eq!(two.after(&[&b], &[&a, &c]).remaining(now), Duration::from_secs(10));
        assert_eq!(remaining(40, now, now), LONGEST);
    }
    #[test]
    fn a_pod_has_finished_when_its_last_container_has() {
        let ended = |name: &str, at: Option<&str>| {
            let state = match at {
                Some(at) => json!({"terminated": {"exitCode": 1, "finishedAt": at}}),
                None => json!({"running": {}}),
            };
            json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})
        };
        let (one, two) = (Some("2024-01-01T00:00:01Z"), Some("2024-01-01T00:00:02Z"));
        let (never, last) = ("2024-01-01T00:00:00Z", "2024-01-01T00:00:09Z");
        for (containers, init, expected) in [
            (vec![ended("c", one), ended("d", two)], vec![], "2024-01-01T00:00:02Z"),
            (
                vec![ended("c", one)],
                vec![ended("sidecar", two)],
                "2024-01-01T00:00:02Z",
            ),
            (
                vec![ended("c", two)],
                vec![ended("init", one), ended("sidecar", one)],
                "2024-01-01T00:00:02Z",
            ),
            // Not all have: then by its condition.
            (vec![ended("c", one)], vec![ended("sidecar", None)], last),
            (vec![ended("c", one), ended("d", None)], vec![], last),
            (vec![], vec![], last),
        ] {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"creationTimestamp": never},
                "spec": {"containers": [], "initContainers": [{"name": "init"}, {"name": "sidecar", "restartPolicy": "Always"}]},
                "status": {"containerStatuses": containers, "initContainerStatuses": init,
                    "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": last}]}}))
            .unwrap();
            assert_eq!(finished_at(&pod).to_string(), expected, "{containers:?} {init:?}");
        }
    }
}
