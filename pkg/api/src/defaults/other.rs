//! The smaller groups.

use serde_json::{Value, json};

use super::{Object, each, get, number, object, text, unset, value};

fn map(object_value: &mut Value) -> Option<&mut Object> {
    object_value.as_object_mut()
}

/// What Go prints of a kind whose spec and status are plain structs.
pub fn spec_and_status(object_value: &mut Value) {
    if let Some(map) = map(object_value) {
        object(map, "spec");
        object(map, "status");
    }
}

pub fn spec_only(object_value: &mut Value) {
    if let Some(map) = map(object_value) {
        object(map, "spec");
    }
}

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

fn subjects(map: &mut Object) {
    for subject in each(map, "subjects") {
        if matches!(super::str_of(subject, "kind"), "User" | "Group") {
            text(subject, "apiGroup", "rbac.authorization.k8s.io");
        }
    }
}

/// RoleBinding and ClusterRoleBinding.
pub fn role_binding(binding: &mut Value) {
    let Some(map) = map(binding) else { return };
    if let Some(role) = object(map, "roleRef") {
        text(role, "apiGroup", "rbac.authorization.k8s.io");
    }
    subjects(map);
}

/// Role and ClusterRole.
pub fn role(role: &mut Value) {
    if let Some(map) = map(role) {
        map.entry("rules").or_insert(Value::Null);
        for rule in each(map, "rules") {
            rule.entry("verbs").or_insert(Value::Null);
        }
    }
}

pub fn priority_class(class: &mut Value) {
    if let Some(map) = map(class) {
        value(map, "preemptionPolicy", "PreemptLowerPriority");
        value(map, "value", 0);
    }
}

pub fn runtime_class(class: &mut Value) {
    if let Some(overhead) = map(class).and_then(|map| get(map, "overhead")) {
        super::resource_list(overhead, "podFixed");
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

pub fn storage_class(class: &mut Value) {
    if let Some(map) = map(class) {
        value(map, "reclaimPolicy", "Delete");
        value(map, "volumeBindingMode", "Immediate");
    }
}

pub fn csi_driver(driver: &mut Value) {
    let Some(spec) = map(driver).and_then(|map| object(map, "spec")) else {
        return;
    };
    value(spec, "attachRequired", true);
    for key in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        value(spec, key, false);
    }
    value(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec
        .get("volumeLifecycleModes")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
    {
        spec.insert("volumeLifecycleModes".into(), json!(["Persistent"]));
    }
}

pub fn disruption_budget(budget: &mut Value) {
    let Some(map) = map(budget) else { return };
    object(map, "spec");
    if let Some(status) = object(map, "status") {
        for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            value(status, key, 0);
        }
    }
}

/// autoscaling/v2.
pub fn autoscaler(autoscaler: &mut Value) {
    let Some(map) = map(autoscaler) else { return };
    if let Some(status) = object(map, "status") {
        value(status, "desiredReplicas", 0);
        status.entry("currentMetrics").or_insert(Value::Null);
    }
    let Some(spec) = object(map, "spec") else { return };
    value(spec, "minReplicas", 1);
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let metric = json!([{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 80}}}]);
        spec.insert("metrics".into(), metric);
    }
    if let Some(behavior) = get(spec, "behavior") {
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        if let Some(up) = object(behavior, "scaleUp") {
            value(up, "stabilizationWindowSeconds", 0);
            value(up, "selectPolicy", "Max");
            let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
            value(up, "policies", json!([pods, percent]));
        }
        if let Some(down) = object(behavior, "scaleDown") {
            value(down, "selectPolicy", "Max");
            value(down, "policies", json!([percent]));
        }
    }
}

/// autoscaling/v1, before it becomes v2.
pub fn autoscaler_v1(autoscaler: &mut Value) {
    let Some(map) = map(autoscaler) else { return };
    if let Some(spec) = object(map, "spec") {
        value(spec, "minReplicas", 1);
    }
    if let Some(status) = object(map, "status") {
        value(status, "currentReplicas", 0);
        value(status, "desiredReplicas", 0);
    }
}

pub fn flow_schema(schema: &mut Value) {
    let Some(map) = map(schema) else { return };
    object(map, "status");
    if let Some(spec) = object(map, "spec") {
        number(spec, "matchingPrecedence", 1000);
    }
}

pub fn priority_level(level: &mut Value) {
    let Some(map) = map(level) else { return };
    object(map, "status");
    let Some(spec) = object(map, "spec") else { return };
    if let Some(exempt) = get(spec, "exempt") {
        value(exempt, "nominalConcurrencyShares", 0);
        value(exempt, "lendablePercent", 0);
    }
    if let Some(limited) = get(spec, "limited") {
        value(limited, "nominalConcurrencyShares", 30);
        value(limited, "lendablePercent", 0);
        if let Some(queuing) = get(limited, "limitResponse").and_then(|response| get(response, "queuing")) {
            number(queuing, "handSize", 8);
            number(queuing, "queues", 64);
            number(queuing, "queueLengthLimit", 50);
        }
    }
}

fn device_request(request: &mut Object) {
    text(request, "allocationMode", "ExactCount");
    if super::str_of(request, "allocationMode") == "ExactCount" {
        number(request, "count", 1);
    }
}

fn claim_spec(spec: &mut Object) {
    let Some(devices) = object(spec, "devices") else { return };
    for request in each(devices, "requests") {
        if let Some(exactly) = get(request, "exactly") {
            device_request(exactly);
        }
        for sub in each(request, "firstAvailable") {
            device_request(sub);
        }
    }
}

pub fn resource_claim(claim: &mut Value) {
    let Some(map) = map(claim) else { return };
    object(map, "status");
    if let Some(spec) = object(map, "spec") {
        claim_spec(spec);
    }
}

pub fn resource_claim_template(template: &mut Value) {
    let Some(spec) = map(template).and_then(|map| object(map, "spec")) else {
        return;
    };
    object(spec, "metadata");
    if let Some(spec) = object(spec, "spec") {
        claim_spec(spec);
    }
}

/// Lists that Go prints as `null` when a client sent none.
pub fn csi_node(node: &mut Value) {
    if let Some(spec) = map(node).and_then(|map| object(map, "spec")) {
        spec.entry("drivers").or_insert(Value::Null);
    }
}

pub fn volume_attachment(attachment: &mut Value) {
    let Some(map) = map(attachment) else { return };
    if let Some(spec) = object(map, "spec") {
        object(spec, "source");
    }
    if let Some(status) = object(map, "status")
        && unset(status, "attached")
    {
        status.insert("attached".into(), false.into());
    }
}
