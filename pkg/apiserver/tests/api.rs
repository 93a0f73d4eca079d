//! The API as clients see it: the whole server in this process on a store of its own, asked through its router.
#![allow(clippy::unwrap_used)]

mod harness;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use harness::{Api, events_until};
use serde_json::{Value, json};

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

const CMS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn an_object_lives_and_dies() {
    let api = Api::open().await;
    let (code, made) = api.post(CMS, &config_map("one")).await;
    assert_eq!(code, 201);
    assert_eq!(made["metadata"]["namespace"], "default");
    assert!(made["metadata"]["uid"].is_string());
    let revision: u64 = made["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();

    let (code, again) = api.post(CMS, &config_map("one")).await;
    assert_eq!((code, again["reason"].as_str()), (409, Some("AlreadyExists")));
    assert_eq!(again["message"], "configmaps \"one\" already exists");

    let one = format!("{CMS}/one");
    let (code, read) = api.get(&one).await;
    assert_eq!((code, &read), (200, &made));

    let mut changed = read.clone();
    changed["data"]["b"] = "2".into();
    let (code, updated) = api.put(&one, &changed).await;
    assert_eq!(code, 200);
    let newer: u64 = updated["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(newer > revision);
    let (code, stale) = api.put(&one, &changed).await;
    assert_eq!((code, stale["reason"].as_str()), (409, Some("Conflict")));

    // Nothing changed, nothing written.
    let (_, same) = api.put(&one, &updated).await;
    assert_eq!(
        same["metadata"]["resourceVersion"],
        updated["metadata"]["resourceVersion"]
    );

    let (code, gone) = api.delete(&one, None).await;
    assert_eq!((code, gone["status"].as_str()), (200, Some("Success")));
    let (code, missing) = api.get(&one).await;
    assert_eq!(
        (code, missing["message"].as_str()),
        (404, Some("configmaps \"one\" not found"))
    );
}

#[tokio::test]
async fn patches_of_three_kinds() {
    let api = Api::open().await;
    api.post(CMS, &config_map("p")).await;
    let one = format!("{CMS}/p");
    let (code, merged) = api
        .patch(
            &one,
            "application/merge-patch+json",
            &json!({"data": {"a": null, "b": "2"}}),
        )
        .await;
    assert_eq!((code, &merged["data"]), (200, &json!({"b": "2"})));
    let (code, jsoned) = api
        .patch(
            &one,
            "application/json-patch+json",
            &json!([{"op": "add", "path": "/data/c", "value": "3"}]),
        )
        .await;
    assert_eq!((code, &jsoned["data"]), (200, &json!({"b": "2", "c": "3"})));
    let (code, strategic) = api
        .patch(
            &one,
            "application/strategic-merge-patch+json",
            &json!({"metadata": {"labels": {"x": "y"}}}),
        )
        .await;
    assert_eq!((code, &strategic["metadata"]["labels"]), (200, &json!({"x": "y"})));
    let (code, refused) = api.patch(&one, "application/apply-patch+cbor", &json!({})).await;
    assert_eq!((code, refused["reason"].as_str()), (415, Some("UnsupportedMediaType")));
    let (code, _) = api
        .patch(
            &one,
            "application/merge-patch+json",
            &json!({"metadata": {"resourceVersion": "1"}}),
        )
        .await;
    assert_eq!(code, 409);
}

#[tokio::test]
async fn lists_and_pages() {
    let api = Api::open().await;
    for index in 0..25 {
        api.post(CMS, &config_map(&format!("c{index:02}"))).await;
    }
    let (code, first) = api.get(&format!("{CMS}?limit=10")).await;
    assert_eq!(code, 200);
    assert_eq!(first["kind"], "ConfigMapList");
    assert_eq!(first["items"].as_array().unwrap().len(), 10);
    assert_eq!(first["metadata"]["remainingItemCount"], 15);
    let pinned = first["metadata"]["resourceVersion"].clone();
    // What comes between the pages does not show in them.
    api.post(CMS, &config_map("c15b")).await;
    api.delete(&format!("{CMS}/c20"), None).await;
    let mut names = Vec::new();
    let mut token = first["metadata"]["continue"].as_str().unwrap().to_string();
    loop {
        let (code, page) = api.get(&format!("{CMS}?limit=10&continue={token}")).await;
        assert_eq!(code, 200, "{page}");
        assert_eq!(page["metadata"]["resourceVersion"], pinned);
        for item in page["items"].as_array().unwrap() {
            names.push(item["metadata"]["name"].as_str().unwrap().to_string());
        }
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_string(),
            None => {
                assert!(page["metadata"].get("remainingItemCount").is_none());
                break;
            }
        }
    }
    assert_eq!(names.len(), 15);
    assert!(names.contains(&"c20".to_string()) && !names.contains(&"c15b".to_string()));

    let (_, exact) = api
        .get(&format!(
            "{CMS}?resourceVersionMatch=Exact&resourceVersion={}",
            pinned.as_str().unwrap()
        ))
        .await;
    assert_eq!(exact["items"].as_array().unwrap().len(), 25);
    let (code, refused) = api.get(&format!("{CMS}?resourceVersionMatch=Exact")).await;
    assert_eq!((code, refused["reason"].as_str()), (422, Some("Invalid")));
    let (code, future) = api.get(&format!("{CMS}?resourceVersion=999999")).await;
    assert_eq!((code, future["reason"].as_str()), (504, Some("Timeout")));
    assert_eq!(future["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    // Nor is there a page of what is still to come.
    let mut ahead: Value = serde_json::from_slice(
        &URL_SAFE_NO_PAD
            .decode(first["metadata"]["continue"].as_str().unwrap())
            .unwrap(),
    )
    .unwrap();
    ahead["rv"] = json!(999_999);
    let ahead = URL_SAFE_NO_PAD.encode(ahead.to_string());
    let (code, future) = api.get(&format!("{CMS}?limit=1&continue={ahead}")).await;
    assert_eq!((code, future["reason"].as_str()), (504, Some("Timeout")), "{future}");
    let (code, bad) = api.get(&format!("{CMS}?continue=rubbish")).await;
    assert_eq!((code, bad["reason"].as_str()), (400, Some("BadRequest")));
}

#[tokio::test]
async fn selectors_choose() {
    let api = Api::open().await;
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"tier": tier});
        api.post(CMS, &object).await;
    }
    for (query, want) in [
        ("labelSelector=tier%3Dx", vec!["a", "c"]),
        (
            "labelSelector=tier%20notin%20(x)",
            vec![
                "b",
                "extension-apiserver-authentication",
                "kube-apiserver-legacy-service-account-token-tracking",
                "cluster-info",
            ],
        ),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        (
            "fieldSelector=metadata.name!%3Db,metadata.namespace%3Ddefault",
            vec!["a", "c"],
        ),
        ("labelSelector=tier%3Dx&fieldSelector=metadata.name%3Db", vec![]),
    ] {
        let (code, list) = api.get(&format!("/api/v1/configmaps?{query}")).await;
        assert_eq!(code, 200, "{list}");
        let names: Vec<&str> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap())
            .collect();
        for name in &want {
            assert!(names.contains(name), "{query}: {names:?}");
        }
        assert!(names.len() <= want.len(), "{query}: {names:?}");
    }
    let (code, refused) = api.get("/api/v1/configmaps?fieldSelector=spec.x%3D1").await;
    assert_eq!(code, 400);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("\"spec.x\" is not a known field selector")
    );
}

