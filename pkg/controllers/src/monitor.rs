//! The metadata of every object of every kind that can be listed and watched: what garbage collection and namespace deletion see.
//!
//! Kinds come from discovery, so that those of later API groups are seen as well; it is asked again when definitions of kinds change.
//! Objects come from a [`Feed`], in the API server's process from its watch cache itself: of each one's text only what stands in its
//! metadata about owners and deletion is read.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiResource, Discovery, Scope, verbs};
use kube::{Api, Client};
use mk8s_api::codec::json;
use mk8s_api::stored::Stored;
use mk8s_client::feed::{self, Changes};
use mk8s_client::{Feed, FeedError, Selection};
use mk8s_supervisor::backoff::Backoff;
use mk8s_supervisor::job;
use parking_lot::RwLock;
use serde::Deserialize;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Kinds that own nothing and are owned by nothing, and of which there are many.
const IGNORED: &[&str] = &["events"];

/// Kinds whose change means that there may be other kinds.
const DEFINING: &[&str] = &["customresourcedefinitions", "apiservices"];

/// A kind of objects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kind {
    /// Its names.
    pub api: ApiResource,
    /// Its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: Vec<String>,
}

impl Kind {
    /// Can it be watched and deleted?
    fn is_monitored(&self) -> bool {
        [verbs::LIST, verbs::WATCH, verbs::DELETE]
            .iter()
            .all(|verb| self.can(verb))
            && !IGNORED.contains(&self.api.plural.as_str())
    }

    fn selection(&self) -> Selection {
        Selection {
            group: self.api.group.clone(),
            version: self.api.version.clone(),
            kind: self.api.kind.clone(),
            plural: self.api.plural.clone(),
            namespace: String::new(),
            field_selector: String::new(),
        }
    }

    /// Does it know this verb?
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Its objects' metadata, in one namespace or (empty) all.
    pub fn metadata(&self, client: &Client, namespace: &str) -> Api<PartialObjectMeta> {
        if self.namespaced && !namespace.is_empty() {
            Api::namespaced_with(client.clone(), namespace, &self.api)
        } else {
            Api::all_with(client.clone(), &self.api)
        }
    }
}

/// What was seen.
#[derive(Debug, Clone)]
pub enum Change {
    /// An object is there, or changed.
    Applied(Arc<Kind>, Box<ObjectMeta>),
    /// An object is gone.
    Deleted(Arc<Kind>, Box<ObjectMeta>),
    /// All objects of a kind were listed: these uids exist, others don't.
    Listed(Arc<Kind>, HashSet<String>),
    /// The kind itself is gone.
    Unserved(Arc<Kind>),
}

impl Change {
    fn kind(&self) -> &Arc<Kind> {
        match self {
            Change::Applied(kind, _) | Change::Deleted(kind, _) | Change::Listed(kind, _) | Change::Unserved(kind) => {
                kind
            }
        }
    }
}

/// What all controllers of the process share of the one monitor that the garbage collector runs.
pub struct Hub {
    kinds: RwLock<Vec<Arc<Kind>>>,
    gone: broadcast::Sender<String>,
}

impl Default for Hub {
    fn default() -> Self {
        Hub {
            kinds: RwLock::default(),
            gone: broadcast::Sender::new(1024),
        }
    }
}

impl Hub {
    /// All kinds that discovery tells of, monitored or not.
    pub fn kinds(&self) -> Vec<Arc<Kind>> {
        self.kinds.read().clone()
    }

    /// The kind of these names.
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let all = self.kinds.read();
        let exact = all
            .iter()
            .find(|k| k.api.api_version == api_version && k.api.kind == kind);
        exact
            .or_else(|| all.iter().find(|k| k.api.group == group && k.api.kind == kind))
            .cloned()
    }

    /// The namespaces of objects that disappear; an empty name when it could have been any.
    pub fn gone(&self) -> broadcast::Receiver<String> {
        self.gone.subscribe()
    }
}

/// How the monitor sees the cluster.
pub struct Monitor {
    /// Asked which kinds there are.
    pub client: Client,
    /// Tells of their objects.
    pub feed: Arc<dyn Feed>,
    /// Kept up to date.
    pub hub: Arc<Hub>,
    /// Becomes true when every kind was listed once.
    pub synced: watch::Sender<bool>,
}

async fn discover(client: &Client) -> Result<Vec<Arc<Kind>>, kube::Error> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let kinds = discovery
        .groups()
        .flat_map(kube::discovery::ApiGroup::recommended_resources);
    Ok(kinds
        .map(|(api, caps)| {
            Arc::new(Kind {
                api,
                namespaced: caps.scope == Scope::Namespaced,
                verbs: caps.operations,
            })
        })
        .collect())
}

/// A watch under way, and whether it has listed its objects. Dropped, it stops.
struct Watch {
    _stops: DropGuard,
    listed: bool,
}

