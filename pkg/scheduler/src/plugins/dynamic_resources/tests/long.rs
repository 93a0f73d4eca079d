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

const TIMED_OUT: &str = "timed out trying to allocate devices";

/// What is said of each of these nodes for a pod with one claim, if there is so much time.
fn said(cluster: &mut Cluster, devices: &Value, timeout: Duration, nodes: &[&str]) -> Vec<String> {
    cluster.claims.set(claim("c", devices, &json!({})));
    let asks = pod(cluster, &["c"]);
    prepare(&asks, cluster, timeout);
    said_now(&asks, cluster, nodes)
}

fn prepare(asks: &PodInfo, cluster: &mut Cluster, timeout: Duration) {
    let plugin = DynamicResources {
        filter_timeout: Some(timeout),
    };
    plugin.prepare(asks, cluster);
}

/// The same in a decision that has begun.
fn said_now(asks: &PodInfo, cluster: &Cluster, nodes: &[&str]) -> Vec<String> {
    let plugin = DynamicResources::default();
    let PreFilter::Check(filter) = plugin.pre_filter(asks, cluster) else {
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
    let mut cluster = machine(&[alike(100, "large"), alike(1, "small")].concat());
    let began = Instant::now();
    let nodes = [["a"; 20].as_slice(), &["b", "c"]].concat();
    let said = said(&mut cluster, &endless(20), Duration::from_millis(100), &nodes);
    assert_eq!(said[..21], [TIMED_OUT; 21]);
    assert_eq!(said[21], NONE, "what is known at once is told also then");
    assert!(began.elapsed() < Duration::from_secs(2), "not so much for each node");
}

/// So many choices of a request, each of all devices for which an expression of its own holds.
fn choices(name: &str, count: usize, expression: impl Fn(usize) -> String) -> Value {
    let choice = |at: usize| json!({"name": format!("c{at}"), "deviceClassName": "gpu", "allocationMode": "All", "selectors": selecting(&expression(at))});
    let choices: Vec<_> = (0..count).map(choice).collect();
    json!({"name": name, "firstAvailable": choices})
}

/// It takes a moment to say that a device is not right.
fn slow(at: usize) -> String {
    let list = format!("[{}]", vec!["1"; 200].join(","));
    format!("{list}.map(x, {list}.exists(y, y + x == {at} - 9)).exists(z, z)")
}

#[test]
fn what_takes_long_ends_wherever_it_takes_it() {
    let slow_all = json!({"requests": [choices("r", 200, slow)]});
    // The same of a request for one device, which the second expression lets nobody have.
    let slow_count = with(exactly("r", 1), "selectors", selecting(&slow(0)));
    let slow_count = json!({"requests": [with(exactly("q", 2), "selectors", of_model("large")), slow_count]});
    // No look at a device takes long, but there are 4^14 ways to find out that the last request gets nothing.
    let one_of_four = |at: usize| choices(&format!("r{at}"), 4, |choice| of_bus(4 * at + choice));
    let ways = (0..14)
        .map(one_of_four)
        .chain([choices("none", 1, |_| "false".to_owned())]);
    let ways = json!({"requests": ways.collect::<Vec<_>>()});
    for (count, devices, time) in [(64, slow_all, 100), (600, slow_count, 100), (56, ways, 1000)] {
        let mut cluster = machine(&alike(count, "large"));
        let (began, time) = (Instant::now(), Duration::from_millis(time));
        let said = said(&mut cluster, &devices, time, &["a", "b"]);
        assert_eq!(said, [TIMED_OUT; 2], "{count}");
        assert!(began.elapsed() < time + Duration::from_secs(1), "{count}");
    }
}

fn of_bus(bus: usize) -> String {
    format!("device.attributes[\"{DRIVER}\"].bus == {bus}")
}

#[test]
fn short_searches_take_from_the_same_time() {
    let mut cluster = machines();
    let devices = json!({"requests": [exactly("r", 1)]});
    cluster.claims.set(claim("c", &devices, &json!({})));
    let asks = pod(&mut cluster, &["c"]);
    prepare(&asks, &mut cluster, Duration::from_millis(1));
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(said_now(&asks, &cluster, &["a", "b"]), [TIMED_OUT; 2]);
}

#[test]
fn what_was_found_is_not_searched_for_again() {
    let mut cluster = machines();
    let devices = json!({"requests": [exactly("r", 1)]});
    cluster.claims.set(claim("c", &devices, &json!({})));
    let asks = pod(&mut cluster, &["c"]);
    prepare(&asks, &mut cluster, Duration::from_millis(500));
    assert_eq!(said_now(&asks, &cluster, &["a"]), [""]);
    std::thread::sleep(Duration::from_millis(510));
    assert_eq!(said_now(&asks, &cluster, &["b"]), [TIMED_OUT], "the time is over");
    assert_eq!(said_now(&asks, &cluster, &["a"]), [""]);
    let node = cluster.find("a").unwrap();
    let reserved = reserved(&asks, node, &cluster.claims).unwrap();
    assert!(reserved[0].allocation.is_some());
    assert!(super::reserved(&asks, cluster.find("b").unwrap(), &cluster.claims).is_err());
}

/// Where the first nodes take all the time, the others are looked at the next time.
#[test]
fn a_decision_without_time_is_unfinished_and_the_next_begins_further_on() {
    let mut cluster = machine(&[alike(100, "large"), alike(1, "small")].concat());
    cluster.claims.set(claim("c", &endless(20), &json!({})));
    let asks = pod(&mut cluster, &["c"]);
    let mut profile = Profile::default();
    let row = profile.rows.iter_mut().find(|row| row.plugin.name() == NAME).unwrap();
    row.plugin = Box::new(DynamicResources {
        filter_timeout: Some(Duration::from_millis(200)),
    });
    let mut start = 0;
    for (expected, next_start) in [(2, 1), (1, 1)] {
        crate::cycle::prepare(&asks, &profile, &mut cluster);
        let decision = decide(&asks, &profile, &cluster, start, |_| 0);
        let refusal = decision.node.unwrap_err();
        let says = format!("{expected} {TIMED_OUT}");
        assert!(
            refusal.unfinished && refusal.message.contains(&says),
            "{}",
            refusal.message
        );
        assert_eq!(decision.next_start, next_start);
        start = decision.next_start;
    }
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
        let reserved = reserved(&asks, cluster.find("a").unwrap(), &cluster.claims).unwrap();
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
