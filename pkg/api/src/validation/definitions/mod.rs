//! CustomResourceDefinitions. Upstream checks a form of them in which what all versions have in common stands at the top
//! (`spec.validation`), and names fields by that form: so does this.

mod asked;
mod conversion;
mod open_api;
mod parts;
mod root;
mod structural;

use std::collections::HashSet;

use serde_json::Value;

pub use self::asked::definition_warnings;
use self::asked::{Asked, has_defaults};
use self::parts::{MOST_SELECTABLE, check_names, columns, selectable_fields, subresources};
pub use self::structural::holds as is_structural;
use super::{Errors, IMMUTABLE, Path, each, flag, has, list, strings, text};
use crate::bounded::MOST_FINDINGS;
use crate::meta;
use crate::names;
use crate::registry::{Served, checking};
use crate::schema::custom::{self, CompileError};
use crate::status::FieldError;

const SPEC: Path<'static> = Path::new("spec");
const APPROVED: &str = "api-approved.kubernetes.io";

/// A definition that is created or changed, as it is stored; `sent` is the version in which it came.
pub fn custom_resource_definition(sent: &Served, new: &Value, old: Option<&Value>, errors: &mut Errors) {
    if old.is_none() {
        check_name(new, errors);
    }
    let spec = has(new, "spec").unwrap_or(&Value::Null);
    let start = errors.len();
    let asked = Asked::of(sent, old);
    check_spec(spec, &asked, errors);
    if old.is_some() && errors.len() > start {
        errors.truncate(start);
        check_spec(spec, &asked.but_for_old(), errors);
    }
    if let Some(old) = old {
        check_change(new, old, errors);
    }
    custom_resource_definition_status(new, &Value::Null, errors);
    stored_versions(spec, has(new, "status").unwrap_or(&Value::Null), errors);
    if sent.name != "v1" {
        return;
    }
    if old.is_none_or(|old| approval_of(new) != approval_of(old)) {
        approval(new, errors);
    }
    if !old.is_some_and(|old| flag(&old["spec"], "preserveUnknownFields")) {
        pruning(new, errors);
    }
}

/// What is not structural of a stored definition (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>),
/// in its own version's paths.
pub fn non_structural(definition: &Value) -> Errors {
    let (spec, mut errors) = (&definition["spec"], Errors::new());
    if flag(spec, "preserveUnknownFields") {
        errors.push(FieldError::invalid(
            SPEC.child("preserveUnknownFields"),
            true,
            "must be false",
        ));
    }
    let versions = SPEC.child("versions");
    for (index, version) in each(spec, "versions") {
        if let Some(schema) = meta::at(version, &["schema", "openAPIV3Schema"]) {
            let at = versions.index(index);
            errors.append(&mut structural::check(
                schema,
                &at.child("schema").child("openAPIV3Schema"),
            ));
        }
    }
    errors
}

fn check_name(definition: &Value, errors: &mut Errors) {
    let name = meta::string(definition, &["metadata", "name"]);
    let (plural, group) = (
        meta::string(definition, &["spec", "names", "plural"]),
        meta::string(definition, &["spec", "group"]),
    );
    if !name.is_empty() && name != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        // Beside what else is wrong with it, before all others.
        let at = errors.iter().take_while(|error| error.field == "metadata.name").count();
        errors.insert(at, FieldError::invalid("metadata.name", name, why));
    }
}

fn pruning(definition: &Value, errors: &mut Errors) {
    if flag(&definition["spec"], "preserveUnknownFields") {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid(SPEC.child("preserveUnknownFields"), true, why));
    }
}

fn is_established(definition: &Value) -> bool {
    meta::condition_is_true(definition, "Established")
}

/// What a change may not change.
fn check_change(new: &Value, old: &Value, errors: &mut Errors) {
    let always: &[&[&str]] = &[&["group"], &["names", "plural"]];
    let once: &[&[&str]] = if is_established(old) {
        &[&["scope"], &["names", "kind"]]
    } else {
        &[]
    };
    for at in once.iter().chain(always) {
        let (now, before) = (meta::at(&new["spec"], at), meta::at(&old["spec"], at));
        if now != before {
            let path = format!("spec.{}", at.join("."));
            errors.push(FieldError::invalid(path, now.cloned().unwrap_or_default(), IMMUTABLE));
        }
    }
}

