//! What the store asks of a disk: read everything once at start, then write batches that are durable or failed.

pub(crate) mod sled;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::Entry;
use crate::committer::Revisions;

pub(crate) struct Write {
    pub key: Arc<str>,
    pub revision: u64,
    /// Further records of the value that this write replaces.
    pub stale_chunks: u16,
    pub change: WriteChange,
}

pub(crate) enum WriteChange {
    Put { value: Bytes, create_revision: u64 },
    Delete,
}

pub(crate) trait Engine: Send {
    /// The revision of the last batch.
    fn revision(&self) -> u64;
    fn load(&self) -> Result<Vec<Entry>, EngineError>;
    fn index(&self) -> Result<Vec<(Arc<str>, Revisions)>, EngineError>;
    /// How many further records a value of this length is cut into.
    fn chunks(&self, length: usize) -> u16;
    /// Writes all or nothing, and returns when it is on disk.
    fn apply(&mut self, batch: &[Write], revision: u64) -> Result<(), EngineError>;
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("{what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{what} in {path}: {source}")]
    Sled {
        what: &'static str,
        path: PathBuf,
        source: ::sled::Error,
    },
    #[error(
        "{path} has format {found}, written by a newer mk8s; this one reads up to {known}: install that version again"
    )]
    NewerFormat { path: PathBuf, found: u64, known: u64 },
    #[error("{path}: record {key} is damaged ({why}); restore the last backup")]
    Damaged {
        path: PathBuf,
        key: String,
        why: &'static str,
    },
}
