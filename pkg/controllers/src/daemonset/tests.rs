//! The plan as tables: pods are told by `node:revision:state`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::plan::{Daemons, Plan, Why, by_node};
use super::*;

/// States: `ok`, `young` (ready since two seconds), `unready`, `failed`, `held` (failed, and has to stay yet), `ended`, `going` (being
/// deleted), `gone` (being deleted, and ended), `waiting` (made for the node, not bound to it).
fn pods(text: &str) -> Vec<Arc<Pod>> {
    let pod = |(at, text): (usize, &str)| -> Arc<Pod> {
        let [node, revision, state] = text.split(':').collect::<Vec<_>>()[..] else {
            panic!("{text}")
        };
        let (phase, ready) = match state {
            "ok" | "going" => ("Running", Some("2024-01-01T00:00:00Z")),
            "young" => ("Running", Some("2024-01-01T00:00:58Z")),
            "unready" => ("Running", None),
            "waiting" => ("Pending", None),
            "failed" | "held" | "gone" => ("Failed", None),
            "ended" => ("Succeeded", None),
            _ => panic!("{text}"),
        };
        let conditions: Vec<Value> = ready
            .map(|since| json!({"type": "Ready", "status": "True", "lastTransitionTime": since}))
            .into_iter()
            .collect();
        let deleted = ["going", "gone"].contains(&state).then_some("2024-01-01T00:00:59Z");
        let name = format!("{node}.{at}{}", if state == "held" { "held" } else { "" });
        let pod = json!({
            "metadata": {"name": name, "uid": name, "deletionTimestamp": deleted,
                "creationTimestamp": format!("2024-01-01T00:00:{at:02}Z"), "labels": {"controller-revision-hash": revision}},
            "spec": {"containers": [], "nodeName": node},
            "status": {"phase": phase, "conditions": conditions},
        });
        let mut pod: Pod = serde_json::from_value(pod).unwrap();
        if state == "waiting" {
            pod.spec.as_mut().unwrap().node_name = None;
            pod = place::for_node(pod, node);
        }
        Arc::new(pod)
    };
    text.split_whitespace().enumerate().map(pod).collect()
}

/// Nodes: `a` runs, `a?` stays, `a!` is no place.
fn nodes(text: &str) -> BTreeMap<String, Fit> {
    let node = |text: &str| match (text.strip_suffix('?'), text.strip_suffix('!')) {
        (Some(name), _) => (name.to_owned(), Fit::Stays),
        (_, Some(name)) => (name.to_owned(), Fit::No),
        _ => (text.to_owned(), Fit::Runs),
    };
    text.split_whitespace().map(node).collect()
}

fn set(strategy: &Value) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"name": "ds", "generation": 2},
        "spec": {"selector": {}, "template": {}, "minReadySeconds": 5, "updateStrategy": strategy},
    }))
    .unwrap()
}

fn rolling(unavailable: &Value, surge: &Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}})
}

