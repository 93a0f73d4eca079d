//! An informer: all objects of a kind as the API server has them, and indexes over them. One reflector keeps it; many read
//! it, or subscribe to its changes.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hash, Hasher};
use std::sync::{Arc, LazyLock, Weak};

use mk8s_api::codec::json;
use mk8s_api::stored::Stored;
use nohash_hasher::{IntMap, IntSet, IsEnabled};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::watch;

use crate::handlers::{EventHandler, Handlers, Registration};
use crate::kind::{Kind, View};
use crate::subscription::{Event, Mailbox, Subscription};

/// Objects of a packed informer that stay decoded: the ones decoded last. What is worked on is asked for again and again, by
/// several readers; the rest of a large cluster is not.
const DECODED: usize = 2048;

/// `namespace/name`, or `name` for objects of the cluster: one allocation, which map, indexes and mailboxes share, and one
/// hash, which each of them would make anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    hash: u64,
    text: Arc<str>,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl IsEnabled for Key {}

impl Key {
    fn new(namespace: &str, name: &str) -> Self {
        // Names are their users': whoever could choose what collides would slow all down.
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let text: Arc<str> = match namespace {
            "" => name.into(),
            _ => [namespace, "/", name].concat().into(),
        };
        Key {
            hash: HASHER.hash_one(&*text),
            text,
        }
    }

    pub(crate) fn of(object: &dyn Stored) -> Self {
        Key::new(object.namespace(), object.name())
    }
}

/// An object as it is kept.
pub(crate) enum Entry<K> {
    Whole(Arc<K>, u64),
    Packed(Arc<Packed<K>>),
}

impl<K> Clone for Entry<K> {
    fn clone(&self) -> Self {
        match self {
            Entry::Whole(object, revision) => Entry::Whole(object.clone(), *revision),
            Entry::Packed(packed) => Entry::Packed(packed.clone()),
        }
    }
}

pub(crate) struct Packed<K> {
    text: Arc<dyn Stored>,
    decoded: Mutex<Option<Arc<K>>>,
}

impl<K> Entry<K> {
    fn revision(&self) -> u64 {
        match self {
            Entry::Whole(_, revision) => *revision,
            Entry::Packed(packed) => packed.text.revision(),
        }
    }
}

type KeysOf<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;

/// Objects by something other than their name.
struct Keyed<K> {
    name: &'static str,
    keys_of: KeysOf<K>,
    found: HashMap<Box<str>, IntSet<Key>>,
}

impl<K> Keyed<K> {
    /// `key`'s object was `old` and is `new`.
    fn change(&mut self, key: &Key, old: Option<&K>, new: Option<&K>) {
        let keys = |object: Option<&K>| object.map(|object| (self.keys_of)(object)).unwrap_or_default();
        let (before, after) = (keys(old), keys(new));
        for at in before.iter().filter(|at| !after.contains(at)) {
            if let Some(set) = self.found.get_mut(at.as_str()) {
                set.remove(key);
                if set.is_empty() {
                    self.found.remove(at.as_str());
                }
            }
        }
        for at in after {
            if !before.contains(&at) {
                self.found.entry(at.into()).or_default().insert(key.clone());
            }
        }
    }
}

pub(crate) struct State<K> {
    pub(crate) objects: IntMap<Key, Entry<K>>,
    indexes: Vec<Keyed<K>>,
    mailboxes: Vec<Weak<Mailbox<K>>>,
}

/// What an informer's reflector writes and its readers read. Where several locks are held,
/// `handlers` is taken first, then `state`, then a packed object's own, then `decoded`.
pub(crate) struct Shared<K> {
    view: View,
    /// Held while a change goes in and is told: what a handler is told of first is what was there when it came.
    handlers: Mutex<Handlers<K>>,
    pub(crate) state: RwLock<State<K>>,
    /// Those whose decoded form is kept, the oldest first.
    decoded: Mutex<VecDeque<Weak<Packed<K>>>>,
    /// Everything up to here has arrived; none before the first list is whole.
    revision: watch::Sender<Option<u64>>,
}

