//! Events, in both groups' versions: the stored form has the core group's field names, in which all but one is told.

use serde_json::Value;

use super::meta::{changed_and_standard, complete_and_standard};
use super::rules::{Rules, Scope, call, check_object, required, told, whole};
use super::{Errors, Path, has, immutable, immutable_text, int, invalid_each, names, same, text};
use crate::meta as object;
use crate::registry::NameRule;
use crate::status::FieldError;

/// Of an event that says when it was: older ones do not.
const TIMED: Rules = &[
    required("reportingInstance"),
    told("reportingInstance", no_longer, "128"),
    required("action"),
    told("action", no_longer, "128"),
    required("reason"),
    told("reason", no_longer, "128"),
    told("message", no_longer, "1024"),
];

/// What is asked besides of an event in events.k8s.io.
const NEWER: Rules = &[
    call("series", series),
    required("eventTime"),
    whole(kind),
    call("firstTimestamp", unset),
    call("lastTimestamp", unset),
    call("count", unset),
    call("source", unset),
];

pub fn event(event: &Value, errors: &mut Errors) {
    as_sent(event, "reportingComponent", errors);
}

/// An event (in stored form) that was sent as events.k8s.io/v1.
pub fn newer_event(event: &Value, errors: &mut Errors) {
    as_sent(event, "reportingController", errors);
    complete_and_standard(true, NameRule::DnsSubdomain, event, errors);
    check_object(NEWER, event, errors);
}

pub fn newer_event_update(new: &Value, old: &Value, errors: &mut Errors) {
    as_sent(new, "reportingController", errors);
    changed_and_standard(new, old, errors);
    if let Some(own) = has(new, "series")
        && !same(Some(own), has(old, "series"))
    {
        series(own, &Scope::of(new), &Path::new("series"), errors);
    }
    let fixed = |key, errors: &mut Errors| immutable(errors, new, old, &[key], key);
    let fixed_text = |key, errors: &mut Errors| immutable_text(errors, new, old, &[key], key);
    fixed("involvedObject", errors);
    fixed_text("reason", errors);
    fixed_text("message", errors);
    fixed("source", errors);
    fixed("firstTimestamp", errors);
    fixed("lastTimestamp", errors);
    fixed("count", errors);
    // Upstream tells it twice.
    fixed_text("reason", errors);
    fixed_text("type", errors);
    fixed("eventTime", errors);
    fixed_text("action", errors);
    fixed("related", errors);
    immutable_text(errors, new, old, &["reportingComponent"], "reportingController");
    fixed_text("reportingInstance", errors);
}

fn as_sent(event: &Value, controller: &'static str, errors: &mut Errors) {
    let namespace = object::namespace(event);
    let about = object::string(event, &["involvedObject", "namespace"]);
    let timed = has(event, "eventTime").is_some();
    let matches = match (about, timed) {
        ("", false) => matches!(namespace, "" | "default"),
        ("", true) => matches!(namespace, "default" | "kube-system"),
        (about, false) => about == namespace,
        (_, true) => true,
    };
    if !matches {
        let why = "does not match event.namespace";
        errors.push(FieldError::invalid("involvedObject.namespace", about, why));
    }
    if timed {
        let name = text(event, "reportingComponent");
        if name.is_empty() {
            errors.push(FieldError::required(controller, ""));
        }
        invalid_each(errors, &Path::new(controller), name, names::qualified_name(name));
        check_object(TIMED, event, errors);
    }
    invalid_each(
        errors,
        &Path::new("namespace"),
        namespace,
        names::dns_subdomain(namespace),
    );
}

fn no_longer(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors, most: &'static str) {
    let length = own.as_str().map_or(0, str::len);
    if most.parse().is_ok_and(|most: usize| length > most) {
        let why = format!("can have at most {most} characters");
        errors.push(FieldError::invalid(path, "", why));
    }
}

fn series(series: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if int(series, "count").unwrap_or(0) < 2 {
        errors.push(FieldError::invalid(path.child("count"), "", "should be at least 2"));
    }
    if has(series, "lastObservedTime").is_none() {
        errors.push(FieldError::required(path.child("lastObservedTime"), ""));
    }
}

fn kind(event: &Value, _: &Scope<'_>, _: &Path<'_>, errors: &mut Errors) {
    let own = text(event, "type");
    if !matches!(own, "Normal" | "Warning") {
        let why = format!("has invalid value: {own}");
        errors.push(FieldError::invalid("type", "", why));
    }
}

fn unset(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let empty = match own {
        Value::Object(map) => map.values().all(|value| value == ""),
        Value::Number(number) => number.as_i64() == Some(0),
        _ => false,
    };
    if !empty {
        errors.push(FieldError::invalid(path, "", "needs to be unset"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_name_their_namespace() {
        let mut errors = Errors::new();
        event(
            &json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}}),
            &mut errors,
        );
        assert_eq!(
            errors[0].to_string(),
            "involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"
        );
    }
}
