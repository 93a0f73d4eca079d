//! Connections to the node's server, bounded before anybody is known: who has no certificate of the cluster's doesn't get
//! past TLS, a head that doesn't come ends its connection, and there are only so many at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use mk8s_pki::subject::Subject;
use mk8s_supervisor::listener::{self, Connection};
use rustls::pki_types::CertificateDer;
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{Error, Peer};

#[derive(Clone, Copy)]
pub struct Limits {
    pub handshake: Duration,
    /// For a request's head, the wait for the next one on an open connection included.
    pub head: Duration,
    /// Each stream (exec, attach, followed logs, a forwarded port) is one.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            connections: 1000,
        }
    }
}

pub struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    limits: Limits,
}

impl Server {
    pub async fn bind(
        address: SocketAddr,
        certificate: Arc<dyn ResolvesServerCert>,
        client_ca: Arc<RootCertStore>,
        limits: Limits,
    ) -> Result<Self, Error> {
        let listener = TcpListener::bind(address).await;
        Ok(Self {
            acceptor: acceptor(certificate, client_ca)?,
            listener: listener.map_err(|error| Error::Listen(address, error))?,
            limits,
        })
    }

    /// Until the token is cancelled; what is under way ends with it.
    pub async fn run(self, router: Router, token: CancellationToken) {
        let serve = |stream| connection(stream, self.acceptor.clone(), router.clone(), self.limits);
        tokio::select! {
            () = listener::accept("kubelet-connection", &self.listener, self.limits.connections, serve) => {}
            () = token.cancelled() => {}
        }
    }
}

fn acceptor(certificate: Arc<dyn ResolvesServerCert>, client_ca: Arc<RootCertStore>) -> Result<TlsAcceptor, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(client_ca, provider.clone()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    // Streams are upgrades, and those are HTTP/1.1's.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn connection(stream: Connection, acceptor: TlsAcceptor, router: Router, limits: Limits) {
    let Ok(Ok(stream)) = tokio::time::timeout(limits.handshake, acceptor.accept(stream)).await else {
        return;
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = Peer(certificates.first().and_then(common_name));
    let service = router.layer(axum::Extension(peer));
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head);
    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = served.await {
        tracing::debug!(error, "a connection to the node's server ended");
    }
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let subject = Subject::of_certificate(certificate);
    subject
        .inspect_err(|error| tracing::warn!(%error, "a certificate of the cluster's names no user"))
        .ok()
        .map(|subject| subject.common_name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use axum::routing::get;
    use mk8s_pki::{ca, issue, rotation};
    use mk8s_supervisor::job;
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    use super::*;

    struct Test {
        ca: ca::Authority,
        address: SocketAddr,
        token: CancellationToken,
    }

    impl Drop for Test {
        fn drop(&mut self) {
            self.token.cancel();
        }
    }

    impl Test {
        async fn start(limits: Limits) -> Self {
            let ca = ca::create("kubernetes").unwrap();
            let issued = issue::server(&ca, "n1", &["127.0.0.1".into()], 3600).unwrap();
            let holder = Arc::new(rotation::Holder::new(issued.certified_key().unwrap()));
            let roots = Arc::new(rotation::roots(ca.certificate_pem()).unwrap());
            let server = Server::bind(([127, 0, 0, 1], 0).into(), holder, roots, limits)
                .await
                .unwrap();
            let address = server.listener.local_addr().unwrap();
            let token = CancellationToken::new();
            let router = Router::new().route(
                "/",
                get(|axum::Extension(peer): axum::Extension<Peer>| async move { format!("{peer:?}") }),
            );
            drop(job::spawn("server", server.run(router, token.clone())));
            Self { ca, address, token }
        }

        async fn connect(&self, user: Option<&str>) -> std::io::Result<TlsStream<TcpStream>> {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rotation::roots(self.ca.certificate_pem()).unwrap());
            let config = match user {
                None => config.with_no_client_auth(),
                Some(user) => {
                    let key = issue::client(&self.ca, user, None, 3600)
                        .unwrap()
                        .certified_key()
                        .unwrap();
                    config.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
                }
            };
            let stream = TcpStream::connect(self.address).await?;
            let name = ServerName::try_from("127.0.0.1").unwrap();
            TlsConnector::from(Arc::new(config)).connect(name, stream).await
        }
    }

    /// One that an older mk8s may have signed: which of the two it means is not for its holder to choose.
    #[test]
    fn a_certificate_with_two_common_names_is_nobodys() {
        let mut params = rcgen::CertificateParams::default();
        let again = rcgen::DnType::CustomDnType(vec![2, 5, 4, 3]);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, super::super::CLIENT);
        let key = rcgen::KeyPair::generate().unwrap();
        let named = |params: &rcgen::CertificateParams| common_name(params.self_signed(&key).unwrap().der());
        assert_eq!(named(&params).as_deref(), Some(super::super::CLIENT));
        params.distinguished_name.push(again, "system:node:n1");
        assert_eq!(named(&params), None);
    }

    async fn ask(mut stream: TlsStream<TcpStream>) -> std::io::Result<String> {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn nobody_without_a_certificate_of_the_clusters_is_heard() {
        let test = Test::start(Limits::default()).await;
        let answer = ask(test.connect(Some("somebody")).await.unwrap()).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("somebody"),
            "{answer}"
        );
        // TLS 1.3 tells a client only when it reads.
        let refused = match test.connect(None).await {
            Ok(stream) => ask(stream).await,
            Err(error) => Err(error),
        };
        assert!(refused.is_err(), "{refused:?}");
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_ends_its_connection() {
        let limits = Limits {
            head: Duration::from_millis(200),
            ..Limits::default()
        };
        let test = Test::start(limits).await;
        let mut stream = test.connect(Some("slow")).await.unwrap();
        let begun = Instant::now();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "still open after {:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn one_connection_too_many_is_refused_and_room_comes_back() {
        let limits = Limits {
            connections: 1,
            ..Limits::default()
        };
        let test = Test::start(limits).await;
        let first = test.connect(Some("first")).await.unwrap();
        assert!(test.connect(Some("second")).await.is_err());
        drop(first);
        let begun = Instant::now();
        while test.connect(Some("third")).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "no room came back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
