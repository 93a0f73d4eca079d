//! What one Service, or one pod with host ports, wants of the table. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    ops::RangeInclusive,
};

use ipnet::Ipv4Net;
use k8s_openapi::api::{
    core::v1::{Pod, Service, ServiceSpec},
    discovery::v1::EndpointSlice,
};
use mk8s_client::lasting_containers;

use crate::endpoints::{Endpoint, by_port, endpoints, usable};
use crate::rules::{Balancer, Dest, IDS, Key, Masquerade, Proto, Value, Verdict};

/// The node that the rules are for.
#[derive(Debug, Clone)]
pub struct Node {
    pub name: String,
    /// From the node's label topology.kubernetes.io/zone.
    pub zone: Option<String>,
    pub pod_cidr: Ipv4Net,
    pub cluster_cidr: Ipv4Net,
    /// Where Services have their addresses: the range that the cluster was made with, then those of ServiceCIDRs.
    pub service_cidrs: Vec<Ipv4Net>,
    /// Those of them in which others are too: pods, nodes, API servers, or whoever the host has a way of its own to.
    pub shared: Vec<Ipv4Net>,
    /// Answered by the node itself: its Service gets no rules.
    pub dns: Option<Ipv4Addr>,
    /// API servers, as far as the node was told; the EndpointSlice of default/kubernetes adds to them.
    pub api: BTreeSet<SocketAddrV4>,
    /// The port of this host's own API server, which is at all of its addresses.
    pub api_port: Option<u16>,
    /// Every node's.
    pub kubelet_port: u16,
    /// Handed out to one Service each, at every node's addresses.
    pub node_ports: RangeInclusive<u16>,
}

impl Node {
    /// Whether an address may be a Service's external one. What is in the cluster's own ranges is a Service's or a pod's:
    /// nobody takes it over by calling it external.
    pub fn is_external(&self, ip: Ipv4Addr) -> bool {
        self.range_of(ip).is_none()
    }

    /// Whether Services have their addresses elsewhere than before: in these ranges, with what else is in each, besides the
    /// cluster's `own`.
    pub fn has_services_in(&mut self, own: &[Ipv4Net], ranges: &BTreeMap<Ipv4Net, Option<String>>) -> bool {
        let more = || ranges.iter().filter(|(range, _)| !own.contains(range));
        let all = own.iter().chain(more().map(|(range, _)| range)).copied().collect();
        let shared = more().filter(|(_, beside)| beside.is_some()).map(|(range, _)| *range);
        let before = (
            std::mem::replace(&mut self.service_cidrs, all),
            std::mem::replace(&mut self.shared, shared.collect()),
        );
        before.0 != self.service_cidrs || before.1 != self.shared
    }

    /// The cluster's range that an address is of.
    pub fn range_of(&self, ip: Ipv4Addr) -> Option<Ipv4Net> {
        let ranges = self.service_cidrs.iter().chain([&self.cluster_cidr]);
        ranges.copied().find(|range| range.contains(&ip))
    }
}

pub type Entries = BTreeMap<Key, Value>;

/// The port at which others may ask for the Service's endpoints on this node, and how many ready ones there are.
pub fn health<'a>(
    node: &Node,
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> Option<(u16, usize)> {
    let spec = service.spec.as_ref()?;
    let is_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let is_balanced = spec.type_.as_deref() == Some("LoadBalancer");
    let port = u16::try_from(spec.health_check_node_port?).ok();
    let port = port.filter(|port| *port > 0 && is_local && is_balanced)?;
    let slices = slices.filter(|slice| slice.address_type == "IPv4");
    let endpoints = slices.flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|endpoint| {
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
        ready != Some(false) && endpoint.node_name.as_deref() == Some(&node.name)
    });
    let addresses: BTreeSet<&String> = ready.flat_map(|endpoint| &endpoint.addresses).collect();
    Some((port, addresses.len()))
}

/// Upstream's default of sessionAffinityConfig.clientIP.timeoutSeconds.
const AFFINITY_SECONDS: u32 = 10_800;

