//! CustomResourceDefinitions. Upstream checks a form of them in which what all versions have in common stands at the top
//! (`spec.validation`), and names fields by that form: so does this.

mod conversion;
mod field_path;
mod open_api;
mod structural;

use serde_json::Value;

use super::{Errors, IMMUTABLE, Path, each, flag, has, list, strings, text};
use crate::meta;
use crate::names;
use crate::registry::Served;
use crate::schema::custom::{self, CompileError};
use crate::status::FieldError;

const SPEC: Path<'static> = Path::new("spec");
const APPROVED: &str = "api-approved.kubernetes.io";

/// A new definition, and the whole of a changed one.
pub fn custom_resource_definition(definition: &Value, errors: &mut Errors) {
    let spec = has(definition, "spec").unwrap_or(&Value::Null);
    check_spec(spec, errors);
    let status = has(definition, "status").unwrap_or(&Value::Null);
    if let Some(accepted) = has(status, "acceptedNames") {
        check_names(accepted, &Path::new("status").child("acceptedNames"), errors);
    }
    stored_versions(spec, status, errors);
}

/// What is asked of a new definition alone.
pub fn custom_resource_definition_create(sent: &Served, definition: &Value, errors: &mut Errors) {
    let name = meta::string(definition, &["metadata", "name"]);
    let (plural, group) = (
        meta::string(definition, &["spec", "names", "plural"]),
        meta::string(definition, &["spec", "group"]),
    );
    if !name.is_empty() && name != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", name, why));
    }
    if sent.name == "v1" {
        approval(definition, errors);
        pruning(definition, errors);
    }
}

fn pruning(definition: &Value, errors: &mut Errors) {
    if flag(&definition["spec"], "preserveUnknownFields") {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid(SPEC.child("preserveUnknownFields"), true, why));
    }
}

