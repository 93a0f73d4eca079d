//! policy: disruption budgets.

use serde_json::Value;

use super::{Errors, SPEC, at_most_100_percent, has, int_or_percent, label_selector, one_of_if_set, spec_of};
use crate::status::FieldError;

pub fn disruption_budget(budget: &Value, errors: &mut Errors) {
    let spec = spec_of(budget);
    if has(spec, "minAvailable").is_some() && has(spec, "maxUnavailable").is_some() {
        errors.push(FieldError::invalid(
            "spec",
            spec.clone(),
            "minAvailable and maxUnavailable cannot be both set",
        ));
    }
    for key in ["minAvailable", "maxUnavailable"] {
        if let Some(value) = has(spec, key) {
            int_or_percent(errors, value, &SPEC.child(key));
            at_most_100_percent(errors, value, &SPEC.child(key));
        }
    }
    if let Some(selector) = has(spec, "selector") {
        label_selector(selector, &SPEC.child("selector"), errors);
    }
    one_of_if_set(
        errors,
        spec,
        "unhealthyPodEvictionPolicy",
        &SPEC,
        &["AlwaysAllow", "IfHealthyBudget"],
    );
}
