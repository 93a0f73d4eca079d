//! Fields of old workloads that apps/v1 keeps in annotations.

use serde_json::{Map, Value, json};

use crate::meta::{self, DEPLOYMENT_ROLLBACK as ROLLBACK};

const GENERATION: &str = "deprecated.daemonset.template.generation";

/// An annotation's number, as Go's ParseInt reads it.
fn take_number(object: &mut Value, annotation: &str) -> Option<i64> {
    let number = meta::annotation(object, annotation)?.parse().ok()?;
    take(object, annotation);
    Some(number)
}

fn take(object: &mut Value, annotation: &str) {
    meta::remove(object, &["metadata", "annotations", annotation]);
    if meta::annotations(object).is_some_and(Map::is_empty) {
        meta::remove(object, &["metadata", "annotations"]);
    }
}

/// `spec.rollbackTo`, which the annotation that stands for it does not set.
pub(super) fn deployment_to_stored(deployment: &mut Value) {
    take(deployment, ROLLBACK);
    if let Some(to) = meta::remove(deployment, &["spec", "rollbackTo"]).filter(|to| !to.is_null()) {
        let revision = meta::i64_at(&to, &["revision"]).unwrap_or(0);
        meta::set(deployment, &["metadata", "annotations", ROLLBACK], revision.to_string());
    }
}

pub(super) fn deployment_from_stored(deployment: &mut Value) {
    if let Some(revision) = take_number(deployment, ROLLBACK) {
        let to = if revision == 0 {
            json!({})
        } else {
            json!({"revision": revision})
        };
        meta::set(deployment, &["spec", "rollbackTo"], to);
    }
}

/// `spec.templateGeneration`, likewise.
pub(super) fn daemon_set_to_stored(daemon_set: &mut Value) {
    let generation = meta::remove(daemon_set, &["spec", "templateGeneration"]);
    match generation.as_ref().and_then(Value::as_i64) {
        None | Some(0) => take(daemon_set, GENERATION),
        Some(generation) => meta::set(
            daemon_set,
            &["metadata", "annotations", GENERATION],
            generation.to_string(),
        ),
    }
}

pub(super) fn daemon_set_from_stored(daemon_set: &mut Value) {
    if let Some(generation) = take_number(daemon_set, GENERATION).filter(|generation| *generation != 0) {
        meta::set(daemon_set, &["spec", "templateGeneration"], generation);
    }
}

const OBSERVED: [&str; 2] = ["status", "observedGeneration"];

/// A pointer in apps/v1beta1, and a number in apps/v1, which does not print it where it is zero.
pub(super) fn stateful_set_to_stored(stateful_set: &mut Value) {
    meta::remove_zero(stateful_set, &OBSERVED);
}

pub(super) fn stateful_set_from_stored(stateful_set: &mut Value) {
    meta::set_default(stateful_set, &OBSERVED, 0);
}
