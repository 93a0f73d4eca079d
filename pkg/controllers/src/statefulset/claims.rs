//! The claims of a StatefulSet's pods: one for each of its claim templates and ordinals, and who takes them along when he goes.
//!
//! Whom a claim goes with, its owners say, as the set's retention policy wants: the set (whenDeleted), or a pod that is scaled away
//! (whenScaled). Owners whom somebody else put there stay. Without a policy that deletes, a claim has none, and outlives all.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::identity;
use crate::meta;

/// The names of a pod's volumes that have a claim, each with the claim's name.
pub(super) fn of(set: &StatefulSet, ordinal: i32) -> impl Iterator<Item = (&str, String)> {
    templates(set).map(move |template| {
        let volume = meta::name(template);
        (volume, format!("{volume}-{}-{ordinal}", meta::name(set)))
    })
}

pub(super) fn templates(set: &StatefulSet) -> impl Iterator<Item = &PersistentVolumeClaim> {
    set.spec
        .iter()
        .flat_map(|spec| spec.volume_claim_templates.iter().flatten())
}

/// The claims that a pod needs.
pub(super) fn new(set: &StatefulSet, ordinal: i32) -> impl Iterator<Item = PersistentVolumeClaim> {
    let selector = set.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone());
    templates(set).zip(of(set, ordinal)).map(move |(template, (_, name))| {
        let mut labels = template.metadata.labels.clone();
        if let Some(selector) = &selector {
            labels.get_or_insert_default().extend(selector.clone());
        }
        let owner = policy(set).deleted.then(|| meta::owner_reference(set));
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name),
                labels,
                owner_references: owner.map(|owner| vec![owner]),
                ..template.metadata.clone()
            },
            spec: template.spec.clone(),
            status: None,
        }
    })
}

/// What goes along.
#[derive(Clone, Copy)]
struct Policy {
    /// The claims, with the set.
    deleted: bool,
    /// A claim, with a pod that is scaled away.
    scaled: bool,
}

fn policy(set: &StatefulSet) -> Policy {
    let policy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |value: Option<&String>| value.is_some_and(|value| value == "Delete");
    Policy {
        deleted: deletes(policy.and_then(|policy| policy.when_deleted.as_ref())),
        scaled: deletes(policy.and_then(|policy| policy.when_scaled.as_ref())),
    }
}

/// Whose a reference is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Set,
    Pod,
    /// A set or pod of the same name that was before.
    Former,
    Other,
}

fn whose(reference: &OwnerReference, set: &StatefulSet, pod: &Pod) -> Of {
    let names = |version: &str, kind: &str, name: &str| {
        reference.api_version == version && reference.kind == kind && reference.name == name
    };
    let (owner, uid) = if names("apps/v1", "StatefulSet", meta::name(set)) {
        (Of::Set, meta::uid(set))
    } else if names("v1", "Pod", meta::name(pod)) {
        (Of::Pod, meta::uid(pod))
    } else {
        return Of::Other;
    };
    if reference.uid == uid { owner } else { Of::Former }
}

fn owners(claim: &ObjectMeta) -> impl Iterator<Item = &OwnerReference> {
    claim.owner_references.iter().flatten()
}

/// Does somebody else control a claim that the policy would have the set or pod control? Then the policy is not followed.
pub(super) fn conflict(claim: &ObjectMeta, set: &StatefulSet, pod: &Pod) -> bool {
    let Policy { deleted, scaled } = policy(set);
    (deleted || scaled)
        && owners(claim).any(|reference| match whose(reference, set, pod) {
            Of::Former => true,
            Of::Other => reference.controller == Some(true),
            Of::Set | Of::Pod => false,
        })
}

/// The owners that the claim should have; none: those that it has.
pub(super) fn changed(claim: &ObjectMeta, set: &StatefulSet, pod: &Pod, ordinal: i32) -> Option<Vec<OwnerReference>> {
    // Of a set or pod before this one: the garbage collector's.
    if owners(claim).any(|reference| whose(reference, set, pod) == Of::Former) {
        return None;
    }
    let ours = |reference: &OwnerReference| matches!(whose(reference, set, pod), Of::Set | Of::Pod);
    let mut wanted: Vec<OwnerReference> = owners(claim).filter(|reference| !ours(reference)).cloned().collect();
    if !conflict(claim, set, pod) {
        let Policy { deleted, scaled } = policy(set);
        let condemned = !identity::in_range(set, ordinal);
        if scaled && condemned {
            wanted.push(meta::owner_reference(pod));
        } else if deleted {
            wanted.push(meta::owner_reference(set));
        }
    }
    let same = |reference: &OwnerReference| {
        let mut known = owners(claim).filter(|known| known.uid == reference.uid);
        known.any(|known| known.controller == Some(true)) || !ours(reference)
    };
    let unchanged = wanted.len() == owners(claim).count() && wanted.iter().all(same);
    (!unchanged).then_some(wanted)
}

