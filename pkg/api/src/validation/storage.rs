//! storage.k8s.io: classes, attachments, and what drivers say of themselves.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::rules::{
    Rules, Scope, always, among, call, check, check_object, each_unique, non_negative, object, one_of_if_set,
    one_of_unless_empty, required, structure, whole,
};
use super::{
    Errors, Path, each as each_of, has, immutable, invalid_each, list, node_selector, numbered, persistent, same,
    spec_of, strings, text, volumes,
};
use crate::status::FieldError;
use crate::{meta as object_at, names, quantity};

/// Of parameters and of attachment metadata, in bytes.
const MOST_BYTES: usize = 256 * 1024;
const MOST_PARAMETERS: usize = 512;

const CLASS: Rules = &[
    required("provisioner"),
    call("provisioner", driver),
    call("parameters", parameters),
    one_of_unless_empty("reclaimPolicy", &["Delete", "Retain"]),
    among("volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]),
    call("allowedTopologies", topologies),
];

pub fn storage_class(class: &Value, errors: &mut Errors) {
    check_object(CLASS, class, errors);
}

pub fn storage_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    frozen(new, old, &["parameters", "provisioner", "reclaimPolicy"], errors);
    immutable(errors, new, old, &["volumeBindingMode"], "volumeBindingMode");
}

/// Fields that never change, in the words of this group.
fn frozen(new: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    for field in fields {
        if !same(has(new, field), has(old, field)) {
            errors.push(FieldError::forbidden(
                *field,
                format!("updates to {field} are forbidden."),
            ));
        }
    }
}

/// A driver's name, whatever its case.
fn driver(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = own.as_str().unwrap_or("");
    if !own.is_empty() {
        let lower = own.to_lowercase();
        invalid_each(errors, path, &lower, names::qualified_name(&lower));
    }
}

fn parameters(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let map = own.as_object();
    if map.map_or(0, serde_json::Map::len) > MOST_PARAMETERS {
        return errors.push(FieldError::too_long(path, MOST_PARAMETERS));
    }
    if map.is_some_and(|map| map.contains_key("")) {
        errors.push(FieldError::invalid(path, "", "field can not be empty."));
    }
    bounded(own, path, errors);
}

fn bounded(own: &Value, path: &Path<'_>, errors: &mut Errors) {
    let pairs = own.as_object().into_iter().flatten();
    let size: usize = pairs
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if size > MOST_BYTES {
        errors.push(FieldError::too_long(path, MOST_BYTES));
    }
}

fn topologies(terms: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const TERM: Rules = &[each_unique(
        "matchLabelExpressions",
        "key",
        &[&[whole(topology_values), always("key", names::qualified_name)], &[]],
    )];
    let mut seen: HashSet<String> = HashSet::new();
    for (index, term) in numbered(terms) {
        let path = path.index(index);
        check(TERM, term, scope, &path, errors);
        let mut shape: Vec<String> = list(term, "matchLabelExpressions")
            .iter()
            .map(ToString::to_string)
            .collect();
        shape.sort_unstable();
        // Upstream compares each with as many empty ones, too.
        if !seen.insert(shape.join(" ")) || shape.is_empty() {
            errors.push(FieldError::duplicate(path.child("matchLabelExpressions"), ""));
        }
    }
}

fn topology_values(requirement: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("values");
    if list(requirement, "values").is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, value) in strings(requirement, "values").enumerate() {
        if !seen.insert(value) {
            errors.push(FieldError::duplicate(path.index(index), value));
        }
    }
}

const ATTRIBUTES_CLASS: Rules = &[
    required("driverName"),
    call("driverName", driver),
    call("parameters", parameters),
    whole(some_parameter),
];

pub fn volume_attributes_class(class: &Value, errors: &mut Errors) {
    check_object(ATTRIBUTES_CLASS, class, errors);
}

fn some_parameter(class: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if object_at::map_at(class, &["parameters"]).is_none_or(|map| map.is_empty()) {
        errors.push(FieldError::required(
            path.child("parameters"),
            "must contain at least one key/value pair",
        ));
    }
}

pub fn volume_attributes_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    frozen(new, old, &["driverName", "parameters"], errors);
}

