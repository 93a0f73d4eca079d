//! Building a `kube::Client`: on the router itself, or on HTTPS with certificates that may rotate under it, to whichever of
//! several API servers can be reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::header::USER_AGENT;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::Body;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};

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

/// Until an API server has taken a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(15);

/// Where the API servers are and how this process proves itself to them.
pub struct Remote {
    /// `https://10.0.0.1:6443`, at least one. All are masters of the same cluster: a connection is made to the one that was
    /// reached last, or else to the next that can be.
    pub servers: Vec<String>,
    /// The cluster's CA, the only one trusted.
    pub ca: Vec<CertificateDer<'static>>,
    /// The client certificate at any moment; none for a token or an anonymous client.
    pub certificate: Option<Arc<dyn ResolvesClientCert>>,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<String>,
    /// As the API server logs it: `mk8s/v1.35.4+mk8s.1`.
    pub user_agent: String,
}

/// Why there is no client. Whether a server can be reached shows with the first request.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The list of servers is empty.
    #[error("no API server is named")]
    NoServer,
    /// One of the servers is no URL with a host.
    #[error("{server:?} is not the URL of an API server such as https://10.0.0.1:6443")]
    Server {
        /// As it was given.
        server: String,
    },
    /// The CA's certificate is none.
    #[error("the cluster's CA certificate cannot be used: {0}")]
    Ca(rustls::Error),
    /// rustls lacks what it needs.
    #[error("TLS set-up: {0}")]
    Tls(rustls::Error),
    /// The token is no header's value.
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
    over_tls(&remote.servers, tls, &remote.user_agent, remote.token.as_deref())
}

/// A client that takes any certificate for the server's: for a join's first look at ConfigMap cluster-info, whose
/// content is verified by the token's signature and the pinned hash before it is believed.
pub fn untrusted(server: &str) -> Result<kube::Client, RemoteError> {
    let tls = tls_builder()?
        .dangerous()
        .with_custom_certificate_verifier(mk8s_pki::unverified::verifier())
        .with_no_client_auth();
    over_tls(&[server.to_string()], tls, "mk8s", None)
}

fn tls_builder() -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>, RemoteError> {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(RemoteError::Tls)
}

/// A server's URL, which has to name a host.
fn endpoint(server: &str) -> Result<Uri, RemoteError> {
    let parsed = server.parse::<Uri>().ok().filter(|uri| uri.authority().is_some());
    parsed.ok_or_else(|| RemoteError::Server {
        server: server.to_string(),
    })
}

fn over_tls(
    servers: &[String],
    tls: rustls::ClientConfig,
    user_agent: &str,
    token: Option<&str>,
) -> Result<kube::Client, RemoteError> {
    let endpoints = servers
        .iter()
        .map(|server| endpoint(server))
        .collect::<Result<Vec<Uri>, _>>()?;
    // Of all connections: which server they lead to is the connector's to know.
    let authority = endpoints.first().and_then(|first| first.authority().cloned());
    let authority = authority.ok_or(RemoteError::NoServer)?;
    let mut http = hyper_util::client::legacy::connect::HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(Duration::from_secs(10)));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_all_versions()
        .wrap_connector(http);
    let connector = Failover {
        connector,
        endpoints: endpoints.into(),
        reached: Arc::default(),
    };
    let mut pool = mk8s_http::Builder::new(TokioExecutor::new());
    pool.timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(Duration::from_secs(15))
        .http2_keep_alive_timeout(Duration::from_secs(15))
        .http2_keep_alive_while_idle(false);
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
        .service(mk8s_http::Client::new(&pool, connector));
    Ok(kube::Client::new(service, "default"))
}

/// Connects to one of several servers, whatever the URI asked for.
#[derive(Clone)]
struct Failover<C> {
    connector: C,
    endpoints: Arc<[Uri]>,
    /// The index of the one reached last.
    reached: Arc<AtomicUsize>,
}

impl<C> Service<Uri> for Failover<C>
where
    C: Service<Uri> + Clone + Send + 'static,
    C::Response: Send,
    C::Future: Send,
    C::Error: Into<BoxError> + Send,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<C::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Failover {
            connector,
            endpoints,
            reached,
        } = self.clone();
        Box::pin(async move {
            let first = reached.load(Ordering::Relaxed);
            let mut failure = BoxError::from("no API server is named");
            for turn in 0..endpoints.len() {
                let at = (first + turn) % endpoints.len();
                let attempt = connector.clone().oneshot(endpoints[at].clone());
                match tokio::time::timeout(CONNECT, attempt).await {
                    Ok(Ok(connection)) => {
                        reached.store(at, Ordering::Relaxed);
                        return Ok(connection);
                    }
                    Ok(Err(error)) => failure = error.into(),
                    Err(elapsed) => failure = elapsed.into(),
                }
                if endpoints.len() > 1 {
                    tracing::debug!(server = %endpoints[at], error = %failure, "cannot be reached");
                }
            }
            Err(failure)
        })
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_can_be_reached_is_found_and_kept() {
        let (tried, down) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(vec!["a"])));
        let connector = tower::service_fn({
            let (tried, down) = (tried.clone(), down.clone());
            move |uri: Uri| {
                let host = uri.host().unwrap().to_string();
                tried.lock().push(host.clone());
                let (hangs, refuses) = (host == "hangs", down.lock().contains(&host.as_str()));
                async move {
                    if hangs {
                        std::future::pending::<()>().await;
                    }
                    if refuses { Err("refused") } else { Ok(host) }
                }
            }
        });
        let endpoints = ["https://a:1", "https://hangs:2", "https://b:3"].map(|server| endpoint(server).unwrap());
        let mut failover = Failover {
            connector,
            endpoints: endpoints.into(),
            reached: Arc::default(),
        };
        let any = Uri::from_static("https://any");
        for (refusing, expected, asked) in [
            (vec!["a"], Some("b"), vec!["a", "hangs", "b"]),
            (vec![], Some("b"), vec!["b"]),
            (vec!["b"], Some("a"), vec!["b", "a"]),
            (vec!["a", "b"], None, vec!["a", "hangs", "b"]),
        ] {
            *down.lock() = refusing;
            tried.lock().clear();
            let reached = failover.call(any.clone()).await;
            assert_eq!(reached.ok().as_deref(), expected);
            assert_eq!(*tried.lock(), asked);
        }
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for servers in [
            vec![],
            vec!["/api".to_string()],
            vec!["https://a".into(), "not a url".into()],
        ] {
            let remote = remote(Remote {
                servers,
                ca: Vec::new(),
                certificate: None,
                token: None,
                user_agent: "test".into(),
            });
            assert!(remote.is_err());
        }
    }
}
