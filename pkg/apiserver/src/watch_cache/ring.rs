//! The events of one resource: the only history there is. Bounded in time, count and bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mk8s_api::status::Status;
use parking_lot::Mutex;

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

/// The forms of an event that watchers have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Protobuf,
    /// The object's metadata alone, in JSON.
    Metadata,
}

const FORMS: usize = 3;

/// So many of a resource's newest events keep the forms in which they were sent, or fewer where those may be so many bytes:
/// whoever watches is no further behind, as a rule. The newest always does.
const FRAMED: usize = 256;
const FRAMED_BYTES: usize = 8 << 20;

/// One change. How it is written out is found out by the first watcher that it is written for.
pub struct Event {
    pub kind: EventKind,
    pub revision: u64,
    /// The object after the change; on DELETED the last one there was.
    pub object: Arc<Object>,
    pub old: Option<Arc<Object>>,
    at: Instant,
    weight: usize,
    frames: Mutex<Frames>,
}

/// What is sent of an event, by form.
enum Frames {
    Kept(Option<Box<[Option<Bytes>; FORMS]>>),
    /// It is an old one: who is as far behind makes his own.
    Forgotten,
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
            frames: Mutex::new(Frames::Kept(None)),
        }
    }

    /// What is sent of it in a form, made once.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn frame(&self, form: Form, make: impl FnOnce() -> Result<Bytes, Status>) -> Result<Bytes, Status> {
        let mut frames = self.frames.lock();
        let Frames::Kept(kept) = &mut *frames else {
            drop(frames);
            return make();
        };
        let frame = &mut kept.get_or_insert_default()[form as usize];
        match frame {
            Some(made) => Ok(made.clone()),
            None => Ok(frame.insert(make()?).clone()),
        }
    }

    /// Whether it keeps none any more. One that somebody makes just now is not waited for: it may be long, and the committer
    /// holds everybody up.
    fn forget_frames(&self) -> bool {
        let frames = self.frames.try_lock();
        frames.map(|mut frames| *frames = Frames::Forgotten).is_some()
    }

    /// Bytes that its frames may come to.
    fn framed_weight(&self) -> usize {
        FORMS * self.object.sent_len()
    }

    /// Approximate bytes that the ring holds for it: the object that it replaced too, which nobody else may hold any more.
    fn weight(&self) -> usize {
        self.weight
    }
}

/// A queue of events with absolute positions. Where it holds too much, and more than half of that is of one namespace, the
/// oldest events of that one go first: whoever writes much in a namespace takes the history of no other.
pub(super) struct Ring {
    events: VecDeque<Slot>,
    /// Position of the first slot held.
    base: u64,
    /// All that was lost of every namespace.
    floor: Floor,
    /// What was lost beyond that of one namespace each, by the prefix of its keys.
    lost: Vec<(Box<str>, Floor)>,
    bytes: usize,
    /// Bytes that came since the namespaces' shares were last looked at.
    bytes_since_look: usize,
    /// How many of the newest keep frames, and the bytes that those may come to.
    framed: usize,
    framed_bytes: usize,
    bounds: &'static Bounds,
}

/// The place of an event, which may be gone before older ones of other namespaces.
struct Slot {
    revision: u64,
    event: Option<Arc<Event>>,
}

const SLOT_BYTES: usize = size_of::<Slot>();
/// How many namespaces may have lost more than all have.
const MOST_LOST: usize = 64;

/// Every event after it is held.
#[derive(Clone, Copy, Default)]
struct Floor {
    revision: u64,
    position: u64,
}

impl Floor {
    /// Events of one revision have places of their own, and go one by one.
    fn raise(&mut self, revision: u64, position: u64) {
        self.revision = self.revision.max(revision);
        self.position = self.position.max(position);
    }
}

/// What the keys of an event's namespace begin with; of a resource without namespaces, what all do.
fn namespace(event: &Event) -> &str {
    let key = &*event.object.key;
    key.rfind('/').map_or(key, |end| &key[..=end])
}

