//! Notes of how far the store has come, for the next start to compare with. Not with each batch: two more fsyncs would double
//! its cost. A minute apart, and at a clean end, where there is time to count what there is.

use std::time::{Duration, Instant};

use super::{Committer, Refused};
use crate::engine::{Content, EngineError};

pub(super) struct Marks {
    every: Duration,
    last: Instant,
    /// Of the last mark.
    revision: u64,
}

impl Marks {
    /// The opening has just made one.
    pub fn new(revision: u64, every: Duration) -> Marks {
        Marks {
            every,
            last: Instant::now(),
            revision,
        }
    }

    /// When the next one is to be made, if there is anything new.
    pub fn due(&self, revision: u64) -> Option<Instant> {
        (revision > self.revision).then(|| self.last + self.every)
    }
}

impl Committer {
    pub(super) fn mark_if_due(&mut self) {
        let due = self.marks.due(self.revision);
        if self.failed.is_some() || due.is_none_or(|due| Instant::now() < due) {
            return;
        }
        let Some(engine) = &self.engine else { return };
        match engine.mark(None) {
            // What is written from here on would be nowhere at the next start.
            Err(error @ EngineError::Refused { .. }) => self.fail(Refused::InDoubt(error.to_string())),
            marked => tell(marked),
        }
        self.marks.last = Instant::now();
        self.marks.revision = self.revision;
    }

    /// Nothing is written after this.
    pub(super) fn mark_the_end(&self) {
        let Some(engine) = &self.engine else { return };
        tell(engine.mark(Some(Content::of(&self.index))));
    }
}

/// Without it the store works as before; only damage would be seen less well.
fn tell(marked: Result<(), EngineError>) {
    if let Err(error) = marked {
        tracing::warn!(%error, "store: how far it has come could not be noted");
    }
}
