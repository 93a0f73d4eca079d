//! What every write passes between decoding and the store: default, admit, prepare, validate, admit,
//! and then the transaction. Create and update are the two ways through; patch, status, scale and the rest lead here.

use std::sync::Arc;

use mk8s_api::registry::Resource;
use mk8s_api::status::{FieldError, Status};
use mk8s_api::{meta, validation};
use mk8s_store::Expect;
use serde_json::{Map, Value};

use crate::admission::Operation;
use crate::call::{Call, Written};
use crate::metadata;
use crate::object::Object;
use crate::special;
use crate::write::{self, WriteError};

/// Tried so often where a generated name is taken, as upstream does.
const NAME_TRIES: usize = 8;

/// Which part of the object an update may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but status (where the kind has a status subresource).
    Main,
    /// status, and labels and annotations.
    Status,
    /// A Namespace's spec.finalizers.
    Finalizers,
    /// A certificate request's conditions.
    Approval,
}

/// Creates an object (in stored form).
pub async fn create(
    call: &Call,
    mut object: Value,
    dry_run: bool,
    warnings: &mut Vec<String>,
) -> Result<Written, Status> {
    let cache = call.cache()?;
    let resource = cache.resource();
    metadata::match_namespace(resource, &call.info, &mut object)?;
    if !matches!(meta::resource_version(&object), "" | "0") {
        return Err(Status::new(
            500,
            "InternalError",
            "resourceVersion should not be set on objects to be created",
        ));
    }
    metadata::begin_create(resource, &mut object);
    let generated = metadata::wants_generated_name(&object);
    if generated {
        metadata::generate_name(&mut object);
    }
    (resource.hooks.default)(&mut object);
    let admission = call.server.admission();
    {
        let name = meta::name(&object).to_string();
        let attributes = call.attributes(Operation::Create, &name, None, dry_run);
        admission.mutate(&attributes, &mut object).await?;
    }
    is_defaulted(resource, &object);
    drop_status(resource, &mut object);
    (resource.hooks.prepare_create)(&mut object);
    let mut reserved = special::before_create(call, resource, &mut object)?;
    refuse(call, meta::name(&object), &validation::create(resource, &object))?;
    {
        let attributes = call.attributes(Operation::Create, meta::name(&object), None, dry_run);
        admission.validate(&attributes, Some(&object), warnings)?;
    }
    warnings.extend(validation::warnings(resource, &object, None));
    if dry_run {
        if cache.get(meta::namespace(&object), meta::name(&object)).is_some() {
            return Err(already_exists(call, &object));
        }
        return Ok(Written::Tree(object));
    }
    for attempt in 1.. {
        let key = cache.key(meta::namespace(&object), meta::name(&object));
        match write::put(call.server.store(), cache, key, Expect::Absent, &object).await {
            Ok(stored) => {
                reserved.keep();
                special::after_write(call, resource, Some(&object), None);
                return Ok(Written::Stored(stored));
            }
            Err(WriteError::Status(status)) => return Err(status),
            Err(WriteError::Conflict) if generated && attempt < NAME_TRIES => metadata::generate_name(&mut object),
            Err(WriteError::Conflict) => break,
        }
    }
    Err(already_exists(call, &object))
}

/// What admission's own plugins add has its defaults already: a second pass over each object would find nothing.
fn is_defaulted(resource: &Resource, object: &Value) {
    if cfg!(debug_assertions) {
        let mut again = object.clone();
        (resource.hooks.default)(&mut again);
        debug_assert_eq!(&again, object, "a plugin left something without its default");
    }
}

fn already_exists(call: &Call, object: &Value) -> Status {
    Status::already_exists(call.row.group(), call.row.plural(), meta::name(object))
}

fn refuse(call: &Call, name: &str, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(call.row.group(), call.row.kind(), name, errors))
}

/// New objects have no status of the caller's, but for Nodes, which register with theirs.
fn drop_status(resource: &Resource, object: &mut Value) {
    if resource.subresource("status").is_none() || resource.kind == "Node" {
        return;
    }
    if let Value::Object(map) = object
        && let Some(status) = map.get_mut("status")
    {
        *status = Value::Object(Map::new());
    }
}

/// The result of one attempt to update.
pub enum Updated {
    Written(Written),
    /// The object went, since the update took its last finalizer.
    Deleted(Value),
    /// Something else was written meanwhile.
    Conflict,
}

