//! Which names there are in the cluster: by Service, and back from addresses. Pure.

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv4Addr,
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

/// What a Service is called by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Cluster { ip: Ipv4Addr, ports: Vec<Port> },
    Headless(Vec<Endpoint>),
    External(String),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub name: String,
    /// tcp, udp, sctp
    pub proto: String,
    pub port: u16,
}

/// A pod behind a headless Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: Ipv4Addr,
    /// The pod's hostname, or its address with dashes.
    pub label: String,
    /// Whether the label is a hostname: only then its address leads back to it.
    pub named: bool,
    pub ports: Vec<Port>,
}

/// What is asked for under the cluster's domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// False: no such name. True with nothing else: the name is there, without records of the type.
    pub exists: bool,
    pub addresses: Vec<Ipv4Addr>,
    pub services: Vec<Located>,
    pub alias: Option<String>,
}

/// An SRV record: a port at a name (relative to the cluster's domain) that has this address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    pub port: u16,
    pub target: String,
    pub ip: Ipv4Addr,
}

#[derive(Debug, Default)]
pub struct Index {
    /// By NAME.NAMESPACE
    entries: HashMap<String, Entry>,
    /// How many Services each namespace has.
    namespaces: HashMap<String, usize>,
    /// Names relative to the domain.
    reverse: HashMap<Ipv4Addr, BTreeSet<String>>,
}

fn proto(name: Option<&str>) -> String {
    name.unwrap_or("TCP").to_ascii_lowercase()
}

/// What the Service is called by, from it and all its slices; None if it has no name (no address yet).
pub fn entry<'a>(service: &Service, slices: impl Iterator<Item = &'a EndpointSlice>) -> Option<Entry> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        let target = spec
            .external_name
            .as_deref()?
            .trim_end_matches('.')
            .to_ascii_lowercase();
        return Some(Entry {
            kind: Kind::External(target),
        });
    }
    let kind = match spec.cluster_ip.as_deref()? {
        "None" => Kind::Headless(headless(slices)),
        ip => Kind::Cluster {
            ip: ip.parse().ok()?,
            ports: spec
                .ports
                .iter()
                .flatten()
                .filter_map(|port| {
                    Some(Port {
                        name: port.name.clone().unwrap_or_default().to_ascii_lowercase(),
                        proto: proto(port.protocol.as_deref()),
                        port: u16::try_from(port.port).ok()?,
                    })
                })
                .collect(),
        },
    };
    Some(Entry { kind })
}

fn headless<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for slice in slices.filter(|slice| slice.address_type == "IPv4") {
        let ports: Vec<Port> = slice
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                Some(Port {
                    name: port.name.clone().unwrap_or_default().to_ascii_lowercase(),
                    proto: proto(port.protocol.as_deref()),
                    port: u16::try_from(port.port?).ok()?,
                })
            })
            .collect();
        for endpoint in &slice.endpoints {
            // publishNotReadyAddresses shows as ready here already.
            if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(false) {
                continue;
            }
            for ip in endpoint.addresses.iter().filter_map(|ip| ip.parse::<Ipv4Addr>().ok()) {
                let hostname = endpoint.hostname.as_deref().filter(|name| !name.is_empty());
                let label = hostname.map_or_else(|| ip.to_string().replace('.', "-"), str::to_ascii_lowercase);
                endpoints.push(Endpoint {
                    ip,
                    label,
                    named: hostname.is_some(),
                    ports: ports.clone(),
                });
            }
        }
    }
    endpoints.sort();
    endpoints.dedup();
    endpoints
}

impl Index {
    /// The Service NAMESPACE/NAME is called by this now.
    pub fn set(&mut self, namespace: &str, name: &str, entry: Option<Entry>) {
        let key = format!("{name}.{namespace}");
        let old = match entry {
            Some(entry) => {
                self.point_back(&key, &entry, true);
                self.entries.insert(key.clone(), entry)
            }
            None => self.entries.remove(&key),
        };
        if let Some(old) = &old {
            self.point_back(&key, old, false);
            // What both name points back still.
            if let Some(entry) = self.entries.get(&key).cloned() {
                self.point_back(&key, &entry, true);
            }
        }
        match (old.is_some(), self.entries.contains_key(&key)) {
            (false, true) => *self.namespaces.entry(namespace.to_owned()).or_default() += 1,
            (true, false) => {
                if let Some(count) = self.namespaces.get_mut(namespace) {
                    *count -= 1;
                    if *count == 0 {
                        self.namespaces.remove(namespace);
                    }
                }
            }
            _ => {}
        }
    }

