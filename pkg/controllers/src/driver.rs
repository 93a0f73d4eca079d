//! The loop that all controllers share: events become keys, keys are reconciled by workers, failures come back later.
//!
//! A handler per informer turns events into keys and keeps the controller's indexes and expectations; it is the only writer of these, so an
//! event has always reached the index before the key that it causes is reconciled. Workers start when every handler has heard of all objects
//! that existed at the start. The same key is never reconciled twice at once; different keys are, on as many processors as there are. A panic
//! in a reconciliation is a failure of its key, which comes back later like any other.
//!
//! When its scope ends, no further key is begun; what is under way is finished, since half a reconciliation would leave behind writes
//! of which nobody knows. Only what takes too long is dropped. Nothing of the controller runs when `run` has returned, but a handler that hears of a change
//! at this moment.

use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use mk8s_client::{Event, Informer, Kind, Registration, WorkQueue};
use mk8s_supervisor::{Jobs, Supervisor, job};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::meta::Key;

/// When a key has to be looked at again, without an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At the next event.
    Done,
    /// After this time, at the latest; it may be any.
    After(Duration),
}

impl Next {
    /// The earlier of two.
    pub fn sooner(self, other: Next) -> Next {
        match (self, other) {
            (Next::After(a), Next::After(b)) => Next::After(a.min(b)),
            (Next::Done, next) | (next, Next::Done) => next,
        }
    }

    /// The outcome of a reconciliation whose key is to be looked at by then whether or not it failed.
    pub fn even_if(self, done: Result<(), Error>) -> Result<Next, Error> {
        match done {
            Ok(()) => Ok(self),
            Err(error) => Err(error.due(self)),
        }
    }
}

/// What a controller does about a key: reads, plans, acts. It may be asked again at any time, and asks for no more than a look later.
pub trait Reconcile<Q = Key>: Send + Sync + 'static {
    /// An error brings the key back with back-off, or when the error says that it is due.
    fn reconcile(&self, key: Q) -> impl Future<Output = Result<Next, Error>> + Send;
}

/// Names what an event has reconciled.
type Keys<K, Q> = Box<dyn FnMut(&Event<K>) -> Vec<Q> + Send>;

/// Collects a controller's event handlers, then runs it.
pub struct Driver<Q: Eq + Hash + Clone + Send + Sync + 'static = Key> {
    name: &'static str,
    scope: Supervisor,
    /// The keys to be reconciled.
    pub queue: WorkQueue<Q>,
    handlers: Vec<Registration>,
    /// Each ends when an informer's handlers have heard of all objects that existed at the start.
    synced: Vec<BoxFuture<'static, ()>>,
}

