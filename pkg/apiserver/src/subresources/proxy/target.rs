//! Whom a request to `pods|services|nodes/proxy` is for: `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`, looked up. Only addresses
//! that another machine could reach are asked: no loopback, link-local or multicast one, whatever an object says of itself.

use std::net::IpAddr;

use mk8s_api::meta;
use mk8s_api::status::Status;
use serde_json::Value;

use super::super::nodes;
use crate::watch_cache::Cache;

/// Who is asked.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    pub https: bool,
    /// `HOST:PORT`; without the port where the scheme says it.
    pub authority: String,
    /// The node whose own server it is, which knows this server's certificate.
    pub kubelet: bool,
}

/// A name in the path, taken apart.
struct Asked<'a> {
    https: bool,
    name: &'a str,
    port: &'a str,
}

impl Target {
    /// The target of a request to a resource's `proxy`.
    pub async fn find(cache: &Cache, resource: &str, namespace: &str, id: &str) -> Result<Target, Status> {
        let what = resource.trim_end_matches('s');
        let asked = Asked::parse(id).ok_or_else(|| Status::bad_request(format!("invalid {what} request {id:?}")))?;
        match resource {
            "nodes" => node(cache, &asked).await,
            "services" => service(cache, namespace, id, &asked),
            _ => pod(cache, namespace, &asked),
        }
    }

    fn at(asked: &Asked<'_>, host: &str, port: &str) -> Result<Target, Status> {
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_string()
        };
        // It is the caller's text: nothing else than a number may become a part of the address.
        if !port.is_empty() && port.parse::<u16>().is_err() {
            return Err(super::unreachable(format!("dial tcp: address {port}: invalid port")));
        }
        Ok(Target {
            https: asked.https,
            authority: if port.is_empty() {
                host
            } else {
                format!("{host}:{port}")
            },
            kubelet: false,
        })
    }
}

impl<'a> Asked<'a> {
    fn parse(id: &'a str) -> Option<Asked<'a>> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let valid = !name.is_empty() && matches!(scheme, "" | "http" | "https");
        valid.then_some(Asked {
            https: scheme == "https",
            name,
            port,
        })
    }
}

fn stored(cache: &Cache, plural: &str, namespace: &str, name: &str) -> Result<Value, Status> {
    let found = cache.resource("", plural).and_then(|cache| cache.get(namespace, name));
    found.ok_or_else(|| Status::not_found("", plural, name))?.value()
}

fn pod(cache: &Cache, namespace: &str, asked: &Asked<'_>) -> Result<Target, Status> {
    let pod = stored(cache, "pods", namespace, asked.name)?;
    let address = match meta::items(&pod, &["status", "podIPs"]) {
        [first, ..] => meta::string(first, &["ip"]),
        [] => meta::string(&pod, &["status", "podIP"]),
    };
    allow(address)?;
    if !asked.port.is_empty() {
        return Target::at(asked, address, asked.port);
    }
    let containers = meta::items(&pod, &["spec", "containers"]).iter();
    let ports = containers.filter_map(|container| meta::items(container, &["ports"]).first());
    let first = ports
        .filter_map(|port| meta::i64_at(port, &["containerPort"]))
        .next()
        .map_or_else(String::new, |port| port.to_string());
    Target::at(asked, address, &first)
}

