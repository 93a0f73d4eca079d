//! Volumes of pods, whatever they are made of. What a PersistentVolume is made of is checked by the same tables.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::rules::{
    Member, Rule, Rules, Scope, Union, call, check, each, format, member, name, object, one_of, one_of_if_set,
    required, whole,
};
use super::{Errors, Path, each as each_of, has, int, list, numbered, persistent, refs, text};
use crate::status::FieldError;
use crate::{meta as object_at, names, quantity};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
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
pub(super) const MANY: &str = "may not specify more than 1 volume type";
pub(super) const NONE: &str = "must specify a volume type";

/// Of which a pod's volume is one.
const SOURCES: Union = Union {
    members: &[
        member("emptyDir", &[call("sizeLimit", size_limit)]),
        member("hostPath", HOST_PATH),
        member("gitRepo", &[required("repository"), call("directory", descending)]),
        GCE_DISK,
        member("awsElasticBlockStore", AWS_DISK),
        member("secret", &[required("secretName"), MODE, each("items", KEY_TO_PATH)]),
        member("nfs", NFS),
        member("iscsi", &[whole(iscsi), call("initiatorName", iscsi_initiator)]),
        member("glusterfs", GLUSTERFS),
        member("flocker", FLOCKER),
        member("persistentVolumeClaim", &[required("claimName")]),
        member("rbd", RBD),
        member("cinder", &[required("volumeID"), SECRET_NAME]),
        CEPHFS,
        member("quobyte", QUOBYTE),
        Member {
            field: "downwardAPI",
            told: "downwardAPI",
            again: "downwarAPI",
            rules: &[MODE, call("items", downward_files)],
        },
        member("fc", FC),
        member("flexVolume", FLEX),
        member("configMap", &[required("name"), MODE, each("items", KEY_TO_PATH)]),
        member("azureFile", AZURE_FILE),
        member("vsphereVolume", VSPHERE),
        member("photonPersistentDisk", PHOTON),
        member("portworxVolume", PORTWORX),
        member("azureDisk", AZURE_DISK),
        member(
            "storageos",
            &[
                name("volumeName", names::dns_label),
                format("volumeNamespace", names::dns_label),
                SECRET_NAME,
            ],
        ),
        member("projected", &[MODE, whole(projected)]),
        member("scaleIO", SCALE_IO),
        member("csi", &[whole(csi_driver), whole(csi_secret)]),
        member(
            "ephemeral",
            &[
                required("volumeClaimTemplate"),
                call("volumeClaimTemplate", persistent::claim_template),
            ],
        ),
        member("image", &[whole(image)]),
    ],
    many: MANY,
    none: NONE,
};

/// What a pod's volume can be made of, in upstream's order.
pub fn sources() -> impl Iterator<Item = &'static str> {
    SOURCES.members.iter().map(|member| member.field)
}

/// What is told of these has names of its own, which are upstream's.
pub(super) const GCE_DISK: Member = Member {
    field: "gcePersistentDisk",
    told: "persistentDisk",
    again: "gcePersistentDisk",
    rules: &[required("pdName"), PARTITION],
};

pub(super) const CEPHFS: Member = Member {
    field: "cephfs",
    told: "cephfs",
    again: "cephFS",
    rules: &[required("monitors")],
};

