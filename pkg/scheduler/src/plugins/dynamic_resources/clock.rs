//! The time that a search may take. It runs from the first look at the clock: most searches are over before it is worth one.

use std::time::{Duration, Instant};

/// See the module.
pub struct Clock {
    timeout: Option<Duration>,
    steps: u32,
    until: Option<Instant>,
}

/// So many steps are made before the next look.
const STEPS: u32 = 256;

impl Clock {
    /// None: there is time without end.
    pub fn new(timeout: Option<Duration>) -> Self {
        Clock {
            timeout,
            steps: 0,
            until: None,
        }
    }

    /// A step is made: whether the time is over.
    pub fn is_over(&mut self) -> bool {
        self.steps += 1;
        if self.steps < STEPS {
            return false;
        }
        self.steps = 0;
        let Some(timeout) = self.timeout else { return false };
        let now = Instant::now();
        now >= *self.until.get_or_insert(now + timeout)
    }
}
