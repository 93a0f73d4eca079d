//! autoscaling, v2 and v1.

use serde_json::{Value, json};

use super::{get, map, object, value};

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
