//! What volumes of pods and PersistentVolumes are made of alike.

use serde_json::Value;

use super::no_backsteps;
use crate::names;
use crate::status::FieldError;
use crate::validation::rules::{
    Member, Rule, Rules, Scope, call, check, format_if_set, object, one_of_if_set, required, whole,
};
use crate::validation::{Errors, Path, has, int, list, text};

const HOST_PATH_TYPES: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
/// What is told of these has names of its own, which are upstream's.
pub(in crate::validation) const GCE_DISK: Member = Member {
    field: "gcePersistentDisk",
    told: "persistentDisk",
    again: "gcePersistentDisk",
    rules: &[required("pdName"), PARTITION],
};

pub(in crate::validation) const CEPHFS: Member = Member {
    field: "cephfs",
    told: "cephfs",
    again: "cephFS",
    rules: &[required("monitors")],
};

pub(in crate::validation) const HOST_PATH: Rules = &[required("path"), whole(host_path)];
pub(in crate::validation) const AWS_DISK: Rules = &[required("volumeID"), PARTITION];
pub(in crate::validation) const NFS: Rules = &[required("server"), required("path"), whole(absolute)];
pub(in crate::validation) const GLUSTERFS: Rules = &[required("endpoints"), required("path")];
pub(in crate::validation) const FLOCKER: Rules = &[whole(flocker)];
pub(in crate::validation) const RBD: Rules = &[required("monitors"), required("image")];
pub(in crate::validation) const QUOBYTE: Rules = &[whole(quobyte), required("volume")];
pub(in crate::validation) const FC: Rules = &[whole(fibre_channel)];
pub(in crate::validation) const FLEX: Rules = &[required("driver"), call("options", flex_options)];
pub(in crate::validation) const AZURE_FILE: Rules = &[required("secretName"), required("shareName")];
pub(in crate::validation) const VSPHERE: Rules = &[required("volumePath")];
pub(in crate::validation) const PHOTON: Rules = &[required("pdID")];
pub(in crate::validation) const PORTWORX: Rules = &[required("volumeID")];
pub(in crate::validation) const AZURE_DISK: Rules = &[
    required("diskName"),
    required("diskURI"),
    one_of_if_set("cachingMode", &["None", "ReadOnly", "ReadWrite"]),
    one_of_if_set("kind", &["Dedicated", "Managed", "Shared"]),
    whole(azure_uri),
];
pub(in crate::validation) const SCALE_IO: Rules = &[required("gateway"), required("system"), required("volumeName")];
pub(in crate::validation) const SECRET_NAME: Rule = object("secretRef", &[required("name")]);
const PARTITION: Rule = call("partition", partition);

pub(in crate::validation) const PORTAL_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

/// Zero is none, though upstream's words begin at one.
fn partition(number: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let number = number.as_i64().unwrap_or(0);
    if !(0..=255).contains(&number) {
        errors.push(FieldError::invalid(
            path,
            number,
            "must be between 1 and 255, inclusive",
        ));
    }
}

fn host_path(source: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const WITH_PATH: Rules = &[
        format_if_set("path", no_backsteps),
        one_of_if_set("type", HOST_PATH_TYPES),
    ];
    if !text(source, "path").is_empty() {
        check(WITH_PATH, source, scope, path, errors);
    }
}

fn absolute(source: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = text(source, "path");
    if !own.starts_with('/') {
        errors.push(FieldError::invalid(path.child("path"), own, "must be an absolute path"));
    }
}

/// What an iSCSI source of a pod and one of a PersistentVolume have in common. `unknown` is said of a name of no known sort.
pub(in crate::validation) fn iscsi_target(
    source: &Value,
    _: &Scope<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
    unknown: &'static str,
) {
    let name = text(source, "iqn");
    match name {
        "" => errors.push(FieldError::required(path.child("iqn"), "")),
        _ => iscsi_named(name, &path.child("iqn"), unknown, errors),
    }
    let lun = int(source, "lun").unwrap_or(0);
    for problem in names::in_range(lun, 0, 255) {
        errors.push(FieldError::invalid(path.child("lun"), lun, problem));
    }
    let chap = ["chapAuthDiscovery", "chapAuthSession"];
    if chap.iter().any(|key| crate::validation::flag(source, key)) && has(source, "secretRef").is_none() {
        errors.push(FieldError::required(path.child("secretRef"), ""));
    }
}

/// Told in upstream's own spelling of the field.
pub(in crate::validation) fn iscsi_initiator(
    own: &Value,
    _: &Scope<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
    unknown: &'static str,
) {
    iscsi_named(
        own.as_str().unwrap_or(""),
        &path.beside("initiatorname"),
        unknown,
        errors,
    );
}

fn iscsi_named(name: &str, path: &Path<'_>, unknown: &str, errors: &mut Errors) {
    match iscsi_name(name) {
        Some(true) => {}
        Some(false) => errors.push(FieldError::invalid(path, name, "must be valid format")),
        None => errors.push(FieldError::invalid(path, name, unknown)),
    }
}

