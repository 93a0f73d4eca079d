//! Services. Addresses and node ports are checked against their ranges by whoever allocates them.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    Errors, Path, endpoint_ip, has, int, invalid_each, labels, list, one_of, one_of_if_set, port_or_name, same,
    strings, text,
};
use crate::status::FieldError;
use crate::{meta as object, names};

const SPEC: Path<'static> = Path::new("spec");
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

fn is_headless(spec: &Value) -> bool {
    let ips = list(spec, "clusterIPs");
    ips.len() == 1 && ips[0] == "None"
}

fn externally_accessible(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !list(spec, "externalIPs").is_empty(),
        _ => false,
    }
}

pub fn service(service: &Value, errors: &mut Errors) {
    let spec = has(service, "spec").unwrap_or(&Value::Null);
    let type_ = text(spec, "type");
    let headless = is_headless(spec);
    let ports = list(spec, "ports");
    if ports.is_empty() && !headless && type_ != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    match type_ {
        "LoadBalancer" | "NodePort" if headless => errors.push(FieldError::invalid(
            "spec.clusterIPs[0]",
            "None",
            format!("may not be set to 'None' for {type_} services"),
        )),
        "ExternalName" => external_name(spec, errors),
        _ => {}
    }
    let ports_path = SPEC.child("ports");
    let mut known: HashSet<&str> = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        service_port(port, ports.len() > 1, &mut known, &ports_path.index(index), errors);
    }
    labels(has(spec, "selector"), &SPEC.child("selector"), errors);
    session_affinity(spec, errors);
    cluster_ips(spec, errors);
    let external = SPEC.child("externalIPs");
    for (index, ip) in strings(spec, "externalIPs").enumerate() {
        let path = external.index(index);
        let problems = names::ip(ip);
        if problems.is_empty() {
            endpoint_ip(ip, &path, errors);
        } else {
            invalid_each(errors, &path, ip, problems);
        }
    }
    one_of(
        errors,
        spec,
        "type",
        &SPEC,
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
    );
    unique_ports(type_, ports, errors);
    // One that is there already may always go.
    if object::string(service, &["metadata", "deletionTimestamp"]).is_empty() {
        size(spec, ports.len(), errors);
    }
    load_balancer(spec, errors);
    traffic_policies(spec, errors);
}

/// As many as an EndpointSlice has, here and upstream.
const MAX_PORTS: usize = 20_000;
/// Ports times addresses: every node has a rule for each of the combinations, and some 1 KB of memory for it.
const MAX_COMBINATIONS: usize = 4096;

/// Upstream knows no bound but that of an object's bytes, and 90 KB of them can ask for four million rules. What is meant
/// in earnest has some ten addresses, or some ten ports, or a thousand ports at a few addresses.
fn size(spec: &Value, ports: usize, errors: &mut Errors) {
    if ports > MAX_PORTS {
        errors.push(FieldError::too_many("spec.ports", ports, MAX_PORTS));
    }
    for key in ["externalIPs", "loadBalancerSourceRanges"] {
        let items = list(spec, key).len();
        if items.saturating_mul(ports) > MAX_COMBINATIONS {
            let detail = format!("for each of {ports} ports they are more than {MAX_COMBINATIONS} rules");
            errors.push(FieldError::invalid(SPEC.child(key), format!("{items} items"), detail));
        }
    }
}

fn external_name(spec: &Value, errors: &mut Errors) {
    const NOT: &str = "may not be set for ExternalName services";
    for key in ["clusterIPs", "ipFamilies"] {
        if !list(spec, key).is_empty() {
            errors.push(FieldError::forbidden(SPEC.child(key), NOT));
        }
    }
    if has(spec, "ipFamilyPolicy").is_some() {
        errors.push(FieldError::forbidden("spec.ipFamilyPolicy", NOT));
    }
    let name = text(spec, "externalName").trim_end_matches('.');
    if name.is_empty() {
        errors.push(FieldError::required("spec.externalName", ""));
    } else {
        invalid_each(errors, &SPEC.child("externalName"), name, names::dns_subdomain(name));
    }
}