const ATTACHMENT: Rules = &[
    structure(
        "spec",
        &[
            required("attacher"),
            structure("source", &[whole(attached)]),
            always("nodeName", names::dns_subdomain),
        ],
    ),
    structure("status", ATTACHMENT_STATUS),
    whole(attacher),
];

const ATTACHMENT_STATUS: Rules = &[
    call("attachmentMetadata", attachment_metadata),
    object("attachError", VOLUME_ERROR),
    object("detachError", VOLUME_ERROR),
];

const VOLUME_ERROR: Rules = &[call("message", error_message), call("errorCode", error_code)];

pub fn volume_attachment(attachment: &Value, errors: &mut Errors) {
    check_object(ATTACHMENT, attachment, errors);
}

pub fn volume_attachment_status(new: &Value, _old: &Value, errors: &mut Errors) {
    const OBJECT: Rules = &[structure("status", ATTACHMENT_STATUS)];
    check_object(OBJECT, new, errors);
}

/// Of a new one the driver is named as one, which is told with a path of one piece.
fn attacher(attachment: &Value, _: &Scope<'_>, _: &Path<'_>, errors: &mut Errors) {
    if !object_at::resource_version(attachment).is_empty() {
        return;
    }
    let spec = spec_of(attachment);
    volumes::driver_name(text(spec, "attacher"), &Path::new("spec.attacher"), errors);
    if let Some(volume) = object_at::str_at(spec, &["source", "persistentVolumeName"]) {
        let path = Path::new("spec.source.persistentVolumeName");
        invalid_each(errors, &path, volume, names::dns_subdomain(volume));
    }
}

fn attached(source: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (has(source, "inlineVolumeSpec"), has(source, "persistentVolumeName")) {
        (None, None) => errors.push(FieldError::required(path, ONE)),
        (Some(_), Some(_)) => errors.push(FieldError::forbidden(path, ONE)),
        (None, Some(name)) => {
            if name == "" {
                errors.push(FieldError::required(
                    path.child("persistentVolumeName"),
                    "must specify non empty persistentVolumeName",
                ));
            }
        }
        (Some(inline), None) => persistent::inline_volume(inline, &path.child("inlineVolumeSpec"), errors),
    }
}

fn attachment_metadata(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    bounded(own, path, errors);
}

fn error_message(message: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if message.as_str().map_or(0, str::len) > 1024 {
        // upstream names another bound than the one that it keeps
        errors.push(FieldError::too_long(path, MOST_BYTES));
    }
}

fn error_code(code: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(code) = code.as_i64().filter(|&code| code < 0) {
        errors.push(FieldError::invalid(
            path,
            code,
            "must be between 0 and 2147483647, inclusive",
        ));
    }
}

const DRIVER: Rules = &[
    whole(attach_required),
    required("podInfoOnMount"),
    required("storageCapacity"),
    one_of_if_set("fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"]),
    call("tokenRequests", token_requests),
    call("volumeLifecycleModes", lifecycle_modes),
    required("seLinuxMount"),
    call("nodeAllocatableUpdatePeriodSeconds", update_period),
    whole(tokens_in_secrets),
];

pub fn csi_driver(driver: &Value, errors: &mut Errors) {
    const OBJECT: Rules = &[structure("spec", DRIVER)];
    check_object(OBJECT, driver, errors);
}

pub fn csi_driver_update(new: &Value, old: &Value, errors: &mut Errors) {
    // told in upstream's own spelling
    immutable(errors, new, old, &["spec", "attachRequired"], "spec.attachedRequired");
    let path = "spec.volumeLifecycleModes";
    immutable(errors, new, old, &["spec", "volumeLifecycleModes"], path);
}

fn attach_required(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if has(spec, "attachRequired").is_none() {
        errors.push(FieldError::required(path.child("attachedRequired"), ""));
    }
}

fn token_requests(requests: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut audiences: HashSet<&str> = HashSet::new();
    for (index, request) in numbered(requests) {
        let path = path.index(index);
        let audience = text(request, "audience");
        if !audiences.insert(audience) {
            errors.push(FieldError::duplicate(path.child("audience"), audience));
            continue;
        }
        if let Some(seconds) = super::int(request, "expirationSeconds") {
            volumes::token_lifetime(seconds, &path.child("expirationSeconds"), errors);
        }
    }
}

