//! One resource's part of the watch cache: a persistent map (a snapshot is a pointer), and the ring of events.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use mk8s_api::registry::{Resource, Scope};
use mk8s_api::status::Status;
use mk8s_supervisor::job;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::pins::Pins;
use super::ring::{Event, EventKind, OF_RESOURCE, Ring};
use super::{Shared, key_prefix};
use crate::object::Object;
use crate::write;

pub(super) type Map = imbl::OrdMap<Arc<str>, Arc<Object>>;

/// The field whose watchers are indexed: a node's watch of its own pods costs nothing for others' pods.
pub(crate) const INDEXED_FIELD: &str = "spec.nodeName";

pub struct ResourceCache {
    /// As it is now; what it is called and whether it is namespaced never changes.
    resource: ArcSwap<Resource>,
    scope: Scope,
    /// Requests that make objects of a custom kind; closed when no object begins any more.
    beginnings: TaskTracker,
    /// It belongs to no resource any more: nothing feeds it.
    retired: AtomicBool,
    /// `/registry/core/pods/`
    prefix: String,
    pub(super) state: Mutex<State>,
    pub(super) wake: tokio::sync::watch::Sender<u64>,
    shared: Arc<Shared>,
    /// The group's count of changes.
    changes: Arc<AtomicU64>,
    /// Where in the row's fields the indexed one stands.
    pub(super) index: Option<usize>,
}

pub(super) struct State {
    map: Map,
    /// Last change of this resource.
    pub(super) revision: u64,
    pub(super) ring: Ring,
    pins: Pins,
    /// Per indexed value the events that concern it, for watchers of that value alone.
    pub(super) indexed: HashMap<Box<str>, Indexed>,
    /// Keys by the indexed field's value; made when first asked for, kept from then on.
    by_value: Option<HashMap<Box<str>, BTreeSet<Arc<str>>>>,
    /// Counts how often the resource became another: who watches what it was is ended.
    pub(super) epoch: u64,
}

pub(super) struct Indexed {
    pub ring: Ring,
    pub wake: tokio::sync::watch::Sender<u64>,
}

/// The objects of a resource at one revision.
#[derive(Clone)]
pub struct Snapshot {
    pub(super) map: Map,
    /// The store's revision that the snapshot shows.
    pub revision: u64,
    range: (Arc<str>, Arc<str>),
    /// That of the cache's map when it was taken: in other namespaces than its own it shows these objects.
    pub(super) taken_at: u64,
    /// Bytes of objects that it holds and the cache's own map did not when it was taken.
    pub(super) apart: u64,
    /// `Pins::replaced` when it was taken: what came since it may hold, too.
    pub(super) replaced: u64,
}

/// What shows the past.
struct History {
    map: Map,
    /// As of `Snapshot`.
    taken_at: u64,
    /// Events in it that are to be taken back, newest first.
    newer: Vec<Arc<Event>>,
    apart: u64,
    replaced: u64,
}

/// Whose objects are known anew: that makes all of them, for as long as it takes, also where one is asked for, and where who
/// asked has gone by then.
static ONE_AT_A_TIME: Semaphore = Semaphore::const_new(1);