impl<Q: Eq + Hash + Clone + Display + Send + Sync + 'static> Driver<Q> {
    /// A driver without event handlers, which ends with `scope`.
    pub fn new(name: &'static str, scope: &Supervisor) -> Self {
        Driver {
            name,
            scope: scope.clone(),
            queue: WorkQueue::new(name),
            handlers: Vec::new(),
            synced: Vec::new(),
        }
    }

    /// For each event of `informer`, `keys` names what has to be reconciled. It runs before the informer goes on, for all controllers:
    /// it never waits.
    pub fn watch<K: Kind>(&mut self, informer: &Informer<K>, keys: impl FnMut(&Event<K>) -> Vec<Q> + Send + 'static) {
        self.handle(informer, Box::new(keys));
    }

    /// Behind pointers, as what works is: it is in the binary once for each kind, and not for each controller.
    fn handle<K: Kind>(&mut self, informer: &Informer<K>, mut keys: Keys<K, Q>) {
        let queue = self.queue.clone();
        let handle = move |event: &Event<K>| keys(event).into_iter().for_each(|key| queue.add(key));
        self.handlers
            .push(informer.add_event_handler(self.name, Box::new(handle)));
        let informer = informer.clone();
        self.synced.push(async move { informer.wait_synced().await }.boxed());
    }

    /// Reconciles, `workers` keys at once, until the scope ends.
    pub fn run(self, workers: usize, controller: impl Reconcile<Q>) -> impl Future<Output = Result<(), Error>> + Send {
        self.run_boxed(workers, Box::new(controller))
    }

    async fn run_boxed(mut self, workers: usize, controller: Box<dyn Boxed<Q>>) -> Result<(), Error> {
        let ended = self.work(workers, controller).await;
        drop(self.handlers);
        ended
    }

    async fn work(&mut self, workers: usize, controller: Box<dyn Boxed<Q>>) -> Result<(), Error> {
        let (token, overdue) = (self.scope.token().clone(), self.scope.overdue().clone());
        for synced in std::mem::take(&mut self.synced) {
            tokio::select! {
                () = synced => {}
                () = token.cancelled() => return Ok(()),
            }
        }
        let worker = Arc::new(Worker {
            name: self.name,
            queue: self.queue.clone(),
            controller,
        });
        let mut working = Jobs::default();
        for _ in 0..workers {
            working.spawn(self.name, "worker", worker.clone().work(token.clone()));
        }
        // None of them returns before: one that ends did so by a panic, and without it the controller would go deaf.
        let lost = tokio::select! {
            biased;
            () = token.cancelled() => None,
            lost = working.next() => lost,
        };
        if let Some((part, ended)) = lost.filter(|_| !token.is_cancelled()) {
            working.stop().await;
            return Err(Error::Ended {
                part,
                ended: ended.err(),
            });
        }
        tokio::select! {
            () = async { while working.next().await.is_some() {} } => {}
            () = overdue.cancelled() => {
                tracing::warn!(controller = self.name, "reconciliations were dropped: they took too long to end");
                working.stop().await;
            }
        }
        Ok(())
    }
}

/// [`Reconcile`], whoever it is.
trait Boxed<Q>: Send + Sync + 'static {
    /// On the heap: the futures of reconciliations are large, and most of the time there is none.
    fn reconcile(&self, key: Q) -> BoxFuture<'_, Result<Next, Error>>;
}

impl<Q: Send + 'static, C: Reconcile<Q>> Boxed<Q> for C {
    fn reconcile(&self, key: Q) -> BoxFuture<'_, Result<Next, Error>> {
        Reconcile::reconcile(self, key).boxed()
    }
}

/// What the workers of a controller share.
struct Worker<Q: Eq + Hash> {
    name: &'static str,
    queue: WorkQueue<Q>,
    controller: Box<dyn Boxed<Q>>,
}

