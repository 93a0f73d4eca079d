//! The domains of topology keys: for each key that somebody asks for, which value each node has, as a number.

use std::collections::HashMap;

use super::node::{Facts, NodeId, NodeInfo};
use super::slots::Slots;

/// The number of a topology key.
pub type KeyId = u32;
/// The number of a value of a key.
pub type DomainId = u32;

/// The node has no such label.
pub const NONE: DomainId = DomainId::MAX;
/// The value "".
pub const EMPTY: DomainId = 0;

/// The values of one key.
#[derive(Debug)]
pub struct Column {
    key: Box<str>,
    users: usize,
    /// By node; nodes beyond the end have no such label.
    of: Vec<DomainId>,
    /// With the number of nodes that have each, and of those who hold it.
    domains: HashMap<Box<str>, (DomainId, usize)>,
    free: Vec<DomainId>,
    next: DomainId,
}

impl Column {
    /// The column of a key over these nodes.
    pub(super) fn new<'f>(key: &str, nodes: impl Iterator<Item = (NodeId, &'f Facts)>) -> Self {
        let mut column = Column {
            key: key.into(),
            users: 0,
            of: Vec::new(),
            // Never free: "" stands also for no label where that counts as a domain.
            domains: HashMap::from([("".into(), (EMPTY, 1))]),
            free: Vec::new(),
            next: 1,
        };
        for (node, facts) in nodes {
            column.change(node, None, Some(facts));
        }
        column
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The node's domain, or [`NONE`].
    pub fn domain(&self, node: NodeId) -> DomainId {
        self.of.get(node as usize).copied().unwrap_or(NONE)
    }

    /// The same, where having no such label is as good as "".
    pub fn domain_or_empty(&self, node: NodeId) -> DomainId {
        match self.domain(node) {
            NONE => EMPTY,
            domain => domain,
        }
    }

    /// Above all numbers of nodes that have the label.
    pub(super) fn nodes(&self) -> NodeId {
        NodeId::try_from(self.of.len()).unwrap_or(NodeId::MAX)
    }

    /// No node ever had the label since somebody asks for it.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Above all numbers of domains.
    pub fn end(&self) -> usize {
        self.next as usize
    }

    /// The number of a value, which stays its own until it is let go as often as it was held, whatever nodes there are.
    pub(super) fn hold(&mut self, value: &str) -> DomainId {
        let next = &mut self.next;
        let (domain, nodes) = match self.domains.get_mut(value) {
            Some(known) => known,
            None => {
                let domain = self.free.pop().unwrap_or_else(|| {
                    *next += 1;
                    *next - 1
                });
                self.domains.entry(value.into()).or_insert((domain, 0))
            }
        };
        *nodes += 1;
        *domain
    }

    /// See [`Column::hold`].
    pub(super) fn let_go(&mut self, value: &str) {
        let Some((domain, nodes)) = self.domains.get_mut(value) else {
            return;
        };
        *nodes -= 1;
        if *nodes == 0 {
            self.free.push(*domain);
            self.domains.remove(value);
        }
    }

    fn join(&mut self, node: NodeId, value: &str) {
        let domain = self.hold(value);
        let node = node as usize;
        if self.of.len() <= node {
            self.of.resize(node + 1, NONE);
        }
        self.of[node] = domain;
    }

    fn leave(&mut self, node: NodeId, value: &str) {
        if let Some(of) = self.of.get_mut(node as usize) {
            *of = NONE;
        }
        self.let_go(value);
    }

    /// A node's labels are others.
    pub(super) fn change(&mut self, node: NodeId, before: Option<&Facts>, now: Option<&Facts>) {
        let value = |facts: Option<&'_ Facts>| facts.and_then(|facts| facts.labels.get(&*self.key)).cloned();
        let (before, now) = (value(before), value(now));
        if before == now {
            return;
        }
        if let Some(before) = before {
            self.leave(node, &before);
        }
        if let Some(now) = now {
            self.join(node, &now);
        }
    }
}

/// All keys that somebody asks for.
#[derive(Debug, Default)]
pub struct Topology {
    ids: HashMap<Box<str>, KeyId>,
    columns: Slots<Column>,
    /// The keys of all labels of nodes, and how many nodes have each.
    labels: HashMap<Box<str>, usize>,
}

impl Topology {
    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// The number of a key, which is known until all that acquired it have released it.
    pub fn acquire(&mut self, key: &str, nodes: &[NodeInfo]) -> KeyId {
        let id = match self.ids.get(key) {
            Some(id) => *id,
            None => {
                // A pod may name thousands of keys: nobody is asked for those that nobody has.
                let known = self.labels.contains_key(key);
                let nodes = nodes.iter().filter(|node| known && node.exists);
                let column = Column::new(key, nodes.map(|node| (node.id, &*node.facts)));
                let id = self.columns.insert(column);
                self.ids.insert(key.into(), id);
                id
            }
        };
        if let Some(column) = self.columns.get_mut(id) {
            column.users += 1;
        }
        id
    }

    /// One user less.
    pub fn release(&mut self, id: KeyId) {
        let Some(column) = self.columns.get_mut(id) else { return };
        column.users -= 1;
        if column.users == 0 {
            self.ids.remove(&column.key);
            self.columns.remove(id);
        }
    }

    /// The column of a key that somebody acquired.
    pub fn column(&self, id: KeyId) -> &Column {
        let column = self.columns.get(id);
        column.unwrap_or_else(|| unreachable!("the key was released"))
    }

    /// A node is there.
    pub fn join(&mut self, node: NodeId, facts: &Facts) {
        for key in facts.labels.keys() {
            match self.labels.get_mut(key.as_str()) {
                Some(nodes) => *nodes += 1,
                None => drop(self.labels.insert(key.as_str().into(), 1)),
            }
        }
        for column in self.columns.values_mut() {
            column.change(node, None, Some(facts));
        }
    }

    /// A node that was so is not there any more.
    pub fn leave(&mut self, node: NodeId, facts: &Facts) {
        for key in facts.labels.keys() {
            if let Some(nodes) = self.labels.get_mut(key.as_str()) {
                *nodes -= 1;
                if *nodes == 0 {
                    self.labels.remove(key.as_str());
                }
            }
        }
        for column in self.columns.values_mut() {
            column.change(node, Some(facts), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_asked_only_for_keys_that_some_have() {
        let mut topology = Topology::default();
        let labels = [("zone", "z"), ("host", "h")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let facts = Facts {
            labels: labels.into(),
            ..Facts::default()
        };
        let node = NodeInfo {
            exists: true,
            facts: facts.into(),
            ..NodeInfo::default()
        };
        let nodes = [node];
        // As long as it has not joined, nobody knows of its labels.
        for (joined, expected) in [(false, NONE), (true, 1), (false, NONE)] {
            if joined {
                topology.join(0, &nodes[0].facts);
            }
            let zone = topology.acquire("zone", &nodes);
            assert_eq!(topology.column(zone).domain(0), expected);
            topology.release(zone);
            if joined {
                topology.leave(0, &nodes[0].facts);
            }
        }
        assert!(topology.labels.is_empty());
    }
}
