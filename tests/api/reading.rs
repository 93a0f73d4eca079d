//! Reading: pages that stay what they were, selectors, watches from their beginning and from too far back, encodings.

use std::pin::pin;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher;
use mk8s_api::codec::protobuf;
use serde_json::{Value, json};

use crate::cluster::Cluster;

const MAPS: &str = "/api/v1/namespaces/pages/configmaps";

async fn filled() -> (Cluster, Api<ConfigMap>) {
    let cluster = Cluster::start().await;
    cluster.namespace("pages").await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.admin.clone(), "pages");
    for index in 0..25 {
        let parity = ["even", "odd"][index % 2];
        let object = json!({"metadata": {"name": format!("c{index:02}"), "labels": {"parity": parity}}});
        maps.create(&PostParams::default(), &serde_json::from_value(object).unwrap())
            .await
            .unwrap();
    }
    (cluster, maps)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_selectors() {
    let (_cluster, maps) = filled().await;
    let page = ListParams::default().labels("parity").limit(10);
    let first = maps.list(&page).await.unwrap();
    // What comes between the pages does not show in them.
    maps.delete("c20", &DeleteParams::default()).await.unwrap();
    let (mut names, mut next) = (Vec::new(), first.metadata.continue_.clone());
    while let Some(token) = next.filter(|token| !token.is_empty()) {
        let list = maps.list(&page.clone().continue_token(&token)).await.unwrap();
        assert_eq!(list.metadata.resource_version, first.metadata.resource_version);
        names.extend(list.items.into_iter().filter_map(|item| item.metadata.name));
        next = list.metadata.continue_;
    }
    assert_eq!((first.items.len(), names.len()), (10, 15));
    assert!(names.contains(&"c20".to_string()));

    let rows = [
        ("parity=even", "", 12),
        ("parity in (odd)", "", 12),
        ("parity notin (odd),parity", "", 12),
        ("!parity", "", 1),
        ("", "metadata.name=c07", 1),
        ("parity=odd", "metadata.name!=c07", 11),
    ];
    for (labels, fields, count) in rows {
        let list = maps
            .list(&ListParams::default().labels(labels).fields(fields))
            .await
            .unwrap();
        assert_eq!(list.items.len(), count, "{labels} {fields}");
    }
    let wrong = maps.list(&ListParams::default().fields("data.a=1")).await;
    assert!(matches!(wrong, Err(kube::Error::Api(status)) if status.code == 400));
}

#[tokio::test(flavor = "multi_thread")]
async fn watches() {
    let (_cluster, maps) = filled().await;
    // From the beginning: what is there, the bookmark that closes it, then what changes.
    let params = WatchParams::default().labels("parity=odd").initial_events();
    let mut events = maps.watch(&params, "").await.unwrap().boxed();
    for _ in 0..12 {
        assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
    }
    let Some(WatchEvent::Bookmark(mark)) = events.try_next().await.unwrap() else {
        panic!("no bookmark after the initial events");
    };
    assert_eq!(mark.metadata.annotations["k8s.io/initial-events-end"], "true");
    maps.delete("c01", &DeleteParams::default()).await.unwrap();
    assert!(
        matches!(events.try_next().await.unwrap(), Some(WatchEvent::Deleted(gone)) if gone.metadata.name.as_deref() == Some("c01"))
    );

    // From the bookmark on: that deletion alone.
    let mut events = maps
        .watch(&params_without(&params), &mark.metadata.resource_version)
        .await
        .unwrap()
        .boxed();
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Deleted(_))));

    // kube's own watcher, both by list and watch and by a streaming list.
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut stream = pin!(watcher(maps.clone(), config.labels("parity=even")));
        let mut seen = 0;
        loop {
            match stream.try_next().await.unwrap().unwrap() {
                watcher::Event::InitApply(_) => seen += 1,
                watcher::Event::InitDone => break,
                _ => {}
            }
        }
        assert_eq!(seen, 13);
    }
}

