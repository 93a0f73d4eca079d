//! Nodes: room on them, taints, and what becomes of one that dies.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::cluster::{Cluster, deployment, holds};

#[tokio::test(flavor = "multi_thread")]
async fn pods_wait_for_room_and_leave_tainted_nodes() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    let pod = |name: &str, cpu: &str| {
        json!({"metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "image": "busybox", "resources": {"requests": {"cpu": cpu}}}]}})
    };
    cluster.takes_pods("default").await;
    cluster.create::<Pod>("default", pod("first", "3")).await;
    cluster.create::<Pod>("default", pod("second", "3")).await;
    let pods = cluster.api::<Pod>("default");
    cluster
        .until("one of them waits, and says why", || async {
            let all = pods.list(&ListParams::default()).await.unwrap();
            let messages: Vec<_> = all
                .iter()
                .flat_map(|p| p.status.iter().flat_map(|s| s.conditions.iter().flatten()))
                .filter(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("Unschedulable"))
                .filter_map(|c| c.message.clone())
                .collect();
            holds(
                messages.len() == 1 && messages[0].starts_with("0/1 nodes are available: 1 Insufficient cpu."),
                messages,
            )
        })
        .await;
    cluster.node("n2").await;
    cluster
        .until("a new node takes it", || async {
            let all = pods.list(&ListParams::default()).await.unwrap();
            let bound: std::collections::BTreeSet<_> =
                all.iter().filter_map(|p| p.spec.as_ref()?.node_name.clone()).collect();
            holds(bound.len() == 2, bound)
        })
        .await;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    let taint = json!({"spec": {"taints": [{"key": "example.com/out", "effect": "NoExecute"}]}});
    nodes
        .patch("n2", &PatchParams::default(), &Patch::Strategic(taint))
        .await
        .unwrap();
    cluster
        .until("the pod on the tainted node is evicted", || async {
            let left = pods.list(&ListParams::default()).await.unwrap();
            let on: Vec<_> = left.iter().filter_map(|p| p.spec.as_ref()?.node_name.clone()).collect();
            holds(on == ["n1"], on)
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_dies_loses_its_endpoints_then_its_pods() {
    let settings = mk8s_controllers::context::Settings {
        node_grace_period: std::time::Duration::from_millis(1500),
        ..Default::default()
    };
    let cluster = Cluster::start_with(settings).await;
    let (_alive, dying) = (cluster.beat("n1"), cluster.beat("n2"));
    cluster.node("n1").await;
    cluster.node("n2").await;
    let mut web = deployment(2, "1");
    web["spec"]["template"]["spec"]["tolerations"] = json!([
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2}]);
    cluster.create::<Deployment>("default", web).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}});
    cluster.create::<Service>("default", service).await;
    let slices = cluster.api::<EndpointSlice>("default");
    let ready = || async {
        let all = slices
            .list(&ListParams::default().labels("kubernetes.io/service-name=web"))
            .await
            .unwrap();
        let endpoints = all.iter().flat_map(|s| s.endpoints.iter());
        let ready = endpoints.filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true));
        let mut nodes: Vec<_> = ready.filter_map(|e| e.node_name.clone()).collect();
        nodes.sort();
        nodes
    };
    cluster
        .until("an endpoint is on each node", || async {
            let found = ready().await;
            holds(found == ["n1", "n2"], found)
        })
        .await;
    dying.cancel();
    cluster
        .until("the dead node's endpoint leaves the service", || async {
            let found = ready().await;
            holds(found == ["n1"], found)
        })
        .await;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    cluster
        .until("the node is Unknown and tainted", || async {
            let node = nodes.get("n2").await.unwrap();
            let taints: Vec<_> = node
                .spec
                .iter()
                .flat_map(|s| s.taints.iter().flatten())
                .map(|t| (t.key.clone(), t.effect.clone()))
                .collect();
            let effects = ["NoSchedule", "NoExecute"];
            let all = effects
                .iter()
                .all(|e| taints.contains(&("node.kubernetes.io/unreachable".to_owned(), (*e).to_owned())));
            holds(all, taints)
        })
        .await;
    cluster
        .until("its pod is replaced on the other", || async {
            let found = ready().await;
            holds(found == ["n1", "n1"], found)
        })
        .await;
    let _again = cluster.beat("n2");
    let posted = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2024-02-01T00:00:00Z"}]}});
    nodes
        .patch_status("n2", &PatchParams::default(), &Patch::Strategic(posted))
        .await
        .unwrap();
    cluster
        .until("a node that is back has no taint", || async {
            let taints = nodes.get("n2").await.unwrap().spec.and_then(|s| s.taints);
            holds(taints.as_ref().is_none_or(Vec::is_empty), taints)
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_node_that_is_out_of_service_go_without_it() {
    let settings = mk8s_controllers::context::Settings {
        node_grace_period: std::time::Duration::from_millis(500),
        ..Default::default()
    };
    let cluster = Cluster::start_with(settings).await;
    cluster.takes_pods("default").await;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    // Nobody runs this one's pods, and nobody ends them.
    let node = json!({"metadata": {"name": "off"}});
    nodes
        .create(&Default::default(), &serde_json::from_value(node).unwrap())
        .await
        .unwrap();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "off", "containers": [{"name": "c", "image": "busybox"}],
        "tolerations": [{"operator": "Exists"}]}});
    cluster.create::<Pod>("default", pod).await;
    let pods = cluster.api::<Pod>("default");
    pods.delete("p", &Default::default()).await.unwrap();
    cluster
        .until("the node is said not to answer", || async {
            let conditions = nodes.get("off").await.unwrap().status.and_then(|s| s.conditions);
            holds(
                conditions
                    .iter()
                    .flatten()
                    .any(|c| c.type_ == "Ready" && c.status == "Unknown"),
                conditions,
            )
        })
        .await;
    assert!(pods.get_opt("p").await.unwrap().is_some(), "it waits for its node");
    let taint = json!({"spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}});
    nodes
        .patch("off", &PatchParams::default(), &Patch::Strategic(taint))
        .await
        .unwrap();
    cluster
        .until("the pod is gone", || async {
            let left = pods.get_opt("p").await.unwrap();
            holds(left.is_none(), left)
        })
        .await;
    cluster.stop().await;
}