/// Elements of the table that one Service may take: some 100 MB of this process and of the kernel, and more than twenty ports of
/// five thousand endpoints need.
pub const MAX_ELEMENTS: usize = 1 << 17;

/// What a Service comes to on this node.
#[derive(Debug, Default)]
pub struct Routed {
    pub entries: Entries,
    /// The first port for which [`MAX_ELEMENTS`] leave no room: neither it nor what comes after it is served.
    pub beyond: Option<u16>,
}

/// `slices` are all those of this Service.
pub fn service<'a>(node: &Node, service: &Service, slices: impl Iterator<Item = &'a EndpointSlice> + Clone) -> Routed {
    let mut routed = Routed::default();
    let (Some(spec), Some(cluster_ip)) = (&service.spec, routed_ip(node, service)) else {
        return routed;
    };
    let exposure = Exposure::of(node, service, spec, cluster_ip);
    if let Some((port, _)) = health(node, service, slices.clone()) {
        let own = Dest::of_node(Proto::Tcp, port);
        routed.entries.insert(Key::Reserved(own), Value::Member);
    }
    let by_port = by_port(slices);
    for port in spec.ports.iter().flatten() {
        let (Some(proto), Ok(number)) = (Proto::parse(port.protocol.as_deref()), u16::try_from(port.port)) else {
            continue;
        };
        let backed = by_port.get(port.name.as_deref().unwrap_or_default());
        let all = endpoints(node, proto, backed.map(Vec::as_slice).unwrap_or_default());
        let node_port = port.node_port.and_then(|number| u16::try_from(number).ok());
        let port = Port {
            proto,
            number,
            node_port: node_port.filter(|number| *number > 0),
            cluster: usable(&all, false),
            local: usable(&all, true),
        };
        if routed.entries.len() + exposure.cost(&port) > MAX_ELEMENTS {
            routed.beyond = Some(number);
            break;
        }
        let want = Want {
            node,
            entries: &mut routed.entries,
            sticky: exposure.sticky,
        };
        exposure.port(want, &port);
    }
    routed
}

/// What is the same for all ports of a Service.
struct Exposure {
    cluster_ip: Ipv4Addr,
    internal_local: bool,
    external_local: bool,
    sticky: Option<u32>,
    externals: BTreeSet<Ipv4Addr>,
    /// Those of the externals for which `ranges` hold.
    restricted: BTreeSet<Ipv4Addr>,
    ranges: Vec<Ipv4Net>,
}

/// A port of a Service, and where it leads.
struct Port {
    proto: Proto,
    number: u16,
    node_port: Option<u16>,
    cluster: Vec<Endpoint>,
    local: Vec<Endpoint>,
}

impl Exposure {
    fn of(node: &Node, service: &Service, spec: &ServiceSpec, cluster_ip: Ipv4Addr) -> Self {
        let ranges = source_ranges(spec.load_balancer_source_ranges.as_deref().unwrap_or_default());
        let mut externals = external_ips(service);
        externals.retain(|ip| *ip != cluster_ip && node.is_external(*ip));
        let mut restricted = balancer_ips(service);
        restricted.retain(|ip| !ranges.is_empty() && externals.contains(ip));
        Self {
            cluster_ip,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            sticky: sticky(spec),
            externals,
            restricted,
            ranges,
        }
    }

    /// As many elements as [`Exposure::port`] makes at most, known before one of them is made.
    fn cost(&self, port: &Port) -> usize {
        let each = if self.sticky.is_some() { 3 } else { 1 };
        let (cluster, local) = (port.cluster.len() * each, port.local.len() * each);
        let inside = 1 + port.cluster.len() + if self.internal_local { local } else { cluster };
        let outside = cluster + if self.external_local { 3 + local } else { 1 };
        let outer = self.externals.len() + usize::from(port.node_port.is_some());
        inside + outside * outer + self.restricted.len() * (1 + self.ranges.len())
    }

