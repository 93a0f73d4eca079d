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
    for (accept, of_list) in [
        ("application/json", "application/json"),
        (
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        ),
    ] {
        assert_eq!(
            managers(&list(&api.accept(&path, accept).await.1)),
            expected,
            "{accept}"
        );
        let all = format!("{CMS}?fieldSelector=metadata.name%3Dc");
        let shown = list(&api.accept(&all, of_list).await.1)["items"][0].clone();
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
    // A path leads to them whatever stands before its first slash, and as a part of the whole.
    let whole = api.get(&path).await.1;
    for (at, value) in [("x/metadata/managedFields/0/manager", json!("other")), ("", whole)] {
        let tested = json!([{"op": "test", "path": at, "value": value}]);
        let (code, answer) = api.patch(&path, JSON, &tested).await;
        assert_eq!(code, 200, "{at:?}: {answer}");
    }
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
    // The older first; of the same second, by name.
    let now = managers(&patched);
    assert_eq!(now.len(), 2, "{now:?}");
    assert!(
        now.iter().any(|manager| manager == expected) && now.contains(&own[0]),
        "{now:?}"
    );
    // Nobody edits managers through a subresource.
    let (_, kept) = api
        .patch(&path, MERGE, &json!({"metadata": {"managedFields": []}}))
        .await;
    assert_eq!(managers(&kept), managers(&patched));
}

const APPLY: &str = "application/apply-patch+yaml";

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}}}})
}

#[tokio::test]
async fn what_is_applied_is_made_shared_taken_and_given_up() {
    let api = Api::open().await;
    let path = "/apis/apps/v1/namespaces/default/deployments/d";
    let apply = async |query: &str, body: &Value| api.patch(&format!("{path}?{query}"), APPLY, body).await;
    let (code, made) = apply("fieldManager=one", &deployment()).await;
    assert_eq!(code, 201, "{made}");
    // The same again changes nothing.
    let (code, again) = apply("fieldManager=one", &deployment()).await;
    assert_eq!((code, &again), (200, &made));

    let mut other = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 3}});
    let (code, conflict) = apply("fieldManager=two", &other).await;
    assert_eq!(
        (code, conflict["reason"].as_str()),
        (409, Some("Conflict")),
        "{conflict}"
    );
    assert_eq!(
        conflict["message"],
        "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas"
    );
    let (code, forced) = apply("fieldManager=two&force=true", &other).await;
    assert_eq!((code, &forced["spec"]["replicas"]), (200, &json!(3)));
    assert_eq!(managers(&forced)[1], r#"two Apply  {"f:spec":{"f:replicas":{}}}"#);

    // One container less: it goes, and what nobody else owns of it. The replicas are the other's now.
    let mut less = deployment();
    less["spec"]["template"]["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .pop();
    less["spec"].as_object_mut().unwrap().remove("replicas");
    let (code, pruned) = apply("fieldManager=one", &less).await;
    assert_eq!(code, 200, "{pruned}");
    assert_eq!(
        pruned["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(pruned["spec"]["replicas"], 3);
    // Given up by its last owner it has its default again.
    other.as_object_mut().unwrap().remove("spec");
    let (_, left) = apply("fieldManager=two", &other).await;
    assert_eq!(left["spec"]["replicas"], 1);
    assert_eq!(managers(&left).len(), 1);
}

#[tokio::test]
async fn kubectl_takes_what_it_applied_before() {
    let api = Api::open().await;
    let path = "/apis/apps/v1/namespaces/default/deployments/d";
    let mut old = deployment();
    let last = old.to_string();
    old["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    let made = api
        .post(
            "/apis/apps/v1/namespaces/default/deployments?fieldManager=kubectl-client-side-apply",
            &old,
        )
        .await;
    assert_eq!(made.0, 201);
    let mut new = deployment();
    new["spec"]["replicas"] = 5.into();
    let refused = api.patch(&format!("{path}?fieldManager=else"), APPLY, &new).await;
    assert_eq!(refused.0, 409);
    let (code, applied) = api.patch(&format!("{path}?fieldManager=kubectl"), APPLY, &new).await;
    assert_eq!((code, &applied["spec"]["replicas"]), (200, &json!(5)), "{applied}");
    let noted = &applied["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert_eq!(serde_json::from_str::<Value>(noted.as_str().unwrap()).unwrap(), new);
}

#[tokio::test]
async fn replicas_change_hands_through_the_scale() {
    let api = Api::open().await;
    let path = "/apis/apps/v1/namespaces/default/deployments/d";
    let (code, made) = api
        .patch(&format!("{path}?fieldManager=one"), APPLY, &deployment())
        .await;
    assert_eq!(code, 201, "{made}");
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 4}});
    let at = format!("{path}/scale?fieldManager=two");
    let (code, conflict) = api.patch(&at, APPLY, &scale).await;
    assert_eq!(code, 409, "{conflict}");
    let (code, scaled) = api.patch(&format!("{at}&force=true"), APPLY, &scale).await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (200, &json!(4)), "{scaled}");
    let (_, object) = api.get(path).await;
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries[0]["manager"], "two");
    assert_eq!(entries[0]["subresource"], "scale");
    assert_eq!(entries[0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(entries[1]["fieldsV1"]["f:spec"].get("f:replicas"), None);
}

/// Query, body, code and message of what is not applied.
const BAD: [(&str, &str, u16, &str); 9] = [
    (
        "",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}",
        422,
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
    ),
    (
        "fieldManager=m",
        "[1]",
        400,
        "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of type map[string]interface {}",
    ),
    ("fieldManager=m", "", 400, "invalid object type: /, Kind="),
    (
        "fieldManager=m",
        "{apiVersion: v1, kind: Secret}",
        400,
        "invalid object type: /v1, Kind=Secret",
    ),
    (
        "fieldManager=m",
        "{apiVersion: v1, kind: ConfigMap, metadata: {managedFields: []}}",
        400,
        "metadata.managedFields must be nil",
    ),
    (
        "fieldManager=m",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a: 1}, x: 1}",
        500,
        "failed to create typed patch object (/c; /v1, Kind=ConfigMap): errors:\n  .data.a: expected string, got &value.valueUnstructured{Value:1}\n  .x: field not declared in schema",
    ),
    (
        "fieldManager=m",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: d}}",
        400,
        "the name of the object (d) does not match the name on the URL (c)",
    ),
    (
        "fieldManager=m",
        "{apiVersion: v1, kind: ConfigMap}",
        400,
        "the name of the object (c based on URL) was undeterminable: name must be provided",
    ),
    (
        "fieldManager=m",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: c, uid: u}}",
        409,
        "Operation cannot be fulfilled on configmaps \"c\": uid mismatch: the provided object specified uid u, and no existing object was found",
    ),
];

#[tokio::test]
async fn bad_applies_are_refused_in_upstreams_words() {
    let api = Api::open().await;
    let path = format!("{CMS}/c");
    for (query, body, code, message) in BAD {
        let response = api
            .send("PATCH", &format!("{path}?{query}"), APPLY, body.to_string())
            .await;
        let (found, refused) = harness::read(response).await;
        assert_eq!((found, refused["message"].as_str().unwrap()), (code, message), "{body}");
    }
    let (code, refused) = api.patch(&format!("{path}?force=true"), MERGE, &json!({})).await;
    let forced = "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch";
    assert_eq!((code, refused["message"].as_str()), (422, Some(forced)));
}
