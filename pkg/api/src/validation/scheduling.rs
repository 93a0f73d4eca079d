//! scheduling.k8s.io and node.k8s.io: priority and runtime classes.

use serde_json::Value;

use super::{Errors, Path, flag, has, immutable, int, invalid_each, labels, node_selector, resources, text};
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
    if let Some(policy) = has(class, "preemptionPolicy").and_then(Value::as_str)
        && !matches!(policy, "PreemptLowerPriority" | "Never")
    {
        errors.push(FieldError::not_supported(
            "preemptionPolicy",
            policy,
            &["PreemptLowerPriority", "Never"],
        ));
    }
}

pub fn priority_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    if int(new, "value") != int(old, "value") {
        errors.push(FieldError::forbidden("value", "may not be changed in an update."));
    }
    immutable(errors, new, old, &["preemptionPolicy"], "preemptionPolicy");
}

pub fn runtime_class(class: &Value, errors: &mut Errors) {
    let handler = text(class, "handler");
    invalid_each(errors, &Path::new("handler"), handler, names::dns_label(handler));
    let overhead = Path::new("overhead");
    resources::list(
        object::at(class, &["overhead", "podFixed"]),
        &overhead.child("limits"),
        errors,
    );
    if let Some(scheduling) = has(class, "scheduling") {
        let path = Path::new("scheduling");
        labels(has(scheduling, "nodeSelector"), &path.child("nodeSelector"), errors);
        node_selector::tolerations(scheduling, &path.child("tolerations"), errors);
    }
}

pub fn runtime_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable(errors, new, old, &["handler"], "handler");
}
