//! storage.k8s.io/v1: stored, nothing acts on it yet.

use super::row::row;
use super::{Resource, Support, columns};
use crate::defaults;

pub(super) fn rows() -> Vec<Resource> {
    let storage = |kind, plural| row("storage.k8s.io", "v1", kind, plural).support(Support::StoredOnly);
    vec![
        storage("CSIDriver", "csidrivers")
            .columns(columns::csi_driver())
            .cluster()
            .generation()
            .default(defaults::csi_driver),
        storage("CSINode", "csinodes")
            .columns(columns::csi_node())
            .cluster()
            .default(defaults::csi_node),
        storage("CSIStorageCapacity", "csistoragecapacities").columns(columns::csi_storage_capacity()),
        storage("StorageClass", "storageclasses")
            .columns(columns::storage_class())
            .cluster()
            .short(&["sc"])
            .default(defaults::storage_class),
        storage("VolumeAttachment", "volumeattachments")
            .columns(columns::volume_attachment())
            .cluster()
            .status()
            .default(defaults::volume_attachment)
            .prepare(defaults::volume_attachment_create, defaults::nothing_on_update),
        storage("VolumeAttributesClass", "volumeattributesclasses")
            .columns(columns::volume_attributes_class())
            .cluster()
            .short(&["vac"]),
    ]
}
