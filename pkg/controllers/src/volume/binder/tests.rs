//! The plans as tables.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use mk8s_client::Raw;
use serde_json::{Value, json};

use super::super::tests::raw;
use super::super::{is_for, volume_name};
use super::plan::{AroundClaim, ForClaim, ForVolume, Reclaim, Told, for_claim, for_volume};
use super::written;

fn made(mut object: Value, more: &Value) -> Arc<Raw> {
    mk8s_api::patch::merge(&mut object, more).unwrap();
    Arc::new(raw(object))
}

fn claim(more: Value) -> Arc<Raw> {
    let claim = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "status": {"phase": "Pending"},
        "spec": {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"], "storageClassName": "a"}});
    made(claim, &more)
}

fn volume(more: Value) -> Arc<Raw> {
    let volume = json!({"metadata": {"name": "v"}, "status": {"phase": "Available"},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "a", "persistentVolumeReclaimPolicy": "Retain"}});
    made(volume, &more)
}

fn class(provisioner: &str, mode: &str) -> Option<Arc<Raw>> {
    let class = json!({"metadata": {"name": "a"}, "provisioner": provisioner, "volumeBindingMode": mode});
    Some(Arc::new(raw(class)))
}

fn told(told: &Told) -> String {
    format!("{} {}: {}", told.type_, told.reason, told.message)
}

fn shown(plan: &ForClaim) -> String {
    match plan {
        ForClaim::Pending(None) => "pending".into(),
        ForClaim::Pending(Some(why)) => format!("pending, {}", told(why)),
        ForClaim::Class(class) => format!("class {class}"),
        ForClaim::Bind(volume) => format!("bind {}", crate::meta::name(&**volume)),
        ForClaim::Provision(by) => format!("provision by {by}"),
        ForClaim::NotProvided(why) => format!("not provided, {}", told(why)),
        ForClaim::Lost(why) => format!("lost, {}", told(why)),
        ForClaim::Invalid(why, error) => format!("invalid, {}; {error}", told(why)),
    }
}

#[test]
fn an_unbound_claim_is_bound_or_gets_the_default_class() {
    let of = |class: Value| claim(json!({"spec": {"storageClassName": class}}));
    let default = || AroundClaim {
        default_class: Some("d".into()),
        ..AroundClaim::default()
    };
    let nothing =
        "pending, Normal FailedBinding: no persistent volumes available for this claim and no storage class is set";
    let found = AroundClaim {
        found: Some(volume(json!({}))),
        ..default()
    };
    assert_eq!(shown(&for_claim(&of(json!(null)), &found)), "bind v");
    assert_eq!(shown(&for_claim(&of(json!(null)), &default())), "class d");
    assert_eq!(shown(&for_claim(&of(json!("")), &default())), nothing);
    assert_eq!(shown(&for_claim(&of(json!(null)), &AroundClaim::default())), nothing);
    let missing = "not provided, Warning ProvisioningFailed: storageclass.storage.k8s.io \"a\" not found";
    assert_eq!(shown(&for_claim(&of(json!("a")), &default())), missing);
}

#[test]
fn a_claim_of_a_class_is_provided_or_waits() {
    const NOW: &str = "Immediate";
    const DELAYED: &str = "WaitForFirstConsumer";
    let plain = json!({});
    let selected = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n1"}}});
    let none = "not provided, Warning ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner";
    let first = "pending, Normal WaitForFirstConsumer: waiting for first consumer to be created before binding";
    let pod = "pending, Normal WaitForPodScheduled: waiting for pod p to be scheduled";
    let pods = "pending, Normal WaitForPodScheduled: waiting for pods p,q to be scheduled";
    for (more, provisioner, mode, waiting, expected) in [
        (&plain, "a.b", NOW, &[][..], "provision by a.b"),
        (
            &plain,
            "kubernetes.io/aws-ebs",
            NOW,
            &[],
            "provision by ebs.csi.aws.com",
        ),
        (&plain, "kubernetes.io/no-provisioner", NOW, &[], none),
        (&plain, "a.b", DELAYED, &[], first),
        (&plain, "a.b", DELAYED, &["p"], pod),
        (&plain, "a.b", DELAYED, &["p", "q"], pods),
        (&selected, "a.b", DELAYED, &["p"], "provision by a.b"),
    ] {
        let around = AroundClaim {
            class: class(provisioner, mode),
            waiting: waiting.iter().map(|pod| (*pod).to_owned()).collect(),
            ..AroundClaim::default()
        };
        assert_eq!(shown(&for_claim(&claim(more.clone()), &around)), expected, "{more}");
    }
}

