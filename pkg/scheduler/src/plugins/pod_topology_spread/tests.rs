#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::cluster::Cluster;

const ZONE: &str = "topology.kubernetes.io/zone";

/// `pods` are texts like "a0 web" or "a0 web going": a node and what is there.
fn cluster(nodes: &[(&str, Value)], pods: &[&str]) -> Cluster {
    let mut cluster = Cluster::default();
    for (name, taints) in nodes {
        let mut labels = json!({HOSTNAME: name, "disk": name[..1]});
        if !name.starts_with('x') {
            labels[ZONE] = json!(name[..1]);
        }
        let node = json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}});
        cluster.set_node(&serde_json::from_value(node).unwrap());
    }
    for (n, text) in pods.iter().enumerate() {
        let words: Vec<&str> = text.split(' ').collect();
        let pod = pod(&mut cluster, words[1], n, words.get(2).copied());
        cluster.place(pod, words[0]);
    }
    cluster
}

fn pod(cluster: &mut Cluster, app: &str, n: usize, how: Option<&str>) -> Arc<PodInfo> {
    let namespace = if how == Some("elsewhere") { "e" } else { "d" };
    let going = (how == Some("going")).then_some("2024-01-01T00:00:00Z");
    let pod = json!({"metadata": {"uid": n.to_string(), "namespace": namespace, "labels": {"app": app}, "deletionTimestamp": going},
        "spec": {"containers": [], "nodeName": "n"}});
    Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins))
}

/// A waiting pod "web" with these constraints.
fn waiting(cluster: &mut Cluster, constraints: Value, more: &Value) -> PodInfo {
    let mut spec = json!({"containers": [], "topologySpreadConstraints": constraints});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    let pod = json!({"metadata": {"uid": "p", "namespace": "d", "labels": {"app": "web", "hash": "1"}}, "spec": spec});
    PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins)
}

/// A constraint over zones for "web", with other fields.
fn over_zones(hard: bool, fields: Value) -> Value {
    let action = if hard { "DoNotSchedule" } else { "ScheduleAnyway" };
    let mut constraint = json!({"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": action,
        "labelSelector": {"matchLabels": {"app": "web"}}});
    for (field, value) in fields.as_object().into_iter().flatten() {
        constraint[field] = value.clone();
    }
    constraint
}

/// The nodes that are refused, with a mark where nothing helps.
fn refused(plugin: &PodTopologySpread, pod: &PodInfo, cluster: &mut Cluster) -> String {
    cluster.settle();
    plugin.prepare(pod, cluster);
    let PreFilter::Check(filter) = plugin.pre_filter(pod, cluster) else {
        return "skips".to_owned();
    };
    let mut all: Vec<String> = Vec::new();
    for id in cluster.order() {
        let node = cluster.node(*id);
        let objection = filter.check(node);
        all.extend(objection.map(|own| format!("{}{}", node.name, if own.unresolvable { "!" } else { "" })));
    }
    all.sort();
    all.join(" ")
}