/// The status, through its subresource.
pub fn custom_resource_definition_status(new: &Value, _: &Value, errors: &mut Errors) {
    if let Some(accepted) = meta::at(new, &["status", "acceptedNames"]) {
        check_names(accepted, &Path::new("status").child("acceptedNames"), errors);
    }
}

/// What every version has, or else each of them has of its own.
enum Common<'v> {
    All(Option<&'v Value>),
    Each,
}

fn common<'v>(spec: &'v Value, key: &str) -> Common<'v> {
    let mut versions = list(spec, "versions").iter().map(|version| has(version, key));
    let Some(first) = versions.next() else {
        return Common::All(None);
    };
    if versions.all(|other| other == first) {
        Common::All(first)
    } else {
        Common::Each
    }
}

/// The parts that versions do not have in common.
fn differing(spec: &Value) -> Vec<&'static str> {
    let parts = [
        "schema",
        "subresources",
        "additionalPrinterColumns",
        "selectableFields",
        "deprecationWarning",
    ];
    let mut differing = Vec::from(parts);
    differing.retain(|key| matches!(common(spec, key), Common::Each));
    differing
}

/// A part that all versions share, at the top; a part of one version, at that.
fn each_part<'v>(spec: &'v Value, key: &str, at: &str, mut check: impl FnMut(Option<usize>, &'v Value, &Path<'_>)) {
    match common(spec, key) {
        Common::All(Some(shared)) => check(None, shared, &SPEC.child(at)),
        Common::All(None) => {}
        Common::Each => {
            let versions = SPEC.child("versions");
            for (index, version) in each(spec, "versions") {
                if let Some(own) = has(version, key) {
                    check(Some(index), own, &versions.index(index).child(key));
                }
            }
        }
    }
}

fn check_spec(spec: &Value, asked: &Asked<'_>, errors: &mut Errors) {
    let group = text(spec, "group");
    let wrong = names::dns_subdomain(group);
    match group {
        "" => errors.push(FieldError::required(SPEC.child("group"), "")),
        group if !wrong.is_empty() => errors.push(FieldError::invalid(SPEC.child("group"), group, wrong.join(","))),
        group if !group.contains('.') => {
            let why = "should be a domain with at least one dot";
            errors.push(FieldError::invalid(SPEC.child("group"), group, why));
        }
        _ => {}
    }
    one_of(spec, "scope", &["Cluster", "Namespaced"], &SPEC, errors);
    check_versions(spec, asked, errors);
    let (own, at) = (has(spec, "names").unwrap_or(&Value::Null), SPEC.child("names"));
    for key in ["plural", "singular", "kind", "listKind"] {
        if text(own, key).is_empty() {
            errors.push(FieldError::required(at.child(key), ""));
        }
    }
    check_names(own, &at, errors);
    if let Common::All(Some(_)) = common(spec, "schema") {
        each_part(spec, "schema", "validation", |at, schema, path| {
            check_schema(spec, at, schema, asked, path, errors)
        });
    }
    if let Common::All(Some(_)) = common(spec, "subresources") {
        each_part(spec, "subresources", "subresources", |_, own, path| {
            subresources(own, path, errors)
        });
    }
    if let Common::All(Some(own)) = common(spec, "additionalPrinterColumns") {
        columns(own, &SPEC.child("additionalPrinterColumns"), errors);
    }
    if let Common::All(Some(own)) = common(spec, "selectableFields") {
        let schema = list(spec, "versions")
            .first()
            .and_then(|version| has(version, "schema"));
        let lacking = "may only be set when validations.schema is included";
        let most = most_selectable(asked, None, own);
        selectable_fields(own, schema, lacking, most, &SPEC.child("selectableFields"), errors);
    }
    if let Some(conversion) = has(spec, "conversion") {
        conversion::check(conversion, flag(spec, "preserveUnknownFields"), asked, errors);
    }
}

