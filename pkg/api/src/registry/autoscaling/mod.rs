//! autoscaling: v2 is stored, the other versions show the same objects. What they have no field for travels in annotations,
//! as upstream's conversion has it.

mod behavior;
mod metrics;

use serde_json::{Map, Value, json};

use super::row::row;
use super::{Convert, Resource, columns};
use crate::codec::{self, Validation};
use crate::quantity::Quantity;
use crate::{defaults, meta, schema, validation};

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
        .validate_update(validation::autoscaler_update)
        .validate_status(validation::autoscaler_status)
        .columns(columns::autoscaler())
        .category("all")
        .status()
        .default(defaults::autoscaler)
        .prepare(defaults::autoscaler_create, defaults::nothing_on_update)
        .also("autoscaling", "v1", Some(Convert { to_stored, from_stored }))
        .default(defaults::autoscaler_v1),
    ]
}

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// (annotation, its field in `spec.behavior`).
const TOLERANCES: [(&str, [&str; 2]); 2] = [
    (
        "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
        ["scaleDown", "tolerance"],
    ),
    (
        "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
        ["scaleUp", "tolerance"],
    ),
];

/// Takes all annotations that carry fields: stored objects have none, and each version shows those that it makes.
fn take_annotations(object: &mut Value) -> Map<String, Value> {
    let carriers = [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR];
    let all = carriers.into_iter().chain(TOLERANCES.iter().map(|(name, _)| *name));
    let mut taken: Map<String, Value> = Map::new();
    for name in all {
        let found = meta::remove(object, &["metadata", "annotations", name]);
        taken.extend(found.map(|text| (name.to_string(), text)));
    }
    if meta::annotations(object).is_some_and(Map::is_empty) {
        meta::remove(object, &["metadata", "annotations"]);
    }
    taken
}

fn annotate(object: &mut Value, name: &str, text: String) {
    meta::set(object, &["metadata", "annotations", name], text);
}

/// What an annotation says of some fields of a type; None where it can't be read as such.
fn read(annotations: &Map<String, Value>, name: &str, type_name: &str, wrap: fn(Value) -> Value) -> Option<Value> {
    let value = serde_json::from_str(annotations.get(name)?.as_str()?).ok()?;
    let ty = schema::by_name(type_name)?;
    let decoded = codec::conform(wrap(value), ty, Validation::Ignore).ok()?;
    Some(decoded.value)
}

/// Printed even when it is zero in all versions but v2.
const CURRENT_REPLICAS: [&str; 2] = ["status", "currentReplicas"];

const OLD_SPEC: &str = "io.k8s.api.autoscaling.v2beta1.HorizontalPodAutoscalerSpec";
const OLD_STATUS: &str = "io.k8s.api.autoscaling.v2beta1.HorizontalPodAutoscalerStatus";
const NEW_BEHAVIOR: &str = "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerBehavior";

/// `spec.behavior`, from v1's and v2beta1's annotation.
fn restore_behavior(object: &mut Value, annotations: &Map<String, Value>) {
    let behavior = read(annotations, BEHAVIOR, NEW_BEHAVIOR, behavior::from_go);
    let Some(mut behavior) = behavior.filter(|behavior| behavior.as_object().is_some_and(|sides| !sides.is_empty()))
    else {
        return;
    };
    // No version's defaults fill in what the annotation leaves out: policies have to be there.
    for side in behavior.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if side.is_object() {
            meta::set_default(side, &["policies"], json!([]));
        }
    }
    meta::set(object, &["spec", "behavior"], behavior);
}

fn carry_behavior(object: &mut Value) {
    if let Some(behavior) = meta::remove(object, &["spec", "behavior"]).filter(|behavior| !behavior.is_null()) {
        annotate(object, BEHAVIOR, behavior::to_go(&behavior));
    }
}

fn is_cpu(metric: &Value) -> bool {
    meta::string(metric, &["type"]) == "Resource" && meta::string(metric, &["resource", "name"]) == "cpu"
}

/// autoscaling/v1 → v2, in place.
fn to_stored(object: &mut Value) {
    let annotations = take_annotations(object);
    let mut metrics = Vec::new();
    let others = read(&annotations, METRICS, OLD_SPEC, |list| json!({"metrics": list}));
    if let Some(mut others) = others {
        metrics::to_v2(&mut others, "metrics", &metrics::SPEC);
        metrics.extend(meta::items(&others, &["metrics"]).iter().cloned());
    }
    let percent = meta::remove(object, &["spec", "targetCPUUtilizationPercentage"]);
    if let Some(percent) = percent.filter(|percent| !percent.is_null()) {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    if !metrics.is_empty() {
        meta::set(object, &["spec", "metrics"], metrics);
    }
    let percent = meta::remove(object, &["status", "currentCPUUtilizationPercentage"]);
    if let Some(percent) = percent.filter(|percent| !percent.is_null()) {
        let current = json!({"averageUtilization": percent});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "current": current}});
        meta::set(object, &["status", "currentMetrics"], vec![metric]);
    }
    let current = read(
        &annotations,
        CURRENT_METRICS,
        OLD_STATUS,
        |list| json!({"currentMetrics": list}),
    );
    if let Some(mut current) = current {
        metrics::to_v2(&mut current, "currentMetrics", &metrics::STATUS);
        let current = meta::remove(&mut current, &["currentMetrics"]).unwrap_or_default();
        meta::set(object, &["status", "currentMetrics"], current);
    }
    let conditions = read(&annotations, CONDITIONS, OLD_STATUS, |list| json!({"conditions": list}));
    if let Some(mut conditions) = conditions {
        let conditions = meta::remove(&mut conditions, &["conditions"]).unwrap_or_default();
        meta::set(object, &["status", "conditions"], conditions);
    }
    restore_behavior(object, &annotations);
    meta::remove_zero(object, &CURRENT_REPLICAS);
}