/// What a change may not change; what was wrong before may stay so.
pub fn custom_resource_definition_update(new: &Value, old: &Value, errors: &mut Errors) {
    if approval_of(new) != approval_of(old) {
        approval(new, errors);
    }
    if !flag(&old["spec"], "preserveUnknownFields") {
        pruning(new, errors);
    }
    let conditions = meta::items(old, &["status", "conditions"]);
    let established = conditions
        .iter()
        .any(|condition| text(condition, "type") == "Established" && text(condition, "status") == "True");
    let always: &[&[&str]] = &[&["group"], &["names", "plural"]];
    let once: &[&[&str]] = if established {
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

fn check_spec(spec: &Value, errors: &mut Errors) {
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
    check_versions(spec, errors);
    let (own, at) = (has(spec, "names").unwrap_or(&Value::Null), SPEC.child("names"));
    for key in ["plural", "singular", "kind", "listKind"] {
        if text(own, key).is_empty() {
            errors.push(FieldError::required(at.child(key), ""));
        }
    }
    check_names(own, &at, errors);
    if let Common::All(Some(_)) = common(spec, "schema") {
        each_part(spec, "schema", "validation", |at, schema, path| {
            check_schema(spec, at, schema, path, errors)
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
        selectable_fields(own, schema, lacking, &SPEC.child("selectableFields"), errors);
    }
    if let Some(conversion) = has(spec, "conversion") {
        conversion::check(conversion, flag(spec, "preserveUnknownFields"), errors);
    }
}

fn one_of(value: &Value, key: &str, known: &[&str], path: &Path<'_>, errors: &mut Errors) {
    match text(value, key) {
        "" => errors.push(FieldError::required(path.child(key), "")),
        own if !known.contains(&own) => errors.push(FieldError::not_supported(path.child(key), own, known)),
        _ => {}
    }
}

fn check_versions(spec: &Value, errors: &mut Errors) {
    let path = SPEC.child("versions");
    let open_api = |version: &Value| meta::at(version, &["schema", "openAPIV3Schema"]).is_some();
    let lacking = each(spec, "versions").filter(|(_, version)| !open_api(version));
    let pruned = !flag(spec, "preserveUnknownFields");
    for (index, version) in lacking.filter(|_| pruned) {
        let _ = version;
        let at = path.index(index);
        errors.push(FieldError::required(at.child("schema").child("openAPIV3Schema"), ""));
    }
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
        own_parts(spec, index, version, &at, errors);
    }
    let all = || shown_versions(spec);
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

/// What a version has that others have not.
fn own_parts(spec: &Value, index: usize, version: &Value, at: &Path<'_>, errors: &mut Errors) {
    let own = |key: &str| has(version, key).filter(|_| matches!(common(spec, key), Common::Each));
    if let Some(schema) = own("schema") {
        check_schema(spec, Some(index), schema, &at.child("schema"), errors);
    }
    if let Some(own) = own("subresources") {
        subresources(own, &at.child("subresources"), errors);
    }
    if let Some(own) = own("additionalPrinterColumns") {
        columns(own, &at.child("additionalPrinterColumns"), errors);
    }
    if let Some(own) = own("selectableFields") {
        // The schema of all versions stands above them, where upstream does not look for it.
        let schema = has(version, "schema").filter(|_| matches!(common(spec, "schema"), Common::Each));
        let lacking = "may only be set when `version.schema.openAPIV3Schema` is not included";
        selectable_fields(own, schema, lacking, &at.child("selectableFields"), errors);
    }
}

/// As upstream's own form of them is printed, whose fields are Go's.
fn shown_versions(spec: &Value) -> Value {
    let own = |version: &Value, key: &str| {
        let own = has(version, key).filter(|_| matches!(common(spec, key), Common::Each));
        own.cloned().unwrap_or_default()
    };
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

fn check_names(own: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (key, mixed) in [
        ("plural", false),
        ("singular", false),
        ("kind", true),
        ("listKind", true),
    ] {
        let name = text(own, key);
        let wrong = names::dns_1035_label(&if mixed { name.to_lowercase() } else { name.into() });
        if name.is_empty() || wrong.is_empty() {
            continue;
        }
        let why = match mixed {
            true => format!("may have mixed case, but should otherwise match: {}", wrong.join(",")),
            false => wrong.join(","),
        };
        errors.push(FieldError::invalid(path.child(key), name, why));
    }
    let labels = |key: &str, errors: &mut Errors| {
        let at = path.child(key);
        for (index, name) in strings(own, key).enumerate() {
            let wrong = names::dns_1035_label(name);
            if !wrong.is_empty() {
                errors.push(FieldError::invalid(at.index(index), name, wrong.join(",")));
            }
        }
    };
    labels("shortNames", errors);
    let (kind, list_kind) = (text(own, "kind"), text(own, "listKind"));
    if !kind.is_empty() && kind == list_kind {
        let why = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(path.child("listKind"), list_kind, why));
    }
    labels("categories", errors);
}

fn has_status(version: &Value) -> bool {
    meta::at(version, &["subresources", "status"]).is_some()
}

/// `schema` of the version at `at`, or of all of them.
fn check_schema(spec: &Value, at: Option<usize>, schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(schema) = has(schema, "openAPIV3Schema") else {
        return;
    };
    let versions = list(spec, "versions");
    let with_status = match at {
        Some(at) => versions.get(at).is_some_and(has_status),
        None => versions.iter().any(has_status),
    };
    if with_status {
        root_with_status(schema, path, errors);
    }
    if flag(schema, "nullable") {
        let at = path.child("openAPIV3Schema.nullable");
        errors.push(FieldError::forbidden(at, "nullable cannot be true at the root"));
    }
    let at = path.child("openAPIV3Schema");
    let start = errors.len();
    let mut unread: Option<CompileError> = None;
    let structural = !flag(spec, "preserveUnknownFields");
    if structural {
        match custom::compile(schema) {
            Err(error) => unread = Some(error),
            Ok(compiled) => {
                let mut wrong = structural::check(schema, &at);
                if wrong.is_empty() {
                    custom::check_defaults(&compiled, &at, &mut wrong);
                }
                errors.append(&mut wrong);
            }
        }
    }
    let place = open_api::Place {
        no_defaults: None,
        inside_meta: false,
        root: true,
    };
    open_api::check(schema, place, &at, errors);
    if let (Some(error), true) = (&unread, errors.len() == start) {
        errors.push(FieldError::invalid(at, "", error.to_string()));
    } else if structural && errors.len() == start {
        errors.extend(custom::check_definition(schema, &at.to_string(), false));
    }
}

/// What the root may say where the status is checked by itself, in the order of Go's struct, and what it may not.
const ROOT: [(&str, &str, bool); 36] = [
    ("id", "ID", false),
    ("$schema", "Schema", false),
    ("$ref", "Ref", false),
    ("description", "Description", true),
    ("type", "Type", true),
    ("nullable", "Nullable", false),
    ("format", "Format", true),
    ("title", "Title", true),
    ("default", "Default", false),
    ("maximum", "Maximum", true),
    ("exclusiveMaximum", "ExclusiveMaximum", true),
    ("minimum", "Minimum", true),
    ("exclusiveMinimum", "ExclusiveMinimum", true),
    ("maxLength", "MaxLength", true),
    ("minLength", "MinLength", true),
    ("pattern", "Pattern", true),
    ("maxItems", "MaxItems", true),
    ("minItems", "MinItems", true),
    ("uniqueItems", "UniqueItems", true),
    ("multipleOf", "MultipleOf", true),
    ("enum", "Enum", false),
    ("maxProperties", "MaxProperties", false),
    ("minProperties", "MinProperties", false),
    ("required", "Required", true),
    ("items", "Items", true),
    ("allOf", "AllOf", false),
    ("oneOf", "OneOf", false),
    ("anyOf", "AnyOf", false),
    ("not", "Not", false),
    ("properties", "Properties", true),
    ("additionalProperties", "AdditionalProperties", false),
    ("externalDocs", "ExternalDocs", true),
    ("example", "Example", true),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields", true),
    ("x-kubernetes-embedded-resource", "XEmbeddedResource", false),
    ("x-kubernetes-validations", "XValidations", true),
];

fn root_with_status(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let says = |key: &str| match has(schema, key) {
        None | Some(Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(_) => true,
    };
    let own = text(schema, "type");
    for (key, _, allowed) in ROOT.iter().filter(|(key, ..)| says(key)) {
        if *key == "type" && own != "object" {
            let why =
                "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
            errors.push(FieldError::invalid(path.child("openAPIV3Schema.type"), own, why));
            return;
        }
        if !allowed {
            let words: Vec<&str> = ROOT
                .iter()
                .filter(|(.., allowed)| *allowed)
                .map(|(_, go, _)| *go)
                .collect();
            let what = "fields are allowed at the root of the schema if the status subresource is enabled";
            let why = format!("only [{}] {what}", words.join(" "));
            errors.push(FieldError::invalid(path.child("openAPIV3Schema"), schema.clone(), why));
            return;
        }
    }
}

fn subresources(own: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(scale) = has(own, "scale") else { return };
    let under = |key: &str, roots: &[&str], why: &str, errors: &mut Errors| {
        let (json_path, field) = (text(scale, key), format!("scale.{key}"));
        let at = path.child(&field);
        if let Some(error) = simple_json_path(json_path, &at) {
            errors.push(error);
        } else if !roots.iter().any(|root| json_path.starts_with(root)) {
            errors.push(FieldError::invalid(at, json_path, why));
        }
    };
    for (key, root) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        if text(scale, key).is_empty() {
            errors.push(FieldError::required(path.child(&format!("scale.{key}")), ""));
        } else {
            let why = format!("should be a json path under {}", root.trim_end_matches('.'));
            under(key, &[root], &why, errors);
        }
    }
    if !text(scale, "labelSelectorPath").is_empty() {
        let why = "should be a json path under either .spec or .status";
        under("labelSelectorPath", &[".spec.", ".status."], why, errors);
    }
}

fn simple_json_path(json_path: &str, path: &Path<'_>) -> Option<FieldError> {
    let why = "must be a simple json path starting with .";
    (!json_path.starts_with('.')).then(|| FieldError::invalid(path, json_path, why))
}

fn columns(own: &Value, path: &Path<'_>, errors: &mut Errors) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = [
        "byte",
        "date",
        "date-time",
        "double",
        "float",
        "int32",
        "int64",
        "password",
    ];
    let must = |known: &[&str]| format!("must be one of {}", known.join(","));
    for (index, column) in own.as_array().into_iter().flatten().enumerate() {
        let at = path.index(index);
        if text(column, "name").is_empty() {
            errors.push(FieldError::required(at.child("name"), ""));
        }
        match text(column, "type") {
            "" => errors.push(FieldError::required(at.child("type"), must(&TYPES))),
            own if !TYPES.contains(&own) => errors.push(FieldError::invalid(at.child("type"), own, must(&TYPES))),
            _ => {}
        }
        let format = text(column, "format");
        if !format.is_empty() && !FORMATS.contains(&format) {
            errors.push(FieldError::invalid(at.child("format"), format, must(&FORMATS)));
        }
        match text(column, "jsonPath") {
            "" => errors.push(FieldError::required(at.child("JSONPath"), "")),
            json_path => errors.extend(simple_json_path(json_path, &at.child("JSONPath"))),
        }
    }
}

const MOST_SELECTABLE: usize = 8;

fn selectable_fields(own: &Value, schema: Option<&Value>, lacking: &str, path: &Path<'_>, errors: &mut Errors) {
    let Some(schema) = schema.and_then(|schema| has(schema, "openAPIV3Schema")) else {
        errors.push(FieldError::invalid(path, "", lacking));
        return;
    };
    let mut seen: Vec<Vec<String>> = Vec::new();
    for (index, field) in own.as_array().into_iter().flatten().enumerate() {
        let (json_path, at) = (text(field, "jsonPath"), path.index(index));
        let at = at.child("jsonPath");
        if json_path.is_empty() {
            errors.push(FieldError::required(at, ""));
            continue;
        }
        let (names, found) = match field_path::resolve(json_path, schema, false) {
            Ok(found) => found,
            Err(why) => {
                errors.push(FieldError::invalid(at, json_path, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if names.first().is_some_and(|name| name == "metadata") {
            errors.push(FieldError::invalid(
                at,
                json_path,
                "must not point to fields in metadata",
            ));
        }
        if !matches!(text(found, "type"), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.push(FieldError::invalid(at, json_path, why));
        }
        if seen.contains(&names) {
            errors.push(FieldError::duplicate(at, json_path));
        } else {
            seen.push(names);
        }
    }
    if seen.len() > MOST_SELECTABLE {
        errors.push(FieldError::too_many(path, seen.len(), MOST_SELECTABLE));
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
    for version in versions.iter().filter(|version| flag(version, "storage")) {
        if !stored.contains(&version["name"]) {
            let why = format!("must have the storage version {}", text(version, "name"));
            errors.push(FieldError::invalid(at, Value::Array(stored.to_vec()), why));
        }
    }
    for (index, name) in strings(status, "storedVersions").enumerate() {
        if !versions.iter().any(|version| text(version, "name") == name) {
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
