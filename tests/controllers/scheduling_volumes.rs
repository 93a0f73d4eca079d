//! Pods with claims get nodes where their volumes are, or will be; scheduler, binder and provisioners together.

use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, holds};
use crate::volumes::{Storage, create};

const SELECTED: &str = "volume.kubernetes.io/selected-node";

async fn start(nodes: &[&str]) -> Storage {
    let storage = Storage::start().await;
    for node in nodes {
        storage.cluster.node(node).await;
    }
    storage.cluster.takes_pods("default").await;
    storage
}

fn pods(cluster: &Cluster) -> Api<Pod> {
    cluster.api("default")
}

async fn pod(storage: &Storage, name: &str, volume: Value) {
    let mut volume = volume;
    volume["name"] = json!("v");
    let spec = json!({"containers": [{"name": "c", "image": "i"}], "volumes": [volume]});
    create(
        &pods(&storage.cluster),
        json!({"metadata": {"name": name}, "spec": spec}),
    )
    .await;
}

fn of(claim: &str) -> Value {
    json!({"persistentVolumeClaim": {"claimName": claim}})
}

async fn node_of(storage: &Storage, pod: &str) -> String {
    let pods = pods(&storage.cluster);
    let asked = || async {
        let own = pods.get(pod).await.unwrap();
        holds(own.spec.as_ref().unwrap().node_name.is_some(), own)
    };
    storage.cluster.until(&format!("{pod} has a node"), asked).await;
    pods.get(pod).await.unwrap().spec.unwrap().node_name.unwrap()
}

async fn waits(storage: &Storage, pod: &str, why: &str) {
    let pods = pods(&storage.cluster);
    let asked = || async {
        let own = pods.get(pod).await.unwrap();
        let conditions = own.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let mut messages = conditions.filter_map(|condition| condition.message.as_deref());
        holds(messages.any(|message| message.starts_with(why)), &own)
    };
    storage.cluster.until(&format!("{pod} waits: {why}"), asked).await;
}

/// The one node that a volume is for.
fn only_node(volume: &PersistentVolume) -> String {
    let affinity = volume.spec.as_ref().unwrap().node_affinity.as_ref().unwrap();
    let term = &affinity.required.as_ref().unwrap().node_selector_terms[0];
    term.match_expressions.as_ref().unwrap()[0].values.as_ref().unwrap()[0].clone()
}

async fn local_volume(storage: &Storage, name: &str, node: &str) {
    let term = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
    let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}});
    let spec =
        json!({"storageClassName": "local", "hostPath": null, "local": {"path": "/v"}, "nodeAffinity": affinity});
    storage.volume(name, "1Gi", spec).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_go_where_the_volumes_are() {
    let storage = start(&["n1", "n2"]).await;
    let waits_for_pod =
        json!({"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"});
    storage.class("local", waits_for_pod).await;
    local_volume(&storage, "on-n1", "n1").await;
    local_volume(&storage, "on-n2", "n2").await;
    for name in ["a", "b", "c"] {
        storage.claim(name, json!({"storageClassName": "local"})).await;
    }
    let mut nodes = Vec::new();
    for name in ["a", "b"] {
        pod(&storage, name, of(name)).await;
        let node = node_of(&storage, name).await;
        storage.claim_is(name, "Bound", &format!("on-{node}")).await;
        storage.volume_is(&format!("on-{node}"), "Bound").await;
        nodes.push(node);
    }
    nodes.sort();
    assert_eq!(nodes, ["n1", "n2"]);
    pod(&storage, "c", of("c")).await;
    let nothing = "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.";
    waits(&storage, "c", nothing).await;
    local_volume(&storage, "late", "n2").await;
    assert_eq!(node_of(&storage, "c").await, "n2");
    storage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_made_where_the_pods_go() {
    let storage = start(&["n1"]).await;
    let default = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    let class = json!({"metadata": {"annotations": default}, "provisioner": "mk8s.io/local-path", "volumeBindingMode": "WaitForFirstConsumer"});
    storage.class("standard", class).await;
    storage.claim("c", json!({"storageClassName": null})).await;
    pod(&storage, "p", of("c")).await;
    // One that goes with its pod.
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    pod(
        &storage,
        "e",
        json!({"ephemeral": {"volumeClaimTemplate": {"spec": spec}}}),
    )
    .await;
    for (pod, claim) in [("p", "c"), ("e", "e-v")] {
        assert_eq!(node_of(&storage, pod).await, "n1");
        let claim = storage.claims.get(claim).await.unwrap();
        let volume = claim.spec.unwrap().volume_name.unwrap();
        assert_eq!(claim.metadata.annotations.unwrap()[SELECTED], "n1");
        assert_eq!(only_node(&storage.volumes.get(&volume).await.unwrap()), "n1");
    }
    storage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_volume_is_not_made_is_tried_again() {
    let storage = start(&["n1"]).await;
    storage
        .class("slow", json!({"volumeBindingMode": "WaitForFirstConsumer"}))
        .await;
    storage.claim("c", json!({"storageClassName": "slow"})).await;
    pod(&storage, "p", of("c")).await;
    let selected = || async {
        let claim = storage.claims.get("c").await.unwrap();
        let annotations = claim.metadata.annotations.clone().unwrap_or_default();
        holds(annotations.get(SELECTED).is_some_and(|node| node == "n1"), claim)
    };
    storage.cluster.until("the claim knows its node", &selected).await;
    // The provisioner cannot.
    let patch = Patch::Merge(json!({"metadata": {"annotations": {SELECTED: null}}}));
    storage
        .claims
        .patch("c", &PatchParams::default(), &patch)
        .await
        .unwrap();
    waits(
        &storage,
        "p",
        "running PreBind plugin \"VolumeBinding\": binding volumes: provisioning failed for PVC \"c\"",
    )
    .await;
    storage.cluster.until("the claim knows its node again", &selected).await;
    // It can now.
    let uid = storage.claims.get("c").await.unwrap().metadata.uid.unwrap();
    let claim =
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "default", "name": "c", "uid": uid});
    storage
        .volume("made", "1Gi", json!({"storageClassName": "slow", "claimRef": claim}))
        .await;
    assert_eq!(node_of(&storage, "p").await, "n1");
    storage.claim_is("c", "Bound", "made").await;
    storage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_one_pod_is_waited_for() {
    let storage = start(&["n1"]).await;
    let once = json!({"accessModes": ["ReadWriteOncePod"]});
    storage.volume("v", "1Gi", once.clone()).await;
    storage.claim("c", once).await;
    storage.claim_is("c", "Bound", "v").await;
    pod(&storage, "first", of("c")).await;
    node_of(&storage, "first").await;
    pod(&storage, "second", of("c")).await;
    let in_use = "0/1 nodes are available: 1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode \
                  already in-use by another pod.";
    waits(&storage, "second", in_use).await;
    let pods = pods(&storage.cluster);
    pods.delete("first", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    node_of(&storage, "second").await;
    storage.cluster.stop().await;
}
