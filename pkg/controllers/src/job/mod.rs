//! Jobs: pods that run to their end, as many and as often as asked for.
//!
//! Watches Jobs and pods; makes and deletes pods; writes the Job's status. A finalizer keeps each pod until it is counted: first its uid is
//! noted in the status, then the finalizer is taken off, then the note becomes a number. So no end of a pod is counted twice, or never,
//! wherever this process stops. [`view`] counts and decides, [`policy`], [`indexes`] and [`backoff`] are its parts; all pure. This file acts.

mod backoff;
mod indexes;
mod policy;
mod run;
mod template;
mod view;

use std::collections::HashMap;
use std::fmt;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use mk8s_client::{Event, EventRecorder, Index, Informer, Seen};
use parking_lot::Mutex;
use serde_json::json;

use crate::adoption::{self, manager};
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::index;
use crate::meta::{self, Key};

use backoff::Record;
use run::Run;
use view::{FINALIZER, View};

pub use view::end;

const NAME: &str = "job-controller";
const WORKERS: usize = 5;
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
    /// Pods that were made, deleted or released.
    pods_seen: Seen<Key>,
    /// Jobs whose status was written.
    jobs_seen: Seen<Key>,
    /// With the uid of the Job they are of: the next Job of that name begins with none.
    records: Mutex<HashMap<Key, (String, Record)>>,
}

impl Memory {
    fn record(&self, job: &Job) -> Record {
        let records = self.records.lock();
        let known = records.get(&Key::of(job)).filter(|(uid, _)| uid == meta::uid(job));
        known.map(|(_, record)| *record).unwrap_or_default()
    }

    fn set_record(&self, job: &Job, record: Record) {
        let of = (meta::uid(job).to_owned(), record);
        self.records.lock().insert(Key::of(job), of);
    }

    fn forget(&self, key: &Key) {
        self.pods_seen.forget(key);
        self.jobs_seen.forget(key);
        self.records.lock().remove(key);
    }
}

struct Controller {
    ctx: Context,
    jobs: Informer<Job>,
    all_pods: Informer<Pod>,
    pods: Index<Pod>,
    memory: Memory,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (jobs, all_pods) = (ctx.informers.of::<Job>(), ctx.informers.of::<Pod>());
    let pods = index::owner(&all_pods);
    let mut driver = Driver::new(NAME, &ctx.scope);
    driver.watch(&jobs, {
        let pods = pods.clone();
        move |event| {
            // A deleted one too: what is remembered of its name is forgotten between two reconciliations, not under one.
            let mut items = vec![Item::Job(Key::of(&**event.object()))];
            if let Event::Deleted(old) = event {
                let left = pods.get(meta::uid(&**old));
                items.extend(left.iter().map(|p| Item::Orphan(Key::of(&**p))));
            }
            items
        }
    });
    driver.watch(&all_pods, {
        let (jobs, in_namespace) = (jobs.clone(), index::namespace(&jobs));
        move |event| pod_event(event, &jobs, &in_namespace)
    });
    let recorder = ctx.recorder(NAME);
    let controller = Controller {
        ctx,
        jobs,
        all_pods,
        pods,
        memory: Memory::default(),
        recorder,
    };
    driver.run(WORKERS, controller).await
}

impl Reconcile<Item> for Controller {
    async fn reconcile(&self, item: Item) -> Result<Next, Error> {
        match item {
            Item::Job(key) => self.job(key).await,
            Item::Orphan(key) => self.release_orphan(key).await,
        }
    }
}

