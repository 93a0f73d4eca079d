//! The end of a namespace: everything in it goes, pods first; then its finalizer, and with it the namespace.
//!
//! Watches namespaces, and by the [`monitor`](crate::monitor) the objects in them: each that disappears brings its namespace back here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::discovery::verbs;
use mk8s_api::conditions;
use mk8s_client::{Event, Informer};
use tokio::sync::broadcast::error::RecvError;

use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};
use crate::monitor::{Discovered, Kind};

const WORKERS: usize = 4;
const FINALIZER: &str = "kubernetes";
/// Requests under way for one namespace at once.
const PARALLEL: usize = 8;
/// What is left is waited for by events. Kinds that can't be watched are looked at after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// The conditions of a namespace that goes, with what they say while all is well.
const CONDITIONS: [(&str, &str, &str); 5] = [
    (
        "NamespaceDeletionDiscoveryFailure",
        "ResourcesDiscovered",
        "All resources successfully discovered",
    ),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    (
        "NamespaceContentRemaining",
        "ContentRemoved",
        "All content successfully removed",
    ),
    (
        "NamespaceFinalizersRemaining",
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
    ),
];

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let namespaces = ctx.informers.of::<Namespace>();
    let mut gone = ctx.hub.gone();
    let mut driver = Driver::new("namespace-controller", &ctx.scope);
    driver.watch(&namespaces, |event| match event {
        Event::Applied { new, .. } if meta::deleting(&**new) => vec![Key::new("", meta::name(&**new))],
        _ => Vec::new(),
    });
    let (queue, known) = (driver.queue.clone(), namespaces.clone());
    let follow = async move {
        loop {
            let name = match gone.recv().await {
                Ok(name) => name,
                // Too many to follow one by one: it could have been any.
                Err(RecvError::Lagged(_)) => String::new(),
                Err(RecvError::Closed) => return std::future::pending().await,
            };
            if name.is_empty() {
                for namespace in known.filter(meta::deleting) {
                    queue.add(Key::of(&*namespace));
                }
            } else if known.get(None, &name).is_some_and(|n| meta::deleting(&*n)) {
                queue.add(Key::new("", &name));
            }
        }
    };
    let work = driver.run(WORKERS, Controller { ctx, namespaces });
    tokio::select! {
        () = follow => Ok(()),
        result = work => result,
    }
}

struct Controller {
    ctx: Context,
    namespaces: Informer<Namespace>,
}

/// What is left of a namespace's content.
#[derive(Debug, Default, PartialEq, Eq)]
struct Remaining {
    /// Numbers of objects by `resource.group`.
    objects: BTreeMap<String, usize>,
    /// Numbers of objects by finalizer.
    finalizers: BTreeMap<String, usize>,
    /// Where there may be kinds, and objects of them, that nobody knows of.
    undiscovered: Vec<String>,
    /// What went wrong.
    failures: Vec<String>,
}

