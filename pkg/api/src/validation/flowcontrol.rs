//! flowcontrol.apiserver.k8s.io: what must be there and what a field may say.

use serde_json::Value;

use super::{Errors, SPEC, has, int, one_of, spec_of, text};
use crate::meta as object;
use crate::status::FieldError;

pub fn flow_schema(schema: &Value, errors: &mut Errors) {
    let spec = spec_of(schema);
    let precedence = int(spec, "matchingPrecedence").unwrap_or(0);
    if precedence <= 0 {
        errors.push(FieldError::invalid(
            "spec.matchingPrecedence",
            precedence,
            "must be a positive value",
        ));
    }
    if precedence > 10_000 {
        errors.push(FieldError::invalid(
            "spec.matchingPrecedence",
            precedence,
            "must not be greater than 10000",
        ));
    }
    if let Some(method) = has(spec, "distinguisherMethod") {
        one_of(
            errors,
            method,
            "type",
            &SPEC.child("distinguisherMethod"),
            &["ByNamespace", "ByUser"],
        );
    }
    if object::string(spec, &["priorityLevelConfiguration", "name"]).is_empty() {
        errors.push(FieldError::required(
            "spec.priorityLevelConfiguration.name",
            "must reference a priority level",
        ));
    }
}

pub fn priority_level(level: &Value, errors: &mut Errors) {
    let spec = spec_of(level);
    one_of(errors, spec, "type", &SPEC, &["Exempt", "Limited"]);
    if text(spec, "type") == "Limited" && has(spec, "limited").is_none() {
        errors.push(FieldError::required(
            "spec.limited",
            "must not be empty when type is Limited",
        ));
    }
    if text(spec, "type") == "Exempt" && has(spec, "limited").is_some() {
        errors.push(FieldError::forbidden(
            "spec.limited",
            "must be nil if the type is not Limited",
        ));
    }
}
