//! Pods and pod templates.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::container::{self, Pod};
use super::rules::{
    Rules, Scope, always, call, check, each, format, format_if_set, object, one_of, range, required, texts, whole,
};
use super::{
    Errors, Path, annotations, each as each_of, flag, has, int, labels, list, node_selector, numbered, pod_annotations,
    resources, security, strings, text, volumes,
};
use crate::status::FieldError;
use crate::{meta as object_at, names};

pub(super) const SPEC: Path<'static> = Path::new("spec");
const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];

/// What needs to know nothing of the pod's containers, then the containers, then all else, in upstream's order.
const POD_SPEC: Rules = &[
    call("resourceClaims", resources::pod_claims),
    whole(container::containers),
    whole(container::init_containers),
    whole(container::ephemeral_containers),
    call("resources", resources::of_pod),
    whole(host_network_ports),
    one_of("restartPolicy", &["Always", "OnFailure", "Never"]),
    one_of("dnsPolicy", DNS_POLICIES),
    call("nodeSelector", node_labels),
    object("securityContext", security::POD),
    object("affinity", node_selector::AFFINITY),
    whole(dns_config),
    each("readinessGates", &[always("conditionType", names::qualified_name)]),
    call("schedulingGates", scheduling_gates),
    call("topologySpreadConstraints", node_selector::topology_spread),
    whole(security::windows_host_process),
    whole(security::host_users),
    whole(hostname_override),
    format("serviceAccountName", names::dns_subdomain),
    format("nodeName", names::dns_subdomain),
    range("activeDeadlineSeconds", 1, i32::MAX as i64),
    format("hostname", names::dns_label),
    format("subdomain", names::dns_label),
    call("tolerations", node_selector::tolerations),
    each(
        "hostAliases",
        &[always("ip", names::legacy_ip), texts("hostnames", names::dns_subdomain)],
    ),
    format("priorityClassName", names::dns_subdomain),
    format_if_set("runtimeClassName", names::dns_subdomain),
    call("preemptionPolicy", preemption_policy),
    call("overhead", overhead),
    whole(security::operating_system),
    whole(file_key_volumes),
];

/// Besides metadata.
pub fn pod(pod: &Value, errors: &mut Errors) {
    let metadata = has(pod, "metadata").unwrap_or(&Value::Null);
    let spec = has(pod, "spec").unwrap_or(&Value::Null);
    pod_annotations::check(metadata, spec, &Path::new("metadata").child("annotations"), errors);
    pod_spec(spec, Some(pod), &SPEC, errors);
    if text(spec, "serviceAccountName").is_empty() {
        token_needs_account(spec, errors);
    }
    for key in ["containers", "initContainers"] {
        let path = SPEC.child(key);
        for (index, own) in each_of(spec, key) {
            container::trimmed_image(own, &path.index(index), errors);
        }
    }
    if object_at::uid(pod).is_empty() || object_at::at(pod, &["status", "startTime"]).is_none() {
        create_only(pod, spec, errors);
    }
}

fn create_only(pod: &Value, spec: &Value, errors: &mut Errors) {
    if !object_at::resource_version(pod).is_empty() {
        return;
    }
    if !list(spec, "ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden(
            "spec.ephemeralContainers",
            "cannot be set on create",
        ));
    }
    if !text(spec, "nodeName").is_empty() && !list(spec, "schedulingGates").is_empty() {
        errors.push(FieldError::forbidden(
            "spec.nodeName",
            "cannot be set until all schedulingGates have been cleared",
        ));
    }
    let metadata = has(pod, "metadata").unwrap_or(&Value::Null);
    pod_annotations::match_fields(metadata, spec, &SPEC, errors);
}

fn token_needs_account(spec: &Value, errors: &mut Errors) {
    for (index, volume) in each_of(spec, "volumes") {
        let Some(projected) = has(volume, "projected") else {
            continue;
        };
        for (source, own) in each_of(projected, "sources") {
            if has(own, "serviceAccountToken").is_some() {
                errors.push(FieldError::forbidden(
                    format!("spec.volumes[{index}].projected.sources[{source}].serviceAccountToken"),
                    "must not be specified when serviceAccountName is not set",
                ));
            }
        }
    }
}

/// `template` of a workload kind; `path` is the template's.
pub fn pod_template(template: &Value, path: &Path<'_>, errors: &mut Errors) {
    let metadata = has(template, "metadata").unwrap_or(&Value::Null);
    labels(has(metadata, "labels"), &path.child("labels"), errors);
    annotations(has(metadata, "annotations"), &path.child("annotations"), errors);
    let spec = has(template, "spec").unwrap_or(&Value::Null);
    pod_annotations::check(metadata, spec, &path.child("annotations"), errors);
    let spec_path = path.child("spec");
    pod_spec(spec, None, &spec_path, errors);
    pod_annotations::match_fields(metadata, spec, &spec_path, errors);
    if !list(spec, "ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden(
            spec_path.child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        ));
    }
}

