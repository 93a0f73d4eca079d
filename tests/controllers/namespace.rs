//! A namespace goes with all that is in it.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use serde_json::json;

use crate::cluster::{Cluster, deployment, holds};

#[tokio::test(flavor = "multi_thread")]
async fn namespace_goes_with_all_that_is_in_it() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    let namespaces: Api<Namespace> = Api::all(cluster.admin.clone());
    let new: Namespace = serde_json::from_value(json!({"metadata": {"name": "ns"}})).unwrap();
    namespaces.create(&PostParams::default(), &new).await.unwrap();
    cluster.takes_pods("ns").await;
    cluster.create::<Deployment>("ns", deployment(2, "1")).await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
    cluster.create::<ConfigMap>("ns", held).await;
    cluster
        .until("its pods run", || async {
            let pods = cluster.api::<Pod>("ns").list(&ListParams::default()).await.unwrap();
            let running = pods
                .iter()
                .filter(|p| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running"))
                .count();
            holds(running == 2, running)
        })
        .await;
    namespaces.delete("ns", &DeleteParams::default()).await.unwrap();
    cluster
        .until(
            "only what a finalizer holds is left, and the namespace says so",
            || async {
                let found = namespaces.get("ns").await.unwrap();
                let conditions = found.status.clone().unwrap_or_default().conditions.unwrap_or_default();
                let said = conditions.iter().any(|c| {
                    c.type_ == "NamespaceFinalizersRemaining"
                        && c.message
                            .as_deref()
                            .is_some_and(|m| m.contains("example.com/hold in 1"))
                });
                let pods = cluster
                    .api::<Pod>("ns")
                    .list(&ListParams::default())
                    .await
                    .unwrap()
                    .items
                    .len();
                holds(said && pods == 0, conditions)
            },
        )
        .await;
    let free = json!({"metadata": {"finalizers": null}});
    cluster
        .api::<ConfigMap>("ns")
        .patch("held", &PatchParams::default(), &Patch::Merge(free))
        .await
        .unwrap();
    cluster
        .until("then it is gone", || async {
            let found = namespaces.get_opt("ns").await.unwrap();
            holds(found.is_none(), found)
        })
        .await;
    cluster.stop().await;
}

/// Nobody has heard of the kind when the namespace ends.
#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_kind_that_was_just_defined_go_with_their_namespace() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.admin.clone());
    for name in ["before", "ns"] {
        let new: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        namespaces.create(&PostParams::default(), &new).await.unwrap();
    }
    let goes = |name: &'static str| {
        cluster.until("the namespace is gone", || async {
            let found = namespaces.get_opt(name).await.unwrap();
            holds(found.is_none(), found)
        })
    };
    // By then the controller knows which kinds there were.
    namespaces.delete("before", &DeleteParams::default()).await.unwrap();
    goes("before").await;
    let version =
        json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}});
    let definition: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": {"name": "cars.example.org"},
        "spec": {"group": "example.org", "scope": "Namespaced", "names": {"plural": "cars", "kind": "Car"},
            "versions": [version]}}))
    .unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.admin.clone());
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.org", "v1", "Car"), "cars");
    let cars: Api<DynamicObject> = Api::namespaced_with(cluster.admin.clone(), "ns", &kind);
    let made = async {
        let car = DynamicObject::new("c", &kind);
        while cars.create(&PostParams::default(), &car).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), made).await.unwrap();
    namespaces.delete("ns", &DeleteParams::default()).await.unwrap();
    goes("ns").await;
    let left = cars.list(&ListParams::default()).await.unwrap().items;
    assert!(left.is_empty(), "{left:?}");
    cluster.stop().await;
}
