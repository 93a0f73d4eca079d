//! Validation in upstream's paths, words and order of causes, over the object's tree. A valid object costs no
//! allocation but a few names; every check adds to one list of errors.
//!
//! A body may hold lists of a hundred thousand items: what is compared with each other goes through a set, and no item's
//! error shows the whole list.

mod autoscaling;
mod batch;
mod certificates;
mod claim_status;
mod claims;
mod container;
mod coordination;
mod custom;
mod data;
mod definitions;
mod device_selector;
mod differs;
mod dynamic_resources;
mod endpoints;
mod events;
mod flowcontrol;
mod indexes;
mod job_status;
mod limits;
pub(crate) mod meta;
mod mounts;
mod namespace;
mod networking;
mod node;
mod node_selector;
pub(crate) mod path;
mod persistent;
mod pod;
mod pod_annotations;
mod pod_parts;
mod pod_transitions;
mod pod_update;
mod policy;
mod rbac;
mod refs;
mod resources;
mod rules;
mod scheduling;
mod security;
mod service;
mod status;
mod storage;
mod volumes;
mod warnings;
mod workloads;

use serde_json::Value;

use crate::registry::{ChangeOrder, Resource, Served, Strategy, Support};
use crate::status::FieldError;
use crate::{meta as object, names};

pub use self::autoscaling::{autoscaler, autoscaler_update};
pub use self::batch::{cron_job, job, job_update};
pub use self::certificates::{signing_request, signing_request_v1beta1};
pub use self::claim_status::{forget_devices, resource_claim_status};
pub use self::claims::*;
pub use self::coordination::lease;
pub use self::data::{config_map, config_map_update, secret, secret_update};
pub use self::definitions::{
    custom_resource_definition, custom_resource_definition_status, definition_warnings, is_structural, non_structural,
};
pub use self::dynamic_resources::*;
pub use self::endpoints::*;
pub use self::events::{event, newer_event, newer_event_update};
pub use self::flowcontrol::{flow_control_status, flow_schema, priority_level};
pub use self::job_status::job_status;
pub use self::limits::*;
pub use self::meta::{
    MAX_MANAGER, MetadataCheck, annotations, label_selector, labels, manager, managers, object_meta,
    object_meta_update, owner_references, scale, validate_name,
};
pub use self::namespace::*;
pub use self::networking::*;
pub use self::node::*;
pub use self::node_selector::node_affinity;
pub use self::path::Path;
pub use self::persistent::*;
pub use self::pod::{pod, pod_binding, pod_template, pod_template_object};
pub use self::pod_parts::{pod_ephemeral_containers, pod_resize};
pub use self::pod_transitions::pod_status_by_itself;
pub use self::pod_update::pod_update;
pub use self::policy::disruption_budget;
pub use self::rbac::*;
pub use self::scheduling::{priority_class, priority_class_update, runtime_class, runtime_class_update};
pub use self::service::{service, service_addresses, service_families, service_update};
pub use self::status::{
    autoscaler_status, daemon_set_status, deployment_status, disruption_budget_status, load_balancer_status,
    pod_status, replicas_status, service_status, signing_request_approval, signing_request_status, stateful_set_status,
};
pub use self::storage::*;
pub use self::volumes::sources as volume_sources;
pub use self::warnings::*;
pub use self::workloads::*;

pub use crate::errors::Errors;

/// Everything that is wrong with a new object (in stored form), in upstream's order: metadata first.
pub fn create(resource: &Resource, sent: &Served, new: &Value) -> Errors {
    let mut errors = Errors::new();
    let own_metadata = !resource.semantics.metadata_last;
    if own_metadata {
        object_meta(resource, new, &mut errors);
    }
    if let Some(custom) = &sent.custom {
        let scale = |errors: &mut Errors| custom::scale(sent, new, errors);
        custom.check(new, None, scale, &mut errors, &mut Vec::new());
    }
    (sent.validate.unwrap_or(resource.hooks.validate))(new, &mut errors);
    (resource.hooks.validate_write)(sent, new, None, &mut errors);
    if !own_metadata && errors.is_empty() {
        meta::any_meta(resource, new, &mut errors);
    }
    errors
}

