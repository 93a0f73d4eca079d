//! What becomes of a claim, and what of a volume: pure, from what is known of both sides.

use std::sync::Arc;

use mk8s_client::Raw;

use super::super::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, CAPACITY, IN_TREE, MIGRATED_TO, PROVISIONED_BY, REQUEST, SELECTED_NODE,
    access_modes, attributes_class, claim_of, class, has_annotation, is_block, is_for, migrated_to, phase, size,
    volume_name, waits_for_consumer,
};
use crate::meta;

/// An Event: its type, reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub type_: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Told {
    fn normal(reason: &'static str, message: impl Into<String>) -> Told {
        Told {
            type_: "Normal",
            reason,
            message: message.into(),
        }
    }

    fn warning(reason: &'static str, message: impl Into<String>) -> Told {
        Told {
            type_: "Warning",
            reason,
            message: message.into(),
        }
    }
}

/// What is known around a claim.
#[derive(Default)]
pub struct AroundClaim {
    /// The volume that it names.
    pub named: Option<Arc<Raw>>,
    /// The volume that was found for it.
    pub found: Option<Arc<Raw>>,
    /// Its class, where it has one and there is one of the name.
    pub class: Option<Arc<Raw>>,
    /// The class it gets if it has none.
    pub default_class: Option<String>,
    /// Pods that use it and have no node, by name.
    pub waiting: Vec<String>,
}

/// What becomes of a claim.
#[derive(Debug, PartialEq)]
pub enum ForClaim {
    /// Nothing was found yet.
    Pending(Option<Told>),
    /// It gets the default class.
    Class(String),
    /// Both sides are written, as far as they are not.
    Bind(Arc<Raw>),
    /// Somebody outside is asked for a volume.
    Provision(String),
    /// Its class provides nothing.
    NotProvided(Told),
    /// Bound once, and not any more.
    Lost(Told),
    /// It can't be; it is tried again.
    Invalid(Told, String),
}

/// Decides about a claim.
pub fn for_claim(claim: &Raw, around: &AroundClaim) -> ForClaim {
    match (has_annotation(claim, BIND_COMPLETED), volume_name(claim)) {
        (true, "") => ForClaim::Lost(Told::warning(
            "ClaimLost",
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
        )),
        (true, _) => for_bound(claim, around),
        (false, "") => for_unbound(claim, around),
        (false, _) => for_naming(claim, around),
    }
}

fn for_bound(claim: &Raw, around: &AroundClaim) -> ForClaim {
    let Some(volume) = &around.named else {
        let why = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return ForClaim::Lost(Told::warning("ClaimLost", why));
    };
    match claim_of(volume) {
        Some((_, uid)) if uid != meta::uid(claim) => ForClaim::Lost(Told::warning(
            "ClaimMisbound",
            "Two claims are bound to the same volume, this one is bound incorrectly",
        )),
        _ => ForClaim::Bind(volume.clone()),
    }
}

/// The claim names a volume, and that is not bound to it yet.
fn for_naming(claim: &Raw, around: &AroundClaim) -> ForClaim {
    let Some(volume) = &around.named else {
        return ForClaim::Pending(None);
    };
    let name = meta::name(&**volume);
    let Some((other, _)) = claim_of(volume) else {
        return match mismatch(volume, claim) {
            None => ForClaim::Bind(volume.clone()),
            Some(why) => {
                let message = format!("Cannot bind to requested volume \"{name}\": {why}");
                ForClaim::Pending(Some(Told::warning("VolumeMismatch", message)))
            }
        };
    };
    if is_for(volume, claim) {
        return ForClaim::Bind(volume.clone());
    }
    let told = Told::warning(
        "FailedBinding",
        format!("volume \"{name}\" already bound to a different claim."),
    );
    if !has_annotation(claim, BOUND_BY_CONTROLLER) {
        return ForClaim::Pending(Some(told));
    }
    let why = format!("invalid binding of claim to volume \"{name}\": volume already claimed by \"{other}\"");
    ForClaim::Invalid(told, why)
}

/// Why a volume that a claim names does not do for it.
fn mismatch(volume: &Raw, claim: &Raw) -> Option<String> {
    let whole = |owner, path: &[&str]| size(owner, path).map_or(0, |size| size.value());
    if meta::deleting(volume) {
        return Some(format!("the volume is marked for deletion \"{}\"", meta::name(volume)));
    }
    let reasons = [
        (
            whole(volume, &CAPACITY) < whole(claim, &REQUEST),
            "requested PV is too small",
        ),
        (
            class(volume).unwrap_or_default() != class(claim).unwrap_or_default(),
            "storageClassName does not match",
        ),
        (
            attributes_class(volume) != attributes_class(claim),
            "volumeAttributesClassName does not match",
        ),
        (is_block(volume) != is_block(claim), "incompatible volumeMode"),
        (
            access_modes(claim).any(|mode| access_modes(volume).all(|own| own != mode)),
            "incompatible accessMode",
        ),
    ];
    let first = reasons.into_iter().find(|(holds, _)| *holds);
    first.map(|(_, why)| why.to_owned())
}

fn for_unbound(claim: &Raw, around: &AroundClaim) -> ForClaim {
    if let Some(volume) = &around.found {
        return ForClaim::Bind(volume.clone());
    }
    if let (None, Some(default)) = (class(claim), &around.default_class) {
        return ForClaim::Class(default.clone());
    }
    let delayed = is_delayed(around.class.as_deref());
    if delayed && !has_annotation(claim, SELECTED_NODE) {
        return ForClaim::Pending(Some(first_consumer(&around.waiting)));
    }
    match (class(claim).unwrap_or_default(), &around.class) {
        ("", _) => ForClaim::Pending(Some(Told::normal(
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set",
        ))),
        (name, None) => {
            let message = format!("storageclass.storage.k8s.io \"{name}\" not found");
            ForClaim::NotProvided(Told::warning("ProvisioningFailed", message))
        }
        (_, Some(class)) => provided(class),
    }
}

