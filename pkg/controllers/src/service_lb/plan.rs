//! Which addresses a Service of type LoadBalancer has, or why it has none. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, PortStatus, Service};

use crate::meta::{self, Key};
use crate::node_lifecycle;

/// Whoever cleans up after a balancer; upstream's name, so that what waits for it in scripts works.
pub const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// A node that the autoscaler is about to take away.
const LEAVING: &str = "ToBeDeletedByClusterAutoscaler";
/// Ports that every node has for the cluster itself, beside the API server's.
const OWN: [(&str, i32); 2] = [("TCP", 10250), ("UDP", 8472)];
/// Where Services have ports at every node anyway.
const NODE_PORTS: std::ops::RangeInclusive<i32> = 30_000..=32_767;

/// Is it ours to balance? A class is another's.
pub fn is_ours(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let class = spec.and_then(|s| s.load_balancer_class.as_deref()).unwrap_or_default();
    spec.and_then(|s| s.type_.as_deref()) == Some("LoadBalancer") && class.is_empty()
}

/// Does it hold ports, or would it, were nobody in its way? One that goes holds them until it is cleaned up.
fn claims(service: &Service, api_port: u16) -> bool {
    is_ours(service)
        && reserved(service, api_port).is_none()
        && (!meta::deleting(service) || meta::has_finalizer(service, FINALIZER))
}

/// `PROTOCOL/PORT` of each port, as the index of those that want the same has it.
pub fn ports(service: &Service) -> Vec<String> {
    numbers(service)
        .map(|(protocol, port)| format!("{port}/{protocol}"))
        .collect()
}

fn numbers(service: &Service) -> impl Iterator<Item = (&str, i32)> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.map(|port| (port.protocol.as_deref().unwrap_or("TCP"), port.port))
}

/// Why no Service may have one of its ports on nodes' addresses.
fn reserved(service: &Service, api_port: u16) -> Option<String> {
    numbers(service).find_map(|(protocol, port)| {
        if (protocol, port) == ("TCP", i32::from(api_port)) {
            Some(format!("port {port}/{protocol} of nodes is the API server's"))
        } else if OWN.contains(&(protocol, port)) {
            Some(format!("port {port}/{protocol} of nodes is the nodes' own"))
        } else if NODE_PORTS.contains(&port) {
            let (first, last) = (NODE_PORTS.start(), NODE_PORTS.end());
            Some(format!(
                "port {port}/{protocol} is in the range of node ports, {first}-{last}"
            ))
        } else {
            None
        }
    })
}

/// Where a Service is reached, as its status has it.
pub fn ingress(service: &Service) -> &[LoadBalancerIngress] {
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    balancer.and_then(|b| b.ingress.as_deref()).unwrap_or_default()
}

/// Is it reached by this port already? A status that names no ports is of all.
fn serves(service: &Service, (protocol, number): (&str, i32)) -> bool {
    let all = ingress(service);
    let mut named = all.iter().flat_map(|own| own.ports.iter().flatten()).peekable();
    match named.peek() {
        Some(_) => named.any(|port| port.port == number && port.protocol == protocol),
        None => !all.is_empty(),
    }
}

/// The order in which Services get a port: who has it keeps it, whatever else comes to want it; then the older first.
fn turn(service: &Service, port: (&str, i32)) -> (bool, jiff::Timestamp, Key) {
    (!serves(service, port), meta::created(service), Key::of(service))
}

/// The one port of which a rival has more of a right, and who that is.
fn refused(service: &Service, rivals: &[&Service], api_port: u16) -> Option<String> {
    let rivals: Vec<_> = rivals.iter().filter(|rival| claims(rival, api_port)).collect();
    numbers(service).find_map(|port| {
        let own = turn(service, port);
        let wanting = rivals.iter().filter(|rival| numbers(rival).any(|other| other == port));
        let (later, _, first) = wanting
            .map(|rival| turn(rival, port))
            .min()
            .filter(|turn| *turn < own)?;
        let why = if later { "is older" } else { "has it already" };
        Some(format!("port {}/{} is of Service {first}, which {why}", port.1, port.0))
    })
}

