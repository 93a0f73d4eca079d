//! The revisioned key space under the API server: bytes, revisions and compare-and-swap transactions, nothing else.
//!
//! Every acknowledged transaction is on disk. One committer thread takes all transactions that wait, writes them as one
//! batch with one fsync, hands the batch to the follower (the watch cache) and only then acknowledges: who has an
//! answer also finds the write in the cache. History is not kept here but in the watch cache's rings.

mod committer;
mod engine;

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::{mpsc, oneshot};

pub use engine::EngineError;
use engine::{Engine, sled::SledEngine};

/// Extracts of an object that its request's task made and the follower wants; the store carries them untouched.
pub type Attachment = Box<dyn Any + Send>;

/// The largest value a put may carry (etcd's default request limit is 1.5 MiB; bodies up to 3 MiB are accepted).
pub const MAX_VALUE: usize = 3 * 1024 * 1024 + 512 * 1024;

/// What a key must be for an operation, and so its whole transaction, to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Any,
    Absent,
    /// The key exists and was last changed at this revision.
    Revision(u64),
}

/// What happens to a key.
pub enum Change {
    Put {
        value: Vec<u8>,
        /// Byte offset in `value` where the transaction's revision is inserted, in decimal.
        revision_at: usize,
        attachment: Option<Attachment>,
    },
    /// Conflicts when the key is absent.
    Delete,
    /// Changes nothing; the expectation alone matters.
    Check,
}

/// One key of a transaction.
pub struct Op {
    pub key: Arc<str>,
    pub expect: Expect,
    pub change: Change,
}

/// Operations that happen together, at one revision, or not at all.
#[derive(Default)]
pub struct Txn {
    pub ops: SmallVec<[Op; 1]>,
}

impl Txn {
    pub fn one(op: Op) -> Self {
        let mut ops = SmallVec::new();
        ops.push(op);
        Txn { ops }
    }
}

/// A key as it stands on disk.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: Arc<str>,
    pub value: Bytes,
    pub create_revision: u64,
    pub mod_revision: u64,
}

/// A change that is on disk.
pub struct Commit {
    pub key: Arc<str>,
    pub revision: u64,
    pub create_revision: u64,
    pub change: Committed,
}

pub enum Committed {
    Put {
        value: Bytes,
        attachment: Option<Attachment>,
    },
    Delete,
}

/// Receives each committed batch, in revision order, on the committer thread before its writers are answered.
pub trait Follower: Send {
    fn committed(&mut self, batch: Vec<Commit>);
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("store: {0}")]
    Engine(#[from] EngineError),
    #[error("store: start the committer thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error("store: started twice")]
    Started,
}

#[derive(Debug, thiserror::Error)]
pub enum TxnError {
    /// The key is not what the operation expects; `actual` is its last change, none when it is absent.
    #[error("store: {key} is at revision {actual:?}, not as the transaction expects")]
    Conflict { key: Arc<str>, actual: Option<u64> },
    #[error("store: a value of {0} bytes is larger than {MAX_VALUE}")]
    TooLarge(usize),
    /// The disk refused a batch; nothing of it is acknowledged, and no write is taken until the process restarts.
    #[error("store: the disk refused a write, so writes are off until mk8s is restarted: {0}")]
    Unavailable(String),
    #[error("store: closed")]
    Closed,
}

struct Request {
    txn: Txn,
    reply: oneshot::Sender<Result<u64, TxnError>>,
}

enum State {
    Opened(Box<dyn Engine>),
    Running(std::thread::JoinHandle<()>),
    Closed,
}

/// A handle; clones share the store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    revision: Arc<AtomicU64>,
    queue: Mutex<Option<mpsc::UnboundedSender<Request>>>,
    requests: Mutex<Option<mpsc::UnboundedReceiver<Request>>>,
    state: Mutex<State>,
}

impl Store {
    /// Opens or creates the store in `dir`. Nothing can be written before [`Store::start`].
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        let engine = SledEngine::open(dir)?;
        let revision = Arc::new(AtomicU64::new(engine.revision()));
        let (sender, receiver) = mpsc::unbounded_channel();
        Ok(Store {
            inner: Arc::new(Inner {
                revision,
                queue: Mutex::new(Some(sender)),
                requests: Mutex::new(Some(receiver)),
                state: Mutex::new(State::Opened(Box::new(engine))),
            }),
        })
    }

    /// Everything that is stored, in key order. Called once, before [`Store::start`].
    pub fn load(&self) -> Result<Vec<Entry>, StoreError> {
        match &*self.inner.state.lock() {
            State::Opened(engine) => Ok(engine.load()?),
            _ => Err(StoreError::Started),
        }
    }

    /// Starts the committer thread.
    pub fn start(&self, follower: Box<dyn Follower>) -> Result<(), StoreError> {
        let mut state = self.inner.state.lock();
        let (State::Opened(engine), Some(requests)) = (
            std::mem::replace(&mut *state, State::Closed),
            self.inner.requests.lock().take(),
        ) else {
            return Err(StoreError::Started);
        };
        let committer = committer::Committer::new(engine, follower, self.inner.revision.clone())?;
        let thread = std::thread::Builder::new()
            .name("store-commit".into())
            .spawn(move || committer.run(requests))
            .map_err(StoreError::Thread)?;
        *state = State::Running(thread);
        Ok(())
    }

    /// The revision of the last acknowledged transaction.
    pub fn current_revision(&self) -> u64 {
        self.inner.revision.load(Ordering::Acquire)
    }

    /// Commits a transaction; the answer is its revision, given once it is on disk and the follower has seen it.
    pub async fn txn(&self, txn: Txn) -> Result<u64, TxnError> {
        for op in &txn.ops {
            if let Change::Put { value, .. } = &op.change
                && value.len() > MAX_VALUE
            {
                return Err(TxnError::TooLarge(value.len()));
            }
        }
        let (reply, answer) = oneshot::channel();
        {
            let queue = self.inner.queue.lock();
            let sender = queue.as_ref().ok_or(TxnError::Closed)?;
            sender.send(Request { txn, reply }).map_err(|_| TxnError::Closed)?;
        }
        answer.await.map_err(|_| TxnError::Closed)?
    }

    /// Takes no further writes, finishes those that wait and closes the files. Blocks.
    pub fn close(&self) {
        drop(self.inner.queue.lock().take());
        let state = std::mem::replace(&mut *self.inner.state.lock(), State::Closed);
        if let State::Running(thread) = state
            && thread.join().is_err()
        {
            tracing::error!("store: the committer thread panicked");
        }
    }
}
