//! What a value was before a change: fields by their names, items of a list of type map by their keys, and nothing else.
//! It decides which errors an update may keep.

use std::collections::HashMap;

use serde_json::Value;

use super::{declared, items};
use crate::schema::{ListType, Name, Node, What};

/// The old value at the place of a new one.
#[derive(Clone, Copy)]
pub(super) struct Old<'v>(&'v Value);

impl<'v> Old<'v> {
    pub(super) fn root(value: &'v Value) -> Old<'v> {
        Old(value)
    }

    pub(super) fn value(&self) -> &'v Value {
        self.0
    }

    pub(super) fn field(&self, key: &str) -> Option<Old<'v>> {
        self.0.as_object()?.get(key).map(Old)
    }

    pub(super) fn list<'s>(&self, node: &'s Node) -> OldList<'s, 'v> {
        let keys = list_keys(node).unwrap_or_default();
        let mut by_key = HashMap::new();
        for item in self.0.as_array().into_iter().flatten() {
            if let Some(key) = key_of(item, keys) {
                by_key.entry(key).or_insert(item);
            }
        }
        OldList { keys, by_key }
    }

    /// Whether the value is what it was. What the schema does not declare is never known to be.
    pub(super) fn is_unchanged(&self, new: &Value, node: &Node) -> bool {
        match (self.0, new) {
            (Value::Array(old), Value::Array(new)) => {
                if old.len() != new.len() {
                    return false;
                }
                let Some(child) = items(node).filter(|_| list_keys(node).is_some()) else {
                    return old == new;
                };
                let before = self.list(node);
                new.iter()
                    .all(|new| before.item(new).is_some_and(|old| old.is_unchanged(new, child)))
            }
            (Value::Object(old), Value::Object(new)) => {
                let unchanged = |key: &String, new: &Value| {
                    let child = declared(node, key)?;
                    Some(Old(old.get(key)?).is_unchanged(new, child))
                };
                old.len() == new.len() && new.iter().all(|(key, new)| unchanged(key, new) == Some(true))
            }
            (old, new) => old == new,
        }
    }
}

fn list_keys(node: &Node) -> Option<&[Name]> {
    match &node.what {
        What::List(list) if list.list_type == ListType::Map => Some(&list.keys),
        _ => None,
    }
}

/// The values of an item's keys; none where it lacks one.
fn key_of<'v>(item: &'v Value, keys: &[Name]) -> Option<Vec<&'v Value>> {
    let item = item.as_object().filter(|_| !keys.is_empty())?;
    let scalar = |value: &&Value| matches!(value, Value::Bool(_) | Value::Number(_) | Value::String(_));
    keys.iter().map(|key| item.get(key.as_str()).filter(scalar)).collect()
}

/// The old items of a list.
pub(super) struct OldList<'s, 'v> {
    keys: &'s [Name],
    by_key: HashMap<Vec<&'v Value>, &'v Value>,
}

impl<'v> OldList<'_, 'v> {
    pub(super) fn item(&self, new: &Value) -> Option<Old<'v>> {
        let key = key_of(new, self.keys)?;
        self.by_key.get(key.as_slice()).map(|old| Old(old))
    }
}
