//! The options of each verb, as the query (and for delete the body) states them.

use std::num::{IntErrorKind, ParseIntError};

use mk8s_api::selectors::LabelSelector;
use mk8s_api::status::{FieldError, Status};
use mk8s_api::validation::{self, Errors, Path};
use serde_json::Value;

use crate::handlers::patch::PatchType;
use crate::request::{Query, RequestInfo};

/// metav1.ListOptions, checked.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub labels: LabelSelector,
    pub resource_version: String,
    pub version_match: Match,
    pub limit: usize,
    pub continue_token: String,
    pub timeout_seconds: Option<u64>,
    pub allow_bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Match {
    #[default]
    Unset,
    Exact,
    NotOlderThan,
    Other(String),
}

impl Match {
    fn parse(text: &str) -> Match {
        match text {
            "" => Match::Unset,
            "Exact" => Match::Exact,
            "NotOlderThan" => Match::NotOlderThan,
            other => Match::Other(other.to_string()),
        }
    }
}

impl ListOptions {
    /// Those of a list, or of a watch that the query asks for.
    ///
    /// # Errors
    /// 400: what is no number, or no selector, of which fields' are read already; 422: what does not go together.
    pub fn parse(query: &Query, info: &RequestInfo) -> Result<ListOptions, Status> {
        let text = |key: &str| query.get(key).unwrap_or_default().to_string();
        let mut options = ListOptions {
            timeout_seconds: number(query, "timeoutSeconds")?,
            limit: number(query, "limit")?.unwrap_or(0) as usize,
            labels: labels(query)?,
            resource_version: text("resourceVersion"),
            version_match: Match::parse(query.get("resourceVersionMatch").unwrap_or_default()),
            continue_token: text("continue"),
            allow_bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents")),
        };
        if let Some(Err(error)) = &info.fields {
            return Err(Status::bad_request(error.to_string()));
        }
        let problems = if query.flag("watch") {
            options.default_watch();
            options.check_watch()
        } else {
            options.check_list()
        };
        refuse(problems, "ListOptions")?;
        // At any revision all is shown at once: what is at hand, without a look at how much it is.
        if options.resource_version == "0" {
            options.limit = 0;
        }
        Ok(options)
    }

