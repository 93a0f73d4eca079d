//! Jobs: pods that run to their end, as many and as often as asked for.
//!
//! Watches Jobs and pods; makes and deletes pods; writes the Job's status. A finalizer keeps each pod until it is counted: first its uid is
//! noted in the status, then the finalizer is taken off, then the note becomes a number. So no end of a pod is counted twice, or never,
//! wherever this process stops. [`view`] counts and decides, [`policy`], [`indexes`] and [`backoff`] are its parts; all pure. This file acts.

mod backoff;
mod indexes;
mod policy;
mod view;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::SelectorExt;
use mk8s_client::{Event, EventRecorder, Informer};
use parking_lot::Mutex;
use serde_json::json;

use crate::adoption::{self, by_owner, orphans};
use crate::context::Context;
use crate::driver::{Driver, Index, Next};
use crate::error::{Error, Tried};
use crate::expectations::Expectations;
use crate::meta::{self, Key};
use crate::replicaset::{message, namespace_terminating, to_i32};
use crate::{pod, replicas};

use backoff::Record;
use indexes::Indexes;
use policy::Verdict;
use view::{FAILURES, FINALIZER, IGNORED_FAILURES, INDEX, Step, View, condition, index_of, is_finished, new_condition};

const NAME: &str = "job-controller";
const WORKERS: usize = 5;
/// Uids noted in a status at once: it must not grow without bound.
const MAX_UNCOUNTED: usize = 500;
/// Who else would look after a Job.
const OURSELVES: &str = "kubernetes.io/job-controller";

/// What is reconciled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Item {
    Job(Key),
    /// A pod with the finalizer whose Job is gone.
    Orphan(Key),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Job(key) => key.fmt(f),
            Item::Orphan(key) => write!(f, "pod {key}"),
        }
    }
}

/// What the controller remembers between reconciliations.
#[derive(Default)]
struct Memory {
    expectations: Expectations,
    /// Uids of pods whose finalizer was taken off, by Job, until the informer shows it.
    released: Mutex<HashMap<Key, HashSet<String>>>,
    records: Mutex<HashMap<Key, Record>>,
    /// Uids of Jobs written as finished, until the informer shows it.
    finished: Mutex<HashSet<String>>,
}

impl Memory {
    fn forget(&self, key: &Key) {
        self.expectations.forget(key);
        self.released.lock().remove(key);
        self.records.lock().remove(key);
    }
}

struct Controller {
    ctx: Context,
    jobs: Informer<Job>,
    all_pods: Informer<Pod>,
    pods: Index<Pod>,
    memory: Arc<Memory>,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (jobs, all_pods) = (ctx.informers.of::<Job>(), ctx.informers.of::<Pod>());
    let pods = Index::new(by_owner::<Pod>);
    let memory = Arc::new(Memory::default());
    let mut driver = Driver::new(NAME);
    driver.watch(&jobs, {
        let (pods, memory) = (pods.clone(), memory.clone());
        move |event| match event {
            Event::Applied { new, .. } => vec![Item::Job(Key::of(&**new))],
            Event::Deleted(old) => {
                memory.forget(&Key::of(&**old));
                memory.finished.lock().remove(meta::uid(&**old));
                pods.get(meta::uid(&**old))
                    .iter()
                    .map(|p| Item::Orphan(Key::of(&**p)))
                    .collect()
            }
        }
    });
    driver.watch(&all_pods, {
        let (pods, memory, jobs) = (pods.clone(), memory.clone(), jobs.clone());
        move |event| {
            pods.observe(event);
            pod_event(event, &memory, &jobs)
        }
    });
    let recorder = ctx.recorder(NAME);
    let controller = Arc::new(Controller {
        ctx,
        jobs,
        all_pods,
        pods,
        memory,
        recorder,
    });
    driver
        .run(WORKERS, move |item| {
            let controller = controller.clone();
            async move {
                match item {
                    Item::Job(key) => controller.reconcile(key).await,
                    Item::Orphan(key) => controller.release_orphan(key).await,
                }
            }
        })
        .await
}

fn manager(pod: &Pod) -> Option<Key> {
    meta::controller_of(pod)
        .filter(|o| o.kind == "Job")
        .map(|o| Key::new(meta::namespace(pod), &o.name))
}

