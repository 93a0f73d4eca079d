//! What every write passes between decoding and the store: default, admit, prepare, validate, admit. `creation` and
//! `change` are the two attempts of `guaranteed_update` that store an object a client sent; whatever writes otherwise
//! (binding, deletion, an eviction's budget) is an attempt of its own, of the same pieces.

use std::collections::HashSet;

use mk8s_api::apply::Managed;
use mk8s_api::meta;
use mk8s_api::registry::custom::{differs_only_in, only_metadata_differs};
use mk8s_api::registry::{Deletion, Resource, Served, Strategy};
use mk8s_api::schema::custom::TooLarge;
use mk8s_api::status::Status;
use mk8s_api::validation::{self, Errors};
use mk8s_store::Op;
use serde_json::{Map, Value};

use crate::admission::{Operation, Options};
use crate::call::Call;
use crate::crd::conversion::{self, Form};
use crate::guaranteed_update::Written;
use crate::guaranteed_update::{Attempt, Current, Done, Reads, Step, guaranteed_update};
use crate::object::Object;
use crate::options::WriteOptions;
use crate::write::Printed;
use crate::{managers, metadata, part};

/// Tried so often where a generated name is taken, as upstream does.
const NAME_TRIES: usize = 8;

/// Which part of the object an update may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but status (where the kind has a status subresource).
    Main,
    /// status, and labels and annotations.
    Status,
    /// As a subresource of its own says.
    Of(&'static Strategy),
}

/// Creates an object (in stored form).
pub async fn create(
    call: &Call,
    mut object: Value,
    options: WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Written, Status> {
    let managed = begin_create(call, &mut object, options)?;
    // Admission first, and once: who may not create it does not learn that it is there.
    mutate_new(call, &mut object, options).await?;
    let generated = metadata::wants_generated_name(&object);
    for attempt in 1.. {
        if generated {
            metadata::generate_name(&mut object);
            // Some defaults are made of the name.
            (call.row.resource.stored().default)(&mut object);
        }
        let mut target = call.target(meta::namespace(&object), meta::name(&object), options.dry_run)?;
        if generated {
            target.looks = false;
        }
        let mut creation = Creation {
            call,
            object: &mut object,
            managed: &managed,
            options,
            warnings,
        };
        match guaranteed_update(target, &mut creation).await {
            Ok(Done::Written(written)) => return Ok(written),
            Ok(Done::Removed(..)) => return Err(Status::internal("a creation removed the object")),
            Err(status) if generated && status.reason == "AlreadyExists" && attempt < NAME_TRIES => {}
            Err(status) => return Err(status),
        }
    }
    unreachable!("the loop above ends by returning")
}

struct Creation<'a> {
    call: &'a Call,
    object: &'a mut Value,
    managed: &'a Managed,
    options: WriteOptions,
    warnings: &'a mut Vec<String>,
}

impl Attempt for Creation<'_> {
    async fn attempt(&mut self, current: Current) -> Result<Step, Status> {
        let step = creation(self.call, self.object, self.managed, self.options, self.warnings).await?;
        let Some(there) = current.object else {
            return Ok(step);
        };
        let row = &self.call.row;
        let mut refused = Status::already_exists(row.group(), row.plural(), meta::name(self.object));
        if there.value().is_ok_and(|there| meta::is_deleting(&there)) {
            refused.message.insert_str(0, "object is being deleted: ");
        }
        Err(refused)
    }
}

/// What is the same however often a creation is tried; who owns the object's fields. What admission adds is nobody's.
fn begin_create(call: &Call, object: &mut Value, options: WriteOptions) -> Result<Managed, Status> {
    let sent = managers::take(object);
    let resource = &call.row.resource;
    metadata::match_namespace(resource, &call.info, object)?;
    may_begin(call, object)?;
    // What is no revision says nothing, and a dry run asks no store.
    let names_revision = meta::resource_version(object)
        .parse::<u64>()
        .is_ok_and(|revision| revision > 0);
    if names_revision && !options.dry_run {
        return Err(Status::new(
            500,
            "",
            "resourceVersion should not be set on objects to be created",
        ));
    }
    metadata::begin_create(resource, object);
    fill(call, object)?;
    Ok(managers::created(call, object, sent.as_ref()))
}