#[tokio::test]
async fn watches_follow() {
    let api = Api::open().await;
    let (_, list) = api.get(CMS).await;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_string();
    let all = api.watch(&format!("{CMS}?watch=1&resourceVersion={revision}")).await;
    let labelled = api
        .watch(&format!(
            "{CMS}?watch=1&labelSelector=on%3Dyes&resourceVersion={revision}"
        ))
        .await;
    api.post(CMS, &config_map("w")).await;
    let one = format!("{CMS}/w");
    let merge = "application/merge-patch+json";
    let (_, on) = api
        .patch(&one, merge, &json!({"metadata": {"labels": {"on": "yes"}}}))
        .await;
    let (_, off) = api
        .patch(&one, merge, &json!({"metadata": {"labels": {"on": "no"}}}))
        .await;
    api.delete(&one, None).await;
    let events = events_until(all, |event| event["type"] == "DELETED").await;
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]);
    let last = &events[3]["object"];
    assert_eq!(last["metadata"]["labels"]["on"], "no");
    assert_ne!(last["metadata"]["resourceVersion"], off["metadata"]["resourceVersion"]);
    // Entering a selector is ADDED, leaving it DELETED with what was last seen.
    let events = events_until(labelled, |event| event["type"] == "DELETED").await;
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ADDED", "DELETED"]);
    assert_eq!(events[1]["object"]["metadata"]["labels"]["on"], "yes");
    assert_eq!(
        events[1]["object"]["metadata"]["resourceVersion"],
        off["metadata"]["resourceVersion"]
    );
    assert_eq!(events[0]["object"], on);
}

