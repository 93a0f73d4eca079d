//! Addresses and ports that the control plane and the nodes need for themselves. Whoever may write a Service, or a pod with
//! host ports, in one namespace would otherwise take the API server away from the whole cluster. Pure.
//!
//! kube-proxy, while it still opened a Service's ports on its node, left out those that something listened on already; since
//! then an external address takes whatever it names (CVE-2020-8554). Here the cluster's own parts keep theirs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddrV4,
};

use k8s_openapi::api::{
    core::v1::{self as api, Service},
    discovery::v1::EndpointSlice,
};
use mk8s_client::node_addresses;
use mk8s_network::names::VXLAN_PORT;

use crate::{
    model::{self, Entries, Node},
    rules::{Dest, Key, Proto, Value},
};

/// The Service (NAMESPACE/NAME) whose endpoints are the API servers.
pub const API_SERVICE: &str = "default/kubernetes";
/// Conflicts that one event names; there may be thousands.
const NAMED: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Holder {
    Api,
    /// By its name.
    Node(String),
}

/// Who has what, as this node sees it: without an address, at all addresses of this node, also those that its Node object
/// does not name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserved(BTreeMap<Dest, Holder>);

fn api_servers(slice: &EndpointSlice) -> impl Iterator<Item = SocketAddrV4> {
    let ports = || {
        slice
            .ports
            .iter()
            .flatten()
            .filter_map(|port| port.port?.try_into().ok())
    };
    let ips = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    let ips = ips.filter_map(|ip| ip.parse().ok());
    ips.flat_map(move |ip| ports().map(move |port| SocketAddrV4::new(ip, port)))
}

impl Reserved {
    /// `api_slices` are those of [`API_SERVICE`].
    pub fn of<'a>(
        node: &Node,
        nodes: impl Iterator<Item = &'a api::Node>,
        api_slices: impl Iterator<Item = &'a EndpointSlice>,
    ) -> Self {
        let agent = [(Proto::Tcp, node.kubelet_port), (Proto::Udp, VXLAN_PORT)];
        let mut all = BTreeMap::new();
        let mut hold = |dest, holder| all.insert(dest, holder);
        for other in nodes {
            let name = other.metadata.name.clone().unwrap_or_default();
            for ip in node_addresses(other) {
                for (proto, port) in agent {
                    hold(Dest::of(ip, proto, port), Holder::Node(name.clone()));
                }
            }
        }
        for (proto, port) in agent {
            hold(Dest::of_node(proto, port), Holder::Node(node.name.clone()));
        }
        if let Some(port) = node.api_port {
            hold(Dest::of_node(Proto::Tcp, port), Holder::Api);
        }
        for api in node.api.iter().copied().chain(api_slices.flat_map(api_servers)) {
            hold(Dest::of(*api.ip(), Proto::Tcp, api.port()), Holder::Api);
        }
        Self(all)
    }

    /// Those that nobody of the cluster has: no other is held open.
    pub fn unreserved(&self, mut all: BTreeSet<Dest>) -> BTreeSet<Dest> {
        let anywhere = |dest: &Dest| Dest::of_node(dest.proto, dest.port);
        all.retain(|dest| !self.0.contains_key(dest) && !self.0.contains_key(&anywhere(dest)));
        all
    }

    pub fn entries(&self) -> Entries {
        let keys = self.0.keys().copied().map(Key::Reserved);
        keys.map(|key| (key, Value::Member)).collect()
    }

    /// What a Service asks for and does not get, where it is this node that says so: of its own addresses, and on the API
    /// server's host of all that is no node's. So a Service is told once, and not by every node.
    pub fn conflict_of_service(&self, node: &Node, service: &Service, entries: &Entries) -> Option<String> {
        let speaks_for = |holder: &Holder| match holder {
            Holder::Api => node.api_port.is_some(),
            Holder::Node(name) => *name == node.name,
        };
        let held = destinations(entries)
            .into_iter()
            .filter_map(|dest| Some((dest, self.0.get(&dest)?)))
            .filter(|(_, holder)| speaks_for(holder));
        let mut conflicts: Vec<String> = held.map(|(dest, holder)| holds(holder, &dest)).collect();
        if node.api_port.is_some() {
            let inside = model::internal_ips(node, service).into_iter();
            let inside = inside.filter_map(|ip| Some((ip, node.range_of(ip)?)));
            conflicts.extend(inside.map(|(ip, range)| format!("{ip} is in the cluster's own range {range}")));
        }
        told(&conflicts, "the Service does not get what is sent there")
    }

    /// What a pod of this node asks for and does not get.
    pub fn conflict_of_pod(&self, entries: &Entries) -> Option<String> {
        let held = destinations(entries).into_iter().filter_map(|dest| {
            // Every address that a host port names is this node's.
            let holder = self.0.get(&Dest::of_node(dest.proto, dest.port))?;
            Some(holds(holder, &dest))
        });
        told(&held.collect::<Vec<_>>(), "the pod does not get what is sent there")
    }
}

fn destinations(entries: &Entries) -> BTreeSet<Dest> {
    let dest = |key: &Key| match key {
        Key::Entry(dest) | Key::Refused(dest) => Some(*dest),
        _ => None,
    };
    entries.keys().filter_map(dest).collect()
}

