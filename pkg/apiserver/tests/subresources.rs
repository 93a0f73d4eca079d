//! Subresources and the rarer ways: eviction under a budget, namespace finalizers, certificate approval, big answers,
//! watches in other shapes.
#![allow(clippy::unwrap_used)]

mod harness;

use std::io::Read as _;

use futures::StreamExt as _;
use harness::{Api, events_until, read};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const CMS: &str = "/api/v1/namespaces/default/configmaps";
const MERGE: &str = "application/merge-patch+json";

async fn running_pod(api: &Api, name: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "a"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    let (code, made) = api.post(PODS, &pod).await;
    assert_eq!(code, 201, "{made}");
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let (code, _) = api.patch(&format!("{PODS}/{name}/status"), MERGE, &status).await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn evictions_ask_the_budget() {
    let api = Api::open().await;
    running_pod(&api, "p").await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    let (code, made) = api.post(budgets, &budget).await;
    assert_eq!(code, 201, "{made}");
    let status = |allowed: i64| {
        json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1,
                          "desiredHealthy": 1, "expectedPods": 1}})
    };
    let one = format!("{budgets}/b/status");
    let (code, set) = api.patch(&one, MERGE, &status(0)).await;
    assert_eq!(code, 200, "{set}");
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let (code, refused) = api.post(&format!("{PODS}/p/eviction"), &eviction).await;
    assert_eq!(code, 429, "{refused}");
    assert_eq!(refused["details"]["causes"][0]["reason"], "DisruptionBudget");
    api.patch(&one, MERGE, &status(1)).await;
    let (code, done) = api.post(&format!("{PODS}/p/eviction"), &eviction).await;
    assert_eq!((code, done["status"].as_str()), (201, Some("Success")));
    let (_, counted) = api.get(&format!("{budgets}/b")).await;
    assert_eq!(counted["status"]["disruptionsAllowed"], 0);
    let (_, pod) = api.get(&format!("{PODS}/p")).await;
    assert!(pod["metadata"]["deletionTimestamp"].is_string());
    // What a Job's failure policy asks about.
    let marks = pod["status"]["conditions"].as_array().unwrap();
    let mark = marks
        .iter()
        .find(|condition| condition["type"] == "DisruptionTarget")
        .unwrap();
    assert_eq!(
        (&mark["status"], &mark["reason"]),
        (&json!("True"), &json!("EvictionByEvictionAPI"))
    );
}

#[tokio::test]
async fn namespaces_wait_for_their_finalizer() {
    let api = Api::open().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    let (code, made) = api.post("/api/v1/namespaces", &namespace).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    let (code, going) = api.delete("/api/v1/namespaces/n", None).await;
    assert_eq!((code, going["status"]["phase"].as_str()), (200, Some("Terminating")));
    let mut last = going.clone();
    last["spec"]["finalizers"] = json!([]);
    let (code, _) = api.put("/api/v1/namespaces/n", &last).await;
    assert_eq!(code, 200);
    let (code, still) = api.get("/api/v1/namespaces/n").await;
    assert_eq!((code, &still["spec"]["finalizers"]), (200, &json!(["kubernetes"])));
    last["metadata"]["resourceVersion"] = still["metadata"]["resourceVersion"].clone();
    let (code, done) = api.put("/api/v1/namespaces/n/finalize", &last).await;
    assert_eq!(code, 200, "{done}");
    assert_eq!(api.get("/api/v1/namespaces/n").await.0, 404);
}

#[tokio::test]
async fn dependents_are_orphaned_or_waited_for() {
    let api = Api::open().await;
    let path = "/apis/apps/v1/namespaces/default/replicasets";
    for (name, policy, finalizer) in [("a", "Orphan", "orphan"), ("b", "Foreground", "foregroundDeletion")] {
        let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": {"a": "b"}},
                     "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        let (code, made) = api.post(path, &set).await;
        assert_eq!(code, 201, "{made}");
        let one = format!("{path}/{name}");
        let (code, marked) = api.delete(&one, Some(&json!({"propagationPolicy": policy}))).await;
        assert_eq!(code, 200);
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        assert_eq!(marked["metadata"]["generation"], 2);
    }
    let (code, _) = api
        .delete(&format!("{path}/a"), Some(&json!({"propagationPolicy": "Sideways"})))
        .await;
    assert_eq!(code, 422);
}

#[tokio::test]
async fn big_answers_come_in_chunks_and_compressed() {
    let api = Api::open().await;
    for index in 0..40 {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("big{index:02}")},
            "data": {"text": "x".repeat(10_000)}});
        api.post(CMS, &object).await;
    }
    let (code, list) = api.get(CMS).await;
    assert_eq!((code, list["items"].as_array().map(Vec::len)), (200, Some(40)));
    let response = api.send_with("GET", CMS, &[("accept-encoding", "gzip")]).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let mut body = Vec::new();
    let mut stream = response.into_body().into_data_stream();
    while let Some(chunk) = stream.next().await {
        body.extend_from_slice(&chunk.unwrap());
    }
    let mut text = String::new();
    flate2::read::GzDecoder::new(&body[..])
        .read_to_string(&mut text)
        .unwrap();
    let unzipped: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(unzipped, list);
    let response = api
        .send_with("GET", CMS, &[("accept", "application/vnd.kubernetes.protobuf")])
        .await;
    let mut body = Vec::new();
    let mut stream = response.into_body().into_data_stream();
    while let Some(chunk) = stream.next().await {
        body.extend_from_slice(&chunk.unwrap());
    }
    let decoded = mk8s_api::codec::protobuf::decode(&body).unwrap();
    assert_eq!(decoded["items"].as_array().map(Vec::len), Some(40));
}

