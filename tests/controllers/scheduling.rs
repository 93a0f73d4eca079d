//! What the scheduler makes of pods, seen through the API: who waits and says why, who pushes whom away, and that each pod gets its node
//! once, whatever happens meanwhile.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, holds};

/// A node that is an object alone: it does what the test does.
async fn node(cluster: &Cluster, name: &str, room: Value) {
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});
    nodes
        .create(&PostParams::default(), &serde_json::from_value(node).unwrap())
        .await
        .unwrap();
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": jiff::Timestamp::now().to_string()});
    let status = json!({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}});
    nodes
        .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
}

fn pod(name: &str, cpu: &str, more: Value) -> Value {
    let container = json!({"name": "c", "image": "busybox", "resources": {"requests": {"cpu": cpu}}});
    let mut pod = json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 30}});
    for (field, value) in more.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    pod
}

/// Waits until the pod has this node.
async fn is_on(cluster: &Cluster, name: &str, node: &str) {
    let pods = cluster.api::<Pod>("default");
    cluster
        .until("the pod has its node", || async {
            let pod = pods.get(name).await.unwrap();
            holds(
                pod.spec.as_ref().unwrap().node_name.as_deref() == Some(node),
                (pod.spec, pod.status),
            )
        })
        .await;
}

/// Waits until the pod's condition says this.
async fn waits(cluster: &Cluster, name: &str, reason: &str, message: &str) {
    let pods = cluster.api::<Pod>("default");
    cluster
        .until("the pod waits and says why", || async {
            let status = pods.get(name).await.unwrap().status.unwrap();
            let mut conditions = status.conditions.iter().flatten();
            let own = conditions.find(|condition| condition.type_ == "PodScheduled");
            let said = own.map(|own| {
                (
                    own.reason.clone().unwrap_or_default(),
                    own.message.clone().unwrap_or_default(),
                )
            });
            holds(said == Some((reason.to_owned(), message.to_owned())), status.conditions)
        })
        .await;
}

