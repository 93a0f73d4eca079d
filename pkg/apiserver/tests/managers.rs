//! Who owns what: `metadata.managedFields` on everything that is written, sent and kept.
#![allow(clippy::unwrap_used)]

mod harness;

use harness::{Api, events_until};
use mk8s_api::codec::protobuf::Envelope;
use serde_json::{Value, json};

const CMS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json-patch+json";

fn config_map() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}})
}

/// Manager, operation, subresource and fields of each entry.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let shown = entries.map(|entry| {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        assert_eq!(text("time").len(), 20, "{entry}");
        format!(
            "{} {} {} {}",
            text("manager"),
            text("operation"),
            text("subresource"),
            entry["fieldsV1"]
        )
    });
    shown.collect()
}

#[tokio::test]
async fn every_answer_carries_the_managers_and_a_restart_keeps_them() {
    let api = Api::open().await;
    let path = format!("{CMS}/c");
    let (code, made) = api.post(&format!("{CMS}?fieldManager=one"), &config_map()).await;
    assert_eq!(code, 201);
    let expected = [r#"one Update  {"f:data":{".":{},"f:a":{}}}"#];
    assert_eq!(managers(&made), expected);
    let list = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
    assert_eq!(managers(&api.get(&path).await.1), expected);
    for accept in [
        "application/json",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    ] {
        assert_eq!(
            managers(&list(&api.accept(&path, accept).await.1)),
            expected,
            "{accept}"
        );
        let all = format!("{CMS}?fieldSelector=metadata.name%3Dc");
        let of_list = accept.replace("PartialObjectMetadata", "PartialObjectMetadataList");
        let shown = list(&api.accept(&all, &of_list).await.1)["items"][0].clone();
        assert_eq!(managers(&shown), expected, "{accept}");
    }
    let table = api
        .accept(&path, "application/json;as=Table;v=v1;g=meta.k8s.io")
        .await
        .1;
    assert_eq!(managers(&list(&table)["rows"][0]["object"]), expected);
    let proto = api.accept(&path, "application/vnd.kubernetes.protobuf").await.1;
    let decoded = Envelope::open(&proto).unwrap().decode().unwrap();
    assert_eq!(managers(&decoded), expected);
    let body = api
        .watch(&format!("{CMS}?watch=true&fieldSelector=metadata.name%3Dc"))
        .await;
    let events = events_until(body, |_| true).await;
    assert_eq!(managers(&events[0]["object"]), expected);

    let (_, changed) = api
        .patch(&format!("{path}?fieldManager=two"), MERGE, &json!({"data": {"b": "1"}}))
        .await;
    let expected = [
        r#"one Update  {"f:data":{".":{},"f:a":{}}}"#,
        r#"two Update  {"f:data":{"f:b":{}}}"#,
    ];
    assert_eq!(managers(&changed), expected);
    let api = api.reopen().await;
    assert_eq!(api.get(&path).await.1, changed);
    let (_, gone) = api.delete(&path, None).await;
    assert_eq!(gone["status"], "Success", "{gone}");
}

#[tokio::test]
async fn a_time_is_that_of_the_last_change() {
    let api = Api::open().await;
    let (_, made) = api.post(CMS, &config_map()).await;
    let path = format!("{CMS}/c");
    let (_, same) = api.put(&path, &config_map()).await;
    assert_eq!(same, made);
    let (_, dry) = api
        .patch(&format!("{path}?dryRun=All"), MERGE, &json!({"data": {"b": "1"}}))
        .await;
    assert_eq!(
        managers(&dry),
        [r#"unknown Update  {"f:data":{".":{},"f:a":{},"f:b":{}}}"#]
    );
    assert_eq!(api.get(&path).await.1, made);
}

#[tokio::test]
async fn a_client_may_name_the_managers_or_none() {
    let api = Api::open().await;
    let (_, made) = api.post(CMS, &config_map()).await;
    let path = format!("{CMS}/c");
    let entry = json!({"apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:a": {}}},
        "manager": "other", "operation": "Apply", "time": "2026-01-02T03:04:05Z"});
    let named = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [entry]}]);
    let (code, changed) = api.patch(&path, JSON, &named).await;
    assert_eq!(
        (code, managers(&changed)),
        (200, vec![r#"other Apply  {"f:data":{"f:a":{}}}"#.into()])
    );
    // What cannot be read, or is not there, changes nothing.
    for sent in [json!([{"manager": "x"}]), Value::Null] {
        let mut object = made.clone();
        object["metadata"]["managedFields"] = sent;
        object["metadata"]["resourceVersion"] = Value::Null;
        assert_eq!(managers(&api.put(&path, &object).await.1), managers(&changed));
    }
    for none in [json!([]), json!([{}])] {
        let (_, reset) = api
            .patch(&path, MERGE, &json!({"metadata": {"managedFields": none}}))
            .await;
        assert_eq!(reset["metadata"].get("managedFields"), None, "{reset}");
        let (_, again) = api.patch(&path, MERGE, &json!({"data": {"n": none.to_string()}})).await;
        assert_eq!(again["metadata"].get("managedFields"), None, "{again}");
        let (_, back) = api
            .patch(&path, MERGE, &json!({"metadata": {"managedFields": [entry]}}))
            .await;
        assert_eq!(managers(&back), managers(&changed));
    }
}

#[tokio::test]
async fn a_status_has_managers_of_its_own() {
    let api = Api::open().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Running"}});
    let (code, made) = api.post(&format!("{PODS}?fieldManager=user"), &pod).await;
    assert_eq!(code, 201, "{made}");
    let own = managers(&made);
    assert_eq!(own.len(), 1);
    assert!(
        own[0].starts_with(r#"user Update  {"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{}"#),
        "{own:?}"
    );
    assert!(!own[0].contains("f:status") && !own[0].contains("f:volumes"), "{own:?}");
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let path = format!("{PODS}/p/status?fieldManager=node");
    let (_, patched) = api
        .patch(&path, "application/strategic-merge-patch+json", &status)
        .await;
    let expected = r#"node Update status {"f:status":{"f:conditions":{".":{},"k:{\"type\":\"Ready\"}":{".":{},"f:lastProbeTime":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}}}}}"#;
    assert_eq!(managers(&patched), [expected, own[0].as_str()]);
    // Nobody edits managers through a subresource.
    let (_, kept) = api
        .patch(&path, MERGE, &json!({"metadata": {"managedFields": []}}))
        .await;
    assert_eq!(managers(&kept), managers(&patched));
}
