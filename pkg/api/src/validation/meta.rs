//! ObjectMeta, labels, annotations and label selectors.

use std::collections::BTreeSet;

use serde_json::Value;

use super::rules::{
    Case, Cases, Rules, Scope, all, always, by, call, check, each as each_of, empty_saying, required_saying, texts,
};
use super::{Errors, IMMUTABLE, NEGATIVE, Path, flag, has, immutable, int, invalid_each, list, strings, text};
use crate::apply::Managed;
use crate::registry::{NameRule, Resource};
use crate::status::FieldError;
use crate::{meta as object, names};

const TOTAL_ANNOTATION_SIZE: usize = 256 * 1024;
const METADATA: Path<'static> = Path::new("metadata");

/// Metadata of a new object.
pub fn object_meta(resource: &Resource, new: &Value, errors: &mut Errors) {
    let metadata = has(new, "metadata").unwrap_or(&Value::Null);
    complete(resource.is_namespaced(), resource.name_rule, metadata, NEW, errors);
    if !resource.semantics.free_finalizers {
        standard_finalizers(metadata, errors);
    }
}

/// Metadata of a new object of a kind that does not look at it.
pub(super) fn any_meta(resource: &Resource, new: &Value, errors: &mut Errors) {
    let metadata = has(new, "metadata").unwrap_or(&Value::Null);
    complete(resource.is_namespaced(), NameRule::PathSegment, metadata, NEW, errors);
}

/// Metadata of a new object, as the kinds of the core group and their like check it themselves.
pub(super) fn complete_and_standard(namespaced: bool, rule: NameRule, object: &Value, errors: &mut Errors) {
    let metadata = has(object, "metadata").unwrap_or(&Value::Null);
    complete(namespaced, rule, metadata, NEW, errors);
    standard_finalizers(metadata, errors);
}

/// The same of a change.
pub(super) fn changed_and_standard(new: &Value, old: &Value, errors: &mut Errors) {
    let metadata = |object| has(object, "metadata").unwrap_or(&Value::Null);
    changed(metadata(new), metadata(old), errors);
    standard_finalizers(metadata(new), errors);
}

/// What was before something is made.
const NEW: &Value = &Value::Null;

/// What metadata has to be by itself. A prefix that was stored before it was judged beside a name stays.
fn complete(namespaced: bool, rule: NameRule, metadata: &Value, before: &Value, errors: &mut Errors) {
    let prefix = text(metadata, "generateName");
    if !prefix.is_empty() && prefix != text(before, "generateName") {
        invalid_each(
            errors,
            &METADATA.child("generateName"),
            prefix,
            validate_prefix(rule, prefix),
        );
    }
    match text(metadata, "name") {
        "" => errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        )),
        name => invalid_each(errors, &METADATA.child("name"), name, validate_name(rule, name)),
    }
    let namespace = text(metadata, "namespace");
    if namespaced {
        if namespace.is_empty() {
            errors.push(FieldError::required("metadata.namespace", ""));
        } else {
            invalid_each(
                errors,
                &METADATA.child("namespace"),
                namespace,
                names::dns_label(namespace),
            );
        }
    } else if !namespace.is_empty() {
        errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type"));
    }
    if let Some(generation) = int(metadata, "generation").filter(|&generation| generation < 0) {
        errors.push(FieldError::invalid("metadata.generation", generation, NEGATIVE));
    }
    common(metadata, &METADATA, errors);
    finalizers(metadata, &METADATA, errors);
}

/// Metadata of an object that lies in another one, at `path`.
pub(crate) fn embedded(metadata: &Value, path: &Path<'_>, errors: &mut Errors) {
    for key in ["generateName", "name"] {
        let name = text(metadata, key);
        if !name.is_empty() {
            invalid_each(errors, &path.child(key), name, names::path_segment(name));
        }
    }
    let namespace = text(metadata, "namespace");
    if !namespace.is_empty() {
        let problems = names::dns_label(namespace);
        invalid_each(errors, &path.child("namespace"), namespace, problems);
    }
    if let Some(generation) = int(metadata, "generation").filter(|&generation| generation < 0) {
        errors.push(FieldError::invalid(path.child("generation"), generation, NEGATIVE));
    }
    common(metadata, path, errors);
    finalizers(metadata, path, errors);
}

