//! One HTTP/2 connection per client, as client libraries hold it.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::{
    client::ConfigExt,
    config::{KubeConfigOptions, Kubeconfig},
};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

type Error = Box<dyn std::error::Error + Send + Sync>;

pub const JSON: &str = "application/json";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Where it listens, and who asks: by client certificate, as administrators do.
#[derive(Clone)]
pub struct Server {
    authority: String,
    host: ServerName<'static>,
    tls: Arc<rustls::ClientConfig>,
}

pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

#[derive(Clone)]
pub struct Connection {
    server: Server,
    sender: http2::SendRequest<Full<Bytes>>,
}

/// What is asked.
pub struct Request {
    pub method: &'static str,
    pub path: Arc<str>,
    pub accept: &'static str,
    pub content_type: &'static str,
    pub body: Bytes,
}

impl Request {
    pub fn get(path: &Arc<str>, accept: &'static str) -> Self {
        Self {
            method: "GET",
            path: path.clone(),
            accept,
            content_type: JSON,
            body: Bytes::new(),
        }
    }

    pub fn create(path: &Arc<str>, body: &Bytes) -> Self {
        Self {
            method: "POST",
            body: body.clone(),
            ..Self::get(path, JSON)
        }
    }
}

impl Server {
    pub async fn from_kubeconfig(path: &Path) -> Result<Self, Error> {
        let kubeconfig = Kubeconfig::read_from(path)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let mut tls = config.rustls_client_config()?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let host = config
            .cluster_url
            .host()
            .ok_or("the kubeconfig's server has no host")?
            .to_owned();
        let port = config.cluster_url.port_u16().unwrap_or(443);
        Ok(Self {
            authority: format!("{host}:{port}"),
            host: ServerName::try_from(host)?,
            tls: Arc::new(tls),
        })
    }

    pub async fn connect(&self) -> Result<Connection, Error> {
        let tcp = TcpStream::connect(&self.authority).await?;
        tcp.set_nodelay(true)?;
        let tls = tokio_rustls::TlsConnector::from(self.tls.clone())
            .connect(self.host.clone(), tcp)
            .await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(Connection {
            server: self.clone(),
            sender,
        })
    }
}

impl Connection {
    /// The answer's head; its body is still to come.
    pub async fn open(&mut self, asked: &Request) -> Result<http::Response<Incoming>, Error> {
        let mut request = http::Request::builder()
            .method(asked.method)
            .uri(format!("https://{}{}", self.server.authority, asked.path))
            .header(header::ACCEPT, asked.accept);
        if !asked.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, asked.content_type);
        }
        self.sender.ready().await?;
        Ok(self
            .sender
            .send_request(request.body(Full::new(asked.body.clone()))?)
            .await?)
    }

    /// The whole answer, thrown away as it comes: big ones are not to be gathered.
    pub async fn drain(&mut self, asked: &Request) -> Result<StatusCode, Error> {
        let mut answer = self.open(asked).await?;
        while let Some(frame) = answer.frame().await {
            frame?;
        }
        Ok(answer.status())
    }

    pub async fn whole(&mut self, method: &'static str, path: &str, body: Bytes) -> Result<Answer, Error> {
        let asked = Request {
            method,
            body,
            ..Request::get(&path.into(), JSON)
        };
        let answer = self.open(&asked).await?;
        Ok(Answer {
            status: answer.status(),
            body: answer.into_body().collect().await?.to_bytes(),
        })
    }
}
