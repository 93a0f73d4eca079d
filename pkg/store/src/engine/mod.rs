//! What the committer asks of a disk: read everything at start, then write batches that are durable or failed.

mod format1;
mod inspect;
mod mark;
pub(crate) mod sled;
mod sled_faults;

use std::path::PathBuf;
use std::sync::Arc;

use crate::Entry;
pub(crate) use mark::Content;

/// What the committer remembers of each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revisions {
    pub create: u64,
    pub modified: u64,
    /// Further records that the engine cut the value into.
    pub chunks: u16,
}

pub(crate) struct Write {
    pub key: Arc<str>,
    pub revision: u64,
    /// Further records of the value that this write replaces.
    pub stale_chunks: u16,
    pub change: WriteChange,
}

pub(crate) enum WriteChange {
    /// The text with its hole closed, and where that is.
    Put {
        value: Vec<u8>,
        hole: usize,
        create_revision: u64,
    },
    Delete,
}

/// Every key, in order.
pub(crate) type Index = Vec<(Arc<str>, Revisions)>;

/// An engine and what it holds.
pub(crate) struct Opened {
    pub engine: Box<dyn Engine>,
    pub index: Index,
}

/// Opens the engine again after it failed.
pub(crate) type Opener = Box<dyn FnMut() -> Result<Opened, EngineError> + Send>;

pub(crate) trait Engine: Send {
    /// The revision of the last batch.
    fn revision(&self) -> u64;
    /// In key order.
    fn load(&self) -> Result<Vec<Entry>, EngineError>;
    fn read(&self, key: &Arc<str>) -> Result<Option<Entry>, EngineError>;
    /// How many further records a value of this length is cut into.
    fn chunks(&self, length: usize) -> u16;
    /// Sees to it that the disk has room for a batch with so many bytes of values. A failure leaves the engine as it was.
    fn reserve(&mut self, bytes: usize) -> Result<(), EngineError>;
    /// Writes all or nothing, and returns when it is on disk; an empty batch too. After a failure, which of the two it was
    /// shows only when the engine is opened again. The values' buffers are used, and left as they were.
    fn apply(&mut self, batch: &mut [Write], revision: u64) -> Result<(), EngineError>;
    /// Gives back memory that caching the records of these keys' neighbours takes, as far as it can.
    fn trim(&self, keys: &[Arc<str>]) -> Result<(), EngineError>;
    /// Notes beside the data, durably, that its revision is reached, and what there is at it where that is known: a later
    /// opening of less is refused. [`EngineError::Refused`]: the data was taken away from under it.
    fn mark(&self, content: Option<Content>) -> Result<(), EngineError>;
    /// The end of an engine that has failed: whatever state it is in, it can be opened again afterwards.
    fn abandon(self: Box<Self>);
}

/// Why the disk does not do what is asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The system refused something.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was asked of it.
        what: &'static str,
        /// The store's folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// sled refused something.
    #[error("{what} in {path}: {source}")]
    Sled {
        /// What was asked of it.
        what: &'static str,
        /// The store's folder.
        path: PathBuf,
        /// Why not.
        source: ::sled::Error,
    },
    /// The data was written by a later version, which this one must not touch.
    #[error(
        "{path} has format {found}, written by a newer mk8s; this one reads up to {known}: install that version again"
    )]
    NewerFormat {
        /// The store's folder.
        path: PathBuf,
        /// The format of its data.
        found: u64,
        /// The newest that this version knows.
        known: u64,
    },
    /// What is there is not the database that there was, and was left as it is.
    #[error(
        "{path} {why}: put a copy of the folder back, remove {path}/mark to go on with what it holds, or begin anew with `mk8s reset`"
    )]
    Refused {
        /// The store's folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A record is not what was written.
    #[error("{path}: record {key} is damaged ({why}); restore the last backup")]
    Damaged {
        /// The store's folder.
        path: PathBuf,
        /// The record's key.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl EngineError {
    fn newer(dir: &std::path::Path, found: u64) -> EngineError {
        EngineError::NewerFormat {
            path: dir.to_path_buf(),
            found,
            known: sled::FORMAT,
        }
    }
}