fn params_without(initial: &WatchParams) -> WatchParams {
    WatchParams {
        send_initial_events: false,
        ..initial.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_far_back_is_410() {
    let (cluster, maps) = filled().await;
    let old = maps.get("c00").await.unwrap().metadata.resource_version.unwrap();
    // A watch and a list of the past are possible for as long as this process remembers it.
    let past = format!("{MAPS}?resourceVersion={old}&resourceVersionMatch=Exact");
    assert_eq!(cluster.get(&past).await["items"].as_array().unwrap().len(), 2);
    let cluster = cluster.restart().await;
    let (code, reason, _) = cluster.send("GET", &past, &[], &Value::Null).await.refusal();
    assert_eq!((code, reason.as_str()), (410, "Expired"));
    let maps: Api<ConfigMap> = Api::namespaced(cluster.admin.clone(), "pages");
    let mut events = maps.watch(&WatchParams::default(), &old).await.unwrap().boxed();
    match events.try_next().await {
        Ok(Some(WatchEvent::Error(status))) => assert_eq!(status.code, 410),
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 410),
        other => panic!("not expired: {other:?}"),
    }
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 26);
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "a list of encodings, each asked of the same objects"
)]
async fn encodings() {
    let (cluster, _) = filled().await;
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    let one = format!("{MAPS}/c03");
    let proto = cluster.send("GET", &one, &[("accept", PROTOBUF)], &Value::Null).await;
    assert_eq!(proto.header("content-type"), PROTOBUF);
    assert_eq!(protobuf::decode(&proto.body).unwrap(), cluster.get(&one).await);
    let list = cluster.send("GET", MAPS, &[("accept", PROTOBUF)], &Value::Null).await;
    assert_eq!(
        protobuf::decode(&list.body).unwrap()["items"].as_array().unwrap().len(),
        26
    );

    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{
        "name": "c", "image": "i", "resources": {"limits": {"cpu": "500m"}}, "ports": [{"containerPort": 80}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "web"}}, "securityContext": {"privileged": false}}]}});
    let headers = [("content-type", PROTOBUF), ("accept", "application/json")];
    let body = protobuf::encode(&pod).unwrap();
    let made = cluster
        .send_bytes("POST", "/api/v1/namespaces/pages/pods", &headers, body)
        .await
        .json();
    assert_eq!(
        made["spec"]["containers"][0]["readinessProbe"]["httpGet"]["port"],
        "web"
    );
    assert_eq!(made["spec"]["containers"][0]["resources"]["requests"]["cpu"], "500m");

    let yaml = [("content-type", "application/yaml"), ("accept", "application/yaml")];
    let text = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: in-yaml}\n".to_vec();
    let made = cluster.send_bytes("POST", MAPS, &yaml, text).await;
    let text = String::from_utf8_lossy(&made.body);
    assert_eq!(
        (made.code(), made.header("content-type")),
        (201, "application/yaml"),
        "{text}"
    );

    let table = [(
        "accept",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    )];
    let table = cluster
        .send("GET", "/api/v1/namespaces/pages/pods", &table, &Value::Null)
        .await
        .json();
    assert_eq!(table["kind"], "Table");
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|column| column["name"].as_str())
        .collect();
    assert_eq!(columns[..5], ["Name", "Ready", "Status", "Restarts", "Age"]);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(json!(cells[..4]), json!(["p", "0/1", "Pending", "0"]));
    let metadata = [(
        "accept",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    )];
    let partial = cluster.send("GET", MAPS, &metadata, &Value::Null).await.json();
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    let nothing = cluster
        .send("GET", MAPS, &[("accept", "image/png")], &Value::Null)
        .await;
    assert_eq!(nothing.code(), 406);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is() {
    let cluster = Cluster::start().await;
    let version = cluster.admin.apiserver_version().await.unwrap();
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "35"));
    let discovery = kube::Discovery::new(cluster.admin.clone()).run().await.unwrap();
    let aggregated = kube::Discovery::new(cluster.admin.clone())
        .run_aggregated()
        .await
        .unwrap();
    for discovery in [discovery, aggregated] {
        let kinds: Vec<String> = discovery
            .groups()
            .flat_map(|group| group.recommended_resources())
            .map(|(resource, _)| resource.kind)
            .collect();
        for kind in [
            "Pod",
            "Deployment",
            "StatefulSet",
            "NetworkPolicy",
            "EndpointSlice",
            "Lease",
            "CustomResourceDefinition",
        ] {
            assert!(kinds.iter().any(|known| known == kind), "{kind} is not in discovery");
        }
    }
    for path in [
        "/openapi/v3",
        "/openapi/v2",
        "/healthz?verbose",
        "/livez",
        "/readyz",
        "/metrics",
    ] {
        let answer = cluster.send("GET", path, &[], &Value::Null).await;
        assert_eq!((answer.code(), answer.body.is_empty()), (200, false), "{path}");
    }
}
