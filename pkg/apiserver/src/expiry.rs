//! Events live an hour. One task holds their deadlines in order and sleeps until the next one: nothing is scanned.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mk8s_store::Expect;
use tokio::time::Instant;

use mk8s_api::{meta, time};

use crate::object::Object;
use crate::state::State;
use crate::watch_cache::{Event, EventKind, Next, ResourceCache, Snapshot};
use crate::write::{self, WriteError};

const LIFE: Duration = Duration::from_secs(3600);
/// How many events one transaction removes.
const BATCH: usize = 256;
/// How soon a store that took no write is asked again.
const RETRY: Duration = Duration::from_secs(5);

struct Deadline {
    at: Instant,
    key: Arc<str>,
    revision: u64,
}

/// What is looked at when, oldest deadline first.
#[derive(Default)]
struct Queue(VecDeque<Deadline>);

impl Queue {
    /// Of all stored events, by their own last time.
    fn of(snapshot: &Snapshot) -> Queue {
        let mut all: Vec<Deadline> = snapshot.iter().map(stored_deadline).collect();
        all.sort_by_key(|deadline| deadline.at);
        Queue(all.into())
    }

    /// An event was written: its deadline is the latest there is.
    fn written(&mut self, event: &Event, now: Instant) {
        self.0.push_back(Deadline {
            at: now + LIFE,
            key: event.object.key.clone(),
            revision: event.revision,
        });
    }

    /// Takes out what is due, as much as one transaction removes; what was written again since has a later deadline.
    fn take_due(&mut self, now: Instant, revision_of: impl Fn(&str) -> Option<u64>) -> Vec<Deadline> {
        let mut due = Vec::new();
        while due.len() < BATCH
            && let Some(deadline) = self.0.pop_front_if(|deadline| deadline.at <= now)
        {
            if revision_of(&deadline.key) == Some(deadline.revision) {
                due.push(deadline);
            }
        }
        due
    }

    /// Puts back what could not be removed.
    fn put_back(&mut self, due: Vec<Deadline>) {
        for deadline in due.into_iter().rev() {
            self.0.push_front(deadline);
        }
    }
}

pub async fn run(server: Arc<State>) {
    let Some(events) = server.cache().resource("", "events") else {
        return;
    };
    let (snapshot, mut watcher) = events.watch_with_snapshot("", None);
    let mut queue = Queue::of(&snapshot);
    drop(snapshot);
    let mut taken = Vec::new();
    let mut pause = None;
    loop {
        taken.clear();
        if let Next::TooOld = watcher.take(&mut taken) {
            // What was written meanwhile is found by looking at all.
            let (snapshot, fresh) = events.watch_with_snapshot("", None);
            (queue, watcher) = (Queue::of(&snapshot), fresh);
        }
        let now = Instant::now();
        for event in taken.iter().filter(|event| event.kind != EventKind::Deleted) {
            queue.written(event, now);
        }
        if pause.is_none_or(|until| until <= now) {
            pause = remove_due(&server, &events, &mut queue, now).await;
        }
        if !taken.is_empty() {
            continue;
        }
        let next = queue
            .0
            .front()
            .map(|deadline| pause.map_or(deadline.at, |until| until.max(deadline.at)));
        tokio::select! {
            () = watcher.changed() => {}
            () = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
}

/// Removes what is due, a transaction for many; until when to wait where the store took it not.
async fn remove_due(server: &State, events: &ResourceCache, queue: &mut Queue, now: Instant) -> Option<Instant> {
    loop {
        let revision_of = |key: &str| events.get_key(key).map(|object| object.revision);
        let due = queue.take_due(now, revision_of);
        if due.is_empty() {
            return None;
        }
        let removal = |due: &Deadline| write::removal(due.key.clone(), Expect::Revision(due.revision));
        let Err(error) = write::commit(server.store(), due.iter().map(removal).collect()).await else {
            continue;
        };
        let count = due.len();
        queue.put_back(due);
        match error {
            // One of them was written again; readers see it by now.
            WriteError::Conflict => {}
            WriteError::Unknown => return Some(now + RETRY),
            WriteError::Status(status) => {
                tracing::warn!(count, error = %status, "events past their time are not removed");
                return Some(now + RETRY);
            }
        }
    }
}

/// The deadline of an event found at start, by its own last time.
fn stored_deadline(object: &Arc<Object>) -> Deadline {
    let value = object.value().unwrap_or_default();
    let last = [
        &["series", "lastObservedTime"][..],
        &["lastTimestamp"],
        &["eventTime"],
        &["metadata", "creationTimestamp"],
    ]
    .into_iter()
    .find_map(|path| meta::str_at(&value, path).and_then(time::parse));
    let age = last.map_or(LIFE, |at| {
        let age = jiff::Timestamp::now().duration_since(at);
        Duration::try_from(age).unwrap_or_default()
    });
    Deadline {
        at: Instant::now() + LIFE.saturating_sub(age),
        key: object.key.clone(),
        revision: object.revision,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_goes_in_batches_and_comes_back_in_order() {
        let now = Instant::now();
        let deadline = |index: u64| Deadline {
            at: now,
            key: index.to_string().into(),
            revision: index,
        };
        let later = Deadline {
            at: now + LIFE,
            ..deadline(1_000)
        };
        let mut queue = Queue((0..300).map(deadline).chain([later]).collect());
        // Number 7 was written again, number 8 is gone.
        let revision_of = |key: &str| match key {
            "7" => Some(1_007),
            "8" => None,
            other => other.parse().ok(),
        };
        let first = queue.take_due(now, revision_of);
        assert_eq!((first.len(), first[7].revision), (BATCH, 9));
        queue.put_back(first);
        let again = queue.take_due(now, revision_of);
        assert_eq!((again.len(), again[0].revision), (BATCH, 0));
        assert_eq!(queue.take_due(now, revision_of).len(), 298 - BATCH);
        assert_eq!(queue.take_due(now, revision_of).len(), 0);
        assert_eq!(queue.0.len(), 1);
    }
}
