//! Services. Addresses and node ports are checked against their ranges by whoever allocates them.

use std::collections::HashSet;

use serde_json::Value;

use super::rules::{Rules, Scope, call, check, check_spec, format_if_set, number, one_of, one_of_if_set, whole};
use super::{
    Errors, Path, SPEC, endpoint_ip, has, int, invalid_each, labels, list, numbered, port_or_name, spec_of, strings,
    text,
};
use crate::status::FieldError;
use crate::{meta as object, names};

const SERVICE: Rules = &[
    whole(some_ports),
    whole(by_type),
    whole(ports),
    call("selector", selector),
    one_of("sessionAffinity", &["ClientIP", "None"]),
    whole(affinity_config),
    whole(addresses),
    call("externalIPs", external_ips),
    one_of("type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]),
    whole(unique_ports),
    whole(size),
    whole(load_balancer),
    whole(traffic_policies),
    one_of_if_set(
        "trafficDistribution",
        &["PreferClose", "PreferSameZone", "PreferSameNode"],
    ),
];

const PORT: Rules = &[
    number("port", 1, 65_535),
    one_of("protocol", &["SCTP", "TCP", "UDP"]),
    whole(target_port),
    format_if_set("appProtocol", names::qualified_name),
];

const POLICY: Rules = &[one_of_if_set(
    "ipFamilyPolicy",
    &["PreferDualStack", "RequireDualStack", "SingleStack"],
)];
const EXTERNAL: Rules = &[one_of("externalTrafficPolicy", &["Cluster", "Local"])];
const INTERNAL: Rules = &[one_of_if_set("internalTrafficPolicy", &["Cluster", "Local"])];

pub fn service(service: &Value, errors: &mut Errors) {
    check_spec(SERVICE, service, errors);
}

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

fn some_ports(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if list(spec, "ports").is_empty() && !is_headless(spec) && text(spec, "type") != "ExternalName" {
        errors.push(FieldError::required(path.child("ports"), ""));
    }
}

fn by_type(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    match text(spec, "type") {
        own @ ("LoadBalancer" | "NodePort") if is_headless(spec) => {
            let why = format!("may not be set to 'None' for {own} services");
            errors.push(FieldError::invalid(path.child("clusterIPs").index(0), "None", why));
        }
        "ExternalName" => external_name(spec, errors),
        _ => {}
    }
}

fn ports(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("ports");
    let ports = list(spec, "ports");
    let mut known: HashSet<&str> = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let own = path.child("name");
        match text(port, "name") {
            "" if ports.len() > 1 => errors.push(FieldError::required(own, "")),
            "" => {}
            name => {
                invalid_each(errors, &own, name, names::dns_label(name));
                if !known.insert(name) {
                    errors.push(FieldError::duplicate(own, name));
                }
            }
        }
        check(PORT, port, scope, &path, errors);
    }
}

fn target_port(port: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    port_or_name(errors, has(port, "targetPort"), &path.child("targetPort"));
}

fn selector(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    labels(Some(own), path, errors);
}

fn addresses(_: &Value, scope: &Scope<'_>, _: &Path<'_>, errors: &mut Errors) {
    service_addresses(scope.object, errors);
}

fn external_ips(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    for (index, ip) in numbered(own) {
        let (path, ip) = (path.index(index), ip.as_str().unwrap_or(""));
        let problems = names::ip(ip);
        if problems.is_empty() {
            endpoint_ip(ip, &path, errors);
        }
        invalid_each(errors, &path, ip, problems);
    }
}

/// As many as an EndpointSlice has, here and upstream.
const MAX_PORTS: usize = 20_000;
/// Ports times addresses: every node has a rule for each of the combinations, and some 1 KB of memory for it.
const MAX_COMBINATIONS: usize = 4096;