#[tokio::test]
async fn watches_begin_where_they_are_told() {
    let api = Api::open().await;
    api.post(CMS, &config_map("w1")).await;
    api.post(CMS, &config_map("w2")).await;
    let stream = api
        .watch(&format!(
            "{CMS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        ))
        .await;
    let events = events_until(stream, |event| event["type"] == "BOOKMARK").await;
    assert_eq!(events.len(), 3);
    let bookmark = &events[2]["object"];
    assert_eq!(bookmark["kind"], "ConfigMap");
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_ne!(bookmark["metadata"]["resourceVersion"], "0");

    // From before the ring: an ERROR inside the stream.
    let stream = api.watch(&format!("{CMS}?watch=1&resourceVersion=1")).await;
    let events = events_until(stream, |event| {
        event["object"]["metadata"]["name"] == "w2" || event["type"] == "ERROR"
    })
    .await;
    assert_ne!(events.last().unwrap()["type"], "ERROR");
    let api = api.reopen().await;
    let stream = api.watch(&format!("{CMS}?watch=1&resourceVersion=1")).await;
    let events = events_until(stream, |event| event["type"] == "ERROR").await;
    assert_eq!(events[0]["object"]["code"], 410);
    assert_eq!(events[0]["object"]["reason"], "Expired");

    let (code, refused) = api.get(&format!("{CMS}?watch=1&sendInitialEvents=true")).await;
    assert_eq!((code, refused["reason"].as_str()), (422, Some("Invalid")));
    // A bookmark when time is up.
    let stream = api
        .watch(&format!("{CMS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true"))
        .await;
    let events = events_until(stream, |event| event["type"] == "BOOKMARK").await;
    assert_eq!(events.len(), 3);
}

#[tokio::test]
async fn node_scoped_watches_see_their_own() {
    let api = Api::open().await;
    let pods = "/api/v1/namespaces/default/pods";
    let (_, list) = api.get(pods).await;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_string();
    let stream = api
        .watch(&format!(
            "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1&resourceVersion={revision}"
        ))
        .await;
    for name in ["p1", "p2"] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let (code, made) = api.post(pods, &pod).await;
        assert_eq!(code, 201, "{made}");
    }
    for (name, node) in [("p2", "n2"), ("p1", "n1")] {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"kind": "Node", "name": node}});
        let (code, bound) = api.post(&format!("{pods}/{name}/binding"), &binding).await;
        assert_eq!(code, 201, "{bound}");
        let (code, _) = api.post(&format!("{pods}/{name}/binding"), &binding).await;
        assert_eq!(code, 409);
    }
    // Graceful: marked first, gone with grace 0.
    let (code, marked) = api.delete(&format!("{pods}/p1"), None).await;
    assert_eq!(code, 200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let (code, _) = api
        .delete(&format!("{pods}/p1"), Some(&json!({"gracePeriodSeconds": 0})))
        .await;
    assert_eq!(code, 200);
    let events = events_until(stream, |event| event["type"] == "DELETED").await;
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED"]);
    assert!(events.iter().all(|event| event["object"]["metadata"]["name"] == "p1"));
}

