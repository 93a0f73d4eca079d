//! A custom resource in two versions between which a webhook converts: a real one, over TLS, whose certificate the
//! definition's own bundle vouches for.
#![allow(clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "the webhook's own tasks; where one panics, its caller has no answer"
)]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Api, events_until};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const NEW: &str = "/apis/example.org/v2/namespaces/default/cars";
const OLD: &str = "/apis/example.org/v1/namespaces/default/cars";
const MERGE: &str = "application/merge-patch+json";

/// Let go of questions about objects whose generated name begins with `slow-`, or `late-`.
static SLOW: Semaphore = Semaphore::const_new(0);
static LATE: Semaphore = Semaphore::const_new(0);

/// v1 says `spec.color`, v2 says `spec.paint.color`.
fn convert(review: &Value, fails: bool) -> Value {
    let wanted = review["request"]["desiredAPIVersion"].clone();
    let objects = review["request"]["objects"].as_array().unwrap().iter();
    let converted = objects.map(|object| {
        let mut object = object.clone();
        object["apiVersion"] = wanted.clone();
        let spec = object["spec"].as_object_mut().unwrap();
        if wanted == "example.org/v2" {
            let color = spec.remove("color").unwrap();
            spec.insert("paint".into(), json!({"color": color}));
        } else {
            let paint = spec.remove("paint").unwrap();
            spec.insert("color".into(), paint["color"].clone());
        }
        object["metadata"]["uid"].as_str().unwrap();
        object
    });
    let result = if fails {
        json!({"status": "Failure", "message": "no paint today"})
    } else {
        json!({"status": "Success"})
    };
    json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": {
        "uid": review["request"]["uid"], "result": result, "convertedObjects": converted.collect::<Vec<_>>()}})
}

/// A webhook; its URL, and the certificate that vouches for it. It fails while the switch is on.
async fn webhook(fails: Arc<AtomicBool>) -> (String, String) {
    let answer = move |body: axum::body::Bytes| {
        let fails = fails.load(Ordering::Acquire);
        async move {
            let review: Value = serde_json::from_slice(&body).unwrap();
            let generated = review["request"]["objects"][0]["metadata"]["generateName"].as_str();
            let held = [("slow-", &SLOW), ("late-", &LATE)];
            if let Some((_, until)) = held.iter().find(|(prefix, _)| generated == Some(prefix)) {
                let _ = until.acquire().await;
            }
            convert(&review, fails).to_string()
        }
    };
    listen(axum::Router::new().route("/convert", axum::routing::post(answer))).await
}

/// A server over TLS; its URL, and its certificate.
async fn listen(router: axum::Router) -> (String, String) {
    // As `openssl req -x509` makes them: it says of itself that it is an authority.
    let signing_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_string()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let cert = params.self_signed(&signing_key).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/convert", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = hyper_util::service::TowerToHyperService::new(router);
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (url, cert.pem())
}

fn definition(url: &str, bundle: &str) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let version = |name: &str, storage: bool| {
        json!({
        "name": name, "served": true, "storage": storage, "schema": schema,
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}}})
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "cars.example.org"},
        "spec": {
            "group": "example.org", "scope": "Namespaced", "names": {"plural": "cars", "kind": "Car"},
            "versions": [version("v1", true), version("v2", false)],
            "conversion": {"strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"],
                "clientConfig": {"url": url, "caBundle": STANDARD.encode(bundle)}}}},
    })
}