/// One attempt to update: `new` (stored form) over what was read. The caller has checked resourceVersion.
pub async fn update(
    call: &Call,
    old: &Arc<Object>,
    old_value: &Value,
    mut new: Value,
    part: Part,
    dry_run: bool,
    warnings: &mut Vec<String>,
) -> Result<Updated, Status> {
    let cache = call.cache()?;
    let resource = cache.resource();
    metadata::match_namespace(resource, &call.info, &mut new)?;
    metadata::begin_update(&mut new, old_value);
    (resource.hooks.default)(&mut new);
    let admission = call.server.admission();
    {
        let attributes = call.attributes(Operation::Update, old.name(), Some(old_value), dry_run);
        admission.mutate(&attributes, &mut new).await?;
    }
    is_defaulted(resource, &new);
    prepare_update(resource, &mut new, old_value, part);
    // An old resourceVersion in the tree would be compared below; the print leaves it out.
    let own_version = meta::at(old_value, &["metadata", "resourceVersion"])
        .cloned()
        .unwrap_or_default();
    meta::metadata_mut(&mut new).insert("resourceVersion".into(), own_version);
    let mut reserved = special::before_update(call, resource, &mut new, old_value, part)?;
    if resource.generation && part == Part::Main && metadata::spec_changed(&new, old_value) {
        metadata::set_generation(&mut new, meta::generation(old_value) + 1);
    }
    let errors = match part {
        Part::Main => validation::update(resource, &new, old_value),
        _ => validation::update_status(resource, &new, old_value),
    };
    refuse(call, old.name(), &errors)?;
    {
        let attributes = call.attributes(Operation::Update, old.name(), Some(old_value), dry_run);
        admission.validate(&attributes, Some(&new), warnings)?;
    }
    if part == Part::Main {
        warnings.extend(validation::warnings(resource, &new, Some(old_value)));
    }
    if empties_finalizers(resource, &new, old_value) {
        if !dry_run {
            match write::remove(call.server.store(), old.key.clone(), old.revision).await {
                Ok(_) => special::after_write(call, resource, None, Some(old_value)),
                Err(WriteError::Conflict) => return Ok(Updated::Conflict),
                Err(WriteError::Status(status)) => return Err(status),
            }
        }
        return Ok(Updated::Deleted(new));
    }
    if new == *old_value {
        return Ok(Updated::Written(Written::Stored(old.clone())));
    }
    if dry_run {
        return Ok(Updated::Written(Written::Tree(new)));
    }
    match write::put(
        call.server.store(),
        cache,
        old.key.clone(),
        Expect::Revision(old.revision),
        &new,
    )
    .await
    {
        Ok(stored) => {
            reserved.keep();
            special::after_write(call, resource, Some(&new), Some(old_value));
            Ok(Updated::Written(Written::Stored(stored)))
        }
        Err(WriteError::Conflict) => Ok(Updated::Conflict),
        Err(WriteError::Status(status)) => Err(status),
    }
}

fn prepare_update(resource: &Resource, new: &mut Value, old: &Value, part: Part) {
    match part {
        Part::Main => {
            if resource.subresource("status").is_some() {
                copy_field(new, old, "status");
            }
            (resource.hooks.prepare_update)(new, old);
        }
        Part::Status => {
            // All but status and metadata stays as it was.
            let (Value::Object(map), Value::Object(old_map)) = (&mut *new, old) else {
                return;
            };
            map.retain(|key, _| matches!(key.as_str(), "metadata" | "status"));
            for (key, value) in old_map {
                if !matches!(key.as_str(), "metadata" | "status") {
                    map.insert(key.clone(), value.clone());
                }
            }
        }
        Part::Finalizers => {
            let finalizers = meta::at(new, &["spec", "finalizers"]).cloned();
            let version = meta::at(new, &["metadata"]).cloned().unwrap_or_default();
            *new = old.clone();
            meta::set(new, &["metadata"], version);
            match finalizers {
                Some(finalizers) => meta::set(new, &["spec", "finalizers"], finalizers),
                None => drop(meta::remove(new, &["spec", "finalizers"])),
            }
        }
        Part::Approval => {
            let conditions = meta::at(new, &["status", "conditions"]).cloned();
            *new = old.clone();
            match conditions {
                Some(conditions) => meta::set(new, &["status", "conditions"], conditions),
                None => drop(meta::remove(new, &["status", "conditions"])),
            }
        }
    }
}

fn copy_field(new: &mut Value, old: &Value, field: &str) {
    let Value::Object(map) = new else { return };
    match old.get(field) {
        Some(value) => map.insert(field.into(), value.clone()),
        None => map.remove(field),
    };
}

/// Whether an update of an object that is being deleted removes what it was waiting for.
fn empties_finalizers(resource: &Resource, new: &Value, old: &Value) -> bool {
    if !meta::is_deleting(old) || meta::finalizers(new).next().is_some() {
        return false;
    }
    if resource.kind == "Namespace" && !meta::items(new, &["spec", "finalizers"]).is_empty() {
        return false;
    }
    meta::i64_at(old, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) == 0
}
