//! What is waited for after a decision. What decisions say is tested with the plugins.
#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::plugins::testing::{World, at};

const SELECTED: &str = "volume.kubernetes.io/selected-node";

/// A pod that goes to node `n`: its claim `a` gets volume `v`, for `b` one is made.
fn decided() -> (World, Arc<crate::pod::PodInfo>) {
    let mut world = World::new(&["n"]);
    world.class("c", &json!({}));
    world.volume("v", &json!({}));
    world.claim("a", &json!({}));
    world.claim("b", &json!({}));
    let pod = world.pod_with("p", &["a", "b"]);
    world.place(&pod, "n");
    let parts = vec![("d/a".into(), Some("v".into())), ("d/b".into(), None)];
    world.cluster.volumes.assume(&pod.uid, &"n".into(), parts);
    (world, pod)
}

fn claimed() -> Value {
    json!({"spec": {"claimRef": {"namespace": "d", "name": "a", "uid": "a"}}})
}

fn selected(node: &str) -> Value {
    json!({"metadata": {"annotations": {SELECTED: node}}})
}

fn made(volume: &str) -> Value {
    let annotations = json!({SELECTED: "n", "pv.kubernetes.io/bind-completed": "yes"});
    json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": volume}})
}

fn written(world: &mut World) {
    world.volume("v", &claimed());
    world.claim("b", &selected("n"));
}

#[test]
fn a_binding_ends_when_all_claims_have_their_volumes() {
    let (mut world, _) = decided();
    let (_, ended) = world.cluster.volumes.binding_of("p").unwrap();
    assert_eq!(world.cluster.volumes.waiting(), 0, "it is being written");
    written(&mut world);
    assert_eq!(world.cluster.volumes.waiting(), 1);
    world.bound("a", "v", &json!({}));
    assert_eq!(*ended.borrow(), None);
    // The claim is told of before its volume is.
    world.claim("b", &made("w"));
    assert_eq!(*ended.borrow(), None);
    world.volume(
        "w",
        &json!({"spec": {"claimRef": {"namespace": "d", "name": "b", "uid": "b"}}}),
    );
    assert_eq!(*ended.borrow(), Some(Ok(())));
    assert_eq!(world.cluster.volumes.waiting(), 0);
    assert!(world.cluster.volumes.binding_of("p").is_none());
}

#[test]
fn what_is_written_already_is_only_waited_for() {
    let (mut world, _) = decided();
    world.claim("b", &selected("n"));
    let pod = world.pod_with("q", &["b"]);
    let node = world.cluster.find("n").unwrap().id;
    world.cluster.assume(&pod.uid, node, vec![("d/b".into(), None)]);
    assert_eq!(world.cluster.volumes.waiting(), 1);
    let (parts, ended) = world.cluster.volumes.binding_of("q").unwrap();
    assert_eq!((&parts[0].before, &*ended.borrow()), (&None, &None));
}

#[test]
fn a_binding_that_never_will_be_is_told_of() {
    type Change = fn(&mut World);
    let rows: [(Change, &str); 9] = [
        (
            |world| {
                let v = world.raw(json!({"metadata": {"name": "v"}}), &json!({}));
                world.cluster.remove_volume(&v);
            },
            "failed to check binding: persistentvolumes \"v\" not found",
        ),
        (|world| world.volume("v", &json!({})), "ClaimRef got reset for pv \"v\""),
        (
            |world| world.volume("v", &crate::plugins::testing::merged(claimed(), &at("host", &["m"]))),
            "pv \"v\" node affinity doesn't match node \"n\": no matching NodeSelectorTerms",
        ),
        (
            |world| {
                let a = world.raw(json!({"metadata": {"name": "a", "namespace": "d"}}), &json!({}));
                world.cluster.remove_claim(&a);
            },
            "failed to check binding: persistentvolumeclaims \"d/a\" not found",
        ),
        (
            |world| {
                let b = world.raw(json!({"metadata": {"name": "b", "namespace": "d"}}), &json!({}));
                world.cluster.remove_claim(&b);
            },
            "failed to check provisioning pvc: persistentvolumeclaims \"d/b\" not found",
        ),
        (
            |world| world.claim("b", &json!({})),
            "provisioning failed for PVC \"b\"",
        ),
        (
            |world| world.claim("b", &selected("m")),
            "provisioning failed for PVC \"b\"",
        ),
        (
            |world| drop(world.cluster.remove_node("n")),
            "failed to get node \"n\": node \"n\" not found",
        ),
        (
            |world| drop(world.cluster.remove("p")),
            "pod does not exist any more: pod \"p\" not found",
        ),
    ];
    for (change, expected) in rows {
        let (mut world, _) = decided();
        let (_, ended) = world.cluster.volumes.binding_of("p").unwrap();
        written(&mut world);
        world.bound("a", "v", &json!({}));
        assert_eq!(*ended.borrow(), None, "{expected}");
        change(&mut world);
        assert_eq!(*ended.borrow(), Some(Err(expected.to_owned())));
        world.cluster.volumes.forget_binding("p", None);
        assert_eq!(world.cluster.volumes.waiting(), 0, "{expected}");
    }
}

#[test]
fn a_node_that_changes_is_looked_at_again() {
    let (mut world, _) = decided();
    let (_, ended) = world.cluster.volumes.binding_of("p").unwrap();
    world.volume("v", &crate::plugins::testing::merged(claimed(), &at("zone", &["z"])));
    assert!(matches!(&*ended.borrow(), Some(Err(_))));
    let (mut world, _) = decided();
    let (_, ended) = world.cluster.volumes.binding_of("p").unwrap();
    world.node("n", &json!({"zone": "z"}));
    world.volume("v", &crate::plugins::testing::merged(claimed(), &at("zone", &["z"])));
    assert_eq!(*ended.borrow(), None);
    world.node("n", &json!({"zone": "y"}));
    assert!(matches!(&*ended.borrow(), Some(Err(_))));
}

#[test]
fn what_goes_leaves_nothing_behind() {
    let (mut world, _) = decided();
    world.cluster.remove("p");
    for claim in ["a", "b"] {
        let raw = world.raw(json!({"metadata": {"name": claim, "namespace": "d"}}), &json!({}));
        world.cluster.remove_claim(&raw);
    }
    for name in ["v", "c"] {
        let raw = world.raw(json!({"metadata": {"name": name}}), &json!({}));
        world.cluster.remove_volume(&raw);
        world.cluster.remove_class(&raw);
    }
    world.cluster.count_attached();
    // The node stays.
    world.cluster.volumes.places = Places::default();
    let left = format!("{:?}", world.cluster.volumes);
    assert_eq!(left, format!("{:?}", Volumes::default()));
}