async fn served(api: &Api) {
    for _ in 0..500 {
        if api.get(OLD).await.0 == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the kind is not served");
}

#[expect(clippy::too_many_lines, reason = "one story: each request stands on the one before")]
#[tokio::test(flavor = "multi_thread")]
async fn every_version_shows_and_takes_the_same_objects() {
    let fails = Arc::new(AtomicBool::new(false));
    let (url, bundle) = webhook(fails.clone()).await;
    let api = Api::open().await;
    assert_eq!(api.post(CRDS, &definition(&url, &bundle)).await.0, 201);
    served(&api).await;
    let car = json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": "a"}, "spec": {"color": "red", "n": 1}});
    assert_eq!(api.post(OLD, &car).await.0, 201);
    let car = json!({"apiVersion": "example.org/v2", "kind": "Car", "metadata": {"name": "b"}, "spec": {"paint": {"color": "blue"}}});
    let (code, made) = api.post(NEW, &car).await;
    assert_eq!((code, &made["spec"]), (201, &car["spec"]), "{made}");
    // Both in both.
    let (_, list) = api.get(NEW).await;
    let colors: Vec<&Value> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|car| &car["spec"]["paint"]["color"])
        .collect();
    assert_eq!(colors, ["red", "blue"]);
    assert_eq!(api.get(&format!("{OLD}/b")).await.1["spec"], json!({"color": "blue"}));

    // A watch that goes on in its own version.
    let watch = api.watch(&format!("{NEW}?watch=1")).await;
    let (code, changed) = api
        .patch(
            &format!("{NEW}/a"),
            MERGE,
            &json!({"spec": {"paint": {"color": "green"}}}),
        )
        .await;
    assert_eq!(
        (code, &changed["spec"]["paint"], &changed["metadata"]["generation"]),
        (200, &json!({"color": "green"}), &json!(2))
    );
    let (code, _) = api
        .patch(&format!("{NEW}/a/status"), MERGE, &json!({"status": {"n": 3}}))
        .await;
    assert_eq!(code, 200);
    let (code, scale) = api
        .patch(&format!("{NEW}/a/scale"), MERGE, &json!({"spec": {"replicas": 5}}))
        .await;
    assert_eq!(
        (code, &scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (200, &json!(5), &json!(3))
    );
    let (code, gone) = api.delete(&format!("{NEW}/a"), None).await;
    assert_eq!(code, 200, "{gone}");
    let seen = events_until(watch, |event| event["type"] == "DELETED").await;
    let told: Vec<(&Value, &Value, &Value)> = seen
        .iter()
        .map(|event| {
            (
                &event["type"],
                &event["object"]["metadata"]["name"],
                &event["object"]["spec"]["paint"]["color"],
            )
        })
        .collect();
    let (a, green) = (json!("a"), json!("green"));
    assert_eq!(
        told[..2],
        [
            (&json!("ADDED"), &a, &json!("red")),
            (&json!("ADDED"), &json!("b"), &json!("blue"))
        ]
    );
    assert!(
        told[2..].iter().all(|event| (event.1, event.2) == (&a, &green)),
        "{told:?}"
    );
    assert_eq!(told.len(), 6);

    // Its failure is told, and nothing is written.
    fails.store(true, Ordering::Release);
    let (code, failed) = api.patch(&format!("{NEW}/b"), MERGE, &json!({"spec": {"n": 2}})).await;
    let why = "conversion webhook for example.org/v1, Kind=Car failed: no paint today";
    assert_eq!((code, &failed["message"]), (500, &json!(why)));
    assert_eq!(api.get(&format!("{OLD}/b")).await.1["metadata"]["generation"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_nobody_vouches_for_is_not_asked() {
    let (url, _) = webhook(Arc::default()).await;
    let (_, other) = webhook(Arc::default()).await;
    let api = Api::open().await;
    api.post(CRDS, &definition(&url, &other)).await;
    served(&api).await;
    let car =
        json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": "a"}, "spec": {"color": "red"}});
    assert_eq!(api.post(OLD, &car).await.0, 201);
    let (code, failed) = api.get(&format!("{NEW}/a")).await;
    let message = failed["message"].as_str().unwrap();
    assert_eq!(code, 500, "{failed}");
    assert!(message.contains("certificate"), "{message}");
}

/// A webhook that answers as is said; its URL, and the certificate that vouches for it.
async fn saying(said: Arc<parking_lot::Mutex<Value>>) -> (String, String) {
    let answer = move |body: axum::body::Bytes| {
        let row = said.lock().clone();
        async move {
            let review: Value = serde_json::from_slice(&body).unwrap();
            let mut objects = review["request"]["objects"].clone();
            for object in objects.as_array_mut().unwrap() {
                object["apiVersion"] = review["request"]["desiredAPIVersion"].clone();
            }
            let text = row["body"]
                .as_str()
                .unwrap()
                .replace("\"OBJECTS\"", &objects.to_string());
            let text = text.replace("UID", review["request"]["uid"].as_str().unwrap());
            let mut answer = axum::response::Response::builder().status(row["code"].as_u64().unwrap() as u16);
            if let Some(content) = row["type"].as_str() {
                answer = answer.header("content-type", content);
            }
            answer.body(axum::body::Body::from(text)).unwrap()
        }
    };
    listen(axum::Router::new().route("/convert", axum::routing::post(answer))).await
}

/// What upstream's server says of each of these answers of a webhook, but for two: it follows where a webhook sends it
/// (302), and knows the definitions' own kinds as such where they are no answer.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_webhook_says_is_told_as_upstream_tells_it() {
    let said: Arc<parking_lot::Mutex<Value>> = Arc::default();
    let (url, bundle) = saying(said.clone()).await;
    let api = Api::open().await;
    assert_eq!(api.post(CRDS, &definition(&url, &bundle)).await.0, 201);
    served(&api).await;
    let car = json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": "a"}, "spec": {}});
    assert_eq!(api.post(OLD, &car).await.0, 201);
    let uid = regex::Regex::new("[0-9a-f]{8}-[0-9a-f-]{27}").unwrap();
    let mut others = Vec::new();
    for line in include_str!("conversion_answers.jsonl").lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        *said.lock() = row.clone();
        let (code, found) = api.get(&format!("{NEW}/a")).await;
        let told = found["message"]
            .as_str()
            .map(|told| uid.replace_all(told, "UID").into_owned());
        let wanted = (if row["told"].is_null() { 200 } else { 500 }, row["told"].clone());
        if (code, json!(told)) != wanted || !found["reason"].is_null() || !found["details"].is_null() {
            others.push(format!("{row}\n  {code} {found}"));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
    // But for what it says at length, which every client of the kind would be told each time.
    let long = "x".repeat(1 << 20);
    for (answer, objects) in [
        (json!({"status": "Failure", "message": &long}), json!([])),
        (
            json!({"status": "Success"}),
            json!([{"apiVersion": "example.org/v2", "kind": &long}]),
        ),
        (json!({"status": "Success"}), json!([{"spec": &long}])),
    ] {
        let body = json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
            "response": {"uid": "UID", "result": answer, "convertedObjects": objects}});
        *said.lock() = json!({"code": 200, "body": body.to_string()});
        let (code, found) = api.get(&format!("{NEW}/a")).await;
        let told = found["message"].as_str().unwrap();
        assert!(
            code == 500 && told.contains("xxx") && told.len() < 100 << 10,
            "{told:.100}"
        );
    }
}

/// What `definition` says, with fields that selectors may name in each version.
fn selectable(url: &str, bundle: &str) -> Value {
    let mut definition = definition(url, bundle);
    let object = |properties: Value| json!({"type": "object", "properties": properties});
    let text = json!({"type": "string"});
    let schemas = [json!({"color": text}), json!({"paint": object(json!({"color": text}))})];
    let paths = [".spec.color", ".spec.paint.color"];
    for (at, (spec, path)) in schemas.into_iter().zip(paths).enumerate() {
        let version = &mut definition["spec"]["versions"][at];
        version["schema"]["openAPIV3Schema"] = object(json!({"spec": object(spec)}));
        version["selectableFields"] = json!([{"jsonPath": path}]);
        version.as_object_mut().unwrap().remove("subresources");
    }
    definition
}

/// What a version's schema lacks is not shown in it, whatever a webhook makes.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_version_lacks_is_not_shown_in_it() {
    let answer = |body: axum::body::Bytes| async move {
        let review: Value = serde_json::from_slice(&body).unwrap();
        let mut answer = convert(&review, false);
        for object in answer["response"]["convertedObjects"].as_array_mut().unwrap() {
            object["spec"]["extra"] = 1.into();
        }
        answer.to_string()
    };
    let (url, bundle) = listen(axum::Router::new().route("/convert", axum::routing::post(answer))).await;
    let api = Api::open().await;
    assert_eq!(api.post(CRDS, &selectable(&url, &bundle)).await.0, 201);
    served(&api).await;
    let car =
        json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": "a"}, "spec": {"color": "red"}});
    assert_eq!(api.post(OLD, &car).await.0, 201);
    let (one, all) = (api.get(&format!("{NEW}/a")).await.1, api.get(NEW).await.1);
    for object in [&one, &all["items"][0]] {
        assert_eq!(object["spec"], json!({"paint": {"color": "red"}}), "{object}");
    }
}

/// What can't be brought into the storage version, for want of room, is not written for it either.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_nothing_writes_nothing_that_stays_in_its_version() {
    let (url, bundle) = webhook(Arc::default()).await;
    let api = Api::open().await;
    assert_eq!(api.post(CRDS, &definition(&url, &bundle)).await.0, 201);
    served(&api).await;
    let items = vec![json!({}); 60_000];
    let car = json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": "a"},
        "spec": {"color": "red", "l": items}});
    assert_eq!(api.post(OLD, &car).await.0, 201);
    let default = "x".repeat(1000);
    let item = json!({"type": "object", "properties": {"a": {"type": "string", "default": default}}});
    let spec = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"l": {"type": "array", "items": item}}});
    let changed = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
        {"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties", "value": {"spec": spec}}]);
    let path = format!("{CRDS}/cars.example.org");
    let (code, changed) = api.patch(&path, "application/json-patch+json", &changed).await;
    assert_eq!(code, 200, "{changed}");
    let one = format!("{OLD}/a");
    let begun = std::time::Instant::now();
    while api.get(&one).await.1.pointer("/spec/l/0/a") != Some(&json!(default)) {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    let mut revisions = Vec::new();
    for _ in 0..2 {
        let (code, patched) = api.patch(&one, MERGE, &labels).await;
        assert_eq!(code, 200, "{}", patched["message"]);
        revisions.push(patched["metadata"]["resourceVersion"].clone());
    }
    assert_eq!(revisions[0], revisions[1]);
}

