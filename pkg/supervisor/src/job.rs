//! One-shot work beside the long-lived tasks: a connection, a pod's job, a call that blocks, a thread. It has a name, and a
//! panic in it is that piece of work's failure: logged, counted under its name, and handed to whoever waits for the result.
//!
//! This is the only module that may start work on the runtime or a thread (`clippy.toml` bans the bare calls elsewhere).

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;

/// Why a job has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    #[error("{job} panicked: {cause}")]
    Panicked { job: &'static str, cause: String },
    /// Aborted, or the runtime ended first.
    #[error("{job} was cancelled")]
    Cancelled { job: &'static str },
}

static PANICS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// How often work of each name has panicked since the process began.
pub fn panics() -> Vec<(String, u64)> {
    PANICS
        .lock()
        .iter()
        .map(|(name, count)| (name.clone(), *count))
        .collect()
}

/// Logs and counts a panic that was caught; for who catches panics of its own (a worker, a request).
pub fn record_panic(name: &str, panic: &(dyn Any + Send)) -> String {
    let cause = panic_text(panic).to_string();
    tracing::error!(task = name, cause, "panicked");
    *PANICS.lock().entry(name.to_owned()).or_default() += 1;
    cause
}

/// What a panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

fn caught<T>(name: &'static str, ended: std::thread::Result<T>) -> Result<T, JobError> {
    ended.map_err(|panic| JobError::Panicked {
        job: name,
        cause: record_panic(name, panic.as_ref()),
    })
}

/// Work under way. Dropped, it goes on unseen; awaited, it gives its result.
pub struct Job<T> {
    name: &'static str,
    handle: tokio::task::JoinHandle<Result<T, JobError>>,
}

impl<T> Job<T> {
    /// Ends the work at its next await; of a blocking job only what has not begun.
    pub fn abort(&self) {
        self.handle.abort();
    }

    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// The same work, which ends when the result is dropped.
    pub fn abort_on_drop(self) -> AbortOnDrop<T> {
        AbortOnDrop(self)
    }
}

impl<T> Future for Job<T> {
    type Output = Result<T, JobError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let name = self.name;
        Pin::new(&mut self.handle)
            .poll(context)
            .map(|ended| ended.unwrap_or(Err(JobError::Cancelled { job: name })))
    }
}

