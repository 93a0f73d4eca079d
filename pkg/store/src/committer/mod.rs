//! The one thread that writes: it drains the queue, decides each transaction against the index of revisions, and makes
//! all that pass durable with one batch and one fsync (group commit).
//!
//! When the disk refuses a batch, or something panics, the engine is opened again: what it then holds says what became of
//! the batch, and what the followers have not seen of it is handed to them. Until that succeeds, and the disk takes a write
//! again, no transaction is taken; reads do not come here and go on.

mod marks;
mod recovery;
#[cfg(test)]
mod tests;
mod trim;

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mk8s_supervisor::job;

use crate::embedded::Shown;
use crate::engine::{Engine, EngineError, Opened, Opener, Revisions, Write, WriteChange};
use crate::queue::{Queue, Reply, Request, Woken};
use crate::value::splice;
use crate::{Attachment, Change, Commit, Committed, Expect, Follower, Loaded, Op, StoreError, Txn, TxnError};
use marks::Marks;
use recovery::Failure;
use trim::Trim;

/// Bounds of one batch: what waits beyond them goes into the next fsync.
const BATCH_TXNS: usize = 1024;
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// So often, before a batch is made, those that are about to write get the processor if they wait for it. A batch costs the
/// same fsync and wakes the same threads of sled however large it is; where processors are free it costs a microsecond.
const TURNS_GIVEN: usize = 3;

type Index = HashMap<Arc<str>, Revisions>;

pub(crate) struct Committer {
    /// None while it cannot be opened.
    engine: Option<Box<dyn Engine>>,
    reopen: Opener,
    followers: Vec<Box<dyn Follower>>,
    shown: Arc<Shown>,
    /// What the followers have seen, and the batch under way.
    index: Index,
    revision: u64,
    failed: Option<Failure>,
    waiting: VecDeque<Request>,
    /// Kept here, so that a panic does not lose it.
    batch: Batch,
    trim: Trim,
    marks: Marks,
}

/// Transactions that passed and wait for the disk.
#[derive(Default)]
struct Batch {
    writes: Vec<Write>,
    attachments: Vec<Option<Attachment>>,
    replies: Vec<(Reply, u64)>,
    /// Transactions that did not pass. What made them fail may be a write of this same batch: they are answered when that
    /// is on disk and readers see it, so that who reads again and tries again finds what it lost against.
    losers: Vec<(Reply, TxnError)>,
    /// What the index held before, newest last.
    undo: Vec<(Arc<str>, Option<Revisions>)>,
    bytes: usize,
    /// Of its last transaction; 0 while nothing changes.
    revision: u64,
}

/// Why a batch did not come about.
enum Refused {
    /// The engine was not touched: it did not take place.
    NoRoom(EngineError),
    /// Whether it took place shows when the engine is opened again.
    InDoubt(String),
}

impl Committer {
    pub fn new(opened: Opened, reopen: Opener, shown: Arc<Shown>, mark_every: Duration) -> Self {
        Committer {
            marks: Marks::new(opened.engine.revision(), mark_every),
            revision: opened.engine.revision(),
            index: opened.index.into_iter().collect(),
            engine: Some(opened.engine),
            reopen,
            followers: Vec::new(),
            shown,
            failed: None,
            waiting: VecDeque::new(),
            batch: Batch::default(),
            trim: Trim::default(),
        }
    }

    pub fn run(mut self, queue: &Queue) {
        loop {
            let idle = self.waiting.is_empty();
            let woken = if idle {
                queue.wait(self.wakes_at())
            } else {
                Woken::Arrived
            };
            // From all that follows the disk may not come back.
            self.shown.set_busy(true);
            match woken {
                Woken::Closed => return self.mark_the_end(),
                Woken::Timeout if self.trim.is_due() && self.failed.is_none() => self.trim_slice(),
                Woken::Arrived if idle => {
                    for _ in 0..TURNS_GIVEN {
                        std::thread::yield_now();
                    }
                }
                Woken::Timeout | Woken::Arrived => {}
            }
            if self.failed.as_ref().is_some_and(Failure::is_due) {
                self.recover();
            }
            let turn = std::panic::catch_unwind(AssertUnwindSafe(|| self.turn(queue)));
            let refused = match turn {
                Ok(Ok(())) => None,
                Ok(Err(refused)) => Some(refused),
                Err(panic) => Some(Refused::InDoubt(panicked(panic.as_ref()))),
            };
            if let Some(refused) = refused {
                self.fail(refused);
            }
            self.mark_if_due();
            self.shown.set_busy(false);
        }
    }

    /// When there is something to do though nobody writes.
    fn wakes_at(&self) -> Option<Instant> {
        match &self.failed {
            Some(failure) => Some(failure.retry_at()),
            None => [self.trim.due(), self.marks.due(self.revision)]
                .into_iter()
                .flatten()
                .min(),
        }
    }

