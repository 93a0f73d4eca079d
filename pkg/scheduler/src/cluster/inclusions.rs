//! Which nodes count where a pod's like are spread: a matter of the pod and the nodes, whatever the nodes are counted by. All constraints
//! of a pod share what is kept of it here, and so do all pods of a set.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};

use k8s_openapi::api::core::v1::{Taint, Toleration};
use mk8s_client::NodeTerms;
use nohash_hasher::IntMap;
use smallvec::SmallVec;

use super::node::{NodeId, NodeInfo};
use super::slots::Slots;

/// The number of an inclusion.
pub type InclusionId = u32;

/// Nodes that have all of `keys` and fit the pod.
#[derive(Debug, Clone, Copy)]
pub struct Inclusion<'a> {
    pub keys: &'a [&'a str],
    pub required: Option<&'a NodeTerms>,
    /// None: taints are no matter.
    pub tolerations: Option<&'a [Toleration]>,
}

impl Hash for Inclusion<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.keys, self.required).hash(state);
        for own in self.tolerations.into_iter().flatten() {
            (&own.key, &own.operator, &own.value, &own.effect).hash(state);
        }
    }
}

#[derive(Debug)]
struct Known {
    hash: u64,
    keys: Box<[Box<str>]>,
    required: Option<NodeTerms>,
    tolerations: Option<Box<[Toleration]>>,
    /// A bit each, by id.
    members: Vec<u64>,
    /// About how many bytes it takes.
    size: usize,
}

impl Known {
    fn is(&self, other: &Inclusion<'_>) -> bool {
        self.keys.len() == other.keys.len()
            && self.keys.iter().zip(other.keys).all(|(own, other)| **own == **other)
            && self.tolerations.as_deref() == other.tolerations
            && self.required.as_ref() == other.required
    }

    fn fits(&self, node: &NodeInfo) -> bool {
        let facts = &node.facts;
        let tolerated = |tolerations| !repels(&facts.taints, tolerations);
        self.keys.iter().all(|key| facts.labels.contains_key(&**key))
            && self.tolerations.as_deref().is_none_or(tolerated)
            && self.required.as_ref().is_none_or(|terms| node.is_one_of(terms))
    }

    fn join(&mut self, node: &NodeInfo) {
        if !self.fits(node) {
            return;
        }
        let (word, bit) = (node.id as usize / 64, 1 << (node.id % 64));
        if self.members.len() <= word {
            self.members.resize(word + 1, 0);
        }
        self.members[word] |= bit;
    }
}

fn size(inclusion: &Inclusion<'_>) -> usize {
    let text = |text: &Option<String>| 24 + text.as_ref().map_or(0, String::len);
    let toleration = |own: &Toleration| text(&own.key) + text(&own.value) + text(&own.operator) + text(&own.effect);
    let tolerations = inclusion.tolerations.into_iter().flatten().map(toleration);
    let keys = inclusion.keys.iter().map(|key| 16 + key.len());
    let required = inclusion.required.map_or(0, NodeTerms::size);
    128 + keys.sum::<usize>() + required + tolerations.sum::<usize>()
}

/// Whether a taint keeps a pod with these tolerations off its node.
pub fn repels(taints: &[Taint], tolerations: &[Toleration]) -> bool {
    let mut hard = taints
        .iter()
        .filter(|taint| matches!(&*taint.effect, "NoSchedule" | "NoExecute"));
    hard.any(|taint| !tolerations.iter().any(|own| mk8s_api::taints::tolerates(own, taint)))
}

/// All inclusions.
#[derive(Debug, Default)]
pub struct Inclusions {
    all: Slots<Known>,
    hashes: RandomState,
    ids: IntMap<u64, SmallVec<[InclusionId; 1]>>,
}

impl Inclusions {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The number of an inclusion, if it is known.
    pub fn find(&self, inclusion: &Inclusion<'_>) -> Option<InclusionId> {
        let mut ids = self.ids.get(&self.hashes.hash_one(inclusion))?.iter();
        let is = |id: &InclusionId| self.all.get(*id).is_some_and(|known| known.is(inclusion));
        ids.find(|id| is(id)).copied()
    }

    /// The number of an inclusion.
    pub fn ask(&mut self, inclusion: &Inclusion<'_>, nodes: &[NodeInfo]) -> InclusionId {
        if let Some(id) = self.find(inclusion) {
            return id;
        }
        let mut known = Known {
            hash: self.hashes.hash_one(inclusion),
            keys: inclusion.keys.iter().map(|key| (*key).into()).collect(),
            required: inclusion.required.cloned(),
            tolerations: inclusion.tolerations.map(Into::into),
            members: Vec::new(),
            size: size(inclusion),
        };
        nodes
            .iter()
            .filter(|node| node.exists)
            .for_each(|node| known.join(node));
        let hash = known.hash;
        let id = self.all.insert(known);
        self.ids.entry(hash).or_default().push(id);
        id
    }

    /// About how many bytes an inclusion takes.
    pub fn size(&self, id: InclusionId) -> usize {
        self.all.get(id).map_or(0, |known| known.size)
    }

    /// Whether a node counts.
    pub fn has(&self, id: InclusionId, node: NodeId) -> bool {
        let known = self.all.get(id);
        let word = known.and_then(|known| known.members.get(node as usize / 64));
        word.is_some_and(|word| word & (1 << (node % 64)) != 0)
    }

    /// The nodes that count.
    pub fn members(&self, id: InclusionId) -> impl Iterator<Item = NodeId> {
        let words = self.all.get(id).into_iter().flat_map(|known| &known.members);
        let bits = |word: u64| (0..64).filter(move |bit| word & (1 << bit) != 0);
        (0..)
            .zip(words)
            .flat_map(move |(at, word)| bits(*word).map(move |bit| 64 * at + bit))
    }

    /// A node is so.
    pub fn join(&mut self, node: &NodeInfo) {
        self.all.values_mut().for_each(|known| known.join(node));
    }

    /// A node is not any more as it was.
    pub fn leave(&mut self, node: NodeId) {
        for known in self.all.values_mut() {
            if let Some(word) = known.members.get_mut(node as usize / 64) {
                *word &= !(1 << (node % 64));
            }
        }
    }

    /// Forgets all but those that are used.
    pub fn retain(&mut self, used: impl Fn(InclusionId) -> bool) {
        let gone = self.all.iter().map(|(id, _)| id).filter(|id| !used(*id));
        let gone: Vec<InclusionId> = gone.collect();
        for id in gone {
            let Some(known) = self.all.remove(id) else { continue };
            if let Some(ids) = self.ids.get_mut(&known.hash) {
                ids.retain(|own| *own != id);
                if ids.is_empty() {
                    self.ids.remove(&known.hash);
                }
            }
        }
    }
}
