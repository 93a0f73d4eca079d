//! `metav1.Status` and field errors: how every refusal reaches a client
//! (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/>).

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::bounded::{MOST_FINDINGS, MOST_WORDS};
use crate::codec::json;
pub use crate::errors::Findings;
use crate::float;
use crate::go_form;
use crate::quote::quoted;

/// Upstream's field error types, with the words clients compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    TypeInvalid,
    Internal,
}

impl ErrorKind {
    /// The cause's `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "FieldValueNotFound",
            ErrorKind::Required => "FieldValueRequired",
            ErrorKind::Duplicate => "FieldValueDuplicate",
            ErrorKind::Invalid => "FieldValueInvalid",
            ErrorKind::NotSupported => "FieldValueNotSupported",
            ErrorKind::Forbidden => "FieldValueForbidden",
            ErrorKind::TooLong => "FieldValueTooLong",
            ErrorKind::TooMany => "FieldValueTooMany",
            ErrorKind::TypeInvalid => "FieldValueTypeInvalid",
            ErrorKind::Internal => "InternalError",
        }
    }

    fn words(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "Not found",
            ErrorKind::Required => "Required value",
            ErrorKind::Duplicate => "Duplicate value",
            ErrorKind::Invalid | ErrorKind::TypeInvalid => "Invalid value",
            ErrorKind::NotSupported => "Unsupported value",
            ErrorKind::Forbidden => "Forbidden",
            ErrorKind::TooLong => "Too long",
            ErrorKind::TooMany => "Too many",
            ErrorKind::Internal => "Internal error",
        }
    }
}

/// One cause of a 422: a field path, what is wrong with it and the offending value.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub kind: ErrorKind,
    pub field: String,
    /// Printed for Invalid, NotSupported, Duplicate, NotFound.
    pub value: Option<Value>,
    pub detail: String,
}

