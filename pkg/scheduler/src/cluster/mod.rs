//! Everything that decisions are made of, kept from events: the nodes and what is on them, also what was decided and is not bound yet.
//!
//! One task owns it, and decides on it as it is: there is no snapshot to bring up to date.

mod budgets;
mod carried;
pub mod claims;
mod counts;
mod groups;
mod images;
mod inclusions;
mod index;
mod kin;
mod namespaces;
mod node;
mod nominated;
mod picks;
mod residents;
mod rosters;
mod selector;
mod slots;
mod storage;
mod tally;
#[cfg(test)]
mod tests;
mod topology;
mod volumes;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

pub use budgets::Budgets;
pub use claims::Claims;
pub use counts::{Counted, Counts, Sort};
pub use groups::Groups;
pub use images::{ImageId, Images};
pub use inclusions::{Inclusion, InclusionId, repels};
pub use kin::{Kin, KinId, Kins};
pub use namespaces::Namespaces;
pub use node::{Facts, Labels, NodeId, NodeInfo};
pub use nominated::Nominated;
pub use picks::Pick;
pub use rosters::Scope;
pub use selector::{PodSelector, Selector};
pub use tally::{Sums, Tally};
pub use topology::{Column, DomainId, NONE};
pub use volumes::migrated::{self, Migrated};
pub use volumes::{
    Attachable, Attached, Capacity, Claim, ClaimRef, Class, CsiNode, Decided, DriverId, Ended, Load, Part, Pinned,
    Places, Shelf, Source, Uses, Volume, Volumes, key,
};

use crate::pod::PodInfo;

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";

/// See the module.
#[derive(Default)]
pub struct Cluster {
    /// By id; an id that is free has a node without a name.
    nodes: Vec<NodeInfo>,
    free: Vec<NodeId>,
    ids: HashMap<Arc<str>, NodeId>,
    /// Those that exist, in turn one of each zone.
    order: Vec<NodeId>,
    /// `order` is not up to date.
    reordered: bool,
    /// Which node each pod is on, by uid.
    places: HashMap<Arc<str>, NodeId>,
    pub kins: Kins,
    pub nominated: Nominated,
    pub budgets: Budgets,
    pub groups: Groups,
    namespaces: Namespaces,
    counts: Counts,
    pub volumes: Volumes,
    pub claims: Claims,
    images: Images,
}

impl Cluster {
    /// A node by name, also one of which only pods are known.
    pub fn find(&self, name: &str) -> Option<&NodeInfo> {
        self.ids.get(name).map(|id| &self.nodes[*id as usize])
    }

    /// A node by its id.
    pub fn node(&self, id: NodeId) -> &NodeInfo {
        &self.nodes[id as usize]
    }

    /// The ids of all nodes that exist, zone by zone in turn, so that who looks at some of them sees all zones. As of the last
    /// [`Cluster::settle`].
    pub fn order(&self) -> &[NodeId] {
        &self.order
    }

    /// Which images nodes have.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// Before a decision: does what is done once for many events.
    pub fn settle(&mut self) {
        if std::mem::take(&mut self.reordered) {
            self.order = in_turn(&self.nodes);
        }
        self.counts.settle(&self.namespaces);
    }

