//! The node's HTTPS server on port 10250: the API server comes here for a container's logs (and streams). Nobody else is
//! let in: a client must show the certificate that names it as the API server's kubelet client.

mod dial;
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
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, View};
use crate::pod;

/// The common name in the API server's client certificate.
const CLIENT: &str = "kube-apiserver-kubelet-client";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("TLS of the node's server: {0}")]
    Tls(String),
    #[error("cannot listen on {0}: {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
}

/// Who is at the other end of a connection, by its certificate.
#[derive(Clone, Debug)]
struct Peer(Option<String>);

fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate.as_ref()).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

fn tls(agent: &Agent) -> Result<TlsAcceptor, Error> {
    let tls = |e: &dyn std::fmt::Display| Error::Tls(e.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(agent.config.client_ca.clone(), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| tls(&e))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| tls(&e))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(agent.config.server_certificate.clone());
    // Streams are upgrades, and those are HTTP/1.1's.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

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
    let acceptor = tls(&agent)?;
    let address = agent.config.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| Error::Listen(address, e))?;
    let router = router(agent);
    let connections = tokio_util::task::TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = token.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: the next may fare better.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, router, token) = (acceptor.clone(), router.clone(), token.clone());
        connections.spawn(async move {
            let limit = std::time::Duration::from_secs(10);
            let Ok(Ok(stream)) = tokio::time::timeout(limit, acceptor.accept(stream)).await else {
                return;
            };
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let peer = Peer(certificates.first().and_then(common_name));
            let service = router.layer(axum::Extension(peer));
            let service = TowerToHyperService::new(service);
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            tokio::select! {
                result = connection => if let Err(error) = result {
                    tracing::debug!(error, "a connection to the node's server ended");
                },
                () = token.cancelled() => {}
            }
        });
    }
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
