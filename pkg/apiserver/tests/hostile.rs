//! What an account with few rights or none may send, and must not get out of it: the server's end, others' objects.
#![allow(clippy::unwrap_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "a panic in a test's own task or thread is the test's failure"
)]

mod harness;

use axum::body::Body;
use harness::{Api, read};
use http::Request;
use mk8s_api::codec::protobuf;
use mk8s_apiserver::User;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// A message's field of bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_within_objects_end_at_a_depth_and_not_at_the_stacks_end() {
    let api = Api::open().await;
    let router = api.server().router_as(User::authenticated("nobody", []));
    let revision = |raw: &[u8]| protobuf::envelope("apps/v1", "ControllerRevision", &field(2, &field(1, raw)));
    let nested = (0..4_000).fold(revision(b"{}"), |inner, _| revision(&inner));
    let post = |uri: &str, body: Vec<u8>| {
        let request = Request::post(uri).header("content-type", protobuf::MEDIA_TYPE);
        router.clone().oneshot(request.body(Body::from(body)).unwrap())
    };
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    // On a worker of the runtime, whose stack is what a request has.
    let response = tokio::spawn(post(reviews, nested.clone())).await.unwrap().unwrap();
    let (code, status) = read(response).await;
    assert_eq!(code, 400, "{status}");
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("unknown conversion"), "refused by its kind: {message}");

    // The kind that is expected, with the same inside.
    let admin = api
        .server()
        .router_as(User::authenticated("admin", ["system:masters".into()]));
    let request = Request::post("/apis/apps/v1/namespaces/default/controllerrevisions")
        .header("content-type", protobuf::MEDIA_TYPE)
        .body(Body::from(nested))
        .unwrap();
    let response = tokio::spawn(admin.oneshot(request)).await.unwrap().unwrap();
    let (code, status) = read(response).await;
    assert_eq!(code, 400, "{status}");
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("nests deeper than 100 levels")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_too_deep_is_told_how_deep_one_may_be() {
    let api = Api::open().await;
    let mut schema = serde_json::json!({"type": "string"});
    for _ in 0..60 {
        schema = serde_json::json!({"type": "object", "properties": {"a": schema}});
    }
    let version =
        serde_json::json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    let definition = serde_json::json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "cars.example.org"}, "spec": {"group": "example.org", "scope": "Namespaced",
        "names": {"plural": "cars", "kind": "Car"}, "versions": [version]}});
    let (json, yaml, apply) = ("application/json", "application/yaml", "application/apply-patch+yaml");
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let maps = "/api/v1/namespaces/default/configmaps";
    let apply_to = format!("{maps}/a?fieldManager=a");
    let flow = format!("kind: ConfigMap\ndata: {}{}\n", "[".repeat(70), "]".repeat(70));
    let schemas = "deeper than 100 levels, of which each level of a schema takes two";
    for (method, path, kind, body, words) in [
        ("POST", crds, json, definition.to_string(), schemas),
        ("POST", maps, yaml, flow.clone(), "deeper than 64 levels"),
        ("PATCH", apply_to.as_str(), apply, flow, "deeper than 64 levels"),
    ] {
        let (code, status) = read(api.send(method, path, kind, body).await).await;
        let message = status["message"].as_str().unwrap_or_default();
        assert!(code == 400 && message.contains(words), "{path}: {code} {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_and_patch_has_the_same_depth() {
    let api = Api::open().await;
    let revisions = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let text = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(
            r#"{{"apiVersion":"apps/v1","kind":"ControllerRevision","metadata":{{"name":"a"}},"revision":1,"data":{{"a":{open}{close}}}}}"#
        )
    };
    for kind in ["application/json", "application/yaml"] {
        for levels in [99, 3_000, 200_000] {
            let body = text(levels);
            let (code, status) = read(api.send("POST", revisions, kind, body).await).await;
            assert_eq!(code, 400, "{kind} {levels}: {status}");
        }
    }
    let (code, made) = read(api.send("POST", revisions, "application/json", text(98)).await).await;
    assert_eq!(code, 201, "{made}");
    // Whatever is stored can be read in every form, and written again.
    let one = format!("{revisions}/a");
    for accept in ["application/json", "application/yaml", protobuf::MEDIA_TYPE] {
        assert_eq!(api.accept(&one, accept).await.0, 200, "{accept}");
    }
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(api.patch(&one, "application/merge-patch+json", &label).await.0, 200);

    let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bomb"}, "data": {"a": "x"}});
    api.post("/api/v1/namespaces/default/configmaps", &config_map).await;
    let bomb: Vec<Value> = (0..2_000)
        .map(|index| json!({"op": "copy", "from": "/data", "path": format!("/data/{index}")}))
        .collect();
    let (code, status) = api
        .patch(
            "/api/v1/namespaces/default/configmaps/bomb",
            "application/json-patch+json",
            &bomb.into(),
        )
        .await;
    assert_eq!(code, 422, "{status}");
}

