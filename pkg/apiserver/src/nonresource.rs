//! Paths that name no resource: health, version, metrics, discovery, OpenAPI, and the keys of service-account tokens.

use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use mk8s_api::status::Status;
use mk8s_api::time;
use serde_json::{Value, json};

use crate::negotiate::{self, Output, Shapes};
use crate::request::{Query, RequestInfo};
use crate::respond;
use crate::rows::Rows;
use crate::state::State;
use crate::{health, metrics, openapi, routes};

const PATHS: [&str; 9] = [
    "/.well-known/openid-configuration",
    "/api",
    "/api/v1",
    "/apis",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/version",
];

/// The roots of what is read by GET alone, at any number of slashes.
const SERVICES: [&str; 3] = ["/.well-known/openid-configuration", "/openid/v1/jwks", "/version"];

pub async fn handle(
    server: &Arc<State>,
    info: &RequestInfo,
    parts: &Parts,
    query: &Query,
) -> Result<Response<Body>, Status> {
    let path = &*info.path;
    if let Some(response) = health::answer(server, path, query) {
        return Ok(response);
    }
    let registry = server.registry();
    match path {
        "/" => index(server, parts, query),
        "/metrics" => Ok(measured(server)),
        "/openapi/v2" | "/openapi/v3" => openapi::handle(registry.documents(), path, parts, query).await,
        _ if path.starts_with("/openapi/v3/") => openapi::handle(registry.documents(), path, parts, query).await,
        "/apis" | "/apis/" => registry.discovery(server.config()).groups(parts, query),
        _ => match registry.discovery(server.config()).group(path) {
            Some(group) => answer(group.clone(), parts, query),
            None => service(server, path, parts, query),
        },
    }
}

/// What upstream serves as a web service: other methods are refused, slashes at the end are none of the path.
fn service(server: &State, path: &str, parts: &Parts, query: &Query) -> Result<Response<Body>, Status> {
    let registry = server.registry();
    let trimmed = path.trim_end_matches('/');
    let document = match trimmed {
        "/version" => version(server),
        "/openid/v1/jwks" => server.authenticator().authority().jwks(),
        "/.well-known/openid-configuration" => {
            let config = server.config();
            let address = format!("{}:{}", config.advertise_address, config.secure_port);
            server.authenticator().authority().discovery(&address)
        }
        _ => match registry.discovery(server.config()).version(trimmed) {
            Some(document) => document.clone(),
            None if is_of_a_service(registry.rows(), path) => return Err(respond::no_such_path()),
            None => return Ok(respond::no_such_page()),
        },
    };
    let custom = trimmed.strip_prefix("/apis/").and_then(|rest| rest.split('/').next());
    if custom.is_some_and(|group| !registry.rows().has_own(group)) {
        return answer(document, parts, query);
    }
    if parts.method != Method::GET {
        return Err(routes::not_allowed());
    }
    if trimmed == "/openid/v1/jwks" {
        negotiate::offers(&parts.headers, &["application/jwk-set+json"])?;
        let keys = document.to_string();
        return Ok(respond::bytes(StatusCode::OK, "application/jwk-set+json", keys));
    }
    if SERVICES.contains(&trimmed) {
        if trimmed == "/version" {
            negotiate::takes(&parts.headers, &[negotiate::JSON])?;
        }
        negotiate::offers(&parts.headers, &[negotiate::JSON])?;
        let output = Output::of_refusal(&parts.headers, query);
        let output = Output {
            encoding: negotiate::Encoding::Json,
            // A person reads this one, whatever they ask it with.
            pretty: output.pretty || trimmed == "/version",
            ..output
        };
        return respond::value(StatusCode::OK, output, document);
    }
    negotiate::takes(&parts.headers, negotiate::KINDS)?;
    negotiate::offers(&parts.headers, negotiate::KINDS)?;
    if trimmed == "/api" {
        return registry.discovery(server.config()).versions(parts, query);
    }
    answer(document, parts, query)
}

/// A document in the encoding that is asked for.
fn answer(document: Value, parts: &Parts, query: &Query) -> Result<Response<Body>, Status> {
    let output = Output::negotiate(&parts.headers, query, Shapes::None, true)?;
    respond::value(StatusCode::OK, output, document)
}

/// Whether a path is one of a root that is served, so that what is not there is missing as a part of it.
fn is_of_a_service(rows: &Rows, path: &str) -> bool {
    let below = |root: &str| {
        path.strip_prefix(root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let group = path.strip_prefix("/apis/").and_then(|rest| rest.split('/').next());
    below("/api")
        || group.is_some_and(|group| !group.is_empty() && rows.has_own(group))
        || SERVICES.into_iter().any(below)
}

fn index(server: &State, parts: &Parts, query: &Query) -> Result<Response<Body>, Status> {
    let registry = server.registry();
    let mut paths: Vec<String> = PATHS.iter().map(|path| (*path).to_string()).collect();
    paths.extend(registry.discovery(server.config()).paths());
    paths.extend(health::paths());
    paths.sort();
    paths.dedup();
    let output = Output {
        pretty: true,
        ..Output::of_refusal(&parts.headers, query)
    };
    let encoding = negotiate::Encoding::Json;
    respond::value(StatusCode::OK, Output { encoding, ..output }, json!({"paths": paths}))
}

fn measured(server: &State) -> Response<Body> {
    let registry = server.registry();
    let rows = registry.rows().all().iter();
    let requests = rows.map(|row| ((row.group(), row.version(), row.plural()), &row.requests));
    respond::bytes(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        metrics::print(server.metrics(), requests, server.cache()),
    )
}

fn version(server: &State) -> serde_json::Value {
    json!({
        "major": "1",
        "minor": "35",
        "emulationMajor": "1",
        "emulationMinor": "35",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "34",
        "gitVersion": server.config().version,
        "gitCommit": "mk8s",
        "gitTreeState": "clean",
        "buildDate": build_date(),
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_arch(std::env::consts::ARCH)),
    })
}

fn build_date() -> String {
    let seconds = env!("MK8S_BUILD_EPOCH").parse().unwrap_or_default();
    time::rfc3339(jiff::Timestamp::from_second(seconds).unwrap_or_default())
}

/// An architecture by Go's name, which clients compare with that of images and nodes.
fn go_arch(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
