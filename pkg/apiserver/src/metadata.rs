//! What the server itself says and checks in every object's metadata, whatever its kind.

use mk8s_api::registry::{NameRule, Resource};
use mk8s_api::status::{FieldError, Status};
use mk8s_api::{meta, names, time};
use serde_json::{Map, Value};

use crate::request::RequestInfo;

const MAX_ANNOTATIONS: usize = 256 << 10;

/// The namespace in an object must be the request's; an absent one is filled in.
pub fn match_namespace(resource: &Resource, info: &RequestInfo, object: &mut Value) -> Result<(), Status> {
    let wanted = if resource.is_namespaced() {
        info.namespace.as_str()
    } else {
        ""
    };
    let own = meta::namespace(object);
    if own.is_empty() {
        if !wanted.is_empty() {
            meta::metadata_mut(object).insert("namespace".into(), wanted.into());
        }
        return Ok(());
    }
    if own == wanted {
        return Ok(());
    }
    if wanted.is_empty() {
        // A namespace on a cluster-scoped object is left for validation to refuse.
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "the namespace of the provided object does not match the namespace sent on the request"
    )))
}

/// What the server sets on a new object.
pub fn begin_create(resource: &Resource, object: &mut Value) {
    let generation = resource.generation;
    let metadata = meta::metadata_mut(object);
    for key in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
        "resourceVersion",
        "generation",
    ] {
        metadata.remove(key);
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), time::rfc3339(jiff::Timestamp::now()).into());
    if generation {
        metadata.insert("generation".into(), 1.into());
    }
}

/// Whether the name is still to be made from generateName.
pub fn wants_generated_name(object: &Value) -> bool {
    meta::name(object).is_empty() && !meta::string(object, &["metadata", "generateName"]).is_empty()
}

pub fn generate_name(object: &mut Value) {
    let name = names::generate(
        meta::string(object, &["metadata", "generateName"]),
        rand::random::<u64>(),
    );
    meta::metadata_mut(object).insert("name".into(), name.into());
}

/// What an update can't change, whatever it says.
pub fn begin_update(object: &mut Value, old: &Value) {
    let Some(old) = meta::map_at(old, &["metadata"]) else {
        return;
    };
    let metadata = meta::metadata_mut(object);
    metadata.remove("selfLink");
    metadata.remove("managedFields");
    keep(metadata, old, "creationTimestamp");
    keep(metadata, old, "generation");
    if old.contains_key("deletionTimestamp") {
        keep(metadata, old, "deletionTimestamp");
    }
    for key in ["uid", "deletionGracePeriodSeconds", "namespace", "name"] {
        if !metadata.contains_key(key) || metadata[key] == "" {
            keep(metadata, old, key);
        }
    }
}

fn keep(metadata: &mut Map<String, Value>, old: &Map<String, Value>, key: &str) {
    match old.get(key) {
        Some(value) => metadata.insert(key.into(), value.clone()),
        None => metadata.remove(key),
    };
}

/// Whether anything but metadata and status differs.
pub fn spec_changed(new: &Value, old: &Value) -> bool {
    let (Value::Object(new), Value::Object(old)) = (new, old) else {
        return true;
    };
    let of_spec = |key: &&String| !matches!(key.as_str(), "metadata" | "status" | "kind" | "apiVersion");
    new.keys().filter(of_spec).any(|key| old.get(key) != new.get(key))
        || old.keys().filter(of_spec).any(|key| !new.contains_key(key))
}

pub fn set_generation(object: &mut Value, generation: i64) {
    meta::metadata_mut(object).insert("generation".into(), generation.into());
}