/// In chunks too, whatever stands in the objects.
#[tokio::test]
async fn lists_in_other_prints_say_the_same() {
    let api = Api::open().await;
    let texts = [
        "a\n\n",
        "  in\n out\n\n  in",
        "- |\n",
        "\n",
        "",
        "'\"\\\u{1}",
        "a: b # c\n\n\n",
        "yes",
        "\ttab",
    ];
    let long = "x".repeat(30_000);
    for count in 0..6 {
        if count > 0 {
            let data: serde_json::Map<_, _> = texts
                .iter()
                .map(|text| json!(text))
                .enumerate()
                .map(|(n, text)| (format!("k{n}"), text))
                .collect();
            // What stands last in an object is followed by the next one.
            let labels = json!({"name": format!("c{count}"), "annotations": {"long": long, "zz": texts[count]}});
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": labels, "data": data});
            assert_eq!(api.post(CMS, &object).await.0, 201);
        }
        for shape in [
            "",
            ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            ";as=Table;g=meta.k8s.io;v=v1",
        ] {
            let read = async |query: &str, kind: &str| {
                let (code, body) = api.accept(&format!("{CMS}{query}"), &format!("{kind}{shape}")).await;
                let text = String::from_utf8(body.to_vec()).unwrap();
                assert_eq!(code, 200, "{text}");
                text
            };
            // A second may pass between two tables.
            let aged = |mut list: serde_json::Value| {
                for row in list["rows"].as_array_mut().into_iter().flatten() {
                    row["cells"][2] = serde_json::Value::Null;
                }
                list
            };
            let json = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
            let plain = aged(json(&read("", "application/json").await));
            let pretty = read("?pretty=true", "application/json").await;
            assert_eq!(pretty, serde_json::to_string_pretty(&json(&pretty)).unwrap());
            assert_eq!(aged(json(&pretty)), plain);
            let yaml = read("", "application/yaml").await;
            let decoded = mk8s_api::codec::yaml::decode(yaml.as_bytes(), None, mk8s_api::codec::Validation::Warn);
            assert!(aged(decoded.unwrap().value) == plain, "{count} {shape}: {yaml}");
        }
    }
}

#[tokio::test]
async fn watches_in_other_shapes() {
    let api = Api::open().await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let response = api
        .send_with("GET", &format!("{CMS}?watch=1"), &[("accept", table)])
        .await;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "t"}});
    api.post(CMS, &object).await;
    let events = events_until(response.into_body(), |event| event["type"] == "ADDED").await;
    assert_eq!(events[0]["object"]["kind"], "Table");
    assert_eq!(events[0]["object"]["rows"][0]["cells"][0], "t");
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let response = api
        .send_with("GET", &format!("{CMS}?watch=1"), &[("accept", partial)])
        .await;
    let events = events_until(response.into_body(), |event| event["type"] == "ADDED").await;
    assert_eq!(events[0]["object"]["kind"], "PartialObjectMetadata");
    let response = api
        .send_with(
            "GET",
            &format!("{CMS}?watch=1"),
            &[("accept", "application/vnd.kubernetes.protobuf")],
        )
        .await;
    assert_eq!(
        response.headers()["content-type"],
        "application/vnd.kubernetes.protobuf;stream=watch"
    );
    let chunk = response.into_body().into_data_stream().next().await.unwrap().unwrap();
    let length = u32::from_be_bytes(chunk[..4].try_into().unwrap()) as usize;
    assert_eq!(chunk.len(), length + 4);
}

