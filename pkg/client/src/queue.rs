//! The work queue of a reconciler: each key at most once in it, worked on by one worker at a time, retried with back-off
//! per key (client-go's util/workqueue semantics).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_secs(1000);

struct State<K> {
    ready: VecDeque<K>,
    /// Waiting in `ready`, or to be put there when their worker is done.
    dirty: HashSet<K>,
    working: HashSet<K>,
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
    delayed_keys: HashMap<u64, K>,
    sequence: u64,
    failures: HashMap<K, u32>,
}

/// Clones share the queue.
pub struct WorkQueue<K> {
    inner: Arc<(Mutex<State<K>>, Notify)>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        WorkQueue {
            inner: self.inner.clone(),
        }
    }
}

impl<K: Clone + Eq + Hash> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            delayed: BinaryHeap::new(),
            delayed_keys: HashMap::new(),
            sequence: 0,
            failures: HashMap::new(),
        };
        WorkQueue {
            inner: Arc::new((Mutex::new(state), Notify::new())),
        }
    }

    /// Queues a key now; one that is queued already stays where it is, one that is worked on follows when that is done.
    pub fn add(&self, key: K) {
        let (state, notify) = &*self.inner;
        if state.lock().add(key) {
            notify.notify_one();
        }
    }

    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let (state, notify) = &*self.inner;
        let mut state = state.lock();
        let sequence = state.sequence;
        state.sequence += 1;
        state.delayed.push(Reverse((Instant::now() + delay, sequence)));
        state.delayed_keys.insert(sequence, key);
        drop(state);
        // A waiting worker may have to wake earlier than it planned.
        notify.notify_one();
    }

    /// Queues a key that failed: after 5 ms, then twice as long each time, at most 1 000 s.
    pub fn add_rate_limited(&self, key: K) {
        let failures = {
            let mut state = self.inner.0.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures += 1;
            *failures - 1
        };
        let delay = FIRST_RETRY
            .saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX))
            .min(LAST_RETRY);
        self.add_after(key, delay);
    }

    /// Clears a key's count of failures.
    pub fn forget(&self, key: &K) {
        self.inner.0.lock().failures.remove(key);
    }

    /// How often a key failed since it was last forgotten.
    pub fn failures(&self, key: &K) -> u32 {
        self.inner.0.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key to work on; [`WorkQueue::done`] follows when its work is over.
    pub async fn next(&self) -> K {
        let (state, notify) = &*self.inner;
        loop {
            let notified = notify.notified();
            let wake_at = {
                let mut state = state.lock();
                state.release_due(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.working.insert(key.clone());
                    // Another worker may take what is left.
                    if !state.ready.is_empty() {
                        notify.notify_one();
                    }
                    return key;
                }
                state.delayed.peek().map(|Reverse((at, _))| *at)
            };
            match wake_at {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, notified).await;
                }
                None => notified.await,
            }
        }
    }

    pub fn done(&self, key: &K) {
        let (state, notify) = &*self.inner;
        let mut state = state.lock();
        state.working.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            notify.notify_one();
        }
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// Whether a worker should wake.
    fn add(&mut self, key: K) -> bool {
        if !self.dirty.insert(key.clone()) || self.working.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn release_due(&mut self, now: Instant) {
        while let Some(Reverse((at, sequence))) = self.delayed.peek().copied() {
            if at > now {
                return;
            }
            self.delayed.pop();
            if let Some(key) = self.delayed_keys.remove(&sequence) {
                self.add(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_worked_on_once_at_a_time_and_again_if_it_changed_meanwhile() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert!(
            tokio::time::timeout(Duration::from_secs(1), queue.next())
                .await
                .is_err(),
            "it is being worked on"
        );
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert!(
            tokio::time::timeout(Duration::from_secs(1), queue.next())
                .await
                .is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn delays_are_kept_and_failures_double_them() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        queue.add_after("later", Duration::from_secs(10));
        queue.add_after("sooner", Duration::from_secs(1));
        assert_eq!(queue.next().await, "sooner");
        assert_eq!(queue.next().await, "later");
        assert_eq!(start.elapsed().as_secs(), 10);
        for expected in [5, 10, 20] {
            let start = Instant::now();
            queue.add_rate_limited("x");
            assert_eq!(queue.next().await, "x");
            assert!(
                (expected..expected + 3).contains(&start.elapsed().as_millis()),
                "{:?}",
                start.elapsed()
            );
            queue.done(&"x");
        }
        queue.forget(&"x");
        assert_eq!(queue.failures(&"x"), 0);
    }
}
