//! Making and deleting the pods of an owner that counts them.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::{meta, pod};

/// No more than this many pods are made or deleted in one go.
pub const BURST: usize = 500;

/// How long a set whose pods keep failing waits between two rounds of them: first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Failures from before this time say nothing of the next pod.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// A wait that is as long as this is told of.
const TOLD: Duration = Duration::from_secs(10);

/// What the pods that failed make a set wait for.
#[derive(Debug, PartialEq)]
pub struct Pause {
    pub left: Duration,
    length: Duration,
    /// When the next round may begin: what tells one round from another.
    until: Timestamp,
    /// How many failed of those that were made last.
    failed: usize,
}

/// What is remembered of a set's round while it waits for the next.
#[derive(Debug, Default)]
pub struct Round {
    until: Timestamp,
    /// Failures in whose place nothing is wanted any more: the set has been made smaller since. They are so for the rest of the
    /// round: who makes it larger again has those made at once that waited, as often as he does so. Only who may write the set
    /// can, and upstream makes them at once without that.
    unwanted: usize,
    told: bool,
}

/// Of pods that were made at these times and failed. A node may turn each one away at once, and nothing else slows down who
/// makes the next; upstream has a pause of this kind for DaemonSets alone, and a limit of requests for all of a process. Who
/// failed after a life that was longer than the pause is replaced at once.
pub fn pause(failed: impl Iterator<Item = Timestamp>, now: Timestamp) -> Option<Pause> {
    let recent = |made: &Timestamp| Duration::try_from(now.duration_since(*made)).is_ok_and(|age| age < FORGOTTEN);
    let mut made: Vec<Timestamp> = failed.filter(recent).collect();
    made.sort_unstable();
    let (mut next, mut length, mut until, mut failed) = (PAUSES.0, Duration::ZERO, Timestamp::MIN, 0);
    for made in made {
        // One round is what is made until the next one may begin.
        if made >= until {
            until = made.checked_add(next).unwrap_or(Timestamp::MAX);
            (length, next) = (next, (next * 2).min(PAUSES.1));
            failed = 0;
        }
        failed += 1;
    }
    let left = Duration::try_from(until.duration_since(now)).ok()?;
    (!left.is_zero()).then_some(Pause {
        left,
        length,
        until,
        failed,
    })
}

impl Round {
    /// How many of those that are missing wait, and whether that is news that people are told. Who was drained or is wanted more
    /// does not wait for who failed.
    pub fn waits(&mut self, pause: &Pause, missing: usize) -> (usize, bool) {
        if self.until != pause.until {
            *self = Self {
                until: pause.until,
                ..Self::default()
            };
        }
        self.unwanted = self.unwanted.max(pause.failed.saturating_sub(missing));
        let waiting = pause.failed.saturating_sub(self.unwanted);
        let news = waiting > 0 && pause.length >= TOLD && !self.told;
        self.told |= news;
        (waiting, news)
    }
}

/// A pod as the template has it, managed by `owner`.
pub fn from_template(template: &PodTemplateSpec, owner_name: &str, owner: OwnerReference) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(generate_name(owner_name)),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// The owner's name and a dash; where no room is left for it, the name alone.
fn generate_name(owner: &str) -> String {
    const LONGEST: usize = 253;
    let dash = if owner.len() < LONGEST { "-" } else { "" };
    format!("{owner}{dash}")
}

/// Runs `count` calls, first one, then two, four, …: when the first fails for a reason that all share, the others are not tried.
/// Returns how many succeeded, and the first error.
pub async fn slow_start<E, F: Future<Output = Result<(), E>>>(
    count: usize,
    call: impl Fn(usize) -> F,
) -> (usize, Option<E>) {
    let (mut done, mut batch) = (0, 1);
    while done < count {
        let size = batch.min(count - done);
        let results = futures::future::join_all((done..done + size).map(&call)).await;
        let succeeded = results.iter().filter(|r| r.is_ok()).count();
        let error = results.into_iter().find_map(Result::err);
        done += succeeded;
        if error.is_some() {
            return (done, error);
        }
        batch *= 2;
    }
    (done, None)
}