/// Keeps the hub up to date and tells of all changes, for ever.
pub async fn keep(monitor: Monitor, mut tell: impl FnMut(&Change)) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(15));
    let mut watches: HashMap<Arc<Kind>, Watch> = HashMap::new();
    let mut changes: SelectAll<BoxStream<'static, Change>> = SelectAll::new();
    let mut rediscover = true;
    loop {
        if rediscover {
            let found = match discover(&monitor.client).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::debug!(%error, "discovery failed and is tried again");
                    tokio::time::sleep(backoff.next_delay()).await;
                    continue;
                }
            };
            backoff.reset();
            rediscover = false;
            let unserved = watches.extract_if(|kind, _| !found.contains(kind));
            for (kind, _) in unserved.collect::<Vec<_>>() {
                publish(&monitor.hub, Change::Unserved(kind), &mut tell);
            }
            for kind in found.iter().filter(|k| k.is_monitored()) {
                watches.entry(kind.clone()).or_insert_with(|| {
                    let (watch, read) = begin(&monitor.feed, kind);
                    changes.push(read);
                    watch
                });
            }
            *monitor.hub.kinds.write() = found;
        }
        // Without a kind there is nothing to hear, and nothing will be.
        let Some(change) = changes.next().await else {
            return std::future::pending().await;
        };
        // What was told before its kind was found to be gone.
        let Some(watch) = watches.get_mut(change.kind()) else {
            continue;
        };
        let defining = DEFINING.contains(&change.kind().api.plural.as_str());
        let first_list = matches!(change, Change::Listed(..)) && !watch.listed;
        // Kinds found in the first discovery are not news; what changes from now on may be.
        rediscover = defining && watch.listed;
        watch.listed |= first_list;
        publish(&monitor.hub, change, &mut tell);
        if first_list && watches.values().all(|watch| watch.listed) {
            monitor.synced.send_replace(true);
        }
    }
}

fn publish(hub: &Hub, change: Change, tell: &mut impl FnMut(&Change)) {
    let namespace = match &change {
        Change::Deleted(_, gone) => gone.namespace.clone(),
        Change::Listed(..) | Change::Unserved(_) => Some(String::new()),
        Change::Applied(..) => None,
    };
    tell(&change);
    if let Some(namespace) = namespace {
        // Without a reader there is nobody to tell.
        let _ = hub.gone.send(namespace);
    }
}

/// Begins to read the objects of a kind.
fn begin(feed: &Arc<dyn Feed>, kind: &Arc<Kind>) -> (Watch, BoxStream<'static, Change>) {
    let stop = CancellationToken::new();
    let reading = Reading {
        feed: feed.clone(),
        kind: kind.clone(),
        changes: None,
        after: None,
        uids: HashSet::new(),
        backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(15)),
    };
    let read = futures::stream::unfold(reading, |mut reading| async {
        let change = reading.next().await;
        Some((change, reading))
    });
    let read = read.take_until(stop.clone().cancelled_owned()).boxed();
    let watch = Watch {
        _stops: stop.drop_guard(),
        listed: false,
    };
    (watch, read)
}

/// The objects of one kind, as far as they were read.
struct Reading {
    feed: Arc<dyn Feed>,
    kind: Arc<Kind>,
    changes: Option<Changes>,
    /// The revision to go on from; none while a list is read.
    after: Option<u64>,
    /// What that list has named.
    uids: HashSet<String>,
    backoff: Backoff,
}

impl Reading {
    async fn next(&mut self) -> Change {
        loop {
            match AssertUnwindSafe(self.read()).catch_unwind().await {
                Ok(Some(Ok(change))) => {
                    self.backoff.reset();
                    match self.hear(change) {
                        Some(change) => return change,
                        None => continue,
                    }
                }
                Ok(Some(Err(FeedError::Expired))) => self.after = None,
                Ok(Some(Err(error))) => {
                    tracing::debug!(kind = self.kind.api.kind, %error, "a metadata watch failed and is tried again");
                }
                Ok(None) => {}
                Err(panic) => {
                    job::record_panic("metadata watch", panic.as_ref());
                    self.after = None;
                }
            }
            self.changes = None;
            tokio::time::sleep(self.backoff.next_delay()).await;
        }
    }

    async fn read(&mut self) -> Option<Result<feed::Change, FeedError>> {
        let changes = match &mut self.changes {
            Some(changes) => changes,
            None => {
                if self.after.is_none() {
                    self.uids.clear();
                }
                let selection = self.kind.selection();
                self.changes.insert(self.feed.open(&selection, self.after))
            }
        };
        changes.next().await
    }

    fn hear(&mut self, change: feed::Change) -> Option<Change> {
        match change {
            feed::Change::Applied(object) => {
                let meta = self.metadata(&*object)?;
                match &mut self.after {
                    Some(reached) => *reached = object.revision(),
                    None => self.uids.extend(meta.uid.clone()),
                }
                Some(Change::Applied(self.kind.clone(), meta))
            }
            feed::Change::Deleted { object, revision } => {
                self.after = self.after.map(|_| revision);
                Some(Change::Deleted(self.kind.clone(), self.metadata(&*object)?))
            }
            feed::Change::UpTo(revision) => {
                let listed = self.after.replace(revision).is_none();
                listed.then(|| Change::Listed(self.kind.clone(), std::mem::take(&mut self.uids)))
            }
        }
    }