/// Everything that is wrong with a change of the main resource; `warnings` are of what was as wrong before.
pub fn update(resource: &Resource, sent: &Served, new: &Value, old: &Value, warnings: &mut Vec<String>) -> Errors {
    let mut errors = Errors::new();
    object_meta_update(resource, new, old, &mut errors);
    if let Some(change) = sent.validate_update {
        change(new, old, &mut errors);
        return errors;
    }
    if let Some(custom) = &sent.custom {
        let scale = |errors: &mut Errors| custom::scale(sent, new, errors);
        custom.check(new, Some(old), scale, &mut errors, warnings);
    }
    let whole = |errors: &mut Errors| (sent.validate.unwrap_or(resource.hooks.validate))(new, errors);
    let order = resource.semantics.change_order;
    if order == ChangeOrder::WholeFirst {
        whole(&mut errors);
    }
    (resource.hooks.validate_update)(new, old, &mut errors);
    if order == ChangeOrder::ChangeFirst {
        whole(&mut errors);
    }
    (resource.hooks.validate_write)(sent, new, Some(old), &mut errors);
    errors
}

/// Everything that is wrong with a change of the status.
pub fn update_status(
    resource: &Resource,
    sent: &Served,
    new: &Value,
    old: &Value,
    warnings: &mut Vec<String>,
) -> Errors {
    let mut errors = Errors::new();
    object_meta_update(resource, new, old, &mut errors);
    if let Some(custom) = &sent.custom {
        let scale = |errors: &mut Errors| custom::scale_status(sent, new, errors);
        custom.check_status(new, old, scale, &mut errors, warnings);
    }
    (resource.hooks.validate_status)(new, old, &mut errors);
    errors
}

/// Everything that is wrong with a change of a part that has a subresource of its own.
pub fn update_part(resource: &Resource, strategy: &Strategy, new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    object_meta_update(resource, new, old, &mut errors);
    (strategy.validate)(new, old, &mut errors);
    errors
}

/// The `Warning` texts of a write: the kind's own, and that nothing acts on a kind yet.
pub fn warnings(resource: &Resource, new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = (resource.hooks.warnings)(new, old);
    if resource.stored().custom.is_some() {
        warnings.extend(custom::finalizer_warnings(new, old));
    }
    if resource.support == Support::StoredOnly {
        warnings.push(format!(
            "{}: stored, but nothing acts on this kind in this version of mk8s",
            resource.qualified()
        ));
    }
    warnings
}

const IMMUTABLE: &str = "field is immutable";
const NEGATIVE: &str = "must be greater than or equal to 0";
const NOT_POSITIVE: &str = "must be greater than zero";

// Short accessors: a missing field is Go's zero value.

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    object::string(value, &[key])
}

fn has<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    object::at(value, &[key])
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    object::items(value, &[key])
}

fn int(value: &Value, key: &str) -> Option<i64> {
    object::i64_at(value, &[key])
}

fn flag(value: &Value, key: &str) -> bool {
    object::bool_at(value, &[key]).unwrap_or(false)
}

/// The values of a list field with their index.
fn each<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    list(value, key).iter().enumerate()
}

fn strings<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    list(value, key).iter().map(|item| item.as_str().unwrap_or(""))
}

/// The items of a list that was reached already, with their index.
fn numbered(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}

/// The texts of a map field with their keys.
fn strings_of<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let map = has(value, key).and_then(Value::as_object);
    let pairs = map.into_iter().flatten();
    pairs.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or("")))
}

/// Whether a field is Go's zero value: absent, an empty text or list.
fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

/// A value that says something: not absent, `null`, empty or false.
fn says(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    }
}

/// A preemption policy that is set.
fn preemption(policy: &str, path: &Path<'_>, errors: &mut Errors) {
    match policy {
        "PreemptLowerPriority" | "Never" => {}
        "" => errors.push(FieldError::required(path, "")),
        other => errors.push(FieldError::not_supported(
            path,
            other,
            &["PreemptLowerPriority", "Never"],
        )),
    }
}

fn invalid_each(errors: &mut Errors, path: &Path<'_>, value: &str, problems: Vec<String>) {
    for problem in problems {
        errors.push(FieldError::invalid(path, value, problem));
    }
}

/// `field is immutable`, unless both are equal (absent, null and empty alike).
fn immutable(errors: &mut Errors, new: &Value, old: &Value, at: &[&str], path: &str) {
    let (new_value, old_value) = (object::at(new, at), object::at(old, at));
    if !same(new_value, old_value) {
        errors.push(FieldError::invalid(
            path,
            new_value.cloned().unwrap_or(Value::Null),
            IMMUTABLE,
        ));
    }
}

