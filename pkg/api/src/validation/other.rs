//! The smaller groups: in full where this version of mk8s acts on the kind, else what must be there and what a field
//! may say.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{
    Errors, IMMUTABLE, Path, at_most_100_percent, each, flag, has, immutable, int, int_or_percent, invalid_each,
    label_selector, labels, list, node_selector, one_of, one_of_if_set, required, resources, same, strings, text,
};
use crate::status::FieldError;
use crate::{meta as object, names};

const SPEC: Path<'static> = Path::new("spec");

fn spec_of(object: &Value) -> &Value {
    has(object, "spec").unwrap_or(&Value::Null)
}

pub fn lease(lease: &Value, errors: &mut Errors) {
    let spec = spec_of(lease);
    if let Some(seconds) = int(spec, "leaseDurationSeconds").filter(|&seconds| seconds <= 0) {
        errors.push(FieldError::invalid(
            "spec.leaseDurationSeconds",
            seconds,
            "must be greater than 0",
        ));
    }
    super::non_negative(errors, spec, "leaseTransitions", &SPEC);
    if !text(spec, "preferredHolder").is_empty() && text(spec, "strategy").is_empty() {
        errors.push(FieldError::forbidden(
            "spec.preferredHolder",
            "may only be specified if `strategy` is defined",
        ));
    }
}

pub fn disruption_budget(budget: &Value, errors: &mut Errors) {
    let spec = spec_of(budget);
    if has(spec, "minAvailable").is_some() && has(spec, "maxUnavailable").is_some() {
        errors.push(FieldError::invalid(
            "spec",
            spec.clone(),
            "minAvailable and maxUnavailable cannot be both set",
        ));
    }
    for key in ["minAvailable", "maxUnavailable"] {
        if let Some(value) = has(spec, key) {
            int_or_percent(errors, value, &SPEC.child(key));
            at_most_100_percent(errors, value, &SPEC.child(key));
        }
    }
    if let Some(selector) = has(spec, "selector") {
        label_selector(selector, &SPEC.child("selector"), errors);
    }
    one_of_if_set(
        errors,
        spec,
        "unhealthyPodEvictionPolicy",
        &SPEC,
        &["AlwaysAllow", "IfHealthyBudget"],
    );
}

const SYSTEM_CLASSES: [(&str, i64); 2] = [
    ("system-node-critical", 2_000_001_000),
    ("system-cluster-critical", 2_000_000_000),
];
const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

pub fn priority_class(class: &Value, errors: &mut Errors) {
    let (name, value) = (object::name(class), int(class, "value").unwrap_or(0));
    if name.starts_with("system-") {
        let why = match SYSTEM_CLASSES.iter().find(|(own, _)| *own == name) {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, own)) if *own != value => Some(format!("value of {name} PriorityClass must be {own}")),
            Some(_) if flag(class, "globalDefault") => {
                Some(format!("globalDefault of {name} PriorityClass must be false"))
            }
            Some(_) => None,
        };
        if let Some(why) = why {
            errors.push(FieldError::forbidden(
                "metadata.name",
                format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}"),
            ));
        }
    } else if value > HIGHEST_USER_PRIORITY {
        errors.push(FieldError::forbidden(
            "value",
            format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"),
        ));
    }
    if let Some(policy) = has(class, "preemptionPolicy").and_then(Value::as_str)
        && !matches!(policy, "PreemptLowerPriority" | "Never")
    {
        errors.push(FieldError::not_supported(
            "preemptionPolicy",
            policy,
            &["PreemptLowerPriority", "Never"],
        ));
    }
}

pub fn priority_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    if int(new, "value") != int(old, "value") {
        errors.push(FieldError::forbidden("value", "may not be changed in an update."));
    }
    immutable(errors, new, old, &["preemptionPolicy"], "preemptionPolicy");
}

pub fn runtime_class(class: &Value, errors: &mut Errors) {
    let handler = text(class, "handler");
    invalid_each(errors, &Path::new("handler"), handler, names::dns_label(handler));
    let overhead = Path::new("overhead");
    resources::list(
        object::at(class, &["overhead", "podFixed"]),
        &overhead.child("limits"),
        errors,
    );
    if let Some(scheduling) = has(class, "scheduling") {
        let path = Path::new("scheduling");
        labels(has(scheduling, "nodeSelector"), &path.child("nodeSelector"), errors);
        node_selector::tolerations(scheduling, &path.child("tolerations"), errors);
    }
}

pub fn runtime_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable(errors, new, old, &["handler"], "handler");
}

