//! What the binder writes: each step of a binding as the object that it makes of the one that was read, none where nothing
//! changes. Pure.

use mk8s_api::meta as object;
use mk8s_client::Raw;
use serde_json::{Value, json};

use super::super::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, CAPACITY, HELD, MIGRATED_TO, PRE_RESIZE_CAPACITY, PROVISIONED_BY,
    PROVISIONERS, annotate, claim_of, has_annotation, is_for, migrated_to, phase, size, volume_name,
};
use crate::meta::{self, Key};
use crate::volume::CLAIMS;

/// The volume, bound to this very claim.
pub fn volume_bound(volume: &Raw, claim: &Raw) -> Option<Value> {
    let mut new = volume.value.clone();
    let exact = claim_of(volume).is_some_and(|(key, uid)| key == Key::of(claim) && uid == meta::uid(claim));
    if !exact {
        let reference = CLAIMS.reference(claim);
        object::set(&mut new, &["spec", "claimRef"], json!(reference));
    }
    if !is_for(volume, claim) && !has_annotation(volume, BOUND_BY_CONTROLLER) {
        annotate(&mut new, BOUND_BY_CONTROLLER, "yes");
    }
    (new != volume.value).then_some(new)
}

/// The volume, to be had again. A claim that its user named stays named.
pub fn volume_unbound(volume: &Raw) -> Value {
    let mut new = volume.value.clone();
    if has_annotation(volume, BOUND_BY_CONTROLLER) {
        object::remove(&mut new, &["spec", "claimRef"]);
        object::remove(&mut new, &["metadata", "annotations", BOUND_BY_CONTROLLER]);
    } else {
        object::remove(&mut new, &["spec", "claimRef", "uid"]);
    }
    new
}

/// The volume, in this phase.
pub fn volume_phase(volume: &Raw, wanted: &str, message: &str) -> Option<Value> {
    if phase(volume) == wanted {
        return None;
    }
    let mut new = volume.value.clone();
    object::set(&mut new, &["status", "phase"], wanted);
    match message {
        "" => drop(object::remove(&mut new, &["status", "message"])),
        message => object::set(&mut new, &["status", "message"], message),
    }
    Some(new)
}

/// The claim, bound to this volume.
pub fn claim_bound(claim: &Raw, volume: &Raw) -> Option<Value> {
    let mut new = claim.value.clone();
    if volume_name(claim) != meta::name(volume) {
        object::set(&mut new, &["spec", "volumeName"], meta::name(volume));
        if !has_annotation(claim, BOUND_BY_CONTROLLER) {
            annotate(&mut new, BOUND_BY_CONTROLLER, "yes");
        }
    }
    if !has_annotation(claim, BIND_COMPLETED) {
        annotate(&mut new, BIND_COMPLETED, "yes");
    }
    (new != claim.value).then_some(new)
}

/// The claim, in this phase, with what it has of the volume. Of a bound claim the size is its resizer's.
pub fn claim_status(claim: &Raw, wanted: &str, volume: Option<&Raw>) -> Option<Value> {
    const CURRENT: [&str; 2] = ["status", "currentVolumeAttributesClassName"];
    let mut new = claim.value.clone();
    object::set(&mut new, &["status", "phase"], wanted);
    let Some(volume) = volume else {
        for field in ["accessModes", "capacity", CURRENT[1]] {
            object::remove(&mut new, &["status", field]);
        }
        return (new != claim.value).then_some(new);
    };
    let modes = object::items(&volume.value, &["spec", "accessModes"]);
    if object::items(&new, &["status", "accessModes"]) != modes {
        object::set(&mut new, &["status", "accessModes"], modes.to_vec());
    }
    if phase(claim) != wanted {
        let before = meta::annotation(volume, PRE_RESIZE_CAPACITY);
        let before = before.filter(|before| mk8s_api::quantity::Quantity::parse(before).is_ok());
        if let Some(before) = before {
            object::set(&mut new, &HELD, before);
        } else if size(claim, &HELD) != size(volume, &CAPACITY) {
            let capacity = object::at(&volume.value, &["spec", "capacity"]);
            object::set(&mut new, &["status", "capacity"], capacity.cloned().unwrap_or_default());
        }
        if phase(claim) == "Pending" && wanted == "Bound" {
            match object::at(&volume.value, &["spec", "volumeAttributesClassName"]) {
                Some(class) => object::set(&mut new, &CURRENT, class.clone()),
                None => drop(object::remove(&mut new, &CURRENT)),
            }
        }
    }
    (new != claim.value).then_some(new)
}

/// The claim, of this class.
pub fn claim_class(claim: &Raw, class: &str) -> Value {
    let mut new = claim.value.clone();
    object::set(&mut new, &["spec", "storageClassName"], class);
    new
}

/// The claim, with who is to provide its volume.
pub fn claim_provisioner(claim: &Raw, provisioner: &str) -> Option<Value> {
    if meta::annotation(claim, PROVISIONERS[0]) == Some(provisioner) {
        return None;
    }
    let mut new = claim.value.clone();
    for key in PROVISIONERS {
        annotate(&mut new, key, provisioner);
    }
    Some(new)
}

