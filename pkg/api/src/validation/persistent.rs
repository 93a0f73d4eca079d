//! PersistentVolume.

use serde_json::{Map, Value};

use super::rules::{
    Member, Rule, Rules, Scope, Union, call, check, format, format_if_set, member, name, object, one_of_if_set,
    one_of_unless_empty, required, told, union, whole,
};
use super::volumes::{self, GCE_DISK};
use super::{Errors, IMMUTABLE, NOT_POSITIVE, Path, SPEC, differs, has, list, node_selector, same, text};
use crate::quantity::{self, Quantity};
use crate::status::FieldError;
use crate::{meta as object_at, names};

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const ISCSI_NAME: &str = "must be valid format";
pub(super) const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];

/// Of which a PersistentVolume is made of one.
const SOURCES: Union = Union {
    members: &[
        member("hostPath", volumes::HOST_PATH),
        GCE_DISK,
        member("awsElasticBlockStore", volumes::AWS_DISK),
        member(
            "glusterfs",
            &[
                required("endpoints"),
                required("path"),
                call("endpointsNamespace", endpoints_namespace),
            ],
        ),
        member("flocker", volumes::FLOCKER),
        member("nfs", volumes::NFS),
        member("rbd", volumes::RBD),
        member("quobyte", volumes::QUOBYTE),
        volumes::CEPHFS,
        member(
            "iscsi",
            &[
                required("targetPortal"),
                whole(portal_length),
                told("", volumes::iscsi_target, ISCSI_NAME),
                SECRET_NAME,
                told("initiatorName", volumes::iscsi_initiator, ISCSI_NAME),
            ],
        ),
        member("cinder", &[required("volumeID"), SECRET]),
        member("fc", volumes::FC),
        member("flexVolume", volumes::FLEX),
        member(
            "azureFile",
            &[
                required("secretName"),
                required("shareName"),
                call("secretNamespace", not_empty),
            ],
        ),
        member("vsphereVolume", volumes::VSPHERE),
        member("photonPersistentDisk", volumes::PHOTON),
        member("portworxVolume", volumes::PORTWORX),
        member("azureDisk", volumes::AZURE_DISK),
        member("scaleIO", volumes::SCALE_IO),
        LOCAL,
        member(
            "storageos",
            &[
                name("volumeName", names::dns_label),
                format("volumeNamespace", names::dns_label),
                SECRET,
            ],
        ),
        member("csi", CSI),
    ],
    many: volumes::MANY,
    none: volumes::NONE,
};

const LOCAL: Member = member(
    "local",
    &[
        required("path"),
        format_if_set("path", volumes::no_backsteps),
        whole(local_affinity),
    ],
);

const SECRET_NAME: Rule = volumes::SECRET_NAME;
const SECRET: Rule = object("secretRef", &[required("name"), required("namespace")]);
const SECRET_REFERENCE: Rules = &[name("name", names::dns_subdomain), name("namespace", names::dns_label)];

const CSI: Rules = &[
    whole(volumes::csi_driver),
    required("volumeHandle"),
    object("controllerPublishSecretRef", SECRET_REFERENCE),
    object("controllerExpandSecretRef", SECRET_REFERENCE),
    object("nodePublishSecretRef", SECRET_REFERENCE),
    object("nodeExpandSecretRef", SECRET_REFERENCE),
];

const VOLUME: Rules = &[
    required("accessModes"),
    call("accessModes", access_modes),
    whole(capacity),
    one_of_unless_empty("persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"]),
    call("nodeAffinity", node_affinity),
    union(&SOURCES),
    whole(root_is_not_recycled),
    format("storageClassName", names::dns_subdomain),
    one_of_if_set("volumeMode", VOLUME_MODES),
    call("volumeAttributesClassName", volume_class),
];

pub fn persistent_volume(volume: &Value, errors: &mut Errors) {
    let spec = has(volume, "spec").unwrap_or(&Value::Null);
    check(VOLUME, spec, &Scope::of(volume), &SPEC, errors);
}

/// What stands in an attachment instead of a PersistentVolume: a driver's volume, and nothing of a claim.
const INLINE: Rules = &[
    required("accessModes"),
    call("accessModes", access_modes),
    call("persistentVolumeReclaimPolicy", retained),
    whole(without_affinity),
    union(&SOURCES),
    whole(root_is_not_recycled),
    whole(without_class),
];

