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

    /// About how many bytes it takes.
    fn size(&self) -> usize {
        let labels = self.labels.iter();
        256 + labels.map(|(key, value)| 64 + key.len() + value.len()).sum::<usize>()
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

/// What is made beyond this is looked through for what nobody has any more: in bytes, about.
const MADE: usize = 1 << 20;

/// When to throw out what nobody has any more: when as much was made as was left the last time.
#[derive(Debug, Default)]
struct Sweep {
    made: usize,
    left: usize,
}

impl Sweep {
    fn is_due(&self) -> bool {
        self.made > self.left + MADE
    }

    fn done(&mut self, left: usize) {
        *self = Sweep { made: 0, left };
    }
}

/// All kins that some pod belongs to.
#[derive(Debug, Default)]
pub struct Kins {
    known: HashSet<Arc<Kin>>,
    namespaces: HashSet<Arc<str>>,
    /// What pods say of where other pods are to be: mostly all pods of a set the same.
    terms: HashSet<Arc<PodTerms>>,
    sweep: Sweep,
    sweep_terms: Sweep,
    /// Numbers below `next` that no kin has.
    free: Vec<KinId>,
    next: KinId,
}

impl Kins {
    /// The kin of these labels.
    pub fn of(&mut self, namespace: &str, labels: Labels) -> Arc<Kin> {
        if self.sweep.is_due() {
            let gone = self.known.extract_if(|kin| Arc::strong_count(kin) == 1);
            self.free.extend(gone.map(|kin| kin.id));
            self.namespaces.retain(|name| Arc::strong_count(name) > 1);
            self.sweep.done(self.known.iter().map(|kin| kin.size()).sum());
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
        self.sweep.made += kin.size();
        let kin = Arc::new(kin);
        self.known.insert(kin.clone());
        kin
    }

    /// The same terms, kept once.
    pub fn terms(&mut self, terms: PodTerms) -> Arc<PodTerms> {
        if self.sweep_terms.is_due() {
            self.terms.retain(|terms| Arc::strong_count(terms) > 1);
            self.sweep_terms.done(self.terms.iter().map(|terms| terms.size()).sum());
        }
        if let Some(known) = self.terms.get(&terms) {
            return known.clone();
        }
        self.sweep_terms.made += terms.size();
        let terms = Arc::new(terms);
        self.terms.insert(terms.clone());
        terms
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_labels_are_kept_once_and_not_for_ever() {
        let mut kins = Kins::default();
        let labels = |value: usize| Labels::from([("a".to_owned(), value.to_string())]);
        let one = kins.of("d", labels(1));
        assert!(Arc::ptr_eq(&one, &kins.of("d", labels(1))));
        assert!(!Arc::ptr_eq(&one, &kins.of("e", labels(1))));
        for value in 0..20_000 {
            kins.of("d", labels(value));
        }
        assert!(kins.known.len() < 4096, "{}", kins.known.len());
        assert!(kins.next < 4096, "their numbers are given away again");
        assert!(Arc::ptr_eq(&one, &kins.of("d", labels(1))));
    }

    #[test]
    fn the_larger_the_fewer_are_kept_that_nobody_has() {
        let mut kins = Kins::default();
        for value in 0..100 {
            let large = format!("{value}-{}", "x".repeat(500_000));
            kins.of("d", Labels::from([("a".to_owned(), large.clone())]));
            let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": large}}});
            let affinity = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
            let pod = json!({"spec": {"containers": [], "affinity": affinity}});
            kins.terms(PodTerms::new(&serde_json::from_value(pod).unwrap()).unwrap());
        }
        assert!(kins.known.len() <= 4 && kins.terms.len() <= 4);
    }
}
