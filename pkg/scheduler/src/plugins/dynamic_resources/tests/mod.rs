#![allow(clippy::unwrap_used)]
mod binding;
mod devices;
mod long;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::cycle::{decide, prepare};
use crate::profile::Profile;

const DRIVER: &str = "gpu.example.com";
const NONE: &str = "cannot allocate all claims";

fn device(name: &str, model: &str, bus: i64) -> Value {
    json!({"name": name, "attributes": {"model": {"string": model}, "bus": {"int": bus}}})
}

/// Three nodes: a has two small devices, b a large one beside a small one, c none. The class `gpu` has them all.
fn machines() -> Cluster {
    let mut cluster = Cluster::default();
    for name in ["a", "b", "c"] {
        let node = json!({"metadata": {"name": name}, "status": {"allocatable": {"pods": "9", "cpu": "4"}}});
        cluster.set_node(&serde_json::from_value(node).unwrap());
    }
    let selector = json!([{"cel": {"expression": format!("device.driver == \"{DRIVER}\"")}}]);
    let config = json!([{"opaque": {"driver": DRIVER, "parameters": {"of": "class"}}}]);
    let class = json!({"metadata": {"name": "gpu"}, "spec": {"selectors": selector, "config": config}});
    cluster
        .claims
        .set_class(Arc::new(serde_json::from_value(class).unwrap()));
    slice(
        &mut cluster,
        "a",
        1,
        &[device("a0", "small", 0), device("a1", "small", 1)],
    );
    slice(
        &mut cluster,
        "b",
        1,
        &[device("b0", "large", 0), device("b1", "small", 0)],
    );
    cluster
}

fn slice(cluster: &mut Cluster, node: &str, count: i64, devices: &[Value]) {
    let pool = json!({"name": node, "generation": 1, "resourceSliceCount": count});
    let spec = json!({"driver": DRIVER, "nodeName": node, "pool": pool, "devices": devices});
    let slice = json!({"metadata": {"name": node}, "spec": spec});
    cluster
        .claims
        .set_slice(&Arc::new(serde_json::from_value(slice).unwrap()));
}

fn claim(name: &str, devices: &Value, status: &Value) -> Arc<ResourceClaim> {
    let meta = json!({"namespace": "d", "name": name, "uid": name, "resourceVersion": "1"});
    let claim = json!({"metadata": meta, "spec": {"devices": devices}, "status": status});
    Arc::new(serde_json::from_value(claim).unwrap())
}

fn exactly(name: &str, count: i64) -> Value {
    json!({"name": name, "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": count}})
}

fn with(mut request: Value, field: &str, value: Value) -> Value {
    request["exactly"][field] = value;
    request
}

fn selecting(expression: &str) -> Value {
    json!([{"cel": {"expression": expression}}])
}

fn of_model(model: &str) -> Value {
    selecting(&format!("device.attributes[\"{DRIVER}\"].model == \"{model}\""))
}

fn all(name: &str) -> Value {
    json!({"name": name, "exactly": {"deviceClassName": "gpu", "allocationMode": "All"}})
}

/// What somebody has of a node.
fn given(node: &str, device: &str, holders: &[&str]) -> Value {
    let holders: Vec<_> = holders
        .iter()
        .map(|holder| json!({"resource": "pods", "name": holder, "uid": holder}))
        .collect();
    let nodes =
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]});
    let results = json!([{"request": "r", "driver": DRIVER, "pool": node, "device": device}]);
    json!({"reservedFor": holders, "allocation": {"nodeSelector": nodes, "devices": {"results": results}}})
}

fn pod(cluster: &mut Cluster, claims: &[&str]) -> Arc<PodInfo> {
    let claims: Vec<_> = claims
        .iter()
        .map(|name| json!({"name": name, "resourceClaimName": name}))
        .collect();
    let pod = json!({"metadata": {"namespace": "d", "name": "p", "uid": "p"}, "spec": {"containers": [], "resourceClaims": claims}});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    Arc::new(PodInfo::new(&pod, &mut cluster.kins))
}

/// For each node what the pod gets there, or why nothing.
fn judge(cluster: &mut Cluster, pod: &PodInfo) -> String {
    let plugin = DynamicResources::default();
    plugin.prepare(pod, cluster);
    let filter = match plugin.pre_filter(pod, cluster) {
        PreFilter::Check(filter) => filter,
        PreFilter::Refuse(objection) => return objection.reasons.join(", "),
        _ => return "skipped".to_owned(),
    };
    let one = |name: &str| {
        let node = cluster.find(name).unwrap();
        if let Some(objection) = filter.check(node) {
            return format!("{name}: {}", objection.reasons.join(", "));
        }
        let reserved = reserved(pod, node, &cluster.claims).unwrap();
        let allocations = reserved.iter().filter_map(|own| own.allocation.as_ref());
        let results =
            allocations.flat_map(|own| own.devices.iter().flat_map(|devices| devices.results.iter().flatten()));
        let results: Vec<_> = results.map(|own| format!("{}={}", own.request, own.device)).collect();
        format!("{name}: {}", results.join(" "))
    };
    ["a", "b", "c"].map(one).join("; ")
}

