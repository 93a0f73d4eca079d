//! Subsets in the one form that is theirs: as people write them, several may have the same port, and an address may be in several.
//! Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset};

/// A port, with what it is if it does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port<'a> {
    pub name: &'a str,
    pub port: i32,
    pub protocol: &'a str,
    pub app_protocol: Option<&'a str>,
}

impl<'a> Port<'a> {
    fn of(port: &'a EndpointPort) -> Self {
        Port {
            name: port.name.as_deref().unwrap_or_default(),
            port: port.port,
            protocol: port.protocol.as_deref().unwrap_or("TCP"),
            app_protocol: port.app_protocol.as_deref(),
        }
    }
}

/// Ports, and all addresses that have just these; no other subset has one of the ports.
#[derive(Debug, PartialEq)]
pub struct Packed<'a> {
    pub ports: Vec<Port<'a>>,
    /// Which of them are ready; these come first.
    pub addresses: Vec<(&'a EndpointAddress, bool)>,
}

/// Addresses by themselves and by the object they are of: two objects may have one address.
type Id<'a> = (&'a str, &'a str);

/// Whether an address is ready.
type Ready<'a> = BTreeMap<Id<'a>, bool>;

/// An address that is both ready and not has not to be trusted; of two that differ in the rest the first is taken.
pub fn repack(subsets: &[EndpointSubset]) -> Vec<Packed<'_>> {
    let mut known: BTreeMap<Id<'_>, &EndpointAddress> = BTreeMap::new();
    let mut by_port: BTreeMap<Option<Port<'_>>, Ready<'_>> = BTreeMap::new();
    for subset in subsets {
        let ports: Vec<Option<Port<'_>>> = match subset.ports.as_deref() {
            None | Some([]) => vec![None],
            Some(ports) => ports.iter().map(|port| Some(Port::of(port))).collect(),
        };
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten();
        for (address, ready) in ready.chain(unready.map(|address| (address, false))) {
            let id = id(address);
            known.entry(id).or_insert(address);
            for port in &ports {
                *by_port.entry(*port).or_default().entry(id).or_insert(ready) &= ready;
            }
        }
    }
    let packed = by_addresses(by_port).into_iter().map(|((ready, _), ports)| {
        let mut addresses: Vec<_> = ready
            .into_iter()
            .filter_map(|(id, ready)| Some((*known.get(&id)?, ready)))
            .collect();
        addresses.sort_by_key(|(_, ready)| !ready);
        Packed { ports, addresses }
    });
    packed.collect()
}

fn id(address: &EndpointAddress) -> Id<'_> {
    let uid = address.target_ref.as_ref().and_then(|target| target.uid.as_deref());
    (&address.ip, uid.unwrap_or_default())
}

/// Ports that have the same addresses are one subset's, but for those of the same name: a slice can't have two of them.
fn by_addresses<'a>(by_port: BTreeMap<Option<Port<'a>>, Ready<'a>>) -> BTreeMap<(Ready<'a>, usize), Vec<Port<'a>>> {
    let mut packed: BTreeMap<(Ready<'a>, usize), Vec<Port<'a>>> = BTreeMap::new();
    for (port, ready) in by_port {
        let mut key = (ready, 0);
        let Some(port) = port else {
            packed.entry(key).or_default();
            continue;
        };
        // In the order of ports' names: the last of a subset is the one that may have the same.
        while let Some(same) = packed.get(&key).and_then(|ports| ports.last())
            && same.name == port.name
        {
            key.1 += 1;
        }
        packed.entry(key).or_default().push(port);
    }
    packed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    /// Ports and addresses; what is not ready has an exclamation mark.
    fn repacked(subsets: Value) -> Vec<String> {
        let subsets: Vec<EndpointSubset> = serde_json::from_value(subsets).unwrap();
        let shown = repack(&subsets).into_iter().map(|packed| {
            let ports = packed.ports.iter().map(|p| format!("{}:{}", p.name, p.port));
            let addresses = packed
                .addresses
                .iter()
                .map(|(address, ready)| format!("{}{}", if *ready { "" } else { "!" }, address.ip));
            let ports: Vec<_> = ports.collect();
            let addresses: Vec<_> = addresses.collect();
            format!("{} of {}", ports.join(" "), addresses.join(" "))
        });
        shown.collect()
    }

    #[test]
    fn a_port_is_in_one_subset_and_so_are_addresses_of_the_same_ports() {
        let (a, b) = (json!({"name": "a", "port": 1}), json!({"name": "b", "port": 2}));
        let (x, y) = (json!({"ip": "1.0.0.1"}), json!({"ip": "1.0.0.2"}));
        for (subsets, expected) in [
            (json!([]), &[][..]),
            (
                json!([{"addresses": [y], "ports": [a]}, {"addresses": [x], "ports": [a]}]),
                &["a:1 of 1.0.0.1 1.0.0.2"],
            ),
            (
                json!([{"addresses": [x], "ports": [b]}, {"addresses": [x], "ports": [a]}]),
                &["a:1 b:2 of 1.0.0.1"],
            ),
            (
                json!([{"addresses": [x], "ports": [a]}, {"addresses": [x, y], "ports": [b]}]),
                &["a:1 of 1.0.0.1", "b:2 of 1.0.0.1 1.0.0.2"],
            ),
            // Ready in one subset, and not in another.
            (
                json!([{"addresses": [x, y], "ports": [a]}, {"notReadyAddresses": [x], "ports": [a]}]),
                &["a:1 of 1.0.0.2 !1.0.0.1"],
            ),
            (
                json!([{"notReadyAddresses": [x], "ports": [a]}, {"addresses": [x], "ports": [a, b]}]),
                &["a:1 of !1.0.0.1", "b:2 of 1.0.0.1"],
            ),
            (
                json!([{"addresses": [x]}, {"addresses": [y], "ports": []}]),
                &[" of 1.0.0.1 1.0.0.2"],
            ),
            // One slice can't have both, whatever else it has.
            (
                json!([{"addresses": [x], "ports": [{"port": 1}]}, {"addresses": [x], "ports": [{"port": 2}, a]}]),
                &[":1 a:1 of 1.0.0.1", ":2 of 1.0.0.1"],
            ),
        ] {
            assert_eq!(repacked(subsets.clone()), expected, "{subsets}");
        }
    }
}