#[tokio::test]
async fn finalizers_hold_and_preconditions_bind() {
    let api = Api::open().await;
    let mut object = config_map("f");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let (_, made) = api.post(CMS, &object).await;
    let one = format!("{CMS}/f");
    let (code, _) = api
        .delete(&one, Some(&json!({"preconditions": {"uid": "other"}})))
        .await;
    assert_eq!(code, 409);
    let (code, marked) = api.delete(&one, None).await;
    assert_eq!(code, 200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["uid"], made["metadata"]["uid"]);
    let again = api.delete(&one, None).await;
    assert_eq!(again, (200, marked), "nothing is written where nothing changes");
    let merge = "application/merge-patch+json";
    let (code, refused) = api
        .patch(
            &one,
            merge,
            &json!({"metadata": {"finalizers": ["example.com/hold", "example.com/new"]}}),
        )
        .await;
    assert_eq!(code, 422, "{refused}");
    let (code, _) = api.patch(&one, merge, &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(code, 200);
    assert_eq!(api.get(&one).await.0, 404);
}

/// The garbage collector's own deletions made the events that it deletes at.
#[tokio::test]
async fn a_pod_that_a_finalizer_holds_is_marked_once() {
    let api = Api::open().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "finalizers": ["example.com/hold"]},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(api.post(pods, &pod).await.0, 201);
    let one = format!("{pods}/p");
    let (code, marked) = api.delete(&one, None).await;
    assert_eq!(
        (code, &marked["metadata"]["deletionGracePeriodSeconds"]),
        (200, &json!(0))
    );
    let now = json!({"gracePeriodSeconds": 0});
    assert_eq!(api.delete(&one, Some(&now)).await, (200, marked.clone()));
    assert_eq!(api.send_json("DELETE", pods, &json!({})).await.0, 200);
    assert_eq!(api.get(&one).await, (200, marked));
}

#[tokio::test]
async fn collections_go_at_once() {
    let api = Api::open().await;
    for (name, on) in [("a", "1"), ("b", "2"), ("c", "1")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"on": on});
        api.post(CMS, &object).await;
    }
    let (code, gone) = api.delete(&format!("{CMS}?labelSelector=on%3D1"), None).await;
    assert_eq!((code, gone["items"].as_array().map(Vec::len)), (200, Some(2)));
    let (_, left) = api.get(CMS).await;
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

/// Who names no revision is told of no conflict: what loses to another is put again, as it was sent.
#[tokio::test]
async fn those_who_put_at_once_without_a_revision_all_succeed() {
    let api = Api::open().await;
    let one = format!("{CMS}/a");
    api.post(CMS, &config_map("a")).await;
    let all = (0..40).map(|index| {
        let (api, one) = (&api, &one);
        async move {
            let mut object = config_map("a");
            object["data"] = json!({"by": index.to_string()});
            let (code, stored) = api.put(one, &object).await;
            assert_eq!((code, &stored["data"]), (200, &object["data"]), "{stored}");
            stored["metadata"]["resourceVersion"].as_str().unwrap().to_string()
        }
    });
    let mut revisions = futures::future::join_all(all).await;
    revisions.sort();
    revisions.dedup();
    assert_eq!(revisions.len(), 40);
}

#[tokio::test]
async fn every_request_of_a_deprecated_kind_is_warned_of() {
    let api = Api::open().await;
    let endpoints = "/api/v1/namespaces/default/endpoints";
    for path in [endpoints.to_string(), format!("{endpoints}/none")] {
        let response = api.send("GET", &path, "application/json", String::new()).await;
        assert_eq!(
            response.headers()["warning"],
            "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"",
            "{path}"
        );
    }
    let response = api.send("GET", CMS, "application/json", String::new()).await;
    assert!(response.headers().get("warning").is_none());
}

