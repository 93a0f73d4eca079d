//! What a schema may not say whatever it is used for: words that are not supported, lists and maps whose keys do not fit,
//! rules without an expression.

use std::collections::HashSet;

use serde_json::Value;

use super::super::{Errors, Path, flag, has, int, list, strings, text};
use super::asked::Asked;
use super::structural::{fields, schema_at};
use crate::schema::custom;
use crate::status::FieldError;

/// What holds for a part of a schema by where it lies.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    pub(super) asked: &'p Asked<'p>,
    /// Why nothing has a default here; none where it may.
    pub(super) no_defaults: Option<&'p str>,
    pub(super) inside_meta: bool,
    pub(super) root: bool,
}

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Whether a schema may say this `type`, or says none.
pub(super) fn is_type(word: &str) -> bool {
    word.is_empty() || TYPES.contains(&word)
}

pub(super) fn check(schema: &Value, place: Place<'_>, path: &Path<'_>, errors: &mut Errors) {
    words(schema, place, path, errors);
    if flag(schema, "uniqueItems") {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(path.child("uniqueItems"), why));
    }
    let inside = Place { root: false, ..place };
    additional(schema, inside, path, errors);
    properties(schema, place, path, errors);
    if let Some(not) = schema_at(schema, "not") {
        check(not, inside, &path.child("not"), errors);
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        let at = path.child(key);
        for (index, nested) in list(schema, key).iter().enumerate() {
            check(nested, inside, &at.index(index), errors);
        }
    }
    let at = path.child("definitions");
    for (name, definition) in fields(schema, "definitions") {
        check(definition, inside, &at.key(name), errors);
    }
    let at = path.child("items");
    match has(schema, "items") {
        Some(Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                check(item, inside, &at.index(index), errors);
            }
        }
        Some(items) => check(items, inside, &at, errors),
        None => {}
    }
    topology(schema, place.asked, path, errors);
    if !list(schema, "x-kubernetes-validations").is_empty() {
        errors.append(&mut custom::check_words(schema, &path.to_string()));
    }
}

/// Words of JSON Schema that are not supported here.
fn words(schema: &Value, place: Place<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = text(schema, "type");
    if place.asked.types && !is_type(own) {
        errors.push(FieldError::not_supported(path.child("type"), own, &TYPES));
    }
    if let (Some(_), Some(why)) = (has(schema, "default"), place.no_defaults) {
        let why = format!("must not be set {why}");
        errors.push(FieldError::forbidden(path.child("default"), why.trim_end()));
    }
    let says = |key: &str| match has(schema, key) {
        Some(Value::String(text)) => key == "$ref" || !text.is_empty(),
        Some(Value::Object(map)) => matches!(key, "additionalItems" | "dependencies") || !map.is_empty(),
        other => other.is_some(),
    };
    for key in [
        "id",
        "additionalItems",
        "patternProperties",
        "definitions",
        "dependencies",
        "$ref",
    ] {
        if says(key) {
            errors.push(FieldError::forbidden(
                path.child(key),
                format!("{key} is not supported"),
            ));
        }
    }
    if own == "null" {
        let why = "type cannot be set to null, use nullable as an alternative";
        errors.push(FieldError::forbidden(path.child("type"), why));
    }
    if !list(schema, "items").is_empty() {
        let why = "items must be a schema object and not an array";
        errors.push(FieldError::forbidden(path.child("items"), why));
    }
    if place.inside_meta && flag(schema, "x-kubernetes-embedded-resource") {
        let why = "must not be used inside of resource meta";
        errors.push(FieldError::forbidden(path.child("x-kubernetes-embedded-resource"), why));
    }
}

fn additional(schema: &Value, place: Place<'_>, path: &Path<'_>, errors: &mut Errors) {
    let Some(additional) = has(schema, "additionalProperties") else {
        return;
    };
    let at = path.child("additionalProperties");
    if fields(schema, "properties").next().is_some() && additional != &Value::Bool(true) {
        let why = "additionalProperties and properties are mutual exclusive";
        errors.push(FieldError::forbidden(at, why));
    }
    if additional.is_object() {
        let no_defaults = Some("inside additionalProperties applying to object metadata").filter(|_| place.inside_meta);
        let place = Place {
            no_defaults: no_defaults.or(place.no_defaults),
            ..place
        };
        check(additional, place, &at, errors);
    }
}

fn properties(schema: &Value, place: Place<'_>, path: &Path<'_>, errors: &mut Errors) {
    let whole = place.root || flag(schema, "x-kubernetes-embedded-resource");
    let at = path.child("properties");
    for (name, field) in fields(schema, "properties") {
        let is_meta = whole && matches!(name.as_str(), "metadata" | "kind" | "apiVersion");
        let why = format!("in top-level {name}");
        let place = Place {
            inside_meta: place.inside_meta || is_meta,
            no_defaults: Some(why.as_str())
                .filter(|_| is_meta && place.root)
                .or(place.no_defaults),
            root: false,
            ..place
        };
        check(field, place, &at.key(name), errors);
    }
}

