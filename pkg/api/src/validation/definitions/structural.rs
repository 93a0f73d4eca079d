//! Which schemas are structural: every field that is checked is one whose form is said, in one place, and what an object is
//! pruned and defaulted by is never said under a condition.

use serde_json::{Map, Value, json};

use super::super::{Errors, Path, flag, has, list, text};
use crate::schema::custom;
use crate::status::FieldError;

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What keeps a schema from being structural, in the order of its words.
pub(super) fn check(schema: &Value, path: &Path<'_>) -> Errors {
    let mut errors = Errors::new();
    invariants(schema, Level::Root, path, &mut errors);
    values_complete(schema, Some(schema), path, path, &mut errors);
    errors.sort_by_cached_key(ToString::to_string);
    errors
}

/// Whether a schema is structural.
pub fn holds(schema: &Value) -> bool {
    custom::compile(schema).is_ok() && check(schema, &Path::ROOT).is_empty()
}

pub(super) fn fields<'v>(schema: &'v Value, key: &str) -> impl Iterator<Item = (&'v String, &'v Value)> {
    has(schema, key).and_then(Value::as_object).into_iter().flatten()
}

/// A schema, where there is one and no boolean or list in its place.
pub(super) fn schema_at<'v>(schema: &'v Value, key: &str) -> Option<&'v Value> {
    has(schema, key).filter(|value| value.is_object())
}

fn invariants(schema: &Value, level: Level, path: &Path<'_>, errors: &mut Errors) {
    let items = schema_at(schema, "items");
    if text(schema, "type") == "array" && items.is_none() {
        errors.push(FieldError::required(path.child("items"), "must be specified"));
    }
    if let Some(items) = items {
        invariants(items, Level::Item, &path.child("items"), errors);
    }
    let properties = path.child("properties");
    for (name, field) in fields(schema, "properties") {
        invariants(field, Level::Field, &properties.key(name), errors);
    }
    if let Some(additional) = has(schema, "additionalProperties") {
        let path = path.child("additionalProperties");
        if level == Level::Root {
            errors.push(FieldError::forbidden(path, "must not be used at the root"));
        }
        if additional.is_object() {
            invariants(additional, Level::Field, &path, errors);
        }
    }
    extensions(schema, path, errors);
    let pattern = json!([{"type": "integer"}, {"type": "string"}]);
    let any_of = has(schema, "anyOf") == Some(&pattern);
    let all_of = list(schema, "allOf").first().and_then(|first| first.get("anyOf")) == Some(&pattern);
    values(schema, any_of, all_of, path, errors);
    types(schema, level, path, errors);
    metadata(schema, level, path, errors);
    let open = flag(schema, "x-kubernetes-preserve-unknown-fields");
    if flag(schema, "x-kubernetes-embedded-resource") && !open && fields(schema, "properties").next().is_none() {
        let why =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(properties, why));
    }
}

fn extensions(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    if !flag(schema, "x-kubernetes-int-or-string") {
        return;
    }
    for key in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if flag(schema, key) {
            let why = "must be false if x-kubernetes-int-or-string is true";
            errors.push(FieldError::invalid(path.child(key), true, why));
        }
    }
}

fn types(schema: &Value, level: Level, path: &Path<'_>, errors: &mut Errors) {
    let (own, at) = (text(schema, "type"), path.child("type"));
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let free = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
    let must = "must be object if x-kubernetes-embedded-resource is true";
    match own {
        "" if embedded => errors.push(FieldError::required(at, must)),
        own if embedded && own != "object" => errors.push(FieldError::invalid(at, own, must)),
        "" if !free.iter().any(|key| flag(schema, key)) => errors.push(FieldError::required(
            at,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        )),
        _ => {}
    }
    if embedded && has(schema, "additionalProperties").is_some() {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(FieldError::forbidden(path.child("additionalProperties"), why));
    }
    if level == Level::Root && !own.is_empty() && own != "object" {
        errors.push(FieldError::invalid(at, own, "must be object at the root"));
    }
}

/// What every object has is not said again, but for restrictions of its name.
fn metadata(schema: &Value, level: Level, path: &Path<'_>, errors: &mut Errors) {
    let whole = level == Level::Root || flag(schema, "x-kubernetes-embedded-resource");
    let properties = path.child("properties");
    for key in ["kind", "apiVersion"] {
        let Some(field) = schema
            .get("properties")
            .and_then(|fields| fields.get(key))
            .filter(|_| whole)
        else {
            continue;
        };
        let own = text(field, "type");
        if own != "string" {
            let at = properties.key(key);
            errors.push(FieldError::invalid(at.child("type"), own, "must be string"));
        }
    }
    let Some(metadata) = schema.get("properties").and_then(|fields| fields.get("metadata")) else {
        return;
    };
    let at = properties.key("metadata");
    if whole && text(metadata, "type") != "object" {
        errors.push(FieldError::invalid(
            at.child("type"),
            text(metadata, "type"),
            "must be object",
        ));
    }
    if level == Level::Root && !restricts_names_only(metadata) {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(FieldError::forbidden(at, why));
    }
}