/// A claim that names volume `v`, which is as `more` says, if it is there.
fn naming(annotation: &str, more: Option<Value>) -> String {
    let around = AroundClaim {
        named: more.map(volume),
        ..AroundClaim::default()
    };
    let annotations = if annotation.is_empty() {
        json!({})
    } else {
        json!({annotation: "yes"})
    };
    let claim = claim(json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": "v"}}));
    shown(&for_claim(&claim, &around))
}

fn bound_to(name: &str, uid: &str) -> Option<Value> {
    Some(json!({"spec": {"claimRef": {"namespace": "n", "name": name, "uid": uid}}}))
}

#[test]
fn a_claim_that_names_a_volume_gets_that_or_says_why_not() {
    assert_eq!(naming("", None), "pending");
    assert_eq!(naming("", Some(json!({}))), "bind v");
    assert_eq!(naming("", bound_to("c", "u")), "bind v");
    let taken = "Warning FailedBinding: volume \"v\" already bound to a different claim.";
    assert_eq!(naming("", bound_to("d", "w")), format!("pending, {taken}"));
    let why = "invalid binding of claim to volume \"v\": volume already claimed by \"n/d\"";
    let by_controller = naming("pv.kubernetes.io/bound-by-controller", bound_to("d", "w"));
    assert_eq!(by_controller, format!("invalid, {taken}; {why}"));
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    for (more, why) in [
        (
            json!({"spec": {"capacity": {"storage": "1Mi"}}}),
            "requested PV is too small",
        ),
        (
            json!({"spec": {"storageClassName": "b"}}),
            "storageClassName does not match",
        ),
        (
            json!({"spec": {"volumeAttributesClassName": "g"}}),
            "volumeAttributesClassName does not match",
        ),
        (json!({"spec": {"volumeMode": "Block"}}), "incompatible volumeMode"),
        (
            json!({"spec": {"accessModes": ["ReadOnlyMany"]}}),
            "incompatible accessMode",
        ),
        (going, "the volume is marked for deletion \"v\""),
    ] {
        let expected = format!("pending, Warning VolumeMismatch: Cannot bind to requested volume \"v\": {why}");
        assert_eq!(naming("", Some(more)), expected);
    }
}

#[test]
fn a_claim_that_was_bound_is_bound_or_lost() {
    const BOUND: &str = "pv.kubernetes.io/bind-completed";
    let gone = "lost, Warning ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!";
    let another = "lost, Warning ClaimMisbound: Two claims are bound to the same volume, this one is bound incorrectly";
    assert_eq!(naming(BOUND, bound_to("c", "u")), "bind v");
    assert_eq!(naming(BOUND, Some(json!({}))), "bind v");
    assert_eq!(naming(BOUND, None), gone);
    assert_eq!(naming(BOUND, bound_to("d", "w")), another);
    let lost = claim(json!({"metadata": {"annotations": {BOUND: "yes"}}}));
    let expected =
        "lost, Warning ClaimLost: Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
    assert_eq!(shown(&for_claim(&lost, &AroundClaim::default())), expected);
}

#[test]
fn a_volume_follows_its_claim() {
    let for_claim = || json!({"claimRef": {"namespace": "n", "name": "c", "uid": "u"}});
    let provided = json!({"pv.kubernetes.io/provisioned-by": "a.b"});
    let with = |annotations: Value, policy: &str| {
        let mut spec = for_claim();
        spec["persistentVolumeReclaimPolicy"] = policy.into();
        volume(json!({"metadata": {"annotations": annotations}, "spec": spec}))
    };
    let retained = || volume(json!({"spec": for_claim()}));
    let has = |name: &str| claim(json!({"spec": {"volumeName": name}}));
    for (volume, claim, expected) in [
        (volume(json!({})), None, "Available"),
        (
            volume(json!({"spec": {"claimRef": {"namespace": "n", "name": "c"}}})),
            Some(has("v")),
            "Available",
        ),
        (retained(), Some(has("v")), "Bound"),
        (retained(), Some(has("")), "Wait"),
        (
            retained(),
            Some(claim(json!({"spec": {"volumeMode": "Block"}}))),
            "Mismatch",
        ),
        (retained(), Some(has("w")), "Unbind"),
        (with(provided.clone(), "Delete"), Some(has("w")), "Released(Leave)"),
        (with(provided, "Retain"), Some(has("w")), "Unbind"),
        (retained(), None, "Released(Leave)"),
    ] {
        let plan = format!("{:?}", for_volume(&volume, claim.as_deref(), &[]));
        assert!(plan.starts_with(expected), "{plan}, not {expected}: {volume:?}");
    }
}

#[test]
fn what_becomes_of_a_volume_whose_claim_is_gone() {
    let spec = |policy: &str| json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "u"}, "persistentVolumeReclaimPolicy": policy}});
    let by = |provisioner: &str| json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": provisioner}}});
    let migrated = json!({"metadata": {"annotations": {"pv.kubernetes.io/migrated-to": "ebs.csi.aws.com"}}});
    let none = || json!({});
    let leave = "leave";
    for (policy, more, users, expected) in [
        ("Retain", none(), &["n/p"][..], leave),
        (
            "Recycle",
            none(),
            &["n/p", "n/q"],
            "Normal VolumeFailedRecycle: Volume is used by pods: n/p,n/q",
        ),
        (
            "Recycle",
            none(),
            &[],
            "failed, Warning VolumeFailedRecycle: No recycler plugin found for the volume!",
        ),
        (
            "Delete",
            none(),
            &[],
            "failed, Warning VolumeFailedDelete: error getting deleter volume plugin for volume \"v\": no volume plugin matched",
        ),
        ("Delete", by("a.b"), &[], leave),
        ("Delete", by("kubernetes.io/aws-ebs"), &[], leave),
        (
            "Delete",
            by("kubernetes.io/none"),
            &[],
            "failed, Warning VolumeFailedDelete: no volume plugin matched name: kubernetes.io/none",
        ),
        (
            "Delete",
            json!({"spec": {"csi": {"driver": "a.b", "volumeHandle": "h"}}}),
            &[],
            leave,
        ),
        ("Delete", migrated, &[], leave),
        (
            "Shred",
            none(),
            &[],
            "failed, Warning VolumeUnknownReclaimPolicy: Volume has unrecognized PersistentVolumeReclaimPolicy",
        ),
    ] {
        let mut all = spec(policy);
        mk8s_api::patch::merge(&mut all, &more).unwrap();
        let users: Vec<String> = users.iter().map(|user| (*user).to_owned()).collect();
        let found = match for_volume(&volume(all), None, &users) {
            ForVolume::Released(Reclaim::Leave) => leave.to_owned(),
            ForVolume::Released(Reclaim::Used(why)) => told(&why),
            ForVolume::Released(Reclaim::Fail(why)) => format!("failed, {}", told(&why)),
            other => format!("{other:?}"),
        };
        assert_eq!(found, expected, "{policy} {more}");
    }
}

