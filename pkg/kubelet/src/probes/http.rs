//! An HTTP request to the container: any answer from 200 to 399 is a good one.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Outcome, dial_error, host_port, port};

const MAX_REDIRECTS: usize = 10;
const BODY_LIMIT: usize = 10 * 1024;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Dial(String),
    #[error("{0}")]
    Protocol(String),
    #[error("invalid URL {0:?}")]
    Url(String),
}

struct Call {
    scheme: String,
    host: String,
    port: u16,
    path: String,
    headers: Vec<(String, String)>,
}

impl Call {
    fn of(get: &HTTPGetAction, container: &Container, ip: &str) -> Option<Self> {
        let path = get.path.clone().unwrap_or_default();
        let headers = get
            .http_headers
            .iter()
            .flatten()
            .map(|h| (h.name.clone(), h.value.clone()));
        Some(Self {
            scheme: get.scheme.as_deref().unwrap_or("HTTP").to_lowercase(),
            host: get
                .host
                .clone()
                .filter(|h| !h.is_empty())
                .unwrap_or_else(|| ip.to_owned()),
            port: port(&get.port, container)?,
            path: if path.starts_with('/') {
                path
            } else {
                format!("/{path}")
            },
            headers: headers.collect(),
        })
    }

    fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, host_port(&self.host, self.port), self.path)
    }
}

pub async fn ask(get: &HTTPGetAction, container: &Container, ip: &str, timeout: Duration) -> Outcome {
    let Some(call) = Call::of(get, container, ip) else {
        return Outcome::Error(format!("invalid port number: {:?}", get.port));
    };
    let url = call.url();
    match tokio::time::timeout(timeout, follow(call, "kube-probe/1.35")).await {
        Ok(Ok(status)) if (200..400).contains(&status.as_u16()) => Outcome::Success,
        Ok(Ok(status)) => Outcome::Failure(format!("HTTP probe failed with statuscode: {}", status.as_u16())),
        Ok(Err(error)) => Outcome::Failure(format!("Get \"{url}\": {error}")),
        Err(_) => Outcome::Failure(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

/// A lifecycle hook's request: any answer at all will do, unless it says that it failed.
pub async fn hook(get: &HTTPGetAction, container: &Container, ip: &str) -> Result<(), String> {
    let call = Call::of(get, container, ip).ok_or_else(|| format!("invalid port number: {:?}", get.port))?;
    let url = call.url();
    match follow(call, "kube-lifecycle/1.35").await {
        Ok(status) if status.is_client_error() || status.is_server_error() => Err(format!(
            "HTTP lifecycle hook failed with statuscode: {}",
            status.as_u16()
        )),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("Get \"{url}\": {error}")),
    }
}

/// Redirects to the same host are followed; one that leads away is an answer itself.
async fn follow(mut call: Call, agent: &str) -> Result<StatusCode, Error> {
    for _ in 0..MAX_REDIRECTS {
        let (status, location) = once(&call, agent).await?;
        let Some(location) = location.filter(|_| status.is_redirection()) else {
            return Ok(status);
        };
        let Ok(target) = location.parse::<Uri>() else {
            return Ok(status);
        };
        if let Some(host) = target.host() {
            let port = target
                .port_u16()
                .unwrap_or(if target.scheme_str() == Some("https") { 443 } else { 80 });
            if host.trim_matches(['[', ']']) != call.host {
                return Ok(status);
            }
            call.port = port;
            call.scheme = target.scheme_str().unwrap_or("http").to_owned();
        }
        call.path = target
            .path_and_query()
            .map_or_else(|| "/".to_owned(), ToString::to_string);
    }
    Err(Error::Protocol(format!("stopped after {MAX_REDIRECTS} redirects")))
}

async fn once(call: &Call, agent: &str) -> Result<(StatusCode, Option<String>), Error> {
    let tcp = TcpStream::connect((call.host.as_str(), call.port)).await;
    let tcp = tcp.map_err(|e| Error::Dial(dial_error(&call.host, call.port, &e)))?;
    if call.scheme == "https" {
        let name = ServerName::try_from(call.host.clone()).map_err(|e| Error::Protocol(e.to_string()))?;
        let tls = TlsConnector::from(tls_config()?).connect(name, tcp).await;
        send(tls.map_err(|e| Error::Protocol(e.to_string()))?, call, agent).await
    } else {
        send(tcp, call, agent).await
    }
}

async fn send<S>(stream: S, call: &Call, agent: &str) -> Result<(StatusCode, Option<String>), Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let protocol = |e: &dyn std::fmt::Display| Error::Protocol(e.to_string());
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| protocol(&e))?;
    let mut request = Request::builder().method(Method::GET).uri(call.path.as_str());
    let mut has = (false, false, false);
    for (name, value) in &call.headers {
        match name.to_lowercase().as_str() {
            "host" => has.0 = true,
            "user-agent" => has.1 = true,
            "accept" => has.2 = true,
            _ => {}
        }
        request = request.header(name, value);
    }
    if !has.0 {
        request = request.header(header::HOST, host_port(&call.host, call.port));
    }
    if !has.1 {
        request = request.header(header::USER_AGENT, agent);
    }
    if !has.2 {
        request = request.header(header::ACCEPT, "*/*");
    }
    let request = request
        .header(header::CONNECTION, "close")
        .body(Empty::<bytes::Bytes>::new());
    let request = request.map_err(|_| Error::Url(call.url()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| protocol(&e))?;
        let location = response
            .headers()
            .get(header::LOCATION)
            .and_then(|l| l.to_str().ok())
            .map(str::to_owned);
        let status = response.status();
        // Read a little, so that a server that is still writing doesn't see its client vanish.
        let _ = Limited::new(response.into_body(), BODY_LIMIT).collect().await;
        Ok((status, location))
    };
    tokio::pin!(exchange);
    tokio::pin!(connection);
    tokio::select! {
        result = &mut exchange => result,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(protocol(&error)),
        },
    }
}

/// Probes don't verify certificates: they ask the pod's own address, for which no pod has a name.
fn tls_config() -> Result<Arc<ClientConfig>, Error> {
    static CONFIG: std::sync::OnceLock<Arc<ClientConfig>> = std::sync::OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Protocol(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(mk8s_pki::unverified::verifier())
        .with_no_client_auth();
    Ok(CONFIG.get_or_init(|| Arc::new(config)).clone())
}
