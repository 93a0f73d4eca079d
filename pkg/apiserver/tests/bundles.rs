//! A whole bundle of an operator's manifests: applied, applied again to no effect, changed, and deleted.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/bundles/generate.rs"]
mod generate;
mod harness;

use std::time::{Duration, Instant};

use harness::Api;
use serde_json::Value;

const APPLY: &str = "application/apply-patch+yaml";

fn path(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
    let (version, kind) = (object["apiVersion"].as_str().unwrap(), text(&object["kind"]));
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if kind.ends_with('s') => format!("{kind}es"),
        None => format!("{kind}s"),
    };
    let root = if version.contains('/') { "apis" } else { "api" };
    let (namespace, name) = (
        &object["metadata"]["namespace"],
        object["metadata"]["name"].as_str().unwrap(),
    );
    match namespace.as_str() {
        Some(namespace) => format!("/{root}/{version}/namespaces/{namespace}/{plural}/{name}"),
        None => format!("/{root}/{version}/{plural}/{name}"),
    }
}

/// Applied as soon as its kind is served; what became of it.
async fn applied(api: &Api, object: &Value, manager: &str) -> (u16, Value) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let at = format!("{}?fieldManager={manager}&fieldValidation=Strict", path(object));
        let (code, answer) = api.patch(&at, APPLY, object).await;
        if code != 404 || Instant::now() > end {
            return (code, answer);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const DEFINITION: &str = "CustomResourceDefinition";

/// An object without what every write changes; of a definition also without its status, which comes by itself.
fn content(mut object: Value) -> Value {
    for field in ["managedFields", "resourceVersion"] {
        object["metadata"].as_object_mut().unwrap().remove(field);
    }
    if object["kind"] == DEFINITION {
        object.as_object_mut().unwrap().remove("status");
    }
    object
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_is_applied_again_to_no_effect() {
    let api = Api::open().await;
    let bundle = generate::bundle(7, 1 << 20);
    assert!(bundle.len() > 60, "{}", bundle.len());
    let mut stored = Vec::new();
    for object in &bundle {
        let (code, answer) = applied(&api, object, "operator").await;
        assert_eq!(code, 201, "{}: {answer}", path(object));
        stored.push(answer);
    }
    for (object, before) in bundle.iter().zip(&stored) {
        let (code, answer) = applied(&api, object, "operator").await;
        assert_eq!(code, 200, "{}: {answer}", path(object));
        // A definition's conditions have come since.
        if object["kind"] != DEFINITION {
            assert_eq!(&answer, before);
        }
    }
    // Another manager that wants the same shares it (a Secret's stringData is never there to share), and no more changes.
    for (object, before) in bundle.iter().zip(stored) {
        let (code, answer) = applied(&api, object, "another&force=true").await;
        assert_eq!(code, 200, "{}: {answer}", path(object));
        assert_eq!(content(answer), content(before), "{}", path(object));
    }
    for object in bundle.iter().rev() {
        let (code, answer) = api.delete(&path(object), None).await;
        assert!(matches!(code, 200 | 202), "{}: {code} {answer}", path(object));
    }
}
