//! The rules, read off upstream's sources and asked of plain lists: every decision looks at every pod. One file for each matter.

mod affinity;
mod images;
mod nodes;
mod ports;
mod resources;
mod spread;
mod wholes;

use crate::model::{Labels, Model, Node, Pod};

pub use wholes::Answer;

/// A change that a trial makes: the pod comes (1) or goes (-1).
pub type Change<'a> = (&'a Pod, i64);

/// What is asked of one pod that waits, with what a trial changes on one node.
pub struct Question<'a> {
    pub model: &'a Model,
    pub pod: &'a Pod,
    pub node: Option<&'a str>,
    pub changes: &'a [Change<'a>],
}

fn none() -> Labels {
    Labels::new()
}

impl Question<'_> {
    fn labels_of(&self, namespace: &str) -> Option<&Labels> {
        self.model.namespaces.get(namespace)
    }

    fn each(&self, mut found: impl FnMut(&Node, &Pod, i64)) {
        for (name, node) in &self.model.nodes {
            self.model.on(name).for_each(|pod| found(node, pod, 1));
            if self.node == Some(name) {
                self.changes.iter().for_each(|(pod, by)| found(node, pod, *by));
            }
        }
    }
}
