//! Answers on real sockets: clients that do not read theirs, and a server that stops while they are sent.
#![allow(clippy::unwrap_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "a panic in a test's own task or thread is the test's failure"
)]

mod harness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use harness::Api;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mk8s_pki::{ca, issue, rotation};
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];
/// What the server gives connections when it stops.
const DRAIN: Duration = Duration::from_secs(3);

/// A server with so many objects of 900 KB.
struct Served {
    api: Api,
    address: SocketAddr,
    ca: ca::Authority,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

enum Client {
    H2(http2::SendRequest<Body>),
    Http1(http1::SendRequest<Body>),
}

impl Served {
    async fn start(objects: usize, unread: Duration) -> Served {
        let api = Api::open_with(|config| config.unread = unread).await;
        for number in 0..objects {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{number}")},
                "data": {"a": "v".repeat(900_000)}});
            assert_eq!(api.post(MAPS, &map).await.0, 201);
        }
        let ca = ca::create("ca").unwrap();
        let certificate = issue::server(&ca, "localhost", &["localhost".into()], 3600).unwrap();
        let holder = rotation::Holder::new(certificate.certified_key().unwrap());
        let tls = rotation::server_config(holder, ca.certificate_pem()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let serving = tokio::spawn(api.server().serve(listener, Arc::new(tls), stop.clone()));
        Served {
            api,
            address,
            ca,
            stop,
            serving,
        }
    }

    /// An account that may read these objects; its token.
    async fn account(&self) -> String {
        let of = |kind: &str| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "reads"}});
        let (mut role, mut binding) = (of("Role"), of("RoleBinding"));
        role["rules"] = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]}]);
        binding["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reads"});
        binding["subjects"] = json!([{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]);
        let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
        assert_eq!(self.api.post(&format!("{rbac}/roles"), &role).await.0, 201);
        assert_eq!(self.api.post(&format!("{rbac}/rolebindings"), &binding).await.0, 201);
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
        let (code, issued) = self.api.post(tokens, &request).await;
        assert_eq!(code, 201, "{issued}");
        issued["status"]["token"].as_str().unwrap().to_string()
    }

    /// A connection that takes so many bytes of each stream before they are read.
    async fn connect(&self, protocol: &str, window: u32) -> Client {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.certificate().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let socket = TcpSocket::new_v4().unwrap();
        // As little as there is, so that what is not read stays with the server.
        socket.set_recv_buffer_size(4096).unwrap();
        let socket = socket.connect(self.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let io = TokioIo::new(connector.connect(name, socket).await.unwrap());
        if protocol == "h2" {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            let (sender, connection) = builder.initial_stream_window_size(window).handshake(io).await.unwrap();
            tokio::spawn(connection);
            Client::H2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            Client::Http1(sender)
        }
    }

    /// Of an answer of which no more is read, on a connection of its own.
    async fn code(&self, protocol: &str, path: &str, token: &str) -> u16 {
        let answer = self.connect(protocol, 1).await.get(path, token).await;
        answer.expect("an answer").status().as_u16()
    }
}

impl Client {
    async fn get(&mut self, path: &str, token: &str) -> hyper::Result<Response<Incoming>> {
        let request = Request::get(format!("https://localhost{path}"))
            .header("host", "localhost")
            .header("authorization", format!("Bearer {token}"))
            .body(Body::empty())
            .unwrap();
        match self {
            Client::H2(sender) => sender.send_request(request).await,
            Client::Http1(sender) => sender.send_request(request).await,
        }
    }
}

/// The bytes that still came, and whether the answer ended as it should.
async fn rest(mut body: Incoming, pause: Duration) -> (usize, bool) {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return (length, false) };
        length += frame.data_ref().map_or(0, bytes::Bytes::len);
        tokio::time::sleep(pause).await;
    }
    (length, true)
}

/// A hundred watches that nobody read took 90 MB and more.
#[tokio::test]
async fn no_more_is_made_for_an_account_than_it_may_leave_unread() {
    for protocol in PROTOCOLS {
        let served = Served::start(12, 20 * DRAIN).await;
        let token = served.account().await;
        let (sends, answers) = tokio::sync::mpsc::unbounded_channel();
        let mut shared = served.connect(protocol, 1).await;
        for _ in 0..30 {
            let mut client = match &shared {
                Client::H2(sender) => Client::H2(sender.clone()),
                Client::Http1(_) => std::mem::replace(&mut shared, served.connect(protocol, 1).await),
            };
            let (sends, token) = (sends.clone(), token.clone());
            tokio::spawn(async move {
                if let Ok(answer) = client.get(&format!("{MAPS}?watch=1"), &token).await {
                    // The client with it: its end closes an HTTP/1.1 connection.
                    let _ = sends.send((answer, client));
                }
            });
        }
        let begun = Instant::now();
        let list = format!("{MAPS}?limit=1&timeout=500ms");
        while served.code(protocol, &list, &token).await != 429 {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "{protocol}: nothing is refused"
            );
        }
        // 16 MiB are all that one account has; what each of them holds is 900 KB or more.
        assert!((5..=20).contains(&answers.len()), "{protocol}: {}", answers.len());
        assert_eq!(served.api.get(&format!("{MAPS}/m0")).await.0, 200, "others go on");
        // Given up, and with them those that still wait.
        drop((answers, shared));
        while served.code(protocol, &list, &token).await != 200 {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{protocol}: nothing is given back"
            );
        }
    }
}

