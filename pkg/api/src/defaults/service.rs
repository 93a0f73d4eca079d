//! Services: the pure part of what upstream's defaults and strategy do. Allocation of addresses and ports is stateful
//! and belongs to the API server.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::{Object, each, object, str_of, text, unset, value};
use crate::meta;

pub fn service(service: &mut Value) {
    let Value::Object(map) = service else { return };
    if let Some(status) = object(map, "status") {
        object(status, "loadBalancer");
    }
    let Some(spec) = object(map, "spec") else { return };
    text(spec, "sessionAffinity", "None");
    match str_of(spec, "sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            let timeout = spec
                .get("sessionAffinityConfig")
                .and_then(|config| meta::at(config, &["clientIP", "timeoutSeconds"]));
            if timeout.is_none() {
                spec.insert(
                    "sessionAffinityConfig".into(),
                    json!({"clientIP": {"timeoutSeconds": 10800}}),
                );
            }
        }
        _ => {}
    }
    text(spec, "type", "ClusterIP");
    for port in each(spec, "ports") {
        text(port, "protocol", "TCP");
        let target_unset = match port.get("targetPort") {
            None | Some(Value::Null) => true,
            Some(Value::Number(number)) => number.as_i64() == Some(0),
            Some(Value::String(name)) => name.is_empty(),
            Some(_) => false,
        };
        if target_unset && let Some(number) = port.get("port").cloned() {
            port.insert("targetPort".into(), number);
        }
    }
    if externally_accessible(spec) {
        text(spec, "externalTrafficPolicy", "Cluster");
    }
    match str_of(spec, "type") {
        "ExternalName" => {
            spec.remove("internalTrafficPolicy");
        }
        "ClusterIP" | "NodePort" => value(spec, "internalTrafficPolicy", "Cluster"),
        "LoadBalancer" => {
            value(spec, "internalTrafficPolicy", "Cluster");
            value(spec, "allocateLoadBalancerNodePorts", true);
        }
        _ => {}
    }
    if let Some(ingress) = map
        .get_mut("status")
        .and_then(|status| status.get_mut("loadBalancer")?.as_object_mut())
    {
        for address in each(ingress, "ingress") {
            if !str_of(address, "ip").is_empty() {
                value(address, "ipMode", "VIP");
            }
        }
    }
}

fn externally_accessible(spec: &Object) -> bool {
    match str_of(spec, "type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => spec
            .get("externalIPs")
            .and_then(Value::as_array)
            .is_some_and(|ips| !ips.is_empty()),
        _ => false,
    }
}

fn needs_node_port(spec: &Object) -> bool {
    match str_of(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

fn needs_health_check_port(spec: &Object) -> bool {
    str_of(spec, "type") == "LoadBalancer" && str_of(spec, "externalTrafficPolicy") == "Local"
}

/// Clears the status; makes `clusterIPs` from `clusterIP`; one family, IPv4.
pub fn prepare_service_create(service: &mut Value) {
    meta::set(service, &["status"], json!({"loadBalancer": {}}));
    let Some(spec) = meta::at_mut(service, &["spec"]).and_then(Value::as_object_mut) else {
        return;
    };
    if unset(spec, "clusterIPs") && !str_of(spec, "clusterIP").is_empty() {
        let address = spec["clusterIP"].clone();
        spec.insert("clusterIPs".into(), json!([address]));
    }
    families(spec, None);
}

fn families(spec: &mut Object, old: Option<&Object>) {
    if str_of(spec, "type") == "ExternalName" {
        return;
    }
    let headless = str_of(spec, "clusterIP") == "None";
    let selectorless = spec
        .get("selector")
        .and_then(Value::as_object)
        .is_none_or(Map::is_empty);
    if unset(spec, "ipFamilyPolicy") {
        let policy = match old
            .and_then(|old| old.get("ipFamilyPolicy"))
            .filter(|policy| !policy.is_null())
        {
            Some(policy) => policy.clone(),
            None if headless && selectorless => "RequireDualStack".into(),
            None => "SingleStack".into(),
        };
        spec.insert("ipFamilyPolicy".into(), policy);
    }
    let none = spec
        .get("ipFamilies")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty);
    // An address of another family than the cluster's is told of as such.
    let addresses = spec.get("clusterIPs").and_then(Value::as_array).into_iter().flatten();
    let foreign = addresses.filter_map(Value::as_str).any(|address| address.contains(':'));
    if none && !foreign {
        // a headless service without selector may name endpoints of any family
        let both = headless && selectorless && str_of(spec, "ipFamilyPolicy") != "SingleStack";
        spec.insert(
            "ipFamilies".into(),
            if both { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) },
        );
    }
}

