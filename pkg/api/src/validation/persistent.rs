//! PersistentVolume and PersistentVolumeClaim, and the claims inside of pods.

use serde_json::{Map, Value};

use super::rules::{
    Member, Rule, Rules, Scope, Union, call, check, format, member, name, object, one_of_if_set, required, union, whole,
};
use super::volumes::{self, GCE_DISK, iscsi_target};
use super::{
    Errors, IMMUTABLE, NOT_POSITIVE, Path, annotations, differs, has, labels, list, node_selector, same, text,
};
use crate::quantity::{self, Quantity};
use crate::status::FieldError;
use crate::{meta as object_at, names};

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");
const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

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
        member("iscsi", &[whole(iscsi), SECRET_NAME, call("initiatorName", initiator)]),
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
        call("path", volumes::no_backsteps),
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
    call("persistentVolumeReclaimPolicy", reclaim_policy),
    call("nodeAffinity", node_affinity),
    union(&SOURCES),
    whole(root_is_not_recycled),
    format("storageClassName", names::dns_subdomain),
    one_of_if_set("volumeMode", VOLUME_MODES),
    call("volumeAttributesClassName", volume_class),
];

/// Of a claim, also inside of another object.
const CLAIM: Rules = &[
    call("selector", node_selector::selector),
    call("accessModes", access_modes),
    whole(requested),
    format("storageClassName", names::dns_subdomain),
    one_of_if_set("volumeMode", VOLUME_MODES),
    object("dataSource", DATA_SOURCE),
    object("dataSourceRef", DATA_SOURCE),
    whole(both_sources),
    format("volumeAttributesClassName", names::dns_subdomain),
];

const DATA_SOURCE: Rules = &[
    required("name"),
    required("kind"),
    whole(source_group),
    whole(new_group),
    format("namespace", names::dns_label),
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

pub fn persistent_volume_claim(claim: &Value, errors: &mut Errors) {
    let spec = has(claim, "spec").unwrap_or(&Value::Null);
    claim_spec(spec, &Scope::of(claim), &SPEC, errors);
}

pub(super) fn claim_spec(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const ACCESS: &str = "at least 1 access mode is required";
    if list(spec, "accessModes").is_empty() {
        errors.push(FieldError::required(path.child("accessModes"), ACCESS));
    }
    check(CLAIM, spec, scope, path, errors);
}

/// The claim that is made for a pod's ephemeral volume: of its metadata only labels and annotations count.
pub(super) fn claim_template(template: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const KEPT: [&str; 2] = ["labels", "annotations"];
    let metadata = has(template, "metadata").unwrap_or(&Value::Null);
    let own = path.child("metadata");
    annotations(has(metadata, "annotations"), &own.child("annotations"), errors);
    labels(has(metadata, "labels"), &own.child("labels"), errors);
    for (field, value) in metadata.as_object().into_iter().flatten() {
        if !KEPT.contains(&field.as_str()) && !super::is_empty(Some(value)) {
            errors.push(FieldError::forbidden(own.child(field), "cannot be set"));
        }
    }
    let spec = has(template, "spec").unwrap_or(&Value::Null);
    claim_spec(spec, scope, &path.child("spec"), errors);
}

/// A claim never changes but for its size and attributes class, once it is bound.
pub fn persistent_volume_claim_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (mut spec, mut before) = (spec_clone(new), spec_clone(old));
    if text(&before, "volumeName").is_empty() {
        copy(&mut before, &spec, &["volumeName"]);
    }
    class_change(new, old, (&mut spec, &mut before), errors);
    if object_at::str_at(new, &["status", "phase"]) == Some("Bound") {
        if object_at::at(&spec, &["resources", "requests"]).is_some() {
            copy(&mut spec, &before, &["resources", "requests", "storage"]);
        }
        copy(&mut spec, &before, &["volumeAttributesClassName"]);
    }
    if !same(Some(&spec), Some(&before)) {
        let hunk = differs::hunk(&spec, &before);
        errors.push(FieldError::forbidden(
            "spec",
            format!(
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims{hunk}"
            ),
        ));
    }
    let size =
        |object: &Value, path: &[&str]| object_at::at(object, path).and_then(|own| quantity::from_json(own).ok());
    const REQUEST: [&str; 4] = ["spec", "resources", "requests", "storage"];
    // A request that is gone is one of nothing.
    let own = size(new, &REQUEST);
    let at_most = |limit: &Quantity| own.as_ref().is_none_or(|own| own <= limit);
    if let (Some(previous), Some(held)) = (size(old, &REQUEST), size(old, &["status", "capacity", "storage"]))
        && at_most(&previous)
        && own.as_ref() != Some(&previous)
        && at_most(&held)
    {
        errors.push(FieldError::forbidden(
            "spec.resources.requests.storage",
            "field can not be less than status.capacity",
        ));
    }
    super::immutable(errors, new, old, &["spec", "volumeMode"], "volumeMode");
    let class = object_at::str_at(new, &["spec", "volumeAttributesClassName"]);
    let had = object_at::at(old, &["status", "currentVolumeAttributesClassName"]).is_some();
    let why = match class {
        None => "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil",
        Some("") => "update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil",
        Some(_) => return,
    };
    if had && class != object_at::str_at(old, &["spec", "volumeAttributesClassName"]) {
        errors.push(FieldError::forbidden("spec.volumeAttributesClassName", why));
    }
}

fn spec_clone(object: &Value) -> Value {
    has(object, "spec").cloned().unwrap_or_default()
}