impl<K: Kind> Shared<K> {
    pub(crate) fn new(view: View) -> Self {
        Shared {
            view,
            handlers: Mutex::default(),
            state: RwLock::new(State {
                objects: IntMap::default(),
                indexes: Vec::new(),
                mailboxes: Vec::new(),
            }),
            decoded: Mutex::new(VecDeque::new()),
            revision: watch::Sender::new(None),
        }
    }

    fn entry(&self, text: Arc<dyn Stored>, object: Arc<K>) -> Entry<K> {
        match self.view {
            View::Whole => Entry::Whole(object, text.revision()),
            View::Packed => {
                let packed = Arc::new(Packed {
                    text,
                    decoded: Mutex::new(Some(object)),
                });
                self.keep_decoded(&packed);
                Entry::Packed(packed)
            }
        }
    }

    fn keep_decoded(&self, packed: &Arc<Packed<K>>) {
        let mut decoded = self.decoded.lock();
        decoded.push_back(Arc::downgrade(packed));
        if decoded.len() > DECODED
            && let Some(oldest) = decoded.pop_front()
            && let Some(oldest) = oldest.upgrade()
        {
            oldest.decoded.lock().take();
        }
    }

    /// The object of an entry. None where its text cannot be decoded: such an object never gets in.
    pub(crate) fn object(&self, entry: &Entry<K>) -> Option<Arc<K>> {
        let packed = match entry {
            Entry::Whole(object, _) => return Some(object.clone()),
            Entry::Packed(packed) => packed,
        };
        if let Some(object) = &*packed.decoded.lock() {
            return Some(object.clone());
        }
        let object = Arc::new(self.view.decode::<K>(packed.text.json()).ok()?);
        *packed.decoded.lock() = Some(object.clone());
        self.keep_decoded(packed);
        Some(object)
    }

    /// The object exists in this state. Only the reflector calls this, and [`Shared::delete`].
    pub(crate) fn apply(&self, text: Arc<dyn Stored>) -> serde_json::Result<()> {
        let key = Key::of(&*text);
        let known = self.state.read().objects.get(&key).cloned();
        // A list repeats what is known; what others hold of it stays the one there is.
        if text.revision() != 0 && known.as_ref().is_some_and(|known| known.revision() == text.revision()) {
            return Ok(());
        }
        let new = match self.view.decode::<K>(text.json()) {
            Ok(new) => Arc::new(new),
            Err(error) => {
                self.unreadable(&key, known, &*text);
                return Err(error);
            }
        };
        let old = known.as_ref().and_then(|known| self.object(known));
        let entry = self.entry(text, new.clone());
        let mut handlers = self.handlers.lock();
        let mut state = self.state.write();
        state.objects.insert(key.clone(), entry);
        state.changed(&key, (known, old.as_deref()), (None, Some(&new)));
        drop(state);
        tell(&mut handlers, Event::of(old, None, Some(new)));
        Ok(())
    }

    /// An object's new state can't be decoded. As it was known it stays, like everything that can't be read at the moment: a
    /// reader who sees it go would make it anew, or take away what it owns, while what is written on the base of the old
    /// revision is refused. Another object of the name is different: the one known is surely gone.
    fn unreadable(&self, key: &Key, known: Option<Entry<K>>, text: &dyn Stored) {
        let metadata = json::metadata(text.json()).and_then(|text| serde_json::from_str::<Value>(text).ok());
        let uid = metadata.as_ref().and_then(|metadata| metadata.get("uid")?.as_str());
        let known = known.and_then(|known| self.object(&known));
        if known.is_some_and(|known| uid.is_some() && known.meta().uid.as_deref() != uid) {
            self.delete(key, None);
        }
    }