#[tokio::test]
async fn dry_run_and_field_validation() {
    let api = Api::open().await;
    let (code, _) = api.post(&format!("{CMS}?dryRun=All"), &config_map("d")).await;
    assert_eq!(code, 201);
    assert_eq!(api.get(&format!("{CMS}/d")).await.0, 404);
    let mut odd = config_map("d");
    odd["nonsense"] = 1.into();
    let (code, refused) = api.post(&format!("{CMS}?fieldValidation=Strict"), &odd).await;
    assert_eq!(code, 400);
    assert_eq!(
        refused["message"],
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"nonsense\""
    );
    let response = api.send("POST", CMS, "application/json", odd.to_string()).await;
    assert_eq!(response.status(), 201);
    let warning = response.headers()["warning"].to_str().unwrap();
    assert_eq!(warning, "299 - \"unknown field \\\"nonsense\\\"\"");
    let mut bad = config_map("Bad_Name");
    let (code, refused) = api.post(CMS, &bad).await;
    assert_eq!((code, refused["reason"].as_str()), (422, Some("Invalid")));
    assert_eq!(refused["details"]["causes"][0]["field"], "metadata.name");
    bad["metadata"] = json!({"generateName": "gen-"});
    let (code, made) = api.post(CMS, &bad).await;
    assert_eq!(code, 201);
    assert_eq!(made["metadata"]["name"].as_str().unwrap().len(), "gen-".len() + 5);
    let huge = "x".repeat(4 << 20);
    let response = api.send("POST", CMS, "application/json", huge).await;
    assert_eq!(response.status(), 413);
}

#[tokio::test]
async fn status_scale_and_generation() {
    let api = Api::open().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "generation": 7},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
                 "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        "status": {"replicas": 9}});
    let (code, made) = api.post(path, &deployment).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["metadata"]["generation"], 1);
    assert!(made["status"].get("replicas").is_none());
    let one = format!("{path}/d");
    let merge = "application/merge-patch+json";
    let (code, status) = api
        .patch(
            &format!("{one}/status"),
            merge,
            &json!({"status": {"replicas": 1}, "spec": {"replicas": 5}}),
        )
        .await;
    assert_eq!(code, 200, "{status}");
    assert_eq!(status["spec"]["replicas"], 1);
    assert_eq!(status["status"]["replicas"], 1);
    assert_eq!(status["metadata"]["generation"], 1);
    let (code, scale) = api.get(&format!("{one}/scale")).await;
    assert_eq!((code, scale["kind"].as_str()), (200, Some("Scale")));
    assert_eq!(scale["status"]["selector"], "a=b");
    let (code, scale) = api
        .patch(&format!("{one}/scale"), merge, &json!({"spec": {"replicas": 4}}))
        .await;
    assert_eq!((code, &scale["spec"]["replicas"]), (200, &json!(4)));
    let (code, table) = api
        .accept(&format!("{one}/scale"), "application/json;as=Table;g=meta.k8s.io;v=v1")
        .await;
    let table: Value = serde_json::from_slice(&table).unwrap();
    let names: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!((code, names), (200, vec!["Name", "Desired", "Available", "Age"]));
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..3],
        [json!("d"), json!(4), json!(1)]
    );
    let (_, read) = api.get(&one).await;
    assert_eq!(read["metadata"]["generation"], 2);
    assert_eq!(read["spec"]["replicas"], 4);
    assert_eq!(read["status"]["replicas"], 1);
}

#[tokio::test]
async fn services_hold_addresses() {
    let api = Api::open().await;
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let (code, made) = api
        .post(
            path,
            &service("a", json!({"ports": [{"port": 80}], "clusterIP": "10.96.7.7"})),
        )
        .await;
    assert_eq!(code, 201, "{made}");
    let (code, refused) = api
        .post(
            path,
            &service("b", json!({"ports": [{"port": 80}], "clusterIP": "10.96.7.7"})),
        )
        .await;
    assert_eq!(code, 422);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("provided IP is already allocated")
    );
    api.delete(&format!("{path}/a"), None).await;
    let (code, _) = api
        .post(
            path,
            &service("b", json!({"ports": [{"port": 80}], "clusterIP": "10.96.7.7"})),
        )
        .await;
    assert_eq!(code, 201);
    let api = api.reopen().await;
    let (code, _) = api
        .post(
            path,
            &service("c", json!({"ports": [{"port": 80}], "clusterIP": "10.96.7.7"})),
        )
        .await;
    assert_eq!(code, 422);
    let (code, headless) = api
        .post(
            path,
            &service("h", json!({"ports": [{"port": 80}], "clusterIP": "None"})),
        )
        .await;
    assert_eq!(
        (code, &headless["spec"]["clusterIPs"]),
        (201, &json!(["None"])),
        "{headless}"
    );
}

