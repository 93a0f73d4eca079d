//! Requests that are on their way while their kind's storage moves to another version: they are answered in their own.
#![allow(clippy::unwrap_used)]

mod harness;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt as _;
use harness::{Api, events_until, read};
use serde_json::{Value, json};
use tokio::sync::Notify;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/example.org/v1/namespaces/default/cars";
const V2: &str = "/apis/example.org/v2/namespaces/default/cars";

fn definition() -> Value {
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "cars.example.org"},
        "spec": {
            "group": "example.org", "scope": "Namespaced", "names": {"plural": "cars", "kind": "Car"},
            "versions": [version("v1", true), version("v2", false)]},
    })
}

fn car(name: &str) -> Value {
    json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": name}, "spec": {"n": 1}})
}

async fn until(mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not come to that");
}

/// A body whose second half waits.
fn slow(body: &Value, until: &Arc<Notify>) -> Body {
    let text = body.to_string();
    let (first, rest) = text.split_at(text.len() / 2);
    let (first, rest) = (Bytes::from(first.to_string()), Bytes::from(rest.to_string()));
    let until = until.clone();
    let rest = async move {
        until.notified().await;
        Ok::<_, axum::Error>(rest)
    };
    let first = futures::stream::once(async { Ok(first) });
    Body::from_stream(first.chain(futures::stream::once(rest)))
}

#[expect(clippy::too_many_lines, reason = "one story: every kind of write beside one change")]
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_write_is_answered_in_its_own_version() {
    let api = Api::open().await;
    assert_eq!(api.post(CRDS, &definition()).await.0, 201);
    until(async || api.get(V1).await.0 == 200).await;
    for name in ["merge", "json", "apply", "status", "gone"] {
        assert_eq!(api.post(V1, &car(name)).await.0, 201);
    }
    let (_, mut changed) = api.post(V1, &car("put")).await;
    changed["spec"]["n"] = 2.into();
    let operations = json!([{"op": "test", "path": "/apiVersion", "value": "example.org/v1"},
        {"op": "replace", "path": "/spec/n", "value": 2}]);
    let mut applied = car("apply");
    applied["spec"] = json!({"m": 2});
    let writes = [
        ("POST", V1.to_string(), "application/json", car("post")),
        ("PUT", format!("{V1}/put"), "application/json", changed),
        (
            "PATCH",
            format!("{V1}/merge"),
            "application/merge-patch+json",
            json!({"spec": {"n": 2}}),
        ),
        ("PATCH", format!("{V1}/json"), "application/json-patch+json", operations),
        (
            "PATCH",
            format!("{V1}/apply?fieldManager=m"),
            "application/apply-patch+yaml",
            applied,
        ),
        (
            "PATCH",
            format!("{V1}/status/status"),
            "application/merge-patch+json",
            json!({"status": {"n": 2}}),
        ),
        (
            "DELETE",
            format!("{V1}/gone"),
            "application/json",
            json!({"propagationPolicy": "Foreground"}),
        ),
    ];
    let go = Arc::new(Notify::new());
    let sent = writes.iter().map(|(method, path, kind, body)| {
        let (api, body) = (&api, slow(body, &go));
        async move { read(api.send(method, path, kind, body).await).await }
    });
    let moved = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let move_it = json!([
            {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
            {"op": "replace", "path": "/spec/versions/1/storage", "value": true}]);
        let path = format!("{CRDS}/cars.example.org");
        assert_eq!(api.patch(&path, "application/json-patch+json", &move_it).await.0, 200);
        let shared = api.server().state();
        let storage = || {
            shared
                .registry()
                .rows()
                .get("example.org", "v2", "cars")
                .unwrap()
                .shows_stored()
        };
        until(async || storage()).await;
        for _ in &writes {
            go.notify_one();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (answers, ()) = tokio::join!(futures::future::join_all(sent), moved);
    for ((method, path, ..), (code, answer)) in writes.iter().zip(&answers) {
        let expected = if *method == "POST" { 201 } else { 200 };
        assert_eq!(*code, expected, "{method} {path}: {answer}");
        assert_eq!(answer["apiVersion"], "example.org/v1", "{method} {path}: {answer}");
    }
    // And is there in each.
    for (path, version) in [(V1, "example.org/v1"), (V2, "example.org/v2")] {
        let (_, list) = api.get(path).await;
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.len(), 7, "{list}");
        assert!(items.iter().all(|car| car["apiVersion"] == version), "{list}");
    }
    for (name, field) in [
        ("put", "/spec/n"),
        ("merge", "/spec/n"),
        ("json", "/spec/n"),
        ("apply", "/spec/m"),
        ("status", "/status/n"),
    ] {
        let (_, car) = api.get(&format!("{V2}/{name}")).await;
        assert_eq!(car.pointer(field), Some(&json!(2)), "{name}: {car}");
    }
}

/// A watch that begins while the storage moves shows its own version, or is told to begin again.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_one_version_whenever_it_begins() {
    let api = Api::open().await;
    assert_eq!(api.post(CRDS, &definition()).await.0, 201);
    until(async || api.get(V1).await.0 == 200).await;
    assert_eq!(api.post(V1, &car("a")).await.0, 201);
    let path = format!("{CRDS}/cars.example.org");
    let flips = async {
        for turn in 0..10 {
            let move_it = json!([
                {"op": "replace", "path": "/spec/versions/0/storage", "value": turn % 2 == 1},
                {"op": "replace", "path": "/spec/versions/1/storage", "value": turn % 2 == 0}]);
            assert_eq!(api.patch(&path, "application/json-patch+json", &move_it).await.0, 200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let watches = (0..100).map(|at| {
        let api = &api;
        async move {
            tokio::time::sleep(Duration::from_millis(at * 3)).await;
            let answer = api
                .send("GET", &format!("{V1}?watch=1"), "application/json", Body::empty())
                .await;
            if answer.status() != 200 {
                return answer.status() == 410;
            }
            let seen = events_until(answer.into_body(), |_| true).await;
            seen[0]["type"] == "ERROR" || seen[0]["object"]["apiVersion"] == "example.org/v1"
        }
    });
    let (right, ()) = tokio::join!(futures::future::join_all(watches), flips);
    assert_eq!(right, [true; 100]);
}

/// Who writes to objects that there are holds no end of their kind up, however many they are.
#[tokio::test(flavor = "multi_thread")]
async fn writers_without_end_hold_no_definition() {
    let api = Api::open().await;
    assert_eq!(api.post(CRDS, &definition()).await.0, 201);
    until(async || api.get(V1).await.0 == 200).await;
    assert_eq!(api.post(V1, &car("a")).await.0, 201);
    let (path, one) = (format!("{CRDS}/cars.example.org"), format!("{V1}/a?dryRun=All"));
    let change = json!({"spec": {"n": 2}});
    let writers = (0..4).map(|_| async {
        loop {
            api.patch(&one, "application/merge-patch+json", &change).await;
            // It waits for nothing on its way.
            tokio::task::yield_now().await;
        }
    });
    let ends = async {
        assert_eq!(api.delete(&path, None).await.0, 200);
        until(async || api.get(&path).await.0 == 404).await;
    };
    tokio::select! {
        _ = futures::future::join_all(writers) => {}
        () = ends => {}
    }
    assert_eq!(api.get(&path).await.0, 404);
}