fn one_of(value: &Value, key: &str, known: &[&str], path: &Path<'_>, errors: &mut Errors) {
    match text(value, key) {
        "" => errors.push(FieldError::required(path.child(key), "")),
        own if !known.contains(&own) => errors.push(FieldError::not_supported(path.child(key), own, known)),
        _ => {}
    }
}

fn most_selectable(asked: &Asked<'_>, version: Option<&str>, fields: &Value) -> usize {
    let are_many = fields.as_array().is_some_and(|fields| fields.len() > MOST_SELECTABLE);
    match are_many && asked.were_selectable(version, fields) {
        true => usize::MAX,
        false => MOST_SELECTABLE,
    }
}

/// That there are schemas where there have to be, and what needs them.
fn check_forms(spec: &Value, asked: &Asked<'_>, errors: &mut Errors) {
    let (path, preserves) = (SPEC.child("versions"), flag(spec, "preserveUnknownFields"));
    let open_api = |version: &Value| meta::at(version, &["schema", "openAPIV3Schema"]).is_some();
    for (index, version) in each(spec, "versions").filter(|(_, version)| !open_api(version)) {
        let why = match asked.schemas {
            true => "",
            false if !preserves && flag(version, "served") => "because otherwise all fields are pruned",
            false => continue,
        };
        let at = path.index(index);
        errors.push(FieldError::required(at.child("schema").child("openAPIV3Schema"), why));
    }
    if asked.no_defaults.is_none() && preserves && has_defaults(spec) {
        let why = "must be false in order to use defaults in the schema";
        errors.push(FieldError::invalid(SPEC.child("preserveUnknownFields"), true, why));
    }
}

fn check_versions(spec: &Value, asked: &Asked<'_>, errors: &mut Errors) {
    check_forms(spec, asked, errors);
    let (path, differing) = (SPEC.child("versions"), differing(spec));
    for (index, version) in each(spec, "versions") {
        let at = path.index(index);
        let (name, wrong) = (text(version, "name"), names::dns_1035_label(text(version, "name")));
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(at.child("name"), name, wrong.join(",")));
        }
        for why in deprecation(version) {
            let shown = has(version, "deprecationWarning").cloned().unwrap_or_default();
            errors.push(FieldError::invalid(at.child("deprecationWarning"), shown, why));
        }
        own_parts(spec, &differing, index, asked, &at, errors);
    }
    contradictions(spec, errors);
    let all = || shown_versions(spec, &differing);
    let mut names_seen: Vec<&str> = list(spec, "versions")
        .iter()
        .map(|version| text(version, "name"))
        .collect();
    names_seen.sort_unstable();
    if names_seen.windows(2).any(|two| two[0] == two[1]) {
        errors.push(FieldError::invalid(path, all(), "must contain unique version names"));
    }
    if list(spec, "versions")
        .iter()
        .filter(|version| flag(version, "storage"))
        .count()
        != 1
    {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(path, all(), why));
    }
    if let Some(first) = list(spec, "versions").first().map(|version| text(version, "name")) {
        let wrong = names::dns_1035_label(first);
        if !first.is_empty() && !wrong.is_empty() {
            errors.push(FieldError::invalid(SPEC.child("version"), first, wrong.join(",")));
        }
    }
}

/// What apiextensions.k8s.io/v1beta1 says both above the versions and in them, and so has no form in v1.
fn contradictions(spec: &Value, errors: &mut Errors) {
    let twice = [
        ("validation", "schemas"),
        ("subresources", "subresources"),
        ("additionalPrinterColumns", "additionalPrinterColumns"),
        ("selectableFields", "selectableFields"),
    ];
    let twice = twice.map(|(above, what)| (above, what, has(spec, above)));
    // There is nothing above of what all versions say alike, but that they do.
    let is_alike = |said: &Value| *said == true;
    for (above, what, _) in twice
        .iter()
        .filter(|(.., said)| said.is_some_and(|said| !is_alike(said)))
    {
        let why = format!("top-level and per-version {what} are mutually exclusive");
        errors.push(FieldError::forbidden(SPEC.child(above), why));
    }
    for (above, what, _) in twice.iter().filter(|(.., said)| said.is_some_and(is_alike)) {
        let why = format!(
            "per-version {what} may not all be set to identical values (top-level {above} should be used instead)"
        );
        let versions = list(spec, "versions").to_vec();
        errors.push(FieldError::invalid(SPEC.child("versions"), versions, why));
    }
    if let Some(version) = has(spec, "version") {
        let why = "must match the first version in spec.versions";
        errors.push(FieldError::invalid(SPEC.child("version"), version.clone(), why));
    }
}

