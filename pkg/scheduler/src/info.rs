//! Pods and nodes with everything that a cycle asks of them worked out beforehand.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use mk8s_client::{HostPort, NodeTerms, host_ports};

use crate::resources::{self, Resources};

/// A pod as the scheduler sees it.
#[derive(Debug)]
pub struct PodInfo {
    /// The pod itself.
    pub pod: Arc<Pod>,
    /// What it asks for.
    pub requests: Resources,
    /// The same for scores.
    pub nonzero: Resources,
    /// The host ports it takes.
    pub ports: Vec<HostPort>,
    /// Where it has to go: nodeSelector and required node affinity.
    pub required: NodeTerms,
    /// Where it would like to go, with weights.
    pub preferred: Vec<(i64, NodeTerms)>,
}

impl PodInfo {
    /// Works out a pod.
    pub fn new(pod: Arc<Pod>) -> Self {
        let mut requests = resources::requests(&pod);
        requests.pods = 1;
        PodInfo {
            nonzero: resources::nonzero_requests(&pod),
            ports: pod.spec.as_ref().map(host_ports).unwrap_or_default(),
            required: NodeTerms::required(&pod),
            preferred: NodeTerms::preferred(&pod),
            requests,
            pod,
        }
    }

    /// The pod's uid: names can come back, uids don't.
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        let meta = &self.pod.metadata;
        format!(
            "{}/{}",
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default()
        )
    }

    /// What the pod tolerates.
    pub fn tolerations(&self) -> &[Toleration] {
        self.pod
            .spec
            .as_ref()
            .and_then(|s| s.tolerations.as_deref())
            .unwrap_or_default()
    }

    /// The priority that orders the queue.
    pub fn priority(&self) -> i32 {
        self.pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)
    }
}

/// What is remembered of a pod that has its node. A cluster's pods are all here: a whole one takes ten times as much.
#[derive(Debug)]
pub struct Placed {
    pub namespace: Box<str>,
    pub labels: BTreeMap<String, String>,
    /// It is going, and counts as gone where pods are spread.
    pub deleting: bool,
    pub priority: i32,
    requests: Resources,
    nonzero: Resources,
    ports: Box<[HostPort]>,
}

impl Placed {
    /// The part of a pod that its node needs.
    pub fn new(pod: &PodInfo) -> Self {
        let meta = &pod.pod.metadata;
        Placed {
            namespace: meta.namespace.as_deref().unwrap_or_default().into(),
            labels: meta.labels.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            priority: pod.priority(),
            requests: pod.requests.clone(),
            nonzero: pod.nonzero.clone(),
            ports: pod.ports.clone().into(),
        }
    }
}

/// A node with the sums of its pods.
#[derive(Debug, Default)]
pub struct NodeInfo {
    /// The node; None while only pods of it are known (it is then no candidate).
    pub node: Option<Arc<Node>>,
    /// Its name.
    pub name: String,
    /// What it has for pods.
    pub allocatable: Resources,
    /// What its pods ask for.
    pub requested: Resources,
    /// The same for scores.
    pub nonzero: Resources,
    /// Its pods by uid.
    pub pods: HashMap<String, Placed>,
    /// Host ports in use.
    pub ports: Vec<HostPort>,
    /// Sizes of the images it has, by each of their names.
    pub images: HashMap<String, i64>,
}

impl NodeInfo {
    /// A node of which nothing is known yet.
    pub fn named(name: &str) -> Self {
        NodeInfo {
            name: name.to_owned(),
            ..NodeInfo::default()
        }
    }

    /// Takes over a node's new state.
    pub fn set_node(&mut self, node: Arc<Node>) {
        self.allocatable = resources::allocatable(&node);
        self.images = node
            .status
            .iter()
            .flat_map(|s| s.images.iter().flatten())
            .flat_map(|i| {
                i.names
                    .iter()
                    .flatten()
                    .map(|name| (name.clone(), i.size_bytes.unwrap_or(0)))
            })
            .collect();
        self.node = Some(node);
    }

    /// A pod is here; returns what was known of it before.
    pub fn add_pod(&mut self, pod: &PodInfo) -> Option<Placed> {
        self.requested.add(&pod.requests);
        self.nonzero.add(&pod.nonzero);
        self.ports.extend(pod.ports.iter().cloned());
        let old = self.pods.insert(pod.uid().to_owned(), Placed::new(pod))?;
        self.take_off(&old);
        Some(old)
    }

    /// A pod is here no more.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Placed> {
        let old = self.pods.remove(uid)?;
        self.take_off(&old);
        Some(old)
    }

    fn take_off(&mut self, old: &Placed) {
        self.requested.sub(&old.requests);
        self.nonzero.sub(&old.nonzero);
        for port in &*old.ports {
            if let Some(at) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(at);
            }
        }
    }

    /// The node's taints.
    pub fn taints(&self) -> &[Taint] {
        self.node
            .as_ref()
            .and_then(|n| n.spec.as_ref())
            .and_then(|s| s.taints.as_deref())
            .unwrap_or_default()
    }

    /// A label of the node.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().get(key).map(String::as_str)
    }

    /// None before the node is known.
    fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let node = self.node.as_ref();
        node.and_then(|node| node.metadata.labels.as_ref()).unwrap_or(&NONE)
    }

    /// Whether it is one of those.
    pub fn is_one_of(&self, terms: &NodeTerms) -> bool {
        terms.matches(&self.name, self.labels())
    }
}
