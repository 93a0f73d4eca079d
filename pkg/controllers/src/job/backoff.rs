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
    let containers = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    let ends = containers.map(|all| {
        all.iter()
            .map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|t| t.0))
            .collect::<Option<Vec<_>>>()
    });
    if let Some(Some(ends)) = ends
        && let Some(last) = ends.into_iter().max()
    {
        return last;
    }
    let unready = pod::condition(pod, "Ready").filter(|c| c.status == "False");
    if let Some(at) = unready.and_then(|c| c.last_transition_time.as_ref()) {
        return at.0;
    }
    if let Some(at) = &pod.metadata.deletion_timestamp {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        return Timestamp::from_second(at.0.as_second() - grace).unwrap_or(at.0);
    }
    meta::created(pod)
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
}
