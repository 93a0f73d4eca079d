//! The Table and PartialObjectMetadata shapes (<https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables>).

use std::borrow::Cow;

use mk8s_api::status::{FieldError, Status};
use mk8s_api::table;
use serde_json::{Value, json};

pub use mk8s_api::table::{Include, Look};

use crate::negotiate::{Output, Shape};
use crate::request::Query;
use crate::rows::Row;

/// What Accept and `includeObject` say.
///
/// # Errors
/// 400: of a Table, where the latter is not one of its values.
pub fn look(output: Output, query: &Query) -> Result<Look, Status> {
    let look = |include| Look {
        api_version: output.shaped_in,
        include,
    };
    if output.shape != Shape::Table {
        return Ok(look(Include::default()));
    }
    let asked = query.get("includeObject").unwrap_or_default();
    Include::parse(asked).map(look).ok_or_else(|| {
        let why = "must be 'Metadata', 'Object', 'None', or empty";
        let error = FieldError::invalid("includeObject", asked, why);
        Status::bad_request(format!("Unable to convert to Table as requested: {error}"))
    })
}

/// A stored object's metadata alone, as PartialObjectMetadata: the same in every version, which carry what they
/// have no field for in annotations.
pub fn partial_metadata(object: Value, look: Look) -> Value {
    let metadata = match object {
        Value::Object(mut map) => map.remove("metadata").unwrap_or_default(),
        _ => Value::Null,
    };
    json!({"kind": "PartialObjectMetadata", "apiVersion": look.api_version, "metadata": metadata})
}

/// A table of one stored object.
pub fn of_one(row: &Row, stored: &Value, look: Look) -> Value {
    let mut metadata = json!({});
    // A dry run has none.
    if let Some(version) = stored.pointer("/metadata/resourceVersion") {
        metadata["resourceVersion"] = version.clone();
    }
    let shown = shown(row, stored, look.include);
    table::of_one(row.printed(stored, &shown), look, metadata, jiff::Timestamp::now())
}

/// A table of one Scale, that of an object of the row.
pub fn of_scale(row: &Row, scale: &Value, look: Look) -> Value {
    table::of_scale(scale, row.served().custom.is_some(), look, jiff::Timestamp::now())
}

pub fn columns(row: &Row) -> Value {
    table::definitions(&row.served().columns).into()
}

/// The row of one stored object.
pub fn row(row: &Row, stored: &Value, look: Look) -> Value {
    let shown = shown(row, stored, look.include);
    table::row(row.printed(stored, &shown), look, jiff::Timestamp::now())
}

fn shown<'a>(row: &Row, stored: &'a Value, include: Include) -> Cow<'a, Value> {
    if row.shows_stored() || include != Include::Object {
        return Cow::Borrowed(stored);
    }
    Cow::Owned(row.show(stored.clone()))
}