fn common(metadata: &Value, path: &Path<'_>, errors: &mut Errors) {
    labels(has(metadata, "labels"), &path.child("labels"), errors);
    annotations(has(metadata, "annotations"), &path.child("annotations"), errors);
    owner_references(metadata, &path.child("ownerReferences"), errors);
}

fn finalizers(metadata: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("finalizers");
    for finalizer in strings(metadata, "finalizers") {
        invalid_each(errors, &path, finalizer, names::qualified_name(finalizer));
    }
    let both = ["orphan", "foregroundDeletion"]
        .iter()
        .all(|own| strings(metadata, "finalizers").any(|finalizer| finalizer == *own));
    if both {
        errors.push(FieldError::invalid(
            path,
            Value::Array(list(metadata, "finalizers").to_vec()),
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
}

fn standard_finalizers(metadata: &Value, errors: &mut Errors) {
    let path = METADATA.child("finalizers");
    for (index, finalizer) in strings(metadata, "finalizers").enumerate() {
        standard_finalizer(finalizer, &path.index(index), errors);
    }
}

pub(super) fn standard_finalizer(finalizer: &str, path: &Path<'_>, errors: &mut Errors) {
    if !finalizer.contains('/') && !matches!(finalizer, "kubernetes" | "orphan" | "foregroundDeletion") {
        let why = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(path, finalizer, why));
    }
}

/// One of the checks of a changed object's metadata, of which upstream runs some for all kinds and each kind some again:
/// what is wrong is told as often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataCheck {
    /// What it has to be by itself, by the kind's rule for names.
    Complete,
    /// What may not change.
    Changed,
}

/// Metadata of a changed object against the old one.
pub fn object_meta_update(resource: &Resource, new: &Value, old: &Value, errors: &mut Errors) {
    let metadata = has(new, "metadata").unwrap_or(&Value::Null);
    let before = has(old, "metadata").unwrap_or(&Value::Null);
    let start = errors.len();
    complete(
        resource.is_namespaced(),
        NameRule::PathSegment,
        metadata,
        before,
        errors,
    );
    changed(metadata, before, errors);
    let judged = !resource.semantics.free_finalizers;
    let again = |check: &MetadataCheck, errors: &mut Errors| {
        match check {
            MetadataCheck::Complete => {
                complete(resource.is_namespaced(), resource.name_rule, metadata, before, errors);
            }
            MetadataCheck::Changed => changed(metadata, before, errors),
        }
        if judged {
            standard_finalizers(metadata, errors);
        }
    };
    let mut nonstandard = Errors::new();
    if judged {
        standard_finalizers(metadata, &mut nonstandard);
    }
    // Where there is no fault the kind's own checks would find none either, but in a prefix: that is judged by its rule.
    if errors.len() > start || !nonstandard.is_empty() || !text(metadata, "generateName").is_empty() {
        let checks = resource.semantics.metadata_checks.iter();
        checks.for_each(|check| again(check, errors));
    }
}

/// Bytes of the name of one who owns fields, and of the subresource that he writes through.
pub const MAX_MANAGER: usize = 128;
const MAX_SUBRESOURCE: usize = 256;

/// Of those who own the fields of a changed object, whom a client may name as it likes; told as often as upstream looks.
pub fn managers(resource: &Resource, managed: &Managed) -> Errors {
    let mut once = Errors::new();
    let path = Path::new("metadata.managedFields");
    for (index, entry) in managed.entries().iter().enumerate() {
        let (path, owner) = (path.index(index), entry.owner());
        manager(&owner.manager, &path.child("manager"), &mut once);
        if owner.subresource.len() > MAX_SUBRESOURCE {
            once.push(FieldError::too_long(path.child("subresource"), MAX_SUBRESOURCE));
        }
    }
    let times = if once.is_empty() {
        0
    } else {
        2 + resource.semantics.metadata_checks.len()
    };
    let mut errors = Errors::new();
    (0..times).for_each(|_| errors.append(&mut once.clone()));
    errors
}

/// A manager's name is short, and can be printed.
pub fn manager(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.len() > MAX_MANAGER {
        errors.push(FieldError::too_long(path, MAX_MANAGER));
    }
    for (at, letter) in name.char_indices().filter(|(_, letter)| letter.is_control()) {
        // Each shows the whole name.
        errors.push_with(|| {
            let why = format!("invalid character U+{:04X} (at position {at})", letter as u32);
            FieldError::invalid(path, name, why)
        });
    }
}

fn changed(metadata: &Value, before: &Value, errors: &mut Errors) {
    if has(before, "deletionTimestamp").is_some() {
        let had: BTreeSet<&str> = strings(before, "finalizers").collect();
        let wanted: BTreeSet<&str> = strings(metadata, "finalizers").collect();
        let added: Vec<&&str> = wanted.difference(&had).collect();
        if !added.is_empty() {
            let shown: Vec<String> = added.iter().map(|finalizer| format!("{finalizer:?}")).collect();
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    shown.join(", ")
                ),
            ));
        }
    }
    if text(metadata, "resourceVersion").is_empty() {
        errors.push(FieldError::invalid(
            "metadata.resourceVersion",
            "",
            "must be specified for an update",
        ));
    }
    let generation = int(metadata, "generation").unwrap_or(0);
    if generation < int(before, "generation").unwrap_or(0) {
        errors.push(FieldError::invalid(
            "metadata.generation",
            generation,
            "must not be decremented",
        ));
    }
    for key in ["name", "namespace", "uid"] {
        if text(metadata, key) != text(before, key) {
            errors.push(FieldError::invalid(METADATA.child(key), text(metadata, key), IMMUTABLE));
        }
    }
    for (key, path) in [
        ("creationTimestamp", "metadata.creationTimestamp"),
        ("deletionTimestamp", "metadata.deletionTimestamp"),
        ("deletionGracePeriodSeconds", "metadata.deletionGracePeriodSeconds"),
    ] {
        immutable(errors, metadata, before, &[key], path);
    }
    common(metadata, &METADATA, errors);
}

