//! After a failure: what became of the batch, an engine that works again, and followers that miss nothing.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Batch, Committer, Index, Refused, panicked};
use crate::engine::Engine;
use crate::{Commit, Committed, TxnError};

/// How long writes are refused before the disk is tried again: doubled each time, from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Writes are off.
pub(super) struct Failure {
    cause: Arc<str>,
    pause: Duration,
    retry_at: Instant,
    /// Bytes of values that the disk had no room for.
    need: usize,
}

impl Failure {
    fn new(cause: String, need: usize, before: Option<&Failure>) -> Failure {
        let pause = before.map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LAST_PAUSE));
        Failure {
            cause: cause.into(),
            pause,
            retry_at: Instant::now() + pause,
            need: before.map_or(need, |before| before.need.max(need)),
        }
    }

    pub fn cause(&self) -> Arc<str> {
        self.cause.clone()
    }

    pub fn retry_at(&self) -> Instant {
        self.retry_at
    }

    pub fn is_due(&self) -> bool {
        Instant::now() >= self.retry_at
    }
}

impl Committer {
    /// Takes the batch back and turns writes off. Where it is in doubt the engine is opened again at once, which tells.
    pub(super) fn fail(&mut self, refused: Refused) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.undo(&mut self.index);
        let (cause, mut verdict) = match refused {
            Refused::NoRoom(error) => (error.to_string(), Verdict::NotThere),
            Refused::InDoubt(cause) => {
                self.abandon();
                (cause, Verdict::Unknown)
            }
        };
        tracing::error!(
            cause,
            "store: a batch could not be written; no write is taken until the disk is tried again"
        );
        self.turn_off_for(cause, batch.bytes);
        if matches!(verdict, Verdict::Unknown) && self.reopened() {
            verdict = if batch.revision > 0 && self.revision >= batch.revision {
                Verdict::There
            } else {
                Verdict::NotThere
            };
        }
        batch.answer(&verdict, &self.cause());
    }

    /// Tries the disk again, and takes writes again if it does.
    pub(super) fn recover(&mut self) {
        if !self.reopened() {
            return;
        }
        let revision = self.revision;
        // As much as was refused: it would be refused again at once.
        let need = self.failed.as_ref().map_or(0, |failure| failure.need);
        let Some(engine) = &mut self.engine else { return };
        let probe = std::panic::catch_unwind(AssertUnwindSafe(|| {
            engine.reserve(need).map_err(Refused::NoRoom)?;
            let applied = engine.apply(&mut [], revision);
            applied.map_err(|error| Refused::InDoubt(error.to_string()))
        }));
        let refused = match probe {
            Ok(Ok(())) => {
                tracing::info!("store: the disk takes writes again");
                self.failed = None;
                self.shown.set_trouble(None);
                return;
            }
            Ok(Err(refused)) => refused,
            Err(panic) => Refused::InDoubt(panicked(panic.as_ref())),
        };
        match refused {
            Refused::NoRoom(error) => self.turn_off(error.to_string()),
            Refused::InDoubt(cause) => {
                self.abandon();
                self.turn_off(cause);
            }
        }
    }

    fn cause(&self) -> Arc<str> {
        self.failed.as_ref().map(Failure::cause).unwrap_or_default()
    }

    fn turn_off(&mut self, cause: String) {
        self.turn_off_for(cause, 0);
    }

    fn turn_off_for(&mut self, cause: String, need: usize) {
        let failure = Failure::new(cause, need, self.failed.as_ref());
        self.shown.set_trouble(Some(failure.cause()));
        self.failed = Some(failure);
    }

    /// Gives the engine up. Its own end may panic too.
    fn abandon(&mut self) {
        let Some(engine) = self.engine.take() else { return };
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| engine.abandon())) {
            panicked(panic.as_ref());
        }
    }

    /// Whether the engine is open, and the followers have all that it holds.
    fn reopened(&mut self) -> bool {
        if self.engine.is_some() {
            return true;
        }
        let reopened = std::panic::catch_unwind(AssertUnwindSafe(|| self.reopen()));
        match reopened {
            Ok(Ok(())) => true,
            Ok(Err(cause)) => {
                self.turn_off(cause);
                false
            }
            Err(panic) => {
                self.turn_off(panicked(panic.as_ref()));
                false
            }
        }
    }

    fn reopen(&mut self) -> Result<(), String> {
        let opened = (self.reopen)().map_err(|error| error.to_string())?;
        let index: Index = opened.index.into_iter().collect();
        let revision = opened.engine.revision();
        if revision < self.revision {
            // Whoever went on would give their revisions out again, and watchers would never hear that they are gone.
            return Err(format!(
                "acknowledged writes are gone from the disk: it holds those up to revision {revision}, and there were {}",
                self.revision
            ));
        }
        let missed = missed(&self.index, &index, opened.engine.as_ref(), revision)?;
        if !missed.is_empty() {
            tracing::info!(changes = missed.len(), revision, "store: a batch in doubt was written");
            self.deliver(missed);
        }
        self.index = index;
        if revision > self.revision {
            for follower in &mut self.followers {
                follower.progressed(revision);
            }
            self.advance(revision);
        }
        self.engine = Some(opened.engine);
        Ok(())
    }
}

/// What turns one content into another, in revision order.
fn missed(seen: &Index, found: &Index, engine: &dyn Engine, revision: u64) -> Result<Vec<Commit>, String> {
    let mut commits = Vec::new();
    for (key, revisions) in found {
        if seen.get(key) == Some(revisions) {
            continue;
        }
        let entry = engine.read(key).map_err(|error| error.to_string())?;
        let entry = entry.ok_or_else(|| format!("the record of {key} is gone"))?;
        commits.push(Commit {
            key: entry.key,
            revision: entry.mod_revision,
            create_revision: entry.create_revision,
            change: Committed::Put {
                value: entry.value,
                revision_at: entry.revision_at,
                attachment: None,
            },
        });
    }
    let there: HashSet<&Arc<str>> = found.keys().collect();
    commits.extend(seen.keys().filter(|key| !there.contains(key)).map(|key| Commit {
        key: key.clone(),
        // Which of the batch's it was is not stored.
        revision,
        create_revision: 0,
        change: Committed::Delete,
    }));
    commits.sort_by_key(|commit| commit.revision);
    Ok(commits)
}

/// What became of a batch.
enum Verdict {
    There,
    NotThere,
    Unknown,
}

impl Batch {
    fn undo(&mut self, index: &mut Index) {
        for (key, before) in std::mem::take(&mut self.undo).into_iter().rev() {
            match before {
                Some(before) => index.insert(key, before),
                None => index.remove(&key),
            };
        }
    }

    /// Answers all of its transactions. What lost against one that did not take place is told to come again.
    fn answer(self, verdict: &Verdict, cause: &Arc<str>) {
        for (reply, revision) in self.replies {
            let _ = reply.send(match verdict {
                Verdict::There => Ok(revision),
                Verdict::NotThere => Err(TxnError::Unavailable(cause.clone())),
                Verdict::Unknown => Err(TxnError::Unknown(cause.clone())),
            });
        }
        for (reply, conflict) in self.losers {
            let _ = reply.send(Err(match verdict {
                Verdict::There => conflict,
                // It did not take place whichever it was.
                Verdict::NotThere | Verdict::Unknown => TxnError::Unavailable(cause.clone()),
            }));
        }
    }
}