/// The kind PodTemplate.
pub fn pod_template_object(object: &Value, errors: &mut Errors) {
    let template = has(object, "template").unwrap_or(&Value::Null);
    pod_template(template, &Path::new("template"), errors);
}

/// Upstream's checks of a pod spec, of a Pod or (without one) of a template.
fn pod_spec(spec: &Value, pod: Option<&Value>, path: &Path<'_>, errors: &mut Errors) {
    const FIRST: Rules = &[required("terminationGracePeriodSeconds")];
    let object = pod.unwrap_or(&Value::Null);
    let claims = list(spec, "resourceClaims").iter().map(|claim| text(claim, "name"));
    let mut facts = Pod {
        spec,
        is_pod: pod.is_some(),
        volumes: Default::default(),
        claims: claims.filter(|name| !name.is_empty()).collect(),
    };
    check(FIRST, spec, &Scope::of(object), path, errors);
    let scope = Scope {
        object,
        pod: Some(&facts),
    };
    facts.volumes = volumes::volumes(spec, &scope, &path.child("volumes"), errors);
    let scope = Scope {
        object,
        pod: Some(&facts),
    };
    check(POD_SPEC, spec, &scope, path, errors);
}

fn node_labels(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    labels(Some(own), path, errors);
}

fn overhead(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    resources::overhead(own, path, errors);
}

fn preemption_policy(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    super::preemption(own.as_str().unwrap_or(""), path, errors);
}

fn host_network_ports(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if !flag(spec, "hostNetwork") {
        return;
    }
    let is_pod = scope.pod.is_some_and(|pod| pod.is_pod);
    let path = path.child("containers");
    for (index, own) in each_of(spec, "containers") {
        let container_path = path.index(index);
        let ports = container_path.child("ports");
        for (index, port) in each_of(own, "ports") {
            let host = int(port, "hostPort").unwrap_or(0);
            if (is_pod || host != 0) && host != int(port, "containerPort").unwrap_or(0) {
                errors.push(FieldError::invalid(
                    ports.index(index).child("hostPort"),
                    host,
                    "must match `containerPort` when `hostNetwork` is true",
                ));
            }
        }
    }
}

fn dns_config(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("dnsConfig");
    let config = has(spec, "dnsConfig");
    if text(spec, "dnsPolicy") == "None" {
        match config {
            None => {
                errors.push(FieldError::required(
                    path,
                    "must provide `dnsConfig` when `dnsPolicy` is None",
                ));
                return;
            }
            Some(config) if list(config, "nameservers").is_empty() => {
                errors.push(FieldError::required(
                    path.child("nameservers"),
                    "must provide at least one DNS nameserver when `dnsPolicy` is None",
                ));
                return;
            }
            Some(_) => {}
        }
    }
    let Some(config) = config else { return };
    let nameservers = path.child("nameservers");
    if list(config, "nameservers").len() > 3 {
        errors.push(FieldError::invalid(
            nameservers,
            Value::Array(list(config, "nameservers").to_vec()),
            "must not have more than 3 nameservers",
        ));
    }
    for (index, server) in strings(config, "nameservers").enumerate() {
        super::invalid_each(errors, &nameservers.index(index), server, names::legacy_ip(server));
    }
    dns_searches(config, &path.child("searches"), errors);
    let options = path.child("options");
    for (index, option) in each_of(config, "options") {
        if text(option, "name").is_empty() {
            errors.push(FieldError::required(options.index(index), "must not be empty"));
        }
    }
}

fn dns_searches(config: &Value, path: &Path<'_>, errors: &mut Errors) {
    let shown = || Value::Array(list(config, "searches").to_vec());
    if list(config, "searches").len() > 32 {
        errors.push(FieldError::invalid(
            path,
            shown(),
            "must not have more than 32 search paths",
        ));
    }
    let length: usize = strings(config, "searches").map(|search| search.len() + 1).sum();
    if length > 2049 {
        errors.push(FieldError::invalid(
            path,
            shown(),
            "must not have more than 2048 characters (including spaces) in the search list",
        ));
    }
    for (index, search) in strings(config, "searches").enumerate() {
        if search != "." {
            let plain = search.strip_suffix('.').unwrap_or(search);
            super::invalid_each(errors, &path.index(index), plain, names::dns_search(plain));
        }
    }
}

fn scheduling_gates(gates: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, gate) in numbered(gates) {
        let name = text(gate, "name");
        super::invalid_each(errors, &path.index(index), name, names::qualified_name(name));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(path.index(index), name));
        }
    }
}

fn hostname_override(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if has(spec, "hostnameOverride").is_none() {
        return;
    }
    let name = text(spec, "hostnameOverride");
    let own = path.child("hostnameOverride");
    if flag(spec, "setHostnameAsFQDN") {
        errors.push(FieldError::forbidden(
            own,
            "may not be specified when setHostnameAsFQDN is true",
        ));
    }
    if flag(spec, "hostNetwork") {
        errors.push(FieldError::forbidden(
            own,
            "may not be specified when hostNetwork is true",
        ));
    }
    if name.len() > 64 {
        errors.push(FieldError::too_long(own, 64));
    }
    super::invalid_each(errors, &own, name, names::dns_subdomain(name));
}