/// autoscaling/v2 → v1, in place.
fn from_stored(object: &mut Value) {
    take_annotations(object);
    let mut metrics = meta::remove(object, &["spec", "metrics"]).unwrap_or_default();
    let utilization = |metric: &Value, key: &str| {
        let percent = meta::at(metric, &["resource", key, "averageUtilization"])?;
        is_cpu(metric).then(|| percent.clone())
    };
    if let Value::Array(metrics) = &mut metrics {
        if let Some(percent) = metrics.iter().find_map(|metric| utilization(metric, "target")) {
            meta::set(object, &["spec", "targetCPUUtilizationPercentage"], percent);
        }
        metrics.retain(|metric| utilization(metric, "target").is_none());
    }
    if let Some(status) = meta::at_mut(object, &["status"]) {
        let current = meta::items(status, &["currentMetrics"]).iter();
        let percent = current.filter_map(|metric| utilization(metric, "current")).next_back();
        if let Some(percent) = percent {
            meta::set(status, &["currentCPUUtilizationPercentage"], percent);
        }
        metrics::from_v2(status, "currentMetrics", &metrics::STATUS);
    }
    let mut spec = json!({"metrics": metrics});
    metrics::from_v2(&mut spec, "metrics", &metrics::SPEC);
    for (name, list) in [
        (METRICS, meta::remove(&mut spec, &["metrics"])),
        (CURRENT_METRICS, meta::remove(object, &["status", "currentMetrics"])),
        (CONDITIONS, meta::remove(object, &["status", "conditions"])),
    ] {
        if let Some(Value::Array(list)) = list.filter(|list| *list != json!([])) {
            annotate(object, name, Value::Array(list).to_string());
        }
    }
    carry_behavior(object);
    for key in ["currentReplicas", "desiredReplicas"] {
        meta::set_default(object, &["status", key], 0);
    }
}

/// autoscaling/v2beta1 → v2, in place.
pub(super) fn v2beta1_to_stored(object: &mut Value) {
    let annotations = take_annotations(object);
    restore_behavior(object, &annotations);
    if let Some(spec) = meta::at_mut(object, &["spec"]) {
        metrics::to_v2(spec, "metrics", &metrics::SPEC);
    }
    if let Some(status) = meta::at_mut(object, &["status"]) {
        metrics::to_v2(status, "currentMetrics", &metrics::STATUS);
    }
    meta::remove_zero(object, &CURRENT_REPLICAS);
}

/// autoscaling/v2 → v2beta1, in place.
pub(super) fn v2beta1_from_stored(object: &mut Value) {
    take_annotations(object);
    carry_behavior(object);
    if let Some(spec) = meta::at_mut(object, &["spec"]) {
        metrics::from_v2(spec, "metrics", &metrics::SPEC);
    }
    if let Some(Value::Object(status)) = meta::at_mut(object, &["status"]) {
        status.entry("conditions").or_insert(Value::Null);
        status.entry("currentReplicas").or_insert_with(|| 0.into());
    }
    if let Some(status) = meta::at_mut(object, &["status"]) {
        metrics::from_v2(status, "currentMetrics", &metrics::STATUS);
    }
}

/// autoscaling/v2beta2 → v2, in place: the tolerances.
pub(super) fn v2beta2_to_stored(object: &mut Value) {
    let annotations = take_annotations(object);
    for (name, path) in TOLERANCES {
        let tolerance = annotations
            .get(name)
            .and_then(|text| Quantity::parse(text.as_str()?).ok());
        if let Some(tolerance) = tolerance {
            let path = ["spec", "behavior", path[0], path[1]];
            meta::set(object, &path, tolerance.to_string());
        }
    }
    meta::remove_zero(object, &CURRENT_REPLICAS);
}

/// autoscaling/v2 → v2beta2, in place.
pub(super) fn v2beta2_from_stored(object: &mut Value) {
    take_annotations(object);
    for (name, path) in TOLERANCES {
        let tolerance = meta::remove(object, &["spec", "behavior", path[0], path[1]]);
        if let Some(Value::String(tolerance)) = tolerance {
            annotate(object, name, tolerance);
        }
    }
    if let Some(Value::Object(status)) = meta::at_mut(object, &["status"]) {
        status.entry("conditions").or_insert(Value::Null);
        status.entry("currentReplicas").or_insert_with(|| 0.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_without_loss() {
        let v2 = json!({"kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "minReplicas": 1, "metrics": [
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 60}}},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]},
            "status": {"desiredReplicas": 0}});
        let mut object = v2.clone();
        from_stored(&mut object);
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 70);
        assert!(object["spec"].get("metrics").is_none());
        to_stored(&mut object);
        // the processor's comes last whatever its place was, which is where it was here
        assert_eq!(object["spec"], v2["spec"]);
    }
}
