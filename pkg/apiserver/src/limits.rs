//! How many requests are worked on at once. A permit lasts until the answer's body is sent, but no longer than the request's
//! deadline: who never reads his answer keeps his connection, not everybody else's place.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Places for one kind of request.
#[derive(Clone)]
pub struct Pool {
    size: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    /// When each permit ends at the latest.
    permits: HashMap<u64, Instant>,
    next: u64,
}

/// A place, until it is dropped.
pub struct Permit {
    number: u64,
    held: Arc<Mutex<Held>>,
}

impl Pool {
    pub fn new(size: usize) -> Pool {
        let held = Arc::default();
        Pool { size, held }
    }

    /// A place until a deadline; None where all are taken.
    pub fn take(&self, deadline: Instant) -> Option<Permit> {
        let mut held = self.held.lock();
        if held.permits.len() >= self.size {
            let now = Instant::now();
            held.permits.retain(|_, deadline| *deadline > now);
            if held.permits.len() >= self.size {
                return None;
            }
        }
        let number = held.next;
        held.next += 1;
        held.permits.insert(number, deadline);
        Some(Permit {
            number,
            held: self.held.clone(),
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.held.lock().permits.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn places_come_back_when_their_time_is_over() {
        let pool = Pool::new(1);
        let soon = Instant::now() + Duration::from_millis(30);
        let held = pool.take(soon);
        assert!(held.is_some() && pool.take(soon).is_none());
        drop(held);
        let late = pool.take(soon);
        assert!(late.is_some());
        std::thread::sleep(Duration::from_millis(40));
        let next = pool.take(Instant::now() + Duration::from_secs(1));
        assert!(next.is_some(), "its time is over");
        drop(late);
        assert!(
            pool.take(soon).is_none(),
            "what it no longer held is not given back twice"
        );
    }
}