async fn is_told(cluster: &Cluster, of: &str, reason: &str, note: &str) {
    let events = cluster.api::<Event>("default");
    let about = ListParams::default().fields(&format!("involvedObject.name={of},reason={reason}"));
    cluster
        .until("an Event tells of it", || async {
            let notes: Vec<_> = events
                .list(&about)
                .await
                .unwrap()
                .items
                .into_iter()
                .filter_map(|event| event.message)
                .collect();
            holds(notes.iter().any(|own| own == note), notes)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_nowhere_says_why_and_is_bound_when_it_fits() {
    let cluster = Cluster::start().await;
    cluster.takes_pods("default").await;
    node(&cluster, "a", json!({"cpu": "1", "memory": "1Gi", "pods": "10"})).await;
    cluster.create::<Pod>("default", pod("first", "700m", json!({}))).await;
    is_on(&cluster, "first", "a").await;
    is_told(
        &cluster,
        "first",
        "Scheduled",
        "Successfully assigned default/first to a",
    )
    .await;
    cluster.create::<Pod>("default", pod("second", "700m", json!({}))).await;
    let why = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: \
               1 No preemption victims found for incoming pod.";
    waits(&cluster, "second", "Unschedulable", why).await;
    is_told(&cluster, "second", "FailedScheduling", why).await;
    let pods = cluster.api::<Pod>("default");
    let at_once = DeleteParams::default().grace_period(0);
    pods.delete("first", &at_once).await.unwrap();
    is_on(&cluster, "second", "a").await;
    // Gated, and another scheduler's.
    let gated = pod("gated", "1m", json!({"schedulingGates": [{"name": "test/gate"}]}));
    cluster.create::<Pod>("default", gated).await;
    cluster
        .create::<Pod>("default", pod("foreign", "1m", json!({"schedulerName": "other"})))
        .await;
    cluster.create::<Pod>("default", pod("last", "1m", json!({}))).await;
    is_on(&cluster, "last", "a").await;
    for name in ["gated", "foreign"] {
        let pod = pods.get(name).await.unwrap();
        assert_eq!(pod.spec.unwrap().node_name, None, "{name}");
    }
    let ungated = json!({"spec": {"schedulingGates": null}});
    pods.patch("gated", &PatchParams::default(), &Patch::Merge(ungated))
        .await
        .unwrap();
    is_on(&cluster, "gated", "a").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_more_important_pod_pushes_away_the_least_important_one() {
    let cluster = Cluster::start().await;
    cluster.takes_pods("default").await;
    node(&cluster, "a", json!({"cpu": "2", "memory": "1Gi", "pods": "10"})).await;
    for (name, value) in [("low", 1), ("middle", 5), ("high", 10)] {
        let class = json!({"metadata": {"name": name}, "value": value});
        let classes: Api<k8s_openapi::api::scheduling::v1::PriorityClass> = Api::all(cluster.admin.clone());
        classes
            .create(&PostParams::default(), &serde_json::from_value(class).unwrap())
            .await
            .unwrap();
    }
    for name in ["low", "middle"] {
        cluster
            .create::<Pod>("default", pod(name, "1", json!({"priorityClassName": name})))
            .await;
        is_on(&cluster, name, "a").await;
    }
    let high = cluster
        .create::<Pod>("default", pod("high", "1", json!({"priorityClassName": "high"})))
        .await;
    let pods = cluster.api::<Pod>("default");
    cluster
        .until("the least important one is told to go, and why", || async {
            let low = pods.get("low").await.unwrap();
            let status = low.status.unwrap_or_default();
            let mut conditions = status.conditions.iter().flatten();
            let target = conditions.find(|condition| condition.type_ == "DisruptionTarget");
            let why = target.map(|own| (own.status.as_str(), own.reason.as_deref(), own.message.as_deref()));
            let expected = (
                "True",
                Some("PreemptionByScheduler"),
                Some("default-scheduler: preempting to accommodate a higher priority pod"),
            );
            holds(
                why == Some(expected) && low.metadata.deletion_timestamp.is_some(),
                (&status.conditions, low.metadata),
            )
        })
        .await;
    let note = format!("Preempted by pod {} on node a", high.metadata.uid.unwrap());
    is_told(&cluster, "low", "Preempted", &note).await;
    cluster
        .until("its room is kept for who pushed it away", || async {
            let status = pods.get("high").await.unwrap().status.unwrap();
            holds(status.nominated_node_name.as_deref() == Some("a"), status)
        })
        .await;
    // It has its grace; meanwhile nobody else gets the room, and nobody else goes.
    cluster
        .create::<Pod>("default", pod("late", "1", json!({"priorityClassName": "middle"})))
        .await;
    waits(
        &cluster,
        "late",
        "Unschedulable",
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: \
         1 Insufficient cpu.",
    )
    .await;
    pods.delete("low", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    is_on(&cluster, "high", "a").await;
    let (high, middle) = (pods.get("high").await.unwrap(), pods.get("middle").await.unwrap());
    assert_eq!(high.status.unwrap().nominated_node_name, None);
    assert_eq!(middle.metadata.deletion_timestamp, None);
    cluster.stop().await;
}

/// Whoever decides goes in the middle of it, and comes again.
#[tokio::test(flavor = "multi_thread")]
async fn no_pod_is_bound_twice_or_forgotten_when_the_scheduler_starts_again() {
    const PODS: usize = 300;
    let mut cluster = Cluster::start().await;
    cluster.takes_pods("default").await;
    // Room for all, if each counts once.
    for number in 0..20 {
        node(
            &cluster,
            &format!("n{number}"),
            json!({"cpu": "1500m", "memory": "1Gi", "pods": "15"}),
        )
        .await;
    }
    for round in 0..3 {
        let made = (0..PODS / 3).map(|number| {
            let cluster = &cluster;
            async move {
                let name = format!("p{round}-{number}");
                cluster.create::<Pod>("default", pod(&name, "100m", json!({}))).await;
            }
        });
        futures::future::join_all(made).await;
        cluster = cluster.restart().await;
    }
    let pods = cluster.api::<Pod>("default");
    let on_nodes = || async {
        let mut nodes: BTreeMap<String, usize> = BTreeMap::new();
        for pod in pods.list(&ListParams::default()).await.unwrap() {
            *nodes
                .entry(pod.spec.unwrap().node_name.unwrap_or_default())
                .or_default() += 1;
        }
        nodes
    };
    cluster
        .until("each has its node", || async {
            let nodes = on_nodes().await;
            holds(nodes.values().sum::<usize>() == PODS && !nodes.contains_key(""), nodes)
        })
        .await;
    assert_eq!(on_nodes().await.into_values().collect::<Vec<_>>(), [15; 20]);
    cluster.stop().await;
}