/// Fills in what an object leaves unsaid.
fn fill(call: &Call, object: &mut Value) -> Result<(), Status> {
    call.row.working().fill(object).map_err(no_room)
}

fn no_room(error: TooLarge) -> Status {
    Status::too_large(error.to_string())
}

/// Whether objects of the kind may begin.
fn may_begin(call: &Call, object: &Value) -> Result<(), Status> {
    let cache = call.cache()?;
    // Before it is asked: whoever closes it waits for those that hold one.
    let token = cache.beginning();
    if !cache.is_closed() {
        // One that is held already is as good.
        token.map(|token| call.beginning.set(token).ok());
        return Ok(());
    }
    let (group, plural) = (call.row.group(), call.row.plural());
    let why = "create not allowed while custom resource definition is terminating";
    Err(Status::forbidden(group, plural, meta::name(object), why))
}

/// Mutating admission sees no name that is to be generated, as upstream, which generates it afterwards: who is refused is told of none
/// that he did not ask for and that the next try would not have.
async fn mutate_new(call: &Call, object: &mut Value, options: WriteOptions) -> Result<(), Status> {
    let name = meta::name(object).to_string();
    let attributes = call.attributes(Operation::Create, &name, None, Options::Write(options));
    call.server.admission().mutate(&attributes, object).await
}

/// One attempt to create, after the mutating admission; a further one begins with what this one left in `object`.
async fn creation(
    call: &Call,
    object: &mut Value,
    managed: &Managed,
    options: WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Step, Status> {
    let resource = &call.row.resource;
    is_defaulted(call.row.working(), object);
    drop_status(call, object)?;
    resource.prepare_create(object);
    // Addresses are chosen anew in another attempt.
    let mut claimed = None;
    let mut beside = Vec::new();
    if resource.semantics.holds_addresses {
        let object = claimed.insert(object.clone());
        beside = call.server.services().on_create(object, options.dry_run)?;
    }
    let object = claimed.as_ref().unwrap_or(object);
    refuse(call, meta::name(object), &call.row.check_create(object))?;
    let mut notes = Vec::new();
    {
        let attributes = call.attributes(Operation::Create, meta::name(object), None, Options::Write(options));
        call.validate(&attributes, object, &mut notes).await?;
    }
    notes.extend(call.row.warnings(object, None));
    add_new(warnings, notes);
    Ok(Step::Put(printed(call, object, managed).await?, beside))
}

/// Adds what is not there yet: a further attempt finds most of what one noted again.
fn add_new(warnings: &mut Vec<String>, notes: Vec<String>) {
    if warnings.is_empty() && notes.len() < 2 {
        warnings.extend(notes);
        return;
    }
    let mut known: HashSet<String> = warnings.iter().cloned().collect();
    warnings.extend(notes.into_iter().filter(|note| known.insert(note.clone())));
}

/// The text of an object that is whole, in the stored version.
async fn printed(call: &Call, object: &Value, managed: &Managed) -> Result<Printed, Status> {
    let row = &call.row;
    if row.webhook().is_none() {
        return match &row.resource.stored().custom {
            // What the version of the request has and the stored one lacks is not kept.
            Some(custom) if !row.shows_stored() => {
                let mut stored = object.clone();
                custom.keep(&mut stored).map_err(no_room)?;
                Printed::of(&row.resource, &stored, managed)
            }
            _ => Printed::of(&row.resource, object, managed),
        };
    }
    let stored = conversion::tree(call, object.clone(), Form::Stored).await?;
    Printed::of(&row.resource, &stored, managed)
}

/// The text of an object of which no more changes than what such a write is for.
fn printed_beside_the_rest(
    call: &Call,
    part: Part,
    mut new: Value,
    found: &Object,
    managed: &Managed,
) -> Result<Printed, Status> {
    let resource = &call.row.resource;
    if part != Part::Status {
        return Printed::of_fields(resource, found, &["metadata"], &new, managed);
    }
    if let Some(custom) = resource.stored().custom.as_ref().filter(|_| !call.row.shows_stored()) {
        with_status_alone(&mut new, |alone| custom.keep(alone).map_err(no_room))?;
    }
    Printed::of_fields(resource, found, &["metadata", "status"], &new, managed)
}

/// What an attempt found, in the form of the row's version where a webhook makes that.
pub async fn in_form(call: &Call, mut current: Current) -> Result<Current, Status> {
    if call.row.webhook().is_some() && current.object.is_some() {
        current.value = conversion::tree(call, current.value, Form::Row).await?;
    }
    Ok(current)
}

/// What admission's own plugins add has its defaults already: a second pass over each object would find nothing.
fn is_defaulted(working: &Served, object: &Value) {
    if cfg!(debug_assertions) {
        let mut again = object.clone();
        let _ = working.fill(&mut again);
        // A name that was made up just now may be what a label defaults to, which is filled in where the object is prepared.
        again["metadata"] = object["metadata"].clone();
        debug_assert_eq!(&again, object, "a plugin left something without its default");
    }
}

fn refuse(call: &Call, name: &str, errors: &Errors) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&call.row.resource.group, call.row.kind(), name, errors))
}