fn service_port<'a>(
    port: &'a Value,
    require_name: bool,
    known: &mut HashSet<&'a str>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let name = text(port, "name");
    if name.is_empty() {
        if require_name {
            errors.push(FieldError::required(path.child("name"), ""));
        }
    } else {
        invalid_each(errors, &path.child("name"), name, names::dns_label(name));
        if !known.insert(name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
    }
    let number = int(port, "port").unwrap_or(0);
    for problem in names::port_number(number) {
        errors.push(FieldError::invalid(path.child("port"), number, problem));
    }
    one_of(errors, port, "protocol", path, &PROTOCOLS);
    port_or_name(errors, has(port, "targetPort"), &path.child("targetPort"));
    if let Some(protocol) = has(port, "appProtocol").and_then(Value::as_str) {
        invalid_each(
            errors,
            &path.child("appProtocol"),
            protocol,
            names::qualified_name(protocol),
        );
    }
}

fn session_affinity(spec: &Value, errors: &mut Errors) {
    one_of(errors, spec, "sessionAffinity", &SPEC, &["ClientIP", "None"]);
    let config = has(spec, "sessionAffinityConfig");
    match text(spec, "sessionAffinity") {
        "ClientIP" => {
            let timeout = config.and_then(|config| object::i64_at(config, &["clientIP", "timeoutSeconds"]));
            match timeout {
                None => errors.push(FieldError::required(
                    "spec.sessionAffinityConfig",
                    "when session affinity type is ClientIP",
                )),
                Some(seconds) if !(1..=86_400).contains(&seconds) => errors.push(FieldError::invalid(
                    "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                    seconds,
                    "must be greater than 0 and less than 86400",
                )),
                Some(_) => {}
            }
        }
        "None" if config.is_some() => errors.push(FieldError::forbidden(
            "spec.sessionAffinityConfig",
            "must not be set when session affinity is None",
        )),
        _ => {}
    }
}

/// `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy`; a cluster with one family answers as upstream does.
fn cluster_ips(spec: &Value, errors: &mut Errors) {
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let ips_path = SPEC.child("clusterIPs");
    let ips: Vec<&str> = strings(spec, "clusterIPs").collect();
    let shown = || Value::Array(list(spec, "clusterIPs").to_vec());
    match (text(spec, "clusterIP"), ips.first()) {
        ("", None) => {}
        ("", Some(_)) => errors.push(FieldError::invalid(
            ips_path,
            shown(),
            "must be empty when `clusterIP` is not specified",
        )),
        (_, None) => errors.push(FieldError::required(ips_path, "")),
        (own, Some(first)) if own != *first => errors.push(FieldError::invalid(
            ips_path,
            shown(),
            "first value must match `clusterIP`",
        )),
        _ => {}
    }
    let families = ip_families(spec, &SPEC.child("ipFamilies"), errors);
    one_of_if_set(
        errors,
        spec,
        "ipFamilyPolicy",
        &SPEC,
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
    );
    let before = errors.len();
    for (index, ip) in ips.iter().enumerate() {
        if index == 0 && *ip == "None" {
            if ips.len() > 1 {
                errors.push(FieldError::invalid(
                    ips_path,
                    shown(),
                    "'None' must be the first and only value",
                ));
            }
            continue;
        }
        invalid_each(errors, &ips_path.index(index), ip, names::ip(ip));
    }
    if ips.len() > 2 {
        errors.push(FieldError::invalid(ips_path, shown(), "may only hold up to 2 values"));
    }
    if errors.len() > before {
        return;
    }
    single_stack(spec, &ips, &families, errors);
}

