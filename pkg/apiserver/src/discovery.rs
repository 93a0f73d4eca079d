//! Discovery, plain and aggregated, printed once from the registry's rows
//! (<https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api>).

use std::collections::HashMap;

use axum::body::Body;
use bytes::Bytes;
use http::header::{ETAG, IF_NONE_MATCH, VARY};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use mk8s_api::meta;
use mk8s_api::registry::Subresource;
use mk8s_api::status::Status;
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::negotiate::{self, Clause, Output};
use crate::request::Query;
use crate::respond;
use crate::rows::{Row, Rows};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

pub struct Discovery {
    /// By path.
    plain: HashMap<String, Value>,
    /// `/api` and `/apis`, with their ETag.
    aggregated: HashMap<&'static str, (Bytes, HeaderValue)>,
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
                plain.insert(
                    path,
                    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources}),
                );
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
        aggregated.insert("/api", etagged(&aggregate(rows, &core)));
        aggregated.insert("/apis", etagged(&aggregate(rows, &named)));
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
        if let Some((body, etag)) = self.aggregated.get(path) {
            let wanted = accept.iter().find_map(|clause| match kind_of(clause) {
                Accepts::Aggregated => Some(true),
                Accepts::Plain => Some(false),
                Accepts::Other => None,
            });
            if wanted == Some(true) {
                return Ok(aggregated_response(body, etag, parts));
            }
        }
        let output = Output::negotiate(&parts.headers, query, false, true)?;
        respond::value(StatusCode::OK, output, document.clone())
    }
}

enum Accepts {
    Aggregated,
    Plain,
    Other,
}

fn kind_of(clause: &Clause<'_>) -> Accepts {
    match (clause.media, clause.as_) {
        ("application/json" | "*/*" | "application/*" | "application/yaml", None) => Accepts::Plain,
        ("application/json", Some("APIGroupDiscoveryList"))
            if clause.group == Some("apidiscovery.k8s.io") && clause.version == Some("v2") =>
        {
            Accepts::Aggregated
        }
        _ => Accepts::Other,
    }
}

fn aggregated_response(body: &Bytes, etag: &HeaderValue, parts: &Parts) -> Response<Body> {
    if parts.headers.get(IF_NONE_MATCH) == Some(etag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().insert(ETAG, etag.clone());
        return response;
    }
    let mut response = respond::bytes(StatusCode::OK, AGGREGATED, body.clone());
    response.headers_mut().insert(ETAG, etag.clone());
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn etagged(value: &Value) -> (Bytes, HeaderValue) {
    let body = Bytes::from(value.to_string());
    let etag = format!("\"{}\"", hash(&body));
    let etag = HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"\""));
    (body, etag)
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

/// A resource and its subresources as APIResources.
fn resources(row: &Row) -> Vec<Value> {
    let resource = &row.resource;
    let mut own = Map::new();
    own.insert("name".into(), row.plural().into());
    own.insert("singularName".into(), json!(resource.singular));
    own.insert("namespaced".into(), resource.is_namespaced().into());
    own.insert("kind".into(), row.kind().into());
    own.insert("verbs".into(), resource.verbs.names().collect());
    put_names(&mut own, row);
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
            let mut metadata = json!({"creationTimestamp": null});
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
    let kind = |(group, version, kind): (&str, &str, &str)| json!({"group": group, "version": version, "kind": kind});
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
    entry.insert("verbs".into(), resource.verbs.names().collect());
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
