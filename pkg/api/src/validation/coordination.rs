//! coordination.k8s.io: leases.

use serde_json::Value;

use super::rules::{Rules, Scope, call, check_object, non_negative, structure, whole};
use super::{Errors, Path, text};
use crate::status::FieldError;

const LEASE: Rules = &[structure(
    "spec",
    &[
        call("leaseDurationSeconds", duration),
        non_negative("leaseTransitions"),
        whole(holder),
    ],
)];

pub fn lease(lease: &Value, errors: &mut Errors) {
    check_object(LEASE, lease, errors);
}

fn duration(seconds: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(seconds) = seconds.as_i64().filter(|&seconds| seconds <= 0) {
        errors.push(FieldError::invalid(path, seconds, "must be greater than 0"));
    }
}

fn holder(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if !text(spec, "preferredHolder").is_empty() && text(spec, "strategy").is_empty() {
        errors.push(FieldError::forbidden(
            path.child("preferredHolder"),
            "may only be specified if `strategy` is defined",
        ));
    }
}
