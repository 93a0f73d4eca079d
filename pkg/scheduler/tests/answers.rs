//! Small clusters and what upstream's own plugins make of a pod in each (recorded by hack/update-scheduler-answers.sh): which nodes are
//! right and how good each is, why the others are not, what is said then, and whom a preemption evicts. All of it is the same here.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::AllocationResult;
use mk8s_client::Raw;
use mk8s_scheduler::checks::{self, PreFiltered};
use mk8s_scheduler::cluster::{Cluster, NodeId, NodeInfo, Selector};
use mk8s_scheduler::config::Config;
use mk8s_scheduler::cycle::{self, Preempted};
use mk8s_scheduler::framework::Objection;
use mk8s_scheduler::pod::{PodInfo, node_of};
use mk8s_scheduler::profile::{Profile, Profiles};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

type Scores = BTreeMap<String, i64>;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    objects: Option<Vec<Value>>,
    pod: Pod,
    config: Option<Value>,
    #[serde(default)]
    feasible: BTreeMap<String, Scores>,
    #[serde(default)]
    refused: BTreeMap<String, Refused>,
    #[serde(default)]
    message: String,
    /// No decision was made at all.
    error: Option<String>,
    preemption: Option<Preemption>,
    /// What would be written for the pod on a node.
    #[serde(default)]
    bindings: BTreeMap<String, Writes>,
    /// Pods that wait for room that was made for them.
    #[serde(default)]
    nominated: Vec<Value>,
}

/// By the names of the claims.
#[derive(Clone, Deserialize, PartialEq, Debug, Default)]
#[serde(deny_unknown_fields)]
struct Writes {
    /// The volume that each gets.
    #[serde(default)]
    volumes: BTreeMap<String, String>,
    /// Those for which one is made.
    #[serde(default)]
    provisioned: BTreeSet<String>,
    #[serde(default)]
    allocations: BTreeMap<String, AllocationResult>,
}

