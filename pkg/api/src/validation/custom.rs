//! What is asked of custom kinds' objects beside their schema: the numbers of `/scale`, and names of finalizers.

use serde_json::Value;

use super::{Errors, strings};
use crate::registry::{Path, Served};
use crate::status::FieldError;
use crate::{go, names};

/// What `/scale` reads of an object.
pub(super) fn scale(sent: &Served, new: &Value, errors: &mut Errors) {
    scale_spec(sent, new, errors);
    scale_status(sent, new, errors);
}

fn scale_spec(sent: &Served, new: &Value, errors: &mut Errors) {
    if let Some(scale) = &sent.scale {
        replicas(&scale.spec_replicas, new, errors);
    }
}

pub(super) fn scale_status(sent: &Served, new: &Value, errors: &mut Errors) {
    let Some(scale) = &sent.scale else { return };
    replicas(&scale.status_replicas, new, errors);
    let (at, found) = (dotted(&scale.selector), found(&scale.selector, new));
    if let Some(found) = found.filter(|found| !found.is_string()) {
        errors.push(FieldError::invalid(&*at, "", not_of(&at, found, "string")));
    }
}

fn dotted(path: &Path) -> String {
    path.iter().map(|name| format!(".{name}")).collect()
}

fn found<'v>(path: &Path, object: &'v Value) -> Option<&'v Value> {
    let mut names = path.iter();
    let first = object.get(names.next()?.as_ref())?;
    names.try_fold(first, |value, name| value.get(name.as_ref()))
}

fn not_of(at: &str, found: &Value, wanted: &str) -> String {
    let (shown, is) = (go::printed(found), go::type_of(found));
    format!("{at} accessor error: {shown} is of the type {is}, expected {wanted}")
}

fn replicas(path: &Path, new: &Value, errors: &mut Errors) {
    let at = dotted(path);
    let Some(found) = found(path, new) else { return };
    match found.as_i64() {
        None => errors.push(FieldError::invalid(&*at, 0, not_of(&at, found, "int64"))),
        Some(count) if count < 0 => {
            errors.push(FieldError::invalid(at, count, "should be a non-negative integer"));
        }
        Some(count) if count > i64::from(i32::MAX) => {
            let why = format!("should be less than or equal to {}", i32::MAX);
            errors.push(FieldError::invalid(at, count, why));
        }
        Some(_) => {}
    }
}

/// Finalizers whose names say not whose they are, of those that a write adds.
pub(super) fn finalizer_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let of = |object: &Value| -> Vec<String> {
        let metadata = object.get("metadata").unwrap_or(&Value::Null);
        strings(metadata, "finalizers").map(str::to_string).collect()
    };
    let before = old.map(of).unwrap_or_default();
    let mut added: Vec<String> = of(new).into_iter().filter(|own| !before.contains(own)).collect();
    added.sort();
    added.dedup();
    added.iter().flat_map(|name| finalizer_warning(name)).collect()
}

fn finalizer_warning(name: &str) -> Vec<String> {
    let told = |why: &str| format!("metadata.finalizers: {name:?}: {why}");
    let mut warnings: Vec<String> = names::qualified_name(name).iter().map(|why| told(why)).collect();
    if !name.contains('/') && !matches!(name, "orphan" | "foregroundDeletion" | "kubernetes") {
        let path = if name.contains('.') {
            " including a path (/)"
        } else {
            ""
        };
        let why = format!(
            "prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
        );
        warnings.push(told(&why));
    }
    warnings
}