fn with<T>(strategy: &Value, on: &str, found: &str, ask: impl Fn(&Daemons<'_>) -> T) -> T {
    let set = set(strategy);
    ask(&Daemons {
        set: &set,
        hash: "new",
        nodes: nodes(on),
        pods: by_node(&pods(found)),
        now: "2024-01-01T00:01:00Z".parse().unwrap(),
    })
}

fn told(plan: &Plan) -> String {
    let mut steps: Vec<String> = plan.create.iter().map(|node| format!("+{node}")).collect();
    steps.extend(plan.delete.iter().map(|(pod, why)| {
        let mark = match why {
            Why::Failed => "!",
            Why::Succeeded => ".",
            Why::Other => "",
        };
        format!("-{}{mark}", meta::name(&**pod))
    }));
    steps.sort();
    steps.join(" ")
}

fn manage(daemons: &Daemons<'_>) -> Plan {
    daemons.manage(|_, pod| meta::name(pod).ends_with("held").then_some(Duration::from_secs(7)))
}

#[test]
fn each_node_that_is_right_has_one_pod() {
    for (on, found, expected) in [
        ("a b", "", "+a +b"),
        ("a b?", "", "+a"),
        ("a b", "a:new:ok b:old:waiting", ""),
        // It may stay where it would not be made.
        ("a? b!", "a:new:ok b:new:ok", "-b.1"),
        ("a? b!", "a:new:going b:new:going", ""),
        // Nothing is made beside one that still goes.
        ("a", "a:new:going", ""),
        ("a", "a:new:gone", "+a"),
        ("a b", "a:new:failed b:new:ended", "-a.0! -b.1."),
        ("a b", "a:new:held b:new:ok", ""),
        // What is on its node counts before what waits, and what is older before what is younger.
        ("a", "a:new:waiting a:new:unready a:new:ok", "-a.0 -a.2"),
        // The node is gone: what ran there is the pod garbage collector's.
        ("a", "a:new:ok b:new:waiting c:new:ok", "-b.1"),
    ] {
        for strategy in [rolling(&json!(1), &json!(0)), json!({"type": "OnDelete"})] {
            assert_eq!(
                with(&strategy, on, found, |d| told(&manage(d))),
                expected,
                "{on} {found} {strategy}"
            );
        }
    }
    let held = with(&rolling(&json!(1), &json!(0)), "a", "a:new:held", manage);
    assert_eq!(held.next, Some(Duration::from_secs(7)));
}

#[test]
fn a_surge_has_two_pods_on_a_node_until_the_new_one_is_available() {
    for (found, expected) in [
        ("", "+a"),
        ("a:old:going", "+a"),
        ("a:old:ok a:new:unready", ""),
        ("a:old:ok a:new:young", ""),
        ("a:old:ok a:new:ok", "-a.0"),
        ("a:old:unready a:new:unready", "-a.0"),
        ("a:old:ok a:old:ok a:new:unready a:new:unready", "-a.1 -a.3"),
        // One that failed keeps its place as long as it stays.
        ("a:new:held", ""),
        ("a:new:failed", "+a -a.0!"),
    ] {
        let surge = rolling(&json!(0), &json!(1));
        assert_eq!(with(&surge, "a", found, |d| told(&manage(d))), expected, "{found}");
    }
}

#[test]
fn a_rollout_takes_as_many_as_may_be_unavailable() {
    for (unavailable, on, found, expected) in [
        (json!(1), "a b", "a:old:ok b:old:ok", "-a.0"),
        (json!(2), "a b", "a:old:ok b:old:ok", "-a.0 -b.1"),
        (json!("50%"), "a b c", "a:old:ok b:old:ok c:old:ok", "-a.0 -b.1"),
        (json!(0), "a b", "a:old:ok b:old:ok", "-a.0"),
        // Who is unavailable anyway goes first, and counts.
        (json!(1), "a b", "a:old:ok b:old:unready", "-b.1"),
        (json!(2), "a b c", "a:old:ok b:old:unready c:old:ok", "-a.0 -b.1"),
        (json!(1), "a b", "a:old:ok b:new:young", ""),
        (json!(1), "a b", "a:old:ok b:new:ok", "-a.0"),
        (json!(1), "a b", "a:old:ok", ""),
        (json!(1), "a b", "a:old:ok b:old:going", ""),
        (json!(1), "a b", "a:new:ok b:new:ok", ""),
        // A node that is no place any more has its pod replaced by nobody, but counts.
        (json!(1), "a b?", "a:old:ok b:old:ok", "-a.0"),
    ] {
        let strategy = rolling(&unavailable, &json!(0));
        assert_eq!(
            with(&strategy, on, found, |d| told(&d.roll())),
            expected,
            "{unavailable} {on} {found}"
        );
    }
    let on_delete = json!({"type": "OnDelete"});
    assert_eq!(with(&on_delete, "a", "a:old:ok", |d| told(&d.roll())), "");
}

#[test]
fn a_rollout_makes_as_many_as_may_surge() {
    for (surge, on, found, expected) in [
        (json!(1), "a b", "a:old:ok b:old:ok", "+a"),
        (json!("100%"), "a b", "a:old:ok b:old:ok", "+a +b"),
        (json!(1), "a b", "a:old:ok b:old:ok b:new:unready", ""),
        (json!(1), "a b", "a:old:ok b:old:ok b:new:ok", "+a -b.1"),
        (json!(1), "a b", "a:old:ok b:old:unready", "+a +b"),
        (json!(1), "a b", "a:old:ok b:old:ok b:old:ok", ""),
        // Where no pod is made any more, one goes when enough are available elsewhere.
        (json!(1), "a b?", "a:new:ok b:old:ok", "-b.1"),
        (json!(1), "a b?", "a:new:unready b:old:ok", ""),
        (json!(1), "a b?", "a:new:unready b:old:unready", "-b.1"),
    ] {
        let strategy = rolling(&json!(0), &surge);
        assert_eq!(
            with(&strategy, on, found, |d| told(&d.roll())),
            expected,
            "{surge} {on} {found}"
        );
    }
}

#[test]
fn the_status_counts_the_first_pod_of_each_node() {
    let found = "a:new:ok b:old:young b:new:ok c:new:ok e:new:unready g:new:ok";
    let status = with(&rolling(&json!(1), &json!(0)), "a b c? d e f!", found, |d| {
        d.status(Some(2))
    });
    let expected: DaemonSetStatus = serde_json::from_value(json!({
        "desiredNumberScheduled": 4, "currentNumberScheduled": 3, "numberMisscheduled": 1, "numberReady": 2,
        "numberAvailable": 1, "numberUnavailable": 3, "updatedNumberScheduled": 2, "observedGeneration": 2, "collisionCount": 2,
    }))
    .unwrap();
    assert_eq!(status, expected);
    let next = with(&rolling(&json!(1), &json!(0)), "a", "a:new:young", |d| {
        pod::next_availability(d.pods.values().flatten(), d.min_ready(), d.now)
    });
    assert_eq!(next, Next::After(Duration::from_secs(3)));
}

#[test]
fn a_node_matters_to_those_to_which_it_means_something_else() {
    let node = |disk: &str, taint: Option<&str>, kernel: &str| -> Node {
        let taints: Vec<Value> = taint
            .iter()
            .map(|effect| json!({"key": "x", "effect": effect}))
            .collect();
        let info = json!({"kernelVersion": kernel, "machineID": "", "systemUUID": "", "bootID": "", "osImage": "", "architecture": "",
            "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "", "operatingSystem": ""});
        let metadata = json!({"name": "a", "labels": {"disk": disk}});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"taints": taints}, "status": {"nodeInfo": info}}))
            .unwrap()
    };
    let set: DaemonSet = serde_json::from_value(json!({
        "metadata": {"name": "ssd"},
        "spec": {"selector": {}, "template": {"spec": {"containers": [], "nodeSelector": {"disk": "ssd"}}}},
    }))
    .unwrap();
    let ssd = || Some(node("ssd", None, "1"));
    for (old, new, moved, matters_) in [
        (ssd(), Some(node("ssd", None, "2")), false, false),
        (ssd(), Some(node("hdd", None, "1")), true, true),
        (Some(node("hdd", None, "1")), Some(node("tape", None, "1")), true, false),
        (ssd(), Some(node("ssd", Some("NoSchedule"), "1")), true, true),
        (ssd(), Some(node("ssd", Some("PreferNoSchedule"), "1")), true, false),
        (None, ssd(), true, true),
        (None, Some(node("hdd", None, "1")), true, false),
        (ssd(), None, true, true),
    ] {
        let (old, new) = (old.as_ref(), new.as_ref());
        assert_eq!(
            (is_moved(old, new), matters(&set, old, new)),
            (moved, matters_),
            "{old:?} {new:?}"
        );
    }
}
