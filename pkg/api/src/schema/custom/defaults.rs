//! What a schema's defaults fill in: where a field is missing, or null and may not be.

use serde_json::Value;

use super::{declared, items, parts};
use crate::schema::{Node, What};

/// Bytes in memory that defaults may add to one object: each of a million empty items may get all of them.
const MOST_ADDED: usize = 64 << 20;
/// And bytes of text on reads, as each of many stored objects is kept: so many for a byte that is stored, and this many for any.
const SHOWN_PER_BYTE: usize = 10;
const SHOWN: usize = 1 << 20;

/// The defaults of an object have no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the defaults of its schema make the object too large")]
pub struct TooLarge;

/// Fills in the defaults of a schema, as on every write and every read.
///
/// # Errors
/// They are too much; what there was room for is filled in.
pub fn default(value: &mut Value, schema: &Node) -> Result<(), TooLarge> {
    let mut room = Room {
        memory: MOST_ADDED,
        text: MOST_ADDED,
    };
    room.fill(value, schema)
}

/// The same of an object that is stored in so many bytes.
///
/// # Errors
/// They are too much; what there was room for is filled in.
pub fn default_shown(value: &mut Value, schema: &Node, stored: usize) -> Result<(), TooLarge> {
    let mut room = Room {
        memory: MOST_ADDED,
        text: stored.saturating_mul(SHOWN_PER_BYTE).max(SHOWN),
    };
    room.fill(value, schema)
}

/// Bytes that may still be added.
struct Room {
    memory: usize,
    text: usize,
}

impl Room {
    fn fill(&mut self, value: &mut Value, schema: &Node) -> Result<(), TooLarge> {
        match value {
            Value::Object(map) => {
                let Some((what, constraints)) = parts(schema) else {
                    return Ok(());
                };
                if let What::Object(object) = what {
                    let metadata = constraints.metadata.as_ref().map(|schema| ("metadata", schema));
                    let fields = object.fields().iter().map(|field| (field.name.as_str(), &field.schema));
                    for (name, schema) in fields.chain(metadata) {
                        let Some(default) = default_of(schema) else { continue };
                        if map.get(name).is_none_or(|value| is_refused_null(value, schema)) {
                            let begins = if map.is_empty() { MAP } else { 0 };
                            self.take(begins + name.len() + weight(default), name.len() + printed(default))?;
                            map.insert(name.to_string(), default.clone());
                        }
                    }
                }
                let fills_null = matches!(what, What::Map(_));
                map.iter_mut().try_for_each(|(key, value)| match declared(schema, key) {
                    Some(child) => self.item(value, child, fills_null),
                    None => Ok(()),
                })
            }
            Value::Array(list) => {
                let Some(child) = items(schema) else { return Ok(()) };
                list.iter_mut().try_for_each(|value| self.item(value, child, true))
            }
            _ => Ok(()),
        }
    }

    fn item(&mut self, value: &mut Value, schema: &Node, fills_null: bool) -> Result<(), TooLarge> {
        if fills_null && is_refused_null(value, schema) {
            let default = default_of(schema);
            self.take(default.map_or(0, weight), default.map_or(0, printed))?;
            *value = default.cloned().unwrap_or_default();
        }
        self.fill(value, schema)
    }

    fn take(&mut self, memory: usize, text: usize) -> Result<(), TooLarge> {
        self.memory = self.memory.checked_sub(memory).ok_or(TooLarge)?;
        self.text = self.text.checked_sub(text).ok_or(TooLarge)?;
        Ok(())
    }
}

/// Bytes of the first node of a map's tree, which holds up to eleven entries.
const MAP: usize = 11 * (size_of::<String>() + size_of::<Value>());

/// Bytes of a value in memory, about.
fn weight(value: &Value) -> usize {
    let own = size_of::<Value>();
    match value {
        Value::String(text) => own + text.len(),
        Value::Array(items) => own + items.iter().map(weight).sum::<usize>(),
        Value::Object(map) if map.is_empty() => own,
        Value::Object(map) => {
            let entries = map
                .iter()
                .map(|(key, value)| size_of::<String>() + key.len() + weight(value));
            own + MAP + entries.sum::<usize>()
        }
        _ => own,
    }
}

/// Bytes of its text, about.
fn printed(value: &Value) -> usize {
    4 + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(printed).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + printed(value)).sum(),
        _ => 0,
    }
}

fn default_of(schema: &Node) -> Option<&Value> {
    schema.constraints.as_deref()?.default.as_ref()
}

fn is_refused_null(value: &Value, schema: &Node) -> bool {
    value.is_null() && parts(schema).is_some_and(|(_, constraints)| !constraints.nullable)
}
