//! What was worked out once and is remembered under a key that a client chooses: a token's claims, what admission reads of
//! an object. Clients may invent keys and fill what lies under them, so the bound is one of bytes: what is long is worked
//! out each time, and what was not asked for since the memory last filled is forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::lookup::Found;

/// Bytes of everything in one memo. Half of it is what was used lately, the other what was used before.
const MAX_BYTES: usize = 16 << 20;
/// Bytes of one entry; real tokens and accounts have one or two thousand.
const MAX_ENTRY: usize = 16 << 10;
/// What an entry takes beside what it holds.
const OVERHEAD: usize = 256;

pub struct Memo<T>(RwLock<Generations<T>>);

struct Generations<T> {
    young: HashMap<Box<str>, Entry<T>>,
    old: HashMap<Box<str>, Entry<T>>,
    /// Of the young.
    bytes: usize,
}

struct Entry<T> {
    value: Arc<T>,
    bytes: usize,
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Memo(RwLock::new(Generations {
            young: HashMap::new(),
            old: HashMap::new(),
            bytes: 0,
        }))
    }
}

impl<T> Memo<T> {
    pub fn get(&self, key: &str) -> Option<Arc<T>> {
        if let Some(found) = self.0.read().young.get(key) {
            return Some(found.value.clone());
        }
        if !self.0.read().old.contains_key(key) {
            return None;
        }
        let mut all = self.0.write();
        let (key, used) = all.old.remove_entry(key)?;
        let value = used.value.clone();
        all.insert(key, used);
        Some(value)
    }

    /// Remembers what takes about so many bytes, its key not counted.
    pub fn put(&self, key: &str, value: Arc<T>, bytes: usize) {
        let mut all = self.0.write();
        all.old.remove(key);
        if key.len() + bytes <= MAX_ENTRY {
            let bytes = key.len() + bytes + OVERHEAD;
            all.insert(key.into(), Entry { value, bytes });
        } else if let Some(before) = all.young.remove(key) {
            all.bytes -= before.bytes;
        }
    }
}

impl<T> Generations<T> {
    fn insert(&mut self, key: Box<str>, entry: Entry<T>) {
        if self.bytes + entry.bytes > MAX_BYTES / 2 {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += entry.bytes;
        if let Some(before) = self.young.insert(key, entry) {
            self.bytes -= before.bytes;
        }
    }
}

/// What is read of objects, parsed once per state of each.
pub struct Parsed<T>(Memo<(u64, Arc<T>)>);

impl<T> Default for Parsed<T> {
    fn default() -> Self {
        Parsed(Memo::default())
    }
}

impl<T> Parsed<T> {
    /// What `parse` makes of an object: no more than a few times its text's length.
    pub fn get(&self, key: &str, found: Found, parse: impl FnOnce(&[u8]) -> T) -> Arc<T> {
        if let Some(held) = self.0.get(key)
            && held.0 == found.revision
        {
            return held.1.clone();
        }
        let parsed = Arc::new(parse(&found.json));
        self.0
            .put(key, Arc::new((found.revision, parsed.clone())), found.json.len());
        parsed
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bytes_of<T>(memo: &Memo<T>) -> usize {
        let all = memo.0.read();
        let of = |entries: &HashMap<Box<str>, Entry<T>>| entries.values().map(|entry| entry.bytes).sum::<usize>();
        assert_eq!(of(&all.young), all.bytes);
        of(&all.young) + of(&all.old)
    }

    /// Ten thousand were kept of whatever size they were.
    #[test]
    fn what_is_remembered_has_a_bound_in_bytes() {
        let memo = Memo::default();
        memo.put("used", Arc::new(7), 1000);
        memo.put("once", Arc::new(8), 1000);
        for at in 0..10_000 {
            memo.put(&format!("{at}"), Arc::new(at), 10_000);
            assert_eq!(memo.get("used").as_deref(), Some(&7), "{at}");
        }
        assert!(bytes_of(&memo) <= MAX_BYTES);
        assert_eq!(memo.get("once"), None);
        assert_eq!(memo.get("9999").as_deref(), Some(&9999));
        memo.put("9999", Arc::new(1), MAX_ENTRY);
        assert_eq!(memo.get("9999"), None, "the next is too long, the last no longer holds");
        memo.put(&"k".repeat(MAX_ENTRY), Arc::new(1), 1);
        assert_eq!(memo.get(&"k".repeat(MAX_ENTRY)), None);
        bytes_of(&memo);
    }

    #[test]
    fn an_object_is_parsed_once_per_state() {
        let parsed = Parsed::default();
        let mut asked = 0;
        for (revision, expected) in [(1, 1), (1, 1), (2, 2), (2, 2), (1, 3)] {
            let json = bytes::Bytes::from_static(b"x");
            parsed.get("a", Found { json, revision }, |_| asked += 1);
            assert_eq!(asked, expected, "{revision}");
        }
    }
}
