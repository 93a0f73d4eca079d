//! Which nodes count where pods are counted by domain, and how many domains these have: a matter of the nodes alone, whichever pods are
//! counted.

use k8s_openapi::api::core::v1::{Taint, Toleration};
use mk8s_client::NodeTerms;
use nohash_hasher::IntMap;

use super::node::{NodeId, NodeInfo};
use super::slots::Slots;
use super::topology::{Column, DomainId, KeyId, Topology};

/// The number of a roster.
pub type RosterId = u32;

/// So many rosters are kept that nobody asked for lately.
const KEPT: usize = 512;

/// The nodes that somebody wants counted by the domains of `key`: those that have all of `keys` and fit the pod. A node without `key`
/// itself, where `keys` does not ask for it, counts as one where it is "".
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub key: &'a str,
    pub keys: &'a [&'a str],
    pub required: Option<&'a NodeTerms>,
    /// None: taints are no matter.
    pub tolerations: Option<&'a [Toleration]>,
}

impl<'a> Scope<'a> {
    /// All nodes that have the key.
    pub fn of_key(key: &'a &'a str) -> Self {
        Scope {
            key,
            keys: std::slice::from_ref(key),
            required: None,
            tolerations: None,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Roster {
    key: Box<str>,
    keys: Box<[Box<str>]>,
    required: Option<NodeTerms>,
    tolerations: Option<Box<[Toleration]>>,
    column: KeyId,
    /// A bit each, by id.
    members: Vec<u64>,
    /// How many are in each domain.
    domains: IntMap<DomainId, u32>,
    asked: u64,
}

impl Roster {
    fn serves(&self, scope: &Scope<'_>) -> bool {
        *self.key == *scope.key
            && self.keys.len() == scope.keys.len()
            && self.keys.iter().zip(scope.keys).all(|(own, other)| **own == **other)
            && self.tolerations.as_deref() == scope.tolerations
            && self.required.as_ref() == scope.required
    }

    fn fits(&self, node: &NodeInfo) -> bool {
        let facts = &node.facts;
        let tolerated = |tolerations| !repels(&facts.taints, tolerations);
        self.keys.iter().all(|key| facts.labels.contains_key(&**key))
            && self.tolerations.as_deref().is_none_or(tolerated)
            && self.required.as_ref().is_none_or(|terms| node.is_one_of(terms))
    }

    /// Whether the node counts.
    pub fn has(&self, node: NodeId) -> bool {
        let word = self.members.get(node as usize / 64);
        word.is_some_and(|word| word & (1 << (node % 64)) != 0)
    }

    /// In which domain the node counts; none: it does not.
    pub fn domain(&self, node: NodeId, topology: &Topology) -> Option<DomainId> {
        self.has(node)
            .then(|| topology.column(self.column).domain_or_empty(node))
    }

    /// The domains of its key.
    pub fn column<'t>(&self, topology: &'t Topology) -> &'t Column {
        topology.column(self.column)
    }

    /// How many domains the nodes have that count.
    pub fn len(&self) -> usize {
        self.domains.len()
    }

    fn join(&mut self, node: &NodeInfo, topology: &Topology) {
        if !self.fits(node) {
            return;
        }
        let node = node.id;
        let word = node as usize / 64;
        if self.members.len() <= word {
            self.members.resize(word + 1, 0);
        }
        self.members[word] |= 1 << (node % 64);
        if let Some(domain) = self.domain(node, topology) {
            *self.domains.entry(domain).or_default() += 1;
        }
    }

    fn leave(&mut self, node: NodeId, topology: &Topology) {
        let Some(domain) = self.domain(node, topology) else {
            return;
        };
        self.members[node as usize / 64] &= !(1 << (node % 64));
        if let Some(nodes) = self.domains.get_mut(&domain) {
            *nodes -= 1;
            if *nodes == 0 {
                self.domains.remove(&domain);
            }
        }
    }
}

/// Whether a taint keeps a pod with these tolerations off its node.
pub fn repels(taints: &[Taint], tolerations: &[Toleration]) -> bool {
    let mut hard = taints
        .iter()
        .filter(|taint| matches!(&*taint.effect, "NoSchedule" | "NoExecute"));
    hard.any(|taint| !tolerations.iter().any(|own| mk8s_api::taints::tolerates(own, taint)))
}

/// All rosters.
#[derive(Debug, Default)]
pub struct Rosters(Slots<Roster>);

impl Rosters {
    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn get(&self, id: RosterId) -> Option<&Roster> {
        self.0.get(id)
    }

    /// The roster of a scope, if there is one.
    pub fn find(&self, scope: &Scope<'_>) -> Option<(RosterId, &Roster)> {
        self.0.iter().find(|(_, roster)| roster.serves(scope))
    }

    /// The roster of a scope.
    pub fn ask(&mut self, scope: &Scope<'_>, nodes: &[NodeInfo], topology: &mut Topology, now: u64) -> RosterId {
        let id = match self.find(scope) {
            Some((id, _)) => id,
            None => self.0.insert(new(scope, nodes, topology)),
        };
        if let Some(roster) = self.0.get_mut(id) {
            roster.asked = now;
        }
        id
    }

    /// A node is not any more as it was.
    pub fn leave(&mut self, node: NodeId, topology: &Topology) {
        self.0.values_mut().for_each(|roster| roster.leave(node, topology));
    }

    /// A node is so.
    pub fn join(&mut self, node: &NodeInfo, topology: &Topology) {
        let all = self.0.values_mut();
        all.for_each(|roster| roster.join(node, topology));
    }

    /// Forgets those that were not asked for longest, where there are too many; their numbers.
    pub fn sweep(&mut self, topology: &mut Topology) -> Vec<RosterId> {
        let old = self.0.oldest(KEPT, |roster| roster.asked);
        for roster in old.iter().filter_map(|id| self.0.remove(*id)) {
            topology.release(roster.column);
        }
        old
    }
}

fn new(scope: &Scope<'_>, nodes: &[NodeInfo], topology: &mut Topology) -> Roster {
    let mut roster = Roster {
        key: scope.key.into(),
        keys: scope.keys.iter().map(|key| (*key).into()).collect(),
        required: scope.required.cloned(),
        tolerations: scope.tolerations.map(Into::into),
        column: topology.acquire(scope.key, nodes),
        members: Vec::new(),
        domains: IntMap::default(),
        asked: 0,
    };
    for node in nodes.iter().filter(|node| node.exists) {
        roster.join(node, topology);
    }
    roster
}