/// Is the claim that of a pod that was scaled away, and about to go with it? The next pod of the name waits for that.
pub(super) fn is_stale(claim: &ObjectMeta, set: &StatefulSet, pod: &str) -> bool {
    policy(set).scaled
        && owners(claim).any(|owner| owner.api_version == "v1" && owner.kind == "Pod" && owner.name == pod)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn set(deleted: &str, scaled: &str) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "d", "uid": "set"},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": {},
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled},
                "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": {"x": "y"}, "annotations": {"n": "1"}},
                    "spec": {"accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Pending"}}],
            },
        }))
        .unwrap()
    }

    fn pod(ordinal: i32) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": format!("web-{ordinal}"), "uid": format!("pod{ordinal}")}}))
            .unwrap()
    }

    #[test]
    fn a_claim_is_made_of_its_template_for_its_pod() {
        let made: Vec<Value> = new(&set("Delete", "Retain"), 1)
            .map(|c| serde_json::to_value(c).unwrap())
            .collect();
        assert_eq!(made.len(), 1);
        let metadata = &made[0]["metadata"];
        assert_eq!(metadata["name"], "data-web-1");
        assert_eq!(metadata["labels"], json!({"a": "b", "x": "y"}));
        assert_eq!(metadata["annotations"], json!({"n": "1"}));
        assert_eq!(metadata["ownerReferences"][0]["uid"], "set");
        assert_eq!(made[0]["spec"], json!({"accessModes": ["ReadWriteOnce"]}));
        assert!(made[0].get("status").is_none());
        let kept = new(&set("Retain", "Delete"), 1).next().unwrap();
        assert_eq!(kept.metadata.owner_references, None);
    }

    /// A reference, told by `set`, `pod0`, `pod9` or another's name; `!` in front: to one of that name that was before, `~`: that does not
    /// control.
    fn reference(text: &str) -> Value {
        let name = text.trim_start_matches(['!', '~']);
        let uid = if text.starts_with('!') { "before" } else { name };
        let controller = !text.starts_with('~');
        let (version, kind, name) = match name {
            "set" => ("apps/v1", "StatefulSet", "web".to_owned()),
            other => match other.strip_prefix("pod") {
                Some(ordinal) => ("v1", "Pod", format!("web-{ordinal}")),
                None => ("x/v1", "X", other.to_owned()),
            },
        };
        json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": controller})
    }

    #[test]
    fn owners_follow_the_policy() {
        for (deleted, scaled, ordinal, has, wants) in [
            ("Retain", "Retain", 0, "", None),
            ("Retain", "Retain", 0, "set other", Some("other")),
            ("Retain", "Retain", 0, "other", None),
            ("Delete", "Retain", 0, "", Some("set")),
            ("Delete", "Retain", 0, "set", None),
            ("Delete", "Retain", 0, "~set", Some("set")),
            ("Delete", "Retain", 9, "pod9", Some("set")),
            ("Delete", "Retain", 0, "~other", Some("other set")),
            // Somebody else's claim: ours go, and none comes.
            ("Delete", "Retain", 0, "other", None),
            ("Delete", "Retain", 0, "other set", Some("other")),
            ("Delete", "Retain", 0, "!set", None),
            ("Retain", "Delete", 0, "", None),
            ("Retain", "Delete", 0, "set", Some("")),
            ("Retain", "Delete", 9, "", Some("pod9")),
            ("Retain", "Delete", 9, "pod9", None),
            ("Retain", "Delete", 9, "!pod9", None),
            ("Delete", "Delete", 0, "pod0", Some("set")),
            ("Delete", "Delete", 9, "set", Some("pod9")),
        ] {
            let refs: Vec<Value> = has.split_whitespace().map(reference).collect();
            let claim: ObjectMeta = serde_json::from_value(json!({"ownerReferences": refs})).unwrap();
            let found = changed(&claim, &set(deleted, scaled), &pod(ordinal), ordinal);
            let found = found.map(|all| all.iter().map(|r| r.uid.clone()).collect::<Vec<_>>().join(" "));
            assert_eq!(found.as_deref(), wants, "{deleted} {scaled} {ordinal} {has}");
        }
    }

    #[test]
    fn a_claim_that_goes_with_its_pod_is_not_the_next_ones() {
        let claim = |owner: &str| -> ObjectMeta {
            serde_json::from_value(json!({"ownerReferences": [reference(owner)]})).unwrap()
        };
        assert!(is_stale(&claim("pod1"), &set("Retain", "Delete"), "web-1"));
        assert!(!is_stale(&claim("pod2"), &set("Retain", "Delete"), "web-1"));
        assert!(!is_stale(&claim("pod1"), &set("Delete", "Retain"), "web-1"));
        assert!(!is_stale(&claim("set"), &set("Delete", "Delete"), "web-1"));
    }
}