pub fn signing_request(request: &Value, errors: &mut Errors) {
    let spec = spec_of(request);
    if required(errors, spec, "request", &SPEC) && !is_certificate_request(text(spec, "request")) {
        errors.push(FieldError::invalid(
            "spec.request",
            text(spec, "request"),
            "PEM block type must be CERTIFICATE REQUEST",
        ));
    }
    let signer = text(spec, "signerName");
    match signer {
        "" => errors.push(FieldError::required("spec.signerName", "")),
        _ => {
            let valid = signer.split_once('/').is_some_and(|(domain, path)| {
                !path.is_empty() && domain.contains('.') && names::dns_subdomain(domain).is_empty()
            });
            if !valid {
                errors.push(FieldError::invalid(
                    "spec.signerName",
                    signer,
                    "must be a fully qualified domain and path of the form 'example.com/signer-name'",
                ));
            }
        }
    }
    let usages = SPEC.child("usages");
    if list(spec, "usages").is_empty() {
        errors.push(FieldError::required(usages, ""));
    }
    const USAGES: [&str; 23] = [
        "any",
        "cert sign",
        "client auth",
        "code signing",
        "content commitment",
        "crl sign",
        "data encipherment",
        "decipher only",
        "digital signature",
        "email protection",
        "encipher only",
        "ipsec end system",
        "ipsec tunnel",
        "ipsec user",
        "key agreement",
        "key encipherment",
        "microsoft sgc",
        "netscape sgc",
        "ocsp signing",
        "s/mime",
        "server auth",
        "signing",
        "timestamping",
    ];
    let mut seen: Vec<&str> = Vec::new();
    for (index, usage) in strings(spec, "usages").enumerate() {
        if !USAGES.contains(&usage) {
            errors.push(FieldError::not_supported(usages.index(index), usage, &USAGES));
        }
        if seen.contains(&usage) {
            errors.push(FieldError::duplicate(usages.index(index), usage));
        }
        seen.push(usage);
    }
    if let Some(seconds) = int(spec, "expirationSeconds").filter(|&seconds| seconds < 600) {
        errors.push(FieldError::invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        ));
    }
    conditions(request, errors);
}

/// Whether base64 holds PEM of a certificate request; whoever signs it parses it.
fn is_certificate_request(encoded: &str) -> bool {
    STANDARD
        .decode(encoded)
        .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE REQUEST-----"))
}

fn conditions(request: &Value, errors: &mut Errors) {
    let status = Path::new("status");
    let conditions = status.child("conditions");
    let own = object::items(request, &["status", "conditions"]);
    let has_type = |type_: &str| own.iter().position(|condition| text(condition, "type") == type_);
    for (index, condition) in own.iter().enumerate() {
        let path = conditions.index(index);
        if text(condition, "type").is_empty() {
            errors.push(FieldError::required(path.child("type"), ""));
        }
        let decided = matches!(text(condition, "type"), "Approved" | "Denied" | "Failed");
        match text(condition, "status") {
            "" => errors.push(FieldError::required(path.child("status"), "")),
            "True" => {}
            other if decided => errors.push(FieldError::not_supported(path.child("status"), other, &["True"])),
            "False" | "Unknown" => {}
            other => errors.push(FieldError::not_supported(
                path.child("status"),
                other,
                &["False", "True", "Unknown"],
            )),
        }
        let type_ = text(condition, "type");
        if own[..index].iter().any(|other| text(other, "type") == type_) {
            errors.push(FieldError::duplicate(path.child("type"), type_));
        }
    }
    if let (Some(approved), Some(denied)) = (has_type("Approved"), has_type("Denied")) {
        errors.push(FieldError::invalid(
            conditions.index(approved.max(denied)).child("type"),
            text(&own[approved.max(denied)], "type"),
            "Approved and Denied conditions are mutually exclusive",
        ));
    }
}

