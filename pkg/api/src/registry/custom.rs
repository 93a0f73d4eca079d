//! The row of a custom resource, made of its CustomResourceDefinition (in its stored form, apiextensions.k8s.io/v1). Handlers
//! can't tell it from a built-in one.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::columns::{self, custom_column};
use super::{
    Field, Handler, Hooks, NameRule, Path, Resource, ScalePaths, Scope, Semantics, Served, Subresource, Support, Verbs,
};
use crate::schema::custom::CompileError;
use crate::schema::{self, Schema, custom};
use crate::status::FieldError;
use crate::validation::Errors;
use crate::{meta, validation};

/// The schema of a version's objects, compiled when first used: of many definitions few have objects.
pub struct Custom {
    /// None: a definition of apiextensions.k8s.io/v1beta1 may have no schema.
    text: Option<Box<str>>,
    digest: u64,
    /// Unknown fields are not pruned and defaults not filled in: such a definition may say so, and its schema need not be
    /// structural then. Objects are checked by it all the same.
    preserves: bool,
    compiled: OnceLock<Compiled>,
}

struct Compiled {
    /// By which objects are checked, or why they can't be.
    checks: Result<Option<Schema>, CompileError>,
    /// By which they are merged.
    form: Schema,
}

/// A schema without the words that say of which draft it is, as generated ones do: they say nothing of a value.
fn without_draft(mut schema: Value) -> Value {
    fn drop(schema: &mut Value) {
        let Some(map) = schema.as_object_mut() else { return };
        map.remove("$schema");
        // Where schemas are: a default or an enumeration may hold such a word, which is its own.
        for (key, part) in map {
            match (key.as_str(), part) {
                ("properties", Value::Object(parts)) => parts.values_mut().for_each(drop),
                ("allOf" | "anyOf" | "oneOf" | "items", Value::Array(parts)) => parts.iter_mut().for_each(drop),
                ("items" | "additionalProperties" | "not", part) => drop(part),
                _ => {}
            }
        }
    }
    drop(&mut schema);
    schema
}

/// The schema by which objects are checked.
///
/// # Errors
/// It is none.
pub(crate) fn checking(said: Value) -> Result<Schema, CompileError> {
    custom::compile(&without_draft(said))
}

/// A schema in which every object may have other fields too.
fn opened(mut schema: Value) -> Value {
    fn open(schema: &mut Value) {
        for key in ["items", "additionalProperties"] {
            if let Some(part) = schema.get_mut(key) {
                open(part);
            }
        }
        let Some(map) = schema.as_object_mut() else { return };
        if let Some(Value::Object(fields)) = map.get_mut("properties") {
            fields.values_mut().for_each(open);
        }
        if map.get("type").is_some_and(|own| own == "object") {
            map.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
        }
    }
    open(&mut schema);
    schema
}

impl Custom {
    fn of(definition: &Value, version: &Value) -> Custom {
        let schema = meta::at(version, &["schema", "openAPIV3Schema"]);
        let text = schema.map(|schema| Box::<str>::from(schema.to_string()));
        let preserves = meta::bool_at(definition, &["spec", "preserveUnknownFields"]) == Some(true);
        let mut hasher = DefaultHasher::new();
        (&text, preserves).hash(&mut hasher);
        Custom {
            digest: hasher.finish(),
            text,
            preserves,
            compiled: OnceLock::new(),
        }
    }

    /// What the definition says, as it was written.
    fn tree(&self) -> Option<Value> {
        serde_json::from_str(self.text.as_deref()?).ok()
    }

    /// What the definition says to clients: nothing, where it is not structural.
    pub fn said(&self) -> Option<Value> {
        self.tree()
            .filter(|said| !self.preserves || validation::is_structural(said))
    }

    /// Whether objects keep the fields that nothing is said of.
    pub fn preserves(&self) -> bool {
        self.preserves
    }

    /// The form of its objects, by which they are merged.
    pub fn form(&self) -> &Schema {
        &self.compiled().form
    }

