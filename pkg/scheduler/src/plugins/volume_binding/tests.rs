#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::framework::Plugin;
use crate::plugins::testing::{World, at, merged};

const NODE: &str = "1 node(s) didn't match PersistentVolume's node affinity";
const NOTHING: &str = "1 node(s) didn't find available persistent volumes to bind";
const ROOM: &str = "1 node(s) did not have enough free storage";
const GONE: &str = "1 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

fn none() -> Value {
    json!({})
}

#[test]
fn a_claim_that_no_pod_may_use_is_told_of() {
    let immediate = "pod has unbound immediate PersistentVolumeClaims";
    for (more, expected) in [
        (none(), None),
        (json!({"spec": {"storageClassName": "immediate"}}), Some(immediate)),
        (json!({"spec": {"storageClassName": "unknown"}}), Some(immediate)),
        (json!({"spec": {"storageClassName": null}}), Some(immediate)),
        (json!({"spec": {"volumeName": "v"}}), Some(immediate)),
        (
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            Some("persistentvolumeclaim \"a\" is being deleted"),
        ),
        (
            json!({"status": {"phase": "Lost"}, "spec": {"volumeName": "v"}}),
            Some("persistentvolumeclaim \"a\" bound to non-existent persistentvolume \"v\""),
        ),
        (
            json!({"metadata": {"name": "b"}}),
            Some("persistentvolumeclaim \"a\" not found"),
        ),
    ] {
        let mut world = World::new(&["n"]);
        world.class("c", &none());
        world.class("immediate", &json!({"volumeBindingMode": "Immediate"}));
        world.claim("a", &more);
        let pod = world.pod_with("p", &["a"]);
        assert_eq!(world.decide(&pod).err().as_deref(), expected, "{more}");
    }
}

#[test]
fn an_ephemeral_claim_is_its_pods() {
    let mut world = World::new(&["n"]);
    world.class("c", &none());
    let pod = world.pod("p", &json!([{"ephemeral": {}}]));
    let waits = "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-v0\"";
    assert_eq!(world.decide(&pod).unwrap_err(), waits);
    world.claim("p-v0", &none());
    let not_its = "PVC d/p-v0 was not created for pod d/p (pod is not owner)";
    assert_eq!(world.decide(&pod).unwrap_err(), not_its);
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p", "controller": true});
    world.claim("p-v0", &json!({"metadata": {"ownerReferences": [owner]}}));
    assert_eq!(world.decide(&pod).unwrap(), "n");
}

#[test]
fn a_bound_volume_has_to_be_near() {
    for (volume, labels, migrated, expected) in [
        (none(), none(), "", None),
        (at("host", &["n"]), none(), "", None),
        (at("host", &["m"]), none(), "", Some(NODE)),
        (json!({"metadata": {"name": "other"}}), none(), "", Some(GONE)),
        // Where its driver is at work, it is found by the driver's label.
        (
            at("topology.kubernetes.io/zone", &["z"]),
            json!({"topology.gke.io/zone": "z"}),
            "kubernetes.io/gce-pd",
            None,
        ),
        (
            at("topology.kubernetes.io/zone", &["z"]),
            json!({"topology.gke.io/zone": "z"}),
            "",
            Some(NODE),
        ),
    ] {
        let mut world = World::default();
        world.node("n", &labels);
        let annotations = json!({"storage.alpha.kubernetes.io/migrated-plugins": migrated});
        world.drivers("n", &[], &json!({"metadata": {"annotations": annotations}}));
        world.bound("a", "v", &none());
        let disk = json!({"spec": {"gcePersistentDisk": {"pdName": "d"}}, "status": {"phase": "Bound"}});
        world.volume("v", &merged(disk, &volume));
        let pod = world.pod_with("p", &["a"]);
        // VolumeZone does not know of a volume that is missing either.
        let said = world.decide(&pod).err();
        let expected = match expected {
            Some(GONE) => Some("persistentvolume \"v\" not found"),
            other => other,
        };
        assert_eq!(said.as_deref(), expected, "{volume} {labels}");
    }
}

