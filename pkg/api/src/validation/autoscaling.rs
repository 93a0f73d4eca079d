//! autoscaling: what is scaled, by which metrics, how fast.

use serde_json::Value;

use super::rules::{
    Rules, Scope, all, call, check, check_object, each, name, object, one_of_if_set, required_saying, structure, whole,
};
use super::{Errors, NEGATIVE, Path, has, int, list, resources, text};
use crate::quantity;
use crate::status::FieldError;
use crate::{meta as object_at, names};

/// autoscaling/v2 (and v1, whose targets are fewer).
const AUTOSCALER: Rules = &[structure(
    "spec",
    &[
        whole(replicas),
        structure("scaleTargetRef", SCALED),
        each("metrics", METRIC),
        whole(idles),
        object("behavior", &[object("scaleUp", SCALING), object("scaleDown", SCALING)]),
    ],
)];

const SCALED: Rules = &[all(REFERENCE), whole(target_group)];

const REFERENCE: Rules = &[
    name("kind", names::path_segment),
    name("name", names::path_segment),
    call("apiVersion", group_version),
];

const METRIC: Rules = &[
    required_saying("type", "must specify a metric source type"),
    whole(metric),
];

const SCALING: Rules = &[
    call("stabilizationWindowSeconds", window),
    one_of_if_set("selectPolicy", &["Disabled", "Max", "Min"]),
    required_saying("policies", "must specify at least one Policy"),
    each("policies", &[whole(policy)]),
    call("tolerance", tolerance),
];

const TARGET: Rules = &[
    required_saying("type", "must specify a metric target type"),
    whole(target_type),
    call("value", positive_quantity),
    call("averageValue", positive_quantity),
    call("averageUtilization", utilization),
];

/// What a metric is of: field, the type that asks for it, and its checks, in upstream's order.
const SOURCES: [(&str, &str, Rules); 5] = [
    (
        "object",
        "Object",
        &[
            structure("describedObject", REFERENCE),
            structure("metric", IDENTIFIER),
            structure("target", TARGET),
            whole(value_or_average),
        ],
    ),
    (
        "external",
        "External",
        &[
            structure("metric", IDENTIFIER),
            structure("target", TARGET),
            whole(value_xor_average),
        ],
    ),
    (
        "pods",
        "Pods",
        &[
            structure("metric", IDENTIFIER),
            structure("target", TARGET),
            whole(needs_average),
        ],
    ),
    (
        "resource",
        "Resource",
        &[
            required_saying("name", "must specify a resource name"),
            structure("target", TARGET),
            whole(utilization_xor_average),
        ],
    ),
    (
        "containerResource",
        "ContainerResource",
        &[
            required_saying("name", "must specify a resource name"),
            call("name", resource_name),
            required_saying("container", "must specify a container"),
            call("container", container_name),
            structure("target", TARGET),
            whole(utilization_xor_average),
        ],
    ),
];

const IDENTIFIER: Rules = &[
    required_saying("name", "must specify a metric name"),
    call("name", metric_name),
];

pub fn autoscaler(autoscaler: &Value, errors: &mut Errors) {
    check_object(AUTOSCALER, autoscaler, errors);
}

fn replicas(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let minimum = int(spec, "minReplicas");
    let maximum = int(spec, "maxReplicas").unwrap_or(0);
    if let Some(minimum) = minimum.filter(|&minimum| minimum < 1) {
        let why = "must be greater than or equal to 1";
        errors.push(FieldError::invalid(path.child("minReplicas"), minimum, why));
    }
    let path = path.child("maxReplicas");
    if maximum < 1 {
        errors.push(FieldError::invalid(path, maximum, "must be greater than 0"));
    }
    if minimum.is_some_and(|minimum| maximum < minimum) {
        let why = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(path, maximum, why));
    }
}

/// None to scale to is told apart by what is measured outside of them.
fn idles(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let outside = |metric: &Value| matches!(text(metric, "type"), "Object" | "External");
    if int(spec, "minReplicas") == Some(0) && !list(spec, "metrics").iter().any(outside) {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden(path.child("metrics"), why));
    }
}

fn group_version(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = own.as_str().unwrap_or("");
    if own.matches('/').count() > 1 {
        let why = format!("unexpected GroupVersion string: {own}");
        errors.push(FieldError::invalid(path, own, why));
    }
}

/// Only one kind that scales is of the core group; an older autoscaler may name what it wants.
fn target_group(target: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let version = text(target, "apiVersion");
    let new = object_at::string(scope.object, &["metadata", "resourceVersion"]).is_empty();
    if new {
        names_group(target, version, path, errors);
    }
}

fn names_group(target: &Value, version: &str, path: &Path<'_>, errors: &mut Errors) {
    if !version.contains('/') && text(target, "kind") != "ReplicationController" {
        errors.push(FieldError::invalid(
            path.child("apiVersion"),
            version,
            "apiVersion must specify API group",
        ));
    }
}

