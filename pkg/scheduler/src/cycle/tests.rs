#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use serde_json::{Value, json};

use super::extended::{self, Outcome};
use super::*;
use crate::extender::Verdict;
use crate::profile::EXTENDERS;

fn pod(cluster: &mut Cluster, uid: &str, spec: Value) -> Arc<PodInfo> {
    let mut pod =
        json!({"metadata": {"name": uid, "uid": uid, "namespace": "d"}, "spec": {"containers": [{"name": "c"}]}});
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins))
}

fn needs(resource: &str, amount: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {resource: amount}}}]})
}

fn cluster(nodes: &[(&str, &str, Value)]) -> Cluster {
    let mut cluster = Cluster::default();
    for (name, cpu, spec) in nodes {
        let node = json!({"metadata": {"name": name, "labels": {"name": name}}, "spec": spec,
            "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "110", "x.y/z": "1"}}});
        cluster.set_node(&serde_json::from_value(node).unwrap());
    }
    cluster
}

fn run(pod: &PodInfo, cluster: &mut Cluster) -> Result<String, String> {
    let profile = Profile::default();
    prepare(pod, &profile, cluster);
    let decision = decide(pod, &profile, cluster, 0, |_| 0);
    match decision.node {
        Ok(id) => Ok(cluster.node(id).name.to_string()),
        Err(refusal) => Err(refusal.message),
    }
}

#[test]
fn emptiest_node_that_fits_wins() {
    let mut cluster = cluster(&[("a", "2", json!({})), ("b", "2", json!({})), ("c", "100m", json!({}))]);
    let other = pod(&mut cluster, "x", needs("cpu", "1"));
    cluster.place(other, "a");
    let asks = pod(&mut cluster, "p", needs("cpu", "500m"));
    assert_eq!(run(&asks, &mut cluster), Ok("b".to_owned()));
}

#[test]
fn refusal_counts_reasons_as_upstream_does() {
    let tainted = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
    let mut cluster = cluster(&[("a", "1", json!({})), ("b", "8", tainted.clone()), ("c", "8", tainted)]);
    let other = pod(&mut cluster, "x", needs("cpu", "1"));
    cluster.place(other.clone(), "a");
    let asks = pod(&mut cluster, "p", needs("cpu", "1"));
    assert_eq!(
        run(&asks, &mut cluster).unwrap_err(),
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). \
         no new claims to deallocate, preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
    );
    assert_eq!(
        run(&asks, &mut Cluster::default()).unwrap_err(),
        "no nodes available to schedule pods"
    );
}

#[test]
fn each_plugin_objects_in_upstreams_words() {
    let cordoned = json!({"unschedulable": true});
    let tainted = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
    let tolerant = json!({"tolerations": [{"operator": "Exists"}]});
    let names = |names: &[&str]| {
        let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": names}]});
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}})
    };
    for (asks, node, expected) in [
        (json!({}), json!({}), None),
        (json!({}), cordoned.clone(), Some("1 node(s) were unschedulable")),
        (tolerant.clone(), cordoned, None),
        (json!({}), tainted.clone(), Some("1 node(s) had untolerated taint(s)")),
        (tolerant, tainted, None),
        (
            json!({}),
            json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}),
            None,
        ),
        (json!({"nodeSelector": {"name": "n"}}), json!({}), None),
        (
            json!({"nodeSelector": {"name": "m"}}),
            json!({}),
            Some("1 node(s) didn't match Pod's node affinity/selector"),
        ),
        (names(&["n"]), json!({}), None),
        (
            names(&["m"]),
            json!({}),
            Some("1 node(s) didn't satisfy plugin(s) [NodeAffinity]"),
        ),
        (names(&[]), json!({}), Some("pod affinity terms conflict")),
        (needs("cpu", "1"), json!({}), None),
        (needs("cpu", "1001m"), json!({}), Some("1 Insufficient cpu")),
        (needs("memory", "2Gi"), json!({}), Some("1 Insufficient memory")),
        (needs("x.y/z", "2"), json!({}), Some("1 Insufficient x.y/z")),
        (
            needs("no.such/thing", "1"),
            json!({}),
            Some("1 Insufficient no.such/thing"),
        ),
    ] {
        let mut cluster = cluster(&[("n", "1", node)]);
        let asks_for = pod(&mut cluster, "p", asks.clone());
        let said = run(&asks_for, &mut cluster).err();
        let tried = "no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
        let expected = expected.map(|reason| {
            // No plugin after it has looked at the pod then.
            let after = if reason == "pod affinity terms conflict" {
                "not found"
            } else {
                tried
            };
            format!("0/1 nodes are available: {reason}. {after}")
        });
        assert_eq!(said, expected, "{asks}");
    }
}