/// Binds as the controller does, so many writes, from what is stored; how many there were, and what is stored then.
fn bind(claim: &Raw, volume: &Raw, at_most: usize) -> (usize, Raw, Raw) {
    let (mut claim, mut volume, mut count) = (claim.clone(), volume.clone(), 0);
    let mut write = |stored: &mut Raw, new: Option<Value>| {
        if let Some(new) = new.filter(|_| count < at_most) {
            count += 1;
            *stored = raw(new);
        }
        count == at_most
    };
    let bound = written::volume_bound(&volume, &claim);
    let ended = write(&mut volume, bound);
    let phase = written::volume_phase(&volume, "Bound", "").filter(|_| !ended);
    let ended = write(&mut volume, phase);
    let bound = written::claim_bound(&claim, &volume).filter(|_| !ended);
    let ended = write(&mut claim, bound);
    let status = written::claim_status(&claim, "Bound", Some(&volume)).filter(|_| !ended);
    write(&mut claim, status);
    (count, claim, volume)
}

#[test]
fn a_binding_goes_on_wherever_it_was_interrupted() {
    let (claim, volume) = (claim(json!({})), volume(json!({})));
    let (writes, claim_then, volume_then) = bind(&claim, &volume, usize::MAX);
    assert_eq!(writes, 4);
    for done in 0..=writes {
        let (_, claim, volume) = bind(&claim, &volume, done);
        // Found again: by its claim, or by what it was before.
        let around = AroundClaim {
            named: (!volume_name(&claim).is_empty()).then(|| Arc::new(volume.clone())),
            found: Some(Arc::new(volume.clone())),
            ..AroundClaim::default()
        };
        assert_eq!(
            for_claim(&claim, &around),
            ForClaim::Bind(Arc::new(volume.clone())),
            "after {done}"
        );
        let (rest, claim, volume) = bind(&claim, &volume, usize::MAX);
        assert_eq!(
            (rest, &claim, &volume),
            (writes - done, &claim_then, &volume_then),
            "after {done}"
        );
        // Nobody else is given the volume meanwhile, and it waits for its claim.
        assert!(done == 0 || is_for(&volume, &claim));
    }
}
