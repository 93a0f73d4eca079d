//! The end of a namespace: everything in it goes, pods first; then its finalizer, and with it the namespace.
//!
//! Watches namespaces, and by the [`monitor`](crate::monitor) the objects in them: each that disappears brings its namespace back here.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::discovery::verbs;
use kube::{Api, Client};
use mk8s_api::conditions;
use mk8s_client::{Event, Informer, WorkQueue};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};
use crate::monitor::{Discovered, Hub, Kind};

const WORKERS: usize = 4;
const FINALIZER: &str = "kubernetes";
/// Requests under way for one namespace at once.
const PARALLEL: usize = 8;
/// Objects in a page of a list.
const PAGE: u32 = 500;
/// What is left is looked at no oftener than this while it goes: each look lists it all, and may write the status.
const PAUSE: Duration = Duration::from_millis(250);
/// What is left is waited for by events. Kinds that can't be watched are looked at after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Who deletes a namespace waits for it, and what was in its way may be gone without an event that tells of it.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

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
    let gone = ctx.hub.gone();
    let mut driver = Driver::new("namespace-controller", &ctx.scope);
    driver.queue.retry_within(LONGEST_RETRY);
    driver.watch(&namespaces, |event| match event {
        Event::Applied { new, .. } if meta::deleting(&**new) => vec![Key::new("", meta::name(&**new))],
        _ => Vec::new(),
    });
    let known = namespaces.clone();
    let ending = move |name: &str| match name {
        "" => known.filter(meta::deleting).iter().map(|n| Key::of(&**n)).collect(),
        name => {
            let ending = known.get(None, name).filter(|n| meta::deleting(&**n));
            ending.iter().map(|n| Key::of(&**n)).collect()
        }
    };
    let follow = follow(gone, ending, driver.queue.clone());
    let work = driver.run(WORKERS, Controller { ctx, namespaces });
    tokio::select! {
        () = follow => Ok(()),
        result = work => result,
    }
}

