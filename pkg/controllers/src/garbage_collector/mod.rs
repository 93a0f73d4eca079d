//! Garbage collection: what was owned goes when its owners are gone (background), an owner goes after what blocks it (foreground), or leaves
//! it behind (orphan).
//!
//! Follows the metadata of everything ([`crate::monitor`]) in a [`graph`]. Before anything is deleted, the object and its owners are read
//! from the API server itself: the graph only tells where to look.

mod graph;

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::PartialObjectMeta;
use mk8s_client::EventRecorder;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;

use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::monitor::{Change, Kind, Monitor, keep};

use graph::{FOREGROUND, Graph, ORPHAN, Task};

const WORKERS: usize = 20;

struct Collector {
    ctx: Context,
    graph: Arc<Mutex<Graph>>,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (synced, mut is_synced) = watch::channel(false);
    let monitor = Monitor {
        client: ctx.client.clone(),
        feed: ctx.feed.clone(),
        hub: ctx.hub.clone(),
        synced,
    };
    let token = ctx.scope.token().clone();
    let graph = Arc::new(Mutex::new(Graph::default()));
    let driver: Driver<Task> = Driver::new("garbage-collector", &ctx.scope);
    let queue = driver.queue.clone();
    let followed = graph.clone();
    let follow = keep(monitor, move |change| {
        for task in apply(&mut followed.lock(), change) {
            queue.add(task);
        }
    });
    let recorder = ctx.recorder("garbage-collector-controller");
    let collector = Collector { ctx, graph, recorder };
    let work = async move {
        // Half a graph looks as if owners were missing. (They would be read before a delete: this saves the reads.)
        tokio::select! {
            _ = is_synced.wait_for(|synced| *synced) => {}
            () = token.cancelled() => {}
        }
        driver.run(WORKERS, collector).await
    };
    tokio::select! {
        () = follow => Ok(()),
        result = work => result,
    }
}

fn apply(graph: &mut Graph, change: &Change) -> Vec<Task> {
    match change {
        Change::Applied(kind, meta) => graph.applied(kind, meta),
        Change::Deleted(_, meta) => graph.deleted(meta.uid.as_deref().unwrap_or_default()),
        Change::Listed(kind, uids) => graph.listed(kind, uids),
        Change::Unserved(kind) => graph.listed(kind, &std::collections::HashSet::new()),
        Change::Moved(kind, next) => {
            graph.moved(kind, next);
            Vec::new()
        }
    }
}

/// What a node's owners are, read live.
#[derive(Default)]
struct Owners {
    /// There, and staying as far as this dependent is concerned.
    solid: usize,
    /// Gone, or another object by now.
    dangling: Vec<String>,
    /// Waiting for their dependents.
    waiting: Vec<String>,
}

/// An object to act upon.
struct Target {
    kind: Arc<Kind>,
    namespace: String,
    name: String,
}

impl Target {
    /// None while only dependents have told of the node: its kind is not known then.
    fn of(node: &graph::Node) -> Option<Self> {
        Some(Self {
            kind: node.kind.clone()?,
            namespace: node.namespace.clone(),
            name: node.name.clone(),
        })
    }

    fn describe(&self) -> String {
        format!("{} {}/{}", self.kind.api.kind, self.namespace, self.name)
    }
}

fn has_finalizer(live: &ObjectMeta, finalizer: &str) -> bool {
    live.finalizers.iter().flatten().any(|own| own == finalizer)
}

/// How an object goes that nobody asked to delete: as its own finalizers say.
fn own_policy(live: &ObjectMeta) -> PropagationPolicy {
    if has_finalizer(live, ORPHAN) {
        PropagationPolicy::Orphan
    } else if has_finalizer(live, FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    }
}

impl Reconcile<Task> for Collector {
    async fn reconcile(&self, task: Task) -> Result<Next, Error> {
        match task {
            Task::Check(uid) => self.check(&uid).await,
            Task::Orphan(uid) => self.orphan(&uid).await,
            Task::Misplaced { dependent, owner } => {
                self.tell_misplaced(&dependent, &owner);
                Ok(())
            }
        }
        .map(|()| Next::Done)
    }
}