#[test]
fn pods_on_the_node_take_its_ports_and_places() {
    let port = |ip: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip}]}]});
    let mut cluster = cluster(&[("n", "1", json!({}))]);
    for (uid, ip) in [("1", "127.0.0.1"), ("2", "127.0.0.2")] {
        let other = pod(&mut cluster, uid, port(ip));
        assert_eq!(run(&other, &mut cluster), Ok("n".to_owned()), "{ip}");
        cluster.place(other, "n");
    }
    let late = pod(&mut cluster, "3", port(""));
    let said = run(&late, &mut cluster).unwrap_err();
    assert!(
        said.contains("1 node(s) didn't have free ports for the requested pod ports."),
        "{said}"
    );
    cluster.remove("1");
    cluster.remove("2");
    assert_eq!(run(&late, &mut cluster), Ok("n".to_owned()));
}

#[test]
fn room_that_a_preemption_made_is_left_to_who_is_no_less_important() {
    for (priority, expected) in [(0, "b"), (5, "b"), (6, "a")] {
        let mut cluster = cluster(&[("a", "2", json!({})), ("b", "1", json!({}))]);
        let mut asks = needs("cpu", "2");
        asks["priority"] = json!(5);
        let waits = pod(&mut cluster, "waits", asks);
        cluster.nominated.set(waits.clone(), "a");
        let mut asks = needs("cpu", "1");
        asks["priority"] = json!(priority);
        let other = pod(&mut cluster, "other", asks);
        assert_eq!(run(&other, &mut cluster), Ok(expected.to_owned()), "{priority}");
        assert_eq!(run(&waits, &mut cluster), Ok("a".to_owned()));
    }
}

#[test]
fn large_clusters_are_sampled() {
    for (all, percentage, expected) in [
        (3, None, 3),
        (99, Some(5), 99),
        (100, None, 100),
        (1000, None, 420),
        (5000, None, 500),
        (10_000, None, 500),
        (5000, Some(100), 5000),
        (5000, Some(1), 100),
    ] {
        assert_eq!(enough(all, percentage), expected, "{all}");
    }
}

/// What the extenders said of the nodes that they were asked about.
fn verdict(kept: &[&str], failed: &[&str], scores: &[(&str, i64)]) -> Verdict {
    Verdict {
        kept: kept.iter().map(|name| (*name).into()).collect(),
        failed: failed
            .iter()
            .map(|name| ((*name).into(), Objection::new("no")))
            .collect(),
        scores: scores.iter().map(|(name, score)| ((*name).into(), *score)).collect(),
    }
}

#[test]
fn extenders_narrow_what_plugins_left_and_add_to_scores() {
    let profile = Profile::default();
    for (verdict, expected) in [
        (verdict(&["a", "b"], &[], &[]), Ok("b")),
        (verdict(&["a", "b"], &[], &[("a", 90)]), Ok("a")),
        (verdict(&["a"], &["b"], &[]), Ok("a")),
        // It has filled up since they were asked.
        (verdict(&["a", "full"], &["b"], &[]), Ok("a")),
        (verdict(&[], &["a"], &[]), Err("1 Insufficient cpu, 1 no.")),
        (verdict(&["full"], &["a"], &[]), Err("again")),
        (verdict(&["gone"], &["a"], &[]), Err("again")),
    ] {
        let mut cluster = cluster(&[
            ("a", "4", json!({})),
            ("b", "8", json!({})),
            ("full", "1", json!({})),
            ("gone", "1", json!({})),
        ]);
        let asks = pod(&mut cluster, "p", needs("cpu", "1"));
        prepare(&asks, &profile, &mut cluster);
        let candidates = extended::candidates(&asks, &profile, &cluster, 0, false, |_| 0).unwrap();
        assert_eq!(candidates.feasible.len(), 4);
        let other = pod(&mut cluster, "x", needs("cpu", "1"));
        cluster.place(other, "full");
        cluster.remove_node("gone");
        prepare(&asks, &profile, &mut cluster);
        match extended::decide(&asks, &profile, &cluster, &candidates, &verdict, |_| 0) {
            Outcome::Node(node) => assert_eq!(Ok(&*cluster.node(node).name), expected, "{verdict:?}"),
            Outcome::Others => unreachable!("no node is nominated"),
            Outcome::Again => assert_eq!(expected, Err("again")),
            Outcome::Refused(refusal) => {
                let said = expected.unwrap_err();
                assert!(refusal.message.contains(said), "{verdict:?}: {}", refusal.message);
                assert_ne!(refusal.rows & EXTENDERS, 0);
            }
        }
    }
}

