//! ReplicaSets and ReplicationControllers: as many pods as asked for.
//!
//! Watches the sets and pods; makes, deletes, adopts and releases pods; writes the set's status. Never counts while its own last
//! writes have not come back as events. What is different between the two kinds is in [`set`]; the counting, pure, in [`status`].

mod set;
mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSetStatus;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use mk8s_client::{EventRecorder, Informer, Seen};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::adoption;
use crate::context::Context;
use crate::delete::delete;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried, message, namespace_terminating};
use crate::index::Owned;
use crate::meta::{self, Key};
use crate::pod;
use crate::replicas::{self, Pause, Round};
use crate::rests::Rests;
use crate::selecting::Selecting;

pub use set::Set;

const WORKERS: usize = 5;
/// When pods are counted again if no event of those that were made or deleted causes it sooner: what came and went at once causes none.
const RECOUNT: Duration = Duration::from_secs(1);

struct Controller<S> {
    ctx: Context,
    sets: Informer<S>,
    /// By their manager, a ReplicaSet's Deployment.
    siblings: Owned<S>,
    all_pods: Informer<Pod>,
    pods: Owned<Pod>,
    /// Pods that were made or deleted.
    seen: Seen<Key>,
    /// Statuses that were written.
    statuses: Arc<Seen<Key>>,
    /// Of sets of many pods.
    rests: Arc<Rests<Key>>,
    /// Of the sets that wait because their pods failed.
    rounds: Mutex<HashMap<Key, Round>>,
    recorder: EventRecorder,
    /// Tells why there are no more pods. It counts for itself: what is told of each pod is soon too much for one set.
    pauses: EventRecorder,
}

/// Runs the controller of the sets of one kind.
pub async fn run<S: Set>(ctx: Context) -> Result<(), Error> {
    let sets = ctx.informers.of::<S>();
    let all_pods = ctx.informers.of::<Pod>();
    let (pods, siblings) = (Owned::of(&all_pods), Owned::of(&sets));
    let mut driver = Driver::new(S::CONTROLLER, &ctx.scope);

    // A deleted one too: what is remembered of its name is forgotten between two reconciliations, not under one.
    let statuses = Arc::<Seen<Key>>::default();
    let (written, rests) = (statuses.clone(), Arc::<Rests<Key>>::default());
    driver.watch(&sets, move |event| {
        let key = Key::of(&**event.object());
        Some(key)
            .filter(|key| !written.is_echo(key, event))
            .into_iter()
            .collect()
    });
    driver.watch(&all_pods, {
        let owners = Selecting::of(&sets, S::selector);
        let (queue, rests) = (driver.queue.clone(), rests.clone());
        move |event| {
            rests.wake(&queue, adoption::owners(event, &owners));
            Vec::new()
        }
    });

    let (recorder, pauses) = (ctx.recorder(S::CONTROLLER), ctx.recorder(S::CONTROLLER));
    let controller = Controller {
        ctx,
        sets,
        siblings,
        all_pods,
        pods,
        seen: Seen::default(),
        statuses,
        rests,
        rounds: Mutex::default(),
        recorder,
        pauses,
    };
    driver.run(WORKERS, controller).await
}

impl<S: Set> Reconcile for Controller<S> {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(set) = self.sets.get(key.ns(), &key.name) else {
            self.seen.forget(&key);
            self.statuses.forget(&key);
            self.rests.forget(&key);
            self.rounds.lock().remove(&key);
            return Ok(Next::Done);
        };
        let Some(asked) = set.selector() else {
            return Ok(Next::Done);
        };
        // Until what was written last has come back, what there is can't be counted, nor told.
        if let Some(later) = self.seen.missing(&key, &self.all_pods) {
            return Ok(Next::After(later));
        }
        let begun = Instant::now();
        let candidates = adoption::candidates(&self.pods, &*set, &asked);
        let looked = begun.elapsed();
        let claimed = adoption::claim(&self.ctx, &*set, &asked, candidates, pod::is_active, None).await?;
        let begun = Instant::now();
        let active: Vec<_> = claimed.iter().filter(|p| pod::is_active(p)).cloned().collect();

        let now = Timestamp::now();
        let failed = claimed.iter().filter(|p| pod::phase(p) == "Failed");
        let pause = replicas::pause(
            failed.filter_map(|p| Some(p.metadata.creation_timestamp.as_ref()?.0)),
            now,
        );
        self.rests.worked(&key, looked + begun.elapsed());
        let (mut failure, mut paused) = (None, Next::Done);
        if !meta::deleting(&*set) {
            match self.manage(&key, &set, &active, pause).await {
                Ok(next) => paused = next,
                Err(error) => failure = Some(error),
            }
        }
        if self.seen.expects(&key) {
            paused = paused.sooner(Next::After(RECOUNT));
        }
        // Of the first pods their return tells. Whoever has some is told of at each look, however fast they come and go.
        if failure.is_none() && claimed.is_empty() && set.status().replicas == 0 && self.seen.expects(&key) {
            return Ok(paused);
        }
        let next = pod::next_availability(&active, set.min_ready_seconds(), now).sooner(paused);
        let status = status::status(&*set, &claimed, failure.as_ref(), active.len(), now);
        let written = self.write_status(&set, status).await;
        next.even_if(written.and(failure.map_or(Ok(()), Err)))
    }
}

