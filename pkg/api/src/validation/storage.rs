//! storage.k8s.io: what a class or a driver must say.

use serde_json::Value;

use super::{
    Errors, IMMUTABLE, Path, SPEC, each, has, invalid_each, label_selector, one_of_if_set, required, same, spec_of,
    strings, text,
};
use crate::status::FieldError;
use crate::{meta as object, names};

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
