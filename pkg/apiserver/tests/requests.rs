//! Whole requests of a stranger: recorded ones, taken apart and put together again from seeded changes of their parts (method
//! × path × headers × body), MK8S_FUZZ_SECONDS long (2 where it is not set). The server neither panics nor fails, answers
//! soon, and says no more than a few times what it was sent. A failure prints the request; the seed is the same each time.
#![allow(clippy::unwrap_used)]

mod harness;
#[allow(dead_code, reason = "what bodies need of it")]
#[path = "../../api/tests/fuzz/mutate.rs"]
mod mutate;

use std::time::{Duration, Instant};

use axum::body::Body;
use base64::Engine as _;
use futures::StreamExt as _;
use harness::Api;
use http::Request;
use mutate::{Random, mutate};
use serde_json::Value;
use tower::ServiceExt as _;

/// What a request of some kilobytes may take, without optimization and beside other tests.
const LONGEST: Duration = Duration::from_secs(10);
/// How much of an answer is read: a watch goes on.
const READ: usize = 4 << 20;

#[derive(Clone, Debug)]
struct Case {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_string()
}

/// Of both recordings.
fn corpus() -> Vec<Case> {
    let golden = include_str!("../../../tests/api/golden/custom.jsonl");
    let definitions = include_str!("../../../tests/api/golden/definitions.jsonl");
    let recorded = golden.lines().chain(definitions.lines()).map(|line| {
        let pair: Value = serde_json::from_str(line).unwrap();
        let request = &pair["request"];
        let method = request["method"].as_str().unwrap_or("GET").to_string();
        let headers = request["headers"].as_object().into_iter().flatten();
        let mut headers: Vec<(String, String)> = headers
            .map(|(name, value)| (name.to_lowercase(), value.as_str().unwrap_or_default().to_string()))
            .collect();
        if !headers.iter().any(|(name, _)| name == "content-type") {
            headers.push(("content-type".into(), "application/json".into()));
        }
        let body = match request.get("body") {
            Some(body) => body.to_string(),
            None => text(request, "text"),
        };
        Case {
            method,
            target: text(request, "path"),
            headers,
            body: body.into_bytes(),
        }
    });
    let mutated = include_str!("mutated.jsonl").lines().map(|line| {
        let case: Value = serde_json::from_str(line).unwrap();
        let standard = base64::engine::general_purpose::STANDARD;
        Case {
            method: text(&case, "method"),
            target: text(&case, "target"),
            headers: serde_json::from_value(case["headers"].clone()).unwrap(),
            body: match case["base64"].as_str() {
                Some(body) => standard.decode(body).unwrap(),
                None => text(&case, "body").into_bytes(),
            },
        }
    });
    recorded.chain(mutated).collect()
}

