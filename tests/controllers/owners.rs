//! Objects that say of themselves whose they are. What is in another namespace is nobody's dependent, whatever it says: who may write there
//! may have no say where the owner is.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::cluster::{Cluster, deployment, holds, template};

/// A pod of the other namespace that says it is this one's, kept by a finalizer of its own.
async fn claimed_to_be_of<O>(cluster: &Cluster, owner: &O, name: &str, labels: Value)
where
    O: Resource<DynamicType = ()>,
{
    let reference = json!({"apiVersion": O::api_version(&()), "kind": O::kind(&()), "name": owner.name_any(), "uid": owner.uid(), "controller": true});
    let metadata =
        json!({"name": name, "labels": labels, "finalizers": ["example.com/held"], "ownerReferences": [reference]});
    let pod =
        json!({"metadata": metadata, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "busybox"}]}});
    cluster.create::<Pod>("other", pod).await;
}

async fn names(cluster: &Cluster, app: &str) -> Vec<String> {
    let of_app = ListParams::default().labels(&format!("app={app}"));
    let all = cluster.api::<Pod>("default").list(&of_app).await.unwrap();
    all.iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .map(ResourceExt::name_any)
        .collect()
}

#[tokio::test]
async fn pods_of_another_namespace_are_nobodys_whatever_they_say() {
    let cluster = Cluster::start().await;
    cluster.takes_pods("default").await;
    cluster.node("n").await;
    let new: Namespace = serde_json::from_value(json!({"metadata": {"name": "other"}})).unwrap();
    let namespaces: Api<Namespace> = Api::all(cluster.client("test", &["system:masters"]));
    namespaces.create(&PostParams::default(), &new).await.unwrap();
    cluster.takes_pods("other").await;

    let selected = |app: &str| json!({"selector": {"matchLabels": {"app": app}}, "template": template(app, "run")});
    cluster.create::<Deployment>("default", deployment(2, "1")).await;
    let mut spec = selected("db");
    spec["serviceName"] = json!("db");
    let set: StatefulSet = cluster
        .create("default", json!({"metadata": {"name": "db"}, "spec": spec}))
        .await;
    let daemons: DaemonSet = cluster
        .create(
            "default",
            json!({"metadata": {"name": "agent"}, "spec": selected("agent")}),
        )
        .await;
    let counts = |web: usize| {
        let cluster = &cluster;
        cluster.until("all pods are there", move || async move {
            let found = (
                names(cluster, "web").await,
                names(cluster, "db").await,
                names(cluster, "agent").await,
            );
            holds((found.0.len(), found.1.len(), found.2.len()) == (web, 1, 1), found)
        })
    };
    counts(2).await;

    let sets = cluster
        .api::<ReplicaSet>("default")
        .list(&ListParams::default())
        .await
        .unwrap();
    // Of the name of one of the set's own, and with labels that it does not select: it would be released.
    claimed_to_be_of(
        &cluster,
        &sets.items[0],
        &names(&cluster, "web").await[0],
        json!({"app": "strange"}),
    )
    .await;
    claimed_to_be_of(&cluster, &set, "db-0", json!({"app": "db"})).await;
    claimed_to_be_of(&cluster, &daemons, "agent-x", json!({"app": "agent"})).await;
    for gone in ["db", "agent"] {
        let name = &names(&cluster, gone).await[0];
        cluster
            .api::<Pod>("default")
            .delete(name, &DeleteParams::default().grace_period(0))
            .await
            .unwrap();
    }
    let four = Patch::Merge(json!({"spec": {"replicas": 4}}));
    cluster
        .api::<Deployment>("default")
        .patch("web", &PatchParams::default(), &four)
        .await
        .unwrap();
    counts(4).await;
    cluster.stop().await;
}