/// What is scaled may be changed to what names its group.
pub fn autoscaler_update(new: &Value, old: &Value, errors: &mut Errors) {
    let target = |object| object_at::at(object, &["spec", "scaleTargetRef"]).unwrap_or(&Value::Null);
    let (own, before) = (target(new), target(old));
    let changed = ["apiVersion", "kind"]
        .iter()
        .any(|field| text(own, field) != text(before, field));
    if changed {
        names_group(
            own,
            text(own, "apiVersion"),
            &super::SPEC.child("scaleTargetRef"),
            errors,
        );
    }
}

fn metric(metric: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    let own = text(metric, "type");
    let known = TYPES.contains(&own);
    if !known {
        errors.push(FieldError::not_supported(path.child("type"), own, &TYPES));
    }
    let present = || SOURCES.iter().filter(|(field, ..)| has(metric, field).is_some());
    if let Some((field, _, rules)) = present().next() {
        check(rules, &metric[*field], scope, &path.child(field), errors);
    }
    let expected = SOURCES
        .iter()
        .find(|(_, type_, _)| *type_ == own)
        .map(|(field, ..)| *field);
    match expected {
        Some(field) if has(metric, field).is_none() => errors.push(FieldError::required(
            path.child(field),
            "must populate information for the given metric source",
        )),
        Some(_) => {}
        None => errors.push(FieldError::not_supported(path.child("type"), own, &TYPES)),
    }
    if present().count() != 1 {
        for (field, ..) in present().filter(|(field, ..)| Some(*field) != expected) {
            errors.push(FieldError::forbidden(
                path.child(field),
                "must populate the given metric source only",
            ));
        }
    }
}

fn target_type(target: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = text(target, "type");
    if !matches!(own, "Utilization" | "Value" | "AverageValue") {
        let why = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(path.child("type"), own, why));
    }
}

fn positive_quantity(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if let Ok(own) = quantity::from_json(own)
        && own.signum() <= 0
    {
        errors.push(FieldError::invalid(path, own.to_string(), "must be positive"));
    }
}

fn utilization(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(own) = own.as_i64().filter(|&own| own < 1) {
        errors.push(FieldError::invalid(path, own, "must be greater than 0"));
    }
}

/// Which of two targets a source has.
fn targets(source: &Value, first: &str) -> (bool, bool) {
    let set = |field: &str| object_at::at(source, &["target", field]).is_some();
    (set(first), set("averageValue"))
}

fn value_or_average(source: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if targets(source, "value") == (false, false) {
        errors.push(FieldError::required(
            path.child("target").child("averageValue"),
            "must set either a target value or averageValue",
        ));
    }
}

fn value_xor_average(source: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("target");
    match targets(source, "value") {
        (false, false) => errors.push(FieldError::required(
            path.child("averageValue"),
            "must set either a target value for metric or a per-pod target",
        )),
        (true, true) => errors.push(FieldError::forbidden(
            path.child("value"),
            "may not set both a target value for metric and a per-pod target",
        )),
        _ => {}
    }
}

fn needs_average(source: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if !targets(source, "value").1 {
        errors.push(FieldError::required(
            path.child("target").child("averageValue"),
            "must specify a positive target averageValue",
        ));
    }
}

fn utilization_xor_average(source: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("target");
    match targets(source, "averageUtilization") {
        (false, false) => errors.push(FieldError::required(
            path.child("averageUtilization"),
            "must set either a target raw value or a target utilization",
        )),
        (true, true) => errors.push(FieldError::forbidden(
            path.child("averageValue"),
            "may not set both a target raw value and a target utilization",
        )),
        _ => {}
    }
}

fn resource_name(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = own.as_str().unwrap_or("");
    if !own.is_empty() {
        resources::container_resource(own, path, errors);
    }
}

fn container_name(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = own.as_str().unwrap_or("");
    if !own.is_empty() {
        super::invalid_each(errors, path, own, names::dns_label(own));
    }
}

fn metric_name(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = own.as_str().unwrap_or("");
    super::invalid_each(errors, path, own, names::path_segment(own));
}

fn window(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = own.as_i64().unwrap_or(0);
    if own < 0 {
        let why = "must be greater than or equal to zero";
        errors.push(FieldError::invalid(path, own, why));
    }
    if own > 3600 {
        errors.push(FieldError::invalid(path, own, "must be less than or equal to 3600"));
    }
}

fn policy(policy: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const TYPES: [&str; 2] = ["Percent", "Pods"];
    const NOT_POSITIVE: &str = "must be greater than zero";
    let own = text(policy, "type");
    if !TYPES.contains(&own) {
        errors.push(FieldError::not_supported(path.child("type"), own, &TYPES));
    }
    for field in ["value", "periodSeconds"] {
        let own = int(policy, field).unwrap_or(0);
        if own <= 0 {
            errors.push(FieldError::invalid(path.child(field), own, NOT_POSITIVE));
        }
        if field == "periodSeconds" && own > 1800 {
            let why = "must be less than or equal to 1800";
            errors.push(FieldError::invalid(path.child(field), own, why));
        }
    }
}

fn tolerance(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if let Ok(own) = quantity::from_json(own)
        && own.signum() < 0
    {
        errors.push(FieldError::invalid(path, own.to_string(), NEGATIVE));
    }
}