pub(super) fn inline_volume(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    without(spec, "claimRef", path, errors);
    if has(spec, "capacity")
        .and_then(Value::as_object)
        .is_some_and(|map| !map.is_empty())
    {
        without(spec, "capacity", path, errors);
    }
    if has(spec, "csi").is_none() {
        errors.push(FieldError::required(
            path.child("csi"),
            "has to be specified in the context of inline volumes",
        ));
    }
    check(INLINE, spec, &Scope::of(&Value::Null), path, errors);
}

fn without(spec: &Value, field: &str, path: &Path<'_>, errors: &mut Errors) {
    if super::says(has(spec, field)) {
        errors.push(FieldError::forbidden(
            path.child(field),
            "may not be specified in the context of inline volumes",
        ));
    }
}

fn retained(policy: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if !matches!(policy.as_str(), None | Some("" | "Retain")) {
        let why = "may only be Retain in the context of inline volumes";
        errors.push(FieldError::forbidden(path, why));
    }
}

fn without_affinity(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    without(spec, "nodeAffinity", path, errors);
}

fn without_class(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    without(spec, "storageClassName", path, errors);
    if has(spec, "volumeMode").is_some_and(|mode| mode != "Filesystem") {
        errors.push(FieldError::forbidden(
            path.child("volumeMode"),
            "may not specify volumeMode other than Filesystem in the context of inline volumes",
        ));
    }
}

pub fn persistent_volume_update(new: &Value, old: &Value, errors: &mut Errors) {
    // Upstream checks it twice, and tells it twice.
    persistent_volume(new, errors);
    let (mut source, before) = (source_of(new), source_of(old));
    const EXPAND: [&str; 3] = ["spec", "csi", "controllerExpandSecretRef"];
    if let Some(csi) = source.get_mut("csi")
        && object_at::at(old, &EXPAND).is_none()
        && has(old, "spec").is_some_and(|spec| has(spec, "csi").is_some())
    {
        object_at::remove(csi, &EXPAND[2..]);
    }
    let (source, before) = (Value::Object(source), Value::Object(before));
    if !same(Some(&source), Some(&before)) {
        let hunk = differs::hunk(&source, &before);
        let why = format!("spec.persistentvolumesource is immutable after creation{hunk}");
        errors.push(FieldError::forbidden("spec.persistentvolumesource", why));
    }
    super::immutable(errors, new, old, &["spec", "volumeMode"], "volumeMode");
    let affinity = |object| object_at::at(object, &["spec", "nodeAffinity"]);
    let (mut own, before) = (affinity(new).cloned(), affinity(old));
    if let Some(own) = &mut own {
        beta_keys(own, before);
    }
    if before.is_some() && !same(own.as_ref(), before) {
        errors.push(FieldError::invalid(
            "nodeAffinity",
            affinity(new).cloned().unwrap_or_default(),
            format!("{IMMUTABLE}, except for updating from beta label to GA"),
        ));
    }
    let class = |object| object_at::at(object, &["spec", "volumeAttributesClassName"]);
    if class(old).is_some() && class(new).is_none() {
        errors.push(FieldError::forbidden(
            "spec.volumeAttributesClassName",
            "update from non-nil value to nil is forbidden",
        ));
    }
}

/// Labels that were renamed when they became stable may be renamed in what asks for them. Upstream takes a key that is
/// none for the new name of every key that never was renamed.
fn beta_keys(own: &mut Value, before: Option<&Value>) {
    const TERMS: [&str; 2] = ["required", "nodeSelectorTerms"];
    const RENAMED: [(&str, &str); 5] = [
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
        (
            "failure-domain.beta.kubernetes.io/region",
            "topology.kubernetes.io/region",
        ),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ];
    let terms = before.map_or(&[][..], |before| object_at::items(before, &TERMS));
    for (term, had) in object_at::items_mut(own, &TERMS).iter_mut().zip(terms) {
        for field in ["matchExpressions", "matchFields"] {
            for (own, had) in object_at::items_mut(term, &[field]).iter_mut().zip(list(had, field)) {
                let key = text(had, "key");
                let stable = RENAMED
                    .iter()
                    .find(|(beta, _)| *beta == key)
                    .map_or("", |(_, stable)| stable);
                if text(own, "key") == stable {
                    object_at::set(own, &["key"], key);
                }
            }
        }
    }
}

