//! Pods and the pod templates of every workload kind.

use serde_json::{Map, Value, json};

use super::{Object, each, get, number, object, resource_list, text, unset, value};
use crate::meta;
use crate::quantity::{self, Quantity};

/// A Pod: what every pod spec gets, and what only a pod itself gets.
pub fn pod(pod: &mut Value) {
    let Value::Object(pod) = pod else { return };
    let Some(spec) = object(pod, "spec") else { return };
    spec_defaults(spec);
    if spec
        .get("terminationGracePeriodSeconds")
        .and_then(Value::as_i64)
        .is_some_and(|seconds| seconds < 0)
    {
        spec.insert("terminationGracePeriodSeconds".into(), 1.into());
    }
    for list in ["containers", "initContainers"] {
        for container in each(spec, list) {
            if let Some(resources) = get(container, "resources") {
                requests_from_limits(resources);
            }
        }
    }
    pod_resources(spec);
    value(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        for list in ["containers", "initContainers"] {
            for container in each(spec, list) {
                for port in each(container, "ports") {
                    if let Some(number) = port.get("containerPort").cloned()
                        && port.get("hostPort").and_then(Value::as_i64).unwrap_or(0) == 0
                    {
                        port.insert("hostPort".into(), number);
                    }
                }
            }
        }
    }
    if let Some(status) = object(pod, "status") {
        status_addresses(status);
    }
}

/// A PodTemplate object.
pub fn pod_template_object(template: &mut Value) {
    if let Value::Object(template) = template {
        pod_template(template);
    }
}

/// `template` of the object that holds it.
pub fn pod_template(holder: &mut Object) {
    let Some(template) = object(holder, "template") else {
        return;
    };
    object(template, "metadata");
    if let Some(spec) = object(template, "spec") {
        spec_defaults(spec);
    }
}

/// A pod spec by itself.
pub fn pod_spec(spec: &mut Value) {
    if let Value::Object(spec) = spec {
        spec_defaults(spec);
    }
}

fn spec_defaults(spec: &mut Object) {
    text(spec, "dnsPolicy", "ClusterFirst");
    text(spec, "restartPolicy", "Always");
    value(spec, "securityContext", Value::Object(Map::new()));
    value(spec, "terminationGracePeriodSeconds", 30);
    text(spec, "schedulerName", "default-scheduler");
    service_account(spec);
    for volume in each(spec, "volumes") {
        volume_defaults(volume);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in each(spec, list) {
            container_defaults(container);
        }
    }
    resource_list(spec, "overhead");
    if let Some(resources) = get(spec, "resources") {
        resource_list(resources, "limits");
        resource_list(resources, "requests");
    }
}

/// The deprecated `serviceAccount` mirrors `serviceAccountName`.
fn service_account(spec: &mut Object) {
    let filled = |map: &Object, key: &str| {
        map.get(key)
            .and_then(Value::as_str)
            .is_some_and(|name| !name.is_empty())
    };
    if filled(spec, "serviceAccountName") {
        if spec.get("serviceAccount") != spec.get("serviceAccountName")
            && let Some(name) = spec.get("serviceAccountName").cloned()
        {
            spec.insert("serviceAccount".into(), name);
        }
    } else if filled(spec, "serviceAccount")
        && let Some(name) = spec.get("serviceAccount").cloned()
    {
        spec.insert("serviceAccountName".into(), name);
    }
}

fn container_defaults(container: &mut Object) {
    let image = super::str_of(container, "image");
    let policy = if is_latest(image) { "Always" } else { "IfNotPresent" };
    text(container, "imagePullPolicy", policy);
    text(container, "terminationMessagePath", "/dev/termination-log");
    text(container, "terminationMessagePolicy", "File");
    for port in each(container, "ports") {
        text(port, "protocol", "TCP");
    }
    for env in each(container, "env") {
        if let Some(source) = get(env, "valueFrom") {
            if let Some(field) = get(source, "fieldRef") {
                text(field, "apiVersion", "v1");
            }
            if let Some(resource) = get(source, "resourceFieldRef") {
                divisor(resource);
            }
            if let Some(file) = get(source, "fileKeyRef") {
                value(file, "optional", false);
            }
        }
    }
    if let Some(resources) = object(container, "resources") {
        resource_list(resources, "limits");
        resource_list(resources, "requests");
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = get(container, probe) {
            number(probe, "timeoutSeconds", 1);
            number(probe, "periodSeconds", 10);
            number(probe, "successThreshold", 1);
            number(probe, "failureThreshold", 3);
            http_get(probe);
            if let Some(grpc) = get(probe, "grpc") {
                value(grpc, "service", "");
            }
        }
    }
    if let Some(lifecycle) = get(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = get(lifecycle, hook) {
                http_get(hook);
            }
        }
    }
}

fn http_get(handler: &mut Object) {
    if let Some(http) = get(handler, "httpGet") {
        text(http, "path", "/");
        text(http, "scheme", "HTTP");
    }
}

