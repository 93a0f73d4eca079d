//! Rests: a key whose every look costs much, since all its pods have to be looked at, waits between two looks that events cause, so
//! that it takes no processor for itself. What its events change meanwhile is then dealt with at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use mk8s_client::WorkQueue;
use parking_lot::Mutex;
use tokio::time::Instant;

/// For each moment of work so many are rested. Who has a few pods rests unnoticed.
const REST: u32 = 10;
const LONGEST: Duration = Duration::from_secs(1);
/// What costs less is not worth a note.
const UNNOTICED: Duration = Duration::from_micros(100);

/// Until when keys rest.
pub struct Rests<Q>(Mutex<HashMap<Q, Instant>>);

impl<Q> Default for Rests<Q> {
    fn default() -> Self {
        Rests(Mutex::default())
    }
}

impl<Q: Clone + Eq + Hash> Rests<Q> {
    /// So long it was worked on: looked at, that is. What it makes at once is no reason to look at it later.
    pub fn worked(&self, key: &Q, time: Duration) {
        let mut all = self.0.lock();
        if time < UNNOTICED {
            all.remove(key);
        } else {
            all.insert(key.clone(), Instant::now() + (time * REST).min(LONGEST));
        }
    }

    /// What is left of the key's rest.
    pub fn left(&self, key: &Q) -> Duration {
        let until = self.0.lock().get(key).copied();
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Has keys looked at after their rest.
    pub fn wake(&self, queue: &WorkQueue<Q>, keys: impl IntoIterator<Item = Q>) {
        for key in keys {
            let rest = self.left(&key);
            queue.add_after(key, rest);
        }
    }

    /// Nothing of the key is to be looked at any more.
    pub fn forget(&self, key: &Q) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_rests_as_long_as_its_work_was_hard() {
        let rests = Rests::default();
        for (work, rest) in [(0, 0), (2, 20), (99, 990), (5000, 1000)] {
            rests.worked(&"a", Duration::from_millis(work));
            assert_eq!(rests.left(&"a"), Duration::from_millis(rest));
        }
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(rests.left(&"a"), Duration::from_millis(1));
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(rests.left(&"a"), Duration::ZERO);
        assert_eq!(rests.left(&"b"), Duration::ZERO);
    }
}
