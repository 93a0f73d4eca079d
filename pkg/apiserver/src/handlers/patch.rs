//! patch: read, change, write, and again when something came between.

use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use mk8s_api::codec::{Validation, conform, json, yaml};
use mk8s_api::meta;
use mk8s_api::patch;
use mk8s_api::status::{FieldError, Status};
use serde_json::Value;

use super::decode::{self, Expected};
use super::update::check_version;
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
    let decoded = match json::decode(body, None, Validation::Ignore) {
        Ok(decoded) => decoded,
        Err(why) => yaml::decode(body, None, Validation::Ignore)
            .ok()
            .filter(|decoded| decoded.value.is_object() || decoded.value.is_array())
            .ok_or_else(|| Status::bad_request(format!("error decoding patch: {why}")))?,
    };
    Ok(decoded.value)
}

/// Changes a tree as a patch says.
pub fn apply(call: &Call, kind: PatchType, target: &mut Value, patch: &Value) -> Result<(), Status> {
    let applied = match (kind, &call.row.schema) {
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
    let change = read_patch(&body)?;
    let mut warnings = Vec::new();
    let reads = match part {
        Part::Status if part::decides(&call.row) && kind != PatchType::Json && part::suffices(&change) => Reads::Part,
        _ => Reads::Whole,
    };
    let with_managers = kind == PatchType::Json && reaches_managers(&change);
    let updated = pipeline::update(call, part, reads, options, &mut warnings, |current, warnings| {
        if current.object.is_none() {
            return Err(call.not_found());
        }
        let mut shown = call.row.show(current.value.clone());
        if with_managers {
            managers::put(&mut shown, current.managed());
        }
        self::apply(call, kind, &mut shown, &change)?;
        let mut new = conformed(call, shown, &change, options, warnings)?;
        check_identity(call, &new)?;
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
    let expected = Expected::row(call);
    let refused = |why: &dyn std::fmt::Display| decode::cannot_be_handled(&expected, &why.to_string());
    let decoded = conform(patched, schema, options.field_validation.into());
    let mut decoded = decoded.map_err(|error| refused(&error))?;
    let more = call.row.admit(&mut decoded.value);
    decoded.problems.extend(more.map_err(|error| refused(&error))?);
    match options.field_validation {
        FieldValidation::Strict if !decoded.problems.is_empty() => {
            let why = format!("strict decoding error: {}", decoded.problems.join(", "));
            let error = FieldError::invalid("patch", change.to_string(), why);
            return Err(Status::invalid("", "", "", &[error]));
        }
        FieldValidation::Warn => warnings.extend(decoded.problems),
        _ => {}
    }
    Ok(decoded.value)
}

pub fn check_identity(call: &Call, new: &Value) -> Result<(), Status> {
    if meta::kind(new) != call.row.kind() || meta::api_version(new) != call.row.api_version {
        return Err(Status::bad_request(format!(
            "a patch can't change kind or apiVersion: {} {} is not {} {}",
            meta::api_version(new),
            meta::kind(new),
            call.row.api_version,
            call.row.kind(),
        )));
    }
    let name = meta::name(new);
    if name != call.info.path_name() {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.info.path_name()
        )));
    }
    Ok(())
}
