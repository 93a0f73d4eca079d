//! What is wrong with a custom object: upstream's validator of OpenAPI schemas, its words, its order and its way to choose
//! among alternatives, and the field errors that its findings become.

use std::collections::HashSet;

use serde_json::{Number, Value};

use super::correlate::Old;
use super::{declared, formats, items, lists, numbers, parts};
use crate::float;
use crate::schema::{Checks, Node, Schema, Type};
use crate::status::{ErrorKind, FieldError};
use crate::validation::Errors;
use crate::validation::path::Path;

/// What is wrong with an object; where it is known what it was before, what was not so wrong then.
pub fn check(new: &Value, old: Option<&Value>, schema: &Node) -> Errors {
    finished(at(new, schema, &Path::ROOT, old.map(Old::root)), None)
}

/// Which items its lists have twice, where none had before.
pub fn check_lists(new: &Value, old: Option<&Value>, schema: &Node) -> Errors {
    let twice = |value: &Value| {
        let mut errors = Errors::new();
        lists::check(value, schema, &Path::ROOT, &mut errors);
        errors
    };
    match old {
        Some(old) if !twice(old).is_empty() => Errors::new(),
        _ => twice(new),
    }
}

/// What is wrong with a changed status, and was not so before; `schema` is the object's.
pub fn check_status(new: &Value, old: &Value, schema: &Node) -> Errors {
    let (Some(status), Some(of_status)) = (new.get("status"), declared(schema, "status")) else {
        return Errors::new();
    };
    let old = old.get("status").map(Old::root);
    finished(at(status, of_status, &Path::ROOT, old), Some("status"))
}

/// What is wrong with a value by its part of a schema; `place` is where it stands.
pub(super) fn check_part(value: &Value, schema: &Node, place: &str) -> Errors {
    finished(at(value, schema, &Path::ROOT, None), Some(place))
}

/// What the checks of one value found.
#[derive(Default)]
struct Found {
    /// Their fields are relative to the object, and empty where no field is meant.
    errors: Errors,
    /// How many checks were passed: of alternatives that fail, the one with the most is told.
    passed: u32,
}

impl Found {
    fn merge(&mut self, other: Found) {
        self.tell(other.errors);
        self.passed += other.passed;
    }

    fn tell(&mut self, errors: impl IntoIterator<Item = FieldError>) {
        self.errors.extend(errors);
    }

    /// Nothing more is looked for where so much is wrong.
    fn is_full(&self) -> bool {
        self.errors.is_full()
    }

    fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }
}

/// Each finding once, under the place that is checked.
fn finished(found: Found, prefix: Option<&str>) -> Errors {
    let mut told = HashSet::new();
    let mut errors = found.errors;
    errors.retain(|error| told.insert((error.kind as u8, error.field.clone(), error.body())));
    for error in &mut *errors {
        error.field = match (prefix, error.field.as_str()) {
            (None, "") => "<nil>".into(),
            (Some(prefix), "") => prefix.into(),
            (Some(prefix), field) => format!("{prefix}.{field}"),
            (None, _) => continue,
        };
    }
    errors
}

/// A value against its schema, beside what it was before where that is known.
fn at(value: &Value, node: &Node, path: &Path<'_>, old: Option<Old<'_>>) -> Found {
    let found = against(value, node, path, old.as_ref());
    match old {
        // What is as it was may be wrong.
        Some(old) if !found.is_valid() && old.is_unchanged(value, node) => Found {
            errors: Errors::new(),
            passed: found.passed,
        },
        _ => found,
    }
}

fn against(value: &Value, node: &Node, path: &Path<'_>, old: Option<&Old<'_>>) -> Found {
    let Some((_, constraints)) = parts(node) else {
        return Found::default();
    };
    let (types, checks) = (constraints.types, constraints.checks.as_deref());
    let format = checks.and_then(|checks| checks.format.as_deref());
    let other = checks.and_then(|checks| checks.other_type.as_deref());
    let words = other.or(types.map(Type::words)).unwrap_or_default();
    let of_type = || of_type(value, types, words, format, constraints.nullable, path);
    let mut found = Found::default();
    if value.is_null() {
        found.merge(of_type());
        found
            .errors
            .extend(checks.and_then(|checks| in_enumeration(value, checks, path)));
        return found;
    }
    if types.is_some() || format.is_some() {
        found.merge(of_type());
        found.passed += 1;
    }
    let nothing = Checks::default();
    let checks = checks.unwrap_or(&nothing);
    found.merge(alternatives(value, checks, path));
    found.passed += 1;
    match value {
        Value::String(text) => {
            found.errors.extend(string(text, checks, path));
            found.passed += 1;
            if let Some(format) = format {
                found.errors.extend(formatted(text, format, path));
                found.passed += 1;
            }
        }
        Value::Number(number) => {
            found.errors.extend(numbers::check(number, checks, path));
            found.passed += 2;
        }
        Value::Array(list) => {
            found.merge(array(list, node, checks, path, old));
            found.passed += 2;
        }
        _ => {}
    }
    found.errors.extend(in_enumeration(value, checks, path));
    found.passed += 1;
    if let Value::Object(_) = value {
        found.merge(object(value, node, checks, path, old));
        found.passed += 1;
    }
    found.passed += 1;
    found
}

