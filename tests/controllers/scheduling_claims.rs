//! Pods go where the devices are that they claim, and wait where there are none left.

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, holds};

const DRIVER: &str = "gpu.example.com";

async fn create_global<K>(cluster: &Cluster, object: Value)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let object: K = serde_json::from_value(object).unwrap();
    let api: Api<K> = Api::all(cluster.admin.clone());
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// A node with one device, which its driver publishes.
async fn node(cluster: &Cluster, name: &str) {
    let node: Node = cluster.node(name).await;
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.metadata.uid}]);
    let device = json!({"name": format!("gpu-{name}"), "attributes": {"memory": {"int": 40}}});
    let pool = json!({"name": name, "generation": 1, "resourceSliceCount": 1});
    let spec = json!({"driver": DRIVER, "nodeName": name, "pool": pool, "devices": [device]});
    create_global::<ResourceSlice>(
        cluster,
        json!({"metadata": {"name": name, "ownerReferences": owner}, "spec": spec}),
    )
    .await;
}

/// The class of the devices, and a template that claims one of them.
async fn template(cluster: &Cluster) {
    let of_driver = json!({"cel": {"expression": format!("device.driver == \"{DRIVER}\"")}});
    let class = json!({"metadata": {"name": "gpu"}, "spec": {"selectors": [of_driver]}});
    create_global::<DeviceClass>(cluster, class).await;
    let large = json!({"cel": {"expression": format!("device.attributes[\"{DRIVER}\"].memory >= 32")}});
    let request = json!({"name": "r", "exactly": {"deviceClassName": "gpu", "selectors": [large]}});
    let spec = json!({"spec": {"devices": {"requests": [request]}}});
    cluster
        .create::<ResourceClaimTemplate>("default", json!({"metadata": {"name": "t"}, "spec": spec}))
        .await;
}

fn pod(name: &str) -> Value {
    let claims = json!([{"name": "gpu", "resourceClaimTemplateName": "t"}]);
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], "resourceClaims": claims}})
}

/// The device that a pod's claim has, on which node, if the pod is bound there and holds the claim.
async fn device_of(cluster: &Cluster, name: &str) -> Option<(String, String)> {
    let pod = cluster.api::<Pod>("default").get(name).await.unwrap();
    let node = pod.spec?.node_name?;
    let made = pod.status?.resource_claim_statuses?.remove(0).resource_claim_name?;
    let claim = cluster.api::<ResourceClaim>("default").get(&made).await.unwrap();
    let protected = claim.metadata.finalizers?;
    assert_eq!(protected, ["resource.kubernetes.io/delete-protection"]);
    let status = claim.status?;
    let holders = status.reserved_for?;
    assert_eq!((holders.len(), &*holders[0].name), (1, name));
    let allocation = status.allocation?;
    let results = allocation.devices?.results?;
    assert_eq!(results.len(), 1);
    let terms = allocation.node_selector?.node_selector_terms;
    let nodes = terms[0].match_fields.as_ref()?[0].values.clone()?;
    assert_eq!((&nodes, &results[0].pool), (&vec![node.clone()], &node));
    Some((node, results[0].device.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_get_the_devices_that_they_claim_and_wait_for_what_others_have() {
    let cluster = Cluster::start().await;
    cluster.takes_pods("default").await;
    for name in ["n1", "n2"] {
        node(&cluster, name).await;
    }
    template(&cluster).await;
    let pods = cluster.api::<Pod>("default");
    for name in ["first", "second"] {
        cluster.create::<Pod>("default", pod(name)).await;
        let bound = || async { holds(device_of(&cluster, name).await.is_some(), pods.get(name).await) };
        cluster.until("the pod has its device", bound).await;
    }
    let mut given = [device_of(&cluster, "first").await, device_of(&cluster, "second").await].map(Option::unwrap);
    given.sort();
    let expected = [("n1", "gpu-n1"), ("n2", "gpu-n2")].map(|(node, device)| (node.to_owned(), device.to_owned()));
    assert_eq!(given, expected);

    cluster.create::<Pod>("default", pod("third")).await;
    let why = "0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, \
               preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    let waits = || async {
        let pod = pods.get("third").await.unwrap();
        let conditions = pod
            .status
            .clone()
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        let said = conditions.iter().any(|own| own.message.as_deref() == Some(why));
        holds(said, conditions)
    };
    cluster.until("the third is told why it waits", waits).await;
    let free = device_of(&cluster, "first").await;
    pods.delete("first", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    let bound = || async {
        let has = device_of(&cluster, "third").await;
        holds(has.is_some() && has == free, pods.get("third").await)
    };
    cluster.until("the third has what the first gave back", bound).await;
    cluster.stop().await;
}