/// What a version has that others have not.
fn own_parts(spec: &Value, differing: &[&str], index: usize, asked: &Asked<'_>, at: &Path<'_>, errors: &mut Errors) {
    let version = &list(spec, "versions")[index];
    let own = |key: &str| has(version, key).filter(|_| differing.contains(&key));
    if let Some(schema) = own("schema") {
        check_schema(spec, Some(index), schema, asked, &at.child("schema"), errors);
    }
    if let Some(own) = own("subresources") {
        subresources(own, &at.child("subresources"), errors);
    }
    if let Some(own) = own("additionalPrinterColumns") {
        columns(own, &at.child("additionalPrinterColumns"), errors);
    }
    if let Some(own) = own("selectableFields") {
        // The schema of all versions stands above them, where upstream does not look for it.
        let schema = has(version, "schema").filter(|_| differing.contains(&"schema"));
        let lacking = "may only be set when `version.schema.openAPIV3Schema` is not included";
        let most = most_selectable(asked, Some(text(version, "name")), own);
        selectable_fields(own, schema, lacking, most, &at.child("selectableFields"), errors);
    }
}

/// As upstream's own form of them is printed, whose fields are Go's.
fn shown_versions(spec: &Value, differing: &[&str]) -> Value {
    let own = |version: &Value, key: &str| {
        let own = has(version, key).filter(|_| differing.contains(&key));
        own.cloned().unwrap_or_default()
    };
    if has(spec, "versions").is_none() {
        return Value::Null;
    }
    let shown = list(spec, "versions").iter().map(|version| {
        serde_json::json!({"Name": text(version, "name"), "Served": flag(version, "served"), "Storage": flag(version, "storage"),
            "Deprecated": flag(version, "deprecated"), "DeprecationWarning": own(version, "deprecationWarning"),
            "Schema": own(version, "schema"), "Subresources": own(version, "subresources"),
            "AdditionalPrinterColumns": own(version, "additionalPrinterColumns"),
            "SelectableFields": own(version, "selectableFields")})
    });
    Value::Array(shown.collect())
}

fn deprecation(version: &Value) -> Vec<String> {
    let Some(warning) = has(version, "deprecationWarning").and_then(Value::as_str) else {
        return Vec::new();
    };
    if !flag(version, "deprecated") {
        return vec!["can only be set for deprecated versions".into()];
    }
    let mut wrong = Vec::new();
    if warning.len() > 256 {
        wrong.push("must be <= 256 characters long".into());
    }
    if warning.is_empty() {
        wrong.push("must not be an empty string".into());
    }
    let unprinted = |c: char| c.is_control() || (c.is_whitespace() && c != ' ');
    if let Some(at) = warning.find(unprinted) {
        let what = "must only contain printable UTF-8 characters; non-printable character found at index";
        wrong.push(format!("{what} {at}"));
    }
    wrong
}

fn has_status(version: &Value) -> bool {
    meta::at(version, &["subresources", "status"]).is_some()
}

