//! PersistentVolumeClaim, and the claims inside of pods.

use serde_json::{Map, Value};

use super::persistent::{VOLUME_MODES, access_modes, basic, positive};
use super::rules::{Rules, Scope, call, check, format, object, one_of_if_set, required, required_saying, whole};
use super::{Errors, IMMUTABLE, Path, SPEC, annotations, differs, has, labels, node_selector, same, text};
use crate::quantity::{self, Quantity};
use crate::status::FieldError;
use crate::{meta as object_at, names};

const STATUS: Path<'static> = Path::new("status");
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Of a claim, also inside of another object.
const CLAIM: Rules = &[
    required_saying("accessModes", "at least 1 access mode is required"),
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

pub fn persistent_volume_claim(claim: &Value, errors: &mut Errors) {
    let spec = has(claim, "spec").unwrap_or(&Value::Null);
    claim_spec(spec, &Scope::of(claim), &SPEC, errors);
}

pub(super) fn claim_spec(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
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
