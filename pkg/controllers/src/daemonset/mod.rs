//! DaemonSets: a pod on each node that is right for it.
//!
//! Watches DaemonSets, nodes, pods and revisions; makes and deletes pods, keeps the revisions of the template ([`history`]), writes the
//! DaemonSet's status. Pods are made for a node, and bound to it by the scheduler, which knows whether there is room. Never counts while
//! its own last writes have not come back as events. [`place`] says where pods belong and what they are like, [`plan`] what is to be done;
//! both pure. This file acts.

mod place;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use mk8s_client::{Event, EventRecorder, Informer, Seen};
use serde_json::json;
use tokio::time::Instant;

use crate::adoption;
use crate::context::Context;
use crate::delete::delete;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried, message, namespace_terminating};
use crate::failed_pods::FailedPods;
use crate::history::{self, History, Parent};
use crate::index::Owned;
use crate::meta::{self, Key};
use crate::rests::Rests;
use crate::selecting::Selecting;
use crate::{hash, pod, replicas};

use place::{Fit, Placement};
use plan::{Daemons, Plan, Why};

const NAME: &str = "daemonset-controller";
const WORKERS: usize = 2;
/// How long a pod that failed stays at most before its node gets the next.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

struct Controller {
    ctx: Context,
    sets: Informer<DaemonSet>,
    nodes: Informer<Node>,
    all_pods: Informer<Pod>,
    pods: Owned<Pod>,
    history: History,
    /// Pods that were made or deleted.
    seen: Seen<Key>,
    /// Of sets of many pods.
    rests: Arc<Rests<Key>>,
    failed: FailedPods,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (sets, nodes) = (ctx.informers.of::<DaemonSet>(), ctx.informers.of::<Node>());
    let all_pods = ctx.informers.of::<Pod>();
    let revisions = ctx.informers.of::<ControllerRevision>();
    let pods = Owned::of(&all_pods);
    let owners = Selecting::of(&sets, selector);
    let rests = Arc::<Rests<Key>>::default();
    let mut driver = Driver::new(NAME, &ctx.scope);

    // A deleted one too: what is remembered of its name is forgotten between two reconciliations, not under one.
    driver.watch(&sets, |event| vec![Key::of(&**event.object())]);
    driver.watch(&nodes, {
        let sets = sets.clone();
        move |event| node_event(event, &sets)
    });
    driver.watch(&all_pods, {
        let owners = owners.clone();
        let (queue, rests) = (driver.queue.clone(), rests.clone());
        move |event| {
            rests.wake(&queue, adoption::owners(event, &owners));
            Vec::new()
        }
    });
    driver.watch(&revisions, move |event| history::owners(event, &owners));

    let recorder = ctx.recorder(NAME);
    let controller = Controller {
        history: History::new(&ctx, revisions),
        ctx,
        sets,
        nodes,
        all_pods,
        pods,
        seen: Seen::default(),
        rests,
        failed: FailedPods::new(LONGEST_PAUSE),
        recorder,
    };
    driver.run(WORKERS, controller).await
}

/// The sets to which the node now means something else.
fn node_event(event: &Event<Node>, sets: &Informer<DaemonSet>) -> Vec<Key> {
    let (old, new) = match event {
        Event::Applied { old, new } => (old.as_deref(), Some(&**new)),
        Event::Deleted(old) => (Some(&**old), None),
    };
    if !is_moved(old, new) {
        return Vec::new();
    }
    let mut all = sets.list();
    all.retain(|set| matters(set, old, new));
    all.iter().map(|set| Key::of(&**set)).collect()
}

/// A node's status, which changes most, says nothing of where pods belong.
fn is_moved(old: Option<&Node>, new: Option<&Node>) -> bool {
    let (Some(old), Some(new)) = (old, new) else {
        return true;
    };
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
    meta::labels(old) != meta::labels(new) || taints(old) != taints(new)
}

fn matters(set: &DaemonSet, old: Option<&Node>, new: Option<&Node>) -> bool {
    let placement = Placement::new(set);
    let fit = |node: Option<&Node>| node.map_or(Fit::No, |node| placement.on(node));
    fit(old) != fit(new)
}

