//! The work queue of a reconciler: each key at most once in it, worked on by one worker at a time, retried with back-off
//! per key (client-go's util/workqueue semantics, its metrics too).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use mk8s_supervisor::metrics;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::Notify;
use tokio::time::Instant;

const FIRST_RETRY: Duration = Duration::from_millis(5);
const LONGEST_RETRY: Duration = Duration::from_secs(1000);
/// Delays come from users' objects too, and a clock knows no time that is as far as a number can say.
const LONGEST_DELAY: Duration = Duration::from_secs(365 * 24 * 3600);

type Label = [(&'static str, &'static str); 1];
type Durations = Family<Label, Histogram, fn() -> Histogram>;

/// The queues of the process, each under its name; names, units and buckets are client-go's.
struct Queues {
    depth: Family<Label, Gauge>,
    adds: Family<Label, Counter>,
    retries: Family<Label, Counter>,
    waited: Durations,
    worked: Durations,
}

static QUEUES: LazyLock<Queues> = LazyLock::new(|| {
    // 10 ns to 1 000 s.
    let durations = || Durations::new_with_constructor(|| Histogram::new(exponential_buckets(1e-8, 10.0, 12)));
    let queues = Queues {
        depth: Family::default(),
        adds: Family::default(),
        retries: Family::default(),
        waited: durations(),
        worked: durations(),
    };
    metrics::register(|registry| {
        registry.register("workqueue_depth", "Current depth of workqueue", queues.depth.clone());
        registry.register(
            "workqueue_adds",
            "Total number of adds handled by workqueue",
            queues.adds.clone(),
        );
        registry.register(
            "workqueue_retries",
            "Total number of retries handled by workqueue",
            queues.retries.clone(),
        );
        registry.register(
            "workqueue_queue_duration_seconds",
            "How long in seconds an item stays in workqueue before being requested",
            queues.waited.clone(),
        );
        registry.register(
            "workqueue_work_duration_seconds",
            "How long in seconds processing an item from workqueue takes",
            queues.worked.clone(),
        );
    });
    queues
});

/// One queue's metrics, looked up once.
struct Metrics {
    depth: Gauge,
    adds: Counter,
    retries: Counter,
    waited: Histogram,
    worked: Histogram,
}

impl Metrics {
    fn of(name: &'static str) -> Self {
        let label = [("name", name)];
        Metrics {
            depth: QUEUES.depth.get_or_create(&label).clone(),
            adds: QUEUES.adds.get_or_create(&label).clone(),
            retries: QUEUES.retries.get_or_create(&label).clone(),
            waited: QUEUES.waited.get_or_create(&label).clone(),
            worked: QUEUES.worked.get_or_create(&label).clone(),
        }
    }
}

struct State<K> {
    ready: VecDeque<K>,
    /// Waiting in `ready`, or to be put there when their worker is done; and since when.
    dirty: HashMap<K, Instant>,
    /// And since when.
    working: HashMap<K, Instant>,
    delayed: Delayed<K>,
    failures: HashMap<K, u32>,
    longest_retry: Duration,
}

/// Keys that wait for a time, each for one: a key that keeps failing while events keep naming it would otherwise wait for one time
/// more with each of these, and every one of them be followed by another for as long as it fails.
struct Delayed<K> {
    /// By when they are due; the number tells those of one instant apart.
    keys: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    sequence: u64,
}

impl<K: Clone + Eq + Hash> Delayed<K> {
    fn new() -> Self {
        Delayed {
            keys: BTreeMap::new(),
            due: HashMap::new(),
            sequence: 0,
        }
    }

    /// False if the key is due by then anyway.
    fn insert(&mut self, key: K, at: Instant) -> bool {
        let known = self.due.get(&key).copied();
        if known.is_some_and(|(due, _)| due <= at) {
            return false;
        }
        if let Some(known) = known {
            self.keys.remove(&known);
        }
        self.sequence += 1;
        self.due.insert(key.clone(), (at, self.sequence));
        self.keys.insert((at, self.sequence), key);
        true
    }