/// A router for a user with the given rules in namespace `default`.
async fn granted(api: &Api, user: &str, rules: Value) -> axum::Router {
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": user}, "rules": rules});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}]});
    assert_eq!(api.post(&format!("{RBAC}/roles"), &role).await.0, 201);
    assert_eq!(api.post(&format!("{RBAC}/rolebindings"), &binding).await.0, 201);
    api.server().router_as(User::authenticated(user, []))
}

async fn get(router: &axum::Router, uri: &str) -> http::Response<Body> {
    let request = Request::get(uri).body(Body::empty()).unwrap();
    router.clone().oneshot(request).await.unwrap()
}

#[tokio::test]
async fn a_watch_of_one_name_shows_that_one_alone() {
    let api = Api::open().await;
    let one_secret =
        json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["own"], "verbs": ["watch"]}]);
    let router = granted(&api, "jane", one_secret).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    for name in ["another", "own", "third"] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        assert_eq!(api.post(secrets, &secret).await.0, 201);
    }
    let watched = "/api/v1/watch/namespaces/default/secrets";
    for selector in ["", "&fieldSelector=metadata.name%3Down"] {
        let uri = format!(
            "{watched}/own?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan{selector}"
        );
        let response = get(&router, &uri).await;
        assert_eq!(response.status(), 200);
        let events = harness::events_until(response.into_body(), |event| event["type"] == "BOOKMARK").await;
        let names: Vec<&Value> = events
            .iter()
            .map(|event| &event["object"]["metadata"]["name"])
            .collect();
        assert_eq!(names, [&json!("own"), &Value::Null], "{selector}");
    }
    for contradiction in [
        "metadata.name%3Danother",
        "metadata.namespace%3Ddefault",
        "metadata.name!%3Down",
    ] {
        let uri = format!("{watched}/own?fieldSelector={contradiction}");
        let (code, status) = read(get(&router, &uri).await).await;
        assert_eq!(code, 400, "{contradiction}");
        assert_eq!(
            status["message"],
            "fieldSelector metadata.name doesn't match requested name"
        );
    }
    assert_eq!(get(&router, watched).await.status(), 403);
    assert_eq!(get(&router, &format!("{watched}/another")).await.status(), 403);
    // A cluster-scoped one whose path looks like a namespace's.
    let namespace = "/api/v1/watch/namespaces/default?resourceVersion=0".to_owned();
    let response = api.watch(&namespace).await;
    let namespaces = "/api/v1/namespaces";
    let other = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    assert_eq!(api.post(namespaces, &other).await.0, 201);
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let patched = api
        .patch(&format!("{namespaces}/default"), "application/merge-patch+json", &label)
        .await;
    assert_eq!(patched.0, 200);
    let events = harness::events_until(response, |event| event["object"]["metadata"]["labels"]["a"] == "b").await;
    assert!(
        events
            .iter()
            .all(|event| event["object"]["metadata"]["name"] == "default"),
        "{events:#?}"
    );
    // The prefix is for watching.
    let (code, _) = api.post("/api/v1/watch/namespaces/default/secrets", &json!({})).await;
    assert_eq!(code, 405);
}

