//! What may change in a pod through `ephemeralcontainers` and through `resize`.

use std::collections::HashMap;

use serde_json::Value;

use super::differs;
use super::pod::SPEC;
use super::pod_annotations::MIRROR;
use super::pod_update::annotation_changes;
use super::{Errors, each, has, list, same, text};
use crate::status::FieldError;
use crate::{defaults, meta as object};

/// Containers are added; those that are there stay as they are.
pub fn pod_ephemeral_containers(new: &Value, old: &Value, errors: &mut Errors) {
    const KEY: &str = "ephemeralContainers";
    super::pod(new, errors);
    annotation_changes(new, old, errors);
    if refused_of_kind(old, "static pods do not support ephemeral containers", None, errors) {
        return;
    }
    let own = object::items(new, &["spec", KEY]).iter();
    let own: HashMap<&str, &Value> = own.map(|container| (text(container, "name"), container)).collect();
    for old in object::items(old, &["spec", KEY]) {
        let name = text(old, "name");
        let why = match own.get(name) {
            None => format!("existing ephemeral containers {name:?} may not be removed\n"),
            Some(new) if !same(Some(new), Some(old)) => format!(
                "existing ephemeral containers {name:?} may not be changed{}",
                differs::hunk(new, old)
            ),
            Some(_) => continue,
        };
        errors.push(FieldError::forbidden(SPEC.child(KEY), why));
    }
}

/// The path of nothing, as upstream prints it.
const NOWHERE: &str = "[]";

/// A pod of a kind for which there is nothing to be asked: that is all that is told.
fn refused_of_kind(old: &Value, mirror: &str, windows: Option<&str>, errors: &mut Errors) -> bool {
    let is_windows = object::string(old, &["spec", "os", "name"]) == "windows";
    let why = match object::annotation(old, MIRROR) {
        Some(_) => Some(mirror),
        None => windows.filter(|_| is_windows),
    };
    if let Some(why) = why {
        errors.clear();
        errors.push(FieldError::forbidden(NOWHERE, why));
    }
    why.is_some()
}

const REQUIREMENTS: [&str; 2] = ["requests", "limits"];
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// How much CPU and memory the containers get that run on.
pub fn pod_resize(new: &Value, old: &Value, errors: &mut Errors) {
    super::pod(new, errors);
    const WINDOWS: &str = "windows pods cannot be resized";
    if refused_of_kind(old, "static pods cannot be resized", Some(WINDOWS), errors) {
        return;
    }
    let class = object::string(old, &["status", "qosClass"]);
    let before = if class.is_empty() {
        defaults::qos_class(old)
    } else {
        class
    };
    if before != defaults::qos_class(new) {
        let shown = object::string(new, &["status", "qosClass"]);
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(SPEC, shown, why));
    }
    if !node_resizes(old) {
        errors.push(FieldError::forbidden(
            SPEC,
            "Pod running on node without support for resize",
        ));
    }
    if asks_as_a_whole(old) || asks_as_a_whole(new) {
        let why = "resize of pods with pod-level resources is forbidden when InPlacePodLevelResourcesVerticalScalingEnabled feature gate is disabled";
        errors.push(FieldError::forbidden(NOWHERE, why));
        return;
    }
    if are_others(new, old, errors) {
        return;
    }
    for key in ["initContainers", "containers"] {
        nothing_is_taken_away(new, old, key, errors);
    }
    for key in ["containers", "initContainers"] {
        only_resizable(new, old, key, errors);
    }
}

/// What the node says of a running container shows whether it can.
fn node_resizes(pod: &Value) -> bool {
    let statuses = object::items(pod, &["status", "containerStatuses"]).iter();
    let mut running = statuses.filter(|status| object::at(status, &["state", "running"]).is_some());
    running.next().is_none_or(|status| has(status, "resources").is_some())
}

fn asks_as_a_whole(pod: &Value) -> bool {
    let asked = |list| object::map_at(pod, &["spec", "resources", list]).is_some_and(|own| !own.is_empty());
    REQUIREMENTS.into_iter().any(asked)
}

/// Other containers than before, or in another order.
fn are_others(new: &Value, old: &Value, errors: &mut Errors) -> bool {
    let known = errors.len();
    for key in ["containers", "initContainers"] {
        let (own, before) = (object::items(new, &["spec", key]), object::items(old, &["spec", key]));
        let path = SPEC.child(key);
        if own.len() != before.len() {
            let why = format!("{key} may not be added or removed on resize");
            errors.push(FieldError::forbidden(path, why));
            continue;
        }
        for (index, (own, before)) in own.iter().zip(before).enumerate() {
            if text(own, "name") != text(before, "name") {
                let why = format!("{key} may not be renamed or reordered on resize");
                errors.push(FieldError::forbidden(path.index(index).child("name"), why));
            }
        }
    }
    errors.len() > known
}

/// Init containers that end have had what they asked for.
fn runs_on(key: &str, container: &Value) -> bool {
    key == "containers" || text(container, "restartPolicy") == "Always"
}

fn nothing_is_taken_away(new: &Value, old: &Value, key: &str, errors: &mut Errors) {
    let path = SPEC.child(key);
    let news = object::items(new, &["spec", key]);
    for ((index, old), new) in each(&old["spec"], key).zip(news) {
        if !runs_on(key, old) {
            continue;
        }
        for kind in REQUIREMENTS {
            let own = |container| object::map_at(container, &["resources", kind]);
            let kept = |name: &String| own(new).is_some_and(|new| new.contains_key(name));
            if own(old).is_some_and(|old| !old.keys().all(kept)) {
                let why = format!("resource {kind} cannot be removed");
                let container = path.index(index);
                let resources = container.child("resources");
                errors.push(FieldError::forbidden(resources.child(kind), why));
            }
        }
    }
}