/// What a Service comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Balanced {
    /// Where it can be reached; no node at all may be there for it.
    At(Vec<LoadBalancerIngress>),
    /// It waits for another Service, or can't be.
    Waits(String),
}

/// `rivals` are Services that share a port with this one; `near` are the nodes with a ready endpoint of it.
pub fn balanced(
    service: &Service,
    rivals: &[&Service],
    nodes: &[&Node],
    near: &BTreeSet<String>,
    api_port: u16,
) -> Balanced {
    if let Some(why) = reserved(service, api_port) {
        return Balanced::Waits(why);
    }
    if let Some(why) = refused(service, rivals, api_port) {
        return Balanced::Waits(why);
    }
    let is_local = service.spec.as_ref().and_then(|s| s.external_traffic_policy.as_deref()) == Some("Local");
    let nodes = serving(nodes)
        .into_iter()
        .filter(|node| !is_local || near.contains(meta::name(*node)));
    let mut all: Vec<IpAddr> = nodes.flat_map(|node| addresses(node, service)).collect();
    all.sort();
    all.dedup();
    let only = service
        .spec
        .as_ref()
        .and_then(|s| s.load_balancer_ip.as_deref())
        .filter(|ip| !ip.is_empty());
    if let Some(only) = only {
        all.retain(|ip| Some(*ip) == only.parse().ok());
        if all.is_empty() {
            return Balanced::Waits(format!("loadBalancerIP {only} is no address of a node that serves it"));
        }
    }
    let at = |ip: IpAddr| LoadBalancerIngress {
        ip: Some(ip.to_string()),
        ip_mode: Some("VIP".to_owned()),
        ..LoadBalancerIngress::default()
    };
    let mut all: Vec<_> = all.into_iter().map(at).collect();
    // The first says for all which ports they have: these are the same, and nodes may be many.
    if let Some(first) = all.first_mut() {
        first.ports = Some(numbers(service).map(served).collect());
    }
    Balanced::At(all)
}

fn served((protocol, port): (&str, i32)) -> PortStatus {
    PortStatus {
        port,
        protocol: protocol.to_owned(),
        error: None,
    }
}

/// The nodes that take traffic: ready ones without the label that says no. Init puts it on masters as kubeadm does: where all
/// nodes have it, they serve, since a cluster of masters alone has no others.
fn serving<'a>(nodes: &[&'a Node]) -> Vec<&'a Node> {
    let excluded = |node: &&&Node| meta::labels(**node).contains_key(EXCLUDED);
    let master = |node: &&&Node| meta::labels(**node).contains_key(CONTROL_PLANE);
    let masters_alone = nodes.iter().all(|node| excluded(&node) && master(&node));
    let usable = nodes.iter().filter(|node| is_usable(node));
    usable
        .filter(|node| masters_alone || !excluded(node))
        .copied()
        .collect()
}

fn is_usable(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    node_lifecycle::is_ready(node) && !meta::deleting(node) && !taints.any(|taint| taint.key == LEAVING)
}

/// A node's addresses of the Service's families: those that the outside knows, if it has such.
fn addresses(node: &Node, service: &Service) -> Vec<IpAddr> {
    let families = service
        .spec
        .as_ref()
        .and_then(|s| s.ip_families.as_deref())
        .unwrap_or_default();
    let wanted = |ip: &IpAddr| match families {
        [] => ip.is_ipv4(),
        families => families.iter().any(|family| (family == "IPv6") == ip.is_ipv6()),
    };
    let of = |type_: &str| -> Vec<IpAddr> {
        let all = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
        let own = all.filter(|address| address.type_ == type_);
        own.filter_map(|address| address.address.parse().ok())
            .filter(wanted)
            .collect()
    };
    match of("ExternalIP") {
        none if none.is_empty() => of("InternalIP"),
        external => external,
    }
}

