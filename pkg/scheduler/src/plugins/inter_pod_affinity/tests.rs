#![allow(clippy::unwrap_used)]
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::*;

const ZONE: &str = "topology.kubernetes.io/zone";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Two nodes in zone a, one in b, one in none.
fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for name in ["a0", "a1", "b0", "x0"] {
        let mut labels = json!({HOSTNAME: name});
        if !name.starts_with('x') {
            labels[ZONE] = json!(name[..1]);
        }
        let node = json!({"metadata": {"name": name, "labels": labels}});
        cluster.set_node(&serde_json::from_value(node).unwrap());
    }
    for (name, team) in [("d", "dev"), ("e", "else")] {
        let labels = Labels::from([("team".to_owned(), team.to_owned())]);
        cluster.set_namespace(name, Some(labels));
    }
    cluster
}

/// A term about pods of an app, with other fields.
fn term(app: &str, key: &str, fields: &Value) -> Value {
    let mut term = json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}});
    for (field, value) in fields.as_object().into_iter().flatten() {
        term[field] = value.clone();
    }
    term
}

fn hard(kind: &str, terms: &[&Value]) -> Value {
    json!({kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}})
}

fn soft(kind: &str, weight: i64, term: &Value) -> Value {
    let weighed = json!({"weight": weight, "podAffinityTerm": term});
    json!({kind: {"preferredDuringSchedulingIgnoredDuringExecution": [weighed]}})
}

fn near(terms: &[&Value]) -> Value {
    hard("podAffinity", terms)
}

fn away(terms: &[&Value]) -> Value {
    hard("podAntiAffinity", terms)
}

/// As it is, and with more terms than are counted on, about nobody.
fn few_and_many(affinity: &Value) -> Vec<Value> {
    let mut many = affinity.clone();
    let Some(kinds) = many.as_object_mut() else {
        return vec![many];
    };
    let keys = [ZONE, HOSTNAME, "nobody-has-it"].iter().cycle().take(2 * MANY);
    let terms: Vec<_> = (0..)
        .zip(keys)
        .map(|(at, key)| term(&format!("nobody-{at}"), key, &json!({})))
        .collect();
    let liked: Vec<_> = terms
        .iter()
        .map(|term| json!({"weight": 1, "podAffinityTerm": term}))
        .collect();
    let anti = kinds.entry("podAntiAffinity").or_insert_with(|| json!({}));
    for (field, more) in [
        ("requiredDuringSchedulingIgnoredDuringExecution", terms),
        ("preferredDuringSchedulingIgnoredDuringExecution", liked),
    ] {
        let own = anti[field].as_array().cloned().unwrap_or_default();
        anti[field] = json!([own, more].concat());
    }
    vec![affinity.clone(), many]
}

/// `who` is an app, or a namespace and an app: "web", "e/web".
fn pod(cluster: &mut Cluster, who: &str, affinity: &Value) -> Arc<PodInfo> {
    let (namespace, app) = who.split_once('/').unwrap_or(("d", who));
    static UIDS: AtomicUsize = AtomicUsize::new(0);
    let uid = UIDS.fetch_add(1, Ordering::Relaxed).to_string();
    let pod = json!({"metadata": {"uid": uid, "namespace": namespace, "labels": {"app": app}}, "spec": {"containers": [], "affinity": affinity}});
    Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins))
}

/// What is there: a node, who, and that one's affinity.
type There<'a> = &'a [(&'a str, &'a str, Value)];

fn with(there: There<'_>) -> Cluster {
    let mut cluster = cluster();
    for (node, who, affinity) in there {
        let pod = pod(&mut cluster, who, affinity);
        cluster.place(pod, node);
    }
    cluster
}

