//! `pods|services|nodes/proxy` before a server of this machine that says what it was asked.
#![allow(clippy::unwrap_used)]

mod harness;

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use harness::{Api, read};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use mk8s_apiserver::User;
use mk8s_supervisor::job;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

const BASE: &str = "/api/v1/namespaces/default";

/// An address of this machine that is no loopback one: those are not proxied to.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket
        .connect("192.0.2.1:9")
        .expect("these tests need a route to somewhere");
    socket.local_addr().unwrap().ip()
}

/// The server behind the proxy.
async fn backend() -> (IpAddr, u16) {
    let address = own_address();
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    job::spawn("backend", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .with_upgrades();
            job::spawn("connection", async move {
                let _ = serving.await;
            });
        }
    });
    (address, port)
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if request.headers().contains_key("upgrade") && request.uri().path() != "/plain" {
        let upgrade = hyper::upgrade::on(&mut request);
        job::spawn("echo", async move {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            let mut text = [0; 5];
            stream.read_exact(&mut text).await.unwrap();
            text.reverse();
            stream.write_all(&text).await.unwrap();
        });
        let answer = Response::builder()
            .status(101)
            .header("connection", "Upgrade")
            .header("upgrade", "mine");
        return Ok(answer.body(Body::empty()).unwrap());
    }
    let page = r#"<html><a href="/x">x</a><a href="y">y</a></html>"#;
    let builder = Response::builder();
    let answer = match request.uri().path() {
        "/page" => builder
            .header("content-type", "text/html; charset=utf-8")
            .header("content-length", page.len())
            .body(Body::from(page)),
        "/packed" => {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            packed.write_all(page.as_bytes()).unwrap();
            builder
                .header("content-type", "text/html")
                .header("content-encoding", "gzip")
                .body(Body::from(packed.finish().unwrap()))
        }
        "/endless" => {
            let pieces = futures::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from(vec![b'x'; 1 << 20])));
            builder.body(Body::from_stream(pieces))
        }
        "/redirect" => builder.status(302).header("location", "/elsewhere").body(Body::empty()),
        "/teapot" => builder
            .status(418)
            .header("access-control-allow-origin", "*")
            .header("keep-alive", "1")
            .header("x-mine", "1")
            .body(Body::from("short and stout")),
        _ => {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let headers = parts.headers.iter().map(|(key, value)| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                (key.to_string(), Value::from(value))
            });
            let said = json!({"method": parts.method.as_str(), "uri": parts.uri.to_string(),
                "headers": headers.collect::<serde_json::Map<_, _>>(), "body": String::from_utf8_lossy(&body)});
            let code = if parts.uri.path() == "/plain" { 404 } else { 200 };
            builder.status(code).body(Body::from(said.to_string()))
        }
    };
    Ok(answer.unwrap())
}

/// A pod, a service and a node that are that server.
async fn cluster(address: IpAddr, port: u16) -> Api {
    let api = Api::open().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"app": "a"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": port}]}]}});
    assert_eq!(api.post(&format!("{BASE}/pods"), &pod).await.0, 201);
    let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
    let merge = "application/merge-patch+json";
    assert_eq!(api.patch(&format!("{BASE}/pods/p/status"), merge, &status).await.0, 200);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"name": "web", "port": 8080}]}});
    assert_eq!(api.post(&format!("{BASE}/services"), &service).await.0, 201);
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "s"}, "subsets": [{
        "addresses": [{"ip": address, "targetRef": {"kind": "Pod", "namespace": "default", "name": "p"}}],
        "ports": [{"name": "web", "port": port}]}]});
    assert_eq!(api.post(&format!("{BASE}/endpoints"), &endpoints).await.0, 201);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    assert_eq!(api.post("/api/v1/nodes", &node).await.0, 201);
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
    assert_eq!(api.patch("/api/v1/nodes/n/status", merge, &status).await.0, 200);
    api
}

async fn text(response: Response<Body>) -> (u16, http::HeaderMap, Bytes) {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, body)
}

