//! How an extender is reached: a POST of JSON below its URL, in plain or over TLS.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use k8s_openapi::ByteString;
use mk8s_http::{Builder, Client};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::config::{ExtenderConfig, ExtenderTls};

/// An answer is no longer than so many times its question and so many bytes.
const LONGEST: (usize, usize) = (8, 4 << 20);
/// A connection that nothing uses is closed.
const IDLE: Duration = Duration::from_secs(30);

/// Why an extender's answer is none.
#[derive(Debug, thiserror::Error)]
pub enum ExtenderError {
    #[error("Post {url:?}: {why}")]
    Sent { url: String, why: String },
    #[error("failed {verb} with extender at URL {url}, code {code}")]
    Code { verb: String, url: String, code: u16 },
    /// What it says itself, or what its answer lacks.
    #[error("{0}")]
    Told(String),
}

/// To one extender.
pub struct Connection {
    url: String,
    timeout: Duration,
    client: Client,
}

impl Connection {
    pub fn new(own: &ExtenderConfig, timeout: Duration) -> Result<Self, String> {
        let uri: Uri = own.url_prefix.parse().map_err(|error| format!("urlPrefix: {error}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(format!("urlPrefix: {:?} is no URL of http or https", own.url_prefix));
        }
        let tls = own.tls_config.clone().unwrap_or_default();
        let builder = HttpsConnectorBuilder::new()
            .with_tls_config(config(&tls, own.enable_https)?)
            .https_or_http();
        let builder = match &*tls.server_name {
            "" => builder,
            name => {
                let name =
                    ServerName::try_from(name.to_owned()).map_err(|error| format!("tlsConfig.serverName: {error}"))?;
                builder.with_server_name_resolver(FixedServerNameResolver::new(name))
            }
        };
        let mut pool = Builder::new(TokioExecutor::new());
        pool.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        Ok(Connection {
            url: own.url_prefix.clone(),
            timeout,
            client: Client::new(&pool, builder.enable_all_versions().build()),
        })
    }

    /// As the configuration names the extender.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for `verb`.
    pub async fn ask(&self, verb: &str, question: Value) -> Result<Value, ExtenderError> {
        let url = format!("{}/{verb}", self.url.trim_end_matches('/'));
        let sent = |why: String| ExtenderError::Sent { url: url.clone(), why };
        let question = Bytes::from(question.to_string());
        let longest = LONGEST.0 * question.len() + LONGEST.1;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&url)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(question))
            .map_err(|error| sent(error.to_string()))?;
        let answer = async {
            let response = self.client.request(request).await;
            let response = response.map_err(|error| sent(causes(&error)))?;
            let code = response.status();
            if code != StatusCode::OK {
                return Err(ExtenderError::Code {
                    verb: verb.to_owned(),
                    url: url.clone(),
                    code: code.as_u16(),
                });
            }
            let body = Limited::new(response.into_body(), longest).collect().await;
            let body = body.map_err(|error| sent(error.to_string()))?.to_bytes();
            serde_json::from_slice(&body).map_err(|error| ExtenderError::Told(error.to_string()))
        };
        let in_time = tokio::time::timeout(self.timeout, answer).await;
        in_time.unwrap_or_else(|_| Err(sent("context deadline exceeded".to_owned())))
    }
}

/// An error and what it comes from: hyper tells of the outermost alone.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// A TLS setting: given itself, or by a file.
fn part(data: Option<&ByteString>, file: &str, field: &str) -> Result<Option<Vec<u8>>, String> {
    match (data, file) {
        (Some(data), _) if !data.0.is_empty() => Ok(Some(data.0.clone())),
        (_, "") => Ok(None),
        (_, file) => std::fs::read(file)
            .map(Some)
            .map_err(|error| format!("tlsConfig.{field}: {file}: {error}")),
    }
}

fn config(tls: &ExtenderTls, https: bool) -> Result<ClientConfig, String> {
    let authorities = part(tls.ca_data.as_ref(), &tls.ca_file, "caFile")?;
    if tls.insecure && authorities.is_some() {
        return Err("tlsConfig: specifying a root certificates file with the insecure flag is not allowed".into());
    }
    let verifier = match authorities {
        Some(authorities) => trusting(&authorities)?,
        // As upstream: who asks for HTTPS and names no authority takes any.
        None if tls.insecure || https => mk8s_pki::unverified::verifier(),
        None => {
            let mut roots = RootCertStore::empty();
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            mk8s_pki::bundle::verifier(roots, Vec::new()).map_err(|error| error.to_string())?
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let certificate = part(tls.cert_data.as_ref(), &tls.cert_file, "certFile")?;
    let key = part(tls.key_data.as_ref(), &tls.key_file, "keyFile")?;
    match (certificate, key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let chain = certificates(&certificate).map_err(|error| format!("tlsConfig.certFile: {error}"))?;
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| format!("tlsConfig.keyFile: {error}"))?;
            let config = builder.with_client_auth_cert(chain, key);
            config.map_err(|error| format!("tlsConfig: {error}"))
        }
        _ => Err("tlsConfig: a certificate and its key go together".into()),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| error.to_string())?;
    match all.is_empty() {
        true => Err("there is no certificate in it".into()),
        false => Ok(all),
    }
}

fn trusting(pem: &[u8]) -> Result<Arc<dyn rustls::client::danger::ServerCertVerifier>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("tlsConfig.caFile: {error}");
    let bundle = certificates(pem).map_err(|error| wrong(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in &bundle {
        roots.add(certificate.clone()).map_err(|error| wrong(&error))?;
    }
    mk8s_pki::bundle::verifier(roots, bundle).map_err(|error| wrong(&error))
}
