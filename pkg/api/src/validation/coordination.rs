//! coordination.k8s.io: leases.

use serde_json::Value;

use super::{Errors, SPEC, int, spec_of, text};
use crate::status::FieldError;

pub fn lease(lease: &Value, errors: &mut Errors) {
    let spec = spec_of(lease);
    if let Some(seconds) = int(spec, "leaseDurationSeconds").filter(|&seconds| seconds <= 0) {
        errors.push(FieldError::invalid(
            "spec.leaseDurationSeconds",
            seconds,
            "must be greater than 0",
        ));
    }
    super::non_negative(errors, spec, "leaseTransitions", &SPEC);
    if !text(spec, "preferredHolder").is_empty() && text(spec, "strategy").is_empty() {
        errors.push(FieldError::forbidden(
            "spec.preferredHolder",
            "may only be specified if `strategy` is defined",
        ));
    }
}
