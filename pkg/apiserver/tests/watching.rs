//! What watches and lists show: each version its own bytes, and no revision that is not there.
#![allow(clippy::unwrap_used)]

mod harness;

use std::time::{Duration, Instant};

use axum::body::Body;
use harness::{Api, read};
use http::Request;
use http_body_util::BodyExt as _;
use mk8s_api::codec::protobuf;
use mk8s_apiserver::User;
use serde_json::{Value, json};
use tower::ServiceExt as _;

const EVENTS: &str = "/api/v1/namespaces/default/events";

/// The object in the first frame of a protobuf watch.
async fn first_frame(api: &Api, uri: &str) -> Value {
    let router = api
        .server()
        .router_as(User::authenticated("admin", ["system:masters".into()]));
    let accept = format!("{};stream=watch", protobuf::MEDIA_TYPE);
    let request = Request::get(uri).header("accept", accept).body(Body::empty()).unwrap();
    let mut body = router.oneshot(request).await.unwrap().into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let event = protobuf::decode(&protobuf::envelope("v1", "WatchEvent", &frame[4..])).unwrap();
    event["object"].clone()
}

#[tokio::test]
async fn a_watch_of_another_version_leaves_each_its_own_bytes() {
    let api = Api::open().await;
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "Made", "message": "a message",
        "type": "Normal", "source": {"component": "kubelet"}, "count": 3,
        "firstTimestamp": "2026-01-02T03:04:05Z", "lastTimestamp": "2026-01-02T03:04:05Z"});
    let (code, made) = api.post(EVENTS, &event).await;
    assert_eq!(code, 201, "{made}");
    let revision = made["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse::<u64>()
        .unwrap();
    for since in ["".to_string(), format!("&resourceVersion={}", revision - 1)] {
        for (group, message) in [("apis/events.k8s.io/v1", "note"), ("api/v1", "message")] {
            let uri = format!("/{group}/namespaces/default/events?watch=1{since}");
            let shown = first_frame(&api, &uri).await;
            assert_eq!(shown[message], "a message", "{uri}: {shown}");
        }
        let (code, one) = api.accept(&format!("{EVENTS}/e"), protobuf::MEDIA_TYPE).await;
        assert_eq!(code, 200);
        assert_eq!(protobuf::decode(&one).unwrap(), api.get(&format!("{EVENTS}/e")).await.1);
    }
}

#[tokio::test]
async fn a_revision_that_never_was_is_too_large() {
    let api = Api::open().await;
    for question in [
        "watch=1&",
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1&",
        "",
    ] {
        let uri = format!("/api/v1/configmaps?{question}resourceVersion=999999");
        let (code, status) = read(api.send("GET", &uri, "application/json", Body::empty()).await).await;
        assert_eq!(
            (code, status["reason"].as_str()),
            (504, Some("Timeout")),
            "{uri}: {status}"
        );
        let message = status["message"].as_str().unwrap();
        assert!(
            message.starts_with("Timeout: Too large resource version: 999999, current: "),
            "{message}"
        );
        assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    }
}

/// Who was never caught up was asked for the time only while there was nothing to send.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_in_time_though_there_is_always_more() {
    let api = Api::open().await;
    let config_maps = "/api/v1/namespaces/default/configmaps";
    let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"n": "0"}});
    assert_eq!(api.post(config_maps, &map).await.0, 201);
    let begun = Instant::now();
    let mut body = api.watch(&format!("{config_maps}?watch=1&timeoutSeconds=1")).await;
    let one = format!("{config_maps}/a");
    let writes = async {
        for n in 0.. {
            map["data"]["n"] = n.to_string().into();
            api.put(&one, &map).await;
        }
    };
    let reads = async {
        while body.frame().await.is_some() {
            // There is more by then.
            let before = api.get(&one).await;
            while api.get(&one).await == before {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::select! {
        () = writes => {}
        () = reads => {}
        () = tokio::time::sleep(Duration::from_secs(20)) => {}
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
