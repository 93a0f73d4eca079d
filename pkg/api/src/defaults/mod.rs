//! Defaults, as upstream's `SetDefaults_*` and API conversions fill them in, in place and idempotent (they run again
//! after mutating admission). What a Go struct always prints (`resources: {}`, `status: {}`) is put there too.

mod apps;
mod autoscaling;
mod batch;
mod core;
mod dynamic_resources;
mod extensions;
mod flowcontrol;
mod networking;
mod pod;
mod policy;
mod prepare;
mod rbac;
pub(crate) mod removed;
mod scheduling;
mod service;
mod storage;

use serde_json::{Map, Value};

pub use self::apps::{daemon_set, deployment, replica_set, replication_controller, stateful_set};
pub use self::autoscaling::{autoscaler, autoscaler_v1};
pub use self::batch::{cron_job, job};
pub use self::core::{
    endpoints, event, limit_range, namespace, node, persistent_volume, persistent_volume_claim, resource_quota, secret,
};
pub use self::dynamic_resources::{resource_claim, resource_claim_template};
pub use self::extensions::{custom_resource_definition, definition_create, definition_update};
pub use self::flowcontrol::{flow_schema, priority_level};
pub use self::networking::{endpoint_slice, ingress, ingress_class, network_policy};
pub use self::pod::{pod, pod_spec, pod_template, pod_template_object, qos_class};
pub use self::policy::disruption_budget;
pub use self::prepare::*;
pub use self::rbac::{role, role_binding};
pub use self::scheduling::{priority_class, runtime_class};
pub use self::service::{prepare_service_create, prepare_service_update, service};
pub use self::storage::{csi_driver, csi_node, storage_class, volume_attachment};

type Object = Map<String, Value>;

/// Absent or `null`: Go's nil.
fn unset(map: &Object, key: &str) -> bool {
    map.get(key).is_none_or(Value::is_null)
}

/// Fills in a pointer field.
fn value(map: &mut Object, key: &str, new: impl Into<Value>) {
    if unset(map, key) {
        map.insert(key.to_string(), new.into());
    }
}

/// Fills in a string whose zero value is the empty string.
fn text(map: &mut Object, key: &str, new: &str) {
    match map.get(key) {
        Some(Value::String(current)) if !current.is_empty() => {}
        None | Some(Value::Null | Value::String(_)) => {
            map.insert(key.to_string(), new.into());
        }
        Some(_) => {}
    }
}

/// Fills in a number whose zero value means unset.
fn number(map: &mut Object, key: &str, new: i64) {
    match map.get(key) {
        None | Some(Value::Null) => {
            map.insert(key.to_string(), new.into());
        }
        Some(Value::Number(current)) if current.as_i64() == Some(0) => {
            map.insert(key.to_string(), new.into());
        }
        Some(_) => {}
    }
}

/// A struct that Go prints even when empty.
fn object<'a>(map: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    if unset(map, key) {
        map.insert(key.to_string(), Value::Object(Map::new()));
    }
    map.get_mut(key)?.as_object_mut()
}

fn get<'a>(map: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    map.get_mut(key)?.as_object_mut()
}

/// The objects in a list field.
fn each<'a>(map: &'a mut Object, key: &str) -> impl Iterator<Item = &'a mut Object> {
    map.get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

fn str_of<'a>(map: &'a Object, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or("")
}

/// Each quantity of a resource list: rounded up to thousandths, in canonical form.
fn resource_list(map: &mut Object, key: &str) {
    for quantity in get(map, key).into_iter().flat_map(|list| list.values_mut()) {
        crate::quantity::canonicalize_rounded(quantity);
    }
}

/// An object that is one.
fn map(object_value: &mut Value) -> Option<&mut Object> {
    object_value.as_object_mut()
}

/// What Go prints of a kind whose spec and status are plain structs.
pub fn spec_and_status(object_value: &mut Value) {
    if let Some(map) = map(object_value) {
        object(map, "spec");
        object(map, "status");
    }
}

pub fn spec_only(object_value: &mut Value) {
    if let Some(map) = map(object_value) {
        object(map, "spec");
    }
}
