//! Whose host ports a pod has. Scheduler, node agent and proxy ask the same: what one of them doesn't count, another must
//! not take.

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// The containers that run as long as the pod does: sidecars and the others. An init container that ends before they begin
/// has no host ports.
pub fn lasting_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let init = spec.init_containers.iter().flatten();
    let sidecars = init.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars)
}

/// A host port that a pod takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    port: i32,
    protocol: String,
    /// None: every address, and so it meets each other. It comes first in order.
    ip: Option<String>,
}

impl HostPort {
    /// Two pods can't both have it.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let meet = self.ip.is_none() || other.ip.is_none() || self.ip == other.ip;
        meet && self.port == other.port && self.protocol == other.protocol
    }

    /// It conflicts with one of these, which are sorted.
    pub fn meets(&self, sorted: &[HostPort]) -> bool {
        let number = |own: &HostPort| (own.port, &*own.protocol) < (self.port, &*self.protocol);
        let first = sorted.get(sorted.partition_point(number));
        first.is_some_and(|first| self.conflicts(first)) || sorted.binary_search(self).is_ok()
    }
}

/// The host ports of a pod. On the host's network its containers' ports are such.
pub fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let of_host = spec.host_network == Some(true);
    let ports = lasting_containers(spec).flat_map(|c| c.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        let number = port
            .host_port
            .filter(|p| *p > 0)
            .or(of_host.then_some(port.container_port))?;
        let ip = port.host_ip.clone();
        let protocol = port.protocol.clone().filter(|p| !p.is_empty());
        Some(HostPort {
            // "::" is none of these: upstream takes it for an address.
            ip: ip.filter(|ip| !["", "0.0.0.0"].contains(&ip.as_str())),
            protocol: protocol.unwrap_or_else(|| "TCP".to_owned()),
            port: number,
        })
    });
    taken.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn every_address_meets_each_other() {
        let ports = |port: Value| {
            let spec = json!({"containers": [{"name": "c", "ports": [port]}]});
            host_ports(&serde_json::from_value(spec).unwrap())
        };
        let at = |ip: &str| json!({"containerPort": 80, "hostPort": 80, "hostIP": ip});
        for (one, other, meet) in [
            (at(""), at("127.0.0.1"), true),
            (at("0.0.0.0"), at("127.0.0.1"), true),
            (at("::"), at("127.0.0.1"), false),
            (at("::"), at("0.0.0.0"), true),
            (at("1.2.3.4"), at("1.2.3.5"), false),
            (at("::1"), at("127.0.0.1"), false),
            (at("::1"), at("::1"), true),
            (at(""), json!({"containerPort": 80, "hostPort": 81}), false),
            (
                at(""),
                json!({"containerPort": 80, "hostPort": 80, "protocol": "UDP"}),
                false,
            ),
            (
                at(""),
                json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}),
                true,
            ),
        ] {
            let (a, b) = (ports(one.clone()), ports(other.clone()));
            let beside = [json!({"containerPort": 79, "hostPort": 79}), at("9.9.9.9")].map(ports);
            let mut sorted = [&*b, &*beside.concat()].concat();
            sorted.sort();
            let meets = meet || a[0].conflicts(&beside[1][0]);
            assert_eq!(a[0].meets(&sorted), meets, "{one} {other}");
            assert_eq!(
                (a[0].conflicts(&b[0]), b[0].conflicts(&a[0])),
                (meet, meet),
                "{one} {other}"
            );
        }
        assert_eq!(ports(json!({"containerPort": 80})), []);
    }
}
