//! A request's body: decoded once, and checked for being what the URL says.

use mk8s_api::codec::protobuf::{Envelope, Kind, ProtobufError};
use mk8s_api::codec::{self, DecodeError, Decoded, Validation};
use mk8s_api::meta;
use mk8s_api::schema::{self, Schema};
use mk8s_api::status::Status;
use serde_json::Value;

use crate::call::Call;
use crate::negotiate::{Encoding, body_encoding};
use crate::options::{FieldValidation, WriteOptions};
use crate::rows::Row;

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
    pub schema: Option<&'a Schema>,
    /// Another version in which it may come, and looks the same.
    pub alias: Option<&'a str>,
    /// The row whose objects are expected: of a custom kind its schema has a word too.
    pub row: Option<&'a Row>,
}

impl<'a> Expected<'a> {
    pub fn row(call: &'a Call) -> Expected<'a> {
        Expected {
            api_version: &call.row.api_version,
            kind: call.row.kind(),
            schema: call.row.form(),
            row: Some(&call.row),
            alias: None,
        }
    }

    pub fn kind(group: &str, version: &str, api_version: &'a str, kind: &'a str) -> Expected<'a> {
        Expected {
            api_version,
            kind,
            schema: schema::by_gvk(group, version, kind),
            alias: None,
            row: None,
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
    let Decoded {
        mut value,
        mut problems,
    } = decode(encoding, body, expected, options.field_validation)?;
    check_kind(&mut value, expected)?;
    if let Some(row) = expected.row {
        let more = row.admit(&mut value);
        problems.extend(more.map_err(|error| cannot_be_handled(expected, &error.to_string()))?);
    }
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
        Encoding::Json => codec::json::decode(body, expected.schema, validation.into()),
        Encoding::Yaml => codec::yaml::decode(body, expected.schema, validation.into()),
        Encoding::Protobuf => return protobuf(body, expected),
    };
    decoded.map_err(|error| failed(expected, error, body))
}

/// A body in protobuf, whose bytes are read as whatever kind they name: what is no object of the expected kind is refused
/// before that.
fn protobuf(body: &[u8], expected: &Expected<'_>) -> Result<Decoded, Status> {
    let failed = |error: ProtobufError| failed(expected, error.into(), body);
    let mut envelope = Envelope::open(body).map_err(failed)?;
    let Kind { api_version, kind } = &mut envelope.kind;
    check_names(api_version, kind, expected)?;
    *api_version = expected.api_version.into();
    *kind = expected.kind.into();
    Ok(Decoded {
        value: envelope.decode().map_err(failed)?,
        problems: Vec::new(),
    })
}

fn failed(expected: &Expected<'_>, error: DecodeError, body: &[u8]) -> Status {
    match error {
        DecodeError::Type(_) | DecodeError::TooDeep => cannot_be_handled(expected, &error.to_string()),
        DecodeError::Syntax(why) => {
            let why = format!("couldn't get version/kind; json parse error: {why}");
            unrecognized(expected, &why, body)
        }
    }
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
    check_names(api_version, kind, expected)?;
    let (no_version, no_kind) = (api_version.is_empty(), kind.is_empty());
    if no_version {
        map.insert("apiVersion".into(), expected.api_version.into());
    }
    if no_kind {
        map.insert("kind".into(), expected.kind.into());
    }
    Ok(())
}

/// What a body says that it is; empty where it does not say.
fn check_names(api_version: &str, kind: &str, expected: &Expected<'_>) -> Result<(), Status> {
    if !kind.is_empty() && kind != expected.kind {
        let (_, version) = meta::split_api_version(api_version);
        return Err(Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: converting ({api_version}, Kind={kind}) to ({}, Kind={}): unknown conversion",
            expected.kind, expected.api_version, expected.kind,
        )));
    }
    let is_expected = api_version == expected.api_version || expected.alias == Some(api_version);
    if !api_version.is_empty() && !is_expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            expected.api_version
        )));
    }
    Ok(())
}

/// DeleteOptions from a body, if there is one.
pub fn delete_options(call: &Call, body: &[u8]) -> Result<Option<Value>, Status> {
    if body.is_empty() {
        return Ok(None);
    }
    let schema = schema::by_gvk("", "v1", "DeleteOptions");
    let decoded = match body_encoding(&call.headers)? {
        Encoding::Json => codec::json::decode(body, schema, Validation::Ignore),
        Encoding::Yaml => codec::yaml::decode(body, schema, Validation::Ignore),
        Encoding::Protobuf => return protobuf_delete_options(body).map(Some),
    };
    let value = decoded.map_err(|error| Status::bad_request(error.to_string()))?.value;
    if meta::api_version(&value).matches('/').count() > 1 {
        let why = format!("unexpected GroupVersion string: {}", meta::api_version(&value));
        return Err(Status::bad_request(why));
    }
    check_delete_options(meta::kind(&value))?;
    Ok(Some(value))
}

/// They are registered in every group's version: whichever is named, the type is that of v1.
fn protobuf_delete_options(body: &[u8]) -> Result<Value, Status> {
    let failed = |error: ProtobufError| Status::bad_request(error.to_string());
    let mut envelope = Envelope::open(body).map_err(failed)?;
    check_delete_options(&envelope.kind.kind)?;
    envelope.kind = Kind {
        api_version: "v1".into(),
        kind: "DeleteOptions".into(),
    };
    envelope.decode().map_err(failed)
}

fn check_delete_options(kind: &str) -> Result<(), Status> {
    match kind {
        "" | "DeleteOptions" => Ok(()),
        _ => Err(Status::bad_request(
            "decoded object cannot be converted to DeleteOptions",
        )),
    }
}