fn pod_event(event: &Event<Pod>, jobs: &Informer<Job>, in_namespace: &Index<Job>) -> Vec<Item> {
    let key = manager::<Job>(&**event.object());
    let mut items: Vec<Item> = key.clone().map(Item::Job).into_iter().collect();
    if let Event::Applied { old, new } = event {
        if let Some(before) = old
            .as_deref()
            .and_then(manager::<Job>)
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
            let selector = |job: &Job| job.spec.as_ref().and_then(|s| s.selector.clone());
            let adopters = adoption::selecting(&**new, in_namespace, selector);
            items.extend(adopters.into_iter().map(Item::Job));
        }
        let orphaned = owner.is_none_or(|o| {
            let job = key.as_ref().and_then(|k| jobs.get(k.ns(), &k.name));
            key.is_some() && job.is_none_or(|j| meta::uid(&*j) != o.uid)
        });
        if held && orphaned {
            items.push(Item::Orphan(Key::of(&**new)));
        }
    }
    items
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
        if let Some(owner) = meta::controller_of_kind::<Job, _>(&*pod) {
            // The informer of Jobs may lag behind that of pods: ask.
            let live = self.ctx.api::<Job>(&key.namespace).get_opt(&owner.name).await;
            let live = live.tried(|| format!("get Job {}/{}", key.namespace, owner.name))?;
            if live.is_some_and(|job| meta::uid(&job) == owner.uid) {
                return Ok(Next::Done);
            }
        }
        self.take_finalizer(&pod).await.map(|_| Next::Done)
    }

    /// The pod without it; none where the pod is gone.
    async fn take_finalizer(&self, pod: &Pod) -> Result<Option<Pod>, Error> {
        let patch = json!({"metadata": {"uid": meta::uid(pod), "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
        let (namespace, name) = (meta::namespace(pod), meta::name(pod));
        let api = self.ctx.api::<Pod>(namespace);
        let done = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        match done.tried_if_exists(|| format!("release pod {namespace}/{name}")) {
            // Another pod has the name by now.
            Err(e) if e.is_conflict() || e.code() == Some(422) && meta::uid(pod) != self.uid_now(pod) => Ok(None),
            result => result,
        }
    }

    fn uid_now(&self, pod: &Pod) -> String {
        let known = self.all_pods.get(Some(meta::namespace(pod)), meta::name(pod));
        known.map(|p| meta::uid(&*p).to_owned()).unwrap_or_default()
    }

    async fn job(&self, key: Key) -> Result<Next, Error> {
        // Pods are counted once: not before what was written last has come back. Asked before the Job and its pods are
        // read: neither may be older than the answer.
        let pods_missing = self.memory.pods_seen.missing(&key, &self.all_pods);
        if let Some(later) = pods_missing.or_else(|| self.memory.jobs_seen.missing(&key, &self.jobs)) {
            return Ok(Next::After(later));
        }
        let Some(job) = self.jobs.get(key.ns(), &key.name) else {
            self.memory.forget(&key);
            return Ok(Next::Done);
        };
        let Some(spec) = &job.spec else { return Ok(Next::Done) };
        if spec.managed_by.as_deref().is_some_and(|by| by != OURSELVES) {
            return Ok(Next::Done);
        }
        if end(&job).is_some() {
            self.memory.records.lock().remove(&key);
            return Ok(Next::Done);
        }
        let Some(selector) = &spec.selector else {
            return Ok(Next::Done);
        };
        let required = selector.match_labels.clone().unwrap_or_default();
        let selector = meta::selector(selector)?;
        let mut candidates = self.pods.get(meta::uid(&*job));
        candidates.extend(index::orphans(&self.pods, &key.namespace, &required));
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
        let record = self.memory.record(&job);
        let view = View::new((*job).clone(), pods, record);
        let mut run = Run {
            controller: self,
            key,
            before: job,
            view,
            next: Next::Done,
        };
        run.run().await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_job_begins_without_the_memory_of_the_last_one_of_its_name() {
        let job = |uid: &str| -> Job {
            serde_json::from_value(json!({"metadata": {"namespace": "d", "name": "a", "uid": uid}})).unwrap()
        };
        let memory = Memory::default();
        let record = Record::default().after(&[], &[&Pod::default()]);
        assert_ne!(record, Record::default());
        memory.set_record(&job("1"), record);
        assert_eq!(memory.record(&job("1")), record);
        assert_eq!(memory.record(&job("2")), Record::default());
        memory.forget(&Key::new("d", "a"));
        assert_eq!(memory.record(&job("1")), Record::default());
    }
}