#[tokio::test]
async fn a_name_beyond_ascii_is_somebody_else() {
    let api = Api::open().await;
    for (header, value) in [
        ("impersonate-user", "josé"),
        ("impersonate-group", "größe"),
        ("impersonate-uid", "ü"),
        ("impersonate-extra-team", "é"),
    ] {
        let admin = api
            .server()
            .router_as(User::authenticated("admin", ["system:masters".into()]));
        let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let send = |value: http::HeaderValue| {
            let request = Request::post(reviews).header("content-type", "application/json");
            let request = request.header("impersonate-user", "joe").header(header, "x");
            let mut request = request
                .body(Body::from(json!({"kind": "SelfSubjectReview"}).to_string()))
                .unwrap();
            request.headers_mut().insert(header, value);
            admin.clone().oneshot(request)
        };
        let (code, review) = read(send(value.parse().unwrap()).await.unwrap()).await;
        assert_eq!(code, 201, "{review}");
        assert!(review["status"]["userInfo"].to_string().contains(value), "{review}");
        let response = send(http::HeaderValue::from_bytes(b"jos\xe9").unwrap()).await.unwrap();
        assert_eq!(read(response).await.0, 400, "{header}");
    }
}

/// HTTP/1.1 over real TLS, by hand: what a client has written and what it reads are told apart.
mod wire {
    use std::sync::Arc;

    use mk8s_apiserver::ApiServer;
    use mk8s_pki::layout::{self, ServerNames};
    use mk8s_pki::rotation::{self, Holder};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_util::sync::CancellationToken;

    pub struct Served {
        _dir: tempfile::TempDir,
        port: u16,
        ca: CertificateDer<'static>,
    }

    pub async fn serve(server: &Arc<ApiServer>) -> Served {
        let dir = tempfile::tempdir().unwrap();
        let names = ServerNames {
            node_name: "test".into(),
            cluster_domain: "cluster.local".into(),
            advertise_address: [127, 0, 0, 1].into(),
            service_address: [10, 96, 0, 1].into(),
            extra: Vec::new(),
        };
        let pki = layout::create(dir.path(), &names).unwrap();
        let ca = pki.ca.certificate_pem();
        let tls = Arc::new(rotation::server_config(Holder::new(pki.server.clone()), ca).unwrap());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let ca = CertificateDer::from_pem_slice(ca.as_bytes()).unwrap();
        let server = server.clone();
        tokio::spawn(async move { server.serve(listener, tls, CancellationToken::new()).await });
        Served { _dir: dir, port, ca }
    }

    impl Served {
        pub async fn connect(&self) -> TlsStream<TcpStream> {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.ca.clone()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
            let name = "127.0.0.1".to_string().try_into().unwrap();
            TlsConnector::from(Arc::new(config))
                .connect(name, stream)
                .await
                .unwrap()
        }
    }

    fn is_whole(text: &[u8]) -> bool {
        let text = String::from_utf8_lossy(text).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return false;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        length.is_some_and(|length| body.len() >= length.trim().parse::<usize>().unwrap())
    }

    /// Sends a request with a token that nobody has, whole, and only then reads the answer; None where it did not come.
    pub async fn refused(stream: &mut TlsStream<TcpStream>, body: usize) -> Option<String> {
        let head = format!(
            "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\n\
             content-type: application/json\r\ncontent-length: {body}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        // Slow enough for the answer to be ready before the last of it.
        for part in vec![b'x'; body].chunks(16 << 10) {
            let _ = stream.write_all(part).await;
            let _ = stream.flush().await;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let mut text = Vec::new();
        loop {
            let mut some = [0; 4096];
            match stream.read(&mut some).await {
                Ok(count @ 1..) => text.extend_from_slice(&some[..count]),
                _ => break,
            }
            if is_whole(&text) {
                break;
            }
        }
        (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_does_not_cost_its_answer() {
    let api = Api::open().await;
    let served = wire::serve(api.server()).await;
    // What is drained leaves the connection usable.
    let mut stream = served.connect().await;
    for _ in 0..3 {
        let answer = wire::refused(&mut stream, 200 << 10).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(!answer.to_lowercase().contains("connection: close"), "{answer}");
    }
    // What is longer ends it, after its answer.
    for attempt in 0..20 {
        let mut stream = served.connect().await;
        let answer = wire::refused(&mut stream, 1 << 20).await;
        let answer = answer.unwrap_or_else(|| panic!("no answer in attempt {attempt}"));
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    }
}
