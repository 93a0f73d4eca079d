//! The time that a decision may take to search for devices, on all nodes together: the other pods wait for it.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Default)]
pub struct Clock {
    /// None: there is time without end.
    until: Option<Instant>,
    over: Cell<bool>,
    /// Of all searches: most are over before it is worth a look.
    steps: Cell<u32>,
}

/// The time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over;

/// So many steps are made from one look to the next.
const STEPS: u32 = 256;

impl Clock {
    /// It begins now.
    pub fn new(timeout: Option<Duration>) -> Self {
        Clock {
            until: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            ..Clock::default()
        }
    }

    /// Before a step, each a small one.
    ///
    /// # Errors
    /// It is not to be made any more.
    pub fn step(&self) -> Result<(), Over> {
        let made = self.steps.get();
        self.steps.set(made.wrapping_add(1));
        match made.is_multiple_of(STEPS) {
            true => self.look(),
            false if self.over.get() => Err(Over),
            false => Ok(()),
        }
    }

    /// Before something that may take long by itself.
    ///
    /// # Errors
    /// It is not to be begun any more.
    pub fn look(&self) -> Result<(), Over> {
        let over = self.over.get() || self.until.is_some_and(|until| Instant::now() >= until);
        self.over.set(over);
        if over { Err(Over) } else { Ok(()) }
    }
}
