//! patch: read, change, write, and again when something came between.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use mk8s_api::codec::{self, DecodeError, Decoded, Validation, json};
use mk8s_api::schema::Schema;
use mk8s_api::status::{FieldError, Status};
use mk8s_api::{go, meta, patch};
use serde_json::Value;

use super::decode::go_kind;
use super::identity::{self, Said, Wanted};
use super::update::{check_name, check_revision};
use super::{answer, apply as server_side, decode};
use crate::call::Call;
use crate::guaranteed_update::{Current, Reads};
use crate::managers;
use crate::options::{FieldValidation, WriteOptions};
use crate::part;
use crate::pipeline::{self, Part};
use crate::rows::Row;

/// The ways to say what changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchType {
    pub fn of(call: &Call) -> Result<PatchType, Status> {
        let header = call.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = header.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match media {
            "application/json-patch+json" => Ok(PatchType::Json),
            "application/merge-patch+json" => Ok(PatchType::Merge),
            "application/strategic-merge-patch+json" if call.row.schema.is_some() => Ok(PatchType::Strategic),
            "application/apply-patch+yaml" => Ok(PatchType::Apply),
            other => Err(Status::unsupported_media_type(format!(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml (got {other:?})"
            ))),
        }
    }
}

/// A patch's body.
pub struct Patch {
    pub kind: PatchType,
    pub change: Value,
    /// What strict decoding has against the patch itself.
    problems: Vec<String>,
    validation: FieldValidation,
}

impl Patch {
    /// # Errors
    /// 400: it is no JSON, or (where anything is made of that) not the kind of value that such a patch is.
    pub fn read(kind: PatchType, body: &[u8], validation: FieldValidation) -> Result<Patch, Status> {
        let told = |why: String| match kind {
            PatchType::Strategic => Status::bad_request(why),
            _ => Status::bad_request(format!("error decoding patch: {why}")),
        };
        let decoded = json::decode(body, None, validation.into()).map_err(|why| told(why.to_string()))?;
        let Decoded { value, mut problems } = decoded;
        let looks = validation != FieldValidation::Ignore;
        let found = go_kind(&value);
        let unfit = |wanted| format!("json: cannot unmarshal {found} into Go value of type {wanted}");
        match (kind, &value) {
            (_, Value::Null) | (PatchType::Json, Value::Array(_)) => {}
            (PatchType::Json, _) if looks => return Err(told(unfit("[]handlers.jsonPatchOp"))),
            (PatchType::Json, _) => return Err(Status::bad_request(unfit("jsonpatch.Patch"))),
            (_, Value::Object(_)) => {}
            (PatchType::Strategic, _) => return Err(told(unfit("map[string]interface {}"))),
            _ if looks => return Err(told(unfit("map[string]interface {}"))),
            _ => {}
        }
        if kind == PatchType::Json && looks {
            misfit_of_operations(&value).map_or(Ok(()), |why| Err(told(why)))?;
            problems.extend(unknown_of_operations(&value));
            problems
                .iter_mut()
                .for_each(|problem| problem.insert_str(0, "json patch "));
        }
        Ok(Patch {
            kind,
            change: value,
            problems,
            validation,
        })
    }

