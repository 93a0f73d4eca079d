//! What is known of nodes as they and their pods come, change and go.
#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;

fn pod(cluster: &mut Cluster, uid: &str) -> Arc<PodInfo> {
    let pod = json!({"metadata": {"uid": uid}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
    Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut cluster.kins))
}

fn node(name: &str, zone: &str, image: &str) -> Node {
    sized(name, zone, image, 7)
}

fn sized(name: &str, zone: &str, image: &str, size: i64) -> Node {
    let labels = json!({ZONE: zone});
    let images = json!([{"names": [image], "sizeBytes": size}]);
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "status": {"images": images}})).unwrap()
}

#[test]
fn pods_count_on_their_node_once_and_survive_its_removal() {
    let mut cluster = Cluster::default();
    cluster.set_node(&node("a", "z", "i"));
    cluster.set_node(&node("b", "z", "i"));
    for name in ["a", "a", "b"] {
        let pod = pod(&mut cluster, "1");
        cluster.place(pod, name);
    }
    let cpu = |cluster: &Cluster, name: &str| cluster.find(name).unwrap().requested.milli_cpu;
    assert_eq!((cpu(&cluster, "a"), cpu(&cluster, "b")), (0, 1000));
    cluster.remove_node("b");
    assert_eq!(cpu(&cluster, "b"), 1000);
    cluster.settle();
    assert_eq!(cluster.order().len(), 1);
    cluster.remove_node("a");
    assert!(cluster.find("a").is_none());
    assert!(cluster.remove("1").is_some());
    assert!(cluster.find("b").is_none() && cluster.remove("1").is_none());
}

#[test]
fn a_pod_that_changes_is_counted_anew_only_if_it_counts_otherwise() {
    let mut cluster = Cluster::default();
    cluster.set_node(&node("a", "z", "i"));
    let other = pod(&mut cluster, "other");
    let plain = json!({"metadata": {"uid": "1"}, "spec": {"containers": [{"name": "c"}]}});
    for (at, value, in_place) in [
        ("/metadata/annotations", json!({"a": "b"}), true),
        (
            "/status",
            json!({"phase": "Running", "startTime": "2020-01-01T00:00:00Z"}),
            true,
        ),
        ("/metadata/labels", json!({"a": "b"}), false),
        ("/metadata/deletionTimestamp", json!("2020-01-01T00:00:00Z"), false),
        ("/spec/overhead", json!({"cpu": "1"}), false),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 1, "hostPort": 1}]),
            false,
        ),
        (
            "/spec/volumes",
            json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]),
            false,
        ),
        (
            "/spec/affinity",
            json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "k"}]}}),
            false,
        ),
    ] {
        let mut changed = plain.clone();
        let (parent, key) = at.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[key] = value;
        let info = |cluster: &mut Cluster, pod: &serde_json::Value| {
            Arc::new(PodInfo::new(
                &serde_json::from_value(pod.clone()).unwrap(),
                &mut cluster.kins,
            ))
        };
        let (before, now) = (info(&mut cluster, &plain), info(&mut cluster, &changed));
        cluster.place(before.clone(), "a");
        cluster.place(other.clone(), "a");
        assert!(Arc::ptr_eq(&cluster.place(now.clone(), "a").unwrap(), &before));
        let pods = &cluster.find("a").unwrap().pods;
        assert!(pods.iter().any(|own| Arc::ptr_eq(own, &now)));
        assert_eq!(*pods[0].uid == *"1", in_place, "{at}");
        cluster.remove("1");
        cluster.remove("other");
    }
}

#[test]
fn nodes_are_looked_at_zone_by_zone_in_turn() {
    let mut cluster = Cluster::default();
    for (name, zone) in [
        ("a1", "a"),
        ("a2", "a"),
        ("a3", "a"),
        ("b1", "b"),
        ("c1", "c"),
        ("c2", "c"),
    ] {
        cluster.set_node(&node(name, zone, "i"));
    }
    cluster.settle();
    let names: Vec<_> = cluster.order().iter().map(|id| &*cluster.node(*id).name).collect();
    assert_eq!(names, ["a1", "b1", "c1", "a2", "c2", "a3"]);
    // A change of zone moves it.
    cluster.set_node(&node("a3", "b", "i"));
    cluster.settle();
    let names: Vec<_> = cluster.order().iter().map(|id| &*cluster.node(*id).name).collect();
    assert_eq!(names, ["a1", "a3", "c1", "a2", "b1", "c2"]);
}

#[test]
fn images_are_counted_by_the_nodes_that_have_them() {
    let mut cluster = Cluster::default();
    cluster.set_node(&node("a", "z", "i"));
    cluster.set_node(&node("b", "z", "i"));
    cluster.set_node(&node("b", "z", "i"));
    let (id, size, nodes) = cluster.images().find("i").unwrap();
    assert_eq!((size, nodes), (7, 2));
    assert_eq!(*cluster.find("b").unwrap().facts.images, [id]);
    cluster.set_node(&node("b", "z", "j"));
    cluster.remove_node("a");
    assert_eq!(cluster.images().find("i"), None);
}

#[test]
fn an_image_has_the_size_that_the_first_of_its_nodes_told() {
    let mut cluster = Cluster::default();
    for (name, size, expected) in [("a", 7, 7), ("a", 8, 8), ("b", 9, 8), ("a", 7, 8)] {
        cluster.set_node(&sized(name, "z", "i", size));
        let (_, known, _) = cluster.images().find("i").unwrap();
        assert_eq!(known, expected, "{name} {size}");
    }
}