    fn check_list(&self) -> Errors {
        let mut errors = Errors::new();
        let forbid = |why| FieldError::forbidden("resourceVersionMatch", why);
        if self.version_match != Match::Unset {
            if self.resource_version.is_empty() {
                errors.push(forbid(
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if !self.continue_token.is_empty() {
                errors.push(forbid(NOT_WITH_CONTINUE));
            }
        }
        match &self.version_match {
            Match::Other(other) => {
                errors.push(unsupported_match(other, &["Exact", "NotOlderThan", ""]));
            }
            Match::Exact if self.resource_version == "0" => errors.push(forbid(
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            )),
            _ => {}
        }
        if self.send_initial_events.is_some() {
            errors.push(FieldError::forbidden(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            ));
        }
        errors
    }

    /// A watch from any revision begins with what there is.
    fn default_watch(&mut self) {
        let anywhere = matches!(self.resource_version.as_str(), "" | "0");
        if anywhere && self.send_initial_events.is_none() && self.version_match == Match::Unset {
            self.send_initial_events = Some(true);
            self.version_match = Match::NotOlderThan;
        }
    }

    fn check_watch(&self) -> Errors {
        let mut errors = Errors::new();
        let forbid = |why| FieldError::forbidden("resourceVersionMatch", why);
        let initial = self.send_initial_events.is_some();
        if initial && self.version_match != Match::NotOlderThan {
            errors.push(forbid(
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if self.version_match == Match::Unset {
            return errors;
        }
        if !initial {
            errors.push(forbid(
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        match &self.version_match {
            Match::Exact => errors.push(unsupported_match("Exact", &["NotOlderThan"])),
            Match::Other(other) => errors.push(unsupported_match(other, &["NotOlderThan"])),
            _ => {}
        }
        if !self.continue_token.is_empty() {
            errors.push(forbid(NOT_WITH_CONTINUE));
        }
        errors
    }

    /// The revision asked for; None where none (or "0": any) was named.
    pub fn revision(&self) -> Result<Option<u64>, Status> {
        revision(&self.resource_version)
    }
}

const NOT_WITH_CONTINUE: &str = "resourceVersionMatch is forbidden when continue is provided";

fn unsupported_match(value: &str, supported: &[&str]) -> FieldError {
    FieldError::not_supported("resourceVersionMatch", value, supported)
}

/// The revision that a `resourceVersion` names; None where it names none, or "0": any.
pub fn revision(text: &str) -> Result<Option<u64>, Status> {
    if matches!(text, "" | "0") {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: ParseIntError| {
        let why = match error.kind() {
            IntErrorKind::PosOverflow => "value out of range",
            _ => "invalid syntax",
        };
        let error = FieldError::invalid(
            "resourceVersion",
            text,
            format!("strconv.ParseUint: parsing {text:?}: {why}"),
        );
        Status::bad_request(format!("invalid resource version: {}: {}", error.field, error.body()))
    })
}

/// Options that do not hold.
fn refuse(errors: Errors, kind: &str) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("meta.k8s.io", kind, "", &errors))
}

/// A parameter that is a number.
///
/// # Errors
/// 400 in Go's words.
pub fn integer(query: &Query, key: &str) -> Result<Option<i64>, Status> {
    let Some(text) = query.get(key) else {
        return Ok(None);
    };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let why = if is_number {
        "value out of range"
    } else {
        "invalid syntax"
    };
    let failed = |_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"));
    text.parse().map(Some).map_err(failed)
}

fn number(query: &Query, key: &str) -> Result<Option<u64>, Status> {
    Ok(integer(query, key)?.and_then(|number| u64::try_from(number).ok()))
}

fn labels(query: &Query) -> Result<LabelSelector, Status> {
    let text = query.get("labelSelector").filter(|text| !text.is_empty());
    let labels = text.map(LabelSelector::parse).transpose();
    Ok(labels
        .map_err(|error| Status::bad_request(error.to_string()))?
        .unwrap_or_default())
}

/// How unknown and duplicate fields are met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Strict,
    #[default]
    Warn,
    Ignore,
}

/// metav1.CreateOptions, UpdateOptions and PatchOptions.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_validation: FieldValidation,
}

impl WriteOptions {
    pub fn parse(query: &Query, kind: &str) -> Result<WriteOptions, Status> {
        Self::checked(query, kind, Errors::new())
    }

    /// Of a patch: who applies says as whom, and only he may force it.
    pub fn of_patch(query: &Query, patch: PatchType) -> Result<WriteOptions, Status> {
        let applies = patch == PatchType::Apply;
        let error = if applies && query.text("fieldManager").is_none() {
            Some(FieldError::required("fieldManager", "is required for apply patch"))
        } else if !applies && query.get("force").is_some() {
            Some(FieldError::forbidden(
                "force",
                "may not be specified for non-apply patch",
            ))
        } else {
            None
        };
        Self::checked(query, "PatchOptions", error.into_iter().collect())
    }

    fn checked(query: &Query, kind: &str, mut errors: Errors) -> Result<WriteOptions, Status> {
        let manager = query.get("fieldManager").unwrap_or_default();
        validation::manager(manager, &Path::new("fieldManager"), &mut errors);
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        let field_validation = match query.text("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some("Ignore") => FieldValidation::Ignore,
            Some(other) => {
                let supported = &["", "Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported("fieldValidation", other, supported));
                FieldValidation::Warn
            }
        };
        refuse(errors, kind)?;
        Ok(WriteOptions {
            dry_run,
            field_validation,
        })
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Errors) -> bool {
    let values: Vec<&str> = values.collect();
    if values.iter().any(|value| *value != "All") {
        errors.push(FieldError::not_supported("dryRun", serde_json::json!(values), &["All"]));
    }
    !values.is_empty()
}

/// metav1.DeleteOptions.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period: Option<i64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub orphan_dependents: Option<bool>,
    pub propagation: Option<Propagation>,
    pub dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

impl Propagation {
    fn parse(text: &str, errors: &mut Errors) -> Option<Propagation> {
        match text {
            "Orphan" => Some(Propagation::Orphan),
            "Background" => Some(Propagation::Background),
            "Foreground" => Some(Propagation::Foreground),
            other => {
                let known = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported("propagationPolicy", other, &known));
                None
            }
        }
    }
}

impl DeleteOptions {
    /// From the body where there is one, else from the query.
    ///
    /// # Errors
    /// 400: what is no number; 422: what is not known, or does not go together.
    pub fn parse(query: &Query, body: Option<&Value>) -> Result<DeleteOptions, Status> {
        let mut errors = Errors::new();
        let options = match body {
            Some(body) => Self::from_body(body, &mut errors),
            None => Self::from_query(query, &mut errors)?,
        };
        refuse(errors, "DeleteOptions")?;
        Ok(options)
    }

    /// In the order in which what is wrong is told.
    fn checked(orphan: Option<bool>, propagation: Option<&str>, errors: &mut Errors) -> Option<Propagation> {
        let propagation = propagation?;
        if orphan.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid("propagationPolicy", propagation, why));
        }
        Propagation::parse(propagation, errors)
    }

    fn from_query(query: &Query, errors: &mut Errors) -> Result<DeleteOptions, Status> {
        let text = |key: &str| query.text(key).map(str::to_string);
        let orphan_dependents = query.get("orphanDependents").map(|_| query.flag("orphanDependents"));
        Ok(DeleteOptions {
            grace_period: integer(query, "gracePeriodSeconds")?,
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            orphan_dependents,
            propagation: Self::checked(orphan_dependents, query.get("propagationPolicy"), errors),
            dry_run: dry_run(query.all("dryRun"), errors),
        })
    }

    fn from_body(body: &Value, errors: &mut Errors) -> DeleteOptions {
        let precondition = |key: &str| {
            let found = body.get("preconditions").and_then(|all| all.get(key));
            found.and_then(Value::as_str).map(str::to_string)
        };
        let dry = body.get("dryRun").and_then(Value::as_array);
        let dry = dry.into_iter().flatten().filter_map(Value::as_str);
        let orphan_dependents = body.get("orphanDependents").and_then(Value::as_bool);
        let propagation = body.get("propagationPolicy").and_then(Value::as_str);
        DeleteOptions {
            grace_period: body.get("gracePeriodSeconds").and_then(Value::as_i64),
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
            orphan_dependents,
            propagation: Self::checked(orphan_dependents, propagation, errors),
            dry_run: dry_run(dry, errors),
        }
    }
}