    /// Changes with what it says.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// By which objects are pruned and filled in; None where there is none.
    fn schema(&self) -> Option<&Schema> {
        self.compiled().checks.as_ref().ok()?.as_ref()
    }

    /// By which objects are checked. Where the schema is none that anything can be checked by, which validation lets nobody
    /// write, nothing is right but what is stored.
    fn checks(&self, new: &Value, old: Option<&Value>, errors: &mut Errors) -> Option<&Schema> {
        match &self.compiled().checks {
            Ok(schema) => schema.as_ref(),
            Err(_) if old.is_some_and(|old| only_metadata_differs(new, old)) => None,
            Err(error) => {
                let why = format!("the schema of its definition can't be read: {error}");
                errors.push(FieldError::internal("", why));
                None
            }
        }
    }

    fn compiled(&self) -> &Compiled {
        self.compiled.get_or_init(|| {
            let checks = self.tree().map(checking).transpose();
            let form = match (&checks, self.preserves) {
                (Ok(Some(checks)), false) => Ok(checks.clone()),
                _ => custom::compile(&opened(self.said().unwrap_or_else(|| json!({"type": "object"})))),
            };
            let form = form.unwrap_or_else(|_| schema::custom().clone());
            Compiled { checks, form }
        })
    }

    /// What a write leaves of an object that was decoded; the paths of what went.
    ///
    /// # Errors
    /// Metadata of an embedded object is malformed.
    pub fn admit(&self, object: &mut Value) -> Result<Vec<String>, FieldError> {
        match self.schema() {
            Some(schema) if !self.preserves => custom::admit(object, schema, false),
            _ => Ok(Vec::new()),
        }
    }

    /// Fills in the schema's defaults.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn fill(&self, object: &mut Value) -> Result<(), custom::TooLarge> {
        match self.schema().filter(|_| !self.preserves) {
            Some(schema) => custom::default(object, schema),
            None => Ok(()),
        }
    }

    /// Takes out what the schema lacks. Told of nobody: who wrote it was, if it was so then.
    pub fn prune(&self, object: &mut Value) {
        if let Some(schema) = self.schema().filter(|_| !self.preserves) {
            let _ = custom::admit(object, schema, true);
        }
    }

    /// What is shown of an object that is stored in so many bytes.
    ///
    /// # Errors
    /// Not all of its defaults are: those that there was no room for.
    pub fn read(&self, object: &mut Value, stored: usize) -> Result<(), custom::TooLarge> {
        let Some(schema) = self.schema().filter(|_| !self.preserves) else {
            return Ok(());
        };
        let _ = custom::admit(object, schema, true);
        custom::default_shown(object, schema, stored)
    }

    /// What the stored version keeps of an object that came in another.
    ///
    /// # Errors
    /// There is no room for the stored version's defaults.
    pub fn keep(&self, object: &mut Value) -> Result<(), custom::TooLarge> {
        self.prune(object);
        self.fill(object)
    }

    /// What is wrong with an object, changed from `old` or new, goes to `errors` and, where it was as wrong before, to
    /// `warnings`. `scale` says what is wrong with what `/scale` reads, and rules are asked unless too much was wrong already.
    pub fn check(
        &self,
        new: &Value,
        old: Option<&Value>,
        scale: impl FnOnce(&mut Errors),
        errors: &mut Errors,
        warnings: &mut Vec<String>,
    ) {
        let Some(schema) = self.checks(new, old, errors) else {
            return scale(errors);
        };
        errors.append(&mut custom::check(new, old, schema));
        scale(errors);
        errors.append(&mut custom::check_embedded(new, schema));
        errors.append(&mut custom::check_lists(new, old, schema));
        rule(new, old, schema, errors, warnings);
    }

    /// The same of a changed status, of which the object's own rules are asked too.
    pub fn check_status(
        &self,
        new: &Value,
        old: &Value,
        scale: impl FnOnce(&mut Errors),
        errors: &mut Errors,
        warnings: &mut Vec<String>,
    ) {
        let Some(schema) = self.checks(new, Some(old), errors) else {
            return scale(errors);
        };
        errors.append(&mut custom::check_status(new, old, schema));
        scale(errors);
        errors.append(&mut custom::check_lists(new, Some(old), schema));
        rule(new, Some(old), schema, errors, warnings);
    }
}