fn restricts_names_only(metadata: &Value) -> bool {
    let Some(map) = metadata.as_object() else { return true };
    map.iter().all(|(key, value)| match (key.as_str(), value) {
        ("type" | "default", _) => true,
        ("properties", Value::Object(fields)) => fields.keys().all(|name| name == "name" || name == "generateName"),
        (_, value) => is_zero(value),
    })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// The parts that only check values: those of them that have the int-or-string pattern may say types.
fn values(schema: &Value, skip_any_of: bool, skip_first_all_of: bool, path: &Path<'_>, errors: &mut Errors) {
    for key in ["anyOf", "allOf", "oneOf"] {
        let at = path.child(key);
        if key == "anyOf" && skip_any_of {
            continue;
        }
        for (index, nested) in list(schema, key).iter().enumerate() {
            let skips = key == "allOf" && index == 0 && skip_first_all_of;
            nested_values(nested, skips, &at.index(index), errors);
        }
    }
    if let Some(not) = schema_at(schema, "not") {
        nested_values(not, false, &path.child("not"), errors);
    }
    let own = text(schema, "pattern");
    if !own.is_empty()
        && let Err(error) = mk8s_cel::compile_pattern(own)
    {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(FieldError::invalid(path.child("pattern"), own, why));
    }
}

/// What a nested schema must not say, whether a key is there or what it says is no zero, and in which words.
const NESTED: [(&str, &str); 12] = [
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
];

fn nested_values(schema: &Value, skip_any_of: bool, path: &Path<'_>, errors: &mut Errors) {
    values(schema, skip_any_of, false, path, errors);
    if let Some(items) = schema_at(schema, "items") {
        nested_values(items, false, &path.child("items"), errors);
    }
    let properties = path.child("properties");
    for (name, field) in fields(schema, "properties") {
        nested_values(field, false, &properties.key(name), errors);
    }
    for (key, why) in NESTED {
        let says = match (key, has(schema, key)) {
            (_, None) => false,
            ("default" | "x-kubernetes-list-type" | "x-kubernetes-map-type", Some(_)) => true,
            ("additionalProperties", Some(value)) => value != &Value::Bool(false),
            (_, Some(value)) => !is_zero(value),
        };
        if says {
            errors.push(FieldError::forbidden(path.child(key), why));
        }
    }
    if !list(schema, "x-kubernetes-validations").is_empty() {
        let at = path.child("x-kubernetes-validations");
        errors.push(FieldError::forbidden(at, "must be empty to be structural"));
    }
    let names = schema.get("properties").and_then(Value::as_object);
    if names.is_some_and(|names: &Map<String, Value>| names.contains_key("metadata")) {
        let why = "must not be specified in a nested context";
        errors.push(FieldError::forbidden(properties.key("metadata"), why));
    }
}

/// Every check of a value is of one whose form is said: `form` is what says it, at `at`.
fn values_complete(values: &Value, form: Option<&Value>, at: &Path<'_>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(not) = schema_at(values, "not") {
        nested_complete(not, form, at, &path.child("not"), errors);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        let nested_path = path.child(key);
        for (index, nested) in list(values, key).iter().enumerate() {
            nested_complete(nested, form, at, &nested_path.index(index), errors);
        }
    }
}

fn nested_complete(values: &Value, form: Option<&Value>, at: &Path<'_>, path: &Path<'_>, errors: &mut Errors) {
    let Some(form) = form else {
        errors.push(FieldError::required(at, format!("because it is defined in {path}")));
        return;
    };
    values_complete(values, Some(form), at, path, errors);
    if let Some(items) = schema_at(values, "items") {
        let own = schema_at(form, "items");
        nested_complete(items, own, &at.child("items"), &path.child("items"), errors);
    }
    let (own, nested) = (at.child("properties"), path.child("properties"));
    for (name, field) in fields(values, "properties") {
        let (at, path) = (own.key(name), nested.key(name));
        let said = form.get("properties").and_then(|fields| fields.get(name));
        nested_complete(field, said, &at, &path, errors);
    }
}
