//! storage.k8s.io/v1. What is for the scheduler alone is stored only, which a Warning says: how many volumes a node takes, and
//! how much room a driver has.

use super::row::{CHANGED_COMPLETE, COMPLETE, COMPLETE_CHANGED, COMPLETE_TWICE, row};
use super::{ChangeOrder, Resource, columns};
use crate::{defaults, validation};

pub(super) fn rows() -> Vec<Resource> {
    let storage = |kind, plural| row("storage.k8s.io", "v1", kind, plural);
    vec![
        csi_driver(),
        storage("CSINode", "csinodes")
            .metadata_checks(COMPLETE_TWICE)
            .conditional_only()
            .returns_deleted()
            .validate(validation::csi_node)
            .validate_update(validation::csi_node_update)
            .columns(columns::csi_node())
            .cluster()
            .default(defaults::csi_node),
        storage("CSIStorageCapacity", "csistoragecapacities")
            .warnings(validation::storage_capacity_warnings)
            .metadata_checks(COMPLETE_CHANGED)
            .conditional_only()
            .validate(validation::csi_storage_capacity)
            .validate_update(validation::csi_storage_capacity_update)
            .columns(columns::created_at()),
        storage("StorageClass", "storageclasses")
            .warnings(validation::storage_class_warnings)
            .metadata_checks(COMPLETE_CHANGED)
            .returns_deleted()
            .validate(validation::storage_class)
            .validate_update(validation::storage_class_update)
            .columns(columns::storage_class())
            .cluster()
            .short(&["sc"])
            .default(defaults::storage_class),
        storage("VolumeAttachment", "volumeattachments")
            .metadata_checks(COMPLETE)
            .conditional_only()
            .returns_deleted()
            .validate(validation::volume_attachment)
            .validate_update(validation::spec_update)
            .validate_status(validation::volume_attachment_status)
            .columns(columns::volume_attachment())
            .cluster()
            .status()
            .status_alone()
            .default(defaults::volume_attachment)
            .prepare(defaults::volume_attachment_create, defaults::nothing_on_update),
        storage("VolumeAttributesClass", "volumeattributesclasses")
            .metadata_checks(CHANGED_COMPLETE)
            .returns_deleted()
            .validate(validation::volume_attributes_class)
            .validate_update(validation::volume_attributes_class_update)
            .change_order(ChangeOrder::ChangeFirst)
            .columns(columns::volume_attributes_class())
            .cluster()
            .short(&["vac"]),
    ]
}

fn csi_driver() -> Resource {
    row("storage.k8s.io", "v1", "CSIDriver", "csidrivers")
        .warnings(validation::csi_driver_warnings)
        .conditional_only()
        .returns_deleted()
        .validate(validation::csi_driver)
        .validate_update(validation::csi_driver_update)
        .columns(columns::csi_driver())
        .cluster()
        .default(defaults::csi_driver)
        .prepare(defaults::nothing, defaults::csi_driver_update)
}
