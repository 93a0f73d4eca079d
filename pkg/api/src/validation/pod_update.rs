//! What may change in a pod once it is there.

use std::collections::HashSet;

use serde_json::Value;

use super::pod::SPEC;
use super::pod_annotations::{APP_ARMOR, MIRROR};
use super::rules::Scope;
use super::{Errors, Path, container, each, has, int, list, node_selector, pod_annotations, same, strings_of, text};
use crate::meta as object;
use crate::status::FieldError;

/// What may change in a pod: images, a shorter deadline, more tolerations, fewer scheduling gates.
pub fn pod_update(new: &Value, old: &Value, errors: &mut Errors) {
    let empty = Value::Null;
    let spec = has(new, "spec").unwrap_or(&empty);
    let before = has(old, "spec").unwrap_or(&empty);
    annotation_changes(new, old, errors);
    for key in ["containers", "initContainers"] {
        if list(spec, key).len() != list(before, key).len() {
            errors.push(FieldError::forbidden(
                SPEC.child(key),
                "pod updates may not add or remove containers",
            ));
            return;
        }
        let path = SPEC.child(key);
        for (index, own) in each(spec, key) {
            let path = path.index(index);
            if text(own, "image").is_empty() {
                errors.push(FieldError::required(path.child("image"), ""));
            }
            container::trimmed_image(own, &path, errors);
        }
    }
    if !deadline_only_shrinks(spec, before, errors) {
        return;
    }
    if only_added_tolerations(spec, before, errors)
        && let Some(tolerations) = has(spec, "tolerations")
    {
        let scope = Scope::of(new);
        node_selector::tolerations(tolerations, &scope, &SPEC.child("tolerations"), errors);
    }
    no_new_gates(spec, before, errors);
    if same(Some(spec), Some(before)) {
        return;
    }
    if !list(before, "schedulingGates").is_empty() {
        gated_changes(spec, before, errors);
    }
    let munged = with_old_mutable_fields(spec, before);
    if is_changed(&munged, before) {
        errors.push(FieldError::forbidden(
            "spec",
            format!(
                "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative){}",
                super::differs::hunk(&munged, before)
            ),
        ));
    }
}

/// False: nothing else is told.
fn deadline_only_shrinks(spec: &Value, before: &Value, errors: &mut Errors) -> bool {
    let path = SPEC.child("activeDeadlineSeconds");
    match (int(spec, "activeDeadlineSeconds"), int(before, "activeDeadlineSeconds")) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            let why = "must be between 0 and 2147483647, inclusive";
            errors.push(FieldError::invalid(path, new, why));
            false
        }
        (Some(new), Some(old)) if old < new => {
            let why = "must be less than or equal to previous value";
            errors.push(FieldError::invalid(path, new, why));
            false
        }
        (None, Some(_)) => {
            let why = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(path, Value::Null, why));
            true
        }
        _ => true,
    }
}

/// Two annotations never change; all are looked at once more.
pub(super) fn annotation_changes(new: &Value, old: &Value, errors: &mut Errors) {
    let metadata = |object| has(object, "metadata").unwrap_or(&Value::Null);
    let path = Path::new("metadata");
    let path = path.child("annotations");
    let fixed = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        _ if key.starts_with(APP_ARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, value) in strings_of(metadata(old), "annotations") {
        if object::annotation(new, key) != Some(value)
            && let Some(what) = fixed(key)
        {
            errors.push(FieldError::forbidden(
                path.key(key),
                format!("may not remove or update {what}"),
            ));
        }
    }
    for (key, _) in strings_of(metadata(new), "annotations") {
        if object::annotation(old, key).is_none()
            && let Some(what) = fixed(key)
        {
            errors.push(FieldError::forbidden(path.key(key), format!("may not add {what}")));
        }
    }
    let spec = has(new, "spec").unwrap_or(&Value::Null);
    pod_annotations::check(metadata(new), spec, &path, errors);
}

/// Where a gated pod may run can only be narrowed.
fn gated_changes(spec: &Value, before: &Value, errors: &mut Errors) {
    let grown = strings_of(before, "nodeSelector")
        .all(|(key, value)| object::str_at(spec, &["nodeSelector", key]) == Some(value));
    if !grown {
        errors.push(FieldError::invalid(
            "spec.nodeSelector",
            has(spec, "nodeSelector").cloned().unwrap_or_default(),
            "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        ));
    }
    const TERMS: [&str; 4] = [
        "affinity",
        "nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
        "nodeSelectorTerms",
    ];
    let (new_terms, old_terms) = (object::items(spec, &TERMS), object::items(before, &TERMS));
    let path = format!("spec.{}", TERMS.join("."));
    if old_terms.is_empty() {
        return;
    }
    if old_terms.len() != new_terms.len() {
        errors.push(FieldError::invalid(
            path,
            object::at(spec, &TERMS).cloned().unwrap_or_default(),
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        ));
        return;
    }
    for (index, (new, old)) in new_terms.iter().zip(old_terms).enumerate() {
        if !only_adds(new, old) {
            errors.push(FieldError::invalid(
                format!("{path}[{index}]"),
                new.clone(),
                "only additions are allowed (no mutations or deletions)",
            ));
        }
    }
}

fn only_adds(new: &Value, old: &Value) -> bool {
    const LISTS: [&str; 2] = ["matchExpressions", "matchFields"];
    if LISTS.iter().all(|key| list(old, key).is_empty()) {
        return LISTS.iter().all(|key| list(new, key).is_empty());
    }
    LISTS.iter().all(|key| {
        let (new, old) = (list(new, key), list(old, key));
        new.len() >= old.len() && new.iter().zip(old).all(|(new, old)| same(Some(new), Some(old)))
    })
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

/// Whether a field differs or is gone.
fn is_changed(new: &Value, old: &Value) -> bool {
    let differs = |key: &str| {
        let (own, had) = (new.get(key), old.get(key));
        match key {
            // Plain flags, of which false is no value.
            "hostNetwork" | "hostPID" | "hostIPC" => super::says(own) != super::says(had),
            _ => !same(own, had),
        }
    };
    let keys = |object| Value::as_object(object).into_iter().flatten();
    keys(new).chain(keys(old)).any(|(key, _)| differs(key))
}

fn only_added_tolerations(spec: &Value, before: &Value, errors: &mut Errors) -> bool {
    let without_seconds = |toleration| ["key", "operator", "value", "effect"].map(|field| has(toleration, field));
    let new: HashSet<_> = list(spec, "tolerations").iter().map(without_seconds).collect();
    let mut old = list(before, "tolerations").iter().map(without_seconds);
    let kept = old.all(|old| new.contains(&old));
    if !kept {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
    kept
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
        // what of it may change was looked at before
        restore("nodeSelector");
        let old = object::at(before, &["affinity", "nodeAffinity"]).cloned();
        match old {
            Some(old) => object::set(&mut munged, &["affinity", "nodeAffinity"], old),
            None => drop(object::remove(&mut munged, &["affinity", "nodeAffinity"])),
        }
        let emptied = object::map_at(&munged, &["affinity"]).is_some_and(|map| map.is_empty());
        if emptied && has(before, "affinity").is_none() {
            object::remove(&mut munged, &["affinity"]);
        }
    }
    munged
}