impl Remaining {
    fn count(&mut self, kind: &Kind, objects: &[ObjectMeta]) {
        if objects.is_empty() {
            return;
        }
        self.objects
            .insert(format!("{}.{}", kind.api.plural, kind.api.group), objects.len());
        for finalizer in objects.iter().flat_map(|o| o.finalizers.iter().flatten()) {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.undiscovered.is_empty() && self.failures.is_empty()
    }
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let name = &key.name;
        let known = self.namespaces.get(None, name);
        if !known.is_some_and(|n| meta::deleting(&*n)) {
            return Ok(Next::Done);
        }
        let Discovered { kinds, failures } = self.ctx.hub.discovered();
        if kinds.is_empty() && failures.is_empty() {
            // The first list brings it back.
            return Ok(Next::Done);
        }
        let api = self.ctx.all::<Namespace>();
        let live = api.get_opt(name).await.tried(|| format!("get namespace {name}"))?;
        let Some(mut live) = live.filter(meta::deleting) else {
            return Ok(Next::Done);
        };
        let finalizers = live
            .spec
            .as_ref()
            .and_then(|s| s.finalizers.clone())
            .unwrap_or_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            return Ok(Next::Done);
        }
        let mut remaining = self.clear(name, &kinds).await;
        remaining.undiscovered = failures;
        if set_conditions(&mut live, &remaining) {
            let updated = api.replace_status(name, &PostParams::default(), &live).await;
            match updated.tried_if_exists(|| format!("update status of namespace {name}"))? {
                Some(updated) => live = updated,
                None => return Ok(Next::Done),
            }
        }
        let failures = [&*remaining.undiscovered, &*remaining.failures].concat();
        if !failures.is_empty() {
            return Err(Error::Invalid(format!(
                "clear namespace {name}: {}",
                failures.join(", ")
            )));
        }
        if !remaining.is_empty() {
            return Ok(Next::After(LOOK_AGAIN));
        }
        if let Some(spec) = &mut live.spec {
            spec.finalizers = Some(finalizers.into_iter().filter(|f| f != FINALIZER).collect());
        }
        api.replace_subresource("finalize", name, &PostParams::default(), &live)
            .await
            .tried_if_exists(|| format!("finalize namespace {name}"))?;
        Ok(Next::Done)
    }
}

impl Controller {
    /// Deletes what is there and tells what stays for now. Pods alone at first: what they need while they end is still there.
    async fn clear(&self, namespace: &str, kinds: &[Arc<Kind>]) -> Remaining {
        let mut remaining = Remaining::default();
        let (pods, others): (Vec<_>, Vec<_>) = kinds
            .iter()
            .filter(|k| k.namespaced && k.can(verbs::DELETE) && k.can(verbs::LIST))
            .cloned()
            .partition(|k| k.api.group.is_empty() && k.api.plural == "pods");
        for kinds in [pods, others] {
            let results: Vec<_> = futures::stream::iter(kinds)
                .map(|kind| async move { (kind.clone(), self.clear_kind(namespace, &kind).await) })
                .buffer_unordered(PARALLEL)
                .collect()
                .await;
            for (kind, result) in results {
                match result {
                    Ok(left) => remaining.count(&kind, &left),
                    Err(error) => remaining.failures.push(error.to_string()),
                }
            }
            if !remaining.is_empty() {
                break;
            }
        }
        remaining.failures.sort();
        remaining
    }

    async fn clear_kind(&self, namespace: &str, kind: &Kind) -> Result<Vec<ObjectMeta>, Error> {
        let api = kind.metadata(&self.ctx.client, namespace);
        let what = || format!("{} in namespace {namespace}", kind.api.plural);
        let list = || async {
            let list = api
                .list(&ListParams::default())
                .await
                .tried(|| format!("list {}", what()))?;
            Ok::<Vec<ObjectMeta>, Error>(list.items.into_iter().map(|o| o.metadata).collect())
        };
        let before = list().await?;
        if before.iter().all(|o| o.deletion_timestamp.is_some()) {
            return Ok(before);
        }
        // Foreground and orphan finalizers are the garbage collector's; here everything goes anyway.
        if kind.can("deletecollection") {
            let done = api
                .delete_collection(&DeleteParams::background(), &ListParams::default())
                .await;
            done.map(drop).tried(|| format!("delete {}", what()))?;
        } else {
            for object in before.iter().filter(|o| o.deletion_timestamp.is_none()) {
                let name = object.name.as_deref().unwrap_or_default();
                let done = api.delete(name, &DeleteParams::background()).await.map(drop);
                done.tried_if_exists(|| format!("delete {name} of {}", what()))?;
            }
        }
        list().await
    }
}

