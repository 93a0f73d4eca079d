//! ReplicationControllers keep as many pods as ReplicaSets do, by a plain selector.

use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::cluster::{Cluster, holds, template};

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_controller_makes_adopts_and_releases_pods() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.takes_pods("default").await;
    let mut orphan = template("old", "run");
    orphan["metadata"]["name"] = json!("orphan");
    cluster.create::<Pod>("default", orphan).await;
    // Without a selector it selects what its template is labelled with.
    let set = json!({"metadata": {"name": "old"}, "spec": {"replicas": 3, "template": template("old", "run")}});
    cluster.create::<ReplicationController>("default", set).await;
    let (sets, pods) = (
        cluster.api::<ReplicationController>("default"),
        cluster.api::<Pod>("default"),
    );
    let owned = || async {
        let all = pods.list(&ListParams::default()).await.unwrap().items;
        let of_set = |pod: &Pod| {
            pod.metadata
                .owner_references
                .iter()
                .flatten()
                .any(|o| o.kind == "ReplicationController" && o.api_version == "v1")
        };
        let mut names: Vec<_> = all
            .into_iter()
            .filter(of_set)
            .filter_map(|pod| pod.metadata.name)
            .collect();
        names.sort();
        names
    };
    cluster
        .until("three pods are ready, one of them adopted", || async {
            let status = sets.get("old").await.unwrap().status.unwrap_or_default();
            let names = owned().await;
            let counted = (
                status.replicas,
                status.ready_replicas,
                status.available_replicas,
                status.fully_labeled_replicas,
            );
            let done = counted == (3, Some(3), Some(3), Some(3)) && status.observed_generation == Some(1);
            holds(
                done && names.len() == 3 && names.contains(&"orphan".to_owned()),
                (status, names),
            )
        })
        .await;
    let relabel = json!({"metadata": {"labels": {"app": "free"}}});
    pods.patch("orphan", &PatchParams::default(), &Patch::Merge(relabel))
        .await
        .unwrap();
    cluster
        .until("it is let go, and another one made", || async {
            let names = owned().await;
            holds(names.len() == 3 && !names.contains(&"orphan".to_owned()), names)
        })
        .await;
    let fewer = json!({"spec": {"replicas": 1}});
    sets.patch_scale("old", &PatchParams::default(), &Patch::Merge(fewer))
        .await
        .unwrap();
    cluster
        .until("one is left", || async {
            let names = owned().await;
            let status = sets.get("old").await.unwrap().status.unwrap_or_default();
            holds(names.len() == 1 && status.replicas == 1, (status, names))
        })
        .await;
    cluster.stop().await;
}
