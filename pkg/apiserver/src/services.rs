//! Cluster addresses and node ports of Services: two sets in memory, built from the cache at start
//! (<https://kubernetes.io/docs/reference/networking/virtual-ips/>).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use mk8s_api::meta;
use mk8s_api::status::{FieldError, Status};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// The lowest so many node ports are left to those who name theirs.
const STATIC_PORTS: u16 = 86;
const MAX_STATIC_ADDRESSES: u32 = 256;

pub struct Services {
    cidr: IpNet,
    ports: RangeInclusive<u16>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    addresses: HashSet<IpAddr>,
    ports: HashSet<u16>,
}

/// What a write took; given back on drop unless kept.
pub struct Reservation<'a> {
    services: &'a Services,
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

impl Reservation<'_> {
    pub fn keep(&mut self) {
        self.addresses.clear();
        self.ports.clear();
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.addresses.is_empty() && self.ports.is_empty() {
            return;
        }
        let mut held = self.services.held.lock();
        for address in &self.addresses {
            held.addresses.remove(address);
        }
        for port in &self.ports {
            held.ports.remove(port);
        }
    }
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

fn addresses_of(service: &Value) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let single = meta::at(service, &["spec", "clusterIP"]);
    for value in meta::items(service, &["spec", "clusterIPs"]).iter().chain(single) {
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

impl Services {
    pub fn new(cidr: IpNet, ports: RangeInclusive<u16>) -> Services {
        Services {
            cidr,
            ports,
            held: Mutex::default(),
        }
    }

    /// Counts a stored Service in, at start.
    pub fn hold(&self, service: &Value) {
        let mut held = self.held.lock();
        held.addresses.extend(addresses_of(service));
        held.ports.extend(ports_of(service));
    }

    pub fn nothing(&self) -> Reservation<'_> {
        Reservation {
            services: self,
            addresses: Vec::new(),
            ports: Vec::new(),
        }
    }

    pub fn before_create(&self, service: &mut Value) -> Result<Reservation<'_>, Status> {
        let mut reservation = self.nothing();
        let mut errors = Vec::new();
        self.families(service, &mut errors);
        if errors.is_empty() {
            self.take_address(service, &mut reservation, &mut errors);
        }
        if errors.is_empty() {
            self.take_ports(service, &HashSet::new(), &mut reservation, &mut errors);
        }
        finish(service, reservation, errors)
    }

    pub fn before_update(&self, new: &mut Value, old: &Value) -> Result<Reservation<'_>, Status> {
        carry_over(new, old);
        let mut reservation = self.nothing();
        let mut errors = Vec::new();
        self.families(new, &mut errors);
        let (own, held) = (addresses_of(new), addresses_of(old));
        // An address that changes hands is validation's to refuse; one that is new is taken here.
        let had = needs_address(old);
        if errors.is_empty() && needs_address(new) && (!had || (own.is_empty() && !is_headless(new))) {
            self.take_address(new, &mut reservation, &mut errors);
        } else if !own.iter().all(|address| held.contains(address)) && had {
            tracing::debug!("a Service update names another address");
        }
        if errors.is_empty() {
            self.take_ports(new, &ports_of(old), &mut reservation, &mut errors);
        }
        finish(new, reservation, errors)
    }

    /// Gives back what `old` held and `new` does not.
    pub fn release_difference(&self, old: &Value, new: Option<&Value>) {
        let kept: Vec<IpAddr> = new.map(addresses_of).unwrap_or_default();
        let kept_ports = new.map(ports_of).unwrap_or_default();
        let mut held = self.held.lock();
        for address in addresses_of(old) {
            if !kept.contains(&address) {
                held.addresses.remove(&address);
            }
        }
        for port in ports_of(old) {
            if !kept_ports.contains(&port) {
                held.ports.remove(&port);
            }
        }
    }

    /// ipFamilies and ipFamilyPolicy, as a single-stack cluster has them.
    fn families(&self, service: &mut Value, errors: &mut Vec<FieldError>) {
        if !needs_address(service) {
            for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                meta::remove(service, &["spec", key]);
            }
            return;
        }
        // Without a selector upstream asks for both families whatever the cluster has: nobody routes to it here.
        if is_headless(service) && meta::at(service, &["spec", "selector"]).is_none() {
            return;
        }
        let own = if self.cidr.addr().is_ipv4() { "IPv4" } else { "IPv6" };
        if meta::string(service, &["spec", "ipFamilyPolicy"]) == "RequireDualStack" {
            errors.push(FieldError::invalid(
                "spec.ipFamilyPolicy",
                "RequireDualStack",
                "this cluster is not configured for dual-stack services",
            ));
            return;
        }
        for (index, family) in meta::items(service, &["spec", "ipFamilies"]).iter().enumerate() {
            if family != own {
                errors.push(FieldError::invalid(
                    format!("spec.ipFamilies[{index}]"),
                    family.clone(),
                    "not configured on this cluster",
                ));
            }
        }
        meta::set_default(service, &["spec", "ipFamilyPolicy"], "SingleStack");
        if meta::items(service, &["spec", "ipFamilies"]).is_empty() {
            meta::set(service, &["spec", "ipFamilies"], json!([own]));
        }
    }

    fn take_address(&self, service: &mut Value, reservation: &mut Reservation<'_>, errors: &mut Vec<FieldError>) {
        if !needs_address(service) {
            return;
        }
        if is_headless(service) {
            meta::set(service, &["spec", "clusterIP"], "None");
            meta::set(service, &["spec", "clusterIPs"], json!(["None"]));
            return;
        }
        let named = addresses_of(service);
        let address = match named.first() {
            Some(address) => match self.take_named(*address) {
                Ok(()) => *address,
                Err(why) => {
                    errors.push(FieldError::invalid(
                        "spec.clusterIPs",
                        json!([address.to_string()]),
                        format!("failed to allocate IP {address}: {why}"),
                    ));
                    return;
                }
            },
            None => {
                if meta::at(service, &["spec", "clusterIP"]).is_some_and(|text| text != "") {
                    // Not an address: validation says so.
                    return;
                }
                match self.take_any() {
                    Some(address) => address,
                    None => {
                        errors.push(FieldError::invalid(
                            "spec.clusterIPs",
                            Value::Null,
                            "failed to allocate a serviceIP: range is full",
                        ));
                        return;
                    }
                }
            }
        };
        reservation.addresses.push(address);
        meta::set(service, &["spec", "clusterIP"], address.to_string());
        meta::set(service, &["spec", "clusterIPs"], json!([address.to_string()]));
    }

    fn take_named(&self, address: IpAddr) -> Result<(), String> {
        if !self.cidr.contains(&address) || address == self.cidr.network() || address == self.cidr.broadcast() {
            return Err(format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                self.cidr
            ));
        }
        if !self.held.lock().addresses.insert(address) {
            return Err("provided IP is already allocated".into());
        }
        Ok(())
    }

    /// A random free address of the upper part of the range, which upstream keeps for those who name none; then of all.
    fn take_any(&self) -> Option<IpAddr> {
        let IpNet::V4(cidr) = self.cidr else {
            return None;
        };
        let size = 1u32.checked_shl(32 - u32::from(cidr.prefix_len()))?;
        let first = u32::from(cidr.network());
        let lower = (size / 16).clamp(16, MAX_STATIC_ADDRESSES).min(size / 2);
        let mut held = self.held.lock();
        for (from, to) in [(lower, size - 1), (1, lower)] {
            let span = to.checked_sub(from)?;
            if span == 0 {
                continue;
            }
            let start = rand::random::<u32>() % span;
            for step in 0..span {
                let offset = from + (start + step) % span;
                let address = IpAddr::V4(Ipv4Addr::from(first + offset));
                if held.addresses.insert(address) {
                    return Some(address);
                }
            }
        }
        None
    }

    fn take_ports(
        &self,
        service: &mut Value,
        own: &HashSet<u16>,
        reservation: &mut Reservation<'_>,
        errors: &mut Vec<FieldError>,
    ) {
        if needs_node_ports(service) {
            self.take_node_ports(service, own, reservation, errors);
        }
        if !needs_health_port(service) {
            return;
        }
        let wanted = port_at(service, &["spec", "healthCheckNodePort"]);
        match wanted {
            Some(port) if own.contains(&port) => {}
            _ => match self.take_port(wanted, "spec.healthCheckNodePort") {
                Ok(port) => {
                    reservation.ports.push(port);
                    meta::set(service, &["spec", "healthCheckNodePort"], port);
                }
                Err(error) => errors.push(error),
            },
        }
    }

    fn take_node_ports(
        &self,
        service: &mut Value,
        own: &HashSet<u16>,
        reservation: &mut Reservation<'_>,
        errors: &mut Vec<FieldError>,
    ) {
        // One node port may serve the same port under two protocols.
        let mut taken: Vec<(i64, String, u16)> = Vec::new();
        for (index, port) in meta::items_mut(service, &["spec", "ports"]).iter_mut().enumerate() {
            let number = meta::i64_at(port, &["port"]).unwrap_or(0);
            let protocol = meta::str_at(port, &["protocol"]).unwrap_or("TCP").to_string();
            let wanted = port_at(port, &["nodePort"]);
            let shared = taken.iter().find(|(other, used, node_port)| {
                *used != protocol && wanted.map_or(*other == number, |wanted| wanted == *node_port)
            });
            let node_port = match (shared, wanted) {
                (Some((_, _, node_port)), _) => *node_port,
                (None, Some(wanted)) if own.contains(&wanted) => wanted,
                (None, wanted) => match self.take_port(wanted, &format!("spec.ports[{index}].nodePort")) {
                    Ok(port) => {
                        reservation.ports.push(port);
                        port
                    }
                    Err(error) => {
                        errors.push(error);
                        continue;
                    }
                },
            };
            meta::set(port, &["nodePort"], node_port);
            taken.push((number, protocol, node_port));
        }
    }

    fn take_port(&self, wanted: Option<u16>, field: &str) -> Result<u16, FieldError> {
        let mut held = self.held.lock();
        let Some(wanted) = wanted else {
            let (low, high) = (*self.ports.start(), *self.ports.end());
            let lower = low.saturating_add(STATIC_PORTS).min(high);
            for range in [lower..=high, low..=lower] {
                let span = u32::from(range.end() - range.start()) + 1;
                let start = rand::random::<u32>() % span;
                for step in 0..span {
                    let offset = u16::try_from((start + step) % span).unwrap_or(0);
                    let port = range.start() + offset;
                    if held.ports.insert(port) {
                        return Ok(port);
                    }
                }
            }
            return Err(FieldError::invalid(
                field,
                Value::Null,
                "failed to allocate a nodePort: range is full",
            ));
        };
        if !self.ports.contains(&wanted) {
            return Err(FieldError::invalid(
                field,
                wanted,
                format!(
                    "provided port is not in the valid range. The range of valid ports is {}-{}",
                    self.ports.start(),
                    self.ports.end()
                ),
            ));
        }
        if !held.ports.insert(wanted) {
            return Err(FieldError::invalid(field, wanted, "provided port is already allocated"));
        }
        Ok(wanted)
    }
}