/// The nodes that are refused, each with the first letter of the reason that differs.
fn refused(pod: &PodInfo, cluster: &mut Cluster) -> String {
    let plugin = InterPodAffinity::default();
    cluster.settle();
    plugin.prepare(pod, cluster);
    let PreFilter::Check(filter) = plugin.pre_filter(pod, cluster) else {
        return "skips".to_owned();
    };
    let mut nodes: Vec<_> = cluster.order().iter().map(|id| cluster.node(*id)).collect();
    nodes.sort_by_key(|node| node.name.clone());
    let said = nodes.iter().filter_map(|node| Some((node, filter.check(node)?)));
    let said = said.map(|(node, objection)| {
        let why = match &*objection.reasons[0] {
            "node(s) didn't match pod affinity rules" => "near",
            "node(s) didn't match pod anti-affinity rules" => "away",
            "node(s) didn't satisfy existing pods anti-affinity rules" => "theirs",
            other => other,
        };
        assert_eq!(objection.unresolvable, why == "near");
        format!("{}:{why}", node.name)
    });
    said.collect::<Vec<_>>().join(" ")
}

#[test]
fn pods_are_near_and_away_as_they_have_to() {
    let (none, plain) = (json!({}), json!(null));
    let (db_zone, db_host) = (term("db", ZONE, &none), term("db", HOSTNAME, &none));
    let web_zone = term("web", ZONE, &none);
    let db = |node: &'static str| (node, "db", plain.clone());
    for (there, affinity, expected) in [
        (vec![db("a0")], plain.clone(), "skips"),
        (vec![db("a0")], near(&[&db_zone]), "b0:near x0:near"),
        (vec![], near(&[&db_zone]), "a0:near a1:near b0:near x0:near"),
        // The first of a group may go anywhere where the key is.
        (vec![], near(&[&web_zone]), "x0:near"),
        (
            vec![("b0", "web", plain.clone())],
            near(&[&web_zone]),
            "a0:near a1:near x0:near",
        ),
        // One pod has to be what all terms are about.
        (vec![db("a0"), db("b0")], near(&[&db_zone, &db_host]), "a1:near x0:near"),
        (
            vec![db("a0")],
            near(&[&db_zone, &term("web", ZONE, &none)]),
            "a0:near a1:near b0:near x0:near",
        ),
        (vec![db("a0")], away(&[&db_zone]), "a0:away a1:away"),
        (vec![db("x0")], away(&[&db_zone]), ""),
        (vec![db("a0"), db("b0")], away(&[&db_host]), "a0:away b0:away"),
        (
            vec![("a0", "db", away(&[&term("web", ZONE, &none)]))],
            plain.clone(),
            "a0:theirs a1:theirs",
        ),
        (vec![("a0", "db", away(&[&db_zone]))], plain.clone(), "skips"),
    ] {
        for affinity in few_and_many(&affinity) {
            let mut cluster = with(&there);
            let asks = pod(&mut cluster, "web", &affinity);
            assert_eq!(refused(&asks, &mut cluster), expected, "{there:?} {affinity}");
        }
    }
}

#[test]
fn terms_are_about_pods_of_namespaces_with_labels() {
    let plain = json!(null);
    let of = |fields: Value| term("db", ZONE, &fields);
    let db = |node: &'static str| (node, "db", plain.clone());
    let elsewhere = ("a0", "e/db", plain.clone());
    for (there, term, expected) in [
        (vec![elsewhere.clone()], of(json!({})), ""),
        (
            vec![elsewhere.clone()],
            of(json!({"namespaces": ["e"]})),
            "a0:away a1:away",
        ),
        (
            vec![elsewhere.clone(), db("b0")],
            of(json!({"namespaceSelector": {"matchLabels": {"team": "else"}}})),
            "a0:away a1:away",
        ),
        (
            vec![elsewhere.clone(), db("b0")],
            of(json!({"namespaceSelector": {}})),
            "a0:away a1:away b0:away",
        ),
        (vec![db("a0")], of(json!({"labelSelector": null})), ""),
        (vec![db("a0")], of(json!({"labelSelector": {}})), "a0:away a1:away"),
    ] {
        for affinity in few_and_many(&away(&[&term])) {
            let mut cluster = with(&there);
            let asks = pod(&mut cluster, "web", &affinity);
            assert_eq!(refused(&asks, &mut cluster), expected, "{there:?} {affinity}");
        }
    }
}

