//! A cluster with storage, for tests of what plugins say of pods with volumes.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use mk8s_client::Raw;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::cycle;
use crate::pod::PodInfo;
use crate::profile::Profile;

#[derive(Default)]
pub struct World {
    pub cluster: Cluster,
    revision: usize,
}

pub fn merged(mut all: Value, more: &Value) -> Value {
    mk8s_api::patch::merge(&mut all, more).unwrap();
    all
}

impl World {
    /// With these nodes, each with a label `host` of its name.
    pub fn new(nodes: &[&str]) -> Self {
        let mut world = World::default();
        for node in nodes {
            world.node(node, &json!({}));
        }
        world
    }

    pub fn node(&mut self, name: &str, labels: &Value) {
        let labels = merged(json!({"host": name}), labels);
        let node = json!({"metadata": {"name": name, "labels": labels},
            "status": {"allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"}}});
        self.cluster.set_node(&serde_json::from_value(node).unwrap());
    }

    /// An object, of a revision of its own.
    pub fn raw(&mut self, object: Value, more: &Value) -> Raw {
        self.revision += 1;
        let revision = json!({"metadata": {"resourceVersion": self.revision.to_string()}});
        Raw::new(merged(merged(object, &revision), more)).unwrap()
    }

    /// A class whose claims wait for their first pod, and for which a driver makes volumes.
    pub fn class(&mut self, name: &str, more: &Value) {
        let class =
            json!({"metadata": {"name": name}, "provisioner": "d", "volumeBindingMode": "WaitForFirstConsumer"});
        let raw = self.raw(class, more);
        self.cluster.set_class(&raw);
    }

    /// A claim of class `c`.
    pub fn claim(&mut self, name: &str, more: &Value) {
        let claim = json!({"metadata": {"name": name, "namespace": "d", "uid": name}, "status": {"phase": "Pending"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "c", "resources": {"requests": {"storage": "5"}}}});
        let raw = self.raw(claim, more);
        self.cluster.set_claim(&raw);
    }

    /// A claim that has a volume.
    pub fn bound(&mut self, name: &str, volume: &str, more: &Value) {
        let bound = json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": volume}});
        self.claim(name, &merged(bound, more));
    }

    /// A volume of class `c`.
    pub fn volume(&mut self, name: &str, more: &Value) {
        let volume = json!({"metadata": {"name": name}, "status": {"phase": "Available"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "c", "capacity": {"storage": "5"}}});
        let raw = self.raw(volume, more);
        self.cluster.set_volume(&raw);
    }

    /// The drivers of a node: so many volumes each takes.
    pub fn drivers(&mut self, node: &str, limits: &[(&str, i64)], more: &Value) {
        let drivers: Vec<_> = limits
            .iter()
            .map(|(name, count)| json!({"name": name, "allocatable": {"count": count}}))
            .collect();
        let raw = self.raw(json!({"metadata": {"name": node}, "spec": {"drivers": drivers}}), more);
        self.cluster.set_csi_node(&raw);
    }

    pub fn pod(&mut self, name: &str, volumes: &Value) -> Arc<PodInfo> {
        let mut volumes = volumes.clone();
        for (at, volume) in volumes.as_array_mut().unwrap().iter_mut().enumerate() {
            volume["name"] = json!(format!("v{at}"));
        }
        let pod = json!({"metadata": {"name": name, "uid": name, "namespace": "d"},
            "spec": {"containers": [{"name": "c"}], "volumes": volumes}});
        Arc::new(PodInfo::new(
            &serde_json::from_value(pod).unwrap(),
            &mut self.cluster.kins,
        ))
    }

    /// A pod with these claims.
    pub fn pod_with(&mut self, name: &str, claims: &[&str]) -> Arc<PodInfo> {
        self.pod(name, &claims.iter().map(|claim| of_claim(claim)).collect())
    }

    pub fn place(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.cluster.place(pod.clone(), node);
    }

    /// The pod's node, or what is said of all nodes.
    pub fn decide(&mut self, pod: &PodInfo) -> Result<String, String> {
        let profile = Profile::default();
        cycle::prepare(pod, &profile, &mut self.cluster);
        let decision = cycle::decide(pod, &profile, &self.cluster, 0, |_| 0);
        let node = decision.node.map(|id| self.cluster.node(id).name.to_string());
        node.map_err(|refusal| {
            let (_, said) = refusal.message.split_once("available: ").unwrap_or_default();
            let said = said.split(" no new claims").next().unwrap_or_default();
            let said = said.trim_end_matches(". not found");
            said.trim_end_matches('.').to_owned()
        })
    }
}

pub fn of_claim(claim: &str) -> Value {
    json!({"persistentVolumeClaim": {"claimName": claim}})
}

/// The node affinity of a volume that only nodes with this label reach.
pub fn at(key: &str, values: &[&str]) -> Value {
    let label = json!({"key": key, "operator": "In", "values": values});
    json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [label]}]}}}})
}
