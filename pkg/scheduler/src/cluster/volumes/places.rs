//! The labels by which storage is told who reaches it, in columns: a node's value is a number, found by the node's id. A decision asks
//! for thousands of nodes, and text is far away.

use std::collections::HashMap;
use std::sync::Arc;

use mk8s_client::NodePin;
use smallvec::SmallVec;

use crate::cluster::topology::{Column, DomainId};
use crate::cluster::{Facts, NodeId};

/// See the module.
#[derive(Debug, Default)]
pub struct Places {
    by_key: HashMap<Box<str>, usize>,
    /// They stay: there are few keys in a cluster.
    columns: Vec<Column>,
    /// By node; none: there is no such node.
    nodes: Vec<Option<Arc<Facts>>>,
}

/// A label, and values of which a node that reaches something has one.
#[derive(Debug, PartialEq, Eq)]
pub struct Pin {
    column: usize,
    values: SmallVec<[(DomainId, Box<str>); 1]>,
}

impl Places {
    /// A node came, changed, or went.
    pub fn set_node(&mut self, node: NodeId, facts: Option<&Arc<Facts>>) {
        let at = node as usize;
        if self.nodes.len() <= at {
            self.nodes.resize(at + 1, None);
        }
        let before = std::mem::replace(&mut self.nodes[at], facts.cloned());
        for column in &mut self.columns {
            column.change(node, before.as_deref(), facts.map(|facts| &**facts));
        }
    }

    /// Something is told by this label; until [`Places::unpin`].
    pub fn pin(&mut self, pin: &NodePin<'_>) -> Pin {
        let column = match self.by_key.get(pin.key) {
            Some(column) => *column,
            None => self.add_column(pin.key),
        };
        let values = pin.values.iter().map(|value| {
            let domain = self.columns[column].hold(value);
            (domain, (*value).into())
        });
        let values = values.collect();
        Pin { column, values }
    }

    pub fn unpin(&mut self, pin: &Pin) {
        for (_, value) in &pin.values {
            self.columns[pin.column].let_go(value);
        }
    }

    fn add_column(&mut self, key: &str) -> usize {
        let nodes = (0..).zip(&self.nodes);
        let nodes = nodes.filter_map(|(id, facts)| Some((id, facts.as_deref()?)));
        let column = Column::new(key, nodes);
        self.columns.push(column);
        self.by_key.insert(key.into(), self.columns.len() - 1);
        self.columns.len() - 1
    }
}

/// Things that only some nodes reach, by the label that tells which.
#[derive(Debug)]
pub struct Pinned<T> {
    /// By column, then by value.
    by_value: Vec<(usize, Vec<SmallVec<[T; 1]>>)>,
    /// What has no such label.
    anywhere: Vec<T>,
    count: usize,
}

impl<T> Default for Pinned<T> {
    fn default() -> Self {
        Pinned {
            by_value: Vec::new(),
            anywhere: Vec::new(),
            count: 0,
        }
    }
}

impl<T: Clone + PartialEq> Pinned<T> {
    pub fn add(&mut self, pin: Option<&Pin>, item: &T) {
        self.count += 1;
        let Some(pin) = pin else {
            return self.anywhere.push(item.clone());
        };
        let at = match self.by_value.iter().position(|(column, _)| *column == pin.column) {
            Some(at) => at,
            None => {
                self.by_value.push((pin.column, Vec::new()));
                self.by_value.len() - 1
            }
        };
        let by_value = &mut self.by_value[at].1;
        for (value, _) in &pin.values {
            let value = *value as usize;
            if by_value.len() <= value {
                by_value.resize_with(value + 1, SmallVec::new);
            }
            by_value[value].push(item.clone());
        }
    }

    /// `pin` as it was when it was added.
    pub fn remove(&mut self, pin: Option<&Pin>, item: &T) {
        self.count -= 1;
        let Some(pin) = pin else {
            self.anywhere.retain(|own| own != item);
            return;
        };
        let of_column = self.by_value.iter_mut().find(|(column, _)| *column == pin.column);
        let Some((_, by_value)) = of_column else { return };
        for (value, _) in &pin.values {
            if let Some(items) = by_value.get_mut(*value as usize) {
                items.retain(|own| own != item);
            }
        }
    }

    /// What a node may reach, each once.
    pub fn near<'a>(&'a self, node: NodeId, places: &'a Places) -> impl Iterator<Item = &'a T> {
        let pinned = self.by_value.iter().filter_map(move |(column, by_value)| {
            let value = places.columns[*column].domain(node);
            by_value.get(value as usize)
        });
        pinned.flatten().chain(&self.anywhere)
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn zone(zone: &str) -> Arc<Facts> {
        Arc::new(Facts {
            labels: [("zone".to_owned(), zone.to_owned())].into(),
            ..Facts::default()
        })
    }

    fn pin(places: &mut Places, values: &[&str]) -> Pin {
        places.pin(&NodePin {
            key: "zone",
            values: values.to_vec(),
            whole: true,
        })
    }

    #[test]
    fn what_is_near_is_found_by_its_label() {
        let (mut places, mut all) = (Places::default(), Pinned::default());
        places.set_node(0, Some(&zone("a")));
        let (a, ab) = (pin(&mut places, &["a"]), pin(&mut places, &["a", "b"]));
        places.set_node(2, Some(&zone("b")));
        places.set_node(1, Some(&zone("c")));
        for (pin, item) in [(Some(&a), 1), (Some(&ab), 2), (None, 3)] {
            all.add(pin, &item);
        }
        let near = |all: &Pinned<i32>, places: &Places| -> Vec<Vec<i32>> {
            let nodes = (0..4).map(|node| all.near(node, places).copied().collect());
            nodes.collect()
        };
        assert_eq!(near(&all, &places), [vec![1, 2, 3], vec![3], vec![2, 3], vec![3]]);
        places.set_node(1, Some(&zone("b")));
        places.set_node(0, None);
        assert_eq!(near(&all, &places), [vec![3], vec![2, 3], vec![2, 3], vec![3]]);
        for (pin, item) in [(Some(&ab), 2), (Some(&a), 1), (None, 3)] {
            assert!(!all.is_empty());
            all.remove(pin, &item);
        }
        assert!(all.is_empty() && near(&all, &places).iter().all(Vec::is_empty));
    }

    #[test]
    fn values_that_nobody_has_are_forgotten() {
        let mut places = Places::default();
        for n in 0..100 {
            let value = n.to_string();
            let own = pin(&mut places, &[&value]);
            places.set_node(0, Some(&zone(&value)));
            places.unpin(&own);
        }
        assert!(places.columns[0].end() <= 4, "{}", places.columns[0].end());
    }
}
