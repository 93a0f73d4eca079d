//! Endpoints that people make, and where traffic for others should come from.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Endpoints, Event, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::cluster::{Cluster, deployment, holds};

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

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_shared_out_among_zones_when_asked() {
    let cluster = Cluster::start().await;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    let how = PatchParams::default();
    for (node, zone) in [("n1", "a"), ("n2", "b")] {
        cluster.node(node).await;
        let zone = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}});
        nodes.patch(node, &how, &Patch::Merge(zone)).await.unwrap();
    }
    let mut web = deployment(4, "1");
    web["spec"]["template"]["spec"]["nodeName"] = json!("n1");
    cluster.create::<Deployment>("default", web).await;
    let service = json!({
        "metadata": {"name": "web", "annotations": {"service.kubernetes.io/topology-mode": "Auto"}},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
    });
    cluster.create::<Service>("default", service).await;
    let slices = cluster.api::<EndpointSlice>("default");
    let found = || async {
        let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
        slices.list(&of_web).await.unwrap().items
    };
    let hints = || async {
        let slices = found().await;
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let zones = endpoints.flat_map(|e| e.hints.iter().flat_map(|h| h.for_zones.iter().flatten()));
        let mut zones: Vec<_> = zones.map(|zone| zone.name.clone()).collect();
        zones.sort();
        zones
    };
    cluster
        .until("half of the endpoints are for each zone", || async {
            let found = hints().await;
            holds(found == ["a", "a", "b", "b"], found)
        })
        .await;
    let triggered = |slice: &EndpointSlice| {
        let annotations = slice.metadata.annotations.as_ref();
        annotations.is_some_and(|all| all.contains_key("endpoints.kubernetes.io/last-change-trigger-time"))
    };
    assert!(found().await.iter().all(triggered));
    let endpoints = cluster
        .api::<Endpoints>("default")
        .get("web")
        .await
        .unwrap()
        .metadata
        .annotations;
    assert!(
        endpoints
            .unwrap()
            .contains_key("endpoints.kubernetes.io/last-change-trigger-time")
    );
    let told = |reason: &'static str| {
        let events = cluster.api::<Event>("default");
        async move {
            let fields = format!("involvedObject.name=web,reason={reason}");
            let events = events.list(&ListParams::default().fields(&fields)).await.unwrap();
            events
                .items
                .into_iter()
                .filter_map(|event| event.message)
                .collect::<Vec<_>>()
        }
    };
    cluster
        .until("that is told", || async {
            let found = told("TopologyAwareHintsEnabled").await;
            holds(
                found == ["Topology Aware Hints has been enabled, addressType: IPv4"],
                found,
            )
        })
        .await;
    // One zone is left: nothing can be shared out.
    let zone = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "a"}}});
    nodes.patch("n2", &how, &Patch::Merge(zone)).await.unwrap();
    cluster
        .until("the hints are taken back", || async {
            let found = hints().await;
            holds(found.is_empty(), found)
        })
        .await;
    cluster
        .until("that is told, too", || async {
            let why = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes, addressType: IPv4";
            let found = told("TopologyAwareHintsDisabled").await;
            holds(found.iter().any(|told| told == why), found)
        })
        .await;
    let prefer = json!({"metadata": {"annotations": null}, "spec": {"trafficDistribution": "PreferSameZone"}});
    cluster
        .api::<Service>("default")
        .patch("web", &how, &Patch::Merge(prefer))
        .await
        .unwrap();
    cluster
        .until("each endpoint is for its own zone", || async {
            let found = hints().await;
            holds(found == ["a"; 4], found)
        })
        .await;
    cluster.stop().await;
}
