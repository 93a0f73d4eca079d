//! A Job and its pods, counted: everything that a reconciliation decides from. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff::{self, Record};
use super::indexes::Indexes;
use super::policy::{self, Verdict};
use crate::meta::to_i32;
use crate::{meta, pod};

/// Keeps a pod until it is counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// A pod's index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often its index failed before it.
pub const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How often without counting.
pub const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// A Job's spec with its defaults.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    pub parallelism: i32,
    pub completions: Option<i32>,
    pub backoff_limit: i32,
    pub per_index: Option<i32>,
    pub indexed: bool,
    pub suspended: bool,
    /// A pod that is being deleted is replaced when it has ended, not before.
    pub replaces_failed_only: bool,
}

impl Numbers {
    /// Reads them.
    pub fn of(job: &Job) -> Self {
        let spec = job.spec.clone().unwrap_or_default();
        Numbers {
            parallelism: spec.parallelism.unwrap_or(1),
            completions: spec.completions,
            backoff_limit: spec.backoff_limit.unwrap_or(if spec.backoff_limit_per_index.is_some() {
                i32::MAX
            } else {
                6
            }),
            per_index: spec.backoff_limit_per_index,
            indexed: spec.completion_mode.as_deref() == Some("Indexed"),
            suspended: spec.suspend.unwrap_or(false),
            replaces_failed_only: spec.pod_replacement_policy.as_deref() == Some("Failed")
                || spec.pod_failure_policy.is_some(),
        }
    }

    /// The number of completions; of an indexed Job it is always set.
    pub fn total(&self) -> i32 {
        self.completions.unwrap_or(0)
    }
}

/// A pod's completion index.
pub fn index_of(pod: &Pod) -> Option<i32> {
    meta::annotation(pod, INDEX)?.parse().ok().filter(|index| *index >= 0)
}

fn count_of(pod: &Pod, annotation: &str) -> i32 {
    meta::annotation(pod, annotation)
        .and_then(|n| n.parse().ok())
        .filter(|n| *n >= 0)
        .unwrap_or(0)
}

/// How often the pod's index had failed before it, whether or not that counted.
pub(super) fn absolute_failures(pod: &Pod) -> i32 {
    count_of(pod, FAILURES).saturating_add(count_of(pod, IGNORED_FAILURES))
}

/// A condition of a Job.
pub fn condition<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == type_)
}

pub(super) fn holds<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    condition(status, type_).filter(|c| c.status == "True")
}

/// The condition that says that a Job has ended: `Complete` or `Failed`.
pub fn end(job: &Job) -> Option<&JobCondition> {
    let status = job.status.as_ref()?;
    holds(status, "Complete").or_else(|| holds(status, "Failed"))
}

/// A condition that begins now.
pub fn new_condition(type_: &str, status: &str, reason: &str, message: &str, now: &Time) -> JobCondition {
    JobCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
    }
}

/// The observed state.
pub struct View {
    /// With a status that this run changes.
    pub job: Job,
    pub numbers: Numbers,
    /// By index, then by name.
    pub pods: Vec<Arc<Pod>>,
    pub active: Vec<Arc<Pod>>,
    pub ready: i32,
    pub terminating: i32,
    pub succeeded: i32,
    pub failed: i32,
    pub counted_indexes: Indexes,
    pub succeeded_indexes: Indexes,
    pub failed_indexes: Option<Indexes>,
    /// Failed pods that stay until their replacement has taken over their failure count, by index.
    pub delayed: HashMap<i32, Arc<Pod>>,
    pub record: Record,
    /// Uids of pods that have their finalizer no more, whatever the informer shows.
    released: HashSet<String>,
    uncounted_succeeded: HashSet<String>,
    uncounted_failed: HashSet<String>,
}

impl View {
    /// Counts.
    pub fn new(mut job: Job, mut pods: Vec<Arc<Pod>>, record: Record, released: HashSet<String>) -> Self {
        let numbers = Numbers::of(&job);
        pods.sort_by(|a, b| (index_of(a), meta::name(&**a)).cmp(&(index_of(b), meta::name(&**b))));
        let active: Vec<_> = pods.iter().filter(|p| pod::is_active(p)).cloned().collect();
        let status = job.status.get_or_insert_default();
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        let set = |all: &Option<Vec<String>>| all.iter().flatten().cloned().collect::<HashSet<String>>();
        let (uncounted_succeeded, uncounted_failed) = (set(&uncounted.succeeded), set(&uncounted.failed));
        let mut view = View {
            numbers,
            ready: to_i32(active.iter().filter(|p| pod::is_ready(p)).count()),
            terminating: to_i32(
                pods.iter()
                    .filter(|p| meta::deleting(&***p) && !pod::is_terminal(p))
                    .count(),
            ),
            pods,
            active,
            job,
            succeeded: 0,
            failed: 0,
            counted_indexes: Indexes::default(),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            delayed: HashMap::new(),
            record,
            released,
            uncounted_succeeded,
            uncounted_failed,
        };
        view.count(record);
        view
    }

