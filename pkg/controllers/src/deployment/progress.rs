//! A Deployment's status: counts, and the conditions Available, Progressing and ReplicaFailure. Pure but for the clock that stamps a
//! condition when it is set.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use mk8s_api::conditions;

use super::plan::{Sets, Strategy, available, replicas_of, wanted};
use crate::driver::Next;
use crate::meta::{self, nonzero};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const FAILURE: &str = "ReplicaFailure";

/// The rollout is through.
const DONE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    conditions::find(status.conditions.as_ref(), type_)
}

/// Sets a condition unless status and reason are as they were; the transition time moves with the status alone.
fn set(status: &mut DeploymentStatus, type_: &str, value: &str, reason: &str, text: &str) {
    if find(status, type_).is_some_and(|c| c.status == value && c.reason.as_deref() == Some(reason)) {
        return;
    }
    put(status, type_, value, reason, text);
}

fn put(status: &mut DeploymentStatus, type_: &str, value: &str, reason: &str, text: &str) {
    let now = meta::now();
    let since = find(status, type_)
        .filter(|c| c.status == value)
        .and_then(|c| c.last_transition_time.clone());
    let new = DeploymentCondition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(text.to_owned()),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(since.unwrap_or(now)),
    };
    // Upstream's order: what changed last stands last.
    let all = status.conditions.get_or_insert_default();
    all.retain(|c| c.type_ != type_);
    all.push(new);
}

fn remove(status: &mut DeploymentStatus, type_: &str) {
    if let Some(all) = &mut status.conditions {
        all.retain(|c| c.type_ != type_);
        if all.is_empty() {
            status.conditions = None;
        }
    }
}

/// None means that nobody waits for progress.
fn deadline(deployment: &Deployment) -> Option<i32> {
    deployment
        .spec
        .as_ref()
        .and_then(|s| s.progress_deadline_seconds)
        .filter(|d| *d != i32::MAX)
}

/// Notes how a rollout went on, where a deadline asks for it.
pub fn note(deployment: &mut Deployment, value: &str, reason: &str, text: &str) {
    if deadline(deployment).is_some() {
        set(
            deployment.status.get_or_insert_default(),
            PROGRESSING,
            value,
            reason,
            text,
        );
    }
}

/// Notes that the template's set was there already, unless something is known of the rollout.
pub fn note_found(deployment: &mut Deployment, text: &str) {
    if deployment
        .status
        .as_ref()
        .is_none_or(|s| find(s, PROGRESSING).is_none())
    {
        note(deployment, "True", "FoundNewReplicaSet", text);
    }
}

/// A paused rollout makes no progress, and must not run into its deadline. True when that changed something.
pub fn set_paused(deployment: &mut Deployment, paused: bool) -> bool {
    if deadline(deployment).is_none() {
        return false;
    }
    let status = deployment.status.get_or_insert_default();
    let reason = find(status, PROGRESSING)
        .and_then(|c| c.reason.as_deref())
        .unwrap_or_default();
    if reason == TIMED_OUT {
        return false;
    }
    match (paused, reason == PAUSED) {
        (true, false) => set(status, PROGRESSING, "Unknown", PAUSED, "Deployment is paused"),
        (false, true) => set(status, PROGRESSING, "Unknown", RESUMED, "Deployment is resumed"),
        _ => return false,
    }
    true
}

/// The counts, and condition Available.
pub fn status(deployment: &Deployment, sets: &Sets) -> DeploymentStatus {
    let before = deployment.status.clone().unwrap_or_default();
    let sum = |of: &dyn Fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> Option<i32>| -> i32 {
        sets.all.iter().filter_map(|set| set.status.as_ref().and_then(of)).sum()
    };
    let available: i32 = sets.all.iter().map(|set| available(set)).sum();
    let asked: i32 = sets.all.iter().map(|set| replicas_of(set)).sum();
    let updated = sets
        .new
        .and_then(|at| sets.all[at].status.as_ref())
        .map_or(0, |s| s.replicas);
    let mut new = DeploymentStatus {
        observed_generation: deployment.metadata.generation.or(before.observed_generation),
        replicas: nonzero(sum(&|s| Some(s.replicas))),
        updated_replicas: nonzero(updated),
        ready_replicas: nonzero(sum(&|s| s.ready_replicas)),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((asked - available).max(0)),
        terminating_replicas: Some(sum(&|s| s.terminating_replicas)),
        collision_count: before.collision_count,
        conditions: before.conditions,
    };
    if available >= wanted(deployment) - Strategy::of(deployment).unavailable {
        set(
            &mut new,
            AVAILABLE,
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        );
    } else {
        let text = "Deployment does not have minimum availability.";
        set(&mut new, AVAILABLE, "False", "MinimumReplicasUnavailable", text);
    }
    new
}

