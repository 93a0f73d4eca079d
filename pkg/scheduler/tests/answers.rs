//! Small clusters and what upstream's own plugins make of a pod in each (recorded by hack/update-scheduler-answers.sh): which nodes are
//! right and how good each is, why the others are not, what is said then, and whom a preemption evicts. All of it is the same here.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use mk8s_scheduler::checks::{self, PreFiltered};
use mk8s_scheduler::cluster::{Cluster, NodeId, NodeInfo};
use mk8s_scheduler::cycle::{self, Preempted};
use mk8s_scheduler::framework::Objection;
use mk8s_scheduler::pod::{PodInfo, node_of};
use mk8s_scheduler::profile::Profile;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

type Scores = BTreeMap<String, i64>;

#[derive(Deserialize)]
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
    /// Pods that wait for room that was made for them.
    #[serde(default)]
    nominated: Vec<Value>,
}

#[derive(Deserialize, PartialEq, Debug)]
struct Refused {
    /// Empty: by name, before any plugin looked at the node.
    #[serde(default)]
    plugin: String,
    code: String,
    reasons: Vec<String>,
}

#[derive(Deserialize)]
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
        "PodDisruptionBudget" => cluster.budgets.set(&typed(object)),
        kind => panic!("nothing is known of {kind}"),
    }
}

/// A cluster with the pod that is asked about.
struct Asked {
    case: Case,
    cluster: Cluster,
    pod: Arc<PodInfo>,
    profile: Profile,
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
        let profile = Profile {
            percentage_of_nodes_to_score: Some(100),
            ..Profile::default()
        };
        cycle::prepare(&pod, &profile, &mut cluster);
        Asked {
            case,
            cluster,
            pod,
            profile,
            found: Vec::new(),
        }
    }

    fn refused(&self, (row, objection): &(usize, Objection)) -> Refused {
        let code = match objection.unresolvable {
            true => "UnschedulableAndUnresolvable",
            false => "Unschedulable",
        };
        let reasons: BTreeSet<_> = objection.reasons.iter().map(ToString::to_string).collect();
        Refused {
            plugin: self.profile.rows[*row].plugin.name().to_owned(),
            code: code.to_owned(),
            reasons: reasons.into_iter().collect(),
        }
    }

    /// The nodes that are right; why the others are not is compared.
    fn filter(&mut self) -> Vec<NodeId> {
        let mut found = Vec::new();
        let pre = PreFiltered::new(&self.profile, &self.pod, &self.cluster);
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
                    let plugins = checks::names(&self.profile, rows);
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
        let found = &mut self.found;
        let nodes: Vec<&NodeInfo> = feasible.iter().map(|id| self.cluster.node(*id)).collect();
        let names: BTreeSet<&str> = nodes.iter().map(|node| &*node.name).collect();
        let upstream: BTreeSet<&str> = self.case.feasible.keys().map(String::as_str).collect();
        same(found, "feasible", format!("{names:?}"), format!("{upstream:?}"));
        let mut left = self.case.feasible.clone();
        for (name, weight, score) in cycle::scores(&self.pod, &self.profile, &self.cluster, &nodes) {
            let mut scores = vec![0; nodes.len()];
            score.score(&nodes, &mut scores);
            score.normalise(&nodes, &mut scores);
            for (node, score) in nodes.iter().zip(scores) {
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
    }

    /// What is said where no node is right, and who is evicted.
    fn refuse(&mut self) {
        let decision = cycle::decide(&self.pod, &self.profile, &self.cluster, 0, |_| 0);
        let refusal = decision.node.unwrap_err();
        let said = self.case.error.as_ref().unwrap_or(&self.case.message);
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
    let feasible = asked.filter();
    asked.score(&feasible);
    if feasible.is_empty() {
        asked.refuse();
    }
    asked.found
}

fn family(text: &str) {
    let cases: Vec<Case> = serde_json::from_str(text).unwrap();
    assert!(!cases.is_empty());
    let all = cases.len();
    let mut wrong = 0;
    for case in cases.into_iter().filter(|case| case.config.is_none()) {
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
    fit = "fit";
    images = "images";
    node_affinity = "node-affinity";
    ports = "ports";
    preemption = "preemption";
    scores = "scores";
    taints = "taints";
}
