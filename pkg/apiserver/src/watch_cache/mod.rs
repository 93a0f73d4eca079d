//! The watch cache: every object once, as the bytes clients receive, and the last events of each resource.
//! Reads and watches end here; the store is only written to.

mod follower;
mod resource;
mod ring;
mod watcher;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mk8s_api::registry::{Resource, Support};

pub use crate::object::{Object, Selectable};
pub(crate) use follower::{CacheFollower, Note};
pub(crate) use resource::INDEXED_FIELD;
pub use resource::{ResourceCache, Snapshot};
pub use ring::{Event, EventKind};
pub use watcher::{Next, Watcher};

/// All resources' caches.
pub struct Cache {
    /// group → plural → cache
    resources: HashMap<String, HashMap<String, Arc<ResourceCache>>>,
    shared: Arc<Shared>,
}

/// What all resources' caches share: the newest revision that every one of them has seen.
pub(crate) struct Shared {
    published: AtomicU64,
    /// Which keys belong to which cache. Held for the time of a batch by the one that hands it on.
    placement: parking_lot::Mutex<follower::Placement>,
    changed: tokio::sync::watch::Sender<u64>,
}

impl Shared {
    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    pub(crate) fn publish(&self, revision: u64) {
        self.published.store(revision, Ordering::Release);
        self.changed.send_replace(revision);
    }
}

impl Cache {
    /// Empty caches for the given rows (those that store something of their own).
    pub fn new<'a>(rows: impl Iterator<Item = &'a Arc<Resource>>, revision: u64) -> Cache {
        let shared = Arc::new(Shared {
            published: AtomicU64::new(revision),
            placement: parking_lot::Mutex::default(),
            changed: tokio::sync::watch::Sender::new(revision),
        });
        let mut resources: HashMap<String, HashMap<String, Arc<ResourceCache>>> = HashMap::new();
        for row in rows.filter(|row| row.stored_as.is_none() && row.support != Support::Virtual) {
            let cache = Arc::new(ResourceCache::new(row.clone(), shared.clone(), revision));
            shared.placement.lock().add(&cache);
            let group = resources.entry(row.group.to_string()).or_default();
            group.insert(row.plural.to_string(), cache);
        }
        Cache { resources, shared }
    }

    pub fn resource(&self, group: &str, plural: &str) -> Option<&Arc<ResourceCache>> {
        self.resources.get(group)?.get(plural)
    }

    pub fn resources(&self) -> impl Iterator<Item = &Arc<ResourceCache>> {
        self.resources.values().flat_map(HashMap::values)
    }

    /// The newest revision that readers see.
    pub fn revision(&self) -> u64 {
        self.shared.published()
    }

    /// Waits until a revision is visible.
    pub async fn wait_for(&self, revision: u64, patience: std::time::Duration) -> bool {
        let mut changed = self.shared.changed.subscribe();
        let wait = changed.wait_for(|published| *published >= revision);
        matches!(tokio::time::timeout(patience, wait).await, Ok(Ok(_)))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

/// `/registry/<group or "core">/<plural>/` of a row.
pub fn key_prefix(resource: &Resource) -> String {
    let group = if resource.group.is_empty() {
        "core"
    } else {
        &resource.group
    };
    format!("/registry/{group}/{}/", resource.plural)
}