fn only_resizable(new: &Value, old: &Value, key: &str, errors: &mut Errors) {
    let olds = list(&old["spec"], key);
    for (new, old) in object::items(new, &["spec", key]).iter().zip(olds) {
        let (why, allowed) = match (key, runs_on(key, new)) {
            ("containers", _) => ("only cpu and memory resources are mutable", true),
            (_, true) => ("only cpu and memory resources for sidecar containers are mutable", true),
            (_, false) => ("resources for non-sidecar init containers are immutable", false),
        };
        let unchanged = if allowed {
            same(Some(&with_old_sizes(new, old)), Some(old))
        } else {
            same(Some(new), Some(old))
        };
        if !unchanged {
            errors.push(FieldError::forbidden(SPEC, why));
        }
    }
}

/// The container with what may change taken from the old one; its claims are none of it.
fn with_old_sizes(new: &Value, old: &Value) -> Value {
    let mut munged = new.clone();
    object::remove(&mut munged, &["resources", "claims"]);
    for kind in REQUIREMENTS {
        for name in RESIZABLE {
            let path = ["resources", kind, name];
            match object::at(old, &path) {
                Some(size) => object::set(&mut munged, &path, size.clone()),
                None => drop(object::remove(&mut munged, &path)),
            }
        }
    }
    munged
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        let mut pod = json!({"metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "1"},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}],
                "initContainers": [{"name": "once", "image": "i"},
                    {"name": "side", "image": "i", "restartPolicy": "Always", "resources": {"limits": {"memory": "1Gi"}}}],
                "ephemeralContainers": [{"name": "e", "image": "i"}]},
            "status": {"qosClass": "Burstable"}});
        defaults::pod(&mut pod);
        pod
    }

    fn told(check: fn(&Value, &Value, &mut Errors), change: fn(&mut Value), before: fn(&mut Value)) -> Vec<String> {
        let mut old = pod();
        before(&mut old);
        let mut new = old.clone();
        change(&mut new);
        defaults::pod(&mut new);
        let mut errors = Errors::new();
        check(&new, &old, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ephemeral_containers_are_added_alone() {
        let told = |change: fn(&mut Value)| told(pod_ephemeral_containers, change, |_| {});
        let none: [&str; 0] = [];
        assert_eq!(told(|_| {}), none);
        let more = |pod: &mut Value| {
            pod["spec"]["ephemeralContainers"] = json!([{"name": "f", "image": "j", "targetContainerName": "c"},
                pod["spec"]["ephemeralContainers"][0]]);
        };
        assert_eq!(told(more), none);
        assert_eq!(
            told(|pod| pod["spec"]["ephemeralContainers"][0]["image"] = "j".into()),
            [
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be changed\n@@ -1,5 +1,5 @@\n {\n\
                 -  \"image\": \"i\",\n+  \"image\": \"j\",\n   \"imagePullPolicy\": \"Always\",\n   \"name\": \"e\",\n   \"resources\": {},\n"
            ]
        );
        assert_eq!(
            told(|pod| pod["spec"]["ephemeralContainers"] = json!([])),
            ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed\n"]
        );
    }

    #[test]
    fn cpu_and_memory_are_resized_alone() {
        let told = |change: fn(&mut Value)| told(pod_resize, change, |_| {});
        let none: [&str; 0] = [];
        assert_eq!(told(|_| {}), none);
        assert_eq!(
            told(|pod| pod["spec"]["containers"][0]["resources"] =
                json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2"}})),
            none
        );
        assert_eq!(
            told(|pod| pod["spec"]["initContainers"][1]["resources"] =
                json!({"limits": {"memory": "2Gi"}, "requests": {"memory": "1Gi"}})),
            none
        );
        assert_eq!(
            told(|pod| pod["spec"]["initContainers"][0]["resources"] = json!({"requests": {"cpu": "1"}})),
            ["spec: Forbidden: resources for non-sidecar init containers are immutable"]
        );
        assert_eq!(
            told(|pod| pod["spec"]["containers"][0]["resources"] = json!({"requests": {"ephemeral-storage": "1"}})),
            [
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
                "spec: Forbidden: only cpu and memory resources are mutable"
            ]
        );
        assert_eq!(
            told(|pod| pod["spec"]["containers"][0]["name"] = "d".into()),
            ["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"]
        );
    }

    #[test]
    fn some_pods_are_not_resized() {
        let bigger = |pod: &mut Value| pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2".into();
        assert_eq!(
            told(pod_resize, bigger, |pod| pod["metadata"]["annotations"][MIRROR] =
                "m".into()),
            ["[]: Forbidden: static pods cannot be resized"]
        );
        assert_eq!(
            told(pod_resize, bigger, |pod| pod["status"]["containerStatuses"] =
                json!([{"state": {"running": {}}}])),
            ["spec: Forbidden: Pod running on node without support for resize"]
        );
        assert_eq!(
            told(pod_resize, bigger, |pod| pod["status"]["qosClass"] =
                "BestEffort".into()),
            ["spec: Invalid value: \"BestEffort\": Pod QOS Class may not change as a result of resizing"]
        );
    }
}
