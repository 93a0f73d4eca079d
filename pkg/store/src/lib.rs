//! The revisioned key space under the API server: bytes, revisions and compare-and-swap transactions, nothing else.
//!
//! The seam is [`Store`]. [`SledStore`] is the embedded one: one committer thread takes all transactions that wait, writes
//! them as one batch with one fsync, hands the batch to the follower (the watch cache) and only then answers: who has an
//! answer also finds the write in the cache. History is not kept here but in the watch cache's rings.
//!
//! What a store keeps of a value is its text with a hole, and the hole's offset; the revision is put in on delivery. So a
//! store that learns a transaction's revision from somebody else stores the same bytes, and nobody searches a text for its
//! revision.
#![warn(missing_docs)]

mod committer;
mod embedded;
mod engine;
mod queue;
mod value;

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::sync::oneshot;

pub use embedded::{SledStore, Terms};
pub use engine::EngineError;
pub use value::SPARE;

/// Extracts of an object that its request's task made and the follower wants; the store carries them untouched.
pub type Attachment = Box<dyn Any + Send>;

/// The largest value in bytes that a put may carry (etcd's default request limit is 1.5 MiB; bodies up to 3 MiB are
/// accepted).
pub const MAX_VALUE: usize = 3 * 1024 * 1024 + 512 * 1024;

/// A key space with one sequence of revisions. Revisions only grow, and may have gaps: others may write to the same store.
///
/// Use: [`load`](Store::load) once, [`follow`](Store::follow) from the revision loaded, then [`txn`](Store::txn).
pub trait Store: Send + Sync {
    /// Everything that is stored, at one revision. Blocks: the whole of it is read from the disk.
    ///
    /// # Errors
    /// What is stored cannot be read, or the store was closed.
    fn load(&self) -> Result<Loaded, StoreError>;

    /// Hands every change after a revision to a follower, in order. Blocks until the first change cannot be missed any more.
    ///
    /// # Errors
    /// [`StoreError::Moved`] where the store keeps no history and something was written since that revision: load again.
    fn follow(&self, after: u64, follower: Box<dyn Follower>) -> Result<(), StoreError>;

    /// Queues a transaction; the answer is its revision, given once it is durable and the followers have seen it. It takes
    /// place whether the answer is awaited or not. Where writes are not taken (see [`health`](Store::health)), or too many
    /// wait, the answer is there at once.
    ///
    /// A transaction without a change (checks alone) has the revision that it was decided at.
    fn txn(&self, txn: Txn) -> Answer;

    /// The revision of the last transaction that is durable and was handed on.
    fn current_revision(&self) -> u64;

    /// Whether writes are taken.
    ///
    /// # Errors
    /// Why they are not, in words for whoever operates the host.
    fn health(&self) -> Result<(), Arc<str>>;

    /// Takes no further writes, finishes those that wait, and gives back what the store holds. Blocks.
    fn close(&self);
}

/// What a key must be for an operation, and so its whole transaction, to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Anything; for a delete: that it exists.
    Any,
    /// The key does not exist.
    Absent,
    /// The key exists and was last changed at this revision.
    Revision(u64),
}

/// What happens to a key.
pub enum Change {
    /// The key gets a value.
    Put {
        /// The text with the hole closed. With [`SPARE`] bytes of capacity beyond its length it is never copied on the way.
        value: Vec<u8>,
        /// Byte offset in `value` where the transaction's revision is inserted, in decimal. At most `value.len()`.
        revision_at: usize,
        /// Handed to the follower with the change; a store may lose it.
        attachment: Option<Attachment>,
    },
    /// Conflicts when the key is absent.
    Delete,
    /// Changes nothing; the expectation alone matters.
    Check,
}

/// One key of a transaction.
pub struct Op {
    /// UTF-8 without NUL, unique in its transaction.
    pub key: Arc<str>,
    /// What the key must be.
    pub expect: Expect,
    /// What becomes of it.
    pub change: Change,
}

/// Operations that happen together, at one revision, or not at all.
#[derive(Default)]
pub struct Txn {
    /// At least one.
    pub ops: SmallVec<[Op; 1]>,
}

impl Txn {
    /// A transaction of one operation.
    pub fn one(op: Op) -> Self {
        let mut ops = SmallVec::new();
        ops.push(op);
        Txn { ops }
    }

    /// Bytes of all its values.
    fn bytes(&self) -> usize {
        let values = self.ops.iter().map(|op| match &op.change {
            Change::Put { value, .. } => value.len(),
            Change::Delete | Change::Check => 0,
        });
        values.sum()
    }