/// Whether a change is one of metadata alone. The version does not count: which one is stored may have changed since.
pub fn only_metadata_differs(new: &Value, old: &Value) -> bool {
    differs_only_in(new, old, &["apiVersion", "metadata"])
}

/// Whether all fields but some are the same.
pub fn differs_only_in(new: &Value, old: &Value, some: &[&str]) -> bool {
    let beside = |object: &Value, other: &Value| {
        let mut fields = object.as_object().into_iter().flatten();
        fields.all(|(key, value)| some.contains(&key.as_str()) || other.get(key) == Some(value))
    };
    beside(new, old) && beside(old, new)
}

fn rule(new: &Value, old: Option<&Value>, schema: &Schema, errors: &mut Errors, warnings: &mut Vec<String>) {
    let mut ruling = custom::check_rules(new, old, schema, errors);
    errors.append(&mut ruling.errors);
    warnings.extend(ruling.warnings);
}

/// Where a webhook listens, and who vouches for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    pub endpoint: Endpoint,
    /// Certificates of authorities in PEM; empty: the public ones.
    pub authorities: Vec<u8>,
    /// The versions of ConversionReview that it reads, the preferred one first.
    pub review_versions: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Endpoint {
    Url(String),
    Service {
        namespace: String,
        name: String,
        port: i64,
        path: String,
    },
}

/// The webhook that converts between the versions; None where they differ in `apiVersion` alone.
pub fn webhook(definition: &Value) -> Option<Webhook> {
    let conversion = meta::at(definition, &["spec", "conversion"])?;
    if meta::string(conversion, &["strategy"]) != "Webhook" {
        return None;
    }
    let webhook = conversion.get("webhook")?;
    let client = webhook.get("clientConfig")?;
    let text = |value: &Value, key: &str| meta::string(value, &[key]).to_string();
    let endpoint = match client.get("service") {
        Some(service) => Endpoint::Service {
            namespace: text(service, "namespace"),
            name: text(service, "name"),
            port: meta::i64_at(service, &["port"]).unwrap_or(443),
            path: text(service, "path"),
        },
        None => Endpoint::Url(text(client, "url")),
    };
    let bundle = STANDARD.decode(meta::string(client, &["caBundle"])).unwrap_or_default();
    let versions = meta::items(webhook, &["conversionReviewVersions"]);
    Some(Webhook {
        endpoint,
        authorities: bundle.trim_ascii().to_vec(),
        review_versions: versions.iter().filter_map(Value::as_str).map(str::to_string).collect(),
    })
}

/// The resource that a definition stands for, by the names that were accepted; None where it has no stored version, which
/// validation lets nobody write.
pub fn resource(definition: &Value) -> Option<Resource> {
    let group: Cow<'static, str> = meta::string(definition, &["spec", "group"]).to_string().into();
    let name = |key: &str| -> Cow<'static, str> {
        let accepted = meta::string(definition, &["status", "acceptedNames", key]);
        accepted.to_string().into()
    };
    let names = |key: &str| -> Vec<Cow<'static, str>> {
        let accepted = meta::items(definition, &["status", "acceptedNames", key]);
        let texts = accepted.iter().filter_map(Value::as_str);
        texts.map(|text| text.to_string().into()).collect()
    };
    let versions = meta::items(definition, &["spec", "versions"]);
    let storage = versions.iter().position(|version| version["storage"] == true)?;
    let versions = versions
        .iter()
        .map(|version| served(definition, group.clone(), version));
    let resource = Resource {
        group: group.clone(),
        kind: name("kind"),
        list_kind: name("listKind"),
        plural: name("plural"),
        singular: name("singular"),
        short_names: names("shortNames"),
        categories: names("categories"),
        scope: if meta::string(definition, &["spec", "scope"]) == "Namespaced" {
            Scope::Namespaced
        } else {
            Scope::Cluster
        },
        verbs: Verbs::ALL,
        generation: true,
        name_rule: NameRule::DnsSubdomain,
        support: Support::Full,
        hooks: Hooks::NONE,
        semantics: Semantics {
            conditional_only: true,
            free_finalizers: true,
            status_alone: true,
            ..Semantics::default()
        },
        versions: versions.collect(),
        storage,
        index: Vec::new(),
        webhook: webhook(definition),
    };
    Some(resource.indexed())
}