    fn point_back(&mut self, key: &str, entry: &Entry, there: bool) {
        let names: Vec<(Ipv4Addr, String)> = match &entry.kind {
            Kind::Cluster { ip, .. } => vec![(*ip, format!("{key}.svc"))],
            Kind::Headless(endpoints) => endpoints
                .iter()
                .filter(|endpoint| endpoint.named)
                .map(|endpoint| (endpoint.ip, format!("{}.{key}.svc", endpoint.label)))
                .collect(),
            Kind::External(_) => Vec::new(),
        };
        for (ip, name) in names {
            if there {
                self.reverse.entry(ip).or_default().insert(name);
            } else if let Some(names) = self.reverse.get_mut(&ip) {
                names.remove(&name);
                if names.is_empty() {
                    self.reverse.remove(&ip);
                }
            }
        }
    }

    /// The names of an address, relative to the domain.
    pub fn names_of(&self, ip: Ipv4Addr) -> impl Iterator<Item = &str> {
        self.reverse.get(&ip).into_iter().flatten().map(String::as_str)
    }

    /// `labels`: lower case, without the domain. `dns`: this server's own address.
    /// At most `most` ports.
    pub fn find(&self, labels: &[&str], dns: Ipv4Addr, most: usize) -> Found {
        let empty = Found {
            exists: true,
            ..Found::default()
        };
        let at = |ip| Found {
            exists: true,
            addresses: vec![ip],
            ..Found::default()
        };
        match labels {
            [] | ["svc"] | ["pod"] | ["dns"] => empty,
            ["ns", "dns"] => at(dns),
            [namespace, "svc"] => Found {
                exists: self.namespaces.contains_key(*namespace),
                ..Found::default()
            },
            [_, "pod"] => empty,
            // As with CoreDNS's `pods insecure`: the name says the address, and there need not be such a pod.
            [ip, _, "pod"] => ip.replace('-', ".").parse().map_or(Found::default(), at),
            [name, namespace, "svc"] => self.service(name, namespace, None, most),
            [label, name, namespace, "svc"] if label.starts_with('_') => Found {
                exists: self.service(name, namespace, None, most).exists,
                ..Found::default()
            },
            [port, proto, name, namespace, "svc"] => {
                let (Some(port), Some(proto)) = (port.strip_prefix('_'), proto.strip_prefix('_')) else {
                    return Found::default();
                };
                self.service(name, namespace, Some((port, proto)), most)
            }
            [label, name, namespace, "svc"] => self.endpoint(label, name, namespace, most),
            _ => Found::default(),
        }
    }

    fn service(&self, name: &str, namespace: &str, wanted: Option<(&str, &str)>, most: usize) -> Found {
        let key = format!("{name}.{namespace}");
        let Some(entry) = self.entries.get(&key) else {
            return Found::default();
        };
        let is_wanted = |port: &&Port| wanted.is_none_or(|(name, proto)| port.name == name && port.proto == proto);
        let mut found = Found {
            exists: wanted.is_none(),
            ..Found::default()
        };
        match &entry.kind {
            Kind::External(target) => {
                found.exists = true;
                found.alias = Some(target.clone());
            }
            Kind::Cluster { ip, ports } => {
                found.addresses.push(*ip);
                let located = |port: &Port| Located {
                    port: port.port,
                    target: format!("{key}.svc"),
                    ip: *ip,
                };
                found
                    .services
                    .extend(ports.iter().filter(is_wanted).take(most).map(located));
            }
            Kind::Headless(endpoints) => {
                for endpoint in endpoints {
                    let target = format!("{}.{key}.svc", endpoint.label);
                    let mut ports = endpoint.ports.iter().filter(is_wanted).peekable();
                    if wanted.is_none() || ports.peek().is_some() {
                        found.addresses.push(endpoint.ip);
                    }
                    let room = most - found.services.len();
                    found.services.extend(ports.take(room).map(|port| Located {
                        port: port.port,
                        target: target.clone(),
                        ip: endpoint.ip,
                    }));
                }
                found.addresses.sort();
                found.addresses.dedup();
            }
        }
        if wanted.is_some() && found.alias.is_none() {
            found.exists = !found.services.is_empty();
            if !found.exists {
                found.addresses.clear();
            }
        }
        found
    }