pub(super) const HOST_PATH: Rules = &[required("path"), whole(host_path)];
pub(super) const AWS_DISK: Rules = &[required("volumeID"), PARTITION];
pub(super) const NFS: Rules = &[required("server"), required("path"), whole(absolute)];
pub(super) const GLUSTERFS: Rules = &[required("endpoints"), required("path")];
pub(super) const FLOCKER: Rules = &[whole(flocker)];
pub(super) const RBD: Rules = &[required("monitors"), required("image")];
pub(super) const QUOBYTE: Rules = &[whole(quobyte), required("volume")];
pub(super) const FC: Rules = &[whole(fibre_channel)];
pub(super) const FLEX: Rules = &[required("driver"), call("options", flex_options)];
pub(super) const AZURE_FILE: Rules = &[required("secretName"), required("shareName")];
pub(super) const VSPHERE: Rules = &[required("volumePath")];
pub(super) const PHOTON: Rules = &[required("pdID")];
pub(super) const PORTWORX: Rules = &[required("volumeID")];
pub(super) const AZURE_DISK: Rules = &[
    required("diskName"),
    required("diskURI"),
    one_of_if_set("cachingMode", &["None", "ReadOnly", "ReadWrite"]),
    one_of_if_set("kind", &["Dedicated", "Managed", "Shared"]),
    whole(azure_uri),
];
pub(super) const SCALE_IO: Rules = &[required("gateway"), required("system"), required("volumeName")];
pub(super) const SECRET_NAME: Rule = object("secretRef", &[required("name")]);
const MODE: Rule = call("defaultMode", file_mode);
const PARTITION: Rule = call("partition", partition);

const KEY_TO_PATH: Rules = &[
    required("key"),
    required("path"),
    call("path", local_path),
    call("mode", file_mode),
];

