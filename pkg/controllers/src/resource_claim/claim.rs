//! For whom a claim is reserved, and when it is given back. Pure.

use k8s_openapi::api::core::v1::Pod;
use mk8s_api::meta as object;
use mk8s_client::Raw;
use serde_json::{Value, json};

use super::is_done;
use crate::meta;

/// Protects an allocation: by the scheduler.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
const RESERVED: [&str; 2] = ["status", "reservedFor"];
const ALLOCATION: [&str; 2] = ["status", "allocation"];

/// What becomes of one for whom a claim is reserved.
#[derive(Debug, PartialEq, Eq)]
pub enum Consumer {
    Stays,
    Goes,
    /// Nobody has heard of it here.
    Unknown,
    /// It is no pod.
    Foreign,
}

/// `known` is the pod of the consumer's name.
pub fn consumer(consumer: &Value, known: Option<&Pod>) -> Consumer {
    let text = |field| object::string(consumer, &[field]);
    if !text("apiGroup").is_empty() || text("resource") != "pods" {
        return Consumer::Foreign;
    }
    match known {
        None => Consumer::Unknown,
        Some(pod) if meta::uid(pod) != text("uid") || is_done(pod) => Consumer::Goes,
        Some(_) => Consumer::Stays,
    }
}

fn is_protected(claim: &Raw) -> bool {
    meta::has_finalizer(claim, FINALIZER)
}

fn is_allocated(claim: &Raw) -> bool {
    object::at(&claim.value, &ALLOCATION).is_some()
}

/// The claim, reserved for those that are still there; without its allocation where nobody is. None: that is how it is.
pub fn released(claim: &Raw, valid: Vec<Value>) -> Option<Value> {
    let fewer = valid.len() < object::items(&claim.value, &RESERVED).len();
    let unused = valid.is_empty() && is_protected(claim) && (fewer || meta::deleting(claim));
    let mut new = claim.value.clone();
    match valid.is_empty() {
        true => drop(object::remove(&mut new, &RESERVED)),
        false => object::set(&mut new, &RESERVED, valid),
    }
    if unused {
        object::remove(&mut new, &ALLOCATION);
    }
    (fewer || (unused && is_allocated(claim))).then_some(new)
}

/// Whether the finalizer may go: the allocation has just been taken away, or the claim is to go without one. One without an
/// allocation may be about to get one: the scheduler puts the finalizer on first.
pub fn is_free_of(before: &Raw, now: &Raw) -> bool {
    let had = object::items(&before.value, &RESERVED).len();
    let has = object::items(&now.value, &RESERVED).len();
    !is_allocated(now) && has == 0 && (has < had || meta::deleting(now))
}

/// The claim without its finalizer, if it has it.
pub fn unprotected(claim: &Raw) -> Option<Value> {
    if !is_protected(claim) {
        return None;
    }
    let left = claim
        .metadata
        .finalizers
        .iter()
        .flatten()
        .filter(|own| *own != FINALIZER);
    let left: Vec<&String> = left.collect();
    let mut new = claim.value.clone();
    object::set(&mut new, &["metadata", "finalizers"], json!(left));
    Some(new)
}