impl<Q> Worker<Q>
where
    Q: Eq + Hash + Clone + Display + Send + Sync + 'static,
{
    /// Takes one key after the other, until cancelled.
    async fn work(self: Arc<Self>, token: CancellationToken) {
        loop {
            let key = tokio::select! {
                biased;
                () = token.cancelled() => return,
                key = self.queue.next() => key,
            };
            let reconciled = AssertUnwindSafe(self.reconcile(&key)).catch_unwind().await;
            if let Err(panic) = reconciled {
                let cause = job::record_panic(self.name, panic.as_ref());
                self.failed(&key, Error::Panicked(cause));
            }
            self.queue.done(&key);
        }
    }

    async fn reconcile(&self, key: &Q) {
        match self.controller.reconcile(key.clone()).await {
            Ok(next) => {
                self.queue.forget(key);
                self.come_back(key, next);
            }
            Err(error) => self.failed(key, error),
        }
    }

    fn come_back(&self, key: &Q, next: Next) {
        if let Next::After(delay) = next {
            self.queue.add_after(key.clone(), delay);
        }
    }

    fn failed(&self, key: &Q, error: Error) {
        let (error, next) = error.apart();
        if error.is_conflict() {
            tracing::debug!(controller = self.name, %key, %error, "conflict, retried");
        } else {
            tracing::warn!(controller = self.name, %key, %error, "reconcile failed");
        }
        self.queue.add_rate_limited(key.clone());
        self.come_back(key, next);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::Instant;

    use super::*;

    /// Has no plan for key `bad` in its first three tries.
    struct Fragile {
        tries: Arc<AtomicU32>,
        done: tokio::sync::mpsc::UnboundedSender<&'static str>,
    }

    impl Reconcile<&'static str> for Fragile {
        async fn reconcile(&self, key: &'static str) -> Result<Next, Error> {
            assert!(
                key != "bad" || self.tries.fetch_add(1, Ordering::SeqCst) > 2,
                "no plan for it"
            );
            let _ = self.done.send(key);
            Ok(Next::After(Duration::MAX))
        }
    }

    fn scope() -> Supervisor {
        Supervisor::new(CancellationToken::new())
    }

    /// Writes twice, with a while between.
    struct Writes {
        pause: Duration,
        written: Arc<AtomicU32>,
    }

    impl Reconcile<u32> for Writes {
        async fn reconcile(&self, _: u32) -> Result<Next, Error> {
            self.written.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(self.pause).await;
            self.written.fetch_add(1, Ordering::SeqCst);
            Ok(Next::Done)
        }
    }

    /// Ends the scope while the first of two keys is worked on; how often was written when it had ended.
    async fn written_by_a_scope_that_ends(pause: Duration) -> u32 {
        let scope = scope();
        let written = Arc::new(AtomicU32::new(0));
        let (owner, count) = (scope.clone(), written.clone());
        scope.spawn("writes", mk8s_supervisor::OnExit::Restart, move |_| {
            let driver = Driver::new("ending-controller", &owner);
            driver.queue.add(1);
            driver.queue.add(2);
            let written = count.clone();
            async move { Ok(driver.run(1, Writes { pause, written }).await?) }
        });
        while written.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(scope.shutdown(Duration::from_secs(8)).await);
        let at_the_end = written.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(written.load(Ordering::SeqCst), at_the_end, "it went on");
        at_the_end
    }

    #[tokio::test(start_paused = true)]
    async fn a_scope_that_ends_finishes_what_is_under_way_and_begins_no_more() {
        assert_eq!(written_by_a_scope_that_ends(Duration::from_secs(1)).await, 2);
        // What takes longer than there is time for is dropped.
        assert_eq!(written_by_a_scope_that_ends(Duration::from_secs(30)).await, 1);
    }

    /// Fails always, and has something to do every half minute.
    struct Fails(tokio::sync::mpsc::UnboundedSender<Instant>);

    impl Reconcile<u32> for Fails {
        async fn reconcile(&self, _: u32) -> Result<Next, Error> {
            let _ = self.0.send(Instant::now());
            Next::After(Duration::from_secs(30)).even_if(Err(Error::Invalid("never".to_owned())))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_looked_at_when_it_is_due_nevertheless() {
        let driver = Driver::new("failing-controller", &scope());
        driver.queue.add(1);
        let (tried, mut tries) = tokio::sync::mpsc::unbounded_channel();
        tokio::select! {
            ended = driver.run(1, Fails(tried)) => panic!("{ended:?}"),
            () = tokio::time::sleep(Duration::from_secs(3600)) => {}
        }
        let mut last = tries.recv().await.unwrap();
        for _ in 0..120 {
            let next = tries.recv().await.unwrap();
            assert!(next - last < Duration::from_secs(31), "{:?}", next - last);
            last = next;
        }
    }

    #[tokio::test]
    async fn a_key_that_panics_comes_back_and_holds_up_no_other() {
        let driver: Driver<&'static str> = Driver::new("panicking-controller", &scope());
        let queue = driver.queue.clone();
        queue.add("bad");
        queue.add("good");
        let (tries, (done, mut all)) = (Arc::new(AtomicU32::new(0)), tokio::sync::mpsc::unbounded_channel());
        let running = driver.run(
            1,
            Fragile {
                tries: tries.clone(),
                done,
            },
        );
        let order = async { (all.recv().await, all.recv().await) };
        tokio::select! {
            ended = running => panic!("a panic of one key ended the controller: {ended:?}"),
            order = order => assert_eq!(order, (Some("good"), Some("bad"))),
        }
        assert_eq!(tries.load(Ordering::SeqCst), 4);
        assert_eq!(queue.failures(&"bad"), 0);
        let counted = job::panics()
            .into_iter()
            .find(|(name, _)| name == "panicking-controller");
        assert_eq!(counted, Some(("panicking-controller".into(), 3)));
    }
}
