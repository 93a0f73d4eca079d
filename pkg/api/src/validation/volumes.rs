//! Volumes and their mounts. Sources that this version of mk8s does not mount count as valid here and are refused
//! by name afterwards, so that the refusal is the only thing a client reads.

use std::collections::HashSet;

use serde_json::Value;

use super::{Errors, Path, each, flag, has, int, invalid_each, one_of_if_set, text};
use crate::status::FieldError;
use crate::{names, quantity};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// Checks `volumes` and answers the names that mounts may use.
pub(super) fn volumes<'a>(spec: &'a Value, path: &Path<'_>, errors: &mut Errors) -> HashSet<&'a str> {
    let mut known: HashSet<&str> = HashSet::new();
    for (index, volume) in each(spec, "volumes") {
        let path = path.index(index);
        let before = errors.len();
        source(volume, &path, errors);
        let name = text(volume, "name");
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else {
            invalid_each(errors, &path.child("name"), name, names::dns_label(name));
        }
        if known.contains(name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        if errors.len() == before {
            known.insert(name);
        }
    }
    known
}

/// Upstream's order of sources: the second one found is the one that is too many.
pub const VOLUME_SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "flocker",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
    "projected",
    "csi",
    "ephemeral",
    "image",
];

fn source(volume: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut count = 0;
    // the usual volume has one source: only when it has more does their order matter
    let keys = volume.as_object().map_or(0, |map| map.len());
    let present = volume
        .as_object()
        .into_iter()
        .flatten()
        .find_map(|(key, source)| VOLUME_SOURCES.iter().find(|kind| **kind == key && !source.is_null()));
    let only = if keys <= 2 {
        present.map(std::slice::from_ref)
    } else {
        None
    };
    for &kind in only.unwrap_or(&VOLUME_SOURCES) {
        let Some(source) = has(volume, kind) else { continue };
        if count > 0 {
            errors.push(FieldError::forbidden(
                path.child(kind),
                "may not specify more than 1 volume type",
            ));
            continue;
        }
        count += 1;
        let path = path.child(kind);
        fields(kind, source, &path, errors);
    }
    if count == 0 {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}

/// What is inside one kind of source.
fn fields(kind: &str, source: &Value, path: &Path<'_>, errors: &mut Errors) {
    match kind {
        "emptyDir"
            if has(source, "sizeLimit")
                .and_then(|limit| quantity::from_json(limit).ok())
                .is_some_and(|limit| limit.signum() < 0) =>
        {
            errors.push(FieldError::forbidden(
                path.child("sizeLimit"),
                "SizeLimit field must be a valid resource quantity",
            ));
        }
        "hostPath" => {
            let target = text(source, "path");
            if target.is_empty() {
                errors.push(FieldError::required(path.child("path"), ""));
            } else {
                no_backsteps(target, &path.child("path"), errors);
                one_of_if_set(errors, source, "type", path, &HOST_PATH_TYPES);
            }
        }
        "secret" => keyed(source, "secretName", path, errors),
        "configMap" => keyed(source, "name", path, errors),
        "downwardAPI" => {
            mode(source, "defaultMode", path, errors);
            for file in super::list(source, "items") {
                downward_file(file, path, errors);
            }
        }
        "projected" => projected(source, path, errors),
        "persistentVolumeClaim" if text(source, "claimName").is_empty() => {
            errors.push(FieldError::required(path.child("claimName"), ""));
        }
        _ => {}
    }
}

fn mode(source: &Value, key: &str, path: &Path<'_>, errors: &mut Errors) {
    if let Some(mode) = int(source, key).filter(|mode| !(0..=0o777).contains(mode)) {
        errors.push(FieldError::invalid(path.child(key), mode, FILE_MODE));
    }
}

/// A secret's or config map's volume.
fn keyed(source: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    if text(source, name).is_empty() {
        errors.push(FieldError::required(path.child(name), ""));
    }
    mode(source, "defaultMode", path, errors);
    items(source, path, errors);
}

fn items(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("items");
    for (index, item) in each(source, "items") {
        let path = path.index(index);
        for key in ["key", "path"] {
            if text(item, key).is_empty() {
                errors.push(FieldError::required(path.child(key), ""));
            }
        }
        local_path(text(item, "path"), &path.child("path"), errors);
        mode(item, "mode", &path, errors);
    }
}

fn downward_file(file: &Value, path: &Path<'_>, errors: &mut Errors) {
    const FIELDS: [&str; 5] = [
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
    ];
    let target = text(file, "path");
    if target.is_empty() {
        errors.push(FieldError::required(path.child("path"), ""));
    }
    local_path(target, &path.child("path"), errors);
    match (has(file, "fieldRef"), has(file, "resourceFieldRef")) {
        (Some(field), other) => {
            super::container::field_ref(field, &FIELDS, &path.child("fieldRef"), errors);
            if other.is_some() {
                errors.push(FieldError::invalid(
                    path,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                ));
            }
        }
        (None, Some(resource)) => {
            super::container::resource_ref(resource, true, &path.child("resourceFieldRef"), errors);
        }
        (None, None) => errors.push(FieldError::required(
            path,
            "one of fieldRef and resourceFieldRef is required",
        )),
    }
    mode(file, "mode", path, errors);
}

fn projected(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    mode(source, "defaultMode", path, errors);
    let mut paths: HashSet<&str> = HashSet::new();
    let sources = path.child("sources");
    for (index, own) in each(source, "sources") {
        let source_path = sources.index(index);
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            let Some(source) = has(own, kind) else { continue };
            count += 1;
            let kind_path = source_path.child(kind);
            if text(source, "name").is_empty() {
                errors.push(FieldError::required(kind_path.child("name"), ""));
            }
            items(source, &kind_path, errors);
            for item in super::list(source, "items") {
                unique_path(&mut paths, text(item, "path"), Some(text(source, "name")), path, errors);
            }
        }
        if let Some(downward) = has(own, "downwardAPI") {
            count += 1;
            for file in super::list(downward, "items") {
                downward_file(file, &source_path.child("downwardAPI"), errors);
                unique_path(&mut paths, text(file, "path"), None, path, errors);
            }
        }
        if let Some(token) = has(own, "serviceAccountToken") {
            count += 1;
            let token_path = source_path.child("serviceAccountToken");
            let seconds = int(token, "expirationSeconds").unwrap_or(0);
            if seconds < 600 {
                errors.push(FieldError::invalid(
                    token_path.child("expirationSeconds"),
                    seconds,
                    "may not specify a duration less than 10 minutes",
                ));
            }
            if seconds > 1 << 32 {
                errors.push(FieldError::invalid(
                    token_path.child("expirationSeconds"),
                    seconds,
                    "may not specify a duration larger than 2^32 seconds",
                ));
            }
            match text(token, "path") {
                "" => errors.push(FieldError::required(path.child("path"), "")),
                target => local_path(target, &path.child("path"), errors),
            }
        }
        count += ["clusterTrustBundle", "podCertificate"]
            .iter()
            .filter(|kind| has(own, kind).is_some())
            .count();
        if count > 1 {
            errors.push(FieldError::forbidden(
                source_path,
                "may not specify more than 1 volume type per source",
            ));
        }
    }
}

