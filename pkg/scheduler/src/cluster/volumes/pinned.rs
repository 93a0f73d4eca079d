//! Things that only some nodes reach, found by a label that every such node has: who looks from a node sees those near it, not all.

use std::collections::HashMap;

use crate::cluster::Labels;

/// A label, and the values of which a node has to have one.
pub type Pin<'a> = Option<(&'a str, Vec<&'a str>)>;

/// See the module.
#[derive(Debug)]
pub struct Pinned<T> {
    by_label: HashMap<Box<str>, HashMap<Box<str>, Vec<T>>>,
    /// What has no such label.
    anywhere: Vec<T>,
}

impl<T> Default for Pinned<T> {
    fn default() -> Self {
        Pinned {
            by_label: HashMap::new(),
            anywhere: Vec::new(),
        }
    }
}

impl<T: Clone + PartialEq> Pinned<T> {
    pub fn add(&mut self, pin: &Pin<'_>, item: &T) {
        let Some((key, values)) = pin else {
            return self.anywhere.push(item.clone());
        };
        let by_value = self.by_label.entry((*key).into()).or_default();
        for value in values {
            by_value.entry((*value).into()).or_default().push(item.clone());
        }
    }

    /// `pin` as it was when it was added.
    pub fn remove(&mut self, pin: &Pin<'_>, item: &T) {
        let Some((key, values)) = pin else {
            return take(&mut self.anywhere, item);
        };
        let Some(by_value) = self.by_label.get_mut(*key) else {
            return;
        };
        for value in values {
            if let Some(items) = by_value.get_mut(*value) {
                take(items, item);
                if items.is_empty() {
                    by_value.remove(*value);
                }
            }
        }
        if by_value.is_empty() {
            self.by_label.remove(*key);
        }
    }

    /// What a node with these labels may reach, each once.
    pub fn near<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = &'a T> {
        let pinned = self.by_label.iter().filter_map(|(key, by_value)| {
            let value = labels.get(&**key)?;
            by_value.get(value.as_str())
        });
        pinned.flatten().chain(&self.anywhere)
    }

    pub fn is_empty(&self) -> bool {
        self.by_label.is_empty() && self.anywhere.is_empty()
    }
}

fn take<T: PartialEq>(items: &mut Vec<T>, item: &T) {
    if let Some(at) = items.iter().position(|own| own == item) {
        items.swap_remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_found_by_its_label() {
        let mut all = Pinned::default();
        let (a, ab): (Pin<'_>, Pin<'_>) = (Some(("zone", vec!["a"])), Some(("zone", vec!["a", "b"])));
        for (pin, item) in [(&a, 1), (&ab, 2), (&None, 3)] {
            all.add(pin, &item);
        }
        let near = |all: &Pinned<i32>, zone: &str| {
            let labels = Labels::from([("zone".to_owned(), zone.to_owned())]);
            let mut near: Vec<_> = all.near(&labels).copied().collect();
            near.sort_unstable();
            near
        };
        assert_eq!(
            (near(&all, "a"), near(&all, "b"), near(&all, "c")),
            (vec![1, 2, 3], vec![2, 3], vec![3])
        );
        all.remove(&ab, &2);
        assert_eq!((near(&all, "a"), near(&all, "b")), (vec![1, 3], vec![3]));
        all.remove(&a, &1);
        all.remove(&None, &3);
        assert!(all.is_empty());
    }
}
