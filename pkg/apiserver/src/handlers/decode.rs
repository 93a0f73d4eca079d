//! A request's body: decoded once, and checked for being what the URL says.

use std::borrow::Cow;

use mk8s_api::codec::protobuf::{Envelope, Kind, MAGIC, ProtobufError};
use mk8s_api::codec::{self, DecodeError, Decoded, Validation};
use mk8s_api::meta;
use mk8s_api::schema::{self, Schema};
use mk8s_api::status::{FieldError, Status};
use serde_json::Value;

use crate::call::Call;
use crate::negotiate::{Encoding, body_encoding};
use crate::options::{FieldValidation, WriteOptions};
use crate::rows::Row;

/// How much is told of a body without a kind, or of what a webhook says, which upstream bounds by nothing.
const SHOWN: usize = 64 << 10;

impl From<FieldValidation> for Validation {
    fn from(own: FieldValidation) -> Validation {
        match own {
            FieldValidation::Strict => Validation::Strict,
            FieldValidation::Warn => Validation::Warn,
            FieldValidation::Ignore => Validation::Ignore,
        }
    }
}

/// Where a text does not say what it is.
pub const NO_KIND: &str = "couldn't get version/kind; json parse error";
/// Of what should be a group and a version.
pub const NO_GROUP_VERSION: &str = "unexpected GroupVersion string";

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
    match expected.row {
        Some(row) if row.served().custom.is_some() => check_custom(&value, row, expected, body)?,
        _ => check_kind(&mut value, expected, body)?,
    }
    if let Some(row) = expected.row {
        let more = row.admit(&mut value);
        problems.extend(more.map_err(|error| cannot_be_handled(expected, &error.to_string()))?);
        if row.schema.is_none() {
            problems.sort_by_key(|problem| !problem.starts_with("duplicate"));
        }
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
    let read = |body: &[u8]| match encoding {
        Encoding::Yaml => codec::yaml::decode(body, expected.schema, validation.into()),
        _ => codec::json::decode(body, expected.schema, validation.into()),
    };
    if encoding == Encoding::Protobuf {
        return protobuf(body, expected);
    }
    match read(body) {
        // Nothing at all is an object without fields.
        Ok(decoded) if decoded.value.is_null() => read(b"{}").map_err(|error| failed(encoding, expected, error, body)),
        Ok(decoded) => Ok(decoded),
        Err(error) => Err(failed(encoding, expected, error, body)),
    }
}

/// A body in protobuf, whose bytes are read as whatever kind they name: what is no object of the expected kind is refused
/// before that.
fn protobuf(body: &[u8], expected: &Expected<'_>) -> Result<Decoded, Status> {
    let none = match body {
        b"" => Some("empty data"),
        _ if body == MAGIC => Some("empty body"),
        _ => None,
    };
    if let Some(why) = none {
        return Err(unrecognized(expected, why, body));
    }
    let mut envelope = Envelope::open(body).map_err(|error| unrecognized(expected, &error.to_string(), body))?;
    let Kind { api_version, kind } = &mut envelope.kind;
    check_names(api_version, kind, expected, body)?;
    *api_version = expected.api_version.into();
    *kind = expected.kind.into();
    Ok(Decoded {
        value: envelope
            .decode()
            .map_err(|error| cannot_be_handled(expected, &DecodeError::from(error).to_string()))?,
        problems: Vec::new(),
    })
}

/// Why a text is no object of the expected kind: the text's own faults first, then what it says that it is.
fn failed(encoding: Encoding, expected: &Expected<'_>, error: DecodeError, body: &[u8]) -> Status {
    match error {
        DecodeError::Syntax(why) if encoding == Encoding::Yaml => unrecognized(expected, &why, body),
        DecodeError::Syntax(why) => unrecognized(expected, &format!("{NO_KIND}: {why}"), body),
        DecodeError::TooDeep => cannot_be_handled(expected, &undecoded(error, encoding, expected.kind)),
        DecodeError::Type(why) => match what_it_says(encoding, body) {
            Err(why) => unrecognized(expected, &format!("{NO_KIND}: {why}"), body),
            Ok((api_version, kind)) => match check_names(&api_version, &kind, expected, body) {
                Err(other) => other,
                // A custom object's metadata is read by itself.
                Ok(()) if expected.row.is_some_and(|row| row.schema.is_none()) => {
                    cannot_be_handled(expected, &why.replace("ObjectMeta.metadata.", "ObjectMeta."))
                }
                Ok(()) => cannot_be_handled(expected, &why),
            },
        },
    }
}

/// Why a text is no object, and how deep one may be; who writes a definition thinks of its schema's levels.
pub fn undecoded(error: DecodeError, encoding: Encoding, kind: &str) -> String {
    if error != DecodeError::TooDeep {
        return error.to_string();
    }
    let levels = match encoding {
        Encoding::Yaml => codec::yaml::MAX_LEVELS,
        _ => usize::from(codec::MAX_DEPTH),
    };
    let of_schema = match kind {
        "CustomResourceDefinition" => ", of which each level of a schema takes two",
        _ => "",
    };
    format!("the object nests deeper than {levels} levels{of_schema}")
}