/// metav1.ValidateObjectMeta.
pub fn validate(resource: &Resource, object: &Value, errors: &mut Vec<FieldError>) {
    let generate = meta::string(object, &["metadata", "generateName"]);
    if !generate.is_empty() {
        // The prefix of a name: a trailing dash or dot is fine, the suffix follows it.
        let probe = format!("{generate}x");
        for why in name_errors(resource.name_rule, &probe) {
            errors.push(FieldError::invalid("metadata.generateName", generate, why));
        }
    }
    let name = meta::name(object);
    if name.is_empty() {
        errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else {
        for why in name_errors(resource.name_rule, name) {
            errors.push(FieldError::invalid("metadata.name", name, why));
        }
    }
    let namespace = meta::namespace(object);
    if resource.is_namespaced() {
        if namespace.is_empty() {
            errors.push(FieldError::required("metadata.namespace", ""));
        } else {
            for why in names::dns_label(namespace) {
                errors.push(FieldError::invalid("metadata.namespace", namespace, why));
            }
        }
    } else if !namespace.is_empty() {
        errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type"));
    }
    if let Some(labels) = meta::labels(object) {
        labels_valid(labels, "metadata.labels", errors);
    }
    annotations(object, errors);
    owner_references(object, errors);
    for finalizer in meta::finalizers(object) {
        for why in names::qualified_name(finalizer) {
            errors.push(FieldError::invalid("metadata.finalizers", finalizer, why));
        }
        if !finalizer.contains('/') && !matches!(finalizer, "kubernetes" | "orphan" | "foregroundDeletion") {
            errors.push(FieldError::invalid(
                "metadata.finalizers",
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
}

fn name_errors(rule: NameRule, name: &str) -> Vec<String> {
    match rule {
        NameRule::DnsSubdomain => names::dns_subdomain(name),
        NameRule::DnsLabel => names::dns_label(name),
        NameRule::Dns1035Label => names::dns_1035_label(name),
        NameRule::PathSegment => names::path_segment(name),
    }
}

fn labels_valid(labels: &Map<String, Value>, field: &str, errors: &mut Vec<FieldError>) {
    for (key, value) in labels {
        for why in names::qualified_name(key) {
            errors.push(FieldError::invalid(field, key.as_str(), why));
        }
        let value = value.as_str().unwrap_or_default();
        for why in names::label_value(value) {
            errors.push(FieldError::invalid(field, value, why));
        }
    }
}

fn annotations(object: &Value, errors: &mut Vec<FieldError>) {
    let Some(annotations) = meta::annotations(object) else {
        return;
    };
    let mut total = 0;
    for (key, value) in annotations {
        total += key.len() + value.as_str().map_or(0, str::len);
        for why in names::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", key.as_str(), why));
        }
    }
    if total > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long("metadata.annotations", MAX_ANNOTATIONS));
    }
}

fn owner_references(object: &Value, errors: &mut Vec<FieldError>) {
    let mut controller: Option<&str> = None;
    for owner in meta::items(object, &["metadata", "ownerReferences"]) {
        let field = "metadata.ownerReferences";
        let api_version = meta::string(owner, &["apiVersion"]);
        if meta::split_api_version(api_version).1.is_empty() {
            errors.push(FieldError::invalid(
                format!("{field}.apiVersion"),
                api_version,
                "version must not be empty",
            ));
        }
        for key in ["kind", "name", "uid"] {
            if meta::string(owner, &[key]).is_empty() {
                errors.push(FieldError::invalid(
                    format!("{field}.{key}"),
                    "",
                    format!("{key} must not be empty"),
                ));
            }
        }
        if meta::bool_at(owner, &["controller"]) == Some(true) {
            let name = meta::string(owner, &["name"]);
            if let Some(first) = controller {
                errors.push(FieldError::invalid(
                    field,
                    meta::at(object, &["metadata", "ownerReferences"]).cloned().unwrap_or_default(),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                    ),
                ));
            }
            controller = Some(name);
        }
    }
}

/// metav1.ValidateObjectMetaUpdate.
pub fn validate_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    for key in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        let (now, before) = (meta::at(new, &["metadata", key]), meta::at(old, &["metadata", key]));
        if now != before {
            let value = now.cloned().unwrap_or_default();
            errors.push(FieldError::invalid(
                format!("metadata.{key}"),
                value,
                "field is immutable",
            ));
        }
    }
    if meta::is_deleting(old) {
        let added: Vec<&str> = meta::finalizers(new)
            .filter(|finalizer| !meta::finalizers(old).any(|own| own == *finalizer))
            .collect();
        if !added.is_empty() {
            let list: Vec<String> = added.iter().map(|finalizer| format!("{finalizer:?}")).collect();
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    list.join(", ")
                ),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spec_changes_are_seen() {
        let old = json!({"kind": "X", "metadata": {"a": 1}, "spec": {"r": 1}, "status": {"x": 1}});
        let rows = [
            (
                json!({"kind": "X", "metadata": {"a": 2}, "spec": {"r": 1}, "status": {}}),
                false,
            ),
            (json!({"kind": "X", "metadata": {"a": 1}, "spec": {"r": 2}}), true),
            (json!({"kind": "X", "metadata": {"a": 1}}), true),
            (json!({"kind": "X", "spec": {"r": 1}, "data": {}}), true),
        ];
        for (new, changed) in rows {
            assert_eq!(spec_changed(&new, &old), changed, "{new}");
        }
    }
}
