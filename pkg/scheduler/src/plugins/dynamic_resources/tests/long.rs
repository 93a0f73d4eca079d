//! Searches that would take long, or much room.

use std::time::Instant;

use serde_json::{Value, json};

use super::*;

/// One node with these devices alone.
fn machine(devices: &[Value]) -> Cluster {
    let mut cluster = machines();
    slice(&mut cluster, "a", 1, devices);
    cluster
}

fn alike(count: i64, model: &str) -> Vec<Value> {
    let names = (0..count).map(|at| device(&format!("{model}{at}"), model, at));
    names.collect()
}

/// What is said of each of these nodes for a pod with one claim, if there is so much time.
fn said(cluster: &mut Cluster, devices: &Value, timeout: Duration, nodes: &[&str]) -> Vec<String> {
    cluster.claims.set(claim("c", devices, &json!({})));
    let asks = pod(cluster, &["c"]);
    let plugin = DynamicResources {
        filter_timeout: Some(timeout),
    };
    plugin.prepare(&asks, cluster);
    let PreFilter::Check(filter) = plugin.pre_filter(&asks, cluster) else {
        panic!("it is checked node by node")
    };
    let each = nodes.iter().map(|node| filter.check(cluster.find(node).unwrap()));
    each.map(|said| said.map_or_else(String::new, |said| said.reasons.join(", ")))
        .collect()
}

/// So many large devices, and a small one that is to be like them: every set of them would be tried.
fn endless(count: i64) -> Value {
    let (large, small) = (of_model("large"), of_model("small"));
    let requests = json!([
        with(exactly("r", count), "selectors", large),
        with(exactly("s", 1), "selectors", small)
    ]);
    json!({"requests": requests, "constraints": [{"matchAttribute": format!("{DRIVER}/model")}]})
}

#[test]
fn all_searches_of_a_decision_have_one_time() {
    let timed_out = "timed out trying to allocate devices";
    let mut cluster = machine(&[alike(100, "large"), alike(1, "small")].concat());
    let began = Instant::now();
    let nodes = [["a"; 20].as_slice(), &["b", "c"]].concat();
    let said = said(&mut cluster, &endless(20), Duration::from_millis(100), &nodes);
    assert_eq!(said[..20], [timed_out; 20]);
    assert_eq!(said[20..], [NONE; 2], "what is known at once is told also then");
    assert!(began.elapsed() < Duration::from_secs(2), "not so much for each node");
}

#[test]
fn what_is_not_there_is_not_searched_for() {
    let large = || with(exactly("r", 20), "selectors", of_model("large"));
    let one = |at| with(exactly(&format!("s{at}"), 1), "selectors", of_model("large"));
    let each: Vec<_> = (0..21).map(one).collect();
    let either = json!({"name": "t", "firstAvailable": [
        {"name": "x", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1, "selectors": of_model("x")},
        {"name": "y", "deviceClassName": "gpu", "allocationMode": "All", "selectors": of_model("y")}]});
    let admin = with(
        with(exactly("t", 1), "selectors", of_model("x")),
        "adminAccess",
        json!(true),
    );
    for (count, requests) in [
        (60, vec![large(), with(exactly("t", 1), "selectors", of_model("x"))]),
        (60, vec![large(), either]),
        (60, vec![large(), admin]),
        (20, each),
    ] {
        let mut cluster = machine(&alike(count, "large"));
        let said = said(
            &mut cluster,
            &json!({"requests": requests}),
            Duration::from_secs(60),
            &["a"],
        );
        assert_eq!(said, [NONE], "{requests:?}");
    }
}

#[test]
fn who_has_many_claims_does_no_harm() {
    const MANY: usize = 70_000;
    let admin = with(exactly("r", 1), "adminAccess", json!(true));
    for (count, devices, expected) in [(MANY, json!({}), 0), (MANY / 10, json!({"requests": [admin]}), 1)] {
        let mut cluster = machines();
        let names: Vec<_> = (0..count).map(|at| format!("c{at}")).collect();
        for name in &names {
            cluster.claims.set(claim(name, &devices, &json!({})));
        }
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let asks = pod(&mut cluster, &names);
        let plugin = DynamicResources::default();
        plugin.prepare(&asks, &mut cluster);
        let reserved = plugin.reserved(&asks, cluster.find("a").unwrap(), &cluster).unwrap();
        let devices = reserved
            .iter()
            .filter_map(|own| own.allocation.as_ref()?.devices.as_ref());
        let results: Vec<_> = devices.map(|own| own.results.iter().flatten().count()).collect();
        assert_eq!(results, vec![expected; count]);
    }
}

#[test]
fn a_claim_that_is_named_often_is_had_once() {
    let mut cluster = machines();
    cluster
        .claims
        .set(claim("c", &json!({"requests": [exactly("r", 1)]}), &json!({})));
    let claims: Vec<_> = (0..70_000)
        .map(|at| json!({"name": format!("{at}"), "resourceClaimName": "c"}))
        .collect();
    let pod = json!({"metadata": {"namespace": "d", "name": "p", "uid": "p"}, "spec": {"containers": [], "resourceClaims": claims}});
    let pod = PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins);
    assert_eq!(judge(&mut cluster, &pod), format!("a: r=a0; b: r=b0; c: {NONE}"));
}