impl Snapshot {
    /// Objects in key order, after a key where one is given.
    pub fn iter_after(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<Object>> {
        let from = match after {
            Some(key) if key >= &*self.range.0 => Bound::Excluded(key),
            _ => Bound::Included(&*self.range.0),
        };
        let end = Bound::Excluded(&*self.range.1);
        let empty = matches!(from, Bound::Excluded(key) if key >= &*self.range.1);
        let range = (!empty).then(|| self.map.range::<_, str>((from, end)));
        range.into_iter().flatten().map(|(_, object)| object)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.iter_after(None)
    }

    pub fn get(&self, key: &str) -> Option<&Arc<Object>> {
        self.map.get(key)
    }

    /// The same moment with other forms of its objects.
    pub fn with(&self, objects: Vec<Arc<Object>>) -> Snapshot {
        let apart = objects.iter().map(|object| object.most() as u64).sum();
        let objects = objects.into_iter().map(|object| (object.key.clone(), object));
        Snapshot {
            map: objects.collect(),
            apart,
            ..self.clone()
        }
    }

    /// The same as who took the objects for those of a resource knows them, though a definition changed since: then all of
    /// them are read anew, which holds up nobody else.
    ///
    /// # Errors
    /// One can't be; 504 where its turn has not come by the deadline.
    pub async fn known_as(self, resource: &Arc<Resource>, deadline: tokio::time::Instant) -> Result<Snapshot, Status> {
        let own = self.iter().next().map(|object| object.resource());
        if own.is_none_or(|own| Arc::ptr_eq(own, resource)) {
            return Ok(self);
        }
        let turn = tokio::time::timeout_at(deadline, ONE_AT_A_TIME.acquire()).await;
        let turn = turn.map_err(|_| write::timed_out())?;
        let resource = resource.clone();
        let reading = job::blocking("objects of a version before", move || {
            let _turn = turn;
            let known = self.iter().map(|object| object.clone().known_as(&resource)).collect();
            self.with(known)
        });
        reading.await.map_err(|failed| Status::internal(failed.to_string()))
    }

    /// How many objects follow a key.
    pub fn count_after(&self, after: Option<&str>) -> usize {
        self.iter_after(after).count()
    }

    /// The key prefix that the snapshot covers.
    pub fn prefix(&self) -> &Arc<str> {
        &self.range.0
    }
}

/// What a commit does to one key, as the follower hands it on.
pub(super) struct Change {
    pub key: Arc<str>,
    pub revision: u64,
    pub object: Option<Arc<Object>>,
}

impl ResourceCache {
    pub(super) fn new(
        resource: Arc<Resource>,
        shared: Arc<Shared>,
        floor: u64,
        changes: Arc<AtomicU64>,
    ) -> ResourceCache {
        // Never a custom kind's: which fields it has, and in which order, may change.
        let built_in = resource.stored().custom.is_none();
        let mut fields = resource.index.iter().take_while(|_| built_in);
        let index = fields.position(|field| field.label == INDEXED_FIELD);
        ResourceCache {
            prefix: key_prefix(&resource),
            scope: resource.scope,
            beginnings: TaskTracker::new(),
            retired: AtomicBool::new(false),
            resource: ArcSwap::new(resource),
            state: Mutex::new(State {
                map: Map::new(),
                revision: 0,
                ring: Ring::new(floor, &OF_RESOURCE),
                pins: Pins::default(),
                indexed: HashMap::new(),
                by_value: None,
                epoch: 0,
            }),
            wake: tokio::sync::watch::Sender::new(0),
            shared,
            changes,
            index,
        }
    }

    pub fn resource(&self) -> Arc<Resource> {
        self.resource.load_full()
    }

    pub(super) fn close(&self) {
        self.beginnings.close();
    }

    /// Whether no object begins any more. Who asks while he holds a token is waited for.
    pub fn is_closed(&self) -> bool {
        self.beginnings.is_closed()
    }

    /// Held by a request that makes an object of a custom kind, until it has; others need none.
    pub fn beginning(&self) -> Option<TaskTrackerToken> {
        let is_custom = self.resource.load().stored().custom.is_some();
        is_custom.then(|| self.beginnings.token())
    }

    /// Lets no object begin any more, and waits until those have that did.
    pub async fn close_and_wait(&self) {
        self.close();
        self.beginnings.wait().await;
    }

    /// Whether it is a resource's now, as whoever was served it knows the resource.
    pub fn is_of(&self, resource: &Arc<Resource>) -> bool {
        Arc::ptr_eq(&self.resource.load(), resource) && !self.retired.load(Ordering::Acquire)
    }

    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// The store's key of an object.
    pub fn key(&self, namespace: &str, name: &str) -> Arc<str> {
        let mut key = String::with_capacity(self.prefix.len() + namespace.len() + name.len() + 1);
        key.push_str(&self.prefix);
        if self.is_namespaced() {
            key.push_str(namespace);
            key.push('/');
        }
        key.push_str(name);
        key.into()
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.get_key(&self.key(namespace, name))
    }

