//! Whether a connection does anything: requests whose answers are still on their way, and when the last one ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// One connection's.
#[derive(Clone)]
pub struct Activity(Arc<Mutex<State>>);

struct State {
    active: usize,
    last: Instant,
}

impl Activity {
    pub fn new() -> Activity {
        Activity(Arc::new(Mutex::new(State {
            active: 0,
            last: Instant::now(),
        })))
    }

    /// A request has come in; it lasts until what is returned is dropped.
    pub fn begin(&self) -> Busy {
        self.0.lock().active += 1;
        Busy(self.0.clone())
    }

    /// How much longer the connection may stay silent; None where that is over.
    pub fn patience(&self, idle: Duration) -> Option<Duration> {
        let state = self.0.lock();
        if state.active > 0 {
            return Some(idle);
        }
        idle.checked_sub(state.last.elapsed()).filter(|left| !left.is_zero())
    }
}

pub struct Busy(Arc<Mutex<State>>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.active -= 1;
        state.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_ends() {
        let activity = Activity::new();
        assert!(activity.patience(Duration::from_secs(1)).is_some());
        assert!(activity.patience(Duration::ZERO).is_none());
        let busy = activity.begin();
        assert!(activity.patience(Duration::ZERO).is_some());
        drop(busy);
        assert!(activity.patience(Duration::ZERO).is_none());
    }
}
