//! networking.k8s.io and discovery.k8s.io.

use serde_json::{Value, json};

use super::{Object, each, get, map, object, value};

pub fn endpoint_slice(slice: &mut Value) {
    let Some(map) = map(slice) else { return };
    map.entry("endpoints").or_insert(Value::Null);
    map.entry("ports").or_insert(Value::Null);
    for port in each(map, "ports") {
        value(port, "name", "");
        value(port, "protocol", "TCP");
    }
    for endpoint in each(map, "endpoints") {
        object(endpoint, "conditions");
    }
}

pub fn ingress(ingress: &mut Value) {
    let Some(map) = map(ingress) else { return };
    object(map, "spec");
    if let Some(status) = object(map, "status") {
        object(status, "loadBalancer");
    }
}

pub fn ingress_class(class: &mut Value) {
    if let Some(parameters) = map(class).and_then(|map| get(object(map, "spec")?, "parameters")) {
        value(parameters, "scope", "Cluster");
    }
}

pub fn network_policy(policy: &mut Value) {
    let Some(spec) = map(policy).and_then(|map| object(map, "spec")) else {
        return;
    };
    object(spec, "podSelector");
    let empty = |spec: &Object, key: &str| spec.get(key).and_then(Value::as_array).is_none_or(Vec::is_empty);
    if empty(spec, "policyTypes") {
        let types = if empty(spec, "egress") {
            json!(["Ingress"])
        } else {
            json!(["Ingress", "Egress"])
        };
        spec.insert("policyTypes".into(), types);
    }
    for direction in ["ingress", "egress"] {
        for rule in each(spec, direction) {
            for port in each(rule, "ports") {
                value(port, "protocol", "TCP");
            }
        }
    }
}
