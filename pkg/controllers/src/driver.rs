//! The loop that all controllers share: events become keys, keys are reconciled by workers, failures come back later.
//!
//! A pump per informer turns events into keys and keeps the controller's indexes and expectations; it is the only writer of these, so an
//! event has always reached the index before the key that it causes is reconciled. Workers start when every pump has seen all objects that
//! existed at the start. The same key is never reconciled twice at once.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use mk8s_client::{Event, Informer, Kind, WorkQueue};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::Error;
use crate::meta::Key;

/// When a key has to be looked at again, without an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At the next event.
    Done,
    /// After this time, at the latest.
    After(Duration),
}

impl Next {
    /// The earlier of two.
    pub fn sooner(self, other: Next) -> Next {
        match (self, other) {
            (Next::After(a), Next::After(b)) => Next::After(a.min(b)),
            (Next::Done, next) | (next, Next::Done) => next,
        }
    }
}

/// Collects a controller's pumps, then runs it.
pub struct Driver<Q: Eq + Hash + Clone + Send + Sync + 'static = Key> {
    name: &'static str,
    /// The keys to be reconciled.
    pub queue: WorkQueue<Q>,
    pumps: JoinSet<()>,
    ready: Vec<watch::Receiver<bool>>,
}

impl<Q: Eq + Hash + Clone + Display + Send + Sync + 'static> Driver<Q> {
    /// A driver without pumps.
    pub fn new(name: &'static str) -> Self {
        Driver {
            name,
            queue: WorkQueue::new(),
            pumps: JoinSet::new(),
            ready: Vec::new(),
        }
    }

    /// For each event of `informer`, `keys` names what has to be reconciled.
    pub fn watch<K: Kind>(
        &mut self,
        informer: &Informer<K>,
        mut keys: impl FnMut(&Event<K>) -> Vec<Q> + Send + 'static,
    ) {
        let queue = self.queue.clone();
        let informer = informer.clone();
        let (ready, seen) = watch::channel(false);
        self.ready.push(seen);
        self.pumps.spawn(async move {
            informer.wait_synced().await;
            let mut events = informer.subscribe();
            loop {
                let event = match events.try_next() {
                    Some(event) => event,
                    None => {
                        ready.send_replace(true);
                        events.next().await
                    }
                };
                for key in keys(&event) {
                    queue.add(key);
                }
            }
        });
    }

    /// Reconciles until cancelled (by dropping), `workers` keys at once.
    pub async fn run<F, R>(mut self, workers: usize, reconcile: F) -> Result<(), Error>
    where
        F: Fn(Q) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Next, Error>> + Send,
    {
        for seen in &mut self.ready {
            // The sender lives as long as its pump, which never returns.
            let _ = seen.wait_for(|ready| *ready).await;
        }
        let timers = Timers::default();
        let (name, queue, reconcile, timers) = (self.name, &self.queue, &reconcile, &timers);
        let mut running: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        for _ in 0..workers {
            running.push(
                async move {
                    loop {
                        let key = queue.next().await;
                        timers.passed(&key);
                        // On the heap: the futures of reconciliations are large, and most of the time there is none.
                        match Box::pin(reconcile(key.clone())).await {
                            Ok(next) => {
                                queue.forget(&key);
                                if let Next::After(delay) = next
                                    && timers.set(&key, delay)
                                {
                                    queue.add_after(key.clone(), delay);
                                }
                            }
                            Err(error) => {
                                if error.is_conflict() {
                                    tracing::debug!(controller = name, %key, %error, "conflict, retried");
                                } else {
                                    tracing::warn!(controller = name, %key, %error, "reconcile failed");
                                }
                                queue.add_rate_limited(key.clone());
                            }
                        }
                        queue.done(&key);
                    }
                }
                .boxed(),
            );
        }
        loop {
            tokio::select! {
                _ = running.next() => {}
                Some(ended) = self.pumps.join_next() => {
                    // A pump ends by a panic alone; without it the controller would go deaf.
                    return Err(Error::Invalid(format!("{name}: event pump ended: {ended:?}")));
                }
            }
        }
    }
}

