//! Where a pod may run: node selectors and affinity, pod affinity, tolerations, topology spread.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::rules::{
    Rules, Scope, always, call, check, each as each_of, object, one_of_if_set, positive, required_saying, structure,
    whole,
};
use super::{Errors, NOT_POSITIVE, Path, each, has, int, invalid_each, label_selector, list, numbered, strings, text};
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

pub(super) const AFFINITY: Rules = &[
    object(
        "nodeAffinity",
        &[
            call(REQUIRED, required_nodes),
            each_of(PREFERRED, &[whole(weight), whole(preference)]),
        ],
    ),
    object("podAffinity", PODS),
    object("podAntiAffinity", PODS),
];

const PODS: Rules = &[
    each_of(REQUIRED, POD_TERM),
    each_of(PREFERRED, &[whole(weight), structure("podAffinityTerm", POD_TERM)]),
];

const POD_TERM: Rules = &[
    call("labelSelector", selector),
    call("namespaceSelector", selector),
    call("namespaces", namespaces),
    whole(label_keys),
    required_saying("topologyKey", "can not be empty"),
    always("topologyKey", names::qualified_name),
];

fn required_nodes(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    node_selector(own, path, errors);
}

fn preference(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    term(
        has(own, "preference").unwrap_or(&Value::Null),
        false,
        &path.child("preference"),
        errors,
    );
}

pub(super) fn selector(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    label_selector(own, path, errors);
}

/// Told as `namespace`, without an index.
fn namespaces(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    for (_, namespace) in numbered(own) {
        let namespace = namespace.as_str().unwrap_or("");
        invalid_each(
            errors,
            &path.beside("namespace"),
            namespace,
            names::dns_label(namespace),
        );
    }
}

/// `matchLabelKeys` and `mismatchLabelKeys` beside `labelSelector`.
fn label_keys(term: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const LISTS: [&str; 2] = ["matchLabelKeys", "mismatchLabelKeys"];
    let selector = has(term, "labelSelector");
    for key in LISTS {
        let path = path.child(key);
        let keys = list(term, key);
        if !keys.is_empty() && selector.is_none() {
            errors.push(FieldError::forbidden(
                path,
                "must not be specified when labelSelector is not set",
            ));
            continue;
        }
        for (index, key) in strings(term, key).enumerate() {
            invalid_each(errors, &path.index(index), key, names::qualified_name(key));
        }
    }
    let wanted: HashMap<&str, usize> = strings(term, LISTS[0]).zip(0..).collect();
    if wanted.is_empty() {
        return;
    }
    if let Some(selector) = selector {
        let labels = has(selector, "matchLabels").and_then(Value::as_object);
        let mut known: HashSet<&str> = labels.into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        for expression in list(selector, "matchExpressions") {
            let key = text(expression, "key");
            // The server has added what the keys mean: a key that is there already is there twice.
            if let Some(&index) = wanted.get(key).filter(|_| known.contains(key)) {
                errors.push(FieldError::invalid(
                    path.index(index),
                    key,
                    "exists in both matchLabelKeys and labelSelector",
                ));
            }
            known.insert(key);
        }
    }
    let not: HashSet<&str> = strings(term, LISTS[1]).collect();
    for (index, key) in strings(term, LISTS[0]).enumerate() {
        if not.contains(key) {
            errors.push(FieldError::invalid(
                path.child(LISTS[0]).index(index),
                key,
                "exists in both matchLabelKeys and mismatchLabelKeys",
            ));
        }
    }
}

fn weight(term: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let weight = int(term, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(
            path.child("weight"),
            weight,
            "must be in the range 1-100",
        ));
    }
}

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn tolerations(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    for (index, toleration) in numbered(own) {
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

pub(super) fn topology_spread(own: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const ACTIONS: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
    let constraints = own.as_array().map_or(&[][..], Vec::as_slice);
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
        check(SPREAD, constraint, scope, &path, errors);
    }
}

const SPREAD: Rules = &[
    positive("minDomains"),
    whole(domains_need_refusal),
    one_of_if_set("nodeAffinityPolicy", &["Honor", "Ignore"]),
    one_of_if_set("nodeTaintsPolicy", &["Honor", "Ignore"]),
    whole(label_keys),
    call("labelSelector", selector),
];

fn domains_need_refusal(constraint: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let action = text(constraint, "whenUnsatisfiable");
    if let Some(domains) = int(constraint, "minDomains").filter(|_| action != "DoNotSchedule") {
        errors.push(FieldError::invalid(
            path.child("minDomains"),
            domains,
            format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"),
        ));
    }
}