fn lifecycle_modes(modes: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const MODES: [&str; 2] = ["Ephemeral", "Persistent"];
    for (_, mode) in numbered(modes) {
        let mode = mode.as_str().unwrap_or("");
        if !MODES.contains(&mode) {
            errors.push(FieldError::not_supported(path, mode, &["Persistent", "Ephemeral"]));
        }
    }
}

fn update_period(seconds: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(seconds) = seconds.as_i64().filter(|&seconds| seconds < 10) {
        errors.push(FieldError::invalid(
            path,
            seconds,
            "must be greater than or equal to 10 seconds",
        ));
    }
}

fn tokens_in_secrets(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(own) = has(spec, "serviceAccountTokenInSecrets")
        && list(spec, "tokenRequests").is_empty()
    {
        errors.push(FieldError::invalid(
            path.child("serviceAccountTokenInSecrets"),
            own.clone(),
            "serviceAccountTokenInSecrets is set but no tokenRequests are specified",
        ));
    }
}

/// Of a node's drivers.
const NODE_DRIVER: Rules = &[
    whole(node_driver_name),
    required("nodeID"),
    call("nodeID", node_id),
    object("allocatable", &[non_negative("count")]),
];

pub fn csi_node(node: &Value, errors: &mut Errors) {
    const OBJECT: Rules = &[structure("spec", &[call("drivers", node_drivers)])];
    check_object(OBJECT, node, errors);
}

/// Which topology keys are wrong is told of the driver itself.
fn node_drivers(drivers: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, driver) in numbered(drivers) {
        let path = path.index(index);
        check(NODE_DRIVER, driver, scope, &path, errors);
        let name = text(driver, "name");
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        let mut keys: HashSet<&str> = HashSet::new();
        for key in strings(driver, "topologyKeys") {
            if key.is_empty() {
                errors.push(FieldError::required(path, ""));
            }
            if !keys.insert(key) {
                errors.push(FieldError::duplicate(path, key));
            }
            invalid_each(errors, &path, key, names::qualified_name(key));
        }
    }
}

fn node_driver_name(driver: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    volumes::driver_name(text(driver, "name"), &path.child("name"), errors);
}

fn node_id(id: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let id = id.as_str().unwrap_or("");
    if id.len() > 192 {
        errors.push(FieldError::invalid(path, id, "must be 192 characters or less"));
    }
}

/// A driver that is there may change what it can hold, nothing else.
pub fn csi_node_update(new: &Value, old: &Value, errors: &mut Errors) {
    // Upstream checks it twice, and tells it twice.
    csi_node(new, errors);
    let mut named: HashMap<&str, Vec<&Value>> = HashMap::new();
    for is in list(spec_of(new), "drivers") {
        named.entry(text(is, "name")).or_default().push(is);
    }
    for (_, was) in each_of(spec_of(old), "drivers") {
        for is in named.remove(text(was, "name")).unwrap_or_default() {
            let fixed = ["nodeID", "topologyKeys"];
            if fixed.iter().any(|field| !same(has(is, field), has(was, field))) {
                errors.push(FieldError::invalid("spec.drivers", is.clone(), super::IMMUTABLE));
            }
        }
    }
}

const CAPACITY: Rules = &[
    call("nodeTopology", node_selector::selector),
    always("storageClassName", names::dns_subdomain),
    call("capacity", not_negative),
];

pub fn csi_storage_capacity(capacity: &Value, errors: &mut Errors) {
    check_object(CAPACITY, capacity, errors);
}

fn not_negative(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if let Ok(own) = quantity::from_json(own)
        && own.signum() < 0
    {
        errors.push(FieldError::invalid(path, own.to_string(), super::NEGATIVE));
    }
}

pub fn csi_storage_capacity_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable(errors, new, old, &["nodeTopology"], "nodeTopology");
    super::immutable_text(errors, new, old, &["storageClassName"], "storageClassName");
}
