//! How a controller that counts its dependents avoids acting on an informer that has not caught up with its own writes.
//!
//! Before it creates or deletes, it notes how many events it has to see; until they came (or five minutes passed) it does not count again.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::meta::Key;

/// An event that does not come in this time was lost with a watch that was relisted; then counting again is right.
const TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Default)]
struct Expected {
    /// Creations whose event has not come yet.
    creations: i64,
    /// Uids whose deletion has not been seen yet.
    deletions: HashSet<String>,
    since: Option<Instant>,
}

/// What each key of a controller waits for.
#[derive(Default)]
pub struct Expectations(Mutex<HashMap<Key, Expected>>);

impl Expectations {
    /// May the dependents of `key` be counted?
    pub fn satisfied(&self, key: &Key) -> bool {
        match self.0.lock().get(key) {
            None => true,
            Some(e) => {
                (e.creations <= 0 && e.deletions.is_empty()) || e.since.is_none_or(|since| since.elapsed() > TIMEOUT)
            }
        }
    }

    /// `count` objects are about to be created.
    pub fn expect_creations(&self, key: &Key, count: usize) {
        let mut all = self.0.lock();
        let expected = all.entry(key.clone()).or_default();
        expected.creations = i64::try_from(count).unwrap_or(i64::MAX);
        expected.since = Some(Instant::now());
    }

    /// These objects are about to be deleted.
    pub fn expect_deletions(&self, key: &Key, uids: impl IntoIterator<Item = String>) {
        let mut all = self.0.lock();
        let expected = all.entry(key.clone()).or_default();
        expected.deletions = uids.into_iter().collect();
        expected.since = Some(Instant::now());
    }

    /// A creation was seen, or failed.
    pub fn created(&self, key: &Key) {
        if let Some(expected) = self.0.lock().get_mut(key) {
            expected.creations = expected.creations.saturating_sub(1).max(0);
        }
    }

    /// A deletion was seen, or failed.
    pub fn deleted(&self, key: &Key, uid: &str) {
        if let Some(expected) = self.0.lock().get_mut(key) {
            expected.deletions.remove(uid);
        }
    }

    /// The key's object is gone.
    pub fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_waits_for_every_expected_event() {
        let (all, key) = (Expectations::default(), Key::new("a", "b"));
        assert!(all.satisfied(&key));
        all.expect_creations(&key, 2);
        all.created(&key);
        assert!(!all.satisfied(&key));
        all.created(&key);
        assert!(all.satisfied(&key));
        all.expect_deletions(&key, ["u1".to_owned(), "u2".to_owned()]);
        all.deleted(&key, "u1");
        all.deleted(&key, "u1");
        assert!(!all.satisfied(&key));
        all.deleted(&key, "u2");
        assert!(all.satisfied(&key));
    }
}
