//! One reconciliation of a Job: makes and deletes pods, notes those that ended, releases and counts them, says that the Job has ended.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use tokio::time::Instant;

use super::Controller;
use super::indexes::Indexes;
use super::policy::Verdict;
use super::steps::Step;
use super::template::new_pod;
use super::view::{FINALIZER, View, condition, new_condition};
use crate::delete::delete;
use crate::driver::Next;
use crate::error::{Error, Tried, message, namespace_terminating};
use crate::meta::{self, Key, nonzero, to_i32};
use crate::{pod, replicas};

/// Uids noted in a status at once: it must not grow without bound.
const MAX_UNCOUNTED: usize = 500;

/// One reconciliation.
pub(super) struct Run<'a> {
    pub(super) controller: &'a Controller,
    pub(super) key: Key,
    /// As the informer has it.
    pub(super) before: Arc<Job>,
    pub(super) view: View,
    /// When it has to be looked at again, also where something failed.
    pub(super) next: Next,
    /// What it took to make pods.
    pub(super) making: Duration,
}

impl Run<'_> {
    pub(super) async fn run(&mut self) -> Result<(), Error> {
        let now = meta::now();
        let suspended = self.view.numbers.suspended;
        let status = self.view.job.status.get_or_insert_default();
        if status.start_time.is_none() && !suspended {
            status.start_time = Some(now.clone());
        }
        let mut end = self.view.end(&now);
        if let Some(left) = self.view.deadline_left(now.0).filter(|left| !left.is_zero()) {
            self.next = self.next.sooner(Next::After(left));
        }
        let mut active = to_i32(self.view.active.len());
        let mut failure = None;
        if end.is_some() {
            let doomed = self.view.active.clone();
            let (deleted, error) = self.delete(&doomed, false).await;
            if deleted != active {
                // Some can't be deleted yet: the end has to wait.
                end = None;
            }
            active -= deleted;
            failure = error;
        } else {
            let manages = !meta::deleting(&self.view.job);
            if manages {
                (active, failure) = self.manage(active).await;
            }
            if self.view.is_complete(active) {
                let text = "Reached expected number of succeeded pods";
                end = Some(new_condition(
                    "SuccessCriteriaMet",
                    "True",
                    "CompletionsReached",
                    text,
                    &now,
                ));
            } else if manages && let Some((event, text)) = self.view.note_suspension(&now) {
                let job = meta::reference(&self.view.job);
                self.controller.recorder.event(&job, "Normal", event, text);
            }
        }
        let (ready, terminating) = (self.view.ready, self.view.terminating);
        let status = self.view.job.status.get_or_insert_default();
        status.active = nonzero(active);
        status.ready = Some(ready);
        status.terminating = Some(terminating);
        self.track(end).await?;
        failure.map_or(Ok(()), Err)
    }

    /// Makes or deletes pods; returns how many are active then.
    async fn manage(&mut self, active: i32) -> (i32, Option<Error>) {
        match self.view.step(Timestamp::now()) {
            Step::Nothing => (active, None),
            Step::Wait(left) => {
                self.next = self.next.sooner(Next::After(left + Duration::from_millis(1)));
                (active, None)
            }
            Step::Delete(doomed) => {
                let (deleted, error) = self.delete(&doomed, true).await;
                (active - deleted, error)
            }
            Step::Create(indexes) => {
                let (made, error) = self.create(&indexes).await;
                (active + made, error)
            }
        }
    }

    /// Deletes active pods. Those that are only too many need not be counted: they are released at once.
    async fn delete(&mut self, doomed: &[Arc<Pod>], release: bool) -> (i32, Option<Error>) {
        if doomed.is_empty() {
            return (0, None);
        }
        let seen = &self.controller.memory.pods_seen;
        let api = self.controller.ctx.api::<Pod>(&self.key.namespace);
        let mut results = Vec::with_capacity(doomed.len());
        // A Job may end with more pods than are made at once.
        for burst in doomed.chunks(replicas::BURST) {
            let deletions = burst.iter().map(|pod| async {
                let name = meta::name(&**pod);
                if release
                    && meta::has_finalizer(&**pod, FINALIZER)
                    && let Some(released) = self.controller.take_finalizer(pod).await?
                {
                    seen.wrote(&self.key, released.revision);
                    self.controller.memory.released(&self.key, pod);
                }
                let job = meta::reference(&self.view.job);
                let recorder = &self.controller.recorder;
                match delete(&api, &**pod, DeleteParams::default()).await {
                    Ok(true) => {
                        seen.deleted(&self.key, &**pod);
                        recorder.event(&job, "Normal", "SuccessfulDelete", format!("Deleted pod: {name}"));
                        Ok(())
                    }
                    Ok(false) => Ok(()),
                    Err(e) => {
                        let text = format!("Error deleting: {}", e.message());
                        recorder.event(&job, "Warning", "FailedDelete", text);
                        Err(e)
                    }
                }
            });
            results.extend(futures::future::join_all(deletions).await);
        }
        let (mut deleted, mut deleted_ready, mut error) = (0, 0, None);
        for (pod, result) in doomed.iter().zip(results) {
            match result {
                Ok(()) => {
                    deleted += 1;
                    deleted_ready += i32::from(pod::is_ready(pod));
                }
                Err(e) => error = Some(e),
            }
        }
        self.view.ready -= deleted_ready;
        self.view.terminating += deleted;
        (deleted, error)
    }

    async fn create(&mut self, indexes: &[Option<i32>]) -> (i32, Option<Error>) {
        let (seen, key) = (&self.controller.memory.pods_seen, &self.key);
        let recorder = &self.controller.recorder;
        let api = self.controller.ctx.api::<Pod>(&self.key.namespace);
        let job = meta::reference(&self.view.job);
        let begun = Instant::now();
        let (made, error) = replicas::slow_start(indexes.len(), |at| {
            let pod = new_pod(&self.view, indexes[at]);
            let (api, job) = (&api, &job);
            async move {
                let created = api.create(&PostParams::default(), &pod).await?;
                seen.wrote(key, created.revision);
                recorder.event(
                    job,
                    "Normal",
                    "SuccessfulCreate",
                    format!("Created pod: {}", created.name),
                );
                Ok::<(), kube::Error>(())
            }
        })
        .await;
        self.making += begun.elapsed();
        let error = match error {
            Some(e) if namespace_terminating(&e) => None,
            Some(e) => {
                recorder.event(
                    &job,
                    "Warning",
                    "FailedCreate",
                    format!("Error creating: {}", message(&e)),
                );
                Some(Error::Api {
                    action: format!("create pods of Job {}", self.key),
                    source: Box::new(e),
                })
            }
            None => None,
        };
        (to_i32(made), error)
    }

    /// Notes ended pods in the status, releases them, counts them; then, when all are counted, says that the Job has ended.
    async fn track(&mut self, end: Option<JobCondition>) -> Result<(), Error> {
        let mut held: HashSet<String> = self
            .view
            .pods
            .iter()
            .filter(|p| self.view.is_tracked(p))
            .map(|p| meta::uid(&**p).to_owned())
            .collect();
        self.count_released(&held);
        let (to_release, full) = self.note_ended(end.as_ref());
        let last = end.map(|end| self.note_end(&end));
        self.flush().await?;
        self.controller.memory.set_record(&self.view.job, self.view.record);

        let failure = self.release(&to_release, &mut held).await;
        self.count_released(&held);
        if let Some(error) = failure {
            self.flush().await?;
            return Err(error);
        }
        let uncounted = self.view.status().uncounted_terminated_pods.clone().unwrap_or_default();
        let waiting = uncounted.succeeded.iter().chain(&uncounted.failed).flatten().count();
        let finished = last.filter(|_| !full && waiting == 0 && self.view.terminating == 0);
        if let Some(last) = &finished {
            let status = self.view.job.status.get_or_insert_default();
            if last.type_ == "Complete" {
                status.completion_time.clone_from(&last.last_transition_time);
            }
            status.conditions.get_or_insert_default().push(last.clone());
        }
        self.flush().await?;
        if let Some(last) = finished {
            self.tell_end(&last);
        }
        Ok(())
    }

    /// Turns notes of pods that are released into numbers.
    fn count_released(&mut self, held: &HashSet<String>) {
        let status = self.view.job.status.get_or_insert_default();
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        for (notes, count) in [
            (&mut uncounted.succeeded, &mut status.succeeded),
            (&mut uncounted.failed, &mut status.failed),
        ] {
            let Some(all) = notes else { continue };
            let before = all.len();
            all.retain(|uid| held.contains(uid));
            let counted = to_i32(before - all.len());
            if counted > 0 {
                *count = Some(count.unwrap_or(0) + counted);
            }
            if all.is_empty() {
                *notes = None;
            }
        }
    }

    /// Notes the uids of pods that ended, and returns those that may be released; with it, whether more had to be left for later.
    fn note_ended(&mut self, end: Option<&JobCondition>) -> (Vec<Arc<Pod>>, bool) {
        let mut to_release = Vec::new();
        let (mut succeeded, mut failed, mut indexes) = (Vec::new(), Vec::new(), Vec::new());
        let known = self.view.status().uncounted_terminated_pods.clone().unwrap_or_default();
        let known = known.succeeded.iter().chain(&known.failed).flatten().count();
        let mut full = false;
        let failing = end.is_some_and(|e| e.type_ != "SuccessCriteriaMet");
        for pod in self.view.pods.iter().filter(|p| self.view.is_tracked(p)) {
            if !self.view.may_release(pod, end.is_some()) {
                continue;
            }
            to_release.push(pod.clone());
            let uid = meta::uid(&**pod).to_owned();
            let valid = !self.view.numbers.indexed || self.view.valid_index(pod).is_some();
            if pod::phase(pod) == "Succeeded" && !self.view.is_noted_failed(pod) {
                if self.view.numbers.indexed {
                    indexes.extend(
                        self.view
                            .valid_index(pod)
                            .filter(|i| !self.view.counted_indexes.has(*i)),
                    );
                } else if !self.view.is_noted_succeeded(pod) {
                    succeeded.push(uid);
                }
            } else if (self.view.has_failed(pod) || failing)
                && valid
                && !self.view.is_noted_failed(pod)
                && self.view.verdict(pod) != Verdict::Ignore
            {
                failed.push(uid);
            }
            if known + succeeded.len() + failed.len() + indexes.len() >= MAX_UNCOUNTED {
                full = true;
                break;
            }
        }
        let indexed = self.view.numbers.indexed;
        let done = self
            .view
            .counted_indexes
            .union(&indexes.into_iter().collect::<Indexes>());
        let failed_indexes = self.view.failed_indexes.as_ref().map(ToString::to_string);
        let status = self.view.job.status.get_or_insert_default();
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        for (notes, new) in [(&mut uncounted.succeeded, succeeded), (&mut uncounted.failed, failed)] {
            if !new.is_empty() {
                notes.get_or_insert_default().extend(new);
            }
        }
        if indexed {
            status.succeeded = nonzero(done.len());
            status.completed_indexes = Some(done.to_string()).filter(|t| !t.is_empty());
            status.failed_indexes = failed_indexes;
        }
        (to_release, full)
    }

    /// Adds the condition that says that the Job is about to end; returns the one that will say that it has.
    fn note_end(&mut self, end: &JobCondition) -> JobCondition {
        let now = meta::now();
        let (interim, last) = match end.type_.as_str() {
            "SuccessCriteriaMet" => (true, "Complete"),
            "FailureTarget" => (true, "Failed"),
            _ => (false, "Failed"),
        };
        if interim && condition(self.view.status(), &end.type_).is_none_or(|c| c.status != "True") {
            self.view
                .job
                .status
                .get_or_insert_default()
                .conditions
                .get_or_insert_default()
                .push(end.clone());
        }
        let text = |v: &Option<String>| v.clone().unwrap_or_default();
        new_condition(last, "True", &text(&end.reason), &text(&end.message), &now)
    }

    async fn release(&self, pods: &[Arc<Pod>], held: &mut HashSet<String>) -> Option<Error> {
        if pods.is_empty() {
            return None;
        }
        let results = futures::future::join_all(pods.iter().map(|p| self.controller.take_finalizer(p))).await;
        let mut failure = None;
        for (pod, result) in pods.iter().zip(results) {
            match result {
                Ok(released) => {
                    held.remove(meta::uid(&**pod));
                    self.controller.memory.released(&self.key, pod);
                    if let Some(released) = released {
                        self.controller.memory.pods_seen.wrote(&self.key, released.revision);
                    }
                }
                Err(error) => failure = Some(error),
            }
        }
        failure
    }

    /// Writes the status if it changed since it was read or written last.
    async fn flush(&mut self) -> Result<(), Error> {
        if self.before.status == self.view.job.status {
            return Ok(());
        }
        if let Some(updated) = self.controller.ctx.write_status(&self.view.job).await? {
            self.controller.memory.jobs_seen.wrote(&self.key, updated.revision);
            let updated = updated.object().tried(|| format!("read Job {}", self.key))?;
            self.view.job = updated.clone();
            self.before = Arc::new(updated);
        }
        Ok(())
    }

    fn tell_end(&self, last: &JobCondition) {
        let (job, recorder) = (meta::reference(&self.view.job), &self.controller.recorder);
        let text = |v: &Option<String>| v.clone().unwrap_or_default();
        if last.type_ != "Complete" {
            return recorder.event(&job, "Warning", &text(&last.reason), text(&last.message));
        }
        let succeeded = self.view.status().succeeded.unwrap_or(0);
        if self.view.numbers.completions.is_some_and(|wanted| succeeded > wanted) {
            let text = "Too many succeeded pods running after completion count reached";
            recorder.event(&job, "Warning", "TooManySucceededPods", text);
        }
        recorder.event(&job, "Normal", "Completed", "Job completed");
    }
}