/// Work that ends when this is dropped.
pub struct AbortOnDrop<T>(Job<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, JobError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs a future on the runtime.
#[allow(clippy::disallowed_methods, reason = "the one place where jobs begin")]
pub fn spawn<T, F>(name: &'static str, future: F) -> Job<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    // Behind a pointer: what tokio keeps of a task is in the binary once for each outcome, and not once for each future.
    let work = AssertUnwindSafe(future.boxed()).catch_unwind();
    Job {
        name,
        handle: tokio::spawn(async move { caught(name, work.await) }),
    }
}

/// Runs what blocks on a thread of the runtime's pool.
#[allow(clippy::disallowed_methods, reason = "the one place where jobs begin")]
pub fn blocking<T, F>(name: &'static str, work: F) -> Job<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let work = AssertUnwindSafe(work);
    Job {
        name,
        handle: tokio::task::spawn_blocking(move || {
            let work = work;
            caught(name, std::panic::catch_unwind(AssertUnwindSafe(work.0)))
        }),
    }
}

/// Runs a future whose steps take a core for long on a thread of the runtime's pool, where they hold up no other task.
pub fn heavy<T, F>(name: &'static str, future: F) -> Job<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let runtime = tokio::runtime::Handle::current();
    blocking(name, move || runtime.block_on(future))
}

/// The runtime on which something began, to begin more on it from elsewhere.
#[derive(Clone)]
pub struct Home(tokio::runtime::Handle);

impl Home {
    /// Needs a runtime around it.
    pub fn current() -> Home {
        Home(tokio::runtime::Handle::current())
    }

    pub fn spawn<T, F>(&self, name: &'static str, future: F) -> Job<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let _within = self.0.enter();
        spawn(name, future)
    }
}

/// Threads beside the runtime's, for futures of which each step takes a core for long. What still runs on them when it is
/// dropped ends at its next await.
pub struct Lane(Option<tokio::runtime::Runtime>);

impl Lane {
    /// Starts so many threads; fails where the system has none left. 15 bytes of the name are shown in the process list.
    pub fn start(name: &'static str, threads: usize) -> std::io::Result<Lane> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(threads).thread_name(name).enable_all().build()?;
        Ok(Lane(Some(runtime)))
    }

    /// Runs a future there. Where the lane ends first, the job is cancelled at its next await.
    pub fn spawn<T, F>(&self, name: &'static str, future: F) -> Job<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let _within = self.0.as_ref().map(tokio::runtime::Runtime::enter);
        spawn(name, future)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // It may be dropped on a thread that must not wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A thread of its own, named in the process list (15 bytes of the name are shown there).
pub struct Thread<T> {
    name: &'static str,
    handle: std::thread::JoinHandle<Result<T, JobError>>,
}

impl<T> Thread<T> {
    /// Waits for its end. Blocks.
    pub fn join(self) -> Result<T, JobError> {
        let name = self.name;
        self.handle.join().unwrap_or(Err(JobError::Cancelled { job: name }))
    }

    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

/// Starts a thread; fails where the system has none left.
#[allow(clippy::disallowed_methods, reason = "the one place where threads begin")]
pub fn thread<T, F>(name: &'static str, work: F) -> std::io::Result<Thread<T>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let work = AssertUnwindSafe(work);
    let handle = std::thread::Builder::new().name(name.into()).spawn(move || {
        let work = work;
        caught(name, std::panic::catch_unwind(AssertUnwindSafe(work.0)))
    })?;
    Ok(Thread { name, handle })
}

struct Keyed<K, T> {
    key: Option<K>,
    job: AbortOnDrop<T>,
}

impl<K: Unpin, T> Future for Keyed<K, T> {
    type Output = (K, Result<T, JobError>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = std::task::ready!(Pin::new(&mut self.job).poll(context));
        let key = self.key.take();
        Poll::Ready((key.expect("a future is not polled after its end"), ended))
    }
}

/// Jobs of one owner, each under a key: every one's end is handed back, whatever it was. Dropped, it aborts them all.
pub struct Jobs<K, T> {
    running: FuturesUnordered<Keyed<K, T>>,
}

impl<K, T> Default for Jobs<K, T> {
    fn default() -> Self {
        Jobs {
            running: FuturesUnordered::new(),
        }
    }
}

impl<K: Unpin + Send + 'static, T: Send + 'static> Jobs<K, T> {
    pub fn spawn<F>(&self, name: &'static str, key: K, future: F)
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.push(key, spawn(name, future));
    }

    /// Takes in work that runs already.
    pub fn push(&self, key: K, job: Job<T>) {
        self.running.push(Keyed {
            key: Some(key),
            job: job.abort_on_drop(),
        });
    }

    /// The next one that ends; none when nothing runs. Cancel-safe.
    pub async fn next(&mut self) -> Option<(K, Result<T, JobError>)> {
        self.running.next().await
    }

    pub fn len(&self) -> usize {
        self.running.len()
    }

    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub fn abort_all(&self) {
        for keyed in self.running.iter() {
            keyed.job.0.abort();
        }
    }

    /// Aborts them all, and returns when they have ended: one that is just at work goes on to its next await.
    pub async fn stop(&mut self) {
        self.abort_all();
        while self.next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_the_jobs_failure_and_is_counted() {
        let job = spawn("job-that-panics", async { panic!("lost {}", 1) });
        let ended: Result<(), JobError> = job.await;
        let failure = JobError::Panicked {
            job: "job-that-panics",
            cause: "lost 1".into(),
        };
        assert_eq!(ended, Err(failure));
        let ended: Result<(), JobError> = blocking("job-that-panics", || panic!("again")).await;
        assert!(ended.is_err());
        let counted = panics().into_iter().find(|(name, _)| name == "job-that-panics");
        assert_eq!(counted, Some(("job-that-panics".into(), 2)));
    }

    #[tokio::test]
    async fn every_job_of_a_set_reports_its_end() {
        let mut jobs = Jobs::default();
        jobs.spawn("set", 1, async { "done" });
        jobs.spawn("set", 2, async { panic!("no") });
        jobs.spawn("set", 3, std::future::pending());
        let mut ended = BTreeMap::new();
        for _ in 0..2 {
            let (key, outcome) = jobs.next().await.expect("three run");
            ended.insert(key, outcome);
        }
        assert_eq!(ended[&1], Ok("done"));
        assert!(matches!(ended[&2], Err(JobError::Panicked { .. })));
        jobs.abort_all();
        let (key, outcome) = jobs.next().await.expect("one runs");
        assert_eq!((key, outcome), (3, Err(JobError::Cancelled { job: "set" })));
        assert!(jobs.next().await.is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn stopped_jobs_have_ended() {
        let (mut jobs, (began, mut begun)) = (Jobs::default(), tokio::sync::mpsc::unbounded_channel());
        let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let at_its_end = ended.clone();
        jobs.spawn("at work", 1, async move {
            let _ = began.send(());
            // Not to be interrupted: it awaits nothing.
            std::thread::sleep(std::time::Duration::from_millis(100));
            at_its_end.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        begun.recv().await;
        jobs.stop().await;
        assert!(jobs.is_empty() && ended.load(std::sync::atomic::Ordering::SeqCst));
    }

    #[test]
    fn a_threads_panic_reaches_who_joins_it() {
        let thread = thread("panicking", || -> u32 { panic!("thread") }).expect("a thread starts");
        assert!(matches!(thread.join(), Err(JobError::Panicked { .. })));
        assert_eq!(thread_result(), 7);
    }

    fn thread_result() -> u32 {
        thread("counting", || 7)
            .expect("a thread starts")
            .join()
            .expect("it ends")
    }
}