    fn metadata(&self, object: &dyn Stored) -> Option<Box<ObjectMeta>> {
        let read = json::metadata(object.json()).and_then(|text| serde_json::from_str::<Metadata>(text).ok());
        if read.is_none() {
            let (kind, namespace, name) = (&self.kind.api.kind, object.namespace(), object.name());
            tracing::error!(
                kind,
                namespace,
                name,
                "an object's metadata cannot be decoded and is left out"
            );
        }
        read.map(|metadata| Box::new(metadata.into()))
    }
}

/// What is read of an object's metadata.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    uid: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
    deletion_timestamp: Option<Time>,
}

impl From<Metadata> for ObjectMeta {
    fn from(metadata: Metadata) -> Self {
        ObjectMeta {
            uid: metadata.uid,
            namespace: metadata.namespace,
            name: metadata.name,
            owner_references: metadata.owner_references,
            finalizers: metadata.finalizers,
            deletion_timestamp: metadata.deletion_timestamp,
            ..ObjectMeta::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::stream;
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// A server of one kind.
    async fn serve(request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
        let body: Value = match request.uri().path() {
            "/api" => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
            "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
            _ => json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
                {"name": "configmaps", "singularName": "configmap", "namespaced": true, "kind": "ConfigMap",
                 "verbs": ["list", "watch", "delete"]}]}),
        };
        Ok(Response::new(Body::from(body.to_string().into_bytes())))
    }

    struct Text(&'static str, u64, String);

    impl Stored for Text {
        fn namespace(&self) -> &str {
            "d"
        }

        fn name(&self) -> &str {
            self.0
        }

        fn revision(&self) -> u64 {
            self.1
        }

        fn json(&self) -> &[u8] {
            self.2.as_bytes()
        }
    }

    fn object(name: &'static str, revision: u64) -> Arc<dyn Stored> {
        let owners = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "o"}]);
        let metadata = json!({"namespace": "d", "name": name, "uid": name, "ownerReferences": owners,
            "managedFields": [{"manager": "m"}]});
        Arc::new(Text(
            name,
            revision,
            json!({"metadata": metadata, "data": {}}).to_string(),
        ))
    }

    /// Panics when it is opened first; lists one object; then says in turn what each further opening is to see.
    #[derive(Default)]
    struct Script {
        opened: AtomicU32,
        after: parking_lot::Mutex<Vec<Option<u64>>>,
    }

    impl Feed for Script {
        fn open(&self, selection: &Selection, after: Option<u64>) -> Changes {
            assert_eq!((&*selection.version, &*selection.plural), ("v1", "configmaps"));
            self.after.lock().push(after);
            let applied = |name, revision| Ok(feed::Change::Applied(object(name, revision)));
            let told = match self.opened.fetch_add(1, Ordering::SeqCst) {
                0 => panic!("the first time"),
                1 => vec![
                    applied("a", 3),
                    Ok(feed::Change::UpTo(5)),
                    applied("b", 6),
                    Err(FeedError::Failed("away".into())),
                ],
                2 => vec![
                    Ok(feed::Change::Deleted {
                        object: object("b", 6),
                        revision: 7,
                    }),
                    Err(FeedError::Expired),
                ],
                _ => vec![applied("c", 8), Ok(feed::Change::UpTo(9))],
            };
            stream::iter(told).chain(stream::pending()).boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_is_followed_through_panics_errors_and_lost_history() {
        let script = Arc::new(Script::default());
        let (synced, mut is_synced) = watch::channel(false);
        let hub = Arc::new(Hub::default());
        let mut gone = hub.gone();
        let monitor = Monitor {
            client: Client::new(tower::service_fn(serve), "default"),
            feed: script.clone(),
            hub: hub.clone(),
            synced,
        };
        let (heard, mut told) = tokio::sync::mpsc::unbounded_channel();
        let tell = move |change: &Change| {
            let _ = heard.send(match change {
                Change::Applied(_, meta) => {
                    assert_eq!(meta.owner_references.as_ref().unwrap()[0].uid, "o");
                    format!("+{}", meta.uid.as_ref().unwrap())
                }
                Change::Deleted(_, meta) => format!("-{}", meta.uid.as_ref().unwrap()),
                Change::Listed(_, uids) => format!("{uids:?}"),
                Change::Unserved(_) => "unserved".into(),
            });
        };
        let follow = async {
            for expected in ["+a", "{\"a\"}", "+b", "-b", "+c", "{\"c\"}"] {
                assert_eq!(told.recv().await.unwrap(), expected);
            }
            is_synced.wait_for(|synced| *synced).await.unwrap();
        };
        tokio::select! {
            () = keep(monitor, tell) => unreachable!("it is kept for ever"),
            () = follow => {}
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("the kind is not watched any more"),
        }
        assert_eq!(*script.after.lock(), [None, None, Some(6), None]);
        assert_eq!(hub.kinds().len(), 1);
        let names: Vec<String> = std::iter::from_fn(|| gone.try_recv().ok()).collect();
        assert_eq!(names, ["", "d", ""]);
    }
}