/// The next timed look at each key. A key is reconciled by events too, and each time asks for a timer: without this, each of these
/// would start a chain of its own that never ends.
struct Timers<Q>(Mutex<HashMap<Q, Instant>>);

impl<Q> Default for Timers<Q> {
    fn default() -> Self {
        Timers(Mutex::new(HashMap::new()))
    }
}

impl<Q: Eq + Hash + Clone> Timers<Q> {
    /// False if an earlier look is due anyway.
    fn set(&self, key: &Q, delay: Duration) -> bool {
        let at = Instant::now() + delay;
        let mut all = self.0.lock();
        if all.get(key).is_some_and(|known| *known <= at) {
            return false;
        }
        all.insert(key.clone(), at);
        true
    }

    /// The key is being looked at.
    fn passed(&self, key: &Q) {
        let mut all = self.0.lock();
        if all.get(key).is_some_and(|at| *at <= Instant::now()) {
            all.remove(key);
        }
    }
}

/// Objects by something other than their name (their owner, their node, …), kept by a controller's pump.
pub struct Index<K: Kind> {
    keys_of: fn(&K) -> Vec<String>,
    entries: Arc<RwLock<HashMap<String, HashSet<ByName<K>>>>>,
}

/// An object in a set in which a newer version of it takes its place. Small: there are several indexes over all pods. The
/// hash stands here, since a set that grows asks for all of them.
struct ByName<K> {
    object: Arc<K>,
    hash: u64,
}

impl<K: Kind> ByName<K> {
    fn new(object: Arc<K>) -> Self {
        let mut named = ByName { object, hash: 0 };
        let mut hasher = DefaultHasher::new();
        named.names().hash(&mut hasher);
        named.hash = hasher.finish();
        named
    }

    fn names(&self) -> (Option<&str>, Option<&str>) {
        let meta = self.object.meta();
        (meta.namespace.as_deref(), meta.name.as_deref())
    }
}

impl<K: Kind> PartialEq for ByName<K> {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.names() == other.names()
    }
}

impl<K: Kind> Eq for ByName<K> {}

impl<K: Kind> Hash for ByName<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<K: Kind> Clone for Index<K> {
    fn clone(&self) -> Self {
        Index {
            keys_of: self.keys_of,
            entries: self.entries.clone(),
        }
    }
}

impl<K: Kind> Index<K> {
    /// An empty index; `keys_of` says under what an object is found.
    pub fn new(keys_of: fn(&K) -> Vec<String>) -> Self {
        Index {
            keys_of,
            entries: Arc::default(),
        }
    }

    /// Follows an event. To be called first thing in the pump.
    pub fn observe(&self, event: &Event<K>) {
        let mut entries = self.entries.write();
        let (old, new) = match event {
            Event::Applied { old, new } => (old.as_ref(), Some(new)),
            Event::Deleted(old) => (Some(old), None),
        };
        if let Some(old) = old {
            let named = ByName::new(old.clone());
            for at in (self.keys_of)(old) {
                if let Some(set) = entries.get_mut(&at) {
                    set.remove(&named);
                    if set.is_empty() {
                        entries.remove(&at);
                    }
                }
            }
        }
        if let Some(new) = new {
            for at in (self.keys_of)(new) {
                entries.entry(at).or_default().replace(ByName::new(new.clone()));
            }
        }
    }

    /// The objects found under `at`.
    pub fn get(&self, at: &str) -> Vec<Arc<K>> {
        self.entries
            .read()
            .get(at)
            .map(|set| set.iter().map(|entry| entry.object.clone()).collect())
            .unwrap_or_default()
    }

    /// How many there are under `at`.
    pub fn count(&self, at: &str) -> usize {
        self.entries.read().get(at).map_or(0, HashSet::len)
    }
}