    fn next_due(&self) -> Option<Instant> {
        self.keys.first_key_value().map(|((at, _), _)| *at)
    }

    fn take_due(&mut self, now: Instant) -> Option<K> {
        let first = self.keys.first_entry().filter(|first| first.key().0 <= now)?;
        let key = first.remove();
        self.due.remove(&key);
        Some(key)
    }
}

struct Inner<K> {
    state: Mutex<State<K>>,
    notify: Notify,
    metrics: Metrics,
}

/// The gauge is the process's, and its queue of that name may begin again: what waited here waits no more.
impl<K> Drop for Inner<K> {
    fn drop(&mut self) {
        let waited = self.state.get_mut().ready.len();
        self.metrics.depth.dec_by(i64::try_from(waited).unwrap_or(i64::MAX));
    }
}

/// Clones share the queue.
pub struct WorkQueue<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        WorkQueue {
            inner: self.inner.clone(),
        }
    }
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    /// An empty queue; its metrics stand under `name`.
    pub fn new(name: &'static str) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashMap::new(),
            working: HashMap::new(),
            delayed: Delayed::new(),
            failures: HashMap::new(),
            longest_retry: LONGEST_RETRY,
        };
        WorkQueue {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                notify: Notify::new(),
                metrics: Metrics::of(name),
            }),
        }
    }

    /// Has what failed come back within this time, instead of 1 000 s.
    pub fn retry_within(&self, longest: Duration) {
        self.inner.state.lock().longest_retry = longest;
    }

    /// Queues a key now; one that is queued already stays where it is, one that is worked on follows when that is done.
    pub fn add(&self, key: K) {
        let Inner { state, notify, metrics } = &*self.inner;
        if state.lock().add(key, metrics) {
            notify.notify_one();
        }
    }

    /// Queues a key when `delay` is over, in a year at most, or before: one that waits already is queued once, at the earlier of
    /// both times.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let Inner { state, notify, .. } = &*self.inner;
        if state
            .lock()
            .delayed
            .insert(key, Instant::now() + delay.min(LONGEST_DELAY))
        {
            // A waiting worker may have to wake earlier than it planned.
            notify.notify_one();
        }
    }

    /// Queues a key that failed: after 5 ms, then twice as long each time, at most 1 000 s or what [`WorkQueue::retry_within`] says.
    pub fn add_rate_limited(&self, key: K) {
        self.inner.metrics.retries.inc();
        let (failures, longest) = {
            let mut state = self.inner.state.lock();
            let longest = state.longest_retry;
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures += 1;
            (*failures - 1, longest)
        };
        let delay = FIRST_RETRY
            .saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX))
            .min(longest);
        self.add_after(key, delay);
    }

    /// Clears a key's count of failures.
    pub fn forget(&self, key: &K) {
        self.inner.state.lock().failures.remove(key);
    }

    /// How often a key failed since it was last forgotten.
    pub fn failures(&self, key: &K) -> u32 {
        self.inner.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key to work on; [`WorkQueue::done`] follows when its work is over.
    pub async fn next(&self) -> K {
        let Inner { state, notify, metrics } = &*self.inner;
        loop {
            let notified = notify.notified();
            let wake_at = {
                let mut state = state.lock();
                let now = Instant::now();
                state.release_due(now, metrics);
                if let Some(key) = state.ready.pop_front() {
                    if let Some(since) = state.dirty.remove(&key) {
                        metrics.waited.observe(now.duration_since(since).as_secs_f64());
                    }
                    metrics.depth.dec();
                    state.working.insert(key.clone(), now);
                    // Another worker may take what is left.
                    if !state.ready.is_empty() {
                        notify.notify_one();
                    }
                    return key;
                }
                state.delayed.next_due()
            };
            match wake_at {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, notified).await;
                }
                None => notified.await,
            }
        }
    }

    /// The work on a key that [`WorkQueue::next`] gave is over; it is next again if it was added meanwhile.
    pub fn done(&self, key: &K) {
        let Inner { state, notify, metrics } = &*self.inner;
        let mut state = state.lock();
        if let Some(since) = state.working.remove(key) {
            metrics.worked.observe(since.elapsed().as_secs_f64());
        }
        if state.dirty.contains_key(key) {
            metrics.depth.inc();
            state.ready.push_back(key.clone());
            drop(state);
            notify.notify_one();
        }
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// Whether a worker should wake.
    fn add(&mut self, key: K, metrics: &Metrics) -> bool {
        if self.dirty.contains_key(&key) {
            return false;
        }
        metrics.adds.inc();
        self.dirty.insert(key.clone(), Instant::now());
        if self.working.contains_key(&key) {
            return false;
        }
        metrics.depth.inc();
        self.ready.push_back(key);
        true
    }

    fn release_due(&mut self, now: Instant, metrics: &Metrics) {
        while let Some(key) = self.delayed.take_due(now) {
            self.add(key, metrics);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_worked_on_once_at_a_time_and_again_if_it_changed_meanwhile() {
        let queue = WorkQueue::new("test");
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
        let queue = WorkQueue::new("test");
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

    #[tokio::test(start_paused = true)]
    async fn a_key_that_waits_for_several_times_comes_once_at_the_earliest() {
        let queue = WorkQueue::new("test");
        let start = Instant::now();
        for seconds in [3, 2, 5] {
            queue.add_after("a", Duration::from_secs(seconds));
        }
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 2);
        queue.done(&"a");
        let again = tokio::time::timeout(Duration::from_secs(60), queue.next()).await;
        assert!(again.is_err(), "it came again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_that_no_clock_can_count_is_a_year() {
        let queue = WorkQueue::new("test");
        let start = Instant::now();
        queue.add_after("a", Duration::MAX);
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), LONGEST_DELAY.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn events_of_a_key_that_fails_make_it_fail_no_oftener() {
        let queue = WorkQueue::new("failing");
        let mut worked = 0;
        // Each event has it worked on; each time it fails.
        for _ in 0..100 {
            queue.add("a");
            queue.add_rate_limited(queue.next().await);
            queue.done(&"a");
        }
        assert_eq!(queue.inner.state.lock().delayed.keys.len(), 1);
        let hour = tokio::time::sleep(Duration::from_secs(3600));
        tokio::pin!(hour);
        loop {
            tokio::select! {
                biased;
                () = &mut hour => break,
                key = queue.next() => {
                    worked += 1;
                    queue.add_rate_limited(key);
                    queue.done(&key);
                }
            }
        }
        // Every 1 000 seconds by then.
        assert!((3..=5).contains(&worked), "{worked}");
        assert_eq!(queue.inner.state.lock().delayed.keys.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_and_what_is_done_is_counted() {
        let queue = WorkQueue::new("counted");
        queue.add(1);
        queue.add(1);
        queue.add(2);
        queue.add_rate_limited(3);
        let key = queue.next().await;
        tokio::time::advance(Duration::from_secs(2)).await;
        queue.done(&key);
        let mut text = String::new();
        metrics::print(&mut text);
        for line in [
            "workqueue_depth{name=\"counted\"} 1",
            "workqueue_adds_total{name=\"counted\"} 2",
            "workqueue_retries_total{name=\"counted\"} 1",
            "workqueue_queue_duration_seconds_count{name=\"counted\"} 1",
            "workqueue_work_duration_seconds_sum{name=\"counted\"} 2.0",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in {text}");
        }
    }

    #[test]
    fn a_queue_that_is_dropped_takes_its_depth_along() {
        for _ in 0..2 {
            let queue = WorkQueue::new("dropped");
            queue.add(1);
            queue.clone().add(2);
        }
        let mut text = String::new();
        metrics::print(&mut text);
        let line = "workqueue_depth{name=\"dropped\"} 0";
        assert!(text.lines().any(|own| own == line), "{text}");
    }
}
