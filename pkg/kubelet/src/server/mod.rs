//! The node's HTTPS server on port 10250: the API server comes here for a container's logs (and streams). Nobody else is
//! let in: a client must show the certificate that names it as the API server's kubelet client.

mod dial;
mod listener;
mod log_lines;
mod log_reader;
mod logs;
mod portforward;
mod portforward_channels;
mod query;
mod remotecommand;
mod session;
mod spdy;
mod spdy_channels;
mod status;
mod upgrade;
mod websocket;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use tokio_util::sync::CancellationToken;

use self::listener::{Limits, Server};
use crate::agent::{Agent, View};
use crate::pod;

/// The common name in the API server's client certificate.
const CLIENT: &str = "kube-apiserver-kubelet-client";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("TLS of the node's server: {0}")]
    Tls(#[from] rustls::Error),
    #[error("who may connect to the node's server: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("cannot listen on {0}: {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
}

/// Who is at the other end of a connection, by its certificate.
#[derive(Clone, Debug)]
struct Peer(Option<String>);

fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::handle))
        .route(
            "/exec/{namespace}/{pod}/{container}",
            get(remotecommand::exec).post(remotecommand::exec),
        )
        .route(
            "/attach/{namespace}/{pod}/{container}",
            get(remotecommand::attach).post(remotecommand::attach),
        )
        .route(
            "/portForward/{namespace}/{pod}",
            get(portforward::handle).post(portforward::handle),
        )
        .layer(middleware::from_fn(only_the_api_server))
        .with_state(agent)
}

async fn only_the_api_server(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().and_then(|p| p.0.clone());
    match peer.as_deref() {
        Some(CLIENT) => next.run(request).await,
        None => (StatusCode::UNAUTHORIZED, "Unauthorized").into_response(),
        Some(other) => {
            let text = format!("Forbidden (user={other}, verb=get, resource=nodes, subresource=proxy)");
            (StatusCode::FORBIDDEN, text).into_response()
        }
    }
}

pub async fn serve(agent: Arc<Agent>, token: CancellationToken) -> Result<(), Error> {
    let config = &agent.config;
    let (certificate, client_ca) = (config.server_certificate.clone(), config.client_ca.clone());
    let server = Server::bind(config.listen, certificate, client_ca, Limits::default()).await?;
    server.run(router(agent), token).await;
    Ok(())
}

/// The pods as this node has them.
async fn pods(State(agent): State<Arc<Agent>>) -> Response {
    let pods: Vec<Arc<k8s_openapi::api::core::v1::Pod>> = agent
        .workers
        .lock()
        .values()
        .map(|w| w.view.borrow().pod.clone())
        .collect();
    let list = serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods});
    ([(http::header::CONTENT_TYPE, "application/json")], list.to_string()).into_response()
}

/// The pod of that name, as its worker last showed it.
pub fn find(agent: &Agent, namespace: &str, name: &str) -> Option<Arc<View>> {
    let table = agent.workers.lock();
    let views = table.values().map(|w| w.view.borrow().clone());
    let mut found: Vec<Arc<View>> = views
        .filter(|v| pod::namespace(&v.pod) == namespace && pod::name(&v.pod) == name)
        .collect();
    // A deleted pod and its successor may both be here for a moment.
    found.sort_by_key(|v| pod::deleting(&v.pod));
    found.into_iter().next()
}