fn plain(names: &[&'static str]) -> Vec<(&'static str, Value)> {
    names.iter().map(|name| (*name, json!([]))).collect()
}

#[test]
fn a_domain_may_have_so_many_more_than_the_emptiest() {
    let three = ["a0 web", "a0 web", "b0 web"];
    let selector = |selector: Value| json!({"labelSelector": selector});
    for (pods, fields, expected) in [
        (&["a0 web"][..], json!({}), "a0 a1"),
        (&["a0 web"], json!({"maxSkew": 2}), ""),
        (&three, json!({}), "a0 a1"),
        (&three, json!({"minDomains": 2}), "a0 a1"),
        (&three, json!({"minDomains": 3}), "a0 a1 b0"),
        (&["a0 web going", "a1 web elsewhere", "a0 db"], json!({}), ""),
        (&three, selector(json!({"matchLabels": {"app": "db"}})), ""),
        (&three, selector(Value::Null), ""),
        (&three, selector(json!({})), ""),
        (&["a0 web"], json!({"matchLabelKeys": ["hash", "none"]}), ""),
        (&["a0 web"], json!({"matchLabelKeys": ["app"]}), "a0 a1"),
        (&["a0 db"], json!({"labelSelector": {}, "matchLabelKeys": ["app"]}), ""),
        (&["a0 web"], json!({"topologyKey": HOSTNAME}), "a0"),
        (&["a0 web"], json!({"topologyKey": "rack"}), "a0! a1! b0!"),
        (&["a0 web"], json!({"whenUnsatisfiable": "ScheduleAnyway"}), "skips"),
    ] {
        let mut cluster = cluster(&plain(&["a0", "a1", "b0"]), pods);
        let pod = waiting(&mut cluster, json!([over_zones(true, fields.clone())]), &json!({}));
        let plugin = PodTopologySpread::default();
        assert_eq!(refused(&plugin, &pod, &mut cluster), expected, "{pods:?} {fields}");
    }
}

#[test]
fn only_nodes_that_could_take_the_pod_count() {
    let taint = json!([{"key": "k", "effect": "NoSchedule"}]);
    let nodes = [("a0", json!([])), ("b0", json!([])), ("c0", taint), ("x0", json!([]))];
    let only = |names: &[&str]| {
        let term = json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": names}]});
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}})
    };
    let tolerant = json!({"tolerations": [{"operator": "Exists"}]});
    let honored = json!({"nodeTaintsPolicy": "Honor"});
    for (constraints, more, expected) in [
        (json!([over_zones(true, json!({}))]), json!({}), "a0 b0 x0!"),
        (json!([over_zones(true, json!({}))]), only(&["a", "b"]), "x0!"),
        (
            json!([over_zones(true, json!({"nodeAffinityPolicy": "Ignore"}))]),
            only(&["a", "b"]),
            "a0 b0 x0!",
        ),
        (json!([over_zones(true, honored.clone())]), json!({}), "x0!"),
        (json!([over_zones(true, honored)]), tolerant, "a0 b0 x0!"),
        // Only nodes with both keys count for either: x0 is no emptier domain.
        (
            json!([
                over_zones(true, json!({"topologyKey": "disk"})),
                over_zones(true, json!({}))
            ]),
            only(&["a", "b", "x"]),
            "x0!",
        ),
        (
            json!([over_zones(true, json!({"topologyKey": "disk"}))]),
            only(&["a", "b", "x"]),
            "a0 b0",
        ),
    ] {
        let mut cluster = cluster(&nodes, &["a0 web", "b0 web"]);
        let pod = waiting(&mut cluster, constraints.clone(), &more);
        let plugin = PodTopologySpread::default();
        assert_eq!(refused(&plugin, &pod, &mut cluster), expected, "{constraints} {more}");
    }
}

/// Scores of the nodes, in the order of the names.
fn scores(plugin: &PodTopologySpread, pod: &PodInfo, cluster: &mut Cluster) -> Vec<i64> {
    cluster.settle();
    plugin.prepare(pod, cluster);
    let mut nodes: Vec<_> = cluster.order().iter().map(|id| cluster.node(*id)).collect();
    nodes.sort_by_key(|node| node.name.clone());
    let mut scores = vec![0; nodes.len()];
    let Some(score) = plugin.pre_score(pod, cluster, &nodes) else {
        return Vec::new();
    };
    score.score(&nodes, &mut scores);
    score.normalise(&nodes, &mut scores);
    scores
}

#[test]
fn the_fewer_of_its_like_the_better() {
    let nodes = plain(&["a0", "a1", "b0", "x0"]);
    let pods = ["a0 web", "a0 web", "a1 web", "b0 web", "x0 web", "x0 web going"];
    for (constraints, expected) in [
        (json!([over_zones(false, json!({}))]), &[25, 25, 100, 0][..]),
        (json!([over_zones(false, json!({"maxSkew": 3}))]), &[50, 50, 100, 0]),
        (
            json!([over_zones(false, json!({"topologyKey": HOSTNAME}))]),
            &[50, 100, 100, 100],
        ),
        (
            json!([over_zones(false, json!({"labelSelector": {}}))]),
            &[100, 100, 100, 0],
        ),
        (json!([over_zones(true, json!({}))]), &[]),
    ] {
        let mut cluster = cluster(&nodes, &pods);
        let pod = waiting(&mut cluster, constraints.clone(), &json!({}));
        let plugin = PodTopologySpread::default();
        assert_eq!(scores(&plugin, &pod, &mut cluster), expected, "{constraints}");
    }
}

