//! The metadata of every object of every kind that can be listed and watched: what garbage collection and namespace deletion see.
//!
//! Kinds come from discovery, so that those of later API groups are seen as well; it is asked again when definitions of kinds change, and now and then.
//! Objects come from a [`Feed`], in the API server's process from its watch cache itself: of each one's text only what stands in its
//! metadata about owners and deletion is read.

mod discovery;
mod reading;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiResource, verbs};
use kube::{Api, Client};
use mk8s_client::{Feed, Selection};
use mk8s_supervisor::backoff::Backoff;
use parking_lot::RwLock;
use tokio::sync::{Mutex, broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

pub use discovery::Discovered;
use discovery::Discovery;

/// Kinds, by group and plural, that own nothing and are owned by nothing, and of which there are many.
const IGNORED: &[(&str, &str)] = &[("", "events"), ("events.k8s.io", "events")];

/// Kinds whose change means that there may be other kinds.
const DEFINING: &[(&str, &str)] = &[
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("apiregistration.k8s.io", "apiservices"),
];

/// How long all kinds together may take to list; then garbage collection begins without those that could not, as upstream's does. What it
/// deletes it reads before, with all owners: a kind that is not seen keeps garbage, and loses nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// When the kinds are asked for after what may be news of them. First soon: an operator's many definitions wait for each other. Then
/// later: the API server hears of a definition by the same watch, and what it makes of it may take it a while, of which nothing tells.
const AFTER_NEWS: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(2),
    Duration::from_secs(10),
];

/// When they are asked for without news, as upstream does: what is the same is not sent.
const ALWAYS: Duration = Duration::from_secs(30);

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
            && !self.is_of(IGNORED)
    }

    fn is_of(&self, names: &[(&str, &str)]) -> bool {
        names.contains(&(&self.api.group, &self.api.plural))
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
    /// The kind's objects are seen as those of the other one from now on: in another version, or with other verbs.
    Moved(Arc<Kind>, Arc<Kind>),
}

impl Change {
    fn kind(&self) -> &Arc<Kind> {
        match self {
            Change::Applied(kind, _) | Change::Deleted(kind, _) | Change::Listed(kind, _) => kind,
            Change::Unserved(kind) | Change::Moved(kind, _) => kind,
        }
    }
}

/// What all controllers of the process share of the one monitor that the garbage collector runs.
pub struct Hub {
    discovered: RwLock<Discovered>,
    asked: Mutex<Asked>,
    /// Counts what may be news of kinds.
    news: AtomicU64,
    gone: broadcast::Sender<String>,
}

/// Who asks for this moment, and what it heard last.
#[derive(Default)]
struct Asked {
    discovery: Discovery,
    kinds: Vec<Arc<Kind>>,
    /// When that was, and how much news there had been before.
    last: Option<(Instant, u64)>,
}

impl Default for Hub {
    fn default() -> Self {
        Hub {
            discovered: RwLock::default(),
            asked: Mutex::default(),
            news: AtomicU64::new(0),
            gone: broadcast::Sender::new(1024),
        }
    }
}

impl Hub {
    /// Which kinds there are at this moment, of which the monitor may not have heard yet.
    pub async fn discover(&self, client: &Client) -> Discovered {
        self.ask(client, &mut *self.asked.lock().await).await
    }

    /// The kind of this group, of which the monitor may not have heard yet. However many names mean nothing, and however often they
    /// are looked for: that they do is asked once, until there is news.
    pub async fn find(&self, client: &Client, group: &str, kind: &str) -> Option<Arc<Kind>> {
        let mut asked = self.asked.lock().await;
        let is_new = |(at, news): (Instant, u64)| at.elapsed() < ALWAYS && news == self.news.load(Ordering::SeqCst);
        if !asked.last.is_some_and(is_new) {
            self.ask(client, &mut asked).await;
        }
        let mut kinds = asked.kinds.iter();
        kinds.find(|k| k.api.group == group && k.api.kind == kind).cloned()
    }

    async fn ask(&self, client: &Client, asked: &mut Asked) -> Discovered {
        let Asked { discovery, kinds, last } = asked;
        if kinds.is_empty() {
            kinds.clone_from(&self.discovered.read().kinds);
        }
        let now = (Instant::now(), self.news.load(Ordering::SeqCst));
        let found = discovery.discover(client, kinds).await;
        kinds.clone_from(&found.kinds);
        *last = Some(now);
        found
    }

    /// What discovery told the last time; nothing before the first.
    pub fn discovered(&self) -> Discovered {
        self.discovered.read().clone()
    }

    /// The kind of these names.
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        let (group, version) = mk8s_api::meta::split_api_version(api_version);
        // A group may show what another one stores, and is monitored there.
        let stored = mk8s_api::registry::find_kind(group, version, kind);
        let group = stored.map_or(group, |resource| &resource.group);
        let all = &self.discovered.read().kinds;
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
    /// Becomes true when every kind was listed once, or has had the time to.
    pub synced: watch::Sender<bool>,
}

/// A watch under way, and whether it has listed its objects. Dropped, it stops.
struct Watch {
    _stops: DropGuard,
    listed: bool,
}

