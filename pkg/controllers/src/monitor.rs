//! The metadata of every object of every kind that can be listed and watched: what garbage collection and namespace deletion see.
//!
//! Kinds come from discovery, so that those of later API groups are seen as well; it is asked again when definitions of kinds change.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiResource, Discovery, Scope, verbs};
use kube::runtime::watcher;
use kube::{Api, Client};
use mk8s_supervisor::backoff::Backoff;
use mk8s_supervisor::{JobError, Jobs};
use parking_lot::RwLock;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

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

/// Changes that wait to be read; beyond, the watches wait too.
const CHANGES: usize = 4096;

/// Tells of all objects for as long as `keep` is polled.
pub struct Monitor {
    client: Client,
    hub: Arc<Hub>,
    changes: mpsc::Sender<Change>,
    synced: watch::Sender<bool>,
}

impl Monitor {
    /// A monitor, the changes it tells of, and what becomes true when every kind was listed once.
    pub fn new(client: Client, hub: Arc<Hub>) -> (Self, mpsc::Receiver<Change>, watch::Receiver<bool>) {
        let (changes, receiver) = mpsc::channel(CHANGES);
        let (synced, is_synced) = watch::channel(false);
        (
            Monitor {
                client,
                hub,
                changes,
                synced,
            },
            receiver,
            is_synced,
        )
    }

    async fn publish(&self, change: Change) {
        let namespace = match &change {
            Change::Deleted(_, gone) => gone.namespace.clone(),
            Change::Listed(..) | Change::Unserved(_) => Some(String::new()),
            Change::Applied(..) => None,
        };
        // Without a reader there is nobody to tell.
        let _ = self.changes.send(change).await;
        if let Some(namespace) = namespace {
            let _ = self.hub.gone.send(namespace);
        }
    }
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

/// A watch under way: how it is stopped, and whether it has listed its objects.
struct Watch {
    stop: CancellationToken,
    listed: bool,
}

/// Keeps the monitor up to date, for ever.
pub async fn keep(monitor: Monitor) {
    let monitor = Arc::new(monitor);
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(15));
    let mut watches: HashMap<Arc<Kind>, Watch> = HashMap::new();
    let mut jobs: Jobs<Arc<Kind>, ()> = Jobs::default();
    let (redefined, mut again) = mpsc::channel::<()>(1);
    let (listed, mut lists) = mpsc::channel::<Arc<Kind>>(16);
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
            for (kind, watch) in unserved.collect::<Vec<_>>() {
                watch.stop.cancel();
                monitor.publish(Change::Unserved(kind)).await;
            }
            for kind in found.iter().filter(|k| k.is_monitored()) {
                watches.entry(kind.clone()).or_insert_with(|| {
                    let stop = CancellationToken::new();
                    let reflect = reflect(monitor.clone(), kind.clone(), redefined.clone(), listed.clone());
                    let stopped = stop.clone().cancelled_owned();
                    jobs.spawn("metadata watch", kind.clone(), async move {
                        tokio::select! { () = stopped => {}, () = reflect => {} }
                    });
                    Watch { stop, listed: false }
                });
            }
            *monitor.hub.kinds.write() = found;
        }
        tokio::select! {
            Some(kind) = lists.recv() => {
                if let Some(watch) = watches.get_mut(&kind) {
                    watch.listed = true;
                }
                if watches.values().all(|watch| watch.listed) {
                    monitor.synced.send_replace(true);
                }
            }
            Some(()) = again.recv() => rediscover = true,
            Some((kind, ended)) = jobs.next() => {
                if let Err(JobError::Panicked { .. }) = ended {
                    // Logged and counted where it was caught. Watched anew: a list tells what was missed meanwhile.
                    if let Some(watch) = watches.remove(&kind) {
                        watch.stop.cancel();
                    }
                    tokio::time::sleep(backoff.next_delay()).await;
                    rediscover = true;
                }
            }
        }
    }
}

/// Passes on what happens to the objects of one kind, for ever.
async fn reflect(monitor: Arc<Monitor>, kind: Arc<Kind>, redefined: mpsc::Sender<()>, listed: mpsc::Sender<Arc<Kind>>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
    let mut events = std::pin::pin!(watcher(kind.metadata(&monitor.client, ""), watcher::Config::default()));
    let mut uids = HashSet::new();
    let defining = DEFINING.contains(&kind.api.plural.as_str());
    let mut live = false;
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(watcher::Event::Init) => {
                uids.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                uids.extend(object.metadata.uid.clone());
                Change::Applied(kind.clone(), Box::new(object.metadata))
            }
            Ok(watcher::Event::InitDone) => Change::Listed(kind.clone(), std::mem::take(&mut uids)),
            Ok(watcher::Event::Apply(object)) => Change::Applied(kind.clone(), Box::new(object.metadata)),
            Ok(watcher::Event::Delete(object)) => Change::Deleted(kind.clone(), Box::new(object.metadata)),
            Err(error) => {
                tracing::debug!(kind = kind.api.kind, %error, "a metadata watch failed and is tried again");
                tokio::time::sleep(backoff.next_delay()).await;
                continue;
            }
        };
        backoff.reset();
        let is_list = matches!(change, Change::Listed(..));
        monitor.publish(change).await;
        if is_list {
            // Kinds found in the first discovery are not news; what changes from now on may be.
            live = true;
            let _ = listed.send(kind.clone()).await;
        } else if defining && live {
            // A full channel holds the same request already.
            let _ = redefined.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// A server of one kind whose first list panics in the watch that asked for it.
    async fn serve(lists: Arc<AtomicU32>, request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
        let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let body: Value = match request.uri().path() {
            "/api" => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
            "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
            "/api/v1" => json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
                {"name": "configmaps", "singularName": "configmap", "namespaced": true, "kind": "ConfigMap",
                 "verbs": ["list", "watch", "delete"]}]}),
            _ if watch => std::future::pending().await,
            _ => {
                assert!(lists.fetch_add(1, Ordering::SeqCst) > 0, "the first list");
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "a", "uid": "u"}}]})
            }
        };
        Ok(Response::new(Body::from(body.to_string().into_bytes())))
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_panics_is_begun_anew() {
        let lists = Arc::new(AtomicU32::new(0));
        let counter = lists.clone();
        let service = tower::service_fn(move |request| serve(counter.clone(), request));
        let (monitor, mut changes, mut synced) = Monitor::new(Client::new(service, "default"), Arc::default());
        let follow = async {
            while let Some(change) = changes.recv().await {
                if matches!(change, Change::Listed(_, uids) if uids.contains("u")) {
                    break;
                }
            }
            let _ = synced.wait_for(|synced| *synced).await;
        };
        tokio::select! {
            () = keep(monitor) => unreachable!("it is kept for ever"),
            () = follow => {}
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("the kind is not watched any more"),
        }
        assert_eq!(lists.load(Ordering::SeqCst), 2);
    }
}