/// `schema` of the version at `at`, or of all of them.
fn check_schema(
    spec: &Value,
    at: Option<usize>,
    said: &Value,
    asked: &Asked<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let Some(schema) = has(said, "openAPIV3Schema") else {
        return;
    };
    let versions = list(spec, "versions");
    let with_status = match at {
        Some(at) => versions.get(at).is_some_and(has_status),
        None => versions.iter().any(has_status),
    };
    if with_status {
        root::with_status(schema, path, errors);
    }
    if flag(schema, "nullable") {
        let at = path.child("openAPIV3Schema.nullable");
        errors.push(FieldError::forbidden(at, "nullable cannot be true at the root"));
    }
    let name = versions.get(at.unwrap_or_default());
    let unchanged = name.is_some_and(|version| asked.is_unchanged(text(version, "name"), said));
    let at = path.child("openAPIV3Schema");
    let start = errors.len();
    let mut unread: Option<CompileError> = None;
    let structural = asked.wants_structural(spec);
    if structural {
        match custom::compile(schema) {
            Err(error) => unread = Some(error),
            Ok(compiled) => {
                let mut wrong = structural::check(schema, &at);
                if wrong.is_empty() {
                    custom::check_defaults(&compiled, &at, asked.pruned_defaults, &mut wrong);
                }
                errors.append(&mut wrong);
            }
        }
    } else {
        // Objects are checked by it all the same.
        unread = checking(schema.clone()).err();
    }
    let place = open_api::Place {
        asked,
        no_defaults: asked.no_defaults,
        inside_meta: false,
        root: true,
    };
    open_api::check(schema, place, &at, errors);
    if let (Some(error), true) = (&unread, errors.len() == start) {
        errors.push(FieldError::invalid(at, "", error.to_string()));
    } else if structural && errors.len() == start {
        errors.append(&mut custom::check_definition(schema, &at.to_string(), unchanged));
    }
}

fn stored_versions(spec: &Value, status: &Value, errors: &mut Errors) {
    let at = Path::new("status");
    let at = at.child("storedVersions");
    let stored = list(status, "storedVersions");
    if stored.is_empty() {
        let shown = has(status, "storedVersions").cloned().unwrap_or_default();
        errors.push(FieldError::invalid(at, shown, "must have at least one stored version"));
        return;
    }
    let versions = list(spec, "versions");
    let known: HashSet<&str> = strings(status, "storedVersions").collect();
    // Each shows all that are stored: one is enough where those are many.
    let most = (MOST_FINDINGS / stored.len()).max(1);
    let storage = versions.iter().filter(|version| flag(version, "storage"));
    for version in storage.take(most) {
        if !known.contains(text(version, "name")) {
            let why = format!("must have the storage version {}", text(version, "name"));
            errors.push(FieldError::invalid(at, Value::Array(stored.to_vec()), why));
        }
    }
    let names: HashSet<&str> = versions.iter().map(|version| text(version, "name")).collect();
    for (index, name) in strings(status, "storedVersions").enumerate() {
        if !names.contains(name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.push(FieldError::invalid(at.index(index), name, why));
        }
    }
}

#[derive(PartialEq)]
enum Approval {
    NotNeeded,
    Given,
    Bypassed,
    Missing,
    Invalid,
}

fn approval_of(definition: &Value) -> Approval {
    let group = meta::string(definition, &["spec", "group"]);
    let protected = ["k8s.io", "kubernetes.io"].iter().any(|own| {
        let parent = group.strip_suffix(own);
        parent.is_some_and(|parent| parent.is_empty() || parent.ends_with('.'))
    });
    let word = meta::string(definition, &["metadata", "annotations", APPROVED]);
    let host = word
        .split_once("://")
        .map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
    match word {
        _ if !protected => Approval::NotNeeded,
        "" => Approval::Missing,
        word if word.starts_with("unapproved") => Approval::Bypassed,
        _ if host.is_some_and(|host| !host.is_empty()) => Approval::Given,
        _ => Approval::Invalid,
    }
}

fn approval(definition: &Value, errors: &mut Errors) {
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let what = format!("protected groups must have approval annotation {APPROVED:?}");
    let at = Path::new("metadata");
    let at = at.child("annotations");
    let at = at.key(APPROVED);
    match approval_of(definition) {
        Approval::Missing => errors.push(FieldError::required(at, format!("{what}, {see}"))),
        Approval::Invalid => {
            let word = meta::string(definition, &["metadata", "annotations", APPROVED]);
            let why = format!("{what} with either a URL or a reason starting with \"unapproved\", {see}");
            errors.push(FieldError::invalid(at, word, why));
        }
        _ => {}
    }
}