/// The claim, reserved for this pod too, if it is allocated and not reserved for it.
pub fn reserved(claim: &Raw, pod: &Pod) -> Option<Value> {
    let consumers = object::items(&claim.value, &RESERVED);
    let is_it = |consumer: &Value| object::string(consumer, &["uid"]) == meta::uid(pod);
    if !is_allocated(claim) || consumers.iter().any(is_it) {
        return None;
    }
    // One that was made for another pod is not for this one.
    if let Some(owner) = super::pod_claims::owner(claim)
        && owner.uid != meta::uid(pod)
    {
        return None;
    }
    let own = json!({"resource": "pods", "name": meta::name(pod), "uid": meta::uid(pod)});
    let all: Vec<Value> = consumers.iter().cloned().chain([own]).collect();
    let mut new = claim.value.clone();
    object::set(&mut new, &RESERVED, all);
    Some(new)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn claim(reserved: &[&str], allocated: bool, protected: bool, going: bool) -> Raw {
        let consumers: Vec<Value> = reserved
            .iter()
            .map(|uid| json!({"resource": "pods", "name": uid, "uid": uid}))
            .collect();
        let finalizers = if protected { vec![FINALIZER, "x"] } else { vec![] };
        Raw::new(json!({
            "metadata": {"name": "c", "finalizers": finalizers, "deletionTimestamp": going.then_some("2026-01-01T00:00:00Z")},
            "status": {"reservedFor": consumers, "allocation": allocated.then(|| json!({"devices": {}}))},
        }))
        .unwrap()
    }

    #[test]
    fn a_claim_is_reserved_for_pods_that_run() {
        let pod = |uid: &str, phase: &str, node: &str, going: bool| -> Pod {
            let at = going.then_some("2026-01-01T00:00:00Z");
            serde_json::from_value(json!({"metadata": {"name": "p", "uid": uid, "deletionTimestamp": at},
                "spec": {"containers": [], "nodeName": node}, "status": {"phase": phase}}))
            .unwrap()
        };
        let own = json!({"resource": "pods", "name": "p", "uid": "u"});
        for (known, expected) in [
            (None, Consumer::Unknown),
            (Some(pod("u", "Running", "n", false)), Consumer::Stays),
            (Some(pod("u", "Running", "n", true)), Consumer::Stays),
            (Some(pod("u", "Pending", "", true)), Consumer::Goes),
            (Some(pod("u", "Succeeded", "n", false)), Consumer::Goes),
            (Some(pod("w", "Running", "n", false)), Consumer::Goes),
        ] {
            assert_eq!(consumer(&own, known.as_ref()), expected, "{known:?}");
        }
        let foreign = json!({"apiGroup": "example.org", "resource": "pods", "name": "p", "uid": "u"});
        assert_eq!(consumer(&foreign, None), Consumer::Foreign);
    }

    #[test]
    fn what_nobody_needs_is_given_back() {
        let left = |claim: &Raw, keep: usize| {
            let valid = object::items(&claim.value, &RESERVED)[..keep].to_vec();
            let new = released(claim, valid).map(|new| Raw::new(new).unwrap());
            let now = new.clone().unwrap_or_else(|| claim.clone());
            (
                new.map(|new| (object::items(&new.value, &RESERVED).len(), is_allocated(&new))),
                is_free_of(claim, &now),
            )
        };
        for (claim, keep, expected) in [
            (claim(&["a", "b"], true, true, false), 2, (None, false)),
            (claim(&["a", "b"], true, true, false), 1, (Some((1, true)), false)),
            (claim(&["a"], true, true, false), 0, (Some((0, false)), true)),
            // Somebody else has allocated it.
            (claim(&["a"], true, false, false), 0, (Some((0, true)), false)),
            (claim(&[], true, true, false), 0, (None, false)),
            (claim(&[], true, true, true), 0, (Some((0, false)), true)),
            (claim(&[], false, true, false), 0, (None, false)),
            (claim(&[], false, true, true), 0, (None, true)),
        ] {
            assert_eq!(left(&claim, keep), expected, "{claim:?}");
        }
        let bare = unprotected(&claim(&[], false, true, false)).unwrap();
        assert_eq!(bare["metadata"]["finalizers"], json!(["x"]));
        assert_eq!(unprotected(&claim(&[], false, false, false)), None);
    }

    #[test]
    fn an_allocated_claim_is_reserved_for_a_pod_once() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}})).unwrap();
        let count =
            |claim: &Raw| reserved(claim, &pod).map(|new| new["status"]["reservedFor"].as_array().unwrap().len());
        assert_eq!(count(&claim(&["a"], true, true, false)), Some(2));
        assert_eq!(count(&claim(&["u"], true, true, false)), None);
        assert_eq!(count(&claim(&[], false, true, false)), None);
    }
}
