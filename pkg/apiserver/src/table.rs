//! The Table and PartialObjectMetadata shapes (<https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables>).

use mk8s_api::table;
use serde_json::{Value, json};

pub use mk8s_api::table::Include;

use crate::request::Query;
use crate::rows::Row;

/// `includeObject`
pub fn include(query: &Query) -> Include {
    Include::parse(query.get("includeObject").unwrap_or_default()).unwrap_or_default()
}

/// metadata alone, as meta.k8s.io/v1 PartialObjectMetadata.
pub fn partial_metadata(object: Value) -> Value {
    let metadata = match object {
        Value::Object(mut map) => map.remove("metadata").unwrap_or_default(),
        _ => Value::Null,
    };
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

/// A table of one object (as the row shows it).
pub fn of_one(row: &Row, object: &Value, include: Include) -> Value {
    let version = object.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    let metadata = json!({"resourceVersion": version});
    table::build(&row.resource, [object], include, metadata, jiff::Timestamp::now())
}

pub fn columns(row: &Row) -> Value {
    table::definitions(&row.resource).into()
}

pub fn row(row: &Row, object: &Value, include: Include) -> Value {
    table::row(&row.resource, object, include, jiff::Timestamp::now())
}