pub fn validate_name(rule: NameRule, name: &str) -> Vec<String> {
    match rule {
        NameRule::DnsSubdomain => names::dns_subdomain(name),
        NameRule::DnsLabel => names::dns_label(name),
        NameRule::Dns1035Label => names::dns_1035_label(name),
        NameRule::Address => names::strict_ip(name),
        NameRule::PathSegment => names::path_segment(name),
    }
}

/// What a made name begins with: a dash at its end is none of the name's, and no path ends there.
fn validate_prefix(rule: NameRule, prefix: &str) -> Vec<String> {
    match (rule, prefix.strip_suffix('-')) {
        (NameRule::PathSegment, _) if matches!(prefix, "." | "..") => Vec::new(),
        (NameRule::PathSegment | NameRule::Address, _) | (_, None | Some("")) => validate_name(rule, prefix),
        (_, Some(begun)) => {
            let mut letters = begun.chars();
            letters.next_back();
            validate_name(rule, &format!("{}a", letters.as_str()))
        }
    }
}

/// A Scale, whosever it is.
pub fn scale(scale: &Value) -> Errors {
    let mut errors = Errors::new();
    complete_and_standard(true, NameRule::DnsSubdomain, scale, &mut errors);
    let replicas = has(scale, "spec").and_then(|spec| int(spec, "replicas")).unwrap_or(0);
    if replicas < 0 {
        errors.push(FieldError::invalid("spec.replicas", replicas, NEGATIVE));
    }
    errors
}

pub fn labels(map: Option<&Value>, path: &Path<'_>, errors: &mut Errors) {
    for (key, value) in map.and_then(Value::as_object).into_iter().flatten() {
        invalid_each(errors, path, key, names::qualified_name(key));
        let value = value.as_str().unwrap_or("");
        invalid_each(errors, path, value, names::label_value(value));
    }
}