/// Where a webhook makes the form that is shown, selectors are asked of that, not of what is stored.
#[tokio::test(flavor = "multi_thread")]
async fn selectors_are_asked_of_what_is_shown() {
    let (url, bundle) = webhook(Arc::default()).await;
    let api = Api::open().await;
    let (code, made) = api.post(CRDS, &selectable(&url, &bundle)).await;
    assert_eq!(code, 201, "{made}");
    served(&api).await;
    let reds = format!("{NEW}?fieldSelector=spec.paint.color%3Dred");
    let watch = api.watch(&format!("{reds}&watch=1")).await;
    for (name, color) in [("a", "red"), ("b", "blue"), ("c", "red"), ("d", "red")] {
        let car = json!({"apiVersion": "example.org/v2", "kind": "Car", "metadata": {"name": name},
            "spec": {"paint": {"color": color}}});
        assert_eq!(api.post(NEW, &car).await.0, 201);
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|car| car["metadata"]["name"].as_str().unwrap().to_string())
            .collect()
    };
    assert_eq!(names(&api.get(&reds).await.1), ["a", "c", "d"]);
    let (_, old) = api.get(&format!("{OLD}?fieldSelector=spec.color%3Dred")).await;
    assert_eq!(names(&old), ["a", "c", "d"]);
    let (_, first) = api.get(&format!("{reds}&limit=2")).await;
    assert_eq!(names(&first), ["a", "c"]);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = api.get(&format!("{reds}&limit=2&continue={token}")).await;
    assert_eq!(
        (names(&rest), &rest["metadata"]["continue"]),
        (vec!["d".into()], &json!(""))
    );

    // One that is no longer selected goes, for who watches.
    let blue = json!({"spec": {"paint": {"color": "blue"}}});
    assert_eq!(api.patch(&format!("{NEW}/a"), MERGE, &blue).await.0, 200);
    let seen = events_until(watch, |event| event["type"] == "DELETED").await;
    let told: Vec<(&str, &str)> = seen
        .iter()
        .map(|event| {
            let name = event["object"]["metadata"]["name"].as_str().unwrap();
            (event["type"].as_str().unwrap(), name)
        })
        .collect();
    assert_eq!(told, [("ADDED", "a"), ("ADDED", "c"), ("ADDED", "d"), ("DELETED", "a")]);

    let (code, gone) = api.delete(&reds, None).await;
    assert_eq!((code, names(&gone)), (200, vec!["c".into(), "d".into()]));
    assert_eq!(names(&api.get(NEW).await.1), ["a", "b"]);
}

