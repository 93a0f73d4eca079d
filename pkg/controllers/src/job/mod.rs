//! Jobs: pods that run to their end, as many and as often as asked for.
//!
//! Watches Jobs and pods; makes and deletes pods; writes the Job's status. A finalizer keeps each pod until it is counted: first its uid is
//! noted in the status, then the finalizer is taken off, then the note becomes a number. So no end of a pod is counted twice, or never,
//! wherever this process stops. [`view`] counts and decides, [`policy`], [`indexes`] and [`backoff`] are its parts; all pure. This file acts.

mod backoff;
mod ending;
mod events;
mod indexes;
mod memory;
mod policy;
mod run;
mod steps;
mod template;
mod view;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use mk8s_client::{Answer, EventRecorder, Informer, WorkQueue};
use serde_json::json;
use tokio::time::Instant;

use crate::adoption;
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::index::Owned;
use crate::meta::{self, Key};
use crate::selecting::Selecting;

use events::Item;
use memory::Memory;
use run::Run;
use view::{FINALIZER, View};

pub use view::end;

const NAME: &str = "job-controller";
const WORKERS: usize = 5;
/// Whose pods cannot be made may have room for them soon, and who waits for a Job waits for each of its pods.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Who else would look after a Job.
const OURSELVES: &str = "kubernetes.io/job-controller";

struct Controller {
    ctx: Context,
    jobs: Informer<Job>,
    all_pods: Informer<Pod>,
    pods: Owned<Pod>,
    memory: Arc<Memory>,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (jobs, all_pods) = (ctx.informers.of::<Job>(), ctx.informers.of::<Pod>());
    let pods = Owned::of(&all_pods);
    let mut driver = Driver::new(NAME, &ctx.scope);
    driver.queue.retry_within(LONGEST_RETRY);
    let memory = Arc::new(Memory::default());
    driver.watch(&jobs, {
        let (pods, queue, memory) = (pods.clone(), driver.queue.clone(), memory.clone());
        move |event| {
            let items = events::of_job(event, &pods);
            if events::is_order(event) {
                return items;
            }
            items.into_iter().for_each(|item| after_rest(&queue, &memory, item));
            Vec::new()
        }
    });
    driver.watch(&all_pods, {
        let (jobs, owners) = (
            jobs.clone(),
            Selecting::of(&jobs, |job| job.spec.as_ref()?.selector.clone()),
        );
        let (queue, memory) = (driver.queue.clone(), memory.clone());
        move |event| {
            let items = events::of_pod(event, &jobs, &owners);
            items.into_iter().for_each(|item| after_rest(&queue, &memory, item));
            Vec::new()
        }
    });
    let recorder = ctx.recorder(NAME);
    let controller = Controller {
        ctx,
        jobs,
        all_pods,
        pods,
        memory,
        recorder,
    };
    driver.run(WORKERS, controller).await
}

impl Reconcile<Item> for Controller {
    async fn reconcile(&self, item: Item) -> Result<Next, Error> {
        match item {
            Item::Job(key) => self.job(key).await,
            Item::Ended(key) => self.release_all(key).await,
            Item::Orphan(key) => self.release_orphan(key).await,
        }
    }
}

/// Does somebody else look after it?
fn is_anothers(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    manager.is_some_and(|manager| manager != OURSELVES)
}

/// Many pods' events are dealt with at once: see [`crate::rests`].
fn after_rest(queue: &WorkQueue<Item>, memory: &Memory, item: Item) {
    let rest = match &item {
        Item::Job(key) => memory.rests.left(key),
        Item::Ended(_) | Item::Orphan(_) => Duration::ZERO,
    };
    queue.add_after(item, rest);
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
            let counts = |job: &Job| end(job).is_none() || is_anothers(job);
            let known = self.jobs.get(key.ns(), &owner.name);
            if known.is_some_and(|job| meta::uid(&*job) == owner.uid && counts(&job)) {
                return Ok(Next::Done);
            }
            // The informer of Jobs may lag behind that of pods: ask.
            let live = self.ctx.api::<Job>(&key.namespace).get_opt(&owner.name).await;
            let live = live.tried(|| format!("get Job {}/{}", key.namespace, owner.name))?;
            if live.is_some_and(|job| meta::uid(&job) == owner.uid && counts(&job)) {
                return Ok(Next::Done);
            }
        }
        self.take_finalizer(&pod).await.map(|_| Next::Done)
    }

    /// A Job ends when all of its pods are released; one that somebody else has ended may still have some.
    async fn release_all(&self, key: Key) -> Result<Next, Error> {
        if let Some(later) = self.memory.pods_seen.missing(&key, &self.all_pods) {
            return Ok(Next::After(later));
        }
        let job = self.jobs.get(key.ns(), &key.name);
        let Some(job) = job.filter(|job| end(job).is_some() && !is_anothers(job)) else {
            return Ok(Next::Done);
        };
        let pods = self.pods.by(&*job);
        let held = pods.iter().filter(|pod| meta::has_finalizer(&***pod, FINALIZER));
        futures::future::try_join_all(held.map(|pod| self.take_finalizer(pod))).await?;
        Ok(Next::Done)
    }

    /// The pod without it; none where the pod is gone.
    async fn take_finalizer(&self, pod: &Pod) -> Result<Option<Answer<Pod>>, Error> {
        let patch = json!({"metadata": {"uid": meta::uid(pod), "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
        let (namespace, name) = (meta::namespace(pod), meta::name(pod));
        let api = self.ctx.api::<Pod>(namespace);
        let done = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        match done.tried_if_exists(|| format!("release pod {namespace}/{name}")) {
            // Another pod has the name by now; what is in the way of this one is tried again.
            Err(e) if matches!(e.code(), Some(409 | 422)) && meta::uid(pod) != self.uid_now(pod) => Ok(None),
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
        if is_anothers(&job) {
            return Ok(Next::Done);
        }
        if end(&job).is_some() {
            self.memory.ended(&key);
            return Ok(Next::Done);
        }
        let begun = Instant::now();
        let Some(selector) = &spec.selector else {
            return Ok(Next::Done);
        };
        let candidates = adoption::candidates(&self.pods, &*job, selector);
        let pods = adoption::claim(&self.ctx, &*job, selector, candidates, |_| true, Some(FINALIZER)).await?;
        let record = self.memory.record(&job);
        let released = self.memory.released_of(&key, &pods);
        let view = View::new((*job).clone(), pods, record, released);
        let mut run = Run {
            controller: self,
            key,
            before: job,
            view,
            next: Next::Done,
            making: Duration::ZERO,
        };
        let done = run.run().await;
        // What it makes at once is no reason to look at it later.
        let work = begun.elapsed().saturating_sub(run.making);
        self.memory.rests.worked(&run.key, work);
        run.next.even_if(done)
    }
}
