//! The cluster as plain lists, and as the objects that the scheduler reads.

mod containers;
mod dice;
mod node;
mod pod;
mod wholes;

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub use containers::{Amounts, Container, Port};
pub use dice::Dice;
pub use node::{Node, Taint, Toleration};
pub use pod::{Need, NodeTerm, Pod};

pub type Labels = BTreeMap<String, String>;

pub const KEYS: [&str; 3] = ["topology.kubernetes.io/zone", "kubernetes.io/hostname", "rack"];

/// A label selector: none, or requirements.
#[derive(Debug, Clone)]
pub struct Select(pub Option<Vec<(String, String, Vec<String>)>>);

impl Select {
    pub fn matches(&self, labels: &Labels) -> bool {
        let Some(all) = &self.0 else { return false };
        all.iter()
            .all(|(key, operator, values)| match (&**operator, labels.get(key)) {
                ("In", Some(value)) => values.contains(value),
                ("NotIn", Some(value)) => !values.contains(value),
                ("NotIn" | "DoesNotExist", None) | ("Exists", Some(_)) => true,
                _ => false,
            })
    }

    fn json(&self) -> Value {
        let Some(all) = &self.0 else { return Value::Null };
        let all = all
            .iter()
            .map(|(key, operator, values)| json!({"key": key, "operator": operator, "values": values}));
        json!({"matchExpressions": all.collect::<Vec<_>>()})
    }
}

#[derive(Debug, Clone)]
pub struct Term {
    pub key: &'static str,
    pub names: Vec<&'static str>,
    pub of_namespaces: Select,
    pub labels: Select,
}

impl Term {
    fn json(&self) -> Value {
        json!({"topologyKey": self.key, "namespaces": self.names, "namespaceSelector": self.of_namespaces.json(),
            "labelSelector": self.labels.json()})
    }
}

#[derive(Debug, Clone)]
pub struct Constraint {
    pub key: &'static str,
    pub hard: bool,
    pub max_skew: usize,
    pub min_domains: usize,
    pub labels: Select,
    pub by_tier: bool,
    pub honors_affinity: bool,
    pub honors_taints: bool,
}

impl Constraint {
    fn json(&self) -> Value {
        let honors = |honors: bool| if honors { "Honor" } else { "Ignore" };
        json!({"topologyKey": self.key, "maxSkew": self.max_skew, "labelSelector": self.labels.json(),
            "minDomains": self.hard.then_some(self.min_domains),
            "whenUnsatisfiable": if self.hard { "DoNotSchedule" } else { "ScheduleAnyway" },
            "matchLabelKeys": if self.by_tier { &["tier"][..] } else { &[] },
            "nodeAffinityPolicy": honors(self.honors_affinity), "nodeTaintsPolicy": honors(self.honors_taints)})
    }
}

/// All there is.
#[derive(Debug, Default)]
pub struct Model {
    pub nodes: BTreeMap<String, Node>,
    /// By uid, each with its node, which may not be there.
    pub pods: BTreeMap<String, (String, Pod)>,
    pub namespaces: BTreeMap<&'static str, Labels>,
    /// What Services select, by their namespaces and names.
    pub services: BTreeMap<(&'static str, &'static str), Labels>,
    /// The size of each image that some node has, as the first that had it told.
    pub sizes: BTreeMap<&'static str, i64>,
}

impl Model {
    /// The pods of a node.
    pub fn on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Pod> {
        let pods = self.pods.values();
        pods.filter(move |(on, _)| on == node).map(|(_, pod)| pod)
    }

    /// A node comes, changes or goes (none).
    pub fn set_node(&mut self, name: &str, node: Option<Node>) {
        self.nodes.remove(name);
        let nodes = &self.nodes;
        self.sizes.retain(|image, _| {
            nodes
                .values()
                .any(|node| node.images.iter().any(|(own, _)| own == image))
        });
        if let Some(node) = node {
            for (image, size) in &node.images {
                self.sizes.entry(image).or_insert(*size);
            }
            self.nodes.insert(name.to_owned(), node);
        }
    }
}