/// Picks `count` pods to delete: those whose loss costs least come first. `related` are all pods of the same workload: a node that has more
/// of them loses one sooner.
pub fn to_delete(pods: &[Arc<Pod>], related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    if count >= pods.len() {
        return pods.to_vec();
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for other in related.iter().filter(|p| pod::is_active(p)) {
        *on_node.entry(pod::node(other)).or_default() += 1;
    }
    let mut ranked = pods.to_vec();
    ranked.sort_by(|a, b| {
        let crowd = |p: &Pod| on_node.get(pod::node(p)).copied().unwrap_or(0);
        cheaper(a, b, crowd(a), crowd(b), now)
    });
    ranked.truncate(count);
    ranked
}

fn cheaper(a: &Pod, b: &Pod, crowd_a: usize, crowd_b: usize, now: Timestamp) -> Ordering {
    let assigned = |p: &Pod| !pod::node(p).is_empty();
    let phase = |p: &Pod| match pod::phase(p) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = |p: &Pod| {
        meta::annotation(p, "controller.kubernetes.io/pod-deletion-cost")
            .and_then(|c| c.parse().ok())
            .unwrap_or(0_i32)
    };
    let ready = pod::is_ready(a) && pod::is_ready(b);
    assigned(a)
        .cmp(&assigned(b))
        .then(phase(a).cmp(&phase(b)))
        .then(pod::is_ready(a).cmp(&pod::is_ready(b)))
        .then(cost(a).cmp(&cost(b)))
        .then(crowd_b.cmp(&crowd_a))
        .then_with(|| {
            if ready {
                younger(pod::ready_since(a), pod::ready_since(b), now)
            } else {
                Ordering::Equal
            }
        })
        .then(pod::restarts(b).cmp(&pod::restarts(a)))
        .then_with(|| younger(Some(meta::created(a)), Some(meta::created(b)), now))
        .then_with(|| meta::uid(a).cmp(meta::uid(b)))
}

/// The younger first; ages are compared by their order of magnitude, so that pods of about the same age go at random.
fn younger(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let magnitude = |t: Option<Timestamp>| {
        let age = t.map_or(0, |t| now.as_second().saturating_sub(t.as_second()));
        if age > 0 { age.ilog2() + 1 } else { 0 }
    };
    magnitude(a).cmp(&magnitude(b))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn pods_that_fail_at_once_are_made_in_rounds_ever_further_apart() {
        let begin: Timestamp = "2024-01-01T00:00:00Z".parse().unwrap();
        let at = |seconds: u64| begin.checked_add(Duration::from_secs(seconds)).unwrap();
        let mut failed: Vec<Timestamp> = Vec::new();
        let mut rounds = Vec::new();
        for second in 0..3600 {
            if pause(failed.iter().copied(), at(second)).is_none() {
                rounds.push(second);
                failed.extend([at(second); 3]);
            }
        }
        assert_eq!(rounds[..9], [0, 1, 3, 7, 15, 31, 63, 127, 255]);
        assert!(rounds.len() <= 21, "{rounds:?}");
        let waiting = pause(failed.iter().copied(), at(3599)).unwrap();
        assert_eq!((waiting.failed, waiting.length), (3, Duration::from_secs(300)));
        // One that failed is replaced at once if it was made a while ago, however many did so before.
        assert_eq!(pause([at(0)].into_iter(), at(1)), None);
        assert_eq!(pause(failed.into_iter(), at(3 * 3600)), None);
        assert_eq!(pause(std::iter::empty(), at(0)), None);
        // A clock that is behind makes nobody wait for ever.
        assert_eq!(pause([at(9000)].into_iter(), at(0)), None);
    }

    #[test]
    fn who_failed_waits_and_nobody_else() {
        let pause = |length: u64, until: i64, failed: usize| Pause {
            left: Duration::from_secs(1),
            length: Duration::from_secs(length),
            until: Timestamp::from_second(until).unwrap(),
            failed,
        };
        let mut round = Round::default();
        for (pause, missing, waits) in [
            // They fail one after the other. It is told once of a round, if it lasts.
            (pause(8, 1, 1), 1, (1, false)),
            (pause(16, 2, 1), 1, (1, true)),
            (pause(16, 2, 4), 4, (4, false)),
            // Three that were drained beside them do not wait.
            (pause(16, 2, 4), 7, (4, false)),
            // The set is made smaller, then three more are drained: nobody waits for who would not be made again.
            (pause(16, 2, 4), 0, (0, false)),
            (pause(16, 2, 4), 3, (0, false)),
            (pause(16, 2, 5), 4, (1, false)),
            (pause(32, 3, 5), 5, (5, true)),
        ] {
            assert_eq!(round.waits(&pause, missing), waits, "{pause:?} {missing}");
        }
    }

    fn made(name: &str, node: &str, phase: &str, ready: bool, cost: &str) -> Arc<Pod> {
        let conditions: Value = json!([{"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": "2024-01-01T00:00:00Z"}]);
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "uid": name, "creationTimestamp": "2024-01-01T00:00:00Z",
                    "annotations": {"controller.kubernetes.io/pod-deletion-cost": cost}},
                "spec": {"containers": [], "nodeName": node},
                "status": {"phase": phase, "conditions": conditions},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn cheapest_pods_go_first() {
        let pods = [
            made("ready-b", "b", "Running", true, "0"),
            made("ready-a1", "a", "Running", true, "0"),
            made("ready-a2", "a", "Running", true, "5"),
            made("unready", "a", "Running", false, "0"),
            made("pending", "a", "Pending", false, "0"),
            made("unassigned", "", "Pending", false, "0"),
        ];
        let order: Vec<_> = to_delete(&pods, &pods, 5, Timestamp::now())
            .iter()
            .map(|p| meta::name(&**p).to_owned())
            .collect();
        assert_eq!(order, ["unassigned", "pending", "unready", "ready-a1", "ready-b"]);
    }

    #[tokio::test]
    async fn slow_start_stops_at_the_first_failing_batch() {
        let (done, error) = slow_start(10, |i| async move { if i < 4 { Ok(()) } else { Err(i) } }).await;
        assert_eq!((done, error), (4, Some(4)));
        assert_eq!(slow_start(5, |_| async { Ok::<(), ()>(()) }).await, (5, None));
    }
}
