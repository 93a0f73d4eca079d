//! Where Services have their addresses by the ServiceCIDRs, and who else is there: what a node's network and its proxy both go
//! by. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Node, NodeAddress};

use crate::partial::Partial;

fn addresses(node: &Node) -> impl Iterator<Item = &NodeAddress> {
    let status = node.status.iter();
    status.flat_map(|status| status.addresses.iter().flatten())
}

/// Those of a node that are IPv4.
pub fn node_addresses(node: &Node) -> impl Iterator<Item = Ipv4Addr> {
    addresses(node).filter_map(|address| address.address.parse().ok())
}

/// Those at which nodes reach each other.
pub fn internal_addresses(node: &Node) -> impl Iterator<Item = Ipv4Addr> {
    let internal = addresses(node).filter(|address| address.type_ == "InternalIP");
    internal.filter_map(|address| address.address.parse().ok())
}

/// The ranges of ServiceCIDRs, each with what else is known to be in it, in words. Who takes a range with pods or nodes in it for the
/// Services' own cuts the cluster's network. Of a node only its internal addresses count: it writes all of them itself, and every
/// host goes by what is said here.
pub fn service_ranges<'a>(
    objects: impl Iterator<Item = &'a Partial>,
    pods: Ipv4Net,
    nodes: impl Iterator<Item = &'a Node> + Clone,
) -> BTreeMap<Ipv4Net, Option<String>> {
    let ranges = objects.flat_map(Partial::cidrs::<Ipv4Net>).map(|range| range.trunc());
    let beside = |range: &Ipv4Net| {
        if range.contains(&pods) || pods.contains(range) {
            return Some(format!("overlaps the pods' range {pods}"));
        }
        let inside = nodes.clone().filter_map(|node| {
            let address = internal_addresses(node).find(|address| range.contains(address))?;
            Some((node.metadata.name.as_deref().unwrap_or_default(), address))
        });
        // The same one whatever their order, so that it is told once.
        let (name, address) = inside.min()?;
        Some(format!("holds the address {address} of node {name}"))
    };
    ranges.map(|range| (range, beside(&range))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn ranges_and_who_else_is_in_them() {
        let node = |name: &str, address: &str| -> Node {
            let addresses = json!([{"type": "Hostname", "address": name}, {"type": "ExternalIP", "address": "10.98.0.1"},
                {"type": "InternalIP", "address": address}]);
            serde_json::from_value(json!({"metadata": {"name": name}, "status": {"addresses": addresses}})).unwrap()
        };
        let nodes = [node("a", "fd00::1"), node("c", "10.9.0.6"), node("b", "10.9.0.7")];
        let pods = "10.244.0.0/16".parse().unwrap();
        for (cidrs, expected) in [
            (vec!["10.98.0.0/16"], vec![("10.98.0.0/16", "")]),
            (vec!["fd00::/112", "x"], vec![]),
            (
                vec!["10.244.7.0/24", "fd00::/112"],
                vec![("10.244.7.0/24", "overlaps the pods' range 10.244.0.0/16")],
            ),
            (
                vec!["10.0.0.0/8"],
                vec![("10.0.0.0/8", "overlaps the pods' range 10.244.0.0/16")],
            ),
            (
                vec!["10.9.0.0/24"],
                vec![("10.9.0.0/24", "holds the address 10.9.0.7 of node b")],
            ),
        ] {
            let object: Partial = serde_json::from_value(json!({"spec": {"cidrs": cidrs}})).unwrap();
            let found = service_ranges([&object].into_iter(), pods, nodes.iter());
            let expected = expected.into_iter().map(|(range, beside)| {
                let beside = (!beside.is_empty()).then(|| beside.to_owned());
                (range.parse().unwrap(), beside)
            });
            assert_eq!(found, expected.collect(), "{cidrs:?}");
        }
    }
}
