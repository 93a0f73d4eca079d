//! autoscaling: v2 is stored, v1 shows the same objects. What v1 has no field for travels in annotations, as upstream's
//! conversion has it.

use serde_json::{Value, json};

use super::row::row;
use super::{Convert, Resource, Support, columns};
use crate::{defaults, meta, validation};

pub(super) fn rows() -> Vec<Resource> {
    vec![
        row(
            "autoscaling",
            "v2",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
        )
        .short(&["hpa"])
        .validate(validation::autoscaler)
        .validate_status(validation::autoscaler_status)
        .columns(columns::autoscaler())
        .category("all")
        .status()
        .support(Support::StoredOnly)
        .default(defaults::autoscaler)
        .prepare(defaults::autoscaler_create, defaults::nothing_on_update)
        .also("autoscaling", "v1", Some(Convert { to_stored, from_stored }))
        .default(defaults::autoscaler_v1),
    ]
}

/// (annotation of v1, path in v2).
const CARRIED: [(&str, &[&str]); 4] = [
    ("autoscaling.alpha.kubernetes.io/metrics", &["spec", "metrics"]),
    ("autoscaling.alpha.kubernetes.io/behavior", &["spec", "behavior"]),
    ("autoscaling.alpha.kubernetes.io/conditions", &["status", "conditions"]),
    (
        "autoscaling.alpha.kubernetes.io/current-metrics",
        &["status", "currentMetrics"],
    ),
];

fn is_cpu(metric: &Value) -> bool {
    meta::string(metric, &["type"]) == "Resource" && meta::string(metric, &["resource", "name"]) == "cpu"
}

/// autoscaling/v1 → v2, in place.
fn to_stored(object: &mut Value) {
    meta::set(object, &["apiVersion"], "autoscaling/v2");
    for (annotation, path) in CARRIED {
        if let Some(text) = meta::remove(object, &["metadata", "annotations", annotation])
            && let Ok(value) = serde_json::from_str::<Value>(text.as_str().unwrap_or("null"))
            && !value.is_null()
        {
            meta::set(object, path, value);
        }
    }
    if meta::annotations(object).is_some_and(serde_json::Map::is_empty) {
        meta::remove(object, &["metadata", "annotations"]);
    }
    for (from, list, key) in [
        ("targetCPUUtilizationPercentage", ["spec", "metrics"], "target"),
        (
            "currentCPUUtilizationPercentage",
            ["status", "currentMetrics"],
            "current",
        ),
    ] {
        let Some(percent) = meta::remove(object, &[list[0], from]).filter(|percent| !percent.is_null()) else {
            continue;
        };
        let mut metric = json!({"type": "Resource", "resource": {"name": "cpu", key: {"averageUtilization": percent}}});
        if key == "target" {
            meta::set(&mut metric, &["resource", "target", "type"], "Utilization");
        }
        let mut metrics = vec![metric];
        metrics.extend(meta::items(object, &list).iter().cloned());
        meta::set(object, &list, metrics);
    }
}

/// autoscaling/v2 → v1, in place.
fn from_stored(object: &mut Value) {
    meta::set(object, &["apiVersion"], "autoscaling/v1");
    for (to, list, key) in [
        ("targetCPUUtilizationPercentage", ["spec", "metrics"], "target"),
        (
            "currentCPUUtilizationPercentage",
            ["status", "currentMetrics"],
            "current",
        ),
    ] {
        let found = meta::items(object, &list)
            .iter()
            .enumerate()
            .find_map(|(index, metric)| {
                let percent = meta::at(metric, &["resource", key, "averageUtilization"])?;
                is_cpu(metric).then(|| (index, percent.clone()))
            });
        if let Some((index, percent)) = found {
            meta::set(object, &[list[0], to], percent);
            if let Some(Value::Array(metrics)) = meta::at_mut(object, &list) {
                metrics.remove(index);
            }
        }
    }
    for key in ["currentReplicas", "desiredReplicas"] {
        meta::set_default(object, &["status", key], 0);
    }
    for (annotation, path) in CARRIED {
        let value = meta::remove(object, path).unwrap_or(Value::Null);
        let empty = value.is_null() || value == json!([]) || value == json!({});
        if !empty {
            meta::set(object, &["metadata", "annotations", annotation], value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_without_loss() {
        let v2 = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "minReplicas": 1, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 60}}}]},
            "status": {"desiredReplicas": 0}});
        let mut object = v2.clone();
        from_stored(&mut object);
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 70);
        assert!(object["spec"].get("metrics").is_none());
        to_stored(&mut object);
        // one metric comes first whatever its place was, which is where it was here
        assert_eq!(object["spec"], v2["spec"]);
    }
}
