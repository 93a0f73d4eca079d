//! The time that the searches of one decision may take, all together: the other pods wait for it. It runs from the first look at the
//! clock: most searches are over before it is worth one. Those find what they look for also when the time is over.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// See the module.
pub struct Clock {
    timeout: Option<Duration>,
    until: Cell<Option<Instant>>,
}

/// The steps of one search.
pub struct Steps<'c> {
    clock: &'c Clock,
    made: u32,
}

/// So many steps are made before the next look.
const STEPS: u32 = 256;

impl Clock {
    /// None: there is time without end.
    pub fn new(timeout: Option<Duration>) -> Self {
        Clock {
            timeout,
            until: Cell::new(None),
        }
    }

    /// Of a search that begins.
    pub fn steps(&self) -> Steps<'_> {
        Steps { clock: self, made: 0 }
    }
}

/// What a step finds out about the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nobody looked.
    No,
    InTime,
    Over,
}

impl Steps<'_> {
    /// A step is made.
    pub fn step(&mut self) -> Look {
        self.made += 1;
        if self.made < STEPS {
            return Look::No;
        }
        self.made = 0;
        let now = Instant::now();
        let begins = || now.checked_add(self.clock.timeout?);
        let until = self.clock.until.get().or_else(begins);
        self.clock.until.set(until);
        match until.is_some_and(|until| now >= until) {
            true => Look::Over,
            false => Look::InTime,
        }
    }
}