/// Every family that is named, in order.
fn ip_families<'a>(spec: &'a Value, path: &Path<'_>, errors: &mut Errors) -> Vec<&'a str> {
    let families: Vec<&str> = strings(spec, "ipFamilies").collect();
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, &family) in families.iter().enumerate() {
        let path = path.index(index);
        if !matches!(family, "IPv4" | "IPv6") {
            errors.push(FieldError::not_supported(path, family, &["IPv4", "IPv6"]));
        }
        if !seen.insert(family) {
            errors.push(FieldError::duplicate(path, family));
        }
    }
    families
}

/// There is one address family, IPv4.
fn single_stack(spec: &Value, ips: &[&str], families: &[&str], errors: &mut Errors) {
    let headless_selectorless =
        ips == ["None"] && object::map_at(spec, &["selector"]).is_none_or(|selector| selector.is_empty());
    for (index, ip) in ips.iter().enumerate() {
        if *ip == "None" {
            continue;
        }
        match families.get(index) {
            Some(&"IPv4") if names::ipv6(ip) => errors.push(FieldError::invalid(
                SPEC.child("clusterIPs").index(index),
                *ip,
                format!("expected an IPv4 value as indicated by `ipFamilies[{index}]`"),
            )),
            Some(&"IPv6") if !names::ipv6(ip) => errors.push(FieldError::invalid(
                SPEC.child("clusterIPs").index(index),
                *ip,
                format!("expected an IPv6 value as indicated by `ipFamilies[{index}]`"),
            )),
            None if names::ipv6(ip) => errors.push(FieldError::invalid(
                SPEC.child("clusterIPs").index(index),
                Value::Array(list(spec, "clusterIPs").to_vec()),
                "IPv6 is not configured on this cluster",
            )),
            _ => {}
        }
    }
    if headless_selectorless {
        return;
    }
    let policy = text(spec, "ipFamilyPolicy");
    if policy == "SingleStack" {
        for (count, what) in [(ips.len(), "cluster IPs"), (families.len(), "IP families")] {
            if count == 2 {
                errors.push(FieldError::invalid(
                    "spec.ipFamilyPolicy",
                    policy,
                    format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"),
                ));
            }
        }
    }
    if policy == "RequireDualStack" {
        errors.push(FieldError::invalid(
            "spec.ipFamilyPolicy",
            policy,
            "this cluster is not configured for dual-stack services",
        ));
    }
    for (index, family) in families.iter().enumerate() {
        if *family == "IPv6" {
            errors.push(FieldError::invalid(
                SPEC.child("ipFamilies").index(index),
                *family,
                "not configured on this cluster",
            ));
        }
    }
}

fn unique_ports(type_: &str, ports: &[Value], errors: &mut Errors) {
    let ports_path = SPEC.child("ports");
    let node_port = |port: &Value| int(port, "nodePort").unwrap_or(0);
    if type_ == "ClusterIP" {
        for (index, port) in ports.iter().enumerate() {
            if node_port(port) != 0 {
                errors.push(FieldError::forbidden(
                    ports_path.index(index).child("nodePort"),
                    "may not be used when `type` is 'ClusterIP'",
                ));
            }
        }
    }
    let mut seen: HashSet<(i64, &str)> = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let number = node_port(port);
        if number != 0 && !seen.insert((number, text(port, "protocol"))) {
            errors.push(FieldError::duplicate(ports_path.index(index).child("nodePort"), number));
        }
    }
    let mut seen: HashSet<(Option<i64>, &str)> = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        if !seen.insert((int(port, "port"), text(port, "protocol"))) {
            // upstream shows its internal struct here
            let shown = serde_json::json!({"Name": "", "Protocol": text(port, "protocol"), "AppProtocol": null,
                "Port": int(port, "port"), "TargetPort": 0, "NodePort": 0});
            errors.push(FieldError::duplicate(ports_path.index(index), shown));
        }
    }
}