/// Its client kept it for as long as he liked.
#[tokio::test]
async fn an_answer_that_lies_unread_ends_with_its_connection() {
    for protocol in PROTOCOLS {
        let unread = Duration::from_secs(1);
        let served = Served::start(12, unread).await;
        let token = served.account().await;
        let mut client = served.connect(protocol, 1).await;
        let watch = client.get(&format!("{MAPS}?watch=1"), &token).await.unwrap();
        assert_eq!(watch.status(), 200, "{protocol}");
        // An object of 900 KB may take four times as long as a short piece.
        tokio::time::sleep(6 * unread).await;
        let rest = tokio::time::timeout(20 * unread, rest(watch.into_body(), Duration::ZERO));
        let (_, ended) = rest.await.expect("an end");
        assert!(!ended, "{protocol}: it is cut off");
    }
}

fn lane_runs() -> bool {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.into_iter().any(|name| name.trim() == "long-answers")
}

#[tokio::test]
async fn a_server_that_stops_lets_slow_readers_finish_and_closes_those_that_stand_still() {
    for protocol in PROTOCOLS {
        for stands_still in [false, true] {
            let case = format!("{protocol}, stands still: {stands_still}");
            let served = Served::start(if stands_still { 20 } else { 4 }, 20 * DRAIN).await;
            let token = served.account().await;
            let mut client = served.connect(protocol, 512 << 10).await;
            let mut body = client.get(MAPS, &token).await.unwrap().into_body();
            let (mut length, begun) = (0, Instant::now());
            while !lane_runs() {
                let frame = body.frame().await.unwrap().unwrap();
                length += frame.data_ref().unwrap().len();
                assert!(begun.elapsed() < Duration::from_secs(30), "{case}: {length}");
            }
            let stopped = Instant::now();
            served.stop.cancel();
            let reader = async move {
                if stands_still {
                    tokio::time::sleep(DRAIN + Duration::from_secs(1)).await;
                }
                rest(body, Duration::from_millis(2)).await
            };
            let serving = async {
                served.serving.await.unwrap().unwrap();
                stopped.elapsed()
            };
            let ((more, ended), took) = tokio::join!(reader, serving);
            assert!(took <= DRAIN + Duration::from_secs(1), "{case}: {took:?}");
            assert_eq!(ended, !stands_still, "{case}: {} bytes", length + more);
            assert_eq!(
                length + more > 3_600_000,
                !stands_still,
                "{case}: {} bytes",
                length + more
            );
            served.api.server().close().await;
        }
    }
}

/// What an answer costs that lies unread is small, but it is not nothing: who has no certificate of the cluster has so many on a
/// connection.
#[tokio::test]
async fn nobody_has_more_requests_at_once_on_a_connection_than_upstream_gives_him() {
    let served = Served::start(0, Duration::from_secs(60)).await;
    let mut client = served.connect("h2", 0).await;
    let mut unread = Vec::new();
    for _ in 0..100 {
        unread.push(client.get("/version", "").await.unwrap());
    }
    let Client::H2(sender) = &client else {
        unreachable!("asked for h2")
    };
    let mut another = Client::H2(sender.clone());
    let more = another.get("/version", "");
    tokio::pin!(more);
    let early = tokio::time::timeout(Duration::from_millis(500), &mut more).await;
    assert!(early.is_err(), "{early:?}");
    drop(unread.pop());
    let answered = more.await.unwrap().status();
    assert_eq!(answered, unread[0].status());
    served.stop.cancel();
}

/// One connection of nobody's kept all of nobody's places: load balancers took the server out.
#[tokio::test]
async fn who_reads_no_short_answers_keeps_nobody_s_place() {
    let served = Served::start(0, Duration::from_secs(60)).await;
    let mut unread = Vec::new();
    for _ in 0..4 {
        let mut client = served.connect("h2", 0).await;
        for _ in 0..100 {
            unread.push(client.get("/version", "").await.unwrap());
        }
    }
    for path in ["/readyz", "/livez", "/healthz", "/version"] {
        assert_eq!(served.code("h2", path, "").await, unread[0].status().as_u16(), "{path}");
    }
    served.stop.cancel();
}
