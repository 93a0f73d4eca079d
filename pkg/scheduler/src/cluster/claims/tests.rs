#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::cluster::Cluster;
use crate::pod::PodInfo;

fn slice(name: &str, place: &Value, pool: &str, generation: i64, count: i64, devices: &[&str]) -> Arc<ResourceSlice> {
    let devices: Vec<_> = devices.iter().map(|name| json!({"name": name})).collect();
    let mut slice = json!({"metadata": {"name": name}, "spec": {"driver": "d", "devices": devices,
        "pool": {"name": pool, "generation": generation, "resourceSliceCount": count}}});
    for (field, value) in place.as_object().unwrap() {
        slice["spec"][field] = value.clone();
    }
    Arc::new(serde_json::from_value(slice).unwrap())
}

fn claim(revision: u64, devices: &[&str]) -> Arc<ResourceClaim> {
    let results: Vec<_> = devices
        .iter()
        .map(|device| json!({"request": "r", "driver": "d", "pool": "p", "device": device, "adminAccess": device.starts_with("seen")}))
        .collect();
    let allocation = (!devices.is_empty()).then(|| json!({"devices": {"results": results}}));
    let claim = json!({"metadata": {"namespace": "n", "name": "c", "uid": "c", "resourceVersion": revision.to_string()},
        "spec": {}, "status": {"allocation": allocation}});
    Arc::new(serde_json::from_value(claim).unwrap())
}

/// The nodes a (zone x) and b (zone y).
fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for (name, zone) in [("a", "x"), ("b", "y")] {
        let node = json!({"metadata": {"name": name, "labels": {"zone": zone}}});
        cluster.set_node(&serde_json::from_value(node).unwrap());
    }
    cluster
}

/// What a node sees, as text: each pool with its devices.
fn seen(cluster: &Cluster, node: &str) -> String {
    let pools = cluster.claims.pools_of(cluster.find(node).unwrap());
    let pool = |pool: &NodePool<'_>| {
        let devices = pool.slices.iter().flat_map(|slice| slice.devices());
        let devices: Vec<_> = devices.map(|device| device.object.name.clone()).collect();
        format!("{} {:?} {}", pool.name, pool.state, devices.join(" "))
    };
    pools.iter().map(pool).collect::<Vec<_>>().join(", ")
}

/// What a and b see of the slices; nothing any more when these are gone.
fn expect(what: &str, slices: &[Arc<ResourceSlice>], expected: [&str; 2]) {
    let mut cluster = cluster();
    for slice in slices {
        cluster.claims.set_slice(slice);
    }
    assert_eq!(["a", "b"].map(|node| seen(&cluster, node)), expected, "{what}");
    for slice in slices {
        cluster.claims.remove_slice(slice.metadata.name.as_deref().unwrap());
    }
    assert_eq!(["a", "b"].map(|node| seen(&cluster, node)), ["", ""], "{what}");
}

