//! Services of type LoadBalancer, without a cloud.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Node, Service};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, deployment, holds};

fn balanced(name: &str, port: u16) -> Value {
    json!({"metadata": {"name": name}, "spec": {"type": "LoadBalancer", "selector": {"app": "web"},
        "ports": [{"port": port, "targetPort": "http"}]}})
}

async fn addresses(cluster: &Cluster, name: &str) -> Vec<String> {
    let service = cluster.api::<Service>("default").get(name).await.unwrap();
    let ingress = service
        .status
        .and_then(|s| s.load_balancer?.ingress)
        .unwrap_or_default();
    assert!(ingress.iter().all(|i| i.ip_mode.as_deref() == Some("VIP")));
    ingress.into_iter().filter_map(|ingress| ingress.ip).collect()
}

async fn reachable_at(cluster: &Cluster, name: &str, expected: &[&str]) {
    cluster
        .until(&format!("{name} is at {expected:?}"), || async {
            let found = addresses(cluster, name).await;
            holds(found == expected, found)
        })
        .await;
}

async fn told(cluster: &Cluster, name: &str, reason: &str, message: &str) {
    let fields = format!("involvedObject.name={name},reason={reason}");
    cluster
        .until(&format!("{name} is told {reason}"), || async {
            let events = cluster.api::<Event>("default");
            let all = events.list(&ListParams::default().fields(&fields)).await.unwrap();
            let all: Vec<_> = all.items.into_iter().filter_map(|event| event.message).collect();
            holds(all.iter().any(|told| told == message), all)
        })
        .await;
}

async fn node(cluster: &Cluster, name: &str, address: &str) {
    cluster.node(name).await;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    let addresses = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
    let how = PatchParams::default();
    nodes.patch_status(name, &how, &Patch::Merge(addresses)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_services_with_one_port_the_first_has_it_until_it_goes() {
    let cluster = Cluster::start().await;
    node(&cluster, "n1", "192.0.2.1").await;
    let mut latent = balanced("latent", 80);
    latent["spec"]["type"] = json!("ClusterIP");
    cluster.create::<Service>("default", latent).await;
    // Times are kept to the second.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    cluster.create::<Service>("default", balanced("older", 80)).await;
    reachable_at(&cluster, "older", &["192.0.2.1"]).await;
    for (reason, message) in [
        ("EnsuringLoadBalancer", "Ensuring load balancer"),
        ("EnsuredLoadBalancer", "Ensured load balancer"),
    ] {
        told(&cluster, "older", reason, message).await;
    }
    cluster.create::<Service>("default", balanced("a-younger", 80)).await;
    let why = "Error syncing load balancer: port 80/TCP is of Service default/older, which has it already";
    told(&cluster, "a-younger", "SyncLoadBalancerFailed", why).await;
    assert!(addresses(&cluster, "a-younger").await.is_empty());
    // What was there before, and wanted nothing, does not take it either.
    let services = cluster.api::<Service>("default");
    let type_ = |type_: &str| Patch::Merge(json!({"spec": {"type": type_}}));
    let how = PatchParams::default();
    services.patch("latent", &how, &type_("LoadBalancer")).await.unwrap();
    told(&cluster, "latent", "SyncLoadBalancerFailed", why).await;
    reachable_at(&cluster, "older", &["192.0.2.1"]).await;
    services.patch("latent", &how, &type_("ClusterIP")).await.unwrap();
    cluster.create::<Service>("default", balanced("agent", 10250)).await;
    let own = "Error syncing load balancer: port 10250/TCP of nodes is the nodes' own";
    told(&cluster, "agent", "SyncLoadBalancerFailed", own).await;

    services.delete("older", &DeleteParams::default()).await.unwrap();
    reachable_at(&cluster, "a-younger", &["192.0.2.1"]).await;
    cluster
        .until("the older is gone", || async {
            let left = services.get_opt("older").await.unwrap();
            holds(left.is_none(), left.map(|service| service.metadata))
        })
        .await;
    told(&cluster, "older", "DeletedLoadBalancer", "Deleted load balancer").await;
    services.patch("a-younger", &how, &type_("ClusterIP")).await.unwrap();
    cluster
        .until("one that is of another type has nothing of it", || async {
            let service = services.get("a-younger").await.unwrap();
            let finalizers = service.metadata.finalizers.unwrap_or_default();
            let ingress = service.status.and_then(|s| s.load_balancer?.ingress);
            holds(finalizers.is_empty() && ingress.is_none(), (finalizers, ingress))
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_come_are_told_and_a_local_service_is_where_its_pods_are() {
    let cluster = Cluster::start().await;
    node(&cluster, "n1", "192.0.2.1").await;
    let mut class = balanced("foreign", 81);
    class["spec"]["loadBalancerClass"] = json!("example.com/lb");
    cluster.create::<Service>("default", class).await;
    cluster.create::<Service>("default", balanced("all", 80)).await;
    let mut local = balanced("local", 443);
    local["spec"]["externalTrafficPolicy"] = json!("Local");
    cluster.create::<Service>("default", local).await;
    reachable_at(&cluster, "all", &["192.0.2.1"]).await;
    told(
        &cluster,
        "local",
        "UnAvailableLoadBalancer",
        "There are no available nodes for LoadBalancer",
    )
    .await;
    let mut web = deployment(1, "1");
    web["spec"]["template"]["spec"]["nodeName"] = json!("n1");
    cluster.create::<Deployment>("default", web).await;
    reachable_at(&cluster, "local", &["192.0.2.1"]).await;
    node(&cluster, "n2", "192.0.2.2").await;
    reachable_at(&cluster, "all", &["192.0.2.1", "192.0.2.2"]).await;
    reachable_at(&cluster, "local", &["192.0.2.1"]).await;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    let out = json!({"metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}}});
    nodes
        .patch("n1", &PatchParams::default(), &Patch::Merge(out))
        .await
        .unwrap();
    reachable_at(&cluster, "all", &["192.0.2.2"]).await;
    reachable_at(&cluster, "local", &[]).await;
    let foreign = cluster.api::<Service>("default").get("foreign").await.unwrap();
    assert_eq!(foreign.metadata.finalizers, None, "of another class");
    assert!(foreign.status.and_then(|s| s.load_balancer?.ingress).is_none());
    cluster.stop().await;
}
