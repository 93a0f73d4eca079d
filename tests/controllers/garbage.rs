//! What goes with its owner, what stays, and who counts as one.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams};
use serde_json::json;

use crate::cluster::{Cluster, holds, template};

#[tokio::test(flavor = "multi_thread")]
async fn orphaned_pods_stay_and_are_adopted_again() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    let set = json!({"metadata": {"name": "s"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "s"}}, "template": template("s", "run")}});
    let made: ReplicaSet = cluster.create("default", set.clone()).await;
    let (sets, pods) = (cluster.api::<ReplicaSet>("default"), cluster.api::<Pod>("default"));
    let owners = || async {
        let all = pods.list(&ListParams::default().labels("app=s")).await.unwrap();
        all.iter()
            .map(|p| {
                p.metadata
                    .owner_references
                    .iter()
                    .flatten()
                    .map(|o| o.uid.clone())
                    .next()
            })
            .collect::<Vec<_>>()
    };
    cluster
        .until("two pods are there", || async {
            let found = owners().await;
            holds(found == [made.metadata.uid.clone(), made.metadata.uid.clone()], found)
        })
        .await;
    let orphan = DeleteParams {
        propagation_policy: Some(kube::api::PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    sets.delete("s", &orphan).await.unwrap();
    cluster
        .until("the set is gone, the pods belong to nobody", || async {
            let (set, found) = (sets.get_opt("s").await.unwrap(), owners().await);
            holds(set.is_none() && found == [None, None], (set.is_some(), found))
        })
        .await;
    let again: ReplicaSet = cluster.create("default", set).await;
    cluster
        .until("a new set takes them", || async {
            let found = owners().await;
            holds(found == [again.metadata.uid.clone(), again.metadata.uid.clone()], found)
        })
        .await;
    sets.delete("s", &DeleteParams::background()).await.unwrap();
    cluster
        .until("they go with it", || async {
            let found = owners().await;
            holds(found.is_empty(), found)
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_in_another_namespace_owns_nothing() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.admin.clone());
    let new: Namespace = serde_json::from_value(json!({"metadata": {"name": "far"}})).unwrap();
    namespaces.create(&PostParams::default(), &new).await.unwrap();
    let named = |name: &str| json!({"metadata": {"name": name}});
    let far = cluster.create::<ConfigMap>("far", named("owner")).await;
    let near = cluster.create::<ConfigMap>("default", named("owner")).await;
    let reference = |owner: &ConfigMap| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid});
    let owned =
        |name: &str, owners: Vec<serde_json::Value>| json!({"metadata": {"name": name, "ownerReferences": owners}});
    cluster
        .create::<ConfigMap>("default", owned("stray", vec![reference(&far)]))
        .await;
    cluster
        .create::<ConfigMap>("default", owned("kept", vec![reference(&far), reference(&near)]))
        .await;
    let roles: Api<ClusterRole> = Api::all(cluster.admin.clone());
    let role: ClusterRole = serde_json::from_value(owned("wide", vec![reference(&far)])).unwrap();
    roles.create(&PostParams::default(), &role).await.unwrap();

    let maps = cluster.api::<ConfigMap>("default");
    cluster
        .until("what has no other owner goes", || async {
            let found = maps.get_opt("stray").await.unwrap();
            holds(found.is_none(), found)
        })
        .await;
    cluster
        .until("what has one stays, and names it alone", || async {
            let owners = maps.get("kept").await.unwrap().metadata.owner_references;
            let uids: Vec<_> = owners.iter().flatten().map(|o| Some(o.uid.clone())).collect();
            holds(uids == [near.metadata.uid.clone()], uids)
        })
        .await;
    cluster
        .until("each of them is told of it, the cluster-scoped one too", || async {
            let events = cluster.api::<Event>("default").list(&ListParams::default()).await;
            let told = events.unwrap().items.into_iter();
            let told = told.filter(|e| e.reason.as_deref() == Some("OwnerRefInvalidNamespace"));
            let of: std::collections::BTreeSet<_> = told.filter_map(|e| e.involved_object.name).collect();
            holds(of.iter().eq(["kept", "stray", "wide"]), of)
        })
        .await;
    assert!(
        roles.get_opt("wide").await.unwrap().is_some(),
        "what can't be looked up is not deleted"
    );
    cluster.stop().await;
}

/// The kind is found in the version that is preferred, and its objects are told of as they are stored.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_of_a_custom_kind_whose_newest_version_is_not_the_stored_one_goes_in_foreground() {
    let cluster = Cluster::start().await;
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object"}}});
    let definition: CustomResourceDefinition = serde_json::from_value(json!({
        "metadata": {"name": "cars.example.org"},
        "spec": {"group": "example.org", "scope": "Namespaced", "names": {"plural": "cars", "kind": "Car"},
            "versions": [version("v1", true), version("v2", false)]}}))
    .unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.admin.clone());
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.org", "v2", "Car"), "cars");
    let cars: Api<DynamicObject> = Api::default_namespaced_with(cluster.admin.clone(), &kind);
    cluster
        .until("cars are served", || async {
            let listed = cars.list(&ListParams::default()).await;
            holds(listed.is_ok(), listed.err())
        })
        .await;
    let owner = cars
        .create(&PostParams::default(), &DynamicObject::new("o", &kind))
        .await
        .unwrap();
    let reference = json!({"apiVersion": "example.org/v2", "kind": "Car", "name": "o", "uid": owner.metadata.uid,
        "blockOwnerDeletion": true});
    let owned = json!({"metadata": {"name": "d", "ownerReferences": [reference]}});
    cluster.create::<ConfigMap>("default", owned).await;
    cars.delete("o", &DeleteParams::foreground()).await.unwrap();
    let maps = cluster.api::<ConfigMap>("default");
    cluster
        .until("both are gone", || async {
            let (car, map) = (cars.get_opt("o").await.unwrap(), maps.get_opt("d").await.unwrap());
            holds(car.is_none() && map.is_none(), (car.is_some(), map.is_some()))
        })
        .await;
    cluster.stop().await;
}