    fn port(&self, mut want: Want<'_>, port: &Port) {
        let Port { cluster, local, .. } = port;
        let dest = |ip| Dest::of(ip, port.proto, port.number);
        let inner = dest(self.cluster_ip);
        let reached = if self.internal_local { local } else { cluster };
        match (reached.is_empty(), cluster.is_empty()) {
            (false, _) => want.balance(Key::Entry(inner), inner, Masquerade::Foreign, reached, false),
            (true, true) => want.member(Key::Refused(inner)),
            (true, false) => want.verdict(Key::Entry(inner), Verdict::Drop),
        }
        let external = self.externals.iter().copied().map(dest);
        let outer = external.chain(port.node_port.map(|number| Dest::of_node(port.proto, number)));
        for dest in outer {
            want.expose(dest, cluster, local, self.external_local);
            if dest.ip.is_some_and(|ip| self.restricted.contains(&ip)) {
                want.member(Key::Restricted(dest));
                for range in &self.ranges {
                    want.member(Key::Allowed(dest, *range));
                }
            }
        }
    }
}

/// The Service's own address, where this node routes it: None and ExternalName have none, DNS is the node's own, and what
/// names another proxy is that one's.
fn routed_ip(node: &Node, service: &Service) -> Option<Ipv4Addr> {
    let spec = service.spec.as_ref()?;
    let labels = service.metadata.labels.as_ref();
    let foreign = labels.is_some_and(|labels| labels.contains_key("service.kubernetes.io/service-proxy-name"));
    if foreign || spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let ip = spec.cluster_ip.as_deref()?.parse().ok()?;
    (Some(ip) != node.dns).then_some(ip)
}

/// All that the Service would have as external addresses.
fn external_ips(service: &Service) -> BTreeSet<Ipv4Addr> {
    let given = service.spec.iter().flat_map(|spec| spec.external_ips.iter().flatten());
    let mut ips = balancer_ips(service);
    ips.extend(given.filter_map(|ip| ip.parse::<Ipv4Addr>().ok()));
    ips
}

/// The external addresses of a Service that is routed here which are inside the cluster's own ranges, and so not external.
pub fn internal_ips(node: &Node, service: &Service) -> BTreeSet<Ipv4Addr> {
    let Some(cluster_ip) = routed_ip(node, service) else {
        return BTreeSet::new();
    };
    let mut ips = external_ips(service);
    ips.retain(|ip| *ip != cluster_ip && !node.is_external(*ip));
    ips
}

/// Session affinity, in seconds.
fn sticky(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref();
    let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    Some(
        seconds
            .and_then(|seconds| u32::try_from(seconds).ok())
            .unwrap_or(AFFINITY_SECONDS),
    )
}

/// The host ports of a pod on this node; nothing once it has ended.
pub fn host_ports(node: &Node, pod: &Pod) -> Entries {
    let mut entries = Entries::new();
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else {
        return entries;
    };
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let ip = status.pod_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
    let Some(pod_ip) = ip.filter(|_| !ended && spec.host_network != Some(true)) else {
        return entries;
    };
    for port in lasting_containers(spec).flat_map(|container| container.ports.iter().flatten()) {
        let number = |number: i32| u16::try_from(number).ok().filter(|number| *number > 0);
        let (Some(proto), Some(host), Some(inner)) = (
            Proto::parse(port.protocol.as_deref()),
            port.host_port.and_then(number),
            number(port.container_port),
        ) else {
            continue;
        };
        let bound = port.host_ip.as_deref().filter(|ip| !ip.is_empty());
        // What is no IPv4 address is none of those that lead to an IPv4 pod.
        let Ok(bound) = bound.map(str::parse::<Ipv4Addr>).transpose() else {
            continue;
        };
        let ip = bound.filter(|ip| !ip.is_unspecified());
        let dest = Dest { ip, proto, port: host };
        let endpoint = Endpoint {
            ip: pod_ip,
            port: inner,
            ready: true,
            draining: false,
            local: true,
            for_node: None,
            for_zone: None,
        };
        Want {
            node,
            entries: &mut entries,
            sticky: None,
        }
        .host_port(dest, endpoint);
    }
    entries
}

struct Want<'a> {
    node: &'a Node,
    entries: &'a mut Entries,
    sticky: Option<u32>,
}