fn pod_event(event: &Event<Pod>, memory: &Memory, jobs: &Informer<Job>) -> Vec<Item> {
    let pod = event.object();
    let uid = meta::uid(&**pod);
    let key = manager(pod);
    if let Some(key) = &key {
        match event {
            Event::Applied { old, new } => {
                if old.is_none() {
                    memory.expectations.created(key);
                }
                if meta::deleting(&**new) {
                    memory.expectations.deleted(key, uid);
                }
                if !meta::has_finalizer(&**new, FINALIZER) {
                    released(memory, key, uid);
                }
            }
            Event::Deleted(_) => {
                memory.expectations.deleted(key, uid);
                released(memory, key, uid);
            }
        }
    }
    let mut items: Vec<Item> = key.clone().map(Item::Job).into_iter().collect();
    if let Event::Applied { old, new } = event {
        if let Some(before) = old
            .as_deref()
            .and_then(manager)
            .filter(|before| Some(before) != key.as_ref())
        {
            items.push(Item::Job(before));
        }
        let held = meta::has_finalizer(&**new, FINALIZER);
        let owner = meta::controller_of(&**new);
        if owner.is_none()
            && !meta::deleting(&**new)
            && old.as_ref().is_none_or(|o| o.metadata.labels != new.metadata.labels)
        {
            items.extend(selecting(new, jobs));
        }
        let orphaned = owner.is_none_or(|o| {
            let job = key.as_ref().and_then(|k| jobs.get(k.ns(), &k.name));
            o.kind == "Job" && job.is_none_or(|j| meta::uid(&*j) != o.uid)
        });
        if held && orphaned {
            items.push(Item::Orphan(Key::of(&**new)));
        }
    }
    items
}

fn released(memory: &Memory, key: &Key, uid: &str) {
    if let Some(uids) = memory.released.lock().get_mut(key) {
        uids.remove(uid);
    }
}

fn selecting(pod: &Pod, jobs: &Informer<Job>) -> Vec<Item> {
    if meta::labels(pod).is_empty() {
        return Vec::new();
    }
    jobs.filter(|job| {
        let selector = job
            .spec
            .as_ref()
            .and_then(|s| s.selector.as_ref())
            .and_then(|s| meta::selector(s).ok());
        meta::namespace(job) == meta::namespace(pod)
            && selector.is_some_and(|s| !s.selects_all() && s.matches(meta::labels(pod)))
    })
    .iter()
    .map(|job| Item::Job(Key::of(&**job)))
    .collect()
}

impl Controller {
    /// Nobody will count the pod any more: it may go.
    async fn release_orphan(&self, key: Key) -> Result<Next, Error> {
        let Some(pod) = self.all_pods.get(key.ns(), &key.name) else {
            return Ok(Next::Done);
        };
        if !meta::has_finalizer(&*pod, FINALIZER) {
            return Ok(Next::Done);
        }
        if let Some(owner) = meta::controller_of(&*pod).filter(|o| o.kind == "Job") {
            // The informer of Jobs may lag behind that of pods: ask.
            let live = self.ctx.api::<Job>(&key.namespace).get_opt(&owner.name).await;
            let live = live.tried(|| format!("get Job {}/{}", key.namespace, owner.name))?;
            if live.is_some_and(|job| meta::uid(&job) == owner.uid) {
                return Ok(Next::Done);
            }
        }
        self.take_finalizer(&pod).await?;
        Ok(Next::Done)
    }