pub fn annotations(map: Option<&Value>, path: &Path<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in map.and_then(Value::as_object).into_iter().flatten() {
        let problems = if key.bytes().any(|byte| byte.is_ascii_uppercase()) {
            names::qualified_name(&key.to_lowercase())
        } else {
            names::qualified_name(key)
        };
        invalid_each(errors, path, key, problems);
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > TOTAL_ANNOTATION_SIZE {
        errors.push(FieldError::too_long(path, TOTAL_ANNOTATION_SIZE));
    }
}

pub fn owner_references(metadata: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    let mut repeated = false;
    for owner in list(metadata, "ownerReferences") {
        let (group, version) = object::split_api_version(text(owner, "apiVersion"));
        if version.is_empty() {
            errors.push(FieldError::invalid(
                path.child("apiVersion"),
                text(owner, "apiVersion"),
                "version must not be empty",
            ));
        }
        for key in ["kind", "name", "uid"] {
            if text(owner, key).is_empty() {
                errors.push(FieldError::invalid(path.child(key), "", "must not be empty"));
            }
        }
        if (group, version, text(owner, "kind")) == ("", "v1", "Event") {
            errors.push(FieldError::invalid(
                path,
                owner.clone(),
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if flag(owner, "controller") {
            let name = format!("{}/{}", text(owner, "kind"), text(owner, "name"));
            match &controller {
                None => controller = Some(name),
                // It shows the whole list: once is enough.
                Some(_) if repeated => {}
                Some(first) => {
                    repeated = true;
                    errors.push(FieldError::invalid(
                        path,
                        Value::Array(list(metadata, "ownerReferences").to_vec()),
                        format!(
                            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                        ),
                    ));
                }
            }
        }
    }
}

const LABEL_SELECTOR: Rules = &[
    call("matchLabels", match_labels),
    each_of("matchExpressions", &[by("operator", &BY_OPERATOR), all(REQUIREMENT)]),
];

const BY_OPERATOR: Cases = Cases {
    of: &[IN, EXISTS],
    otherwise: &[always("operator", no_operator)],
};

/// What these need of values.
pub(super) const IN: Case = (
    &["In", "NotIn"],
    &[required_saying(
        "values",
        "must be specified when `operator` is 'In' or 'NotIn'",
    )],
);
pub(super) const EXISTS: Case = (
    &["Exists", "DoesNotExist"],
    &[empty_saying(
        "values",
        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
    )],
);

/// Of a label's key, and of the values that are asked for.
pub(super) const REQUIREMENT: Rules = &[
    always("key", names::qualified_name),
    texts("values", names::label_value),
];

pub(super) fn no_operator(_: &str) -> Vec<String> {
    vec!["not a valid selector operator".to_string()]
}

fn match_labels(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    labels(Some(own), path, errors);
}

pub fn label_selector(selector: &Value, path: &Path<'_>, errors: &mut Errors) {
    check(LABEL_SELECTOR, selector, &Scope::of(selector), path, errors);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_of_a_new_object() {
        let row = crate::registry::find("", "v1", "configmaps").unwrap();
        let of = |metadata: Value| -> Vec<String> {
            let mut errors = Errors::new();
            object_meta(row, &json!({"metadata": metadata}), &mut errors);
            errors.iter().map(|error| error.field.clone()).collect()
        };
        assert_eq!(of(json!({"name": "a", "namespace": "b"})), Vec::<String>::new());
        assert_eq!(of(json!({"name": "A", "namespace": "b"})), ["metadata.name"]);
        assert_eq!(
            of(json!({"generateName": "a-", "namespace": "b"})),
            ["metadata.name"],
            "the name is generated before"
        );
        assert_eq!(of(json!({"name": "a"})), ["metadata.namespace"]);
        assert_eq!(
            of(json!({"name": "a", "namespace": "b", "labels": {"a/b/c": "x y"}, "finalizers": ["x"]})),
            ["metadata.labels", "metadata.labels", "metadata.finalizers[0]"]
        );
        assert_eq!(
            of(
                json!({"name": "a", "namespace": "b", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x"}]})
            ),
            ["metadata.ownerReferences.uid"]
        );
    }

    #[test]
    fn a_prefix_that_is_stored_stays_and_another_is_judged() {
        // One kind whose own check looks at it again.
        let row = crate::registry::find("apps", "v1", "deployments").unwrap();
        let of = |prefix: &str| json!({"metadata": {"name": "a", "namespace": "n", "resourceVersion": "1", "generateName": prefix}});
        let wrong = |new: &str, old: &str| {
            let mut errors = Errors::new();
            object_meta_update(row, &of(new), &of(old), &mut errors);
            errors.len()
        };
        assert_eq!((wrong("a/b", "a/b"), wrong("a-", "a/b")), (0, 0));
        assert!(wrong("a/b", "a-") > 0 && wrong("a/b", "") > 0);
    }

    #[test]
    fn metadata_that_never_changes() {
        let row = crate::registry::find("", "v1", "configmaps").unwrap();
        let old = json!({"metadata": {"name": "a", "namespace": "n", "uid": "1", "resourceVersion": "1"}});
        let new = json!({"metadata": {"name": "b", "namespace": "n", "uid": "1", "resourceVersion": "1"}});
        let mut errors = Errors::new();
        object_meta_update(row, &new, &old, &mut errors);
        assert_eq!(
            errors[0].to_string(),
            "metadata.name: Invalid value: \"b\": field is immutable"
        );
    }
}
