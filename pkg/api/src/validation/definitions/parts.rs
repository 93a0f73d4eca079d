//! What a definition says beside its schemas: names, subresources, columns, selectable fields.

use std::collections::HashSet;

use serde_json::Value;

use super::super::{Errors, Path, has, strings, text};
use crate::names;
use crate::schema::custom;
use crate::status::FieldError;

pub(super) fn check_names(own: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (key, mixed) in [
        ("plural", false),
        ("singular", false),
        ("kind", true),
        ("listKind", true),
    ] {
        let name = text(own, key);
        let wrong = names::dns_1035_label(&if mixed { name.to_lowercase() } else { name.into() });
        if name.is_empty() || wrong.is_empty() {
            continue;
        }
        let why = match mixed {
            true => format!("may have mixed case, but should otherwise match: {}", wrong.join(",")),
            false => wrong.join(","),
        };
        errors.push(FieldError::invalid(path.child(key), name, why));
    }
    let labels = |key: &str, errors: &mut Errors| {
        let at = path.child(key);
        for (index, name) in strings(own, key).enumerate() {
            let wrong = names::dns_1035_label(name);
            if !wrong.is_empty() {
                errors.push(FieldError::invalid(at.index(index), name, wrong.join(",")));
            }
        }
    };
    labels("shortNames", errors);
    let (kind, list_kind) = (text(own, "kind"), text(own, "listKind"));
    if !kind.is_empty() && kind == list_kind {
        let why = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(path.child("listKind"), list_kind, why));
    }
    labels("categories", errors);
}

pub(super) fn subresources(own: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(scale) = has(own, "scale") else { return };
    let under = |key: &str, roots: &[&str], why: &str, errors: &mut Errors| {
        let (json_path, field) = (text(scale, key), format!("scale.{key}"));
        let at = path.child(&field);
        if let Some(error) = simple_json_path(json_path, &at) {
            errors.push(error);
        } else if !roots.iter().any(|root| json_path.starts_with(root)) {
            errors.push(FieldError::invalid(at, json_path, why));
        }
    };
    for (key, root) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        if text(scale, key).is_empty() {
            errors.push(FieldError::required(path.child(&format!("scale.{key}")), ""));
        } else {
            let why = format!("should be a json path under {}", root.trim_end_matches('.'));
            under(key, &[root], &why, errors);
        }
    }
    if !text(scale, "labelSelectorPath").is_empty() {
        let why = "should be a json path under either .spec or .status";
        under("labelSelectorPath", &[".spec.", ".status."], why, errors);
    }
}

fn simple_json_path(json_path: &str, path: &Path<'_>) -> Option<FieldError> {
    let why = "must be a simple json path starting with .";
    (!json_path.starts_with('.')).then(|| FieldError::invalid(path, json_path, why))
}

pub(super) fn columns(own: &Value, path: &Path<'_>, errors: &mut Errors) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = [
        "byte",
        "date",
        "date-time",
        "double",
        "float",
        "int32",
        "int64",
        "password",
    ];
    let must = |known: &[&str]| format!("must be one of {}", known.join(","));
    for (index, column) in own.as_array().into_iter().flatten().enumerate() {
        let at = path.index(index);
        if text(column, "name").is_empty() {
            errors.push(FieldError::required(at.child("name"), ""));
        }
        match text(column, "type") {
            "" => errors.push(FieldError::required(at.child("type"), must(&TYPES))),
            own if !TYPES.contains(&own) => errors.push(FieldError::invalid(at.child("type"), own, must(&TYPES))),
            _ => {}
        }
        let format = text(column, "format");
        if !format.is_empty() && !FORMATS.contains(&format) {
            errors.push(FieldError::invalid(at.child("format"), format, must(&FORMATS)));
        }
        match text(column, "jsonPath") {
            "" => errors.push(FieldError::required(at.child("JSONPath"), "")),
            json_path => errors.extend(simple_json_path(json_path, &at.child("JSONPath"))),
        }
    }
}

/// How many fields are selectable.
pub(super) const MOST_SELECTABLE: usize = 8;

pub(super) fn selectable_fields(
    own: &Value,
    schema: Option<&Value>,
    lacking: &str,
    most: usize,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let Some(schema) = schema.and_then(|schema| has(schema, "openAPIV3Schema")) else {
        errors.push(FieldError::invalid(path, "", lacking));
        return;
    };
    let mut seen: HashSet<Vec<String>> = HashSet::new();
    for (index, field) in own.as_array().into_iter().flatten().enumerate() {
        let (json_path, at) = (text(field, "jsonPath"), path.index(index));
        let at = at.child("jsonPath");
        if json_path.is_empty() {
            errors.push(FieldError::required(at, ""));
            continue;
        }
        let custom::FoundField {
            names, schema: found, ..
        } = match custom::resolve_field(json_path, schema, false) {
            Ok(found) => found,
            Err(why) => {
                errors.push(FieldError::invalid(at, json_path, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if names.first().is_some_and(|name| name == "metadata") {
            errors.push(FieldError::invalid(
                at,
                json_path,
                "must not point to fields in metadata",
            ));
        }
        if !matches!(found.word(), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.push(FieldError::invalid(at, json_path, why));
        }
        if !seen.insert(names) {
            errors.push(FieldError::duplicate(at, json_path));
        }
    }
    if seen.len() > most {
        errors.push(FieldError::too_many(path, seen.len(), most));
    }
}
