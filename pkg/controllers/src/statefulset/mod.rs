//! StatefulSets: pods with names, and what belongs to each name.
//!
//! Watches StatefulSets, pods, claims and revisions; makes, mends and deletes pods, makes claims and says whom they go with, keeps the
//! revisions of the template ([`history`]), writes the StatefulSet's status. Pods have fixed names and a pod is made when the API server
//! has none of its name, so there are never two. Never deletes a claim: that is the garbage collector's, by the claim's owners.
//! [`plan`] decides, [`identity`] and [`claims`] say what belongs to a name; all pure. This file acts.

mod act;
mod claims;
mod identity;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use mk8s_client::{Event, EventRecorder, Index, Informer, Partial, Seen};

use crate::adoption;
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::Error;
use crate::failed_pods::FailedPods;
use crate::history::{self, History, Parent};
use crate::index::Owned;
use crate::meta::{self, Key};
use crate::pod;
use crate::selecting::Selecting;

use act::Act;
use plan::View;

const NAME: &str = "statefulset-controller";
const WORKERS: usize = 5;
/// How long a pod that failed stays at most before it is made again.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The label that holds a revision's hash.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

struct Controller {
    ctx: Context,
    sets: Informer<StatefulSet>,
    all_pods: Informer<Pod>,
    pods: Owned<Pod>,
    claims: Informer<Partial>,
    history: History,
    /// Pods that were made, changed or deleted.
    seen: Seen<Key>,
    failed: FailedPods,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (sets, all_pods) = (ctx.informers.of::<StatefulSet>(), ctx.informers.of::<Pod>());
    let revisions = ctx.informers.of::<ControllerRevision>();
    let claims = Partial::informer(&ctx.informers, "", "PersistentVolumeClaim", "persistentvolumeclaims");
    let pods = Owned::of(&all_pods);
    let owners = Selecting::of(&sets, selector);
    let mut driver = Driver::new(NAME, &ctx.scope);

    // A deleted one too: what is remembered of its name is forgotten between two reconciliations, not under one.
    driver.watch(&sets, |event| vec![Key::of(&**event.object())]);
    driver.watch(&all_pods, {
        let (sets, owners) = (sets.clone(), owners.clone());
        move |event| pod_event(event, &sets, &owners)
    });
    driver.watch(&revisions, move |event| history::owners(event, &owners));
    driver.watch(&claims, {
        let by_claim = sets.index("claims", claim_prefixes);
        move |event| claim_event(event, &by_claim)
    });

    let recorder = ctx.recorder(NAME);
    let controller = Controller {
        history: History::new(&ctx, revisions),
        ctx,
        sets,
        all_pods,
        pods,
        claims,
        seen: Seen::default(),
        failed: FailedPods::new(LONGEST_PAUSE),
        recorder,
    };
    driver.run(WORKERS, controller).await
}

fn pod_event(event: &Event<Pod>, sets: &Informer<StatefulSet>, owners: &Selecting<StatefulSet>) -> Vec<Key> {
    let mut keys = adoption::owners(event, owners);
    if let Event::Deleted(pod) = event
        && keys.is_empty()
    {
        // Of whomever it was: its name is free.
        keys.extend(named(pod, sets));
    }
    keys
}

fn selector(set: &StatefulSet) -> Option<LabelSelector> {
    set.spec.as_ref().map(|spec| spec.selector.clone())
}

/// The set that would make a pod of this name.
fn named(pod: &Pod, sets: &Informer<StatefulSet>) -> Option<Key> {
    let (set, _) = identity::parsed(meta::name(pod))?;
    let key = Key::new(meta::namespace(pod), set);
    sets.get(key.ns(), set).map(|_| key)
}

/// What the names of a set's claims begin with.
fn claim_prefixes(set: &StatefulSet) -> Vec<String> {
    let (namespace, name) = (meta::namespace(set), meta::name(set));
    claims::templates(set)
        .map(|claim| format!("{namespace}/{}-{name}", meta::name(claim)))
        .collect()
}

