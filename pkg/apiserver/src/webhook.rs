//! Calls of webhooks: a POST of JSON to a Service of the cluster or to a URL, whose certificate a bundle of the
//! configuration's own vouches for, or the public authorities where there is none; never nobody.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use mk8s_api::codec::{Validation, syntax, yaml};
use mk8s_api::meta;
use mk8s_api::quote::quoted;
use mk8s_api::registry::custom::{Endpoint, Webhook};
use mk8s_http::{Builder, Client};
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::handlers::decode::no_object;
use crate::lane::AtHome;
use crate::watch_cache::Cache;

/// The longest answer that is read: as many times the question, and what one object may have. Many are read at once, and
/// nothing but this bounds what a webhook says.
const LONGEST: (usize, usize) = (8, 4 << 20);
/// How long a webhook may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How many bundles have a client that is kept: those of so many operators.
const MOST_CLIENTS: usize = 512;
/// How much of an answer that is no success is told of.
const TOLD: usize = 2048;
/// A connection that nothing uses is closed.
const IDLE: Duration = Duration::from_secs(30);

/// Why a call has no answer, in words that go on after the webhook's name.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("unable to load root certificates: {0}")]
    Bundle(String),
    #[error("Post {uri:?}: {why}")]
    Sent { uri: String, why: String },
    #[error("Post {uri:?}: context deadline exceeded")]
    TimedOut { uri: String },
    #[error("{}", refusal(*code, text))]
    Code { code: u16, text: String },
    /// What a Status says that it answered with, or why its answer is none, in Go's words.
    #[error("{0}")]
    Told(String),
}

/// A client, and when it was asked for last.
struct Used {
    client: Client,
    last: Instant,
}

/// The clients of webhooks, one for each bundle of authorities.
pub struct Webhooks {
    cache: Arc<Cache>,
    home: AtHome,
    clients: Mutex<HashMap<Vec<u8>, Used>>,
}

impl Webhooks {
    pub fn new(cache: Arc<Cache>) -> Webhooks {
        Webhooks {
            cache,
            home: AtHome::current(),
            clients: Mutex::default(),
        }
    }

    /// Sends a question, and reads the answer. Who is sent elsewhere (3xx) does not go there: the definition names who is asked.
    pub async fn call(&self, webhook: &Webhook, question: &Value, patience: Duration) -> Result<Value, CallError> {
        let uri = format!("{}?timeout={}s", uri(&webhook.endpoint), patience.as_secs());
        let client = self.client(&webhook.authorities)?;
        let question = question.to_string();
        let longest = LONGEST.0 * question.len() + LONGEST.1;
        let failed = |why: String| CallError::Sent { uri: uri.clone(), why };
        let request = Request::builder()
            .method(Method::POST)
            .uri(&uri)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .body(Body::from(question))
            .map_err(|error| failed(error.to_string()))?;
        let answer = async {
            let response = client.request(request).await.map_err(|error| failed(causes(&error)))?;
            let code = response.status();
            let content = response.headers().get(CONTENT_TYPE).cloned();
            let body = http_body_util::Limited::new(response.into_body(), longest);
            let body = body.collect().await.map_err(|error| failed(error.to_string()))?;
            read(code.as_u16(), content.as_ref(), &body.to_bytes())
        };
        let in_time = tokio::time::timeout(patience, answer).await;
        in_time.unwrap_or_else(|_| Err(CallError::TimedOut { uri: uri.clone() }))
    }

    fn client(&self, authorities: &[u8]) -> Result<Client, CallError> {
        let mut clients = self.clients.lock();
        let last = Instant::now();
        if let Some(used) = clients.get_mut(authorities) {
            used.last = last;
            return Ok(used.client.clone());
        }
        let client = connect(authorities, Addresses(self.cache.clone()), self.home.clone())?;
        if clients.len() >= MOST_CLIENTS {
            // Of bundles that nobody names any more, too.
            let oldest = clients
                .iter()
                .min_by_key(|(_, used)| used.last)
                .map(|(key, _)| key.clone());
            oldest.map(|key| clients.remove(&key));
        }
        let kept = client.clone();
        clients.insert(authorities.to_vec(), Used { client: kept, last });
        Ok(client)
    }
}

