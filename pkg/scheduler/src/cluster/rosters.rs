//! Which nodes count where pods are counted by domain, and how many domains these have: a matter of the nodes alone, whichever pods are
//! counted.

use std::collections::HashMap;

use nohash_hasher::IntMap;

use super::inclusions::{Inclusion, InclusionId, Inclusions};
use super::node::{NodeId, NodeInfo};
use super::slots::{Limit, Slots};
use super::topology::{Column, DomainId, KeyId, NONE, Topology};

/// The number of a roster.
pub type RosterId = u32;

/// So much is kept that nobody asked for lately.
const KEPT: Limit = Limit {
    number: 512,
    size: 16 << 20,
};

/// The nodes that somebody wants counted by the domains of `key`. A node without `key` that is included counts as one where it is "".
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub key: &'a str,
    /// None: all nodes that have the key.
    pub included: Option<InclusionId>,
}

impl<'a> Scope<'a> {
    /// All nodes that have the key.
    pub fn of_key(key: &'a str) -> Self {
        Scope { key, included: None }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Roster {
    key: Box<str>,
    included: Option<InclusionId>,
    column: KeyId,
    /// How many are in each domain.
    domains: IntMap<DomainId, u32>,
    asked: u64,
    /// About how many bytes it takes, with what it includes.
    size: usize,
}

impl Roster {
    /// The domains of its key.
    pub fn column<'t>(&self, topology: &'t Topology) -> &'t Column {
        topology.column(self.column)
    }

    /// How many domains the nodes have that count.
    pub fn len(&self) -> usize {
        self.domains.len()
    }

    /// In which domain a node counts; none: it does not.
    fn domain(&self, node: NodeId, inclusions: &Inclusions, topology: &Topology) -> Option<DomainId> {
        let column = self.column(topology);
        match self.included {
            Some(id) => inclusions.has(id, node).then(|| column.domain_or_empty(node)),
            None => Some(column.domain(node)).filter(|domain| *domain != NONE),
        }
    }

    fn join(&mut self, domain: DomainId) {
        *self.domains.entry(domain).or_default() += 1;
    }

    fn leave(&mut self, domain: DomainId) {
        if let Some(nodes) = self.domains.get_mut(&domain) {
            *nodes -= 1;
            if *nodes == 0 {
                self.domains.remove(&domain);
            }
        }
    }
}

/// All rosters.
#[derive(Debug, Default)]
pub struct Rosters {
    all: Slots<Roster>,
    ids: HashMap<Option<InclusionId>, HashMap<Box<str>, RosterId>>,
    pub inclusions: Inclusions,
}

impl Rosters {
    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn get(&self, id: RosterId) -> Option<&Roster> {
        self.all.get(id)
    }

    /// No node counts there.
    pub fn is_empty(&self, id: RosterId) -> bool {
        self.get(id).is_none_or(|roster| roster.len() == 0)
    }

    /// In which domain of a roster a node counts; none: it does not.
    pub fn domain(&self, id: RosterId, node: NodeId, topology: &Topology) -> Option<DomainId> {
        self.get(id)?.domain(node, &self.inclusions, topology)
    }

    /// The roster of a scope, if there is one.
    pub fn find(&self, scope: &Scope<'_>) -> Option<RosterId> {
        self.ids.get(&scope.included)?.get(scope.key).copied()
    }

    /// The number of an inclusion, which is known until the next sweep, and as long as there are rosters of it.
    pub fn include(&mut self, inclusion: &Inclusion<'_>, nodes: &[NodeInfo]) -> InclusionId {
        self.inclusions.ask(inclusion, nodes)
    }

    /// The roster of a scope.
    pub fn ask(&mut self, scope: &Scope<'_>, nodes: &[NodeInfo], topology: &mut Topology, now: u64) -> RosterId {
        let id = match self.find(scope) {
            Some(id) => id,
            None => self.insert(scope, nodes, topology),
        };
        if let Some(roster) = self.all.get_mut(id) {
            roster.asked = now;
        }
        id
    }

    fn insert(&mut self, scope: &Scope<'_>, nodes: &[NodeInfo], topology: &mut Topology) -> RosterId {
        let mut roster = Roster {
            key: scope.key.into(),
            included: scope.included,
            column: topology.acquire(scope.key, nodes),
            domains: IntMap::default(),
            asked: 0,
            size: 256 + scope.key.len() + scope.included.map_or(0, |id| self.inclusions.size(id)),
        };
        let labelled = topology.column(roster.column).nodes();
        let mut join = |node: NodeId| {
            if let Some(domain) = roster.domain(node, &self.inclusions, topology) {
                roster.join(domain);
            }
        };
        match scope.included {
            Some(id) => self.inclusions.members(id).for_each(&mut join),
            None => (0..labelled).for_each(join),
        }
        let id = self.all.insert(roster);
        let of_its_own = self.ids.entry(scope.included).or_default();
        of_its_own.insert(scope.key.into(), id);
        id
    }

    /// A node is not any more as it was.
    pub fn leave(&mut self, node: NodeId, topology: &Topology) {
        for roster in self.all.values_mut() {
            if let Some(domain) = roster.domain(node, &self.inclusions, topology) {
                roster.leave(domain);
            }
        }
        self.inclusions.leave(node);
    }

    /// A node is so.
    pub fn join(&mut self, node: &NodeInfo, topology: &Topology) {
        self.inclusions.join(node);
        for roster in self.all.values_mut() {
            if let Some(domain) = roster.domain(node.id, &self.inclusions, topology) {
                roster.join(domain);
            }
        }
    }

    /// Forgets those that were not asked for longest, where there are too many; their numbers.
    pub fn sweep(&mut self, topology: &mut Topology) -> Vec<RosterId> {
        let old = self.all.oldest(KEPT, |roster| (roster.asked, roster.size));
        for roster in old.iter().filter_map(|id| self.all.remove(*id)) {
            topology.release(roster.column);
            if let Some(own) = self.ids.get_mut(&roster.included) {
                own.remove(&roster.key);
            }
        }
        if !old.is_empty() || self.inclusions.len() > self.ids.len() {
            self.ids.retain(|_, own| !own.is_empty());
            self.inclusions.retain(|id| self.ids.contains_key(&Some(id)));
        }
        old
    }
}