pub fn ingress(ingress: &Value, errors: &mut Errors) {
    let spec = spec_of(ingress);
    if list(spec, "rules").is_empty() && has(spec, "defaultBackend").is_none() {
        errors.push(FieldError::invalid(
            "spec",
            spec.clone(),
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    if let Some(backend) = has(spec, "defaultBackend") {
        ingress_backend(backend, &SPEC.child("defaultBackend"), errors);
    }
    let rules = SPEC.child("rules");
    for (index, rule) in each(spec, "rules") {
        let path = rules.index(index);
        let host = text(rule, "host");
        if !host.is_empty() {
            if host.parse::<std::net::IpAddr>().is_ok() {
                errors.push(FieldError::invalid(
                    path.child("host"),
                    host,
                    "must be a DNS name, not an IP address",
                ));
            }
            let plain = host.strip_prefix("*.").unwrap_or(host);
            invalid_each(errors, &path.child("host"), host, names::dns_subdomain(plain));
        }
        let Some(http) = has(rule, "http") else { continue };
        let http_path = path.child("http");
        let paths = http_path.child("paths");
        if list(http, "paths").is_empty() {
            errors.push(FieldError::required(paths, ""));
        }
        for (index, own) in each(http, "paths") {
            let path = paths.index(index);
            one_of(
                errors,
                own,
                "pathType",
                &path,
                &["Exact", "ImplementationSpecific", "Prefix"],
            );
            let route = text(own, "path");
            if matches!(text(own, "pathType"), "Exact" | "Prefix") && !route.starts_with('/') {
                errors.push(FieldError::invalid(
                    path.child("path"),
                    route,
                    "must be an absolute path",
                ));
            }
            let backend = has(own, "backend").unwrap_or(&Value::Null);
            ingress_backend(backend, &path.child("backend"), errors);
        }
    }
}

fn ingress_backend(backend: &Value, path: &Path<'_>, errors: &mut Errors) {
    match (has(backend, "service"), has(backend, "resource")) {
        (None, None) => errors.push(FieldError::invalid(path, "", "resource or service backend is required")),
        (Some(_), Some(_)) => errors.push(FieldError::invalid(
            path,
            "",
            "cannot set both resource and service backends",
        )),
        (Some(service), None) => {
            let path = path.child("service");
            match text(service, "name") {
                "" => errors.push(FieldError::required(path.child("name"), "")),
                name => invalid_each(errors, &path.child("name"), name, names::dns_1035_label(name)),
            }
            let port = has(service, "port").unwrap_or(&Value::Null);
            let (name, number) = (text(port, "name"), int(port, "number").unwrap_or(0));
            let path = path.child("port");
            match (name.is_empty(), number) {
                (true, 0) => errors.push(FieldError::required(path, "port name or number is required")),
                (false, 0) => invalid_each(errors, &path.child("name"), name, names::port_name(name)),
                (true, number) => {
                    for problem in names::port_number(number) {
                        errors.push(FieldError::invalid(path.child("number"), number, problem));
                    }
                }
                (false, _) => errors.push(FieldError::invalid(path, "", "cannot set both port name & port number")),
            }
        }
        (None, Some(resource)) => {
            let path = path.child("resource");
            for key in ["kind", "name"] {
                required(errors, resource, key, &path);
            }
        }
    }
}

pub fn ingress_class(class: &Value, errors: &mut Errors) {
    let controller = text(spec_of(class), "controller");
    let valid = controller
        .split_once('/')
        .is_some_and(|(domain, path)| !path.is_empty() && names::dns_subdomain(domain).is_empty());
    if !controller.is_empty() && !valid {
        errors.push(FieldError::invalid(
            "spec.controller",
            controller,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        ));
    }
}

pub fn ingress_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable(errors, new, old, &["spec", "controller"], "spec.controller");
}

pub fn ip_address(address: &Value, errors: &mut Errors) {
    let name = object::name(address);
    if name.parse::<std::net::IpAddr>().is_err() {
        errors.push(FieldError::invalid("metadata.name", name, "must be a valid IP address"));
    }
    match has(spec_of(address), "parentRef") {
        None => errors.push(FieldError::required("spec.parentRef", "")),
        Some(parent) => {
            let path = SPEC.child("parentRef");
            for key in ["resource", "name"] {
                required(errors, parent, key, &path);
            }
        }
    }
}

pub fn service_cidr(cidr: &Value, errors: &mut Errors) {
    let spec = spec_of(cidr);
    let path = SPEC.child("cidrs");
    match list(spec, "cidrs").len() {
        0 => errors.push(FieldError::required(path, "at least one CIDR required")),
        1 | 2 => {}
        _ => errors.push(FieldError::invalid(
            path,
            Value::Array(list(spec, "cidrs").to_vec()),
            "may only hold up to 2 values",
        )),
    }
    for (index, own) in strings(spec, "cidrs").enumerate() {
        invalid_each(errors, &path.index(index), own, names::cidr(own));
    }
}

/// A spec that never changes.
pub fn spec_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable(errors, new, old, &["spec"], "spec");
}

pub fn storage_class(class: &Value, errors: &mut Errors) {
    let provisioner = text(class, "provisioner");
    if provisioner.is_empty() {
        errors.push(FieldError::required("provisioner", ""));
    } else {
        let lower = provisioner.to_lowercase();
        invalid_each(
            errors,
            &Path::new("provisioner"),
            provisioner,
            names::qualified_name(&lower),
        );
    }
    for (key, supported) in [
        ("reclaimPolicy", &["Delete", "Retain"]),
        ("volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]),
    ] {
        let own = text(class, key);
        if own.is_empty() {
            errors.push(FieldError::required(key, ""));
        } else if !supported.contains(&own) {
            errors.push(FieldError::not_supported(key, own, supported));
        }
    }
}

pub fn storage_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    for key in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        if !same(has(new, key), has(old, key)) {
            errors.push(match key {
                "parameters" | "provisioner" => FieldError::forbidden(key, format!("updates to {key} are forbidden.")),
                _ => FieldError::invalid(key, has(new, key).cloned().unwrap_or(Value::Null), IMMUTABLE),
            });
        }
    }
}