/// Whether it is nothing, or certificates in PEM.
pub fn is_bundle(authorities: &[u8]) -> bool {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(authorities).collect();
    authorities.is_empty() || certificates.is_ok_and(|certificates| !certificates.is_empty())
}

fn connect(authorities: &[u8], addresses: Addresses, home: AtHome) -> Result<Client, CallError> {
    let refused = |error: &dyn std::fmt::Display| CallError::Bundle(error.to_string());
    let mut roots = RootCertStore::empty();
    if authorities.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let bundle: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(authorities).collect();
    let bundle = bundle.map_err(|error| refused(&error))?;
    for certificate in &bundle {
        roots.add(certificate.clone()).map_err(|error| refused(&error))?;
    }
    let verifier = mk8s_pki::bundle::verifier(roots, bundle).map_err(|error| refused(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let mut connector = HttpConnector::new_with_resolver(addresses);
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .enable_http1()
        .wrap_connector(connector);
    let connector = home.connector(connector);
    let mut pool = Builder::new(home);
    pool.pool_idle_timeout(IDLE);
    Ok(Client::new(&pool, connector))
}

fn uri(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Url(url) => url.clone(),
        Endpoint::Service {
            namespace,
            name,
            port,
            path,
        } => {
            let path = path.trim_start_matches('/');
            format!("https://{name}.{namespace}.svc:{port}/{path}")
        }
    }
}

/// An error and what it comes from: hyper tells of the outermost alone.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        if is_end(error) {
            return format!("{text}: unexpected EOF");
        }
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Whether the other side went away, of which rustls speaks in a page for its own users.
fn is_end(error: &(dyn std::error::Error + 'static)) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof)
}

/// What an answer says. Who refuses may say why by a Status.
fn read(code: u16, content: Option<&HeaderValue>, body: &[u8]) -> Result<Value, CallError> {
    let content = content.and_then(|content| content.to_str().ok());
    if !(200..=206).contains(&code) {
        return Err(match tree(body).ok().as_ref().and_then(failure) {
            Some(message) => CallError::Told(message[..message.floor_char_boundary(TOLD)].into()),
            None => CallError::Code {
                code,
                text: text(content, body),
            },
        });
    }
    if body.is_empty() {
        let content = content.unwrap_or("application/json");
        let why = format!("0-length response with status code: {code} and content type: {content}");
        return Err(CallError::Told(why));
    }
    tree(body).map_err(CallError::Told)
}

/// The message of a Status that says that it went wrong.
fn failure(tree: &Value) -> Option<&str> {
    let is_failure = meta::kind(tree) == "Status" && meta::string(tree, &["status"]) == "Failure";
    match tree.get("message") {
        _ if !is_failure => None,
        None | Some(Value::Null) => Some(""),
        Some(message) => message.as_str(),
    }
}

/// A body as an object: JSON, and YAML where it does not look like that, whatever it says of itself.
fn tree(body: &[u8]) -> Result<Value, String> {
    let unnamed = |why: String| format!("couldn't get version/kind; json parse error: {why}");
    if body.trim_ascii_start().starts_with(b"{") {
        // Not the codec's: an object as deep as one may be lies deeper in an answer.
        let tree = serde_json::from_slice(body);
        return tree.map_err(|error| unnamed(syntax::fault(body).unwrap_or_else(|| error.to_string())));
    }
    match yaml::decode(body, None, Validation::Ignore)
        .map_err(|error| error.to_string())?
        .value
    {
        tree @ (Value::Object(_) | Value::Null) => Ok(tree),
        other => Err(unnamed(no_object(&other))),
    }
}

/// What a webhook says of why it refuses, where it is text.
fn text(content: Option<&str>, body: &[u8]) -> String {
    let is_text = |content: &str| {
        content
            .as_bytes()
            .get(..5)
            .is_some_and(|media| media.eq_ignore_ascii_case(b"text/"))
    };
    if !content.is_none_or(is_text) {
        return "unknown".into();
    }
    let told = String::from_utf8_lossy(&body[..body.len().min(TOLD)]);
    told.trim().to_string()
}

/// What client-go makes of an answer's code (apimachinery's errors, NewGenericServerResponse).
fn refusal(code: u16, text: &str) -> String {
    let words = match code {
        400 => "the server rejected our request for an unknown reason",
        401 => "the server has asked for the client to provide credentials",
        404 => "the server could not find the requested resource",
        405 => "the server does not allow this method on the requested resource",
        406 if matches!(text, "" | "unknown") => {
            "the server was unable to respond with a content type that the client supports"
        }
        403 | 406 | 415 => text,
        409 => "the server reported a conflict",
        422 => "the server rejected our request due to an error in our request",
        429 => "the server has received too many requests and has asked us to try again later",
        503 => "the server is currently unable to handle the request",
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
        }
        500.. => {
            let text = quoted(text);
            return format!("an error on the server ({text}) has prevented the request from succeeding");
        }
        _ => return format!("the server responded with the status code {code} but did not return more information"),
    };
    words.to_string()
}