const METHODS: [&str; 8] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "WATCH"];
/// What a path or a query may be spoilt with.
const PIECES: [&str; 24] = [
    "/",
    "//",
    "/../",
    "%2f",
    "%00",
    "%ff",
    "%",
    "?",
    "&",
    "=",
    "watch/",
    "/status",
    "/scale",
    "/namespaces/a/",
    "?watch=true&timeoutSeconds=1",
    "&limit=1",
    "&continue=e30",
    "&resourceVersion=0",
    "&fieldSelector=a%3Db",
    "&labelSelector=a+in+(b",
    "&dryRun=All",
    "&fieldManager=m&force=true",
    "&fieldValidation=Strict",
    "&propagationPolicy=Foreground",
];
const HEADERS: [(&str, &str); 14] = [
    ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"),
    (
        "accept",
        "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    ),
    ("accept", "application/vnd.kubernetes.protobuf"),
    ("accept", "application/yaml, */*;q=0"),
    ("accept-encoding", "gzip"),
    ("content-type", "application/vnd.kubernetes.protobuf"),
    ("content-type", "application/yaml"),
    ("content-type", "application/apply-patch+yaml"),
    ("content-type", "application/json-patch+json"),
    ("content-type", "application/merge-patch+json"),
    ("content-type", "application/strategic-merge-patch+json"),
    ("impersonate-user", "somebody"),
    ("if-none-match", "*"),
    ("upgrade", "websocket"),
];

fn change(corpus: &[Case], bodies: &[Vec<u8>], random: &mut Random) -> Case {
    let pick = |random: &mut Random| &corpus[random.below(corpus.len())];
    let mut case = pick(random).clone();
    for _ in 0..=random.below(3) {
        match random.below(8) {
            0 => case.method = METHODS[random.below(METHODS.len())].into(),
            1 => case.target = pick(random).target.clone(),
            2 => {
                let mut at = random.below(case.target.len() + 1);
                while !case.target.is_char_boundary(at) {
                    at -= 1;
                }
                case.target.insert_str(at, PIECES[random.below(PIECES.len())]);
            }
            3 => {
                case.target.push(if case.target.contains('?') { '&' } else { '?' });
                case.target.push_str(PIECES[random.below(PIECES.len())]);
            }
            4 => {
                let (name, value) = HEADERS[random.below(HEADERS.len())];
                case.headers.retain(|(own, _)| own != name);
                case.headers.push((name.into(), value.into()));
            }
            5 => case.body = pick(random).body.clone(),
            6 => case.headers = pick(random).headers.clone(),
            _ => mutate(&mut case.body, bodies, random),
        }
    }
    case
}

/// What a request is answered, unless no client could send it: the code, and what was read of the body.
async fn send(api: &Api, case: &Case) -> Option<(u16, Vec<u8>)> {
    let mut request = Request::builder().method(&*case.method).uri(&case.target);
    for (name, value) in &case.headers {
        request = request.header(name, value);
    }
    let request = request.body(Body::from(case.body.clone())).ok()?;
    let response = api.router().oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    let mut read = Vec::new();
    let mut body = response.into_body().into_data_stream();
    // What a watch has to say at once.
    while let Ok(Some(Ok(chunk))) = tokio::time::timeout(Duration::from_millis(20), body.next()).await {
        read.extend_from_slice(&chunk);
        if read.len() > READ {
            break;
        }
    }
    Some((code, read))
}

/// Upstream answers these with 500, in its words, and so does mk8s.
fn is_upstreams_own(told: &str) -> bool {
    const WORDS: [&str; 2] = [
        "resourceVersion should not be set on objects to be created",
        "failed to create typed patch object",
    ];
    WORDS.iter().any(|words| told.contains(words))
}

/// Whether it asks for what is there, however long that is. Upstream answers with its OpenAPI documents to every method.
fn reads(case: &Case) -> bool {
    case.method == "GET" || case.target.starts_with("/openapi/")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_makes_the_server_fail() {
    let api = Api::open().await;
    let corpus = corpus();
    let bodies: Vec<Vec<u8>> = corpus.iter().map(|case| case.body.clone()).collect();
    // The objects that the recorded requests are about; what is refused is refused.
    for case in &corpus {
        send(&api, case).await;
    }
    let seconds = std::env::var("MK8S_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(2));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut sent = 0;
    while Instant::now() < end {
        let case = change(&corpus, &bodies, &mut random);
        let answered = tokio::time::timeout(LONGEST, send(&api, &case)).await;
        let Some((code, read)) = answered.unwrap_or_else(|_| panic!("no answer to {case:?}")) else {
            continue;
        };
        let told = String::from_utf8_lossy(&read);
        assert!(
            code < 500 || code == 504 || is_upstreams_own(&told),
            "{code} {told}\n{case:?}"
        );
        let most = 64 * case.body.len() + READ / 2;
        assert!(
            read.len() < most || reads(&case),
            "{} bytes of an answer to {case:?}",
            read.len()
        );
        sent += 1;
    }
    assert!(sent > 10, "{sent} requests were sent");
}