/// What the client left out is taken from before; what a change of type makes meaningless is cleared, unless the
/// client changed it too (then validation refuses it).
pub fn prepare_service_update(service: &mut Value, old: &Value) {
    let Some(old) = meta::map_at(old, &["spec"]) else {
        return;
    };
    let Some(spec) = meta::at_mut(service, &["spec"]).and_then(Value::as_object_mut) else {
        return;
    };
    keep_addresses(spec, old);
    if needs_node_port(old) && !needs_node_port(spec) {
        let known = node_ports(old);
        if node_ports(spec).iter().all(|port| known.contains(port)) {
            for port in each(spec, "ports") {
                port.remove("nodePort");
            }
        }
    }
    if needs_node_port(old) && needs_node_port(spec) {
        keep_node_ports(spec, old);
    }
    drop_unneeded(spec, old);
    families(spec, Some(old));
    if str_of(spec, "type") != "LoadBalancer" {
        meta::set(service, &["status", "loadBalancer"], json!({}));
    }
}

/// The addresses that an update leaves out or, where the type has none, brings along.
fn keep_addresses(spec: &mut Object, old: &Object) {
    let clusterless = str_of(spec, "type") == "ExternalName";
    let old_clusterless = str_of(old, "type") == "ExternalName";
    if !clusterless && !old_clusterless {
        // an update without addresses keeps them
        if str_of(spec, "clusterIP").is_empty()
            && let Some(address) = old
                .get("clusterIP")
                .filter(|_| unset(spec, "clusterIPs") || spec.get("clusterIPs") == old.get("clusterIPs"))
        {
            spec.insert("clusterIP".into(), address.clone());
        }
        if unset(spec, "clusterIPs")
            && spec.get("clusterIP") == old.get("clusterIP")
            && let Some(addresses) = old.get("clusterIPs")
        {
            spec.insert("clusterIPs".into(), addresses.clone());
        }
    }
    let address_changed = spec.get("clusterIP") != old.get("clusterIP");
    let both_unset = unset(spec, "clusterIPs") && unset(old, "clusterIPs");
    if address_changed && (both_unset || spec.get("clusterIPs") == old.get("clusterIPs")) {
        match str_of(spec, "clusterIP") {
            "" => spec.remove("clusterIPs"),
            address => {
                let list = json!([address]);
                spec.insert("clusterIPs".into(), list)
            }
        };
    }
    if clusterless && !old_clusterless {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if spec.get(key) == old.get(key) {
                spec.remove(key);
            }
        }
        if unset(spec, "clusterIP") {
            spec.remove("clusterIPs");
        }
    }
}

/// What the old type had and the new one has no use for, unless the update says something else of it.
fn drop_unneeded(spec: &mut Object, old: &Object) {
    let drop_same = |spec: &mut Object, key: &str| {
        if spec.get(key) == old.get(key) {
            spec.remove(key);
        }
    };
    if needs_health_check_port(old) {
        if !needs_health_check_port(spec) {
            drop_same(spec, "healthCheckNodePort");
        } else if unset(spec, "healthCheckNodePort")
            && let Some(port) = old.get("healthCheckNodePort")
        {
            spec.insert("healthCheckNodePort".into(), port.clone());
        }
    }
    if str_of(old, "type") == "LoadBalancer" && str_of(spec, "type") != "LoadBalancer" {
        drop_same(spec, "allocateLoadBalancerNodePorts");
        drop_same(spec, "loadBalancerClass");
    }
    if externally_accessible(old) && !externally_accessible(spec) {
        drop_same(spec, "externalTrafficPolicy");
    }
}

/// Ports that name no nodePort keep the one they had (same port and protocol).
fn keep_node_ports(spec: &mut Object, old: &Object) {
    let mut taken = node_ports(spec);
    // A stored Service has each port and protocol once.
    let mut before = HashMap::new();
    for port in old.get("ports").and_then(Value::as_array).into_iter().flatten() {
        if let Some(number) = node_port(port) {
            before.entry((port.get("port"), port.get("protocol"))).or_insert(number);
        }
    }
    for port in each(spec, "ports") {
        if port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0 {
            continue;
        }
        if let Some(&number) = before.get(&(port.get("port"), port.get("protocol")))
            && taken.insert(number)
        {
            port.insert("nodePort".into(), number.into());
        }
    }
}

fn node_port(port: &Value) -> Option<i64> {
    port.get("nodePort")?.as_i64().filter(|&number| number != 0)
}

fn node_ports(spec: &Object) -> HashSet<i64> {
    let ports = spec.get("ports").and_then(Value::as_array);
    ports.into_iter().flatten().filter_map(node_port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_service() {
        let mut object = json!({"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
        service(&mut object);
        prepare_service_create(&mut object);
        assert_eq!(
            object,
            json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "selector": {"a": "b"},
                "sessionAffinity": "None", "type": "ClusterIP", "internalTrafficPolicy": "Cluster",
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}, "status": {"loadBalancer": {}}})
        );
    }

    #[test]
    fn to_external_name_and_to_cluster_ip() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "externalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
        let mut new = old.clone();
        new["spec"]["type"] = "ExternalName".into();
        new["spec"]["externalName"] = "example.com".into();
        prepare_service_update(&mut new, &old);
        assert_eq!(
            new["spec"],
            json!({"type": "ExternalName", "externalName": "example.com", "ports": [{"port": 80, "protocol": "TCP"}]})
        );
        // an update that leaves out what was allocated keeps it
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
        prepare_service_update(&mut new, &old);
        assert_eq!(new["spec"]["clusterIP"], "10.96.0.7");
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
    }
}