/// Whether claims of a class wait for their first consumer.
pub fn is_delayed(class: Option<&Raw>) -> bool {
    class.is_some_and(waits_for_consumer)
}

fn first_consumer(waiting: &[String]) -> Told {
    match waiting {
        [] => Told::normal(
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        ),
        [pod] => Told::normal("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        pods => Told::normal(
            "WaitForPodScheduled",
            format!("waiting for pods {} to be scheduled", pods.join(",")),
        ),
    }
}

/// Who makes the volumes of a class: a driver, never anything in the tree.
fn provided(class: &Raw) -> ForClaim {
    let provisioner = mk8s_api::meta::string(&class.value, &["provisioner"]);
    if let Some(driver) = migrated_to(provisioner) {
        return ForClaim::Provision(driver.to_owned());
    }
    if provisioner.starts_with(IN_TREE) {
        let message = format!("no volume plugin matched name: {provisioner}");
        return ForClaim::NotProvided(Told::warning("ProvisioningFailed", message));
    }
    ForClaim::Provision(provisioner.to_owned())
}

/// What becomes of a volume.
#[derive(Debug, PartialEq)]
pub enum ForVolume {
    /// Nobody's, or waiting for a claim.
    Available,
    /// All is written.
    Bound,
    /// Its claim is being bound.
    Wait,
    /// It is of another volume mode than the claim that it names: what the volume is told, and what the claim.
    Mismatch(Told, Told),
    /// The claim is gone, or has another volume: what comes after.
    Released(Reclaim),
    /// The claim has another volume: this one is to be had again.
    Unbind,
}

/// What comes of a volume whose claim is gone.
#[derive(Debug, PartialEq)]
pub enum Reclaim {
    /// It stays, or somebody else sees to it.
    Leave,
    /// Pods use what it holds still.
    Used(Told),
    /// It can't be reclaimed.
    Fail(Told),
}

/// Decides about a volume. `claim` is the claim that it is bound to, none where that is gone; `users` are pods that use a claim of
/// that name and have not ended.
pub fn for_volume(volume: &Raw, claim: Option<&Raw>, users: &[String]) -> ForVolume {
    match claim_of(volume) {
        None | Some((_, "")) => return ForVolume::Available,
        Some(_) => {}
    }
    let Some(claim) = claim else {
        return ForVolume::Released(reclaim(volume, users));
    };
    let (own, bound) = (meta::name(volume), volume_name(claim));
    if bound == own {
        return ForVolume::Bound;
    }
    if bound.is_empty() {
        return if is_block(volume) == is_block(claim) {
            ForVolume::Wait
        } else {
            let name = meta::name(claim);
            let own = format!(
                "Cannot bind PersistentVolume to requested PersistentVolumeClaim \"{name}\" due to incompatible volumeMode."
            );
            let claims = format!(
                "Cannot bind PersistentVolume \"{}\" to requested PersistentVolumeClaim due to incompatible volumeMode.",
                meta::name(volume)
            );
            ForVolume::Mismatch(
                Told::warning("VolumeMismatch", own),
                Told::warning("VolumeMismatch", claims),
            )
        };
    }
    if has_annotation(volume, PROVISIONED_BY) && policy(volume) == "Delete" {
        return ForVolume::Released(reclaim(volume, &[]));
    }
    ForVolume::Unbind
}

fn policy(volume: &Raw) -> &str {
    mk8s_api::meta::string(&volume.value, &["spec", "persistentVolumeReclaimPolicy"])
}

fn reclaim(volume: &Raw, users: &[String]) -> Reclaim {
    if meta::annotation(volume, MIGRATED_TO).is_some_and(|driver| !driver.is_empty()) {
        return Reclaim::Leave;
    }
    match policy(volume) {
        "Retain" => Reclaim::Leave,
        "Recycle" if !users.is_empty() => Reclaim::Used(Told::normal(
            "VolumeFailedRecycle",
            format!("Volume is used by pods: {}", users.join(",")),
        )),
        "Recycle" => Reclaim::Fail(Told::warning(
            "VolumeFailedRecycle",
            "No recycler plugin found for the volume!",
        )),
        "Delete" => delete(volume),
        _ => Reclaim::Fail(Told::warning(
            "VolumeUnknownReclaimPolicy",
            "Volume has unrecognized PersistentVolumeReclaimPolicy",
        )),
    }
}

/// Who made a volume deletes it; nothing in the tree does.
fn delete(volume: &Raw) -> Reclaim {
    let provisioner = meta::annotation(volume, PROVISIONED_BY).unwrap_or_default();
    let why = match provisioner {
        "" if mk8s_api::meta::at(&volume.value, &["spec", "csi"]).is_some() => return Reclaim::Leave,
        "" => format!(
            "error getting deleter volume plugin for volume \"{}\": no volume plugin matched",
            meta::name(volume)
        ),
        _ if migrated_to(provisioner).is_some() || !provisioner.starts_with(IN_TREE) => return Reclaim::Leave,
        _ => format!("no volume plugin matched name: {provisioner}"),
    };
    Reclaim::Fail(Told::warning("VolumeFailedDelete", why))
}

/// Whether a volume has been let go: it stays in its phase, whatever else is found.
pub fn is_let_go(volume: &Raw) -> bool {
    matches!(phase(volume), "Released" | "Failed")
}