/// Brings back the namespaces that end and lose an object; `ending` tells which these are, of one name or (empty) of all.
async fn follow(mut gone: Receiver<String>, ending: impl Fn(&str) -> Vec<Key>, queue: WorkQueue<Key>) {
    loop {
        let name = match gone.recv().await {
            Ok(name) => name,
            // Too many to follow one by one: it could have been any.
            Err(RecvError::Lagged(_)) => String::new(),
            Err(RecvError::Closed) => return std::future::pending().await,
        };
        for key in ending(&name) {
            queue.add_after(key, PAUSE);
        }
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
    fn count(&mut self, kind: &Kind, left: Left) {
        if left.objects == 0 {
            return;
        }
        self.objects
            .insert(format!("{}.{}", kind.api.plural, kind.api.group), left.objects);
        for (finalizer, holds) in left.finalizers {
            *self.finalizers.entry(finalizer).or_default() += holds;
        }
    }

    /// Whether there is something left; an error where that is not known.
    fn holds(&self, namespace: &str) -> Result<bool, Error> {
        let failures = [&*self.undiscovered, &*self.failures].concat();
        if !failures.is_empty() {
            let failures = failures.join(", ");
            return Err(Error::Invalid(format!("clear namespace {namespace}: {failures}")));
        }
        Ok(!self.is_empty())
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
        let mut remaining = clear(&self.ctx.client, name, &kinds).await;
        remaining.undiscovered = failures;
        if set_conditions(&mut live, &remaining) {
            let updated = api.replace_status(name, &PostParams::default(), &live).await;
            let updated = updated.and_then(|updated| updated.object());
            match updated.tried_if_exists(|| format!("update status of namespace {name}"))? {
                Some(updated) => live = updated,
                None => return Ok(Next::Done),
            }
        }
        if remaining.holds(name)? {
            return Ok(Next::After(LOOK_AGAIN));
        }
        let late = clear_late(&self.ctx.client, &self.ctx.hub, name, &kinds).await;
        if late.holds(name)? {
            return Ok(Next::After(PAUSE));
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

/// [`clear`] for kinds that have come since those `known` were learned. What is not found here stays in the store, and is there
/// again when somebody makes a namespace of this name.
async fn clear_late(client: &Client, hub: &Hub, namespace: &str, known: &[Arc<Kind>]) -> Remaining {
    let Discovered { mut kinds, failures } = hub.discover(client).await;
    let known: HashSet<&Arc<Kind>> = known.iter().collect();
    kinds.retain(|kind| !known.contains(kind));
    let mut remaining = clear(client, namespace, &kinds).await;
    remaining.undiscovered = failures;
    remaining
}

/// Deletes what is there and tells what stays for now. Pods alone at first: what they need while they end is still there.
async fn clear(client: &Client, namespace: &str, kinds: &[Arc<Kind>]) -> Remaining {
    let mut remaining = Remaining::default();
    let (pods, others): (Vec<_>, Vec<_>) = kinds
        .iter()
        .filter(|k| k.namespaced && k.can(verbs::DELETE) && k.can(verbs::LIST))
        .cloned()
        .partition(|k| k.api.group.is_empty() && k.api.plural == "pods");
    for kinds in [pods, others] {
        let results: Vec<_> = futures::stream::iter(kinds)
            .map(|kind| async move { (kind.clone(), clear_kind(client, namespace, &kind).await) })
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        for (kind, result) in results {
            match result {
                Ok(left) => remaining.count(&kind, left),
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

/// What is left of one kind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    objects: usize,
    /// Numbers of objects by finalizer.
    finalizers: BTreeMap<String, usize>,
    /// Those that nobody has deleted yet.
    staying: Vec<String>,
}

/// Reads what is left page by page: of a large namespace no more than one is ever held. Of a kind that is not served nothing
/// is, as upstream has it: it may have gone since the kinds were asked for.
async fn left(api: &Api<PartialObjectMeta>, what: &str) -> Result<Left, Error> {
    let mut left = Left::default();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let Some(list) = api.list(&page).await.tried_if_exists(|| format!("list {what}"))? else {
            return Ok(left);
        };
        for object in list.items {
            left.objects += 1;
            for finalizer in object.metadata.finalizers.into_iter().flatten() {
                *left.finalizers.entry(finalizer).or_default() += 1;
            }
            if object.metadata.deletion_timestamp.is_none() {
                left.staying.extend(object.metadata.name);
            }
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page.continue_token = Some(token),
            None => return Ok(left),
        }
    }
}

/// Deletes what is there and tells what stays for now. While that only ends, it is listed once.
async fn clear_kind(client: &Client, namespace: &str, kind: &Kind) -> Result<Left, Error> {
    let api = kind.metadata(client, namespace);
    let what = format!("{} in namespace {namespace}", kind.api.plural);
    let before = left(&api, &what).await?;
    if before.staying.is_empty() {
        return Ok(before);
    }
    // Foreground and orphan finalizers are the garbage collector's; here everything goes anyway.
    if kind.can("deletecollection") {
        let done = api
            .delete_collection(&DeleteParams::background(), &ListParams::default())
            .await;
        done.map(drop).tried_if_exists(|| format!("delete {what}"))?;
    } else {
        for name in &before.staying {
            let done = api.delete(name, &DeleteParams::background()).await.map(drop);
            done.tried_if_exists(|| format!("delete {name} of {what}"))?;
        }
    }
    left(&api, &what).await
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
                "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {}",
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
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;
    use kube::core::ApiResource;
    use parking_lot::Mutex;
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_namespace_whose_objects_go_one_by_one_is_looked_at_a_few_times() {
        let gone = tokio::sync::broadcast::Sender::new(16);
        let queue = WorkQueue::new("ending");
        let ending = |name: &str| vec![Key::new("", if name.is_empty() { "ns" } else { name })];
        let follow = follow(gone.subscribe(), ending, queue.clone());
        let looks = async {
            let mut looks = 0;
            while let Ok(key) = tokio::time::timeout(PAUSE * 4, queue.next()).await {
                looks += 1;
                queue.done(&key);
            }
            looks
        };
        // One object each millisecond, for two seconds.
        let end = async {
            for _ in 0..2000 {
                gone.send("ns".to_owned()).unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = follow => unreachable!("the hub is there"),
            () = end => unreachable!("never over"),
            looks = looks => assert!((4..=9).contains(&looks), "{looks}"),
        }
    }

    /// Two pages of one object each; the second has a finalizer.
    fn page(request: &Request<Body>) -> serde_json::Value {
        let uri = request.uri().to_string();
        let second = uri.contains("continue=more");
        let (name, held, more) = match second {
            false => ("a", json!([]), "more"),
            true => ("b", json!(["x/y"]), ""),
        };
        let metadata =
            json!({"name": name, "namespace": "ns", "finalizers": held, "deletionTimestamp": "2024-01-01T00:00:00Z"});
        json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {"continue": more},
            "items": [{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}]})
    }

    #[tokio::test]
    async fn what_only_ends_is_read_once_in_pages() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        let serve = tower::service_fn(move |request: Request<Body>| {
            heard.lock().push(format!("{} {}", request.method(), request.uri()));
            let body = Body::from(page(&request).to_string().into_bytes());
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        let api = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        let verbs = ["list", "delete", "deletecollection"].map(str::to_owned).to_vec();
        let pods = Kind {
            api,
            namespaced: true,
            verbs,
        };
        let left = clear_kind(&Client::new(serve, "default"), "ns", &pods).await.unwrap();
        assert_eq!((left.objects, &left.finalizers), (2, &[("x/y".to_owned(), 1)].into()));
        let asked = asked.lock();
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert!(
            asked
                .iter()
                .all(|asked| asked.starts_with("GET ") && asked.contains("limit=500")),
            "{asked:?}"
        );
    }

    /// Its definition went between the discovery and this.
    #[tokio::test]
    async fn of_a_kind_that_is_served_no_more_nothing_is_left() {
        let serve = tower::service_fn(|_: Request<Body>| async {
            Response::builder()
                .status(404)
                .body(Body::from(b"404 page not found\n".to_vec()))
        });
        let kind = Kind {
            api: ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&()),
            namespaced: true,
            verbs: vec!["list".to_owned(), "deletecollection".to_owned()],
        };
        let left = clear_kind(&Client::new(serve, "default"), "ns", &kind).await.unwrap();
        assert_eq!(left, Left::default());
    }

    /// The monitor hears of a definition a moment later than the API server serves its kind.
    #[tokio::test]
    async fn a_kind_that_came_since_is_found_and_cleared_before_the_namespace_goes() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        let serve = tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            let again = request.headers().contains_key("if-none-match");
            let how = if again { " again" } else { "" };
            heard.lock().push(format!("{} {path}{how}", request.method()));
            let verbs = ["list", "delete", "deletecollection"];
            let widgets = json!({"resource": "widgets", "responseKind": {"kind": "Widget"}, "scope": "Namespaced",
                "verbs": verbs});
            let group = json!({"metadata": {"name": "example.com"},
                "versions": [{"version": "v1", "resources": [widgets]}]});
            let cleared = heard.lock().iter().any(|asked| asked.starts_with("DELETE"));
            let body = match path.as_str() {
                "/api" => json!({"items": []}),
                "/apis" => json!({"items": [group]}),
                _ if cleared => json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": {}, "items": []}),
                _ => {
                    let mut page = page(&request);
                    page["metadata"] = json!({});
                    page["items"][0]["metadata"] = json!({"name": "a", "namespace": "ns"});
                    page
                }
            };
            let status = if again { 304 } else { 200 };
            let body = if again {
                Vec::new()
            } else {
                body.to_string().into_bytes()
            };
            let response = Response::builder().status(status).header("etag", "\"t\"");
            async move { Ok::<_, Infallible>(response.body(Body::from(body)).unwrap()) }
        });
        let (client, hub) = (Client::new(serve, "default"), Hub::default());
        assert_eq!(clear_late(&client, &hub, "ns", &[]).await, Remaining::default());
        let widgets = "/apis/example.com/v1/namespaces/ns/widgets";
        assert!(
            asked.lock().contains(&format!("DELETE {widgets}")),
            "{:?}",
            asked.lock()
        );
        // What was known was cleared before; and the next namespace reads no document that has not changed.
        let known = hub.discover(&client).await.kinds;
        assert_eq!(known.len(), 1);
        asked.lock().clear();
        clear_late(&client, &hub, "ns", &known).await;
        assert_eq!(*asked.lock(), ["GET /api again", "GET /apis again"]);
    }

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