/// New objects have no status of the caller's, but for kinds that register with theirs.
fn drop_status(call: &Call, object: &mut Value) -> Result<(), Status> {
    if !call.row.working().has_status() || call.row.resource.semantics.registers_status {
        return Ok(());
    }
    let Value::Object(map) = object else { return Ok(()) };
    if call.row.served().custom.is_some() {
        if map.remove("status").is_some() {
            return fill(call, object);
        }
    } else if let Some(status) = map.get_mut("status") {
        *status = Value::Object(Map::new());
    }
    Ok(())
}

/// What an update came to.
pub struct Updated {
    /// As it is stored; the last state where the update took the last finalizer of an object that was being deleted.
    pub written: Written,
    /// There was none before.
    pub created: bool,
}

/// What an attempt makes of what is stored.
pub struct Next {
    pub object: Value,
    /// Who owns what of it, where that is known already.
    pub owned: Option<Managed>,
}

impl From<Value> for Next {
    fn from(object: Value) -> Next {
        Next { object, owned: None }
    }
}

/// Updates the object that the call names, or creates it where `next` allows that. `next` makes of what is stored what is to
/// be stored (in stored form, as the client means it), and checks what the client named of it.
pub async fn update<N>(
    call: &Call,
    part: Part,
    reads: Reads,
    options: WriteOptions,
    warnings: &mut Vec<String>,
    next: N,
) -> Result<Updated, Status>
where
    N: FnMut(&Current, &mut Vec<String>) -> Result<Next, Status> + Send,
{
    let mut target = call.named_target(options.dry_run)?;
    target.reads = reads;
    let mut update = Update {
        call,
        part,
        options,
        before: warnings.clone(),
        warnings,
        created: false,
        next,
    };
    let written = match guaranteed_update(target, &mut update).await? {
        Done::Written(written) => written,
        Done::Removed(last, _) => Written::Tree(last),
    };
    let created = update.created;
    Ok(Updated { written, created })
}

struct Update<'a, N> {
    call: &'a Call,
    part: Part,
    options: WriteOptions,
    /// What there was to warn of before the first attempt.
    before: Vec<String>,
    warnings: &'a mut Vec<String>,
    created: bool,
    next: N,
}