/// Upstream knows no bound but that of an object's bytes, and 90 KB of them can ask for four million rules. What is meant
/// in earnest has some ten addresses, or some ten ports, or a thousand ports at a few addresses.
fn size(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let ports = list(spec, "ports").len();
    // One that is there already may always go.
    if object::is_deleting(scope.object) {
        return;
    }
    if ports > MAX_PORTS {
        errors.push(FieldError::too_many(path.child("ports"), ports, MAX_PORTS));
    }
    for key in ["externalIPs", "loadBalancerSourceRanges"] {
        let items = list(spec, key).len();
        if items.saturating_mul(ports) > MAX_COMBINATIONS {
            let detail = format!("for each of {ports} ports they are more than {MAX_COMBINATIONS} rules");
            errors.push(FieldError::invalid(path.child(key), format!("{items} items"), detail));
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

fn affinity_config(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let config = has(spec, "sessionAffinityConfig");
    let path = path.child("sessionAffinityConfig");
    match text(spec, "sessionAffinity") {
        "ClientIP" => match config.and_then(|config| object::i64_at(config, &["clientIP", "timeoutSeconds"])) {
            None => errors.push(FieldError::required(path, "when session affinity type is ClientIP")),
            Some(seconds) if !(1..=86_400).contains(&seconds) => {
                let client = path.child("clientIP");
                let why = "must be greater than 0 and less than 86400";
                errors.push(FieldError::invalid(client.child("timeoutSeconds"), seconds, why));
            }
            Some(_) => {}
        },
        "None" if config.is_some() => {
            errors.push(FieldError::forbidden(
                path,
                "must not be set when session affinity is None",
            ));
        }
        _ => {}
    }
}

/// `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy`: whoever chooses addresses asks it before all else.
pub fn service_addresses(service: &Value, errors: &mut Errors) {
    let spec = spec_of(service);
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let ips_path = SPEC.child("clusterIPs");
    let ips: Vec<&str> = strings(spec, "clusterIPs").collect();
    let shown = || Value::Array(list(spec, "clusterIPs").to_vec());
    match (text(spec, "clusterIP"), ips.first()) {
        ("", None) => {}
        ("", Some(_)) => {
            let why = "must be empty when `clusterIP` is not specified";
            errors.push(FieldError::invalid(ips_path, shown(), why));
        }
        (_, None) => errors.push(FieldError::required(ips_path, "")),
        (own, Some(first)) if own != *first => {
            let why = "first value must match `clusterIP`";
            errors.push(FieldError::invalid(ips_path, shown(), why));
        }
        _ => {}
    }
    let families = ip_families(spec, &SPEC.child("ipFamilies"), errors);
    check(POLICY, spec, &Scope::of(service), &SPEC, errors);
    let before = errors.len();
    for (index, ip) in ips.iter().enumerate() {
        if index == 0 && *ip == "None" {
            if ips.len() > 1 {
                let why = "'None' must be the first and only value";
                errors.push(FieldError::invalid(ips_path, shown(), why));
            }
            continue;
        }
        invalid_each(errors, &ips_path.index(index), ip, names::ip(ip));
    }
    let well_formed = errors.len() == before;
    if ips.len() > 2 {
        errors.push(FieldError::invalid(ips_path, shown(), "may only hold up to 2 values"));
    }
    if !well_formed {
        return;
    }
    let sixes = ips.iter().filter(|ip| names::ipv6(ip)).count();
    if ips.len() > 1 && (sixes == 0 || sixes == ips.len()) {
        let why = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(ips_path, shown(), why));
    }
    if ips == ["None"] {
        return;
    }
    for (index, (ip, family)) in ips.iter().zip(families).enumerate() {
        if matches!(family, "IPv4" | "IPv6") && names::ipv6(ip) != (family == "IPv6") {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.push(FieldError::invalid(ips_path.index(index), *ip, why));
        }
    }
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

/// What a cluster of the one family `own` cannot give.
pub fn service_families(service: &Value, own: &str, errors: &mut Errors) {
    let spec = spec_of(service);
    let ips: Vec<&str> = strings(spec, "clusterIPs").collect();
    let families: Vec<&str> = strings(spec, "ipFamilies").collect();
    let policy = text(spec, "ipFamilyPolicy");
    let path = SPEC.child("ipFamilyPolicy");
    for (count, what) in [(ips.len(), "cluster IPs"), (families.len(), "IP families")] {
        if policy == "SingleStack" && count == 2 {
            let why = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.push(FieldError::invalid(path, policy, why));
        }
    }
    let addresses = ips.iter().take_while(|ip| **ip != "None").enumerate();
    for (index, ip) in addresses.skip(families.len()) {
        let family = if names::ipv6(ip) { "IPv6" } else { "IPv4" };
        if family != own {
            let shown = list(spec, "clusterIPs").to_vec();
            let why = format!("{family} is not configured on this cluster");
            errors.push(FieldError::invalid(SPEC.child("clusterIPs").index(index), shown, why));
        }
    }
    // Without a selector both families may be asked for whatever the cluster has.
    let selectorless = object::map_at(spec, &["selector"]).is_none_or(|selector| selector.is_empty());
    if !errors.is_empty() || (ips == ["None"] && selectorless) {
        return;
    }
    if policy == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid(path, policy, why));
    }
    for (index, family) in families.iter().enumerate().filter(|(_, family)| **family != own) {
        let path = SPEC.child("ipFamilies");
        errors.push(FieldError::invalid(
            path.index(index),
            *family,
            "not configured on this cluster",
        ));
    }
}

fn unique_ports(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let (type_, ports) = (text(spec, "type"), list(spec, "ports"));
    let ports_path = path.child("ports");
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
            let shown = serde_json::json!({"protocol": text(port, "protocol"), "port": int(port, "port")});
            errors.push(FieldError::duplicate(ports_path.index(index), shown));
        }
    }
}

const ONLY_BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";