    async fn take_finalizer(&self, pod: &Pod) -> Result<(), Error> {
        let patch = json!({"metadata": {"uid": meta::uid(pod), "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
        let (namespace, name) = (meta::namespace(pod), meta::name(pod));
        let api = self.ctx.api::<Pod>(namespace);
        let done = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        match done.tried_if_exists(|| format!("release pod {namespace}/{name}")) {
            // Another pod has the name by now.
            Err(e) if e.is_conflict() || e.code() == Some(422) && meta::uid(pod) != self.uid_now(pod) => Ok(()),
            result => result.map(drop),
        }
    }

    fn uid_now(&self, pod: &Pod) -> String {
        let known = self.all_pods.get(Some(meta::namespace(pod)), meta::name(pod));
        known.map(|p| meta::uid(&*p).to_owned()).unwrap_or_default()
    }

    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(job) = self.jobs.get(key.ns(), &key.name) else {
            self.memory.forget(&key);
            return Ok(Next::Done);
        };
        let Some(spec) = &job.spec else { return Ok(Next::Done) };
        if spec.managed_by.as_deref().is_some_and(|by| by != OURSELVES) {
            return Ok(Next::Done);
        }
        if is_finished(&job) {
            self.memory.records.lock().remove(&key);
            self.memory.finished.lock().remove(meta::uid(&*job));
            return Ok(Next::Done);
        }
        if self.memory.finished.lock().contains(meta::uid(&*job)) {
            return Ok(Next::Done);
        }
        let Some(selector) = &spec.selector else {
            return Ok(Next::Done);
        };
        let selector = meta::selector(selector)?;
        let countable = self.memory.expectations.satisfied(&key);
        let mut candidates = self.pods.get(meta::uid(&*job));
        candidates.extend(self.pods.get(&orphans(&key.namespace)));
        let api = self.ctx.api::<Pod>(&key.namespace);
        let pods = adoption::claim(
            &api,
            &*job,
            &selector,
            candidates,
            |_| true,
            Some(FINALIZER),
            || async {
                let live = self.ctx.api::<Job>(&key.namespace).get_opt(&key.name).await;
                let live = live.tried(|| format!("get Job {key}"))?;
                Ok(live.is_some_and(|l| l.metadata.uid == job.metadata.uid && !meta::deleting(&l)))
            },
        )
        .await?;
        let released = self.memory.released.lock().get(&key).cloned().unwrap_or_default();
        let record = self.memory.records.lock().get(&key).copied().unwrap_or_default();
        let view = View::new((*job).clone(), pods, released, record);
        let mut run = Run {
            controller: self,
            key,
            before: job,
            view,
            next: Next::Done,
        };
        run.run(countable).await
    }
}

/// One reconciliation.
struct Run<'a> {
    controller: &'a Controller,
    key: Key,
    /// As the informer has it.
    before: Arc<Job>,
    view: View,
    next: Next,
}

impl Run<'_> {
    async fn run(&mut self, countable: bool) -> Result<Next, Error> {
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
            if deleted != active || !countable {
                // There may be pods that are not seen yet, or can't be deleted yet: the end has to wait.
                end = None;
            }
            active -= deleted;
            failure = error;
        } else {
            let manages = countable && !meta::deleting(&self.view.job);
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
            } else if manages {
                self.note_suspension();
            }
        }
        let (ready, terminating) = (self.view.ready, self.view.terminating);
        let status = self.view.job.status.get_or_insert_default();
        status.active = crate::replicaset::nonzero(active);
        status.ready = Some(ready);
        status.terminating = Some(terminating);
        self.track(end).await?;
        match failure {
            Some(error) => Err(error),
            None => Ok(self.next),
        }
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
        let expectations = &self.controller.memory.expectations;
        if release {
            expectations.expect_deletions(&self.key, doomed.iter().map(|p| meta::uid(&**p).to_owned()));
        }
        let api = self.controller.ctx.api::<Pod>(&self.key.namespace);
        let results = futures::future::join_all(doomed.iter().map(|pod| async {
            let (name, uid) = (meta::name(&**pod), meta::uid(&**pod));
            if release && meta::has_finalizer(&**pod, FINALIZER) {
                self.controller.take_finalizer(pod).await?;
            }
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: Some(uid.to_owned()),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            let done = api.delete(name, &params).await.map(drop);
            if done
                .tried_if_exists(|| format!("delete pod {}/{name}", self.key.namespace))?
                .is_none()
            {
                expectations.deleted(&self.key, uid);
            } else {
                let job = meta::reference(&self.view.job);
                self.controller
                    .recorder
                    .event(&job, "Normal", "SuccessfulDelete", format!("Deleted pod: {name}"));
            }
            Ok::<(), Error>(())
        }))
        .await;
        let (mut deleted, mut deleted_ready, mut error) = (0, 0, None);
        for (pod, result) in doomed.iter().zip(results) {
            match result {
                Ok(()) => {
                    deleted += 1;
                    deleted_ready += i32::from(pod::is_ready(pod));
                }
                Err(e) => {
                    expectations.deleted(&self.key, meta::uid(&**pod));
                    error = Some(e);
                }
            }
        }
        self.view.ready -= deleted_ready;
        self.view.terminating += deleted;
        (deleted, error)
    }

    async fn create(&mut self, indexes: &[Option<i32>]) -> (i32, Option<Error>) {
        let expectations = &self.controller.memory.expectations;
        let recorder = &self.controller.recorder;
        expectations.expect_creations(&self.key, indexes.len());
        let api = self.controller.ctx.api::<Pod>(&self.key.namespace);
        let job = meta::reference(&self.view.job);
        let (made, error) = replicas::slow_start(indexes.len(), |at| {
            let pod = new_pod(&self.view, indexes[at]);
            let (api, job) = (&api, &job);
            async move {
                let created = api.create(&PostParams::default(), &pod).await?;
                recorder.event(
                    job,
                    "Normal",
                    "SuccessfulCreate",
                    format!("Created pod: {}", meta::name(&created)),
                );
                Ok::<(), kube::Error>(())
            }
        })
        .await;
        for _ in made..indexes.len() {
            expectations.created(&self.key);
        }
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

    /// Condition Suspended, and the start time, which runs only while the Job does.
    fn note_suspension(&mut self) {
        let suspended = self.view.numbers.suspended;
        let now = meta::now();
        let (value, reason, text) = if suspended {
            ("True", "JobSuspended", "Job suspended")
        } else {
            ("False", "JobResumed", "Job resumed")
        };
        let known = condition(self.view.status(), "Suspended").map(|c| c.status.clone());
        if known.as_deref() == Some(value) || (known.is_none() && !suspended) {
            return;
        }
        let status = self.view.job.status.get_or_insert_default();
        let conditions = status.conditions.get_or_insert_default();
        conditions.retain(|c| c.type_ != "Suspended");
        conditions.push(new_condition("Suspended", value, reason, text, &now));
        status.start_time = (!suspended).then_some(now);
        let event = if suspended { "Suspended" } else { "Resumed" };
        self.controller
            .recorder
            .event(&meta::reference(&self.view.job), "Normal", event, text);
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
        self.controller
            .memory
            .records
            .lock()
            .insert(self.key.clone(), self.view.record);

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
            self.controller
                .memory
                .finished
                .lock()
                .insert(meta::uid(&self.view.job).to_owned());
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
            status.succeeded = crate::replicaset::nonzero(done.len());
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
        {
            let mut released = self.controller.memory.released.lock();
            let uids = released.entry(self.key.clone()).or_default();
            uids.extend(pods.iter().map(|p| meta::uid(&**p).to_owned()));
        }
        let results = futures::future::join_all(pods.iter().map(|p| self.controller.take_finalizer(p))).await;
        let mut failure = None;
        for (pod, result) in pods.iter().zip(results) {
            match result {
                Ok(()) => {
                    held.remove(meta::uid(&**pod));
                    // The event may have come, and gone unnoticed, before the uid was remembered.
                    let shown = self
                        .controller
                        .all_pods
                        .get(Some(meta::namespace(&**pod)), meta::name(&**pod));
                    if shown.is_none_or(|p| !meta::has_finalizer(&*p, FINALIZER)) {
                        released(&self.controller.memory, &self.key, meta::uid(&**pod));
                    }
                }
                Err(error) => {
                    released(&self.controller.memory, &self.key, meta::uid(&**pod));
                    failure = Some(error);
                }
            }
        }
        failure
    }

    /// Writes the status if it changed since it was read or written last.
    async fn flush(&mut self) -> Result<(), Error> {
        if self.before.status == self.view.job.status {
            return Ok(());
        }
        let api = self.controller.ctx.api::<Job>(&self.key.namespace);
        let updated = api
            .replace_status(&self.key.name, &PostParams::default(), &self.view.job)
            .await;
        if let Some(updated) = updated.tried_if_exists(|| format!("update status of Job {}", self.key))? {
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

/// A pod of the Job, for this index if the Job has indexes.
fn new_pod(view: &View, index: Option<i32>) -> Pod {
    let template = view.job.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let name = meta::name(&view.job);
    let mut pod = replicas::from_template(&template, name, meta::owner_reference(&view.job));
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = index else { return pod };
    debug_assert!(index_of(&pod).is_none());
    pod.metadata.generate_name = Some(format!("{name}-{index}-"));
    pod.metadata
        .labels
        .get_or_insert_default()
        .insert(INDEX.to_owned(), index.to_string());
    meta::set_annotation(&mut pod.metadata, INDEX, index.to_string());
    if view.numbers.per_index.is_some() {
        let (counted, ignored) = view.failure_counts(index);
        meta::set_annotation(&mut pod.metadata, FAILURES, counted.to_string());
        if ignored > 0 {
            meta::set_annotation(&mut pod.metadata, IGNORED_FAILURES, ignored.to_string());
        }
    }
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{name}-{index}"));
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            let env = container.env.get_or_insert_default();
            if env.iter().any(|v| v.name == "JOB_COMPLETION_INDEX") {
                continue;
            }
            env.push(EnvVar {
                name: "JOB_COMPLETION_INDEX".to_owned(),
                value: None,
                value_from: Some(EnvVarSource {
                    field_ref: Some(ObjectFieldSelector {
                        api_version: None,
                        field_path: format!("metadata.labels['{INDEX}']"),
                    }),
                    ..EnvVarSource::default()
                }),
            });
        }
    }
    pod
}