/// The version and kind that a text names, or why Go finds neither.
fn what_it_says(encoding: Encoding, body: &[u8]) -> Result<(String, String), String> {
    let decoded = match encoding {
        Encoding::Yaml => codec::yaml::decode(body, None, Validation::Ignore),
        _ => codec::json::decode(body, None, Validation::Ignore),
    };
    let value = decoded.map_err(|error| undecoded(error, encoding, ""))?.value;
    names(&value).map(|(api_version, kind)| (api_version.to_string(), kind.to_string()))
}

/// The version and kind that a tree names, empty where it names none; or why Go finds neither.
pub fn names(value: &Value) -> Result<(&str, &str), String> {
    let Value::Object(fields) = value else {
        return Err(no_object(value));
    };
    let text = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => {
            let found = go_kind(other);
            Err(format!(
                "json: cannot unmarshal {found} into Go struct field .{name} of type string"
            ))
        }
    };
    Ok((text("apiVersion")?, text("kind")?))
}

/// Why a value names no kind: it is no object.
pub fn no_object(value: &Value) -> String {
    const LOOKED_FOR: &str =
        r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let found = go_kind(value);
    format!("json: cannot unmarshal {found} into Go value of type {LOOKED_FOR}")
}

/// What Go's reader calls a value.
pub fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn unrecognized(expected: &Expected<'_>, why: &str, body: &[u8]) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({})",
        expected.kind,
        summary(body)
    ))
}

/// The beginning of a body: as text where it may be JSON.
fn summary(body: &[u8]) -> String {
    const LENGTH: usize = 30;
    let shown = &body[..body.len().min(LENGTH)];
    let dots = if body.len() > LENGTH { " ..." } else { "" };
    match shown {
        b"" => "<empty>".into(),
        [b'{', ..] => format!("{}{dots}", String::from_utf8_lossy(shown)),
        _ => {
            let hex: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex}{dots}")
        }
    }
}

/// A custom object is whatever it says, and then not what is wanted.
pub fn another_kind(row: &Row, kind: &str, name: &str) -> Status {
    let error = FieldError::invalid("kind", kind, format!("must be {}", row.kind()));
    Status::invalid(row.group(), kind, name, &[error])
}

/// The version and kind that a custom object names; in doubt its text is shown.
///
/// # Errors
/// Why it names none, in upstream's words.
pub fn names_of_custom<'v, 't>(
    value: &'v Value,
    text: impl FnOnce() -> Cow<'t, [u8]>,
) -> Result<(&'v str, &'v str), String> {
    let (api_version, kind) = names(value).map_err(|why| format!("{NO_KIND}: {why}"))?;
    if kind.is_empty() {
        return Err(missing("Kind", &text()));
    }
    if api_version.matches('/').count() > 1 {
        return Err(format!("{NO_GROUP_VERSION}: {api_version}"));
    }
    Ok((api_version, kind))
}

/// What a custom object has to say of itself, which nobody fills in.
fn check_custom(value: &Value, row: &Row, expected: &Expected<'_>, body: &[u8]) -> Result<(), Status> {
    let said = names_of_custom(value, || body.into());
    let (api_version, kind) = said.map_err(|why| unrecognized(expected, &why, body))?;
    check_names(api_version, row.kind(), expected, body)?;
    if api_version.is_empty() {
        return Err(other_version("", expected));
    }
    if kind != row.kind() {
        return Err(another_kind(row, kind, meta::name(value)));
    }
    Ok(())
}

/// An absent kind or apiVersion is filled in; another one is refused.
fn check_kind(value: &mut Value, expected: &Expected<'_>, body: &[u8]) -> Result<(), Status> {
    let Value::Object(map) = value else {
        return Err(unrecognized(expected, "couldn't get version/kind: not an object", b""));
    };
    let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    check_names(api_version, kind, expected, body)?;
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
fn check_names(api_version: &str, kind: &str, expected: &Expected<'_>, body: &[u8]) -> Result<(), Status> {
    let names_kind = kind.is_empty() || kind == expected.kind;
    let names_version =
        api_version.is_empty() || api_version == expected.api_version || expected.alias == Some(api_version);
    if names_kind && names_version {
        return Ok(());
    }
    if api_version.matches('/').count() > 1 {
        let why = format!("{NO_GROUP_VERSION}: {api_version}");
        return Err(unrecognized(expected, &why, body));
    }
    let said = (
        if api_version.is_empty() {
            expected.api_version
        } else {
            api_version
        },
        if kind.is_empty() { expected.kind } else { kind },
    );
    Err(other_kind(said, expected))
}

/// Of a text that does not say what it has to of itself.
pub fn missing(field: &str, text: &[u8]) -> String {
    format!("Object '{field}' is missing in '{}'", shown(text))
}

/// As much of a text as is told.
pub fn shown(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&text[..text.len().min(SHOWN)])
}