#[tokio::test]
async fn shapes_and_encodings() {
    let api = Api::open().await;
    api.post(CMS, &config_map("t")).await;
    let table = api
        .accept(CMS, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
        .await;
    let table: Value = serde_json::from_slice(&table.1).unwrap();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][0], "t");
    let partial = api
        .accept(CMS, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")
        .await;
    let partial: Value = serde_json::from_slice(&partial.1).unwrap();
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert_eq!(partial["items"][0]["metadata"]["name"], "t");
    assert!(partial["items"][0].get("data").is_none());
    let (code, proto) = api.accept(CMS, "application/vnd.kubernetes.protobuf").await;
    assert_eq!(code, 200);
    assert_eq!(&proto[..4], b"k8s\0");
    let list = mk8s_api::codec::protobuf::decode(&proto).unwrap();
    assert_eq!(list["items"][0]["metadata"]["name"], "t");
    let (_, one) = api
        .accept(&format!("{CMS}/t"), "application/vnd.kubernetes.protobuf")
        .await;
    let one = mk8s_api::codec::protobuf::decode(&one).unwrap();
    assert_eq!(one["data"]["a"], "1");
    let mut fresh = config_map("proto");
    fresh["metadata"]["namespace"] = "default".into();
    let body = mk8s_api::codec::protobuf::encode(&fresh).unwrap();
    let response = api.send("POST", CMS, "application/vnd.kubernetes.protobuf", body).await;
    let (code, made) = harness::read(response).await;
    assert_eq!(code, 201, "{made}");
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: yam}\ndata: {k: v}\n";
    let response = api.send("POST", CMS, "application/yaml", yaml).await;
    assert_eq!(response.status(), 201);
    let (code, _) = api.accept(CMS, "application/cbor").await;
    assert_eq!(code, 406);
}

#[tokio::test]
async fn events_in_two_versions() {
    let api = Api::open().await;
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c", "reportingInstance": "i", "action": "a",
        "reason": "R", "note": "hello", "type": "Normal",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}});
    let (code, made) = api
        .post("/apis/events.k8s.io/v1/namespaces/default/events", &event)
        .await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["note"], "hello");
    let (_, core) = api.get("/api/v1/namespaces/default/events/e").await;
    assert_eq!(core["message"], "hello");
    let (_, list) = api.get("/api/v1/events?fieldSelector=involvedObject.name%3Dp").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let (_, list) = api
        .get("/apis/events.k8s.io/v1/events?fieldSelector=regarding.name%3Dp")
        .await;
    assert_eq!(list["items"][0]["note"], "hello");
}

#[tokio::test]
async fn what_is_not_here_is_refused() {
    let api = Api::open().await;
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "n"},
        "spec": {"podSelector": {}}});
    let (code, refused) = api
        .post("/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", &policy)
        .await;
    assert_eq!((code, refused["reason"].as_str()), (403, Some("Forbidden")));
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("not in this version of mk8s")
    );
    let (code, list) = api.get("/apis/networking.k8s.io/v1/networkpolicies").await;
    assert_eq!((code, list["items"].as_array().map(Vec::len)), (200, Some(0)));
    // Outside of every API the answer is text, within one it is an object.
    let (code, text) = api
        .accept("/apis/nothing.example.com/v1/things", "application/json")
        .await;
    assert_eq!((code, &*text), (404, &b"404 page not found\n"[..]));
    let (code, status) = api.get("/apis/apps/v1/things").await;
    assert_eq!((code, status["reason"].as_str()), (404, Some("NotFound")));
    let (code, _) = api.send_json("PUT", CMS, &json!({})).await;
    assert_eq!(code, 405);
}

