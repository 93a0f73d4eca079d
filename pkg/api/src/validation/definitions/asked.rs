//! How much is asked of a definition: the version that upstream has removed asked less, and what was wrong before a change
//! may stay as wrong.

use std::cell::{OnceCell, RefCell};
use std::collections::HashSet;

use serde_json::Value;

use super::super::{Errors, Path, flag, has, list, strings, text};
use super::structural::{fields, schema_at};
use super::{Common, common, conversion, is_established, open_api, structural};
use crate::meta;
use crate::registry::Served;
use crate::schema::custom;

pub(super) struct Asked<'v> {
    /// Every version has a schema, not only those whose objects are pruned.
    pub(super) schemas: bool,
    /// Schemas are structural, also where no object is pruned.
    pub(super) structural: bool,
    /// Types are those of OpenAPI.
    pub(super) types: bool,
    /// Why nothing has a default; none where it may.
    pub(super) no_defaults: Option<&'static str>,
    /// Defaults have no fields that the schema lacks.
    pub(super) pruned_defaults: bool,
    /// What a set holds is compared as a whole.
    pub(super) atomic_sets: bool,
    /// What tells the items of a list apart is there.
    pub(super) whole_keys: bool,
    /// A conversion's webhook reads a version of the question that is spoken here.
    pub(super) known_review: bool,
    /// A conversion's webhook is vouched for by certificates.
    pub(super) bundle: bool,
    /// The spec before the change.
    old: Option<&'v Value>,
    /// Whether this definition's schemas have to be structural: asked of each version, found out once.
    wants_structural: OnceCell<bool>,
}

const BETA: &str = "(cannot set default values in apiextensions.k8s.io/v1beta1 CRDs, must use apiextensions.k8s.io/v1)";

impl<'v> Asked<'v> {
    /// What is asked of a definition that is right from the start.
    pub(super) fn of(sent: &Served, old: Option<&'v Value>) -> Asked<'v> {
        let v1 = sent.name == "v1";
        Asked {
            schemas: v1,
            structural: v1,
            types: v1,
            no_defaults: (!v1).then_some(BETA),
            pruned_defaults: true,
            atomic_sets: true,
            whole_keys: true,
            known_review: true,
            bundle: old.is_some_and(is_established),
            old: old.map(|old| &old["spec"]),
            wants_structural: OnceCell::new(),
        }
    }

    /// Without what the definition lacked before.
    pub(super) fn but_for_old(self) -> Asked<'v> {
        let Some(old) = self.old else { return self };
        let any = |wrong: &dyn Fn(&Value) -> bool| schemas(old).any(|schema| any_part(schema, wrong));
        let is_wrong = |check: fn(&Value, &Path<'_>, &mut Errors)| {
            any(&|schema| {
                let mut errors = Errors::new();
                check(schema, &Path::ROOT, &mut errors);
                !errors.is_empty()
            })
        };
        let conversion = has(old, "conversion").unwrap_or(&Value::Null);
        Asked {
            schemas: self.schemas && list(old, "versions").iter().all(|version| schema_of(version).is_some()),
            structural: self.structural && schemas(old).all(structural::holds),
            types: self.types && !any(&|schema| !open_api::is_type(text(schema, "type"))),
            no_defaults: self.no_defaults.filter(|_| !has_defaults(old)),
            pruned_defaults: self.pruned_defaults && schemas(old).all(has_pruned_defaults),
            atomic_sets: self.atomic_sets && !is_wrong(open_api::set_of_atoms),
            whole_keys: self.whole_keys && !is_wrong(open_api::map_keys),
            known_review: self.known_review && conversion::reads_a_known_review(conversion),
            bundle: self.bundle && conversion::bundle_error(conversion).is_none(),
            old: self.old,
            wants_structural: OnceCell::new(),
        }
    }

    /// Whether the schemas of a definition have to be structural.
    pub(super) fn wants_structural(&self, spec: &Value) -> bool {
        *self.wants_structural.get_or_init(|| {
            self.structural
                || !flag(spec, "preserveUnknownFields")
                || (self.no_defaults.is_none() && has_defaults(spec))
                || has_extensions(spec)
        })
    }