/// Checks `volumes`, and answers the valid ones by name.
pub(super) fn volumes<'a>(
    spec: &'a Value,
    scope: &Scope<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
) -> HashMap<&'a str, &'a Value> {
    let mut known: HashMap<&str, &Value> = HashMap::new();
    let pod = scope
        .pod
        .filter(|pod| pod.is_pod)
        .map_or("", |_| object_at::name(scope.object));
    let made = claims_made(spec, pod);
    for (index, volume) in each_of(spec, "volumes") {
        let path = path.index(index);
        let before = errors.len();
        SOURCES.check(volume, scope, &path, errors);
        let name = text(volume, "name");
        own_name(volume, name, pod, &path, errors);
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else {
            super::invalid_each(errors, &path.child("name"), name, names::dns_label(name));
        }
        if known.contains_key(name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        if errors.len() == before {
            known.insert(name, volume);
        }
        let claim = object_at::string(volume, &["persistentVolumeClaim", "claimName"]);
        if !made.is_empty() && made.contains(claim) {
            errors.push(FieldError::invalid(
                path.child("persistentVolumeClaim").child("claimName"),
                claim,
                "must not reference a PVC that gets created for an ephemeral volume",
            ));
        }
    }
    known
}

/// The names of the claims that are made for a pod's ephemeral volumes.
fn claims_made(spec: &Value, pod: &str) -> HashSet<String> {
    if pod.is_empty() {
        return HashSet::new();
    }
    let ephemeral = list(spec, "volumes")
        .iter()
        .filter(|volume| has(volume, "ephemeral").is_some());
    ephemeral
        .map(|volume| format!("{pod}-{}", text(volume, "name")))
        .collect()
}

/// What a source asks of the volume's name.
fn own_name(volume: &Value, name: &str, pod: &str, path: &Path<'_>, errors: &mut Errors) {
    if let Some(iscsi) = has(volume, "iscsi")
        && has(iscsi, "initiatorName").is_some()
        && name.len() + 1 + text(iscsi, "targetPortal").len() > 64
    {
        errors.push(FieldError::invalid(path.child("name"), name, PORTAL_TOO_LONG));
    }
    if has(volume, "ephemeral").is_some() && !pod.is_empty() && !name.is_empty() {
        let claim = format!("{pod}-{name}");
        for problem in names::dns_subdomain(&claim) {
            errors.push(FieldError::invalid(
                path.child("name"),
                name,
                format!("PVC name {claim:?}: {problem}"),
            ));
        }
    }
}

pub(super) const PORTAL_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

fn size_limit(limit: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if quantity::from_json(limit).is_ok_and(|limit| limit.signum() < 0) {
        errors.push(FieldError::forbidden(
            path,
            "SizeLimit field must be a valid resource quantity",
        ));
    }
}

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
    const WITH_PATH: Rules = &[call("path", no_backsteps), one_of_if_set("type", HOST_PATH_TYPES)];
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

fn iscsi(source: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const PORTAL: Rules = &[required("targetPortal")];
    check(PORTAL, source, scope, path, errors);
    iscsi_target(
        source,
        "must be valid format starting with iqn, eui, or naa",
        path,
        errors,
    );
}

/// What an iSCSI source of a pod and one of a PersistentVolume have in common. `unknown` is said of a name of no known sort.
pub(super) fn iscsi_target(source: &Value, unknown: &str, path: &Path<'_>, errors: &mut Errors) {
    let name = text(source, "iqn");
    match (name.is_empty(), iscsi_name(name)) {
        (true, _) => errors.push(FieldError::required(path.child("iqn"), "")),
        (_, Some(true)) => {}
        (_, Some(false)) => errors.push(FieldError::invalid(path.child("iqn"), name, "must be valid format")),
        (_, None) => errors.push(FieldError::invalid(path.child("iqn"), name, unknown)),
    }
    let lun = int(source, "lun").unwrap_or(0);
    for problem in names::in_range(lun, 0, 255) {
        errors.push(FieldError::invalid(path.child("lun"), lun, problem));
    }
    let chap = ["chapAuthDiscovery", "chapAuthSession"];
    if chap.iter().any(|key| super::flag(source, key)) && has(source, "secretRef").is_none() {
        errors.push(FieldError::required(path.child("secretRef"), ""));
    }
}

fn iscsi_initiator(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    initiator(own, "must be valid format starting with iqn, eui, or naa", path, errors);
}

/// Told in upstream's own spelling of the field.
pub(super) fn initiator(own: &Value, unknown: &str, path: &Path<'_>, errors: &mut Errors) {
    let name = own.as_str().unwrap_or("");
    let path = path.beside("initiatorname");
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
pub(super) fn csi_driver(source: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    driver_name(text(source, "driver"), &path.child("driver"), errors);
}

pub(super) fn driver_name(driver: &str, path: &Path<'_>, errors: &mut Errors) {
    if driver.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    if driver.len() > 63 {
        errors.push(FieldError::too_long(path, 63));
    }
    super::invalid_each(errors, path, driver, names::dns_subdomain(&driver.to_lowercase()));
}

fn csi_secret(source: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let Some(secret) = has(source, "nodePublishSecretRef") else {
        return;
    };
    match text(secret, "name") {
        "" => errors.push(FieldError::required(
            path.child("nodePublishSecretRef").child("name"),
            "",
        )),
        // told of the volume source itself
        name => super::invalid_each(errors, &path.child("name"), name, names::dns_subdomain(name)),
    }
}

fn image(source: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const POLICY: Rules = &[one_of("pullPolicy", super::container::PULL_POLICIES)];
    if scope.pod.is_some_and(|pod| pod.is_pod) && text(source, "reference").is_empty() {
        errors.push(FieldError::required(path.child("reference"), ""));
    }
    check(POLICY, source, scope, path, errors);
}

fn file_mode(mode: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(mode) = mode.as_i64().filter(|mode| !(0..=0o777).contains(mode)) {
        errors.push(FieldError::invalid(path, mode, FILE_MODE));
    }
}

/// Told of the volume source, without the file's index.
fn downward_files(files: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    for (_, file) in numbered(files) {
        downward_file(file, scope, path.parent(), errors);
    }
}

fn downward_file(file: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const FILE: Rules = &[required("path"), call("path", local_path)];
    const FILE_MODE: Rules = &[call("mode", file_mode)];
    check(FILE, file, scope, path, errors);
    match (has(file, "fieldRef"), has(file, "resourceFieldRef")) {
        (Some(field), other) => {
            refs::file_field(field, &path.child("fieldRef"), errors);
            if other.is_some() {
                errors.push(FieldError::invalid(
                    path,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                ));
            }
        }
        (None, Some(resource)) => refs::resource_ref(resource, true, &path.child("resourceFieldRef"), errors),
        (None, None) => errors.push(FieldError::required(
            path,
            "one of fieldRef and resourceFieldRef is required",
        )),
    }
    check(FILE_MODE, file, scope, path, errors);
}

fn projected(source: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut paths: HashSet<&str> = HashSet::new();
    let sources = path.child("sources");
    for (index, own) in each_of(source, "sources") {
        let source_path = sources.index(index);
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            if let Some(source) = has(own, kind) {
                count += 1;
                projected_keys(source, scope, &mut paths, (path, &source_path.child(kind)), errors);
            }
        }
        if let Some(downward) = has(own, "downwardAPI") {
            count += 1;
            for file in list(downward, "items") {
                downward_file(file, scope, &source_path.child("downwardAPI"), errors);
                unique_path(&mut paths, text(file, "path"), None, path, errors);
            }
        }
        if let Some(token) = has(own, "serviceAccountToken") {
            count += 1;
            projected_token(token, path, &source_path.child("serviceAccountToken"), errors);
        }
        if count > 1 {
            errors.push(FieldError::forbidden(
                source_path,
                "may not specify more than 1 volume type per source",
            ));
        }
    }
}

/// A Secret or ConfigMap in a projection. The paths are the projection's, where clashes are told, and its own.
fn projected_keys<'a>(
    source: &'a Value,
    scope: &Scope<'_>,
    paths: &mut HashSet<&'a str>,
    (volume, own): (&Path<'_>, &Path<'_>),
    errors: &mut Errors,
) {
    if text(source, "name").is_empty() {
        errors.push(FieldError::required(own.child("name"), ""));
    }
    let items = own.child("items");
    for (index, item) in each_of(source, "items") {
        check(KEY_TO_PATH, item, scope, &items.index(index), errors);
        unique_path(paths, text(item, "path"), Some(text(source, "name")), volume, errors);
    }
}

