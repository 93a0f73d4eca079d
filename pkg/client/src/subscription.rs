//! A reader's changes. What waits for a slow reader is bounded by the objects there are, not by what happened to them: a
//! key waits once, with the state that the reader saw last, and is looked up when the reader comes.

use std::collections::VecDeque;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use nohash_hasher::IntMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::informer::{Entry, Key, Shared};
use crate::kind::Kind;

/// Emptied mailboxes give back what more than this many keys took.
const KEPT: usize = 1024;

/// A change of one object. Several changes of it may have become one; those of two objects of the same name never do.
#[derive(Clone, Debug)]
pub enum Event<K> {
    /// It is there (`old` is none) or changed since the subscription told of it last.
    Applied {
        /// As the subscription told of it last.
        old: Option<Arc<K>>,
        /// As it is.
        new: Arc<K>,
    },
    /// It is gone; its last known state.
    Deleted(Arc<K>),
}

impl<K: Kind> Event<K> {
    /// What became of an object that was `old` and is `new`; `last` is its last state where it went in between.
    pub(crate) fn of(old: Option<Arc<K>>, last: Option<Arc<K>>, new: Option<Arc<K>>) -> [Option<Event<K>>; 2] {
        match (old, new) {
            (None, None) => [None, None],
            (old @ None, Some(new)) => [Some(Event::Applied { old, new }), None],
            (Some(old), None) => [Some(Event::Deleted(last.unwrap_or(old))), None],
            (Some(old), Some(new)) if old.meta().uid != new.meta().uid => [
                Some(Event::Deleted(last.unwrap_or(old))),
                Some(Event::Applied { old: None, new }),
            ],
            (old, Some(new)) => [Some(Event::Applied { old, new }), None],
        }
    }
}

impl<K> Event<K> {
    /// The object as it is, or was last.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Event::Applied { new, .. } => new,
            Event::Deleted(last) => last,
        }
    }
}

/// What waits for one subscriber.
pub(crate) struct Mailbox<K> {
    pending: Mutex<Pending<K>>,
    arrived: Notify,
}

struct Pending<K> {
    /// Every key of `changes`, and some that are there no more.
    order: VecDeque<Key>,
    changes: IntMap<Key, Waiting<K>>,
}

struct Waiting<K> {
    /// As the subscriber knows it.
    old: Option<Entry<K>>,
    /// Its state when it was deleted last, if it was.
    last: Option<Entry<K>>,
}

impl<K> Mailbox<K> {
    pub(crate) fn new<'a>(existing: impl Iterator<Item = &'a Key>) -> Self {
        let order: VecDeque<Key> = existing.cloned().collect();
        let unseen = || Waiting { old: None, last: None };
        let changes = order.iter().map(|key| (key.clone(), unseen())).collect();
        Mailbox {
            pending: Mutex::new(Pending { order, changes }),
            arrived: Notify::new(),
        }
    }

    /// `old`: the state before this change; `last`: the last state of an object that is gone by it.
    pub(crate) fn put(&self, key: &Key, old: Option<&Entry<K>>, last: Option<&Entry<K>>) {
        let mut pending = self.pending.lock();
        let Pending { order, changes } = &mut *pending;
        match changes.entry(key.clone()) {
            // It came and went unseen.
            Slot::Occupied(slot) if last.is_some() && slot.get().old.is_none() => {
                slot.remove();
            }
            Slot::Occupied(mut slot) => {
                if let Some(last) = last {
                    slot.get_mut().last = Some(last.clone());
                }
            }
            Slot::Vacant(slot) => {
                slot.insert(Waiting {
                    old: old.cloned(),
                    last: last.cloned(),
                });
                order.push_back(key.clone());
            }
        }
        if order.len() > 2 * changes.len() + KEPT {
            order.retain(|key| changes.contains_key(key));
        }
        drop(pending);
        self.arrived.notify_one();
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.pending.lock().order.len()
    }

    fn take(&self) -> Option<(Key, Waiting<K>)> {
        let mut pending = self.pending.lock();
        while let Some(key) = pending.order.pop_front() {
            if let Some(waiting) = pending.changes.remove(&key) {
                return Some((key, waiting));
            }
        }
        if pending.changes.capacity() > KEPT {
            pending.changes = IntMap::default();
            pending.order = VecDeque::new();
        }
        None
    }
}

/// One reader's changes of an informer's objects; dropped, it is forgotten.
pub struct Subscription<K> {
    shared: Arc<Shared<K>>,
    mailbox: Arc<Mailbox<K>>,
    /// The second of two events that one key became.
    next: Option<Event<K>>,
}

impl<K: Kind> Subscription<K> {
    pub(crate) fn new(shared: Arc<Shared<K>>, mailbox: Arc<Mailbox<K>>) -> Self {
        Subscription {
            shared,
            mailbox,
            next: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.mailbox.len()
    }

    /// The next event. Cancel-safe. Pends for ever once the informer's process is shutting down.
    pub async fn next(&mut self) -> Event<K> {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            // A permit is kept if something arrived in between.
            self.mailbox.arrived.notified().await;
        }
    }

    /// An event that already waits.
    pub fn try_next(&mut self) -> Option<Event<K>> {
        if let Some(event) = self.next.take() {
            return Some(event);
        }
        loop {
            // Both locks: what is taken as new here is the old of what comes next.
            let state = self.shared.state.read();
            let (key, waiting) = self.mailbox.take()?;
            let new = state.objects.get(&key).cloned();
            drop(state);
            let object = |entry: Option<Entry<K>>| entry.and_then(|entry| self.shared.object(&entry));
            let (old, new) = (object(waiting.old), object(new));
            let [first, second] = Event::of(old, object(waiting.last), new);
            self.next = second;
            if first.is_some() {
                return first;
            }
        }
    }
}
