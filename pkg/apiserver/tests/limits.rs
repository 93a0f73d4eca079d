//! Who sends slowly, asks for too little time or reports what cannot be.
#![allow(clippy::unwrap_used)]
#![expect(
    clippy::disallowed_methods,
    reason = "a panic in a test's own task or thread is the test's failure"
)]

mod harness;

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use harness::{Api, read};
use http::Request;
use serde_json::{Value, json};
use tower::ServiceExt as _;

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

#[tokio::test]
async fn slow_bodies_take_nobodys_place() {
    let api = Api::open_with(|config| config.max_in_flight = (2, 2)).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let (code, issued) = api.post(tokens, &request).await;
    assert_eq!(code, 201, "{issued}");
    let token = issued["status"]["token"].as_str().unwrap();
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

/// On a runtime of one thread: whatever a request does there, nothing else is served meanwhile.
#[tokio::test]
async fn long_requests_hold_nobody_up() {
    let api = Api::open().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let data: serde_json::Map<String, Value> = (0..60_000).map(|n| (format!("key-{n}"), "v".into())).collect();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "long"}, "data": data});
    let small = json!({"data": {"key-1": "w"}});
    let merge = "application/merge-patch+json";
    let text = map.to_string();
    for (what, code) in [("POST", 201), ("PUT", 200), ("PATCH", 200)] {
        let begun = std::time::Instant::now();
        let request = async {
            match what {
                "POST" => read(api.send(what, maps, "application/json", text.clone()).await).await,
                "PUT" => {
                    read(
                        api.send(what, &format!("{maps}/long"), "application/json", text.clone())
                            .await,
                    )
                    .await
                }
                // Short, of something long.
                _ => api.patch(&format!("{maps}/long"), merge, &small).await,
            }
            .0
        };
        let mut longest = Duration::ZERO;
        let others = async {
            loop {
                let asleep = std::time::Instant::now();
                tokio::time::sleep(Duration::from_millis(1)).await;
                longest = longest.max(asleep.elapsed());
            }
        };
        let answered = tokio::select! {
            () = others => unreachable!("it goes on for ever"),
            answered = request => (answered, begun.elapsed()),
        };
        assert_eq!(answered.0, code, "{what}");
        assert!(longest * 2 < answered.1, "{what}: {longest:?} of {:?}", answered.1);
    }
}
