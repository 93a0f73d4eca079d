//! Annotations of pods whose value means something to the server.

use std::cell::LazyCell;
use std::collections::HashSet;

use serde_json::Value;

use super::volumes::descending;
use super::{Errors, Path, has, invalid_each, security, strings_of, text};
use crate::meta as object_at;
use crate::status::FieldError;

/// On a pod that is the API's picture of one that its node made by itself.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub(super) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Of a pod or a template.
pub(super) fn check(metadata: &Value, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let annotations = || strings_of(metadata, "annotations");
    for (key, value) in annotations() {
        if key == MIRROR && text(spec, "nodeName").is_empty() {
            errors.push(FieldError::invalid(
                path.key(key),
                value,
                "must set spec.nodeName if mirror pod annotation is set",
            ));
        }
    }
    for (key, value) in annotations() {
        let first_zero = value.len() > 1 && value.starts_with(['0', '+']);
        if key == COST && (value.parse::<i32>().is_err() || first_zero) {
            errors.push(FieldError::invalid(path.key(COST), value, "must be a 32bit integer"));
        }
    }
    for (key, value) in annotations() {
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            match value {
                "runtime/default" | "docker/default" | "unconfined" => {}
                _ => match value.strip_prefix("localhost/") {
                    Some(target) => invalid_each(errors, &path.child(key), target, descending(target)),
                    None => errors.push(FieldError::invalid(
                        path.child(key),
                        value,
                        "must be a valid seccomp profile",
                    )),
                },
            }
        }
    }
    let names = LazyCell::new(|| {
        let mut names = HashSet::new();
        security::visit_containers(spec, path, |own, _| {
            names.insert(text(own, "name"));
        });
        names
    });
    for (key, value) in annotations() {
        let Some(container) = key.strip_prefix(APP_ARMOR) else {
            continue;
        };
        if !names.contains(container) {
            errors.push(FieldError::invalid(path.key(key), container, "container not found"));
        }
        if !matches!(value, "" | "runtime/default" | "unconfined") && !value.starts_with("localhost/") {
            errors.push(FieldError::invalid(
                path.key(key),
                value,
                format!("invalid AppArmor profile name: {value:?}"),
            ));
        }
    }
}

/// Profiles that a new pod or template names twice have to be the same.
pub(super) fn match_fields(metadata: &Value, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    const CONTEXT: &str = "securityContext";
    if has(metadata, "annotations").is_none() {
        return;
    }
    let context = path.child(CONTEXT);
    let own = context.child("seccompProfile");
    let of_pod = object_at::at(spec, &[CONTEXT, "seccompProfile"]);
    match_one(metadata, SECCOMP_POD, of_pod, "seccomp", &own, errors);
    for (field, prefix, what) in [
        ("seccompProfile", SECCOMP_CONTAINER, "seccomp"),
        ("appArmorProfile", APP_ARMOR, "apparmor"),
    ] {
        let inherited = object_at::at(spec, &[CONTEXT, field]).filter(|_| what == "apparmor");
        if what == "apparmor" && object_at::str_at(spec, &["os", "name"]) == Some("windows") {
            continue;
        }
        security::visit_containers(spec, path, |container, path| {
            let own = object_at::at(container, &[CONTEXT, field]).or(inherited);
            let key = format!("{prefix}{}", text(container, "name"));
            match_one(metadata, &key, own, what, &path.child(CONTEXT).child(field), errors);
        });
    }
}

fn match_one(metadata: &Value, key: &str, profile: Option<&Value>, what: &str, path: &Path<'_>, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    let Some(annotation) = object_at::str_at(metadata, &["annotations", key]) else {
        return;
    };
    let same_type = match text(profile, "type") {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => annotation == "runtime/default" || (what == "seccomp" && annotation == "docker/default"),
        "Localhost" => annotation.starts_with("localhost/"),
        _ => true,
    };
    if !same_type {
        errors.push(FieldError::forbidden(
            path.child("type"),
            format!("{what} type in annotation and field must match"),
        ));
    } else if text(profile, "type") == "Localhost"
        && annotation.strip_prefix("localhost/") != object_at::str_at(profile, &["localhostProfile"])
    {
        errors.push(FieldError::forbidden(
            path.child("localhostProfile"),
            format!("{what} profile in annotation and field must match"),
        ));
    }
}
