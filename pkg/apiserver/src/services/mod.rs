//! Cluster addresses and node ports of Services (<https://kubernetes.io/docs/reference/networking/virtual-ips/>): what a
//! Service needs, what it keeps, what it gives back. Who holds what is in objects of their own: see `claims`.

mod claims;
mod leaks;
mod ranges;
mod repair;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use mk8s_api::meta;
use mk8s_api::registry::Resource;
use mk8s_api::service_cidr::gives;
use mk8s_api::status::{FieldError, Status};
use mk8s_api::validation::{self, Errors};
use mk8s_store::Op;
use serde_json::{Value, json};

use crate::watch_cache::Cache;
use claims::{Claim, Holders};
use ranges::Ranges;

pub use leaks::run as clean;
pub use repair::{missing, run as repair};

pub struct Services {
    ranges: Ranges,
    ports: RangeInclusive<u16>,
    holders: Holders,
}

fn type_of(service: &Value) -> &str {
    meta::str_at(service, &["spec", "type"]).unwrap_or("ClusterIP")
}

fn is_headless(service: &Value) -> bool {
    meta::string(service, &["spec", "clusterIP"]) == "None"
        || meta::items(service, &["spec", "clusterIPs"])
            .first()
            .is_some_and(|first| first == "None")
}

fn needs_address(service: &Value) -> bool {
    type_of(service) != "ExternalName"
}

fn needs_node_ports(service: &Value) -> bool {
    match type_of(service) {
        "NodePort" => true,
        "LoadBalancer" => meta::bool_at(service, &["spec", "allocateLoadBalancerNodePorts"]) != Some(false),
        _ => false,
    }
}

fn needs_health_port(service: &Value) -> bool {
    type_of(service) == "LoadBalancer" && meta::string(service, &["spec", "externalTrafficPolicy"]) == "Local"
}

