//! networking.k8s.io and discovery.k8s.io.

use super::row::{CHANGED_COMPLETE, COMPLETE, COMPLETE_CHANGED, row};
use super::{ChangeOrder, NameRule, Resource, Support, columns};
use crate::{defaults, validation};

pub(super) fn networking() -> Vec<Resource> {
    let networking = |kind, plural| row("networking.k8s.io", "v1", kind, plural);
    vec![
        networking("IngressClass", "ingressclasses")
            .metadata_checks(CHANGED_COMPLETE)
            .validate(validation::ingress_class)
            .validate_update(validation::ingress_class_update)
            .change_order(ChangeOrder::ChangeFirst)
            .columns(columns::ingress_class())
            .default(defaults::ingress_class)
            .cluster()
            .generation()
            .support(Support::StoredOnly),
        networking("Ingress", "ingresses")
            .warnings(validation::ingress_warnings)
            .metadata_checks(CHANGED_COMPLETE)
            .validate(validation::ingress)
            .validate_status(validation::load_balancer_status)
            .columns(columns::ingress())
            .short(&["ing"])
            .default(defaults::ingress)
            .prepare(defaults::ingress_create, defaults::nothing_on_update)
            .generation()
            .status()
            .support(Support::StoredOnly),
        networking("IPAddress", "ipaddresses")
            .named(NameRule::Address)
            .metadata_checks(COMPLETE_CHANGED)
            .validate(validation::ip_address)
            .validate_update(validation::ip_address_update)
            .columns(columns::ip_address())
            .cluster()
            .short(&["ip"]),
        networking("NetworkPolicy", "networkpolicies")
            .warnings(validation::network_policy_warnings)
            .metadata_checks(COMPLETE_CHANGED)
            .validate(validation::network_policy)
            .validate_update(validation::network_policy_update)
            .columns(columns::network_policy())
            .short(&["netpol"])
            .default(defaults::network_policy)
            .generation()
            .support(Support::ReadOnly),
        networking("ServiceCIDR", "servicecidrs")
            .validate(validation::service_cidr)
            .validate_update(validation::service_cidr_update)
            .change_order(ChangeOrder::ChangeAlone)
            .columns(columns::service_cidr())
            .default(defaults::spec_and_status)
            .registers_status()
            .cluster()
            .status()
            .status_alone(),
    ]
}

pub(super) fn discovery() -> Vec<Resource> {
    vec![
        row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
            .warnings(validation::endpoint_slice_warnings)
            .metadata_checks(COMPLETE)
            .validate(validation::endpoint_slice)
            .validate_update(validation::endpoint_slice_update)
            .columns(columns::endpoint_slice())
            .generation()
            .default(defaults::endpoint_slice)
            .prepare(defaults::slice_create, defaults::slice_update),
    ]
}
