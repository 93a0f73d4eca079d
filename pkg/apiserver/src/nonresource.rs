//! Paths that name no resource: health, version, metrics, discovery, OpenAPI, and the keys of service-account tokens.

use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use mk8s_api::status::Status;
use serde_json::json;

use crate::negotiate::Output;
use crate::request::{Query, RequestInfo};
use crate::respond;
use crate::state::State;
use crate::{metrics, openapi};

const PATHS: [&str; 14] = [
    "/.well-known/openid-configuration",
    "/api",
    "/api/v1",
    "/apis",
    "/healthz",
    "/healthz/ping",
    "/livez",
    "/livez/ping",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
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
    match path {
        "" => {
            let mut paths: Vec<String> = PATHS.iter().map(|path| (*path).to_string()).collect();
            paths.extend(server.discovery().paths());
            paths.sort();
            paths.dedup();
            json(json!({"paths": paths}))
        }
        "/version" => json(version(server)),
        "/healthz" | "/livez" | "/readyz" => Ok(health(path, query)),
        "/healthz/ping" | "/livez/ping" | "/readyz/ping" => Ok(text("ok")),
        "/metrics" => Ok(respond::bytes(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            metrics::print(server.metrics(), server.rows().all(), server.cache()),
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
        _ if path.starts_with("/openapi/") => openapi::handle(server.documents(), path, parts, query).await,
        _ => server.discovery().handle(path, parts, query),
    }
}

fn text(body: &'static str) -> Response<Body> {
    respond::bytes(StatusCode::OK, "text/plain; charset=utf-8", body)
}

/// Everything this process needs is up once it answers: the store was opened and the cache filled before.
fn health(path: &str, query: &Query) -> Response<Body> {
    let name = path.trim_start_matches('/');
    if query.get("verbose").is_none() {
        return text("ok");
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut body = String::new();
    for check in ["ping", "log", "store", "informer-sync"] {
        if excluded.contains(&check) {
            body.push_str(&format!("[+]{check} excluded: ok\n"));
        } else {
            body.push_str(&format!("[+]{check} ok\n"));
        }
    }
    body.push_str(&format!("{name} check passed\n"));
    respond::bytes(StatusCode::OK, "text/plain; charset=utf-8", body)
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
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": "linux/amd64",
    })
}
