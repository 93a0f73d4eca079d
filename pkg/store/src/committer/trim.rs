//! The engine's cache given back in quiet times. sled bounds its cache only as it gets round to it, which with pages of 16
//! objects takes hundreds of thousands of them: until then it holds a second copy of everything that was written. Nothing is
//! read from there but at a start, so its pages are thrown out when nobody writes, in slices that hold up nobody for long.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Committer, Refused, panicked};

/// So many changes are worth it.
const WORTH: usize = 4096;
/// How long nobody has to have written.
const QUIET: Duration = Duration::from_secs(1);
/// How many keys are used: enough that nearly all parts of the cache are met by one of them, wherever they lie.
const KEYS: usize = 1024;
const SLICE: usize = 16;

#[derive(Default)]
pub(super) struct Trim {
    changes: usize,
    quiet_since: Option<Instant>,
    /// Those that are left of a trim under way.
    keys: Vec<Arc<str>>,
}

impl Trim {
    pub fn wrote(&mut self, changes: usize) {
        self.changes += changes;
        self.quiet_since = Some(Instant::now());
    }

    /// When the next slice is to be made, if nobody writes.
    pub fn due(&self) -> Option<Instant> {
        if self.keys.is_empty() && self.changes < WORTH {
            return None;
        }
        self.quiet_since.map(|since| since + QUIET)
    }

    pub fn is_due(&self) -> bool {
        self.due().is_some_and(|due| Instant::now() >= due)
    }
}

impl Committer {
    pub(super) fn trim_slice(&mut self) {
        if self.trim.keys.is_empty() {
            self.trim.changes = 0;
            // In the order of a hash: from everywhere.
            self.trim.keys = self.index.keys().take(KEYS).cloned().collect();
        }
        let rest = self.trim.keys.len().saturating_sub(SLICE);
        let slice = self.trim.keys.split_off(rest);
        let Some(engine) = &self.engine else { return };
        let trimmed = std::panic::catch_unwind(AssertUnwindSafe(|| engine.trim(&slice)));
        let cause = match trimmed {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panicked(panic.as_ref() as &(dyn Any + Send)),
        };
        // An engine that cannot read is opened again.
        self.trim.keys.clear();
        self.fail(Refused::InDoubt(cause));
    }
}
