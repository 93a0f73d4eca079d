//! The events of one resource: the only history there is. Bounded in time, count and bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::object::Object;

/// What a ring keeps of its events.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Kept at least this long, and this many of those that are older.
    keep: Duration,
    aged: usize,
    /// In all, whatever their age; the newest is always kept.
    events: usize,
    bytes: usize,
}

/// All of a resource's events: so many for who begins a watch at what it knew.
pub(super) const OF_RESOURCE: Bounds = Bounds {
    keep: Duration::from_secs(75),
    aged: 1_000,
    events: usize::MAX,
    bytes: 32 << 20,
};

/// Those of one value of the indexed field: there are thousands of such rings, and only watches that run read them.
pub(super) const OF_VALUE: Bounds = Bounds {
    keep: Duration::from_secs(75),
    aged: 0,
    events: 128,
    bytes: 256 << 10,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Added => "ADDED",
            EventKind::Modified => "MODIFIED",
            EventKind::Deleted => "DELETED",
        }
    }
}

/// One change. Watchers send the object's own bytes; what is encoded otherwise is made for each, or kept by the object.
pub struct Event {
    pub kind: EventKind,
    pub revision: u64,
    /// The object after the change; on DELETED the last one there was.
    pub object: Arc<Object>,
    pub old: Option<Arc<Object>>,
    at: Instant,
    weight: usize,
}

impl Event {
    pub fn new(kind: EventKind, revision: u64, object: Arc<Object>, old: Option<Arc<Object>>, at: Instant) -> Event {
        let replaced = old.as_ref().filter(|old| !Arc::ptr_eq(old, &object));
        // A protobuf form that is made later is paid for too: by then its object is counted twice, here and where it is
        // replaced.
        let weight = object.weight() + replaced.map_or(0, |old| old.weight());
        Event {
            kind,
            revision,
            object,
            old,
            at,
            weight,
        }
    }

    /// Approximate bytes that the ring holds for it: the object that it replaced too, which nobody else may hold any more.
    fn weight(&self) -> usize {
        self.weight
    }
}

/// A queue of events with absolute positions.
pub(super) struct Ring {
    events: VecDeque<Arc<Event>>,
    /// Position of the first event held.
    base: u64,
    /// Every event after this revision is held.
    floor: u64,
    bytes: usize,
    bounds: &'static Bounds,
}

impl Ring {
    pub fn new(floor: u64, bounds: &'static Bounds) -> Ring {
        Ring {
            events: VecDeque::new(),
            base: 0,
            floor,
            bytes: 0,
            bounds,
        }
    }

    pub fn push(&mut self, event: Arc<Event>, now: Instant) {
        self.bytes += event.weight();
        self.events.push_back(event);
        self.shed(now);
    }

    /// Drops what is over the bounds.
    pub fn shed(&mut self, now: Instant) {
        let bounds = self.bounds;
        while let Some(oldest) = self.events.front() {
            let count = self.events.len();
            let aged = count > bounds.aged && now.duration_since(oldest.at) > bounds.keep;
            let over = count > 1 && (count > bounds.events || self.bytes > bounds.bytes);
            if !aged && !over {
                break;
            }
            self.floor = oldest.revision;
            self.bytes -= oldest.weight();
            self.base += 1;
            self.events.pop_front();
        }
    }

    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The position after the last event.
    pub fn end(&self) -> u64 {
        self.base + self.events.len() as u64
    }

    /// The position of the first event after a revision.
    pub fn position_after(&self, revision: u64) -> u64 {
        let index = self.events.partition_point(|event| event.revision <= revision);
        self.base + index as u64
    }

    /// The events from a position; None where it is no longer held.
    pub fn from(&self, position: u64) -> Option<impl Iterator<Item = &Arc<Event>>> {
        let skip = usize::try_from(position.checked_sub(self.base)?).ok()?;
        Some(self.events.range(skip.min(self.events.len())..))
    }

    pub fn newest_first(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.events.iter().rev()
    }
}