/// The claim or volume, with the driver that does its plugin's work now, or without one that does not.
pub fn migrated(owner: &Raw) -> Option<Value> {
    let keys = [PROVISIONED_BY, PROVISIONERS[0], PROVISIONERS[1]];
    let provisioner = keys.iter().find_map(|key| meta::annotation(owner, key))?;
    let (driver, written) = (migrated_to(provisioner), meta::annotation(owner, MIGRATED_TO));
    if driver == written {
        return None;
    }
    let mut new = owner.value.clone();
    match driver {
        Some(driver) => annotate(&mut new, MIGRATED_TO, driver),
        None => drop(object::remove(&mut new, &["metadata", "annotations", MIGRATED_TO])),
    }
    Some(new)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::super::tests::raw;
    use super::*;

    fn claim(more: Value) -> Raw {
        let mut claim = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u", "resourceVersion": "5"},
            "spec": {"accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Pending"}});
        mk8s_api::patch::merge(&mut claim, &more).unwrap();
        raw(claim)
    }

    fn volume(more: Value) -> Raw {
        let mut volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "5Gi"},
            "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}, "status": {"phase": "Available"}});
        mk8s_api::patch::merge(&mut volume, &more).unwrap();
        raw(volume)
    }

    #[test]
    fn a_volume_is_bound_once() {
        let reference = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": "n", "name": "c", "uid": "u", "resourceVersion": "5"});
        let free = volume(json!({}));
        let bound = volume_bound(&free, &claim(json!({}))).unwrap();
        let annotated =
            json!({"metadata": {"annotations": {BOUND_BY_CONTROLLER: "yes"}}, "spec": {"claimRef": reference}});
        assert_eq!(bound, volume(annotated).value);
        assert_eq!(volume_bound(&raw(bound), &claim(json!({}))), None);
        let named = volume(json!({"spec": {"claimRef": {"namespace": "n", "name": "c"}}}));
        let bound = volume_bound(&named, &claim(json!({}))).unwrap();
        assert_eq!(bound["spec"]["claimRef"]["uid"], "u");
        assert_eq!(bound["metadata"]["annotations"], Value::Null, "its user has bound it");
        // And back.
        assert_eq!(volume_unbound(&raw(bound))["spec"]["claimRef"].get("uid"), None);
        let back = volume_unbound(&raw(volume_bound(&free, &claim(json!({}))).unwrap()));
        assert_eq!(
            (&back["spec"], back["metadata"]["annotations"].get(BOUND_BY_CONTROLLER)),
            (&free.value["spec"], None)
        );
    }

    #[test]
    fn a_claim_is_bound_once() {
        let free = claim(json!({}));
        let bound = claim_bound(&free, &volume(json!({}))).unwrap();
        let yes = json!({BOUND_BY_CONTROLLER: "yes", BIND_COMPLETED: "yes"});
        assert_eq!(
            (&bound["spec"]["volumeName"], &bound["metadata"]["annotations"]),
            (&json!("v"), &yes)
        );
        assert_eq!(claim_bound(&raw(bound), &volume(json!({}))), None);
        let named = claim_bound(&claim(json!({"spec": {"volumeName": "v"}})), &volume(json!({}))).unwrap();
        assert_eq!(named["metadata"]["annotations"], json!({BIND_COMPLETED: "yes"}));
    }

    #[test]
    fn a_claims_status_says_what_it_has() {
        let volume = volume(json!({"spec": {"volumeAttributesClassName": "gold"}}));
        let status = json!({"phase": "Bound", "accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "capacity": {"storage": "5Gi"},
            "currentVolumeAttributesClassName": "gold"});
        let bound = raw(claim_status(&claim(json!({})), "Bound", Some(&volume)).unwrap());
        assert_eq!(bound.value["status"], status);
        assert_eq!(claim_status(&bound, "Bound", Some(&volume)), None);
        // Its size is its resizer's from then on.
        let grown = raw(
            json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "9Gi"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}}),
        );
        assert_eq!(claim_status(&bound, "Bound", Some(&grown)), None);
        assert_eq!(
            claim_status(&bound, "Lost", None).unwrap()["status"],
            json!({"phase": "Lost"})
        );
        assert_eq!(claim_status(&claim(json!({})), "Pending", None), None);
        let mut growing = volume.value.clone();
        annotate(&mut growing, PRE_RESIZE_CAPACITY, "3Gi");
        let bound = claim_status(&claim(json!({})), "Bound", Some(&raw(growing))).unwrap();
        assert_eq!(bound["status"]["capacity"]["storage"], "3Gi");
    }

    #[test]
    fn a_phase_is_written_once_and_with_its_message() {
        let free = volume(json!({}));
        assert_eq!(volume_phase(&free, "Available", ""), None);
        let failed = raw(volume_phase(&free, "Failed", "why").unwrap());
        assert_eq!(failed.value["status"], json!({"phase": "Failed", "message": "why"}));
        assert_eq!(
            volume_phase(&failed, "Bound", "").unwrap()["status"],
            json!({"phase": "Bound"})
        );
    }

    #[test]
    fn who_provides_is_written_and_who_does_its_work_now() {
        let free = claim(json!({}));
        let asked = raw(claim_provisioner(&free, "a.b").unwrap());
        assert!(
            PROVISIONERS
                .iter()
                .all(|key| meta::annotation(&asked, key) == Some("a.b"))
        );
        assert_eq!(claim_provisioner(&asked, "a.b"), None);
        assert_eq!(migrated(&asked), None);
        let old = volume(json!({"metadata": {"annotations": {PROVISIONED_BY: "kubernetes.io/aws-ebs"}}}));
        let written = raw(migrated(&old).unwrap());
        assert_eq!(meta::annotation(&written, MIGRATED_TO), Some("ebs.csi.aws.com"));
        assert_eq!(migrated(&written), None);
        let wrong = claim(json!({"metadata": {"annotations": {PROVISIONERS[0]: "a.b", MIGRATED_TO: "x"}}}));
        assert_eq!(
            migrated(&wrong).unwrap()["metadata"]["annotations"].get(MIGRATED_TO),
            None
        );
    }
}