    /// Whether a version's schema is what it was, so that it may cost what it did.
    pub(super) fn is_unchanged(&self, version: &str, schema: &Value) -> bool {
        let versions = self.old.map(|old| list(old, "versions")).unwrap_or_default();
        let before = versions.iter().find(|own| text(own, "name") == version);
        before.is_some_and(|own| own.get("schema") == Some(schema))
    }

    /// Whether so many selectable fields stood there before, in one version or in all.
    pub(super) fn were_selectable(&self, version: Option<&str>, fields: &Value) -> bool {
        let Some(old) = self.old else { return false };
        let before = match (version, common(old, "selectableFields")) {
            (None, Common::All(before)) => before,
            (Some(name), Common::Each) => {
                let versions = list(old, "versions");
                let version = versions.iter().find(|own| text(own, "name") == name);
                version.and_then(|version| has(version, "selectableFields"))
            }
            _ => None,
        };
        before == Some(fields)
    }
}

fn schema_of(version: &Value) -> Option<&Value> {
    meta::at(version, &["schema", "openAPIV3Schema"]).filter(|schema| !schema.is_null())
}

fn schemas(spec: &Value) -> impl Iterator<Item = &Value> {
    list(spec, "versions").iter().filter_map(schema_of)
}

/// Whether something holds of a schema or of one that it is made of.
fn any_part(schema: &Value, holds: &dyn Fn(&Value) -> bool) -> bool {
    let below = |part: &Value| any_part(part, holds);
    holds(schema)
        || ["items", "additionalProperties", "additionalItems", "not"]
            .iter()
            .any(|key| schema_at(schema, key).is_some_and(below))
        || ["items", "allOf", "anyOf", "oneOf"]
            .iter()
            .any(|key| list(schema, key).iter().any(below))
        || ["properties", "patternProperties", "definitions", "dependencies"]
            .iter()
            .any(|key| fields(schema, key).any(|(_, part)| below(part)))
}

pub(super) fn has_defaults(spec: &Value) -> bool {
    schemas(spec).any(|schema| any_part(schema, &|part| has(part, "default").is_some()))
}

/// Whether a schema says what only a structural one can.
fn has_extensions(spec: &Value) -> bool {
    const FLAGS: [&str; 2] = ["x-kubernetes-embedded-resource", "x-kubernetes-int-or-string"];
    const SAID: [&str; 2] = ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type"];
    let extended = |part: &Value| {
        FLAGS.iter().any(|key| flag(part, key))
            || SAID.iter().any(|key| has(part, key).is_some())
            || strings(part, "x-kubernetes-list-map-keys").next().is_some()
            || !list(part, "x-kubernetes-validations").is_empty()
    };
    schemas(spec).any(|schema| any_part(schema, &extended))
}

/// Warnings of formats that nobody checks, each where the definition did not name it before.
pub fn definition_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let before: HashSet<String> = old.map(unknown_formats).unwrap_or_default().into_iter().collect();
    let fresh = unknown_formats(new)
        .into_iter()
        .filter(|format| !before.contains(format));
    fresh.map(|format| format!("unrecognized format {format:?}")).collect()
}

fn unknown_formats(definition: &Value) -> Vec<String> {
    let found = RefCell::new(Vec::new());
    for schema in schemas(&definition["spec"]) {
        any_part(schema, &|part| {
            let format = text(part, "format");
            if !format.is_empty() && text(part, "type") == "string" && !custom::is_format(format) {
                found.borrow_mut().push(format.to_string());
            }
            false
        });
    }
    found.into_inner()
}

fn has_pruned_defaults(schema: &Value) -> bool {
    let Ok(compiled) = custom::compile(schema) else {
        return true;
    };
    let wrong = |pruned: bool| {
        let mut errors = Errors::new();
        custom::check_defaults(&compiled, &Path::ROOT, pruned, &mut errors);
        errors.len()
    };
    !structural::holds(schema) || wrong(true) == wrong(false)
}
