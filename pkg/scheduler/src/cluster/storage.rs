//! What changes of storage do to the nodes that have to do with it, and to pods that wait for their volumes.

use std::sync::Arc;

use mk8s_client::Raw;

use super::volumes::{Claim, CsiNode, Decided, Volume, key};
use super::{Cluster, NodeId};

impl Cluster {
    /// A claim came or changed; what it was.
    pub fn set_claim(&mut self, claim: &Raw) -> Option<Claim> {
        let before = self.volumes.set_claim(claim);
        self.look_at_bindings(&key(claim));
        before
    }

    /// A claim went.
    pub fn remove_claim(&mut self, claim: &Raw) {
        let key = key(claim);
        self.volumes.remove_claim(&key);
        self.look_at_bindings(&key);
    }

    /// A volume came or changed; what it was.
    pub fn set_volume(&mut self, volume: &Raw) -> Option<Arc<Volume>> {
        let before = self.volumes.set_volume(volume);
        self.look_at_claim_of(before.as_deref());
        let now = self.volumes.volume(&key(volume)).and_then(|volume| volume.claim());
        if let Some(claim) = now.map(|claim| claim.key.clone()) {
            self.look_at_bindings(&claim);
        }
        before
    }

    /// A volume went.
    pub fn remove_volume(&mut self, volume: &Raw) {
        let before = self.volumes.remove_volume(&key(volume));
        self.look_at_claim_of(before.as_deref());
    }

    fn look_at_claim_of(&mut self, volume: Option<&Volume>) {
        if let Some(claim) = volume.and_then(Volume::claim) {
            self.look_at_bindings(&claim.key);
        }
    }

    /// A pod is to go to a node, and gets for its claims what is decided.
    pub fn assume(&mut self, pod: &Arc<str>, node: NodeId, decided: Decided) {
        let node = &self.nodes[node as usize];
        self.volumes.assume(pod, &node.name, decided);
        // Others may have written all of it.
        self.volumes.look_at(pod, Some(node));
    }

    /// Those who wait for a claim look whether they need any longer.
    fn look_at_bindings(&mut self, claim: &str) {
        for (pod, node) in self.volumes.waiting_for(claim) {
            let node = self.ids.get(&node).map(|id| &self.nodes[*id as usize]);
            self.volumes.look_at(&pod, node);
        }
    }

    /// Those who wait for volumes at a node look again.
    pub(super) fn look_at_bindings_at(&mut self, name: &str) {
        for pod in self.volumes.waiting_at(name) {
            let node = self.ids.get(name).map(|id| &self.nodes[*id as usize]);
            self.volumes.look_at(&pod, node);
        }
    }

    /// A StorageClass came or changed; what it was.
    pub fn set_class(&mut self, class: &Raw) -> Option<super::Class> {
        self.volumes.set_class(class)
    }

    /// A StorageClass went.
    pub fn remove_class(&mut self, class: &Raw) {
        self.volumes.remove_class(&key(class));
    }

    /// A node's drivers came or changed; what they were.
    pub fn set_csi_node(&mut self, csi: &Raw) -> Option<Arc<CsiNode>> {
        let node = key(csi);
        let before = self.volumes.csi_node(&node).cloned();
        self.csi_node(&node, Some(Arc::new(CsiNode::new(csi))));
        before
    }

    /// A node has no drivers any more.
    pub fn remove_csi_node(&mut self, csi: &Raw) {
        self.csi_node(&key(csi), None);
    }

    fn csi_node(&mut self, node: &str, csi: Option<Arc<CsiNode>>) {
        if let Some(id) = self.ids.get(node) {
            self.nodes[*id as usize].csi.clone_from(&csi);
        }
        self.volumes.set_csi_node(node, csi);
    }

    /// Counts the drivers' volumes at nodes where something of them changed.
    pub fn count_attached(&mut self) {
        let (mut ids, names) = self.volumes.take_stale();
        ids.extend(names.iter().filter_map(|name| self.ids.get(&**name)));
        for id in ids {
            if let Some(node) = self.nodes.get_mut(id as usize) {
                let attached = self.volumes.attached(node);
                node.loads = self.volumes.loads(node.csi.as_deref(), &attached);
                node.attached = Arc::new(attached);
            }
        }
    }
}
