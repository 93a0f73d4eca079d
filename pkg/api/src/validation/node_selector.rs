//! Where a pod may run: node selectors and affinity, pod affinity, tolerations, topology spread.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{
    Errors, NOT_POSITIVE, Path, each, has, int, invalid_each, label_selector, list, one_of_if_set, strings, text,
};
use crate::names;
use crate::status::FieldError;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn requirement(requirement: &Value, check_values: bool, path: &Path<'_>, errors: &mut Errors) {
    let values = list(requirement, "values");
    match text(requirement, "operator") {
        "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
            path.child("values"),
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
            path.child("values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "Gt" | "Lt" if values.len() != 1 => errors.push(FieldError::required(
            path.child("values"),
            "must be specified single value when `operator` is 'Lt' or 'Gt'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(FieldError::invalid(
            path.child("operator"),
            other,
            "not a valid selector operator",
        )),
    }
    let key = text(requirement, "key");
    invalid_each(errors, &path.child("key"), key, names::qualified_name(key));
    if check_values {
        let path = path.child("values");
        for (index, value) in strings(requirement, "values").enumerate() {
            invalid_each(errors, &path.index(index), value, names::label_value(value));
        }
    }
}

fn field_requirement(requirement: &Value, path: &Path<'_>, errors: &mut Errors) {
    match text(requirement, "operator") {
        "In" | "NotIn" => {
            if list(requirement, "values").len() != 1 {
                errors.push(FieldError::required(
                    path.child("values"),
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                ));
            }
        }
        other => errors.push(FieldError::invalid(
            path.child("operator"),
            other,
            "not a valid selector operator",
        )),
    }
    if text(requirement, "key") == "metadata.name" {
        let path = path.child("values");
        for (index, value) in strings(requirement, "values").enumerate() {
            invalid_each(errors, &path.index(index), value, names::dns_subdomain(value));
        }
    } else {
        errors.push(FieldError::invalid(
            path.child("key"),
            text(requirement, "key"),
            "not a valid field selector key",
        ));
    }
}

fn term(term: &Value, check_values: bool, path: &Path<'_>, errors: &mut Errors) {
    let expressions = path.child("matchExpressions");
    for (index, own) in each(term, "matchExpressions") {
        requirement(own, check_values, &expressions.index(index), errors);
    }
    let fields = path.child("matchFields");
    for (index, own) in each(term, "matchFields") {
        field_requirement(own, &fields.index(index), errors);
    }
}

pub(super) fn node_selector(selector: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("nodeSelectorTerms");
    let terms = list(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(FieldError::required(path, "must have at least one node selector term"));
    }
    for (index, own) in terms.iter().enumerate() {
        term(own, true, &path.index(index), errors);
    }
}

fn weight(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    let weight = int(term, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(
            path.child("weight"),
            weight,
            "must be in the range 1-100",
        ));
    }
}

