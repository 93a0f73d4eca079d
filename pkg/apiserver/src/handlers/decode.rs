//! A request's body: read within bounds, decoded once, and checked for being what the URL says.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use mk8s_api::codec::{Decoded, Validation, json, protobuf, yaml};
use mk8s_api::meta;
use mk8s_api::schema::{self, TypeRef};
use mk8s_api::status::Status;
use serde_json::Value;

use crate::call::Call;
use crate::negotiate::{Encoding, body_encoding};
use crate::options::{FieldValidation, WriteOptions};

/// What upstream accepts of a body.
pub const MAX_BODY: usize = 3 << 20;
/// A body that takes longer than this is not waited for.
const PATIENCE: Duration = Duration::from_secs(34);

pub async fn read(body: Body) -> Result<Bytes, Status> {
    let collected = tokio::time::timeout(PATIENCE, Limited::new(body, MAX_BODY).collect());
    match collected.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => Err(Status::too_large(format!(
            "Request entity too large: limit is {MAX_BODY}"
        ))),
        Ok(Err(error)) => Err(Status::bad_request(format!("reading the request's body: {error}"))),
        Err(_) => Err(Status::timeout("the request's body did not arrive in time")),
    }
}

impl From<FieldValidation> for Validation {
    fn from(own: FieldValidation) -> Validation {
        match own {
            FieldValidation::Strict => Validation::Strict,
            FieldValidation::Warn => Validation::Warn,
            FieldValidation::Ignore => Validation::Ignore,
        }
    }
}

/// The kind a body is expected to be.
pub struct Expected<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub schema: Option<TypeRef>,
}

impl<'a> Expected<'a> {
    pub fn row(call: &'a Call) -> Expected<'a> {
        Expected {
            api_version: &call.row.api_version,
            kind: call.row.kind(),
            schema: call.row.schema,
        }
    }

    pub fn kind(group: &str, version: &str, api_version: &'a str, kind: &'a str) -> Expected<'a> {
        Expected {
            api_version,
            kind,
            schema: schema::by_gvk(group, version, kind),
        }
    }
}

/// Decodes an object of the expected kind; what strict decoding has against it is refused, warned of or passed.
pub fn object(
    call: &Call,
    body: &[u8],
    expected: &Expected<'_>,
    options: WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let encoding = body_encoding(&call.headers)?;
    let Decoded { mut value, problems } = decode(encoding, body, expected, options.field_validation)?;
    check_kind(&mut value, expected)?;
    note_problems(problems, expected, options.field_validation, warnings)?;
    Ok(value)
}

/// Strict refuses, Warn warns.
pub fn note_problems(
    problems: Vec<String>,
    expected: &Expected<'_>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    if problems.is_empty() {
        return Ok(());
    }
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => warnings.extend(problems),
        FieldValidation::Strict => {
            let why = format!("strict decoding error: {}", problems.join(", "));
            return Err(cannot_be_handled(expected, &why));
        }
    }
    Ok(())
}

pub fn cannot_be_handled(expected: &Expected<'_>, why: &str) -> Status {
    let (_, version) = meta::split_api_version(expected.api_version);
    let kind = expected.kind;
    Status::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
    ))
}

fn decode(
    encoding: Encoding,
    body: &[u8],
    expected: &Expected<'_>,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    if body.is_empty() {
        return Err(unrecognized(
            expected,
            "couldn't get version/kind; json parse error: unexpected end of JSON input",
            body,
        ));
    }
    let decoded = match encoding {
        Encoding::Json => json::decode(body, expected.schema, validation.into()),
        Encoding::Yaml => yaml::decode(body, expected.schema, validation.into()),
        Encoding::Protobuf => protobuf::decode_or(body, expected.api_version, expected.kind)
            .map(|value| Decoded {
                value,
                problems: Vec::new(),
            })
            .map_err(|error| error.to_string()),
    };
    decoded.map_err(|why| {
        let typed =
            why.starts_with("json: cannot") || why.starts_with("parsing time") || why.contains("illegal base64");
        if typed || why.starts_with("quantities") || why.contains("ParseQuantity") {
            cannot_be_handled(expected, &why)
        } else {
            unrecognized(
                expected,
                &format!("couldn't get version/kind; json parse error: {why}"),
                body,
            )
        }
    })
}

fn unrecognized(expected: &Expected<'_>, why: &str, body: &[u8]) -> Status {
    let shown = String::from_utf8_lossy(&body[..body.len().min(30)]);
    let dots = if body.len() > 30 { " ..." } else { "" };
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({shown}{dots})",
        expected.kind
    ))
}

/// An absent kind or apiVersion is filled in; another one is refused.
fn check_kind(value: &mut Value, expected: &Expected<'_>) -> Result<(), Status> {
    let Value::Object(map) = value else {
        return Err(unrecognized(expected, "couldn't get version/kind: not an object", b""));
    };
    let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (no_version, no_kind) = (api_version.is_empty(), kind.is_empty());
    if !kind.is_empty() && kind != expected.kind {
        let (_, version) = meta::split_api_version(api_version);
        return Err(Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: converting ({api_version}, Kind={kind}) to ({}, Kind={}): unknown conversion",
            expected.kind, expected.api_version, expected.kind,
        )));
    }
    if !api_version.is_empty() && api_version != expected.api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            expected.api_version
        )));
    }
    if no_version {
        map.insert("apiVersion".into(), expected.api_version.into());
    }
    if no_kind {
        map.insert("kind".into(), expected.kind.into());
    }
    Ok(())
}

/// DeleteOptions from a body, if there is one.
pub fn delete_options(call: &Call, body: &[u8]) -> Result<Option<Value>, Status> {
    if body.is_empty() {
        return Ok(None);
    }
    let value = match body_encoding(&call.headers)? {
        Encoding::Json => json::decode(body, None, Validation::Ignore).map(|decoded| decoded.value),
        Encoding::Yaml => yaml::decode(body, None, Validation::Ignore).map(|decoded| decoded.value),
        Encoding::Protobuf => protobuf::decode_or(body, "v1", "DeleteOptions").map_err(|error| error.to_string()),
    };
    let value = value.map_err(Status::bad_request)?;
    let kind = meta::kind(&value);
    if !kind.is_empty() && kind != "DeleteOptions" {
        return Err(Status::bad_request(
            "decoded object cannot be converted to DeleteOptions",
        ));
    }
    Ok(Some(value))
}