#[test]
fn a_node_sees_the_pools_that_it_reaches() {
    let zone = json!({"key": "zone", "operator": "In", "values": ["x"]});
    let of_zone = json!({"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [zone]}]}});
    let counters = json!({"allNodes": true, "sharedCounters": [{"name": "c", "counters": {}}]});
    for (place, expected) in [
        (json!({"nodeName": "a"}), ["p Whole x", ""]),
        (json!({"allNodes": true}), ["p Whole x", "p Whole x"]),
        (of_zone, ["p Whole x", ""]),
        (json!({}), ["", ""]),
        (json!({"perDeviceNodeSelection": true}), ["", ""]),
        (counters, ["", ""]),
    ] {
        let slice = slice("s", &place, "p", 1, 1, &["x"]);
        expect(&place.to_string(), &[slice], expected);
    }
}

#[test]
fn a_pool_is_whole_when_all_of_its_newest_slices_are_there() {
    let (on_a, on_b, all) = (
        json!({"nodeName": "a"}),
        json!({"nodeName": "b"}),
        json!({"allNodes": true}),
    );
    let x = |place: &Value, generation, count| slice("s", place, "p", generation, count, &["x"]);
    let y = |place: &Value, generation, count| slice("t", place, "p", generation, count, &["y"]);
    let again = |place: &Value| slice("t", place, "p", 1, 2, &["x"]);
    for (what, slices, expected) in [
        ("one of two", vec![x(&on_a, 1, 2)], ["p Incomplete x", ""]),
        (
            "own and everybody's",
            vec![x(&on_a, 1, 2), y(&all, 1, 2)],
            ["p Whole x y", "p Whole y"],
        ),
        ("an older one", vec![x(&on_a, 1, 1), y(&on_a, 2, 1)], ["p Whole y", ""]),
        (
            "newer ones that may be on their way here",
            vec![x(&on_a, 1, 2), y(&on_b, 2, 2)],
            ["", "p Incomplete y"],
        ),
        (
            "a device twice",
            vec![x(&on_a, 1, 2), again(&on_a)],
            ["p Invalid x x", ""],
        ),
        (
            "a device twice, on two nodes",
            vec![x(&on_a, 1, 2), again(&on_b)],
            ["p Whole x", "p Whole x"],
        ),
    ] {
        expect(what, &slices, expected);
    }
}

#[test]
fn a_slice_that_changes_moves() {
    let mut cluster = cluster();
    cluster
        .claims
        .set_slice(&slice("s", &json!({"nodeName": "a"}), "p", 1, 1, &["x"]));
    cluster
        .claims
        .set_slice(&slice("s", &json!({"nodeName": "b"}), "q", 1, 1, &["x", "y"]));
    assert_eq!(["a", "b"].map(|node| seen(&cluster, node)), ["", "q Whole x y"]);
}

#[test]
fn devices_are_taken_by_those_who_have_them() {
    let mut cluster = cluster();
    let place = json!({"nodeName": "a"});
    cluster
        .claims
        .set_slice(&slice("s", &place, "p", 1, 1, &["x", "y", "seen"]));
    let taken = |cluster: &Cluster| -> Vec<String> {
        let pools = cluster.claims.pools_of(cluster.find("a").unwrap());
        let devices = pools
            .iter()
            .flat_map(|pool| &pool.slices)
            .flat_map(|slice| slice.devices());
        let taken = devices.filter(|device| cluster.claims.is_taken(device.id));
        taken.map(|device| device.object.name.clone()).collect()
    };
    cluster.claims.set(claim(3, &["x", "seen"]));
    assert_eq!(taken(&cluster), ["x"], "administrators take nothing away");
    cluster.claims.set(claim(2, &[]));
    assert_eq!(taken(&cluster), ["x"], "older news");
    // Published anew, they are who they were.
    cluster
        .claims
        .set_slice(&slice("s", &place, "p", 2, 1, &["x", "y", "z"]));
    assert_eq!(taken(&cluster), ["x"]);
    cluster.claims.set(claim(4, &["y"]));
    assert_eq!(taken(&cluster), ["y"]);
    cluster.claims.set(claim(5, &[]));
    assert!(taken(&cluster).is_empty());
    cluster.claims.set(claim(6, &["x"]));
    cluster.claims.remove(&claim(6, &[]));
    assert!(taken(&cluster).is_empty());
}

#[test]
fn what_is_reserved_is_taken_until_events_tell_of_it() {
    for (what, written, event, settled, in_the_end) in [
        ("not written", None, None, false, false),
        ("written, but not told", Some(2), None, false, true),
        ("told", Some(2), Some(claim(2, &["x"])), true, true),
        ("given back meanwhile", Some(2), Some(claim(3, &[])), true, false),
        ("told of what was before", Some(3), Some(claim(2, &[])), false, true),
    ] {
        let mut cluster = cluster();
        cluster
            .claims
            .set_slice(&slice("s", &json!({"nodeName": "a"}), "p", 1, 1, &["x"]));
        let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": []}});
        let pod = PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins);
        let (claims, before) = (&mut cluster.claims, claim(1, &[]));
        claims.set(before.clone());
        let given = allocation(&claim(2, &["x"])).cloned();
        let reserved = Reserved::new(before.clone(), given, false);
        let device = claims.names.hold(&names::name("d", "p", "x"));
        let held = Reserved::new(claim(1, &["held"]), None, true);
        claims.reserve(&pod, vec![held, reserved.clone()]);
        assert!(claims.is_pending(&before) && claims.is_taken(device), "{what}");
        if let Some(revision) = written {
            reserved.written.set(claim(revision, &["x"])).unwrap();
        }
        if let Some(event) = event {
            claims.set(event);
        }
        claims.prepare(&[], None);
        assert_eq!(!claims.is_pending(&before), settled, "{what}");
        assert_eq!(claims.is_taken(device), !settled || in_the_end, "{what}");
        claims.unreserve(&pod);
        assert_eq!(claims.is_taken(device), in_the_end, "{what}");
        assert!(!claims.is_pending(&before), "{what}");
    }
}
