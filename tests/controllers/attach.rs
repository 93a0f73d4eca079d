//! Volumes of drivers follow the pods that need them from node to node. The tests play attachers and kubelets.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, holds};

const UNIQUE: &str = "kubernetes.io/csi/disk.example.org^h";

struct Disks {
    cluster: Cluster,
    attachments: Api<VolumeAttachment>,
    nodes: Api<Node>,
    pods: Api<Pod>,
}

impl Disks {
    /// Two nodes, and claims `c` and `e` with volumes for one of them at a time.
    async fn start() -> Disks {
        let cluster = Cluster::start().await;
        let nodes: Api<Node> = Api::all(cluster.admin.clone());
        for name in ["n1", "n2"] {
            cluster.node(name).await;
            let managed = json!({"metadata": {"annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}}});
            nodes
                .patch(name, &PatchParams::default(), &Patch::Merge(managed))
                .await
                .unwrap();
        }
        cluster.takes_pods("default").await;
        let volumes: Api<PersistentVolume> = Api::all(cluster.admin.clone());
        for (volume, driver, handle, claim) in [
            ("v", "disk.example.org", "h", "c"),
            ("w", "share.example.org", "h", "d"),
            ("x", "disk.example.org", "i", "e"),
        ] {
            let spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
                "csi": {"driver": driver, "volumeHandle": handle}, "claimRef": {"namespace": "default", "name": claim}});
            let volume: PersistentVolume =
                serde_json::from_value(json!({"metadata": {"name": volume}, "spec": spec})).unwrap();
            volumes.create(&PostParams::default(), &volume).await.unwrap();
            let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""});
            cluster
                .create::<PersistentVolumeClaim>("default", json!({"metadata": {"name": claim}, "spec": spec}))
                .await;
        }
        let drivers: Api<CSIDriver> = Api::all(cluster.admin.clone());
        let skips = json!({"metadata": {"name": "share.example.org"}, "spec": {"attachRequired": false}});
        drivers
            .create(&PostParams::default(), &serde_json::from_value(skips).unwrap())
            .await
            .unwrap();
        Disks {
            attachments: Api::all(cluster.admin.clone()),
            pods: cluster.api("default"),
            nodes,
            cluster,
        }
    }

    async fn pod(&self, name: &str, node: &str, claim: &str) {
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}});
        self.cluster.create::<Pod>("default", pod).await;
    }

    async fn remove(&self, pod: &str) {
        self.pods
            .delete(pod, &DeleteParams::default().grace_period(0))
            .await
            .unwrap();
    }

    /// The only VolumeAttachment there is, at this node.
    async fn attachment(&self, node: &str) -> String {
        let there = || async {
            let all = self.attachments.list(&ListParams::default()).await.unwrap().items;
            holds(all.len() == 1 && all[0].spec.node_name == node, all)
        };
        self.cluster
            .until(&format!("there is a VolumeAttachment to {node}"), there)
            .await;
        self.attachments
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .remove(0)
            .metadata
            .name
            .unwrap()
    }

    async fn none(&self) {
        let none = || async {
            let all = self.attachments.list(&ListParams::default()).await.unwrap().items;
            holds(all.is_empty(), all)
        };
        self.cluster.until("there is no VolumeAttachment", none).await;
    }

    async fn attached(&self, name: &str, status: Value) {
        let status = Patch::Merge(json!({"status": status}));
        self.attachments
            .patch_status(name, &PatchParams::default(), &status)
            .await
            .unwrap();
    }

    async fn uses(&self, node: &str, volumes: &[&str]) {
        let status = Patch::Merge(json!({"status": {"volumesInUse": volumes}}));
        self.nodes
            .patch_status(node, &PatchParams::default(), &status)
            .await
            .unwrap();
    }

    async fn reported(&self, node: &str, expected: &[&str]) {
        let said = || async {
            let status = self.nodes.get(node).await.unwrap().status.unwrap();
            let names: Vec<String> = status
                .volumes_attached
                .iter()
                .flatten()
                .map(|volume| volume.name.clone())
                .collect();
            holds(names == expected, names)
        };
        self.cluster
            .until(&format!("{node} is told of {expected:?}"), said)
            .await;
    }

    async fn told(&self, pod: &str, reason: &str, text: &str) {
        let events = self.cluster.api::<Event>("default");
        let told = || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            let is = |event: &Event| {
                event.involved_object.name.as_deref() == Some(pod)
                    && event.reason.as_deref() == Some(reason)
                    && event.message.as_deref() == Some(text)
            };
            let messages: Vec<_> = all.iter().map(|event| event.message.clone()).collect();
            holds(all.iter().any(is), messages)
        };
        self.cluster.until(&format!("{reason} is told of {pod}"), told).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_at_one_node_at_a_time_and_leaves_it_when_it_is_unused() {
    let disks = Disks::start().await;
    // What needs no attaching gets none.
    disks.pod("shares", "n2", "d").await;
    disks.pod("a", "n1", "c").await;
    let name = disks.attachment("n1").await;
    // echo -n hdisk.example.orgn1 | sha256sum
    assert_eq!(
        name,
        "csi-c691ec693e046fedaa1f5d379cff558e7ab2ffc5803a741637774bd6cf4003dd"
    );
    disks
        .attached(
            &name,
            json!({"attached": false, "attachError": {"message": "no room", "time": "2026-01-01T00:00:00Z"}}),
        )
        .await;
    disks
        .told(
            "a",
            "FailedAttachVolume",
            "AttachVolume.Attach failed for volume \"v\" : no room",
        )
        .await;
    disks
        .attached(&name, json!({"attached": true, "attachError": null}))
        .await;
    disks.reported("n1", &[UNIQUE]).await;
    disks
        .told(
            "a",
            "SuccessfulAttachVolume",
            "AttachVolume.Attach succeeded for volume \"v\" ",
        )
        .await;

    disks.uses("n1", &[UNIQUE]).await;
    disks.pod("b", "n2", "c").await;
    disks
        .told(
            "b",
            "FailedAttachVolume",
            "Multi-Attach error for volume \"v\" Volume is already used by pod(s) a",
        )
        .await;
    disks.remove("a").await;
    // The kubelet unmounts first.
    disks.reported("n1", &[UNIQUE]).await;
    assert_eq!(disks.attachment("n1").await, name);
    disks.uses("n1", &[]).await;
    disks.reported("n1", &[]).await;
    let name = disks.attachment("n2").await;
    disks.attached(&name, json!({"attached": true})).await;
    disks.reported("n2", &[UNIQUE]).await;

    // A node that is out of service is not asked.
    disks.uses("n2", &[UNIQUE]).await;
    disks.remove("b").await;
    let taint = json!({"spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoSchedule"}]}});
    disks
        .nodes
        .patch("n2", &PatchParams::default(), &Patch::Merge(taint))
        .await
        .unwrap();
    disks.none().await;
    disks.cluster.stop().await;
}