/// What a PersistentVolume is made of.
fn source_of(volume: &Value) -> Map<String, Value> {
    let spec = object_at::map_at(volume, &["spec"]);
    let fields = spec.into_iter().flatten();
    let sources = fields.filter(|(key, _)| SOURCES.members.iter().any(|member| member.field == *key));
    sources.map(|(key, source)| (key.clone(), source.clone())).collect()
}

pub(super) fn basic(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Ok(quantity) = quantity::from_json(value)
        && quantity.value() < 0
    {
        errors.push(FieldError::invalid(
            path,
            quantity.value(),
            "must be a valid resource quantity",
        ));
    }
}

pub(super) fn positive(value: &Value, path: &Path<'_>, errors: &mut Errors) -> Option<Quantity> {
    let quantity = quantity::from_json(value).ok()?;
    if quantity.signum() <= 0 {
        errors.push(FieldError::invalid(path, quantity.to_string(), NOT_POSITIVE));
    }
    Some(quantity)
}

pub(super) fn access_modes(modes: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = || {
        modes
            .as_array()
            .into_iter()
            .flatten()
            .map(|mode| mode.as_str().unwrap_or(""))
    };
    for mode in own().filter(|mode| !MODES.contains(mode)) {
        errors.push(FieldError::not_supported(path, mode, &MODES));
    }
    let alone = own().any(|mode| mode == MODES[3]);
    if alone && own().any(|mode| MODES[..3].contains(&mode)) {
        errors.push(FieldError::forbidden(
            path,
            "may not use ReadWriteOncePod with other access modes",
        ));
    }
}

fn capacity(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("capacity");
    let own = object_at::map_at(spec, &["capacity"]);
    let count = own.map_or(0, Map::len);
    if count == 0 {
        errors.push(FieldError::required(path, ""));
    }
    if count != 1 || own.is_some_and(|own| !own.contains_key("storage")) {
        let shown = own.cloned().map_or(Value::Null, Value::Object);
        errors.push(FieldError::not_supported(path, shown, &["storage"]));
    }
    for (name, value) in own.into_iter().flatten() {
        let path = path.key(name);
        basic(value, &path, errors);
        positive(value, &path, errors);
    }
}

fn node_affinity(affinity: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("required");
    match has(affinity, "required") {
        Some(required) => node_selector::node_selector(required, &path, errors),
        None => errors.push(FieldError::required(path, "must specify required node constraints")),
    }
}

fn local_affinity(_: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if object_at::at(scope.object, &["spec", "nodeAffinity"]).is_none() {
        errors.push(FieldError::required(
            path.beside("nodeAffinity"),
            "Local volume requires node affinity",
        ));
    }
}

fn root_is_not_recycled(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let target = object_at::str_at(spec, &["hostPath", "path"]);
    let root = target
        .is_some_and(|target| target.starts_with('/') && target.split('/').all(|part| matches!(part, "" | "." | "..")));
    if root && text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        errors.push(FieldError::forbidden(
            path.child("persistentVolumeReclaimPolicy"),
            "may not be 'recycle' for a hostPath mount of '/'",
        ));
    }
}

fn volume_class(class: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    match class.as_str().unwrap_or("") {
        "" => errors.push(FieldError::required(path, "an empty string is disallowed")),
        own => super::invalid_each(errors, path, own, names::dns_subdomain(own)),
    }
    if object_at::at(scope.object, &["spec", "csi"]).is_none() {
        errors.push(FieldError::required(
            path.beside("csi"),
            "has to be specified when using volumeAttributesClassName",
        ));
    }
}

fn endpoints_namespace(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    match own.as_str().unwrap_or("") {
        "" => errors.push(FieldError::invalid(
            path,
            "",
            "if the endpointnamespace is set, it must be a valid namespace name",
        )),
        own => super::invalid_each(errors, path, own, names::dns_label(own)),
    }
}

fn not_empty(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if own == "" {
        errors.push(FieldError::required(path, ""));
    }
}

fn portal_length(source: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let (portal, name) = (text(source, "targetPortal"), object_at::name(scope.object));
    if has(source, "initiatorName").is_some() && name.len() + 1 + portal.len() > 64 {
        let path = path.child("targetportal");
        errors.push(FieldError::invalid(path, portal, volumes::PORTAL_TOO_LONG));
    }
}
