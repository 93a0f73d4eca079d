//! /etc/hosts, /etc/resolv.conf and the host name of a pod.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostAlias, Pod};
use mk8s_network::resolv_conf::ResolvConf;

use crate::pod;

const HOST_NAME_MAX: usize = 63;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_LENGTH: usize = 2048;
const MAX_NAMESERVERS: usize = 3;

/// (host name, domain). The domain is there for a pod with a subdomain: its FQDN is host.domain.
pub fn host_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pod::spec(pod);
    if let Some(name) = spec.hostname_override.as_deref().filter(|n| !n.is_empty()) {
        return (name.to_owned(), String::new());
    }
    let host = match spec.hostname.as_deref().filter(|h| !h.is_empty()) {
        Some(host) => host.to_owned(),
        None => truncated(pod::name(pod)),
    };
    let domain = match spec.subdomain.as_deref().filter(|s| !s.is_empty()) {
        Some(sub) => format!("{sub}.{}.svc.{cluster_domain}", pod::namespace(pod)),
        None => String::new(),
    };
    (host, domain)
}

/// The kernel's name may be the FQDN, where the pod asks for it.
pub fn kernel_hostname(pod: &Pod, host: &str, domain: &str) -> String {
    if pod::spec(pod).set_hostname_as_fqdn.unwrap_or(false) && !domain.is_empty() {
        return format!("{host}.{domain}");
    }
    host.to_owned()
}

fn truncated(name: &str) -> String {
    let cut = name.get(..HOST_NAME_MAX).unwrap_or(name);
    cut.trim_end_matches(['-', '.']).to_owned()
}

fn aliases(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut out = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        out.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    out
}

pub fn hosts(pod: &Pod, ips: &[String], host: &str, domain: &str) -> String {
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        if domain.is_empty() {
            out.push_str(&format!("{ip}\t{host}\n"));
        } else {
            out.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n"));
        }
    }
    out + &aliases(pod::spec(pod).host_aliases.as_deref().unwrap_or_default())
}

pub fn host_network_hosts(pod: &Pod, node_hosts: &str) -> String {
    let extra = aliases(pod::spec(pod).host_aliases.as_deref().unwrap_or_default());
    format!("# Kubernetes-managed hosts file (host network).\n{node_hosts}{extra}")
}

/// The pod's resolver by its dnsPolicy and dnsConfig; `host` is the node's.
pub fn resolver(pod: &Pod, host: &ResolvConf, cluster_dns: &[IpAddr], cluster_domain: &str) -> ResolvConf {
    let spec = pod::spec(pod);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" => !pod::host_network(pod),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut resolver = match policy {
        "None" => ResolvConf::default(),
        _ if cluster && !cluster_dns.is_empty() => {
            let namespace = pod::namespace(pod);
            let mut searches = vec![
                format!("{namespace}.svc.{cluster_domain}"),
                format!("svc.{cluster_domain}"),
                cluster_domain.to_owned(),
            ];
            searches.extend(host.searches.iter().cloned());
            ResolvConf {
                nameservers: cluster_dns.iter().map(ToString::to_string).collect(),
                searches,
                options: vec!["ndots:5".to_owned()],
            }
        }
        _ => host.clone(),
    };
    if let Some(config) = &spec.dns_config {
        resolver
            .nameservers
            .extend(config.nameservers.iter().flatten().cloned());
        resolver.searches.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let Some(name) = option.name.as_deref() else { continue };
            resolver.options.retain(|o| o.split(':').next() != Some(name));
            resolver.options.push(match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.to_owned(),
            });
        }
    }
    distinct(&mut resolver.nameservers);
    distinct(&mut resolver.searches);
    resolver.nameservers.truncate(MAX_NAMESERVERS);
    resolver.searches.truncate(MAX_SEARCHES);
    while resolver.searches.join(" ").len() > MAX_SEARCH_LENGTH {
        resolver.searches.pop();
    }
    resolver
}

fn distinct(list: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "n"}, "spec": spec})).unwrap()
    }

    #[test]
    fn names() {
        for (spec, expected) in [
            (json!({}), ("web-0", "", "web-0")),
            (json!({"hostname": "h"}), ("h", "", "h")),
            (
                json!({"hostname": "h", "subdomain": "s"}),
                ("h", "s.n.svc.cluster.local", "h"),
            ),
            (
                json!({"subdomain": "s", "setHostnameAsFQDN": true}),
                ("web-0", "s.n.svc.cluster.local", "web-0.s.n.svc.cluster.local"),
            ),
        ] {
            let pod = pod(spec);
            let (host, domain) = host_and_domain(&pod, "cluster.local");
            let kernel = kernel_hostname(&pod, &host, &domain);
            assert_eq!((host.as_str(), domain.as_str(), kernel.as_str()), expected);
        }
        assert_eq!(truncated(&"a".repeat(80)).len(), 63);
        assert_eq!(truncated(&format!("{}-{}", "a".repeat(62), "b")), "a".repeat(62));
    }

    #[test]
    fn resolvers() {
        let host = ResolvConf::parse("# x\nnameserver 9.9.9.9\nsearch corp.example\noptions timeout:2\n");
        let dns: Vec<IpAddr> = vec!["10.96.0.10".parse().unwrap()];
        let cluster = "search n.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver 10.96.0.10\noptions ndots:5\n";
        let own = "search corp.example\nnameserver 9.9.9.9\noptions timeout:2\n";
        for (spec, expected) in [
            (json!({}), cluster),
            (json!({"hostNetwork": true}), own),
            (
                json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
                cluster,
            ),
            (json!({"dnsPolicy": "Default"}), own),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["x"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
                "search x\nnameserver 1.1.1.1\noptions ndots:2 edns0\n",
            ),
            (
                json!({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}}),
                &cluster.replace("ndots:5", "ndots:1"),
            ),
        ] {
            assert_eq!(
                resolver(&pod(spec.clone()), &host, &dns, "cluster.local").print(),
                expected,
                "{spec}"
            );
        }
    }

    #[test]
    fn hosts_files() {
        let pod = pod(json!({"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let text = hosts(&pod, &["10.244.0.2".into()], "h", "s.n.svc.cluster.local");
        assert!(text.contains("\n10.244.0.2\th.s.n.svc.cluster.local\th\n"));
        assert!(text.ends_with("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
        assert!(
            host_network_hosts(&pod, "127.0.0.1 localhost\n")
                .starts_with("# Kubernetes-managed hosts file (host network).")
        );
    }
}