/// Finds the addresses of hosts: of `NAME.NAMESPACE.svc` the Service's own, as the cluster's DNS would, which is not asked.
#[derive(Clone)]
struct Addresses(Arc<Cache>);

impl Addresses {
    fn of_service(&self, name: &str, namespace: &str) -> Result<Place, std::io::Error> {
        let none = |why: String| std::io::Error::new(std::io::ErrorKind::NotFound, why);
        let services = self.0.resource("", "services");
        let service = services.and_then(|services| services.get(namespace, name));
        let service = service.ok_or_else(|| none(format!("service {name:?} not found")))?;
        let service = service.value().map_err(|status| none(status.message))?;
        if meta::string(&service, &["spec", "type"]) == "ExternalName" {
            return Ok(Place::Host(
                meta::string(&service, &["spec", "externalName"]).to_string(),
            ));
        }
        let address = meta::string(&service, &["spec", "clusterIP"]).parse::<IpAddr>();
        let address = address.map_err(|_| none(format!("service {name:?} has no cluster address")))?;
        Ok(Place::At(address))
    }
}

enum Place {
    At(IpAddr),
    Host(String),
}

impl tower_service::Service<Name> for Addresses {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, host: Name) -> Self::Future {
        let own = self.clone();
        Box::pin(async move {
            let host = host.as_str();
            let service = host.strip_suffix(".svc").and_then(|rest| rest.split_once('.'));
            let place = match service {
                Some((name, namespace)) => own.of_service(name, namespace)?,
                None => Place::Host(host.to_string()),
            };
            let found: Vec<SocketAddr> = match place {
                Place::At(address) => vec![SocketAddr::new(address, 0)],
                Place::Host(host) => tokio::net::lookup_host((host, 0)).await?.collect(),
            };
            Ok(found.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_webhook_says_of_its_refusal_is_told() {
        let told = refusal(500, &text(Some("text/plain; charset=utf-8"), b"no \"paint\"\n"));
        let expected = r#"an error on the server ("no \"paint\"") has prevented the request from succeeding"#;
        assert_eq!(told, expected);
        assert_eq!(text(Some("application/json"), b"{}"), "unknown");
        assert_eq!(text(None, &[b'a'; 5000]).len(), TOLD);
        let long = format!(
            r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"a{}"}}"#,
            "é".repeat(5000)
        );
        let refused = read(500, None, long.as_bytes());
        assert!(matches!(refused, Err(CallError::Told(message)) if message.len() == TOLD - 1));
        assert_eq!(refusal(403, "not you"), "not you");
        assert!(refusal(307, "").starts_with("the server responded with the status code 307"));
    }
}