fn selector(set: &DaemonSet) -> Option<LabelSelector> {
    set.spec.as_ref().map(|spec| spec.selector.clone())
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        // Until what was written last has come back, what there is can't be counted.
        let pods = self.seen.missing(&key, &self.all_pods);
        if let Some(later) = pods.or_else(|| self.history.missing(&key)) {
            return Ok(Next::After(later));
        }
        let Some(set) = self.sets.get(key.ns(), &key.name) else {
            self.seen.forget(&key);
            self.rests.forget(&key);
            self.history.forget(&key);
            self.failed.forget(&key);
            return Ok(Next::Done);
        };
        let Some(spec) = &set.spec else { return Ok(Next::Done) };
        if meta::selector(&spec.selector)?.selects_all() {
            let text = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder
                .event(&meta::reference(&*set), "Warning", "SelectingAll", text);
            return Ok(Next::Done);
        }
        // Its history and its pods may go in any order: nothing can be told of it any more.
        if meta::deleting(&*set) {
            return Ok(Next::Done);
        }
        self.sync(&key, &set, spec).await
    }
}

/// The history of a set.
struct Revisions {
    current: Arc<ControllerRevision>,
    /// Of other templates; sorted.
    old: Vec<Arc<ControllerRevision>>,
}

impl Controller {
    async fn sync(&self, key: &Key, set: &DaemonSet, spec: &DaemonSetSpec) -> Result<Next, Error> {
        let begun = Instant::now();
        let candidates = adoption::candidates(&self.pods, set, &spec.selector);
        let looked = begun.elapsed();
        let pods = adoption::claim(&self.ctx, set, &spec.selector, candidates, |_| true, None).await?;
        let mut collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let ensured = self.revisions(key, set, spec, &pods, &mut collisions).await;
        let revisions = match ensured {
            Ok(revisions) => revisions,
            Err(error) => {
                self.note_collisions(set, collisions).await?;
                return Err(error);
            }
        };
        let begun = Instant::now();
        let placement = Placement::new(set);
        let nodes = self.nodes.list();
        let hash = hash_of(&revisions.current);
        let daemons = Daemons {
            set,
            hash: &hash,
            nodes: nodes
                .iter()
                .map(|node| (meta::name(&**node).to_owned(), placement.on(node)))
                .collect(),
            pods: plan::by_node(&pods),
            now: Timestamp::now(),
        };
        let now = Instant::now();
        let mut plan = daemons.manage(|node, pod| self.failed.wait(set, node, pod, now));
        let next = plan.next.map_or(Next::Done, Next::After);
        let next = next.sooner(pod::next_availability(&pods, daemons.min_ready(), daemons.now));
        if plan.is_empty() {
            plan = daemons.roll();
        }
        self.rests.worked(key, looked + begun.elapsed());
        let done = self.act(key, set, &hash, plan).await;
        let status = daemons.status(collisions);
        let written = self.write_status(set, status).await;
        let done = match done.and(written) {
            Ok(()) => self.prune(key, set, &pods, &revisions.old).await,
            failed => failed,
        };
        next.even_if(done)
    }

    async fn revisions(
        &self,
        key: &Key,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        pods: &[Arc<Pod>],
        collisions: &mut Option<i32>,
    ) -> Result<Revisions, Error> {
        let mut all = self.history.claim(set, &spec.selector, |_, _| true).await?;
        for revision in &mut all {
            if !meta::labels(&**revision).contains_key(place::HASH_LABEL) {
                let patch = json!({"metadata": {"labels": {place::HASH_LABEL: meta::name(&**revision)}}});
                *revision = self.history.change(key, revision, patch).await?;
            }
        }
        let parent = Parent {
            key,
            reference: meta::owner_reference(set),
            annotations: set.metadata.annotations.clone(),
            template: &spec.template,
            label: place::HASH_LABEL,
            hash: |template, _, collisions| hash::pod_template(template, collisions),
            defaults: None,
        };
        let current = self.history.ensure(&parent, &all, collisions).await?;
        let data = history::data(&spec.template);
        let (same, old): (Vec<_>, Vec<_>) = all.into_iter().partition(|revision| history::holds(revision, &data));
        let doubles: Vec<_> = same
            .into_iter()
            .filter(|r| r.metadata.name != current.metadata.name)
            .collect();
        if !doubles.is_empty() {
            self.relabel(key, pods, &hash_of(&current)).await?;
            self.history.prune(key, &doubles).await?;
        }
        Ok(Revisions { current, old })
    }

    /// Of two revisions with one template one stays: its pods are those of both.
    async fn relabel(&self, key: &Key, pods: &[Arc<Pod>], hash: &str) -> Result<(), Error> {
        let api = self.ctx.api::<Pod>(&key.namespace);
        for pod in pods {
            if meta::labels(&**pod)
                .get(place::HASH_LABEL)
                .is_some_and(|label| label == hash)
            {
                continue;
            }
            let patch = json!({"metadata": {"uid": meta::uid(&**pod), "labels": {place::HASH_LABEL: hash}}});
            let name = meta::name(&**pod);
            let patched = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            if let Some(patched) = patched.tried_if_exists(|| format!("relabel pod {}/{name}", key.namespace))? {
                self.seen.wrote(key, patched.revision);
            }
        }
        Ok(())
    }

