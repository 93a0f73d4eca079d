//! What of its pod a container may be told: fields by their paths, resources by their names.

use serde_json::Value;

use super::rules::Scope;
use super::{Errors, Path, has, invalid_each, text};
use crate::bounded::step;
use crate::status::FieldError;
use crate::{names, quantity};

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const FILE_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

pub(super) fn env_field(field: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    field_ref(field, &ENV_FIELDS, path, errors);
}

pub(super) fn file_field(field: &Value, path: &Path<'_>, errors: &mut Errors) {
    field_ref(field, &FILE_FIELDS, path, errors);
}

pub(super) fn env_resource(reference: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    resource_ref(reference, false, path, errors);
}

/// A field of the pod, as an environment variable or a file may name it.
fn field_ref(field: &Value, fields: &[&str], path: &Path<'_>, errors: &mut Errors) {
    if text(field, "apiVersion").is_empty() {
        errors.push(FieldError::required(path.child("apiVersion"), ""));
        return;
    }
    let own = text(field, "fieldPath");
    if own.is_empty() {
        errors.push(FieldError::required(path.child("fieldPath"), ""));
        return;
    }
    let converting = |what: String| {
        FieldError::invalid(
            path.child("fieldPath"),
            own,
            format!("error converting fieldPath: {what}"),
        )
    };
    if text(field, "apiVersion") != "v1" {
        errors.push(converting(format!(
            "unsupported pod version: {}",
            step(text(field, "apiVersion"))
        )));
        return;
    }
    let subscripted = own.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    if let Some((base, key)) = subscripted.filter(|(base, _)| !base.is_empty()) {
        match base {
            "metadata.annotations" => {
                invalid_each(errors, path, key, names::qualified_name(&key.to_lowercase()));
            }
            "metadata.labels" => invalid_each(errors, path, key, names::qualified_name(key)),
            _ => errors.push(converting(format!(
                "field label does not support subscript: {}",
                step(own)
            ))),
        }
        return;
    }
    const MORE: [&str; 3] = ["spec.restartPolicy", "spec.schedulerName", "status.phase"];
    // What clients before v1 called it.
    let own = if own == "spec.host" { "spec.nodeName" } else { own };
    if ![&ENV_FIELDS[..], &FILE_FIELDS, &MORE]
        .iter()
        .any(|known| known.contains(&own))
    {
        errors.push(converting(format!("field label not supported: {}", step(own))));
    } else if !fields.contains(&own) {
        errors.push(FieldError::not_supported(path.child("fieldPath"), own, fields));
    }
}

/// A container's resource, as an environment variable or a file may name it.
pub(super) fn resource_ref(reference: &Value, volume: bool, path: &Path<'_>, errors: &mut Errors) {
    const RESOURCES: [&str; 6] = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    const UNITS: [&str; 13] = [
        "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
    ];
    let resource = text(reference, "resource");
    let hugepages = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if volume && text(reference, "containerName").is_empty() {
        errors.push(FieldError::required(path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(FieldError::required(path.child("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !hugepages {
        errors.push(FieldError::not_supported(path.child("resource"), resource, &RESOURCES));
    }
    let Some(divisor) = has(reference, "divisor").and_then(|divisor| quantity::from_json(divisor).ok()) else {
        return;
    };
    if divisor.is_zero() {
        return;
    }
    let divisor = divisor.to_string();
    let what = match resource {
        "limits.cpu" | "requests.cpu" => {
            if !matches!(divisor.as_str(), "1" | "1m") {
                errors.push(FieldError::invalid(
                    path.child("divisor"),
                    resource,
                    "only divisor's values 1m and 1 are supported with the cpu resource",
                ));
            }
            return;
        }
        "limits.memory" | "requests.memory" => "memory",
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => "local ephemeral storage",
        _ if hugepages => "hugepages",
        _ => return,
    };
    if !UNITS.contains(&divisor.as_str()) {
        errors.push(FieldError::invalid(
            path.child("divisor"),
            resource,
            format!(
                "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the {what} resource"
            ),
        ));
    }
}