#[test]
fn other_labels_of_a_namespace_are_seen() {
    let selected = json!({"namespaceSelector": {"matchLabels": {"team": "else"}}});
    let theirs = away(&[&term("web", ZONE, &selected)]);
    let mut cluster = with(&[("a0", "e/db", json!(null)), ("b0", "e/cache", theirs)]);
    let asks = pod(&mut cluster, "web", &away(&[&term("db", ZONE, &selected)]));
    let labels = |team: &str| Some(Labels::from([("team".to_owned(), team.to_owned())]));
    assert_eq!(refused(&asks, &mut cluster), "a0:away a1:away");
    cluster.set_namespace("e", None);
    assert_eq!(refused(&asks, &mut cluster), "");
    cluster.set_namespace("e", labels("else"));
    cluster.set_namespace("d", labels("else"));
    assert_eq!(refused(&asks, &mut cluster), "a0:away a1:away b0:theirs");
}

/// Of the nodes, in the order of their names; none where the plugin skips.
fn scores(plugin: &InterPodAffinity, pod: &PodInfo, cluster: &mut Cluster) -> Vec<i64> {
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
fn nodes_are_better_where_the_liked_are_and_worse_where_the_others_are() {
    let (none, plain) = (json!({}), json!(null));
    let (db, web) = (term("db", ZONE, &none), term("web", ZONE, &none));
    let likes_web = soft("podAffinity", 5, &web);
    let default = || InterPodAffinity::default;
    let with_weight = |hard_weight: i64| InterPodAffinity {
        hard_weight,
        ..InterPodAffinity::default()
    };
    let deaf = InterPodAffinity {
        ignores_preferred: true,
        ..InterPodAffinity::default()
    };
    for (plugin, there, affinity, expected) in [
        (default()(), vec![("a0", "db", plain.clone())], plain.clone(), &[][..]),
        (
            default()(),
            vec![("a0", "db", plain.clone())],
            soft("podAffinity", 5, &db),
            &[100, 100, 0, 0],
        ),
        (
            default()(),
            vec![("a0", "db", plain.clone())],
            soft("podAntiAffinity", 5, &db),
            &[0, 0, 100, 100],
        ),
        (
            default()(),
            vec![("a0", "db", likes_web.clone())],
            plain.clone(),
            &[100, 100, 0, 0],
        ),
        (
            default()(),
            vec![("a0", "db", soft("podAntiAffinity", 5, &web))],
            plain.clone(),
            &[0, 0, 100, 100],
        ),
        (
            default()(),
            vec![("a0", "db", near(&[&web]))],
            plain.clone(),
            &[100, 100, 0, 0],
        ),
        (with_weight(0), vec![("a0", "db", near(&[&web]))], plain.clone(), &[]),
        (
            with_weight(2),
            vec![("a0", "db", near(&[&web])), ("b0", "db", likes_web.clone())],
            plain.clone(),
            &[40, 40, 100, 0],
        ),
        (deaf, vec![("a0", "db", likes_web)], plain, &[]),
    ] {
        for affinity in few_and_many(&affinity) {
            let mut cluster = with(&there);
            let asks = pod(&mut cluster, "web", &affinity);
            assert_eq!(scores(&plugin, &asks, &mut cluster), expected, "{there:?} {affinity}");
        }
    }
}

#[test]
fn a_trial_counts_who_comes_and_goes() {
    let (none, plain) = (json!({}), json!(null));
    let (db, web) = (term("db", ZONE, &none), term("web", ZONE, &none));
    let hates_web = away(&[&web]);
    let hates_web_on_its_node = away(&[&term("web", HOSTNAME, &none)]);
    for (there, affinity, comes, expected) in [
        (vec![("a0", "db", plain.clone())], away(&[&db]), 0, true),
        (vec![("a0", "db", plain.clone())], away(&[&db]), -1, false),
        (vec![("a1", "db", plain.clone())], away(&[&db]), 1, true),
        (vec![("a0", "db", hates_web.clone())], plain.clone(), 0, true),
        (vec![("a0", "db", hates_web.clone())], plain.clone(), -1, false),
        (vec![("a0", "db", hates_web_on_its_node)], away(&[&db]), -1, false),
        (vec![("a0", "db", plain.clone())], near(&[&db]), -1, true),
        (vec![("b0", "db", plain.clone())], near(&[&db]), 1, false),
        // With it goes the last of the group.
        (vec![("b0", "web", plain.clone())], near(&[&web]), 0, true),
        (vec![("a0", "web", plain)], near(&[&web]), -1, false),
    ] {
        for affinity in few_and_many(&affinity) {
            let mut cluster = with(&there);
            let asks = pod(&mut cluster, "web", &affinity);
            let other = pod(&mut cluster, there[0].1, &there[0].2);
            let plugin = InterPodAffinity::default();
            plugin.prepare(&asks, &mut cluster);
            let PreFilter::Check(filter) = plugin.pre_filter(&asks, &cluster) else {
                unreachable!()
            };
            let node = cluster.find("a0").unwrap();
            let mut trial = filter.trial().unwrap();
            trial.change(&other, node, comes);
            assert_eq!(trial.check(node).is_some(), expected, "{there:?} {affinity} {comes}");
        }
    }
}

#[test]
fn a_trial_knows_terms_that_nobody_had() {
    let (mut cluster, plugin) = (cluster(), InterPodAffinity::default());
    let asks = pod(&mut cluster, "web", &away(&[&term("db", ZONE, &json!({}))]));
    let other = pod(&mut cluster, "cache", &away(&[&term("web", HOSTNAME, &json!({}))]));
    plugin.prepare(&asks, &mut cluster);
    let PreFilter::Check(filter) = plugin.pre_filter(&asks, &cluster) else {
        unreachable!()
    };
    let node = cluster.find("a0").unwrap();
    let mut trial = filter.trial().unwrap();
    trial.change(&other, node, 1);
    assert!(trial.check(node).is_some());
    trial.change(&other, node, -1);
    assert!(trial.check(node).is_none());
}

#[test]
fn what_brings_the_liked_or_takes_the_others_is_worth_another_try() {
    let none = json!({});
    let mut cluster = cluster();
    let affinity = |near: &str, away: &str| {
        let term = |app: &str| json!({"requiredDuringSchedulingIgnoredDuringExecution": [term(app, ZONE, &none)]});
        json!({"podAffinity": term(near), "podAntiAffinity": term(away)})
    };
    let asks = pod(&mut cluster, "web", &affinity("db", "cache"));
    let [db, cache, other] = ["db", "cache", "other"].map(|app| pod(&mut cluster, app, &json!(null)));
    let hates_web = pod(&mut cluster, "other", &away(&[&term("web", ZONE, &none)]));
    let changed = |before, now| Change::PodChanged { before, now };
    let node = |before, node| Change::Node { before, node };
    let (a, b, x) = (
        cluster.find("a0").unwrap(),
        cluster.find("b0").unwrap(),
        cluster.find("x0").unwrap(),
    );
    for (what, change, expected) in [
        ("db came", Change::PodPlaced(&db), true),
        ("cache came", Change::PodPlaced(&cache), false),
        ("cache went", Change::PodGone(&cache), true),
        ("db went", Change::PodGone(&db), false),
        ("one that kept it away went", Change::PodGone(&hates_web), true),
        ("another became db", changed(&other, &db), true),
        ("db became another", changed(&db, &other), false),
        ("cache became another", changed(&cache, &other), true),
        ("a node came", node(None, x), true),
        ("a node moved", node(Some(&b.facts), a), true),
        ("a node left its zone", node(Some(&a.facts), x), true),
        ("a node is as it was", node(Some(&a.facts), a), false),
    ] {
        let helps = InterPodAffinity::default().helps(&asks, &change, &cluster);
        assert_eq!(helps, expected, "{what}");
    }
}