/// Upstream's name of a value's type, and the format that its reader gives it.
fn type_of(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::String(_) => ("string", ""),
        // One that no int64 holds is read as a float.
        Value::Number(number) if !number.is_i64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
    }
}

/// Whether a value is of a type (`words`: as it is told), and of a format that stands for one.
fn of_type(
    value: &Value,
    types: Option<Type>,
    words: &str,
    format: Option<&str>,
    nullable: bool,
    path: &Path<'_>,
) -> Found {
    let passed = Found {
        errors: Errors::new(),
        passed: 1,
    };
    let fails = |wanted: &str, is: &str| {
        let error = type_invalid(path, wanted, is);
        Found {
            errors: error.into(),
            passed: 0,
        }
    };
    let (is, own_format) = type_of(value);
    let contains = |word: &str| types.is_some_and(|types| types.contains(word));
    if value.is_null() {
        return if types.is_some() && !nullable {
            fails(words, is)
        } else {
            passed
        };
    }
    let whole = |number: &Number| number.as_f64().is_some_and(numbers::is_whole);
    let float_integer = is == "number" && value.as_number().is_some_and(whole) && contains("integer");
    let integer_float = is == "integer" && contains("number");
    let fits = contains(is) || float_integer || integer_float;
    let is_text = matches!(value, Value::String(_) | Value::Array(_));
    match format {
        Some(format) if !is_text && !fits && own_format != format => return fails(format, own_format),
        // Texts of a format are the format's matter.
        Some(_) if is_text && !contains("number") && !contains("integer") => return passed,
        _ => {}
    }
    if fits { passed } else { fails(words, is) }
}

fn type_invalid(path: &Path<'_>, wanted: &str, is: &str) -> FieldError {
    FieldError {
        kind: ErrorKind::TypeInvalid,
        ..invalid(path, is, format!("must be of type {wanted}: {is:?}"))
    }
}

/// `spec.x in body …`
pub(super) fn invalid(path: &Path<'_>, value: impl Into<Value>, what: impl std::fmt::Display) -> FieldError {
    FieldError::invalid(path, value, format!("{path} in body {what}"))
}

/// A finding that names its place in words alone.
fn composite(path: &Path<'_>, what: &str) -> FieldError {
    FieldError::invalid("", "", format!("{:?} {what}", path.to_string()))
}

fn alternatives(value: &Value, checks: &Checks, path: &Path<'_>) -> Found {
    let mut found = Found::default();
    if !checks.any_of.is_empty() {
        any_of(value, &checks.any_of, path, &mut found);
    }
    if !checks.one_of.is_empty() {
        one_of(value, &checks.one_of, path, &mut found);
    }
    if !checks.all_of.is_empty() {
        let mut valid = 0;
        for schema in &checks.all_of {
            let one = against(value, schema, path, None);
            valid += usize::from(one.is_valid());
            found.merge(one);
        }
        if valid != checks.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            let what = format!("must validate all the schemas (allOf){none}");
            found.errors.push(composite(path, &what));
        }
    }
    if let Some(not) = &checks.not
        && against(value, not, path, None).is_valid()
    {
        found.errors.push(composite(path, "must not validate the schema (not)"));
    }
    found.passed += 1;
    found
}

fn any_of(value: &Value, schemas: &[Schema], path: &Path<'_>, found: &mut Found) {
    let mut best: Option<Found> = None;
    for schema in schemas {
        let one = against(value, schema, path, None);
        if one.is_valid() {
            return found.merge(one);
        }
        if best.as_ref().is_none_or(|best| one.passed > best.passed) {
            best = Some(one);
        }
    }
    found
        .errors
        .push(composite(path, "must validate at least one schema (anyOf)"));
    found.merge(best.unwrap_or_default());
}

fn one_of(value: &Value, schemas: &[Schema], path: &Path<'_>, found: &mut Found) {
    let (mut best, mut first, mut valid) = (None::<Found>, None, 0);
    for schema in schemas {
        let one = against(value, schema, path, None);
        if one.is_valid() {
            valid += 1;
            best = None;
            first.get_or_insert(one);
        } else if valid == 0 && best.as_ref().is_none_or(|best| one.passed > best.passed) {
            best = Some(one);
        }
    }
    match (valid, first) {
        (1, Some(first)) => found.merge(first),
        _ => {
            let why = match valid {
                0 => "Found none valid".to_string(),
                valid => format!("Found {valid} valid alternatives"),
            };
            let what = format!("must validate one and only one schema (oneOf). {why}");
            found.errors.push(composite(path, &what));
            found.merge(best.unwrap_or_default());
        }
    }
}