/// The same of a text that Go has always: an absent one is empty.
fn immutable_text(errors: &mut Errors, new: &Value, old: &Value, at: &[&str], path: &str) {
    let own = object::string(new, at);
    if own != object::string(old, at) {
        errors.push(FieldError::invalid(path, own, IMMUTABLE));
    }
}

/// Equality as Go's `Semantic.DeepEqual`: absent, null, empty list and empty map are the same.
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    fn empty(value: Option<&Value>) -> bool {
        match value {
            None | Some(Value::Null) => true,
            Some(Value::Array(items)) => items.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            Some(_) => false,
        }
    }
    match (a, b) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            a.iter().all(|(key, value)| same(Some(value), b.get(key)))
                && b.iter().all(|(key, value)| a.contains_key(key) || empty(Some(value)))
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        (a, b) if empty(a) && empty(b) => true,
        (a, b) => a == b,
    }
}

/// A port's number or name.
fn port_or_name(errors: &mut Errors, value: Option<&Value>, path: &Path<'_>) {
    match value {
        Some(Value::String(name)) => invalid_each(errors, path, name, names::port_name(name)),
        other => {
            let number = other.and_then(Value::as_i64).unwrap_or(0);
            for problem in names::port_number(number) {
                errors.push(FieldError::invalid(path, number, problem));
            }
        }
    }
}

/// A non-negative number or a percentage.
fn int_or_percent(value: &Value, _: &rules::Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    match value {
        Value::String(text) => invalid_each(errors, path, text, names::percent(text)),
        other => {
            if let Some(number) = other.as_i64().filter(|&number| number < 0) {
                errors.push(FieldError::invalid(path, number, NEGATIVE));
            }
        }
    }
}

fn at_most_100_percent(value: &Value, _: &rules::Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if percent_value(value).is_some_and(|percent| percent > 100) {
        errors.push(FieldError::invalid(
            path,
            value.clone(),
            "must not be greater than 100%",
        ));
    }
}

fn percent_value(value: &Value) -> Option<i64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}

/// The number of an IntOrString, a percentage's too.
fn int_or_percent_value(value: Option<&Value>) -> i64 {
    match value {
        Some(value) => {
            let number = || value.as_str()?.parse().ok();
            value
                .as_i64()
                .or_else(|| percent_value(value))
                .or_else(number)
                .unwrap_or(0)
        }
        None => 0,
    }
}

/// Where most objects keep what is asked of them.
const SPEC: Path<'static> = Path::new("spec");

fn spec_of(object: &Value) -> &Value {
    has(object, "spec").unwrap_or(&Value::Null)
}

/// A spec that never changes.
pub fn spec_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable(errors, new, old, &["spec"], "spec");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_print_as_upstream_prints_them() {
        let spec = Path::new("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let resources = first.child("resources");
        let limits = resources.child("limits");
        assert_eq!(
            limits.key("cpu").to_string(),
            "spec.containers[0].resources.limits[cpu]"
        );
    }

    #[test]
    fn equality_forgives_empty_values() {
        let a = json!({"a": {"b": []}, "c": null});
        assert!(same(Some(&a), Some(&json!({"a": {}}))));
        assert!(same(Some(&json!({"a": {}})), Some(&json!({}))));
        assert!(!same(Some(&json!({"a": 1})), Some(&json!({}))));
    }

    fn fields(check: fn(&Value, &mut Errors), object: &Value) -> Vec<String> {
        let mut errors = Errors::new();
        check(object, &mut errors);
        errors.iter().map(|error| error.field.clone()).collect()
    }

    #[test]
    fn tables() {
        let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value});
        assert_eq!(fields(priority_class, &class("x", 5)), Vec::<String>::new());
        assert_eq!(fields(priority_class, &class("x", 2_000_000_000)), ["value"]);
        assert_eq!(fields(priority_class, &class("system-x", 5)), ["metadata.name"]);
        assert_eq!(
            fields(priority_class, &class("system-node-critical", 2_000_001_000)),
            Vec::<String>::new()
        );
        assert_eq!(
            fields(
                disruption_budget,
                &json!({"spec": {"minAvailable": 1, "maxUnavailable": "200%"}})
            ),
            ["spec", "spec.maxUnavailable"]
        );
        assert_eq!(
            fields(lease, &json!({"spec": {"leaseDurationSeconds": 0}})),
            ["spec.leaseDurationSeconds"]
        );
        assert_eq!(
            fields(
                signing_request,
                &json!({"spec": {"request": "eA==", "signerName": "x", "usages": ["a"]}})
            ),
            ["spec.request", "spec.usages[0]", "spec.signerName"]
        );
    }
}
