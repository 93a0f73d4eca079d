//! Which endpoints a port of a Service has, and which of them a packet may go to. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
};

use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};

use crate::{model::Node, rules::Proto};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: Ipv4Addr,
    pub port: u16,
    pub ready: bool,
    /// Still answers while it goes.
    pub draining: bool,
    pub local: bool,
    /// Whether its hints name this node, or this node's zone; None without such hints.
    pub for_node: Option<bool>,
    pub for_zone: Option<bool>,
}

/// A slice, and a port in it.
pub type Backed<'a> = (&'a EndpointSlice, &'a EndpointPort);

/// Where each of a Service's ports is served, by its name: a port is not looked for in every slice.
pub fn by_port<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> HashMap<&'a str, Vec<Backed<'a>>> {
    let mut all: HashMap<&str, Vec<Backed<'_>>> = HashMap::new();
    for slice in slices.filter(|slice| slice.address_type == "IPv4") {
        for port in slice.ports.iter().flatten() {
            let name = port.name.as_deref().unwrap_or_default();
            all.entry(name).or_default().push((slice, port));
        }
    }
    all
}

/// Those of one port of a Service, which is served there.
pub fn endpoints(node: &Node, proto: Proto, backed: &[Backed<'_>]) -> Vec<Endpoint> {
    let mut found: BTreeMap<(Ipv4Addr, u16), Endpoint> = BTreeMap::new();
    for (slice, port) in backed {
        let number = port.port.and_then(|number| u16::try_from(number).ok());
        if let Some(number) = number.filter(|_| Proto::parse(port.protocol.as_deref()) == Some(proto)) {
            for endpoint in &slice.endpoints {
                // All addresses of an endpoint are the same one; only the first counts, as upstream has it.
                let Some(ip) = endpoint.addresses.first().and_then(|ip| ip.parse().ok()) else {
                    continue;
                };
                let conditions = endpoint.conditions.as_ref();
                let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
                let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
                let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
                let local = endpoint.node_name.as_deref() == Some(node.name.as_str());
                let hints = endpoint.hints.as_ref();
                let nodes = hints
                    .and_then(|hints| hints.for_nodes.as_ref())
                    .filter(|nodes| !nodes.is_empty());
                let zones = hints
                    .and_then(|hints| hints.for_zones.as_ref())
                    .filter(|zones| !zones.is_empty());
                let this = Endpoint {
                    ip,
                    port: number,
                    ready,
                    draining: serving && terminating,
                    local,
                    for_node: nodes.map(|nodes| nodes.iter().any(|hint| hint.name == node.name)),
                    for_zone: zones.map(|zones| zones.iter().any(|hint| Some(&hint.name) == node.zone.as_ref())),
                };
                // In two slices while it moves between them: the better report is the newer one.
                let entry = found.entry((ip, number)).or_insert(this);
                if ready && !entry.ready {
                    *entry = this;
                }
            }
        }
    }
    found.into_values().collect()
}

/// The ready ones, of them those that their hints give to this node; where there is none, those that go but still answer.
/// A policy Local knows no hints.
pub fn usable(all: &[Endpoint], local: bool) -> Vec<Endpoint> {
    let near = all.iter().filter(|endpoint| !local || endpoint.local);
    let mut ready: Vec<Endpoint> = near.clone().filter(|endpoint| endpoint.ready).copied().collect();
    for hint in [
        |endpoint: &Endpoint| endpoint.for_node,
        |endpoint: &Endpoint| endpoint.for_zone,
    ] {
        // Hints count when every endpoint has them and one is for here.
        if !local && ready.iter().all(|e| hint(e).is_some()) && ready.iter().any(|e| hint(e) == Some(true)) {
            ready.retain(|endpoint| hint(endpoint) == Some(true));
            break;
        }
    }
    if ready.is_empty() {
        near.filter(|endpoint| endpoint.draining).copied().collect()
    } else {
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_count_when_all_have_them() {
        let endpoint = |last: u8, for_node, for_zone| Endpoint {
            ip: [10, 244, 1, last].into(),
            port: 80,
            ready: true,
            draining: false,
            local: last == 1,
            for_node,
            for_zone,
        };
        let chosen = |all: &[Endpoint]| usable(all, false).iter().map(|e| e.ip.octets()[3]).collect::<Vec<_>>();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(
            chosen(&[endpoint(1, yes, yes), endpoint(2, no, yes), endpoint(3, no, no)]),
            [1]
        );
        assert_eq!(
            chosen(&[endpoint(1, no, yes), endpoint(2, no, yes), endpoint(3, no, no)]),
            [1, 2]
        );
        assert_eq!(chosen(&[endpoint(1, None, yes), endpoint(2, None, None)]), [1, 2]);
        assert_eq!(chosen(&[endpoint(1, None, no), endpoint(2, None, no)]), [1, 2]);
        assert_eq!(usable(&[endpoint(1, no, no), endpoint(2, yes, yes)], true).len(), 1);
        assert!(chosen(&[]).is_empty());
    }
}
