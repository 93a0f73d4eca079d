//! The plan as tables.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use mk8s_client::Raw;
use serde_json::{Value, json};

use super::super::tests::raw;
use super::plan::{Handle, PATIENCE, Place, Plan, SILENCE, Wanted, is_exclusive, plan};
use crate::meta;

fn volume(modes: &[&str]) -> Arc<Raw> {
    let csi = json!({"driver": "d.org", "volumeHandle": "h"});
    Arc::new(raw(
        json!({"metadata": {"name": "v"}, "spec": {"accessModes": modes, "csi": csi}}),
    ))
}

fn handle() -> Handle {
    Handle::of(&volume(&[])).unwrap()
}

fn pod(namespace: &str, name: &str) -> Arc<Pod> {
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "namespace": namespace}})).unwrap())
}

fn wanted(modes: &[&str], elsewhere: bool, others: Vec<Arc<Pod>>) -> Vec<Wanted> {
    vec![Wanted {
        volume: volume(modes),
        handle: handle(),
        pods: vec![pod("n", "p")],
        elsewhere,
        others,
    }]
}

fn held(name: &str, status: Value) -> Arc<Raw> {
    let spec = json!({"nodeName": "n1", "source": {"persistentVolumeName": "v"}});
    Arc::new(raw(json!({"metadata": {"name": name}, "spec": spec, "status": status})))
}

fn own(status: Value) -> Arc<Raw> {
    held(&handle().attachment("n1"), status)
}

fn place() -> Place {
    Place {
        name: "n1".into(),
        managed: true,
        ready: true,
        ..Place::default()
    }
}

fn decide(place: &Place, wanted: &[Wanted], held: &[Arc<Raw>], since: Duration, age: Duration) -> Plan {
    plan(place, wanted, held, |_| Some(handle()), |_| since, |_| age)
}

/// A plan in a line.
fn shown(plan: &Plan) -> String {
    let mut parts: Vec<String> = plan.attach.iter().map(|_| "attach".to_owned()).collect();
    parts.extend(
        plan.detach
            .iter()
            .map(|(_, ask)| if *ask { "detach if unused" } else { "detach" }.into()),
    );
    parts.extend(plan.report.iter().map(|name| format!("report {name}")));
    parts.extend(plan.attached.iter().map(|word| word.message.clone()));
    parts.extend(plan.failed.iter().map(|word| word.message.clone()));
    parts.extend(plan.waiting.iter().map(|_| "wait".to_owned()));
    parts.extend(plan.next.map(|next| format!("again in {}s", next.as_secs())));
    parts.join(", ")
}

#[test]
fn names_are_those_that_attachers_and_kubelets_compute() {
    let handle = Handle {
        driver: "hostpath.csi.k8s.io".into(),
        handle: "vol-1".into(),
    };
    // echo -n vol-1hostpath.csi.k8s.ionode-1 | sha256sum
    let expected = "a5a2e67339ab5660a390dc86be397e784322823ff01f40cf2c01a72c3cab1374";
    assert_eq!(handle.attachment("node-1"), format!("csi-{expected}"));
    assert_eq!(handle.unique_name(), "kubernetes.io/csi/hostpath.csi.k8s.io^vol-1");
}

#[test]
fn a_volume_that_is_needed_is_attached_once_and_reported() {
    const ONCE: &[&str] = &["ReadWriteOnce"];
    let (zero, name) = (Duration::ZERO, handle().unique_name());
    let reported = || Place {
        reported: vec![handle().unique_name()],
        ..place()
    };
    let attached = || own(json!({"attached": true}));
    for (place, held, age, expected) in [
        (place(), vec![], zero, "attach".to_owned()),
        (place(), vec![own(json!({"attached": false}))], zero, "again in 120s".into()),
        (
            place(),
            vec![own(json!({"attached": false}))],
            SILENCE,
            "AttachVolume.Attach failed for volume \"v\" : timed out waiting for external-attacher of d.org CSI driver to attach volume h".into(),
        ),
        (
            place(),
            vec![own(json!({"attached": false, "attachError": {"message": "no room"}}))],
            zero,
            "AttachVolume.Attach failed for volume \"v\" : no room".into(),
        ),
        (place(), vec![attached()], zero, format!("report {name}, AttachVolume.Attach succeeded for volume \"v\" ")),
        (reported(), vec![attached()], zero, format!("report {name}")),
        (Place { managed: false, ..place() }, vec![], zero, String::new()),
        (Place { reported: vec!["kubernetes.io/fc/x".into()], ..place() }, vec![], zero, "attach, report kubernetes.io/fc/x".into()),
    ] {
        let plan = decide(&place, &wanted(ONCE, false, vec![]), &held, zero, age);
        assert_eq!(shown(&plan), expected, "{held:?}");
    }
    let plan = decide(&place(), &wanted(ONCE, false, vec![]), &[], zero, zero);
    assert_eq!(plan.attach[0]["metadata"]["name"], handle().attachment("n1"));
    let spec = json!({"attacher": "d.org", "nodeName": "n1", "source": {"persistentVolumeName": "v"}});
    assert_eq!(plan.attach[0]["spec"], spec);
}

