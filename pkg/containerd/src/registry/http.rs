//! HTTP to registries: one client per TLS configuration, redirects, bounded waits.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mk8s_http::{Builder, Client};
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::config::TlsFiles;

/// For an answer's head; upstream gives a registry thirty seconds to connect.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// For the next bytes of a body.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection that nothing uses is closed.
const IDLE: Duration = Duration::from_secs(30);
const REDIRECTS: usize = 10;
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Why a request has no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct NoAnswer {
    message: String,
    transient: bool,
}

impl NoAnswer {
    /// The connection was there and broke, or nothing came: the next one may do better.
    pub(super) fn broken(message: impl Into<String>) -> NoAnswer {
        NoAnswer {
            message: message.into(),
            transient: true,
        }
    }

    /// Asking again at once finds the same: a name that does not resolve, a closed port, a certificate that is not trusted,
    /// settings that don't fit. The caller's back-off wants to know now.
    pub(super) fn lasting(message: impl Into<String>) -> NoAnswer {
        NoAnswer {
            message: message.into(),
            transient: false,
        }
    }

    pub(super) fn is_transient(&self) -> bool {
        self.transient
    }
}

#[derive(Default)]
pub(super) struct Clients {
    /// By host: its TLS files as they were, and the client made from them.
    by_host: Mutex<HashMap<String, (TlsFiles, Client)>>,
}

/// What is asked, to be asked again after a redirect.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) uri: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) tls: &'a TlsFiles,
}

impl Clients {
    fn client(&self, host: &str, files: &TlsFiles) -> Result<Client, NoAnswer> {
        let mut clients = self.by_host.lock();
        if let Some((known, client)) = clients.get(host)
            && known == files
        {
            return Ok(client.clone());
        }
        let config = tls_config(files).map_err(NoAnswer::lasting)?;
        // HTTP/1.1: layers come side by side on connections of their own, each with a window of its own.
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .build();
        let mut pool = Builder::new(TokioExecutor::new());
        pool.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        let client = Client::new(&pool, connector);
        clients.insert(host.to_owned(), (files.clone(), client.clone()));
        Ok(client)
    }

    /// Sends, and follows redirects. Credentials go to the host that they are for, not to where it points.
    pub(super) async fn send(&self, ask: Ask<'_>) -> Result<Response<Incoming>, NoAnswer> {
        let mut uri: Uri = ask
            .uri
            .parse()
            .map_err(|e| NoAnswer::lasting(format!("{}: {e}", ask.uri)))?;
        let mut headers = ask.headers;
        for _ in 0..=REDIRECTS {
            let response = self
                .send_once(&uri, &ask.method, &headers, ask.body.clone(), ask.tls)
                .await?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            let target = response
                .headers()
                .get(LOCATION)
                .and_then(|location| location.to_str().ok());
            let target = target.ok_or_else(|| NoAnswer::lasting(format!("{uri}: redirected to nowhere")))?;
            let next = join(&uri, target).map_err(NoAnswer::lasting)?;
            if next.authority() != uri.authority() {
                headers.remove(AUTHORIZATION);
            }
            uri = next;
        }
        let message = format!("{}: stopped after {REDIRECTS} redirects", ask.uri);
        Err(NoAnswer::lasting(message))
    }

    async fn send_once(
        &self,
        uri: &Uri,
        method: &Method,
        headers: &HeaderMap,
        body: Bytes,
        tls: &TlsFiles,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let client = self.client(uri.authority().map_or("", |authority| authority.as_str()), tls)?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        // Go's words, which people search for.
        let described = || format!("{} {:?}", capitalized(method), uri.to_string());
        match tokio::time::timeout(HEAD_TIMEOUT, client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let message = format!("{}: {}", described(), chain(&error));
                Err(match error.is_connect() {
                    true => NoAnswer::lasting(message),
                    false => NoAnswer::broken(message),
                })
            }
            Err(_) => {
                let seconds = HEAD_TIMEOUT.as_secs();
                Err(NoAnswer::broken(format!(
                    "{}: no answer within {seconds} s",
                    described()
                )))
            }
        }
    }
}

/// A whole body that is expected to be small.
pub(super) async fn text(response: Response<Incoming>, limit: usize) -> Result<Bytes, NoAnswer> {
    let collected = Limited::new(response.into_body(), limit).collect();
    match tokio::time::timeout(STALL_TIMEOUT, collected).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(match error.is::<LengthLimitError>() {
            true => NoAnswer::lasting(format!("the answer is larger than {limit} bytes")),
            false => NoAnswer::broken(error.to_string()),
        }),
        Err(_) => Err(NoAnswer::broken("the answer did not end in time")),
    }
}

fn capitalized(method: &Method) -> &'static str {
    if *method == Method::POST { "Post" } else { "Get" }
}

/// hyper says "client error (Connect)" and keeps the reason in its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = error.source().or(Some(error));
    while let Some(error) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

fn join(base: &Uri, target: &str) -> Result<Uri, String> {
    let absolute = if target.contains("://") {
        target.to_owned()
    } else {
        let scheme = base.scheme_str().unwrap_or("https");
        let authority = base.authority().map_or("", |authority| authority.as_str());
        format!("{scheme}://{authority}/{}", target.trim_start_matches('/'))
    };
    absolute.parse().map_err(|e| format!("redirected to {target}: {e}"))
}

fn tls_config(files: &TlsFiles) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider);
    let versions = versions
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let trust = if files.insecure_skip_verify {
        // Signatures are checked, who signed is not.
        mk8s_pki::unverified::verifier()
    } else {
        let own = match &files.ca_file {
            Some(path) => certificates(path)?,
            None => Vec::new(),
        };
        mk8s_pki::bundle::verifier(roots(&own)?, own).map_err(|e| e.to_string())?
    };
    let verified = versions.dangerous().with_custom_certificate_verifier(trust);
    match (&files.cert_file, &files.key_file) {
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|e| format!("{}: {e}", key.display()))?;
            verified
                .with_client_auth_cert(certificates(cert)?, key)
                .map_err(|e| e.to_string())
        }
        _ => Ok(verified.with_no_client_auth()),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|e| format!("{}: {e}", path.display()))
}

/// The host's certificate authorities (which its owner may have added to), else Mozilla's as compiled in; and the
/// configured ones on top.
fn roots(own: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificates in SYSTEM_ROOTS
        .iter()
        .filter_map(|path| CertificateDer::pem_file_iter(path).ok())
        .take(1)
    {
        store.add_parsable_certificates(certificates.flatten());
    }
    if store.is_empty() {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for certificate in own {
        store.add(certificate.clone()).map_err(|e| e.to_string())?;
    }
    Ok(store)
}
