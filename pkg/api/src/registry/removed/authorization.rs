//! authorization.k8s.io/v1beta1 calls a subject's groups `group`.

use serde_json::Value;

use crate::meta;

pub(super) fn to_stored(review: &mut Value) {
    meta::relocate(review, &["spec", "group"], &["spec", "groups"]);
}

pub(super) fn from_stored(review: &mut Value) {
    meta::relocate(review, &["spec", "groups"], &["spec", "group"]);
}
