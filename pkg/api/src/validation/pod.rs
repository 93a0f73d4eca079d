//! Pods and pod templates.

use std::collections::HashSet;

use serde_json::Value;

use super::container::{self, Pod};
use super::{
    Errors, Path, annotations, each, flag, has, int, invalid_each, labels, list, name_if_set, node_selector, one_of,
    one_of_if_set, refused, resources, same, strings, text, volumes,
};
use crate::status::FieldError;
use crate::{meta as object, names};

const SPEC: Path<'static> = Path::new("spec");
const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];

/// Besides metadata.
pub fn pod(pod: &Value, errors: &mut Errors) {
    let metadata = has(pod, "metadata").unwrap_or(&Value::Null);
    specific_annotations(metadata, &Path::new("metadata").child("annotations"), errors);
    let spec = has(pod, "spec").unwrap_or(&Value::Null);
    pod_spec(spec, true, &SPEC, errors);
    if text(spec, "serviceAccountName").is_empty() {
        token_needs_account(spec, errors);
    }
    for key in ["containers", "initContainers"] {
        let path = SPEC.child(key);
        for (index, own) in each(spec, key) {
            let image = text(own, "image");
            if image.trim().len() != image.len() {
                errors.push(FieldError::invalid(
                    path.index(index).child("image"),
                    image,
                    "must not have leading or trailing whitespace",
                ));
            }
        }
    }
    if object::uid(pod).is_empty() || object::at(pod, &["status", "startTime"]).is_none() {
        create_only(pod, spec, errors);
    }
    refused::pod_spec(spec, &SPEC, errors);
}

fn create_only(pod: &Value, spec: &Value, errors: &mut Errors) {
    if !text(spec, "nodeName").is_empty()
        && !list(spec, "schedulingGates").is_empty()
        && object::resource_version(pod).is_empty()
    {
        errors.push(FieldError::forbidden(
            "spec.nodeName",
            "cannot be set until all schedulingGates have been cleared",
        ));
    }
    if !list(spec, "ephemeralContainers").is_empty() && object::resource_version(pod).is_empty() {
        errors.push(FieldError::forbidden(
            "spec.ephemeralContainers",
            "cannot be set on create",
        ));
    }
}

fn token_needs_account(spec: &Value, errors: &mut Errors) {
    for (index, volume) in each(spec, "volumes") {
        let Some(projected) = has(volume, "projected") else {
            continue;
        };
        for (source, own) in each(projected, "sources") {
            if has(own, "serviceAccountToken").is_some() {
                errors.push(FieldError::forbidden(
                    format!("spec.volumes[{index}].projected.sources[{source}].serviceAccountToken"),
                    "must not be specified when serviceAccountName is not set",
                ));
            }
        }
    }
}

/// Annotations whose value means something to the server.
fn specific_annotations(metadata: &Value, path: &Path<'_>, errors: &mut Errors) {
    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    if let Some(cost) = object::at(metadata, &["annotations", COST]).and_then(Value::as_str) {
        let first_zero = cost.len() > 1 && cost.starts_with(['0', '+']);
        if cost.parse::<i32>().is_err() || first_zero {
            errors.push(FieldError::invalid(path.key(COST), cost, "must be a 32bit integer"));
        }
    }
}

/// `template` of a workload kind; `path` is the template's.
pub fn pod_template(template: &Value, path: &Path<'_>, errors: &mut Errors) {
    let metadata = has(template, "metadata").unwrap_or(&Value::Null);
    labels(has(metadata, "labels"), &path.child("labels"), errors);
    annotations(has(metadata, "annotations"), &path.child("annotations"), errors);
    specific_annotations(metadata, &path.child("annotations"), errors);
    let spec = has(template, "spec").unwrap_or(&Value::Null);
    let spec_path = path.child("spec");
    pod_spec(spec, false, &spec_path, errors);
    if !list(spec, "ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden(
            spec_path.child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        ));
    }
    refused::pod_spec(spec, &spec_path, errors);
}

/// The kind PodTemplate.
pub fn pod_template_object(object: &Value, errors: &mut Errors) {
    let template = has(object, "template").unwrap_or(&Value::Null);
    pod_template(template, &Path::new("template"), errors);
}