impl<N> Attempt for Update<'_, N>
where
    N: FnMut(&Current, &mut Vec<String>) -> Result<Next, Status> + Send,
{
    async fn attempt(&mut self, current: Current) -> Result<Step, Status> {
        self.created = current.object.is_none();
        let current = in_form(self.call, current).await?;
        let mut next = loop {
            self.before.clone_into(self.warnings);
            let next = (self.next)(&current, self.warnings);
            if !self.call.forms.ask(self.call).await? {
                break next?;
            }
        };
        if self.created {
            let managed = begin_create(self.call, &mut next.object, self.options)?;
            let managed = next.owned.unwrap_or(managed);
            mutate_new(self.call, &mut next.object, self.options).await?;
            return creation(self.call, &mut next.object, &managed, self.options, self.warnings).await;
        }
        change(self.call, self.part, &current, next, self.options, self.warnings).await
    }
}

/// One attempt to put `new` (stored form) in the place of what is stored.
async fn change(
    call: &Call,
    part: Part,
    current: &Current,
    next: Next,
    options: WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Step, Status> {
    let old = &current.value;
    let Next { object: mut new, owned } = next;
    let sent = managers::take(&mut new);
    begin_change(call, part, &mut new, current)?;
    if let Some(rest) = &current.rest {
        rest.trim(&mut new);
    }
    let managed = match owned {
        Some(owned) => owned,
        None => managers::changed(call, current, &new, sent.as_ref()).await,
    };
    if sent.is_some() {
        refuse(
            call,
            meta::name(old),
            &validation::managers(&call.row.resource, &managed),
        )?;
    }
    let admission = call.server.admission();
    let mut attributes = call.attributes(Operation::Update, meta::name(old), Some(old), Options::Write(options));
    attributes.stored = current.object.as_deref();
    admission.mutate(&attributes, &mut new).await?;
    if current.rest.is_none() && !leaves_the_rest(call, part, &new, current) {
        is_defaulted(call.row.working(), &new);
    }
    let judge = part::judge(&call.row.resource, current.rest.as_ref(), &new, old)?;
    let beside = prepare_change(call, part, &mut new, &judge, warnings)?;
    if let Some(rest) = &current.rest {
        rest.trim(&mut new);
    }
    call.validate(&attributes, &new, warnings).await?;
    if part == Part::Main {
        warnings.extend(call.row.warnings(&new, Some(old)));
    }
    finish_change(call, part, new, &managed, current, beside).await
}

/// What an update can't change comes back, what it leaves out is filled in, but for what there is no room for already.
pub fn begin_change(call: &Call, part: Part, new: &mut Value, current: &Current) -> Result<(), Status> {
    let resource = &call.row.resource;
    metadata::match_namespace(resource, &call.info, new)?;
    metadata::begin_update(new, &current.value);
    match leaves_the_rest(call, part, new, current) {
        false => fill(call, new),
        true if part == Part::Status => with_status_alone(new, |alone| fill(call, alone)),
        true => Ok(()),
    }
}

/// Whether of an object that is stored without all that is read of it, for which there may be no room, a change leaves that as
/// it is.
fn leaves_the_rest(call: &Call, part: Part, new: &Value, current: &Current) -> bool {
    let Some(found) = current.object.as_ref().filter(|found| found.is_longer_than_stored()) else {
        return false;
    };
    let old = &current.value;
    match part {
        Part::Status => found.is_in(meta::api_version(old)),
        // What such a write says of the status is not asked.
        _ if call.row.working().has_status() => differs_only_in(new, old, &["apiVersion", "metadata", "status"]),
        _ => only_metadata_differs(new, old),
    }
}

/// Does to an object's status what is done to whole objects.
fn with_status_alone(object: &mut Value, change: impl FnOnce(&mut Value) -> Result<(), Status>) -> Result<(), Status> {
    let Value::Object(fields) = object else { return Ok(()) };
    let mut alone = Value::Object(
        fields
            .remove("status")
            .map(|own| ("status".into(), own))
            .into_iter()
            .collect(),
    );
    change(&mut alone)?;
    fields.extend(meta::remove(&mut alone, &["status"]).map(|own| ("status".into(), own)));
    Ok(())
}

/// Everything between the two phases of admission; what is to be written beside the object.
pub fn prepare_change(
    call: &Call,
    part: Part,
    new: &mut Value,
    old: &Value,
    warnings: &mut Vec<String>,
) -> Result<Vec<Op>, Status> {
    let resource = &call.row.resource;
    prepare_update(call, new, old, part);
    // An old resourceVersion in the tree would be compared below; the print leaves it out.
    let own_version = meta::at(old, &["metadata", "resourceVersion"])
        .cloned()
        .unwrap_or_default();
    meta::metadata_mut(new).insert("resourceVersion".into(), own_version);
    let services = call.server.services();
    let mut beside = Vec::new();
    if part == Part::Main && resource.semantics.holds_addresses {
        beside = services.on_update(new, old)?;
    }
    let counts = resource.generation && !resource.semantics.generation_stays;
    if counts && part != Part::Status && metadata::spec_changed(call.row.working(), new, old) {
        metadata::set_generation(new, meta::generation(old) + 1);
    }
    let errors = match part {
        Part::Main => call.row.check_update(new, old, warnings),
        Part::Status => validation::update_status(resource, call.row.served(), new, old, warnings),
        Part::Of(strategy) => validation::update_part(resource, strategy, new, old),
    };
    refuse(call, meta::name(old), &errors)?;
    Ok(beside)
}

/// Whether what is stored is to be written though nothing changes: so objects of a custom kind come into its storage version.
fn is_stale(call: &Call, current: &Current) -> bool {
    let Some(object) = &current.object else { return false };
    if call.row.webhook().is_some() && object.is_longer_than_stored() {
        // A write that changes nothing leaves the rest as it is stored, in its version: it would be as stale as before.
        return false;
    }
    let other_version = |stored: Value| meta::api_version(&stored) != call.row.resource.api_version();
    object.is_stale() || (call.row.webhook().is_some() && object.value().is_ok_and(other_version))
}

/// What becomes of a change that was admitted.
pub async fn finish_change(
    call: &Call,
    part: Part,
    new: Value,
    managed: &Managed,
    current: &Current,
    beside: Vec<Op>,
) -> Result<Step, Status> {
    let resource = &call.row.resource;
    let (old, rest) = (&current.value, current.rest.as_ref());
    if empties_finalizers(resource, &new, old) {
        let mut last = match rest {
            None => new,
            Some(rest) => rest.whole(new)?,
        };
        managers::put(&mut last, managed);
        let beside = call.server.services().on_removal(resource, &last);
        return Ok(Step::Remove(last, beside));
    }
    // When somebody applied again what is there is not worth a write.
    if new == *old && managed.same_but_times(current.managed()) && !is_stale(call, current) {
        return Ok(Step::Keep);
    }
    let printed = match (rest, &current.object) {
        (None, Some(found)) if leaves_the_rest(call, part, &new, current) => {
            printed_beside_the_rest(call, part, new, found, managed)?
        }
        (None, _) => printed(call, &new, managed).await?,
        (Some(rest), _) => Printed::of_part(resource, &new, rest, managed)?,
    };
    Ok(Step::Put(printed, beside))
}

fn prepare_update(call: &Call, new: &mut Value, old: &Value, part: Part) {
    let resource = &call.row.resource;
    match part {
        Part::Main => {
            if call.row.working().has_status() {
                copy_field(new, old, "status");
            }
            resource.prepare_update(new, old);
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
            resource.prepare_status(new, old);
            if resource.semantics.status_alone {
                copy_field(new, old, "metadata");
                return;
            }
            // Who may write a status may not thereby say whose an object is, and so whether it is collected.
            match meta::at(old, &["metadata", "ownerReferences"]) {
                Some(owners) => meta::set(new, &["metadata", "ownerReferences"], owners.clone()),
                None => drop(meta::remove(new, &["metadata", "ownerReferences"])),
            }
        }
        Part::Of(strategy) => {
            (strategy.prepare)(new, old);
            resource.drop_disabled(new, Some(old));
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
    if resource.semantics.deletion == Deletion::Emptied && !meta::items(new, &["spec", "finalizers"]).is_empty() {
        return false;
    }
    meta::i64_at(old, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) == 0
}
