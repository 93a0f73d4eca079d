//! sled after an error. Two of its ways to fail leave somebody waiting for ever: a write of its own threads that fails may
//! wake nobody who waits for it, and an error on our side of it (a blob that could not be written, a panic) leaves its buffer
//! held, for which the end of the database waits. Its locks are the process's, so that a wait for ever in one database would
//! stop the next one too.

use std::fs::File;
use std::os::fd::{IntoRawFd as _, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mk8s_supervisor::job;
use parking_lot::{Condvar, Mutex};

/// A flush that takes longer is looked at.
const PATIENCE: Duration = Duration::from_secs(1);
/// A write that was under way when its file was taken away has ended after this.
const LAST_WRITE: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Watched {
    since: Option<Instant>,
    asleep: bool,
    closed: bool,
}

/// Wakes a flush that waits although the database has failed.
pub(super) struct FlushWatch {
    shared: Arc<(Mutex<Watched>, Condvar)>,
    thread: Option<job::Thread<()>>,
}

impl FlushWatch {
    pub fn start(config: sled::Config, db: sled::Db) -> std::io::Result<FlushWatch> {
        let shared = Arc::new((Mutex::new(Watched::default()), Condvar::new()));
        let own = shared.clone();
        let thread = job::thread("store-flush", move || watch(&own, &config, &db))?;
        Ok(FlushWatch {
            shared,
            thread: Some(thread),
        })
    }

    /// Runs something that may wait for sled's threads.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let (state, wake) = &*self.shared;
        let mut watched = state.lock();
        watched.since = Some(Instant::now());
        if std::mem::take(&mut watched.asleep) {
            wake.notify_one();
        }
        drop(watched);
        let result = work();
        state.lock().since = None;
        result
    }
}

impl Drop for FlushWatch {
    fn drop(&mut self) {
        self.shared.0.lock().closed = true;
        self.shared.1.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in it is logged where it is caught.
            let _ = thread.join();
        }
    }
}

/// Sleeps while nothing is flushed, and looks once in a while as long as something is.
fn watch((state, wake): &(Mutex<Watched>, Condvar), config: &sled::Config, db: &sled::Db) {
    let mut watched = state.lock();
    while !watched.closed {
        if watched.since.is_none() {
            watched.asleep = true;
            wake.wait(&mut watched);
            continue;
        }
        wake.wait_for(&mut watched, PATIENCE);
        let late = watched.since.is_some_and(|since| since.elapsed() >= PATIENCE);
        if late && config.global_error().is_err() {
            drop(watched);
            // It fails at once, and wakes all that wait.
            let _ = db.flush();
            watched = state.lock();
        }
    }
}

/// Gives up a database that may not be dropped: takes its file away from it, with the lock on that, and leaves the rest.
pub(super) fn leave(db: sled::Db, log: File) {
    if let Err(error) = take_away(&log) {
        tracing::error!(%error, "store: the failed database keeps its file; it cannot be opened again before a restart");
    }
    // Whether it still writes cannot be asked; after this it writes into nothing.
    std::thread::sleep(LAST_WRITE);
    std::mem::forget(db);
    drop(log);
}

/// Puts a file that takes no write in the place of every descriptor of `log`'s file in this process; the file may have
/// another name by now, or none.
fn take_away(log: &File) -> std::io::Result<()> {
    let inode = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let file = inode(log.metadata()?);
    let nothing = File::open("/dev/null")?;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        let (Some(number), Ok(found)) = (number, std::fs::metadata(entry.path())) else {
            continue;
        };
        if inode(found) == file {
            replace(number, &nothing)?;
        }
    }
    Ok(())
}

#[expect(unsafe_code, reason = "sled keeps the descriptor to itself")]
fn replace(number: RawFd, nothing: &File) -> std::io::Result<()> {
    // SAFETY: the descriptor stays open and its number its owner's; that its writes fail from now on is what is wanted. Its
    // owners are the database that is given up, and the handle on its log, which is dropped unused.
    let replaced = unsafe { nix::unistd::dup2_raw(nothing, number) }?;
    // Its owner closes it; the one handed back must not close it too.
    let _ = replaced.into_raw_fd();
    Ok(())
}