#[test]
fn a_volume_for_one_node_is_given_to_one() {
    let zero = Duration::ZERO;
    let refused = |why: &str| format!("Multi-Attach error for volume \"v\" Volume is already {why}");
    for (modes, others, expected) in [
        (
            &["ReadWriteOnce"][..],
            vec![],
            refused("exclusively attached to one node and can't be attached to another"),
        ),
        (
            &["ReadWriteOnce"],
            vec![pod("n", "q"), pod("n", "a")],
            refused("used by pod(s) a, q"),
        ),
        (
            &["ReadWriteOnce"],
            vec![pod("m", "q")],
            refused("used by 1 pod(s) in different namespaces"),
        ),
        (
            &["ReadWriteOncePod"],
            vec![pod("n", "q"), pod("m", "q")],
            refused("used by pod(s) q and 1 pod(s) in different namespaces"),
        ),
        (&["ReadWriteOnce", "ReadOnlyMany"], vec![], "attach".into()),
        (&["ReadWriteMany"], vec![], "attach".into()),
        (&[], vec![], "attach".into()),
    ] {
        let plan = decide(&place(), &wanted(modes, true, others), &[], zero, zero);
        assert_eq!(shown(&plan), expected, "{modes:?}");
    }
    assert!(is_exclusive(&volume(&["ReadWriteOnce"])) && !is_exclusive(&volume(&[])));
}

/// What becomes of a volume that is attached to a place and not needed there, when that has been so for a while.
fn unneeded(place: &Place, since: Duration) -> String {
    let attached = own(json!({"attached": true}));
    shown(&decide(place, &[], &[attached], since, Duration::ZERO))
}

#[test]
fn a_volume_leaves_a_node_that_does_not_use_it() {
    let (zero, past) = (Duration::ZERO, PATIENCE + Duration::from_millis(1));
    let mut place = place();
    place.reported = vec![handle().unique_name()];
    assert_eq!(unneeded(&place, zero), "detach if unused");
    place.in_use = place.reported.clone();
    let waits = format!("report {}, wait", handle().unique_name());
    assert_eq!(unneeded(&place, past), waits);
    // A silent node has had its time, sooner or later.
    place.ready = false;
    assert_eq!(unneeded(&place, zero), format!("{waits}, again in 360s"));
    assert_eq!(unneeded(&place, past), "detach");
    place.out_of_service = true;
    assert_eq!(unneeded(&place, zero), "detach");
    place.managed = false;
    assert_eq!(unneeded(&place, zero), format!("report {}", handle().unique_name()));
}

#[test]
fn a_volume_leaves_a_node_that_is_gone() {
    let mut gone = place();
    (gone.ready, gone.unknown) = (false, true);
    let waits = format!("report {}, wait, again in 360s", handle().unique_name());
    assert_eq!(unneeded(&gone, Duration::ZERO), waits);
    assert_eq!(unneeded(&gone, PATIENCE * 2), "detach");
    // It used nothing when it went.
    gone.unknown = false;
    assert_eq!(unneeded(&gone, Duration::ZERO), "detach if unused");
}

#[test]
fn what_is_somebody_elses_is_left_alone() {
    let (zero, mut place) = (Duration::ZERO, place());
    let another = held("mine", json!({"attached": true}));
    assert_eq!(shown(&decide(&place, &[], &[another], zero, zero)), "");
    // Its volume is gone; the node's status may say what it was.
    let orphan = [own(json!({"attached": true}))];
    let of_gone = |place: &Place| shown(&plan(place, &[], &orphan, |_| None, |_| zero, |_| zero));
    assert_eq!(of_gone(&place), "");
    place.reported = vec![handle().unique_name()];
    assert_eq!(of_gone(&place), "detach if unused");
}

#[test]
fn what_a_node_says_of_itself() {
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": "n1", "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
        "spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]},
        "status": {"volumesInUse": ["a"], "volumesAttached": [{"name": "b", "devicePath": ""}], "conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap();
    let place = Place::of(&node);
    assert!(place.managed && place.ready && place.out_of_service && !place.unknown);
    assert_eq!(
        (place.in_use, place.reported),
        (vec!["a".to_owned()], vec!["b".to_owned()])
    );
    assert_eq!(meta::name(&node), place.name);
}
