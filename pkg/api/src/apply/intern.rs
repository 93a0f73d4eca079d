//! Values that thousands of objects have in common, kept once: what their managers are called, which fields those own.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// A table of shared values. What nobody holds any more goes when the table has doubled since it was last looked through.
pub(super) struct Interned<T: ?Sized>(Mutex<Table<T>>);

struct Table<T: ?Sized> {
    values: HashSet<Arc<T>>,
    /// How many there may be before it is looked through.
    limit: usize,
}

const LEAST: usize = 1024;

impl<T: ?Sized + Hash + Eq> Interned<T> {
    pub fn new() -> Interned<T> {
        Interned(Mutex::new(Table {
            values: HashSet::new(),
            limit: LEAST,
        }))
    }

    /// The shared one of a value.
    pub fn get<V: AsRef<T> + Into<Arc<T>>>(&self, value: V) -> Arc<T> {
        let mut table = self.0.lock();
        if let Some(known) = table.values.get(value.as_ref()) {
            return known.clone();
        }
        let shared: Arc<T> = value.into();
        if table.values.len() >= table.limit {
            table.values.retain(|value| Arc::strong_count(value) > 1);
            table.limit = (table.values.len() * 2).max(LEAST);
        }
        table.values.insert(shared.clone());
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shared_and_forgotten() {
        let table: Interned<str> = Interned::new();
        let kept = table.get(String::from("kept"));
        assert!(Arc::ptr_eq(&kept, &table.get(String::from("kept"))));
        for number in 0..10 * LEAST {
            table.get(number.to_string());
        }
        assert!(table.0.lock().values.len() <= LEAST);
        assert!(Arc::ptr_eq(&kept, &table.get(String::from("kept"))));
    }
}