impl Want<'_> {
    /// What comes to an address or a port that the world sees.
    fn expose(&mut self, dest: Dest, cluster: &[Endpoint], local: &[Endpoint], only_local: bool) {
        if cluster.is_empty() && local.is_empty() {
            return self.member(Key::Refused(dest));
        }
        if !only_local {
            return self.balance(Key::Entry(dest), dest, Masquerade::Always, cluster, false);
        }
        self.verdict(Key::Entry(dest), Verdict::PolicyLocal);
        self.balance(Key::Near(dest), dest, Masquerade::Host, cluster, false);
        if local.is_empty() {
            self.verdict(Key::Local(dest), Verdict::Drop);
        } else {
            self.balance(Key::Local(dest), dest, Masquerade::Never, local, true);
        }
    }

    /// A pod's host port.
    fn host_port(&mut self, dest: Dest, pod: Endpoint) {
        let balancer = Balancer::new(&dest, Masquerade::Host, 1, false, None).of_own_addresses();
        self.verdict(Key::Entry(dest), Verdict::Balancer(balancer));
        self.endpoints(dest, &[pod], false);
    }

    fn member(&mut self, key: Key) {
        self.entries.insert(key, Value::Member);
    }

    fn verdict(&mut self, key: Key, verdict: Verdict) {
        self.entries.insert(key, Value::Verdict(verdict));
    }

    /// `key` leads to one of `endpoints`.
    fn balance(&mut self, key: Key, dest: Dest, masquerade: Masquerade, endpoints: &[Endpoint], local: bool) {
        let balancer = Balancer::new(&dest, masquerade, endpoints.len(), local, self.sticky);
        self.verdict(key, Verdict::Balancer(balancer));
        self.endpoints(dest, endpoints, local);
    }

    fn endpoints(&mut self, dest: Dest, endpoints: &[Endpoint], local: bool) {
        let mut taken = BTreeSet::new();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let target = Value::Endpoint(endpoint.ip, endpoint.port);
            if self.sticky.is_some() {
                let id = endpoint_id(endpoint, &mut taken);
                self.entries.insert(Key::id(dest, index, local), Value::id(id));
                self.entries.extend(Key::by_id(dest, id).map(|key| (key, target)));
            } else {
                self.entries.insert(Key::endpoint(dest, index, local), target);
            }
            if self.node.pod_cidr.contains(&endpoint.ip) {
                self.member(Key::Hairpin(endpoint.ip));
            }
        }
    }
}

/// What a client's affinity remembers: follows from the endpoint, so that it stays when others come and go.
fn endpoint_id(endpoint: &Endpoint, taken: &mut BTreeSet<u32>) -> u32 {
    let [a, b, c, d] = endpoint.ip.octets();
    let [e, f] = endpoint.port.to_be_bytes();
    let hash = [a, b, c, d, e, f].iter().fold(0x811c_9dc5_u32, |h, byte| {
        (h ^ u32::from(*byte)).wrapping_mul(16_777_619)
    });
    let mut id = (hash ^ (hash >> 16)) % IDS;
    // More endpoints than ids share the last ones found; the index decides then, and affinity is as good as it gets.
    for _ in 0..IDS {
        if taken.insert(id) {
            break;
        }
        id = (id + 1) % IDS;
    }
    id
}

fn balancer_ips(service: &Service) -> BTreeSet<Ipv4Addr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|balancer| balancer.ingress.as_ref());
    ingress
        .into_iter()
        .flatten()
        // With ipMode Proxy the balancer itself sees every packet, also the cluster's own.
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
        .collect()
}

/// Without overlaps: a set of intervals holds none.
fn source_ranges(ranges: &[String]) -> Vec<Ipv4Net> {
    let parsed: Vec<Ipv4Net> = ranges
        .iter()
        .filter_map(|range| Some(range.trim().parse::<Ipv4Net>().ok()?.trunc()))
        .collect();
    Ipv4Net::aggregate(&parsed)
}