#[tokio::test]
async fn discovery_and_openapi() {
    let api = Api::open().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let response = api.send_with("GET", "/apis", &[("accept", aggregated)]).await;
    assert!(
        response.headers()["content-type"]
            .to_str()
            .unwrap()
            .contains("as=APIGroupDiscoveryList")
    );
    let etag = response.headers()["etag"].to_str().unwrap().to_string();
    let (_, groups) = read(response).await;
    assert_eq!(groups["kind"], "APIGroupDiscoveryList");
    let response = api
        .send_with("GET", "/apis", &[("accept", aggregated), ("if-none-match", &etag)])
        .await;
    assert_eq!(response.status(), 304);
    for media in ["application/yaml", "application/vnd.kubernetes.protobuf"] {
        let asked = aggregated.replace("application/json;", &format!("{media};"));
        let response = api.send_with("GET", "/apis", &[("accept", &asked)]).await;
        let told = response.headers()["content-type"].to_str().unwrap().to_string();
        assert_eq!(
            told,
            format!("{media};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
        );
        assert_eq!(response.headers()["etag"].to_str().unwrap(), etag);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let read = match media {
            "application/yaml" => {
                mk8s_api::codec::yaml::decode(&body, None, mk8s_api::codec::Validation::Ignore)
                    .unwrap()
                    .value
            }
            _ => mk8s_api::codec::protobuf::decode(&body).unwrap(),
        };
        assert_eq!(read["items"][1]["versions"], groups["items"][1]["versions"], "{media}");
    }
    let old = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
    assert_eq!(api.send_with("GET", "/api", &[("accept", old)]).await.status(), 406);
    let (code, plain) = api.get("/apis/apps/v1").await;
    assert_eq!((code, plain["kind"].as_str()), (200, Some("APIResourceList")));
    let (code, index) = api.get("/openapi/v3").await;
    assert_eq!(code, 200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let (code, document) = api.get(url).await;
    assert_eq!((code, document["openapi"].as_str()), (200, Some("3.0.0")));
    let (code, version) = api.get("/version").await;
    assert_eq!((code, version["minor"].as_str()), (200, Some("35")));
}

#[tokio::test]
async fn who_approves_may_say_so_in_metadata_too() {
    use base64::Engine as _;
    let api = Api::open().await;
    let pem = rcgen::KeyPair::generate()
        .and_then(|key| rcgen::CertificateParams::default().serialize_request(&key))
        .and_then(|request| request.pem())
        .unwrap();
    let encoded = base64::engine::general_purpose::STANDARD.encode(pem);
    let csrs = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let csr = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "a"},
        "spec": {"signerName": "example.org/a", "request": encoded, "usages": ["digital signature"]}});
    let (code, made) = api.post(csrs, &csr).await;
    assert_eq!(code, 201, "{made}");
    let patch = json!({"metadata": {"annotations": {"by": "jane"}}, "spec": {"signerName": "example.org/b"},
        "status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r"}], "certificate": "YQ=="}});
    let (code, approved) = api.patch(&format!("{csrs}/a/approval"), MERGE, &patch).await;
    assert_eq!(code, 200, "{approved}");
    assert_eq!(approved["metadata"]["annotations"]["by"], "jane");
    assert_eq!(approved["status"]["conditions"][0]["type"], "Approved");
    assert_eq!(approved["spec"]["signerName"], "example.org/a");
    assert!(approved["status"].get("certificate").is_none());
}

/// A write of a pod's status reads its spec only where that has a say in it: it was not looked at at all.
#[tokio::test]
async fn a_pods_status_is_judged_by_its_spec() {
    let api = Api::open().await;
    let spec = json!({"restartPolicy": "OnFailure", "nodeName": "n", "containers": [{"name": "c", "image": "i"}],
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]});
    let made = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ends"}, "spec": spec});
    let (code, made) = api.post(PODS, &made).await;
    assert_eq!(code, 201, "{made}");
    let path = format!("{PODS}/ends/status");
    let patch = async |kind: &str, status: Value| api.patch(&path, kind, &json!({"status": status})).await;
    let containers = |state: Value| {
        json!({"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false,
        "restartCount": 0, "state": state}]})
    };
    let refused = |(code, answer): (u16, Value), why: &str| {
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(code == 422 && message.contains(why), "{code} {message}");
    };
    for kind in [MERGE, "application/strategic-merge-patch+json"] {
        let null = json!({"running": null, "terminated": null, "waiting": {"reason": "Again"}});
        // What failed may begin again by this policy, what ended well may not.
        for (exit, code) in [(1, 200), (0, 422)] {
            let ended = json!({"waiting": null, "terminated": {"exitCode": exit}});
            assert_eq!(patch(kind, containers(ended)).await.0, 200);
            let (got, answer) = patch(kind, containers(null.clone())).await;
            assert_eq!(got, code, "{kind} {exit}: {answer}");
        }
        refused(
            patch(kind, containers(null)).await,
            "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
        );
    }
    let (_, mut pod) = api.get(&format!("{PODS}/ends")).await;
    pod["status"]["containerStatuses"][0]["state"] = json!({"running": {}});
    refused(api.put(&path, &pod).await, "may not be transitioned");
    // The spec that a PUT says is not the pod's.
    pod["spec"]["restartPolicy"] = "Always".into();
    refused(api.put(&path, &pod).await, "may not be transitioned");

    let claims = |name: &str| json!({"resourceClaimStatuses": [{"name": name, "resourceClaimName": "made"}]});
    let (code, told) = patch(MERGE, claims("gpu")).await;
    assert_eq!(code, 200, "{told}");
    assert_eq!(told["spec"]["resourceClaims"][0]["name"], "gpu", "the answer is whole");
    refused(patch(MERGE, claims("none")).await, "must match the name of an entry");
    let (_, stored) = api.get(&format!("{PODS}/ends")).await;
    assert_eq!(stored["spec"]["restartPolicy"], "OnFailure");
    let nominated = patch(MERGE, json!({"nominatedNodeName": "m"})).await;
    refused(nominated, "may not be set on pods that are already bound to a node");
}
