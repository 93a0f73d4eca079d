//! Where Services have their addresses by the ServiceCIDRs, and who else is there: what a node's network and its proxy both go
//! by. Pure.

use std::collections::{BTreeMap, BTreeSet};
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

/// Of a host itself, of each of its links, of groups (RFC 6890, RFC 5771): the kernel knows where they are, without a route.
const SPECIAL: [Ipv4Net; 3] = [
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
];

/// The ranges of ServiceCIDRs, each with what else is known to be in it, in words. Who takes a range with pods or nodes in it for the
/// Services' own cuts the cluster's network. `api` is where the node reaches API servers. Of a node only its internal addresses
/// count: it writes all of them itself, and every host goes by what is said here.
pub fn service_ranges<'a>(
    objects: impl Iterator<Item = &'a Partial>,
    pods: Ipv4Net,
    api: &BTreeSet<Ipv4Addr>,
    nodes: impl Iterator<Item = &'a Node> + Clone,
) -> BTreeMap<Ipv4Net, Option<String>> {
    let ranges = objects.flat_map(Partial::cidrs::<Ipv4Net>).map(|range| range.trunc());
    let beside = |range: &Ipv4Net| {
        let overlaps = |other: &&Ipv4Net| range.contains(*other) || other.contains(range);
        if overlaps(&&pods) {
            return Some(format!("overlaps the pods' range {pods}"));
        }
        if let Some(special) = SPECIAL.iter().find(overlaps) {
            return Some(format!("overlaps {special}, which is each host's or link's own"));
        }
        let inside = nodes.clone().filter_map(|node| {
            let address = internal_addresses(node).find(|address| range.contains(address))?;
            Some((node.metadata.name.as_deref().unwrap_or_default(), address))
        });
        // The same one whatever their order, so that it is told once.
        if let Some((name, address)) = inside.min() {
            return Some(format!("holds the address {address} of node {name}"));
        }
        let api = api.iter().find(|address| range.contains(*address))?;
        Some(format!("holds the address {api} of an API server"))
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
        let api = [[192, 0, 2, 7].into()].into();
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
            (
                vec!["192.0.2.0/24"],
                vec![("192.0.2.0/24", "holds the address 192.0.2.7 of an API server")],
            ),
            (
                vec!["127.9.0.0/16", "169.254.0.0/17", "192.0.0.0/2"],
                vec![
                    (
                        "127.9.0.0/16",
                        "overlaps 127.0.0.0/8, which is each host's or link's own",
                    ),
                    (
                        "169.254.0.0/17",
                        "overlaps 169.254.0.0/16, which is each host's or link's own",
                    ),
                    (
                        "192.0.0.0/2",
                        "overlaps 224.0.0.0/4, which is each host's or link's own",
                    ),
                ],
            ),
        ] {
            let object: Partial = serde_json::from_value(json!({"spec": {"cidrs": cidrs}})).unwrap();
            let found = service_ranges([&object].into_iter(), pods, &api, nodes.iter());
            let expected = expected.into_iter().map(|(range, beside)| {
                let beside = (!beside.is_empty()).then(|| beside.to_owned());
                (range.parse().unwrap(), beside)
            });
            assert_eq!(found, expected.collect(), "{cidrs:?}");
        }
    }
}