#[derive(Clone, Deserialize, PartialEq, Debug)]
struct Refused {
    /// Empty: by name, before any plugin looked at the node.
    #[serde(default)]
    plugin: String,
    code: String,
    reasons: Vec<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Preemption {
    #[serde(default)]
    node: String,
    #[serde(default)]
    victims: Vec<String>,
    /// Who loses the room that was made for it there.
    #[serde(default)]
    displaced: Vec<String>,
    #[serde(default)]
    message: String,
    /// The pod itself loses its own.
    #[serde(default)]
    clears: bool,
}

fn typed<K: DeserializeOwned>(object: &Value) -> K {
    serde_json::from_value(object.clone()).unwrap()
}

/// Names are uids here.
fn info(pod: &mut Pod, cluster: &mut Cluster) -> Arc<PodInfo> {
    let meta = &mut pod.metadata;
    let uid = format!(
        "{}/{}",
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap()
    );
    meta.uid.get_or_insert(uid);
    Arc::new(PodInfo::new(pod, &mut cluster.kins))
}

/// Names are uids here.
fn raw(object: &Value) -> Raw {
    let mut object = object.clone();
    let name = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let uid = format!("{}/{}", name("namespace"), name("name"));
    let meta = object["metadata"].as_object_mut().unwrap();
    meta.entry("uid").or_insert_with(|| uid.into());
    Raw::new(object).unwrap()
}

fn owner(cluster: &mut Cluster, object: &Value, selector: Selector) {
    let uid = raw(object).metadata.uid.unwrap();
    cluster.groups.set_owner(&uid, Some(selector));
}

fn add(cluster: &mut Cluster, object: &Value) {
    match object["kind"].as_str().unwrap() {
        "Node" => {
            cluster.set_node(&typed(object));
        }
        "Pod" => {
            let mut pod: Pod = typed(object);
            let info = info(&mut pod, cluster);
            match (node_of(&pod), info.wishes().nominated.clone()) {
                (Some(node), _) => {
                    cluster.place(info, node);
                }
                (None, Some(node)) => cluster.nominated.set(info, &node),
                (None, None) => {}
            }
        }
        "Service" => cluster.groups.set_service(&typed(object)),
        "ReplicationController" => {
            let labels = object["spec"]["selector"].clone();
            owner(
                cluster,
                object,
                Selector::new(Some(&serde_json::from_value(json!({"matchLabels": labels})).unwrap())),
            );
        }
        "ReplicaSet" | "StatefulSet" => {
            owner(
                cluster,
                object,
                Selector::new(Some(
                    &serde_json::from_value(object["spec"]["selector"].clone()).unwrap(),
                )),
            );
        }
        "Namespace" => {
            let labels = object["metadata"]["labels"].clone();
            let name = object["metadata"]["name"].as_str().unwrap();
            cluster.set_namespace(name, Some(serde_json::from_value(labels).unwrap_or_default()));
        }
        "PodDisruptionBudget" => cluster.budgets.set(&typed(object)),
        "PersistentVolumeClaim" => drop(cluster.set_claim(&raw(object))),
        "PersistentVolume" => drop(cluster.set_volume(&raw(object))),
        "StorageClass" => drop(cluster.set_class(&raw(object))),
        "CSINode" => drop(cluster.set_csi_node(&raw(object))),
        "CSIDriver" => drop(cluster.volumes.set_driver(&raw(object))),
        "CSIStorageCapacity" => drop(cluster.volumes.set_capacity(&raw(object))),
        "VolumeAttachment" => cluster.volumes.set_attachment(&raw(object)),
        "ResourceClaim" => cluster.claims.set(typed(object)),
        "ResourceSlice" => cluster.claims.set_slice(&Arc::new(typed(object))),
        "DeviceClass" => cluster.claims.set_class(typed(object)),
        kind => panic!("nothing is known of {kind}"),
    }
}

/// A cluster with the pod that is asked about.
struct Asked {
    case: Case,
    cluster: Cluster,
    pod: Arc<PodInfo>,
    profiles: Arc<Profiles>,
    /// What is not as upstream has it.
    found: Vec<String>,
}

fn same(found: &mut Vec<String>, what: &str, ours: impl ToString, upstream: impl ToString) {
    let (ours, upstream) = (ours.to_string(), upstream.to_string());
    if ours != upstream {
        found.push(format!("{what}: {ours}, upstream: {upstream}"));
    }
}

impl Asked {
    fn new(mut case: Case) -> Self {
        let mut cluster = Cluster::default();
        for object in case.objects.iter().flatten().chain(&case.nominated) {
            add(&mut cluster, object);
        }
        let pod = info(&mut case.pod, &mut cluster);
        if let Some(node) = pod.wishes().nominated.clone() {
            cluster.nominated.set(pod.clone(), &node);
        }
        let mut own = case.config.clone().unwrap_or_else(|| json!({}));
        // What is looked at beforehand and what node by node is one here.
        if let Some(set) = own.pointer("/plugins/filter").cloned() {
            own["plugins"]["preFilter"] = set;
        }
        let config = json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
            "percentageOfNodesToScore": 100, "profiles": [own],
        });
        let (config, _) = Config::read(&config.to_string()).unwrap();
        let profiles = config.profiles;
        cycle::prepare(&pod, profiles.iter().next().unwrap(), &mut cluster);
        Asked {
            case,
            cluster,
            pod,
            profiles,
            found: Vec::new(),
        }
    }

    fn profile(&self) -> &Profile {
        self.profiles.iter().next().unwrap()
    }

    fn refused(&self, (row, objection): &(usize, Objection)) -> Refused {
        let code = match objection.unresolvable {
            true => "UnschedulableAndUnresolvable",
            false => "Unschedulable",
        };
        let reasons: BTreeSet<_> = objection.reasons.iter().map(ToString::to_string).collect();
        Refused {
            plugin: self.profile().rows[*row].plugin.name().to_owned(),
            code: code.to_owned(),
            reasons: reasons.into_iter().collect(),
        }
    }

    /// The nodes that are right; why the others are not is compared.
    fn filter(&mut self) -> Vec<NodeId> {
        let mut found = Vec::new();
        let pre = PreFiltered::new(self.profile(), &self.pod, &self.cluster);
        // The room that was made for it is its own, and no other node is looked at.
        let own = self.cluster.nominated.node_of(&self.pod.uid);
        let own = own.and_then(|name| self.cluster.find(name));
        let own = own.filter(|node| pre.refused.is_none() && pre.checks.check(node).is_none());
        let order = own.map_or_else(|| self.cluster.order().to_vec(), |node| vec![node.id]);
        let mut feasible = Vec::new();
        for id in order {
            let node = self.cluster.node(id);
            let ours = match (&pre.refused, &pre.only) {
                (Some(refused), _) => Some(self.refused(refused)),
                (None, Some((names, rows))) if !names.contains(&&*node.name) => {
                    // Where others are right, nobody says why those are not.
                    if !self.case.feasible.is_empty() {
                        continue;
                    }
                    let plugins = checks::names(self.profile(), rows);
                    let reason = format!("node(s) didn't satisfy plugin(s) [{plugins}]");
                    Some(Refused {
                        plugin: String::new(),
                        code: "UnschedulableAndUnresolvable".into(),
                        reasons: vec![reason],
                    })
                }
                _ => pre.checks.check(node).map(|refused| self.refused(&refused)),
            };
            let upstream = self.case.refused.get(&*node.name);
            same(
                &mut found,
                &node.name,
                format!("{:?}", ours.as_ref()),
                format!("{upstream:?}"),
            );
            if ours.is_none() {
                feasible.push(id);
            }
        }
        drop(pre);
        self.found.extend(found);
        feasible
    }

    fn score(&mut self, feasible: &[NodeId]) {
        let found = &mut Vec::new();
        let nodes: Vec<&NodeInfo> = feasible.iter().map(|id| self.cluster.node(*id)).collect();
        let names: BTreeSet<&str> = nodes.iter().map(|node| &*node.name).collect();
        let upstream: BTreeSet<&str> = self.case.feasible.keys().map(String::as_str).collect();
        same(found, "feasible", format!("{names:?}"), format!("{upstream:?}"));
        let mut left = self.case.feasible.clone();
        for (name, weight, score) in cycle::scores(&self.pod, self.profile(), &self.cluster, &nodes) {
            let mut scores = vec![0; nodes.len()];
            score.score(&nodes, &mut scores);
            score.normalise(&nodes, &mut scores);
            for (node, score) in nodes.iter().zip(scores) {
                // Upstream's own fault, see [`differences`].
                if self.case.feasible.get(&*node.name).is_some_and(BTreeMap::is_empty) {
                    continue;
                }
                let upstream = left.get_mut(&*node.name).and_then(|own| own.remove(name));
                let what = format!("{} {name}", node.name);
                same(found, &what, score * weight, upstream.unwrap_or(0));
            }
        }
        for (node, left) in &left {
            for (name, score) in left.iter().filter(|(_, score)| **score != 0) {
                same(found, &format!("{node} {name}"), "no score", score);
            }
        }
        let found = std::mem::take(found);
        self.found.extend(found);
    }

    /// What is written for the pod if it goes to a node.
    fn write(&mut self, node: NodeId) {
        let profiles = self.profiles.clone();
        let rows = &profiles.iter().next().unwrap().rows;
        rows.iter()
            .for_each(|row| row.plugin.reserve(&self.pod, node, &mut self.cluster).unwrap());
        let mut ours = Writes::default();
        let parts = self.cluster.volumes.binding_of(&self.pod.uid);
        for part in parts.iter().flat_map(|(parts, _)| *parts) {
            let claim = part.claim.rsplit('/').next().unwrap().to_owned();
            match &part.volume {
                Some(volume) => drop(ours.volumes.insert(claim, volume.to_string())),
                None => drop(ours.provisioned.insert(claim)),
            }
        }
        for own in self.cluster.claims.reserved(&self.pod) {
            let status = own.claim.status.as_ref();
            let mut reserved = status.iter().flat_map(|status| status.reserved_for.iter().flatten());
            if reserved.any(|by| by.uid == *self.pod.uid) {
                continue;
            }
            let had = status.and_then(|status| status.allocation.as_ref());
            let Some(mut allocation) = own.allocation.as_deref().or(had).cloned() else {
                continue;
            };
            let results = allocation.devices.iter_mut().flat_map(|devices| &mut devices.results);
            results.for_each(|results| {
                results.sort_by_key(|own| {
                    (
                        own.request.clone(),
                        own.driver.clone(),
                        own.pool.clone(),
                        own.device.clone(),
                    )
                })
            });
            ours.allocations
                .insert(own.claim.metadata.name.clone().unwrap(), allocation);
        }
        let name = &self.cluster.node(node).name;
        let upstream = self.case.bindings.get(&**name).cloned().unwrap_or_default();
        same(
            &mut self.found,
            &format!("writes for {name}"),
            format!("{ours:?}"),
            format!("{upstream:?}"),
        );
    }

    /// What is said where no node is right, and who is evicted.
    fn refuse(&mut self) {
        let decision = cycle::decide(&self.pod, self.profile(), &self.cluster, 0, |_| 0);
        let refusal = decision.node.unwrap_err();
        let said = &self.case.message;
        let Some(after) = refusal.message.strip_prefix(said.as_str()) else {
            return same(&mut self.found, "message", refusal.message, said);
        };
        let Some(upstream) = &self.case.preemption else { return };
        let names = |pods: Vec<&Arc<PodInfo>>| {
            let mut names: Vec<String> = pods.iter().map(|pod| pod.key()).collect();
            names.sort();
            names
        };
        let ours = match &refusal.preemption {
            Some(Preempted::By(own)) => {
                let victims = names(own.pods.iter().filter(|pod| !pod.deleting).collect());
                let displaced = names(own.displaced.iter().collect());
                format!("{} {victims:?} {displaced:?}", self.cluster.node(own.node).name)
            }
            _ => after.trim_start().to_owned(),
        };
        let clears = matches!(refusal.preemption, Some(Preempted::NotHelpful)) && self.pod.wishes().nominated.is_some();
        same(&mut self.found, "clears", clears, upstream.clears);
        let upstream = match upstream.node.as_str() {
            "" => upstream.message.clone(),
            node => format!("{node} {:?} {:?}", upstream.victims, upstream.displaced),
        };
        same(&mut self.found, "preemption", ours, upstream);
    }
}

