//! OpenAPI documents of the registry's rows: v3 per group version and its index, v2 as JSON and as gnostic protobuf.
//!
//! A document is made when it is asked for, definition by definition, straight into its bytes: no tree of the whole
//! ever exists, and nothing stays in memory.

mod custom;
mod definitions;
mod descriptions;
mod documents;
mod gnostic;
mod names;
mod operation;
mod parameters;
mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::{Value, json};

use self::custom::Customs;
use self::definitions::{closure, definition};
use self::descriptions::Descriptions;
use self::documents::documents;
use self::names::Flavor;
use self::operation::Path;
use crate::registry::{Resource, Served};

/// The content type of the v2 document in protobuf.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The name by which clients ask for it.
pub const V2_PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The API's version, as the documents' `info` names it.
const VERSION: &str = "1.35";

/// Every served version of the rows.
fn served(rows: &[Arc<Resource>]) -> impl Iterator<Item = (&Resource, &Served)> {
    rows.iter().flat_map(|row| {
        let versions = row.versions.iter().filter(|version| version.served);
        versions.map(move |version| (&**row, version))
    })
}

/// Changes when the document of some versions does: what the index shows and an ETag holds.
fn hash<'r>(place: &str, versions: impl Iterator<Item = (&'r Resource, &'r Served)>) -> String {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), crate::schema::TEXT.len(), place).hash(&mut hasher);
    for (row, version) in versions {
        let names = (&row.plural, &row.kind, &row.list_kind);
        (&version.group, &version.name, names, row.verbs.0).hash(&mut hasher);
        version.fields.iter().for_each(|field| field.label.hash(&mut hasher));
        for sub in &version.subresources {
            (&sub.name, sub.verbs.0, sub.kind).hash(&mut hasher);
        }
        version.custom.as_ref().map(|custom| custom.digest()).hash(&mut hasher);
    }
    format!("{:016X}", hasher.finish())
}

