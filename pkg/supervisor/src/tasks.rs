//! Named tasks. A panic or an error ends the task, not the process: the task's policy says what follows. Tasks that begin
//! and end together (what a lease starts and stops) run in a scope of their own.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::job;

/// Why a task ended before it was asked to.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

type Make = Box<dyn Fn(CancellationToken) -> BoxFuture<'static, Result<(), TaskError>> + Send>;

/// What follows when a task ends before shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    /// It is started again, with back-off; it runs as long as the process.
    Restart,
    /// The process cannot go on without it: shutdown begins, and the cause is its exit status.
    Fatal,
    /// Its end is normal; an error is logged.
    Done,
}

/// Work that has no end of its own, ended by the token.
pub async fn until(token: CancellationToken, work: impl Future<Output = ()>) -> Result<(), TaskError> {
    tokio::select! {
        () = work => {}
        () = token.cancelled() => {}
    }
    Ok(())
}

/// Owner of tasks; clones share them.
#[derive(Clone)]
pub struct Supervisor {
    token: CancellationToken,
    /// Its own tracker, and before it those of the supervisors it is a scope of.
    trackers: Vec<TaskTracker>,
    /// Of the whole process, whatever the scope.
    process: CancellationToken,
    failure: Arc<Mutex<Option<String>>>,
}

impl Supervisor {
    pub fn new(token: CancellationToken) -> Self {
        Supervisor {
            process: token.clone(),
            token,
            trackers: vec![TaskTracker::new()],
            failure: Arc::new(Mutex::new(None)),
        }
    }

    /// An owner of tasks that [`Supervisor::shutdown`] ends without ending the others; it ends with this one. A fatal task
    /// in it is as fatal to the process as one outside.
    pub fn scope(&self) -> Supervisor {
        let mut trackers = self.trackers.clone();
        trackers.push(TaskTracker::new());
        Supervisor {
            token: self.token.child_token(),
            trackers,
            process: self.process.clone(),
            failure: self.failure.clone(),
        }
    }

    /// Cancelled when shutdown begins.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Runs `make`'s future as the task `name`; it gets a token and returns soon after that is cancelled.
    pub fn spawn<F, Fut>(&self, name: impl Into<String>, on_exit: OnExit, make: F)
    where
        F: Fn(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        // Behind pointers: what follows is in the binary once, not once per task.
        let make = move |token| make(token).boxed();
        let mut task = self.clone().keep(name.into(), on_exit, Box::new(make)).boxed();
        for tracker in &self.trackers {
            task = tracker.track_future(task).boxed();
        }
        drop(job::spawn("task", task));
    }

    async fn keep(self, name: String, on_exit: OnExit, make: Make) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
        loop {
            let started = Instant::now();
            // Making the future is part of the task: it may panic too.
            let made = std::panic::catch_unwind(AssertUnwindSafe(|| make(self.token.clone())));
            let ended = match made {
                Ok(run) => AssertUnwindSafe(run).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            if self.token.is_cancelled() {
                return;
            }
            let cause = match ended {
                Ok(Ok(())) if on_exit == OnExit::Done => return,
                Ok(Ok(())) => "it returned".to_string(),
                Ok(Err(error)) => error.to_string(),
                Err(panic) => format!("panic: {}", job::record_panic(&name, panic.as_ref())),
            };
            tracing::error!(task = name, cause, "a task ended before its time");
            match on_exit {
                OnExit::Done => return,
                OnExit::Fatal => {
                    self.failure.lock().get_or_insert(format!("{name}: {cause}"));
                    self.process.cancel();
                    return;
                }
                OnExit::Restart => {
                    if started.elapsed() > Duration::from_secs(60) {
                        backoff.reset();
                    }
                    tokio::select! {
                        () = tokio::time::sleep(backoff.next_delay()) => {}
                        () = self.token.cancelled() => return,
                    }
                }
            }
        }
    }

    /// Waits until shutdown is asked for; the cause, if a fatal task asked.
    pub async fn ended(&self) -> Option<String> {
        self.token.cancelled().await;
        self.failure.lock().clone()
    }

    /// Cancels every task and waits for them, at most until the deadline; false when some still ran then.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        self.token.cancel();
        let Some(own) = self.trackers.last() else { return true };
        own.close();
        tokio::time::timeout(deadline, own.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_panicking_task_is_started_again_and_a_fatal_one_ends_all() {
        let supervisor = Supervisor::new(CancellationToken::new());
        let runs = Arc::new(AtomicU32::new(0));
        let counter = runs.clone();
        supervisor.spawn("flaky", OnExit::Restart, move |token| {
            let run = counter.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(run > 0, "the first run panics");
                token.cancelled().await;
                Ok(())
            }
        });
        tokio::time::timeout(Duration::from_secs(5), async {
            while runs.load(Ordering::SeqCst) < 2 {
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("the task is started again");
        supervisor.spawn("vital", OnExit::Fatal, |_| async { Err("gone".into()) });
        assert_eq!(supervisor.ended().await.as_deref(), Some("vital: gone"));
        assert!(supervisor.shutdown(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_scope_ends_alone_and_with_its_owner() {
        let supervisor = Supervisor::new(CancellationToken::new());
        let running = Arc::new(AtomicU32::new(0));
        let start = |scope: &Supervisor| {
            let running = running.clone();
            scope.spawn("in-scope", OnExit::Restart, move |token| {
                let running = running.clone();
                async move {
                    running.fetch_add(1, Ordering::SeqCst);
                    token.cancelled().await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                }
            });
        };
        let first = supervisor.scope();
        start(&first);
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(running.load(Ordering::SeqCst), 1);
        assert!(first.shutdown(Duration::from_secs(5)).await);
        assert_eq!(running.load(Ordering::SeqCst), 0);
        assert!(!supervisor.token().is_cancelled());
        let second = supervisor.scope();
        start(&second);
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(
            supervisor.shutdown(Duration::from_secs(5)).await,
            "it waits for its scopes"
        );
        assert_eq!(running.load(Ordering::SeqCst), 0);
        let third = Supervisor::new(CancellationToken::new());
        third
            .scope()
            .spawn("vital", OnExit::Fatal, |_| async { Err("gone".into()) });
        assert_eq!(third.ended().await.as_deref(), Some("vital: gone"));
    }

    #[tokio::test]
    async fn a_panic_while_a_task_is_made_is_a_panic_of_the_task() {
        let supervisor = Supervisor::new(CancellationToken::new());
        let (runs, (done, mut ran)) = (AtomicU32::new(0), tokio::sync::mpsc::unbounded_channel());
        supervisor.spawn("panics-when-made", OnExit::Restart, move |_| {
            assert!(runs.fetch_add(1, Ordering::SeqCst) > 0, "the first is not made");
            let _ = done.send(());
            std::future::pending()
        });
        let ran = tokio::time::timeout(Duration::from_secs(5), ran.recv()).await;
        assert_eq!(ran, Ok(Some(())), "it is made again");
        let counted = job::panics().into_iter().find(|(name, _)| name == "panics-when-made");
        assert_eq!(counted, Some(("panics-when-made".into(), 1)));
    }
}