/// A file that environment variables come from is in a directory of the pod's own.
fn file_key_volumes(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let volumes = LazyCell::new(|| {
        let named = list(spec, "volumes")
            .iter()
            .map(|volume| (text(volume, "name"), volume));
        named.collect::<HashMap<&str, &Value>>()
    });
    security::visit_containers(spec, path, |container, path| {
        let env = path.child("env");
        for (index, variable) in each_of(container, "env") {
            let Some(file) = object_at::at(variable, &["valueFrom", "fileKeyRef"]) else {
                continue;
            };
            let name = text(file, "volumeName");
            let own = format!("{}.valueFrom.fileKeyRef.volumeName", env.index(index));
            match volumes.get(name) {
                None => errors.push(FieldError::not_found(own, name)),
                Some(volume) if has(volume, "emptyDir").is_none() => errors.push(FieldError::invalid(
                    own,
                    name,
                    "referenced volume must be of type emptyDir",
                )),
                Some(_) => {}
            }
        }
    });
}

/// `pods/binding`: what the scheduler posts.
/// Its labels and annotations become the pod's, and have to be such as a pod's may be.
pub fn pod_binding(binding: &Value, errors: &mut Errors) {
    let metadata = has(binding, "metadata").unwrap_or(&Value::Null);
    labels(has(metadata, "labels"), &Path::new("metadata.labels"), errors);
    annotations(has(metadata, "annotations"), &Path::new("metadata.annotations"), errors);
    let target = has(binding, "target").unwrap_or(&Value::Null);
    let kind = text(target, "kind");
    if !kind.is_empty() && kind != "Node" {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
    }
    if text(target, "name").is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn minimal() -> Value {
        let mut object =
            json!({"metadata": {"name": "a", "namespace": "b"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        crate::defaults::pod(&mut object);
        object
    }

    fn problems(change: impl Fn(&mut Value)) -> Vec<String> {
        let mut object = minimal();
        change(&mut object["spec"]);
        crate::defaults::pod(&mut object);
        let mut errors = Errors::new();
        pod(&object, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_minimal_pod_is_valid() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn words_and_paths() {
        type Change = fn(&mut Value);
        let table: [(Change, &[&str]); 13] = [
            (
                |spec| spec["containers"] = json!([]),
                &["spec.containers: Required value"],
            ),
            (
                |spec| spec["containers"][0]["name"] = "A".into(),
                &[
                    "spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                ],
            ),
            (
                |spec| spec["restartPolicy"] = "Sometimes".into(),
                &[
                    "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                ],
            ),
            (
                |spec| spec["containers"][0]["volumeMounts"] = json!([{"name": "x", "mountPath": "/a"}]),
                &["spec.containers[0].volumeMounts[0].name: Not found: \"x\""],
            ),
            (
                |spec| spec["containers"][0]["ports"] = json!([{"containerPort": 70000}]),
                &[
                    "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                |spec| spec["containers"][0]["resources"] = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
                &[
                    "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                ],
            ),
            (
                |spec| spec["containers"][0]["livenessProbe"] = json!({}),
                &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
            ),
            (
                |spec| spec["volumes"] = json!([{"name": "a", "persistentVolumeClaim": {"claimName": "c"}}]),
                &[],
            ),
            (
                |spec| {
                    spec["volumes"] = json!([{"name": "a", "emptyDir": {}, "hostPath": {"path": "/x"}}]);
                },
                &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                |spec| {
                    spec["initContainers"] = json!([{"name": "i", "image": "x", "restartPolicy": "Always"}]);
                },
                &[],
            ),
            (
                |spec| spec["tolerations"] = json!([{"operator": "Equal"}]),
                &[
                    "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                ],
            ),
            (
                |spec| {
                    spec["containers"][0]["env"] =
                        json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]);
                },
                &[
                    "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
                ],
            ),
            (
                |spec| spec["dnsPolicy"] = "None".into(),
                &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
            ),
        ];
        for (change, expected) in table {
            assert_eq!(problems(change), expected);
        }
    }

    #[test]
    fn what_may_change_in_a_pod() {
        let old = minimal();
        let update = |change: fn(&mut Value)| {
            let mut new = old.clone();
            change(&mut new["spec"]);
            let mut errors = Errors::new();
            super::super::pod_update(&new, &old, &mut errors);
            errors.len()
        };
        assert_eq!(update(|spec| spec["containers"][0]["image"] = "j".into()), 0);
        assert_eq!(update(|spec| spec["tolerations"] = json!([{"operator": "Exists"}])), 0);
        assert_eq!(update(|spec| spec["activeDeadlineSeconds"] = 5.into()), 0);
        assert_eq!(update(|spec| spec["nodeSelector"] = json!({})), 0);
        assert_eq!(update(|spec| spec["nodeSelector"] = json!({"a": "b"})), 1);
        assert_eq!(update(|spec| spec["containers"][0]["command"] = json!(["x"])), 1);
        assert_eq!(update(|spec| spec["containers"] = json!([])), 1);
    }
}
