//! The ConfigMaps and Secrets that this node's pods name: one watch per object (a node may read no others), shared by all
//! pods that name it, and ended with the last of them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Resource;
use mk8s_client::{Informer, Informers, Kind};
use mk8s_supervisor::job;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A held object; the watch lives as long as somebody holds it.
pub struct Held<K> {
    namespace: String,
    name: String,
    informer: Informer<K>,
    changed: watch::Receiver<u64>,
    _watch: DropGuard,
    _forward: DropGuard,
}

impl<K: Kind> Held<K> {
    /// The object once the first answer is in; None: the API has none of that name.
    pub async fn get(&self) -> Option<Arc<K>> {
        self.informer.wait_synced().await;
        self.informer.get(Some(&self.namespace), &self.name)
    }

    /// Counts up with each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }
}

/// (namespace, name)
type Key = (String, String);

struct Table<K>(Mutex<Entries<K>>);

struct Entries<K> {
    held: HashMap<Key, Weak<Held<K>>>,
    /// Those that nobody holds go when there are so many: each look at all of them is paid by as many that came.
    sweep_at: usize,
}

const SWEEP_AT_LEAST: usize = 64;

impl<K> Entries<K> {
    fn insert(&mut self, key: Key, held: Weak<Held<K>>) {
        if self.held.len() >= self.sweep_at {
            self.held.retain(|_, held| held.strong_count() > 0);
            self.sweep_at = (2 * self.held.len()).max(SWEEP_AT_LEAST);
        }
        self.held.insert(key, held);
    }
}

impl<K> Table<K>
where
    K: Kind + Resource<Scope = NamespaceResourceScope>,
{
    fn new() -> Self {
        Self(Mutex::new(Entries {
            held: HashMap::new(),
            sweep_at: SWEEP_AT_LEAST,
        }))
    }

    fn hold(&self, informers: &Informers, namespace: &str, name: &str) -> Arc<Held<K>> {
        let mut table = self.0.lock();
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(held) = table.held.get(&key).and_then(Weak::upgrade) {
            return held;
        }
        let (informer, watch) = informers.single::<K>(namespace, name);
        let (sender, changed) = watch::channel(0);
        let token = CancellationToken::new();
        let mut events = informer.subscribe();
        let stop = token.clone();
        // Ends with the holder: it only turns the informer's events into a counter that many can wait on.
        let forward = async move {
            loop {
                tokio::select! {
                    _ = events.next() => sender.send_modify(|n| *n += 1),
                    () = stop.cancelled() => return,
                }
            }
        };
        drop(job::spawn("object-changes", forward));
        let held = Arc::new(Held {
            namespace: key.0.clone(),
            name: key.1.clone(),
            informer,
            changed,
            _watch: watch,
            _forward: token.drop_guard(),
        });
        table.insert(key, Arc::downgrade(&held));
        held
    }
}

pub struct Objects {
    informers: Informers,
    config_maps: Table<ConfigMap>,
    secrets: Table<Secret>,
}

impl Objects {
    pub fn new(informers: Informers) -> Self {
        Self {
            informers,
            config_maps: Table::new(),
            secrets: Table::new(),
        }
    }

    pub fn config_map(&self, namespace: &str, name: &str) -> Arc<Held<ConfigMap>> {
        self.config_maps.hold(&self.informers, namespace, name)
    }

    /// How many there are, held or not.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.config_maps.0.lock().held.len() + self.secrets.0.lock().held.len()
    }

    pub fn secret(&self, namespace: &str, name: &str) -> Arc<Held<Secret>> {
        self.secrets.hold(&self.informers, namespace, name)
    }
}