impl Collector {
    async fn check(&self, uid: &str) -> Result<(), Error> {
        let node = {
            let graph = self.graph.lock();
            graph.get(uid).filter(|_| !graph.is_settled(uid)).cloned()
        };
        let Some(node) = node else {
            return Ok(());
        };
        let Some(target) = Target::of(&node).filter(|_| !node.deleting || node.waits_for_dependents) else {
            return Ok(());
        };
        let Some(live) = self
            .read(&target)
            .await?
            .filter(|live| live.uid.as_deref() == Some(uid))
        else {
            // Gone: the monitor will tell, and its dependents will be checked.
            return Ok(());
        };
        if live.deletion_timestamp.is_some() {
            return if has_finalizer(&live, FOREGROUND) {
                self.unblock(&target, uid, &live).await
            } else {
                Ok(())
            };
        }
        let references = live.owner_references.clone().unwrap_or_default();
        if references.is_empty() {
            return Ok(());
        }
        let Some(owners) = self.owners(&target, &references).await? else {
            return Ok(());
        };
        let unneeded = owners.dangling.len() + owners.waiting.len();
        if owners.solid > 0 {
            if unneeded == 0 {
                return Ok(());
            }
            let drop = |o: &OwnerReference| owners.dangling.contains(&o.uid) || owners.waiting.contains(&o.uid);
            return self
                .set_owners(&target, &live, references.into_iter().filter(|o| !drop(o)).collect())
                .await;
        }
        let policy = if !owners.waiting.is_empty() && !node.dependents.is_empty() {
            self.break_cycle(&node.dependents).await?;
            PropagationPolicy::Foreground
        } else {
            own_policy(&live)
        };
        self.delete(&target, &live, policy).await
    }

    /// In a ring of objects that all wait for their dependents none would ever go: those that wait already stop blocking.
    async fn break_cycle(&self, dependents: &std::collections::HashSet<String>) -> Result<(), Error> {
        let waiting: Vec<Target> = {
            let graph = self.graph.lock();
            dependents
                .iter()
                .filter_map(|uid| graph.get(uid))
                .filter(|node| node.waits_for_dependents)
                .filter_map(Target::of)
                .collect()
        };
        for target in waiting {
            let Some(live) = self.read(&target).await? else {
                continue;
            };
            let mut owners = live.owner_references.clone().unwrap_or_default();
            for owner in &mut owners {
                owner.block_owner_deletion = Some(false);
            }
            self.set_owners(&target, &live, owners).await?;
        }
        Ok(())
    }

    /// An object that waits: freed when nothing blocks it any more, else what blocks it is looked at.
    async fn unblock(&self, target: &Target, uid: &str, live: &ObjectMeta) -> Result<(), Error> {
        let blockers = self.graph.lock().blockers(uid);
        if blockers.is_empty() {
            return self.drop_finalizer(target, live, FOREGROUND).await;
        }
        for blocker in blockers {
            let waits = self
                .graph
                .lock()
                .get(&blocker)
                .is_some_and(|b| b.waits_for_dependents || b.deleting);
            if !waits {
                Box::pin(self.check(&blocker)).await?;
            }
        }
        Ok(())
    }

    /// Takes the owner's name off all its dependents, then lets it go.
    async fn orphan(&self, uid: &str) -> Result<(), Error> {
        let (owner, dependents) = {
            let graph = self.graph.lock();
            let Some(node) = graph.get(uid) else { return Ok(()) };
            let Some(owner) = Target::of(node) else { return Ok(()) };
            let dependents: Vec<(String, Target)> = node
                .dependents
                .iter()
                .filter_map(|dependent| Some((dependent.clone(), Target::of(graph.get(dependent)?)?)))
                .collect();
            (owner, dependents)
        };
        for (dependent, target) in dependents {
            let live = self
                .read(&target)
                .await?
                .filter(|l| l.uid.as_deref() == Some(dependent.as_str()));
            let Some(live) = live else { continue };
            let owners = live.owner_references.clone().unwrap_or_default();
            if owners.iter().any(|o| o.uid == uid) {
                self.set_owners(&target, &live, owners.into_iter().filter(|o| o.uid != uid).collect())
                    .await?;
            }
        }
        match self.read(&owner).await?.filter(|l| l.uid.as_deref() == Some(uid)) {
            Some(live) => self.drop_finalizer(&owner, &live, ORPHAN).await,
            None => Ok(()),
        }
    }

    /// A reference that can't be true, as whoever reads the dependent's events is told. Upstream's words and reason.
    fn tell_misplaced(&self, dependent: &str, owner: &str) {
        let graph = self.graph.lock();
        let Some(node) = graph.get(dependent) else { return };
        let Some(reference) = node.owners.iter().find(|o| o.uid == owner) else {
            return;
        };
        let object = ObjectReference {
            api_version: Some(node.api_version.clone()),
            kind: Some(node.kind_name.clone()),
            namespace: Some(node.namespace.clone()),
            name: Some(node.name.clone()),
            uid: Some(dependent.to_owned()),
            ..ObjectReference::default()
        };
        let message = format!(
            "ownerRef [{}/{}, namespace: {namespace}, name: {}, uid: {}] does not exist in namespace \"{namespace}\"",
            reference.api_version,
            reference.kind,
            reference.name,
            reference.uid,
            namespace = node.namespace,
        );
        self.recorder
            .event(&object, "Warning", "OwnerRefInvalidNamespace", message);
    }

