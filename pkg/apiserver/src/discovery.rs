//! Discovery, plain and aggregated, printed once from the registry's rows
//! (<https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api>).

use std::collections::HashMap;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use mk8s_api::meta;
use mk8s_api::registry::Subresource;
use mk8s_api::status::Status;
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::negotiate::{self, Clause, Encoding, Output, Shapes};
use crate::request::Query;
use crate::respond;
use crate::rows::{Row, Rows};

/// The aggregated form's media type in each encoding.
macro_rules! aggregated {
    ($media:literal) => {
        concat!($media, ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
    };
}

pub struct Discovery {
    /// By path.
    plain: HashMap<String, Value>,
    /// `/api` and `/apis`.
    aggregated: HashMap<&'static str, Aggregated>,
}

/// What is asked for by every client, as it is sent.
struct Aggregated {
    json: Bytes,
    etag: HeaderValue,
}

impl Discovery {
    pub fn new(rows: &Rows, config: &Config) -> Discovery {
        let mut plain = HashMap::new();
        let groups = groups(rows);
        let address = format!("{}:{}", config.advertise_address, config.secure_port);
        plain.insert(
            "/api".to_string(),
            json!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
            }),
        );
        let mut listed = Vec::new();
        for (group, versions) in &groups {
            for version in versions {
                let (path, api_version) = if group.is_empty() {
                    (format!("/api/{version}"), version.clone())
                } else {
                    (format!("/apis/{group}/{version}"), format!("{group}/{version}"))
                };
                let resources: Vec<Value> = of(rows, group, version).flat_map(resources).collect();
                let mut list = json!({"kind": "APIResourceList", "groupVersion": api_version, "resources": resources});
                // As it was before groups, and is told so still.
                if !group.is_empty() {
                    meta::set(&mut list, &["apiVersion"], "v1");
                }
                plain.insert(path, list);
            }
            if group.is_empty() {
                continue;
            }
            let described = described_group(group, versions);
            let mut alone = described.clone();
            meta::set(&mut alone, &["kind"], "APIGroup");
            meta::set(&mut alone, &["apiVersion"], "v1");
            plain.insert(format!("/apis/{group}"), alone);
            listed.push(described);
        }
        plain.insert(
            "/apis".into(),
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}),
        );
        let (core, named): (Vec<_>, Vec<_>) = groups.iter().partition(|(group, _)| group.is_empty());
        let mut aggregated = HashMap::new();
        aggregated.insert("/api", Aggregated::of(&aggregate(rows, &core)));
        aggregated.insert("/apis", Aggregated::of(&aggregate(rows, &named)));
        Discovery { plain, aggregated }
    }

    pub fn paths(&self) -> impl Iterator<Item = String> {
        self.plain.keys().cloned()
    }

    /// `/apis`
    pub fn groups(&self, parts: &Parts, query: &Query) -> Result<Response<Body>, Status> {
        self.all("/apis", parts, query)
    }

    /// `/api`
    pub fn versions(&self, parts: &Parts, query: &Query) -> Result<Response<Body>, Status> {
        self.all("/api", parts, query)
    }

    /// `/apis/GROUP`, with or without a slash after it.
    pub fn group(&self, path: &str) -> Option<&Value> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let group = path.strip_prefix("/apis/")?;
        (!group.contains('/')).then(|| self.plain.get(path)).flatten()
    }

    /// `/api`, `/api/VERSION`, `/apis/GROUP/VERSION`
    pub fn version(&self, path: &str) -> Option<&Value> {
        self.plain.get(path)
    }

    fn all(&self, path: &str, parts: &Parts, query: &Query) -> Result<Response<Body>, Status> {
        let document = self.plain.get(path).ok_or_else(respond::no_such_path)?;
        let accept = negotiate::accepted(&parts.headers);
        if let Some(aggregated) = self.aggregated.get(path)
            && let Some(Accepts::Aggregated(encoding)) = accept.iter().find_map(accepts)
        {
            return aggregated.answer(encoding, parts);
        }
        let output = Output::negotiate(&parts.headers, query, Shapes::None, true)?;
        respond::value(StatusCode::OK, output, document.clone())
    }
}

enum Accepts {
    Aggregated(Encoding),
    Plain,
}

/// What a clause of Accept asks for that there is.
fn accepts(clause: &Clause<'_>) -> Option<Accepts> {
    let encoding = match clause.media {
        negotiate::JSON | "*/*" | "application/*" => Encoding::Json,
        negotiate::YAML => Encoding::Yaml,
        negotiate::PROTOBUF => Encoding::Protobuf,
        _ => return None,
    };
    let asked = (clause.as_, clause.group, clause.version);
    match asked {
        (None, ..) => Some(Accepts::Plain),
        (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => Some(Accepts::Aggregated(encoding)),
        _ => None,
    }
}

impl Aggregated {
    fn of(document: &Value) -> Aggregated {
        let json = Bytes::from(format!("{document}\n"));
        let etag = HeaderValue::from_str(&format!("\"{}\"", hash(&json)));
        Aggregated {
            etag: etag.unwrap_or(HeaderValue::from_static("\"\"")),
            json,
        }
    }

    fn answer(&self, encoding: Encoding, parts: &Parts) -> Result<Response<Body>, Status> {
        if parts.headers.get(IF_NONE_MATCH) == Some(&self.etag) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().insert(ETAG, self.etag.clone());
            return Ok(response);
        }
        let mut response = match encoding {
            Encoding::Json => respond::bytes(StatusCode::OK, aggregated!("application/json"), self.json.clone()),
            // Asked for by nobody's default.
            other => {
                let document =
                    serde_json::from_slice(&self.json).map_err(|error| Status::internal(error.to_string()))?;
                let output = Output {
                    encoding: other,
                    ..Output::JSON
                };
                let mut response = respond::value(StatusCode::OK, output, document)?;
                let media = match other {
                    Encoding::Yaml => aggregated!("application/yaml"),
                    _ => aggregated!("application/vnd.kubernetes.protobuf"),
                };
                response
                    .headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static(media));
                response
            }
        };
        response.headers_mut().insert(ETAG, self.etag.clone());
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
        Ok(response)
    }
}

