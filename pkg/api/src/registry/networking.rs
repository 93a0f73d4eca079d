//! networking.k8s.io and discovery.k8s.io.

use super::row::row;
use super::{Resource, Support, columns};
use crate::defaults;

pub(super) fn networking() -> Vec<Resource> {
    let networking = |kind, plural| row("networking.k8s.io", "v1", kind, plural);
    vec![
        networking("IngressClass", "ingressclasses")
            .columns(columns::ingress_class())
            .default(defaults::ingress_class)
            .cluster()
            .generation()
            .support(Support::StoredOnly),
        networking("Ingress", "ingresses")
            .columns(columns::ingress())
            .short(&["ing"])
            .default(defaults::ingress)
            .prepare(defaults::ingress_create, defaults::nothing_on_update)
            .generation()
            .status()
            .support(Support::StoredOnly),
        networking("IPAddress", "ipaddresses")
            .columns(columns::ip_address())
            .cluster()
            .short(&["ip"])
            .generation()
            .support(Support::StoredOnly)
            .fields(&[
                "spec.parentRef.group",
                "spec.parentRef.resource",
                "spec.parentRef.namespace",
                "spec.parentRef.name",
            ]),
        networking("NetworkPolicy", "networkpolicies")
            .columns(columns::network_policy())
            .short(&["netpol"])
            .default(defaults::network_policy)
            .generation()
            .support(Support::ReadOnly),
        networking("ServiceCIDR", "servicecidrs")
            .columns(columns::service_cidr())
            .default(defaults::spec_and_status)
            .prepare(defaults::reset_status, defaults::nothing_on_update)
            .cluster()
            .generation()
            .status()
            .support(Support::StoredOnly),
    ]
}

pub(super) fn discovery() -> Vec<Resource> {
    vec![
        row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
            .columns(columns::endpoint_slice())
            .generation()
            .default(defaults::endpoint_slice),
    ]
}
