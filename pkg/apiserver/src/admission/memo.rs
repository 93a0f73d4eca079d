//! What plugins read of an object, parsed once per state of it: the cache's bytes are shared and never changed, so the
//! same memory is the same object.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

pub(super) struct Memo<T>(RwLock<HashMap<String, (Bytes, Arc<T>)>>);

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Memo(RwLock::default())
    }
}

/// Beyond this many objects all are parsed anew.
const MAX: usize = 10_000;

impl<T> Memo<T> {
    pub fn get(&self, key: &str, bytes: Bytes, parse: impl FnOnce(&[u8]) -> T) -> Arc<T> {
        if let Some((held, parsed)) = self.0.read().get(key)
            && held.as_ptr() == bytes.as_ptr()
            && held.len() == bytes.len()
        {
            return parsed.clone();
        }
        let parsed = Arc::new(parse(&bytes));
        let mut map = self.0.write();
        if map.len() >= MAX {
            map.clear();
        }
        // The bytes are held along, so that their memory can't come to hold another object.
        map.insert(key.to_string(), (bytes, parsed.clone()));
        parsed
    }
}