/// Every row answers list, and get of what is not there, in its own words.
#[tokio::test]
async fn every_row_lists() {
    let api = Api::open().await;
    for row in mk8s_api::registry::builtin() {
        if row.support == mk8s_api::registry::Support::Virtual {
            continue;
        }
        let version = &row.stored().name;
        let base = if row.group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{}/{version}", row.group)
        };
        let (code, list) = api.get(&format!("{base}/{}", row.plural)).await;
        assert_eq!(
            (code, list["kind"].as_str()),
            (200, Some(&*row.list_kind)),
            "{}",
            row.plural
        );
        let one = if row.is_namespaced() {
            format!("{base}/namespaces/default/{}/none", row.plural)
        } else {
            format!("{base}/{}/none", row.plural)
        };
        let (code, missing) = api.get(&one).await;
        assert_eq!(code, 404, "{one}");
        assert_eq!(missing["message"], format!("{} \"none\" not found", row.qualified()));
    }
}

#[tokio::test]
async fn component_statuses_tell_what_runs() {
    const PATH: &str = "/api/v1/componentstatuses";
    let api = Api::open().await;
    let told = async || -> Vec<String> {
        let (code, list) = api.get(PATH).await;
        assert_eq!((code, &list["metadata"]), (200, &json!({})));
        let told = |item: &Value| {
            let condition = &item["conditions"][0];
            assert_eq!(condition["type"], "Healthy");
            format!(
                "{} {} {}",
                item["metadata"]["name"], condition["status"], condition["message"]
            )
            .replace('"', "")
        };
        list["items"].as_array().unwrap().iter().map(told).collect()
    };
    let running = ["controller-manager True ok", "etcd-0 True ok", "scheduler True ok"];
    assert_eq!(
        told().await,
        [
            "controller-manager False it does not run",
            "etcd-0 True ok",
            "scheduler False it does not run"
        ]
    );
    let token = tokio_util::sync::CancellationToken::new();
    api.server().components_run(token.clone());
    assert_eq!(told().await, running);
    token.cancel();
    api.server().components_elected("kube-system", "masters");
    assert_eq!(
        told().await[2],
        "scheduler False nobody holds the lease kube-system/masters"
    );
    let now = mk8s_api::time::micro(jiff::Timestamp::now());
    let lease = json!({"metadata": {"name": "masters"}, "spec": {"holderIdentity": "b", "leaseDurationSeconds": 15, "renewTime": now}});
    assert_eq!(
        api.post("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", &lease)
            .await
            .0,
        201
    );
    assert_eq!(told().await, running);
}

#[tokio::test]
async fn component_statuses_are_read_like_other_objects() {
    const PATH: &str = "/api/v1/componentstatuses";
    let api = Api::open().await;
    let (_, one) = api.get(&format!("{PATH}/etcd-0")).await;
    assert_eq!(
        (&one["kind"], &one["metadata"]["name"]),
        (&json!("ComponentStatus"), &json!("etcd-0"))
    );
    assert_eq!(
        api.get(&format!("{PATH}/none")).await.1["message"],
        "componentstatus \"none\" not found"
    );
    let (_, picked) = api
        .get(&format!("{PATH}?fieldSelector=metadata.name%3Dscheduler"))
        .await;
    assert_eq!(picked["items"].as_array().unwrap().len(), 1);
    let table = api.accept(PATH, "application/json;as=Table;v=v1;g=meta.k8s.io").await.1;
    let table: Value = serde_json::from_slice(&table).unwrap();
    assert_eq!(table["rows"][1]["cells"], json!(["etcd-0", "Healthy", "ok", ""]));
    let proto = api.accept(PATH, "application/vnd.kubernetes.protobuf").await.1;
    assert_eq!(
        mk8s_api::codec::protobuf::decode(&proto).unwrap()["items"][1]["metadata"]["name"],
        "etcd-0"
    );
}
