//! Endpoints that people make.

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::cluster::{Cluster, holds};

#[tokio::test(flavor = "multi_thread")]
async fn hand_made_endpoints_are_mirrored() {
    let cluster = Cluster::start().await;
    let service = json!({"metadata": {"name": "db"}, "spec": {"ports": [{"port": 5432}]}});
    cluster.create::<Service>("default", service).await;
    let endpoints =
        json!({"metadata": {"name": "db"}, "subsets": [{"addresses": [{"ip": "1.2.3.4"}], "ports": [{"port": 5432}]}]});
    cluster.create::<Endpoints>("default", endpoints).await;
    let slices = cluster.api::<EndpointSlice>("default");
    let found = || async {
        let all = slices
            .list(&ListParams::default().labels("kubernetes.io/service-name=db"))
            .await
            .unwrap();
        all.iter()
            .flat_map(|s| s.endpoints.iter().flat_map(|e| e.addresses.clone()))
            .collect::<Vec<_>>()
    };
    cluster
        .until("a slice has the address", || async {
            let found = found().await;
            holds(found == ["1.2.3.4"], found)
        })
        .await;
    let kubernetes = slices
        .list(&ListParams::default().labels("kubernetes.io/service-name=kubernetes"))
        .await
        .unwrap();
    assert_eq!(
        kubernetes.items.len(),
        1,
        "the API server's own endpoints are not mirrored"
    );
    cluster
        .api::<Endpoints>("default")
        .delete("db", &DeleteParams::default())
        .await
        .unwrap();
    cluster
        .until("it goes with the Endpoints", || async {
            let found = found().await;
            holds(found.is_empty(), found)
        })
        .await;
    cluster.stop().await;
}
