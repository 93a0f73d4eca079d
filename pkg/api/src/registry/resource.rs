//! resource.k8s.io/v1 (dynamic resource allocation). Claims are made of templates, and given back, by a controller; the scheduler gives
//! them devices, which drivers publish as slices and administrators put into classes.

use super::row::{COMPLETE_CHANGED, row};
use super::{ChangeOrder, Resource, columns, gates};
use crate::{defaults, validation};

pub(super) fn rows() -> Vec<Resource> {
    let dra = |kind, plural| row("resource.k8s.io", "v1", kind, plural);
    vec![
        dra("DeviceClass", "deviceclasses")
            .gates(gates::DEVICE_CLASSES)
            .metadata_checks(COMPLETE_CHANGED)
            .returns_deleted()
            .validate(validation::device_class)
            .cluster()
            .generation()
            .default(defaults::spec_only),
        dra("ResourceClaim", "resourceclaims")
            .gates(gates::CLAIMS)
            .metadata_checks(COMPLETE_CHANGED)
            .returns_deleted()
            .validate(validation::resource_claim)
            .validate_status(validation::resource_claim_status)
            .preparing_status(validation::forget_devices)
            .validate_update(validation::spec_update)
            .change_order(ChangeOrder::ChangeAlone)
            .columns(columns::resource_claim())
            .status()
            .status_alone()
            .default(defaults::resource_claim)
            .prepare(defaults::reset_status, defaults::nothing_on_update),
        dra("ResourceClaimTemplate", "resourceclaimtemplates")
            .gates(gates::CLAIM_TEMPLATES)
            .metadata_checks(COMPLETE_CHANGED)
            .returns_deleted()
            .validate(validation::resource_claim_template)
            .validate_update(validation::spec_update)
            .default(defaults::resource_claim_template),
        dra("ResourceSlice", "resourceslices")
            .warnings(validation::resource_slice_warnings)
            .gates(gates::RESOURCE_SLICES)
            .returns_deleted()
            .validate(validation::resource_slice)
            .validate_update(validation::resource_slice_update)
            .change_order(ChangeOrder::ChangeAlone)
            .columns(columns::resource_slice())
            .cluster()
            .generation()
            .fields(&["spec.nodeName", "spec.driver"]),
    ]
}