/// Its file's path is told of the projection itself.
fn projected_token(token: &Value, volume: &Path<'_>, path: &Path<'_>, errors: &mut Errors) {
    let seconds = int(token, "expirationSeconds").unwrap_or(0);
    token_lifetime(seconds, &path.child("expirationSeconds"), errors);
    let file = volume.child("path");
    match text(token, "path") {
        "" => errors.push(FieldError::required(file, "")),
        target => local(target, &file, errors),
    }
}

/// How long a token asks to live, in seconds.
pub(super) fn token_lifetime(seconds: i64, path: &Path<'_>, errors: &mut Errors) {
    let why = match seconds {
        ..600 => "may not specify a duration less than 10 minutes",
        4_294_967_297.. => "may not specify a duration larger than 2^32 seconds",
        _ => return,
    };
    errors.push(FieldError::invalid(path, seconds, why));
}

fn unique_path<'a>(
    paths: &mut HashSet<&'a str>,
    target: &'a str,
    shown: Option<&str>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    if !target.is_empty() && !paths.insert(target) {
        errors.push(FieldError::invalid(
            path,
            shown.unwrap_or(target),
            "conflicting duplicate paths",
        ));
    }
}

/// Whether a path goes up.
pub(super) fn backsteps(target: &str) -> bool {
    target.split('/').any(|part| part == "..")
}

pub(super) fn no_backsteps(target: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let target = target.as_str().unwrap_or("");
    if backsteps(target) {
        errors.push(FieldError::invalid(path, target, "must not contain '..'"));
    }
}

fn descending(target: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    descending_path(target.as_str().unwrap_or(""), path, errors);
}

pub(super) fn descending_path(target: &str, path: &Path<'_>, errors: &mut Errors) {
    if target.starts_with('/') {
        errors.push(FieldError::invalid(path, target, "must be a relative path"));
    }
    if backsteps(target) {
        errors.push(FieldError::invalid(path, target, "must not contain '..'"));
    }
}

fn local_path(target: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    local(target.as_str().unwrap_or(""), path, errors);
}

fn local(target: &str, path: &Path<'_>, errors: &mut Errors) {
    descending_path(target, path, errors);
    if target.starts_with("..") && !target.starts_with("../") {
        errors.push(FieldError::invalid(path, target, "must not start with '..'"));
    }
}