/// Long requests take turns, but not while a webhook has them.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_webhook_keeps_nobody_from_his_turn() {
    let api = Api::open().await;
    let (url, bundle) = webhook(Arc::default()).await;
    assert_eq!(api.post(CRDS, &definition(&url, &bundle)).await.0, 201);
    served(&api).await;
    let long = "x".repeat(100 << 10);
    let car = json!({"apiVersion": "example.org/v2", "kind": "Car", "metadata": {"generateName": "slow-"},
        "spec": {"paint": {"color": long}}});
    let slow = futures::future::join_all((0..64).map(|_| api.post(NEW, &car)));
    let map = json!({"metadata": {"generateName": "m-"}, "data": {"a": long}});
    let other = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let answered = api.post("/api/v1/namespaces/default/configmaps", &map);
        let answered = tokio::time::timeout(Duration::from_secs(15), answered).await;
        SLOW.add_permits(64 * 4);
        answered.map(|(code, _)| code)
    };
    let (slow, other) = tokio::join!(slow, other);
    assert_eq!(other, Ok(201));
    let codes: Vec<u16> = slow.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [201; 64]);
}

/// What had begun when its definition was deleted is removed too, and nothing of it is left for another definition to come.
#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_is_late_is_waited_for() {
    let api = Api::open().await;
    let (url, bundle) = webhook(Arc::default()).await;
    let definition = definition(&url, &bundle);
    assert_eq!(api.post(CRDS, &definition).await.0, 201);
    served(&api).await;
    let path = format!("{CRDS}/cars.example.org");
    let car = json!({"apiVersion": "example.org/v2", "kind": "Car", "metadata": {"generateName": "late-"},
        "spec": {"paint": {"color": "red"}}});
    let late = api.post(NEW, &car);
    let deleted = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(api.delete(&path, None).await.0, 200);
        for _ in 0..100 {
            // As long as somebody could think that nothing is left.
            assert_eq!(api.get(&path).await.0, 200, "it did not wait");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        LATE.add_permits(4);
    };
    let ((code, _), ()) = tokio::join!(late, deleted);
    assert_eq!(code, 201);
    for _ in 0..500 {
        if api.get(&path).await.0 == 404 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(api.post(CRDS, &definition).await.0, 201);
    served(&api).await;
    assert_eq!(api.get(OLD).await.1["items"], json!([]));
}

