//! How claims, volumes and their classes are read. The scheduler decides by the same words by which the storage controllers bind:
//! upstream's names, which external provisioners, attachers and resizers read too. Objects are JSON ([`Raw`]): of a volume's many
//! sources nobody asks but for one or two.

use mk8s_api::meta as object;
use mk8s_api::quantity::{self, Quantity};
use serde_json::Value;

use crate::raw::Raw;

/// On a claim: both sides of the binding have been written once.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or a volume: the binder chose the other side, and may undo that.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim: the node that its first pod will run on, by the scheduler.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Where a class stood before there was a field.
pub const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Where a volume has its size.
pub const CAPACITY: [&str; 3] = ["spec", "capacity", "storage"];
/// Where a claim has the size that it asks for.
pub const REQUEST: [&str; 4] = ["spec", "resources", "requests", "storage"];

/// Plugins of the tree whose work a driver does now: upstream has taken them out.
const MIGRATED: [(&str, &str); 7] = [
    ("kubernetes.io/aws-ebs", "ebs.csi.aws.com"),
    ("kubernetes.io/azure-disk", "disk.csi.azure.com"),
    ("kubernetes.io/azure-file", "file.csi.azure.com"),
    ("kubernetes.io/cinder", "cinder.csi.openstack.org"),
    ("kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
    ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
    ("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
];

/// The driver that does a plugin's work.
pub fn migrated_to(plugin: &str) -> Option<&'static str> {
    let own = MIGRATED.iter().find(|(old, _)| *old == plugin);
    own.map(|(_, driver)| *driver)
}

/// An annotation of an object.
pub fn annotation<'a>(owner: &'a Raw, key: &str) -> Option<&'a str> {
    Some(owner.metadata.annotations.as_ref()?.get(key)?)
}

/// The class of a claim or volume; none: it names none, which is not the class of no name.
pub fn class(owner: &Raw) -> Option<&str> {
    let annotated = annotation(owner, CLASS_ANNOTATION);
    annotated.or_else(|| object::str_at(&owner.value, &["spec", "storageClassName"]))
}

/// The volume that a claim names; empty: none.
pub fn volume_name(claim: &Raw) -> &str {
    object::string(&claim.value, &["spec", "volumeName"])
}

/// The phase of a claim or volume.
pub fn phase(owner: &Raw) -> &str {
    object::string(&owner.value, &["status", "phase"])
}

/// A size, where there is one that reads.
pub fn size(owner: &Raw, path: &[&str]) -> Option<Quantity> {
    quantity::from_json(object::at(&owner.value, path)?).ok()
}

/// Whether a claim or volume is a device, not a file system.
pub fn is_block(owner: &Raw) -> bool {
    object::string(&owner.value, &["spec", "volumeMode"]) == "Block"
}

/// The access modes of a claim or volume.
pub fn access_modes(owner: &Raw) -> impl Iterator<Item = &str> {
    let modes = object::items(&owner.value, &["spec", "accessModes"]);
    modes.iter().filter_map(Value::as_str)
}

/// The VolumeAttributesClass of a claim or volume; empty: none.
pub fn attributes_class(owner: &Raw) -> &str {
    object::string(&owner.value, &["spec", "volumeAttributesClassName"])
}

/// Whether a class's claims are bound when their first pod has its node.
pub fn waits_for_consumer(class: &Raw) -> bool {
    object::string(&class.value, &["volumeBindingMode"]) == "WaitForFirstConsumer"
}
