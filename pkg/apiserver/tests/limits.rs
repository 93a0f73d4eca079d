//! Who sends slowly, asks for too little time or reports what cannot be.
#![allow(clippy::unwrap_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "a panic in a test's own task or thread is the test's failure"
)]

mod harness;

use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use harness::{Api, read};
use http::Request;
use mk8s_store::{Answer, Follower, Loaded, SledStore, Store, StoreError, Txn};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tower::ServiceExt as _;

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Of an account without any right.
async fn token(api: &Api) -> String {
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let (code, issued) = api.post(tokens, &request).await;
    assert_eq!(code, 201, "{issued}");
    issued["status"]["token"].as_str().unwrap().to_string()
}

#[tokio::test]
async fn slow_bodies_take_nobodys_place() {
    let api = Api::open_with(|config| config.max_in_flight = (2, 2)).await;
    let token = token(&api).await;
    let router = api.server().router();
    let send = |body: Body| {
        let request = Request::post(REVIEWS)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json");
        router.clone().oneshot(request.body(body).unwrap())
    };
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let never = || {
        let first = futures::stream::iter([Ok::<_, axum::Error>(Bytes::from_static(b"{"))]);
        Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()))
    };
    let slow: Vec<_> = (0..10).map(|_| tokio::spawn(send(never()))).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(slow.iter().all(|task| !task.is_finished()), "they are still sending");
    let (code, answer) = read(send(Body::from(review)).await.unwrap()).await;
    assert_eq!(code, 201, "{answer}");
    slow.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_request_gets_the_time_it_asks_for() {
    let api = Api::open().await;
    let (code, status) = api.get("/api/v1/configmaps?timeout=soon").await;
    assert_eq!(code, 400);
    assert_eq!(
        status["message"],
        "invalid timeout specified in the request URL - time: invalid duration \"soon\""
    );
    // Longer than any clock goes: Go's type does not hold it.
    let (code, status) = api.get("/api/v1/configmaps?timeout=9999999999999999999s").await;
    assert_eq!(code, 400, "{status}");
    assert_eq!(api.get("/api/v1/configmaps?timeout=2000000h").await.0, 200);
    assert_eq!(api.get("/api/v1/configmaps?timeout=32s").await.0, 200);
    assert_eq!(api.get("/version?timeout=1m").await.0, 200);
    let never = Body::from_stream(futures::stream::pending::<Result<Bytes, axum::Error>>());
    let begun = std::time::Instant::now();
    let uri = "/api/v1/namespaces/default/configmaps?timeout=200ms";
    let (code, status) = read(api.send("POST", uri, "application/json", never).await).await;
    assert_eq!((code, status["reason"].as_str()), (504, Some("Timeout")));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn the_version_is_that_of_this_build() {
    let api = Api::open().await;
    let (_, version) = api.get("/version").await;
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    assert_eq!(version["platform"], format!("linux/{arch}"));
    let built: jiff::Timestamp = version["buildDate"].as_str().unwrap().parse().unwrap();
    assert!(built.as_second() > 1_700_000_000 && built <= jiff::Timestamp::now());
}

#[tokio::test]
async fn statuses_are_checked() {
    let api = Api::open().await;
    let pem = "-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n";
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    let csrs = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let csr = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "c"},
        "spec": {"signerName": "example.org/a", "request": encoded, "usages": ["digital signature"]}});
    let (code, made) = api.post(csrs, &csr).await;
    assert_eq!(code, 201, "{made}");
    let condition = |type_: &str| json!({"type": type_, "status": "True", "reason": "R", "message": "m"});
    let decide = |conditions: Value| {
        let change = json!({"status": {"conditions": conditions}});
        let api = &api;
        async move {
            let mut codes = Vec::new();
            for part in ["approval", "status"] {
                let kind = "application/merge-patch+json";
                codes.push(api.patch(&format!("{csrs}/c/{part}"), kind, &change).await.0);
            }
            codes
        }
    };
    assert_eq!(
        decide(json!([condition("Approved"), condition("Denied")])).await,
        [422, 422]
    );
    assert_eq!(decide(json!([condition("Approved")])).await[0], 200);
    assert_eq!(decide(json!([])).await, [422, 422], "no decision is taken back");
}

/// The embedded store, which notes the threads that write to it.
struct Noting(SledStore, Mutex<Vec<ThreadId>>);

