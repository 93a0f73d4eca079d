//! Values that thousands of objects have in common, kept once: what their managers are called, which fields those own.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// A table of shared values. What nobody holds any more goes when the table has doubled since it was last looked through, or
/// has grown by so many bytes: anybody who may write can have values put into it. The longest are hardly ever shared.
pub(super) struct Interned<T: ?Sized>(Mutex<Table<T>>);

struct Table<T: ?Sized> {
    values: HashSet<Arc<T>>,
    /// How many there may be before it is looked through.
    limit: usize,
    /// Bytes that came since.
    grown: usize,
}

const LEAST: usize = 1024;
const MOST_GROWN: usize = 8 << 20;
const LONGEST: usize = 16 << 10;

/// Bytes that a value holds.
pub(super) trait Weigh {
    fn weight(&self) -> usize;
}

impl Weigh for str {
    fn weight(&self) -> usize {
        self.len()
    }
}

impl<T: ?Sized + Hash + Eq + Weigh> Interned<T> {
    pub fn new() -> Interned<T> {
        Interned(Mutex::new(Table {
            values: HashSet::new(),
            limit: LEAST,
            grown: 0,
        }))
    }

    /// The shared one of a value.
    pub fn get<V: AsRef<T> + Into<Arc<T>>>(&self, value: V) -> Arc<T> {
        let weight = value.as_ref().weight();
        if weight > LONGEST {
            return value.into();
        }
        let mut table = self.0.lock();
        if let Some(known) = table.values.get(value.as_ref()) {
            return known.clone();
        }
        let shared: Arc<T> = value.into();
        if table.values.len() >= table.limit || table.grown > MOST_GROWN {
            table.values.retain(|value| Arc::strong_count(value) > 1);
            table.limit = (table.values.len() * 2).max(LEAST);
            table.grown = 0;
        }
        table.grown += weight;
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

    #[test]
    fn long_values_of_nobody_do_not_pile_up() {
        let table: Interned<str> = Interned::new();
        for number in 0..LEAST {
            table.get(format!("{number}{}", "x".repeat(3 << 20)));
            table.get(format!("{number}{}", "x".repeat(LONGEST - 10)));
            let held: usize = table.0.lock().values.iter().map(|value| value.len()).sum();
            assert!(held <= MOST_GROWN + LONGEST, "{held} bytes");
        }
        let kept = table.get("x".repeat(LONGEST));
        assert!(Arc::ptr_eq(&kept, &table.get("x".repeat(LONGEST))));
    }
}