/// Of clusterIPs no more than validation lets pass, one for each family.
fn addresses_of(service: &Value) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let single = meta::at(service, &["spec", "clusterIP"]);
    let several = meta::items(service, &["spec", "clusterIPs"]).iter().take(2);
    for value in several.chain(single) {
        if let Some(address) = value.as_str().and_then(|text| text.parse().ok())
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

fn port_at(value: &Value, path: &[&str]) -> Option<u16> {
    let port = meta::i64_at(value, path)?;
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn ports_of(service: &Value) -> HashSet<u16> {
    meta::items(service, &["spec", "ports"])
        .iter()
        .filter_map(|port| port_at(port, &["nodePort"]))
        .chain(port_at(service, &["spec", "healthCheckNodePort"]))
        .collect()
}

/// What one write of a Service takes.
#[derive(Default)]
struct Wanted {
    claims: HashSet<Claim>,
    errors: Errors,
    /// Nothing will be written: what is named is not looked for, and an address that is not is shown as upstream shows it,
    /// as the range's first.
    dry: bool,
}

/// Who has a node port already, by what may be shared: of each the first protocol, and the first that is another one.
#[derive(Default)]
struct Taken {
    by_number: HashMap<i64, Vec<(String, u16)>>,
    by_node_port: HashMap<u16, Vec<(String, u16)>>,
}

impl Taken {
    /// The node port that a port shares with one of another protocol: the one it names, or that of the same number.
    fn shared(&self, number: i64, protocol: &str, named: Option<u16>) -> Option<u16> {
        let users = match named {
            Some(named) => self.by_node_port.get(&named),
            None => self.by_number.get(&number),
        };
        let other = users?.iter().find(|(used, _)| used != protocol)?;
        Some(other.1)
    }

    fn add(&mut self, number: i64, protocol: &str, node_port: u16) {
        let by_number = self.by_number.entry(number).or_default();
        for users in [by_number, self.by_node_port.entry(node_port).or_default()] {
            // A third tells nothing new: whoever asks differs from one of the two.
            if users.len() < 2 && users.iter().all(|(used, _)| used != protocol) {
                users.push((protocol.to_string(), node_port));
            }
        }
    }
}

impl Services {
    /// None where the cache has no kinds for addresses and ports.
    pub fn new(cidr: IpNet, ports: RangeInclusive<u16>, cache: &Cache) -> Option<Services> {
        let (ranges, holders) = (Ranges::new(cidr, cache)?, Holders::new(cache)?);
        Some(Services { ranges, ports, holders })
    }

    /// Chooses what a new Service needs; what is to be written with it.
    pub fn on_create(&self, service: &mut Value, dry: bool) -> Result<Vec<Op>, Status> {
        let mut wanted = Wanted {
            dry,
            ..Wanted::default()
        };
        self.families(service, &mut wanted.errors);
        if wanted.errors.is_empty() {
            self.want_address(service, &mut wanted);
        }
        if wanted.errors.is_empty() {
            self.want_ports(service, &HashSet::new(), &mut wanted);
        }
        self.written(service, wanted)
    }

    /// The same for a changed one: what it takes, and what it gives back.
    pub fn on_update(&self, new: &mut Value, old: &Value) -> Result<Vec<Op>, Status> {
        carry_over(new, old);
        let mut wanted = Wanted::default();
        self.families(new, &mut wanted.errors);
        let own = addresses_of(new);
        // An address that changes hands is validation's to refuse; one that is new is taken here.
        let had = needs_address(old);
        if wanted.errors.is_empty() && needs_address(new) && (!had || (own.is_empty() && !is_headless(new))) {
            self.want_address(new, &mut wanted);
        }
        if wanted.errors.is_empty() {
            self.want_ports(new, &ports_of(old), &mut wanted);
        }
        let mut ops = self.written(new, wanted)?;
        let kept: HashSet<Claim> = claims_of(new).into_iter().collect();
        let left = claims_of(old).into_iter().filter(|claim| !kept.contains(claim));
        ops.extend(left.filter_map(|claim| self.holders.give_back(claim, old)));
        Ok(ops)
    }

    /// What is to be written with the removal of an object.
    pub fn on_removal(&self, resource: &Resource, old: &Value) -> Vec<Op> {
        if !resource.semantics.holds_addresses {
            return Vec::new();
        }
        let claims = claims_of(old).into_iter();
        claims.filter_map(|claim| self.holders.give_back(claim, old)).collect()
    }

    fn written(&self, service: &Value, wanted: Wanted) -> Result<Vec<Op>, Status> {
        if !wanted.errors.is_empty() {
            return Err(Status::invalid("", "Service", meta::name(service), &wanted.errors));
        }
        let claims = wanted.claims.into_iter();
        claims.map(|claim| self.holders.take(claim, service)).collect()
    }

    /// ipFamilies and ipFamilyPolicy, as a single-stack cluster has them.
    fn families(&self, service: &mut Value, errors: &mut Errors) {
        if !needs_address(service) {
            return;
        }
        let own = match self.ranges.own() {
            IpNet::V4(_) => "IPv4",
            IpNet::V6(_) => "IPv6",
        };
        validation::service_addresses(service, errors);
        if errors.is_empty() {
            validation::service_families(service, own, errors);
        }
        if is_headless(service) && meta::at(service, &["spec", "selector"]).is_none() {
            return;
        }
        meta::set_default(service, &["spec", "ipFamilyPolicy"], "SingleStack");
        if meta::items(service, &["spec", "ipFamilies"]).is_empty() {
            meta::set(service, &["spec", "ipFamilies"], json!([own]));
        }
    }

    fn want_address(&self, service: &mut Value, wanted: &mut Wanted) {
        if !needs_address(service) {
            return;
        }
        if is_headless(service) {
            meta::set(service, &["spec", "clusterIP"], "None");
            meta::set(service, &["spec", "clusterIPs"], json!(["None"]));
            return;
        }
        let named = addresses_of(service).first().copied();
        let chosen = match named {
            Some(address) => self.named_address(address, wanted.dry),
            // Not an address: validation says so.
            None if meta::at(service, &["spec", "clusterIP"]).is_some_and(|text| text != "") => return,
            None if wanted.dry => Ok(self.ranges.own().network()),
            None => {
                let free = |address| self.holders.is_free(Claim::Address(address));
                let full = "failed to allocate a serviceIP: range is full";
                let ranges = self.ranges.ready();
                let any = ranges.iter().find_map(|range| claims::any_address(range, free));
                any.ok_or_else(|| FieldError::invalid("spec.clusterIPs", Value::Null, full))
            }
        };
        match chosen {
            Ok(address) => {
                wanted.claims.insert(Claim::Address(address));
                meta::set(service, &["spec", "clusterIP"], address.to_string());
                meta::set(service, &["spec", "clusterIPs"], json!([address.to_string()]));
            }
            Err(error) => wanted.errors.push(error),
        }
    }

    /// Of a dry run upstream asks the cluster's own range alone.
    fn named_address(&self, address: IpAddr, dry: bool) -> Result<IpAddr, FieldError> {
        let own = self.ranges.own();
        let why = if dry && !gives(&own, address) {
            format!("the provided IP ({address}) is not in the valid range. The range of valid IPs is {own}")
        } else if !dry && !self.ranges.ready().iter().any(|range| gives(range, address)) {
            "the provided network does not match the current range".to_string()
        } else if !dry && !self.holders.is_free(Claim::Address(address)) {
            "provided IP is already allocated".to_string()
        } else {
            return Ok(address);
        };
        let detail = format!("failed to allocate IP {address}: {why}");
        Err(FieldError::invalid(
            "spec.clusterIPs",
            json!([address.to_string()]),
            detail,
        ))
    }

    fn want_ports(&self, service: &mut Value, own: &HashSet<u16>, wanted: &mut Wanted) {
        if needs_node_ports(service) {
            self.want_node_ports(service, own, wanted);
        }
        if !wanted.errors.is_empty() || !needs_health_port(service) {
            return;
        }
        let named = port_at(service, &["spec", "healthCheckNodePort"]);
        if named.is_some_and(|port| own.contains(&port)) {
            return;
        }
        if let Some(port) = self.want_port(named, "spec.healthCheckNodePort", wanted) {
            meta::set(service, &["spec", "healthCheckNodePort"], port);
        }
    }

    fn want_node_ports(&self, service: &mut Value, own: &HashSet<u16>, wanted: &mut Wanted) {
        // One node port may serve the same port under two protocols.
        let mut taken = Taken::default();
        for (index, port) in meta::items_mut(service, &["spec", "ports"]).iter_mut().enumerate() {
            let number = meta::i64_at(port, &["port"]).unwrap_or(0);
            let protocol = meta::str_at(port, &["protocol"]).unwrap_or("TCP").to_string();
            let named = port_at(port, &["nodePort"]);
            let node_port = match (taken.shared(number, &protocol, named), named) {
                (Some(node_port), _) => node_port,
                (None, Some(named)) if own.contains(&named) => named,
                (None, named) => match self.want_port(named, &format!("spec.ports[{index}].nodePort"), wanted) {
                    Some(port) => port,
                    // Each of a hundred thousand more would search the whole range again.
                    None => return,
                },
            };
            meta::set(port, &["nodePort"], node_port);
            taken.add(number, &protocol, node_port);
        }
    }

    /// A named port, or any; None where that is an error.
    fn want_port(&self, named: Option<u16>, field: &str, wanted: &mut Wanted) -> Option<u16> {
        let free = |port| {
            let claim = Claim::Port(port);
            !wanted.claims.contains(&claim) && self.holders.is_free(claim)
        };
        let (low, high) = (self.ports.start(), self.ports.end());
        let chosen = match named {
            Some(port) if wanted.dry && !wanted.claims.contains(&Claim::Port(port)) => Ok(port),
            Some(port) if !self.ports.contains(&port) => Err(FieldError::invalid(
                field,
                port,
                format!("provided port is not in the valid range. The range of valid ports is {low}-{high}"),
            )),
            Some(port) if !free(port) => Err(FieldError::invalid(field, port, "provided port is already allocated")),
            Some(port) => Ok(port),
            None => claims::any_port(&self.ports, free)
                .ok_or_else(|| FieldError::invalid(field, Value::Null, "failed to allocate a nodePort: range is full")),
        };
        match chosen {
            Ok(port) => {
                wanted.claims.insert(Claim::Port(port));
                Some(port)
            }
            Err(error) => {
                wanted.errors.push(error);
                None
            }
        }
    }
}

/// All that a stored Service holds.
fn claims_of(service: &Value) -> Vec<Claim> {
    let addresses = addresses_of(service).into_iter().map(Claim::Address);
    addresses
        .chain(ports_of(service).into_iter().map(Claim::Port))
        .collect()
}

/// What tells a Service's port from its others.
fn served(port: &Value) -> (Option<&Value>, &str) {
    (port.get("port"), meta::str_at(port, &["protocol"]).unwrap_or("TCP"))
}

/// What a client who sends the whole spec without it did not mean to change.
fn carry_over(new: &mut Value, old: &Value) {
    if needs_address(old) && needs_address(new) {
        if meta::string(new, &["spec", "clusterIP"]).is_empty() && meta::items(new, &["spec", "clusterIPs"]).is_empty()
        {
            for key in ["clusterIP", "clusterIPs"] {
                if let Some(value) = meta::at(old, &["spec", key]) {
                    meta::set(new, &["spec", key], value.clone());
                }
            }
        } else if meta::items(new, &["spec", "clusterIPs"]).is_empty() {
            let single = meta::string(new, &["spec", "clusterIP"]).to_string();
            meta::set(new, &["spec", "clusterIPs"], json!([single]));
        }
    }
    if needs_node_ports(old) && needs_node_ports(new) {
        let named: HashSet<u16> = ports_of(new);
        let mut before = HashMap::new();
        for port in meta::items(old, &["spec", "ports"]) {
            before.entry(served(port)).or_insert(port_at(port, &["nodePort"]));
        }
        for port in meta::items_mut(new, &["spec", "ports"]) {
            if port_at(port, &["nodePort"]).is_some() {
                continue;
            }
            if let Some(&Some(node_port)) = before.get(&served(port))
                && !named.contains(&node_port)
            {
                meta::set(port, &["nodePort"], node_port);
            }
        }
    } else if needs_node_ports(old) && !needs_node_ports(new) && type_of(new) != "LoadBalancer" {
        let before = ports_of(old);
        for port in meta::items_mut(new, &["spec", "ports"]) {
            if port_at(port, &["nodePort"]).is_some_and(|own| before.contains(&own)) {
                meta::remove(port, &["nodePort"]);
            }
        }
    }
    if needs_health_port(old) && needs_health_port(new) {
        if let (None, Some(port)) = (
            port_at(new, &["spec", "healthCheckNodePort"]),
            port_at(old, &["spec", "healthCheckNodePort"]),
        ) {
            meta::set(new, &["spec", "healthCheckNodePort"], port);
        }
    } else if needs_health_port(old) && !needs_health_port(new) {
        meta::remove(new, &["spec", "healthCheckNodePort"]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mk8s_api::registry;

    use super::*;

    fn services() -> Services {
        let rows = registry::builtin().iter().chain(registry::unserved());
        let ports = 30_000..=30_100;
        Services::new("10.96.0.0/24".parse().unwrap(), ports, &Cache::new(rows, 0)).unwrap()
    }

    #[test]
    fn a_service_gets_what_it_needs() {
        let services = services();
        let mut named = json!({"metadata": {"name": "a"}, "spec": {"clusterIP": "10.96.0.10", "ports": []}});
        mk8s_api::defaults::prepare_service_create(&mut named);
        let ops = services.on_create(&mut named, false).unwrap();
        assert_eq!(named["spec"]["clusterIPs"], json!(["10.96.0.10"]));
        let keys: Vec<&str> = ops.iter().map(|op| &*op.key).collect();
        assert_eq!(keys, ["/registry/networking.k8s.io/ipaddresses/10.96.0.10"]);
        let mut any = json!({"metadata": {"name": "b"}, "spec": {"type": "NodePort", "ports": [
            {"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}});
        let ops = services.on_create(&mut any, false).unwrap();
        assert_eq!(ops.len(), 2, "an address, and one port for both protocols");
        assert!(any["spec"]["clusterIP"].as_str().unwrap().starts_with("10.96.0."));
        let ports = &any["spec"]["ports"];
        assert_eq!(ports[0]["nodePort"], ports[1]["nodePort"]);
        let mut outside = json!({"metadata": {"name": "c"}, "spec": {"clusterIP": "10.97.0.1"}});
        assert_eq!(services.on_create(&mut outside, false).err().unwrap().code, 422);
    }

    #[test]
    fn a_service_of_a_hundred_thousand_ports_is_answered_soon() {
        let services = services();
        let asked = std::time::Instant::now();
        let of = |ports: Vec<Value>| json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": ports}});
        // More than there are: one error says it.
        let mut many = of((0..100_000).map(|n| json!({"port": n})).collect());
        let refused = services.on_create(&mut many, false).err().unwrap();
        assert_eq!(refused.code, 422);
        assert_eq!(refused.details.unwrap()["causes"].as_array().map(Vec::len), Some(1));
        // All of one port, which is the service's own.
        let mut old = of(vec![json!({"port": 1, "nodePort": 30_000})]);
        services.on_create(&mut old, false).unwrap();
        let mut one = of((0..100_000).map(|n| json!({"port": n, "nodePort": 30_000})).collect());
        assert_eq!(services.on_update(&mut one, &old).unwrap().len(), 0);
        // Many that are to keep what as many others have.
        let many = |offset: usize| {
            of((0..50_000)
                .map(|n| json!({"port": n + offset, "nodePort": 0}))
                .collect())
        };
        let (mut new, mut old) = (many(0), many(50_000));
        old["spec"]["ports"][0]["nodePort"] = 30_001.into();
        assert_eq!(services.on_update(&mut new, &old).err().unwrap().code, 422);
        let addresses: Vec<String> = (0..200_000u32).map(|n| IpAddr::V4(n.into()).to_string()).collect();
        let mut far = json!({"metadata": {"name": "a"}, "spec": {"clusterIPs": addresses}});
        assert_eq!(services.on_create(&mut far, false).err().unwrap().code, 422);
        assert_eq!(addresses_of(&json!({"spec": {"clusterIPs": addresses}})).len(), 2);
        assert!(asked.elapsed().as_secs() < 10, "{:?}", asked.elapsed());
    }

    #[test]
    fn node_ports_are_shared_by_protocols_alone() {
        let services = services();
        let mut service = json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [
            {"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "SCTP"},
            {"port": 54, "protocol": "TCP", "nodePort": 30_000}, {"port": 55, "protocol": "UDP", "nodePort": 30_000}]}});
        assert_eq!(services.on_create(&mut service, false).unwrap().len(), 3);
        let ports = &service["spec"]["ports"];
        assert_eq!(ports[0]["nodePort"], ports[1]["nodePort"]);
        assert_eq!(ports[0]["nodePort"], ports[2]["nodePort"]);
        let mut twice = json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [
            {"port": 54, "nodePort": 30_001}, {"port": 55, "nodePort": 30_001}]}});
        assert_eq!(services.on_create(&mut twice, false).err().unwrap().code, 422);
    }

    #[test]
    fn addresses_of_small_and_large_ranges() {
        let any = |cidr: &str| claims::any_address(&cidr.parse().unwrap(), |_| true);
        assert_eq!(any("10.0.0.0/32"), None);
        assert_eq!(any("10.0.0.0/30").map(|address| address.is_ipv4()), Some(true));
        for cidr in ["10.96.0.0/12", "fd00::/112", "fd00::/64"] {
            let cidr: IpNet = cidr.parse().unwrap();
            assert!(cidr.contains(&claims::any_address(&cidr, |_| true).unwrap()));
        }
        let last = "10.0.0.6".parse::<IpAddr>().unwrap();
        let only = claims::any_address(&"10.0.0.0/29".parse().unwrap(), |address| address == last);
        assert_eq!(only, Some(last));
        assert_eq!(
            claims::any_port(&(30_000..=30_001), |port| port == 30_001),
            Some(30_001)
        );
        assert_eq!(claims::any_port(&(30_000..=30_000), |_| false), None);
    }

    #[test]
    fn updates_keep_what_they_do_not_name() {
        let services = services();
        let mut old = json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        services.on_create(&mut old, false).unwrap();
        let mut new =
            json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [{"port": 80}, {"port": 81}]}});
        assert_eq!(services.on_update(&mut new, &old).unwrap().len(), 1);
        assert_eq!(new["spec"]["clusterIP"], old["spec"]["clusterIP"]);
        assert_eq!(new["spec"]["ports"][0]["nodePort"], old["spec"]["ports"][0]["nodePort"]);
        assert!(new["spec"]["ports"][1]["nodePort"].is_number());
        let mut external = json!({"metadata": {"name": "a"}, "spec": {"type": "ExternalName", "externalName": "x", "clusterIP": old["spec"]["clusterIP"], "ports": [{"port": 80, "nodePort": old["spec"]["ports"][0]["nodePort"]}]}});
        mk8s_api::defaults::prepare_service_update(&mut external, &old);
        services.on_update(&mut external, &old).unwrap();
        assert!(external["spec"].get("clusterIP").is_none());
        assert!(external["spec"]["ports"][0].get("nodePort").is_none());
    }
}
