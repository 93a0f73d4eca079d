//! Kinds of the core group that run no pods.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Object, each, object, resource_list, text, unset, value};

pub fn secret(secret: &mut Value) {
    let Value::Object(map) = secret else { return };
    text(map, "type", "Opaque");
    // stringData is write-only: its values replace those of data
    if let Some(Value::Object(plain)) = map.remove("stringData")
        && !plain.is_empty()
        && let Some(data) = object(map, "data")
    {
        for (key, text) in plain {
            let encoded = STANDARD.encode(text.as_str().unwrap_or(""));
            data.insert(key, encoded.into());
        }
    }
}

pub fn namespace(namespace: &mut Value) {
    let name = crate::meta::name(namespace).to_string();
    let Value::Object(map) = namespace else { return };
    object(map, "spec");
    if let Some(status) = object(map, "status") {
        text(status, "phase", "Active");
    }
    if !name.is_empty()
        && let Some(labels) = object(map, "metadata").and_then(|metadata| object(metadata, "labels"))
        && labels.get("kubernetes.io/metadata.name").and_then(Value::as_str) != Some(&name)
    {
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
    }
}

pub fn node(node: &mut Value) {
    let Value::Object(map) = node else { return };
    if let Some(spec) = object(map, "spec") {
        let one = spec
            .get("podCIDR")
            .and_then(Value::as_str)
            .filter(|cidr| !cidr.is_empty());
        let first = spec.get("podCIDRs").and_then(|cidrs| cidrs.get(0)?.as_str());
        match (one.map(str::to_owned), first.map(str::to_owned)) {
            // The singular counts where they differ: who knows the plural alone leaves it as it was read.
            (Some(one), first) if first.as_ref() != Some(&one) => {
                spec.insert("podCIDRs".into(), json!([one]));
            }
            (None, Some(first)) => {
                spec.insert("podCIDR".into(), first.into());
            }
            _ => {}
        }
    }
    if let Some(status) = object(map, "status") {
        resource_list(status, "capacity");
        resource_list(status, "allocatable");
        if unset(status, "allocatable")
            && let Some(capacity) = status.get("capacity").cloned()
        {
            status.insert("allocatable".into(), capacity);
        }
        if let Some(endpoints) = object(status, "daemonEndpoints")
            && let Some(kubelet) = object(endpoints, "kubeletEndpoint")
        {
            // this one field's name is upper case in the API
            value(kubelet, "Port", 0);
        }
        if let Some(info) = object(status, "nodeInfo") {
            for key in [
                "machineID",
                "systemUUID",
                "bootID",
                "kernelVersion",
                "osImage",
                "containerRuntimeVersion",
                "kubeletVersion",
                "kubeProxyVersion",
                "operatingSystem",
                "architecture",
            ] {
                value(info, key, "");
            }
        }
    }
}

pub fn endpoints(endpoints: &mut Value) {
    let Value::Object(map) = endpoints else { return };
    for subset in each(map, "subsets") {
        for port in each(subset, "ports") {
            text(port, "protocol", "TCP");
        }
    }
}

/// Fields that Go prints whatever they hold.
pub fn event(event: &mut Value) {
    let Value::Object(map) = event else { return };
    object(map, "involvedObject");
    object(map, "source");
    for key in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        map.entry(key).or_insert(Value::Null);
    }
    for key in ["reportingComponent", "reportingInstance"] {
        value(map, key, "");
    }
}

pub fn persistent_volume(volume: &mut Value) {
    let Value::Object(map) = volume else { return };
    if let Some(status) = object(map, "status") {
        text(status, "phase", "Pending");
    }
    if let Some(spec) = object(map, "spec") {
        text(spec, "persistentVolumeReclaimPolicy", "Retain");
        value(spec, "volumeMode", "Filesystem");
        resource_list(spec, "capacity");
        super::pod::source_defaults(spec);
    }
}

pub fn persistent_volume_claim(claim_object: &mut Value) {
    if let Value::Object(map) = claim_object {
        claim(map);
    }
}

pub(super) fn claim(map: &mut Object) {
    object(map, "metadata");
    if let Some(status) = object(map, "status") {
        text(status, "phase", "Pending");
    }
    if let Some(spec) = object(map, "spec") {
        value(spec, "volumeMode", "Filesystem");
        if let Some(resources) = object(spec, "resources") {
            resource_list(resources, "limits");
            resource_list(resources, "requests");
        }
    }
}

pub fn resource_quota(quota: &mut Value) {
    let Value::Object(map) = quota else { return };
    if let Some(spec) = object(map, "spec") {
        resource_list(spec, "hard");
    }
    if let Some(status) = object(map, "status") {
        resource_list(status, "hard");
        resource_list(status, "used");
    }
}

pub fn limit_range(range: &mut Value) {
    let Value::Object(map) = range else { return };
    let Some(spec) = object(map, "spec") else { return };
    for item in each(spec, "limits") {
        for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            resource_list(item, list);
        }
        if super::str_of(item, "type") == "Container" {
            fill(item, "max", "default");
            fill(item, "default", "defaultRequest");
            fill(item, "min", "defaultRequest");
        }
    }
}

/// Copies the entries of one resource list that another lacks.
fn fill(item: &mut Object, from: &str, to: &str) {
    let Some(Value::Object(source)) = item.get(from).cloned() else {
        item.entry(to).or_insert_with(|| Value::Object(Map::new()));
        return;
    };
    if let Some(target) = object(item, to) {
        for (name, quantity) in source {
            target.entry(name).or_insert(quantity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_data_is_encoded() {
        let mut object = json!({"data": {"a": "eA=="}, "stringData": {"a": "y", "b": "z"}});
        secret(&mut object);
        assert_eq!(object, json!({"type": "Opaque", "data": {"a": "eQ==", "b": "eg=="}}));
    }

    #[test]
    fn a_namespace_is_labelled_with_its_name() {
        let mut object = json!({"metadata": {"name": "n"}});
        namespace(&mut object);
        assert_eq!(object["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
        assert_eq!(object["status"]["phase"], "Active");
    }
}
