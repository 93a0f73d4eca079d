//! OpenAPI documents of the registry's rows: v3 per group version and its index, v2 as JSON and as gnostic protobuf.
//!
//! A document is made when it is asked for, definition by definition, straight into its bytes: no tree of the whole
//! ever exists, and nothing stays in memory.

mod custom;
mod definitions;
mod descriptions;
mod gnostic;
mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::{Value, json};

use self::custom::Customs;
use self::definitions::{closure, definition};
use self::descriptions::Descriptions;
use self::paths::Path;
use crate::registry::{Resource, Served};

/// The content type of the v2 document in protobuf.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The name by which clients ask for it.
pub const V2_PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The API's version, as the documents' `info` names it.
const VERSION: &str = "v1.35.4";

#[derive(Clone, Copy, PartialEq)]
enum Flavor {
    V2,
    V3,
}

impl Flavor {
    fn prefix(self) -> &'static str {
        match self {
            Flavor::V2 => "#/definitions/",
            Flavor::V3 => "#/components/schemas/",
        }
    }
}

/// Every served (group, version) of the rows, sorted.
fn group_versions(rows: &[Arc<Resource>]) -> BTreeSet<(&str, &str)> {
    served(rows)
        .map(|(_, version)| (&*version.group, &*version.name))
        .collect()
}

/// Every served version of the rows.
fn served(rows: &[Arc<Resource>]) -> impl Iterator<Item = (&Resource, &Served)> {
    rows.iter().flat_map(|row| {
        let versions = row.versions.iter().filter(|version| version.served);
        versions.map(move |version| (&**row, version))
    })
}

/// Changes when the document of a group version does: what the index shows and an ETag holds.
fn hash(rows: &[Arc<Resource>], wanted: Option<(&str, &str)>) -> String {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    crate::schema::TEXT.len().hash(&mut hasher);
    for (row, version) in served(rows) {
        if wanted.is_none_or(|wanted| wanted == (&*version.group, &*version.name)) {
            (&version.group, &version.name, &row.plural, &row.kind, row.verbs.0).hash(&mut hasher);
            for sub in &version.subresources {
                (&sub.name, sub.verbs.0, sub.kind).hash(&mut hasher);
            }
            version.custom.as_ref().map(|custom| custom.digest()).hash(&mut hasher);
        }
    }
    format!("{:016X}", hasher.finish())
}

/// The path of a group version under /openapi/v3: `api/v1`, `apis/apps/v1`.
fn place(group: &str, version: &str) -> String {
    paths::prefix(group, version).trim_start_matches('/').to_string()
}

