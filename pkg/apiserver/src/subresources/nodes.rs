//! The way to a node's own server: its address from the Node's status, TLS with the apiserver-kubelet certificate.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use mk8s_api::meta;
use mk8s_api::status::Status;
use mk8s_http::{Builder, Client};
use mk8s_pki::unverified;
use serde_json::Value;

use crate::lane::AtHome;
use crate::state::State;
use crate::watch_cache::Cache;

/// How long something on a node may take to accept a connection: upstream's bound.
const CONNECT: Duration = Duration::from_secs(30);
/// A connection to a pod that nothing uses is closed.
const IDLE: Duration = Duration::from_secs(30);

/// Connections to the nodes, kept open between requests.
pub fn client(config: rustls::ClientConfig) -> Client {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .enable_http1()
        .build();
    let home = AtHome::current();
    Client::new(&Builder::new(home.clone()), home.connector(connector))
}

/// The server's own client of nodes.
pub fn client_of(state: &State) -> Result<&Client, Status> {
    let client = state.node_client();
    client.ok_or_else(|| Status::unavailable("this API server has no certificate for the nodes"))
}

/// For what runs on the nodes, whose certificates prove nothing: no pod has a name.
pub fn proxy_client() -> Result<Client, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(unverified::verifier())
        .with_no_client_auth();
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    let home = AtHome::current();
    let mut pool = Builder::new(home.clone());
    pool.pool_idle_timeout(IDLE).pool_max_idle_per_host(8);
    Ok(Client::new(&pool, home.connector(connector)))
}

/// `https://ADDRESS:PORT` of a node's server.
pub fn address(cache: &Cache, node: &str) -> Result<String, Status> {
    let (host, port) = endpoint(cache, node)?;
    if host.contains(':') {
        return Ok(format!("https://[{host}]:{port}"));
    }
    Ok(format!("https://{host}:{port}"))
}

/// Address and port of a node's server.
pub fn endpoint(cache: &Cache, node: &str) -> Result<(String, i64), Status> {
    let nodes = cache.resource("", "nodes");
    let object = nodes.and_then(|nodes| nodes.get("", node));
    let object = object.ok_or_else(|| Status::not_found("", "nodes", node))?.value()?;
    stated(&object).ok_or_else(|| unaddressed(&object))
}

fn unaddressed(node: &Value) -> Status {
    let known = meta::items(node, &["status", "addresses"]).iter();
    let known = known.map(|own| {
        format!(
            "{{{} {}}}",
            meta::string(own, &["type"]),
            meta::string(own, &["address"])
        )
    });
    let known = known.collect::<Vec<_>>().join(" ");
    Status::new(
        500,
        "",
        format!("no preferred addresses found; known addresses: [{known}]"),
    )
}

fn stated(node: &Value) -> Option<(String, i64)> {
    let addresses = meta::items(node, &["status", "addresses"]);
    let find = |wanted: &str| {
        addresses
            .iter()
            .find(|address| meta::string(address, &["type"]) == wanted)
            .map(|address| meta::string(address, &["address"]).to_string())
    };
    let host = find("InternalIP").or_else(|| find("Hostname"))?;
    let port = meta::i64_at(node, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"]);
    Some((host, port.filter(|port| *port > 0).unwrap_or(10_250)))
}

pub fn uri(text: &str) -> Result<Uri, Status> {
    text.parse()
        .map_err(|error| Status::internal(format!("the node's address {text:?}: {error}")))
}
