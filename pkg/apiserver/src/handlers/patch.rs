//! patch: read, change, write, and again when something came between.

use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use mk8s_api::codec::{Validation, conform, json};
use mk8s_api::meta;
use mk8s_api::patch;
use mk8s_api::status::{FieldError, Status};
use serde_json::Value;

use super::update::{check_name, check_version};
use super::{answer, apply as server_side};
use crate::call::Call;
use crate::guaranteed_update::Reads;
use crate::managers;
use crate::options::{FieldValidation, WriteOptions};
use crate::part;
use crate::pipeline::{self, Part};

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
pub fn read_patch(body: &[u8]) -> Result<Value, Status> {
    match json::decode(body, None, Validation::Ignore) {
        Ok(decoded) => Ok(decoded.value),
        Err(why) => Err(Status::bad_request(format!("error decoding patch: {why}"))),
    }
}

/// Changes a tree as a patch says.
pub fn apply(call: &Call, kind: PatchType, target: &mut Value, patch: &Value) -> Result<(), Status> {
    let applied = match (kind, &call.row.schema) {
        // A map of nothing.
        (PatchType::Strategic, Some(_)) if patch.is_null() => Ok(()),
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
    let change = read_patch(&body);
    let mut warnings = Vec::new();
    let reads = match part {
        Part::Status if part::decides(&call.row) && kind != PatchType::Json => match &change {
            Ok(change) if part::suffices(change) => Reads::Part,
            _ => Reads::Whole,
        },
        _ => Reads::Whole,
    };
    let with_managers = kind == PatchType::Json && change.as_ref().is_ok_and(reaches_managers);
    let updated = pipeline::update(call, part, reads, options, &mut warnings, |current, warnings| {
        if current.object.is_none() {
            return Err(call.not_found());
        }
        let change = change.as_ref().map_err(Clone::clone)?;
        let mut shown = call.row.show(current.value.clone());
        if with_managers {
            managers::put(&mut shown, current.managed());
        }
        self::apply(call, kind, &mut shown, change)?;
        settle_identity(call, kind, &mut shown)?;
        let mut new = conformed(call, shown, change, options, warnings)?;
        check_name(call, &new)?;
        call.row.to_stored(&mut new);
        check_version(call, &new, current)?;
        Ok(new.into())
    });
    answer(call, StatusCode::OK, updated.await?.written, &warnings).await
}

/// Whether an operation of a JSON patch names managers, or what they lie in: to others they need not be there.
fn reaches_managers(patch: &Value) -> bool {
    const PATH: &str = "/metadata/managedFields";
    let operations = patch.as_array().into_iter().flatten();
    let mut paths =
        operations.flat_map(|operation| [meta::string(operation, &["path"]), meta::string(operation, &["from"])]);
    paths.any(|path| path.starts_with(PATH) || path == "/metadata")
}

/// The patched tree as decoding its text would leave it.
pub fn conformed(
    call: &Call,
    patched: Value,
    change: &Value,
    options: WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let Some(schema) = call.row.form() else {
        return Ok(patched);
    };
    let refused = |why: &dyn std::fmt::Display| unfit(change, why.to_string());
    let decoded = conform(patched, schema, options.field_validation.into());
    let mut decoded = decoded.map_err(|error| refused(&error))?;
    let more = call.row.admit(&mut decoded.value);
    decoded.problems.extend(more.map_err(|error| refused(&error))?);
    match options.field_validation {
        FieldValidation::Strict if !decoded.problems.is_empty() => {
            let why = format!("strict decoding error: {}", decoded.problems.join(", "));
            return Err(unfit(change, why));
        }
        FieldValidation::Warn => warnings.extend(decoded.problems),
        _ => {}
    }
    Ok(decoded.value)
}

/// A patch after which the object is none of its kind.
fn unfit(change: &Value, why: String) -> Status {
    Status::invalid("", "", "", &[FieldError::invalid("patch", change.to_string(), why)])
}

/// What a patched object says of its kind. A strategic merge goes into the kind whatever it says; other patches make a text,
/// which is decoded as what it says.
fn settle_identity(call: &Call, kind: PatchType, new: &mut Value) -> Result<(), Status> {
    let Value::Object(fields) = new else {
        return Ok(());
    };
    for (key, own) in [("apiVersion", &*call.row.api_version), ("kind", call.row.kind())] {
        let said = fields.get(key).and_then(Value::as_str).unwrap_or_default();
        if said == own {
            continue;
        }
        if kind != PatchType::Strategic && !said.is_empty() {
            let why = format!(
                "no {key} {said:?} is known for an object of {} {}",
                call.row.api_version,
                call.row.kind()
            );
            return Err(unfit(&Value::Object(fields.clone()), why));
        }
        fields.insert(key.into(), own.into());
    }
    Ok(())
}