    /// The object is gone; `last` is its last state where that was told, which may be newer than the one known here.
    pub(crate) fn delete(&self, key: &Key, last: Option<Arc<dyn Stored>>) {
        let Some(known) = self.state.read().objects.get(key).cloned() else {
            return;
        };
        let old = self.object(&known);
        let last = last.and_then(|text| {
            let object = self.view.decode::<K>(text.json()).ok()?;
            Some(self.entry(text, Arc::new(object)))
        });
        let last = last.unwrap_or_else(|| known.clone());
        let as_it_was = self.object(&last);
        let mut handlers = self.handlers.lock();
        let mut state = self.state.write();
        state.objects.remove(key);
        state.changed(key, (Some(known), old.as_deref()), (Some(last), None));
        drop(state);
        tell(&mut handlers, Event::of(old, as_it_was, None));
    }

    /// A list is whole: what it did not name is gone.
    pub(crate) fn retain(&self, listed: &IntSet<Key>) {
        let state = self.state.read();
        let gone: Vec<Key> = state
            .objects
            .keys()
            .filter(|key| !listed.contains(key))
            .cloned()
            .collect();
        drop(state);
        for key in gone {
            self.delete(&key, None);
        }
    }

    pub(crate) fn reached(&self, revision: u64) {
        self.revision.send_replace(Some(revision));
    }
}

fn tell<K>(handlers: &mut Handlers<K>, events: [Option<Event<K>>; 2]) {
    events.iter().flatten().for_each(|event| handlers.tell(event));
}

impl<K: Kind> State<K> {
    /// `old` and `new` as indexes want them; of the old also what subscribers are told, of a deleted one its last state.
    fn changed(&mut self, key: &Key, old: (Option<Entry<K>>, Option<&K>), new: (Option<Entry<K>>, Option<&K>)) {
        for index in &mut self.indexes {
            index.change(key, old.1, new.1);
        }
        self.mailboxes.retain(|mailbox| {
            let Some(mailbox) = mailbox.upgrade() else { return false };
            mailbox.put(key, old.0.as_ref(), new.0.as_ref());
            true
        });
    }
}

/// Read access to all objects of a kind (in its informer's scope). Clones share them.
pub struct Informer<K> {
    pub(crate) shared: Arc<Shared<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Informer {
            shared: self.shared.clone(),
        }
    }
}

impl<K: Kind> Informer<K> {
    /// The object of this name; `namespace` is none for objects of the cluster.
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<Arc<K>> {
        let key = Key::new(namespace.unwrap_or_default(), name);
        let entry = self.shared.state.read().objects.get(&key).cloned()?;
        self.shared.object(&entry)
    }

    /// The same with what a packed informer leaves out, decoded for this caller alone.
    pub fn get_whole(&self, namespace: Option<&str>, name: &str) -> Option<Arc<K>> {
        let key = Key::new(namespace.unwrap_or_default(), name);
        let entry = self.shared.state.read().objects.get(&key).cloned()?;
        match entry {
            Entry::Whole(object, _) => Some(object),
            Entry::Packed(packed) => View::Whole.decode(packed.text.json()).ok().map(Arc::new),
        }
    }

