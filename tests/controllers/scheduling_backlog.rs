//! How fast a scheduler that has just begun gives nodes to the pods that wait for it: what a restart of the master means where many do.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Event, Node, Pod, Service};
use kube::Api;
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use mk8s_controllers::context::Settings;
use mk8s_supervisor::Supervisor;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

const NODES: usize = 5000;
const PODS: usize = 10_000;
/// So many requests at once: each waits until what it wrote is safe on the disk.
const CLIENTS: usize = 64;
/// How long after the last binding all of them are told of.
const TOLD: Duration = Duration::from_secs(2);
/// How long a scope may take to end.
const END: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: hack/bench.sh runs it"]
async fn pods_that_wait_are_bound_at_once() {
    let cluster = Cluster::start_idle(Settings::default()).await;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    all(NODES, async |number| {
        nodes.create(&PostParams::default(), &node(number)).await.map(drop)
    })
    .await;
    settle(&cluster, &nodes).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    cluster.create::<Service>("default", service).await;
    let pods = cluster.api::<Pod>("default");
    all(PODS, async |number| {
        pods.create(&PostParams::default(), &pod(number)).await.map(drop)
    })
    .await;

    let bound = WatchParams::default().fields("spec.nodeName!=");
    // Of each only the metadata is decoded: who measures runs beside what is measured.
    let metadata: Api<PartialObjectMeta<Pod>> = Api::namespaced(cluster.admin.clone(), "default");
    let mut bound = metadata.watch(&bound, "0").await.unwrap().boxed();
    let begun = Instant::now();
    let scope = begin(&cluster);
    let mut seen = 0;
    while seen < PODS {
        let event = bound.next().await.expect("a watch that goes on").unwrap();
        seen += usize::from(matches!(event, WatchEvent::Added(_)));
    }
    let elapsed = begun.elapsed();
    println!("backlog\t{:.0}", PODS as f64 / elapsed.as_secs_f64());

    tokio::time::sleep(TOLD).await;
    let events = cluster.api::<Event>("default");
    let told = ListParams::default().fields("reason=Scheduled");
    let told = events.list(&told).await.unwrap().items.len();
    assert_eq!(told, PODS, "each binding has its Event");
    scope.shutdown(END).await;
}

/// Controllers and scheduler.
fn begin(cluster: &Cluster) -> Supervisor {
    let scope = Supervisor::new(CancellationToken::new());
    let plane = &cluster.plane.plane;
    plane.run_components(plane.clients(), &scope);
    scope
}

/// Has controllers do what they do with nodes that are new.
async fn settle(cluster: &Cluster, nodes: &Api<Node>) {
    let scope = begin(cluster);
    cluster
        .until("no node is tainted", || async {
            let all = nodes.list(&ListParams::default()).await.unwrap().items;
            let tainted = |node: &&Node| node.spec.as_ref().is_some_and(|spec| spec.taints.is_some());
            let count = all.iter().filter(tainted).count();
            crate::cluster::holds(count == 0, count)
        })
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    scope.shutdown(END).await;
}

async fn all(count: usize, make: impl AsyncFn(usize) -> kube::Result<()>) {
    let made = futures::stream::iter((0..count).map(|number| make(number)));
    made.buffer_unordered(CLIENTS).try_collect::<()>().await.unwrap();
}

fn node(number: usize) -> Node {
    let name = format!("node-{number}");
    let room = json!({"cpu": "32", "memory": "64Gi", "pods": "110"});
    let now = jiff::Timestamp::now().to_string();
    let zone = format!("zone-{}", number % 4);
    typed(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}},
        // Its own: the pod network has shares for fewer nodes.
        "spec": {"podCIDR": format!("100.{}.{}.0/24", 64 + number / 256, number % 256)},
        "status": {"capacity": room, "allocatable": room, "conditions": [
            {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}]},
    }))
}

fn pod(number: usize) -> Pod {
    // Nobody beats for the nodes: after a while they count as gone.
    let tolerations = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
        .map(|key| json!({"key": key, "operator": "Exists"}));
    typed(json!({
        "metadata": {"name": format!("web-{number}"), "labels": {"app": "web"}},
        "spec": {"tolerations": tolerations, "containers": [{"name": "web", "image": "registry.example.com/web:1",
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]},
    }))
}

fn typed<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}