/// Whether an image reference means the tag `latest`: named so, or neither tagged nor pinned by a digest.
fn is_latest(image: &str) -> bool {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let base = name.rsplit('/').next().unwrap_or(name);
    match base.split_once(':') {
        Some((_, tag)) => tag == "latest",
        // an unreadable reference (upper case, empty) has no tag at all
        None => digest.is_none() && !base.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase()),
    }
}

fn volume_defaults(volume: &mut Object) {
    let has_source = volume.iter().any(|(key, value)| key != "name" && !value.is_null());
    if !has_source {
        volume.insert("emptyDir".into(), Value::Object(Map::new()));
        return;
    }
    for (source, mode) in [
        ("secret", 420),
        ("configMap", 420),
        ("downwardAPI", 420),
        ("projected", 420),
    ] {
        if let Some(source) = get(volume, source) {
            value(source, "defaultMode", mode);
        }
    }
    if let Some(source) = get(volume, "downwardAPI") {
        downward_items(source);
    }
    if let Some(projected) = get(volume, "projected") {
        for source in each(projected, "sources") {
            if let Some(downward) = get(source, "downwardAPI") {
                downward_items(downward);
            }
            if let Some(token) = get(source, "serviceAccountToken") {
                value(token, "expirationSeconds", 3600);
            }
        }
    }
    source_defaults(volume);
    if let Some(claim) = get(volume, "ephemeral").and_then(|source| get(source, "volumeClaimTemplate"))
        && let Some(spec) = get(claim, "spec")
    {
        value(spec, "volumeMode", "Filesystem");
    }
    if let Some(source) = get(volume, "emptyDir")
        && let Some(limit) = source.get_mut("sizeLimit")
    {
        quantity::canonicalize(limit);
    }
    if let Some(source) = get(volume, "image") {
        let policy = if is_latest(super::str_of(source, "reference")) {
            "Always"
        } else {
            "IfNotPresent"
        };
        text(source, "pullPolicy", policy);
    }
}

/// What a volume is made of: (source, field, what it is where nobody says). Of pods and of PersistentVolumes.
const SOURCES: [(&str, &str, &str); 5] = [
    ("iscsi", "iscsiInterface", "default"),
    ("rbd", "keyring", "/etc/ceph/keyring"),
    ("rbd", "pool", "rbd"),
    ("rbd", "user", "admin"),
    ("scaleIO", "storageMode", "ThinProvisioned"),
];

