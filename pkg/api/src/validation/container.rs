//! Containers of every sort: ports, environment, probes, hooks, how they start again.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::rules::{
    Rules, Scope, Union, all, always, call, check, each, format_if_set, member, name, non_negative, object, one_of,
    required, union, whole,
};
use super::{
    Errors, Path, has, int, list, mounts, numbered, port_or_name, refs, resources, says, security, text, volumes,
};
use crate::names;
use crate::status::FieldError;

/// What the containers of one pod have in common.
pub(super) struct Pod<'a> {
    pub spec: &'a Value,
    /// Of a Pod, not of a template.
    pub is_pod: bool,
    /// The valid volumes, by name.
    pub volumes: HashMap<&'a str, &'a Value>,
    /// The names of `resourceClaims`.
    pub claims: HashSet<&'a str>,
}

pub(super) const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// What all containers have.
const COMMON: Rules = &[
    name("name", names::dns_label),
    required("image"),
    one_of("terminationMessagePolicy", &["File", "FallbackToLogsOnError"]),
    call("ports", ports),
    each("env", ENV),
    call("envFrom", env_from),
    whole(mounts::mounts),
    whole(mounts::devices),
    one_of("imagePullPolicy", PULL_POLICIES),
    call("resources", resources::of_container),
    call("resizePolicy", resize_policy),
    object("securityContext", security::CONTAINER),
];

/// Of containers that run on: not of init containers that end.
const RUNNING: Rules = &[
    object("lifecycle", &[object("postStart", HANDLER), object("preStop", HANDLER)]),
    object("livenessProbe", &[all(PROBE), whole(one_success)]),
    object(
        "readinessProbe",
        &[all(PROBE), call("terminationGracePeriodSeconds", no_grace)],
    ),
    object("startupProbe", &[all(PROBE), whole(one_success)]),
];

const ENV: Rules = &[name("name", names::env_var_name), whole(value_from)];

const KEY_REF: Rules = &[always("name", names::dns_subdomain), name("key", names::config_key)];

const FILE_KEY_REF: Rules = &[
    name("key", names::env_var_name),
    name("volumeName", names::dns_label),
    required("path"),
    format_if_set("path", volumes::no_backsteps),
];

const HANDLER: Rules = &[union(&HANDLERS)];

const HANDLERS: Union = Union {
    members: &[
        member("exec", &[required("command")]),
        member(
            "httpGet",
            &[
                required("path"),
                whole(port),
                whole(scheme),
                call("httpHeaders", headers),
            ],
        ),
        member("tcpSocket", &[whole(port)]),
        member("grpc", &[whole(port)]),
        member("sleep", &[whole(sleep)]),
    ],
    many: "may not specify more than 1 handler type",
    none: "must specify a handler type",
};

const PROBE: Rules = &[
    union(&HANDLERS),
    non_negative("initialDelaySeconds"),
    non_negative("timeoutSeconds"),
    non_negative("periodSeconds"),
    non_negative("successThreshold"),
    non_negative("failureThreshold"),
    call("terminationGracePeriodSeconds", probe_grace),
];

const RESTARTS: Rules = &[call("restartPolicy", restart_policy), whole(restart_rules)];

const RESTART_RULE: Rules = &[whole(restart_action), whole(restart_codes)];

/// `containers` of a pod.
pub(super) fn containers(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let containers = list(spec, "containers");
    let path = path.child("containers");
    if containers.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, container) in containers.iter().enumerate() {
        let own = path.index(index);
        check(COMMON, container, scope, &own, errors);
        unique_name(container, &mut seen, &own, errors);
        check(RUNNING, container, scope, &own, errors);
        check(RESTARTS, container, scope, &own, errors);
    }
    host_ports(containers, &path, errors);
}

pub(super) fn init_containers(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const WITHOUT: &str = "may not be set for init containers without restartPolicy=Always";
    let init_containers = list(spec, "initContainers");
    if init_containers.is_empty() {
        return;
    }
    let path = path.child("initContainers");
    let mut seen = container_names(spec, &["containers"]);
    for (index, container) in init_containers.iter().enumerate() {
        let own = path.index(index);
        check(COMMON, container, scope, &own, errors);
        let sidecar = text(container, "restartPolicy") == "Always";
        match (sidecar, list(container, "restartPolicyRules").is_empty()) {
            (true, true) => {}
            (true, false) => errors.push(FieldError::forbidden(
                own.child("restartPolicyRules"),
                "restartPolicyRules are not allowed for init containers with restart policy Always",
            )),
            (false, _) => init_restarts(container, scope, &own, errors),
        }
        unique_name(container, &mut seen, &own, errors);
        host_ports(&init_containers[index..=index], &path, errors);
        if sidecar {
            check(RUNNING, container, scope, &own, errors);
            continue;
        }
        for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if has(container, key).is_some() {
                errors.push(FieldError::forbidden(own.child(key), WITHOUT));
            }
        }
    }
}

