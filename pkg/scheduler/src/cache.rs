//! The nodes and what is on them, kept from events; and the pods that were given a node whose binding the informer has not shown yet.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::counts::Counts;
use crate::info::{NodeInfo, PodInfo};
use crate::spread::Spread;

/// All nodes. Slots stay dense, so that a cycle walks them in turn from where the last one stopped.
#[derive(Default)]
pub struct Cache {
    nodes: Vec<NodeInfo>,
    at: HashMap<String, usize>,
    /// Which node each pod is on, by uid.
    pods: HashMap<String, String>,
    counts: Counts,
}

impl Cache {
    /// Every node that exists.
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.at.get(name).map(|at| &self.nodes[*at])
    }

    /// A node came or changed.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        self.slot(&name).set_node(node);
    }

    /// A node went. Its pods are still known, should it come back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.at.get(name).copied() else { return };
        self.nodes[at].node = None;
        self.drop_if_unused(at);
    }

    /// A pod is on a node, seen or assumed; a pod that was assumed elsewhere moves.
    pub fn add_pod(&mut self, pod: &PodInfo, node: &str) {
        let uid = pod.uid().to_owned();
        if self.pods.get(&uid).is_some_and(|old| old != node) {
            self.remove_pod(&uid);
        }
        if let Some(old) = self.slot(node).add_pod(pod) {
            self.counts.change(&old, node, -1);
        }
        if let Some(placed) = self.at.get(node).and_then(|at| self.nodes[*at].pods.get(&uid)) {
            self.counts.change(placed, node, 1);
        }
        self.pods.insert(uid, node.to_owned());
    }

    /// A pod ended or its binding failed; true if it was on a node.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(node) = self.pods.remove(uid) else {
            return false;
        };
        let Some(at) = self.at.get(&node).copied() else {
            return false;
        };
        if let Some(old) = self.nodes[at].remove_pod(uid) {
            self.counts.change(&old, &node, -1);
        }
        self.drop_if_unused(at);
        true
    }

    /// Counts what a pod's spreading asks for.
    pub fn prepare(&mut self, spread: &Spread) {
        for (namespace, selector) in spread.selectors() {
            let pods = self
                .nodes
                .iter()
                .flat_map(|n| n.pods.values().map(|p| (p, n.name.as_str())));
            self.counts.prepare(namespace, selector, pods);
        }
    }

    /// What was counted.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn slot(&mut self, name: &str) -> &mut NodeInfo {
        let at = *self.at.entry(name.to_owned()).or_insert_with(|| {
            self.nodes.push(NodeInfo::named(name));
            self.nodes.len() - 1
        });
        &mut self.nodes[at]
    }

    fn drop_if_unused(&mut self, at: usize) {
        if self.nodes[at].node.is_some() || !self.nodes[at].pods.is_empty() {
            return;
        }
        self.at.remove(&self.nodes[at].name);
        self.nodes.swap_remove(at);
        if let Some(moved) = self.nodes.get(at) {
            self.at.insert(moved.name.clone(), at);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn pod(uid: &str) -> Arc<PodInfo> {
        let pod = json!({"metadata": {"uid": uid}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
    }

    fn node(name: &str) -> Arc<Node> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}})).unwrap())
    }

    #[test]
    fn pods_count_on_their_node_once_and_survive_its_removal() {
        let mut cache = Cache::default();
        cache.set_node(node("a"));
        cache.set_node(node("b"));
        cache.add_pod(&pod("1"), "a");
        cache.add_pod(&pod("1"), "a");
        assert_eq!(cache.node("a").unwrap().requested.milli_cpu, 1000);
        cache.add_pod(&pod("1"), "b");
        assert_eq!(cache.node("a").unwrap().requested.milli_cpu, 0);
        cache.remove_node("b");
        assert_eq!(cache.node("b").unwrap().requested.milli_cpu, 1000);
        cache.remove_node("a");
        assert!(cache.node("a").is_none());
        assert!(cache.remove_pod("1"));
        assert!(cache.nodes().is_empty());
    }
}
