//! Named tasks. A panic or an error ends the task, not the process: the task's policy says what follows. Tasks that begin
//! and end together (what a lease starts and stops) run in a scope of their own.
//!
//! A shutdown asks, then urges, then gives up: tasks finish what they have begun, drop it when half of the time is over, and are
//! left behind at the deadline. Those that others hand work to (who writes what the others tell) are asked when these have ended.

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

/// Tasks that are ended together.
#[derive(Clone)]
struct Group {
    token: CancellationToken,
    overdue: CancellationToken,
    /// Its own tracker, and before it those of the supervisors it is a scope of.
    trackers: Vec<TaskTracker>,
}

impl Group {
    fn new(token: CancellationToken) -> Self {
        Group {
            token,
            overdue: CancellationToken::new(),
            trackers: vec![TaskTracker::new()],
        }
    }

    fn scope(&self) -> Self {
        let mut trackers = self.trackers.clone();
        trackers.push(TaskTracker::new());
        Group {
            token: self.token.child_token(),
            overdue: self.overdue.child_token(),
            trackers,
        }
    }

    /// Whether all have ended by then.
    async fn wait(&self, until: tokio::time::Instant) -> bool {
        let Some(own) = self.trackers.last() else { return true };
        own.close();
        tokio::time::timeout_at(until, own.wait()).await.is_ok()
    }

    /// Asks all to end, and urges them from `urged` on.
    async fn end(&self, urged: tokio::time::Instant, until: tokio::time::Instant) -> bool {
        self.token.cancel();
        if self.wait(urged).await {
            return true;
        }
        self.overdue.cancel();
        self.wait(until).await
    }
}

/// Owner of tasks; clones share them.
#[derive(Clone)]
pub struct Supervisor {
    tasks: Group,
    /// Who serves the others until their end.
    trailing: Group,
    /// Of the whole process, whatever the scope.
    process: CancellationToken,
    failure: Arc<Mutex<Option<String>>>,
}

impl Supervisor {
    pub fn new(token: CancellationToken) -> Self {
        Supervisor {
            process: token.clone(),
            tasks: Group::new(token),
            trailing: Group::new(CancellationToken::new()),
            failure: Arc::new(Mutex::new(None)),
        }
    }

    /// An owner of tasks that [`Supervisor::shutdown`] ends without ending the others; it ends with this one. A fatal task
    /// in it is as fatal to the process as one outside.
    pub fn scope(&self) -> Supervisor {
        Supervisor {
            tasks: self.tasks.scope(),
            trailing: self.trailing.scope(),
            process: self.process.clone(),
            failure: self.failure.clone(),
        }
    }

    /// Cancelled when shutdown begins.
    pub fn token(&self) -> &CancellationToken {
        &self.tasks.token
    }

    /// Cancelled when half of the time that shutdown has is over: what a task wanted to finish first it drops now.
    pub fn overdue(&self) -> &CancellationToken {
        &self.tasks.overdue
    }

    /// Runs `make`'s future as the task `name`; it gets a token and returns soon after that is cancelled, when what it started
    /// itself has ended.
    pub fn spawn<F, Fut>(&self, name: impl Into<String>, on_exit: OnExit, make: F)
    where
        F: Fn(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        // Behind pointers: what follows is in the binary once, not once per task.
        let make = move |token| make(token).boxed();
        self.start(&self.tasks, name.into(), on_exit, Box::new(make));
    }

    /// Runs a task that others hand work to until they end. It is asked to end only then, by the first token, and gives up
    /// what it has not done when it is urged to, by the second. A panic in it or an error is logged.
    pub fn spawn_trailing<F, Fut>(&self, name: impl Into<String>, run: F)
    where
        F: FnOnce(CancellationToken, CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        let (overdue, once) = (self.trailing.overdue.clone(), Mutex::new(Some(run)));
        let make = move |token| match once.lock().take() {
            Some(run) => run(token, overdue.clone()).boxed(),
            None => unreachable!("its end is never followed by another start"),
        };
        self.start(&self.trailing, name.into(), OnExit::Done, Box::new(make));
    }

    fn start(&self, group: &Group, name: String, on_exit: OnExit, make: Make) {
        let mut task = self.clone().keep(group.token.clone(), name, on_exit, make).boxed();
        for tracker in &group.trackers {
            task = tracker.track_future(task).boxed();
        }
        drop(job::spawn("task", task));
    }

    async fn keep(self, token: CancellationToken, name: String, on_exit: OnExit, make: Make) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
        loop {
            let started = Instant::now();
            // Making the future is part of the task: it may panic too.
            let made = std::panic::catch_unwind(AssertUnwindSafe(|| make(token.clone())));
            let ended = match made {
                Ok(run) => AssertUnwindSafe(run).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            if token.is_cancelled() {
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
                        () = token.cancelled() => return,
                    }
                }
            }
        }
    }

    /// Waits until shutdown is asked for; the cause, if a fatal task asked.
    pub async fn ended(&self) -> Option<String> {
        self.tasks.token.cancelled().await;
        self.failure.lock().clone()
    }

    /// Ends every task and waits for them, at most until the deadline; false when some still ran then.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        let now = tokio::time::Instant::now();
        self.tasks.end(now + deadline / 2, now + deadline * 3 / 4).await;
        // A quarter is for those that can't end before the others.
        let served = tokio::time::Instant::now();
        let ended = self.trailing.end(served + deadline / 8, served + deadline / 4).await;
        self.tasks.wait(now + deadline).await && ended
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

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_asks_then_urges_and_ends_who_serves_the_others_last() {
        let (owner, log) = (
            Supervisor::new(CancellationToken::new()),
            Arc::new(Mutex::new(Vec::new())),
        );
        let scope = owner.scope();
        let began = tokio::time::Instant::now();
        let told = log.clone();
        scope.spawn_trailing("writer", move |token, _| async move {
            token.cancelled().await;
            told.lock().push(("writer", began.elapsed()));
            Ok(())
        });
        let (told, overdue) = (log.clone(), scope.overdue().clone());
        scope.spawn("hangs", OnExit::Restart, move |token| {
            let (told, overdue) = (told.clone(), overdue.clone());
            async move {
                token.cancelled().await;
                told.lock().push(("asked", began.elapsed()));
                overdue.cancelled().await;
                told.lock().push(("urged", began.elapsed()));
                Ok(())
            }
        });
        assert!(scope.shutdown(Duration::from_secs(8)).await);
        let half = Duration::from_secs(4);
        let expected = [("asked", Duration::ZERO), ("urged", half), ("writer", half)];
        assert_eq!(*log.lock(), expected);
        // What ignores both is left behind at the deadline, and said to be; who serves was asked before.
        log.lock().clear();
        let (scope, told) = (owner.scope(), log.clone());
        scope.spawn("deaf", OnExit::Restart, |_| std::future::pending());
        scope.spawn_trailing("writer", move |token, _| async move {
            token.cancelled().await;
            told.lock().push(("writer", began.elapsed()));
            Ok(())
        });
        assert!(!scope.shutdown(Duration::from_secs(8)).await);
        assert_eq!(*log.lock(), [("writer", half + Duration::from_secs(6))]);
        assert_eq!(began.elapsed(), half + Duration::from_secs(8));
        assert!(!owner.overdue().is_cancelled());
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