    /// What was patched, of another type than the row's, as decoding its text would leave it.
    pub fn conformed(
        &self,
        call: &Call,
        patched: Value,
        schema: &Schema,
        wanted: &Wanted<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Value, Status> {
        let validation = self.validation;
        let shown = patched.clone();
        let refused = |why: String| match self.kind {
            PatchType::Strategic => unfit(&go::printed(&self.change), why),
            _ => unfit(&shown.to_string(), why),
        };
        if self.kind != PatchType::Strategic {
            self.check_identity(call, &shown, wanted, refused, warnings)?;
        }
        let decoded = codec::conform(patched, schema, validation.into()).map_err(|error| refused(error.to_string()))?;
        let all = self.problems.iter().cloned().chain(decoded.problems).collect();
        judge(all, validation, refused, warnings)?;
        Ok(decoded.value)
    }

    /// Whether what was patched still is what is wanted, by its own words.
    fn check_identity(
        &self,
        call: &Call,
        patched: &Value,
        wanted: &Wanted<'_>,
        refused: impl Fn(String) -> Status,
        warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        if identity::said(patched, wanted).map_err(&refused)? == Said::Wanted {
            return Ok(());
        }
        let fields = patched.as_object().into_iter().flat_map(|fields| fields.keys());
        let fields = fields.filter(|field| !["apiVersion", "kind"].contains(&field.as_str()));
        let mut unknown: Vec<&String> = fields.collect();
        unknown.sort_unstable();
        let unknown = codec::unknown_fields(unknown.into_iter());
        let all = self.problems.iter().cloned().chain(unknown).collect();
        judge(all, self.validation, refused, warnings)?;
        // Nothing was read of it, nor a name.
        check_name(call, &Value::Null)
    }

    /// What messages show of it: a strategic merge patch itself, of others what they made of an object.
    fn shown(&self, call: &Call, current: &Current) -> String {
        if self.kind == PatchType::Strategic {
            return go::printed(&self.change);
        }
        let mut patched = call.row.show(current.value.clone());
        managers::put(&mut patched, current.managed());
        // It went well before.
        let _ = apply(call, self, &mut patched);
        patched.to_string()
    }
}

/// What is no operation of a JSON patch, or a part of one that is no text.
fn misfit_of_operations(patch: &Value) -> Option<String> {
    let misfit = |operation: &Value| {
        let (found, wanted) = match operation {
            Value::Null => return None,
            Value::Object(fields) => {
                let mut texts = ["op", "from", "path"]
                    .into_iter()
                    .filter_map(|key| Some((key, fields.get(key)?)));
                let (key, value) = texts.find(|(_, value)| !value.is_null() && !value.is_string())?;
                (value, format!("struct field jsonPatchOp.{key} of type string"))
            }
            other => (other, "value of type handlers.jsonPatchOp".to_string()),
        };
        Some(format!("json: cannot unmarshal {} into Go {wanted}", go_kind(found)))
    };
    patch.as_array()?.iter().find_map(misfit)
}

/// The fields of a JSON patch's operations that none has.
fn unknown_of_operations(patch: &Value) -> Vec<String> {
    let operations = patch.as_array().into_iter().flatten().enumerate();
    codec::unknown_fields(operations.flat_map(|(index, operation)| {
        let names = operation.as_object().into_iter().flat_map(|fields| fields.keys());
        names
            .filter(|name| !["op", "path", "from", "value"].contains(&name.as_str()))
            .map(move |name| format!("[{index}].{name}"))
    }))
}

/// Changes a tree as a patch says.
fn apply(call: &Call, patch: &Patch, target: &mut Value) -> Result<(), Status> {
    let (kind, patch) = (patch.kind, &patch.change);
    let applied = match (kind, &call.row.schema) {
        // A map of nothing, and no operation.
        (PatchType::Strategic, Some(_)) | (PatchType::Json, _) if patch.is_null() => Ok(()),
        (PatchType::Json, _) => patch::json(target, patch),
        (PatchType::Strategic, Some(schema)) => patch::strategic(target, patch, schema),
        _ => patch::merge(target, patch),
    };
    applied.map_err(Status::from)
}

pub async fn patch(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    patch_part(call, body, Part::Main).await
}

/// PATCH of the object or of its status.
pub async fn patch_part(call: &Call, body: Bytes, part: Part) -> Result<Response<Body>, Status> {
    call.refuse_unsupported()?;
    let kind = PatchType::of(call)?;
    let options = WriteOptions::of_patch(&call.query, kind)?;
    if kind == PatchType::Apply {
        return server_side::apply_part(call, body, options, part).await;
    }
    // Whether there is something to patch is told before what is wrong with the patch.
    let patch = Patch::read(kind, &body, options.field_validation);
    let mut warnings = Vec::new();
    let reads = match part {
        Part::Status if part::decides(&call.row) && kind != PatchType::Json => match &patch {
            Ok(patch) if part::suffices(&patch.change) => Reads::Part,
            _ => Reads::Whole,
        },
        _ => Reads::Whole,
    };
    // To others the managers need not be there.
    let reaches_managers = |patch: &Patch| patch::reaches(&patch.change, &["metadata", "managedFields"]);
    let with_managers = kind == PatchType::Json && patch.as_ref().is_ok_and(reaches_managers);
    let updated = pipeline::update(call, part, reads, options, &mut warnings, |current, warnings| {
        if current.object.is_none() {
            return Err(call.not_found());
        }
        let patch = patch.as_ref().map_err(Clone::clone)?;
        let mut shown = call.row.show(current.value.clone());
        if with_managers {
            managers::put(&mut shown, current.managed());
        }
        self::apply(call, patch, &mut shown)?;
        let refused = |why| unfit(&patch.shown(call, current), why);
        let other = other_version(call, patch, &shown);
        match &other {
            // It may say no kind.
            Some(other) => meta::set(&mut shown, &["kind"], other.kind()),
            None => settle_identity(call, part, patch, &mut shown, refused, warnings)?,
        }
        let row = other.as_deref().unwrap_or(&call.row);
        // A strategic merge goes into the type as a tree, others as a text.
        let conform = match kind {
            PatchType::Strategic => codec::convert,
            _ => codec::conform,
        };
        let mut new = conformed(row, shown, conform, &patch.problems, refused, options, warnings)?;
        check_name(call, &new)?;
        row.to_stored(&mut new);
        check_revision(call, &new, current)?;
        Ok(new.into())
    });
    let updated = updated.await.map_err(|status| status.warned(&warnings))?;
    answer(call, StatusCode::OK, updated.written, &warnings).await
}

/// How a tree is brought into its type.
type Conform = fn(Value, &Schema, Validation) -> Result<Decoded, DecodeError>;

/// The patched tree as its type has it; `problems` were found on the way to it.
pub fn conformed(
    row: &Row,
    patched: Value,
    conform: Conform,
    problems: &[String],
    refused: impl Fn(String) -> Status,
    options: WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let Some(schema) = row.form() else {
        return Ok(patched);
    };
    let decoded = conform(patched, schema, options.field_validation.into());
    let mut decoded = decoded.map_err(|error| refused(error.to_string()))?;
    let more = row.admit(&mut decoded.value);
    let more = more.map_err(|error| refused(error.to_string()))?;
    let all: Vec<String> = problems.iter().cloned().chain(decoded.problems).chain(more).collect();
    judge(all, options.field_validation, refused, warnings)?;
    Ok(decoded.value)
}

/// Strict refuses, Warn warns.
fn judge(
    problems: Vec<String>,
    validation: FieldValidation,
    refused: impl Fn(String) -> Status,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    match validation {
        FieldValidation::Strict if !problems.is_empty() => {
            return Err(refused(format!("strict decoding error: {}", problems.join(", "))));
        }
        FieldValidation::Warn => warnings.extend(problems),
        _ => {}
    }
    Ok(())
}

/// A patch after which the object is none of its kind.
pub fn unfit(shown: &str, why: String) -> Status {
    Status::invalid("", "", "", &[FieldError::invalid("patch", shown, why)])
}

/// The other version of the same built-in kind that a patched text says it is in: it is decoded as that, and converted.
fn other_version(call: &Call, patch: &Patch, patched: &Value) -> Option<Arc<Row>> {
    let (api_version, kind) = (meta::api_version(patched), meta::kind(patched));
    let is_it = kind.is_empty() || kind == call.row.kind();
    if api_version == call.row.api_version || !is_it || patch.kind == PatchType::Strategic || call.row.schema.is_none()
    {
        return None;
    }
    let (group, version) = meta::split_api_version(api_version);
    let registry = call.server.registry();
    let other = registry.rows().get(group, version, call.row.plural())?;
    let is_other = other.api_version != call.row.api_version && Arc::ptr_eq(&other.resource, &call.row.resource);
    is_other.then(|| other.clone())
}

/// What a patched object says of its kind. A strategic merge goes into the kind whatever it says; other patches make a text,
/// which is decoded as what it says.
fn settle_identity(
    call: &Call,
    part: Part,
    patch: &Patch,
    new: &mut Value,
    refused: impl Fn(String) -> Status,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    match &call.row.schema {
        _ if patch.kind == PatchType::Strategic => {}
        Some(_) => {
            let (group, version) = meta::split_api_version(&call.row.api_version);
            let wanted = Wanted {
                group,
                version,
                kind: call.row.kind(),
                internal: true,
            };
            patch.check_identity(call, new, &wanted, refused, warnings)?;
        }
        None => check_custom(call, part, new, refused)?,
    }
    let Value::Object(fields) = new else {
        return Ok(());
    };
    for (key, own) in [("apiVersion", &*call.row.api_version), ("kind", call.row.kind())] {
        // What is no text is refused by whoever decodes it.
        match fields.get(key) {
            Some(Value::String(said)) if said == own => {}
            None | Some(Value::Null | Value::String(_)) => _ = fields.insert(key.into(), own.into()),
            Some(_) => {}
        }
    }
    Ok(())
}

/// A custom object says all that it is, but in its status, where nobody looks.
fn check_custom(call: &Call, part: Part, new: &Value, refused: impl Fn(String) -> Status) -> Result<(), Status> {
    let said = decode::names_of_custom(new, || new.to_string().into_bytes().into());
    let (api_version, kind) = said.map_err(&refused)?;
    if new.get("apiVersion").is_some_and(Value::is_null) {
        let why = ".apiVersion accessor error: <nil> is of the type <nil>, expected string";
        return Err(refused(why.into()));
    }
    let (group, version) = meta::split_api_version(api_version);
    if version.is_empty() {
        let why = "Object 'apiVersion' is missing in 'object has no apiVersion field'";
        return Err(Status::bad_request(why));
    }
    if part == Part::Status {
        return Ok(());
    }
    let own = &*call.row.api_version;
    let said = meta::join_api_version(group, version);
    let must = |field, said: &str, own| FieldError::invalid(field, said, format!("must be {own}"));
    let errors: Vec<FieldError> = [("kind", kind, call.row.kind()), ("apiVersion", &said, own)]
        .into_iter()
        .filter(|(_, said, own)| said != own)
        .map(|(field, said, own)| must(field, said, own))
        .collect();
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(group, kind, call.info.path_name(), &*errors)),
    }
}