fn unique_path<'a>(
    paths: &mut HashSet<&'a str>,
    target: &'a str,
    shown: Option<&str>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    if target.is_empty() {
        return;
    }
    if !paths.insert(target) {
        errors.push(FieldError::invalid(
            path,
            shown.unwrap_or(target),
            "conflicting duplicate paths",
        ));
    }
}

fn no_backsteps(target: &str, path: &Path<'_>, errors: &mut Errors) {
    if target.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, target, "must not contain '..'"));
    }
}

pub(super) fn descending_path(target: &str, path: &Path<'_>, errors: &mut Errors) {
    if target.starts_with('/') {
        errors.push(FieldError::invalid(path, target, "must be a relative path"));
    }
    no_backsteps(target, path, errors);
}

fn local_path(target: &str, path: &Path<'_>, errors: &mut Errors) {
    descending_path(target, path, errors);
    if target.starts_with("..") && !target.starts_with("../") {
        errors.push(FieldError::invalid(path, target, "must not start with '..'"));
    }
}

/// `volumeMounts` of a container.
pub(super) fn mounts(container: &Value, volumes: &HashSet<&str>, path: &Path<'_>, errors: &mut Errors) {
    let mut mount_paths: HashSet<&str> = HashSet::new();
    let devices = super::list(container, "volumeDevices").iter();
    let devices: HashSet<&str> = devices.map(|device| text(device, "name")).collect();
    for (index, mount) in each(container, "volumeMounts") {
        let mount_path = path.index(index);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.push(FieldError::required(mount_path.child("name"), ""));
        }
        if !volumes.contains(name) {
            errors.push(FieldError::not_found(mount_path.child("name"), name));
        }
        if target.is_empty() {
            errors.push(FieldError::required(mount_path.child("mountPath"), ""));
        }
        if !mount_paths.insert(target) {
            errors.push(FieldError::invalid(
                mount_path.child("mountPath"),
                target,
                "must be unique",
            ));
        }
        if devices.contains(name) {
            errors.push(FieldError::invalid(
                mount_path.child("name"),
                name,
                "must not already exist in volumeDevices",
            ));
        }
        sub_paths(mount, path, &mount_path, errors);
        propagation(container, mount, &path.child("mountPropagation"), errors);
        recursive_read_only(mount, &path.child("recursiveReadOnly"), errors);
    }
}

