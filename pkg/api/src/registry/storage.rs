//! storage.k8s.io/v1: stored, nothing acts on it yet.

use super::row::row;
use super::{Resource, Support};

pub(super) fn rows() -> Vec<Resource> {
    let storage = |kind, plural| row("storage.k8s.io", "v1", kind, plural).support(Support::StoredOnly);
    vec![
        storage("CSIDriver", "csidrivers").cluster().generation(),
        storage("CSINode", "csinodes").cluster(),
        storage("CSIStorageCapacity", "csistoragecapacities"),
        storage("StorageClass", "storageclasses").cluster().short(&["sc"]),
        storage("VolumeAttachment", "volumeattachments").cluster().status(),
        storage("VolumeAttributesClass", "volumeattributesclasses")
            .cluster()
            .short(&["vac"]),
    ]
}