/// How lists and maps are told to merge.
fn topology(schema: &Value, asked: &Asked<'_>, path: &Path<'_>, errors: &mut Errors) {
    let open = "x-kubernetes-preserve-unknown-fields";
    if has(schema, open) == Some(&Value::Bool(false)) {
        errors.push(FieldError::invalid(
            path.child(open),
            false,
            "must be true or undefined",
        ));
    }
    for (key, needs, known) in [
        ("x-kubernetes-map-type", "object", &["atomic", "granular"][..]),
        ("x-kubernetes-list-type", "array", &["atomic", "set", "map"]),
    ] {
        let Some(own) = has(schema, key).and_then(Value::as_str) else {
            continue;
        };
        let (at, why) = (path.child("type"), format!("must be {needs} if {key} is specified"));
        match text(schema, "type") {
            "" => errors.push(FieldError::required(at, why)),
            other if other != needs => errors.push(FieldError::invalid(at, other, why)),
            _ if own == "set" && asked.atomic_sets => set_of_atoms(schema, path, errors),
            _ => {}
        }
        if !known.contains(&own) {
            errors.push(FieldError::not_supported(path.child(key), own, known));
        }
    }
    list_map(schema, path, errors);
    if asked.whole_keys {
        map_keys(schema, path, errors);
    }
}

/// The items of a set are compared as a whole.
pub(super) fn set_of_atoms(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(items) = schema_at(schema, "items").filter(|_| text(schema, "x-kubernetes-list-type") == "set") else {
        return;
    };
    let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let (list_type, map_type) = (
        has(items, "x-kubernetes-list-type"),
        has(items, "x-kubernetes-map-type"),
    );
    let (key, wrong) = match text(items, "type") {
        "array" => ("x-kubernetes-list-type", list_type.is_some_and(|own| own != "atomic")),
        "object" => ("x-kubernetes-map-type", map_type.is_none_or(|own| own != "atomic")),
        _ => return,
    };
    if wrong {
        let shown = list_type.cloned().unwrap_or_default();
        errors.push(FieldError::invalid(path.child("items").child(key), shown, why));
    }
}

fn list_map(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (type_at, keys_at) = (
        path.child("x-kubernetes-list-type"),
        path.child("x-kubernetes-list-map-keys"),
    );
    let keys = list(schema, "x-kubernetes-list-map-keys");
    let own = has(schema, "x-kubernetes-list-type").and_then(Value::as_str);
    if !keys.is_empty() && own != Some("map") {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(match own {
            None => FieldError::required(type_at, why),
            Some(own) => FieldError::invalid(type_at, own, why),
        });
    }
    if own != Some("map") {
        return;
    }
    if keys.is_empty() {
        let why = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(keys_at, why));
    }
    let at = path.child("items");
    let Some(items) = schema_at(schema, "items") else {
        if has(schema, "items").is_none() {
            errors.push(FieldError::required(
                at,
                "must have a schema if x-kubernetes-list-type is map",
            ));
        }
        return;
    };
    if text(items, "type") != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(at.child("type"), text(items, "type"), why));
        return;
    }
    let mut seen = HashSet::new();
    // Each shows all of them: so many as take a megabyte are told.
    let length: usize = keys.iter().map(|key| key.as_str().map_or(0, str::len) + 32).sum();
    let mut room = (1 << 20) / length.max(1) + 1;
    let mut wrong = |why: &str| {
        let told = room > 0;
        room = room.saturating_sub(1);
        told.then(|| FieldError::invalid(keys_at, keys.to_vec(), why))
    };
    for key in strings(schema, "x-kubernetes-list-map-keys") {
        match items.get("properties").and_then(|fields| fields.get(key)) {
            Some(field) if matches!(text(field, "type"), "array" | "object") => {
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                let at = at.child("properties");
                errors.push(FieldError::invalid(at.key(key).child("type"), text(items, "type"), why));
            }
            Some(_) => {}
            None => errors.extend(wrong("entries must all be names of item properties")),
        }
        if !seen.insert(key) {
            errors.extend(wrong("must not contain duplicate entries"));
        }
    }
}

/// Items that are told apart are there, and so are the keys that tell them apart.
pub(super) fn map_keys(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(own @ ("set" | "map")) = has(schema, "x-kubernetes-list-type").and_then(Value::as_str) else {
        return;
    };
    let Some(items) = schema_at(schema, "items") else {
        return;
    };
    let at = path.child("items");
    if flag(items, "nullable") {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {own}");
        errors.push(FieldError::forbidden(at.child("nullable"), why));
    }
    if own == "set" {
        return;
    }
    let at = at.child("properties");
    let required: HashSet<&str> = strings(items, "required").collect();
    for key in strings(schema, "x-kubernetes-list-map-keys") {
        let Some(field) = items.get("properties").and_then(|fields| fields.get(key)) else {
            continue;
        };
        let at = at.key(key);
        if !required.contains(key) && has(field, "default").is_none() {
            let why =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(FieldError::required(at.child("default"), why));
        }
        if flag(field, "nullable") {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(FieldError::forbidden(at.child("nullable"), why));
        }
    }
}

/// A number of a definition's part; used where zero is not the same as unsaid.
pub(super) fn port(service: &Value) -> i64 {
    int(service, "port").unwrap_or(443)
}