    fn count(&mut self, record: Record) {
        let status = self.status().clone();
        let new_succeeded: Vec<&Pod> = self
            .uncounted(&self.uncounted_succeeded)
            .filter(|p| pod::phase(p) == "Succeeded")
            .collect();
        let new_failed: Vec<&Pod> = self
            .uncounted(&self.uncounted_failed)
            .filter(|p| self.has_failed(p))
            .collect();
        let counting = new_failed.iter().filter(|p| self.verdict(p) != Verdict::Ignore).count();
        let succeeded =
            status.succeeded.unwrap_or(0) + to_i32(new_succeeded.len()) + to_i32(self.uncounted_succeeded.len());
        let failed = status.failed.unwrap_or(0) + to_i32(counting) + to_i32(self.uncounted_failed.len());
        let record = record.after(&new_succeeded, &new_failed);
        (self.succeeded, self.failed, self.record) = (succeeded, failed, record);
        if self.numbers.indexed {
            self.count_indexes(&status);
        }
    }

    fn count_indexes(&mut self, status: &JobStatus) {
        let total = self.numbers.total();
        self.counted_indexes = Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), total);
        let new: Indexes = self
            .pods
            .iter()
            .filter(|p| pod::phase(p) == "Succeeded" && meta::has_finalizer(&***p, FINALIZER))
            .filter_map(|p| self.valid_index(p))
            .collect();
        self.succeeded_indexes = self.counted_indexes.union(&new);
        self.succeeded = self.succeeded_indexes.len();
        let Some(limit) = self.numbers.per_index else { return };
        let before = Indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), total);
        let new: Indexes = self
            .pods
            .iter()
            .filter(|p| meta::has_finalizer(&***p, FINALIZER) && self.fails_index(p, limit))
            .filter_map(|p| self.valid_index(p))
            .collect();
        let failed = before.union(&new);
        let active: HashSet<i32> = self.active.iter().filter_map(|p| index_of(p)).collect();
        let mut delayed: HashMap<i32, Arc<Pod>> = HashMap::new();
        for pod in self.pods.iter().filter(|p| self.is_tracked(p) && self.has_failed(p)) {
            let Some(index) = self.valid_index(pod) else { continue };
            if self.succeeded_indexes.has(index) || failed.has(index) || active.contains(&index) {
                continue;
            }
            let rank = |p: &Pod| (absolute_failures(p), backoff::finished_at(p));
            if delayed.get(&index).is_none_or(|known| rank(known) <= rank(pod)) {
                delayed.insert(index, pod.clone());
            }
        }
        (self.failed_indexes, self.delayed) = (Some(failed), delayed);
    }

    /// The status as it is by now.
    pub fn status(&self) -> &JobStatus {
        static NONE: std::sync::LazyLock<JobStatus> = std::sync::LazyLock::new(JobStatus::default);
        self.job.status.as_ref().unwrap_or(&NONE)
    }

    /// The pod's index, if the Job still has it.
    pub fn valid_index(&self, pod: &Pod) -> Option<i32> {
        index_of(pod).filter(|index| *index < self.numbers.total())
    }

    /// Has the pod its finalizer, really?
    pub fn is_tracked(&self, pod: &Pod) -> bool {
        meta::has_finalizer(pod, FINALIZER) && !self.released.contains(meta::uid(pod))
    }

    fn uncounted<'a>(&'a self, known: &'a HashSet<String>) -> impl Iterator<Item = &'a Pod> {
        self.pods
            .iter()
            .map(|p| &**p)
            .filter(move |p| self.is_tracked(p) && !known.contains(meta::uid(*p)))
            .filter(|p| !self.numbers.indexed || self.valid_index(p).is_some())
    }

    /// Is it in the status, waiting to be counted, as failed?
    pub fn is_noted_failed(&self, pod: &Pod) -> bool {
        self.uncounted_failed.contains(meta::uid(pod))
    }

    /// Is it in the status, waiting to be counted, as succeeded?
    pub fn is_noted_succeeded(&self, pod: &Pod) -> bool {
        self.uncounted_succeeded.contains(meta::uid(pod))
    }

    /// Failed, or (unless only the former is replaced) on its way out.
    pub fn has_failed(&self, pod: &Pod) -> bool {
        let phase = pod::phase(pod);
        phase == "Failed" || (!self.numbers.replaces_failed_only && meta::deleting(pod) && phase != "Succeeded")
    }

    /// What the failure policy says of a pod.
    pub fn verdict(&self, pod: &Pod) -> Verdict {
        policy::verdict(self.job.spec.as_ref().and_then(|s| s.pod_failure_policy.as_ref()), pod)
    }

    fn fails_index(&self, pod: &Pod, limit: i32) -> bool {
        self.has_failed(pod)
            && match self.verdict(pod) {
                Verdict::FailIndex => true,
                Verdict::Ignore => false,
                Verdict::Count | Verdict::FailJob(_) => count_of(pod, FAILURES) >= limit,
            }
    }

    /// The failure counts that a new pod of this index carries on.
    pub fn failure_counts(&self, index: i32) -> (i32, i32) {
        let Some(failed) = self.delayed.get(&index) else {
            return (0, 0);
        };
        let (counted, ignored) = (count_of(failed, FAILURES), count_of(failed, IGNORED_FAILURES));
        if self.verdict(failed) == Verdict::Ignore {
            (counted, ignored + 1)
        } else {
            (counted + 1, ignored)
        }
    }

    /// May the pod go, as far as the Job is concerned?
    pub fn may_release(&self, pod: &Pod, ended: bool) -> bool {
        if meta::deleting(&self.job) || ended || pod::phase(pod) == "Succeeded" {
            return true;
        }
        let waits_for_replacement = self.numbers.per_index.is_some()
            && index_of(pod)
                .and_then(|i| self.delayed.get(&i))
                .is_some_and(|d| meta::uid(&**d) == meta::uid(pod));
        self.has_failed(pod) && !waits_for_replacement
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    pub(in super::super) fn job(spec: Value, status: Value) -> Job {
        let mut job = json!({"metadata": {"name": "j", "namespace": "d", "uid": "j"}, "spec": {"template": {}}, "status": status});
        for (key, value) in spec.as_object().unwrap() {
            job["spec"][key] = value.clone();
        }
        serde_json::from_value(job).unwrap()
    }

    pub(in super::super) fn pod(uid: &str, phase: &str, index: Option<i32>, more: Value) -> Arc<Pod> {
        let mut pod = json!({"metadata": {"name": uid, "uid": uid, "finalizers": [FINALIZER], "annotations": {},
            "creationTimestamp": "2020-01-01T00:00:00Z"}, "status": {"phase": phase}});
        if let Some(index) = index {
            pod["metadata"]["annotations"][INDEX] = json!(index.to_string());
        }
        for (key, value) in more.as_object().unwrap() {
            pod["metadata"]["annotations"][key] = value.clone();
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    pub(in super::super) fn view(job: Job, pods: Vec<Arc<Pod>>) -> View {
        View::new(job, pods, Record::default(), HashSet::new())
    }

    #[test]
    fn per_index_limit_fails_indexes_and_carries_counts_on() {
        let spec = json!({"completionMode": "Indexed", "parallelism": 2, "completions": 2, "backoffLimitPerIndex": 1});
        let now = meta::now();
        let one = view(
            job(spec.clone(), json!({})),
            vec![pod("a", "Failed", Some(0), json!({}))],
        );
        assert_eq!(
            one.failed_indexes.as_ref().map(ToString::to_string).as_deref(),
            Some("")
        );
        assert_eq!(one.failure_counts(0), (1, 0));
        assert!(!one.may_release(&one.pods[0], false));
        assert!(one.end(&now).is_none());
        let two = view(
            job(spec, json!({"completedIndexes": "1"})),
            vec![pod("a", "Failed", Some(0), json!({FAILURES: "1"}))],
        );
        assert_eq!(
            two.failed_indexes.as_ref().map(ToString::to_string).as_deref(),
            Some("0")
        );
        assert_eq!(two.end(&now).and_then(|c| c.reason).as_deref(), Some("FailedIndexes"));
        assert!(two.may_release(&two.pods[0], false));
    }
    #[test]
    fn a_pod_that_was_counted_is_not_counted_again_before_it_is_seen_to_be_released() {
        let pods = vec![pod("a", "Failed", None, json!({})), pod("b", "Failed", None, json!({}))];
        let counted = HashSet::from(["a".to_owned()]);
        let view = View::new(job(json!({}), json!({"failed": 1})), pods, Record::default(), counted);
        assert_eq!(view.failed, 2);
        assert!(!view.is_tracked(&view.pods[0]) && view.is_tracked(&view.pods[1]));
    }
}