/// What keeps a condition from being all right: reason and message.
fn trouble(type_: &str, remaining: &Remaining) -> Option<(&'static str, String)> {
    let counted = |all: &BTreeMap<String, usize>, of: &str| {
        let each = all
            .iter()
            .map(|(name, n)| format!("{name} {of} {n} resource instances"));
        each.collect::<Vec<_>>().join(", ")
    };
    let (failures, objects, finalizers) = (&remaining.failures, &remaining.objects, &remaining.finalizers);
    match type_ {
        "NamespaceDeletionDiscoveryFailure" if !remaining.undiscovered.is_empty() => {
            let text = format!(
                "Discovery failed for some groups, {} failing: {}",
                remaining.undiscovered.len(),
                remaining.undiscovered.join(", ")
            );
            Some(("DiscoveryFailed", text))
        }
        "NamespaceDeletionContentFailure" if !failures.is_empty() => {
            let all = failures.join(", ");
            let text = format!(
                "Failed to delete all resource types, {} remaining: {all}",
                failures.len()
            );
            Some(("ContentDeletionFailed", text))
        }
        "NamespaceContentRemaining" if !objects.is_empty() => {
            let text = format!("Some resources are remaining: {}", counted(objects, "has"));
            Some(("SomeResourcesRemain", text))
        }
        "NamespaceFinalizersRemaining" if !finalizers.is_empty() => {
            let counted = counted(finalizers, "in");
            let text = format!("Some content in the namespace has finalizers remaining: {counted}");
            Some(("SomeFinalizersRemain", text))
        }
        _ => None,
    }
}

/// Sets the five conditions; true when that changed something.
fn set_conditions(namespace: &mut Namespace, remaining: &Remaining) -> bool {
    let now = meta::now();
    let status = namespace.status.get_or_insert_default();
    let all = status.conditions.get_or_insert_default();
    let mut changed = false;
    for (type_, ok_reason, ok_message) in CONDITIONS {
        let (status, reason, message) = match trouble(type_, remaining) {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", ok_reason, ok_message.to_owned()),
        };
        let new = NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(now.clone()),
        };
        changed |= conditions::put(all, new);
    }
    if status.phase.as_deref() != Some("Terminating") {
        status.phase = Some("Terminating".to_owned());
        changed = true;
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_tell_what_remains_and_settle() {
        let mut namespace = Namespace::default();
        let left = Remaining {
            objects: [("pods.".to_owned(), 2)].into(),
            finalizers: [("x/y".to_owned(), 1)].into(),
            ..Remaining::default()
        };
        assert!(set_conditions(&mut namespace, &left));
        assert!(!set_conditions(&mut namespace, &left));
        let messages: Vec<String> = namespace
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten())
            .filter(|c| c.status == "True")
            .filter_map(|c| c.message.clone())
            .collect();
        assert_eq!(
            messages,
            [
                "Some resources are remaining: pods. has 2 resource instances",
                "Some content in the namespace has finalizers remaining: x/y in 1 resource instances"
            ]
        );
        assert!(set_conditions(&mut namespace, &Remaining::default()));
        let all_ok = namespace
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten())
            .all(|c| c.status == "False");
        assert!(all_ok);
    }
    #[test]
    fn what_discovery_could_not_tell_is_told_and_keeps_the_namespace() {
        let mut namespace = Namespace::default();
        let remaining = Remaining {
            undiscovered: vec!["example.com/v1: nobody serves it".to_owned()],
            ..Remaining::default()
        };
        assert!(!remaining.is_empty());
        assert!(set_conditions(&mut namespace, &remaining));
        let status = namespace.status.unwrap_or_default();
        let failing: Vec<_> = status
            .conditions
            .iter()
            .flatten()
            .filter(|c| c.status == "True")
            .collect();
        let [condition] = failing.as_slice() else {
            panic!("{failing:?}")
        };
        assert_eq!(condition.type_, "NamespaceDeletionDiscoveryFailure");
        let message = condition.message.as_deref().unwrap_or_default();
        assert!(message.contains("example.com/v1: nobody serves it"), "{message}");
    }
}