fn string(text: &str, checks: &Checks, path: &Path<'_>) -> Option<FieldError> {
    if checks.max_length.is_some() || checks.min_length.is_some() {
        let length = text.chars().count() as i64;
        if let Some(most) = checks.max_length.filter(|most| length > *most) {
            return Some(FieldError::too_long(path, usize::try_from(most).unwrap_or(0)));
        }
        if let Some(least) = checks.min_length.filter(|least| length < *least) {
            let what = format!("should be at least {least} chars long");
            return Some(invalid(path, text, what));
        }
    }
    let pattern = checks.pattern.as_ref()?;
    let fails = |pattern: &str| Some(invalid(path, text, format!("should match '{pattern}'")));
    match pattern.compiled() {
        Ok(compiled) if compiled.is_match(text) => None,
        Ok(_) => fails(&pattern.text),
        Err(error) => fails(&format!("{}, but pattern is invalid: {error}", pattern.text)),
    }
}

fn formatted(text: &str, format: &str, path: &Path<'_>) -> Option<FieldError> {
    (!formats::matches(format, text)).then(|| type_invalid(path, format, text))
}

fn in_enumeration(value: &Value, checks: &Checks, path: &Path<'_>) -> Option<FieldError> {
    let allowed = &checks.enumeration;
    if allowed.is_empty() || allowed.iter().any(|allowed| is_that(value, allowed)) {
        return None;
    }
    let words = allowed.iter().map(|allowed| match allowed {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => float::json(number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    });
    let words: Vec<String> = words.collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Some(FieldError::not_supported(path, value.clone(), &words))
}

/// Numbers are compared as the kind of number that is allowed; a null is nothing that is allowed.
fn is_that(value: &Value, allowed: &Value) -> bool {
    match (value, allowed) {
        (Value::Null, _) => false,
        (Value::Number(value), Value::Number(allowed)) if value.is_f64() != allowed.is_f64() => {
            match allowed.as_i64() {
                Some(allowed) => value.as_f64().is_some_and(|value| value as i64 == allowed),
                None => value.as_f64() == allowed.as_f64(),
            }
        }
        _ => value == allowed,
    }
}

fn array(list: &[Value], node: &Node, checks: &Checks, path: &Path<'_>, old: Option<&Old<'_>>) -> Found {
    let mut found = Found::default();
    if let Some(child) = items(node) {
        let before = old.map(|old| old.list(node));
        for (index, item) in list.iter().enumerate() {
            if found.is_full() {
                break;
            }
            let old = before.as_ref().and_then(|before| before.item(item));
            found.merge(at(item, child, &path.index(index), old));
        }
    }
    let size = list.len() as i64;
    if let Some(least) = checks.min_items.filter(|least| size < *least) {
        found
            .errors
            .push(invalid(path, size, format!("should have at least {least} items")));
    }
    if let Some(most) = checks.max_items.filter(|most| size > *most) {
        found.errors.push(FieldError::too_many(
            path,
            list.len(),
            usize::try_from(most).unwrap_or(0),
        ));
    }
    if checks.unique_items && list.iter().collect::<HashSet<_>>().len() < list.len() {
        found.errors.push(invalid(path, "", "shouldn't contain duplicates"));
    }
    found.passed += 1;
    found
}

fn object(value: &Value, node: &Node, checks: &Checks, path: &Path<'_>, old: Option<&Old<'_>>) -> Found {
    let mut found = Found::default();
    let Value::Object(map) = value else { return found };
    let size = map.len() as i64;
    if let Some(least) = checks.min_properties.filter(|least| size < *least) {
        found
            .errors
            .push(invalid(path, size, format!("should have at least {least} properties")));
    }
    if let Some(most) = checks.max_properties.filter(|most| size > *most) {
        found.errors.push(FieldError::too_many(
            path,
            map.len(),
            usize::try_from(most).unwrap_or(0),
        ));
    }
    let is_named = |key: &str| node.field(key).is_some();
    if checks.closed {
        let unnamed = map.keys().filter(|key| !is_named(key));
        found.tell(unnamed.map(|key| {
            let what = format!("{path}.{key} in body is a forbidden property");
            FieldError::invalid(path, key.as_str(), what)
        }));
    }
    let may_ratchet = |key: &str| !(path.is_root() && matches!(key, "apiVersion" | "kind"));
    for (key, value) in map {
        if found.is_full() {
            break;
        }
        if let Some(child) = declared(node, key) {
            let old = old.filter(|_| may_ratchet(key)).and_then(|old| old.field(key));
            found.merge(at(value, child, &path.child(key), old));
        }
    }
    let missing = checks.required.iter().filter(|name| !map.contains_key(name.as_str()));
    found.tell(missing.map(|name| FieldError::required(path.child(name), "")));
    found
}
