//! Snapshots that continue tokens name, kept for the pages to come: as long as upstream keeps what etcd compacts later, unless
//! they hold too much in memory that nobody else does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::resource::{Map, Snapshot};
use crate::object::Object;

/// How long a snapshot that a continue token names is kept.
pub const KEEP_SNAPSHOT: Duration = Duration::from_secs(300);
/// How many of them at once, and how many bytes of objects that are no more they may keep in memory.
pub(super) const MAX_PINS: usize = 256;
pub(super) const MAX_PINNED_BYTES: u64 = 64 << 20;
/// As long as all keep no more, one of the past is kept too: the events lead back to it as well, while there are any, and who asks
/// for many of these ends no pages of others.
const MAX_WITH_PAST: u64 = MAX_PINNED_BYTES / 4;

struct Pin {
    revision: u64,
    since: Instant,
    /// Of keys that begin with it; of others it may know too much.
    prefix: Arc<str>,
    /// The last revision of which it or an older one holds objects.
    up_to: u64,
    /// Bytes of replaced objects that are in memory for it or for older ones: they go with it at the latest.
    keeps: u64,
    map: Map,
}

impl Pin {
    /// Whether it is what keys with a prefix were at a revision.
    fn shows(&self, revision: u64, prefix: &str) -> bool {
        self.revision == revision && prefix.starts_with(&*self.prefix)
    }
}

/// Oldest first.
#[derive(Default)]
pub(super) struct Pins {
    pins: VecDeque<Pin>,
    /// What all of them keep.
    keep: u64,
    /// Bytes of all objects that were ever replaced or removed, each with what it may come to hold (`Object::most`).
    replaced: u64,
}

impl Pins {
    /// A count that grows by what is replaced: what a snapshot of this moment may hold alone, later.
    pub fn replaced(&self) -> u64 {
        self.replaced
    }

    /// An object is no more. It stays in memory if one of these was made while it was: of an object that is written again and
    /// again that is one version of many.
    pub fn note_replaced(&mut self, object: &Object) {
        let bytes = object.most() as u64;
        self.replaced += bytes;
        if let Some(newest) = self.pins.back_mut()
            && object.revision <= newest.up_to
        {
            newest.keeps += bytes;
            self.keep += bytes;
        }
    }

    /// Keeps a snapshot; what goes for it is the caller's to drop, when the lock is free.
    #[must_use]
    pub fn keep(&mut self, snapshot: &Snapshot, now: Instant) -> Vec<Map> {
        let keeps = snapshot.apart + (self.replaced - snapshot.replaced);
        let fits = snapshot.apart == 0 || self.keep + keeps <= MAX_WITH_PAST;
        if fits && self.find(snapshot.revision, snapshot.prefix()).is_none() {
            self.keep += keeps;
            self.pins.push_back(Pin {
                revision: snapshot.revision,
                since: now,
                prefix: snapshot.prefix().clone(),
                up_to: self.pins.back().map_or(0, |last| last.up_to).max(snapshot.taken_at),
                keeps,
                map: snapshot.map.clone(),
            });
        }
        self.take_overdue(now)
    }

    /// What keys with a prefix were at a revision, if one of these knows; up to which revision it holds objects at most, and
    /// how many bytes of it may be no more.
    pub fn find(&self, revision: u64, prefix: &str) -> Option<(&Map, u64, u64)> {
        let place = self.pins.iter().position(|pin| pin.shows(revision, prefix))?;
        let apart = self.pins.range(place..).map(|pin| pin.keeps).sum();
        let pin = &self.pins[place];
        Some((&pin.map, pin.up_to, apart))
    }

    /// Takes out all.
    #[must_use]
    pub fn clear(&mut self) -> Vec<Map> {
        self.keep = 0;
        self.pins.drain(..).map(|pin| pin.map).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.pins.is_empty()
    }

    /// Takes out those that are too old, too many, or keep too much: for the caller to drop when the lock is free.
    #[must_use]
    pub fn take_overdue(&mut self, now: Instant) -> Vec<Map> {
        let mut overdue = Vec::new();
        while let Some(oldest) = self.pins.front() {
            let is_old = now.duration_since(oldest.since) > KEEP_SNAPSHOT;
            if !is_old && self.pins.len() <= MAX_PINS && self.keep <= MAX_PINNED_BYTES {
                break;
            }
            self.keep -= oldest.keeps;
            overdue.extend(self.pins.pop_front().map(|pin| pin.map));
        }
        overdue
    }

    /// How many there are, and the bytes that they keep.
    #[cfg(test)]
    pub fn count(&self) -> (usize, u64) {
        (self.pins.len(), self.keep)
    }
}