impl<S: Set> Controller<S> {
    async fn write_status(&self, set: &S, status: ReplicaSetStatus) -> Result<(), Error> {
        if set.status() == status {
            return Ok(());
        }
        let mut update = set.clone();
        update.set_status(status);
        let written = self.ctx.write_status(&update).await?;
        let revision = written.and_then(|written| written.revision);
        self.statuses.wrote(&Key::of(set), revision);
        Ok(())
    }

    /// `pause`: before which no more pods are made than are missing beside those that failed, where there is one.
    async fn manage(&self, key: &Key, set: &S, active: &[Arc<Pod>], pause: Option<Pause>) -> Result<Next, Error> {
        let wanted = set.wanted();
        let missing = wanted.saturating_sub(active.len());
        let waiting = self.waiting(key, set, pause.as_ref(), missing);
        let now = missing.saturating_sub(waiting);
        let done = if now > 0 {
            self.create(key, set, now.min(replicas::BURST)).await
        } else if active.len() > wanted {
            let count = (active.len() - wanted).min(replicas::BURST);
            let mut related = active.to_vec();
            for sibling in meta::controller_of(set)
                .iter()
                .flat_map(|owner| self.siblings.by_uid(&key.namespace, &owner.uid))
            {
                if meta::uid(&*sibling) != meta::uid(set) {
                    related.extend(self.pods.by(&*sibling));
                }
            }
            self.delete(key, set, replicas::to_delete(active, &related, count, Timestamp::now()))
                .await
        } else {
            Ok(())
        };
        let paused = pause.filter(|_| waiting > 0);
        done.map(|()| paused.map_or(Next::Done, |pause| Next::After(pause.left)))
    }

    /// How many of those that are missing are not made before the pause is over.
    fn waiting(&self, key: &Key, set: &S, pause: Option<&Pause>, missing: usize) -> usize {
        let Some(pause) = pause else {
            self.rounds.lock().remove(key);
            return 0;
        };
        let (waiting, is_news) = self.rounds.lock().entry(key.clone()).or_default().waits(pause, missing);
        if is_news {
            let text = format!(
                "Back-off creating pods: those that failed soon after they were made are made anew in {}s",
                pause.left.as_secs()
            );
            self.pauses.event(&meta::reference(set), "Warning", "BackOff", text);
        }
        waiting
    }

    async fn create(&self, key: &Key, set: &S, count: usize) -> Result<(), Error> {
        let template = set.template().cloned().unwrap_or_default();
        let new = replicas::from_template(&template, &key.name, meta::owner_reference(set));
        let api = self.ctx.api::<Pod>(&key.namespace);
        let (_, error) = replicas::slow_start(count, |_| async {
            match api.create(&PostParams::default(), &new).await {
                Ok(created) => {
                    self.seen.wrote(key, created.revision);
                    let message = format!("Created pod: {}", created.name);
                    self.recorder
                        .event(&meta::reference(set), "Normal", "SuccessfulCreate", &message);
                    Ok(())
                }
                Err(e) => Err(e),
            }
        })
        .await;
        match error {
            None => Ok(()),
            // Nothing can be made in a namespace that goes; retrying would only make noise.
            Some(e) if namespace_terminating(&e) => Ok(()),
            Some(e) => {
                self.recorder.event(
                    &meta::reference(set),
                    "Warning",
                    "FailedCreate",
                    format!("Error creating: {}", message(&e)),
                );
                Err(e).tried(|| format!("create pods of {} {key}", S::kind(&())))
            }
        }
    }

    async fn delete(&self, key: &Key, set: &S, doomed: Vec<Arc<Pod>>) -> Result<(), Error> {
        let api = self.ctx.api::<Pod>(&key.namespace);
        let results = futures::future::join_all(doomed.iter().map(|pod| async {
            let name = meta::name(&**pod);
            match delete(&api, &**pod, DeleteParams::default()).await {
                Ok(true) => {
                    self.seen.deleted(key, &**pod);
                    let message = format!("Deleted pod: {name}");
                    self.recorder
                        .event(&meta::reference(set), "Normal", "SuccessfulDelete", &message);
                    Ok(())
                }
                Ok(false) => Ok(()),
                Err(e) => {
                    self.recorder.event(
                        &meta::reference(set),
                        "Warning",
                        "FailedDelete",
                        format!("Error deleting: {e}"),
                    );
                    Err(e)
                }
            }
        }))
        .await;
        results.into_iter().collect()
    }
}
