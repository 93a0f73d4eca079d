//! Resource requirements: names, quantities, requests against limits.

use serde_json::Value;

use super::{Errors, NEGATIVE, Path, has};
use crate::names;
use crate::quantity::{self, Quantity};
use crate::status::FieldError;

const CONTAINER: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

fn is_hugepage(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub(super) fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_hugepage(name)
}

fn resource_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if CONTAINER.contains(&name) {
        return;
    }
    let problems = names::qualified_name(name);
    if !problems.is_empty() {
        super::invalid_each(errors, path, name, problems);
    } else if !name.contains('/') && !is_hugepage(name) {
        errors.push(FieldError::invalid(
            path,
            name,
            "must be a standard resource type or fully qualified",
        ));
    }
    if !name.contains('/') {
        if !is_hugepage(name) {
            errors.push(FieldError::invalid(
                path,
                name,
                "must be a standard resource for containers",
            ));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(FieldError::invalid(
            path,
            name,
            "doesn't follow extended resource name standard",
        ));
    }
}

fn quantity_value(name: &str, value: &Value, path: &Path<'_>, errors: &mut Errors) -> Option<Quantity> {
    let quantity = match quantity::from_json(value) {
        Ok(quantity) => quantity,
        Err(error) => {
            errors.push(FieldError::invalid(path, value.clone(), error.to_string()));
            return None;
        }
    };
    if quantity.signum() < 0 {
        errors.push(FieldError::invalid(path, quantity.to_string(), NEGATIVE));
    }
    if is_extended(name) && !quantity.is_whole() {
        errors.push(FieldError::invalid(path, quantity.to_string(), "must be an integer"));
    }
    Some(quantity)
}

/// `limits` and `requests` of a container (or of a pod's overhead, as limits).
pub(super) fn requirements(resources: &Value, path: &Path<'_>, errors: &mut Errors) {
    let limits_path = path.child("limits");
    let requests_path = path.child("requests");
    let limits = has(resources, "limits").and_then(Value::as_object);
    for (name, value) in limits.into_iter().flatten() {
        let path = limits_path.key(name);
        resource_name(name, &path, errors);
        quantity_value(name, value, &path, errors);
    }
    for (name, value) in has(resources, "requests")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let path = requests_path.key(name);
        resource_name(name, &path, errors);
        let Some(request) = quantity_value(name, value, &path, errors) else {
            continue;
        };
        match limits
            .and_then(|limits| limits.get(name))
            .and_then(|limit| quantity::from_json(limit).ok())
        {
            Some(limit) if request != limit && !overcommit_allowed(name) => errors.push(FieldError::invalid(
                requests_path,
                request.to_string(),
                format!("must be equal to {name} limit of {limit}"),
            )),
            Some(limit) if request > limit => errors.push(FieldError::invalid(
                requests_path,
                request.to_string(),
                format!("must be less than or equal to {name} limit of {limit}"),
            )),
            None if !overcommit_allowed(name) => errors.push(FieldError::required(
                limits_path,
                "Limit must be set for non overcommitable resources",
            )),
            _ => {}
        }
    }
}

/// A resource list of a node or a quota: quantities must not be negative.
pub(super) fn list(resources: Option<&Value>, path: &Path<'_>, errors: &mut Errors) {
    for (name, value) in resources.and_then(Value::as_object).into_iter().flatten() {
        quantity_value(name, value, &path.key(name), errors);
    }
}