impl Ring {
    pub fn new(floor: u64, bounds: &'static Bounds) -> Ring {
        Ring {
            events: VecDeque::new(),
            base: 0,
            floor: Floor {
                revision: floor,
                position: 0,
            },
            lost: Vec::new(),
            bytes: 0,
            bytes_since_look: 0,
            framed: 0,
            framed_bytes: 0,
            bounds,
        }
    }

    pub fn push(&mut self, event: Arc<Event>, now: Instant) {
        self.bytes += event.weight() + SLOT_BYTES;
        self.bytes_since_look += event.weight() + SLOT_BYTES;
        self.framed_bytes += event.framed_weight();
        self.framed += 1;
        self.events.push_back(Slot {
            revision: event.revision,
            event: Some(event),
        });
        while self.framed > 1 && (self.framed > FRAMED || self.framed_bytes > FRAMED_BYTES) {
            // None of these is gone before it is the oldest.
            let oldest = &self.events[self.events.len() - self.framed].event;
            let Some(oldest) = oldest.as_ref().filter(|oldest| oldest.forget_frames()) else {
                // At the next push.
                break;
            };
            self.framed_bytes -= oldest.framed_weight();
            self.framed -= 1;
        }
        self.shed(now);
    }

    /// Drops what is over the bounds.
    pub fn shed(&mut self, now: Instant) {
        let bounds = self.bounds;
        // All of them are read for it: once for many.
        if self.bytes > bounds.bytes && self.bytes_since_look > bounds.bytes / 8 {
            self.bytes_since_look = 0;
            self.shed_largest();
        }
        while let Some(oldest) = self.events.front() {
            let count = self.events.len();
            if let Some(event) = &oldest.event {
                let aged = count > bounds.aged && now.duration_since(event.at) > bounds.keep;
                let over = count > 1 && (count > bounds.events || self.bytes > bounds.bytes);
                if !aged && !over {
                    break;
                }
                self.floor.raise(oldest.revision, self.base + 1);
                self.bytes -= event.weight();
                if self.framed == count {
                    self.framed -= 1;
                    self.framed_bytes -= event.framed_weight();
                }
            }
            self.bytes -= SLOT_BYTES;
            self.base += 1;
            self.events.pop_front();
        }
        let floor = self.floor;
        self.lost.retain(|(_, lost)| lost.position > floor.position);
    }

    /// Lets go of the oldest events of the namespace that has more than half of what may be held, as long as it has.
    fn shed_largest(&mut self) {
        let (half, enough) = (self.bounds.bytes / 2, self.bounds.bytes / 8 * 7);
        let (mut lost, old) = (None, self.events.len() - self.framed);
        if old == 0 {
            return;
        }
        let Some((largest, mut held)) = self.largest() else {
            return;
        };
        for (slot, position) in self.events.iter_mut().take(old).zip(self.base + 1..) {
            if held <= half || self.bytes <= enough {
                break;
            }
            let Some(event) = slot.event.take_if(|event| namespace(event) == &*largest) else {
                continue;
            };
            held -= event.weight();
            self.bytes -= event.weight();
            lost = Some(Floor {
                revision: slot.revision,
                position,
            });
        }
        let Some(floor) = lost else { return };
        match self.lost.iter_mut().find(|(prefix, _)| *prefix == largest) {
            Some((_, own)) => *own = floor,
            None => self.lost.push((largest, floor)),
        }
        if self.lost.len() > MOST_LOST {
            // All namespaces have lost as much, as far as anybody is told.
            let (_, Floor { revision, position }) = self.lost.remove(0);
            self.floor.raise(revision, position);
        }
    }

