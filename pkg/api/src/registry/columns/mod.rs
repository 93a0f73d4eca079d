//! Printer columns: what `kubectl get` shows of each kind.

use serde_json::Value;

use super::Column;

/// Name and Age: what a kind without columns of its own shows.
pub fn default() -> Vec<Column> {
    vec![name(), age()]
}

fn name() -> Column {
    Column {
        name: "Name".into(),
        type_: "string",
        format: "name",
        description: "Name of the object, unique among its kind and namespace.".into(),
        priority: 0,
        cell: |object, _| crate::meta::name(object).into(),
    }
}

fn age() -> Column {
    Column {
        name: "Age".into(),
        type_: "string",
        format: "",
        description: "Time since the object was created.".into(),
        priority: 0,
        cell: |object, now| {
            crate::time::age(crate::meta::str_at(object, &["metadata", "creationTimestamp"]), now).into()
        },
    }
}

/// A cell that is printed as it stands in the object.
#[allow(dead_code)]
fn raw(value: Option<&Value>) -> Value {
    value.cloned().unwrap_or(Value::Null)
}