#[test]
fn where_extenders_refuse_the_nominated_node_the_others_are_looked_at() {
    let profile = Profile::default();
    let mut cluster = cluster(&[("a", "2", json!({})), ("b", "2", json!({}))]);
    let waits = pod(&mut cluster, "p", needs("cpu", "1"));
    cluster.nominated.set(waits.clone(), "a");
    prepare(&waits, &profile, &mut cluster);
    for (others, feasible, falls_back) in [(false, &["a"][..], true), (true, &["a", "b"], false)] {
        let found = extended::candidates(&waits, &profile, &cluster, 0, others, |_| 0).unwrap();
        assert_eq!(found.feasible.iter().map(|name| &**name).collect::<Vec<_>>(), feasible);
        let refused = extended::decide(&waits, &profile, &cluster, &found, &verdict(&[], &[], &[]), |_| 0);
        assert_eq!(matches!(refused, Outcome::Others), falls_back);
    }
}

#[test]
fn victims_that_extenders_chose_go_if_that_still_helps() {
    let standing = |changes: &dyn Fn(&mut Cluster), chosen: &[(&str, &[&str])]| {
        let mut cluster = cluster(&[("a", "1", json!({})), ("b", "1", json!({}))]);
        let [asks, on_a, on_b] = ["p", "on-a", "on-b"].map(|name| pod(&mut cluster, name, needs("cpu", "1")));
        cluster.place(on_a.clone(), "a");
        cluster.place(on_b.clone(), "b");
        let victims = |name: &str| if name == "on-a" { on_a.clone() } else { on_b.clone() };
        let chosen = chosen.iter().map(|(node, names)| {
            let pods = names.iter().map(|name| victims(name)).collect();
            // Numbers as they were before.
            (Arc::from(*node), Victims::new(7, pods, 0))
        });
        let chosen = chosen.collect();
        changes(&mut cluster);
        let profile = Profile::default();
        prepare(&asks, &profile, &mut cluster);
        let found = extended::standing(&asks, &profile, &cluster, chosen)?;
        let each = found
            .iter()
            .map(|own| format!("{}: {}", cluster.node(own.node).name, own.pods[0].name));
        Some(each.collect::<Vec<_>>().join("; "))
    };
    let both: &[(&str, &[&str])] = &[("a", &["on-a"]), ("b", &["on-b"])];
    let only: &[(&str, &[&str])] = &[("a", &["on-a"])];
    let nothing: &dyn Fn(&mut Cluster) = &|_| {};
    let gone: &dyn Fn(&mut Cluster) = &|cluster| drop(cluster.remove_node("a"));
    let fits: &dyn Fn(&mut Cluster) = &|cluster| drop(cluster.remove("on-a"));
    let strange: &[(&str, &[&str])] = &[("a", &["on-b"]), ("b", &["on-b"])];
    for (what, changes, chosen, expected) in [
        ("nothing happened", nothing, both, Some("a: on-a; b: on-b")),
        ("nobody was chosen", nothing, &[][..], Some("")),
        ("a node went", gone, both, Some("b: on-b")),
        ("the only node went", gone, only, None),
        ("the pod fits", fits, both, None),
        ("a victim is elsewhere", nothing, strange, Some("b: on-b")),
    ] {
        assert_eq!(standing(changes, chosen).as_deref(), expected, "{what}");
    }
}