/// `/openapi/v3`: the documents and their hashes.
pub fn v3_index(rows: &[Arc<Resource>]) -> Vec<u8> {
    let documents: BTreeMap<String, Value> = group_versions(rows)
        .into_iter()
        .map(|(group, version)| {
            let place = place(group, version);
            let hash = hash(rows, Some((group, version)));
            let url = format!("/openapi/v3/{place}?hash={hash}");
            (place, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": documents}).to_string().into_bytes()
}

/// The hash of the document at a place (`apis/apps/v1`); None when there is none.
pub fn v3_hash(rows: &[Arc<Resource>], wanted: &str) -> Option<String> {
    find(rows, wanted).map(|found| hash(rows, Some(found)))
}

fn find<'r>(rows: &'r [Arc<Resource>], wanted: &str) -> Option<(&'r str, &'r str)> {
    group_versions(rows)
        .into_iter()
        .find(|(group, version)| place(group, version) == wanted)
}

/// What a document of built-in kinds ends with: of custom ones upstream does not say how to come in.
const SECURED: &str = r#","securitySchemes":{"BearerToken":{"type":"apiKey","description":"Bearer Token authentication","name":"authorization","in":"header"}}}}"#;

/// The document at a place (`apis/apps/v1`).
pub fn v3(rows: &[Arc<Resource>], wanted: &str) -> Option<Vec<u8>> {
    let (group, version) = find(rows, wanted)?;
    let mut all: Vec<Path> = served(rows)
        .filter(|(_, own)| own.group == group && own.name == version)
        .flat_map(|(row, own)| paths::of_row(row, own))
        .collect();
    all.sort_by(|a, b| a.path.cmp(&b.path));
    let mut out = Writer::new(r#"{"openapi":"3.0.0","info":{"title":"Kubernetes","version":""#);
    out.raw(VERSION);
    out.raw(r#""},"paths":"#);
    out.object(all.iter().map(|path| (path.path.clone(), path.render(Flavor::V3))));
    out.raw(r#","components":{"schemas":"#);
    out.object(define(rows, &all, Flavor::V3));
    let custom = served(rows).any(|(_, own)| own.group == group && own.name == version && own.custom.is_some());
    out.raw(if custom { "}}" } else { SECURED });
    Some(out.bytes)
}

/// The definitions that some paths need, by their names.
fn define(rows: &[Arc<Resource>], paths: &[Path], flavor: Flavor) -> impl Iterator<Item = (String, Value)> {
    let (customs, words) = (Customs::of(rows), Descriptions::unpack());
    names(paths).into_iter().map(move |name| {
        let custom = customs.definition(&name, flavor, &words);
        let schema = custom.unwrap_or_else(|| definition(&name, flavor, &words));
        (name, schema)
    })
}

fn names(paths: &[Path]) -> BTreeSet<String> {
    let mut roots = BTreeSet::new();
    roots.extend(["ObjectMeta", "ListMeta"].map(|of| format!("{}{of}", definitions::META)));
    for path in paths {
        path.definitions(&mut roots);
    }
    roots.insert(format!("{}WatchEvent", definitions::META));
    closure(roots)
}

fn all_paths(rows: &[Arc<Resource>]) -> Vec<Path> {
    let mut all: Vec<Path> = served(rows)
        .flat_map(|(row, version)| paths::of_row(row, version))
        .collect();
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

/// The ETag of `/openapi/v2`.
pub fn v2_hash(rows: &[Arc<Resource>]) -> String {
    hash(rows, None)
}

/// `/openapi/v2` in JSON.
pub fn v2_json(rows: &[Arc<Resource>]) -> Vec<u8> {
    let all = all_paths(rows);
    let mut out = Writer::new(r#"{"swagger":"2.0","info":{"title":"Kubernetes","version":""#);
    out.raw(VERSION);
    out.raw(r#""},"paths":"#);
    out.object(all.iter().map(|path| (path.path.clone(), path.render(Flavor::V2))));
    out.raw(r#","definitions":"#);
    out.object(define(rows, &all, Flavor::V2));
    out.raw(r#","securityDefinitions":{"BearerToken":{"description":"Bearer Token authentication","type":"apiKey","name":"authorization","in":"header"}},"security":[{"BearerToken":[]}]}"#);
    out.bytes
}

/// `/openapi/v2` in gnostic's protobuf (openapi.v2.Document).
pub fn v2_protobuf(rows: &[Arc<Resource>]) -> Vec<u8> {
    let all = all_paths(rows);
    let mut document = gnostic::Document::new(VERSION);
    document.paths(all.iter().map(|path| (path.path.as_str(), path.render(Flavor::V2))));
    document.definitions(define(rows, &all, Flavor::V2));
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

    /// Every `$ref` of a document has its definition.
    fn check_references(value: &Value, prefix: &str, definitions: &serde_json::Map<String, Value>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    let name = target.strip_prefix(prefix).unwrap();
                    assert!(definitions.contains_key(name), "{name}");
                }
                map.values()
                    .for_each(|value| check_references(value, prefix, definitions));
            }
            Value::Array(items) => items
                .iter()
                .for_each(|value| check_references(value, prefix, definitions)),
            _ => {}
        }
    }

    #[test]
    fn every_group_version_has_a_document_whose_references_resolve() {
        let index: Value = serde_json::from_slice(&v3_index(builtin())).unwrap();
        let places = index["paths"].as_object().unwrap();
        assert!(places.contains_key("api/v1") && places.contains_key("apis/apps/v1"));
        for (place, entry) in places {
            let document: Value = serde_json::from_slice(&v3(builtin(), place).unwrap()).unwrap();
            let schemas = document["components"]["schemas"].as_object().unwrap();
            check_references(&document, "#/components/schemas/", schemas);
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
        check_references(&document, "#/definitions/", definitions);
        assert!(definitions.len() > 500);
        assert!(v2_protobuf(builtin()).len() > 1_000_000);
    }
}