fn served(definition: &Value, group: Cow<'static, str>, version: &Value) -> Served {
    let name = meta::string(version, &["name"]).to_string();
    let subresources = &version["subresources"];
    let mut all = Vec::new();
    let paths = subresources.get("scale").map(scale);
    if subresources.get("status").is_some() {
        all.push(subresource("status", Handler::Status, None));
    }
    if paths.is_some() {
        all.push(subresource("scale", Handler::Scale, Some(super::row::SCALE)));
    }
    let deprecated = (version["deprecated"] == true).then(|| match meta::str_at(version, &["deprecationWarning"]) {
        Some(own) => own.to_string().into(),
        None => {
            let kind = meta::string(definition, &["spec", "names", "kind"]);
            Cow::Owned(format!("{group}/{name} {kind} is deprecated"))
        }
    });
    Served {
        served: version["served"] == true,
        subresources: all,
        columns: columns_of(version),
        fields: meta::items(version, &["selectableFields"])
            .iter()
            .map(|field| selectable(meta::string(field, &["jsonPath"])))
            .collect(),
        scale: paths,
        custom: Some(Arc::new(Custom::of(definition, version))),
        deprecated,
        ..Served::of(group, name.into())
    }
}

fn subresource(
    name: &'static str,
    handler: Handler,
    kind: Option<(&'static str, &'static str, &'static str)>,
) -> Subresource {
    Subresource {
        name: name.into(),
        handler,
        verbs: Verbs::GET_PATCH_UPDATE,
        kind,
        deprecated: None,
    }
}

fn columns_of(version: &Value) -> Vec<super::Column> {
    let own = meta::items(version, &["additionalPrinterColumns"]);
    if own.is_empty() {
        return columns::custom_default();
    }
    // The first whose path is none ends them.
    let own = own.iter().map_while(custom_column);
    std::iter::once(columns::name()).chain(own).collect()
}

fn scale(scale: &Value) -> ScalePaths {
    let at = |key: &str| fields(meta::string(scale, &[key]));
    ScalePaths {
        spec_replicas: at("specReplicasPath"),
        status_replicas: at("statusReplicasPath"),
        selector: at("labelSelectorPath"),
    }
}

fn selectable(json_path: &str) -> Field {
    Field {
        label: json_path.trim_start_matches('.').to_string().into(),
        path: fields(json_path),
        at: 0,
    }
}

/// `.spec.replicas` as a path of fields: the simple paths that definitions name fields by.
fn fields(json_path: &str) -> Path {
    let names = json_path.split('.').filter(|name| !name.is_empty());
    names.map(|name| name.to_string().into()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_definition_is_a_row() {
        let definition = json!({
            "spec": {
                "group": "example.org", "scope": "Namespaced", "names": {"kind": "Car", "plural": "cars"},
                "versions": [
                    {"name": "v1beta1", "served": true, "storage": false, "deprecated": true},
                    {"name": "v1", "served": true, "storage": true,
                     "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
                     "selectableFields": [{"jsonPath": ".spec.color"}],
                     "additionalPrinterColumns": [
                        {"name": "N", "type": "integer", "jsonPath": ".spec.n", "priority": 1},
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]},
                    {"name": "v0", "served": false, "storage": false}]},
            "status": {"acceptedNames": {
                "kind": "Car", "plural": "cars", "singular": "car", "listKind": "CarList", "shortNames": ["c"], "categories": ["all"]}},
        });
        let resource = resource(&definition).unwrap();
        assert_eq!(resource.api_version(), "example.org/v1");
        assert_eq!((&*resource.list_kind, &*resource.singular), ("CarList", "car"));
        assert_eq!(
            (&resource.short_names[..], &resource.categories[..]),
            (&["c".into()][..], &["all".into()][..])
        );
        assert!(resource.serving("example.org", "v0").is_none());
        let beta = resource.serving("example.org", "v1beta1").unwrap();
        assert_eq!(
            beta.deprecated.as_deref(),
            Some("example.org/v1beta1 Car is deprecated")
        );
        assert!(!beta.has_status() && resource.stored().has_status());
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"n": 3, "color": "red"}});
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let cells = columns::cells(&resource.stored().columns, &object, now);
        assert_eq!(cells, [json!("a"), json!(3), json!("60s")]);
        assert_eq!(resource.selectable(&object).collect::<Vec<_>>(), ["red"]);
        assert_eq!(resource.stored().scale.as_ref().unwrap().spec_replicas, ["spec", "n"]);
    }

    /// Else its objects could not end: nobody could take their finalizers off.
    #[test]
    fn what_a_schema_that_can_not_be_read_left_keeps_what_it_is() {
        let version = json!({"schema": {"openAPIV3Schema": {"type": "object", "patternProperties": {"a": {}}}}});
        let custom = Custom::of(&json!({"spec": {"preserveUnknownFields": true}}), &version);
        let old = json!({"metadata": {"name": "a", "finalizers": ["a/b"]}, "spec": {"a": 1}});
        let with = |field: &str, value: Value| {
            let mut new = old.clone();
            new[field] = value;
            new
        };
        let right = |new: &Value, old: Option<&Value>| {
            let mut errors = Errors::new();
            custom.check(new, old, |_| (), &mut errors, &mut Vec::new());
            errors.is_empty()
        };
        assert!(right(&with("metadata", json!({"name": "a"})), Some(&old)));
        assert!(
            right(&with("apiVersion", "example.org/v2".into()), Some(&old)),
            "stored in another version before"
        );
        assert!(!right(&with("spec", json!({"a": 2})), Some(&old)));
        assert!(!right(&with("status", json!({})), Some(&old)) && !right(&old, Some(&with("status", json!({})))));
        assert!(!right(&old, None));
    }

    #[test]
    fn drafts_are_told_by_schemas_and_not_by_their_values() {
        let value = json!({"$schema": "https://example.org/s"});
        let schema = json!({"$schema": "d", "default": value, "properties": {
            "$schema": {"type": "string", "$schema": "d"}, "e": {"enum": [value], "not": {"$schema": "d"}}}});
        let without = json!({"default": value, "properties": {
            "$schema": {"type": "string"}, "e": {"enum": [value], "not": {}}}});
        assert_eq!(without_draft(schema), without);
    }

    #[test]
    fn a_document_is_another_when_what_it_shows_is() {
        let hash = |list: &str, field: &str| {
            let definition = json!({"spec": {"group": "example.org", "scope": "Namespaced", "versions": [
                {"name": "v1", "served": true, "storage": true, "selectableFields": [{"jsonPath": field}],
                 "schema": {"openAPIV3Schema": {"type": "object"}}}]},
                "status": {"acceptedNames": {"kind": "Car", "plural": "cars", "singular": "car", "listKind": list}}});
            let rows = [std::sync::Arc::new(resource(&definition).unwrap())];
            crate::openapi::v3_hash(&rows, "apis/example.org/v1").unwrap()
        };
        assert_eq!(hash("CarList", ".a"), hash("CarList", ".a"));
        assert_ne!(hash("CarList", ".a"), hash("CarList", ".b"));
        assert_ne!(hash("CarList", ".a"), hash("Cars", ".a"));
    }
}
