//! Deployments: their sets of replicas, and what a rollout does to Services, budgets and events.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Event, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::cluster::{Cluster, deployment, holds, template};

#[tokio::test(flavor = "multi_thread")]
async fn deployment_behind_a_service_rolls_out_scales_and_goes() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.node("n2").await;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    cluster
        .until("each node has its share of the pod network", || async {
            let all = nodes.list(&ListParams::default()).await.unwrap();
            let shares: Vec<_> = all.iter().filter_map(|n| n.spec.as_ref()?.pod_cidr.clone()).collect();
            holds(shares.len() == 2 && shares[0] != shares[1], shares)
        })
        .await;
    cluster
        .until("namespace default has its service account and CA", || async {
            let account = cluster
                .api::<ServiceAccount>("default")
                .get_opt("default")
                .await
                .unwrap();
            let ca = cluster
                .api::<ConfigMap>("default")
                .get_opt("kube-root-ca.crt")
                .await
                .unwrap();
            holds(account.is_some() && ca.is_some(), (account.is_some(), ca.is_some()))
        })
        .await;

    cluster.create::<Deployment>("default", deployment(3, "1")).await;
    cluster
        .create::<Service>(
            "default",
            json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}}),
        )
        .await;
    let deployments = cluster.api::<Deployment>("default");
    let available = |n: i32| {
        let deployments = deployments.clone();
        move || {
            let deployments = deployments.clone();
            async move {
                let d = deployments.get("web").await.unwrap();
                let status = d.status.clone().unwrap_or_default();
                let settled =
                    status.observed_generation == d.metadata.generation && status.unavailable_replicas.is_none();
                let done = status.available_replicas == Some(n)
                    && status.updated_replicas == Some(n)
                    && status.replicas == Some(n);
                holds(settled && done, status)
            }
        }
    };
    cluster.until("three pods are available", available(3)).await;
    // What its controller writes of it is no change of what is wanted.
    let generation = async || deployments.get("web").await.unwrap().metadata.generation;
    assert_eq!(generation().await, Some(1));
    let slices = cluster.api::<EndpointSlice>("default");
    let web = ListParams::default().labels("kubernetes.io/service-name=web");
    cluster
        .until("the service has three endpoints", || async {
            let all = slices.list(&web).await.unwrap();
            let ready: Vec<_> = all
                .iter()
                .flat_map(|s| s.endpoints.iter().map(|e| (e.conditions.clone(), s.ports.clone())))
                .collect();
            let ports: Vec<_> = all
                .iter()
                .flat_map(|s| s.ports.iter().flatten().map(|p| p.port))
                .collect();
            holds(ready.len() == 3 && ports == [Some(8080)], ready)
        })
        .await;
    cluster
        .until("so has its Endpoints object", || async {
            let found = cluster.api::<Endpoints>("default").get_opt("web").await.unwrap();
            let count = found
                .iter()
                .flat_map(|e| e.subsets.iter().flatten())
                .flat_map(|s| s.addresses.iter().flatten())
                .count();
            holds(count == 3, found)
        })
        .await;
    let pods = cluster.api::<Pod>("default");
    let spread: std::collections::BTreeSet<_> = pods
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .filter_map(|p| p.spec.as_ref()?.node_name.clone())
        .collect();
    assert_eq!(spread.len(), 2, "pods are spread over both nodes");

    let patch = json!({"spec": {"replicas": 5, "template": {"metadata": {"labels": {"version": "2"}}}}});
    deployments
        .patch("web", &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .unwrap();
    cluster.until("five new pods are available", available(5)).await;
    assert_eq!(generation().await, Some(2));
    let sets = cluster.api::<ReplicaSet>("default");
    cluster
        .until("the old set is empty and kept", || async {
            let all = sets.list(&ListParams::default()).await.unwrap();
            let mut sizes: Vec<_> = all
                .iter()
                .map(|s| s.status.as_ref().map_or(-1, |s| s.replicas))
                .collect();
            sizes.sort_unstable();
            holds(sizes == [0, 5], sizes)
        })
        .await;
    let revision = deployments
        .get("web")
        .await
        .unwrap()
        .metadata
        .annotations
        .unwrap_or_default();
    assert_eq!(
        revision.get("deployment.kubernetes.io/revision").map(String::as_str),
        Some("2")
    );

    cluster
        .create::<PodDisruptionBudget>(
            "default",
            json!({"metadata": {"name": "web"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
        )
        .await;
    cluster
        .until("the budget allows one disruption", || async {
            let budget = cluster.api::<PodDisruptionBudget>("default").get("web").await.unwrap();
            let status = budget.status.unwrap_or_default();
            holds(status.disruptions_allowed == 1 && status.expected_pods == 5, status)
        })
        .await;

    let events = cluster.api::<Event>("default");
    cluster
        .until("what happened was told", || async {
            let all = events.list(&ListParams::default()).await.unwrap();
            let reasons: std::collections::BTreeSet<_> = all.iter().filter_map(|e| e.reason.clone()).collect();
            let wanted = ["Scheduled", "ScalingReplicaSet", "SuccessfulCreate", "SuccessfulDelete"];
            // The scheduler's are timed, of an action, and without a count; the controllers' are counted.
            let right = all.iter().all(|event| {
                let timed = event.event_time.is_some() && event.action.as_deref() == Some("Binding");
                let scheduler = event.reporting_component.as_deref() == Some("default-scheduler");
                scheduler == (event.reason.as_deref() == Some("Scheduled"))
                    && timed == scheduler
                    && event.count.is_none_or(|count| count == 0) == scheduler
            });
            holds(
                right && wanted.iter().all(|r| reasons.contains(*r)),
                (reasons, all.items.clone()),
            )
        })
        .await;

    deployments.delete("web", &DeleteParams::foreground()).await.unwrap();
    cluster
        .until("sets, pods and then the deployment are gone", || async {
            let deployment = deployments.get_opt("web").await.unwrap();
            let left = pods.list(&ListParams::default()).await.unwrap().items.len();
            let sets = sets.list(&ListParams::default()).await.unwrap().items.len();
            holds(
                deployment.is_none() && left == 0 && sets == 0,
                (deployment.is_some(), left, sets),
            )
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recreating_deployment_ends_the_old_pods_first_and_can_go_back() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    let mut recreate = deployment(2, "1");
    recreate["spec"]["strategy"] = json!({"type": "Recreate"});
    cluster.create::<Deployment>("default", recreate).await;
    let (deployments, pods) = (cluster.api::<Deployment>("default"), cluster.api::<Pod>("default"));
    let versions = || async {
        let all = pods.list(&ListParams::default()).await.unwrap();
        let version = |p: &Pod| {
            p.metadata
                .labels
                .as_ref()
                .and_then(|l| l.get("version").cloned())
                .unwrap_or_default()
        };
        all.iter().map(version).collect::<Vec<_>>()
    };
    cluster
        .until("the first pods are there", || async {
            let found = versions().await;
            holds(found == ["1", "1"], found)
        })
        .await;
    let to = |version: &str| json!({"spec": {"template": {"metadata": {"labels": {"version": version}}}}});
    let history = || async {
        let d = deployments.get("web").await.unwrap();
        let revision = d
            .metadata
            .annotations
            .unwrap_or_default()
            .remove("deployment.kubernetes.io/revision");
        let available = d.status.unwrap_or_default().available_replicas;
        (revision.unwrap_or_default(), available)
    };
    for (version, revision) in [("2", "2"), ("1", "3")] {
        deployments
            .patch("web", &PatchParams::default(), &Patch::Strategic(to(version)))
            .await
            .unwrap();
        cluster
            .until("the next pods follow the last ones", || async {
                let found = versions().await;
                assert!(found.iter().all(|v| *v == found[0]), "never both at once: {found:?}");
                let known = history().await;
                holds(
                    found == [version, version] && known == (revision.to_owned(), Some(2)),
                    (found, known),
                )
            })
            .await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_becomes_a_recreation_of_another_size_goes_on() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.create::<Deployment>("default", deployment(4, "1")).await;
    let deployments = cluster.api::<Deployment>("default");
    let until = async |what: &str, (replicas, updated, available): (i32, i32, i32)| {
        cluster
            .until(what, || async {
                let found = deployments.get("web").await.unwrap();
                let status = found.status.clone().unwrap_or_default();
                let counts = (status.replicas, status.updated_replicas, status.available_replicas);
                let so = counts == (Some(replicas), Some(updated), Some(available));
                holds(so && status.observed_generation == found.metadata.generation, status)
            })
            .await;
    };
    until("four pods run", (4, 4, 4)).await;
    // The new pods are never ready, so that both sets have some.
    let mut hangs = template("web", "hang");
    hangs["metadata"]["labels"]["version"] = json!("2");
    let patch = async |spec: serde_json::Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        deployments.patch("web", &PatchParams::default(), &patch).await.unwrap();
    };
    patch(json!({"template": hangs})).await;
    until("the rollout is stuck", (5, 2, 3)).await;
    patch(json!({"replicas": 3, "strategy": {"type": "Recreate", "rollingUpdate": null}})).await;
    cluster
        .until("three new pods are all that there is", || async {
            let status = deployments.get("web").await.unwrap().status.unwrap_or_default();
            holds(status.replicas == Some(3) && status.updated_replicas == Some(3), status)
        })
        .await;
    cluster.stop().await;
}

/// As a node turns them away that lacks what they ask for.
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_fail_at_once_are_made_anew_with_pauses() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.takes_pods("default").await;
    let selector = json!({"matchLabels": {"app": "refused"}});
    let refused = json!({"metadata": {"name": "refused"},
        "spec": {"replicas": 2, "selector": selector, "template": template("refused", "fail")}});
    cluster.create::<Deployment>("default", refused).await;
    let count = || async {
        let pods = cluster.api::<Pod>("default").list(&ListParams::default()).await;
        pods.unwrap().items.len()
    };
    cluster
        .until("they are made a second time", || async {
            let pods = count().await;
            holds(pods >= 4, pods)
        })
        .await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let pods = count().await;
    assert!(pods <= 10, "{pods}");
    cluster.stop().await;
}

/// A pause says that it is one, and holds up nobody but who failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_pause_is_told_and_holds_up_nobody_else() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.takes_pods("default").await;
    let (sets, pods) = (cluster.api::<ReplicaSet>("default"), cluster.api::<Pod>("default"));
    let selector = json!({"matchLabels": {"app": "refused"}});
    // So many that what is told of each pod is soon too much for one object.
    let refused = json!({"metadata": {"name": "refused"},
        "spec": {"replicas": 6, "selector": selector, "template": template("refused", "fail")}});
    cluster.create::<ReplicaSet>("default", refused).await;
    let told = || async {
        let events = cluster
            .api::<Event>("default")
            .list(&ListParams::default())
            .await
            .unwrap();
        let told = events
            .items
            .into_iter()
            .filter(|e| e.reason.as_deref() == Some("BackOff"));
        told.filter_map(|e| e.message).collect::<Vec<_>>()
    };
    // Not of the rounds of 1, 2, 4 and 8 seconds.
    cluster
        .until("the first long pause is told", || async {
            let told = told().await;
            holds(!told.is_empty(), told)
        })
        .await;
    let first = told().await;
    assert!(
        first.len() == 1 && first[0].starts_with("Back-off creating pods"),
        "{first:?}"
    );
    let change = |spec: serde_json::Value| {
        let sets = sets.clone();
        async move {
            let patch = Patch::Merge(json!({"spec": spec}));
            sets.patch("refused", &PatchParams::default(), &patch).await.unwrap();
        }
    };
    let running = || async {
        let all = pods.list(&ListParams::default()).await.unwrap().items;
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.clone());
        let running = all.iter().filter(|pod| phase(pod).as_deref() == Some("Running"));
        running.filter_map(|pod| pod.metadata.name.clone()).collect::<Vec<_>>()
    };
    let two_run = |without: Vec<String>| {
        let running = running();
        async move {
            let found = running.await;
            holds(
                found.len() == 2 && !found.iter().any(|pod| without.contains(pod)),
                found,
            )
        }
    };
    let begun = Instant::now();
    change(json!({"replicas": 8, "template": template("refused", "run")})).await;
    cluster
        .until("who is wanted more does not wait", || two_run(Vec::new()))
        .await;
    change(json!({"replicas": 6})).await;
    cluster
        .until("the set is seen to be smaller", || async {
            let set = sets.get("refused").await.unwrap();
            let seen = set.status.and_then(|status| status.observed_generation);
            holds(seen == set.metadata.generation, seen)
        })
        .await;
    let gone = running().await;
    for pod in &gone {
        pods.delete(pod, &DeleteParams::default()).await.unwrap();
    }
    cluster
        .until("nobody waits for who is not wanted any more", || two_run(gone.clone()))
        .await;
    // The pause was of sixteen seconds.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(told().await, first);
    cluster.stop().await;
}
