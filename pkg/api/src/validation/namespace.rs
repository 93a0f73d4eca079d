//! Namespaces: who holds them back, and how far their end has come.

use serde_json::Value;

use super::{Errors, Path, SPEC, invalid_each, spec_of, strings};
use crate::status::FieldError;
use crate::{meta as object, names};

pub fn namespace(namespace: &Value, errors: &mut Errors) {
    let path = SPEC.child("finalizers");
    for finalizer in strings(spec_of(namespace), "finalizers") {
        finalizer_name(finalizer, &path, errors);
    }
}

/// The same through `/finalize`, which names each by its index.
pub fn namespace_finalize(new: &Value, _old: &Value, errors: &mut Errors) {
    let path = SPEC.child("finalizers");
    for (index, finalizer) in strings(spec_of(new), "finalizers").enumerate() {
        finalizer_name(finalizer, &path.index(index), errors);
    }
}

fn finalizer_name(finalizer: &str, path: &Path<'_>, errors: &mut Errors) {
    invalid_each(errors, path, finalizer, names::qualified_name(finalizer));
    super::meta::standard_finalizer(finalizer, path, errors);
}

pub fn namespace_status(new: &Value, _old: &Value, errors: &mut Errors) {
    let (phase, is) = match object::is_deleting(new) {
        false => ("Active", "is empty"),
        true => ("Terminating", "is not empty"),
    };
    let own = object::string(new, &["status", "phase"]);
    if own != phase {
        let why = format!("may only be '{phase}' if `deletionTimestamp` {is}");
        errors.push(FieldError::invalid("status.Phase", own, why));
    }
}