    /// The size of its largest value, where that is more than a store takes.
    fn too_large(&self) -> Option<usize> {
        self.ops.iter().find_map(|op| match &op.change {
            Change::Put { value, .. } if value.len() > MAX_VALUE => Some(value.len()),
            _ => None,
        })
    }
}

/// The whole content of a store.
pub struct Loaded {
    /// The revision that the entries show.
    pub revision: u64,
    /// In key order.
    pub entries: Vec<Entry>,
}

/// A key as it is stored.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As in [`Op::key`].
    pub key: Arc<str>,
    /// The text with `mod_revision` in it.
    pub value: Bytes,
    /// Where in `value` the revision's digits begin.
    pub revision_at: usize,
    /// The revision of the put that made the key.
    pub create_revision: u64,
    /// The revision of the last put.
    pub mod_revision: u64,
}

/// A change that is durable.
pub struct Commit {
    /// As in [`Op::key`].
    pub key: Arc<str>,
    /// The revision of the transaction that it belongs to.
    pub revision: u64,
    /// The revision of the put that made the key; 0 for a delete.
    pub create_revision: u64,
    /// What happened to the key.
    pub change: Committed,
}

/// What a commit did to its key.
pub enum Committed {
    /// The key has a value.
    Put {
        /// The text with the commit's revision in it.
        value: Bytes,
        /// Where in `value` the revision's digits begin.
        revision_at: usize,
        /// What the writer sent along; none where another process wrote, or it was lost.
        attachment: Option<Attachment>,
    },
    /// The key is gone.
    Delete,
}

/// Receives each committed batch, in revision order, before its writers are answered.
pub trait Follower: Send {
    /// Takes in a batch; never empty. It may hold what was seen already: after a failure a batch is handed on again.
    fn committed(&mut self, batch: Vec<Commit>);

    /// Everything up to a revision was handed on; the last of it changed nothing that is still there.
    fn progressed(&mut self, _revision: u64) {}
}

/// Why a store cannot be opened, read or followed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or what is on it.
    #[error("store: {0}")]
    Engine(#[from] EngineError),
    /// The system has no thread left.
    #[error("store: start the committer thread: {0}")]
    Thread(#[source] std::io::Error),
    /// Something was written since the revision that was to be followed.
    #[error("store: it is at revision {current}, and keeps no history from {after} on")]
    Moved {
        /// The revision asked for.
        after: u64,
        /// The revision that it is at.
        current: u64,
    },
    /// Writes are off, and so is reading from the disk.
    #[error("store: {0}")]
    Unavailable(Arc<str>),
    /// It was closed.
    #[error("store: closed")]
    Closed,
}

/// Why a transaction did not take place, or may not have.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TxnError {
    /// A key is not what the operation expects. Whatever made it so is durable and was handed to the followers.
    #[error("store: {key} is at revision {actual:?}, not as the transaction expects")]
    Conflict {
        /// The first key whose expectation does not hold.
        key: Arc<str>,
        /// Its last change; none when it is absent.
        actual: Option<u64>,
    },
    /// A value of so many bytes is larger than [`MAX_VALUE`].
    #[error("store: a value of {0} bytes is larger than {MAX_VALUE}")]
    TooLarge(usize),
    /// It did not take place: more waits for the disk than the store keeps in memory.
    #[error("store: too many writes wait for the disk")]
    Overloaded,
    /// It did not take place; writes are off until the store has recovered.
    #[error("store: no write is taken: {0}")]
    Unavailable(Arc<str>),
    /// It may have taken place or not: read to learn which.
    #[error("store: whether the write took place is not known: {0}")]
    Unknown(Arc<str>),
    /// It did not take place: the store was closed.
    #[error("store: closed")]
    Closed,
}

/// The answer to a transaction. Dropped, the transaction goes on.
pub struct Answer(Answered);

enum Answered {
    Now(Option<Result<u64, TxnError>>),
    Later(oneshot::Receiver<Result<u64, TxnError>>),
}

impl Answer {
    /// An answer that is known.
    pub fn now(result: Result<u64, TxnError>) -> Answer {
        Answer(Answered::Now(Some(result)))
    }

    /// An answer that comes over a channel; a sender dropped without a word is [`TxnError::Unknown`].
    pub fn later(receiver: oneshot::Receiver<Result<u64, TxnError>>) -> Answer {
        Answer(Answered::Later(receiver))
    }
}

impl Future for Answer {
    type Output = Result<u64, TxnError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let lost = || Err(TxnError::Unknown("no answer came".into()));
        match &mut self.0 {
            Answered::Now(result) => Poll::Ready(result.take().unwrap_or_else(lost)),
            Answered::Later(receiver) => Pin::new(receiver)
                .poll(context)
                .map(|answer| answer.unwrap_or_else(|_| lost())),
        }
    }
}