impl Store for Noting {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.0.load()
    }

    fn follow(&self, after: u64, follower: Box<dyn Follower>) -> Result<(), StoreError> {
        self.0.follow(after, follower)
    }

    fn txn(&self, txn: Txn) -> Answer {
        self.1.lock().push(std::thread::current().id());
        self.0.txn(txn)
    }

    fn current_revision(&self) -> u64 {
        self.0.current_revision()
    }

    fn health(&self) -> Result<(), Arc<str>> {
        self.0.health()
    }

    fn close(&self) {
        self.0.close();
    }
}

/// On a runtime of one thread: what a request does there, nothing else does meanwhile.
#[tokio::test]
async fn long_requests_are_worked_on_beside_the_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Noting(SledStore::open(dir.path()).unwrap(), Mutex::default()));
    let api = Api::on(store.clone()).await;
    let own = std::thread::current().id();
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = |name: &str, size: usize| {
        let data = json!({"key": "v".repeat(size)});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}).to_string()
    };
    let small = || json!({"metadata": {"labels": {"a": "b"}}}).to_string();
    let (json, merge) = ("application/json", "application/merge-patch+json");
    let cases = [
        ("POST", "", json, map("short", 1000), true),
        ("PUT", "/short", json, map("short", 2000), true),
        ("PATCH", "/short", merge, small(), true),
        ("PUT", "/short", json, map("short", 100_000), false),
        ("POST", "", json, map("long", 100_000), false),
        // Short requests about something long.
        ("PATCH", "/long", merge, small(), false),
        ("DELETE", "/long", json, String::new(), false),
    ];
    for (method, name, kind, body, at_once) in cases {
        store.1.lock().clear();
        let response = api.send(method, &format!("{maps}{name}"), kind, body).await;
        assert!(response.status().is_success(), "{method} {name}: {}", response.status());
        let threads = store.1.lock().clone();
        assert!(
            !threads.is_empty() && threads.iter().all(|thread| (*thread == own) == at_once),
            "{method} {name}"
        );
    }
}

/// Nothing in a dry run waits for the store: all that matched was worked on in one step of the runtime's worker.
#[tokio::test]
async fn a_dry_run_of_many_lets_others_go_on() {
    let api = Api::open().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for at in 0..160 {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{at}")}});
        assert_eq!(api.post(maps, &map).await.0, 201);
    }
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = count.clone();
    let ticking = tokio::spawn(async move {
        loop {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let (code, list) = api.send_json("DELETE", &format!("{maps}?dryRun=All"), &json!({})).await;
    ticking.abort();
    assert_eq!(code, 200, "{list}");
    assert_eq!(list["items"].as_array().unwrap().len(), 160);
    assert!(count.load(std::sync::atomic::Ordering::Relaxed) >= 5, "{count:?}");
}

/// An answer that was made whole stayed for as long as its client kept the connection.
#[tokio::test]
async fn an_answer_that_nobody_reads_is_taken_back() {
    let api = Api::open().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "long"}, "data": {"a": "v".repeat(100_000)}});
    assert_eq!(api.post(maps, &map).await.0, 201);
    let one = format!("{maps}/long?pretty=1");
    let (code, whole) = api.get(&one).await;
    assert_eq!((code, &whole["data"]), (200, &map["data"]));
    let mut body = api
        .send("GET", &one, "application/json", Body::empty())
        .await
        .into_body();
    let length = http_body::Body::size_hint(&body).exact().unwrap();
    let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
    let first = frame.data_ref().unwrap().len() as u64;
    assert!(first <= 16 << 10, "in pieces: {first}");
    assert_eq!(http_body::Body::size_hint(&body).exact(), Some(length - first));
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(http_body_util::BodyExt::frame(&mut body).await.unwrap().is_err());
}

/// Unread answers of one account held all places, and a document's copy each.
#[tokio::test]
async fn unread_answers_of_one_account_keep_nobody_else_out() {
    let api = Api::open_with(|config| config.max_in_flight = (8, 8)).await;
    let token = token(&api).await;
    let router = api.server().router();
    let ask = || {
        let request = Request::get("/openapi/v2").header("authorization", format!("Bearer {token}"));
        router.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    let mut unread = Vec::new();
    for _ in 0..20 {
        unread.push(ask().await.unwrap());
    }
    let answered = unread.iter().filter(|answer| answer.status() == 200).count();
    assert_eq!((answered, unread.last().unwrap().status().as_u16()), (2, 429));
    for _ in 0..20 {
        assert_eq!(api.get("/version").await.0, 200);
    }
    let (code, document) = read(unread.remove(0)).await;
    assert!(code == 200 && document["swagger"] == "2.0");
}
