//! autoscaling: what must be there and what a field may say.

use serde_json::Value;

use super::{Errors, SPEC, each, has, int, invalid_each, one_of, required, spec_of, text};
use crate::names;
use crate::status::FieldError;

/// autoscaling/v2 (and v1, whose targets are fewer).
pub fn autoscaler(autoscaler: &Value, errors: &mut Errors) {
    let spec = spec_of(autoscaler);
    let minimum = int(spec, "minReplicas").unwrap_or(1);
    let maximum = int(spec, "maxReplicas").unwrap_or(0);
    if minimum < 1 {
        errors.push(FieldError::invalid(
            "spec.minReplicas",
            minimum,
            "must be greater than or equal to 1",
        ));
    }
    if maximum < 1 {
        errors.push(FieldError::invalid(
            "spec.maxReplicas",
            maximum,
            "must be greater than 0",
        ));
    }
    if maximum < minimum {
        errors.push(FieldError::invalid(
            "spec.maxReplicas",
            maximum,
            "must be greater than or equal to `minReplicas`",
        ));
    }
    let target = has(spec, "scaleTargetRef").unwrap_or(&Value::Null);
    let path = SPEC.child("scaleTargetRef");
    for key in ["kind", "name"] {
        if required(errors, target, key, &path) {
            let own = text(target, key);
            invalid_each(errors, &path.child(key), own, names::path_segment(own));
        }
    }
    let metrics = SPEC.child("metrics");
    for (index, metric) in each(spec, "metrics") {
        one_of(
            errors,
            metric,
            "type",
            &metrics.index(index),
            &["ContainerResource", "External", "Object", "Pods", "Resource"],
        );
    }
}
