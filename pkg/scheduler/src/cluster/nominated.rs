//! The pods for which a preemption makes room, by the node where it does: until they are there, who is less important leaves it to them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pod::PodInfo;

/// See the module.
#[derive(Debug, Default)]
pub struct Nominated {
    on: HashMap<Box<str>, Vec<Arc<PodInfo>>>,
    node_of: HashMap<Arc<str>, Box<str>>,
}

impl Nominated {
    /// The pods that are nominated to a node.
    pub fn on(&self, node: &str) -> &[Arc<PodInfo>] {
        if self.on.is_empty() {
            return &[];
        }
        self.on.get(node).map_or(&[], Vec::as_slice)
    }

    /// The node that a pod is nominated to.
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.node_of.get(uid).map(|node| &**node)
    }

    /// The pod is nominated to the node.
    pub fn set(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove(&pod.uid);
        self.node_of.insert(pod.uid.clone(), node.into());
        self.on.entry(node.into()).or_default().push(pod);
    }

    /// It is no more: it is bound, gone, or nominated nowhere. The pod, if it was.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let node = self.node_of.remove(uid)?;
        let pods = self.on.get_mut(&node)?;
        let at = pods.iter().position(|pod| &*pod.uid == uid)?;
        let pod = pods.swap_remove(at);
        if pods.is_empty() {
            self.on.remove(&node);
        }
        Some(pod)
    }
}