/// What of a node decides which Services are reached there.
pub fn served_part(node: &Node) -> impl PartialEq + use<'_> {
    (
        is_usable(node),
        meta::labels(node).contains_key(EXCLUDED),
        meta::labels(node).contains_key(CONTROL_PLANE),
        node.status.as_ref().and_then(|s| s.addresses.as_ref()),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, created: u8, spec: Value) -> Service {
        let mut spec = spec;
        spec["type"] = "LoadBalancer".into();
        let created = format!("2026-01-01T00:00:0{created}Z");
        serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "d", "creationTimestamp": created}, "spec": spec}),
        )
        .unwrap()
    }

    fn node(name: &str, ready: &str, labels: &[&str], addresses: &[(&str, &str)]) -> Node {
        let labels: serde_json::Map<String, Value> =
            labels.iter().map(|label| ((*label).to_owned(), "".into())).collect();
        let addresses: Vec<Value> = addresses
            .iter()
            .map(|(t, a)| json!({"type": t, "address": a}))
            .collect();
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels},
            "status": {"conditions": [{"type": "Ready", "status": ready}], "addresses": addresses}}))
        .unwrap()
    }

    fn of(balanced: Balanced) -> Result<Vec<String>, String> {
        match balanced {
            Balanced::At(all) => Ok(all.into_iter().filter_map(|ingress| ingress.ip).collect()),
            Balanced::Waits(why) => Err(why),
        }
    }

    #[test]
    fn a_service_has_the_addresses_of_nodes_that_serve_it() {
        let internal = |ip| [("InternalIP", ip), ("Hostname", "x")];
        let a = node("a", "True", &[], &internal("10.0.0.1"));
        let b = node(
            "b",
            "True",
            &[],
            &[
                ("InternalIP", "10.0.0.2"),
                ("ExternalIP", "192.0.2.2"),
                ("InternalIP", "fd00::2"),
            ],
        );
        let down = node("down", "Unknown", &[], &internal("10.0.0.3"));
        let out = node("out", "True", &[EXCLUDED], &internal("10.0.0.4"));
        let master = node("master", "True", &[EXCLUDED, CONTROL_PLANE], &internal("10.0.0.5"));
        let web = json!({"ports": [{"port": 80}]});
        let with = |key: &str, value: Value| {
            let mut web = web.clone();
            web[key] = value;
            web
        };
        let none = json!({"ports": [{"port": 80}]});
        for (spec, nodes, expected) in [
            (
                none,
                vec![&a, &b, &down, &out, &master],
                Ok(vec!["10.0.0.1", "192.0.2.2"]),
            ),
            (with("ipFamilies", json!(["IPv6"])), vec![&a, &b], Ok(vec!["fd00::2"])),
            (
                with("ipFamilies", json!(["IPv4", "IPv6"])),
                vec![&b],
                Ok(vec!["192.0.2.2"]),
            ),
            (
                with("externalTrafficPolicy", json!("Local")),
                vec![&a, &b],
                Ok(vec!["10.0.0.1"]),
            ),
            (web.clone(), vec![&master], Ok(vec!["10.0.0.5"])),
            (web.clone(), vec![&master, &down], Ok(vec![])),
            (web.clone(), vec![&out], Ok(vec![])),
            (
                with("loadBalancerIP", json!("192.0.2.2")),
                vec![&a, &b],
                Ok(vec!["192.0.2.2"]),
            ),
            (
                with("loadBalancerIP", json!("192.0.2.9")),
                vec![&a, &b],
                Err("loadBalancerIP 192.0.2.9 is no address of a node that serves it"),
            ),
        ] {
            let near = BTreeSet::from(["a".to_owned()]);
            let found = of(balanced(&service("web", 1, spec.clone()), &[], &nodes, &near, 6443));
            let expected = expected.map(|all: Vec<&str>| all.into_iter().map(str::to_owned).collect());
            assert_eq!(found, expected.map_err(str::to_owned), "{spec}");
        }
    }

    fn ports(ports: &[(&str, i32)]) -> Value {
        let port = |(protocol, port): &(&str, i32)| json!({"protocol": protocol, "port": port});
        let ports: Vec<Value> = ports.iter().map(port).collect();
        json!({"ports": ports})
    }

    /// Where a Service comes to be, on one node.
    fn at(own: &Service, rivals: &[&Service]) -> Result<Vec<String>, String> {
        let node = node("a", "True", &[], &[("InternalIP", "10.0.0.1")]);
        of(balanced(own, rivals, &[&node], &BTreeSet::new(), 6443))
    }

    fn here() -> Result<Vec<String>, String> {
        Ok(vec!["10.0.0.1".to_owned()])
    }

    fn waits(why: &str) -> Result<Vec<String>, String> {
        Err(why.to_owned())
    }

    #[test]
    fn who_is_reached_by_a_port_keeps_it() {
        let held = |own: &Service, status: Value| {
            let mut own = own.clone();
            own.status = serde_json::from_value(json!({"loadBalancer": {"ingress": status}})).unwrap();
            own
        };
        let on =
            |port: i32| json!([{"ip": "10.0.0.1", "ports": [{"protocol": "TCP", "port": port}]}, {"ip": "10.0.0.2"}]);
        let own = service("own", 5, ports(&[("TCP", 80), ("TCP", 443)]));
        let older = service("older", 1, ports(&[("TCP", 443)]));
        let everywhere = held(&own, json!([{"ip": "10.0.0.1"}]));
        let at_443 = held(&own, on(443));
        assert_eq!(at(&everywhere, &[&older]), here());
        assert_eq!(at(&at_443, &[&older]), here());
        let why = "port 443/TCP is of Service d/own, which has it already";
        assert_eq!(at(&older, &[&everywhere]), waits(why));
        assert_eq!(at(&older, &[&at_443]), waits(why));
        assert_eq!(at(&held(&older, on(444)), &[&at_443]), waits(why), "by another port");
        assert_eq!(at(&older, &[&held(&own, on(80))]), here());
        assert_eq!(at(&held(&older, on(443)), &[&at_443]), here(), "both: the older");
        let Balanced::At(all) = balanced(
            &own,
            &[],
            &[&node("a", "True", &[], &[("InternalIP", "10.0.0.1")])],
            &BTreeSet::new(),
            6443,
        ) else {
            panic!("it waits")
        };
        let named: Vec<_> = all[0].ports.iter().flatten().map(|port| port.port).collect();
        assert_eq!(named, [80, 443]);
    }

    #[test]
    fn the_older_service_has_a_port_and_some_ports_nobody_has() {
        let own = service("own", 5, ports(&[("TCP", 80), ("TCP", 443)]));
        let older = service("older", 1, ports(&[("TCP", 443)]));
        assert_eq!(
            at(&own, &[&older]),
            waits("port 443/TCP is of Service d/older, which is older")
        );
        assert_eq!(at(&older, &[&own]), here());
        assert_eq!(
            at(&own, &[&service("udp", 1, ports(&[("UDP", 443)]))]),
            here(),
            "another protocol"
        );
        let twin = service("a-twin", 5, ports(&[("TCP", 80)]));
        assert_eq!(
            at(&own, &[&twin]),
            waits("port 80/TCP is of Service d/a-twin, which is older")
        );
        // What can't have its ports itself stands in nobody's way, nor does another's.
        assert_eq!(
            at(&own, &[&service("no", 1, ports(&[("TCP", 80), ("TCP", 10250)]))]),
            here()
        );
        let mut foreign = service("foreign", 1, ports(&[("TCP", 80)]));
        foreign.spec.as_mut().unwrap().load_balancer_class = Some("example.com/lb".to_owned());
        assert_eq!(at(&own, &[&foreign]), here());
        let mut going = older.clone();
        going.metadata.deletion_timestamp = Some(crate::meta::now());
        assert_eq!(at(&own, &[&going]), here(), "it is cleaned up");
        going.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        assert!(at(&own, &[&going]).is_err(), "it is not yet");
        for (protocol, port, why) in [
            ("TCP", 6443, "port 6443/TCP of nodes is the API server's"),
            ("TCP", 10250, "port 10250/TCP of nodes is the nodes' own"),
            ("UDP", 8472, "port 8472/UDP of nodes is the nodes' own"),
            (
                "TCP",
                30080,
                "port 30080/TCP is in the range of node ports, 30000-32767",
            ),
        ] {
            assert_eq!(at(&service("x", 1, ports(&[(protocol, port)])), &[]), waits(why));
        }
        assert_eq!(at(&service("x", 1, ports(&[("UDP", 6443)])), &[]), here());
    }
}