/// The whole decision: which node, or what is said.
fn decided(cluster: &mut Cluster, pod: &PodInfo) -> (String, usize) {
    let profile = Profile::default();
    prepare(pod, &profile, cluster);
    match decide(pod, &profile, cluster, 0, |_| 0).node {
        Ok(node) => (cluster.node(node).name.to_string(), 0),
        Err(refusal) => (refusal.message, refusal.writes.len()),
    }
}

#[test]
fn a_claim_that_has_its_devices_says_where_its_pods_go() {
    let full = |what: &str, rest: &str| format!("0/3 nodes are available: 3 {what}. {rest}");
    let preemption = "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
    let away = |words: &str| full(UNAVAILABLE, &format!("{words}, {preemption}"));
    for (status, expected, writes) in [
        (given("b", "b0", &["x"]), "b".to_owned(), 0),
        (given("b", "b0", &["p"]), "b".to_owned(), 0),
        (given("z", "z0", &["x"]), away("still not schedulable"), 0),
        (given("z", "z0", &["p", "x"]), away("still not schedulable"), 0),
        (
            given("z", "z0", &["p"]),
            away("deallocation of ResourceClaim completed"),
            1,
        ),
        (
            given("z", "z0", &[]),
            away("deallocation of ResourceClaim completed"),
            1,
        ),
    ] {
        let mut cluster = machines();
        let devices = json!({"requests": [exactly("r", 1)]});
        cluster.claims.set(claim("c", &devices, &status));
        let asks = pod(&mut cluster, &["c"]);
        assert_eq!(decided(&mut cluster, &asks), (expected, writes), "{status}");
    }
}

#[test]
fn what_is_wrong_with_a_claim_is_said_before_any_node_is_looked_at() {
    let mut going = (*claim("c", &json!({}), &json!({}))).clone();
    going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let made = |owner: &str| {
        let mut claim = (*claim("c", &json!({"requests": [exactly("r", 1)]}), &json!({}))).clone();
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": true}]);
        claim.metadata.owner_references = serde_json::from_value(owner).unwrap();
        claim
    };
    let by_name = json!([{"name": "r", "resourceClaimName": "c"}]);
    let by_template = json!([{"name": "r", "resourceClaimTemplateName": "t"}]);
    let (named, none) = (json!([{"name": "r", "resourceClaimName": "c"}]), json!([{"name": "r"}]));
    for (claims, statuses, claim, expected) in [
        (&by_name, json!([]), None, "could not find ResourceClaim \"d/c\""),
        (&by_name, json!([]), Some(going), "resourceclaim \"c\" is being deleted"),
        (
            &by_template,
            json!([]),
            None,
            "pod \"d/p\": ResourceClaim not created yet",
        ),
        (&by_template, none, None, "skipped"),
        (
            &by_template,
            named.clone(),
            Some(made("q")),
            "ResourceClaim d/c was not created for pod d/p (pod is not owner)",
        ),
        (
            &by_template,
            named,
            Some(made("p")),
            "a: r=a0; b: r=b0; c: cannot allocate all claims",
        ),
        (
            &json!([{"name": "r"}]),
            json!([]),
            None,
            "pod \"d/p\", spec.resourceClaim \"r\": none of the supported fields are set",
        ),
    ] {
        let mut cluster = machines();
        if let Some(claim) = claim {
            cluster.claims.set(Arc::new(claim));
        }
        let pod = json!({"metadata": {"namespace": "d", "name": "p", "uid": "p"}, "spec": {"containers": [], "resourceClaims": claims},
            "status": {"resourceClaimStatuses": statuses}});
        let pod = PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins);
        assert_eq!(judge(&mut cluster, &pod), expected, "{claims} {statuses}");
        let known = expected.starts_with("a:") || expected == "skipped";
        assert_eq!(
            DynamicResources::default().pre_enqueue(&pod, &cluster),
            known,
            "{claims}"
        );
    }
}

#[test]
fn a_claim_that_fails_fails_the_decision() {
    let mut cluster = machines();
    let broken = with(exactly("r", 1), "selectors", selecting("device.nothing"));
    cluster
        .claims
        .set(claim("c", &json!({"requests": [broken]}), &json!({})));
    let asks = pod(&mut cluster, &["c"]);
    let profile = Profile::default();
    prepare(&asks, &profile, &mut cluster);
    let refusal = decide(&asks, &profile, &cluster, 0, |_| 0).node.unwrap_err();
    let begin = "running \"DynamicResources\" filter plugin: claim d/c: selector #0: CEL compile error: compilation failed: ERROR:";
    assert!(
        refusal.failed && refusal.message.starts_with(begin),
        "{}",
        refusal.message
    );
}

