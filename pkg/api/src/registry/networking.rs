//! networking.k8s.io and discovery.k8s.io.

use super::row::row;
use super::{Resource, Support};

pub(super) fn networking() -> Vec<Resource> {
    let networking = |kind, plural| row("networking.k8s.io", "v1", kind, plural);
    vec![
        networking("IngressClass", "ingressclasses")
            .cluster()
            .generation()
            .support(Support::StoredOnly),
        networking("Ingress", "ingresses")
            .short(&["ing"])
            .generation()
            .status()
            .support(Support::StoredOnly),
        networking("IPAddress", "ipaddresses")
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
            .short(&["netpol"])
            .generation()
            .support(Support::ReadOnly),
        networking("ServiceCIDR", "servicecidrs")
            .cluster()
            .generation()
            .status()
            .support(Support::StoredOnly),
    ]
}

pub(super) fn discovery() -> Vec<Resource> {
    vec![row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices").generation()]
}
