//! The Table and PartialObjectMetadata shapes (<https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables>).

use std::borrow::Cow;

use mk8s_api::status::{FieldError, Status};
use mk8s_api::table;
use serde_json::{Value, json};

pub use mk8s_api::table::Include;

use crate::request::Query;
use crate::rows::Row;

/// `includeObject`
pub fn include(query: &Query) -> Result<Include, Status> {
    let asked = query.get("includeObject").unwrap_or_default();
    Include::parse(asked).ok_or_else(|| {
        let why = "must be 'Metadata', 'Object', 'None', or empty";
        let error = FieldError::invalid("includeObject", asked, why);
        Status::bad_request(format!("Unable to convert to Table as requested: {error}"))
    })
}

/// A stored object's metadata alone, as meta.k8s.io/v1 PartialObjectMetadata: the same in every version, which carry what they
/// have no field for in annotations.
pub fn partial_metadata(object: Value) -> Value {
    let metadata = match object {
        Value::Object(mut map) => map.remove("metadata").unwrap_or_default(),
        _ => Value::Null,
    };
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

/// A table of one stored object.
pub fn of_one(row: &Row, stored: &Value, include: Include) -> Value {
    let version = stored.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    let metadata = json!({"resourceVersion": version});
    let shown = shown(row, stored, include);
    table::of_one(row.printed(stored, &shown), include, metadata, jiff::Timestamp::now())
}

pub fn columns(row: &Row) -> Value {
    table::definitions(row.served()).into()
}

/// The row of one stored object.
pub fn row(row: &Row, stored: &Value, include: Include) -> Value {
    let shown = shown(row, stored, include);
    table::row(row.printed(stored, &shown), include, jiff::Timestamp::now())
}

fn shown<'a>(row: &Row, stored: &'a Value, include: Include) -> Cow<'a, Value> {
    if row.shows_stored() || include != Include::Object {
        return Cow::Borrowed(stored);
    }
    Cow::Owned(row.show(stored.clone()))
}