/// Whether an iSCSI name is well formed; none where it is of no known sort.
fn iscsi_name(name: &str) -> Option<bool> {
    let exactly = |rest: &str, length: usize| {
        // one character of any kind separates them
        let mut rest = rest.chars();
        rest.next().is_some() && rest.clone().count() == length && rest.all(|letter| letter.is_ascii_alphanumeric())
    };
    if name.starts_with("iqn") {
        return Some(is_iqn(name));
    }
    if let Some(rest) = name.strip_prefix("eui") {
        return Some(exactly(rest, 16));
    }
    name.strip_prefix("naa").map(|rest| exactly(rest, 32))
}

/// `iqn.2001-04.com.example:storage`
fn is_iqn(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("iqn.") else {
        return false;
    };
    let bytes = rest.as_bytes();
    let digits =
        |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|part| part.iter().all(u8::is_ascii_digit));
    if !(digits(0..4) && bytes.get(4) == Some(&b'-') && digits(5..7) && bytes.get(7) == Some(&b'.')) {
        return false;
    }
    let Some((authority, target)) = rest[8..].split_once(':') else {
        return false;
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    !authority.is_empty()
        && authority.bytes().all(plain)
        && !target.is_empty()
        && !target.contains([',', ';', '*', '&', '$', '|'])
        && !target.contains(char::is_whitespace)
}

fn flocker(source: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let (name, uuid) = (text(source, "datasetName"), text(source, "datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        errors.push(FieldError::required(
            path,
            "one of datasetName and datasetUUID is required",
        ));
    }
    if !name.is_empty() && !uuid.is_empty() {
        errors.push(FieldError::invalid(
            path,
            "resource",
            "datasetName and datasetUUID can not be specified simultaneously",
        ));
    }
    if name.contains('/') {
        errors.push(FieldError::invalid(
            path.child("datasetName"),
            name,
            "must not contain '/'",
        ));
    }
}

fn quobyte(source: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = text(source, "registry");
    if registry.is_empty() {
        errors.push(FieldError::required(path.child("registry"), PAIRS));
    } else if text(source, "tenant").len() >= 65 {
        errors.push(FieldError::required(
            path.child("tenant"),
            "must be a UUID and may not exceed a length of 64 characters",
        ));
    } else {
        for pair in registry.split(',') {
            let host = pair.rsplit_once(':').map(|(host, _)| host);
            if host.is_none_or(|host| host.contains(':') && !(host.starts_with('[') && host.ends_with(']'))) {
                errors.push(FieldError::invalid(path.child("registry"), registry, PAIRS));
            }
        }
    }
}

fn fibre_channel(source: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let (targets, ids) = (list(source, "targetWWNs"), list(source, "wwids"));
    let target_path = path.child("targetWWNs");
    if targets.is_empty() && ids.is_empty() {
        errors.push(FieldError::required(
            target_path,
            "must specify either targetWWNs or wwids, but not both",
        ));
    }
    if targets.is_empty() {
        return;
    }
    if !ids.is_empty() {
        errors.push(FieldError::invalid(
            target_path,
            targets.to_vec(),
            "targetWWNs and wwids can not be specified simultaneously",
        ));
    }
    match int(source, "lun") {
        None => errors.push(FieldError::required(
            path.child("lun"),
            "lun is required if targetWWNs is specified",
        )),
        Some(lun) => {
            for problem in names::in_range(lun, 0, 255) {
                errors.push(FieldError::invalid(path.child("lun"), lun, problem));
            }
        }
    }
}

fn flex_options(options: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    for key in options.as_object().into_iter().flatten().map(|(key, _)| key) {
        let namespace = key.split_once('/').map_or(key.as_str(), |(namespace, _)| namespace);
        let normalized = format!(".{}", namespace.to_lowercase());
        if normalized.ends_with(".kubernetes.io") || normalized.ends_with(".k8s.io") {
            errors.push(FieldError::invalid(
                path.key(key),
                key.as_str(),
                "kubernetes.io and k8s.io namespaces are reserved",
            ));
        }
    }
}

fn azure_uri(source: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    let uri = text(source, "diskURI");
    let (start, example) = match has(source, "kind").and_then(Value::as_str) {
        None => return,
        Some("Managed") => ("/subscriptions/", MANAGED),
        Some(_) => ("https://", BLOB),
    };
    if !uri.starts_with(start) {
        errors.push(FieldError::not_supported(path.child("diskURI"), uri, &[example]));
    }
}

/// The driver's name, of a pod's volume or of a PersistentVolume.
pub(in crate::validation) fn csi_driver(source: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    driver_name(text(source, "driver"), &path.child("driver"), errors);
}

pub(in crate::validation) fn driver_name(driver: &str, path: &Path<'_>, errors: &mut Errors) {
    if driver.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    if driver.len() > 63 {
        errors.push(FieldError::too_long(path, 63));
    }
    crate::validation::invalid_each(errors, path, driver, names::dns_subdomain(&driver.to_lowercase()));
}
