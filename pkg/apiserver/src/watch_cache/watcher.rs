//! A watcher: a cursor in a resource's ring. It costs nothing until an event wakes it, and nobody waits for it.

use std::sync::Arc;
use std::time::Instant;

use super::resource::{Indexed, ResourceCache, Snapshot, State};
use super::ring::{Event, OF_VALUE, Ring};

/// How much a watcher takes at once: so many events, and no more after so many bytes.
const TAKE: usize = 256;
const TAKE_BYTES: usize = 256 << 10;

/// What one take may hold.
struct Portion {
    events: usize,
    bytes: usize,
}

impl Portion {
    const WHOLE: Portion = Portion {
        events: TAKE,
        bytes: TAKE_BYTES,
    };

    /// Whether there is room for one more; there is for the first.
    fn takes(&mut self, event: &Event) -> bool {
        if self.events == 0 || self.bytes == 0 {
            return false;
        }
        self.events -= 1;
        self.bytes = self.bytes.saturating_sub(event.object.weight());
        true
    }
}

pub struct Watcher {
    cache: Arc<ResourceCache>,
    /// What the keys begin with that are watched.
    prefix: Arc<str>,
    /// In the index's ring, where a value alone is watched, else in the resource's.
    position: u64,
    /// Where an index's reader that is behind its ring, which is short, goes on in the resource's.
    behind: Option<u64>,
    /// Events up to here were seen before the watch began.
    after: u64,
    /// The value of the indexed field that alone is watched.
    value: Option<Box<str>>,
    wake: tokio::sync::watch::Receiver<u64>,
    /// The resource's when the watch began.
    epoch: u64,
    /// All events up to here were taken; None in the midst of those of one revision.
    complete: Option<u64>,
}

/// What a watcher gets.
pub enum Next {
    Events,
    /// The ring went past the cursor: the client has to list again.
    TooOld,
    /// The resource is served no more, or as another: nothing that is to come would be like what was.
    Ended,
}

impl ResourceCache {
    /// A watch of everything in a namespace (empty: all) after a revision, and of some that is in others; Err holds the oldest
    /// revision that can be watched.
    pub fn watch_from(self: &Arc<Self>, namespace: &str, revision: u64, value: Option<&str>) -> Result<Watcher, u64> {
        let prefix = self.range(namespace).0;
        let mut state = self.state.lock();
        let floor = state.ring.floor(&prefix);
        if revision < floor {
            return Err(floor);
        }
        let position = state.ring.position_after(revision);
        Ok(self.watcher(&mut state, prefix, position, revision, value))
    }

    /// A snapshot, and a watch of everything after it, without gap or double.
    pub fn watch_with_snapshot(self: &Arc<Self>, namespace: &str, value: Option<&str>) -> (Snapshot, Watcher) {
        let mut state = self.state.lock();
        let snapshot = self.snapshot_of(&state, namespace);
        let position = state.ring.end();
        let prefix = snapshot.prefix().clone();
        let watcher = self.watcher(&mut state, prefix, position, snapshot.revision, value);
        (snapshot, watcher)
    }

    fn watcher(
        self: &Arc<Self>,
        state: &mut State,
        prefix: Arc<str>,
        position: u64,
        after: u64,
        value: Option<&str>,
    ) -> Watcher {
        let indexed = value.filter(|_| self.index.is_some());
        let Some(value) = indexed else {
            return Watcher {
                cache: self.clone(),
                prefix,
                position,
                after,
                value: None,
                wake: self.wake.subscribe(),
                epoch: state.epoch,
                behind: None,
                complete: None,
            };
        };
        // Nothing else looks at a ring that gets no events.
        let now = Instant::now();
        state.indexed.retain(|_, indexed| {
            indexed.ring.shed(now);
            indexed.wake.receiver_count() > 0
        });
        let indexed = state.indexed.entry(value.into()).or_insert_with(|| Indexed {
            ring: Ring::new(0, &OF_VALUE),
            wake: tokio::sync::watch::Sender::new(0),
        });
        Watcher {
            cache: self.clone(),
            prefix,
            position: indexed.ring.end(),
            after,
            value: Some(value.into()),
            wake: indexed.wake.subscribe(),
            epoch: state.epoch,
            behind: Some(position).filter(|position| *position < state.ring.end()),
            complete: Some(after),
        }
    }
}