#[test]
fn the_node_with_the_earlier_choice_is_better() {
    let sub = |name: &str, model: &str| json!({"name": name, "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1, "selectors": of_model(model)});
    let mut cluster = machines();
    let listed = json!({"name": "r", "firstAvailable": [sub("l", "large"), sub("s", "small")]});
    for name in ["c", "e"] {
        cluster
            .claims
            .set(claim(name, &json!({"requests": [listed]}), &json!({})));
    }
    let (one, both) = (pod(&mut cluster, &["c"]), pod(&mut cluster, &["c", "e"]));
    for (pod, expected) in [(one, [87, 100]), (both, [93, 100])] {
        let plugin = DynamicResources::default();
        plugin.prepare(&pod, &mut cluster);
        let nodes = ["a", "b"].map(|name| cluster.find(name).unwrap());
        let PreFilter::Check(filter) = plugin.pre_filter(&pod, &cluster) else {
            panic!("it is checked node by node")
        };
        assert!(nodes.iter().all(|node| filter.check(node).is_none()));
        let score = plugin.pre_score(&pod, &cluster, &nodes).unwrap();
        let mut scores = [0, 0];
        score.score(&nodes, &mut scores);
        score.normalise(&nodes, &mut scores);
        assert_eq!(scores, expected);
    }
    cluster
        .claims
        .set(claim("plain", &json!({"requests": [exactly("r", 1)]}), &json!({})));
    let plain = pod(&mut cluster, &["plain"]);
    DynamicResources::default().prepare(&plain, &mut cluster);
    assert!(DynamicResources::default().pre_score(&plain, &cluster, &[]).is_none());
}

#[test]
fn a_claim_is_given_to_one_pod_at_a_time() {
    let mut cluster = machines();
    let devices = json!({"requests": [exactly("r", 2)]});
    for name in ["c", "e"] {
        cluster.claims.set(claim(name, &devices, &json!({})));
    }
    let plugin = DynamicResources::default();
    let first = pod(&mut cluster, &["c"]);
    let node = cluster.find("a").unwrap().id;
    plugin.prepare(&first, &mut cluster);
    plugin.reserve(&first, node, &mut cluster).unwrap();
    let second = json!({"metadata": {"namespace": "d", "name": "q", "uid": "q"}, "spec": {"containers": [],
        "resourceClaims": [{"name": "r", "resourceClaimName": "c"}]}});
    let second = PodInfo::new(&serde_json::from_value(second).unwrap(), &mut cluster.kins);
    assert_eq!(
        judge(&mut cluster, &second),
        "resource claim d/c is in the process of being allocated"
    );
    let third = json!({"metadata": {"namespace": "d", "name": "s", "uid": "s"}, "spec": {"containers": [],
        "resourceClaims": [{"name": "r", "resourceClaimName": "e"}]}});
    let third = PodInfo::new(&serde_json::from_value(third).unwrap(), &mut cluster.kins);
    assert_eq!(
        judge(&mut cluster, &third),
        format!("a: {NONE}; b: r=b0 r=b1; c: {NONE}")
    );
    assert!(plugin.unreserve(&first, &mut cluster).is_none(), "nothing was written");
    assert_eq!(
        judge(&mut cluster, &third),
        format!("a: r=a0 r=a1; b: r=b0 r=b1; c: {NONE}")
    );
}

#[test]
fn changes_of_claims_help_those_who_can_do_something_with_them() {
    let (bare, given) = (
        claim("other", &json!({}), &json!({})),
        claim("other", &json!({}), &given("a", "a0", &["x"])),
    );
    let own = claim("c", &json!({}), &json!({}));
    let mut labelled = (*own).clone();
    labelled.metadata.labels = Some(std::collections::BTreeMap::default());
    for (before, now, expected) in [
        (None, &*own, true),
        (Some(&*own), &labelled, false),
        (None, &*bare, false),
        (Some(&*bare), &*given, false),
        (Some(&*given), &*bare, true),
    ] {
        let mut cluster = machines();
        let waits = pod(&mut cluster, &["c"]);
        let change = Change::DeviceClaim { before, now };
        let plugin = DynamicResources::default();
        assert!(!plugin.helps(&waits, &change, &cluster), "its claim is not there");
        cluster.claims.set(own.clone());
        assert_eq!(plugin.helps(&waits, &change, &cluster), expected, "{before:?} {now:?}");
        assert_ne!(plugin.wakes_on() & change.kinds(), 0);
    }
}
