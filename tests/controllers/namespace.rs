//! A namespace goes with all that is in it.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
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
