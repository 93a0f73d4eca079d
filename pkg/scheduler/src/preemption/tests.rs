#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::cycle::{decide, prepare};
use crate::profile::Profile;

/// Pods of one CPU each on nodes of two.
struct Trial {
    cluster: Cluster,
}

impl Trial {
    fn new(nodes: &[&str]) -> Self {
        let mut cluster = Cluster::default();
        for name in nodes {
            let node = json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "110"}}});
            cluster.set_node(&serde_json::from_value(node).unwrap());
        }
        Trial { cluster }
    }

    fn pod(&mut self, name: &str, priority: i32, more: Value) -> Arc<PodInfo> {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": "1"}}});
        let mut pod = json!({
            "metadata": {"namespace": "d", "name": name, "uid": name, "labels": {"name": name}},
            "spec": {"containers": [container], "priority": priority},
        });
        for (field, value) in more.as_object().unwrap() {
            match field.as_str() {
                "started" => pod["status"]["startTime"] = value.clone(),
                _ => pod["spec"][field] = value.clone(),
            }
        }
        Arc::new(PodInfo::new(
            &serde_json::from_value(pod).unwrap(),
            &mut self.cluster.kins,
        ))
    }

    fn place(&mut self, node: &str, name: &str, priority: i32, more: Value) {
        let pod = self.pod(name, priority, more);
        self.cluster.place(pod, node);
    }

    fn protect(&mut self, name: &str) {
        let budget = json!({"metadata": {"namespace": "d", "name": name}, "spec": {"selector": {"matchLabels": {"name": name}}},
            "status": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}});
        self.cluster.budgets.set(&serde_json::from_value(budget).unwrap());
    }

    /// `node: victims`, or what is said.
    fn preempts(&mut self, pod: &Arc<PodInfo>) -> String {
        let profile = Profile::default();
        prepare(pod, &profile, &mut self.cluster);
        let refusal = decide(pod, &profile, &self.cluster, 0, |_| 0).node.unwrap_err();
        match refusal.preemption {
            Some(Preempted::By(victims)) => {
                let names: Vec<&str> = victims.pods.iter().map(|pod| &*pod.name).collect();
                format!("{}: {}", self.cluster.node(victims.node).name, names.join(" "))
            }
            _ => refusal.message.split_once("preemption: ").unwrap().1.to_owned(),
        }
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn the_least_is_lost() {
    let old = json!({"started": "2020-01-01T00:00:00Z"});
    let young = json!({"started": "2025-01-01T00:00:00Z"});
    // Two pods on each of two nodes, and who of them goes for one of priority 10.
    for (pods, protected, expected) in [
        (
            [
                ("a", "w", 1, &old),
                ("a", "x", 2, &old),
                ("b", "y", 3, &old),
                ("b", "z", 3, &old),
            ],
            "",
            "a: w",
        ),
        (
            [
                ("a", "w", 1, &old),
                ("a", "x", 20, &old),
                ("b", "y", 0, &old),
                ("b", "z", 20, &old),
            ],
            "",
            "b: y",
        ),
        (
            [
                ("a", "w", 1, &old),
                ("a", "x", 20, &old),
                ("b", "y", 0, &old),
                ("b", "z", 20, &old),
            ],
            "y",
            "a: w",
        ),
        // Of one node the younger.
        (
            [
                ("a", "w", 1, &old),
                ("a", "x", 1, &young),
                ("b", "y", 20, &old),
                ("b", "z", 20, &old),
            ],
            "",
            "a: x",
        ),
        (
            [
                ("a", "w", 1, &old),
                ("a", "x", 20, &old),
                ("b", "y", 1, &young),
                ("b", "z", 20, &old),
            ],
            "",
            "b: y",
        ),
        // A protected one goes last, even if it is less important.
        (
            [
                ("a", "w", 1, &old),
                ("a", "x", 2, &old),
                ("b", "y", 20, &old),
                ("b", "z", 20, &old),
            ],
            "w",
            "a: x",
        ),
    ] {
        let mut trial = Trial::new(&["a", "b"]);
        for (node, name, priority, more) in pods {
            trial.place(node, name, priority, more.clone());
        }
        if !protected.is_empty() {
            trial.protect(protected);
        }
        let pod = trial.pod("p", 10, json!({}));
        assert_eq!(trial.preempts(&pod), expected, "{pods:?} {protected}");
    }
}

#[test]
fn who_may_not_or_need_not_preempt_says_so() {
    let mut trial = Trial::new(&["a"]);
    trial.place("a", "w", 1, json!({}));
    trial.place("a", "x", 9, json!({}));
    let pod = trial.pod("p", 10, json!({"preemptionPolicy": "Never"}));
    assert_eq!(trial.preempts(&pod), "not eligible due to preemptionPolicy=Never.");
    let pod = trial.pod("p", 1, json!({}));
    let nobody = "0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    assert_eq!(trial.preempts(&pod), nobody);
    let large = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]});
    let pod = trial.pod("p", 10, large);
    let unhelpful = "0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    assert_eq!(trial.preempts(&pod), unhelpful);
}

#[test]
fn while_its_victims_go_a_pod_takes_no_others() {
    let mut trial = Trial::new(&["a"]);
    trial.place("a", "w", 1, json!({}));
    let going = json!({
        "metadata": {"namespace": "d", "name": "x", "uid": "x", "deletionTimestamp": "2020-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}], "priority": 1},
        "status": {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
    });
    let going = Arc::new(PodInfo::new(
        &serde_json::from_value(going).unwrap(),
        &mut trial.cluster.kins,
    ));
    trial.cluster.place(going, "a");
    let pod = trial.pod("p", 10, json!({}));
    trial.cluster.nominated.set(pod.clone(), "a");
    let waits = "not eligible due to a terminating pod on the nominated node.";
    assert_eq!(trial.preempts(&pod), waits);
    trial.cluster.nominated.remove("p");
    // The one that is going is the one to go.
    assert_eq!(trial.preempts(&pod), "a: x");
}
