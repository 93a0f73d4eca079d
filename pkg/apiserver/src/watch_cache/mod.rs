//! The watch cache: every object once, as the bytes clients receive, and the last events of each resource.
//! Reads and watches end here; the store is only written to.

mod follower;
mod pins;
mod resource;
mod ring;
mod watcher;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use mk8s_api::registry::{Resource, Scope, Support};

pub use crate::object::{Object, Selectable};
pub(crate) use follower::{CacheFollower, Note};
pub use pins::KEEP_SNAPSHOT;
pub(crate) use resource::INDEXED_FIELD;
pub use resource::{ResourceCache, Snapshot};
pub use ring::{Event, EventKind, Form};
pub use watcher::{Next, Watcher};

/// All resources' caches.
pub struct Cache {
    groups: ArcSwap<Groups>,
    shared: Arc<Shared>,
    /// What became another resource's, or nobody's, and whose watchers do not know yet.
    ended: parking_lot::Mutex<Vec<Arc<ResourceCache>>>,
}

type Groups = HashMap<String, Group>;

#[derive(Clone, Default)]
struct Group {
    /// plural → cache
    resources: HashMap<String, Arc<ResourceCache>>,
    /// How often something of the group changed.
    changes: Arc<AtomicU64>,
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
        let mut groups: HashMap<String, Group> = HashMap::new();
        for row in rows.filter(|row| row.support != Support::Virtual) {
            let group = groups.entry(row.group.to_string()).or_default();
            let changes = group.changes.clone();
            let cache = Arc::new(ResourceCache::new(row.clone(), shared.clone(), revision, changes));
            shared.placement.lock().add(&cache, &|object| object);
            group.resources.insert(row.plural.to_string(), cache);
        }
        Cache {
            groups: ArcSwap::from_pointee(groups),
            shared,
            ended: parking_lot::Mutex::default(),
        }
    }

    pub fn resource(&self, group: &str, plural: &str) -> Option<Arc<ResourceCache>> {
        self.groups.load().get(group)?.resources.get(plural).cloned()
    }

    pub fn resources(&self) -> Vec<Arc<ResourceCache>> {
        let groups = self.groups.load();
        groups
            .values()
            .flat_map(|group| group.resources.values().cloned())
            .collect()
    }

    /// Gives a resource a cache, with what is stored of it, each object as `read` makes it of the stored one. Where it has one
    /// already, the objects of that are read anew, and who watches them is ended (`tell_ended`).
    pub fn serve(&self, resource: &Arc<Resource>, read: &dyn Fn(Object) -> Object) {
        let mut known = self.resource(&resource.group, &resource.plural);
        // Keys are formed by the scope.
        let namespaced = resource.scope == Scope::Namespaced;
        if known.take_if(|known| known.is_namespaced() != namespaced).is_some() {
            self.retire(&resource.group, &resource.plural);
        }
        // Every write waits while the committer is held back: what there is by now is read before.
        let early = known.map(|cache| cache.read_early(resource, read));
        // The committer hands nothing on meanwhile: no change falls between the two.
        let mut placement = self.shared.placement.lock();
        let floor = self.shared.published();
        if let Some(cache) = self.resource(&resource.group, &resource.plural) {
            cache.reread(resource, read, &early.unwrap_or_default(), floor);
            self.ended.lock().push(cache);
            return;
        }
        let mut groups = Groups::clone(&self.groups.load());
        let group = groups.entry(resource.group.to_string()).or_default();
        let cache = ResourceCache::new(resource.clone(), self.shared.clone(), floor, group.changes.clone());
        let cache = Arc::new(cache);
        placement.add(&cache, read);
        group.resources.insert(resource.plural.to_string(), cache);
        self.groups.store(Arc::new(groups));
    }

    /// Lets no object of a resource begin any more.
    pub fn close(&self, group: &str, plural: &str) {
        if let Some(cache) = self.resource(group, plural) {
            cache.close();
        }
    }

    /// Takes a resource's cache away; who watches it is ended (`tell_ended`).
    pub fn retire(&self, group: &str, plural: &str) {
        let mut placement = self.shared.placement.lock();
        let mut groups = Groups::clone(&self.groups.load());
        let Some(cache) = groups.get_mut(group).and_then(|group| group.resources.remove(plural)) else {
            return;
        };
        self.groups.store(Arc::new(groups));
        placement.remove(&cache);
        drop(placement);
        cache.clear();
        self.ended.lock().push(cache);
    }

    /// Wakes those whose watch was ended: not before there is what they are to look at instead.
    pub fn tell_ended(&self) {
        for cache in std::mem::take(&mut *self.ended.lock()) {
            cache.wake_all();
        }
    }

    /// Another number after each change of any object of a group: whoever keeps what he made of them asks this alone.
    pub fn changes(&self, group: &str) -> u64 {
        let groups = self.groups.load();
        groups
            .get(group)
            .map_or(0, |group| group.changes.load(Ordering::Acquire))
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