#[test]
fn a_pod_without_constraints_is_spread_by_what_selects_it() {
    let mut rule = Rule::soft(ZONE, 1);
    let soft = PodTopologySpread {
        defaults: Defaults::List(vec![rule.clone()]),
    };
    rule.hard = true;
    let hard = PodTopologySpread {
        defaults: Defaults::List(vec![rule]),
    };
    for (plugin, service, expected) in [
        (PodTopologySpread::default(), "db", (vec![], "skips")),
        // Also x0, which is in no zone.
        (PodTopologySpread::default(), "web", (vec![28, 35, 64, 100], "skips")),
        (soft, "web", (vec![25, 25, 100, 0], "skips")),
        (hard, "web", (vec![], "a0 a1 x0!")),
    ] {
        let pods = ["a0 web", "a0 web", "a1 web", "b0 web", "x0 web"];
        let mut cluster = cluster(&plain(&["a0", "a1", "b0", "x0"]), &pods);
        let service = json!({"metadata": {"namespace": "d", "name": "s"}, "spec": {"selector": {"app": service}}});
        cluster.groups.set_service(&serde_json::from_value(service).unwrap());
        let pod = waiting(&mut cluster, json!([]), &json!({}));
        let said = (
            scores(&plugin, &pod, &mut cluster),
            refused(&plugin, &pod, &mut cluster),
        );
        assert_eq!(said, (expected.0, expected.1.to_owned()), "{plugin:?}");
    }
}

#[test]
fn a_trial_counts_who_comes_and_goes() {
    for (pods, changes, expected) in [
        (&["a0 web", "a0 web", "b0 web"][..], &[][..], true),
        (&["a0 web", "a0 web", "b0 web"], &[("web", -1)], false),
        (&["a0 web", "a0 web", "b0 web"], &[("db", -1)], true),
        (&["a0 web", "a0 web", "b0 web"], &[("web", -1), ("web", 1)], true),
        (&["b0 web"], &[("web", 1)], false),
        (&["b0 web"], &[("web", 1), ("web", 1)], true),
    ] {
        let mut cluster = cluster(&plain(&["a0", "b0"]), pods);
        let pod = waiting(&mut cluster, json!([over_zones(true, json!({}))]), &json!({}));
        let others = ["web", "db"].map(|app| self::pod(&mut cluster, app, 9, None));
        let plugin = PodTopologySpread::default();
        plugin.prepare(&pod, &mut cluster);
        let PreFilter::Check(filter) = plugin.pre_filter(&pod, &cluster) else {
            unreachable!()
        };
        let node = cluster.find("a0").unwrap();
        let mut trial = filter.trial().unwrap();
        for (app, by) in changes {
            trial.change(&others[usize::from(*app == "db")], node, *by);
        }
        assert_eq!(trial.check(node).is_some(), expected, "{pods:?} {changes:?}");
    }
}

#[test]
fn what_changes_the_numbers_is_worth_another_try() {
    let mut cluster = cluster(&plain(&["a0", "x0"]), &[]);
    let plugin = PodTopologySpread::default();
    let pod = waiting(&mut cluster, json!([over_zones(true, json!({}))]), &json!({}));
    let [web, db, elsewhere] = [("web", None), ("db", None), ("web", Some("elsewhere"))]
        .map(|(app, how)| self::pod(&mut cluster, app, 1, how));
    let (a, x) = (cluster.find("a0").unwrap(), cluster.find("x0").unwrap());
    let changed = |before, now| Change::PodChanged { before, now };
    let node = |before, node| Change::Node { before, node };
    for (what, change, expected) in [
        ("web came", Change::PodPlaced(&web), true),
        ("db came", Change::PodPlaced(&db), false),
        ("web went", Change::PodGone(&web), true),
        ("elsewhere", Change::PodGone(&elsewhere), false),
        ("web became db", changed(&web, &db), true),
        ("nothing changed", changed(&web, &web), false),
        ("a node with a zone", node(None, a), true),
        ("a node without", node(None, x), false),
        ("it got a zone", node(Some(&x.facts), a), true),
        ("nothing new", node(Some(&a.facts), a), false),
        ("a zone went", Change::NodeGone(&a.facts), true),
        ("no zone went", Change::NodeGone(&x.facts), false),
    ] {
        assert_eq!(plugin.helps(&pod, &change, &cluster), expected, "{what}");
    }
}
