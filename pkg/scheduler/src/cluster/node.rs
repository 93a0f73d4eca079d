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
    /// Host ports in use.
    pub ports: Vec<HostPort>,
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
        self.ports.extend(pod.ports.iter().cloned());
        self.pods.push(pod);
    }

    /// A pod is here no more.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|pod| &*pod.uid == uid)?;
        let pod = self.pods.swap_remove(at);
        self.take_off(&pod);
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|taken| taken == port) {
                self.ports.swap_remove(at);
            }
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
}
