//! Defaults have to be values that their own schema takes as they are.

use serde_json::Value;

use super::{check, items, metadata, parts, prune};
use crate::schema::{Node, What};
use crate::status::FieldError;
use crate::validation::Errors;
use crate::validation::path::Path;

/// What is wrong with the defaults of a schema; those below free keys are none.
pub(crate) fn check_defaults(schema: &Node, path: &Path<'_>, errors: &mut Errors) {
    let Some((what, constraints)) = parts(schema) else {
        return;
    };
    if let Some(default) = &constraints.default {
        check_default(default, schema, &path.child("default"), errors);
    }
    if let Some(child) = items(schema) {
        check_defaults(child, &path.child("items"), errors);
    }
    if let What::Object(object) = what {
        let at = path.child("properties");
        for field in object.fields() {
            check_defaults(&field.schema, &at.key(&field.name), errors);
        }
        if let Some(metadata) = &constraints.metadata {
            check_defaults(metadata, &at.key("metadata"), errors);
        }
    }
}

fn check_default(default: &Value, schema: &Node, path: &Path<'_>, errors: &mut Errors) {
    let (mut pruned, mut unknown) = (default.clone(), Vec::new());
    prune::prune(&mut pruned, schema, &Path::ROOT, &mut unknown);
    if !unknown.is_empty() {
        let why = "must not have unknown fields";
        errors.push(FieldError::invalid(path, default.clone(), why));
    }
    if let Err(error) = metadata::coerce(&mut default.clone(), schema, false, path, &mut Vec::new()) {
        errors.push(error);
        return;
    }
    let mut wrong = Errors::new();
    metadata::check(default, schema, path, false, &mut wrong);
    if wrong.is_empty() {
        wrong = check::check_part(default, schema, &path.to_string());
    }
    errors.append(&mut wrong);
}