/// Upstream's checks of a pod spec. `is_pod`: of a Pod, not of a template.
pub fn pod_spec(spec: &Value, is_pod: bool, path: &Path<'_>, errors: &mut Errors) {
    let grace_period = int(spec, "terminationGracePeriodSeconds");
    if grace_period.is_none() {
        errors.push(FieldError::required(path.child("terminationGracePeriodSeconds"), ""));
    }
    let pod = Pod {
        volumes: volumes::volumes(spec, &path.child("volumes"), errors),
        grace_period,
        restart_policy: text(spec, "restartPolicy"),
        host_users: object::bool_at(spec, &["hostUsers"]) != Some(false),
    };
    container::containers(spec, &pod, &path.child("containers"), errors);
    container::init_containers(spec, &pod, &path.child("initContainers"), errors);
    if flag(spec, "hostNetwork") {
        host_network_ports(spec, is_pod, &path.child("containers"), errors);
    }
    one_of(errors, spec, "restartPolicy", path, &["Always", "OnFailure", "Never"]);
    one_of(errors, spec, "dnsPolicy", path, &DNS_POLICIES);
    labels(has(spec, "nodeSelector"), &path.child("nodeSelector"), errors);
    security_context(spec, path, errors);
    if let Some(affinity) = has(spec, "affinity") {
        node_selector::affinity(affinity, &path.child("affinity"), errors);
    }
    dns_config(spec, &path.child("dnsConfig"), errors);
    gates(spec, path, errors);
    node_selector::topology_spread(spec, &path.child("topologySpreadConstraints"), errors);
    hostname_override(spec, path, errors);
    name_if_set(errors, spec, "serviceAccountName", path, names::dns_subdomain);
    name_if_set(errors, spec, "nodeName", path, names::dns_subdomain);
    active_deadline(spec, &path.child("activeDeadlineSeconds"), errors);
    name_if_set(errors, spec, "hostname", path, names::dns_label);
    name_if_set(errors, spec, "subdomain", path, names::dns_label);
    node_selector::tolerations(spec, &path.child("tolerations"), errors);
    host_aliases(spec, &path.child("hostAliases"), errors);
    name_if_set(errors, spec, "priorityClassName", path, names::dns_subdomain);
    if has(spec, "runtimeClassName").is_some() {
        let name = text(spec, "runtimeClassName");
        invalid_each(
            errors,
            &path.child("runtimeClassName"),
            name,
            names::dns_subdomain(name),
        );
    }
    one_of_if_set(
        errors,
        spec,
        "preemptionPolicy",
        path,
        &["PreemptLowerPriority", "Never"],
    );
    if let Some(overhead) = has(spec, "overhead") {
        resources::list(Some(overhead), &path.child("overhead").child("limits"), errors);
    }
    operating_system(spec, &path.child("os"), errors);
}

fn active_deadline(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(seconds) = int(spec, "activeDeadlineSeconds") else {
        return;
    };
    for problem in names::in_range(seconds, 1, i64::from(i32::MAX)) {
        errors.push(FieldError::invalid(path, seconds, problem));
    }
}

fn operating_system(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(os) = has(spec, "os") else { return };
    match text(os, "name") {
        "linux" | "windows" => {}
        "" => errors.push(FieldError::required(path.child("name"), "cannot be empty")),
        other => errors.push(FieldError::not_supported(path, other, &["linux", "windows"])),
    }
}

