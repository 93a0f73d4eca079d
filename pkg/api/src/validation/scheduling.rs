//! scheduling.k8s.io and node.k8s.io: priority and runtime classes.

use std::collections::HashSet;

use serde_json::Value;

use super::rules::{Rules, Scope, always, call, check, check_object};
use super::{Errors, Path, flag, has, immutable, int, labels, node_selector, numbered, resources, text};
use crate::status::FieldError;
use crate::{meta as object, names};

const SYSTEM_CLASSES: [(&str, i64); 2] = [
    ("system-node-critical", 2_000_001_000),
    ("system-cluster-critical", 2_000_000_000),
];

const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

pub fn priority_class(class: &Value, errors: &mut Errors) {
    let (name, value) = (object::name(class), int(class, "value").unwrap_or(0));
    if name.starts_with("system-") {
        let why = match SYSTEM_CLASSES.iter().find(|(own, _)| *own == name) {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, own)) if *own != value => Some(format!("value of {name} PriorityClass must be {own}")),
            Some(_) if flag(class, "globalDefault") => {
                Some(format!("globalDefault of {name} PriorityClass must be false"))
            }
            Some(_) => None,
        };
        if let Some(why) = why {
            errors.push(FieldError::forbidden(
                "metadata.name",
                format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}"),
            ));
        }
    } else if value > HIGHEST_USER_PRIORITY {
        errors.push(FieldError::forbidden(
            "value",
            format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"),
        ));
    }
    if let Some(policy) = has(class, "preemptionPolicy").and_then(Value::as_str) {
        super::preemption(policy, &Path::new("preemptionPolicy"), errors);
    }
}

pub fn priority_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    if int(new, "value") != int(old, "value") {
        errors.push(FieldError::forbidden("value", "may not be changed in an update."));
    }
    immutable(errors, new, old, &["preemptionPolicy"], "preemptionPolicy");
}

const RUNTIME_CLASS: Rules = &[
    always("handler", names::dns_label),
    call("overhead", overhead),
    call("scheduling", placement),
];

pub fn runtime_class(class: &Value, errors: &mut Errors) {
    check_object(RUNTIME_CLASS, class, errors);
}

/// Told as limits of the overhead itself.
fn overhead(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    resources::overhead(has(own, "podFixed").unwrap_or(&Value::Null), path, errors);
}

fn placement(own: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const TOLERATIONS: Rules = &[
        call("tolerations", node_selector::tolerations),
        call("tolerations", distinct),
    ];
    labels(has(own, "nodeSelector"), &path.child("nodeSelector"), errors);
    check(TOLERATIONS, own, scope, path, errors);
}

fn distinct(tolerations: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, toleration) in numbered(tolerations) {
        let fields = ["key", "operator", "value", "effect"].map(|field| text(toleration, field));
        if !seen.insert((fields, int(toleration, "tolerationSeconds"))) {
            errors.push(FieldError::duplicate(path.index(index), toleration.clone()));
        }
    }
}

pub fn runtime_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    super::immutable_text(errors, new, old, &["handler"], "handler");
}
