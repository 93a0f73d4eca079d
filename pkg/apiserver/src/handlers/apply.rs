//! Server-side apply: a patch that says what its manager wants of an object, whether it is there or not
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/>).

use std::borrow::Cow;

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use mk8s_api::apply::{
    self, Applied, ApplyError, Configuration, Conflicts, Managed, Operation, Problem, Versions, Writer,
};
use mk8s_api::codec::{self, Decoded, Validation, json, yaml};
use mk8s_api::meta;
use mk8s_api::status::Status;
use serde_json::Value;

use super::answer;
use super::decode::{go_kind, undecoded};
use super::patch::conformed;
use super::update::{check_name, check_revision, may_create};
use crate::call::Call;
use crate::guaranteed_update::{Current, Reads};
use crate::managers::{self, Resourceful};
use crate::negotiate::Encoding;
use crate::options::{FieldValidation, WriteOptions};
use crate::pipeline::{self, Next, Part, Updated};

/// What a request applies.
pub struct Applying {
    pub configuration: Value,
    pub writer: Writer,
    pub force: bool,
    validation: FieldValidation,
    /// Keys that come twice.
    problems: Vec<String>,
}

impl Applying {
    /// Reads a request's body, whose object says that it is what the URL names.
    pub fn read(
        call: &Call,
        api_version: &str,
        kind: &str,
        body: &[u8],
        validation: FieldValidation,
    ) -> Result<Applying, Status> {
        let Decoded { value, problems } = decode(body, validation.into())?;
        let own = gvk(meta::api_version(&value), meta::kind(&value));
        if own != gvk(api_version, kind) {
            return Err(Status::bad_request(format!("invalid object type: {own}")));
        }
        if meta::at(&value, &["metadata", "managedFields"]).is_some_and(Value::is_array) {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        Ok(Applying {
            configuration: value,
            writer: managers::writer(call, api_version, Operation::Apply),
            force: call.query.flag("force"),
            validation,
            problems,
        })
    }

    /// Applies it to what there is, in the version that it is in. A type's empty object stands for what is not there.
    pub fn apply(
        &self,
        before: &Managed,
        live: &Value,
        empty: &Value,
        versions: &dyn Versions,
    ) -> Result<Applied, Status> {
        let (version, configuration) = (&*self.writer.owner.api_version, &self.configuration);
        let node = versions.node(version).ok_or_else(|| untyped(version))?;
        fits("patch", configuration, &apply::check(node, configuration))?;
        // What is there of a built-in kind was decoded by its schema; a custom kind's may have changed, or a webhook made it.
        if node.is_custom() {
            fits("live", live, &apply::check_live(node, live))?;
        }
        let configuration = Configuration {
            before,
            live,
            empty,
            applied: configuration,
            writer: &self.writer,
            force: self.force,
        };
        apply::apply(&configuration, versions).map_err(|error| match error {
            ApplyError::Conflicts(conflicts) => conflict(&conflicts),
            ApplyError::NoSuchVersion => untyped(version),
            other => Status::new(500, "", other.to_string()),
        })
    }

    /// What strict decoding has against the body, once it was applied.
    pub fn note_problems(&self, warnings: &mut Vec<String>) -> Result<(), Status> {
        match self.validation {
            FieldValidation::Strict if !self.problems.is_empty() => {
                let problems = self.problems.join(", ");
                let text = format!("error strict decoding YAML: error converting YAML to JSON: {problems}");
                Err(Status::bad_request(text))
            }
            FieldValidation::Warn => {
                warnings.extend(self.problems.iter().cloned());
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// A body that is an object; none at all is an empty one.
fn decode(body: &[u8], validation: Validation) -> Result<Decoded, Status> {
    let decoded = match body.trim_ascii_start().first() {
        None => Ok(Decoded {
            value: Value::Object(serde_json::Map::new()),
            problems: Vec::new(),
        }),
        // Most of them are JSON, which is YAML too.
        Some(b'{') => match json::decode(body, None, validation) {
            Ok(decoded) if decoded.problems.is_empty() => Ok(decoded),
            _ => yaml::decode(body, None, validation),
        },
        Some(_) => yaml::decode(body, None, validation),
    };
    let why = |error| {
        let encoding = match body.trim_ascii_start().starts_with(b"{") {
            true => Encoding::Json,
            false => Encoding::Yaml,
        };
        let why = undecoded(error, encoding, "");
        Status::bad_request(format!("error decoding YAML: error converting YAML to JSON: {why}"))
    };
    let decoded = decoded.map_err(why)?;
    if decoded.value.is_object() {
        return Ok(decoded);
    }
    let found = go_kind(&decoded.value);
    Err(Status::bad_request(format!(
        "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
    )))
}

/// `apps/v1, Kind=Deployment`
fn gvk(api_version: &str, kind: &str) -> String {
    let (group, version) = meta::split_api_version(api_version);
    format!("{group}/{version}, Kind={kind}")
}

/// What is to be compared can only be where it is what its schema says.
fn fits(which: &str, object: &Value, problems: &[Problem]) -> Result<(), Status> {
    if problems.is_empty() {
        return Ok(());
    }
    let (namespace, name) = (meta::namespace(object), meta::name(object));
    let what = gvk(meta::api_version(object), meta::kind(object));
    let told = apply::told(problems);
    let text = format!("failed to create typed {which} object ({namespace}/{name}; {what}): {told}");
    Err(Status::new(500, "", text))
}

fn untyped(version: &str) -> Status {
    Status::internal(format!("objects of {version} have no schema to apply by"))
}

fn conflict(conflicts: &Conflicts) -> Status {
    let causes = conflicts.told().into_iter().map(|conflict| {
        serde_json::json!({
            "reason": "FieldManagerConflict",
            "message": format!("conflict with {}", conflict.manager),
            "field": conflict.field,
        })
    });
    let mut status = Status::new(409, "Conflict", conflicts.to_string());
    status.details = Some(serde_json::json!({"causes": causes.collect::<Vec<_>>()}));
    status
}

/// What was applied fits its schema, and makes no object all the same: a value is none of its field's type.
fn unconverted(call: &Call, configuration: &Value, why: &str) -> Status {
    let (namespace, name) = (meta::namespace(configuration), meta::name(configuration));
    let what = gvk(&call.row.api_version, call.row.kind());
    let text = format!(
        "failed to convert new object ({namespace}/{name}; {what}) to proper version: unable to convert unstructured object to {what}: {why}"
    );
    Status::new(500, "", text)
}

/// Applies to the object, or through a subresource.
pub async fn apply_part(call: &Call, body: Bytes, options: WriteOptions, part: Part) -> Result<Response<Body>, Status> {
    let applying = Applying::read(
        call,
        &call.row.api_version,
        call.row.kind(),
        &body,
        options.field_validation,
    )?;
    let mut warnings = Vec::new();
    let updated = pipeline::update(call, part, Reads::Whole, options, &mut warnings, |current, warnings| {
        applied(call, part, &applying, current, options, warnings)
    });
    let updated = updated.await.map_err(|status| status.warned(&warnings))?;
    let Updated { written, created } = updated;
    let code = if created { StatusCode::CREATED } else { StatusCode::OK };
    answer(call, code, written, &warnings).await
}

/// What is to be stored in place of what is.
fn applied(
    call: &Call,
    part: Part,
    applying: &Applying,
    current: &Current,
    options: WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Next, Status> {
    if current.object.is_none() && part != Part::Main {
        return Err(call.not_found());
    }
    let empty = call.row.empty().ok_or_else(|| untyped(&call.row.api_version))?;
    let live = match &current.object {
        Some(_) => managers::view(&call.row, &current.value),
        None => Cow::Borrowed(empty),
    };
    let Applied { object, managed } = applying.apply(current.managed(), &live, empty, &Resourceful::of(call))?;
    applying.note_problems(warnings)?;
    let mut new = match object {
        Some(object) => {
            let refused = |why: String| unconverted(call, &applying.configuration, &why);
            conformed(&call.row, object, codec::convert, &[], refused, options, warnings)?
        }
        None => live.into_owned(),
    };
    if current.object.is_none() {
        begin(call, &mut new)?;
    }
    check_name(call, &new)?;
    call.row.to_stored(&mut new);
    if current.object.is_some() {
        check_revision(call, &new, current)?;
    }
    Ok(Next {
        object: new,
        owned: Some(managed),
    })
}

/// What is not there yet is created by those who may, under the name on the URL.
fn begin(call: &Call, new: &mut Value) -> Result<(), Status> {
    let name = call.info.path_name();
    let uid = meta::uid(new);
    if !uid.is_empty() {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(Status::conflict(call.row.group(), call.row.plural(), name, &why));
    }
    if meta::name(new).is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    meta::remove(new, &["metadata", "resourceVersion"]);
    may_create(call, new)
}
