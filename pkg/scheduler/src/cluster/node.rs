//! A node with the sums of its pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use mk8s_client::{HostPort, NodeTerms};
use smallvec::SmallVec;

use super::images::ImageId;
use super::volumes::{Attached, CsiNode, Load};
use crate::pod::PodInfo;
use crate::resources::{self, Resources};

/// A node's place in the cluster's table. A node that comes after another went may get its id.
pub type NodeId = u32;

/// A node's labels.
pub type Labels = BTreeMap<String, String>;

/// What a node is, without what is on it.
#[derive(Debug, Default)]
pub struct Facts {
    pub labels: Labels,
    pub taints: Box<[Taint]>,
    /// It is cordoned.
    pub unschedulable: bool,
    /// What it has for pods.
    pub allocatable: Resources,
    /// The images that it has, sorted.
    pub images: Box<[ImageId]>,
}

impl Facts {
    pub(super) fn new(node: &Node, images: Box<[ImageId]>) -> Self {
        let spec = node.spec.as_ref();
        Facts {
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.and_then(|spec| spec.taints.clone()).unwrap_or_default().into(),
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            allocatable: resources::allocatable(node),
            images,
        }
    }
}

/// A node and what is on it. A copy of it is cheap enough for a trial.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    pub id: NodeId,
    pub name: Arc<str>,
    /// False while only pods of it are known: it is no candidate then.
    pub exists: bool,
    /// It has taints that keep pods away, or would rather have none: most nodes have not.
    pub tainted: bool,
    /// What it has for pods; beside what they take, since each decision asks for both.
    pub allocatable: Resources,
    /// What its pods ask for.
    pub requested: Resources,
    /// The same for scores.
    pub nonzero: Resources,
    pub facts: Arc<Facts>,
    pub pods: Vec<Arc<PodInfo>>,
    /// Host ports in use, sorted; one as often as pods have it.
    pub ports: Arc<Vec<HostPort>>,
    /// How full it is of drivers' volumes, where it takes only so many; as of the last [`super::Cluster::count_attached`].
    pub loads: SmallVec<[Load; 1]>,
    /// The drivers of volumes that it has; none: it does not say.
    pub csi: Option<Arc<CsiNode>>,
    /// The drivers' volumes that are there; as of then, too.
    pub attached: Arc<Attached>,
}

impl NodeInfo {
    /// A pod is here.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.nonzero.add(&pod.nonzero);
        if !pod.ports.is_empty() {
            let ports = Arc::make_mut(&mut self.ports);
            ports.extend(pod.ports.iter().cloned());
            // Two sorted parts: they are only merged.
            ports.sort();
        }
        self.pods.push(pod);
    }

    /// A pod is here as it is now, if it counts as it did; what it was before.
    pub fn replace(&mut self, pod: &Arc<PodInfo>) -> Option<Arc<PodInfo>> {
        let mut all = self.pods.iter_mut();
        let own = all.find(|own| own.uid == pod.uid).filter(|own| own.counts_as(pod))?;
        Some(std::mem::replace(own, pod.clone()))
    }

    /// A pod is here no more.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|pod| &*pod.uid == uid)?;
        let pod = self.pods.swap_remove(at);
        self.take_off(&pod);
        if !pod.ports.is_empty() {
            let mut gone = pod.ports.iter().peekable();
            let ports = Arc::make_mut(&mut self.ports);
            ports.retain(|port| gone.next_if_eq(&port).is_none());
        }
        Some(pod)
    }

    fn take_off(&mut self, pod: &PodInfo) {
        if self.requested.is_full() || self.nonzero.is_full() {
            (self.requested, self.nonzero) = Default::default();
            for pod in &self.pods {
                self.requested.add(&pod.requests);
                self.nonzero.add(&pod.nonzero);
            }
        } else {
            self.requested.sub(&pod.requests);
            self.nonzero.sub(&pod.nonzero);
        }
    }

    /// A label of the node.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.facts.labels.get(key).map(String::as_str)
    }

    /// Whether it is one of those.
    pub fn is_one_of(&self, terms: &NodeTerms) -> bool {
        terms.matches(&self.name, &self.facts.labels)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::cluster::Kins;

    #[test]
    fn sums_of_very_many_pods_are_right_again_when_they_go() {
        let mut kins = Kins::default();
        let mut pod = |uid: usize| {
            let asks = json!({"cpu": "9E", "memory": "9E", "x.y/z": "9E"});
            let pod = json!({"metadata": {"uid": uid.to_string()}, "spec": {"containers": [{"name": "c", "resources": {"requests": asks}}]}});
            Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut kins))
        };
        let mut node = NodeInfo::default();
        (0..2100).for_each(|uid| node.add(pod(uid)));
        assert!(node.requested.is_full() && node.nonzero.is_full() && node.requested.memory > 0);
        (1..2100).for_each(|uid| drop(node.remove(&uid.to_string())));
        assert_eq!((&node.requested, &node.nonzero), (&pod(0).requests, &pod(0).nonzero));
        node.remove("0");
        assert_eq!((node.requested, node.nonzero), Default::default());
    }

    #[test]
    fn host_ports_are_in_order_and_go_with_their_pods() {
        let mut kins = Kins::default();
        let mut pod = |uid: &str, ports: &[i32]| {
            let ports: Vec<_> = ports
                .iter()
                .map(|port| json!({"containerPort": 1, "hostPort": port}))
                .collect();
            let pod = json!({"metadata": {"uid": uid}, "spec": {"containers": [{"name": "c", "ports": ports}]}});
            Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut kins))
        };
        let (one, other) = (pod("1", &[90, 80, 70]), pod("2", &[85, 80]));
        let mut node = NodeInfo::default();
        node.add(one.clone());
        let before = node.clone();
        node.add(other.clone());
        assert!(node.ports.is_sorted() && node.ports.len() == 5 && before.ports.len() == 3);
        node.remove("1");
        assert_eq!(**node.ports, *other.ports);
        node.remove("2");
        assert!(node.ports.is_empty() && **before.ports == *one.ports);
    }
}