pub fn volume_attributes_class(class: &Value, errors: &mut Errors) {
    if text(class, "driverName").is_empty() {
        errors.push(FieldError::required("driverName", ""));
    }
    if object::map_at(class, &["parameters"]).is_none_or(|map| map.is_empty()) {
        errors.push(FieldError::required(
            "parameters",
            "must contain at least one key/value pair",
        ));
    }
}

pub fn volume_attributes_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    for key in ["driverName", "parameters"] {
        if !same(has(new, key), has(old, key)) {
            errors.push(FieldError::forbidden(key, format!("updates to {key} are forbidden.")));
        }
    }
}

pub fn volume_attachment(attachment: &Value, errors: &mut Errors) {
    let spec = spec_of(attachment);
    required(errors, spec, "attacher", &SPEC);
    required(errors, spec, "nodeName", &SPEC);
    if object::at(spec, &["source", "persistentVolumeName"]).is_none()
        && object::at(spec, &["source", "inlineVolumeSpec"]).is_none()
    {
        errors.push(FieldError::required(
            "spec.source",
            "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        ));
    }
}

pub fn csi_driver(driver: &Value, errors: &mut Errors) {
    let spec = spec_of(driver);
    for key in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
        required(errors, spec, key, &SPEC);
    }
    one_of_if_set(
        errors,
        spec,
        "fsGroupPolicy",
        &SPEC,
        &["File", "None", "ReadWriteOnceWithFSType"],
    );
    for mode in strings(spec, "volumeLifecycleModes") {
        if !matches!(mode, "Ephemeral" | "Persistent") {
            errors.push(FieldError::not_supported(
                "spec.volumeLifecycleModes",
                mode,
                &["Ephemeral", "Persistent"],
            ));
        }
    }
}

pub fn csi_node(node: &Value, errors: &mut Errors) {
    let drivers = SPEC.child("drivers");
    for (index, driver) in each(spec_of(node), "drivers") {
        let path = drivers.index(index);
        required(errors, driver, "name", &path);
        required(errors, driver, "nodeID", &path);
    }
}

pub fn csi_storage_capacity(capacity: &Value, errors: &mut Errors) {
    match text(capacity, "storageClassName") {
        "" => errors.push(FieldError::required("storageClassName", "")),
        name => invalid_each(errors, &Path::new("storageClassName"), name, names::dns_subdomain(name)),
    }
    if let Some(selector) = has(capacity, "nodeTopology") {
        label_selector(selector, &Path::new("nodeTopology"), errors);
    }
}

/// autoscaling/v2 (and v1, whose targets are fewer).
pub fn autoscaler(autoscaler: &Value, errors: &mut Errors) {
    let spec = spec_of(autoscaler);
    let minimum = int(spec, "minReplicas").unwrap_or(1);
    let maximum = int(spec, "maxReplicas").unwrap_or(0);
    if minimum < 1 {
        errors.push(FieldError::invalid(
            "spec.minReplicas",
            minimum,
            "must be greater than or equal to 1",
        ));
    }
    if maximum < 1 {
        errors.push(FieldError::invalid(
            "spec.maxReplicas",
            maximum,
            "must be greater than 0",
        ));
    }
    if maximum < minimum {
        errors.push(FieldError::invalid(
            "spec.maxReplicas",
            maximum,
            "must be greater than or equal to `minReplicas`",
        ));
    }
    let target = has(spec, "scaleTargetRef").unwrap_or(&Value::Null);
    let path = SPEC.child("scaleTargetRef");
    for key in ["kind", "name"] {
        if required(errors, target, key, &path) {
            let own = text(target, key);
            invalid_each(errors, &path.child(key), own, names::path_segment(own));
        }
    }
    let metrics = SPEC.child("metrics");
    for (index, metric) in each(spec, "metrics") {
        one_of(
            errors,
            metric,
            "type",
            &metrics.index(index),
            &["ContainerResource", "External", "Object", "Pods", "Resource"],
        );
    }
}

pub fn flow_schema(schema: &Value, errors: &mut Errors) {
    let spec = spec_of(schema);
    let precedence = int(spec, "matchingPrecedence").unwrap_or(0);
    if precedence <= 0 {
        errors.push(FieldError::invalid(
            "spec.matchingPrecedence",
            precedence,
            "must be a positive value",
        ));
    }
    if precedence > 10_000 {
        errors.push(FieldError::invalid(
            "spec.matchingPrecedence",
            precedence,
            "must not be greater than 10000",
        ));
    }
    if let Some(method) = has(spec, "distinguisherMethod") {
        one_of(
            errors,
            method,
            "type",
            &SPEC.child("distinguisherMethod"),
            &["ByNamespace", "ByUser"],
        );
    }
    if object::string(spec, &["priorityLevelConfiguration", "name"]).is_empty() {
        errors.push(FieldError::required(
            "spec.priorityLevelConfiguration.name",
            "must reference a priority level",
        ));
    }
}

pub fn priority_level(level: &Value, errors: &mut Errors) {
    let spec = spec_of(level);
    one_of(errors, spec, "type", &SPEC, &["Exempt", "Limited"]);
    if text(spec, "type") == "Limited" && has(spec, "limited").is_none() {
        errors.push(FieldError::required(
            "spec.limited",
            "must not be empty when type is Limited",
        ));
    }
    if text(spec, "type") == "Exempt" && has(spec, "limited").is_some() {
        errors.push(FieldError::forbidden(
            "spec.limited",
            "must be nil if the type is not Limited",
        ));
    }
}

fn device_claim(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let devices = has(spec, "devices").unwrap_or(&Value::Null);
    let devices_path = path.child("devices");
    let requests = devices_path.child("requests");
    let mut known: Vec<&str> = Vec::new();
    for (index, request) in each(devices, "requests") {
        let path = requests.index(index);
        match text(request, "name") {
            "" => errors.push(FieldError::required(path.child("name"), "")),
            name => {
                invalid_each(errors, &path.child("name"), name, names::dns_label(name));
                if known.contains(&name) {
                    errors.push(FieldError::duplicate(path.child("name"), name));
                }
                known.push(name);
            }
        }
        match has(request, "exactly") {
            Some(exactly) => {
                let path = path.child("exactly");
                required(errors, exactly, "deviceClassName", &path);
            }
            None if list(request, "firstAvailable").is_empty() => errors.push(FieldError::required(
                path,
                "exactly one of `exactly` or `firstAvailable` is required",
            )),
            None => {}
        }
    }
}

pub fn resource_claim(claim: &Value, errors: &mut Errors) {
    device_claim(spec_of(claim), &SPEC, errors);
}

pub fn resource_claim_template(template: &Value, errors: &mut Errors) {
    let spec = object::at(template, &["spec", "spec"]).unwrap_or(&Value::Null);
    device_claim(spec, &SPEC.child("spec"), errors);
}

pub fn resource_slice(slice: &Value, errors: &mut Errors) {
    let spec = spec_of(slice);
    required(errors, spec, "driver", &SPEC);
    let pool = has(spec, "pool").unwrap_or(&Value::Null);
    required(errors, pool, "name", &SPEC.child("pool"));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(check: fn(&Value, &mut Errors), object: &Value) -> Vec<String> {
        let mut errors = Errors::new();
        check(object, &mut errors);
        errors.iter().map(|error| error.field.clone()).collect()
    }

    #[test]
    fn tables() {
        let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value});
        assert_eq!(fields(priority_class, &class("x", 5)), Vec::<String>::new());
        assert_eq!(fields(priority_class, &class("x", 2_000_000_000)), ["value"]);
        assert_eq!(fields(priority_class, &class("system-x", 5)), ["metadata.name"]);
        assert_eq!(
            fields(priority_class, &class("system-node-critical", 2_000_001_000)),
            Vec::<String>::new()
        );
        assert_eq!(
            fields(
                disruption_budget,
                &json!({"spec": {"minAvailable": 1, "maxUnavailable": "200%"}})
            ),
            ["spec", "spec.maxUnavailable"]
        );
        assert_eq!(
            fields(lease, &json!({"spec": {"leaseDurationSeconds": 0}})),
            ["spec.leaseDurationSeconds"]
        );
        assert_eq!(
            fields(
                signing_request,
                &json!({"spec": {"request": "eA==", "signerName": "x", "usages": ["a"]}})
            ),
            ["spec.request", "spec.signerName", "spec.usages[0]"]
        );
    }
}