/// What a selector leaves out by its name is not asked about.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_one_object_is_none_of_others() {
    let (url, bundle) = webhook(Arc::default()).await;
    let api = Api::open().await;
    assert_eq!(api.post(CRDS, &definition(&url, &bundle)).await.0, 201);
    served(&api).await;
    // The webhook has no answer for one without a color.
    for (name, spec) in [("a", json!({"color": "red"})), ("b", json!({}))] {
        let car = json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": name}, "spec": spec});
        assert_eq!(api.post(OLD, &car).await.0, 201);
    }
    assert_eq!(api.get(NEW).await.0, 500);
    let one = format!("{NEW}?fieldSelector=metadata.name%3Da");
    assert_eq!(api.get(&one).await.0, 200);
    let watch = api.watch(&format!("{one}&watch=1")).await;
    let seen = events_until(watch, |_| true).await;
    assert_eq!(seen[0]["object"]["spec"]["paint"]["color"], "red", "{seen:?}");
}

/// Whoever writes in one version takes what others own of it in another: the webhook says what that is there.
#[tokio::test(flavor = "multi_thread")]
async fn managers_of_another_version_are_compared_in_theirs() {
    let fails = Arc::new(AtomicBool::new(false));
    let (url, bundle) = webhook(fails.clone()).await;
    let api = Api::open().await;
    assert_eq!(api.post(CRDS, &definition(&url, &bundle)).await.0, 201);
    served(&api).await;
    let car = json!({"apiVersion": "example.org/v1", "kind": "Car", "metadata": {"name": "a"}, "spec": {"color": "red", "n": 1}});
    assert_eq!(api.post(&format!("{OLD}?fieldManager=one"), &car).await.0, 201);
    let spec_of = |car: &Value, manager: &str| {
        let all = car["metadata"]["managedFields"].as_array().unwrap();
        let own = all.iter().find(|own| own["manager"] == manager).unwrap();
        let mut fields = own["fieldsV1"]["f:spec"].clone();
        fields.as_object_mut().unwrap().remove(".");
        (own["apiVersion"].clone(), fields)
    };

    // Applied in v2, it is in conflict with who owns the same in v1.
    let blue = json!({"apiVersion": "example.org/v2", "kind": "Car", "metadata": {"name": "a"}, "spec": {"paint": {"color": "blue"}}});
    let apply = |force: bool| {
        let path = format!("{NEW}/a?fieldManager=two&force={force}");
        let (api, blue) = (&api, &blue);
        async move { api.patch(&path, "application/apply-patch+yaml", blue).await }
    };
    let (code, conflict) = apply(false).await;
    assert_eq!((code, &conflict["reason"]), (409, &json!("Conflict")), "{conflict}");
    assert_eq!(
        conflict["details"]["causes"][0]["message"], "conflict with \"one\" using example.org/v1",
        "{conflict}"
    );
    assert_eq!(conflict["details"]["causes"][0]["field"], ".spec.color", "{conflict}");
    let (code, applied) = apply(true).await;
    assert_eq!(
        (code, &applied["spec"]["paint"]["color"]),
        (200, &json!("blue")),
        "{applied}"
    );
    let own = |version: &str, fields: Value| (json!(version), fields);
    assert_eq!(spec_of(&applied, "one"), own("example.org/v1", json!({"f:n": {}})));
    assert_eq!(
        spec_of(&applied, "two"),
        own("example.org/v2", json!({"f:paint": {".": {}, "f:color": {}}}))
    );

    // And so it is of updates, in the other direction.
    let green = json!({"spec": {"color": "green"}});
    let (code, patched) = api.patch(&format!("{OLD}/a?fieldManager=three"), MERGE, &green).await;
    assert_eq!(code, 200, "{patched}");
    assert_eq!(
        spec_of(&patched, "three"),
        own("example.org/v1", json!({"f:color": {}}))
    );
    assert_eq!(spec_of(&patched, "two"), own("example.org/v2", json!({"f:paint": {}})));

    // A write that needs the webhook for nothing else goes without.
    assert_eq!(apply(true).await.0, 200);
    fails.store(true, Ordering::Release);
    let (code, patched) = api
        .patch(&format!("{OLD}/a?fieldManager=four"), MERGE, &json!({"spec": {"m": 1}}))
        .await;
    assert_eq!((code, &patched["spec"]["m"]), (200, &json!(1)), "{patched}");
}