#[tokio::test]
async fn what_is_asked_reaches_the_server_behind_the_name() {
    let (address, port) = backend().await;
    let api = cluster(address, port).await;
    let ways = [
        format!("{BASE}/pods/p/proxy"),
        format!("{BASE}/pods/p:{port}/proxy"),
        format!("{BASE}/pods/http:p:{port}/proxy"),
        format!("{BASE}/services/s:web/proxy"),
        format!("{BASE}/services/s:8080/proxy"),
        format!("{BASE}/services/http:s:web/proxy"),
        format!("/api/v1/nodes/n:{port}/proxy"),
    ];
    for way in &ways {
        let request = Request::put(format!("{way}/a/b/?c=d"))
            .header("host", "api.example:6443")
            .header("accept", "text/x-mine")
            .header("cookie", "own=1")
            .header("authorization", "Basic x")
            .header("x-remote-user", "admin")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .body(Body::from("hello"))
            .unwrap();
        let (code, said) = read(api.router().oneshot(request).await.unwrap()).await;
        assert_eq!(code, 200, "{way}: {said}");
        assert_eq!(said["method"], "PUT");
        assert_eq!(said["uri"], "/a/b/?c=d");
        assert_eq!(said["body"], "hello");
        let headers = &said["headers"];
        assert_eq!(headers["host"], "api.example:6443");
        assert_eq!(headers["accept"], "text/x-mine");
        assert_eq!(headers["cookie"], "own=1");
        assert_eq!(headers["x-forwarded-uri"], format!("{way}/a/b/"));
        for gone in ["authorization", "x-remote-user", "x-hop", "connection"] {
            assert!(headers.get(gone).is_none(), "{gone}: {headers}");
        }
    }
    for method in ["GET", "POST", "PATCH", "DELETE", "OPTIONS"] {
        let (code, said) = read(
            api.send(method, &format!("{}/x", ways[0]), "text/plain", Body::empty())
                .await,
        )
        .await;
        assert_eq!((code, said["method"].as_str()), (200, Some(method)));
    }
    let (code, _, body) = text(
        api.send("HEAD", &format!("{}/x", ways[0]), "text/plain", Body::empty())
            .await,
    )
    .await;
    assert_eq!((code, body.len()), (200, 0));
}

/// The answers of all others in his namespace began, and stood still without a word.
#[tokio::test]
async fn who_gets_nothing_for_what_others_leave_unread_is_told() {
    let (address, port) = backend().await;
    let api = cluster(address, port).await;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "all"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:serviceaccounts"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    assert_eq!(api.post(bindings, &binding).await.0, 201);
    let router = api.server().router();
    let mut tokens = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        assert_eq!(api.post(&format!("{BASE}/serviceaccounts"), &account).await.0, 201);
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let (code, issued) = api
            .post(&format!("{BASE}/serviceaccounts/{name}/token"), &request)
            .await;
        assert_eq!(code, 201, "{issued}");
        tokens.push(issued["status"]["token"].as_str().unwrap().to_string());
    }
    let ask = async |token: &String, path: String| {
        let request = Request::get(path).header("authorization", format!("Bearer {token}"));
        router
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap()
    };
    let endless = || format!("{BASE}/pods/p/proxy/endless");
    let (mut held, mut bodies) = (Vec::new(), Vec::new());
    for token in &tokens[..4] {
        let answer = ask(token, endless()).await;
        assert_eq!(answer.status(), 200);
        let mut body = answer.into_body();
        while let Ok(frame) = tokio::time::timeout(Duration::from_millis(500), body.frame()).await {
            held.push(frame.unwrap().unwrap());
        }
        bodies.push(body);
    }
    tokio::time::pause();
    assert_eq!(ask(&tokens[4], endless()).await.status(), 429);
    tokio::time::resume();
    // It keeps nothing else.
    assert_eq!(ask(&tokens[4], format!("{BASE}/pods/p")).await.status(), 200);
    drop((held, bodies));
    let mut body = ask(&tokens[4], endless()).await.into_body();
    assert!(body.frame().await.unwrap().is_ok());
}

