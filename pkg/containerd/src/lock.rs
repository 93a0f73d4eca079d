//! One at a time per key: two images that share a layer fetch and unpack it once.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

#[derive(Default)]
pub(crate) struct KeyedLocks {
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl KeyedLocks {
    /// Waits for whoever holds the key; dropping the guard lets the next one in.
    pub(crate) async fn lock(&self, key: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock();
            locks.retain(|_, lock| lock.strong_count() > 0);
            match locks.get(key).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::default();
                    locks.insert(key.to_owned(), Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_held_by_one_and_forgotten_after() {
        let locks = KeyedLocks::default();
        let first = locks.lock("a").await;
        let second = locks.lock("a");
        tokio::pin!(second);
        assert!(futures::poll!(&mut second).is_pending());
        drop(locks.lock("b").await);
        drop(first);
        drop(second.await);
        drop(locks.lock("c").await);
        assert_eq!(locks.locks.lock().len(), 1);
    }
}
