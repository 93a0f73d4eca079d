//! The way to a node's own server: its address from the Node's status, TLS with the apiserver-kubelet certificate.

use axum::body::Body;
use http::Uri;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mk8s_api::meta;
use mk8s_api::status::Status;
use serde_json::Value;

use crate::watch_cache::Cache;

/// Connections to the nodes, kept open between requests.
pub type NodeClient = Client<HttpsConnector<HttpConnector>, Body>;

pub fn client(config: rustls::ClientConfig) -> NodeClient {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .enable_http1()
        .build();
    Client::builder(TokioExecutor::new()).build(connector)
}

/// `https://ADDRESS:PORT` of a node's server.
pub fn address(cache: &Cache, node: &str) -> Result<String, Status> {
    let nodes = cache.resource("", "nodes");
    let object = nodes.and_then(|nodes| nodes.get("", node));
    let object = object.ok_or_else(|| Status::not_found("", "nodes", node))?.value()?;
    let (host, port) = endpoint(&object).ok_or_else(|| Status::internal(format!("node {node:?} states no address")))?;
    if host.contains(':') {
        return Ok(format!("https://[{host}]:{port}"));
    }
    Ok(format!("https://{host}:{port}"))
}

fn endpoint(node: &Value) -> Option<(String, i64)> {
    let addresses = meta::items(node, &["status", "addresses"]);
    let find = |wanted: &str| {
        addresses
            .iter()
            .find(|address| meta::string(address, &["type"]) == wanted)
            .map(|address| meta::string(address, &["address"]).to_string())
    };
    let host = find("InternalIP").or_else(|| find("Hostname"))?;
    let port = meta::i64_at(node, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"]);
    Some((host, port.unwrap_or(10_250)))
}

pub fn uri(text: &str) -> Result<Uri, Status> {
    text.parse()
        .map_err(|error| Status::internal(format!("the node's address {text:?}: {error}")))
}