    /// All objects, in no order. Of pods this decodes every one: an [`Index`] finds some of them.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.filter(|_| true)
    }

    /// Those that `keep`, in no order. Of pods this decodes every one, as [`Informer::list`] does.
    pub fn filter(&self, mut keep: impl FnMut(&K) -> bool) -> Vec<Arc<K>> {
        let objects = self.entries();
        let objects = objects.iter().filter_map(|entry| self.shared.object(entry));
        objects.filter(|object| keep(object)).collect()
    }

    /// Whether there is one that `is`; what comes after the first found is not decoded.
    pub fn any(&self, mut is: impl FnMut(&K) -> bool) -> bool {
        let objects = self.entries();
        let mut objects = objects.iter().filter_map(|entry| self.shared.object(entry));
        objects.any(|object| is(&object))
    }

    /// Decoded one by one, outside the lock: the reflector does not wait for it.
    fn entries(&self) -> Vec<Entry<K>> {
        self.shared.state.read().objects.values().cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shared.state.read().objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Resolves when the first list is in.
    pub async fn wait_synced(&self) {
        self.wait_reached(0).await;
    }

    /// Whether the first list is in.
    pub fn is_synced(&self) -> bool {
        self.revision().is_some()
    }

    /// The revision up to which everything has arrived here; none before the first list is in. Revisions are the store's,
    /// one sequence for all kinds. Over HTTP it moves with the changes of this kind, and once a minute without one.
    pub fn revision(&self) -> Option<u64> {
        *self.shared.revision.borrow()
    }

    /// Resolves when everything up to a revision has arrived, and the first list is in.
    pub async fn wait_reached(&self, revision: u64) {
        let mut reached = self.shared.revision.subscribe();
        // The sender lives as long as `self`.
        let _ = reached.wait_for(|at| at.is_some_and(|at| at >= revision)).await;
    }

    /// From here on every change, beginning with [`Event::Applied`](crate::Event::Applied) for each object that exists.
    pub fn subscribe(&self) -> Subscription<K> {
        let mut state = self.shared.state.write();
        let mailbox = Arc::new(Mailbox::new(state.objects.keys()));
        state.mailboxes.push(Arc::downgrade(&mailbox));
        drop(state);
        Subscription::new(self.shared.clone(), mailbox)
    }

    /// Has `handle` hear every change before the reflector goes on, beginning with [`Event::Applied`](crate::Event::Applied) for each
    /// object that exists; what comes with the first list it has heard when that is in. `name` is told with its panics.
    pub fn add_event_handler(&self, name: &'static str, handle: EventHandler<K>) -> Registration {
        let mut handlers = self.shared.handlers.lock();
        let existing = self.entries();
        handlers.add(
            name,
            handle,
            existing.iter().filter_map(|entry| self.shared.object(entry)),
        )
    }

    /// The index `name`, made by the first who asks for it: `keys_of` says under what an object is found. It changes in one
    /// step with the objects, before any subscriber hears of the change.
    pub fn index(&self, name: &'static str, keys_of: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) -> Index<K> {
        self.index_boxed(name, Box::new(keys_of))
    }

    fn index_boxed(&self, name: &'static str, keys_of: KeysOf<K>) -> Index<K> {
        let find = |state: &State<K>| state.indexes.iter().position(|index| index.name == name);
        let known = find(&self.shared.state.read());
        let at = known.unwrap_or_else(|| {
            let mut state = self.shared.state.write();
            find(&state).unwrap_or_else(|| {
                let mut index = Keyed {
                    name,
                    keys_of,
                    found: HashMap::new(),
                };
                for (key, entry) in &state.objects {
                    index.change(key, None, self.shared.object(entry).as_deref());
                }
                state.indexes.push(index);
                state.indexes.len() - 1
            })
        });
        Index {
            shared: self.shared.clone(),
            at,
        }
    }
}

/// Objects by something other than their name: their owner, their node, …. Clones share it.
pub struct Index<K> {
    shared: Arc<Shared<K>>,
    at: usize,
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Index {
            shared: self.shared.clone(),
            at: self.at,
        }
    }
}

impl<K: Kind> Index<K> {
    /// The objects found under `key`, in no order.
    pub fn get(&self, key: &str) -> Vec<Arc<K>> {
        let state = self.shared.state.read();
        let found = state.indexes[self.at].found.get(key).into_iter().flatten();
        let entries: Vec<Entry<K>> = found.filter_map(|key| state.objects.get(key).cloned()).collect();
        drop(state);
        entries.iter().filter_map(|entry| self.shared.object(entry)).collect()
    }

    /// How many there are under `key`.
    pub fn count(&self, key: &str) -> usize {
        let state = self.shared.state.read();
        state.indexes[self.at].found.get(key).map_or(0, IntSet::len)
    }
}

#[cfg(test)]
pub(crate) mod tests;
