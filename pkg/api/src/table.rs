//! `meta.k8s.io/v1` Tables: what kubectl prints, computed from a row's columns.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::meta;
use crate::registry::{Resource, columns};

/// What each row carries besides its cells (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

impl Include {
    /// The query parameter's value; empty means metadata.
    pub fn parse(text: &str) -> Option<Include> {
        match text {
            "None" => Some(Include::None),
            "" | "Metadata" => Some(Include::Metadata),
            "Object" => Some(Include::Object),
            _ => None,
        }
    }
}

/// The Table of some objects. `list_metadata` is the list's (or, for one object, `{resourceVersion}`).
pub fn build<'a>(
    resource: &Resource,
    objects: impl IntoIterator<Item = &'a Value>,
    include: Include,
    list_metadata: Value,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| row(resource, object, include, now))
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_metadata,
        "columnDefinitions": definitions(resource),
        "rows": rows,
    })
}

/// `columnDefinitions`.
pub fn definitions(resource: &Resource) -> Vec<Value> {
    resource
        .columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name, "type": column.type_, "format": column.format,
                "description": column.description, "priority": column.priority,
            })
        })
        .collect()
}

/// One row; a watch sends a Table with just one of these.
pub fn row(resource: &Resource, object: &Value, include: Include, now: Timestamp) -> Value {
    let cells: Vec<Value> = resource
        .columns
        .iter()
        .map(|column| (column.cell)(object, now))
        .collect();
    let mut row = Map::new();
    row.insert("cells".into(), cells.into());
    if resource.group.is_empty()
        && resource.kind == "Pod"
        && let Some(conditions) = columns::pod_conditions(object)
    {
        row.insert("conditions".into(), conditions);
    }
    let shown = match include {
        Include::None => Value::Null,
        Include::Object => object.clone(),
        Include::Metadata => json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": meta::at(object, &["metadata"]).cloned().unwrap_or_else(|| json!({})),
        }),
    };
    row.insert("object".into(), shown);
    Value::Object(row)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_table_of_namespaces() {
        let row = crate::registry::find("", "v1", "namespaces").unwrap();
        let object = json!({"metadata": {"name": "n", "creationTimestamp": "2024-01-01T00:00:00Z"}, "status": {"phase": "Active"}});
        let now = "2024-01-01T00:01:00Z".parse().unwrap();
        let table = build(row, [&object], Include::Metadata, json!({"resourceVersion": "7"}), now);
        assert_eq!(table["rows"][0]["cells"], json!(["n", "Active", "60s"]));
        assert_eq!(table["columnDefinitions"][0]["format"], "name");
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    }
}