fn finish<'a>(
    service: &Value,
    reservation: Reservation<'a>,
    errors: Vec<FieldError>,
) -> Result<Reservation<'a>, Status> {
    if errors.is_empty() {
        return Ok(reservation);
    }
    Err(Status::invalid("", "Service", meta::name(service), &errors))
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
        for port in meta::items_mut(new, &["spec", "ports"]) {
            if port_at(port, &["nodePort"]).is_some() {
                continue;
            }
            let same = |other: &&Value| {
                other.get("port") == port.get("port")
                    && meta::str_at(other, &["protocol"]).unwrap_or("TCP")
                        == meta::str_at(port, &["protocol"]).unwrap_or("TCP")
            };
            let before = meta::items(old, &["spec", "ports"]).iter().find(same);
            if let Some(node_port) = before.and_then(|before| port_at(before, &["nodePort"]))
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
    use super::*;

    fn services() -> Services {
        Services::new("10.96.0.0/24".parse().unwrap(), 30_000..=30_100)
    }

    #[test]
    fn addresses_are_taken_and_given_back() {
        let services = services();
        let mut first = json!({"metadata": {"name": "a"}, "spec": {"clusterIP": "10.96.0.10", "ports": []}});
        services.before_create(&mut first).unwrap().keep();
        assert_eq!(first["spec"]["clusterIPs"], json!(["10.96.0.10"]));
        let mut second = first.clone();
        let refused = services.before_create(&mut second).err().unwrap();
        assert!(
            refused.message.contains("provided IP is already allocated"),
            "{}",
            refused.message
        );
        services.release_difference(&first, None);
        services.before_create(&mut second).unwrap().keep();
        let mut any = json!({"metadata": {"name": "b"}, "spec": {"type": "NodePort", "ports": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}});
        services.before_create(&mut any).unwrap().keep();
        assert!(any["spec"]["clusterIP"].as_str().unwrap().starts_with("10.96.0."));
        let ports = &any["spec"]["ports"];
        assert_eq!(ports[0]["nodePort"], ports[1]["nodePort"]);
        assert!(ports[0]["nodePort"].as_i64().unwrap() >= 30_000);
    }

    #[test]
    fn updates_keep_what_they_do_not_name() {
        let services = services();
        let mut old = json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        services.before_create(&mut old).unwrap().keep();
        let mut new =
            json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [{"port": 80}, {"port": 81}]}});
        services.before_update(&mut new, &old).unwrap().keep();
        assert_eq!(new["spec"]["clusterIP"], old["spec"]["clusterIP"]);
        assert_eq!(new["spec"]["ports"][0]["nodePort"], old["spec"]["ports"][0]["nodePort"]);
        assert_ne!(new["spec"]["ports"][1]["nodePort"], old["spec"]["ports"][0]["nodePort"]);
        let mut external = json!({"metadata": {"name": "a"}, "spec": {"type": "ExternalName", "externalName": "x", "clusterIP": old["spec"]["clusterIP"], "ports": [{"port": 80, "nodePort": old["spec"]["ports"][0]["nodePort"]}]}});
        services.before_update(&mut external, &old).unwrap().keep();
        assert!(external["spec"].get("clusterIP").is_none());
        assert!(external["spec"]["ports"][0].get("nodePort").is_none());
    }
}