    /// The one namespace that may have more than half of all bytes, and how many those are.
    fn largest(&self) -> Option<(Box<str>, usize)> {
        let held = || self.newest_first().map(|event| (namespace(event), event.weight()));
        let (mut largest, mut lead) = (None, 0);
        for (namespace, weight) in held() {
            if largest == Some(namespace) {
                lead += weight;
            } else if weight > lead {
                (largest, lead) = (Some(namespace), weight - lead);
            } else {
                lead -= weight;
            }
        }
        let own = held().filter(|(namespace, _)| Some(*namespace) == largest);
        Some((largest?.into(), own.map(|(_, weight)| weight).sum()))
    }

    /// What was lost of the events of keys with a prefix.
    fn floor_of(&self, prefix: &str) -> Floor {
        let lost = self.lost.iter().filter(|(namespace, _)| namespace.starts_with(prefix));
        lost.fold(self.floor, |mut all, (_, floor)| {
            all.raise(floor.revision, floor.position);
            all
        })
    }

    /// Every event of keys with a prefix is held that is after this revision.
    pub fn floor(&self, prefix: &str) -> u64 {
        self.floor_of(prefix).revision
    }

    /// The position after the last event.
    pub fn end(&self) -> u64 {
        self.base + self.events.len() as u64
    }

    /// The position of the first event after a revision.
    pub fn position_after(&self, revision: u64) -> u64 {
        let index = self.events.partition_point(|slot| slot.revision <= revision);
        self.base + index as u64
    }

    /// The events from a position, each with the position after it; None where one of those with a prefix is held no more.
    pub fn from(&self, position: u64, prefix: &str) -> Option<impl Iterator<Item = (u64, &Arc<Event>)>> {
        if position < self.floor_of(prefix).position {
            return None;
        }
        let position = position.clamp(self.base, self.end());
        let skip = usize::try_from(position - self.base).ok()?;
        let slots = (position + 1..).zip(self.events.range(skip..));
        Some(slots.filter_map(|(after, slot)| Some((after, slot.event.as_ref()?))))
    }