#[tokio::test]
async fn answers_lead_through_the_proxy_again() {
    let (address, port) = backend().await;
    let api = cluster(address, port).await;
    let way = format!("{BASE}/pods/p/proxy");
    let api = &api;
    let get = |path: String| async move { text(api.send("GET", &path, "", Body::empty()).await).await };
    let (code, headers, _) = get(format!("{way}?a=b")).await;
    assert_eq!(code, 301);
    assert_eq!(headers["location"], format!("{way}/?a=b"));
    let (code, headers, _) = get(format!("{way}/redirect")).await;
    assert_eq!(code, 302);
    assert_eq!(headers["location"], format!("{way}/elsewhere"));
    let (code, headers, body) = get(format!("{way}/teapot")).await;
    assert_eq!((code, &body[..]), (418, &b"short and stout"[..]));
    assert_eq!(headers["x-mine"], "1");
    assert!(!headers.contains_key("access-control-allow-origin") && !headers.contains_key("keep-alive"));
    let page = format!(r#"<html><a href="{way}/x">x</a><a href="y">y</a></html>"#);
    let (code, headers, body) = get(format!("{way}/page")).await;
    assert_eq!((code, String::from_utf8_lossy(&body).into_owned()), (200, page.clone()));
    assert!(!headers.contains_key("content-length"));
    let (_, headers, body) = get(format!("{way}/packed")).await;
    assert_eq!(headers["content-encoding"], "gzip");
    let mut unpacked = String::new();
    flate2::read::MultiGzDecoder::new(&body[..])
        .read_to_string(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, page);
}

/// A server that answers everybody in these words.
async fn ill(words: &'static [u8]) -> (IpAddr, u16) {
    let address = own_address();
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    job::spawn("ill", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut question = [0; 4096];
            let _ = stream.read(&mut question).await;
            let _ = stream.write_all(words).await;
        }
    });
    (address, port)
}

#[tokio::test]
async fn answers_that_would_mislead_who_stands_between_are_not_passed_on() {
    let switched = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n";
    let lengths = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let (address, port) = ill(switched).await;
    let api = cluster(address, port).await;
    let path = format!("{BASE}/pods/p/proxy/x");
    let (code, _, body) = text(api.send("GET", &path, "", Body::empty()).await).await;
    let body = String::from_utf8_lossy(&body);
    assert_eq!(code, 500, "{body}");
    assert!(
        body.contains(r#"backend tried to switch protocol \"foo\" when \"\" was requested"#),
        "{body}"
    );
    let (address, port) = ill(lengths).await;
    let api = cluster(address, port).await;
    let (code, headers, body) = text(api.send("GET", &path, "", Body::empty()).await).await;
    assert_eq!((code, &body[..]), (200, &b"hello"[..]));
    assert!(!headers.contains_key("content-length"));
    assert_eq!(headers["cache-control"], "no-cache, private");
}

#[tokio::test]
async fn what_cannot_be_asked_is_named() {
    let (address, port) = backend().await;
    let api = cluster(address, port).await;
    let merge = "application/merge-patch+json";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "own"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(api.post(&format!("{BASE}/pods"), &pod).await.0, 201);
    let status = json!({"status": {"podIPs": [{"ip": "127.0.0.1"}]}});
    assert_eq!(
        api.patch(&format!("{BASE}/pods/own/status"), merge, &status).await.0,
        200
    );
    // Endpoints that name a pod with another address.
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "t"}, "spec": {"ports": [{"port": 80}]}});
    assert_eq!(api.post(&format!("{BASE}/services"), &service).await.0, 201);
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "t"}, "subsets": [{
        "addresses": [{"ip": "10.9.9.9", "targetRef": {"kind": "Pod", "namespace": "default", "name": "p"}}],
        "ports": [{"port": port}]}]});
    assert_eq!(api.post(&format!("{BASE}/endpoints"), &endpoints).await.0, 201);
    for (path, code, words) in [
        ("pods/own:80/proxy/", 400, "address not allowed"),
        ("pods/none/proxy/", 404, "pods \"none\" not found"),
        ("pods/ftp:p:80/proxy/", 400, "invalid pod request \"ftp:p:80\""),
        ("pods/p:80@10.0.0.1/proxy/", 503, "error trying to reach service"),
        ("pods/p:1/proxy/", 503, "error trying to reach service"),
        ("services/none/proxy/", 404, "services \"none\" not found"),
        (
            "services/s:81/proxy/",
            503,
            "no service port 81 found for service \"s\"",
        ),
        ("services/s:x/proxy/", 503, "no endpoints available for service \"s:x\""),
        (
            "services/t/proxy/",
            503,
            "no endpoints available for service \"t\": of its endpoints none is the pod",
        ),
        ("pods/p/proxy/?dryRun=All", 400, "dryRun is not supported"),
    ] {
        let (got, status) = api.get(&format!("{BASE}/{path}")).await;
        assert_eq!(got, code, "{path}: {status}");
        assert!(status["message"].as_str().unwrap().contains(words), "{path}: {status}");
    }
}

