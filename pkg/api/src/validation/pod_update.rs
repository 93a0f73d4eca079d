//! What may change in a pod once it is there.

use std::collections::HashSet;

use serde_json::Value;

use super::pod::SPEC;
use super::{Errors, each, has, int, list, same, text};
use crate::meta as object;
use crate::status::FieldError;

/// What may change in a pod: images, a shorter deadline, more tolerations, fewer scheduling gates.
pub fn pod_update(new: &Value, old: &Value, errors: &mut Errors) {
    let empty = Value::Null;
    let spec = has(new, "spec").unwrap_or(&empty);
    let before = has(old, "spec").unwrap_or(&empty);
    for key in ["containers", "initContainers"] {
        if list(spec, key).len() != list(before, key).len() {
            errors.push(FieldError::forbidden(
                SPEC.child(key),
                "pod updates may not add or remove containers",
            ));
            return;
        }
    }
    match (int(spec, "activeDeadlineSeconds"), int(before, "activeDeadlineSeconds")) {
        (Some(new), Some(old)) if old < new => {
            errors.push(FieldError::invalid(
                "spec.activeDeadlineSeconds",
                new,
                "must be less than or equal to previous value",
            ));
            return;
        }
        (None, Some(_)) => errors.push(FieldError::invalid(
            "spec.activeDeadlineSeconds",
            Value::Null,
            "must not update from a positive integer to nil value",
        )),
        _ => {}
    }
    only_added_tolerations(spec, before, errors);
    no_new_gates(spec, before, errors);
    if same(Some(spec), Some(before)) {
        return;
    }
    let munged = with_old_mutable_fields(spec, before);
    let changed = changed_keys(&munged, before);
    if !changed.is_empty() {
        errors.push(FieldError::forbidden(
            "spec",
            format!(
                "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n changed: {}",
                changed.join(", ")
            ),
        ));
    }
}

fn no_new_gates(spec: &Value, before: &Value, errors: &mut Errors) {
    let gates = list(before, "schedulingGates").iter();
    let known: HashSet<&str> = gates.map(|gate| text(gate, "name")).collect();
    for (index, gate) in each(spec, "schedulingGates") {
        let name = text(gate, "name");
        if !known.contains(name) {
            errors.push(FieldError::forbidden(
                format!("spec.schedulingGates[{index}].name"),
                format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            ));
        }
    }
}

/// The fields that differ: those of the new object in their order, then those that are gone.
fn changed_keys<'a>(new: &'a Value, old: &'a Value) -> Vec<&'a str> {
    let fields = |object: &'a Value| object.as_object().into_iter().flatten();
    let differ = fields(new).filter(|(key, value)| !same(Some(value), old.get(key.as_str())));
    let gone = fields(old).filter(|(key, value)| new.get(key.as_str()).is_none() && !same(None, Some(value)));
    differ.chain(gone).map(|(key, _)| key.as_str()).collect()
}

fn only_added_tolerations(spec: &Value, before: &Value, errors: &mut Errors) {
    let without_seconds = |toleration| ["key", "operator", "value", "effect"].map(|field| has(toleration, field));
    let new: HashSet<_> = list(spec, "tolerations").iter().map(without_seconds).collect();
    let mut old = list(before, "tolerations").iter().map(without_seconds);
    if !old.all(|old| new.contains(&old)) {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
}

/// The new spec with everything that may change taken from the old: what still differs may not.
fn with_old_mutable_fields(spec: &Value, before: &Value) -> Value {
    let mut munged = spec.clone();
    for key in ["containers", "initContainers"] {
        let old = list(before, key);
        for (container, old) in object::items_mut(&mut munged, &[key]).iter_mut().zip(old) {
            match has(old, "image") {
                Some(image) => object::set(container, &["image"], image.clone()),
                None => {
                    object::remove(container, &["image"]);
                }
            }
        }
    }
    let mut restore = |key: &str| match has(before, key) {
        Some(value) => object::set(&mut munged, &[key], value.clone()),
        None => {
            object::remove(&mut munged, &[key]);
        }
    };
    restore("activeDeadlineSeconds");
    restore("schedulingGates");
    restore("tolerations");
    let old_grace = int(before, "terminationGracePeriodSeconds");
    if old_grace.is_some_and(|seconds| seconds < 0) && int(spec, "terminationGracePeriodSeconds") == Some(1) {
        restore("terminationGracePeriodSeconds");
    }
    if !list(before, "schedulingGates").is_empty() {
        // a gated pod's node selector may grow, its affinity may narrow
        let grown = has(before, "nodeSelector")
            .and_then(Value::as_object)
            .is_none_or(|old| {
                old.iter()
                    .all(|(key, value)| object::at(spec, &["nodeSelector", key]) == Some(value))
            });
        if grown {
            restore("nodeSelector");
        }
        if object::at(before, &["affinity", "nodeAffinity"]).is_none() {
            match object::at(before, &["affinity"]) {
                None if object::at(spec, &["affinity", "podAffinity"]).is_none()
                    && object::at(spec, &["affinity", "podAntiAffinity"]).is_none() =>
                {
                    restore("affinity");
                }
                _ => {
                    object::remove(&mut munged, &["affinity", "nodeAffinity"]);
                }
            }
        }
    }
    munged
}