#[test]
fn a_volume_that_is_missing_is_told_of_by_the_node() {
    let mut world = World::new(&["n"]);
    world.bound("a", "v", &none());
    world.bound("b", "w", &none());
    world.volume("w", &at("host", &["m"]));
    for (claims, expected) in [(["a", "b"], GONE), (["b", "a"], NODE)] {
        let pod = world.pod_with("p", &claims);
        let claims = Claims::of(&pod, &world.cluster).unwrap().unwrap();
        let said = claims.check(world.cluster.find("n").unwrap()).unwrap();
        assert!(expected.ends_with(&*said.reasons[0]), "{said:?}");
        assert!(said.unresolvable);
    }
}

/// What one claim of a class without provisioner gets of some volumes, `v0` and so on.
fn gets(claim: &Value, volumes: &[Value], expected: Option<&str>) {
    let mut world = World::new(&["n"]);
    world.class("c", &json!({"provisioner": "kubernetes.io/no-provisioner"}));
    world.claim("a", claim);
    for (at, volume) in volumes.iter().enumerate() {
        world.volume(&format!("v{at}"), volume);
    }
    let pod = world.pod_with("p", &["a"]);
    let decided = decided(&pod, world.cluster.find("n").unwrap(), &world.cluster);
    let got = decided.as_ref().ok().map(|all| &**all[0].1.as_ref().unwrap());
    assert_eq!(got, expected, "{claim} {volumes:?}");
    let said = world.decide(&pod).err();
    assert_eq!(
        said.as_deref(),
        expected.is_none().then_some(NOTHING),
        "{claim} {volumes:?}"
    );
}

fn size(size: &str) -> Value {
    json!({"spec": {"capacity": {"storage": size}}})
}

#[test]
fn the_smallest_volume_that_does_is_taken() {
    let spec = |spec: Value| json!({"spec": spec});
    let ssd = json!({"metadata": {"labels": {"disk": "ssd"}}});
    let block = spec(json!({"volumeMode": "Block"}));
    let many = spec(json!({"accessModes": ["ReadWriteMany"]}));
    let both = spec(json!({"accessModes": ["ReadWriteMany", "ReadWriteOnce"]}));
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let wants_ssd = spec(json!({"selector": {"matchLabels": {"disk": "ssd"}}}));
    for (claim, volumes, expected) in [
        (none(), vec![], None),
        (none(), vec![none()], Some("v0")),
        (none(), vec![size("9"), size("6"), size("4"), size("7")], Some("v1")),
        (none(), vec![json!({"status": {"phase": "Released"}})], None),
        (none(), vec![going], None),
        (none(), vec![spec(json!({"storageClassName": "d"}))], None),
        (none(), vec![block.clone()], None),
        (block.clone(), vec![none(), block], Some("v1")),
        (many, vec![none()], None),
        (none(), vec![both], Some("v0")),
        (spec(json!({"volumeAttributesClassName": "g"})), vec![none()], None),
        (wants_ssd, vec![none(), ssd], Some("v1")),
        (none(), vec![at("host", &["m"])], None),
        (none(), vec![at("host", &["m", "n"])], Some("v0")),
        (
            none(),
            vec![merged(size("9"), &at("host", &["n"])), size("6")],
            Some("v1"),
        ),
    ] {
        gets(&claim, &volumes, expected);
    }
}

#[test]
fn a_volume_that_names_the_claim_is_the_only_one() {
    let own = |uid: &str| json!({"spec": {"claimRef": {"namespace": "d", "name": "a", "uid": uid}}});
    let many = json!({"spec": {"accessModes": ["ReadWriteMany"]}});
    for (claim, volumes, expected) in [
        (none(), vec![own("other")], None),
        (none(), vec![none(), own("a")], Some("v1")),
        (none(), vec![none(), own("")], Some("v1")),
        // Its access modes are its user's business.
        (many, vec![own("a")], Some("v0")),
        (none(), vec![none(), merged(own("a"), &at("host", &["m"]))], None),
        (none(), vec![none(), merged(own("a"), &size("4"))], Some("v0")),
    ] {
        gets(&claim, &volumes, expected);
    }
}