/// Each method is a verb of its own, so that who may read may not write.
#[tokio::test]
async fn who_may_get_may_not_post() {
    let (address, port) = backend().await;
    let api = cluster(address, port).await;
    let rules = json!([{"apiGroups": [""], "resources": ["pods/proxy"], "verbs": ["get"]}]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": rules});
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    assert_eq!(api.post(&format!("{rbac}/roles"), &role).await.0, 201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}]});
    assert_eq!(api.post(&format!("{rbac}/rolebindings"), &binding).await.0, 201);
    let jane = api.server().router_as(User::authenticated("jane", []));
    for (method, code) in [
        ("GET", 200),
        ("HEAD", 200),
        ("POST", 403),
        ("PUT", 403),
        ("DELETE", 403),
        ("OPTIONS", 403),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(format!("{BASE}/pods/p/proxy/x"))
            .body(Body::empty())
            .unwrap();
        let response = jane.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), code, "{method}");
    }
}

/// The client's side of a connection to the API.
fn connection(api: &Api) -> tokio::io::DuplexStream {
    let (client, server) = tokio::io::duplex(4096);
    let service = TowerToHyperService::new(api.router());
    let serving = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(server), service)
        .with_upgrades();
    job::spawn("connection", async move {
        let _ = serving.await;
    });
    client
}

/// The body of a request for an upgrade stays here; were its length passed on, the server behind the proxy would take the next
/// request on that connection, whoever's it is, for the body.
#[tokio::test]
async fn an_upgrade_promises_no_body() {
    let (address, port) = backend().await;
    let api = cluster(address, port).await;
    let mut client = connection(&api);
    let request = format!(
        "POST {BASE}/pods/p/proxy/plain HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, X-Mine\r\nUpgrade: mine\r\nX-Mine: 1\r\n\
         Keep-Alive: 9\r\nContent-Length: 5\r\n\r\nhello"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let reading = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        let (mut length, mut said) = (0, String::new());
        while !said.contains("/plain\"}") {
            length += client.read(&mut answer[length..]).await.unwrap();
            said = String::from_utf8_lossy(&answer[..length]).into_owned();
        }
        said
    });
    let answer = reading.await.expect("the server behind waits for a body");
    assert!(answer.contains(r#""upgrade":"mine""#), "{answer}");
    for gone in ["x-mine", "keep-alive", "content-length\":\"5"] {
        assert!(!answer.contains(gone), "{gone} in {answer}");
    }
}

#[tokio::test]
async fn an_upgraded_connection_is_spliced() {
    let (address, port) = backend().await;
    let api = cluster(address, port).await;
    let mut client = connection(&api);
    let request =
        format!("GET {BASE}/pods/p/proxy/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: mine\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(
        head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: mine"),
        "{head}"
    );
    client.write_all(b"hello").await.unwrap();
    let mut said = [0; 5];
    client.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"olleh");
}