/// The same of pointers, of which an empty text is none's.
const AZURE_DISK: [(&str, &str); 3] = [("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("kind", "Shared")];

pub(super) fn source_defaults(holder: &mut Object) {
    if let Some(source) = get(holder, "hostPath") {
        value(source, "type", "");
    }
    if holder.len() == 2 && (holder.contains_key("emptyDir") || holder.contains_key("projected")) {
        return;
    }
    for (source, field, default) in SOURCES {
        if let Some(source) = get(holder, source) {
            text(source, field, default);
        }
    }
    if let Some(source) = get(holder, "azureDisk") {
        for (field, default) in AZURE_DISK {
            value(source, field, default);
        }
        value(source, "readOnly", false);
    }
    if let Some(source) = get(holder, "scaleIO") {
        text(source, "fsType", "xfs");
    }
}

/// A pod's own limits and requests, filled in from its containers' and from each other.
fn pod_resources(spec: &mut Object) {
    let empty = |spec: &Object, key: &str| {
        let own = spec.get("resources").and_then(|own| own.get(key)?.as_object());
        own.is_none_or(Map::is_empty)
    };
    if unset(spec, "resources") || (empty(spec, "limits") && empty(spec, "requests")) {
        return;
    }
    let supported = |name: &str| matches!(name, "cpu" | "memory") || name.starts_with("hugepages-");
    let total = |spec: &Object, key: &str| -> Vec<(String, Value)> {
        let sums = quantity::aggregate(spec, key).into_iter();
        let own = sums.filter(|(name, _)| supported(name));
        own.map(|(name, sum)| (name.to_string(), sum.to_string().into()))
            .collect()
    };
    let fill = |spec: &mut Object, key: &str, name: String, value: Value| {
        if let Some(own) = get(spec, "resources").and_then(|own| object(own, key)) {
            own.entry(name).or_insert(value);
        }
    };
    for (name, sum) in total(spec, "limits") {
        let asked = meta::at(&spec["resources"], &["requests", &name]).is_some();
        if name.starts_with("hugepages-") && !asked {
            fill(spec, "limits", name, sum);
        }
    }
    if empty(spec, "limits") {
        return;
    }
    for (name, sum) in total(spec, "requests") {
        if !name.starts_with("hugepages-") {
            fill(spec, "requests", name, sum);
        }
    }
    let limits = meta::map_at(&spec["resources"], &["limits"])
        .cloned()
        .unwrap_or_default();
    for (name, limit) in limits.into_iter().filter(|(name, _)| supported(name)) {
        fill(spec, "requests", name, limit);
    }
}

fn downward_items(source: &mut Object) {
    for item in each(source, "items") {
        if let Some(field) = get(item, "fieldRef") {
            text(field, "apiVersion", "v1");
        }
        if let Some(resource) = get(item, "resourceFieldRef") {
            divisor(resource);
        }
    }
}

/// Go prints a quantity that nobody set as `0`.
fn divisor(resource: &mut Object) {
    value(resource, "divisor", "0");
    if let Some(divisor) = resource.get_mut("divisor") {
        quantity::canonicalize(divisor);
    }
}

/// A limit without a request is the request too.
fn requests_from_limits(resources: &mut Object) {
    let Some(Value::Object(limits)) = resources.get("limits") else {
        return;
    };
    let requests = resources.get("requests").and_then(Value::as_object);
    let missing: Vec<(String, Value)> = limits
        .iter()
        .filter(|(name, _)| requests.is_none_or(|requests| !requests.contains_key(*name)))
        .map(|(name, quantity)| (name.clone(), quantity.clone()))
        .collect();
    if missing.is_empty() {
        return;
    }
    if let Some(requests) = object(resources, "requests") {
        requests.extend(missing);
    }
}

/// `podIP` is the first of `podIPs`, `hostIP` the first of `hostIPs`: either alone makes the other. Where they differ `podIP`
/// counts.
fn status_addresses(status: &mut Object) {
    if let Some(Value::String(one)) = status.get("podIP")
        && !one.is_empty()
        && let Some(first) = status.get("podIPs").and_then(|many| many.get(0))
        && meta::string(first, &["ip"]) != one
    {
        let address = json!([{"ip": one}]);
        status.insert("podIPs".into(), address);
    }
    for (one, many) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        match (unset(status, one), unset(status, many)) {
            (false, true) if status[one] != "" => {
                let address = status[one].clone();
                status.insert(many.into(), json!([{"ip": address}]));
            }
            (true, false) => {
                if let Some(address) = status[many].get(0).and_then(|first| first.get("ip")).cloned() {
                    status.insert(one.into(), address);
                }
            }
            _ => {}
        }
    }
}

/// The quality of service class of a pod's resources: `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(pod: &Value) -> &'static str {
    let mut requests: [Option<Quantity>; 2] = [None, None];
    let mut limits: [Option<Quantity>; 2] = [None, None];
    let mut guaranteed = true;
    const NAMES: [&str; 2] = ["cpu", "memory"];
    let add = |sums: &mut [Option<Quantity>; 2], resources: &Value, list: &str| -> usize {
        let mut found = 0;
        for (sum, name) in sums.iter_mut().zip(NAMES) {
            let Some(quantity) = meta::at(resources, &[list, name]).and_then(|value| quantity::from_json(value).ok())
            else {
                continue;
            };
            if quantity.signum() > 0 {
                found += 1;
                *sum = Some(sum.map_or(quantity, |sum| sum + quantity));
            }
        }
        found
    };
    let mut count = |owner: &Value| {
        let resources = owner.get("resources").unwrap_or(&Value::Null);
        add(&mut requests, resources, "requests");
        if add(&mut limits, resources, "limits") < 2 {
            guaranteed = false;
        }
    };
    match meta::at(pod, &["spec"]) {
        // What a pod asks for as a whole says it all.
        Some(spec) if spec.get("resources").is_some_and(Value::is_object) => count(spec),
        _ => ["containers", "initContainers"]
            .iter()
            .flat_map(|list| meta::items(pod, &["spec", list]))
            .for_each(count),
    }
    if requests.iter().chain(&limits).all(Option::is_none) {
        return "BestEffort";
    }
    if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_pod() {
        let mut object = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "busybox",
            "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}},
            "livenessProbe": {"httpGet": {"port": 80}}, "ports": [{"containerPort": 80}]}],
            "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "x"}}, {"name": "h", "hostPath": {"path": "/"}}],
            "serviceAccount": "sa"}});
        pod(&mut object);
        let expected = json!({"metadata": {"name": "a"}, "status": {}, "spec": {
            "containers": [{"name": "c", "image": "busybox", "imagePullPolicy": "Always",
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}},
                "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                    "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "x", "defaultMode": 420}},
                {"name": "h", "hostPath": {"path": "/", "type": ""}}],
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {}, "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30, "enableServiceLinks": true,
            "serviceAccount": "sa", "serviceAccountName": "sa"}});
        assert_eq!(object, expected);
        pod(&mut object);
        assert_eq!(object, expected, "defaulting twice changes nothing");
        assert_eq!(qos_class(&object), "Guaranteed");
    }

    #[test]
    fn latest_images() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1", false),
            ("r.io:5000/nginx", true),
            ("r.io:5000/nginx:1", false),
            ("nginx@sha256:0", false),
            ("", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn qos_classes() {
        let of = |resources: Value| qos_class(&json!({"spec": {"containers": [{"resources": resources}]}}));
        assert_eq!(of(json!({})), "BestEffort");
        assert_eq!(of(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(
            of(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})),
            "Burstable"
        );
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(of(json!({"limits": both, "requests": both})), "Guaranteed");
        let whole = |resources: Value| qos_class(&json!({"spec": {"resources": resources, "containers": [{}]}}));
        assert_eq!(whole(json!({"limits": both, "requests": both})), "Guaranteed");
        assert_eq!(whole(json!({"requests": both})), "Burstable");
        assert_eq!(whole(json!({})), "BestEffort");
    }
}