    /// Numbers of pods by node and by domain.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Before a decision that asks for it: has pods counted by node (`live`: without those that are going), and by the domains of
    /// each scope.
    pub fn count<'s>(&mut self, pods: &[Arc<PodSelector>], live: bool, scopes: impl IntoIterator<Item = Scope<'s>>) {
        self.counts.ask(pods, live, scopes, &self.nodes, &self.namespaces);
    }

    /// Before a decision that asks for it: the nodes that its scopes include.
    pub fn include(&mut self, inclusion: &Inclusion<'_>) -> InclusionId {
        self.counts.include(inclusion, &self.nodes)
    }

    /// Before a decision that asks for it: has the domains of a key noted.
    pub fn note_domains(&mut self, key: &str) {
        self.counts.ask_column(&Scope::of_key(key), &self.nodes);
    }

    /// The labels of namespaces.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// A namespace came or has other labels, or went.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        if self.namespaces.labels(name) == labels.as_ref() {
            return;
        }
        self.counts.change_namespaces(&self.namespaces);
        self.namespaces.set(name, labels);
    }

    /// A node came or changed; what it was before, if it was.
    pub fn set_node(&mut self, node: &Node) -> Option<Arc<Facts>> {
        let id = self.id(node.metadata.name.as_deref().unwrap_or_default());
        // First: what no other node has, it tells the size of anew.
        self.images.forget(&self.nodes[id as usize].facts.images);
        let facts = Facts::new(node, self.images.note(node));
        let info = &self.nodes[id as usize];
        let counts = !info.exists || info.facts.labels != facts.labels || info.facts.taints != facts.taints;
        if counts {
            self.uncount_node(id);
        }
        let info = &mut self.nodes[id as usize];
        let zone = |labels: &Labels| (labels.get(REGION).cloned(), labels.get(ZONE).cloned());
        self.reordered |= !info.exists || zone(&info.facts.labels) != zone(&facts.labels);
        info.allocatable.clone_from(&facts.allocatable);
        info.tainted = !facts.taints.is_empty() || facts.unschedulable;
        let before = std::mem::replace(&mut info.facts, Arc::new(facts));
        self.volumes.places.set_node(id, Some(&info.facts));
        let before = std::mem::replace(&mut info.exists, true).then_some(before);
        let moved = before.as_ref().is_none_or(|before| before.labels != info.facts.labels);
        let name = moved.then(|| info.name.clone());
        if counts {
            self.count_node(id);
        }
        if let Some(name) = name {
            self.look_at_bindings_at(&name);
        }
        before
    }

    /// A node went; what it was. Its pods are still known, should it come back.
    pub fn remove_node(&mut self, name: &str) -> Option<Arc<Facts>> {
        let id = self.ids.get(name).copied()?;
        self.uncount_node(id);
        let info = &mut self.nodes[id as usize];
        let existed = std::mem::take(&mut info.exists);
        let facts = std::mem::take(&mut info.facts);
        self.images.forget(&facts.images);
        self.volumes.places.set_node(id, None);
        self.reordered = true;
        self.drop_if_unused(id);
        self.look_at_bindings_at(name);
        existed.then_some(facts)
    }

    /// From here on the node and its pods count as they are.
    fn count_node(&mut self, id: NodeId) {
        let info = &self.nodes[id as usize];
        self.counts.node_came(info);
        for pod in &info.pods {
            self.counts.came(pod, id, &self.nodes, &self.namespaces);
        }
    }

    /// Before a node changes: it and its pods don't count.
    fn uncount_node(&mut self, id: NodeId) {
        let info = &self.nodes[id as usize];
        if info.exists {
            info.pods.iter().for_each(|pod| self.counts.went(pod, id));
            self.counts.node_went(info);
        }
    }

    /// A pod is on a node, seen or assumed; one that was assumed elsewhere moves. What was known of it before.
    pub fn place(&mut self, pod: Arc<PodInfo>, node: &str) -> Option<Arc<PodInfo>> {
        if let Some(before) = self.replace(&pod, node) {
            return Some(before);
        }
        let before = self.take_off(&pod.uid);
        let id = self.id(node);
        self.places.insert(pod.uid.clone(), id);
        if self.nodes[id as usize].exists {
            self.counts.came(&pod, id, &self.nodes, &self.namespaces);
        }
        if let Some(volumes) = &pod.volumes {
            self.volumes.came(volumes, id);
        }
        self.nodes[id as usize].add(pod);
        before
    }

    fn replace(&mut self, pod: &Arc<PodInfo>, node: &str) -> Option<Arc<PodInfo>> {
        let id = *self.places.get(&pod.uid)?;
        let info = self.nodes.get_mut(id as usize).filter(|info| *info.name == *node)?;
        info.replace(pod)
    }

    /// A pod ended or its binding failed; what was known of it, if it was on a node.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let pod = self.take_off(uid)?;
        if pod.volumes.is_some() {
            self.volumes.pod_gone(&pod);
        }
        Some(pod)
    }

    fn take_off(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let id = self.places.remove(uid)?;
        let info = &mut self.nodes[id as usize];
        let pod = info.remove(uid);
        if let Some(pod) = pod.as_ref().filter(|_| info.exists) {
            self.counts.went(pod, id);
        }
        if let Some(volumes) = pod.as_ref().and_then(|pod| pod.volumes.as_ref()) {
            self.volumes.left(volumes, id);
        }
        self.drop_if_unused(id);
        pod
    }

    /// The node that a pod is on.
    pub fn place_of(&self, uid: &str) -> Option<&NodeInfo> {
        self.places.get(uid).map(|id| self.node(*id))
    }

    fn id(&mut self, name: &str) -> NodeId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(NodeInfo::default());
            NodeId::try_from(self.nodes.len() - 1).unwrap_or(NodeId::MAX)
        });
        let name: Arc<str> = name.into();
        self.nodes[id as usize] = NodeInfo {
            id,
            csi: self.volumes.csi_node(&name).cloned(),
            name: name.clone(),
            ..NodeInfo::default()
        };
        self.volumes.node_appeared(id);
        self.ids.insert(name, id);
        id
    }

    fn drop_if_unused(&mut self, id: NodeId) {
        let info = &mut self.nodes[id as usize];
        if !info.exists && info.pods.is_empty() {
            self.ids.remove(&info.name);
            *info = NodeInfo::default();
            self.free.push(id);
        }
    }
}

/// One node of each zone, then the next of each.
fn in_turn(nodes: &[NodeInfo]) -> Vec<NodeId> {
    let mut zones: BTreeMap<(Option<&str>, Option<&str>), Vec<NodeId>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.exists) {
        zones
            .entry((node.label(REGION), node.label(ZONE)))
            .or_default()
            .push(node.id);
    }
    let longest = zones.values().map(Vec::len).max().unwrap_or(0);
    let turn = |at: usize| zones.values().filter_map(move |zone| zone.get(at).copied());
    (0..longest).flat_map(turn).collect()
}
