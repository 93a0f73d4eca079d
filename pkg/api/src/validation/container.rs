//! Containers: ports, environment, probes, hooks, security context.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    Errors, Path, each, flag, has, int, invalid_each, list, non_negative, one_of, port_or_name, resources, text,
    volumes,
};
use crate::status::FieldError;
use crate::{names, quantity};

/// What the containers of one pod have in common.
pub(super) struct Pod<'a> {
    pub volumes: HashSet<&'a str>,
    pub grace_period: Option<i64>,
    pub restart_policy: &'a str,
    pub host_users: bool,
}

pub(super) fn containers(spec: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let containers = list(spec, "containers");
    if containers.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, container) in containers.iter().enumerate() {
        let own = path.index(index);
        common(container, pod, &own, errors);
        let name = text(container, "name");
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(own.child("name"), name));
        }
        probes(container, pod, &own, errors);
    }
    host_ports(containers, path, errors);
}

pub(super) fn init_containers(spec: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    const WITHOUT: &str = "may not be set for init containers without restartPolicy=Always";
    let init_containers = list(spec, "initContainers");
    if init_containers.is_empty() {
        return;
    }
    let containers = list(spec, "containers").iter();
    let mut seen: HashSet<&str> = containers.map(|container| text(container, "name")).collect();
    for (index, container) in init_containers.iter().enumerate() {
        let own = path.index(index);
        common(container, pod, &own, errors);
        let name = text(container, "name");
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(own.child("name"), name));
        }
        host_ports(&init_containers[index..=index], path, errors);
        if text(container, "restartPolicy") == "Always" {
            probes(container, pod, &own, errors);
        } else {
            for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if has(container, key).is_some() {
                    errors.push(FieldError::forbidden(own.child(key), WITHOUT));
                }
            }
        }
    }
}

/// The same host port twice; `path` is that of the list.
fn host_ports(containers: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let mut taken: HashSet<(&str, &str, i64)> = HashSet::new();
    for (index, container) in containers.iter().enumerate() {
        for (port_index, port) in each(container, "ports") {
            let number = int(port, "hostPort").unwrap_or(0);
            if number == 0 {
                continue;
            }
            let key = (text(port, "protocol"), text(port, "hostIP"), number);
            if !taken.insert(key) {
                let container_path = path.index(index);
                let ports = container_path.child("ports");
                errors.push(FieldError::duplicate(
                    ports.index(port_index).child("hostPort"),
                    format!("{}/{}/{}", key.0, key.1, key.2),
                ));
            }
        }
    }
}

fn common(container: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.push(FieldError::required(path.child("name"), ""));
    } else {
        invalid_each(errors, &path.child("name"), name, names::dns_label(name));
    }
    if text(container, "image").is_empty() {
        errors.push(FieldError::required(path.child("image"), ""));
    }
    one_of(
        errors,
        container,
        "terminationMessagePolicy",
        path,
        &["File", "FallbackToLogsOnError"],
    );
    ports(container, &path.child("ports"), errors);
    env(container, &path.child("env"), errors);
    env_from(container, &path.child("envFrom"), errors);
    volumes::mounts(container, &pod.volumes, &path.child("volumeMounts"), errors);
    one_of(
        errors,
        container,
        "imagePullPolicy",
        path,
        &["Always", "IfNotPresent", "Never"],
    );
    if let Some(own) = has(container, "resources") {
        resources::requirements(own, &path.child("resources"), errors);
    }
    resize_policy(container, pod, &path.child("resizePolicy"), errors);
    if let Some(context) = has(container, "securityContext") {
        security_context(context, pod.host_users, &path.child("securityContext"), errors);
    }
}

fn ports(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut known: HashSet<&str> = HashSet::new();
    for (index, port) in each(container, "ports") {
        let path = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            let problems = names::port_name(name);
            if !problems.is_empty() {
                invalid_each(errors, &path.child("name"), name, problems);
            } else if !known.insert(name) {
                errors.push(FieldError::duplicate(path.child("name"), name));
            }
        }
        match int(port, "containerPort").unwrap_or(0) {
            0 => errors.push(FieldError::required(path.child("containerPort"), "")),
            number => number_in_range(number, &path.child("containerPort"), errors),
        }
        match int(port, "hostPort").unwrap_or(0) {
            0 => {}
            number => number_in_range(number, &path.child("hostPort"), errors),
        }
        one_of(errors, port, "protocol", &path, &["SCTP", "TCP", "UDP"]);
    }
}

fn number_in_range(number: i64, path: &Path<'_>, errors: &mut Errors) {
    for problem in names::port_number(number) {
        errors.push(FieldError::invalid(path, number, problem));
    }
}