fn host_network_ports(spec: &Value, is_pod: bool, path: &Path<'_>, errors: &mut Errors) {
    for (index, own) in each(spec, "containers") {
        let container_path = path.index(index);
        let ports = container_path.child("ports");
        for (index, port) in each(own, "ports") {
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

fn security_context(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let context_path = path.child("securityContext");
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        errors.push(FieldError::invalid(
            context_path.child("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ));
    }
    let Some(context) = has(spec, "securityContext") else {
        return;
    };
    let path = context_path;
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        container::user_id(context, key, &path, errors);
    }
    let groups = path.child("supplementalGroups");
    for (index, group) in each(context, "supplementalGroups") {
        let group = group.as_i64().unwrap_or(0);
        for problem in names::in_range(group, 0, i64::from(i32::MAX)) {
            errors.push(FieldError::invalid(groups.index(index), group, problem));
        }
    }
    sysctls(spec, context, &path.child("sysctls"), errors);
    one_of_if_set(
        errors,
        context,
        "fsGroupChangePolicy",
        &path,
        &["Always", "OnRootMismatch"],
    );
    container::seccomp(context, &path, errors);
    container::app_armor(context, &path, errors);
    one_of_if_set(errors, context, "supplementalGroupsPolicy", &path, &["Merge", "Strict"]);
    one_of_if_set(
        errors,
        context,
        "seLinuxChangePolicy",
        &path,
        &["MountOption", "Recursive"],
    );
}

fn sysctls(spec: &Value, context: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, sysctl) in each(context, "sysctls") {
        let path = path.index(index);
        let name = text(sysctl, "name");
        let repeated = !seen.insert(name);
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else if !is_sysctl(name) {
            errors.push(FieldError::invalid(
                path.child("name"),
                name,
                r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            ));
        } else if repeated {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        let dotted = name.replace('/', ".");
        if flag(spec, "hostNetwork") && dotted.starts_with("net.") {
            errors.push(FieldError::invalid(
                path.child("name"),
                name,
                "may not be specified when 'hostNetwork' is true",
            ));
        }
        let ipc = ["kernel.sem", "kernel.msg", "kernel.shm", "fs.mqueue."];
        if flag(spec, "hostIPC") && ipc.iter().any(|prefix| dotted.starts_with(prefix)) {
            errors.push(FieldError::invalid(
                path.child("name"),
                name,
                "may not be specified when 'hostIPC' is true",
            ));
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 253
        && name.split(['.', '/']).all(|part| {
            let bytes = part.as_bytes();
            matches!((bytes.first(), bytes.last()), (Some(&first), Some(&last)) if edge(first) && edge(last))
                && bytes.iter().all(|&byte| edge(byte) || byte == b'-' || byte == b'_')
        })
}

fn dns_config(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
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
        invalid_each(errors, &nameservers.index(index), server, names::ip(server));
    }
    dns_searches(config, &path.child("searches"), errors);
    let options = path.child("options");
    for (index, option) in each(config, "options") {
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
            invalid_each(errors, &path.index(index), plain, names::dns_search(plain));
        }
    }
}

fn gates(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let readiness = path.child("readinessGates");
    for (index, gate) in each(spec, "readinessGates") {
        let type_ = text(gate, "conditionType");
        invalid_each(
            errors,
            &readiness.index(index).child("conditionType"),
            type_,
            names::qualified_name(type_),
        );
    }
    let scheduling = path.child("schedulingGates");
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, gate) in each(spec, "schedulingGates") {
        let name = text(gate, "name");
        invalid_each(errors, &scheduling.index(index), name, names::qualified_name(name));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(scheduling.index(index), name));
        }
    }
}

fn hostname_override(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
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
    invalid_each(errors, &own, name, names::dns_subdomain(name));
}

fn host_aliases(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (index, alias) in each(spec, "hostAliases") {
        let path = path.index(index);
        let ip = text(alias, "ip");
        invalid_each(errors, &path.child("ip"), ip, names::ip(ip));
        let hostnames = path.child("hostnames");
        for (index, name) in strings(alias, "hostnames").enumerate() {
            invalid_each(errors, &hostnames.index(index), name, names::dns_subdomain(name));
        }
    }
}

/// What may change in a pod: images, a shorter deadline, more tolerations, fewer scheduling gates.
pub fn pod_update(new: &Value, old: &Value, errors: &mut Errors) {
    let empty = Value::Null;
    let spec = has(new, "spec").unwrap_or(&empty);
    let before = has(old, "spec").unwrap_or(&empty);
    for key in ["containers", "initContainers"] {
        if list(spec, key).len() != list(before, key).len() {
            errors.push(FieldError::forbidden(
                SPEC.child(key),
                "pod updates may not add or remove containers",
            ));
            return;
        }
    }
    match (int(spec, "activeDeadlineSeconds"), int(before, "activeDeadlineSeconds")) {
        (Some(new), Some(old)) if old < new => {
            errors.push(FieldError::invalid(
                "spec.activeDeadlineSeconds",
                new,
                "must be less than or equal to previous value",
            ));
            return;
        }
        (None, Some(_)) => errors.push(FieldError::invalid(
            "spec.activeDeadlineSeconds",
            Value::Null,
            "must not update from a positive integer to nil value",
        )),
        _ => {}
    }
    only_added_tolerations(spec, before, errors);
    no_new_gates(spec, before, errors);
    if same(Some(spec), Some(before)) {
        return;
    }
    let munged = with_old_mutable_fields(spec, before);
    let changed = changed_keys(&munged, before);
    if !changed.is_empty() {
        errors.push(FieldError::forbidden(
            "spec",
            format!(
                "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n changed: {}",
                changed.join(", ")
            ),
        ));
    }
}

fn no_new_gates(spec: &Value, before: &Value, errors: &mut Errors) {
    let gates = list(before, "schedulingGates").iter();
    let known: HashSet<&str> = gates.map(|gate| text(gate, "name")).collect();
    for (index, gate) in each(spec, "schedulingGates") {
        let name = text(gate, "name");
        if !known.contains(name) {
            errors.push(FieldError::forbidden(
                format!("spec.schedulingGates[{index}].name"),
                format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            ));
        }
    }
}

/// The fields that differ: those of the new object in their order, then those that are gone.
fn changed_keys<'a>(new: &'a Value, old: &'a Value) -> Vec<&'a str> {
    let fields = |object: &'a Value| object.as_object().into_iter().flatten();
    let differ = fields(new).filter(|(key, value)| !same(Some(value), old.get(key.as_str())));
    let gone = fields(old).filter(|(key, value)| new.get(key.as_str()).is_none() && !same(None, Some(value)));
    differ.chain(gone).map(|(key, _)| key.as_str()).collect()
}

fn only_added_tolerations(spec: &Value, before: &Value, errors: &mut Errors) {
    let without_seconds = |toleration| ["key", "operator", "value", "effect"].map(|field| has(toleration, field));
    let new: HashSet<_> = list(spec, "tolerations").iter().map(without_seconds).collect();
    let mut old = list(before, "tolerations").iter().map(without_seconds);
    if !old.all(|old| new.contains(&old)) {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
}

/// The new spec with everything that may change taken from the old: what still differs may not.
fn with_old_mutable_fields(spec: &Value, before: &Value) -> Value {
    let mut munged = spec.clone();
    for key in ["containers", "initContainers"] {
        let old = list(before, key);
        for (container, old) in object::items_mut(&mut munged, &[key]).iter_mut().zip(old) {
            match has(old, "image") {
                Some(image) => object::set(container, &["image"], image.clone()),
                None => {
                    object::remove(container, &["image"]);
                }
            }
        }
    }
    let mut restore = |key: &str| match has(before, key) {
        Some(value) => object::set(&mut munged, &[key], value.clone()),
        None => {
            object::remove(&mut munged, &[key]);
        }
    };
    restore("activeDeadlineSeconds");
    restore("schedulingGates");
    restore("tolerations");
    let old_grace = int(before, "terminationGracePeriodSeconds");
    if old_grace.is_some_and(|seconds| seconds < 0) && int(spec, "terminationGracePeriodSeconds") == Some(1) {
        restore("terminationGracePeriodSeconds");
    }
    if !list(before, "schedulingGates").is_empty() {
        // a gated pod's node selector may grow, its affinity may narrow
        let grown = has(before, "nodeSelector")
            .and_then(Value::as_object)
            .is_none_or(|old| {
                old.iter()
                    .all(|(key, value)| object::at(spec, &["nodeSelector", key]) == Some(value))
            });
        if grown {
            restore("nodeSelector");
        }
        if object::at(before, &["affinity", "nodeAffinity"]).is_none() {
            match object::at(before, &["affinity"]) {
                None if object::at(spec, &["affinity", "podAffinity"]).is_none()
                    && object::at(spec, &["affinity", "podAntiAffinity"]).is_none() =>
                {
                    restore("affinity");
                }
                _ => {
                    object::remove(&mut munged, &["affinity", "nodeAffinity"]);
                }
            }
        }
    }
    munged
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
                &["spec.volumes[0].persistentVolumeClaim: Forbidden: not in this version of mk8s"],
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
                &["spec.initContainers[0].restartPolicy: Forbidden: not in this version of mk8s"],
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
            pod_update(&new, &old, &mut errors);
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
