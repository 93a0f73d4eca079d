//! Where a pod may run: node selectors and affinity, pod affinity, tolerations, topology spread.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::meta::{EXISTS, IN, REQUIREMENT, no_operator};
use super::rules::{
    Cases, Rules, Scope, all, always, by, call, check, each as each_of, object, one_of, one_of_if_set, positive,
    required_saying, structure, texts, whole,
};
use super::{Errors, NOT_POSITIVE, Path, each, has, int, invalid_each, label_selector, list, numbered, strings, text};
use crate::names;
use crate::status::FieldError;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

const NODES: Rules = &[
    required_saying("nodeSelectorTerms", "must have at least one node selector term"),
    each_of("nodeSelectorTerms", TERM),
];

const TERM: Rules = &[
    each_of("matchExpressions", &[by("operator", &BY_OPERATOR), all(REQUIREMENT)]),
    each_of("matchFields", FIELD),
];

/// Of what is only preferred values may be of any form.
const PREFERRED_TERM: Rules = &[
    each_of(
        "matchExpressions",
        &[by("operator", &BY_OPERATOR), always("key", names::qualified_name)],
    ),
    each_of("matchFields", FIELD),
];

const BY_OPERATOR: Cases = Cases {
    of: &[IN, EXISTS, (&["Gt", "Lt"], &[whole(a_bound)])],
    otherwise: &[always("operator", no_operator)],
};

const FIELD: Rules = &[by("operator", &FIELD_BY_OPERATOR), by("key", &FIELD_BY_KEY)];

const FIELD_BY_OPERATOR: Cases = Cases {
    of: &[(&["In", "NotIn"], &[whole(one_value)])],
    otherwise: &[always("operator", no_operator)],
};

const FIELD_BY_KEY: Cases = Cases {
    of: &[(&["metadata.name"], &[texts("values", names::dns_subdomain)])],
    otherwise: &[always("key", no_field)],
};

fn a_bound(requirement: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
    single(requirement, why, path, errors);
}

fn one_value(requirement: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
    single(requirement, why, path, errors);
}

fn single(requirement: &Value, why: &str, path: &Path<'_>, errors: &mut Errors) {
    if list(requirement, "values").len() != 1 {
        errors.push(FieldError::required(path.child("values"), why));
    }
}

fn no_field(_: &str) -> Vec<String> {
    vec!["not a valid field selector key".to_string()]
}

pub(super) fn node_selector(selector: &Value, path: &Path<'_>, errors: &mut Errors) {
    check(NODES, selector, &Scope::of(selector), path, errors);
}

const NODE_AFFINITY: Rules = &[
    call(REQUIRED, required_nodes),
    each_of(PREFERRED, &[whole(weight), structure("preference", PREFERRED_TERM)]),
];

/// Node affinity that is no pod's own, but a scheduler profile's.
pub fn node_affinity(affinity: &Value, path: &Path<'_>, errors: &mut Errors) {
    check(NODE_AFFINITY, affinity, &Scope::of(affinity), path, errors);
}

pub(super) const AFFINITY: Rules = &[
    object("nodeAffinity", NODE_AFFINITY),
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
                invalid_each(errors, &path.child("operator"), value, joined_label_value(value));
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

const TAINT: Rules = &[
    always("key", names::qualified_name),
    always("value", joined_label_value),
    one_of("effect", &EFFECTS),
];

/// All that is wrong with it at once.
fn joined_label_value(text: &str) -> Vec<String> {
    match names::label_value(text) {
        problems if problems.is_empty() => problems,
        problems => vec![problems.join(";")],
    }
}

pub(super) fn taints(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    for (index, taint) in each(spec, "taints") {
        let path = path.index(index);
        check(TAINT, taint, &Scope::of(spec), &path, errors);
        if !seen.insert((text(taint, "key"), text(taint, "effect"))) {
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
