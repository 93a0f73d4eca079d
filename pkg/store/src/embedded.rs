//! The embedded store: sled behind one committer thread.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mk8s_supervisor::job;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::committer::Committer;
use crate::engine::{self, Opener, sled::SledEngine};
use crate::queue::{Queue, Rejected, Request};
use crate::{Answer, Follower, Loaded, Store, StoreError, Txn, TxnError};

/// A batch that takes longer than this is told as a fault of the store: sled has no deadline of its own.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the committer tells those who ask.
pub(crate) struct Shown {
    pub revision: AtomicU64,
    trouble: Mutex<Option<Arc<str>>>,
    busy_since: Mutex<Option<Instant>>,
    patience: Duration,
}

impl Shown {
    fn new(revision: u64, patience: Duration) -> Shown {
        Shown {
            patience,
            revision: AtomicU64::new(revision),
            trouble: Mutex::new(None),
            busy_since: Mutex::new(None),
        }
    }

    /// Why no write is taken; none where they are.
    pub fn set_trouble(&self, cause: Option<Arc<str>>) {
        *self.trouble.lock() = cause;
    }

    pub fn set_busy(&self, busy: bool) {
        *self.busy_since.lock() = busy.then(Instant::now);
    }

    fn health(&self) -> Result<(), Arc<str>> {
        if let Some(cause) = &*self.trouble.lock() {
            return Err(cause.clone());
        }
        let since = *self.busy_since.lock();
        match since.map(|since| since.elapsed()) {
            Some(taken) if taken > self.patience => {
                Err(format!("the disk has not taken a batch for {} s", taken.as_secs()).into())
            }
            _ => Ok(()),
        }
    }
}

/// However the committer ends: what waits is not left waiting, and nothing more is taken.
struct End {
    queue: Arc<Queue>,
    shown: Arc<Shown>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.queue.close();
        self.queue.drain(&mut VecDeque::new());
        self.shown.set_trouble(Some("it was closed".into()));
    }
}

/// What an embedded store must be, and how it is kept.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Whether one that is not there yet is made. Else it must be there, with objects in it.
    pub begins: bool,
    /// Whose it is: a word that stays the same as long as the cluster does, without a line break. One that was another's is
    /// not opened. Empty: not compared.
    pub owner: String,
    /// How often it is noted, at most, how far it has come: writes that are lost since then, by damage while nothing ran,
    /// are not missed.
    pub mark_every: Duration,
}

impl Default for Terms {
    /// One that may begin, and is nobody's.
    fn default() -> Self {
        Terms {
            begins: true,
            owner: String::new(),
            mark_every: Duration::from_secs(60),
        }
    }
}

/// A [`Store`] in a folder of this host, of which this process is the only writer.
pub struct SledStore {
    queue: Arc<Queue>,
    shown: Arc<Shown>,
    committer: Mutex<Option<job::Thread<()>>>,
}

impl SledStore {
    /// Opens or creates the store in `dir`, on the default [`Terms`].
    ///
    /// # Errors
    /// As [`SledStore::open_on`].
    pub fn open(dir: &Path) -> Result<SledStore, StoreError> {
        SledStore::open_on(dir, Terms::default())
    }

    /// Opens the store in `dir`; data of an older format is converted. Blocks for as long as reading all of it takes.
    ///
    /// # Errors
    /// The folder cannot be written, another process has it open, its data is damaged or of a newer version, it holds less
    /// than was acknowledged, or it is not what the terms say: then it is left as it was.
    pub fn open_on(dir: &Path, terms: Terms) -> Result<SledStore, StoreError> {
        let dir = dir.to_path_buf();
        let first = SledEngine::open(&dir, &terms)?;
        let mark_every = terms.mark_every;
        let reopen = Box::new(move || SledEngine::reopen(&dir, &terms));
        SledStore::start(first, reopen, PATIENCE, mark_every)
    }

    pub(crate) fn start(
        first: engine::Opened,
        reopen: Opener,
        patience: Duration,
        mark_every: Duration,
    ) -> Result<SledStore, StoreError> {
        let shown = Arc::new(Shown::new(first.engine.revision(), patience));
        let queue = Arc::new(Queue::default());
        let committer = Committer::new(first, reopen, shown.clone(), mark_every);
        let end = End {
            queue: queue.clone(),
            shown: shown.clone(),
        };
        let thread = job::thread("store-commit", move || committer.run(&end.queue)).map_err(StoreError::Thread)?;
        Ok(SledStore {
            queue,
            shown,
            committer: Mutex::new(Some(thread)),
        })
    }

    /// Has the committer do something between two batches, and waits for it.
    fn ask<T>(
        &self,
        request: impl FnOnce(std::sync::mpsc::SyncSender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        self.queue.push(request(reply)).map_err(|_| StoreError::Closed)?;
        answer.recv().unwrap_or(Err(StoreError::Closed))
    }
}

impl Store for SledStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.ask(Request::Load)
    }

    fn follow(&self, after: u64, follower: Box<dyn Follower>) -> Result<(), StoreError> {
        self.ask(|reply| Request::Follow { after, follower, reply })
    }

    fn txn(&self, txn: Txn) -> Answer {
        if let Some(size) = txn.too_large() {
            return Answer::now(Err(TxnError::TooLarge(size)));
        }
        // Behind a disk that refuses or hangs nothing would come of it.
        if let Err(cause) = self.shown.health() {
            let closed = self.queue.is_closed();
            return Answer::now(Err(if closed {
                TxnError::Closed
            } else {
                TxnError::Unavailable(cause)
            }));
        }
        let (reply, answer) = oneshot::channel();
        match self.queue.push(Request::Txn { txn, reply }) {
            Ok(()) => Answer::later(answer),
            Err(Rejected::Full) => Answer::now(Err(TxnError::Overloaded)),
            Err(Rejected::Closed) => Answer::now(Err(TxnError::Closed)),
        }
    }

    fn current_revision(&self) -> u64 {
        self.shown.revision.load(Ordering::Acquire)
    }

    fn health(&self) -> Result<(), Arc<str>> {
        self.shown.health()
    }

    fn close(&self) {
        self.queue.close();
        if let Some(thread) = self.committer.lock().take() {
            // A panic in it is logged where it is caught.
            let _ = thread.join();
        }
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.close();
    }
}
