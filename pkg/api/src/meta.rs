//! Small helpers over an object's tree: what nearly every function of the API asks of metadata and of a path.
//! A JSON `null` counts as absent everywhere, as Go's decoder has it.

use serde_json::{Map, Value};

/// The annotation that asks for a Deployment's return to a revision, and was a field once; its controller takes it away.
pub const DEPLOYMENT_ROLLBACK: &str = "deprecated.deployment.rollback.to";

/// The provisioner of volumes on the nodes' own disks.
pub const LOCAL_PROVISIONER: &str = "mk8s.io/local-path";
/// The annotation in which a node says below which directory its local volumes stand.
pub const VOLUMES_DIRECTORY: &str = "mk8s.io/volumes-directory";

/// Finalizers: what is used does not go.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
pub const ATTRIBUTES_CLASS_PROTECTION: &str = "kubernetes.io/vac-protection";

/// The value at a path of keys, if it is there and not `null`.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    let mut current = value;
    for key in path {
        current = current.as_object()?.get(*key)?;
    }
    (!current.is_null()).then_some(current)
}

pub fn at_mut<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    let mut current = value;
    for key in path {
        current = current.as_object_mut()?.get_mut(*key)?;
    }
    (!current.is_null()).then_some(current)
}

/// The string at a path, `None` when it is absent or no string.
pub fn str_at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(value, path)?.as_str()
}

/// The string at a path, empty when absent: Go's zero value.
pub fn string<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    str_at(value, path).unwrap_or("")
}

pub fn i64_at(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path)?.as_i64()
}

pub fn bool_at(value: &Value, path: &[&str]) -> Option<bool> {
    at(value, path)?.as_bool()
}

/// The items of the list at a path; empty when absent.
pub fn items<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub fn items_mut<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut [Value] {
    match at_mut(value, path).and_then(Value::as_array_mut) {
        Some(list) => list.as_mut_slice(),
        None => &mut [],
    }
}

pub fn map_at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Map<String, Value>> {
    at(value, path)?.as_object()
}

/// Puts a value at a path, making the objects on the way (anything that is no object is replaced).
pub fn set(value: &mut Value, path: &[&str], new: impl Into<Value>) {
    let Some((last, parents)) = path.split_last() else {
        *value = new.into();
        return;
    };
    object_mut(value, parents).insert((*last).to_string(), new.into());
}

/// Puts a value at a path unless something is there already.
pub fn set_default(value: &mut Value, path: &[&str], new: impl Into<Value>) {
    if at(value, path).is_none() {
        set(value, path, new);
    }
}

/// The object at a path, made when it is not there.
pub fn object_mut<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut current = as_object_mut(value);
    for key in path {
        current = as_object_mut(current.entry(*key).or_insert(Value::Null));
    }
    current
}

fn as_object_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("just made an object"),
    }
}

pub fn remove(value: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    at_mut(value, parents)?.as_object_mut()?.remove(*last)
}

/// Moves what is at one path to another; a `null` goes nowhere.
pub fn relocate(value: &mut Value, from: &[&str], to: &[&str]) {
    if let Some(found) = remove(value, from).filter(|found| !found.is_null()) {
        set(value, to, found);
    }
}

/// Takes away what is Go's zero value, where it is not printed.
pub fn remove_zero(value: &mut Value, path: &[&str]) {
    if at(value, path).is_some_and(|found| found == "" || found == 0 || *found == false) {
        remove(value, path);
    }
}

pub fn name(object: &Value) -> &str {
    string(object, &["metadata", "name"])
}

/// Empty for cluster-scoped objects.
pub fn namespace(object: &Value) -> &str {
    string(object, &["metadata", "namespace"])
}

pub fn uid(object: &Value) -> &str {
    string(object, &["metadata", "uid"])
}

pub fn resource_version(object: &Value) -> &str {
    string(object, &["metadata", "resourceVersion"])
}

pub fn generation(object: &Value) -> i64 {
    i64_at(object, &["metadata", "generation"]).unwrap_or(0)
}

pub fn api_version(object: &Value) -> &str {
    string(object, &["apiVersion"])
}

pub fn kind(object: &Value) -> &str {
    string(object, &["kind"])
}

pub fn labels(object: &Value) -> Option<&Map<String, Value>> {
    map_at(object, &["metadata", "labels"])
}

pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    labels(object)?.get(key)?.as_str()
}

pub fn annotations(object: &Value) -> Option<&Map<String, Value>> {
    map_at(object, &["metadata", "annotations"])
}

pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    annotations(object)?.get(key)?.as_str()
}

pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    items(object, &["metadata", "finalizers"])
        .iter()
        .filter_map(Value::as_str)
}

pub fn is_deleting(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_some()
}

pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    object_mut(object, &["metadata"])
}

/// The owner that acts as the controller: `controller: true`.
pub fn controller_ref(object: &Value) -> Option<&Value> {
    items(object, &["metadata", "ownerReferences"])
        .iter()
        .find(|owner| bool_at(owner, &["controller"]) == Some(true))
}

/// (group, version) of an `apiVersion`.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

pub fn join_api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_string()
    } else {
        format!("{group}/{version}")
    }
}

/// The condition of a type in `status.conditions`.
pub fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    items(object, &["status", "conditions"])
        .iter()
        .find(|condition| str_at(condition, &["type"]) == Some(type_))
}

pub fn condition_is_true(object: &Value, type_: &str) -> bool {
    condition(object, type_).is_some_and(|condition| str_at(condition, &["status"]) == Some("True"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn null_counts_as_absent() {
        let object = json!({"metadata": {"name": "a", "labels": null}, "spec": {"replicas": 2}});
        assert_eq!(name(&object), "a");
        assert!(labels(&object).is_none());
        assert_eq!(i64_at(&object, &["spec", "replicas"]), Some(2));
        assert_eq!(str_at(&object, &["spec", "replicas", "x"]), None);
    }

    #[test]
    fn set_makes_the_way() {
        let mut object = json!({"spec": null});
        set(&mut object, &["spec", "a", "b"], 1);
        set_default(&mut object, &["spec", "a", "b"], 2);
        assert_eq!(object, json!({"spec": {"a": {"b": 1}}}));
        assert_eq!(remove(&mut object, &["spec", "a"]), Some(json!({"b": 1})));
    }
}