    fn endpoint(&self, label: &str, name: &str, namespace: &str, most: usize) -> Found {
        let key = format!("{name}.{namespace}");
        let mut found = Found::default();
        if let Some(Entry {
            kind: Kind::Headless(endpoints),
        }) = self.entries.get(&key)
        {
            for endpoint in endpoints.iter().filter(|endpoint| endpoint.label == label) {
                found.exists = true;
                found.addresses.push(endpoint.ip);
                let target = format!("{label}.{key}.svc");
                let room = most - found.services.len();
                found
                    .services
                    .extend(endpoint.ports.iter().take(room).map(|port| Located {
                        port: port.port,
                        target: target.clone(),
                        ip: endpoint.ip,
                    }));
            }
        }
        found
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    pub fn sample() -> Index {
        let service = |spec: serde_json::Value| -> Service { serde_json::from_value(json!({"spec": spec})).unwrap() };
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {}, "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.244.0.5"], "hostname": "db-0"},
                {"addresses": ["10.244.1.6"]},
                {"addresses": ["10.244.1.7"], "hostname": "db-2", "conditions": {"ready": false}}],
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
        }))
        .unwrap();
        let mut index = Index::default();
        let web = service(
            json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80, "protocol": "TCP"},
                                                                     {"name": "q", "port": 443, "protocol": "UDP"}]}),
        );
        index.set("app", "web", entry(&web, std::iter::empty()));
        let db = service(json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}));
        index.set("app", "db", entry(&db, [&slice].into_iter()));
        let out = service(json!({"type": "ExternalName", "externalName": "Example.com."}));
        index.set("app", "out", entry(&out, std::iter::empty()));
        let inner = service(json!({"type": "ExternalName", "externalName": "web.app.svc.cluster.local"}));
        index.set("app", "inner", entry(&inner, std::iter::empty()));
        index
    }

    /// Service app/wide without an address: so many ports, at so many endpoints each.
    pub fn wide(ports: u16, endpoints: u8) -> Index {
        let port = |n: u16| json!({"name": format!("p{n}"), "port": n});
        let ports: Vec<_> = (1..=ports).map(port).collect();
        let endpoint = |n: u8| json!({"addresses": [format!("10.244.0.{n}")]});
        let endpoints: Vec<_> = (0..endpoints).map(endpoint).collect();
        let slice =
            json!({"metadata": {"name": "wide-1"}, "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
        let slice = serde_json::from_value(slice).unwrap();
        let wide = serde_json::from_value(json!({"spec": {"clusterIP": "None", "ports": ports}})).unwrap();
        let mut index = Index::default();
        index.set("app", "wide", entry(&wide, [&slice].into_iter()));
        index
    }

    fn find(name: &str) -> String {
        let labels: Vec<&str> = name.split('.').collect();
        let found = sample().find(&labels, [10, 96, 0, 10].into(), 100);
        if !found.exists {
            return "-".into();
        }
        let addresses = found.addresses.iter().map(Ipv4Addr::to_string);
        let services = found.services.iter().map(|s| format!("{}@{}", s.port, s.target));
        addresses
            .chain(services)
            .chain(found.alias)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn names() {
        for (name, wanted) in [
            ("web.app.svc", "10.96.0.7 80@web.app.svc 443@web.app.svc"),
            ("_http._tcp.web.app.svc", "10.96.0.7 80@web.app.svc"),
            ("_http._udp.web.app.svc", "-"),
            ("_tcp.web.app.svc", ""),
            ("web.other.svc", "-"),
            ("x.web.app.svc", "-"),
            (
                "db.app.svc",
                "10.244.0.5 10.244.1.6 5432@db-0.db.app.svc 5432@10-244-1-6.db.app.svc",
            ),
            ("db-0.db.app.svc", "10.244.0.5 5432@db-0.db.app.svc"),
            ("10-244-1-6.db.app.svc", "10.244.1.6 5432@10-244-1-6.db.app.svc"),
            ("db-2.db.app.svc", "-"),
            (
                "_sql._tcp.db.app.svc",
                "10.244.0.5 10.244.1.6 5432@db-0.db.app.svc 5432@10-244-1-6.db.app.svc",
            ),
            ("out.app.svc", "example.com"),
            ("app.svc", ""),
            ("nope.svc", "-"),
            ("svc", ""),
            ("10-244-0-5.app.pod", "10.244.0.5"),
            ("x.app.pod", "-"),
            ("ns.dns", "10.96.0.10"),
            ("nope", "-"),
        ] {
            assert_eq!(find(name), wanted, "{name}");
        }
    }

    #[test]
    fn addresses_lead_back_until_they_are_gone() {
        let mut index = sample();
        let names = |index: &Index, ip: [u8; 4]| index.names_of(ip.into()).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(names(&index, [10, 96, 0, 7]), ["web.app.svc"]);
        assert_eq!(names(&index, [10, 244, 0, 5]), ["db-0.db.app.svc"]);
        assert!(names(&index, [10, 244, 1, 6]).is_empty(), "no hostname, no name");
        let same = index.entries["db.app"].clone();
        index.set("app", "db", Some(same));
        assert_eq!(names(&index, [10, 244, 0, 5]), ["db-0.db.app.svc"]);
        for name in ["web", "db", "out", "inner"] {
            index.set("app", name, None);
        }
        assert!(index.reverse.is_empty() && index.namespaces.is_empty() && index.entries.is_empty());
    }
}