/// Keeps the hub up to date and tells of all changes, for ever.
pub async fn keep(monitor: Monitor, mut tell: impl FnMut(&Change)) {
    let mut watches = Watches::default();
    let (mut asking, mut discovery) = (Asking::default(), Discovery::default());
    let patience = tokio::time::sleep(PATIENCE);
    tokio::pin!(patience);
    loop {
        tokio::select! {
            biased;
            Some(change) = watches.changes.next() => {
                // What was told before its kind was found to be gone is no news any more.
                if let Some(defines) = watches.hear(&change) {
                    if defines {
                        monitor.hub.news.fetch_add(1, Ordering::SeqCst);
                        asking.hear();
                    }
                    publish(&monitor.hub, change, &mut tell);
                }
            }
            () = asking.due() => {
                let found = discovery.discover(&monitor.client, &monitor.hub.discovered().kinds).await;
                asking.told(&found);
                let gone = watches.renew(&monitor.feed, &found.kinds);
                // First: who hears of a kind that is gone asks which there are.
                *monitor.hub.discovered.write() = found;
                for kind in gone {
                    let change = match watches.successor(&kind) {
                        Some(next) => Change::Moved(kind, next),
                        None => Change::Unserved(kind),
                    };
                    publish(&monitor.hub, change, &mut tell);
                }
            }
            () = &mut patience, if !*monitor.synced.borrow() => {
                let kinds = watches.unlisted();
                tracing::warn!(kinds, "not all kinds could be listed: garbage collection begins without them, and they are tried further");
                monitor.synced.send_replace(true);
            }
        }
        // Also when the last kind that was waited for is gone.
        if watches.are_listed() && !*monitor.synced.borrow() {
            monitor.synced.send_replace(true);
        }
    }
}

/// When the kinds are asked for next.
struct Asking {
    at: Instant,
    /// When there was news last.
    news: Option<Instant>,
    backoff: Backoff,
    failing: bool,
}

impl Default for Asking {
    fn default() -> Self {
        Asking {
            at: Instant::now(),
            news: None,
            backoff: Backoff::new(Duration::from_millis(50), ALWAYS),
            failing: false,
        }
    }
}

impl Asking {
    fn hear(&mut self) {
        let now = Instant::now();
        self.news = Some(now);
        self.at = self.at.min(now + AFTER_NEWS[0]);
    }

    async fn due(&self) {
        tokio::time::sleep_until(self.at).await;
    }

    /// What failed is asked for again, and told of once.
    fn told(&mut self, found: &Discovered) {
        let now = Instant::now();
        let after_news = AFTER_NEWS.iter().filter_map(|after| Some(self.news? + *after));
        self.at = after_news.fold(now + ALWAYS, |next, at| if at > now { next.min(at) } else { next });
        let failures = found.failures.join(", ");
        if failures.is_empty() {
            self.backoff.reset();
            self.failing = false;
            return;
        }
        self.at = self.at.min(now + self.backoff.next_delay());
        if std::mem::replace(&mut self.failing, true) {
            tracing::debug!(failures, "discovery failed again");
        } else {
            tracing::warn!(failures, "discovery failed and is tried until it works");
        }
    }
}

#[derive(Default)]
struct Watches {
    of: HashMap<Arc<Kind>, Watch>,
    changes: SelectAll<BoxStream<'static, Change>>,
}

impl Watches {
    /// May there be other kinds after this change? None where its own kind is gone.
    fn hear(&mut self, change: &Change) -> Option<bool> {
        let watch = self.of.get_mut(change.kind())?;
        // What was listed first may have come after the discovery that found its kind; only that there was nothing is no news.
        let nothing = matches!(change, Change::Listed(_, uids) if uids.is_empty()) && !watch.listed;
        let defines = change.kind().is_of(DEFINING) && !nothing;
        watch.listed |= matches!(change, Change::Listed(..));
        Some(defines)
    }

    /// Was every kind listed once?
    fn are_listed(&self) -> bool {
        !self.of.is_empty() && self.of.values().all(|watch| watch.listed)
    }

    /// Those that were not.
    fn unlisted(&self) -> String {
        let unlisted = self.of.iter().filter(|(_, watch)| !watch.listed);
        let mut names: Vec<String> = unlisted
            .map(|(kind, _)| format!("{}.{}", kind.api.plural, kind.api.group))
            .collect();
        names.sort();
        names.join(", ")
    }

    /// What is watched now of a kind that is not, which has the same objects.
    fn successor(&self, gone: &Kind) -> Option<Arc<Kind>> {
        let identity = |kind: &Kind| (kind.api.group.clone(), kind.api.plural.clone(), kind.namespaced);
        let gone = identity(gone);
        self.of.keys().find(|kind| identity(kind) == gone).cloned()
    }

    /// Watches these kinds, and returns those that are watched no more.
    fn renew(&mut self, feed: &Arc<dyn Feed>, found: &[Arc<Kind>]) -> Vec<Arc<Kind>> {
        let served: HashSet<&Arc<Kind>> = found.iter().collect();
        let unserved = self.of.extract_if(|kind, _| !served.contains(kind));
        let unserved = unserved.map(|(kind, _)| kind).collect();
        for kind in found.iter().filter(|k| k.is_monitored()) {
            self.of.entry(kind.clone()).or_insert_with(|| {
                let (stops, read) = reading::begin(feed, kind);
                self.changes.push(read);
                Watch {
                    _stops: stops,
                    listed: false,
                }
            });
        }
        unserved
    }
}

fn publish(hub: &Hub, change: Change, tell: &mut impl FnMut(&Change)) {
    let namespace = match &change {
        Change::Deleted(_, gone) => gone.namespace.clone(),
        Change::Listed(..) | Change::Unserved(_) => Some(String::new()),
        Change::Applied(..) | Change::Moved(..) => None,
    };
    tell(&change);
    if let Some(namespace) = namespace {
        // Without a reader there is nobody to tell.
        let _ = hub.gone.send(namespace);
    }
}

#[cfg(test)]
mod tests;
