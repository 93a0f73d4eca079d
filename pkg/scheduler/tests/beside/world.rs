//! The cluster as the scheduler keeps it, and the same as plain lists: whatever happens, happens to both.

use std::sync::Arc;

use mk8s_scheduler::cluster::Cluster;
use mk8s_scheduler::pod::PodInfo;
use serde_json::json;

use crate::model::{Dice, Model, Node, Pod};

#[derive(Default)]
pub struct World {
    pub model: Model,
    pub cluster: Cluster,
}

pub fn info(pod: &Pod, uid: &str, node: Option<&str>, cluster: &mut Cluster) -> Arc<PodInfo> {
    let pod = serde_json::from_value(pod.json(uid, node)).unwrap();
    Arc::new(PodInfo::new(&pod, &mut cluster.kins))
}

impl World {
    /// A node comes, changes or goes (none).
    pub fn set_node(&mut self, name: &str, node: Option<Node>) {
        match &node {
            Some(node) => self.cluster.set_node(&serde_json::from_value(node.json(name)).unwrap()),
            None => self.cluster.remove_node(name),
        };
        self.model.set_node(name, node);
    }

    pub fn place(&mut self, pod: Pod, uid: &str, node: &str) {
        let info = info(&pod, uid, Some(node), &mut self.cluster);
        self.assume(pod, info, node);
    }

    /// As it was decided, before anyone else knows.
    pub fn assume(&mut self, pod: Pod, info: Arc<PodInfo>, node: &str) {
        self.model.pods.insert(info.uid.to_string(), (node.to_owned(), pod));
        self.cluster.place(info, node);
    }

    pub fn remove(&mut self, uid: &str) {
        self.cluster.remove(uid);
        self.model.pods.remove(uid);
    }

    /// One gets labels, or goes.
    pub fn change_namespace(&mut self, dice: &mut Dice) {
        let (name, labels) = (dice.of(&["d", "e"]), dice.namespace_labels());
        let labels = (dice.below(4) != 0).then_some(labels);
        self.cluster.set_namespace(name, labels.clone());
        match labels {
            Some(labels) => self.model.namespaces.insert(name, labels),
            None => self.model.namespaces.remove(name),
        };
    }

    /// One selects others, or goes.
    pub fn change_service(&mut self, dice: &mut Dice) {
        let (namespace, name) = (dice.of(&["d", "e"]), dice.of(&["s", "t"]));
        let selects = dice.pod_labels();
        let service = json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"selector": selects}});
        let service = serde_json::from_value(service).unwrap();
        if dice.below(4) == 0 {
            self.cluster.groups.remove_service(&service);
            self.model.services.remove(&(namespace, name));
        } else {
            self.cluster.groups.set_service(&service);
            self.model.services.insert((namespace, name), selects);
        }
    }
}