    pub fn get_key(&self, key: &str) -> Option<Arc<Object>> {
        self.state.lock().map.get(key).cloned()
    }

    /// The objects of a namespace (empty: all) as they are now.
    pub fn list(&self, namespace: &str) -> Snapshot {
        let state = self.state.lock();
        self.snapshot_of(&state, namespace)
    }

    pub(super) fn snapshot_of(&self, state: &State, namespace: &str) -> Snapshot {
        // Both under the lock: what the map holds beyond `published` is this resource's own part of a batch.
        let revision = self.shared.published().max(state.revision);
        Snapshot {
            map: state.map.clone(),
            revision,
            taken_at: revision,
            range: self.range(namespace),
            apart: 0,
            replaced: state.pins.replaced(),
        }
    }

    pub(super) fn range(&self, namespace: &str) -> (Arc<str>, Arc<str>) {
        let mut from = self.prefix.clone();
        if !namespace.is_empty() && self.is_namespaced() {
            from.push_str(namespace);
            from.push('/');
        }
        let mut to = from.clone();
        to.pop();
        // '0' follows '/'.
        to.push('0');
        (from.into(), to.into())
    }

    /// The objects of a namespace (empty: all) whose indexed field has a value, and the revision that this shows.
    /// None where the resource has no indexed field.
    pub fn list_indexed(&self, namespace: &str, value: &str) -> Option<(Vec<Arc<Object>>, u64)> {
        let index = self.index?;
        let range = self.range(namespace);
        let mut state = self.state.lock();
        if state.by_value.is_none() {
            let all = state.map.clone();
            drop(state);
            // Each is read once for it: not under the lock, for which the committer waits.
            for object in all.values() {
                object.selectable();
            }
            state = self.state.lock();
        }
        let state = &mut *state;
        let by_value = state.by_value.get_or_insert_with(|| {
            let mut by_value: HashMap<Box<str>, BTreeSet<Arc<str>>> = HashMap::new();
            for object in state.map.values() {
                let keys = by_value.entry(value_of(object, index)).or_default();
                keys.insert(object.key.clone());
            }
            by_value
        });
        let keys = by_value
            .get(value)
            .into_iter()
            .flat_map(|keys| keys.range(range.0.clone()..range.1.clone()));
        let objects = keys.filter_map(|key| state.map.get(&**key).cloned()).collect();
        Some((objects, self.shared.published().max(state.revision)))
    }

    /// Last change of this resource.
    pub fn revision(&self) -> u64 {
        self.state.lock().revision
    }

    pub fn len(&self) -> usize {
        self.state.lock().map.len()
    }