#[test]
fn claims_of_a_pod_share_what_there_is_the_smallest_first() {
    let mut world = World::new(&["n"]);
    world.class("c", &json!({"provisioner": "kubernetes.io/no-provisioner"}));
    for (claim, size) in [("large", "7"), ("small", "3")] {
        world.claim(claim, &json!({"spec": {"resources": {"requests": {"storage": size}}}}));
    }
    world.volume("seven", &json!({"spec": {"capacity": {"storage": "7"}}}));
    let pod = world.pod_with("p", &["large", "small", "large"]);
    assert_eq!(world.decide(&pod).unwrap_err(), NOTHING);
    world.volume("three", &json!({"spec": {"capacity": {"storage": "3"}}}));
    let claims = Claims::of(&pod, &world.cluster).unwrap().unwrap();
    let decided = claims.on(world.cluster.find("n").unwrap()).unwrap();
    let decided: Vec<_> = decided
        .iter()
        .map(|(claim, volume)| (*claim, &**volume.unwrap()))
        .collect();
    assert_eq!(decided, [("d/small", "three"), ("d/large", "seven")]);
}

#[test]
fn a_volume_is_made_where_class_and_claim_allow() {
    let zone =
        |zone: &str| json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": [zone]}]}]});
    let selected = |node: &str| json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": node}}});
    for (class, claim, expected) in [
        (none(), none(), None),
        (
            json!({"provisioner": "kubernetes.io/no-provisioner"}),
            none(),
            Some(NOTHING),
        ),
        (zone("a"), none(), None),
        (zone("b"), none(), Some(NOTHING)),
        (none(), selected("n"), None),
        (none(), selected("m"), Some(NOTHING)),
    ] {
        let mut world = World::default();
        world.node("n", &json!({"zone": "a"}));
        world.class("c", &class);
        world.claim("a", &claim);
        let pod = world.pod_with("p", &["a"]);
        assert_eq!(world.decide(&pod).err().as_deref(), expected, "{class} {claim}");
    }
}

#[test]
fn a_volume_is_made_where_there_is_room() {
    let tracked = json!({"spec": {"storageCapacity": true}});
    let reach = json!({"matchLabels": {"zone": "a"}});
    let room = |class: &str, size: &str| json!({"storageClassName": class, "capacity": size, "nodeTopology": reach});
    let any_size = json!({"spec": {"resources": null}});
    let other = merged(json!({"metadata": {"name": "other"}}), &tracked);
    for (claim, driver, room, expected) in [
        (none(), tracked.clone(), vec![], Some(ROOM)),
        (
            none(),
            tracked.clone(),
            vec![room("c", "4"), room("d", "9")],
            Some(ROOM),
        ),
        (none(), tracked.clone(), vec![room("c", "4"), room("c", "5")], None),
        (any_size, tracked, vec![], None),
        (none(), json!({"spec": {"storageCapacity": false}}), vec![], None),
        (none(), other, vec![], None),
    ] {
        let mut world = World::default();
        world.node("n", &json!({"zone": "a"}));
        world.class("c", &none());
        world.claim("a", &claim);
        let raw = world.raw(json!({"metadata": {"name": "d"}}), &driver);
        world.cluster.volumes.set_driver(&raw);
        for (at, room) in room.iter().enumerate() {
            let raw = world.raw(json!({"metadata": {"name": at.to_string(), "namespace": "d"}}), room);
            world.cluster.volumes.set_capacity(&raw);
        }
        let pod = world.pod_with("p", &["a"]);
        assert_eq!(
            world.decide(&pod).err().as_deref(),
            expected,
            "{claim} {driver} {room:?}"
        );
    }
}

fn reserve(world: &mut World, pod: &PodInfo) -> bool {
    let node = world.cluster.find("n").unwrap().id;
    VolumeBinding::default().reserve(pod, node, &mut world.cluster).is_ok()
}

#[test]
fn what_is_decided_counts_for_the_next_until_it_is_given_back() {
    let mut world = World::new(&["n", "m"]);
    world.class("c", &json!({"provisioner": "kubernetes.io/no-provisioner"}));
    world.class("made", &none());
    world.volume("v", &at("host", &["n"]));
    for claim in ["a", "b"] {
        world.claim(claim, &none());
    }
    world.claim("m", &json!({"spec": {"storageClassName": "made"}}));
    let [first, second, made] = [("1", "a"), ("2", "b"), ("3", "m")].map(|(pod, claim)| world.pod_with(pod, &[claim]));
    assert!(reserve(&mut world, &first));
    let nothing = NOTHING.replace('1', "2");
    assert_eq!(world.decide(&second).unwrap_err(), nothing);
    assert!(!reserve(&mut world, &second));
    assert_eq!(world.decide(&first).unwrap(), "n", "it is its own");
    VolumeBinding::default().unreserve(&first, &mut world.cluster);
    assert_eq!(world.decide(&second).unwrap(), "n");
    // A claim that is to have its volume made for a node goes nowhere else.
    assert!(reserve(&mut world, &made));
    assert_eq!(world.cluster.volumes.claim("d/m").unwrap().node(), Some("n"));
    VolumeBinding::default().unreserve(&made, &mut world.cluster);
    assert_eq!(world.cluster.volumes.claim("d/m").unwrap().node(), None);
}