fn holds(holder: &Holder, dest: &Dest) -> String {
    let of = dest.ip.map_or(String::new(), |ip| format!(" of {ip}"));
    let holder = match holder {
        Holder::Api => "the API server's",
        Holder::Node(name) => &format!("node {name}'s own"),
    };
    format!("port {}/{}{of} is {holder}", dest.port, dest.proto)
}

fn told(conflicts: &[String], outcome: &str) -> Option<String> {
    let named = conflicts.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = match conflicts.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!conflicts.is_empty()).then(|| format!("{named}{more}: {outcome}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value as Json, json};

    use super::*;

    fn reserved(node: &Node) -> Reserved {
        let nodes: Vec<api::Node> = [("n1", "10.0.0.2"), ("n2", "10.0.0.3")]
            .map(|(name, ip)| {
                let status = json!({"addresses": [{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}]});
                serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap()
            })
            .into();
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "kubernetes"}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.9"]}], "ports": [{"name": "https", "port": 7443, "protocol": "TCP"}],
        }))
        .unwrap();
        Reserved::of(node, nodes.iter(), [slice].iter())
    }

    fn master() -> Node {
        Node {
            api_port: Some(6443),
            ..Node::example()
        }
    }

    #[test]
    fn is_what_the_cluster_listens_on() {
        let keys = |node: &Node| reserved(node).0.keys().map(ToString::to_string).collect::<Vec<_>>();
        let mut wanted = vec![
            "tcp . 10250",
            "udp . 8472",
            "10.0.0.1 . tcp . 6443",
            "10.0.0.2 . tcp . 10250",
            "10.0.0.2 . udp . 8472",
            "10.0.0.3 . tcp . 10250",
            "10.0.0.3 . udp . 8472",
            "10.0.0.9 . tcp . 7443",
        ];
        assert_eq!(keys(&Node::example()), wanted);
        wanted.insert(0, "tcp . 6443");
        assert_eq!(keys(&master()), wanted);
    }

    fn of_service(node: &Node, spec: Json, status: Json) -> Option<String> {
        let mut object = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.5"}, "status": status});
        object["spec"]
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let service: Service = serde_json::from_value(object).unwrap();
        let entries = model::service(node, &service, std::iter::empty()).entries;
        reserved(node).conflict_of_service(node, &service, &entries)
    }

    #[test]
    fn one_node_tells_the_service() {
        let spec = json!({"externalIPs": ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.96.0.1", "10.244.1.7", "192.0.2.1"],
            "ports": [{"name": "a", "port": 6443}, {"name": "b", "port": 10250}]});
        assert_eq!(
            of_service(&master(), spec.clone(), Json::Null).as_deref(),
            Some(
                "port 6443/tcp of 10.0.0.1 is the API server's, port 10250/tcp of 10.0.0.2 is node n1's own, \
                 10.96.0.1 is in the cluster's own range 10.96.0.0/16, 10.244.1.7 is in the cluster's own range \
                 10.244.0.0/16: the Service does not get what is sent there"
            )
        );
        assert_eq!(
            of_service(&Node::example(), spec, Json::Null).as_deref(),
            Some("port 10250/tcp of 10.0.0.2 is node n1's own: the Service does not get what is sent there")
        );
        let balanced = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.2"}]}});
        let ports = json!({"type": "LoadBalancer", "ports": [{"port": 8472, "protocol": "UDP"}]});
        assert!(
            of_service(&master(), ports, balanced)
                .unwrap()
                .starts_with("port 8472/udp of 10.0.0.2 ")
        );
        // Other ports of these addresses are anybody's.
        let others = json!({"externalIPs": ["10.0.0.1", "10.0.0.2"], "ports": [{"port": 443}]});
        assert_eq!(of_service(&master(), others, Json::Null), None);
        let many: Vec<String> = (1..=9).map(|n| format!("10.96.1.{n}")).collect();
        let many = of_service(
            &master(),
            json!({"externalIPs": many, "ports": [{"port": 1}]}),
            Json::Null,
        )
        .unwrap();
        assert!(
            many.contains("10.96.1.4 ") && !many.contains("10.96.1.5 ") && many.contains(" and 5 more: "),
            "{many}"
        );
    }

    #[test]
    fn a_pod_is_told_of_the_nodes_own_ports() {
        let told = |node: &Node, port: Json| {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {"podIP": "10.244.1.9"},
                "spec": {"containers": [{"name": "c", "ports": [port]}]}}))
            .unwrap();
            reserved(node).conflict_of_pod(&model::host_ports(node, &pod))
        };
        let api = json!({"containerPort": 80, "hostPort": 6443});
        assert_eq!(
            told(&master(), api.clone()).as_deref(),
            Some("port 6443/tcp is the API server's: the pod does not get what is sent there")
        );
        assert_eq!(
            told(&Node::example(), api),
            None,
            "where no API server is, its port is free"
        );
        let kubelet = json!({"containerPort": 80, "hostPort": 10250, "hostIP": "192.0.2.1"});
        assert_eq!(
            told(&Node::example(), kubelet).as_deref(),
            Some("port 10250/tcp of 192.0.2.1 is node n1's own: the pod does not get what is sent there")
        );
    }
}
