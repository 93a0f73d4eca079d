//! Informers that read the watch cache itself.

#![allow(clippy::unwrap_used)]

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use harness::Api;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use mk8s_apiserver::User;
use mk8s_client::{Change, Event, Informer, Informers, Selection};
use mk8s_supervisor::Supervisor;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

const PATIENCE: Duration = Duration::from_secs(20);

fn informers(api: &Api, name: &str, group: &str) -> (Informers, DropGuard) {
    let user = User::authenticated(name, [group.to_string()]);
    let token = CancellationToken::new();
    let informers = Informers::fed(api.server().feed(user), &Supervisor::new(token.clone()));
    (informers, token.drop_guard())
}

async fn synced<K: mk8s_client::Kind>(informer: &Informer<K>) -> bool {
    let wait = tokio::time::timeout(Duration::from_secs(1), informer.wait_synced());
    wait.await.is_ok()
}

async fn map(api: &Api, name: &str, value: &str) -> u64 {
    let path = "/api/v1/namespaces/default/configmaps";
    let object = json!({"metadata": {"name": name}, "data": {"key": value}});
    let (code, object) = match api.post(path, &object).await {
        (409, _) => {
            api.patch(&format!("{path}/{name}"), "application/merge-patch+json", &object)
                .await
        }
        answer => answer,
    };
    assert!(code < 300, "{object}");
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

async fn next(events: &mut mk8s_client::Subscription<ConfigMap>) -> (String, Option<String>, Option<String>) {
    let value = |map: &ConfigMap| map.data.as_ref().unwrap()["key"].clone();
    let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap();
    let name = event.object().metadata.name.clone().unwrap();
    match event {
        Event::Applied { old, new } => (name, old.as_deref().map(value), Some(value(&new))),
        Event::Deleted(last) => (name, Some(value(&last)), None),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_informer_has_what_is_and_what_becomes() {
    let api = Api::open().await;
    map(&api, "before", "1").await;
    let (informers, _ends) = informers(&api, "admin", "system:masters");
    let maps = informers.in_namespace::<ConfigMap>("default", "metadata.name!=kube-root-ca.crt");
    maps.wait_synced().await;
    let mut events = maps.subscribe();
    let step =
        |name: &str, old: Option<&str>, new: Option<&str>| (name.into(), old.map(Into::into), new.map(Into::into));
    assert_eq!(next(&mut events).await, step("before", None, Some("1")));
    let revision = map(&api, "before", "2").await;
    tokio::time::timeout(PATIENCE, maps.wait_reached(revision))
        .await
        .unwrap();
    assert_eq!(next(&mut events).await, step("before", Some("1"), Some("2")));
    map(&api, "after", "1").await;
    assert_eq!(next(&mut events).await, step("after", None, Some("1")));
    let (code, _) = api.delete("/api/v1/namespaces/default/configmaps/before", None).await;
    assert_eq!(code, 200);
    assert_eq!(next(&mut events).await, step("before", Some("2"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_is_entered_and_left() {
    let api = Api::open().await;
    let (informers, _ends) = informers(&api, "admin", "system:masters");
    let pods = informers.of_where::<Pod>("spec.nodeName=n");
    pods.wait_synced().await;
    let account = json!({"metadata": {"name": "default"}});
    api.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    for (name, node) in [("mine", "n"), ("other", "m")] {
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
        let (code, answer) = api.post("/api/v1/namespaces/default/pods", &pod).await;
        assert_eq!(code, 201, "{answer}");
    }
    let mut events = pods.subscribe();
    let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap();
    assert_eq!(event.object().metadata.name.as_deref(), Some("mine"));
    let zero = json!({"gracePeriodSeconds": 0});
    for name in ["other", "mine"] {
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        assert_eq!(api.delete(&path, Some(&zero)).await.0, 200);
    }
    let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap();
    assert!(
        matches!(&event, Event::Deleted(pod) if pod.metadata.name.as_deref() == Some("mine")),
        "{event:?}"
    );
    assert_eq!(pods.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_list_and_watch_is_fed_nothing() {
    let api = Api::open().await;
    for name in ["mine", "foreign"] {
        let secret = json!({"metadata": {"name": name}, "stringData": {"a": "b"}});
        assert_eq!(api.post("/api/v1/namespaces/default/secrets", &secret).await.0, 201);
    }
    let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "secret": {"secretName": "mine"}}]}});
    let account = json!({"metadata": {"name": "default"}});
    api.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let (code, answer) = api.post("/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(code, 201, "{answer}");

    let (nobody, _ends) = informers(&api, "somebody", "system:nobodies");
    assert!(!synced(&nobody.of::<Secret>()).await);
    assert!(!synced(&nobody.of::<Node>()).await);

    // As over HTTP, a node reads its own pods and what they name, by name.
    let (node, _ends) = informers(&api, "system:node:n", "system:nodes");
    assert!(synced(&node.of_where::<Pod>("spec.nodeName=n")).await);
    assert!(!synced(&node.of::<Pod>()).await);
    assert!(!synced(&node.of::<Secret>()).await);
    let (secret, _ends) = node.single::<Secret>("default", "mine");
    assert!(synced(&secret).await);
    assert_eq!(secret.len(), 1);
    let (secret, _ends) = node.single::<Secret>("default", "foreign");
    assert!(!synced(&secret).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_s_informers_may_only_read() {
    use http::{Method, Request};
    use tower::ServiceExt as _;

    let api = Api::open().await;
    let name = "system:mk8s:informers";
    let (reader, _ends) = informers(&api, name, "system:authenticated");
    assert!(synced(&reader.of::<Secret>()).await);
    assert!(synced(&reader.of::<Pod>()).await);
    let router = api.server().router_as(User::authenticated(name, []));
    let map = json!({"metadata": {"name": "a"}}).to_string();
    let path = "/api/v1/namespaces/default/configmaps";
    for (method, path, code) in [
        (Method::GET, path.to_string(), 200),
        (Method::GET, format!("{path}/kube-root-ca.crt"), 403),
        (Method::POST, path.to_string(), 403),
        (Method::DELETE, path.to_string(), 403),
    ] {
        let request = Request::builder().method(method.clone()).uri(&path);
        let request = request.header("content-type", "application/json");
        let request = request.body(axum::body::Body::from(map.clone())).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), code, "{method} {path}");
    }
}

#[tokio::test]
async fn who_reads_a_long_list_lets_others_work() {
    let api = Api::open().await;
    let names: Vec<String> = (0..600).map(|number| format!("map-{number}")).collect();
    futures::future::join_all(names.iter().map(|name| map(&api, name, "1"))).await;
    let selection = Selection {
        group: String::new(),
        version: "v1".into(),
        kind: "ConfigMap".into(),
        plural: "configmaps".into(),
        namespace: "default".into(),
        field_selector: String::new(),
    };
    let turns = Arc::new(AtomicU32::new(0));
    let counted = turns.clone();
    let _other = mk8s_supervisor::job::spawn("other work", async move {
        loop {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    })
    .abort_on_drop();
    let user = User::authenticated("admin", ["system:masters".to_string()]);
    let mut changes = api.server().feed(user).open(&selection, None);
    let mut listed = 0;
    while let Some(Ok(Change::Applied(_))) = changes.next().await {
        listed += 1;
    }
    assert!(listed >= 600, "{listed}");
    assert!(turns.load(Ordering::SeqCst) >= 2, "nothing else had a turn");
}
