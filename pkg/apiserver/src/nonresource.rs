//! Paths that name no resource: health, version, metrics, discovery, OpenAPI, and the keys of service-account tokens.

use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use mk8s_api::status::Status;
use mk8s_api::time;
use serde_json::json;

use crate::negotiate::Output;
use crate::request::{Query, RequestInfo};
use crate::respond;
use crate::state::State;
use crate::{health, metrics, openapi};

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

pub async fn handle(
    server: &Arc<State>,
    info: &RequestInfo,
    parts: &Parts,
    query: &Query,
    _body: Body,
) -> Result<Response<Body>, Status> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed("this path is read only"));
    }
    let path = info.path.trim_end_matches('/');
    let json = |value: serde_json::Value| {
        let output = Output {
            encoding: crate::negotiate::Encoding::Json,
            shape: crate::negotiate::Shape::Object,
            ..Output::negotiate(&parts.headers, query, false, false).unwrap_or(Output::JSON)
        };
        respond::value(StatusCode::OK, output, value)
    };
    if let Some(response) = health::answer(server, path, query) {
        return Ok(response);
    }
    match path {
        "" => {
            let mut paths: Vec<String> = PATHS.iter().map(|path| (*path).to_string()).collect();
            paths.extend(server.registry().discovery(server.config()).paths());
            paths.extend(health::paths());
            paths.sort();
            paths.dedup();
            json(json!({"paths": paths}))
        }
        "/version" => json(version(server)),
        "/metrics" => Ok(respond::bytes(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            metrics::print(
                server.metrics(),
                server
                    .registry()
                    .rows()
                    .all()
                    .iter()
                    .map(|row| ((row.group(), row.version(), row.plural()), &row.requests)),
                server.cache(),
            ),
        )),
        "/openid/v1/jwks" => {
            let keys = server.authenticator().authority().jwks().to_string();
            Ok(respond::bytes(StatusCode::OK, "application/jwk-set+json", keys))
        }
        "/.well-known/openid-configuration" => {
            let config = server.config();
            let address = format!("{}:{}", config.advertise_address, config.secure_port);
            let document = server.authenticator().authority().discovery(&address);
            json(document)
        }
        _ if path.starts_with("/openapi/") => openapi::handle(server.registry().documents(), path, parts, query).await,
        _ => server.registry().discovery(server.config()).handle(path, parts, query),
    }
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