/// `/openapi/v3`: the documents and their hashes.
pub fn v3_index(rows: &[Arc<Resource>]) -> Vec<u8> {
    let documents: BTreeMap<String, Value> = documents(rows)
        .into_iter()
        .map(|(place, document)| {
            let hash = document.hash(&place, rows);
            let url = format!("/openapi/v3/{place}?hash={hash}");
            (place, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": documents}).to_string().into_bytes()
}

/// The hash of the document at a place (`apis/apps/v1`); None when there is none.
pub fn v3_hash(rows: &[Arc<Resource>], wanted: &str) -> Option<String> {
    let document = documents(rows).remove(wanted)?;
    Some(document.hash(wanted, rows))
}

const SECURED: &str = r#""securitySchemes":{"BearerToken":{"type":"apiKey","description":"Bearer Token authentication","name":"authorization","in":"header"}}"#;

/// The document at a place (`apis/apps/v1`).
pub fn v3(rows: &[Arc<Resource>], wanted: &str) -> Option<Vec<u8>> {
    let document = documents(rows).remove(wanted)?;
    let mut all = document.paths(rows);
    all.sort_by(|a, b| a.path.cmp(&b.path));
    let mut out = Writer::new(r#"{"openapi":"3.0.0","info":{"title":"Kubernetes","version":""#);
    out.raw(VERSION);
    out.raw(r#""},"paths":"#);
    out.object(all.iter().map(|path| (path.path.clone(), path.render(Flavor::V3))));
    out.raw(r#","components":{"#);
    let custom = document.versions(rows).any(|(_, own)| own.custom.is_some());
    let names = names(&all, custom);
    if !names.is_empty() {
        out.raw(r#""schemas":"#);
        out.object(define(rows, names, Flavor::V3));
        out.raw(if custom { "" } else { "," });
    }
    // Of custom kinds upstream does not say how to come in.
    out.raw(if custom { "" } else { SECURED });
    out.raw("}}");
    Some(out.bytes)
}

/// These definitions, with their names.
fn define(rows: &[Arc<Resource>], names: BTreeSet<String>, flavor: Flavor) -> impl Iterator<Item = (String, Value)> {
    let (customs, words) = (Customs::of(rows), Descriptions::unpack());
    names.into_iter().map(move |name| {
        let custom = customs.definition(&name, flavor, &words);
        let schema = custom.unwrap_or_else(|| definition(&name, flavor, &words));
        (name, schema)
    })
}

/// The definitions that some paths need.
fn names(paths: &[Path], custom: bool) -> BTreeSet<String> {
    let mut roots = BTreeSet::new();
    if custom {
        roots.extend(["ObjectMeta", "ListMeta"].map(|of| format!("{}{of}", names::META)));
    }
    for path in paths {
        path.definitions(&mut roots);
    }
    closure(roots)
}

fn all_paths(rows: &[Arc<Resource>]) -> Vec<Path> {
    let mut all: Vec<Path> = documents(rows)
        .values()
        .flat_map(|document| document.paths(rows))
        .collect();
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

/// The ETag of `/openapi/v2`.
pub fn v2_hash(rows: &[Arc<Resource>]) -> String {
    hash("", served(rows))
}

/// `/openapi/v2` in JSON.
pub fn v2_json(rows: &[Arc<Resource>]) -> Vec<u8> {
    let all = all_paths(rows);
    let mut out = Writer::new(r#"{"swagger":"2.0","info":{"title":"Kubernetes","version":""#);
    out.raw(VERSION);
    out.raw(r#""},"paths":"#);
    out.object(all.iter().map(|path| (path.path.clone(), path.render(Flavor::V2))));
    out.raw(r#","definitions":"#);
    out.object(define(rows, names(&all, true), Flavor::V2));
    out.raw(r#","parameters":"#);
    out.object(parameters::shared());
    out.raw(r#","securityDefinitions":{"BearerToken":{"description":"Bearer Token authentication","type":"apiKey","name":"authorization","in":"header"}},"security":[{"BearerToken":[]}]}"#);
    out.bytes
}

/// `/openapi/v2` in gnostic's protobuf (openapi.v2.Document).
pub fn v2_protobuf(rows: &[Arc<Resource>]) -> Vec<u8> {
    let all = all_paths(rows);
    let mut document = gnostic::Document::new(VERSION);
    document.paths(all.iter().map(|path| (path.path.as_str(), path.render(Flavor::V2))));
    document.definitions(define(rows, names(&all, true), Flavor::V2));
    document.parameters(parameters::shared());
    document.finish()
}

/// JSON text put together from parts.
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn new(start: &str) -> Self {
        let mut bytes = Vec::with_capacity(1 << 20);
        bytes.extend_from_slice(start.as_bytes());
        Writer { bytes }
    }

    fn raw(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn object(&mut self, entries: impl Iterator<Item = (String, Value)>) {
        let mut separator = b'{';
        for (key, value) in entries {
            self.bytes.push(separator);
            separator = b',';
            self.value(&Value::String(key));
            self.bytes.push(b':');
            self.value(&value);
        }
        if separator == b'{' {
            self.bytes.push(b'{');
        }
        self.bytes.push(b'}');
    }

    fn value(&mut self, value: &Value) {
        // Writing to memory does not fail.
        let _ = serde_json::to_writer(&mut self.bytes, value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::registry::builtin;

    /// Every `$ref` of a document, and its part, points at something in it.
    fn check_references(value: &Value, document: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    let pointer = target.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{target}");
                }
                map.values().for_each(|value| check_references(value, document));
            }
            Value::Array(items) => items.iter().for_each(|value| check_references(value, document)),
            _ => {}
        }
    }

    #[test]
    fn every_group_version_has_a_document_whose_references_resolve() {
        let index: Value = serde_json::from_slice(&v3_index(builtin())).unwrap();
        let places = index["paths"].as_object().unwrap();
        for place in ["api", "api/v1", "apis", "apis/apps", "apis/apps/v1", "version"] {
            assert!(places.contains_key(place), "{place}");
        }
        for (place, entry) in places {
            let document: Value = serde_json::from_slice(&v3(builtin(), place).unwrap()).unwrap();
            check_references(&document, &document);
            assert!(!document["paths"].as_object().unwrap().is_empty(), "{place}");
            let url = entry["serverRelativeURL"].as_str().unwrap();
            assert!(url.ends_with(&v3_hash(builtin(), place).unwrap()));
        }
        assert_eq!(v3(builtin(), "apis/nope/v1"), None);
    }

    #[test]
    fn an_operation_and_a_property_read_as_upstreams() {
        let document: Value = serde_json::from_slice(&v3(builtin(), "apis/apps/v1").unwrap()).unwrap();
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "version": "v1", "kind": "Deployment"})
        );
        let names: Vec<&str> = patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|it| it["name"].as_str())
            .collect();
        assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
        let schemas = &document["components"]["schemas"];
        let ports = &schemas["io.k8s.api.core.v1.Container"]["properties"]["ports"];
        assert_eq!(
            ports["x-kubernetes-list-map-keys"],
            json!(["containerPort", "protocol"])
        );
        assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
        assert_eq!(ports["items"]["default"], json!({}));
        let protocol = &schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"];
        assert_eq!(protocol["default"], "TCP");
        assert_eq!(protocol["enum"], json!(["SCTP", "TCP", "UDP"]));
    }

    #[test]
    fn version_2_resolves_too() {
        let document: Value = serde_json::from_slice(&v2_json(builtin())).unwrap();
        let definitions = document["definitions"].as_object().unwrap();
        check_references(&document, &document);
        assert!(definitions.len() > 500);
        assert!(v2_protobuf(builtin()).len() > 1_000_000);
    }
}
