//! A map that forgets: what was read last stays, within a bound in bytes, so that images that come and go (or are made to
//! be large) don't fill the memory.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Bytes that all entries together may have been made from.
const LIMIT: usize = 4 << 20;
/// What an entry costs at least: its key and its place.
const ENTRY: usize = 256;

pub(super) struct Recent<T>(Mutex<Entries<T>>);

struct Entries<T> {
    by_key: HashMap<String, Entry<T>>,
    size: usize,
    clock: u64,
}

struct Entry<T> {
    value: Arc<T>,
    size: usize,
    used: u64,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Recent(Mutex::new(Entries {
            by_key: HashMap::new(),
            size: 0,
            clock: 0,
        }))
    }
}

impl<T> Recent<T> {
    pub(super) fn get(&self, key: &str) -> Option<Arc<T>> {
        let mut entries = self.0.lock();
        entries.clock += 1;
        let now = entries.clock;
        let entry = entries.by_key.get_mut(key)?;
        entry.used = now;
        Some(entry.value.clone())
    }

    /// `size`: the bytes that the value was made from. Those used longest ago go.
    pub(super) fn insert(&self, key: &str, value: T, size: usize) -> Arc<T> {
        let value = Arc::new(value);
        let mut entries = self.0.lock();
        entries.clock += 1;
        let entry = Entry {
            value: value.clone(),
            size: size + ENTRY,
            used: entries.clock,
        };
        entries.size += entry.size;
        if let Some(old) = entries.by_key.insert(key.to_owned(), entry) {
            entries.size -= old.size;
        }
        while entries.size > LIMIT {
            let oldest = entries.by_key.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            if let Some(old) = entries.by_key.remove(&oldest) {
                entries.size -= old.size;
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays_within_the_bound() {
        let cache = Recent::default();
        let part = LIMIT / 4;
        for key in ["a", "b", "c"] {
            cache.insert(key, key, part);
        }
        cache.get("a");
        cache.insert("d", "d", part);
        assert_eq!(
            ["a", "b", "c", "d"].map(|key| cache.get(key).is_some()),
            [true, false, true, true]
        );
        // One that alone is too large is handed on and not kept.
        assert_eq!(*cache.insert("huge", "huge", LIMIT + 1), "huge");
        assert!(cache.get("huge").is_none());
        cache.insert("a", "again", 1);
        let entries = cache.0.lock();
        assert_eq!(
            entries.size,
            entries.by_key.values().map(|entry| entry.size).sum::<usize>()
        );
    }
}