    /// None where it can't be known: a cluster-scoped object names an owner of a kind that lives in namespaces.
    async fn owners(&self, target: &Target, references: &[OwnerReference]) -> Result<Option<Owners>, Error> {
        let mut owners = Owners::default();
        for reference in references {
            let kind = self.kind_of(target, reference)?;
            if kind.namespaced && !target.kind.namespaced {
                return Ok(None);
            }
            match self.owner(target, kind, reference).await? {
                None => owners.dangling.push(reference.uid.clone()),
                Some(owner) => {
                    if owner.deletion_timestamp.is_some() && has_finalizer(&owner, FOREGROUND) {
                        owners.waiting.push(reference.uid.clone())
                    } else {
                        owners.solid += 1
                    }
                }
            }
        }
        Ok(Some(owners))
    }

    fn kind_of(&self, dependent: &Target, reference: &OwnerReference) -> Result<Arc<Kind>, Error> {
        let known = self.ctx.hub.kind(&reference.api_version, &reference.kind);
        known.ok_or_else(|| {
            Error::Invalid(format!(
                "{} has an owner of unknown kind {}, {}",
                dependent.describe(),
                reference.api_version,
                reference.kind
            ))
        })
    }

    /// The owner that a reference means, if it is still that object.
    async fn owner(
        &self,
        dependent: &Target,
        kind: Arc<Kind>,
        reference: &OwnerReference,
    ) -> Result<Option<ObjectMeta>, Error> {
        let owner = Target {
            kind,
            namespace: dependent.namespace.clone(),
            name: reference.name.clone(),
        };
        Ok(self
            .read(&owner)
            .await?
            .filter(|o| o.uid.as_ref() == Some(&reference.uid)))
    }

    fn api(&self, target: &Target) -> kube::Api<PartialObjectMeta> {
        target.kind.metadata(&self.ctx.client, &target.namespace)
    }

    async fn read(&self, target: &Target) -> Result<Option<ObjectMeta>, Error> {
        match self.api(target).get(&target.name).await {
            Err(kube::Error::Api(status)) if says_gone(&status, &target.name) => Ok(None),
            found => Ok(Some(found.tried(|| format!("get {}", target.describe()))?.metadata)),
        }
    }

    async fn set_owners(&self, target: &Target, live: &ObjectMeta, owners: Vec<OwnerReference>) -> Result<(), Error> {
        self.patch(target, live, json!({"ownerReferences": owners})).await
    }

    async fn drop_finalizer(&self, target: &Target, live: &ObjectMeta, finalizer: &str) -> Result<(), Error> {
        let rest: Vec<&String> = live.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
        self.patch(target, live, json!({"finalizers": rest})).await
    }

    /// Changes metadata of exactly the object that was read, in the version that was read.
    async fn patch(&self, target: &Target, live: &ObjectMeta, mut metadata: serde_json::Value) -> Result<(), Error> {
        metadata["resourceVersion"] = json!(live.resource_version);
        metadata["uid"] = json!(live.uid);
        let patch = json!({"metadata": metadata});
        let done = self
            .api(target)
            .patch(&target.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        done.tried_if_exists(|| format!("change {}", target.describe()))
            .map(drop)
    }

    async fn delete(&self, target: &Target, live: &ObjectMeta, policy: PropagationPolicy) -> Result<(), Error> {
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions {
                uid: live.uid.clone(),
                resource_version: live.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let done = self.api(target).delete(&target.name, &params).await.map(drop);
        done.tried_if_exists(|| format!("delete {}", target.describe()))
            .map(drop)
    }
}

/// Whether it is the object that is not there: where its kind is not served, a page says 404 of everything.
fn says_gone(status: &kube::core::Status, name: &str) -> bool {
    let names = |details: &kube::core::response::StatusDetails| details.name == name;
    status.is_not_found() && status.details.as_ref().is_some_and(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_about_a_kind_says_nothing_of_an_object() {
        let status = |details: serde_json::Value| -> kube::core::Status {
            let said = json!({"status": "Failure", "reason": "NotFound", "code": 404, "details": details});
            serde_json::from_value(said).expect("a status")
        };
        assert!(says_gone(&status(json!({"name": "a", "kind": "cars"})), "a"));
        assert!(!says_gone(&status(json!({"name": "b", "kind": "cars"})), "a"));
        assert!(!says_gone(&status(json!({})), "a"));
        assert!(!says_gone(&status(json!(null)), "a"));
    }
}
