//! storage.k8s.io/v1: stored, nothing acts on it yet.

use super::row::row;
use super::{Resource, Support};
use crate::defaults;

pub(super) fn rows() -> Vec<Resource> {
    let storage = |kind, plural| row("storage.k8s.io", "v1", kind, plural).support(Support::StoredOnly);
    vec![
        storage("CSIDriver", "csidrivers")
            .cluster()
            .generation()
            .default(defaults::csi_driver),
        storage("CSINode", "csinodes").cluster().default(defaults::csi_node),
        storage("CSIStorageCapacity", "csistoragecapacities"),
        storage("StorageClass", "storageclasses")
            .cluster()
            .short(&["sc"])
            .default(defaults::storage_class),
        storage("VolumeAttachment", "volumeattachments")
            .cluster()
            .status()
            .default(defaults::volume_attachment)
            .prepare(defaults::volume_attachment_create, defaults::nothing_on_update),
        storage("VolumeAttributesClass", "volumeattributesclasses")
            .cluster()
            .short(&["vac"]),
    ]
}