    pub fn newest_first(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.events.iter().rev().filter_map(|slot| slot.event.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use mk8s_api::registry;

    use super::*;

    fn event(size: usize) -> Arc<Event> {
        event_of("configmaps/default/a", 1, size)
    }

    fn event_of(key: &str, revision: u64, size: usize) -> Arc<Event> {
        let value = format!(
            r#"{{"metadata":{{"resourceVersion":"1"}},"data":"{}"}}"#,
            "x".repeat(size)
        );
        let entry = mk8s_store::Entry {
            key: format!("/registry/core/{key}").into(),
            revision_at: value.find("1\"}").unwrap_or_default(),
            value: value.into(),
            create_revision: 1,
            mod_revision: 1,
        };
        let config_maps = registry::find("", "v1", "configmaps").expect("a row");
        let object = Arc::new(Object::new(config_maps.clone(), entry, None));
        Arc::new(Event::new(EventKind::Added, revision, object, None, Instant::now()))
    }

    const SMALL: Bounds = Bounds {
        bytes: 1 << 20,
        ..OF_RESOURCE
    };

    fn prefix(namespace: &str) -> String {
        format!("/registry/core/configmaps/{namespace}/")
    }

    /// A thousand events of a namespace, more than a small ring holds; the revision of the last.
    fn fill(ring: &mut Ring, namespace: &str, mut revision: u64) -> u64 {
        for _ in 0..1000 {
            revision += 1;
            ring.push(event_of(&format!("{namespace}/a"), revision, 1000), Instant::now());
        }
        revision
    }

    #[test]
    fn when_too_many_namespaces_have_lost_something_all_have() {
        let mut ring = Ring::new(0, &SMALL);
        for index in 1..=MOST_LOST as u64 {
            let floor = Floor {
                revision: 10 * index,
                position: index,
            };
            ring.lost.push((prefix(&format!("n{index}")).into(), floor));
        }
        assert_eq!((ring.floor(&prefix("quiet")), ring.floor(&prefix("n1"))), (0, 10));
        fill(&mut ring, "configmaps/last", 1000);
        assert_eq!((ring.floor(&prefix("quiet")), ring.floor(&prefix("n2"))), (10, 20));
        assert!(ring.from(0, &prefix("quiet")).is_none() && ring.from(1, &prefix("quiet")).is_some());
        assert!(ring.from(1, &prefix("n2")).is_none() && ring.lost.len() == MOST_LOST);
    }

    #[test]
    fn what_has_no_namespace_loses_its_own() {
        let mut ring = Ring::new(0, &SMALL);
        let last = fill(&mut ring, "nodes", 0);
        let floor = ring.floor("/registry/core/nodes/");
        assert!((1..last).contains(&floor), "{floor}");
        let held = ring.from(ring.position_after(floor), "/registry/core/nodes/");
        assert_eq!(held.map(Iterator::count), usize::try_from(last - floor).ok());
        assert!(ring.from(0, "/registry/core/nodes/").is_none());
        // Where every event keeps its frames there are only the oldest.
        let mut ring = Ring::new(0, &OF_VALUE);
        let last = fill(&mut ring, "nodes", 0);
        assert!(ring.lost.is_empty() && ring.base > 0 && ring.floor("") == last - ring.events.len() as u64);
    }

    #[test]
    fn a_place_that_is_empty_when_it_is_the_oldest_is_nobody_elses_loss() {
        let mut ring = Ring::new(0, &SMALL);
        ring.push(event_of("configmaps/quiet/a", 1, 1000), Instant::now());
        fill(&mut ring, "configmaps/busy", 1);
        let lost = ring.floor(&prefix("busy"));
        assert!(ring.floor(&prefix("quiet")) == 0 && lost > 1);
        // The quiet one's event is over its age, and so the oldest places are empty.
        ring.shed(Instant::now() + SMALL.keep + std::time::Duration::from_secs(1));
        assert_eq!(ring.newest_first().last().map(|event| event.revision), Some(lost + 1));
        assert_eq!((ring.base, ring.floor(&prefix("quiet"))), (lost, 1));
        assert_eq!(ring.floor(&prefix("busy")), lost);
        assert!(
            ring.from(1, &prefix("quiet"))
                .is_some_and(|mut held| held.next().is_some())
        );
    }

    fn made(event: &Event) -> bool {
        let mut made = false;
        let frame = event.frame(Form::Json, || {
            made = true;
            Ok(Bytes::from_static(b"frame"))
        });
        assert!(frame.is_ok());
        made
    }

    /// The forms in which a ring's events were sent come on top of what the ring weighs.
    #[test]
    fn frames_are_kept_in_a_bound() {
        for (size, kept) in [(100, FRAMED), (100 << 10, 24), (2 << 20, 1)] {
            let mut ring = Ring::new(0, &OF_RESOURCE);
            let events: Vec<_> = (0..300).map(|_| event(size)).collect();
            for event in &events {
                ring.push(event.clone(), Instant::now());
                assert!(made(event), "each is made once");
            }
            let again = events.iter().filter(|event| !made(event)).count();
            assert!(again.abs_diff(kept) <= 3, "{again} of {size} bytes");
            assert_eq!(ring.framed, again);
            assert_eq!(ring.framed_bytes, again * events[0].framed_weight());
        }
    }

    /// The committer waits for nobody who is at a frame.
    #[test]
    fn a_frame_that_is_being_made_holds_nobody_up() {
        let mut ring = Ring::new(0, &OF_RESOURCE);
        let (first, second) = (event(2 << 20), event(2 << 20));
        ring.push(first.clone(), Instant::now());
        let held = first.frame(Form::Json, || {
            ring.push(second.clone(), Instant::now());
            Ok(Bytes::new())
        });
        assert!(held.is_ok() && !made(&first));
        ring.push(event(10), Instant::now());
        assert!(made(&first) && made(&first), "forgotten at the next push");
    }
}