    /// How many watch it now.
    pub fn watchers(&self) -> usize {
        let state = self.state.lock();
        let indexed = state.indexed.values().map(|indexed| indexed.wake.receiver_count());
        self.wake.receiver_count() + indexed.sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps a snapshot for the pages to come.
    pub fn pin(&self, snapshot: &Snapshot) {
        let mut state = self.state.lock();
        let overdue = state.pins.keep(snapshot, Instant::now());
        drop(state);
        drop(overdue);
    }

    /// Drops snapshots past their time; whether any is left.
    pub(crate) fn expire_pins(&self) -> bool {
        let mut state = self.state.lock();
        let overdue = state.pins.take_overdue(Instant::now());
        let left = !state.pins.is_empty();
        drop(state);
        drop(overdue);
        left
    }

    /// The objects as they were at a revision: the current map where nothing changed since, a pinned one, or the
    /// current one with the ring's events taken back. None where history does not reach, and of a revision to come.
    pub fn at(&self, namespace: &str, revision: u64) -> Option<Snapshot> {
        let range = self.range(namespace);
        let History {
            mut map,
            taken_at,
            newer,
            mut apart,
            replaced,
        } = self.history(revision, &range.0)?;
        // Not under the lock, for which the committer waits: it may be thousands.
        for event in newer.iter().filter(|event| event.object.key.starts_with(&*range.0)) {
            match &event.old {
                Some(old) => {
                    if old.revision <= revision {
                        apart += old.most() as u64;
                    }
                    map.insert(old.key.clone(), old.clone());
                }
                None => {
                    map.remove(&*event.object.key);
                }
            }
        }
        Some(Snapshot {
            map,
            revision,
            taken_at,
            range,
            apart,
            replaced,
        })
    }

    /// What a snapshot of a revision is made of, of keys with a prefix.
    fn history(&self, revision: u64, prefix: &str) -> Option<History> {
        let mut state = self.state.lock();
        let overdue = state.pins.take_overdue(Instant::now());
        let floor = state.ring.floor(prefix);
        let now = self.shared.published().max(state.revision);
        let (map, taken_at, apart, newer) = if revision > now {
            (None, now, 0, Vec::new())
        } else if revision >= state.revision && revision >= floor {
            (Some(state.map.clone()), now, 0, Vec::new())
        } else if let Some((map, taken_at, apart)) = state.pins.find(revision, prefix) {
            (Some(map.clone()), taken_at, apart, Vec::new())
        } else if revision < floor {
            (None, now, 0, Vec::new())
        } else {
            let newer = state.ring.newest_first().take_while(|event| event.revision > revision);
            (Some(state.map.clone()), now, 0, newer.cloned().collect())
        };
        let replaced = state.pins.replaced();
        drop(state);
        drop(overdue);
        Some(History {
            map: map?,
            taken_at,
            newer,
            apart,
            replaced,
        })
    }

    /// The objects that there are, as another resource reads them.
    pub(super) fn read_early(&self, resource: &Arc<Resource>, read: &dyn Fn(Object) -> Object) -> Map {
        let map = self.state.lock().map.clone();
        let objects = map.iter();
        objects
            .map(|(key, object)| (key.clone(), Arc::new(object.read_as(resource, read))))
            .collect()
    }

    /// The resource is another from now on, and so are its objects, of which `early` were read already. No event tells of
    /// that: a watch ends (`wake_all`), and whoever began it looks again. The caller holds the committer back.
    pub(super) fn reread(&self, resource: &Arc<Resource>, read: &dyn Fn(Object) -> Object, early: &Map, floor: u64) {
        self.resource.store(resource.clone());
        let state = self.state.lock();
        let objects = state.map.iter();
        let objects = objects.map(|(key, object)| {
            let known = early.get(key).filter(|early| early.revision == object.revision);
            let anew = || Arc::new(object.read_as(resource, read));
            (key.clone(), known.cloned().unwrap_or_else(anew))
        });
        let map = objects.collect();
        self.begin_again(state, map, floor);
    }

    /// Nothing is left of the resource.
    pub(super) fn clear(&self) {
        self.retired.store(true, Ordering::Release);
        let state = self.state.lock();
        let floor = self.shared.published();
        self.begin_again(state, Map::new(), floor);
    }

    fn begin_again(&self, mut state: parking_lot::MutexGuard<'_, State>, map: Map, floor: u64) {
        let before = std::mem::replace(&mut state.map, map);
        let ring = std::mem::replace(&mut state.ring, Ring::new(floor, &OF_RESOURCE));
        let pins = state.pins.clear();
        state.indexed.clear();
        state.by_value = None;
        state.epoch += 1;
        drop(state);
        drop((before, ring, pins));
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Lets every watcher look.
    pub(super) fn wake_all(&self) {
        self.wake.send_modify(|_| {});
    }

    /// Fills the cache at start.
    pub(super) fn load(&self, object: Arc<Object>) {
        let mut state = self.state.lock();
        state.revision = state.revision.max(object.revision);
        state.map.insert(object.key.clone(), object);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Applies this resource's part of a batch under one lock.
    pub(super) fn apply(&self, changes: impl Iterator<Item = Change>, now: Instant) {
        let mut state = self.state.lock();
        for change in changes {
            // After a failure the store hands a batch on again.
            let seen = |object: &Arc<Object>| object.revision >= change.revision;
            if change.revision <= state.revision && state.map.get(&*change.key).is_some_and(seen) {
                continue;
            }
            state.revision = state.revision.max(change.revision);
            let event = match change.object {
                Some(object) => {
                    let old = state.map.insert(change.key, object.clone());
                    if let Some(old) = &old {
                        state.pins.note_replaced(old);
                    }
                    let kind = if object.create_revision == object.revision {
                        EventKind::Added
                    } else {
                        EventKind::Modified
                    };
                    Event::new(kind, change.revision, object, old, now)
                }
                None => match state.map.remove(&*change.key) {
                    Some(last) => {
                        state.pins.note_replaced(&last);
                        Event::new(EventKind::Deleted, change.revision, last.clone(), Some(last), now)
                    }
                    None => continue,
                },
            };
            let event = Arc::new(event);
            self.push_indexed(&mut state, &event, now);
            state.ring.push(event, now);
        }
        let overdue = state.pins.take_overdue(now);
        let end = state.ring.end();
        // After the change: who reads this number reads at least that.
        self.changes.fetch_add(1, Ordering::Release);
        drop(state);
        self.wake.send_replace(end);
        drop(overdue);
    }

    fn push_indexed(&self, state: &mut State, event: &Arc<Event>, now: Instant) {
        let Some(index) = self.index else { return };
        if state.indexed.is_empty() && state.by_value.is_none() {
            return;
        }
        let value_of = |object: &Arc<Object>| value_of(object, index);
        let new = value_of(&event.object);
        let old = event.old.as_ref().map(value_of).filter(|old| *old != new);
        if let Some(by_value) = &mut state.by_value {
            let key = &event.object.key;
            let gone = if event.kind == EventKind::Deleted {
                Some(&new)
            } else {
                old.as_ref()
            };
            if let Some(value) = gone
                && let Some(keys) = by_value.get_mut(value)
            {
                keys.remove(key);
                if keys.is_empty() {
                    by_value.remove(value);
                }
            }
            if event.kind != EventKind::Deleted {
                by_value.entry(new.clone()).or_default().insert(key.clone());
            }
        }
        for value in std::iter::once(new).chain(old) {
            let Some(indexed) = state.indexed.get_mut(&value) else {
                continue;
            };
            if indexed.wake.receiver_count() == 0 {
                state.indexed.remove(&value);
                continue;
            }
            indexed.ring.push(event.clone(), now);
            indexed.wake.send_replace(indexed.ring.end());
        }
    }
}

fn value_of(object: &Arc<Object>, index: usize) -> Box<str> {
    object.selectable().fields.get(index).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use mk8s_store::Entry;

    use super::super::Cache;
    use super::super::pins::{MAX_PINNED_BYTES, MAX_PINS};
    use super::*;

    fn config_maps() -> Arc<ResourceCache> {
        let cache = Cache::new(mk8s_api::registry::builtin().iter(), 0);
        cache.resource("", "configmaps").unwrap()
    }

    fn put(cache: &ResourceCache, revision: u64, size: usize) {
        put_in(cache, "default", revision, size);
    }

    fn put_in(cache: &ResourceCache, namespace: &str, revision: u64, size: usize) {
        let key = cache.key(namespace, "a");
        let value = format!(
            r#"{{"metadata":{{"resourceVersion":"{revision}"}},"data":"{}"}}"#,
            "x".repeat(size)
        );
        let entry = Entry {
            key: key.clone(),
            revision_at: value.find(&format!("{revision}\"}}")).unwrap(),
            value: Bytes::from(value),
            create_revision: 1,
            mod_revision: revision,
        };
        let object = Arc::new(Object::new(cache.resource(), entry, None));
        let change = Change {
            key,
            revision,
            object: Some(object),
        };
        cache.apply(std::iter::once(change), Instant::now());
    }

    /// A list that is on its way while its kind changes reads all objects anew: nobody else waits for that.
    #[tokio::test]
    async fn what_is_read_anew_is_read_beside_the_runtime() {
        let cache = config_maps();
        put(&cache, 3, 10);
        let (own, other) = (cache.resource(), Arc::new(Resource::clone(&cache.resource())));
        let late = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        let at_once = futures::FutureExt::now_or_never(cache.list("").known_as(&own, late));
        assert!(at_once.is_some_and(|known| known.is_ok()));
        let mut anew = std::pin::pin!(cache.list("").known_as(&other, late));
        assert!(futures::poll!(&mut anew).is_pending());
        let known = anew.await.unwrap();
        assert!(Arc::ptr_eq(known.iter().next().unwrap().resource(), &other));
        // One after the other, and nobody for longer than his request is answered.
        let turn = ONE_AT_A_TIME.acquire().await.unwrap();
        let soon = tokio::time::Instant::now() + std::time::Duration::from_millis(10);
        let refused = tokio::time::timeout_at(late, cache.list("").known_as(&other, soon)).await;
        assert_eq!(refused.unwrap().err().map(|status| status.code), Some(504));
        drop(turn);
    }

    fn pinned(cache: &ResourceCache) -> (usize, u64) {
        cache.state.lock().pins.count()
    }

    #[test]
    fn pins_are_bounded_in_number_and_in_what_they_keep() {
        let cache = config_maps();
        for revision in 1..2 * MAX_PINS as u64 {
            put(&cache, revision, 10);
            cache.pin(&cache.list(""));
        }
        assert_eq!(pinned(&cache).0, MAX_PINS);
        for revision in 1_000..1_200 {
            put(&cache, revision, 1 << 20);
            cache.pin(&cache.list(""));
            let (count, kept) = pinned(&cache);
            assert!(count > 0 && kept <= MAX_PINNED_BYTES, "{count} keep {kept}");
        }
        assert!(pinned(&cache).0 < 35, "each may get a protobuf form beside its text");
    }

    /// Whoever may write one long object ended everybody's pages by writing it again and again.
    #[test]
    fn a_pin_keeps_one_version_of_what_is_written_again_and_again() {
        let cache = config_maps();
        put_in(&cache, "busy", 1, 1 << 20);
        put_in(&cache, "quiet", 2, 10);
        cache.pin(&cache.list(""));
        for revision in 3..200 {
            put_in(&cache, "busy", revision, 1 << 20);
        }
        let (count, kept) = pinned(&cache);
        assert!(count == 1 && (1 << 20..3 << 20).contains(&kept), "{count} keep {kept}");
        let page = cache.at("", 2).unwrap();
        assert_eq!(page.iter().map(|object| object.revision).collect::<Vec<_>>(), [1, 2]);
    }

    /// Whoever lists his namespace as it was, at one revision after the other, ended everybody's pages.
    #[test]
    fn snapshots_of_the_past_end_no_other_s_pages() {
        let cache = config_maps();
        put_in(&cache, "quiet", 1, 10);
        cache.pin(&cache.list(""));
        for revision in 2..10 {
            put_in(&cache, "busy", revision, 1 << 20);
        }
        for revision in 2..10 {
            cache.pin(&cache.at("busy", revision).unwrap());
            cache.pin(&cache.at("quiet", revision).unwrap());
        }
        let (count, kept) = pinned(&cache);
        assert!(count > 8 && kept <= MAX_PINNED_BYTES / 4, "{count} keep {kept}");
        let page = cache.at("", 1).unwrap();
        assert_eq!(page.iter().map(|object| object.revision).collect::<Vec<_>>(), [1]);
        assert!(
            cache.at("", 10).is_none() && cache.at("", 9).is_some(),
            "it is still to come"
        );
    }

    /// Of all namespaces but its own, a snapshot of the past has the objects of the moment in which it was made.
    #[test]
    fn what_a_pin_of_one_namespace_s_past_keeps_of_others_is_counted() {
        let cache = config_maps();
        put_in(&cache, "quiet", 1, 10);
        put_in(&cache, "quiet", 2, 10);
        for round in 1..100 {
            put_in(&cache, "busy", round + 2, 1 << 20);
            if let Some(past) = cache.at("quiet", (round + 2) / 2) {
                cache.pin(&past);
            }
            let (count, kept) = pinned(&cache);
            // Each holds one of the busy object's versions.
            assert!(
                kept + (2 << 20) >= (count as u64).saturating_sub(1) << 20,
                "{count} keep {kept}"
            );
        }
    }

    /// A snapshot that is made of history holds what was replaced before it was pinned.
    #[test]
    fn what_a_pin_of_the_past_keeps_is_counted() {
        let cache = config_maps();
        for round in 0..20 {
            for object in 0..3 {
                put_in(&cache, &format!("n{object}"), round * 3 + object + 1, 1 << 20);
            }
            // What it shows was replaced in this round, and is in the ring yet.
            if let Some(past) = round.checked_sub(1).and_then(|_| cache.at("", round * 3)) {
                cache.pin(&past);
            }
            let (count, kept) = pinned(&cache);
            assert!(kept <= MAX_PINNED_BYTES, "{count} keep {kept}");
            assert!(count < 5, "{count} rounds' worth of memory");
        }
        assert!(pinned(&cache).0 > 0);
    }

    #[test]
    fn a_snapshot_of_the_past_takes_events_back() {
        let cache = config_maps();
        for revision in 1..=10 {
            put(&cache, revision, 10);
        }
        for revision in 1..=10 {
            let snapshot = cache.at("default", revision).unwrap();
            let revisions: Vec<u64> = snapshot.iter().map(|object| object.revision).collect();
            assert_eq!(revisions, [revision]);
        }
        assert_eq!(cache.at("default", 0).unwrap().iter().count(), 0);
    }

    /// Twenty updates of something long in one namespace were the end of everybody's watches and pages.
    #[test]
    fn a_namespace_s_many_changes_end_no_other_s_history() {
        let cache = config_maps();
        put_in(&cache, "quiet", 1, 10);
        let mut lags = cache.watch_with_snapshot("quiet", None).1;
        let mut lags_everywhere = cache.watch_with_snapshot("", None).1;
        for revision in 2..=4 {
            put_in(&cache, "quiet", revision, 10);
        }
        for revision in 5..200 {
            put_in(&cache, "busy", revision, 900_000);
            if revision % 20 == 0 {
                put_in(&cache, "other", revision, 10);
            }
            let held: usize = cache
                .state
                .lock()
                .ring
                .newest_first()
                .map(|event| event.object.json.len())
                .sum();
            assert!(held <= 32 << 20, "{held}");
        }
        let mut events = Vec::new();
        let mut seen = |watcher: &mut crate::watch_cache::Watcher| {
            events.clear();
            while watcher.caught_up().is_none() {
                if !matches!(watcher.take(&mut events), crate::watch_cache::Next::Events) {
                    return None;
                }
            }
            let own = events.iter().filter(|event| event.object.key.contains("/quiet/"));
            Some(own.map(|event| event.revision).collect::<Vec<_>>())
        };
        assert_eq!(seen(&mut lags), Some(vec![2, 3, 4]));
        assert_eq!(seen(&mut lags_everywhere), None);
        let mut resumed = cache.watch_from("quiet", 2, None).ok().unwrap();
        assert_eq!(seen(&mut resumed), Some(vec![3, 4]));
        for namespace in ["", "busy"] {
            let floor = cache.watch_from(namespace, 2, None).err().unwrap();
            assert!(
                floor > 100 && cache.watch_from(namespace, floor, None).is_ok(),
                "{floor}"
            );
            assert!(cache.at(namespace, 2).is_none());
        }
        // A page of one namespace is no page of another, though both name one revision.
        let page = cache.at("quiet", 2).unwrap();
        assert_eq!(page.iter().map(|object| object.revision).collect::<Vec<_>>(), [2]);
        cache.pin(&page);
        assert!(cache.at("", 2).is_none() && cache.at("busy", 2).is_none());
        assert_eq!(cache.at("other", 60).unwrap().iter().next().unwrap().revision, 60);
    }

    /// Of objects of a usual size there are many in the window, and each has a place beside its bytes.
    #[test]
    fn many_small_changes_of_a_namespace_end_no_other_s_history() {
        let cache = config_maps();
        for revision in 1..=4 {
            put_in(&cache, "quiet", revision, 10);
        }
        for revision in 5..60_000 {
            put_in(&cache, "busy", revision, 1_000);
        }
        assert!(cache.watch_from("busy", 4, None).is_err());
        assert!(cache.watch_from("quiet", 2, None).is_ok());
    }

    /// A transaction's changes have one revision, and may be lost one by one.
    #[test]
    fn who_has_seen_one_event_of_a_revision_misses_no_other() {
        let cache = config_maps();
        put_in(&cache, "n0", 1, 10);
        let mut watcher = cache.watch_with_snapshot("", None).1;
        put_in(&cache, "n1", 2, 900_000);
        put_in(&cache, "n2", 2, 900_000);
        let mut taken = Vec::new();
        assert!(matches!(watcher.take(&mut taken), crate::watch_cache::Next::Events));
        assert_eq!(taken.len(), 1, "a portion");
        for revision in 3.. {
            put_in(&cache, &format!("n{revision}"), revision, 900_000);
            let state = cache.state.lock();
            if state.ring.newest_first().all(|event| event.revision > 2) {
                break;
            }
        }
        assert!(matches!(watcher.take(&mut taken), crate::watch_cache::Next::TooOld));
    }

    #[test]
    fn a_watcher_takes_no_more_than_a_portion() {
        let cache = config_maps();
        let (_, mut watcher) = cache.watch_with_snapshot("", None);
        for revision in 1..=20 {
            put(&cache, revision, 100 << 10);
        }
        let mut seen = 0;
        while seen < 20 {
            let mut taken = Vec::new();
            assert!(matches!(watcher.take(&mut taken), crate::watch_cache::Next::Events));
            let bytes: usize = taken.iter().map(|event| event.object.json.len()).sum();
            assert!(!taken.is_empty() && bytes <= 400 << 10, "{bytes}");
            seen += taken.len();
        }
        assert!(watcher.caught_up().is_some());
    }

    #[test]
    fn a_value_that_nothing_has_is_forgotten() {
        let cache = Cache::new(mk8s_api::registry::builtin().iter(), 0);
        let pods = cache.resource("", "pods").unwrap();
        assert!(pods.list_indexed("", "n").unwrap().0.is_empty());
        let put_on = |revision: u64, node: &str| {
            let before = r#"{"metadata":{"resourceVersion":""#;
            let key = pods.key("default", "p");
            let entry = Entry {
                key: key.clone(),
                value: format!(r#"{before}{revision}"}},"spec":{{"nodeName":"{node}"}}}}"#).into(),
                revision_at: before.len(),
                create_revision: 1,
                mod_revision: revision,
            };
            let object = Some(Arc::new(Object::new(pods.resource().clone(), entry, None)));
            let change = Change { key, revision, object };
            pods.apply(std::iter::once(change), Instant::now());
        };
        let values = || pods.state.lock().by_value.as_ref().unwrap().len();
        for (revision, node) in (1..).zip(["a", "b", "c"]) {
            put_on(revision, node);
            assert_eq!((values(), pods.list_indexed("", node).unwrap().0.len()), (1, 1));
        }
        let gone = Change {
            key: pods.key("default", "p"),
            revision: 9,
            object: None,
        };
        pods.apply(std::iter::once(gone), Instant::now());
        assert_eq!(values(), 0);
    }

    #[test]
    fn a_damaged_object_is_an_error_in_every_form() {
        let cache = config_maps();
        let entry = Entry {
            key: cache.key("default", "a"),
            value: Bytes::from_static(b"{\"metadata\""),
            revision_at: 0,
            create_revision: 1,
            mod_revision: 1,
        };
        let object = Object::new(cache.resource(), entry, None);
        assert_eq!(object.value().unwrap_err().code, 500);
        assert_eq!(object.partial_metadata(1, "meta.k8s.io/v1").unwrap_err().code, 500);
        assert_eq!(object.proto_item().unwrap_err().code, 500);
    }
}
