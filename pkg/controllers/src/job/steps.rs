//! How many pods a Job wants, and which. Pure.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::backoff;
use super::indexes::Indexes;
use super::view::{View, absolute_failures, index_of};
use crate::meta::to_i32;
use crate::{meta, pod, replicas};

impl View {
    fn wanted(&self) -> i32 {
        match self.numbers.completions {
            None if self.succeeded > 0 => to_i32(self.active.len()),
            None => self.numbers.parallelism,
            Some(completions) => (completions - self.succeeded).min(self.numbers.parallelism).max(0),
        }
    }

    /// What to do about the number of pods.
    pub fn step(&self, now: Timestamp) -> Step {
        let active = to_i32(self.active.len());
        if self.numbers.suspended {
            return Step::Delete(self.active.clone());
        }
        let wanted = self.wanted();
        let mut doomed = self.surplus(usize::try_from(active - wanted).unwrap_or(0));
        doomed.truncate(replicas::BURST);
        if !doomed.is_empty() {
            return Step::Delete(doomed);
        }
        let leaving = if self.numbers.replaces_failed_only {
            self.terminating
        } else {
            0
        };
        let missing = usize::try_from(wanted - leaving - active)
            .unwrap_or(0)
            .min(replicas::BURST);
        if missing == 0 {
            return Step::Nothing;
        }
        if self.numbers.per_index.is_none() {
            let wait = self.record.remaining(now);
            if !wait.is_zero() {
                return Step::Wait(wait);
            }
        }
        if !self.numbers.indexed {
            return Step::Create(vec![None; missing]);
        }
        let indexes = self.pending_indexes(missing);
        let wait = |index: &i32| {
            self.delayed.get(index).map_or(Duration::ZERO, |failed| {
                let failures = absolute_failures(failed) + 1;
                backoff::remaining(failures, backoff::finished_at(failed), now)
            })
        };
        let ready: Vec<Option<i32>> = indexes.iter().filter(|i| wait(i).is_zero()).map(|i| Some(*i)).collect();
        match (ready.is_empty(), indexes.iter().map(wait).min()) {
            (true, Some(shortest)) => Step::Wait(shortest),
            (true, None) => Step::Nothing,
            (false, _) => Step::Create(ready),
        }
    }

    /// Indexes that have no pod and are not done.
    fn pending_indexes(&self, count: usize) -> Vec<i32> {
        let mut taken: Indexes = self.active.iter().filter_map(|p| index_of(p)).collect();
        if self.numbers.replaces_failed_only {
            let leaving = self
                .pods
                .iter()
                .filter(|p| meta::deleting(&***p) && !pod::is_terminal(p));
            taken = taken.union(&leaving.filter_map(|p| index_of(p)).collect());
        }
        taken = taken.union(&self.succeeded_indexes);
        if let Some(failed) = &self.failed_indexes {
            taken = taken.union(failed);
        }
        taken.missing(count, self.numbers.total())
    }

    /// Active pods that are too many: at least so many, and all that repeat an index or have none.
    fn surplus(&self, at_least: usize) -> Vec<Arc<Pod>> {
        let (mut doomed, mut left) = (Vec::new(), Vec::new());
        if self.numbers.indexed {
            let mut by_index: HashMap<i32, Vec<Arc<Pod>>> = HashMap::new();
            for pod in &self.active {
                match self.valid_index(pod) {
                    Some(index) => by_index.entry(index).or_default().push(pod.clone()),
                    None => doomed.push(pod.clone()),
                }
            }
            for (_, mut same) in by_index {
                same.sort_by(|a, b| expendable(a, b));
                left.extend(same.pop());
                doomed.append(&mut same);
            }
        } else {
            left.clone_from(&self.active);
        }
        left.sort_by(|a, b| expendable(a, b));
        let more = at_least.saturating_sub(doomed.len());
        doomed.extend(left.into_iter().take(more));
        doomed
    }
}

/// The first is the one whose loss costs least.
fn expendable(a: &Pod, b: &Pod) -> Ordering {
    let rank = |p: &Pod| {
        let phase = match pod::phase(p) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        (!pod::node(p).is_empty(), phase, pod::is_ready(p))
    };
    rank(a)
        .cmp(&rank(b))
        .then_with(|| meta::created(b).cmp(&meta::created(a)))
}

/// What to do about the number of pods.
#[derive(Debug)]
pub enum Step {
    /// It is right.
    Nothing,
    /// These are too many.
    Delete(Vec<Arc<Pod>>),
    /// So many are missing, with these indexes.
    Create(Vec<Option<i32>>),
    /// Some are missing, but failures make for a wait.
    Wait(Duration),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::view::FAILURES;
    use super::super::view::tests::{job, pod, view};
    use super::*;

    fn describe(step: &Step) -> String {
        match step {
            Step::Nothing => "nothing".to_owned(),
            Step::Delete(pods) => format!("delete {}", pods.len()),
            Step::Create(indexes) => format!("create {indexes:?}"),
            Step::Wait(left) => format!("wait {}", left.as_secs()),
        }
    }

