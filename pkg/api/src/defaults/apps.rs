//! The workload kinds of apps/v1 and ReplicationController.

use serde_json::{Value, json};

use super::{Object, each, object, pod_template, str_of, text, unset, value};

/// The object's spec, with the status that Go always prints.
fn spec(object_value: &mut Value) -> Option<&mut Object> {
    let map = object_value.as_object_mut()?;
    object(map, "status");
    object(map, "spec")
}

pub fn deployment(deployment: &mut Value) {
    let Some(spec) = spec(deployment) else { return };
    pod_template(spec);
    value(spec, "replicas", 1);
    if let Some(strategy) = object(spec, "strategy") {
        text(strategy, "type", "RollingUpdate");
        if str_of(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = object(strategy, "rollingUpdate")
        {
            value(rolling, "maxUnavailable", "25%");
            value(rolling, "maxSurge", "25%");
        }
        numbers_of(strategy);
    }
    value(spec, "revisionHistoryLimit", 10);
    value(spec, "progressDeadlineSeconds", 600);
}

/// Go prints both, whatever the strategy's type.
fn numbers_of(strategy: &mut Object) {
    if let Some(rolling) = super::get(strategy, "rollingUpdate") {
        value(rolling, "maxUnavailable", 0);
        value(rolling, "maxSurge", 0);
    }
}

pub fn replica_set(replica_set: &mut Value) {
    let Some(spec) = spec(replica_set) else { return };
    pod_template(spec);
    value(spec, "replicas", 1);
}

pub fn stateful_set(stateful_set: &mut Value) {
    let Some(spec) = spec(stateful_set) else { return };
    pod_template(spec);
    text(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = object(spec, "updateStrategy") {
        if str_of(strategy, "type").is_empty() {
            text(strategy, "type", "RollingUpdate");
            object(strategy, "rollingUpdate");
        }
        if str_of(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = super::get(strategy, "rollingUpdate")
        {
            value(rolling, "partition", 0);
        }
    }
    if let Some(policy) = object(spec, "persistentVolumeClaimRetentionPolicy") {
        text(policy, "whenDeleted", "Retain");
        text(policy, "whenScaled", "Retain");
    }
    value(spec, "replicas", 1);
    value(spec, "revisionHistoryLimit", 10);
    text(spec, "serviceName", "");
    for claim in each(spec, "volumeClaimTemplates") {
        text(claim, "apiVersion", "v1");
        text(claim, "kind", "PersistentVolumeClaim");
        super::core::claim(claim);
    }
}

/// What counts changes of a DaemonSet's template: a field of its own in versions before apps/v1.
pub(super) const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub fn daemon_set(daemon_set: &mut Value) {
    let annotations = crate::meta::object_mut(daemon_set, &["metadata", "annotations"]);
    // Whoever writes one owns it, as upstream makes it of the field.
    annotations.entry(TEMPLATE_GENERATION).or_insert_with(|| "0".into());
    let Some(spec) = spec(daemon_set) else { return };
    pod_template(spec);
    if let Some(strategy) = object(spec, "updateStrategy") {
        text(strategy, "type", "RollingUpdate");
        if str_of(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = object(strategy, "rollingUpdate")
        {
            value(rolling, "maxUnavailable", 1);
            value(rolling, "maxSurge", 0);
        }
        numbers_of(strategy);
    }
    value(spec, "revisionHistoryLimit", 10);
}

pub fn replication_controller(controller: &mut Value) {
    let Some(spec) = spec(controller) else { return };
    if !unset(spec, "template") {
        pod_template(spec);
    }
    value(spec, "replicas", 1);
    let labels = spec
        .get("template")
        .and_then(|template| template.get("metadata")?.get("labels"))
        .filter(|labels| labels.is_object())
        .cloned();
    let Some(labels) = labels else { return };
    if spec
        .get("selector")
        .and_then(Value::as_object)
        .is_none_or(|own| own.is_empty())
    {
        spec.insert("selector".into(), labels.clone());
    }
    labels_from(controller, labels);
}

/// An object without labels takes its template's.
pub(super) fn labels_from(object_value: &mut Value, labels: Value) {
    let metadata = crate::meta::metadata_mut(object_value);
    let empty = unset(metadata, "labels") || metadata["labels"] == json!({});
    if empty && labels != json!({}) {
        metadata.insert("labels".into(), labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_deployment() {
        let mut object = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        deployment(&mut object);
        let spec = &object["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
        );
        let pod = &spec["template"]["spec"];
        assert_eq!(pod["restartPolicy"], "Always");
        assert_eq!(pod["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert!(pod.get("enableServiceLinks").is_none(), "only a pod itself gets this");
    }
}
