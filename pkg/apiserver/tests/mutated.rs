//! Requests that were made wrong in every way, as upstream's API server answered them (tests/diff, `--record`): status and
//! reason are the same here.
#![allow(clippy::unwrap_used)]

mod harness;

use axum::body::Body;
use base64::Engine as _;
use harness::Api;
use http::Request;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt as _;

#[derive(Deserialize)]
struct Case {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    /// Where the body is no text.
    base64: Option<String>,
    code: u16,
    reason: String,
}

#[derive(Deserialize)]
struct Fixture {
    group: String,
    kind: String,
    name: String,
    /// What this is written to, where it is no object of its own.
    #[serde(default)]
    part: String,
    body: Value,
}

/// The objects that the requests are about: one of every kind.
async fn furnish(api: &Api) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fuzz"}});
    assert_eq!(api.post("/api/v1/namespaces", &namespace).await.0, 201);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let accounts = "/api/v1/namespaces/fuzz/serviceaccounts";
    assert_eq!(api.post(accounts, &account).await.0, 201);
    for line in include_str!("../../../tests/diff/fixtures.jsonl").lines() {
        let fixture: Fixture = serde_json::from_str(line).unwrap();
        if !fixture.part.is_empty() || fixture.body.is_null() {
            continue;
        }
        let mut rows = mk8s_api::registry::builtin()
            .iter()
            .filter(|row| row.kind == fixture.kind && row.verbs.names().any(|verb| verb == "delete"));
        // One kind is served in two groups, and has an object of each.
        let found = rows.find_map(|row| {
            let stored = Some(row.stored()).filter(|stored| stored.group == fixture.group);
            let served = stored.or_else(|| row.versions.iter().find(|served| served.group == fixture.group));
            Some((row, served?))
        });
        let Some((row, served)) = found else {
            continue;
        };
        let mut object = fixture.body;
        object["apiVersion"] = served.api_version().into();
        object["kind"] = fixture.kind.into();
        object["metadata"] = json!({"name": fixture.name});
        let base = match &*served.group {
            "" => format!("/api/{}", served.name),
            group => format!("/apis/{group}/{}", served.name),
        };
        let within = if row.is_namespaced() { "/namespaces/fuzz" } else { "" };
        // What promises protection is refused, and its kind is in no request.
        let made = api.post(&format!("{base}{within}/{}", row.plural), &object).await;
        assert!(matches!(made.0, 201 | 403), "{}: {}", row.plural, made.1);
    }
}

/// Of a refusal, in whichever encoding it comes.
fn reason(content_type: &str, body: &[u8]) -> String {
    let status: Option<Value> = match content_type {
        "application/json" => serde_json::from_slice(body).ok(),
        "application/yaml" => serde_saphyr::from_str(&String::from_utf8_lossy(body)).ok(),
        "application/vnd.kubernetes.protobuf" => mk8s_api::codec::protobuf::decode(body).ok(),
        _ => None,
    };
    let status = status.unwrap_or_default();
    status["reason"].as_str().unwrap_or_default().to_string()
}

#[tokio::test]
async fn what_is_wrong_is_refused_as_upstream_refuses_it() {
    let api = Api::open().await;
    furnish(&api).await;
    let admin = ["system:masters".to_string()];
    let router = api
        .server()
        .router_as(mk8s_apiserver::User::authenticated("kubernetes-admin", admin));
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in include_str!("mutated.jsonl").lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let mut request = Request::builder().method(&*case.method).uri(&case.target);
        for (name, value) in &case.headers {
            request = request.header(name, value);
        }
        let standard = base64::engine::general_purpose::STANDARD;
        let body = match &case.base64 {
            Some(text) => standard.decode(text).unwrap(),
            None => case.body.clone().into_bytes(),
        };
        let response = router
            .clone()
            .oneshot(request.body(Body::from(body)).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let code = parts.status.as_u16();
        let told = match code {
            400.. => {
                let kind = parts.headers.get("content-type").and_then(|value| value.to_str().ok());
                reason(kind.unwrap_or_default(), &body.collect().await.unwrap().to_bytes())
            }
            _ => String::new(),
        };
        count += 1;
        if (code, &told) != (case.code, &case.reason) {
            wrong.push(format!(
                "{code} {told} instead of {} {}: {line}",
                case.code, case.reason
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}
