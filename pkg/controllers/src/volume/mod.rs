//! Storage: claims find volumes, volumes are made, attached and let go.
//!
//! What the controllers share: the kinds, the annotations by which they tell each other (upstream's names, which external
//! provisioners, attachers and resizers read), and how claims and volumes are read. Objects are JSON ([`crate::rest`]): of a
//! volume's many sources nobody here asks but for one or two.

pub mod attach;
pub mod binder;
pub mod ephemeral;
pub mod expand;
pub mod local_path;

use std::fmt;

use mk8s_api::meta as object;
use mk8s_client::storage::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, CAPACITY, REQUEST, SELECTED_NODE, access_modes, attributes_class, class,
    is_block, migrated_to, phase, size, volume_name, waits_for_consumer,
};
use mk8s_client::{Index, Informer, Raw};
use serde_json::Value;

use crate::meta::{self, Key};
use crate::rest::Rest;

/// Claims.
pub const CLAIMS: Rest = Rest {
    group: "",
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
};

/// Volumes.
pub const VOLUMES: Rest = Rest {
    group: "",
    kind: "PersistentVolume",
    plural: "persistentvolumes",
};

/// Classes of volumes.
pub const CLASSES: Rest = Rest {
    group: "storage.k8s.io",
    kind: "StorageClass",
    plural: "storageclasses",
};

/// On a volume: who made it, and so deletes it.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim or a volume of a plugin that was in the tree once: the driver that does its work now.
const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
/// On a volume whose file system is still to grow: its size before.
const PRE_RESIZE_CAPACITY: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";
/// On a claim: who is asked to make its volume, as it is written now and as it was.
const PROVISIONERS: [&str; 2] = [
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
];
/// On a class: claims that name none are of it.
const DEFAULT_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// What is provided in the tree begins with it, and is not looked for outside.
const IN_TREE: &str = "kubernetes.io/";

fn has_annotation(owner: &Raw, key: &str) -> bool {
    meta::annotation(owner, key).is_some()
}

/// What is reconciled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// A claim.
    Claim(Key),
    /// A volume, by its name.
    Volume(String),
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Side::Claim(key) => write!(f, "claim {key}"),
            Side::Volume(name) => write!(f, "volume {name}"),
        }
    }
}

/// Of claims that name no class, in the index by class. No class has such a name.
const NO_CLASS: &str = "/";

/// Claims without a volume by their class.
fn by_wanted_class(claims: &Informer<Raw>) -> Index<Raw> {
    claims.index("class without volume", |claim| {
        if !volume_name(claim).is_empty() || has_annotation(claim, BIND_COMPLETED) {
            return Vec::new();
        }
        vec![class(claim).unwrap_or(NO_CLASS).to_owned()]
    })
}

const HELD: [&str; 3] = ["status", "capacity", "storage"];

/// The claim that a volume is for.
fn claim_of(volume: &Raw) -> Option<(Key, &str)> {
    let claim = object::at(&volume.value, &["spec", "claimRef"])?;
    let text = |field| object::string(claim, &[field]);
    Some((Key::new(text("namespace"), text("name")), text("uid")))
}

/// Whether a volume is for a claim: by its name, and by its uid where it has one.
fn is_for(volume: &Raw, claim: &Raw) -> bool {
    claim_of(volume).is_some_and(|(key, uid)| key == Key::of(claim) && (uid.is_empty() || uid == meta::uid(claim)))
}

/// The class of claims that name none: of several defaults the newest.
fn default_class<'a>(classes: impl IntoIterator<Item = &'a Raw>) -> Option<String> {
    let marked = |class: &&Raw| {
        DEFAULT_CLASS
            .iter()
            .any(|mark| meta::annotation(*class, mark) == Some("true"))
    };
    let newest = classes
        .into_iter()
        .filter(marked)
        .min_by_key(|class| (std::cmp::Reverse(meta::created(*class)), meta::name(*class).to_owned()));
    newest.map(|class| meta::name(class).to_owned())
}

/// Sets an annotation of an object that is to be written.
fn annotate(target: &mut Value, key: &str, value: &str) {
    object::set(target, &["metadata", "annotations", key], value);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mk8s_client::storage::CLASS_ANNOTATION;
    use serde_json::json;

    use super::*;

    pub(super) fn raw(value: Value) -> Raw {
        Raw::new(value).unwrap()
    }

    #[test]
    fn the_newest_default_is_taken_and_of_equals_the_first_by_name() {
        let class = |name: &str, created: &str, mark: &str| {
            raw(json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": {mark: "true"}}}))
        };
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let classes = [
            class("a", old, DEFAULT_CLASS[0]),
            class("c", new, DEFAULT_CLASS[1]),
            class("b", new, DEFAULT_CLASS[0]),
            class("0", new, "other"),
        ];
        assert_eq!(default_class(&classes).as_deref(), Some("b"));
        assert_eq!(default_class(&classes[..1]).as_deref(), Some("a"));
        assert_eq!(default_class(&classes[3..]), None);
    }

    #[test]
    fn a_class_of_no_name_is_a_class() {
        let claim = |spec: Value| raw(json!({"metadata": {}, "spec": spec}));
        assert_eq!(class(&claim(json!({}))), None);
        assert_eq!(class(&claim(json!({"storageClassName": ""}))), Some(""));
        let annotated =
            raw(json!({"metadata": {"annotations": {CLASS_ANNOTATION: "old"}}, "spec": {"storageClassName": "new"}}));
        assert_eq!(class(&annotated), Some("old"));
    }

    #[test]
    fn a_volume_is_for_the_claim_that_it_names() {
        let claim = raw(json!({"metadata": {"namespace": "n", "name": "c", "uid": "u"}}));
        let volume = |claim: Value| raw(json!({"metadata": {}, "spec": {"claimRef": claim}}));
        for (named, expected) in [
            (json!({"namespace": "n", "name": "c", "uid": "u"}), true),
            (json!({"namespace": "n", "name": "c"}), true),
            (json!({"namespace": "n", "name": "c", "uid": "before"}), false),
            (json!({"namespace": "m", "name": "c"}), false),
            (json!(null), false),
        ] {
            assert_eq!(is_for(&volume(named.clone()), &claim), expected, "{named}");
        }
    }
}