/// Makes a field what it is elsewhere, absent where it is not there.
fn copy(target: &mut Value, source: &Value, path: &[&str]) {
    match object_at::at(source, path) {
        Some(value) => object_at::set(target, path, value.clone()),
        None => drop(object_at::remove(target, path)),
    }
}

/// The class may move from the annotation of old into its field, and may be filled in once. The specs are compared next:
/// what is allowed is taken out of them.
fn class_change(new: &Value, old: &Value, (spec, before): (&mut Value, &mut Value), errors: &mut Errors) {
    let annotation = |object| object_at::annotation(object, CLASS_ANNOTATION);
    let (had, has) = (
        object_at::str_at(before, &["storageClassName"]).map(str::to_string),
        object_at::str_at(spec, &["storageClassName"]).map(str::to_string),
    );
    let (was_annotated, is_annotated) = (annotation(old), annotation(new));
    let moved = was_annotated.is_some() && had.is_none() && has.as_deref() == was_annotated;
    if moved && (is_annotated.is_none() || is_annotated == was_annotated) {
        object_at::remove(spec, &["storageClassName"]);
        return;
    }
    if was_annotated.unwrap_or("") != is_annotated.unwrap_or("") {
        errors.push(FieldError::invalid(
            format!("metadata.annotations.{CLASS_ANNOTATION}"),
            is_annotated.unwrap_or(""),
            IMMUTABLE,
        ));
    }
    let filled = has.is_some() && had.is_none();
    if filled && was_annotated.is_none_or(|annotation| Some(annotation) == has.as_deref()) {
        copy(spec, before, &["storageClassName"]);
    }
}

/// The status of a claim: sizes, and how far a change of size has come.
pub fn persistent_volume_claim_status(new: &Value, _old: &Value, errors: &mut Errors) {
    const RESIZES: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    let status = has(new, "status").unwrap_or(&Value::Null);
    let map = |key| has(status, key).and_then(Value::as_object).into_iter().flatten();
    let capacity = STATUS.child("capacity");
    for (name, value) in map("capacity") {
        basic(value, &capacity.key(name), errors);
    }
    let path = STATUS.child("allocatedResourceStatuses");
    for (name, value) in map("allocatedResourceStatuses") {
        claimed_resource(name, &path, errors);
        if !RESIZES.contains(&value.as_str().unwrap_or("")) {
            errors.push(FieldError::not_supported(path, name.as_str(), &RESIZES));
        }
    }
    let path = STATUS.child("allocatedResources");
    for (name, value) in map("allocatedResources") {
        if claimed_resource(name, &path, errors) {
            basic(value, &path.key(name), errors);
        }
    }
}

fn claimed_resource(name: &str, path: &Path<'_>, errors: &mut Errors) -> bool {
    let problems = names::qualified_name(name);
    let good = problems.is_empty();
    super::invalid_each(errors, path, name, problems);
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if good && native && name != "storage" {
        errors.push(FieldError::not_supported(path, name, &["storage"]));
        return false;
    }
    good
}

fn basic(value: &Value, path: &Path<'_>, errors: &mut Errors) {
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

fn positive(value: &Value, path: &Path<'_>, errors: &mut Errors) -> Option<Quantity> {
    let quantity = quantity::from_json(value).ok()?;
    if quantity.signum() <= 0 {
        errors.push(FieldError::invalid(path, quantity.to_string(), NOT_POSITIVE));
    }
    Some(quantity)
}

fn access_modes(modes: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
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

fn reclaim_policy(policy: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
    let own = policy.as_str().unwrap_or("");
    if !own.is_empty() && !POLICIES.contains(&own) {
        errors.push(FieldError::not_supported(path, own, &POLICIES));
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

fn iscsi(source: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let portal = text(source, "targetPortal");
    if portal.is_empty() {
        errors.push(FieldError::required(path.child("targetPortal"), ""));
    }
    let name = object_at::name(scope.object);
    if has(source, "initiatorName").is_some() && name.len() + 1 + portal.len() > 64 {
        errors.push(FieldError::invalid(
            path.child("targetportal"),
            portal,
            volumes::PORTAL_TOO_LONG,
        ));
    }
    iscsi_target(source, "must be valid format", path, errors);
}

fn initiator(own: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    volumes::initiator(own, "must be valid format", path, errors);
}

fn requested(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("resources");
    let path = path.key("storage");
    match object_at::at(spec, &["resources", "requests", "storage"]) {
        None => errors.push(FieldError::required(path, "")),
        Some(value) => drop(positive(value, &path, errors)),
    }
}

fn source_group(source: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(source, "kind");
    if text(source, "apiGroup").is_empty() && kind != "PersistentVolumeClaim" {
        errors.push(FieldError::invalid(
            path,
            kind,
            "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
        ));
    }
}

/// A claim that is there may have been let in with any group; it never changes.
fn new_group(source: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    const GROUP: Rules = &[format("apiGroup", names::dns_subdomain)];
    if object_at::resource_version(scope.object).is_empty() {
        check(GROUP, source, scope, path, errors);
    }
}

/// The two fields for one source: of another namespace only the newer may tell.
fn both_sources(spec: &Value, _: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let (Some(older), Some(newer)) = (has(spec, "dataSource"), has(spec, "dataSourceRef")) else {
        return;
    };
    let equal = ["apiGroup", "kind", "name"]
        .iter()
        .all(|field| has(older, field) == has(newer, field));
    let why = if !text(newer, "namespace").is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if !equal {
        "must match dataSourceRef"
    } else {
        return;
    };
    // Upstream means to show the field's path.
    errors.push(FieldError::invalid(path, Map::new(), why));
}
