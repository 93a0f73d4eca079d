//! Pods of one namespace with the same labels are kin: what picks pods by labels picks all of a kin or none. The replicas of one set are
//! one kin, whose labels are kept once.

use std::collections::HashSet;
use std::sync::Arc;

use super::node::Labels;

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Kin {
    pub namespace: Arc<str>,
    pub labels: Labels,
}

/// All kins that some pod belongs to.
#[derive(Debug, Default)]
pub struct Kins {
    known: HashSet<Arc<Kin>>,
    namespaces: HashSet<Arc<str>>,
    /// When there are so many, those that nobody has any more are thrown out.
    sweep_at: usize,
}

impl Kins {
    /// The kin of these labels.
    pub fn of(&mut self, namespace: &str, labels: Labels) -> Arc<Kin> {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|kin| Arc::strong_count(kin) > 1);
            self.namespaces.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = 2 * self.known.len() + 1024;
        }
        let name = self.namespaces.get(namespace).cloned();
        let namespace = name.unwrap_or_else(|| {
            let name: Arc<str> = namespace.into();
            self.namespaces.insert(name.clone());
            name
        });
        let kin = Kin { namespace, labels };
        if let Some(known) = self.known.get(&kin) {
            return known.clone();
        }
        let kin = Arc::new(kin);
        self.known.insert(kin.clone());
        kin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_labels_are_kept_once_and_not_for_ever() {
        let mut kins = Kins::default();
        let labels = |value: usize| Labels::from([("a".to_owned(), value.to_string())]);
        let one = kins.of("d", labels(1));
        assert!(Arc::ptr_eq(&one, &kins.of("d", labels(1))));
        assert!(!Arc::ptr_eq(&one, &kins.of("e", labels(1))));
        for value in 0..5000 {
            kins.of("d", labels(value));
        }
        assert!(kins.known.len() < 2048, "{}", kins.known.len());
        assert!(Arc::ptr_eq(&one, &kins.of("d", labels(1))));
    }
}