pub(super) fn affinity(affinity: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(node) = has(affinity, "nodeAffinity") {
        let path = path.child("nodeAffinity");
        if let Some(required) = has(node, REQUIRED) {
            node_selector(required, &path.child(REQUIRED), errors);
        }
        let preferred = path.child(PREFERRED);
        for (index, own) in each(node, PREFERRED) {
            let path = preferred.index(index);
            weight(own, &path, errors);
            term(
                has(own, "preference").unwrap_or(&Value::Null),
                false,
                &path.child("preference"),
                errors,
            );
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = has(affinity, kind) else { continue };
        let path = path.child(kind);
        let required = path.child(REQUIRED);
        for (index, own) in each(pods, REQUIRED) {
            pod_term(own, &required.index(index), errors);
        }
        let preferred = path.child(PREFERRED);
        for (index, own) in each(pods, PREFERRED) {
            let path = preferred.index(index);
            weight(own, &path, errors);
            pod_term(
                has(own, "podAffinityTerm").unwrap_or(&Value::Null),
                &path.child("podAffinityTerm"),
                errors,
            );
        }
    }
}

fn pod_term(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    for key in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = has(term, key) {
            label_selector(selector, &path.child(key), errors);
        }
    }
    for namespace in strings(term, "namespaces") {
        invalid_each(errors, &path.child("namespace"), namespace, names::dns_label(namespace));
    }
    let key = text(term, "topologyKey");
    if key.is_empty() {
        errors.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
    }
    invalid_each(errors, &path.child("topologyKey"), key, names::qualified_name(key));
}

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn tolerations(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (index, toleration) in each(spec, "tolerations") {
        let path = path.index(index);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        let (value, effect) = (text(toleration, "value"), text(toleration, "effect"));
        if !key.is_empty() {
            invalid_each(errors, &path.child("key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            errors.push(FieldError::invalid(
                path.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ));
        }
        if has(toleration, "tolerationSeconds").is_some() && effect != "NoExecute" {
            errors.push(FieldError::invalid(
                path.child("effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            ));
        }
        match operator {
            "Equal" | "" => {
                let problems = names::label_value(value);
                if !problems.is_empty() {
                    errors.push(FieldError::invalid(path.child("operator"), value, problems.join(";")));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    errors.push(FieldError::invalid(
                        path.child("operator"),
                        value,
                        "value must be empty when `operator` is 'Exists'",
                    ));
                }
            }
            "Lt" | "Gt" => errors.push(FieldError::not_supported(
                path.child("operator"),
                operator,
                &["Equal", "Exists", "Lt", "Gt"],
            )),
            _ => errors.push(FieldError::not_supported(
                path.child("operator"),
                operator,
                &["Equal", "Exists"],
            )),
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.push(FieldError::not_supported(path.child("effect"), effect, &EFFECTS));
        }
    }
}

pub(super) fn taints(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    for (index, taint) in each(spec, "taints") {
        let path = path.index(index);
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        invalid_each(errors, &path.child("key"), key, names::qualified_name(key));
        let problems = names::label_value(value);
        if !problems.is_empty() {
            errors.push(FieldError::invalid(path.child("value"), value, problems.join(";")));
        }
        if effect.is_empty() {
            errors.push(FieldError::required(path.child("effect"), ""));
        } else if !EFFECTS.contains(&effect) {
            errors.push(FieldError::not_supported(path.child("effect"), effect, &EFFECTS));
        }
        if !seen.insert((key, effect)) {
            let mut error = FieldError::duplicate(path, taint.clone());
            error.detail = "taints must be unique by key and effect pair".into();
            errors.push(error);
        }
    }
}

pub(super) fn topology_spread(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    const ACTIONS: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
    let constraints = list(spec, "topologySpreadConstraints");
    let pair = |constraint| (text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
    let last: HashMap<_, _> = constraints.iter().map(pair).zip(0..).collect();
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        let skew = int(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.push(FieldError::invalid(path.child("maxSkew"), skew, NOT_POSITIVE));
        }
        if text(constraint, "topologyKey").is_empty() {
            errors.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
        }
        let action = text(constraint, "whenUnsatisfiable");
        if !ACTIONS.contains(&action) {
            errors.push(FieldError::not_supported(
                path.child("whenUnsatisfiable"),
                action,
                &ACTIONS,
            ));
        }
        if last.get(&pair(constraint)).is_some_and(|last| *last > index) {
            errors.push(FieldError::duplicate(
                path.child("{topologyKey, whenUnsatisfiable}"),
                format!("{{{}, {action}}}", text(constraint, "topologyKey")),
            ));
        }
        if let Some(domains) = int(constraint, "minDomains") {
            if domains <= 0 {
                errors.push(FieldError::invalid(path.child("minDomains"), domains, NOT_POSITIVE));
            }
            if action != "DoNotSchedule" {
                errors.push(FieldError::invalid(
                    path.child("minDomains"),
                    domains,
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"),
                ));
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            one_of_if_set(errors, constraint, key, &path, &["Honor", "Ignore"]);
        }
        if let Some(selector) = has(constraint, "labelSelector") {
            label_selector(selector, &path.child("labelSelector"), errors);
        }
    }
}