/// Where there are rules without a policy that is all that is told.
fn init_restarts(container: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if has(container, "restartPolicy").is_some() {
        check(RESTARTS, container, scope, path, errors);
    } else if !list(container, "restartPolicyRules").is_empty() {
        errors.push(FieldError::required(path.child("restartPolicy"), RULES_NEED_POLICY));
    }
}

pub(super) fn ephemeral_containers(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    /// In the order of upstream's type.
    const NOT_FOR_THEM: [&str; 9] = [
        "ports",
        "resources",
        "resizePolicy",
        "restartPolicy",
        "restartPolicyRules",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    ];
    const WHY: &str = "cannot be set for an Ephemeral Container";
    let path = path.child("ephemeralContainers");
    let others = container_names(spec, &["containers", "initContainers"]);
    let mut seen = others.clone();
    for (index, container) in list(spec, "ephemeralContainers").iter().enumerate() {
        let path = path.index(index);
        check(COMMON, container, scope, &path, errors);
        trimmed_image(container, &path, errors);
        unique_name(container, &mut seen, &path, errors);
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            errors.push(FieldError::not_found(path.child("targetContainerName"), target));
        }
        for field in NOT_FOR_THEM {
            let own = has(container, field).filter(|own| own.as_object().is_none_or(|map| !map.is_empty()));
            if says(own) {
                errors.push(FieldError::forbidden(path.child(field), WHY));
            }
        }
        let mounts = path.child("volumeMounts");
        for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !text(mount, field).is_empty() {
                    errors.push(FieldError::forbidden(mounts.index(index).child(field), WHY));
                }
            }
        }
    }
}

/// Told of pods alone: templates may hold blanks for whoever fills them in.
pub(super) fn trimmed_image(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let image = text(container, "image");
    if image.trim().len() != image.len() {
        errors.push(FieldError::invalid(
            path.child("image"),
            image,
            "must not have leading or trailing whitespace",
        ));
    }
}

fn container_names<'a>(spec: &'a Value, kinds: &[&str]) -> HashSet<&'a str> {
    let containers = kinds.iter().flat_map(|kind| list(spec, kind));
    containers.map(|container| text(container, "name")).collect()
}

fn unique_name<'a>(container: &'a Value, seen: &mut HashSet<&'a str>, path: &Path<'_>, errors: &mut Errors) {
    let name = text(container, "name");
    if !seen.insert(name) {
        errors.push(FieldError::duplicate(path.child("name"), name));
    }
}

