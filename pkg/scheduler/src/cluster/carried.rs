//! The terms that pods on nodes have about pods that come: each distinct one once, with the number of its pods (or the sum of their
//! weights) by domain.

use std::collections::HashMap;
use std::sync::Arc;

use super::index::{Index, Places};
use super::kin::Kin;
use super::namespaces::Namespaces;
use super::node::{NodeId, NodeInfo};
use super::slots::Slots;
use super::tally::{Sums, add};
use super::topology::{KeyId, NONE, Topology};
use crate::affinity::Term;

#[derive(Debug)]
struct Entry {
    term: Arc<Term>,
    key: KeyId,
    pods: usize,
    sums: Sums,
    places: Places,
}

/// Terms of one sort.
#[derive(Debug, Default)]
pub struct Carried {
    entries: Slots<Entry>,
    ids: HashMap<Arc<Term>, u32>,
    index: Index,
}

impl Carried {
    /// Nothing is left in it.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0 && self.ids.is_empty() && self.index.is_empty()
    }

    /// A pod with the term is on a node.
    pub fn add(&mut self, term: &Arc<Term>, weight: i64, node: NodeId, nodes: &[NodeInfo], topology: &mut Topology) {
        let id = match self.ids.get(term) {
            Some(id) => *id,
            None => {
                let id = self.entries.insert(Entry {
                    term: term.clone(),
                    key: topology.acquire(&term.key, nodes),
                    pods: 0,
                    sums: Sums::default(),
                    places: Places::new(),
                });
                let places = self.index.insert_selector(id, &term.pods);
                if let Some(entry) = self.entries.get_mut(id) {
                    entry.places = places;
                }
                self.ids.insert(term.clone(), id);
                id
            }
        };
        if let Some(entry) = self.entries.get_mut(id) {
            entry.pods += 1;
            entry.count(node, weight, topology);
        }
    }

    /// A pod with the term is there no more.
    pub fn remove(&mut self, term: &Arc<Term>, weight: i64, node: NodeId, topology: &mut Topology) {
        let Some(id) = self.ids.get(term).copied() else { return };
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.pods -= 1;
        entry.count(node, -weight, topology);
        if entry.pods == 0 {
            topology.release(entry.key);
            self.index.remove_selector(id, &entry.places);
            self.entries.remove(id);
            self.ids.remove(term);
        }
    }

    /// The terms that are about these pods, with their keys and sums.
    pub fn about<'a>(&'a self, kin: &Kin, namespaces: &Namespaces, mut found: impl FnMut(KeyId, &'a Sums)) {
        self.index.selectors(kin, |id| {
            let entry = self.entries.get(id);
            if let Some(entry) = entry.filter(|entry| entry.term.pods.concerns(kin, namespaces)) {
                found(entry.key, &entry.sums);
            }
        });
    }
}

impl Entry {
    fn count(&mut self, node: NodeId, weight: i64, topology: &Topology) {
        let domain = topology.column(self.key).domain(node);
        if domain != NONE {
            add(&mut self.sums, domain, weight);
        }
    }
}
