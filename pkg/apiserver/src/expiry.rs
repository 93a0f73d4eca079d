//! Events live an hour. One task holds their deadlines in order and sleeps until the next one: nothing is scanned.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mk8s_store::Expect;
use smallvec::SmallVec;
use tokio::time::Instant;

use mk8s_api::{meta, time};

use crate::object::Object;
use crate::state::State;
use crate::watch_cache::{EventKind, Next};
use crate::write;

const LIFE: Duration = Duration::from_secs(3600);

struct Deadline {
    at: Instant,
    key: Arc<str>,
    revision: u64,
}

pub async fn run(server: Arc<State>) {
    let Some(events) = server.cache().resource("", "events").cloned() else {
        return;
    };
    let (snapshot, mut watcher) = events.watch_with_snapshot("", None);
    let mut queue: Vec<Deadline> = snapshot.iter().map(stored_deadline).collect();
    drop(snapshot);
    queue.sort_by_key(|deadline| deadline.at);
    // From here on each write's deadline is the latest there is.
    let mut queue = VecDeque::from(queue);
    let mut taken = Vec::new();
    loop {
        taken.clear();
        if let Next::TooOld = watcher.take(&mut taken) {
            let (_, fresh) = events.watch_with_snapshot("", None);
            watcher = fresh;
        }
        let now = Instant::now();
        for event in taken.iter().filter(|event| event.kind != EventKind::Deleted) {
            queue.push_back(Deadline {
                at: now + LIFE,
                key: event.object.key.clone(),
                revision: event.revision,
            });
        }
        while let Some(due) = queue.pop_front_if(|deadline| deadline.at <= now) {
            // Written again since: its later deadline counts.
            let current = events
                .get_key(&due.key)
                .is_some_and(|object| object.revision == due.revision);
            if current {
                let op = write::removal(due.key, Expect::Revision(due.revision));
                let _ = write::commit(server.store(), SmallVec::from_iter([op])).await;
            }
        }
        if !taken.is_empty() {
            continue;
        }
        let next = queue.front().map(|deadline| deadline.at);
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
