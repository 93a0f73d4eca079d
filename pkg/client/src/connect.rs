//! Building a `kube::Client`: on the router itself, or on HTTPS with certificates that may rotate under it.

use std::sync::Arc;
use std::time::Duration;

use http::header::USER_AGENT;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::Body;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use tower::{ServiceBuilder, ServiceExt};

/// A client of the API server in this process: no socket, no TLS, the same pipeline.
/// `router` states the component's identity (`ApiServer::router_as`).
pub fn in_process(router: axum::Router, user_agent: &str) -> kube::Client {
    let agent = header(user_agent);
    let service = ServiceBuilder::new()
        .map_request(move |mut request: Request<Body>| {
            request.headers_mut().insert(USER_AGENT, agent.clone());
            request
        })
        .service(router);
    kube::Client::new(service, "default")
}

/// Where the API server is and how this process proves itself to it.
pub struct Remote {
    /// `https://10.0.0.1:6443`
    pub server: String,
    /// The cluster's CA, the only one trusted.
    pub ca: Vec<CertificateDer<'static>>,
    /// The client certificate at any moment; none for a token or an anonymous client.
    pub certificate: Option<Arc<dyn ResolvesClientCert>>,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<String>,
    pub user_agent: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("{server:?} is not the URL of an API server such as https://10.0.0.1:6443")]
    Server { server: String },
    #[error("the cluster's CA certificate cannot be used: {0}")]
    Ca(rustls::Error),
    #[error("TLS set-up: {0}")]
    Tls(rustls::Error),
    #[error("the token holds characters that no HTTP header may")]
    Token,
}

/// A client over HTTPS (h2 where offered). A dead server is noticed within half a minute by h2 pings.
pub fn remote(remote: Remote) -> Result<kube::Client, RemoteError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in remote.ca {
        roots.add(certificate).map_err(RemoteError::Ca)?;
    }
    let tls = tls_builder()?.with_root_certificates(roots);
    let tls = match remote.certificate {
        Some(resolver) => tls.with_client_cert_resolver(resolver),
        None => tls.with_no_client_auth(),
    };
    over_tls(&remote.server, tls, &remote.user_agent, remote.token.as_deref())
}

/// A client that takes any certificate for the server's: for a join's first look at ConfigMap cluster-info, whose
/// content is verified by the token's signature and the pinned hash before it is believed.
pub fn untrusted(server: &str) -> Result<kube::Client, RemoteError> {
    let tls = tls_builder()?
        .dangerous()
        .with_custom_certificate_verifier(mk8s_pki::unverified::verifier())
        .with_no_client_auth();
    over_tls(server, tls, "mk8s", None)
}

fn tls_builder() -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>, RemoteError> {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(RemoteError::Tls)
}

fn over_tls(
    server: &str,
    tls: rustls::ClientConfig,
    user_agent: &str,
    token: Option<&str>,
) -> Result<kube::Client, RemoteError> {
    let wrong = || RemoteError::Server {
        server: server.to_string(),
    };
    let base: Uri = server.parse().map_err(|_| wrong())?;
    let authority = base.authority().cloned().ok_or_else(wrong)?;
    let mut http = hyper_util::client::legacy::connect::HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(Duration::from_secs(10)));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_all_versions()
        .wrap_connector(http);
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(Duration::from_secs(15))
        .http2_keep_alive_timeout(Duration::from_secs(15))
        .http2_keep_alive_while_idle(false)
        .build::<_, Body>(connector);
    let agent = header(user_agent);
    let bearer = match token {
        Some(token) => {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| RemoteError::Token)?;
            value.set_sensitive(true);
            Some(value)
        }
        None => None,
    };
    let service = ServiceBuilder::new()
        .map_request(move |mut request: Request<Body>| {
            *request.uri_mut() = absolute(request.uri(), &authority);
            request.headers_mut().insert(USER_AGENT, agent.clone());
            if let Some(bearer) = &bearer {
                request
                    .headers_mut()
                    .insert(http::header::AUTHORIZATION, bearer.clone());
            }
            request
        })
        .service(client.map_response(|response: Response<hyper::body::Incoming>| response));
    Ok(kube::Client::new(service, "default"))
}

fn absolute(uri: &Uri, authority: &Authority) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(authority.clone());
    parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

fn header(user_agent: &str) -> HeaderValue {
    HeaderValue::try_from(user_agent).unwrap_or(HeaderValue::from_static("mk8s"))
}
