//! The one thread that writes: it drains the queue, decides each transaction against the index of revisions, and makes
//! all that pass durable with one batch and one fsync (group commit).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::engine::{Engine, Write, WriteChange};
use crate::{Change, Commit, Committed, Expect, Follower, Op, Request, StoreError, Txn, TxnError};

/// Bounds of one batch: what waits beyond them goes into the next fsync.
const BATCH_TXNS: usize = 1024;
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// So often, before a batch is made, those that are about to write get the processor if they wait for it. A batch costs the
/// same fsync and wakes the same threads of sled however large it is; where processors are free it costs a microsecond.
const TURNS_GIVEN: usize = 3;

/// What the committer remembers of each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revisions {
    pub create: u64,
    pub modified: u64,
    /// Further records that the engine cut the value into.
    pub chunks: u16,
}

type Index = HashMap<Arc<str>, Revisions>;

pub(crate) struct Committer {
    engine: Box<dyn Engine>,
    follower: Box<dyn Follower>,
    revision: Arc<AtomicU64>,
    index: Index,
    failed: Option<String>,
}

/// Transactions that passed and wait for the disk.
#[derive(Default)]
struct Batch {
    writes: Vec<Write>,
    attachments: Vec<Option<crate::Attachment>>,
    replies: Vec<(oneshot::Sender<Result<u64, TxnError>>, u64)>,
    /// Transactions that did not pass. What made them fail may be a write of this same batch: they are answered when that
    /// is on disk and readers see it, so that who reads again and tries again finds what it lost against.
    losers: Vec<(oneshot::Sender<Result<u64, TxnError>>, TxnError)>,
    /// What the index held before, newest last.
    undo: Vec<(Arc<str>, Option<Revisions>)>,
    bytes: usize,
}

impl Committer {
    pub fn new(
        engine: Box<dyn Engine>,
        follower: Box<dyn Follower>,
        revision: Arc<AtomicU64>,
    ) -> Result<Self, StoreError> {
        let index = engine.index()?.into_iter().collect();
        Ok(Committer {
            engine,
            follower,
            revision,
            index,
            failed: None,
        })
    }

    pub fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            for _ in 0..TURNS_GIVEN {
                std::thread::yield_now();
            }
            let mut batch = Batch::default();
            let mut revision = self.revision.load(Ordering::Acquire);
            let mut next = Some(first);
            while let Some(request) = next {
                self.stage(request, &mut batch, &mut revision);
                let full = batch.replies.len() + batch.losers.len() >= BATCH_TXNS || batch.bytes >= BATCH_BYTES;
                next = if full { None } else { requests.try_recv().ok() };
            }
            self.commit(batch, revision);
        }
    }

    /// Decides one transaction, against what the batch will have written; the answer comes with the batch's end.
    fn stage(&mut self, request: Request, batch: &mut Batch, revision: &mut u64) {
        let Request { txn, reply } = request;
        if let Some(cause) = &self.failed {
            let _ = reply.send(Err(TxnError::Unavailable(cause.clone())));
            return;
        }
        if let Some(conflict) = conflict(&self.index, &txn) {
            batch.losers.push((reply, conflict));
            return;
        }
        let changes = txn.ops.iter().any(|op| !matches!(op.change, Change::Check));
        if changes {
            *revision += 1;
        }
        for op in txn.ops {
            self.stage_op(op, *revision, batch);
        }
        batch.replies.push((reply, *revision));
    }

    fn stage_op(&mut self, op: Op, revision: u64, batch: &mut Batch) {
        let before = self.index.get(&op.key).copied();
        let (change, attachment) = match op.change {
            Change::Check => return,
            Change::Delete => {
                self.index.remove(&op.key);
                (WriteChange::Delete, None)
            }
            Change::Put {
                value,
                revision_at,
                attachment,
            } => {
                let value = splice(value, revision_at, revision);
                batch.bytes += value.len();
                let chunks = self.engine.chunks(value.len());
                let create = before.map_or(revision, |before| before.create);
                self.index.insert(
                    op.key.clone(),
                    Revisions {
                        create,
                        modified: revision,
                        chunks,
                    },
                );
                (
                    WriteChange::Put {
                        value,
                        create_revision: create,
                    },
                    attachment,
                )
            }
        };
        batch.undo.push((op.key.clone(), before));
        batch.writes.push(Write {
            key: op.key,
            revision,
            stale_chunks: before.map_or(0, |b| b.chunks),
            change,
        });
        batch.attachments.push(attachment);
    }

    fn commit(&mut self, batch: Batch, revision: u64) {
        if let Err(error) = self.write(&batch, revision) {
            tracing::error!(%error, "store: a batch could not be written; writes are refused from here on");
            for (key, before) in batch.undo.into_iter().rev() {
                match before {
                    Some(before) => self.index.insert(key, before),
                    None => self.index.remove(&key),
                };
            }
            let losers = batch.losers.into_iter().map(|(reply, _)| reply);
            for reply in batch.replies.into_iter().map(|(reply, _)| reply).chain(losers) {
                let _ = reply.send(Err(TxnError::Unavailable(error.clone())));
            }
            self.failed = Some(error);
            return;
        }
        let commits = batch
            .writes
            .into_iter()
            .zip(batch.attachments)
            .map(|(write, attachment)| {
                let (create_revision, change) = match write.change {
                    WriteChange::Put { value, create_revision } => {
                        (create_revision, Committed::Put { value, attachment })
                    }
                    WriteChange::Delete => (0, Committed::Delete),
                };
                Commit {
                    key: write.key,
                    revision: write.revision,
                    create_revision,
                    change,
                }
            });
        self.follower.committed(commits.collect());
        self.revision.store(revision, Ordering::Release);
        for (reply, revision) in batch.replies {
            let _ = reply.send(Ok(revision));
        }
        for (reply, conflict) in batch.losers {
            let _ = reply.send(Err(conflict));
        }
    }

    fn write(&mut self, batch: &Batch, revision: u64) -> Result<(), String> {
        if batch.writes.is_empty() {
            return Ok(());
        }
        self.engine
            .apply(&batch.writes, revision)
            .map_err(|error| error.to_string())
    }
}

/// The first operation whose expectation does not hold.
fn conflict(index: &Index, txn: &Txn) -> Option<TxnError> {
    txn.ops.iter().find_map(|op| {
        let actual = index.get(&op.key).map(|revisions| revisions.modified);
        let holds = match op.expect {
            Expect::Any => !matches!(op.change, Change::Delete) || actual.is_some(),
            Expect::Absent => actual.is_none(),
            Expect::Revision(revision) => actual == Some(revision),
        };
        (!holds).then(|| TxnError::Conflict {
            key: op.key.clone(),
            actual,
        })
    })
}

/// Inserts the revision's decimal digits at `at`.
fn splice(value: Vec<u8>, at: usize, revision: u64) -> Bytes {
    let digits = revision.to_string();
    let at = at.min(value.len());
    let mut out = Vec::with_capacity(value.len() + digits.len());
    out.extend_from_slice(&value[..at]);
    out.extend_from_slice(digits.as_bytes());
    out.extend_from_slice(&value[at..]);
    Bytes::from(out)
}