impl Watcher {
    /// Takes what there is, without waiting, into `into`.
    pub fn take(&mut self, into: &mut Vec<Arc<Event>>) -> Next {
        self.wake.mark_unchanged();
        let cache = self.cache.clone();
        let state = cache.state.lock();
        if state.epoch != self.epoch {
            return Next::Ended;
        }
        let own = match &self.value {
            None => &state.ring,
            Some(value) => match state.indexed.get(value) {
                Some(indexed) => &indexed.ring,
                None => return Next::TooOld,
            },
        };
        if self.behind.is_none() && own.from(self.position, &self.prefix).is_none() {
            self.behind = self.in_resource(&state);
        }
        let (ring, from) = match self.behind {
            Some(behind) => (&state.ring, behind),
            None => (own, self.position),
        };
        let Some(events) = ring.from(from, &self.prefix) else {
            return Next::TooOld;
        };
        let (before, mut portion) = (into.len(), Portion::WHOLE);
        let mut reached = from;
        let mut complete = Some(state.revision);
        let mut is_all = true;
        for (after, event) in events {
            if !portion.takes(event) {
                is_all = false;
                let last = into.last().map_or(0, |last| last.revision);
                complete = Some(last).filter(|last| *last < event.revision);
                break;
            }
            into.push(event.clone());
            reached = after;
        }
        match (is_all, &mut self.behind) {
            (true, behind) => {
                *behind = None;
                self.position = own.end();
            }
            (false, Some(behind)) => *behind = reached,
            (false, None) => self.position = reached,
        }
        self.complete = complete;
        drop(state);
        if into.get(before).is_some_and(|first| first.revision <= self.after) {
            let after = self.after;
            into.retain(|event| event.revision > after);
        }
        Next::Events
    }

    /// An index's ring is short: what it holds no more, all of the resource's may.
    fn in_resource(&self, state: &State) -> Option<u64> {
        self.value.as_ref()?;
        let missed = self.complete?;
        (missed >= state.ring.floor(&self.prefix)).then(|| state.ring.position_after(missed))
    }

    /// Waits until there is something to take.
    pub async fn changed(&mut self) {
        // The sender lives as long as the cache; an index's sender goes only when it has no receiver.
        if self.wake.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether nothing is waiting, and the revision seen then; both under one lock.
    pub fn caught_up(&self) -> Option<u64> {
        let state = self.cache.state.lock();
        let ring = match &self.value {
            None => &state.ring,
            Some(value) => &state.indexed.get(value)?.ring,
        };
        let caught_up = self.behind.is_none() && ring.end() == self.position;
        caught_up.then(|| self.cache.snapshot_of(&state, "").revision)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use bytes::Bytes;
    use mk8s_store::Entry;

    use super::super::Cache;
    use super::super::resource::Change;
    use super::*;
    use crate::object::Object;

    fn pods() -> Arc<ResourceCache> {
        let cache = Cache::new(mk8s_api::registry::builtin().iter(), 0);
        cache.resource("", "pods").unwrap()
    }

    fn put(cache: &ResourceCache, revision: u64, node: &str, size: usize, now: Instant) {
        let before = r#"{"metadata":{"name":"p","namespace":"default","resourceVersion":""#;
        let filler = "x".repeat(size);
        let value =
            format!(r#"{before}{revision}"}},"spec":{{"nodeName":"{node}"}},"status":{{"message":"{filler}"}}}}"#);
        let key = cache.key("default", "p");
        let entry = Entry {
            key: key.clone(),
            revision_at: before.len(),
            value: Bytes::from(value),
            create_revision: 1,
            mod_revision: revision,
        };
        let object = Some(Arc::new(Object::new(cache.resource(), entry, None)));
        cache.apply(std::iter::once(Change { key, revision, object }), now);
    }

    fn held(cache: &ResourceCache, node: &str) -> usize {
        let state = cache.state.lock();
        state.indexed[node].ring.newest_first().count()
    }

    #[test]
    fn a_node_s_events_are_bounded_and_age() {
        let cache = pods();
        let now = Instant::now().checked_sub(Duration::from_secs(80)).unwrap();
        let (_, mut watcher) = cache.watch_with_snapshot("", Some("n"));
        for revision in 1..=1000 {
            put(&cache, revision, "n", 1, now);
        }
        assert_eq!(held(&cache, "n"), 128);
        let mut taken = Vec::new();
        while watcher.caught_up().is_none() {
            assert!(matches!(watcher.take(&mut taken), Next::Events));
        }
        let revisions = taken.iter().map(|event| event.revision);
        assert!(
            revisions.eq(1..=1000),
            "what its ring holds no more, the resource's does"
        );
        for revision in 1001..=1010 {
            put(&cache, revision, "n", 100 << 10, now);
        }
        assert_eq!(held(&cache, "n"), 1);
        for revision in 1011..=2010 {
            put(&cache, revision, "m", 100 << 10, now);
        }
        assert!(
            matches!(watcher.take(&mut Vec::new()), Next::TooOld),
            "nor does the resource's"
        );
        // One that is over the bytes alone reaches its watcher all the same.
        let (_, mut watcher) = cache.watch_with_snapshot("", Some("n"));
        put(&cache, 2011, "n", 1 << 20, now);
        let mut taken = Vec::new();
        assert!(matches!(watcher.take(&mut taken), Next::Events));
        assert_eq!(taken.len(), 1);
        // They end with their time though nothing comes after them.
        let (_, _other) = cache.watch_with_snapshot("", Some("m"));
        assert_eq!(held(&cache, "n"), 0);
        assert!(watcher.caught_up().is_some());
        put(&cache, 2012, "n", 1, Instant::now());
        assert!(matches!(watcher.take(&mut taken), Next::Events));
        assert_eq!(taken.last().map(|event| event.revision), Some(2012));
    }
}