fn env(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (index, variable) in each(container, "env") {
        let path = path.index(index);
        let name = text(variable, "name");
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else {
            invalid_each(errors, &path.child("name"), name, names::env_var_name(name));
        }
        if let Some(source) = has(variable, "valueFrom") {
            value_from(source, text(variable, "value"), &path.child("valueFrom"), errors);
        }
    }
}

fn value_from(source: &Value, value: &str, path: &Path<'_>, errors: &mut Errors) {
    const FIELDS: [&str; 9] = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    let mut count = 0;
    if let Some(field) = has(source, "fieldRef") {
        count += 1;
        field_ref(field, &FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(resource) = has(source, "resourceFieldRef") {
        count += 1;
        resource_ref(resource, false, &path.child("resourceFieldRef"), errors);
    }
    for kind in ["configMapKeyRef", "secretKeyRef"] {
        let Some(reference) = has(source, kind) else { continue };
        count += 1;
        let path = path.child(kind);
        let name = text(reference, "name");
        invalid_each(errors, &path.child("name"), name, names::dns_subdomain(name));
        match text(reference, "key") {
            "" => errors.push(FieldError::required(path.child("key"), "")),
            key => invalid_each(errors, &path.child("key"), key, names::config_key(key)),
        }
    }
    if let Some(file) = has(source, "fileKeyRef") {
        count += 1;
        let path = path.child("fileKeyRef");
        for key in ["key", "volumeName", "path"] {
            if text(file, key).is_empty() {
                errors.push(FieldError::required(path.child(key), ""));
            }
        }
    }
    if count == 0 {
        errors.push(FieldError::invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ));
    } else if !value.is_empty() {
        errors.push(FieldError::invalid(
            path,
            "",
            "may not be specified when `value` is not empty",
        ));
    } else if count > 1 {
        errors.push(FieldError::invalid(
            path,
            "",
            "may not have more than one field specified at a time",
        ));
    }
}

/// A field of the pod, as an environment variable or a file may name it.
pub(super) fn field_ref(field: &Value, fields: &[&str], path: &Path<'_>, errors: &mut Errors) {
    if text(field, "apiVersion").is_empty() {
        errors.push(FieldError::required(path.child("apiVersion"), ""));
        return;
    }
    let own = text(field, "fieldPath");
    if own.is_empty() {
        errors.push(FieldError::required(path.child("fieldPath"), ""));
        return;
    }
    let converting = |what: String| {
        FieldError::invalid(
            path.child("fieldPath"),
            own,
            format!("error converting fieldPath: {what}"),
        )
    };
    if text(field, "apiVersion") != "v1" {
        errors.push(converting(format!(
            "unsupported pod version: {}",
            text(field, "apiVersion")
        )));
        return;
    }
    if let Some((base, key)) = own.strip_suffix(']').and_then(|rest| {
        let (base, key) = rest.split_once("['").or_else(|| rest.split_once("[\""))?;
        Some((base, key.strip_suffix(['\'', '"'])?))
    }) {
        match base {
            "metadata.annotations" => {
                invalid_each(errors, path, key, names::qualified_name(&key.to_lowercase()));
            }
            "metadata.labels" => invalid_each(errors, path, key, names::qualified_name(key)),
            "metadata.name" | "metadata.namespace" | "metadata.uid" => {
                errors.push(converting(format!("field label does not support subscript: {own}")));
            }
            _ => errors.push(converting(format!("field label not supported: {own}"))),
        }
        return;
    }
    const KNOWN: [&str; 11] = [
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    let known = KNOWN.contains(&own) || matches!(own, "spec.restartPolicy" | "spec.schedulerName" | "status.phase");
    if !known {
        errors.push(converting(format!("field label not supported: {own}")));
    } else if !fields.contains(&own) {
        errors.push(FieldError::not_supported(path.child("fieldPath"), own, fields));
    }
}

/// A container's resource, as an environment variable or a file may name it.
pub(super) fn resource_ref(reference: &Value, volume: bool, path: &Path<'_>, errors: &mut Errors) {
    const RESOURCES: [&str; 6] = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    const UNITS: [&str; 13] = [
        "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
    ];
    let resource = text(reference, "resource");
    let hugepages = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if volume && text(reference, "containerName").is_empty() {
        errors.push(FieldError::required(path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(FieldError::required(path.child("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !hugepages {
        errors.push(FieldError::not_supported(path.child("resource"), resource, &RESOURCES));
    }
    let Some(divisor) = has(reference, "divisor").and_then(|divisor| quantity::from_json(divisor).ok()) else {
        return;
    };
    if divisor.is_zero() {
        return;
    }
    let divisor = divisor.to_string();
    let what = match resource {
        "limits.cpu" | "requests.cpu" => {
            if !matches!(divisor.as_str(), "1" | "1m") {
                errors.push(FieldError::invalid(
                    path.child("divisor"),
                    resource,
                    "only divisor's values 1m and 1 are supported with the cpu resource",
                ));
            }
            return;
        }
        "limits.memory" | "requests.memory" => "memory",
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => "local ephemeral storage",
        _ if hugepages => "hugepages",
        _ => return,
    };
    if !UNITS.contains(&divisor.as_str()) {
        errors.push(FieldError::invalid(
            path.child("divisor"),
            resource,
            format!(
                "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the {what} resource"
            ),
        ));
    }
}

fn env_from(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (index, source) in each(container, "envFrom") {
        let own = path.index(index);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            invalid_each(errors, &own.child("prefix"), prefix, names::env_var_name(prefix));
        }
        let mut count = 0;
        for kind in ["configMapRef", "secretRef"] {
            let Some(reference) = has(source, kind) else { continue };
            count += 1;
            let path = own.child(kind);
            match text(reference, "name") {
                "" => errors.push(FieldError::required(path.child("name"), "")),
                name => invalid_each(errors, &path.child("name"), name, names::dns_subdomain(name)),
            }
        }
        match count {
            0 => errors.push(FieldError::invalid(
                path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            1 => {}
            _ => errors.push(FieldError::invalid(
                path,
                "",
                "may not have more than one field specified at a time",
            )),
        }
    }
}

/// Lifecycle hooks and the three probes.
fn probes(container: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(lifecycle) = has(container, "lifecycle") {
        let path = path.child("lifecycle");
        for hook in ["postStart", "preStop"] {
            if let Some(own) = has(lifecycle, hook) {
                handler(own, pod, &path.child(hook), errors);
            }
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = has(container, key) else { continue };
        let path = path.child(key);
        handler(probe, pod, &path, errors);
        for number in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            non_negative(errors, probe, number, &path);
        }
        let grace = int(probe, "terminationGracePeriodSeconds");
        if let Some(seconds) = grace.filter(|&seconds| seconds <= 0) {
            errors.push(FieldError::invalid(
                path.child("terminationGracePeriodSeconds"),
                seconds,
                "must be greater than 0",
            ));
        }
        if key == "readinessProbe" {
            if let Some(seconds) = grace {
                errors.push(FieldError::invalid(
                    path.child("terminationGracePeriodSeconds"),
                    seconds,
                    "must not be set for readinessProbes",
                ));
            }
        } else {
            let threshold = int(probe, "successThreshold").unwrap_or(0);
            if threshold != 1 {
                errors.push(FieldError::invalid(
                    path.child("successThreshold"),
                    threshold,
                    "must be 1",
                ));
            }
        }
    }
}

fn handler(handler: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut count = 0;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(own) = has(handler, kind) else { continue };
        let path = path.child(kind);
        if count > 0 {
            errors.push(FieldError::forbidden(path, "may not specify more than 1 handler type"));
            continue;
        }
        count += 1;
        match kind {
            "exec" => {
                if list(own, "command").is_empty() {
                    errors.push(FieldError::required(path.child("command"), ""));
                }
            }
            "httpGet" => {
                if text(own, "path").is_empty() {
                    errors.push(FieldError::required(path.child("path"), ""));
                }
                port_or_name(errors, has(own, "port"), &path.child("port"));
                let scheme = text(own, "scheme");
                if !matches!(scheme, "HTTP" | "HTTPS") {
                    errors.push(FieldError::not_supported(
                        path.child("scheme"),
                        scheme,
                        &["HTTP", "HTTPS"],
                    ));
                }
                for header in list(own, "httpHeaders") {
                    let name = text(header, "name");
                    invalid_each(errors, &path.child("httpHeaders"), name, names::http_header_name(name));
                }
            }
            "tcpSocket" | "grpc" => port_or_name(errors, has(own, "port"), &path.child("port")),
            _ => {
                let seconds = int(own, "seconds").unwrap_or(0);
                if let Some(grace) = pod.grace_period.filter(|&grace| seconds < 0 || seconds > grace) {
                    errors.push(FieldError::invalid(
                        path,
                        seconds,
                        format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"),
                    ));
                }
            }
        }
    }
    if count == 0 {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
}

fn resize_policy(container: &Value, pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, policy) in each(container, "resizePolicy") {
        let resource = text(policy, "resourceName");
        if !seen.insert(resource) {
            errors.push(FieldError::duplicate(path.index(index), resource));
        }
        match resource {
            "cpu" | "memory" => {}
            "" => errors.push(FieldError::required(path, "")),
            other => errors.push(FieldError::not_supported(path, other, &["cpu", "memory"])),
        }
        let restart = text(policy, "restartPolicy");
        match restart {
            "NotRequired" | "RestartContainer" => {}
            "" => errors.push(FieldError::required(path, "")),
            other => errors.push(FieldError::not_supported(
                path,
                other,
                &["NotRequired", "RestartContainer"],
            )),
        }
        if pod.restart_policy == "Never" && restart != "NotRequired" {
            errors.push(FieldError::invalid(
                path,
                restart,
                "must be 'NotRequired' when `restartPolicy` is 'Never'",
            ));
        }
    }
}

pub(super) fn user_id(context: &Value, key: &str, path: &Path<'_>, errors: &mut Errors) {
    if let Some(id) = int(context, key) {
        for problem in names::in_range(id, 0, i64::from(i32::MAX)) {
            errors.push(FieldError::invalid(path.child(key), id, problem));
        }
    }
}

fn security_context(context: &Value, host_users: bool, path: &Path<'_>, errors: &mut Errors) {
    user_id(context, "runAsUser", path, errors);
    user_id(context, "runAsGroup", path, errors);
    if let Some(mount) = has(context, "procMount").and_then(Value::as_str) {
        if !matches!(mount, "Default" | "Unmasked") {
            errors.push(FieldError::not_supported(
                path.child("procMount"),
                mount,
                &["Default", "Unmasked"],
            ));
        }
        if host_users && mount == "Unmasked" {
            errors.push(FieldError::invalid(
                path.child("procMount"),
                mount,
                "`hostUsers` must be false to use `Unmasked`",
            ));
        }
    }
    seccomp(context, path, errors);
    if has(context, "allowPrivilegeEscalation").is_some() && !flag(context, "allowPrivilegeEscalation") {
        if flag(context, "privileged") {
            errors.push(FieldError::invalid(
                path,
                context.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ));
        }
        let adds = has(context, "capabilities").map_or(&[][..], |capabilities| list(capabilities, "add"));
        if adds.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            errors.push(FieldError::invalid(
                path,
                context.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            ));
        }
    }
    app_armor(context, path, errors);
}

/// `seccompProfile` of a pod or container.
pub(super) fn seccomp(context: &Value, path: &Path<'_>, errors: &mut Errors) {
    const TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
    let Some(profile) = has(context, "seccompProfile") else {
        return;
    };
    let path = path.child("seccompProfile");
    let type_ = text(profile, "type");
    if type_.is_empty() {
        errors.push(FieldError::required(
            path.child("type"),
            "type is required when seccompProfile is set",
        ));
    } else if !TYPES.contains(&type_) {
        errors.push(FieldError::not_supported(path.child("type"), type_, &TYPES));
    }
    match (type_, has(profile, "localhostProfile").and_then(Value::as_str)) {
        ("Localhost", None) => errors.push(FieldError::required(
            path.child("localhostProfile"),
            "must be set when seccomp type is Localhost",
        )),
        ("Localhost", Some(target)) => {
            volumes::descending_path(target, &path.child("localhostProfile"), errors);
        }
        (_, Some(_)) => errors.push(FieldError::invalid(
            path.child("localhostProfile"),
            profile.clone(),
            "can only be set when seccomp type is Localhost",
        )),
        (_, None) => {}
    }
}

/// `appArmorProfile` of a pod or container.
pub(super) fn app_armor(context: &Value, path: &Path<'_>, errors: &mut Errors) {
    const TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
    let Some(profile) = has(context, "appArmorProfile") else {
        return;
    };
    let path = path.child("appArmorProfile");
    let target = has(profile, "localhostProfile").and_then(Value::as_str);
    match text(profile, "type") {
        "Localhost" => {
            if target.is_none_or(|target| target.trim().is_empty()) {
                errors.push(FieldError::required(
                    path.child("localhostProfile"),
                    "must be set when AppArmor type is Localhost",
                ));
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if let Some(target) = target {
                errors.push(FieldError::invalid(
                    path.child("localhostProfile"),
                    target,
                    "can only be set when AppArmor type is Localhost",
                ));
            }
        }
        "" => errors.push(FieldError::required(
            path.child("type"),
            "type is required when appArmorProfile is set",
        )),
        other => errors.push(FieldError::not_supported(path.child("type"), other, &TYPES)),
    }
}