/// Every pod is new and available, and nothing else is left.
pub fn is_complete(deployment: &Deployment, new: &DeploymentStatus) -> bool {
    let wanted = wanted(deployment);
    new.updated_replicas.unwrap_or(0) == wanted
        && new.replicas.unwrap_or(0) == wanted
        && new.available_replicas.unwrap_or(0) == wanted
        && new.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

fn moved(before: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |v: Option<i32>| v.unwrap_or(0);
    let old = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(before.updated_replicas)
        || old(new) < old(before)
        || n(new.ready_replicas) > n(before.ready_replicas)
        || n(new.available_replicas) > n(before.available_replicas)
}

fn timed_out(deployment: &Deployment, new: &DeploymentStatus, now: Timestamp) -> bool {
    let (Some(condition), Some(deadline)) = (find(new, PROGRESSING), deadline(deployment)) else {
        return false;
    };
    match condition.reason.as_deref() {
        Some(DONE) => false,
        Some(TIMED_OUT) => true,
        _ => seconds_left(condition, deadline, now) < 0,
    }
}

fn seconds_left(condition: &DeploymentCondition, deadline: i32, now: Timestamp) -> i64 {
    let since = condition.last_update_time.as_ref().map_or(now, |Time(t)| *t);
    since.as_second() + i64::from(deadline) - now.as_second()
}

/// The whole status in a rollout.
pub fn rollout_status(deployment: &Deployment, sets: &Sets, now: Timestamp) -> DeploymentStatus {
    let before = deployment.status.clone().unwrap_or_default();
    let mut new = status(deployment, sets);
    if deadline(deployment).is_none() {
        remove(&mut new, PROGRESSING);
    }
    let known = find(&before, PROGRESSING).and_then(|c| c.reason.as_deref());
    let settled = new.replicas == new.updated_replicas && known == Some(DONE);
    if deadline(deployment).is_some() && !settled {
        let subject = match sets.new {
            Some(at) => format!("ReplicaSet {:?}", meta::name(&*sets.all[at])),
            None => format!("Deployment {:?}", meta::name(deployment)),
        };
        if is_complete(deployment, &new) {
            set(
                &mut new,
                PROGRESSING,
                "True",
                DONE,
                &format!("{subject} has successfully progressed."),
            );
        } else if moved(&before, &new) {
            // Written even if it says the same: its update time is what the deadline runs from.
            put(
                &mut new,
                PROGRESSING,
                "True",
                "ReplicaSetUpdated",
                &format!("{subject} is progressing."),
            );
        } else if timed_out(deployment, &new, now) {
            set(
                &mut new,
                PROGRESSING,
                "False",
                TIMED_OUT,
                &format!("{subject} has timed out progressing."),
            );
        }
    }
    let latest_first = sets.new.into_iter().chain(sets.old());
    let failure = latest_first
        .filter_map(|at| sets.all[at].status.as_ref())
        .flat_map(|s| s.conditions.iter().flatten())
        .find(|c| c.type_ == FAILURE);
    match failure {
        Some(c) => {
            let text = |v: &Option<String>| v.clone().unwrap_or_default();
            set(&mut new, FAILURE, &c.status, &text(&c.reason), &text(&c.message));
        }
        None => remove(&mut new, FAILURE),
    }
    new
}

/// When the deadline has to be looked at again.
pub fn next_deadline(deployment: &Deployment, new: &DeploymentStatus, now: Timestamp) -> Next {
    let (Some(condition), Some(deadline)) = (find(new, PROGRESSING), deadline(deployment)) else {
        return Next::Done;
    };
    if is_complete(deployment, new) || matches!(condition.reason.as_deref(), Some(DONE | TIMED_OUT | PAUSED)) {
        return Next::Done;
    }
    let left = seconds_left(condition, deadline, now).max(0).unsigned_abs();
    Next::After(Duration::from_secs(left + 1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn deployment(status: serde_json::Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "generation": 2},
            "spec": {"replicas": 2, "progressDeadlineSeconds": 60, "selector": {}, "template": {}},
            "status": status,
        }))
        .unwrap()
    }

    fn sets(d: &Deployment, replicas: i32, available: i32) -> Sets {
        let set = json!({"metadata": {"name": "web-1"}, "spec": {"replicas": replicas, "selector": {}, "template": {}},
            "status": {"replicas": replicas, "availableReplicas": available, "readyReplicas": available}});
        Sets::new(d, vec![Arc::new(serde_json::from_value(set).unwrap())])
    }

    fn reason(status: &DeploymentStatus, type_: &str) -> Option<String> {
        find(status, type_).and_then(|c| c.reason.clone())
    }

    #[test]
    fn progress_goes_from_updated_to_available_or_to_the_deadline() {
        let now: Timestamp = "2024-01-01T00:10:00Z".parse().unwrap();
        let d = deployment(json!({}));
        let first = rollout_status(&d, &sets(&d, 2, 0), now);
        assert_eq!(reason(&first, PROGRESSING).as_deref(), Some("ReplicaSetUpdated"));
        assert_eq!(reason(&first, AVAILABLE).as_deref(), Some("MinimumReplicasUnavailable"));
        assert_eq!(first.unavailable_replicas, Some(2));
        let mut d = deployment(json!({}));
        d.status = Some(first.clone());
        let done = rollout_status(&d, &sets(&d, 2, 2), now);
        assert_eq!(reason(&done, PROGRESSING).as_deref(), Some(DONE));
        assert_eq!(
            find(&done, PROGRESSING).unwrap().message.as_deref(),
            Some("ReplicaSet \"web-1\" has successfully progressed.")
        );
        assert_eq!(next_deadline(&d, &done, now), Next::Done);

        let stuck = deployment(
            json!({"replicas": 2, "updatedReplicas": 2, "conditions": [{"type": PROGRESSING, "status": "True",
            "reason": "ReplicaSetUpdated", "lastUpdateTime": "2024-01-01T00:09:30Z"}]}),
        );
        let waiting = rollout_status(&stuck, &sets(&stuck, 2, 0), now);
        assert_eq!(
            next_deadline(&stuck, &waiting, now),
            Next::After(Duration::from_secs(31))
        );
        let late = rollout_status(&stuck, &sets(&stuck, 2, 0), "2024-01-01T00:10:31Z".parse().unwrap());
        assert_eq!(reason(&late, PROGRESSING).as_deref(), Some(TIMED_OUT));
    }

    #[test]
    fn status_that_is_reached_stays_the_same() {
        let now = Timestamp::now();
        let mut d = deployment(json!({}));
        let s = sets(&d, 2, 2);
        d.status = Some(rollout_status(&d, &s, now));
        assert_eq!(d.status.as_ref(), Some(&rollout_status(&d, &s, now)));
    }
}
