//! One HTTP/1.1 connection to a server, on which a request is sent as it is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kube::client::ConfigExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use mk8s_api::codec::protobuf;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// No request is waited for any longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A body that goes on for longer than this is a stream.
const STREAM: Duration = Duration::from_millis(400);

/// A request, as text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Case {
    pub method: String,
    /// With the query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// What is compared of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// 0: none came.
    pub code: u16,
    pub content_type: String,
    pub reason: String,
    pub message: String,
    /// Empty where the body is a stream.
    pub body: Bytes,
}

pub struct Client {
    authority: String,
    host: ServerName<'static>,
    tls: Arc<rustls::ClientConfig>,
    sender: Option<http1::SendRequest<Full<Bytes>>>,
}

impl Client {
    pub async fn of(kubeconfig: &Path) -> Result<Self, Failure> {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let host = config.cluster_url.host().ok_or("a server without a host")?.to_owned();
        let port = config.cluster_url.port_u16().unwrap_or(443);
        Ok(Self {
            authority: format!("{host}:{port}"),
            host: ServerName::try_from(host)?,
            tls: Arc::new(config.rustls_client_config()?),
            sender: None,
        })
    }

    async fn sender(&mut self) -> Result<http1::SendRequest<Full<Bytes>>, Failure> {
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let tcp = TcpStream::connect(&self.authority).await?;
        tcp.set_nodelay(true)?;
        let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
        let tls = connector.connect(self.host.clone(), tcp).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// The answer to a request; one with code 0 where the connection ended without.
    pub async fn send(&mut self, case: &Case) -> Result<Answer, Failure> {
        let mut request = http::Request::builder().method(&*case.method).uri(&case.target);
        request = request.header("host", &self.authority);
        for (name, value) in &case.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(case.body.clone()))?;
        let mut sender = self.sender().await?;
        match tokio::time::timeout(PATIENCE, sender.send_request(request)).await {
            Ok(Ok(response)) => {
                let (answer, is_whole) = read(response).await;
                self.sender = is_whole.then_some(sender);
                Ok(answer)
            }
            _ => Ok(Answer::default()),
        }
    }

    /// A JSON request of the harness itself.
    pub async fn ask(&mut self, method: &str, target: &str, body: Option<&Value>) -> Result<(u16, Value), Failure> {
        let kind = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let case = Case {
            method: method.into(),
            target: target.into(),
            headers: vec![
                ("content-type".into(), kind.into()),
                ("accept".into(), "application/json".into()),
            ],
            body: body.map(|body| body.to_string().into()).unwrap_or_default(),
        };
        let answer = self.send(&case).await?;
        Ok((answer.code, serde_json::from_slice(&answer.body).unwrap_or_default()))
    }
}

/// An answer, and whether all of it was read.
async fn read(response: http::Response<Incoming>) -> (Answer, bool) {
    let (parts, body) = response.into_parts();
    let content_type = parts.headers.get("content-type").and_then(|value| value.to_str().ok());
    let mut answer = Answer {
        code: parts.status.as_u16(),
        content_type: content_type.unwrap_or_default().to_string(),
        ..Answer::default()
    };
    let Ok(Ok(body)) = tokio::time::timeout(STREAM, body.collect()).await else {
        return (answer, false);
    };
    answer.body = body.to_bytes();
    if answer.code >= 400 {
        (answer.reason, answer.message) = failure(&answer.content_type, &answer.body);
    }
    (answer, true)
}

/// Reason and message of a refusal, in whichever encoding it comes.
fn failure(content_type: &str, body: &[u8]) -> (String, String) {
    let status = match content_type.split(';').next().unwrap_or_default() {
        "application/json" => serde_json::from_slice(body).ok(),
        "application/yaml" => std::str::from_utf8(body)
            .ok()
            .and_then(|text| serde_saphyr::from_str(text).ok()),
        protobuf::MEDIA_TYPE => protobuf::decode(body).ok(),
        _ => None,
    };
    let Some(status): Option<Value> = status else {
        return (String::new(), String::from_utf8_lossy(body).into_owned());
    };
    let text = |key: &str| status[key].as_str().unwrap_or_default().to_string();
    (text("reason"), text("message"))
}