/// Of a kind that upstream's scheme lacks in what is named, a version.
pub fn unregistered(kind: &str, within: &str) -> String {
    format!("no kind {kind:?} is registered for {within} in scheme \"pkg/runtime/scheme.go:111\"")
}

/// Of an object of another version or kind.
fn other_kind((api_version, kind): (&str, &str), expected: &Expected<'_>) -> Status {
    let (group, version) = meta::split_api_version(api_version);
    let no_object = |why: &str| {
        Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: {why}",
            expected.kind
        ))
    };
    // The words of a scheme, which knows built-in kinds alone.
    let built_in = expected.row.is_none_or(|row| row.schema.is_some());
    if built_in && schema::by_gvk(group, version, kind).is_none() {
        return no_object(&unregistered(kind, &format!("version {api_version:?}")));
    }
    if kind == expected.kind {
        return other_version(api_version, expected);
    }
    let own = match expected.row {
        Some(row) if built_in => row.resource.go_type(expected.kind),
        _ => format!("{}, Kind={}", expected.api_version, expected.kind),
    };
    let own = own.trim_start_matches('*');
    let said = if built_in {
        format!("{version}.{kind}")
    } else {
        format!("{api_version}, Kind={kind}")
    };
    no_object(&format!("converting ({said}) to ({own}): unknown conversion"))
}

fn other_version(api_version: &str, expected: &Expected<'_>) -> Status {
    Status::bad_request(format!(
        "the API version in the data ({api_version}) does not match the expected API version ({})",
        expected.api_version
    ))
}

/// DeleteOptions from a body, if there is one.
pub fn delete_options(call: &Call, body: &[u8]) -> Result<Option<Value>, Status> {
    if body.is_empty() {
        return Ok(None);
    }
    let schema = schema::by_gvk("", "v1", "DeleteOptions");
    let encoding = body_encoding(&call.headers)?;
    let decoded = match encoding {
        Encoding::Json => codec::json::decode(body, schema, Validation::Ignore),
        Encoding::Yaml => codec::yaml::decode(body, schema, Validation::Ignore),
        Encoding::Protobuf => return protobuf_delete_options(body).map(Some),
    };
    let value = match decoded {
        Ok(decoded) => decoded.value,
        Err(DecodeError::Syntax(why)) if encoding == Encoding::Json => {
            return Err(Status::bad_request(format!("{NO_KIND}: {why}")));
        }
        Err(DecodeError::Type(why)) => {
            // What it says that it is comes first.
            let said = what_it_says(encoding, body);
            let (api_version, kind) = said.map_err(|why| Status::bad_request(format!("{NO_KIND}: {why}")))?;
            check_delete_options(&api_version, &kind, body)?;
            return Err(Status::bad_request(why));
        }
        Err(error) => return Err(Status::bad_request(error.to_string())),
    };
    check_delete_options(meta::api_version(&value), meta::kind(&value), body)?;
    Ok(Some(value))
}

/// They are registered in every group's version: whichever is named, the type is that of v1.
fn protobuf_delete_options(body: &[u8]) -> Result<Value, Status> {
    let failed = |error: ProtobufError| Status::bad_request(error.to_string());
    let mut envelope = Envelope::open(body).map_err(failed)?;
    check_delete_options(&envelope.kind.api_version, &envelope.kind.kind, body)?;
    envelope.kind = Kind {
        api_version: "v1".into(),
        kind: "DeleteOptions".into(),
    };
    envelope.decode().map_err(failed)
}

/// Kinds that deletes know beside DeleteOptions, in every version or in the metadata's own alone, and take none of.
const KNOWN: [&str; 7] = [
    "CreateOptions",
    "UpdateOptions",
    "Status",
    "APIGroup",
    "APIGroupList",
    "APIResourceList",
    "APIVersions",
];
const KNOWN_OF_METADATA: [&str; 8] = [
    "ListOptions",
    "GetOptions",
    "PatchOptions",
    "WatchEvent",
    "Table",
    "TableOptions",
    "PartialObjectMetadata",
    "PartialObjectMetadataList",
];

fn check_delete_options(api_version: &str, kind: &str, body: &[u8]) -> Result<(), Status> {
    const METADATA: &str = "meta.k8s.io/v1";
    let api_version = match api_version.strip_prefix('/').unwrap_or(api_version) {
        "" => METADATA,
        said => said,
    };
    let why = if api_version.matches('/').count() > 1 {
        format!("{NO_GROUP_VERSION}: {api_version}")
    } else if api_version.ends_with('/') {
        missing("apiVersion", body)
    } else if matches!(kind, "" | "DeleteOptions") {
        return Ok(());
    } else if KNOWN.contains(&kind) || api_version == METADATA && KNOWN_OF_METADATA.contains(&kind) {
        format!("converting (v1.{kind}) to (v1.DeleteOptions): unknown conversion")
    } else {
        unregistered(kind, &format!("version {api_version:?}"))
    };
    Err(Status::bad_request(why))
}