fn load_balancer(spec: &Value, errors: &mut Errors) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let balanced = text(spec, "type") == "LoadBalancer";
    let ranges = SPEC.child("LoadBalancerSourceRanges");
    if !list(spec, "loadBalancerSourceRanges").is_empty() {
        if !balanced {
            errors.push(FieldError::forbidden(ranges, ONLY));
        }
        for (index, range) in strings(spec, "loadBalancerSourceRanges").enumerate() {
            invalid_each(errors, &ranges.index(index), range, names::cidr(range.trim()));
        }
    }
    if !balanced && has(spec, "allocateLoadBalancerNodePorts").is_some() {
        errors.push(FieldError::forbidden("spec.allocateLoadBalancerNodePorts", ONLY));
    }
    if let Some(class) = has(spec, "loadBalancerClass").and_then(Value::as_str) {
        if balanced {
            invalid_each(
                errors,
                &SPEC.child("loadBalancerClass"),
                class,
                names::qualified_name(class),
            );
        } else {
            errors.push(FieldError::forbidden("spec.loadBalancerClass", ONLY));
        }
    }
}

fn traffic_policies(spec: &Value, errors: &mut Errors) {
    let external = text(spec, "externalTrafficPolicy");
    if externally_accessible(spec) {
        one_of(errors, spec, "externalTrafficPolicy", &SPEC, &["Cluster", "Local"]);
    } else if !external.is_empty() {
        errors.push(FieldError::invalid(
            "spec.externalTrafficPolicy",
            external,
            "may only be set for externally-accessible services",
        ));
    }
    let health = int(spec, "healthCheckNodePort").unwrap_or(0);
    let needs_health = text(spec, "type") == "LoadBalancer" && external == "Local";
    if health != 0 && !needs_health {
        errors.push(FieldError::invalid(
            "spec.healthCheckNodePort",
            health,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ));
    }
    if health != 0 && needs_health {
        for problem in names::port_number(health) {
            errors.push(FieldError::invalid("spec.healthCheckNodePort", health, problem));
        }
    }
    if matches!(text(spec, "type"), "ClusterIP" | "NodePort" | "LoadBalancer")
        && has(spec, "internalTrafficPolicy").is_none()
    {
        errors.push(FieldError::required("spec.internalTrafficPolicy", ""));
    }
    one_of_if_set(errors, spec, "internalTrafficPolicy", &SPEC, &["Cluster", "Local"]);
    one_of_if_set(
        errors,
        spec,
        "trafficDistribution",
        &SPEC,
        &["PreferClose", "PreferSameZone", "PreferSameNode"],
    );
}