/// By which clients see that a kind came to be stored in another version; None where none is, or is not served.
fn storage_version_hash(row: &Row) -> Option<String> {
    let resource = &row.resource;
    let stored = resource.stored();
    if row.cache.is_none() || !stored.served {
        return None;
    }
    let kind = format!("{}/{}/{}", stored.group, stored.name, resource.kind);
    let digest = ring::digest::digest(&ring::digest::SHA256, kind.as_bytes());
    Some(STANDARD.encode(&digest.as_ref()[..8]))
}

/// SHA-256 in upper-case hex, as upstream's ETags.
pub fn hash(body: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, body);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Groups with their versions, both in the registry's order.
fn groups(rows: &Rows) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for row in rows.all() {
        let found = groups.iter().position(|(group, _)| group == row.group());
        let index = found.unwrap_or_else(|| {
            groups.push((row.group().to_string(), Vec::new()));
            groups.len() - 1
        });
        let versions = &mut groups[index].1;
        if !versions.iter().any(|own| own == row.version()) {
            versions.push(row.version().to_string());
        }
    }
    groups
}

fn of<'a>(rows: &'a Rows, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Row> {
    rows.all()
        .iter()
        .map(|row| &**row)
        .filter(move |row| row.group() == group && row.version() == version)
}

fn described_group(group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

fn put_names(into: &mut Map<String, Value>, row: &Row) {
    if !row.served().aliased {
        return;
    }
    if !row.resource.short_names.is_empty() {
        into.insert("shortNames".into(), json!(row.resource.short_names));
    }
    if !row.resource.categories.is_empty() {
        into.insert("categories".into(), json!(row.resource.categories));
    }
}

/// In alphabetical order; of custom kinds in one of their own.
fn verbs(row: &Row) -> Value {
    match row.schema {
        Some(_) => row.resource.verbs.names().collect(),
        None => json!([
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "create",
            "update",
            "watch"
        ]),
    }
}

/// A resource and its subresources as APIResources.
fn resources(row: &Row) -> Vec<Value> {
    let resource = &row.resource;
    let mut own = Map::new();
    own.insert("name".into(), row.plural().into());
    own.insert("singularName".into(), json!(resource.singular));
    own.insert("namespaced".into(), resource.is_namespaced().into());
    own.insert("kind".into(), row.kind().into());
    own.insert("verbs".into(), verbs(row));
    put_names(&mut own, row);
    if let Some(hash) = storage_version_hash(row) {
        own.insert("storageVersionHash".into(), hash.into());
    }
    let mut all = vec![Value::Object(own)];
    for subresource in &row.served().subresources {
        let mut entry = Map::new();
        entry.insert("name".into(), format!("{}/{}", row.plural(), subresource.name).into());
        entry.insert("singularName".into(), "".into());
        entry.insert("namespaced".into(), resource.is_namespaced().into());
        let (group, version, kind) = response_kind(row, subresource);
        if (group, version) != (row.group(), row.version()) {
            if !group.is_empty() {
                entry.insert("group".into(), group.into());
            }
            entry.insert("version".into(), version.into());
        }
        entry.insert("kind".into(), kind.into());
        entry.insert("verbs".into(), subresource.verbs.names().collect());
        all.push(Value::Object(entry));
    }
    all
}

fn response_kind<'a>(row: &'a Row, subresource: &'a Subresource) -> (&'a str, &'a str, &'a str) {
    match subresource.kind {
        Some(kind) => kind,
        None => (row.group(), row.version(), row.kind()),
    }
}

fn aggregate(rows: &Rows, groups: &[&(String, Vec<String>)]) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = of(rows, group, version).map(aggregated_resource).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let mut metadata = json!({});
            if !group.is_empty() {
                metadata["name"] = group.as_str().into();
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(row: &Row) -> Value {
    let resource = &row.resource;
    // Of a built-in kind, what is the version's own is told by two empty texts.
    let own = (row.group(), row.version());
    let kind = |(group, version, kind): (&str, &str, &str)| {
        let implied = row.served().custom.is_none() && (group, version) == own;
        let (group, version) = if implied { ("", "") } else { (group, version) };
        json!({"group": group, "version": version, "kind": kind})
    };
    let mut entry = Map::new();
    entry.insert("resource".into(), row.plural().into());
    entry.insert("responseKind".into(), kind((row.group(), row.version(), row.kind())));
    let scope = if resource.is_namespaced() {
        "Namespaced"
    } else {
        "Cluster"
    };
    entry.insert("scope".into(), scope.into());
    entry.insert("singularResource".into(), json!(resource.singular));
    entry.insert("verbs".into(), verbs(row));
    put_names(&mut entry, row);
    if !row.served().subresources.is_empty() {
        let subresources: Vec<Value> = row
            .served()
            .subresources
            .iter()
            .map(|subresource| {
                json!({
                    "subresource": subresource.name,
                    "responseKind": kind(response_kind(row, subresource)),
                    "verbs": subresource.verbs.names().collect::<Vec<_>>(),
                })
            })
            .collect();
        entry.insert("subresources".into(), subresources.into());
    }
    Value::Object(entry)
}
