//! What a budget says of its pods: how many are healthy, and how many of them may be disrupted. Pure but for the clock that stamps a
//! condition when it is set.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mk8s_api::conditions;

use crate::driver::Next;
use crate::meta::{self, to_i32};
use crate::pod;

/// An eviction that did not lead to a deletion in this time did not happen.
pub const NOTE: Duration = Duration::from_secs(120);

/// Does what it asks for depend on how many pods there should be?
pub fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.as_ref();
    spec.is_some_and(|s| s.max_unavailable.is_some() || matches!(s.min_available, Some(IntOrString::String(_))))
}

/// The numbers, where pods with a note count as gone.
pub fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scale: i32,
    noted: BTreeMap<String, Time>,
) -> PodDisruptionBudgetStatus {
    let up = |value: &IntOrString, total: i32| crate::deployment::scaled(value, total, true);
    let spec = budget.spec.clone().unwrap_or_default();
    let (expected, desired) = if let Some(max) = &spec.max_unavailable {
        (scale, (scale - up(max, scale)).max(0))
    } else {
        match &spec.min_available {
            Some(IntOrString::Int(min)) => (to_i32(pods.len()), *min),
            Some(percent) => (scale, up(percent, scale)),
            None => (to_i32(pods.len()), 0),
        }
    };
    let healthy = pods
        .iter()
        .filter(|p| pod::is_ready(p) && !meta::deleting(&***p) && !noted.contains_key(meta::name(&***p)))
        .count();
    let healthy = to_i32(healthy);
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let reason = if allowed > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    let before = budget.status.clone().unwrap_or_default();
    PodDisruptionBudgetStatus {
        current_healthy: healthy,
        desired_healthy: desired,
        expected_pods: expected,
        disruptions_allowed: allowed,
        disrupted_pods: (!noted.is_empty()).then_some(noted),
        observed_generation: budget.metadata.generation,
        conditions: Some(disruption_allowed(
            budget.metadata.generation,
            before.conditions,
            reason,
            "",
        )),
    }
}

/// Of the evictions that have not led to a deletion yet: those that still may, when the first of them runs out, and the pods of
/// those that came to nothing.
pub fn notes(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Next, Vec<Arc<Pod>>) {
    let (mut next, mut noted, mut kept) = (Next::Done, BTreeMap::new(), Vec::new());
    let Some(before) = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref()) else {
        return (noted, next, kept);
    };
    for pod in pods.iter().filter(|pod| !meta::deleting(&***pod)) {
        let name = meta::name(&**pod);
        let Some(at) = before.get(name) else { continue };
        let age = Duration::try_from(now.duration_since(at.0)).unwrap_or_default();
        if age >= NOTE {
            kept.push(pod.clone());
        } else {
            next = next.sooner(Next::After(NOTE - age));
            noted.insert(name.to_owned(), at.clone());
        }
    }
    (noted, next, kept)
}

/// Nothing may be disrupted while the numbers are unknown; those that there are stay, and say of which generation they are.
pub fn failed(budget: &PodDisruptionBudget, message: &str) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = 0;
    let why = ("False", "SyncFailed");
    status.conditions = Some(disruption_allowed(
        status.observed_generation,
        status.conditions,
        why,
        message,
    ));
    status
}

fn disruption_allowed(
    observed_generation: Option<i64>,
    known: Option<Vec<Condition>>,
    (status, reason): (&str, &str),
    message: &str,
) -> Vec<Condition> {
    const TYPE: &str = "DisruptionAllowed";
    let mut all = known.unwrap_or_default();
    let new = Condition {
        type_: TYPE.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation,
        last_transition_time: meta::now(),
    };
    conditions::put(&mut all, new);
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        serde_json::from_value(
            json!({"metadata": {"name": "b", "namespace": "d", "generation": 1}, "spec": spec, "status": status}),
        )
        .unwrap()
    }

    fn pods(ready: usize, unready: usize) -> Vec<Arc<Pod>> {
        (0..ready + unready)
            .map(|n| {
                let status = if n < ready { "True" } else { "False" };
                let pod = json!({"metadata": {"name": format!("p{n}")}, "status": {"conditions": [{"type": "Ready", "status": status}]}});
                Arc::new(serde_json::from_value(pod).unwrap())
            })
            .collect()
    }

    #[test]
    fn budgets_allow_what_is_healthy_beyond_what_is_desired() {
        for (spec, ready, unready, scale, expected) in [
            (json!({"minAvailable": 2}), 3, 0, 3, (3, 2, 1)),
            (json!({"minAvailable": 2}), 2, 1, 3, (3, 2, 0)),
            (json!({"minAvailable": "50%"}), 3, 0, 5, (5, 3, 0)),
            (json!({"maxUnavailable": 1}), 3, 0, 3, (3, 2, 1)),
            (json!({"maxUnavailable": "34%"}), 3, 0, 3, (3, 1, 2)),
            (json!({"maxUnavailable": 1}), 0, 0, 0, (0, 0, 0)),
        ] {
            let found = status(
                &budget(spec.clone(), Value::Null),
                &pods(ready, unready),
                scale,
                BTreeMap::new(),
            );
            assert_eq!(
                (found.expected_pods, found.desired_healthy, found.disruptions_allowed),
                expected,
                "{spec}"
            );
        }
    }

    #[test]
    fn noted_evictions_count_as_unhealthy_for_two_minutes() {
        let now: Timestamp = "2024-01-01T00:02:30Z".parse().unwrap();
        let noted = json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0, "disruptedPods": {
            "p0": "2024-01-01T00:01:00Z", "p1": "2024-01-01T00:00:00Z", "gone": "2024-01-01T00:02:00Z"}});
        let b = budget(json!({"minAvailable": 1}), noted);
        let (noted, next, kept) = notes(&b, &pods(3, 0), now);
        let found = status(&b, &pods(3, 0), 3, noted.clone());
        assert_eq!((found.current_healthy, found.disruptions_allowed), (2, 1));
        assert_eq!(noted.keys().collect::<Vec<_>>(), ["p0"]);
        assert_eq!(kept.iter().map(|p| meta::name(&**p)).collect::<Vec<_>>(), ["p1"]);
        assert_eq!(next, Next::After(Duration::from_secs(30)));
        let same = PodDisruptionBudget {
            status: Some(found.clone()),
            ..b
        };
        assert_eq!(status(&same, &pods(3, 0), 3, noted), found);
        let failed = failed(&same, "why");
        assert_eq!(
            (failed.disruptions_allowed, failed.expected_pods, failed.current_healthy),
            (0, 3, 2)
        );
    }
}
