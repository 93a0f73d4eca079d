//! What a schema's defaults fill in: where a field is missing, or null and may not be.

use serde_json::Value;

use super::{declared, items, parts};
use crate::schema::{Node, What};

/// Fills in the defaults of a schema, as on every write and every read.
pub fn default(value: &mut Value, schema: &Node) {
    match value {
        Value::Object(map) => {
            let Some((what, constraints)) = parts(schema) else {
                return;
            };
            if let What::Object(object) = what {
                let metadata = constraints.metadata.as_ref().map(|schema| ("metadata", schema));
                let fields = object.fields().iter().map(|field| (field.name.as_str(), &field.schema));
                for (name, schema) in fields.chain(metadata) {
                    let Some(default) = default_of(schema) else { continue };
                    if map.get(name).is_none_or(|value| is_refused_null(value, schema)) {
                        map.insert(name.to_string(), default.clone());
                    }
                }
            }
            for (key, value) in map {
                let Some(child) = declared(schema, key) else { continue };
                item(value, child, matches!(what, What::Map(_)));
            }
        }
        Value::Array(list) => {
            let Some(child) = items(schema) else { return };
            for value in list {
                item(value, child, true);
            }
        }
        _ => {}
    }
}

fn item(value: &mut Value, schema: &Node, fills_null: bool) {
    if fills_null && is_refused_null(value, schema) {
        *value = default_of(schema).cloned().unwrap_or_default();
    }
    default(value, schema);
}

fn default_of(schema: &Node) -> Option<&Value> {
    schema.constraints.as_deref()?.default.as_ref()
}

fn is_refused_null(value: &Value, schema: &Node) -> bool {
    value.is_null() && parts(schema).is_some_and(|(_, constraints)| !constraints.nullable)
}
