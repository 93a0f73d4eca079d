//! Limits and quotas of a namespace.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::rules::{Rules, Scope, call, check_object, structure, whole};
use super::{Errors, IMMUTABLE, NEGATIVE, Path, has, invalid_each, list, numbered, strings, text};
use crate::quantity::{self, Quantity};
use crate::status::FieldError;
use crate::{meta, names};

const LIMIT_RANGE: Rules = &[structure("spec", &[call("limits", limits)])];

pub fn limit_range(range: &Value, errors: &mut Errors) {
    check_object(LIMIT_RANGE, range, errors);
}

fn limits(limits: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, limit) in numbered(limits) {
        let path = path.index(index);
        let (kind, at) = (text(limit, "type"), path.child("type"));
        let problems = names::qualified_name(kind);
        if problems.is_empty() && !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim")
        {
            errors.push(FieldError::invalid(
                at,
                kind,
                "must be a standard limit type or fully qualified",
            ));
        }
        invalid_each(errors, &at, kind, problems);
        if !seen.insert(kind) {
            errors.push(FieldError::duplicate(at, kind));
        }
        let set = |field| meta::map_at(limit, &[field]).is_some_and(|own| !own.is_empty());
        if kind == "Pod" {
            for field in ["default", "defaultRequest"].into_iter().filter(|field| set(field)) {
                let why = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(path.child(field), why));
            }
        }
        let storage = |field| meta::at(limit, &[field, "storage"]).is_some();
        if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
            errors.push(FieldError::required(
                path.child("limits"),
                "either minimum or maximum storage value is required, but neither was provided",
            ));
        }
        ordered(limit, &path, errors);
    }
}

/// No amount may be beyond the one that bounds it: (the lower, its name, the upper, its name, where it is told).
fn ordered(limit: &Value, path: &Path<'_>, errors: &mut Errors) {
    const PAIRS: [(&str, &str, &str, &str, &str); 6] = [
        ("min", "min", "max", "max", "min"),
        ("min", "min", "defaultRequest", "default request", "defaultRequest"),
        ("defaultRequest", "default request", "max", "max", "defaultRequest"),
        (
            "defaultRequest",
            "default request",
            "default",
            "default limit",
            "defaultRequest",
        ),
        ("min", "min", "default", "default", "default"),
        ("default", "default", "max", "max", "default"),
    ];
    let amounts = |field| meta::map_at(limit, &[field]).into_iter().flatten();
    let resources: BTreeSet<&str> = ["max", "min", "default", "defaultRequest"]
        .into_iter()
        .flat_map(amounts)
        .map(|(resource, _)| resource.as_str())
        .collect();
    for resource in resources {
        let amount = |field| -> Option<(&Value, Quantity)> {
            let own = meta::at(limit, &[field, resource])?;
            Some((own, quantity::from_json(own).ok()?))
        };
        for (low, low_name, high, high_name, told) in PAIRS {
            if text(limit, "type") == "Pod" && (low.starts_with("default") || high.starts_with("default")) {
                continue;
            }
            let (Some((own, lower)), Some((bound, upper))) = (amount(low), amount(high)) else {
                continue;
            };
            if lower > upper {
                // Upstream shows the request wherever there is one, and of a default the bound.
                let request = (told, high) == ("defaultRequest", "defaultRequest");
                let shown = if request || (told, high) == ("default", "max") {
                    bound
                } else {
                    own
                };
                errors.push(FieldError::invalid(
                    path.child(told).key(resource),
                    shown.clone(),
                    format!("{low_name} value {lower} is greater than {high_name} value {upper}"),
                ));
            }
        }
    }
}

const QUOTA: Rules = &[structure("spec", &[call("hard", hard), whole(scopes)])];

pub fn resource_quota(quota: &Value, errors: &mut Errors) {
    check_object(QUOTA, quota, errors);
}

fn hard(hard: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    for (resource, amount) in hard.as_object().into_iter().flatten() {
        let path = path.key(resource);
        invalid_each(errors, &path, resource, names::qualified_name(resource));
        if quantity::from_json(amount).is_ok_and(|own| own < Quantity::ZERO) {
            errors.push(FieldError::invalid(path, amount.clone(), NEGATIVE));
        }
    }
}

fn scopes(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const SCOPES: [&str; 6] = [
        "Terminating",
        "NotTerminating",
        "BestEffort",
        "NotBestEffort",
        "PriorityClass",
        "VolumeAttributesClass",
    ];
    let mut wrong = |why| {
        let shown = list(spec, "scopes").to_vec();
        errors.push(FieldError::invalid(path.child("scopes"), shown, why));
    };
    // Each shows the whole list: of more than there are scopes no more is told.
    let unknown = strings(spec, "scopes").filter(|scope| !SCOPES.contains(scope));
    for _ in unknown.take(SCOPES.len()) {
        wrong("unsupported scope");
    }
    let set = |scope| strings(spec, "scopes").any(|own| own == scope);
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if set(one) && set(other) {
            wrong("conflicting scopes");
        }
    }
}

pub fn resource_quota_update(new: &Value, old: &Value, errors: &mut Errors) {
    let scopes =
        |object: &Value| -> BTreeSet<String> { strings(&object["spec"], "scopes").map(ToString::to_string).collect() };
    if scopes(new) != scopes(old) {
        let shown = has(&new["spec"], "scopes").cloned().unwrap_or_default();
        errors.push(FieldError::invalid("spec.scopes", shown, IMMUTABLE));
    }
}
