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
    position: u64,
    /// Events up to here were seen before the watch began.
    after: u64,
    /// The value of the indexed field that alone is watched.
    value: Option<Box<str>>,
    wake: tokio::sync::watch::Receiver<u64>,
    /// The resource's when the watch began.
    epoch: u64,
    /// Events older than the index's ring, of whatever value: those before the watch began, or before it fell behind.
    backlog: Vec<Arc<Event>>,
    /// All events up to here were taken, or are in the backlog; None in the midst of those of one revision.
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
                backlog: Vec::new(),
                complete: None,
            };
        };
        let backlog = state.since(position, &prefix).unwrap_or_default();
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
            backlog,
            complete: Some(state.revision),
        }
    }
}

impl State {
    fn since(&self, position: u64, prefix: &str) -> Option<Vec<Arc<Event>>> {
        let events = self.ring.from(position, prefix)?;
        Some(events.map(|(_, event)| event.clone()).collect())
    }
}

impl Watcher {
    /// Takes what there is, without waiting, into `into`.
    pub fn take(&mut self, into: &mut Vec<Arc<Event>>) -> Next {
        if !self.backlog.is_empty() {
            return self.take_backlog(into);
        }
        self.wake.mark_unchanged();
        let cache = self.cache.clone();
        let state = cache.state.lock();
        if state.epoch != self.epoch {
            return Next::Ended;
        }
        let ring = match &self.value {
            None => &state.ring,
            Some(value) => match state.indexed.get(value) {
                Some(indexed) => &indexed.ring,
                None => return Next::TooOld,
            },
        };
        let Some(events) = ring.from(self.position, &self.prefix) else {
            return self.catch_up(&state, ring.end(), into);
        };
        let (before, mut portion) = (into.len(), Portion::WHOLE);
        let (mut position, mut complete) = (ring.end(), Some(state.revision));
        for (after, event) in events {
            if !portion.takes(event) {
                position = self.position;
                let last = into.last().map_or(0, |last| last.revision);
                complete = Some(last).filter(|last| *last < event.revision);
                break;
            }
            into.push(event.clone());
            self.position = after;
        }
        self.position = position;
        self.complete = complete;
        drop(state);
        if into.get(before).is_some_and(|first| first.revision <= self.after) {
            let after = self.after;
            into.retain(|event| event.revision > after);
        }
        Next::Events
    }

    fn take_backlog(&mut self, into: &mut Vec<Arc<Event>>) -> Next {
        let mut portion = Portion::WHOLE;
        let count = self.backlog.iter().take_while(|event| portion.takes(event)).count();
        into.extend(self.backlog.drain(..count));
        Next::Events
    }

    /// An index's ring is short: what it holds no more, all of the resource's may.
    fn catch_up(&mut self, state: &State, end: u64, into: &mut Vec<Arc<Event>>) -> Next {
        let missed = self.value.as_ref().and(self.complete);
        let missed = missed.filter(|revision| *revision >= state.ring.floor(&self.prefix));
        let missed = missed.and_then(|revision| state.since(state.ring.position_after(revision), &self.prefix));
        let Some(missed) = missed else { return Next::TooOld };
        self.backlog = missed;
        self.position = end;
        self.complete = Some(state.revision);
        self.take_backlog(into)
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
        let caught_up = self.backlog.is_empty() && ring.end() == self.position;
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