#[test]
fn what_changed_meanwhile_is_not_given_back() {
    let mut world = World::new(&["n"]);
    world.class("c", &none());
    world.volume("v", &none());
    world.claim("a", &none());
    let pod = world.pod_with("p", &["a"]);
    assert!(reserve(&mut world, &pod));
    world.volume(
        "v",
        &json!({"spec": {"claimRef": {"namespace": "d", "name": "a", "uid": "a"}}}),
    );
    VolumeBinding::default().unreserve(&pod, &mut world.cluster);
    let claim = world.cluster.volumes.claim("d/a").unwrap();
    assert!(world.cluster.volumes.volume("v").unwrap().is_for("d/a", claim));
}

#[test]
fn each_decision_is_written_on_what_it_saw() {
    let mut world = World::new(&["n"]);
    world.class("c", &none());
    world.volume("v", &none());
    world.volume("w", &json!({"spec": {"claimRef": {"namespace": "d", "name": "own"}}}));
    for claim in ["a", "b", "own"] {
        world.claim(claim, &none());
    }
    let node = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n"}}});
    world.claim("selected", &node);
    let pod = world.pod_with("p", &["a", "b", "own", "selected"]);
    assert!(reserve(&mut world, &pod));
    let (parts, _) = world.cluster.volumes.binding_of("p").unwrap();
    let writes = writes::writes(parts, "n", &world.cluster.volumes);
    let text = format!("{writes:#?}");
    assert_eq!(writes.len(), 3, "{text}");
    let patches = serde_json::to_string(&writes.iter().map(writes::Write::patch).collect::<Vec<_>>()).unwrap();
    for part in [
        r#""annotations":{"pv.kubernetes.io/bound-by-controller":"yes"},"resourceVersion":"2""#,
        r#""name":"a","namespace":"d","resourceVersion":"4","uid":"a""#,
        r#"{"metadata":{"resourceVersion":"3"},"spec":{"claimRef":{"apiVersion":"v1","kind":"PersistentVolumeClaim","name":"own""#,
        r#"{"metadata":{"annotations":{"volume.kubernetes.io/selected-node":"n"},"resourceVersion":"5"}}"#,
    ] {
        assert!(patches.contains(part), "{part}\n{patches}");
    }
}

#[test]
fn what_may_bring_a_volume_is_worth_another_try() {
    let mut world = World::default();
    world.class("c", &none());
    world.claim("a", &none());
    world.volume("v", &none());
    let pod = world.pod_with("p", &["a"]);
    let volumes = &world.cluster.volumes;
    let (now, volume) = (volumes.claim("d/a").unwrap(), volumes.volume("v").unwrap());
    let class = volumes.class("c").unwrap();
    let claim = |key| Change::Claim {
        key,
        before: Some(now),
        now,
    };
    let (volume_before, class_before) = (Some(volume), Some(class));
    for (change, expected) in [
        (claim("d/a"), true),
        (claim("e/a"), false),
        (
            Change::Volume {
                before: volume_before,
                now: volume,
            },
            true,
        ),
        (
            Change::Class {
                before: None,
                now: class,
            },
            true,
        ),
        (
            Change::Class {
                before: class_before,
                now: class,
            },
            false,
        ),
        (Change::RoomIgnored("d"), true),
        (Change::RoomIgnored("other"), false),
    ] {
        let kinds = change.kinds();
        let plugin = VolumeBinding::default();
        assert_eq!(plugin.helps(&pod, &change, &world.cluster), expected, "{kinds}");
        assert!(plugin.wakes_on() & kinds != 0, "{kinds}");
    }
}