/// The controller may make no VolumeAttachments any more.
async fn forbid(cluster: &Cluster) {
    const ROLE: &str = "system:controller:attachdetach-controller";
    let roles: Api<ClusterRole> = Api::all(cluster.admin.clone());
    let mut role = roles.get(ROLE).await.unwrap();
    for rule in role.rules.iter_mut().flatten() {
        let resources = rule.resources.iter().flatten();
        if resources.into_iter().any(|resource| resource == "volumeattachments") {
            rule.verbs.retain(|verb| verb != "create");
        }
    }
    roles.replace(ROLE, &PostParams::default(), &role).await.unwrap();
    let attributes = json!({"group": "storage.k8s.io", "resource": "volumeattachments", "verb": "create"});
    let user = "system:serviceaccount:kube-system:attachdetach-controller";
    let review = json!({"metadata": {}, "spec": {"user": user, "resourceAttributes": attributes}});
    let review: SubjectAccessReview = serde_json::from_value(review).unwrap();
    let reviews: Api<SubjectAccessReview> = Api::all(cluster.admin.clone());
    let refused = || async {
        let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
        holds(answer.status.as_ref().is_some_and(|status| !status.allowed), answer)
    };
    cluster.until("the controller may attach nothing", refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_cannot_be_attached_keeps_no_other_where_it_is() {
    let disks = Disks::start().await;
    disks.pod("b", "n1", "e").await;
    let name = disks.attachment("n1").await;
    forbid(&disks.cluster).await;
    disks.pod("a", "n1", "c").await;
    disks.attached(&name, json!({"attached": true})).await;
    disks.reported("n1", &["kubernetes.io/csi/disk.example.org^i"]).await;
    disks.remove("b").await;
    disks.reported("n1", &[]).await;
    disks.none().await;
    disks.cluster.stop().await;
}
