//! What this version of mk8s does not do and so refuses, by the field's path, in pods and in every pod template alike:
//! nothing is accepted and then ignored.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::{Errors, NOT_HERE, Path, each, has, list, text};
use crate::meta as object;
use crate::status::FieldError;

/// Whether the hosts have AppArmor; found out at start, not assumed.
static APP_ARMOR: AtomicBool = AtomicBool::new(false);

/// Called once at start where the host has it. A host that joins and has none refuses such a pod itself.
pub fn allow_app_armor() {
    APP_ARMOR.store(true, Ordering::Relaxed);
}

const MOUNTED: [&str; 6] = [
    "emptyDir",
    "hostPath",
    "configMap",
    "secret",
    "downwardAPI",
    "projected",
];
const PROJECTED: [&str; 4] = ["configMap", "secret", "downwardAPI", "serviceAccountToken"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

fn refuse(errors: &mut Errors, path: impl Into<String>) {
    errors.push(FieldError::forbidden(path, NOT_HERE));
}

/// A value that says something: not absent, `null`, empty or false.
fn says(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    }
}

pub(super) fn pod_spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    volumes(spec, &path.child("volumes"), errors);
    for kind in ["initContainers", "containers"] {
        let containers = path.child(kind);
        for (index, own) in each(spec, kind) {
            container(own, &containers.index(index), errors);
        }
    }
    if let Some(affinity) = has(spec, "affinity") {
        let path = path.child("affinity");
        for kind in ["podAffinity", "podAntiAffinity"] {
            if !object::items(affinity, &[kind, REQUIRED]).is_empty() {
                refuse(errors, path.child(kind).child(REQUIRED));
            }
        }
    }
    let spread = path.child("topologySpreadConstraints");
    for (index, constraint) in each(spec, "topologySpreadConstraints") {
        if text(constraint, "whenUnsatisfiable") == "DoNotSchedule" {
            refuse(errors, spread.index(index).child("whenUnsatisfiable"));
        }
    }
    for key in ["resourceClaims", "resources", "workloadRef"] {
        if says(has(spec, key)) {
            refuse(errors, path.child(key));
        }
    }
    if object::bool_at(spec, &["hostUsers"]) == Some(false) {
        refuse(errors, path.child("hostUsers"));
    }
    if let Some(context) = has(spec, "securityContext") {
        security_context(context, &path.child("securityContext"), errors);
    }
    if object::str_at(spec, &["os", "name"]) == Some("windows") {
        refuse(errors, path.child("os").child("name"));
    }
}

fn volumes(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (index, volume) in each(spec, "volumes") {
        let path = path.index(index);
        for (kind, source) in volume.as_object().into_iter().flatten() {
            if kind == "name" || source.is_null() {
                continue;
            }
            if !MOUNTED.contains(&kind.as_str()) {
                refuse(errors, path.child(kind));
            }
        }
        let medium = object::string(volume, &["emptyDir", "medium"]);
        if medium.starts_with("HugePages") {
            refuse(errors, path.child("emptyDir").child("medium"));
        }
        let Some(projected) = has(volume, "projected") else {
            continue;
        };
        let projected_path = path.child("projected");
        let sources = projected_path.child("sources");
        for (index, source) in each(projected, "sources") {
            for (kind, own) in source.as_object().into_iter().flatten() {
                if !own.is_null() && !PROJECTED.contains(&kind.as_str()) {
                    refuse(errors, sources.index(index).child(kind));
                }
            }
        }
    }
}

fn container(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    for key in ["volumeDevices", "restartPolicy", "restartPolicyRules"] {
        if says(has(container, key)) {
            refuse(errors, path.child(key));
        }
    }
    if let Some(resources) = has(container, "resources") {
        let path = path.child("resources");
        if !list(resources, "claims").is_empty() {
            refuse(errors, path.child("claims"));
        }
        for kind in ["limits", "requests"] {
            for name in object::map_at(resources, &[kind])
                .into_iter()
                .flatten()
                .map(|(name, _)| name)
            {
                if name.starts_with("hugepages-") {
                    refuse(errors, path.child(kind).key(name));
                }
            }
        }
    }
    if says(object::at(container, &["lifecycle", "stopSignal"])) {
        refuse(errors, path.child("lifecycle").child("stopSignal"));
    }
    let env = path.child("env");
    for (index, variable) in each(container, "env") {
        if object::at(variable, &["valueFrom", "fileKeyRef"]).is_some() {
            refuse(errors, env.index(index).child("valueFrom").child("fileKeyRef"));
        }
    }
    let mounts = path.child("volumeMounts");
    for (index, mount) in each(container, "volumeMounts") {
        if text(mount, "recursiveReadOnly") == "Enabled" {
            refuse(errors, mounts.index(index).child("recursiveReadOnly"));
        }
    }
    if let Some(context) = has(container, "securityContext") {
        let path = path.child("securityContext");
        security_context(context, &path, errors);
        if text(context, "procMount") == "Unmasked" {
            refuse(errors, path.child("procMount"));
        }
    }
}

/// Of a pod or container.
fn security_context(context: &Value, path: &Path<'_>, errors: &mut Errors) {
    let profile = object::string(context, &["appArmorProfile", "type"]);
    if !matches!(profile, "" | "Unconfined") && !APP_ARMOR.load(Ordering::Relaxed) {
        refuse(errors, path.child("appArmorProfile"));
    }
    if says(has(context, "windowsOptions")) {
        refuse(errors, path.child("windowsOptions"));
    }
}
