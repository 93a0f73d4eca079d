//! Budgets count what the owners of their pods ask for, whatever kind those are, and say why where nobody knows.

use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, holds, template};

async fn sized(cluster: &Cluster) -> Value {
    let definition = json!({"metadata": {"name": "racks.test.io"}, "spec": {"group": "test.io", "scope": "Namespaced",
        "names": {"kind": "Rack", "plural": "racks"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "subresources": {"scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"size": {"type": "integer"}}},
                "status": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}}]}});
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.admin.clone());
    let definition = serde_json::from_value(definition).unwrap();
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    let kind = ApiResource {
        group: "test.io".into(),
        version: "v1".into(),
        api_version: "test.io/v1".into(),
        kind: "Rack".into(),
        plural: "racks".into(),
    };
    let racks: Api<DynamicObject> = Api::namespaced_with(cluster.admin.clone(), "default", &kind);
    let rack: DynamicObject = serde_json::from_value(
        json!({"apiVersion": "test.io/v1", "kind": "Rack", "metadata": {"name": "r"}, "spec": {"size": 4}}),
    )
    .unwrap();
    cluster
        .until("the kind is served", || async {
            let made = racks.create(&PostParams::default(), &rack).await;
            holds(made.is_ok(), made.err())
        })
        .await;
    let made = racks.get("r").await.unwrap();
    json!({"apiVersion": "test.io/v1", "kind": "Rack", "name": "r", "uid": made.metadata.uid, "controller": true})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_counts_by_the_scale_of_whatever_owns_its_pods() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.takes_pods("default").await;
    let rack = sized(&cluster).await;
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "none", "controller": true});
    for (name, owner) in [("racked", Some(&rack)), ("jobs", Some(&job)), ("free", None)] {
        let mut pod = template(name, "run");
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["ownerReferences"] = json!(owner.into_iter().collect::<Vec<_>>());
        // Nobody may take a pod whose owner is not there for garbage.
        pod["metadata"]["finalizers"] = json!(["test.io/stays"]);
        cluster.create::<Pod>("default", pod).await;
        let budget = json!({"metadata": {"name": name}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": name}}}});
        cluster.create::<PodDisruptionBudget>("default", budget).await;
    }
    let budgets = cluster.api::<PodDisruptionBudget>("default");
    let said = |found: &PodDisruptionBudget| {
        let status = found.status.clone().unwrap_or_default();
        let condition = status.conditions.unwrap_or_default().into_iter().next();
        let condition = condition.map(|c| (c.reason, c.message)).unwrap_or_default();
        (status.expected_pods, status.desired_healthy, condition.0, condition.1)
    };
    cluster
        .until("the rack's size counts", || async {
            let found = said(&budgets.get("racked").await.unwrap());
            holds(found == (4, 3, "InsufficientPods".into(), String::new()), found)
        })
        .await;
    cluster
        .until("a kind without a scale is named", || async {
            let found = said(&budgets.get("jobs").await.unwrap());
            let why = "jobs.batch does not implement the scale subresource";
            holds(found == (0, 0, "SyncFailed".into(), why.into()), found)
        })
        .await;
    cluster
        .until("of pods without an owner an Event tells", || async {
            let found = said(&budgets.get("free").await.unwrap());
            let unmanaged = ListParams::default().fields("reason=UnmanagedPods");
            let events = cluster.api::<Event>("default").list(&unmanaged).await.unwrap().items;
            let told = events.iter().any(|e| e.involved_object.name.as_deref() == Some("free")
                && e.message.as_deref().unwrap_or_default().starts_with("Pods selected by this PodDisruptionBudget (selector: &LabelSelector{MatchLabels:map[string]string{app: free,},"));
            holds(found.0 == 0 && told, (found, events.len()))
        })
        .await;
    cluster.stop().await;
}