/// A claim that goes makes room for that of the next pod of its name.
fn claim_event(event: &Event<Partial>, by_claim: &Index<StatefulSet>) -> Vec<Key> {
    let Event::Deleted(claim) = event else {
        return Vec::new();
    };
    let Some((prefix, _)) = identity::parsed(meta::name(&**claim)) else {
        return Vec::new();
    };
    let sets = by_claim.get(&format!("{}/{prefix}", meta::namespace(&**claim)));
    sets.iter().map(|set| Key::of(&**set)).collect()
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        // Until what was written last has come back, what there is can't be told.
        if let Some(later) = self.missing(&key) {
            return Ok(Next::After(later));
        }
        let Some(set) = self.sets.get(key.ns(), &key.name) else {
            self.seen.forget(&key);
            self.history.forget(&key);
            self.failed.forget(&key);
            return Ok(Next::Done);
        };
        let Some(spec) = &set.spec else { return Ok(Next::Done) };
        let mut candidates = adoption::candidates(&self.pods, &*set, &spec.selector);
        candidates.retain(|pod| identity::ordinal(&set, pod).is_some());
        let pods = adoption::claim(&self.ctx, &*set, &spec.selector, candidates, |_| true, None).await?;
        if meta::deleting(&*set) {
            return self.leave(&set, &pods).await;
        }
        // Those that lost the set's labels are no part of its history.
        let revisions = self.history.claim(&*set, &spec.selector, history::selected).await?;
        self.sync(&key, &set, spec, &pods, revisions).await
    }
}

impl Controller {
    fn missing(&self, key: &Key) -> Option<Duration> {
        let pods = self.seen.missing(key, &self.all_pods);
        pods.or_else(|| self.history.missing(key))
    }

    async fn sync(
        &self,
        key: &Key,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        pods: &[Arc<Pod>],
        revisions: Vec<Arc<ControllerRevision>>,
    ) -> Result<Next, Error> {
        let known = set.status.clone().unwrap_or_default();
        let mut collisions = Some(known.collision_count.unwrap_or(0));
        let parent = Parent {
            key,
            reference: meta::owner_reference(set),
            annotations: set.metadata.annotations.clone(),
            template: &spec.template,
            label: HASH_LABEL,
            hash: history::data_hash,
            defaults: Some(mk8s_api::defaults::stateful_set),
        };
        let update = self.history.ensure(&parent, &revisions, &mut collisions).await?;
        let mut current = revisions.iter().filter(|r| r.metadata.name == known.current_revision);
        let current = current.next().unwrap_or(&update).clone();

        let claim = |name: &str| -> Option<ObjectMeta> {
            let claim = self.claims.get(key.ns(), name)?;
            Some(claim.metadata.clone())
        };
        let view = View {
            set,
            current: meta::name(&*current),
            update: meta::name(&*update),
            pods,
            claim: &claim,
            now: Timestamp::now(),
        };
        let plan = view.plan();
        let status = view.status(plan.outdated, collisions);
        let mut act = Act {
            controller: self,
            key,
            set,
            view: &view,
            current: &current,
            next: Next::Done,
        };
        let done = act.run(plan).await;
        let next = act
            .next
            .sooner(pod::next_availability(pods, plan::min_ready(set), view.now));
        let written = self.write_status(set, status).await;
        let live = |r: &ControllerRevision| {
            let name = meta::name(r);
            [meta::name(&*current), meta::name(&*update)].contains(&name)
                || pods.iter().any(|pod| identity::revision(pod) == name)
        };
        let limit = spec
            .revision_history_limit
            .and_then(|limit| usize::try_from(limit).ok());
        let doomed = limit.map(|limit| history::expendable(&revisions, limit, false, live));
        let pruned = self.history.prune(key, &doomed.unwrap_or_default()).await;
        next.even_if(done.and(written).and(pruned))
    }

    /// Nothing is made any more: the status follows what goes.
    async fn leave(&self, set: &StatefulSet, pods: &[Arc<Pod>]) -> Result<Next, Error> {
        let known = set.status.clone().unwrap_or_default();
        let view = View {
            set,
            current: known.current_revision.as_deref().unwrap_or_default(),
            update: known.update_revision.as_deref().unwrap_or_default(),
            pods,
            claim: &|_| None,
            now: Timestamp::now(),
        };
        let status = view.status(0, known.collision_count);
        self.write_status(set, status).await?;
        Ok(Next::Done)
    }

    async fn write_status(&self, set: &StatefulSet, status: StatefulSetStatus) -> Result<(), Error> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut update = set.clone();
        update.status = Some(status);
        self.ctx.write_status(&update).await.map(drop)
    }
}
