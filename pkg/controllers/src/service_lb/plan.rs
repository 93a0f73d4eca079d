//! Which addresses a Service of type LoadBalancer has, or why it has none. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, Service};

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

/// Does it hold ports, or would it, were nobody older in its way? One that goes holds them until it is cleaned up.
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

/// The order in which Services get ports: the older first.
fn age(service: &Service) -> (jiff::Timestamp, Key) {
    (meta::created(service), Key::of(service))
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
    let wanted: BTreeSet<_> = numbers(service).collect();
    let mut older: Vec<_> = rivals
        .iter()
        .filter(|rival| age(rival) < age(service) && claims(rival, api_port))
        .collect();
    older.sort_by_key(|rival| age(rival));
    for rival in older {
        if let Some((protocol, port)) = numbers(rival).find(|port| wanted.contains(port)) {
            return Balanced::Waits(format!(
                "port {port}/{protocol} is of Service {}, which is older",
                Key::of(*rival)
            ));
        }
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
    let ingress = |ip: IpAddr| LoadBalancerIngress {
        ip: Some(ip.to_string()),
        ip_mode: Some("VIP".to_owned()),
        ..LoadBalancerIngress::default()
    };
    Balanced::At(all.into_iter().map(ingress).collect())
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

    #[test]
    fn the_older_service_has_a_port_and_some_ports_nobody_has() {
        let node = node("a", "True", &[], &[("InternalIP", "10.0.0.1")]);
        let ports = |ports: &[(&str, i32)]| {
            let ports: Vec<Value> = ports
                .iter()
                .map(|(protocol, port)| json!({"protocol": protocol, "port": port}))
                .collect();
            json!({"ports": ports})
        };
        let at = |own: &Service, rivals: &[&Service]| of(balanced(own, rivals, &[&node], &BTreeSet::new(), 6443));
        let here: Result<Vec<String>, String> = Ok(vec!["10.0.0.1".to_owned()]);
        let own = service("own", 5, ports(&[("TCP", 80), ("TCP", 443)]));
        let waits = |why: &str| Err::<Vec<String>, String>(why.to_owned());
        let older = service("older", 1, ports(&[("TCP", 443)]));
        assert_eq!(
            at(&own, &[&older]),
            waits("port 443/TCP is of Service d/older, which is older")
        );
        assert_eq!(at(&older, &[&own]), here);
        assert_eq!(
            at(&own, &[&service("udp", 1, ports(&[("UDP", 443)]))]),
            here,
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
            here
        );
        let mut foreign = service("foreign", 1, ports(&[("TCP", 80)]));
        foreign.spec.as_mut().unwrap().load_balancer_class = Some("example.com/lb".to_owned());
        assert_eq!(at(&own, &[&foreign]), here);
        let mut going = older.clone();
        going.metadata.deletion_timestamp = Some(crate::meta::now());
        assert_eq!(at(&own, &[&going]), here, "it is cleaned up");
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
        assert_eq!(at(&service("x", 1, ports(&[("UDP", 6443)])), &[]), here);
    }
}
