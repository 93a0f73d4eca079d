//! What an object loses on its way in: fields that the schema does not name, nulls that it does not allow.

use serde_json::{Map, Value};

use super::{declared, is_meta, items, metadata, parts};
use crate::bounded::MOST_FINDINGS;
use crate::schema::{Node, What};
use crate::status::FieldError;
use crate::validation::path::Path;

/// Brings a decoded object into the form of its schema. Returns the paths of the fields that went, in upstream's order;
/// an error where metadata of an embedded object is malformed, which `lenient` drops instead (what is stored is as it is).
pub fn admit(object: &mut Value, schema: &Node, lenient: bool) -> Result<Vec<String>, FieldError> {
    let mut pruned = Vec::new();
    let meta = take_meta(object);
    prune(object, schema, &Path::ROOT, &mut pruned);
    pruned.sort();
    drop_nulls(object, Some(schema));
    let mut unknown = Vec::new();
    let coerced = metadata::coerce(object, schema, lenient, &Path::ROOT, &mut unknown);
    if let Value::Object(object) = object {
        object.extend(meta);
    }
    coerced?;
    unknown.sort();
    pruned.append(&mut unknown);
    Ok(pruned)
}

/// The root's own have been read as what they are.
fn take_meta(object: &mut Value) -> Vec<(String, Value)> {
    let Value::Object(object) = object else {
        return Vec::new();
    };
    let meta = ["apiVersion", "kind", "metadata"];
    meta.iter().filter_map(|key| object.remove_entry(*key)).collect()
}

pub(super) fn prune(value: &mut Value, node: &Node, path: &Path<'_>, pruned: &mut Vec<String>) {
    let Some((what, constraints)) = parts(node) else {
        return prune_all(value, path, pruned);
    };
    if constraints.preserve_unknown {
        return prune_below(value, node, path, pruned);
    }
    match value {
        Value::Object(map) => map.retain(|key, value| {
            if constraints.embedded && is_meta(key) {
                return true;
            }
            let path = path.child(key);
            match (declared(node, key), what) {
                (Some(child), _) => prune(value, child, &path, pruned),
                // Free keys, of whose values nothing is said.
                (None, What::Map(_)) => prune_all(value, &path, pruned),
                (None, _) if is_closed(node) => prune_all(value, &path, pruned),
                (None, _) => {
                    note(&path, pruned);
                    return false;
                }
            }
            true
        }),
        Value::Array(list) => {
            for (index, item) in list.iter_mut().enumerate() {
                match items(node) {
                    Some(child) => prune(item, child, &path.index(index), pruned),
                    None => prune_all(item, &path.index(index), pruned),
                }
            }
        }
        _ => {}
    }
}

/// That a field went.
pub(super) fn note(path: &Path<'_>, pruned: &mut Vec<String>) {
    if pruned.len() < MOST_FINDINGS {
        pruned.push(path.to_string());
    }
}

/// `additionalProperties: false`: what it refuses is told, not pruned.
fn is_closed(node: &Node) -> bool {
    let checks = node
        .constraints
        .as_deref()
        .and_then(|constraints| constraints.checks.as_deref());
    checks.is_some_and(|checks| checks.closed)
}

/// Where the schema says nothing, objects are empty.
fn prune_all(value: &mut Value, path: &Path<'_>, pruned: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.keys().for_each(|key| note(&path.child(key), pruned));
            map.clear();
        }
        Value::Array(list) => {
            for (index, item) in list.iter_mut().enumerate() {
                prune_all(item, &path.index(index), pruned);
            }
        }
        _ => {}
    }
}

/// Where unknown fields stay, those are pruned that lie in a known one.
fn prune_below(value: &mut Value, node: &Node, path: &Path<'_>, pruned: &mut Vec<String>) {
    let Some((what, constraints)) = parts(node) else { return };
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if constraints.embedded && is_meta(key) {
                    continue;
                }
                let path = path.child(key);
                match declared(node, key) {
                    Some(child) => prune(value, child, &path, pruned),
                    None if matches!(what, What::Map(_)) || is_closed(node) => prune_all(value, &path, pruned),
                    None => {}
                }
            }
        }
        Value::Array(list) => {
            let Some(child) = items(node) else { return };
            for (index, item) in list.iter_mut().enumerate() {
                prune_below(item, child, &path.index(index), pruned);
            }
        }
        _ => {}
    }
}

/// Nulls that are neither allowed nor defaulted go.
fn drop_nulls(value: &mut Value, node: Option<&Node>) {
    match value {
        Value::Object(map) => drop_null_fields(map, node),
        Value::Array(list) => {
            let child = node.and_then(items);
            for item in list {
                drop_nulls(item, child);
            }
        }
        _ => {}
    }
}

fn drop_null_fields(map: &mut Map<String, Value>, node: Option<&Node>) {
    map.retain(|key, value| {
        let child = node.and_then(|node| declared(node, key));
        let Some((_, constraints)) = child.and_then(parts) else {
            drop_nulls(value, None);
            return true;
        };
        if value.is_null() && !constraints.nullable && constraints.default.is_none() {
            return false;
        }
        drop_nulls(value, child);
        true
    });
}
