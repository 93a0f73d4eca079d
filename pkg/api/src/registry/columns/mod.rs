//! Printer columns: what `kubectl get` shows of each kind, in upstream's order, names and words.

mod certificates;
mod core;
mod dynamic_resources;
mod extensions;
mod flowcontrol;
mod networking;
mod pod;
mod rbac;
mod storage;
mod workloads;

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;

use super::{Cell, Column};
use crate::budget::Budget;
use crate::json_path::JsonPath;
use crate::{go, meta, time};

pub use self::certificates::signing_request;
pub use self::core::*;
pub use self::dynamic_resources::{resource_claim, resource_slice};
pub use self::extensions::{admission_policy, admission_policy_binding, api_service, webhook_configuration};
pub use self::flowcontrol::{flow_schema, priority_level};
pub use self::networking::{ingress_class, ip_address, network_policy, service_cidr};
pub use self::pod::{pod, pod_conditions};
pub use self::rbac::{created_at, role_binding};
pub use self::storage::{csi_driver, csi_node, storage_class, volume_attachment, volume_attributes_class};
pub use self::workloads::*;

type Function = fn(&Value, Timestamp) -> Value;

/// Name and Age: what a kind without columns of its own shows.
pub fn default() -> Vec<Column> {
    vec![name(), age()]
}

fn column(name: &'static str, type_: &'static str, description: &'static str, cell: Function) -> Column {
    Column {
        name: name.into(),
        type_: type_.into(),
        format: Cow::Borrowed(""),
        description: description.into(),
        priority: 0,
        cell: Cell::Of(cell),
    }
}

fn text(name: &'static str, description: &'static str, cell: Function) -> Column {
    column(name, "string", description, cell)
}

fn integer(name: &'static str, description: &'static str, cell: Function) -> Column {
    column(name, "integer", description, cell)
}

fn boolean(name: &'static str, description: &'static str, cell: Function) -> Column {
    column(name, "boolean", description, cell)
}

/// The cells of an object. Columns that a definition's paths fill share what may be made of it; what does not fit is null.
pub fn cells(columns: &[Column], object: &Value, now: Timestamp) -> Vec<Value> {
    let (mut looks, mut bytes) = (Budget::of(object), Budget::of(object));
    let mut at = |path: &JsonPath, type_: &str| {
        bytes.take(0)?;
        let cell = printed(type_, path.first(object, &mut looks)?, now);
        bytes.take(cell.as_str().map_or(0, str::len))?;
        Some(cell)
    };
    let cell = |column: &Column| match &column.cell {
        Cell::Of(function) => function(object, now),
        Cell::At(path) => at(path, &column.type_).unwrap_or_default(),
    };
    columns.iter().map(cell).collect()
}

impl Column {
    /// Only with `-o wide`.
    fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }
}

/// What a custom resource without columns of its own shows.
pub(super) fn custom_default() -> Vec<Column> {
    let age = Column {
        type_: "date".into(),
        ..age()
    };
    vec![name(), age]
}

/// A column of a custom resource; None where its path is none.
pub(super) fn custom_column(column: &Value) -> Option<Column> {
    let text = |key: &str| meta::string(column, &[key]).to_string();
    let path = text("jsonPath");
    let description = match text("description") {
        own if own.is_empty() => format!("Custom resource definition column (in JSONPath format): {path}"),
        own => own,
    };
    Some(Column {
        name: text("name").into(),
        type_: text("type").into(),
        format: text("format").into(),
        description: description.into(),
        priority: meta::i64_at(column, &["priority"]).unwrap_or(0) as i32,
        cell: Cell::At(JsonPath::parse(&path)?),
    })
}

pub(super) fn name() -> Column {
    Column {
        format: "name".into(),
        ..text(
            "Name",
            "Name of the object, unique among its kind and namespace.",
            |object, _| meta::name(object).into(),
        )
    }
}

fn age() -> Column {
    text("Age", "Time since the object was created.", |object, now| {
        time::age(meta::str_at(object, &["metadata", "creationTimestamp"]), now).into()
    })
}

/// A value as a column of a type prints it; null where it is of another type.
fn printed(type_: &str, value: &Value, now: Timestamp) -> Value {
    match (type_, value) {
        ("string", Value::String(_)) => value.clone(),
        ("string", Value::Null) => "<no value>".into(),
        ("string", Value::Array(_) | Value::Object(_)) => go::json(value).into(),
        ("string", other) => go::printed(other).into(),
        ("integer", Value::Number(number)) => number
            .as_i64()
            .or_else(|| number.as_f64().map(|number| number as i64))
            .into(),
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        // What upstream's query parameters take for no time at all.
        ("date", Value::String(text)) if text.is_empty() || text == "null" => time::age(None, now).into(),
        ("date", Value::String(text)) => match time::parse(text) {
            Some(_) => time::age(Some(text), now).into(),
            None => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}

/// The string at a path, or the words for its absence.
fn or(object: &Value, path: &[&str], absent: &str) -> Value {
    match meta::string(object, path) {
        "" => absent.into(),
        text => text.into(),
    }
}

fn int(object: &Value, path: &[&str]) -> Value {
    meta::i64_at(object, path).unwrap_or(0).into()
}

/// A number or text (IntOrString, quantity) as text.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn join<'a>(parts: impl IntoIterator<Item = &'a str>, by: &str) -> String {
    parts.into_iter().collect::<Vec<_>>().join(by)
}

/// A map of labels as `a=b,c=d`.
fn labels(object: &Value, path: &[&str]) -> Value {
    let text = meta::map_at(object, path)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect::<Vec<_>>()
        .join(",");
    if text.is_empty() { "<none>".into() } else { text.into() }
}

/// A metav1.LabelSelector.
fn selector(object: &Value, path: &[&str]) -> Value {
    let selector = meta::at(object, path).unwrap_or(&Value::Null);
    match crate::selectors::LabelSelector::from_json(selector) {
        Err(_) => "<error>".into(),
        Ok(selector) => match selector.to_string() {
            text if text.is_empty() => "<none>".into(),
            text => text.into(),
        },
    }
}

/// Names or images of the containers of a pod spec.
fn containers(object: &Value, spec: &[&str], key: &str) -> Value {
    let list = meta::at(object, spec).map_or(&[][..], |spec| meta::items(spec, &["containers"]));
    join(list.iter().map(|container| meta::string(container, &[key])), ",").into()
}