/// What is not as upstream has it.
fn differences(case: Case) -> Vec<String> {
    let mut asked = Asked::new(case);
    match asked.case.error.clone() {
        // Upstream's own fault: it scores the claims that it has to allocate as if those that are allocated were among them.
        Some(error) if error.contains("number of allocations 1 is smaller than number of claims") => return Vec::new(),
        Some(error) => {
            let decision = cycle::decide(&asked.pod, asked.profile(), &asked.cluster, 0, |_| 0);
            same(&mut asked.found, "error", decision.node.unwrap_err().message, error);
            return asked.found;
        }
        None => {}
    }
    let feasible = asked.filter();
    asked.score(&feasible);
    if feasible.is_empty() {
        asked.refuse();
    }
    for node in feasible {
        let mut other = Asked::new(asked.case.clone());
        other.write(node);
        asked.found.append(&mut other.found);
    }
    asked.found
}

fn family(text: &str) {
    let cases: Vec<Case> = serde_json::from_str(text).unwrap();
    assert!(!cases.is_empty());
    let all = cases.len();
    let mut wrong = 0;
    for case in cases {
        let name = case.name.clone();
        let found = differences(case);
        wrong += usize::from(!found.is_empty());
        for difference in found {
            println!("{name}: {difference}");
        }
    }
    assert_eq!(wrong, 0, "of {all} clusters");
}

macro_rules! families {
    ($($name:ident = $file:literal;)*) => {
        $(#[test]
        fn $name() {
            family(include_str!(concat!("answers/", $file, ".json")));
        })*
    };
}

families! {
    devices = "devices";
    fit = "fit";
    images = "images";
    node_affinity = "node-affinity";
    pod_affinity = "pod-affinity";
    ports = "ports";
    preemption = "preemption";
    scores = "scores";
    spread = "spread";
    taints = "taints";
    together = "together";
    volumes = "volumes";
}