impl FieldError {
    fn with(kind: ErrorKind, field: impl Into<String>, value: Option<Value>, detail: impl Into<String>) -> Self {
        FieldError {
            kind,
            field: field.into(),
            value,
            detail: detail.into(),
        }
    }

    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::with(ErrorKind::Invalid, field, Some(value.into()), detail)
    }

    /// Invalid, without what it is.
    pub fn invalid_unshown(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::with(ErrorKind::Invalid, field, None, detail)
    }

    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::with(ErrorKind::Required, field, None, detail)
    }

    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::with(ErrorKind::Forbidden, field, None, detail)
    }

    pub fn internal(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::with(ErrorKind::Internal, field, None, detail)
    }

    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::with(ErrorKind::Duplicate, field, Some(value.into()), "")
    }

    pub fn not_found(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::with(ErrorKind::NotFound, field, Some(value.into()), "")
    }

    /// `supported values: "A", "B"`, in the order given (upstream sorts some lists and not others).
    pub fn not_supported(field: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let detail = if supported.is_empty() {
            String::new()
        } else {
            let quoted: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        Self::with(ErrorKind::NotSupported, field, Some(value.into()), detail)
    }

    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        Self::with(
            ErrorKind::TooLong,
            field,
            None,
            format!("may not be more than {max} byte{}", plural(max)),
        )
    }

    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        let _ = actual;
        Self::with(
            ErrorKind::TooMany,
            field,
            Some(actual.into()),
            format!("must have at most {max} item{}", plural(max)),
        )
    }

    /// The cause's message, without the field: `Invalid value: "x": must be …`.
    pub fn body(&self) -> String {
        self.body_with(None)
    }

    /// With its value as it is shown, where that is not as it was sent.
    fn body_with(&self, shown: Option<&str>) -> String {
        let mut text = String::from(self.kind.words());
        let shows_value = !matches!(
            self.kind,
            ErrorKind::Required | ErrorKind::Forbidden | ErrorKind::TooLong | ErrorKind::Internal
        );
        if let (true, Some(value)) = (shows_value, &self.value) {
            text.push_str(": ");
            match value {
                _ if shown.is_some() => text.push_str(shown.unwrap_or_default()),
                Value::String(string) => text.push_str(&quoted(string)),
                Value::Number(number) if number.is_f64() => {
                    text.push_str(&float::plain(number.as_f64().unwrap_or_default()));
                }
                other => {
                    let mut printed = Vec::new();
                    json::print(other, &mut printed);
                    text.push_str(&String::from_utf8_lossy(&printed));
                }
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// A refusal (or, rarely, a success) as the API shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Value>,
    /// `Retry-After`, seconds.
    pub retry_after: Option<u32>,
    /// How to go on with a list whose own token expired.
    pub continue_token: Option<String>,
    /// What is warned of all the same.
    pub warnings: Option<Box<Vec<String>>>,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

/// Several errors in one text, each once, as upstream tells of them.
pub fn told(errors: &[FieldError]) -> String {
    aggregate(errors.iter().map(ToString::to_string).collect())
}

fn aggregate(mut texts: Vec<String>) -> String {
    let mut seen = HashSet::new();
    texts.retain(|text| seen.insert(text.clone()));
    match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

impl Status {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Status {
            code,
            reason,
            message: message.into(),
            details: None,
            retry_after: None,
            continue_token: None,
            warnings: None,
        }
    }

    /// The same, with what was warned of before it came to this.
    #[must_use]
    pub fn warned(mut self, warnings: &[String]) -> Self {
        if !warnings.is_empty() {
            self.warnings.get_or_insert_default().extend_from_slice(warnings);
        }
        self
    }

    fn named(code: u16, reason: &'static str, group: &str, resource: &str, name: &str, message: String) -> Self {
        let mut details = Map::new();
        details.insert("name".into(), name.into());
        if !group.is_empty() {
            details.insert("group".into(), group.into());
        }
        details.insert("kind".into(), resource.into());
        details.retain(|_, value| value.as_str() != Some(""));
        Status {
            details: Some(Value::Object(details)),
            ..Status::new(code, reason, message)
        }
    }

    /// `pods "x" not found`
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, resource));
        Self::named(404, "NotFound", group, resource, name, message)
    }

    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(group, resource));
        Self::named(409, "AlreadyExists", group, resource, name, message)
    }

    /// `Operation cannot be fulfilled on pods "x": {why}`
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            qualified(group, resource)
        );
        Self::named(409, "Conflict", group, resource, name, message)
    }

    /// `pods "x" is forbidden: {why}`; without a name `pods is forbidden: {why}`.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let resource_name = qualified(group, resource);
        let message = match (resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource_name} is forbidden: {why}"),
            (false, false) => format!("{resource_name} {name:?} is forbidden: {why}"),
        };
        Self::named(403, "Forbidden", group, resource, name, message)
    }

    /// 422 with one cause per error: `Pod "x" is invalid: …`.
    pub fn invalid<'a>(group: &str, kind: &str, name: &str, errors: impl Into<Findings<'a>>) -> Self {
        Self::of_findings(group, kind, name, errors.into())
    }

    fn of_findings(group: &str, kind: &str, name: &str, errors: Findings<'_>) -> Self {
        let (mut texts, mut causes, mut length) = (Vec::new(), Vec::new(), 0);
        for error in errors.kept.iter().take(MOST_FINDINGS) {
            if length > MOST_WORDS {
                break;
            }
            let value = error.value.as_ref();
            let shown = value.and_then(|value| go_form::shown(group, kind, &error.field, value));
            let body = error.body_with(shown.as_deref());
            let text = format!("{}: {body}", error.field);
            length += text.len();
            texts.push(text);
            causes.push(json!({"reason": error.kind.reason(), "message": body, "field": error.field}));
        }
        let rest = errors.kept.len() - texts.len() + errors.left_out;
        if rest > 0 {
            texts.push(format!("and {rest} more"));
        }
        let list = aggregate(texts);
        let message = format!("{} {name:?} is invalid: {list}", qualified(group, kind));
        let mut status = Self::named(422, "Invalid", group, kind, name, message);
        if let Some(Value::Object(details)) = &mut status.details {
            details.insert("causes".into(), causes.into());
        }
        status
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Status::new(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Status::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Status::new(405, "MethodNotAllowed", message)
    }

    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Status::new(406, "NotAcceptable", message)
    }

    pub fn expired(message: impl Into<String>) -> Self {
        Status::new(410, "Expired", message)
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Status::new(413, "RequestEntityTooLarge", message)
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Status::new(415, "UnsupportedMediaType", message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after: u32) -> Self {
        let mut status = Status::new(429, "TooManyRequests", message);
        status.details = Some(json!({"retryAfterSeconds": retry_after}));
        status.retry_after = Some(retry_after);
        status
    }

    pub fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        let mut status = Status::new(500, "InternalError", format!("Internal error occurred: {message}"));
        status.details = Some(json!({"causes": [{"message": message}]}));
        status
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Status::new(503, "ServiceUnavailable", message)
    }

    pub fn timeout(message: impl Into<String>) -> Self {
        Status::new(504, "Timeout", message)
    }

    /// The object clients receive.
    pub fn to_value(&self) -> Value {
        let failure = self.code >= 400;
        let mut object = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": if failure { "Failure" } else { "Success" },
            "code": self.code,
        });
        if let Value::Object(map) = &mut object {
            if !self.message.is_empty() {
                map.insert("message".into(), self.message.clone().into());
            }
            if !self.reason.is_empty() {
                map.insert("reason".into(), self.reason.into());
            }
            if let Some(token) = &self.continue_token {
                map.insert("metadata".into(), json!({"continue": token}));
            }
            if let Some(details) = &self.details {
                map.insert("details".into(), details.clone());
            }
        }
        object
    }
}

/// `deployments.apps`, `pods`
pub fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_string()
    } else {
        format!("{resource}.{group}")
    }
}
