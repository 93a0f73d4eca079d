//! Objects inside an object (`x-kubernetes-embedded-resource`): their apiVersion, kind and metadata are read and checked
//! as those of any object.

use serde_json::{Map, Value};

use super::prune::note;
use super::{declared, items, parts};
use crate::codec::{Validation, conform};
use crate::names;
use crate::schema::{Node, Schema, by_name};
use crate::status::FieldError;
use crate::validation::path::Path;
use crate::validation::{Errors, meta};

fn object_meta() -> Option<&'static Schema> {
    by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
}

/// Reads metadata as metadata: fields that it does not have go and are told in `unknown`, wrong ones are an error, or go.
pub(super) fn coerce(
    value: &mut Value,
    node: &Node,
    lenient: bool,
    path: &Path<'_>,
    unknown: &mut Vec<String>,
) -> Result<(), FieldError> {
    let Some((_, constraints)) = parts(node) else {
        return Ok(());
    };
    match value {
        Value::Object(map) => {
            if constraints.embedded {
                coerce_embedded(map, lenient, path, unknown)?;
            }
            for (key, value) in map {
                if let Some(child) = declared(node, key) {
                    let path = step(node, path, key);
                    coerce(value, child, lenient, &path, unknown)?;
                }
            }
        }
        Value::Array(list) => {
            let Some(child) = items(node) else { return Ok(()) };
            for (index, item) in list.iter_mut().enumerate() {
                coerce(item, child, lenient, &path.index(index), unknown)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// `.name` of a field, `[key]` of a map.
pub(super) fn step<'b>(node: &Node, path: &'b Path<'b>, key: &'b str) -> Path<'b> {
    match node.what {
        crate::schema::What::Map(_) => path.key(key),
        _ => path.child(key),
    }
}

fn coerce_embedded(
    map: &mut Map<String, Value>,
    lenient: bool,
    path: &Path<'_>,
    unknown: &mut Vec<String>,
) -> Result<(), FieldError> {
    for key in ["apiVersion", "kind"] {
        match map.get(key) {
            None | Some(Value::String(_)) => {}
            Some(_) if lenient => drop(map.remove(key)),
            Some(value) => return Err(FieldError::invalid(path.child(key), value.clone(), "must be a string")),
        }
    }
    let (Some(metadata), Some(schema)) = (map.get("metadata"), object_meta()) else {
        return Ok(());
    };
    let at = path.child("metadata");
    let read = match conform(metadata.clone(), schema, Validation::Warn) {
        Ok(read) => read,
        Err(_) if lenient => conform(readable(metadata), schema, Validation::Warn)
            .map_err(|error| FieldError::invalid(at, metadata.clone(), error.to_string()))?,
        Err(error) => return Err(FieldError::invalid(at, metadata.clone(), error.to_string())),
    };
    for problem in &read.problems {
        // `unknown field "labels.x"`
        let field = problem.split('"').nth(1).unwrap_or_default();
        note(&at.child(field), unknown);
    }
    map.insert("metadata".into(), read.value);
    Ok(())
}

/// Those fields of damaged metadata that can be read.
fn readable(metadata: &Value) -> Value {
    let (Value::Object(map), Some(schema)) = (metadata, object_meta()) else {
        return Value::Object(Map::new());
    };
    let one = |key: &String, value: &Value| Value::Object(Map::from_iter([(key.clone(), value.clone())]));
    let fields = map
        .iter()
        .filter(|(key, value)| conform(one(key, value), schema, Validation::Ignore).is_ok());
    Value::Object(fields.map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// What is wrong with the embedded objects' names; the root's own are checked as every object's.
pub fn check_embedded(value: &Value, schema: &Node) -> Errors {
    let mut errors = Errors::new();
    check(value, schema, &Path::ROOT, true, &mut errors);
    errors
}

pub(super) fn check(value: &Value, node: &Node, path: &Path<'_>, root: bool, errors: &mut Errors) {
    let Some((_, constraints)) = parts(node).filter(|_| !errors.is_full()) else {
        return;
    };
    match value {
        Value::Object(map) => {
            if constraints.embedded && !root {
                check_object(map, path, errors);
            }
            for (key, value) in map {
                if let Some(child) = declared(node, key) {
                    check(value, child, &step(node, path, key), false, errors);
                }
            }
        }
        Value::Array(list) => {
            let Some(child) = items(node) else { return };
            for (index, item) in list.iter().enumerate() {
                check(item, child, &path.index(index), false, errors);
            }
        }
        _ => {}
    }
}

fn check_object(map: &Map<String, Value>, path: &Path<'_>, errors: &mut Errors) {
    for key in ["apiVersion", "kind"] {
        if !map.contains_key(key) {
            errors.push(FieldError::required(path.child(key), ""));
        }
    }
    if let Some(api_version) = map.get("apiVersion") {
        let at = path.child("apiVersion");
        match api_version.as_str() {
            None => errors.push(FieldError::invalid(at, api_version.clone(), "must be a string")),
            Some("") => errors.push(FieldError::invalid(at, "", "must not be empty")),
            Some(text) if text.matches('/').count() > 1 => {
                let why = format!("unexpected GroupVersion string: {text}");
                errors.push(FieldError::invalid(at, text, why));
            }
            Some(_) => {}
        }
    }
    if let Some(kind) = map.get("kind") {
        let at = path.child("kind");
        match kind.as_str() {
            None => errors.push(FieldError::invalid(at, kind.clone(), "must be a string")),
            Some("") => errors.push(FieldError::invalid(at, "", "must not be empty")),
            Some(text) => {
                let wrong = names::dns_1035_label(&text.to_lowercase());
                if !wrong.is_empty() {
                    let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
                    errors.push(FieldError::invalid(at, text, why));
                }
            }
        }
    }
    if let Some(metadata) = map.get("metadata") {
        meta::embedded(metadata, &path.child("metadata"), errors);
    }
}
