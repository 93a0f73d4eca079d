//! `meta.k8s.io/v1` Tables: what kubectl prints, computed from a row's columns.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::meta;
use crate::registry::{Column, Resource, Served, columns};

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

/// How what is shown in a shape of meta.k8s.io looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// `meta.k8s.io/v1`, or `meta.k8s.io/v1beta1`, which is the same under another name.
    pub api_version: &'static str,
    /// Of a Table's rows.
    pub include: Include,
}

/// One object, as it is printed.
#[derive(Clone, Copy)]
pub struct Printed<'a> {
    pub resource: &'a Resource,
    pub served: &'a Served,
    /// What its cells are computed from: a built-in kind's columns are those of the stored form, as upstream's are of its
    /// internal types.
    pub cells_of: &'a Value,
    /// The object in the form of the request.
    pub shown: &'a Value,
}

/// The Table of one object, with the metadata of a list.
pub fn of_one(printed: Printed<'_>, look: Look, list_metadata: Value, now: Timestamp) -> Value {
    let columns = definitions(&printed.served.columns);
    table(columns, row(printed, look, now), look, list_metadata)
}

/// The Table of a Scale, whatever it is the scale of.
pub fn of_scale(scale: &Value, is_custom: bool, look: Look, now: Timestamp) -> Value {
    let columns = columns::scale(is_custom);
    let version = meta::at(scale, &["metadata", "resourceVersion"]);
    let row = entry(&columns, scale, scale, look, now);
    table(
        definitions(&columns),
        row.into(),
        look,
        json!({"resourceVersion": version}),
    )
}

fn table(columns: Vec<Value>, row: Value, look: Look, list_metadata: Value) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": look.api_version,
        "metadata": list_metadata,
        "columnDefinitions": columns,
        "rows": [row],
    })
}

/// `columnDefinitions`.
pub fn definitions(columns: &[Column]) -> Vec<Value> {
    let definitions = columns.iter().map(|column| {
        json!({
            "name": column.name, "type": column.type_, "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    });
    definitions.collect()
}

/// One row; a watch sends a Table with just one of these.
pub fn row(printed: Printed<'_>, look: Look, now: Timestamp) -> Value {
    let Printed {
        resource,
        served,
        cells_of,
        shown,
    } = printed;
    let mut row = entry(&served.columns, cells_of, shown, look, now);
    if resource.group.is_empty()
        && resource.kind == "Pod"
        && let Some(conditions) = columns::pod_conditions(cells_of)
    {
        row.insert("conditions".into(), conditions);
    }
    Value::Object(row)
}

fn entry(columns: &[Column], cells_of: &Value, shown: &Value, look: Look, now: Timestamp) -> Map<String, Value> {
    let cells = columns::cells(columns, cells_of, now);
    let shown = match look.include {
        Include::None => Value::Null,
        Include::Object => shown.clone(),
        Include::Metadata => json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": look.api_version,
            "metadata": meta::at(shown, &["metadata"]).cloned().unwrap_or_else(|| json!({})),
        }),
    };
    Map::from_iter([("cells".into(), cells.into()), ("object".into(), shown)])
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
        let printed = Printed {
            resource: row,
            served: row.stored(),
            cells_of: &object,
            shown: &object,
        };
        let look = Look {
            api_version: "meta.k8s.io/v1beta1",
            include: Include::Metadata,
        };
        let table = of_one(printed, look, json!({"resourceVersion": "7"}), now);
        assert_eq!(table["rows"][0]["cells"], json!(["n", "Active", "60s"]));
        assert_eq!(table["columnDefinitions"][0]["format"], "name");
        let object = &table["rows"][0]["object"];
        assert_eq!(object["kind"], "PartialObjectMetadata");
        assert_eq!(
            [&object["apiVersion"], &table["apiVersion"]],
            ["meta.k8s.io/v1beta1"; 2]
        );
    }
}