/// What is wrong with a path is told without the mount's index (`path`), as upstream does.
fn sub_paths(mount: &Value, path: &Path<'_>, mount_path: &Path<'_>, errors: &mut Errors) {
    let (sub_path, sub_expr) = (text(mount, "subPath"), text(mount, "subPathExpr"));
    if !sub_path.is_empty() {
        descending_path(sub_path, &path.child("subPath"), errors);
    }
    if !sub_expr.is_empty() {
        if !sub_path.is_empty() {
            errors.push(FieldError::invalid(
                mount_path.child("subPathExpr"),
                sub_expr,
                "subPathExpr and subPath are mutually exclusive",
            ));
        }
        descending_path(sub_expr, &path.child("subPathExpr"), errors);
    }
}

fn propagation(container: &Value, mount: &Value, path: &Path<'_>, errors: &mut Errors) {
    const PROPAGATIONS: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];
    if has(mount, "mountPropagation").is_none() {
        return;
    }
    let propagation = text(mount, "mountPropagation");
    if !PROPAGATIONS.contains(&propagation) {
        errors.push(FieldError::not_supported(path, propagation, &PROPAGATIONS));
    }
    let privileged = has(container, "securityContext").is_some_and(|context| flag(context, "privileged"));
    if propagation == "Bidirectional" && !privileged {
        errors.push(FieldError::forbidden(
            path,
            "Bidirectional mount propagation is available only to privileged containers",
        ));
    }
}

fn recursive_read_only(mount: &Value, path: &Path<'_>, errors: &mut Errors) {
    const RECURSIVE: [&str; 3] = ["Disabled", "Enabled", "IfPossible"];
    match has(mount, "recursiveReadOnly").and_then(Value::as_str) {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !flag(mount, "readOnly") {
                errors.push(FieldError::forbidden(
                    path,
                    "may only be specified when readOnly is true",
                ));
            }
            if !matches!(text(mount, "mountPropagation"), "" | "None") {
                errors.push(FieldError::forbidden(
                    path,
                    "may only be specified when mountPropagation is None or not specified",
                ));
            }
        }
        Some(other) => errors.push(FieldError::not_supported(path, other, &RECURSIVE)),
    }
}