    /// All are tried before one's failure counts.
    async fn act(&self, key: &Key, set: &DaemonSet, hash: &str, plan: Plan) -> Result<(), Error> {
        let made = self.create(key, set, hash, &plan.create).await;
        let api = self.ctx.api::<Pod>(&key.namespace);
        let (set, burst) = (meta::reference(set), plan.delete.len().min(replicas::BURST));
        let deletions = plan.delete[..burst].iter().map(|(pod, why)| async {
            let (name, node) = (meta::name(&**pod), place::node_of(pod).unwrap_or_default());
            let found = |what: &str, then: &str| {
                format!(
                    "Found {what} daemon pod {}/{name} on node {node}, will try to {then} it",
                    key.namespace
                )
            };
            match why {
                Why::Failed => self
                    .recorder
                    .event(&set, "Warning", "FailedDaemonPod", found("failed", "kill")),
                Why::Succeeded => {
                    self.recorder
                        .event(&set, "Normal", "SucceededDaemonPod", found("succeeded", "delete"))
                }
                Why::Other => {}
            }
            match delete(&api, &**pod, DeleteParams::default()).await {
                Ok(true) => {
                    self.seen.deleted(key, &**pod);
                    self.recorder
                        .event(&set, "Normal", "SuccessfulDelete", format!("Deleted pod: {name}"));
                    Ok(())
                }
                Ok(false) => Ok(()),
                Err(error) => {
                    self.recorder
                        .event(&set, "Warning", "FailedDelete", format!("Error deleting: {error}"));
                    Err(error)
                }
            }
        });
        let deleted: Result<(), Error> = futures::future::join_all(deletions).await.into_iter().collect();
        made.and(deleted)
    }

    async fn create(&self, key: &Key, set: &DaemonSet, hash: &str, nodes: &[String]) -> Result<(), Error> {
        let new = place::new_pod(set, hash);
        let api = self.ctx.api::<Pod>(&key.namespace);
        let about = meta::reference(set);
        let (_, error) = replicas::slow_start(nodes.len().min(replicas::BURST), |at| {
            let pod = place::for_node(new.clone(), &nodes[at]);
            let (api, about) = (&api, &about);
            async move {
                let created = api.create(&PostParams::default(), &pod).await?;
                self.seen.wrote(key, created.revision);
                let text = format!("Created pod: {}", created.name);
                self.recorder.event(about, "Normal", "SuccessfulCreate", text);
                Ok::<(), kube::Error>(())
            }
        })
        .await;
        match error {
            None => Ok(()),
            // Nothing can be made in a namespace that goes; retrying would only make noise.
            Some(error) if namespace_terminating(&error) => Ok(()),
            Some(error) => {
                let text = format!("Error creating: {}", message(&error));
                self.recorder.event(&about, "Warning", "FailedCreate", text);
                Err(error).tried(|| format!("create pods of DaemonSet {key}"))
            }
        }
    }

    async fn prune(
        &self,
        key: &Key,
        set: &DaemonSet,
        pods: &[Arc<Pod>],
        old: &[Arc<ControllerRevision>],
    ) -> Result<(), Error> {
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else {
            return Ok(());
        };
        let live = |revision: &ControllerRevision| {
            let hash = meta::labels(revision).get(place::HASH_LABEL);
            pods.iter()
                .any(|pod| meta::labels(&**pod).get(place::HASH_LABEL) == hash)
        };
        self.history
            .prune(key, &history::expendable(old, limit, true, live))
            .await
    }

    /// What else the status says is not known.
    async fn note_collisions(&self, set: &DaemonSet, collisions: Option<i32>) -> Result<(), Error> {
        let status = DaemonSetStatus {
            collision_count: collisions,
            ..set.status.clone().unwrap_or_default()
        };
        self.write_status(set, status).await
    }

    async fn write_status(&self, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), Error> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut update = set.clone();
        update.status = Some(status);
        self.ctx.write_status(&update).await.map(drop)
    }
}

fn hash_of(revision: &ControllerRevision) -> String {
    meta::labels(revision)
        .get(place::HASH_LABEL)
        .cloned()
        .unwrap_or_default()
}