fn load_balancer(spec: &Value, _: &Scope<'_>, _: &Path<'_>, errors: &mut Errors) {
    let balanced = text(spec, "type") == "LoadBalancer";
    let ranges = SPEC.child("LoadBalancerSourceRanges");
    if !list(spec, "loadBalancerSourceRanges").is_empty() {
        if !balanced {
            errors.push(FieldError::forbidden(ranges, ONLY_BALANCED));
        }
        for (index, range) in strings(spec, "loadBalancerSourceRanges").enumerate() {
            invalid_each(errors, &ranges.index(index), range, names::cidr(range.trim()));
        }
    }
    if !balanced && has(spec, "allocateLoadBalancerNodePorts").is_some() {
        errors.push(FieldError::forbidden(
            "spec.allocateLoadBalancerNodePorts",
            ONLY_BALANCED,
        ));
    }
    balancer_class(spec, errors);
}

fn balancer_class(spec: &Value, errors: &mut Errors) {
    let Some(class) = has(spec, "loadBalancerClass").and_then(Value::as_str) else {
        return;
    };
    let path = SPEC.child("loadBalancerClass");
    if text(spec, "type") == "LoadBalancer" {
        invalid_each(errors, &path, class, names::qualified_name(class));
    } else {
        errors.push(FieldError::forbidden(path, ONLY_BALANCED));
    }
}

fn traffic_policies(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let external = text(spec, "externalTrafficPolicy");
    if externally_accessible(spec) {
        check(EXTERNAL, spec, scope, path, errors);
    } else if !external.is_empty() {
        let why = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid(path.child("externalTrafficPolicy"), external, why));
    }
    let health = int(spec, "healthCheckNodePort").unwrap_or(0);
    let at = path.child("healthCheckNodePort");
    match (health, text(spec, "type") == "LoadBalancer" && external == "Local") {
        (0, true) => errors.push(FieldError::required(at, "")),
        (_, true) => {
            for problem in names::port_number(health) {
                errors.push(FieldError::invalid(at, health, problem));
            }
        }
        (0, false) => {}
        (_, false) => {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid(at, health, why));
        }
    }
    let internal = has(spec, "internalTrafficPolicy");
    if internal.is_none() && matches!(text(spec, "type"), "ClusterIP" | "NodePort" | "LoadBalancer") {
        errors.push(FieldError::required(path.child("internalTrafficPolicy"), ""));
    }
    check(INTERNAL, spec, scope, path, errors);
}

pub fn service_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (spec, before) = (spec_of(new), spec_of(old));
    let any = |is: fn(&Value) -> bool| is(spec) || is(before);
    if !any(|spec| text(spec, "type") == "ExternalName") {
        if !(is_headless(spec) && is_headless(before)) {
            kept(spec, before, "clusterIPs", "primary clusterIP can not be unset", errors);
        }
        if !any(is_headless) {
            kept(spec, before, "ipFamilies", "primary ipFamily can not be unset", errors);
        }
    }
    let balanced = |spec: &Value| text(spec, "type") == "LoadBalancer";
    if balanced(spec) && balanced(before) && has(spec, "loadBalancerClass") != has(before, "loadBalancerClass") {
        errors.push(FieldError::invalid(
            "spec.loadBalancerClass",
            has(spec, "loadBalancerClass").cloned().unwrap_or(Value::Null),
            "may not change once set",
        ));
    }
    // Upstream checks it twice, and tells it twice.
    balancer_class(spec, errors);
    let local = |spec: &Value| balanced(spec) && text(spec, "externalTrafficPolicy") == "Local";
    let port = |spec: &Value| int(spec, "healthCheckNodePort").unwrap_or(0);
    if local(spec) && local(before) && port(spec) != port(before) {
        errors.push(FieldError::forbidden("spec.healthCheckNodePort", "field is immutable"));
    }
}

/// Of addresses or families: the first stays; a second may come and go.
fn kept(spec: &Value, before: &Value, field: &str, unset: &str, errors: &mut Errors) {
    let path = SPEC.child(field);
    let (own, had) = (list(spec, field), list(before, field));
    let shown = || has(spec, field).cloned().unwrap_or_default();
    let mut changed = |index| {
        errors.push(FieldError::invalid(
            path.index(index),
            shown(),
            "may not change once set",
        ))
    };
    if own.len() == had.len() {
        for (index, _) in own.iter().zip(had).enumerate().filter(|(_, (own, had))| own != had) {
            changed(if field == "ipFamilies" { 0 } else { index });
        }
    } else if let (Some(own), Some(had)) = (own.first(), had.first()) {
        if own != had {
            changed(0);
        }
    } else if own.is_empty() {
        errors.push(FieldError::invalid(path.index(0), shown(), unset));
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
        let mut errors = Errors::new();
        service_families(
            &json!({"spec": {"ipFamilies": ["IPv6"], "selector": {"a": "b"}}}),
            "IPv4",
            &mut errors,
        );
        assert_eq!(
            errors[0].to_string(),
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"
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
        service(&going, &mut errors);
        assert!(
            errors.iter().all(|error| !error.to_string().contains("4096")),
            "{errors:?}"
        );
    }
}