pub fn service_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (spec, before) = (
        has(new, "spec").unwrap_or(&Value::Null),
        has(old, "spec").unwrap_or(&Value::Null),
    );
    let external = |spec: &Value| text(spec, "type") == "ExternalName";
    if !external(spec) && !external(before) {
        let (own, was) = (list(spec, "clusterIPs").first(), list(before, "clusterIPs").first());
        if was.is_some() && own != was {
            errors.push(FieldError::invalid(
                "spec.clusterIPs[0]",
                Value::Array(list(spec, "clusterIPs").to_vec()),
                "may not change once set",
            ));
        }
        let (own, was) = (list(spec, "ipFamilies").first(), list(before, "ipFamilies").first());
        if was.is_some() && own.is_some() && own != was {
            errors.push(FieldError::invalid(
                "spec.ipFamilies[0]",
                Value::Array(list(spec, "ipFamilies").to_vec()),
                "may not change once set",
            ));
        }
    }
    let balanced = |spec: &Value| text(spec, "type") == "LoadBalancer";
    if balanced(spec) && balanced(before) {
        if !same(has(spec, "loadBalancerClass"), has(before, "loadBalancerClass")) {
            errors.push(FieldError::invalid(
                "spec.loadBalancerClass",
                has(spec, "loadBalancerClass").cloned().unwrap_or(Value::Null),
                "may not change once set",
            ));
        }
        let local = |spec: &Value| text(spec, "externalTrafficPolicy") == "Local";
        let port = |spec: &Value| int(spec, "healthCheckNodePort").unwrap_or(0);
        if local(spec) && local(before) && port(spec) != port(before) {
            errors.push(FieldError::forbidden("spec.healthCheckNodePort", "field is immutable"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(change: fn(&mut Value)) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
        change(&mut object["spec"]);
        crate::defaults::service(&mut object);
        crate::defaults::prepare_service_create(&mut object);
        let mut errors = Errors::new();
        service(&object, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn words_and_paths() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
        assert_eq!(
            problems(|spec| spec["ports"] = json!([])),
            ["spec.ports: Required value"]
        );
        assert_eq!(
            problems(|spec| spec["ports"] = json!([{"port": 80}, {"port": 81}])),
            [
                "spec.ports[0].name: Required value",
                "spec.ports[1].name: Required value"
            ]
        );
        assert_eq!(
            problems(|spec| spec["type"] = "X".into()),
            [
                "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\""
            ]
        );
        assert_eq!(
            problems(|spec| spec["ipFamilies"] = json!(["IPv6"])),
            ["spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"]
        );
        assert_eq!(problems(|spec| spec["clusterIP"] = "None".into()), Vec::<String>::new());
        let old = json!({"spec": {"clusterIPs": ["10.96.0.1"]}});
        let new = json!({"spec": {"clusterIPs": ["10.96.0.2"]}});
        let mut errors = Errors::new();
        service_update(&new, &old, &mut errors);
        assert_eq!(
            errors[0].to_string(),
            "spec.clusterIPs[0]: Invalid value: [\"10.96.0.2\"]: may not change once set"
        );
    }

    #[test]
    fn is_no_more_than_nodes_can_hold() {
        fn sized(spec: &mut Value, key: &str, ports: u16, items: u16) {
            let port = |n: u16| json!({"name": format!("p{n}"), "port": n});
            let ip = |n: u16| format!("192.0.{}.{}", n >> 8, n & 0xff);
            spec["ports"] = (1..=ports).map(port).collect();
            spec["type"] = "LoadBalancer".into();
            let range = if key == "externalIPs" { "" } else { "/32" };
            spec[key] = (0..items).map(|n| ip(n) + range).collect();
        }
        let none = Vec::<String>::new();
        assert_eq!(problems(|spec| sized(spec, "externalIPs", 64, 64)), none);
        assert_eq!(problems(|spec| sized(spec, "externalIPs", 1000, 4)), none);
        assert_eq!(problems(|spec| sized(spec, "loadBalancerSourceRanges", 4, 1000)), none);
        assert_eq!(
            problems(|spec| sized(spec, "externalIPs", 2000, 2000)),
            ["spec.externalIPs: Invalid value: \"2000 items\": for each of 2000 ports they are more than 4096 rules"]
        );
        assert_eq!(
            problems(|spec| sized(spec, "loadBalancerSourceRanges", 65, 64)),
            [
                "spec.loadBalancerSourceRanges: Invalid value: \"64 items\": for each of 65 ports they are more than 4096 rules"
            ]
        );
        assert_eq!(
            problems(|spec| sized(spec, "externalIPs", 20_001, 0)),
            ["spec.ports: Too many: 20001: must have at most 20000 items"]
        );
        // A finalizer can be taken off what was stored before there was a bound.
        let mut going = json!({"metadata": {"name": "s", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"selector": {"a": "b"}}});
        sized(&mut going["spec"], "externalIPs", 2000, 2000);
        crate::defaults::service(&mut going);
        let mut errors = Errors::new();
        size(&going["spec"], 2000, &mut errors);
        assert_eq!(errors.len(), 1);
        errors.clear();
        service(&going, &mut errors);
        assert!(
            errors.iter().all(|error| !error.to_string().contains("4096")),
            "{errors:?}"
        );
    }
}