/// The same host port twice; `path` is that of the list.
fn host_ports(containers: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let mut taken: HashSet<(&str, &str, i64)> = HashSet::new();
    for (index, container) in containers.iter().enumerate() {
        for (port_index, port) in list(container, "ports").iter().enumerate() {
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

fn ports(ports: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const PORT: Rules = &[call("hostPort", host_port), one_of("protocol", PROTOCOLS)];
    let mut known: HashSet<&str> = HashSet::new();
    for (index, port) in numbered(ports) {
        let path = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            let problems = names::port_name(name);
            if !problems.is_empty() {
                super::invalid_each(errors, &path.child("name"), name, problems);
            } else if !known.insert(name) {
                errors.push(FieldError::duplicate(path.child("name"), name));
            }
        }
        match int(port, "containerPort").unwrap_or(0) {
            0 => errors.push(FieldError::required(path.child("containerPort"), "")),
            number => port_number(number, &path.child("containerPort"), errors),
        }
        check(PORT, port, scope, &path, errors);
    }
}

fn host_port(port: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    match port.as_i64().unwrap_or(0) {
        0 => {}
        number => port_number(number, path, errors),
    }
}

fn port_number(number: i64, path: &Path<'_>, errors: &mut Errors) {
    for problem in names::port_number(number) {
        errors.push(FieldError::invalid(path, number, problem));
    }
}

fn value_from(variable: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const SOURCES: [(&str, Rules); 5] = [
        ("fieldRef", &[whole(refs::env_field)]),
        ("resourceFieldRef", &[whole(refs::env_resource)]),
        ("configMapKeyRef", KEY_REF),
        ("secretKeyRef", KEY_REF),
        ("fileKeyRef", FILE_KEY_REF),
    ];
    let Some(source) = has(variable, "valueFrom") else {
        return;
    };
    let path = path.child("valueFrom");
    let mut count = 0;
    for (kind, rules) in SOURCES {
        if let Some(own) = has(source, kind) {
            count += 1;
            check(rules, own, scope, &path.child(kind), errors);
        }
    }
    let why = match count {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if !text(variable, "value").is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(FieldError::invalid(path, "", why));
}

/// How many sources there are is told of the list.
fn env_from(sources: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const SOURCE: Rules = &[name("name", names::dns_subdomain_prefix)];
    for (index, source) in numbered(sources) {
        let own = path.index(index);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            super::invalid_each(errors, &own.child("prefix"), prefix, names::env_var_name(prefix));
        }
        let mut count = 0;
        for kind in ["configMapRef", "secretRef"] {
            if let Some(reference) = has(source, kind) {
                count += 1;
                check(SOURCE, reference, scope, &own.child(kind), errors);
            }
        }
        let why = match count {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.push(FieldError::invalid(path, "", why));
    }
}

fn one_success(probe: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let threshold = int(probe, "successThreshold").unwrap_or(0);
    if threshold != 1 {
        errors.push(FieldError::invalid(
            path.child("successThreshold"),
            threshold,
            "must be 1",
        ));
    }
}

fn probe_grace(seconds: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(seconds) = seconds.as_i64().filter(|&seconds| seconds <= 0) {
        errors.push(FieldError::invalid(path, seconds, "must be greater than 0"));
    }
}

fn no_grace(seconds: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    errors.push(FieldError::invalid(
        path,
        seconds.clone(),
        "must not be set for readinessProbes",
    ));
}

fn port(holder: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    port_or_name(errors, has(holder, "port"), &path.child("port"));
}

fn scheme(action: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const SCHEMES: [&str; 2] = ["HTTP", "HTTPS"];
    let own = text(action, "scheme");
    if !SCHEMES.contains(&own) {
        errors.push(FieldError::not_supported(path.child("scheme"), own, &SCHEMES));
    }
}

/// Told of the list, without the header's index.
fn headers(headers: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    for (_, header) in numbered(headers) {
        let name = text(header, "name");
        super::invalid_each(errors, path, name, names::http_header_name(name));
    }
}

fn sleep(action: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let seconds = int(action, "seconds").unwrap_or(0);
    let grace = scope.pod.and_then(|pod| int(pod.spec, "terminationGracePeriodSeconds"));
    if let Some(grace) = grace.filter(|&grace| seconds < 0 || seconds > grace) {
        errors.push(FieldError::invalid(
            path,
            seconds,
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"),
        ));
    }
}

/// All but a repetition is told of the list.
fn resize_policy(policies: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let never = scope.pod.is_some_and(|pod| text(pod.spec, "restartPolicy") == "Never");
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, policy) in numbered(policies) {
        let resource = text(policy, "resourceName");
        if !seen.insert(resource) {
            errors.push(FieldError::duplicate(path.index(index), resource));
        }
        let restart = text(policy, "restartPolicy");
        for (own, known) in [
            (resource, ["cpu", "memory"]),
            (restart, ["NotRequired", "RestartContainer"]),
        ] {
            if own.is_empty() {
                errors.push(FieldError::required(path, ""));
            } else if !known.contains(&own) {
                errors.push(FieldError::not_supported(path, own, &known));
            }
        }
        if never && restart != "NotRequired" {
            errors.push(FieldError::invalid(
                path,
                restart,
                "must be 'NotRequired' when `restartPolicy` is 'Never'",
            ));
        }
    }
}

const RULES_NEED_POLICY: &str = "must specify restartPolicy when restart rules are used";

fn restart_policy(policy: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
    let own = policy.as_str().unwrap_or("");
    if !POLICIES.contains(&own) {
        errors.push(FieldError::not_supported(path, own, &POLICIES));
    }
}

fn restart_rules(container: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let rules = list(container, "restartPolicyRules");
    if has(container, "restartPolicy").is_none() && !rules.is_empty() {
        errors.push(FieldError::required(path.child("restartPolicy"), RULES_NEED_POLICY));
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > 20 {
        errors.push(FieldError::too_long(path, 20));
    }
    for (index, rule) in rules.iter().enumerate() {
        check(RESTART_RULE, rule, scope, &path.index(index), errors);
    }
}

fn restart_action(rule: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let action = text(rule, "action");
    if action != "Restart" {
        errors.push(FieldError::not_supported(path.child("action"), action, &["Restart"]));
    }
}

fn restart_codes(rule: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const OPERATORS: [&str; 2] = ["In", "NotIn"];
    let path = path.child("exitCodes");
    let Some(codes) = has(rule, "exitCodes") else {
        return errors.push(FieldError::required(path, "must be specified"));
    };
    let operator = text(codes, "operator");
    if !OPERATORS.contains(&operator) {
        errors.push(FieldError::not_supported(path.child("operator"), operator, &OPERATORS));
    }
    if list(codes, "values").len() > 255 {
        errors.push(FieldError::too_long(path.child("values"), 255));
    }
}
