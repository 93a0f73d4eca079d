//! Where a container sees its pod's volumes: as directories, or as devices.

use std::collections::HashSet;

use serde_json::Value;

use super::rules::Scope;
use super::volumes::{backsteps, descending};
use super::{Errors, Path, flag, has, invalid_each, list, text};
use crate::status::FieldError;

/// The volume of a name.
fn volume<'a>(scope: &Scope<'a>, name: &str) -> Option<&'a Value> {
    scope.pod?.volumes.get(name).copied()
}

/// `volumeMounts`.
pub(super) fn mounts(container: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("volumeMounts");
    let mut targets: HashSet<&str> = HashSet::new();
    let field = |field| {
        let devices = list(container, "volumeDevices").iter();
        devices.map(move |device| text(device, field)).collect::<HashSet<_>>()
    };
    let (devices, device_paths) = (field("name"), field("devicePath"));
    for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
        let own = path.index(index);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        let (name_path, target_path) = (own.child("name"), own.child("mountPath"));
        if name.is_empty() {
            errors.push(FieldError::required(name_path, ""));
        }
        if volume(scope, name).is_none() {
            errors.push(FieldError::not_found(name_path, name));
        }
        if target.is_empty() {
            errors.push(FieldError::required(target_path, ""));
        }
        if !targets.insert(target) {
            errors.push(FieldError::invalid(target_path, target, "must be unique"));
        }
        if devices.contains(name) {
            errors.push(FieldError::invalid(
                name_path,
                name,
                "must not already exist in volumeDevices",
            ));
        }
        if device_paths.contains(target) {
            errors.push(FieldError::invalid(
                target_path,
                target,
                "must not already exist as a path in volumeDevices",
            ));
        }
        sub_paths(mount, &path, &own, errors);
        propagation(container, mount, &path.child("mountPropagation"), errors);
        recursive_read_only(mount, &path.child("recursiveReadOnly"), errors);
    }
}

/// What is wrong with a path is told without the mount's index (`path`), as upstream does.
fn sub_paths(mount: &Value, path: &Path<'_>, mount_path: &Path<'_>, errors: &mut Errors) {
    let (sub_path, sub_expr) = (text(mount, "subPath"), text(mount, "subPathExpr"));
    if !sub_path.is_empty() {
        invalid_each(errors, &path.child("subPath"), sub_path, descending(sub_path));
    }
    if !sub_expr.is_empty() {
        if !sub_path.is_empty() {
            errors.push(FieldError::invalid(
                mount_path.child("subPathExpr"),
                sub_expr,
                "subPathExpr and subPath are mutually exclusive",
            ));
        }
        invalid_each(errors, &path.child("subPathExpr"), sub_expr, descending(sub_expr));
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
            if has(mount, "mountPropagation").is_some_and(|own| own != "None") {
                errors.push(FieldError::forbidden(
                    path,
                    "may only be specified when mountPropagation is None or not specified",
                ));
            }
        }
        Some(other) => errors.push(FieldError::not_supported(path, other, &RECURSIVE)),
    }
}

/// `volumeDevices`.
pub(super) fn devices(container: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let devices = list(container, "volumeDevices");
    if devices.is_empty() {
        return;
    }
    let path = path.child("volumeDevices");
    let (mut names, mut paths): (HashSet<&str>, HashSet<&str>) = Default::default();
    let field = |field| {
        let mounts = list(container, "volumeMounts").iter();
        mounts.map(move |mount| text(mount, field)).collect::<HashSet<_>>()
    };
    let (mounts, mount_paths) = (field("name"), field("mountPath"));
    for (index, device) in devices.iter().enumerate() {
        let own = path.index(index);
        let (name, target) = (text(device, "name"), text(device, "devicePath"));
        device_name(name, scope, names.contains(name), &own.child("name"), errors);
        let target_path = own.child("devicePath");
        if target.is_empty() {
            errors.push(FieldError::required(target_path, ""));
        }
        if paths.contains(target) {
            errors.push(FieldError::invalid(target_path, target, "must be unique"));
        }
        if backsteps(target) {
            let why = "can not contain backsteps ('..')";
            errors.push(FieldError::invalid(target_path, target, why));
        } else {
            paths.insert(target);
        }
        if mounts.contains(name) {
            let why = "must not already exist in volumeMounts";
            errors.push(FieldError::invalid(own.child("name"), name, why));
        }
        if mount_paths.contains(target) {
            let why = "must not already exist as a path in volumeMounts";
            errors.push(FieldError::invalid(target_path, target, why));
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
}

/// A device is a claim's volume.
fn device_name(name: &str, scope: &Scope<'_>, repeated: bool, path: &Path<'_>, errors: &mut Errors) {
    const CLAIMED: [&str; 2] = ["persistentVolumeClaim", "ephemeral"];
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    if repeated {
        errors.push(FieldError::invalid(path, name, "must be unique"));
    }
    match volume(scope, name) {
        None => errors.push(FieldError::not_found(path, name)),
        Some(volume) if CLAIMED.iter().all(|kind| has(volume, kind).is_none()) => errors.push(FieldError::invalid(
            path,
            name,
            "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
        )),
        Some(_) => {}
    }
}