    /// Takes what waits, up to a batch, and commits it.
    fn turn(&mut self, queue: &Queue) -> Result<(), Refused> {
        loop {
            if self.waiting.is_empty() {
                queue.drain(&mut self.waiting);
            }
            match self.waiting.pop_front() {
                None => break,
                Some(Request::Txn { txn, reply }) => self.stage(txn, reply),
                // These see the store between two batches.
                Some(other) => {
                    self.commit()?;
                    self.serve(other);
                }
            }
            if self.batch.is_full() {
                break;
            }
        }
        self.commit()
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Txn { .. } => {}
            Request::Load(reply) => {
                let loaded = self.load();
                let _ = reply.send(loaded);
            }
            Request::Follow { after, follower, reply } => {
                let current = self.revision;
                let followed = if after == current {
                    self.followers.push(follower);
                    Ok(())
                } else {
                    Err(StoreError::Moved { after, current })
                };
                let _ = reply.send(followed);
            }
        }
    }

    fn load(&self) -> Result<Loaded, StoreError> {
        let Some(engine) = &self.engine else {
            let cause = self.failed.as_ref().map(Failure::cause);
            return Err(StoreError::Unavailable(cause.unwrap_or_default()));
        };
        let mut entries = engine.load()?;
        for entry in &mut entries {
            // One text per key, here and in the cache.
            if let Some((key, _)) = self.index.get_key_value(&entry.key) {
                entry.key = key.clone();
            }
        }
        Ok(Loaded {
            revision: self.revision,
            entries,
        })
    }

    /// Decides one transaction, against what the batch will have written; the answer comes with the batch's end.
    fn stage(&mut self, txn: Txn, reply: Reply) {
        if let Some(failure) = &self.failed {
            let _ = reply.send(Err(TxnError::Unavailable(failure.cause())));
            return;
        }
        if let Some(conflict) = conflict(&self.index, &txn) {
            self.batch.losers.push((reply, conflict));
            return;
        }
        let decided_at = self.revision.max(self.batch.revision);
        let changes = txn.ops.iter().any(|op| !matches!(op.change, Change::Check));
        let revision = if changes { decided_at + 1 } else { decided_at };
        for op in txn.ops {
            self.stage_op(op, revision);
        }
        if changes {
            self.batch.revision = revision;
        }
        self.batch.replies.push((reply, revision));
    }

    fn stage_op(&mut self, op: Op, revision: u64) {
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
                self.batch.bytes += value.len();
                let create = before.map_or(revision, |before| before.create);
                let revisions = Revisions {
                    create,
                    modified: revision,
                    chunks: self.engine.as_ref().map_or(0, |engine| engine.chunks(value.len())),
                };
                self.index.insert(op.key.clone(), revisions);
                let change = WriteChange::Put {
                    hole: revision_at.min(value.len()),
                    value,
                    create_revision: create,
                };
                (change, attachment)
            }
        };
        self.batch.undo.push((op.key.clone(), before));
        self.batch.writes.push(Write {
            key: op.key,
            revision,
            stale_chunks: before.map_or(0, |before| before.chunks),
            change,
        });
        self.batch.attachments.push(attachment);
    }

    /// Makes the batch durable, hands it on and answers its writers.
    fn commit(&mut self) -> Result<(), Refused> {
        let batch = &mut self.batch;
        if !batch.writes.is_empty() {
            let Some(engine) = &mut self.engine else {
                return Err(Refused::InDoubt("the store is not open".into()));
            };
            engine.reserve(batch.bytes).map_err(Refused::NoRoom)?;
            let applied = engine.apply(&mut batch.writes, batch.revision);
            applied.map_err(|error| Refused::InDoubt(error.to_string()))?;
            let commits = std::mem::take(&mut batch.writes)
                .into_iter()
                .zip(batch.attachments.drain(..));
            let commits = commits
                .map(|(write, attachment)| delivered(write, attachment))
                .collect();
            let revision = batch.revision;
            self.trim.wrote(batch.undo.len());
            self.deliver(commits);
            self.advance(revision);
        }
        self.answer();
        Ok(())
    }

    /// Hands a batch on; the first follower gets what was sent along.
    fn deliver(&mut self, commits: Vec<Commit>) {
        let Some((first, others)) = self.followers.split_first_mut() else {
            return;
        };
        for other in others {
            other.committed(commits.iter().map(Commit::without_attachment).collect());
        }
        first.committed(commits);
    }

    fn advance(&mut self, revision: u64) {
        self.revision = revision;
        self.shown.revision.store(revision, Ordering::Release);
    }

    /// Tells the writers of the batch, which is durable and was handed on, how it went.
    fn answer(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        for (reply, revision) in batch.replies {
            let _ = reply.send(Ok(revision));
        }
        for (reply, conflict) in batch.losers {
            let _ = reply.send(Err(conflict));
        }
    }
}

impl Batch {
    fn is_full(&self) -> bool {
        self.replies.len() + self.losers.len() >= BATCH_TXNS || self.bytes >= BATCH_BYTES
    }
}

impl Commit {
    fn without_attachment(&self) -> Commit {
        let change = match &self.change {
            Committed::Delete => Committed::Delete,
            Committed::Put { value, revision_at, .. } => Committed::Put {
                value: value.clone(),
                revision_at: *revision_at,
                attachment: None,
            },
        };
        Commit {
            key: self.key.clone(),
            revision: self.revision,
            create_revision: self.create_revision,
            change,
        }
    }
}

/// A write as the followers get it.
fn delivered(write: Write, attachment: Option<Attachment>) -> Commit {
    let (create_revision, change) = match write.change {
        WriteChange::Delete => (0, Committed::Delete),
        WriteChange::Put {
            value,
            hole,
            create_revision,
        } => {
            let put = Committed::Put {
                value: splice(value, hole, write.revision),
                revision_at: hole,
                attachment,
            };
            (create_revision, put)
        }
    };
    Commit {
        key: write.key,
        revision: write.revision,
        create_revision,
        change,
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

fn panicked(panic: &(dyn Any + Send)) -> String {
    format!("the committer panicked: {}", job::record_panic("store-commit", panic))
}