fn service(cache: &Cache, namespace: &str, id: &str, asked: &Asked<'_>) -> Result<Target, Status> {
    let mut port = asked.port.to_string();
    if let Ok(number) = asked.port.parse::<i64>() {
        let service = stored(cache, "services", namespace, asked.name)?;
        let ports = meta::items(&service, &["spec", "ports"]);
        let own = ports.iter().find(|own| meta::i64_at(own, &["port"]) == Some(number));
        let none = || Status::unavailable(format!("no service port {number} found for service {:?}", asked.name));
        port = meta::string(own.ok_or_else(none)?, &["name"]).to_string();
    }
    let endpoints = stored(cache, "endpoints", namespace, asked.name);
    // What is missing is what was asked for.
    let endpoints = endpoints.map_err(|_| Status::not_found("", "services", asked.name))?;
    let subsets = meta::items(&endpoints, &["subsets"]);
    if subsets.is_empty() {
        return Err(Status::unavailable(format!(
            "no endpoints available for service {:?}",
            asked.name
        )));
    }
    let mut others = false;
    around(subsets)
        .find_map(|subset| {
            let ports = meta::items(subset, &["ports"]).iter();
            let port = ports
                .filter(|own| meta::string(own, &["name"]) == port)
                .find_map(|own| meta::i64_at(own, &["port"]))?;
            let address = around(meta::items(subset, &["addresses"]))
                .filter(|address| {
                    let own = is_pods_own(cache, namespace, address);
                    others |= !own;
                    own
                })
                .map(|address| meta::string(address, &["ip"]))
                .find(|address| allow(address).is_ok())?;
            Some((address, port))
        })
        .ok_or_else(|| {
            let why = match others {
                true => {
                    ": of its endpoints none is the pod in its namespace that it says it is, and no others are asked"
                }
                false => "",
            };
            Status::unavailable(format!("no endpoints available for service {id:?}{why}"))
        })
        .and_then(|(address, port)| Target::at(asked, address, &port.to_string()))
}

/// Whether an endpoint is the pod that it says it is: who may write Endpoints must not choose what this server asks.
fn is_pods_own(cache: &Cache, namespace: &str, address: &Value) -> bool {
    if meta::string(address, &["targetRef", "namespace"]) != namespace {
        return false;
    }
    let name = meta::string(address, &["targetRef", "name"]);
    let Ok(pod) = stored(cache, "pods", namespace, name) else {
        return false;
    };
    let own = meta::items(&pod, &["status", "podIPs"]);
    own.iter()
        .any(|own| meta::string(own, &["ip"]) == meta::string(address, &["ip"]))
}

/// All of them, beginning anywhere.
fn around(items: &[Value]) -> impl Iterator<Item = &Value> {
    let start = if items.is_empty() {
        0
    } else {
        rand::random_range(0..items.len())
    };
    items[start..].iter().chain(&items[..start])
}

async fn node(cache: &Cache, asked: &Asked<'_>) -> Result<Target, Status> {
    let (host, own) = nodes::endpoint(cache, asked.name)?;
    let addresses = tokio::net::lookup_host((host.as_str(), 0)).await;
    let addresses = addresses.map_err(|error| Status::bad_request(format!("lookup {host}: {error}")))?;
    for address in addresses {
        allow(&address.ip().to_string())?;
    }
    let own = own.to_string();
    if asked.port.is_empty() || asked.port == own {
        return Ok(Target {
            https: true,
            kubelet: true,
            ..Target::at(asked, &host, &own)?
        });
    }
    Target::at(asked, &host, asked.port)
}

fn allow(address: &str) -> Result<(), Status> {
    let address: Option<IpAddr> = address.parse().ok();
    if address.is_some_and(is_global_unicast) {
        return Ok(());
    }
    Err(Status::bad_request("address not allowed"))
}

fn is_global_unicast(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified() || v4.is_loopback() || v4.is_multicast() || v4.is_link_local() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let of = |id| Asked::parse(id).map(|asked| (asked.https, asked.name, asked.port));
        assert_eq!(of("a"), Some((false, "a", "")));
        assert_eq!(of("a:80"), Some((false, "a", "80")));
        assert_eq!(of("http:a:80"), Some((false, "a", "80")));
        assert_eq!(of("https:a:"), Some((true, "a", "")));
        let asked = Asked::parse("a:80@10.0.0.1").unwrap();
        assert!(Target::at(&asked, "10.1.2.3", asked.port).is_err());
        for id in ["", ":80", "ftp:a:80", "http::80", "a:b:c:d"] {
            assert_eq!(of(id), None, "{id}");
        }
    }

    #[test]
    fn addresses_of_this_machine_are_not_asked() {
        for address in [
            "",
            "host",
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(allow(address).is_err(), "{address}");
        }
        for address in ["10.1.2.3", "192.168.0.1", "fd00::1"] {
            assert!(allow(address).is_ok(), "{address}");
        }
    }
}