#[cfg(test)]
impl Node {
    /// Node n1, which has no API server.
    #[allow(clippy::unwrap_used)]
    pub fn example() -> Self {
        Self {
            name: "n1".into(),
            zone: Some("z1".into()),
            pod_cidr: "10.244.1.0/24".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidrs: ["10.96.0.0/16", "10.97.0.0/24"]
                .map(|range| range.parse().unwrap())
                .into(),
            shared: Vec::new(),
            dns: Some([10, 96, 0, 10].into()),
            api: BTreeSet::from(["10.0.0.1:6443".parse().unwrap()]),
            api_port: None,
            kubelet_port: 10250,
            node_ports: 30_000..=32_767,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::rules::{rebuild, transaction};

    fn node() -> Node {
        Node::example()
    }

    #[test]
    fn what_no_service_has_is_refused_where_nobody_else_is() {
        let range = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let mut node = node();
        let own = [range("10.96.0.0/16")];
        let table = |node: &Node| rebuild(node, std::iter::empty());
        let refuses = |node: &Node, range: &str| table(node).contains(&format!("ip daddr {range} ip daddr != "));
        for (more, beside, moved, refused) in [
            ("10.98.0.0/16", None, true, true),
            ("10.98.0.0/16", None, false, true),
            ("10.98.0.0/16", Some("holds a node"), true, false),
            ("10.98.0.0/16", None, true, true),
            // The cluster's own is what it was made with, whatever an object says.
            ("10.96.0.0/16", Some("holds a node"), true, true),
        ] {
            let ranges = BTreeMap::from([(range(more), beside.map(str::to_owned))]);
            assert_eq!(node.has_services_in(&own, &ranges), moved, "{more} {beside:?}");
            assert_eq!(refuses(&node, more), refused, "{more} {beside:?}");
            assert!(refuses(&node, "10.96.0.0/16"));
            // What is another Service's there is nobody's external address all the same.
            assert!(!node.is_external(range(more).hosts().next().unwrap()));
        }
        assert!(
            !refuses(&node, "10.98.0.0/16") && node.is_external([10, 98, 0, 7].into()),
            "it is gone"
        );
    }

    /// The elements as nft's words, sorted, without the hairpin set.
    fn words(spec: Json, endpoints: &[(&str, &str, Json)]) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "web", "namespace": "app"}, "spec": spec});
        if let Some(status) = object["spec"].as_object_mut().unwrap().remove("status") {
            object["status"] = status;
        }
        let service: Service = serde_json::from_value(object).unwrap();
        let endpoints: Vec<Json> = endpoints
            .iter()
            .map(|(ip, node, conditions)| json!({"addresses": [ip], "nodeName": node, "conditions": conditions}))
            .collect();
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "web-1"}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }))
        .unwrap();
        let entries = super::service(&node(), &service, [&slice].into_iter()).entries;
        let text = transaction(&node(), &Entries::new(), BTreeSet::new(), &entries);
        text.lines()
            .filter(|line| !line.contains("hairpin"))
            .map(|line| line.trim_start_matches("add element ip mk8s ").to_owned())
            .collect()
    }

    fn spec(more: Json) -> Json {
        let mut spec = json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn what_a_service_wants() {
        let ready = || json!({"ready": true});
        let a = ("10.244.1.5", "n1", ready());
        let b = ("10.244.2.6", "n2", ready());
        let gone = (
            "10.244.2.7",
            "n2",
            json!({"ready": false, "serving": false, "terminating": true}),
        );
        let drains = (
            "10.244.2.8",
            "n2",
            json!({"ready": false, "serving": true, "terminating": true}),
        );
        let node_port = json!([{"name": "http", "port": 80, "nodePort": 30080}]);
        let both_of_ip = "ip-endpoint-tcp { 10.96.0.5 . tcp . 80 . 0 : 10.244.1.5 . 8080, \
                          10.96.0.5 . tcp . 80 . 1 : 10.244.2.6 . 8080 }";
        type Case<'a> = (&'a str, Json, Vec<(&'a str, &'a str, Json)>, Vec<&'a str>);
        let cases: Vec<Case<'_>> = vec![
            (
                "cluster address",
                json!({}),
                vec![b.clone(), a.clone(), gone.clone(), drains.clone()],
                vec![both_of_ip, "ip-entry { 10.96.0.5 . tcp . 80 : goto ip-foreign-2 }"],
            ),
            (
                "no endpoints",
                json!({}),
                vec![gone.clone()],
                vec!["ip-refused { 10.96.0.5 . tcp . 80 }"],
            ),
            (
                "only draining ones",
                json!({}),
                vec![gone.clone(), drains.clone()],
                vec![
                    "ip-endpoint-tcp { 10.96.0.5 . tcp . 80 . 0 : 10.244.2.8 . 8080 }",
                    "ip-entry { 10.96.0.5 . tcp . 80 : goto ip-foreign-1 }",
                ],
            ),
            (
                "internal policy Local, none here",
                json!({"internalTrafficPolicy": "Local"}),
                vec![b.clone()],
                vec!["ip-entry { 10.96.0.5 . tcp . 80 : drop }"],
            ),
            (
                "node port",
                json!({"type": "NodePort", "ports": node_port}),
                vec![a.clone(), b.clone()],
                vec![
                    both_of_ip,
                    "ip-entry { 10.96.0.5 . tcp . 80 : goto ip-foreign-2 }",
                    "port-endpoint-tcp { tcp . 30080 . 0 : 10.244.1.5 . 8080, tcp . 30080 . 1 : 10.244.2.6 . 8080 }",
                    "port-entry { tcp . 30080 : goto port-always-2 }",
                ],
            ),
            (
                "node port, external policy Local",
                json!({"type": "NodePort", "externalTrafficPolicy": "Local", "ports": node_port}),
                vec![a.clone(), b.clone()],
                vec![
                    both_of_ip,
                    "ip-entry { 10.96.0.5 . tcp . 80 : goto ip-foreign-2 }",
                    "port-endpoint-tcp { tcp . 30080 . 0 : 10.244.1.5 . 8080, tcp . 30080 . 1 : 10.244.2.6 . 8080, \
                     tcp . 30080 . 65536 : 10.244.1.5 . 8080 }",
                    "port-entry { tcp . 30080 : goto port-policy-local }",
                    "port-local { tcp . 30080 : goto port-never-1-local }",
                    "port-near { tcp . 30080 : goto port-host-2 }",
                ],
            ),
            (
                "balancer with source ranges",
                json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/24", "192.0.2.7/32"],
                       "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}}}),
                vec![a.clone()],
                vec![
                    "allowed { 198.51.100.1 . tcp . 80 . 192.0.2.0/24 }",
                    "ip-endpoint-tcp { 10.96.0.5 . tcp . 80 . 0 : 10.244.1.5 . 8080, \
                     198.51.100.1 . tcp . 80 . 0 : 10.244.1.5 . 8080 }",
                    "ip-entry { 10.96.0.5 . tcp . 80 : goto ip-foreign-1, 198.51.100.1 . tcp . 80 : goto ip-always-1 }",
                    "restricted { 198.51.100.1 . tcp . 80 }",
                ],
            ),
            (
                "external addresses, one of them another Service's, one a pod's",
                json!({"externalIPs": ["10.96.0.1", "10.97.0.9", "10.244.2.9", "192.0.2.9"]}),
                vec![gone.clone()],
                vec!["ip-refused { 10.96.0.5 . tcp . 80, 192.0.2.9 . tcp . 80 }"],
            ),
            ("headless", json!({"clusterIP": "None"}), vec![a.clone()], vec![]),
            (
                "the node's own DNS",
                json!({"clusterIP": "10.96.0.10"}),
                vec![a.clone()],
                vec![],
            ),
        ];
        for (name, more, endpoints, wanted) in cases {
            assert_eq!(words(spec(more), &endpoints), wanted, "{name}");
        }
    }

    #[test]
    fn affinity_goes_by_id() {
        let text = words(
            spec(json!({"sessionAffinity": "ClientIP"})),
            &[("10.244.1.5", "n1", json!({}))],
        )
        .join("\n");
        assert!(
            text.contains("ip-entry { 10.96.0.5 . tcp . 80 : goto ip-foreign-1-sticky-10800 }"),
            "{text}"
        );
        assert!(
            text.contains("ip-by-id-tcp { 10.96.0.5 . tcp . 80 . 0x6d68") && text.contains("ip-id {"),
            "{text}"
        );
        assert!(!text.contains("ip-endpoint"), "{text}");
    }

    #[test]
    fn host_ports_of_a_pod() {
        let pod = |phase: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "p"},
                "spec": {"containers": [{"name": "c", "ports": [
                    {"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "10.0.0.1"},
                    {"containerPort": 9}, {"containerPort": 7, "hostPort": 7007, "hostIP": "::1"},
                    {"containerPort": 7, "hostPort": 7007, "hostIP": "nonsense"}]}],
                    // Counted for nobody by the scheduler: it would take the port of a pod that has it.
                    "initContainers": [{"name": "ends", "ports": [{"containerPort": 7, "hostPort": 7007}]},
                        {"name": "stays", "restartPolicy": "Always", "ports": [{"containerPort": 6, "hostPort": 6006}]}]},
                "status": {"phase": phase, "podIP": "10.244.1.9"},
            }))
            .unwrap()
        };
        let text = rebuild(&node(), host_ports(&node(), &pod("Running")).iter());
        for wanted in [
            "tcp . 8080 : goto port-host-1",
            "tcp . 6006 : goto port-host-1",
            "tcp . 8080 . 0 : 10.244.1.9 . 80",
            "tcp . 6006 . 0 : 10.244.1.9 . 6",
            "ip-entry { 10.0.0.1 . udp . 53 : goto ip-host-1-own }",
            "add rule ip mk8s ip-host-1-own fib daddr type != local return\n",
            "hairpin { 10.244.1.9 . 10.244.1.9 }",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert!(!text.contains("7007"), "{text}");
        assert!(host_ports(&node(), &pod("Succeeded")).is_empty());
    }

    /// A Service of 90 KB would be four million elements, some GB of every node's process.
    #[test]
    fn what_one_service_takes_is_bounded() {
        let spec = |addresses: u16, ports: u16| {
            let ip = |n: u16| format!("192.0.{}.{}", n >> 8, n & 0xff);
            let port = |n: u16| json!({"name": format!("p{n}"), "port": n, "protocol": "TCP"});
            json!({"clusterIP": "10.96.0.5", "externalIPs": (0..addresses).map(ip).collect::<Vec<_>>(),
                "ports": (1..=ports).map(port).collect::<Vec<_>>()})
        };
        let with_endpoints = |spec: Json, endpoints: u16| {
            let ports: Vec<Json> = spec["ports"].as_array().unwrap().clone();
            let endpoint = |n: u16| json!({"addresses": [format!("10.244.{}.{}", n >> 8, n & 0xff)], "nodeName": "n2"});
            let endpoints: Vec<Json> = (0..endpoints).map(endpoint).collect();
            let slice =
                json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
            let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
            let service = json!({"metadata": {"name": "s"}, "spec": spec});
            let service: Service = serde_json::from_value(service).unwrap();
            super::service(&node(), &service, [&slice].into_iter())
        };
        for (addresses, ports, endpoints, beyond) in [
            (2000, 2000, 0, Some(66)),
            (1, 1000, 100, Some(649)),
            (64, 64, 0, None),
            (0, 20, 5000, None),
        ] {
            let routed = with_endpoints(spec(addresses, ports), endpoints);
            assert_eq!(routed.beyond, beyond, "{addresses} {ports} {endpoints}");
            assert!(routed.entries.len() <= MAX_ELEMENTS);
            let reached = |port: u16| {
                let at = |key: &Key| key.dest().is_some_and(|dest| dest.port == port);
                routed.entries.keys().any(at)
            };
            // A port is served whole or not at all.
            assert!(reached(beyond.map_or(ports, |port| port - 1)) && !beyond.is_some_and(reached));
        }
    }
}
