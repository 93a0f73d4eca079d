//! resource.k8s.io/v1 (dynamic resource allocation): stored, nothing acts on it yet.

use super::row::row;
use super::{Resource, Support};

pub(super) fn rows() -> Vec<Resource> {
    let dra = |kind, plural| row("resource.k8s.io", "v1", kind, plural).support(Support::StoredOnly);
    vec![
        dra("DeviceClass", "deviceclasses").cluster().generation(),
        dra("ResourceClaim", "resourceclaims").status(),
        dra("ResourceClaimTemplate", "resourceclaimtemplates"),
        dra("ResourceSlice", "resourceslices")
            .cluster()
            .generation()
            .fields(&["spec.nodeName", "spec.driver"]),
    ]
}
