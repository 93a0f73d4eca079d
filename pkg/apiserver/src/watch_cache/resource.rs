//! One resource's part of the watch cache: a persistent map (a snapshot is a pointer), and the ring of events.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mk8s_api::registry::{Resource, Scope};
use parking_lot::Mutex;

use super::ring::{Event, EventKind, Ring};
use super::{Shared, key_prefix};
use crate::object::Object;

pub(super) type Map = imbl::OrdMap<Arc<str>, Arc<Object>>;

/// How long a snapshot that a continue token names is kept.
const KEEP_SNAPSHOT: Duration = Duration::from_secs(300);

/// The field whose watchers are indexed: a node's watch of its own pods costs nothing for others' pods.
pub(crate) const INDEXED_FIELD: &str = "spec.nodeName";

pub struct ResourceCache {
    resource: Arc<Resource>,
    /// `/registry/core/pods/`
    prefix: String,
    pub(super) state: Mutex<State>,
    pub(super) wake: tokio::sync::watch::Sender<u64>,
    shared: Arc<Shared>,
    /// Where in the row's fields the indexed one stands.
    index: Option<usize>,
}

pub(super) struct State {
    map: Map,
    /// Last change of this resource.
    revision: u64,
    pub(super) ring: Ring,
    pinned: VecDeque<(u64, Instant, Map)>,
    /// Per indexed value the events that concern it, for watchers of that value alone.
    pub(super) indexed: HashMap<Box<str>, Indexed>,
    /// Keys by the indexed field's value; made when first asked for, kept from then on.
    by_value: Option<HashMap<Box<str>, BTreeSet<Arc<str>>>>,
}

pub(super) struct Indexed {
    pub ring: Ring,
    pub wake: tokio::sync::watch::Sender<u64>,
}

/// The objects of a resource at one revision.
#[derive(Clone)]
pub struct Snapshot {
    map: Map,
    /// The store's revision that the snapshot shows.
    pub revision: u64,
    range: (Arc<str>, Arc<str>),
}

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

    /// How many objects follow a key, without looking at them one by one where the whole resource is meant.
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
    pub(super) fn new(resource: Arc<Resource>, shared: Arc<Shared>, floor: u64) -> ResourceCache {
        let index = resource.fields.iter().position(|(label, _)| label == INDEXED_FIELD);
        ResourceCache {
            prefix: key_prefix(&resource),
            resource,
            state: Mutex::new(State {
                map: Map::new(),
                revision: 0,
                ring: Ring::new(floor),
                pinned: VecDeque::new(),
                indexed: HashMap::new(),
                by_value: None,
            }),
            wake: tokio::sync::watch::Sender::new(0),
            shared,
            index,
        }
    }

    pub fn resource(&self) -> &Arc<Resource> {
        &self.resource
    }

    /// The store's key of an object.
    pub fn key(&self, namespace: &str, name: &str) -> Arc<str> {
        let mut key = String::with_capacity(self.prefix.len() + namespace.len() + name.len() + 1);
        key.push_str(&self.prefix);
        if self.resource.scope == Scope::Namespaced {
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
        Snapshot {
            map: state.map.clone(),
            // Both under the lock: what the map holds beyond `published` is this resource's own part of a batch.
            revision: self.shared.published().max(state.revision),
            range: self.range(namespace),
        }
    }

    fn range(&self, namespace: &str) -> (Arc<str>, Arc<str>) {
        let mut from = self.prefix.clone();
        if !namespace.is_empty() && self.resource.scope == Scope::Namespaced {
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
        let now = Instant::now();
        state.drop_expired(now);
        if !state.pinned.iter().any(|(revision, ..)| *revision == snapshot.revision) {
            state.pinned.push_back((snapshot.revision, now, snapshot.map.clone()));
        }
    }

    /// Drops snapshots past their time; whether any is left.
    pub(crate) fn expire_pins(&self) -> bool {
        let mut state = self.state.lock();
        state.drop_expired(Instant::now());
        !state.pinned.is_empty()
    }

    /// The objects as they were at a revision: the current map where nothing changed since, a pinned one, or the
    /// current one with the ring's events taken back. None where history does not reach.
    pub fn at(&self, namespace: &str, revision: u64) -> Option<Snapshot> {
        let mut state = self.state.lock();
        state.drop_expired(Instant::now());
        let range = self.range(namespace);
        let with = |map: Map| {
            Some(Snapshot {
                map,
                revision,
                range: range.clone(),
            })
        };
        if revision >= state.revision && revision >= state.ring.floor() {
            return with(state.map.clone());
        }
        if let Some((_, _, map)) = state.pinned.iter().find(|(own, ..)| *own == revision) {
            return with(map.clone());
        }
        if revision < state.ring.floor() {
            return None;
        }
        let mut map = state.map.clone();
        for event in state.ring.newest_first().take_while(|event| event.revision > revision) {
            match &event.old {
                Some(old) => map.insert(old.key.clone(), old.clone()),
                None => map.remove(&*event.object.key),
            };
        }
        with(map)
    }

    /// Fills the cache at start.
    pub(super) fn load(&self, object: Arc<Object>) {
        let mut state = self.state.lock();
        state.revision = state.revision.max(object.revision);
        state.map.insert(object.key.clone(), object);
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
                    let kind = if object.create_revision == object.revision {
                        EventKind::Added
                    } else {
                        EventKind::Modified
                    };
                    Event::new(kind, change.revision, object, old, now)
                }
                None => match state.map.remove(&*change.key) {
                    Some(last) => Event::new(EventKind::Deleted, change.revision, last.clone(), Some(last), now),
                    None => continue,
                },
            };
            let event = Arc::new(event);
            self.push_indexed(&mut state, &event, now);
            state.ring.push(event, now);
        }
        let end = state.ring.end();
        drop(state);
        self.wake.send_replace(end);
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
            if let Some(keys) = gone.and_then(|value| by_value.get_mut(value)) {
                keys.remove(key);
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

impl State {
    fn drop_expired(&mut self, now: Instant) {
        while self
            .pinned
            .front()
            .is_some_and(|(_, at, _)| now.duration_since(*at) > KEEP_SNAPSHOT)
        {
            self.pinned.pop_front();
        }
    }
}