    #[test]
    fn pods_are_made_up_to_parallelism_and_remaining_completions() {
        let (run, done) = ("Running", "Succeeded");
        let now = Timestamp::now();
        for (spec, phases, expected) in [
            (
                json!({"parallelism": 2, "completions": 3}),
                vec![],
                "create [None, None]",
            ),
            (
                json!({"parallelism": 2, "completions": 3}),
                vec![run, done, done],
                "nothing",
            ),
            (
                json!({"parallelism": 2, "completions": 3}),
                vec![run, run, done, done],
                "delete 1",
            ),
            (json!({"parallelism": 2}), vec![run], "create [None]"),
            (json!({"parallelism": 2}), vec![run, done], "nothing"),
            (json!({"parallelism": 2, "suspend": true}), vec![run, run], "delete 2"),
            (
                json!({"parallelism": 1, "completions": 1}),
                vec!["Failed"],
                "create [None]",
            ),
        ] {
            let pods = phases
                .iter()
                .enumerate()
                .map(|(n, phase)| pod(&n.to_string(), phase, None, json!({})))
                .collect();
            assert_eq!(
                describe(&view(job(spec.clone(), json!({})), pods).step(now)),
                expected,
                "{spec} {phases:?}"
            );
        }
    }

    #[test]
    fn indexed_jobs_fill_gaps_and_drop_doubles() {
        let spec = json!({"completionMode": "Indexed", "parallelism": 3, "completions": 5});
        let now = Timestamp::now();
        let some = view(
            job(spec.clone(), json!({"completedIndexes": "0"})),
            vec![
                pod("a", "Running", Some(1), json!({})),
                pod("b", "Succeeded", Some(3), json!({})),
            ],
        );
        assert_eq!(some.succeeded, 2);
        assert_eq!(describe(&some.step(now)), "create [Some(2), Some(4)]");
        let doubles = vec![
            pod("a", "Running", Some(1), json!({})),
            pod("b", "Pending", Some(1), json!({})),
        ];
        match view(job(spec, json!({})), doubles).step(now) {
            Step::Delete(pods) => assert_eq!(meta::name(&*pods[0]), "b"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_index_waits_for_itself_after_a_failure() {
        let spec = json!({"completionMode": "Indexed", "parallelism": 3, "completions": 3, "backoffLimitPerIndex": 5});
        let failed = |uid: &str, index: i32, failures: i32| {
            pod(uid, "Failed", Some(index), json!({FAILURES: failures.to_string()}))
        };
        let begin = "2020-01-01T00:00:00Z".parse::<Timestamp>().unwrap();
        for (seconds, expected) in [
            (5, "create [Some(2)]"),
            (10, "create [Some(0), Some(2)]"),
            (20, "create [Some(0), Some(1), Some(2)]"),
        ] {
            let pods = vec![failed("a", 0, 0), failed("b", 1, 1)];
            let now = begin.checked_add(Duration::from_secs(seconds)).unwrap();
            assert_eq!(
                describe(&view(job(spec.clone(), json!({})), pods).step(now)),
                expected,
                "{seconds}"
            );
        }
        // All have to wait.
        let pods = vec![failed("a", 0, 0), failed("b", 1, 1), failed("c", 2, 2)];
        assert_eq!(describe(&view(job(spec, json!({})), pods).step(begin)), "wait 10");
    }

    #[test]
    fn indexed_jobs_grow_and_shrink() {
        let running = |indexes: &[i32]| -> Vec<Arc<Pod>> {
            indexes
                .iter()
                .map(|i| pod(&format!("p{i}"), "Running", Some(*i), json!({})))
                .collect()
        };
        for (completions, done, active, expected) in [
            (3, "", vec![0, 1, 2], "nothing"),
            (5, "", vec![0, 1, 2], "create [Some(3), Some(4)]"),
            // Those beyond the end go, and what they did does not count any more.
            (2, "", vec![0, 1, 2], "delete 1"),
            (2, "0,4", vec![1], "nothing"),
            (5, "0,4", vec![1], "create [Some(2), Some(3)]"),
        ] {
            let spec = json!({"completionMode": "Indexed", "parallelism": completions, "completions": completions});
            let view = view(job(spec, json!({"completedIndexes": done})), running(&active));
            assert_eq!(
                describe(&view.step(Timestamp::now())),
                expected,
                "{completions} {done} {active:?}"
            );
        }
    }

    #[test]
    fn pods_on_their_way_out_are_replaced_at_once_or_when_they_have_ended() {
        let leaving = |phase: &str| {
            let mut pod = (*pod("a", phase, Some(0), json!({}))).clone();
            pod.metadata.deletion_timestamp = Some(meta::now());
            Arc::new(pod)
        };
        for (policy, phase, expected) in [
            (
                json!({"podReplacementPolicy": "TerminatingOrFailed"}),
                "Running",
                "create [Some(0), Some(1)]",
            ),
            (json!({"podReplacementPolicy": "Failed"}), "Running", "create [Some(1)]"),
            (
                json!({"podReplacementPolicy": "Failed"}),
                "Failed",
                "create [Some(0), Some(1)]",
            ),
            (
                json!({"podFailurePolicy": {"rules": []}}),
                "Running",
                "create [Some(1)]",
            ),
        ] {
            let mut spec = json!({"completionMode": "Indexed", "parallelism": 2, "completions": 2});
            for (key, value) in policy.as_object().unwrap() {
                spec[key] = value.clone();
            }
            let view = view(job(spec, json!({})), vec![leaving(phase)]);
            // Long after it has failed, if it counts as failed.
            let later = Timestamp::now().checked_add(Duration::from_secs(3600)).unwrap();
            assert_eq!(describe(&view.step(later)), expected, "{policy} {phase}");
            assert_eq!(view.terminating, i32::from(phase == "Running"));
        }
    }
}
