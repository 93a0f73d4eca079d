//! Pods of one namespace with the same labels are kin: what picks pods by labels picks all of a kin or none. The replicas of one set are
//! one kin, whose labels are kept once.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::node::Labels;
use crate::affinity::PodTerms;

/// The number of a kin, as long as there are pods of it.
pub type KinId = u32;

/// See the module.
#[derive(Debug)]
pub struct Kin {
    pub id: KinId,
    pub namespace: Arc<str>,
    pub labels: Labels,
}

impl Kin {
    /// One that no pod belongs to yet.
    pub(super) fn new(namespace: impl Into<Arc<str>>, labels: Labels) -> Self {
        Kin {
            id: KinId::MAX,
            namespace: namespace.into(),
            labels,
        }
    }
}

impl PartialEq for Kin {
    fn eq(&self, other: &Self) -> bool {
        self.namespace == other.namespace && self.labels == other.labels
    }
}

impl Eq for Kin {}

impl Hash for Kin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.namespace.hash(state);
        self.labels.hash(state);
    }
}

/// All kins that some pod belongs to.
#[derive(Debug, Default)]
pub struct Kins {
    known: HashSet<Arc<Kin>>,
    namespaces: HashSet<Arc<str>>,
    /// What pods say of where other pods are to be: mostly all pods of a set the same.
    terms: HashSet<Arc<PodTerms>>,
    /// When there are so many, those that nobody has any more are thrown out.
    sweep_at: usize,
    sweep_terms_at: usize,
    /// Numbers below `next` that no kin has.
    free: Vec<KinId>,
    next: KinId,
}

impl Kins {
    /// The kin of these labels.
    pub fn of(&mut self, namespace: &str, labels: Labels) -> Arc<Kin> {
        if self.known.len() >= self.sweep_at {
            let gone = self.known.extract_if(|kin| Arc::strong_count(kin) == 1);
            self.free.extend(gone.map(|kin| kin.id));
            self.namespaces.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = 2 * self.known.len() + 1024;
        }
        let name = self.namespaces.get(namespace).cloned();
        let namespace = name.unwrap_or_else(|| {
            let name: Arc<str> = namespace.into();
            self.namespaces.insert(name.clone());
            name
        });
        let mut kin = Kin::new(namespace, labels);
        if let Some(known) = self.known.get(&kin) {
            return known.clone();
        }
        kin.id = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        let kin = Arc::new(kin);
        self.known.insert(kin.clone());
        kin
    }

    /// The same terms, kept once.
    pub fn terms(&mut self, terms: PodTerms) -> Arc<PodTerms> {
        if self.terms.len() >= self.sweep_terms_at {
            self.terms.retain(|terms| Arc::strong_count(terms) > 1);
            self.sweep_terms_at = 2 * self.terms.len() + 1024;
        }
        if let Some(known) = self.terms.get(&terms) {
            return known.clone();
        }
        let terms = Arc::new(terms);
        self.terms.insert(terms.clone());
        terms
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
        assert!(kins.next < 2048, "their numbers are given away again");
        assert!(Arc::ptr_eq(&one, &kins.of("d", labels(1))));
    }
}
