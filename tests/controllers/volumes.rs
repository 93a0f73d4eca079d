//! Claims find volumes, immediately or when their pod has a node, and volumes are let go as they ask.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::{Cluster, holds};

/// What the tests ask of storage.
pub struct Storage {
    pub cluster: Cluster,
    pub claims: Api<PersistentVolumeClaim>,
    pub volumes: Api<PersistentVolume>,
    classes: Api<StorageClass>,
}

pub async fn create<K: Clone + Debug + Serialize + DeserializeOwned>(api: &Api<K>, object: Value) -> K {
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

impl Storage {
    pub async fn start() -> Storage {
        let cluster = Cluster::start().await;
        Storage {
            claims: cluster.api("default"),
            volumes: Api::all(cluster.admin.clone()),
            classes: Api::all(cluster.admin.clone()),
            cluster,
        }
    }

    pub async fn claim(&self, name: &str, spec: Value) -> PersistentVolumeClaim {
        let mut all = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""});
        mk8s_api::patch::merge(&mut all, &spec).unwrap();
        create(&self.claims, json!({"metadata": {"name": name}, "spec": all})).await
    }

    pub async fn volume(&self, name: &str, size: &str, spec: Value) -> PersistentVolume {
        let mut all =
            json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, "hostPath": {"path": "/tmp/v"}});
        mk8s_api::patch::merge(&mut all, &spec).unwrap();
        create(&self.volumes, json!({"metadata": {"name": name}, "spec": all})).await
    }

    pub async fn class(&self, name: &str, more: Value) -> StorageClass {
        let mut class = json!({"metadata": {"name": name}, "provisioner": "example.org/disk"});
        mk8s_api::patch::merge(&mut class, &more).unwrap();
        create(&self.classes, class).await
    }

    /// The claim is in this phase, with this volume; empty: none.
    pub async fn claim_is(&self, name: &str, phase: &str, volume: &str) {
        let what = format!("claim {name} is {phase} with {volume:?}");
        let asked = || async {
            let claim = self.claims.get(name).await.unwrap();
            let is = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase);
            let has = claim
                .spec
                .as_ref()
                .and_then(|spec| spec.volume_name.as_deref())
                .unwrap_or_default()
                == volume;
            holds(is && has, claim)
        };
        self.cluster.until(&what, asked).await;
    }

    pub async fn volume_is(&self, name: &str, phase: &str) {
        let asked = || async {
            let volume = self.volumes.get(name).await.unwrap();
            let is = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase);
            holds(is, volume)
        };
        self.cluster.until(&format!("volume {name} is {phase}"), asked).await;
    }

    async fn volume_is_gone(&self, name: &str) {
        let asked = || async {
            let volume = self.volumes.get_opt(name).await.unwrap();
            holds(volume.is_none(), volume)
        };
        self.cluster.until(&format!("volume {name} is gone"), asked).await;
    }

    /// An event about `name` in the namespace, of this reason, whose message has this in it.
    async fn told(&self, namespace: &str, name: &str, reason: &str, text: &str) {
        let events = self.cluster.api::<Event>(namespace);
        let asked = || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            let of_it = all
                .iter()
                .filter(|event| event.involved_object.name.as_deref() == Some(name));
            let told: Vec<_> = of_it
                .map(|event| (event.reason.clone(), event.message.clone()))
                .collect();
            let is = |(why, message): &(Option<String>, Option<String>)| {
                why.as_deref() == Some(reason) && message.as_deref().unwrap_or_default().contains(text)
            };
            holds(told.iter().any(is), told)
        };
        self.cluster.until(&format!("{reason} is told of {name}"), asked).await;
    }

    async fn annotate_claim(&self, name: &str, key: &str, value: &str) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
        self.claims.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_get_the_smallest_volume_that_fits_once_there_is_one() {
    let storage = Storage::start().await;
    storage.claim("c", json!({})).await;
    let why = "no persistent volumes available for this claim and no storage class is set";
    storage.told("default", "c", "FailedBinding", why).await;
    storage.claim_is("c", "Pending", "").await;
    storage.volume("small", "1Mi", json!({})).await;
    storage.volume_is("small", "Available").await;
    storage
        .volume("fits", "2Gi", json!({"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}))
        .await;
    storage.claim_is("c", "Bound", "fits").await;
    storage.volume_is("fits", "Bound").await;
    let claim = storage.claims.get("c").await.unwrap();
    let annotations = claim.metadata.annotations.unwrap();
    assert_eq!(annotations["pv.kubernetes.io/bind-completed"], "yes");
    assert_eq!(annotations["pv.kubernetes.io/bound-by-controller"], "yes");
    let status = claim.status.unwrap();
    assert_eq!(status.capacity.unwrap()["storage"].0, "2Gi");
    assert_eq!(status.access_modes.unwrap(), ["ReadWriteOnce", "ReadOnlyMany"]);
    let volume = storage.volumes.get("fits").await.unwrap();
    let reference = volume.spec.unwrap().claim_ref.unwrap();
    assert_eq!(reference.uid, claim.metadata.uid);
    assert!(volume.status.unwrap().last_phase_transition_time.is_some());
    storage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_claims_and_as_many_volumes_each_gets_one() {
    const MANY: usize = 60;
    let storage = Storage::start().await;
    let names = || (0..MANY).map(|index| format!("many-{index}"));
    let claims = names().map(|name| {
        let storage = &storage;
        async move { storage.claim(&name, json!({})).await }
    });
    futures::future::join_all(claims).await;
    let volumes = names().map(|name| {
        let storage = &storage;
        async move { storage.volume(&name, "1Gi", json!({})).await }
    });
    futures::future::join_all(volumes).await;
    let all_bound = || async {
        let claims = storage.claims.list(&ListParams::default()).await.unwrap().items;
        let named = claims.iter().filter_map(|claim| claim.spec.clone()?.volume_name);
        let bound: std::collections::BTreeSet<String> = named.collect();
        holds(bound.len() == MANY, bound)
    };
    let what = "each claim has a volume of its own";
    storage.cluster.until(what, all_bound).await;
    storage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_and_claims_that_name_each_other_are_bound() {
    let storage = Storage::start().await;
    // The volume waits for its claim, and nobody else gets it.
    storage
        .volume(
            "own",
            "1Gi",
            json!({"claimRef": {"namespace": "default", "name": "later"}}),
        )
        .await;
    storage.volume_is("own", "Available").await;
    storage.claim("other", json!({})).await;
    storage.claim("later", json!({})).await;
    storage.claim_is("later", "Bound", "own").await;
    storage.claim_is("other", "Pending", "").await;
    let volume = storage.volumes.get("own").await.unwrap();
    let annotations = volume.metadata.annotations.unwrap_or_default();
    assert!(
        !annotations.contains_key("pv.kubernetes.io/bound-by-controller"),
        "{annotations:?}"
    );

    // The claim names a volume: one that is not there, one that does not do, one that is another's.
    storage.claim("names", json!({"volumeName": "named"})).await;
    storage.claim_is("names", "Pending", "named").await;
    storage.volume("named", "1Mi", json!({})).await;
    storage
        .told(
            "default",
            "names",
            "VolumeMismatch",
            "Cannot bind to requested volume \"named\": requested PV is too small",
        )
        .await;
    storage.claim("late", json!({"volumeName": "own"})).await;
    storage
        .told(
            "default",
            "late",
            "FailedBinding",
            "volume \"own\" already bound to a different claim.",
        )
        .await;
    storage.volume("fine", "5Gi", json!({})).await;
    storage.claim_is("other", "Bound", "fine").await;

    // A volume that is gone takes its claim with it.
    storage.volumes.delete("fine", &DeleteParams::default()).await.unwrap();
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    storage
        .volumes
        .patch("fine", &PatchParams::default(), &patch)
        .await
        .unwrap();
    storage.claim_is("other", "Lost", "fine").await;
    storage
        .told(
            "default",
            "other",
            "ClaimLost",
            "Bound claim has lost its PersistentVolume",
        )
        .await;
    storage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_let_go_as_their_policy_says() {
    let storage = Storage::start().await;
    for (name, policy) in [("retained", "Retain"), ("recycled", "Recycle"), ("deleted", "Delete")] {
        let spec = json!({"persistentVolumeReclaimPolicy": policy, "claimRef": {"namespace": "default", "name": name}});
        storage.volume(name, "1Gi", spec).await;
        storage.claim(name, json!({})).await;
        storage.claim_is(name, "Bound", name).await;
        storage.claims.delete(name, &DeleteParams::default()).await.unwrap();
    }
    storage.volume_is("retained", "Released").await;
    storage.volume_is("recycled", "Failed").await;
    storage.volume_is("deleted", "Failed").await;
    storage
        .told(
            "default",
            "recycled",
            "VolumeFailedRecycle",
            "No recycler plugin found for the volume!",
        )
        .await;
    storage
        .told("default", "deleted", "VolumeFailedDelete", "no volume plugin matched")
        .await;

    // A claim of the old name is another claim: the volume is not its.
    storage.claim("retained", json!({})).await;
    storage.claim_is("retained", "Pending", "").await;
    // Who takes the claim out of a volume makes it anybody's.
    let patch = Patch::Merge(json!({"spec": {"claimRef": null}}));
    storage
        .volumes
        .patch("retained", &PatchParams::default(), &patch)
        .await
        .unwrap();
    storage.claim_is("retained", "Bound", "retained").await;
    storage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_a_class_are_provided_from_outside() {
    let storage = Storage::start().await;
    storage.claim("early", json!({"storageClassName": "disk"})).await;
    storage
        .told(
            "default",
            "early",
            "ProvisioningFailed",
            "storageclass.storage.k8s.io \"disk\" not found",
        )
        .await;
    // None: whatever is the default one day.
    storage.claim("classless", json!({"storageClassName": null})).await;
    storage
        .told("default", "classless", "FailedBinding", "no storage class is set")
        .await;
    storage.claim("without", json!({"storageClassName": ""})).await;
    let default = json!({"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}});
    storage
        .class("disk", json!({"metadata": default, "allowVolumeExpansion": true}))
        .await;
    for name in ["early", "classless"] {
        let asked = || async {
            let claim = storage.claims.get(name).await.unwrap();
            let annotations = claim.metadata.annotations.clone().unwrap_or_default();
            let by = |key: &str| annotations.get(key).map(String::as_str) == Some("example.org/disk");
            let of = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()) == Some("disk");
            let asked =
                by("volume.kubernetes.io/storage-provisioner") && by("volume.beta.kubernetes.io/storage-provisioner");
            holds(of && asked, claim)
        };
        storage
            .cluster
            .until(&format!("a volume for {name} is asked for"), asked)
            .await;
        storage
            .told(
                "default",
                name,
                "ExternalProvisioning",
                "external provisioner 'example.org/disk'",
            )
            .await;
    }
    let without = storage.claims.get("without").await.unwrap();
    assert_eq!(without.spec.unwrap().storage_class_name.as_deref(), Some(""));

    // What a provisioner does.
    let uid = storage.claims.get("early").await.unwrap().metadata.uid.unwrap();
    let reference = json!({"namespace": "default", "name": "early", "uid": uid});
    let spec = json!({"claimRef": reference, "storageClassName": "disk", "hostPath": null, "persistentVolumeReclaimPolicy": "Delete",
        "csi": {"driver": "disk.example.org", "volumeHandle": "h"}});
    storage.volume("made", "1Gi", spec).await;
    storage.claim_is("early", "Bound", "made").await;
    // And a resizer would.
    let patch = Patch::Merge(json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}));
    storage
        .claims
        .patch("early", &PatchParams::default(), &patch)
        .await
        .unwrap();
    storage
        .told(
            "default",
            "early",
            "ExternalExpanding",
            "waiting for an external controller to expand this PVC",
        )
        .await;
    // Its deletion is the provisioner's too.
    storage.claims.delete("early", &DeleteParams::default()).await.unwrap();
    storage.volume_is("made", "Released").await;
    storage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_volumes_are_made_where_the_pod_will_be() {
    let storage = Storage::start().await;
    let cluster = &storage.cluster;
    cluster.node("n1").await;
    cluster.takes_pods("default").await;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"mk8s.io/volumes-directory": "/srv/mk8s/volumes"}}}));
    nodes.patch("n1", &PatchParams::default(), &patch).await.unwrap();
    let more = json!({"provisioner": "mk8s.io/local-path", "volumeBindingMode": "WaitForFirstConsumer"});
    storage.class("local-path", more).await;
    let of_it = || json!({"storageClassName": "local-path"});
    storage.claim("c", of_it()).await;
    storage
        .told(
            "default",
            "c",
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        )
        .await;
    // The test is its scheduler.
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}], "schedulerName": "test",
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}});
    create(&cluster.api::<Pod>("default"), pod).await;
    storage
        .told(
            "default",
            "c",
            "WaitForPodScheduled",
            "waiting for pod p to be scheduled",
        )
        .await;
    storage.claim_is("c", "Pending", "").await;

    // What the scheduler says: first of a node that is gone by then.
    const SELECTED: &str = "volume.kubernetes.io/selected-node";
    storage.annotate_claim("c", SELECTED, "gone").await;
    storage
        .told("default", "c", "ProvisioningFailed", "node \"gone\" not found")
        .await;
    let again = || async {
        let claim = storage.claims.get("c").await.unwrap();
        holds(
            !claim
                .metadata
                .annotations
                .clone()
                .unwrap_or_default()
                .contains_key(SELECTED),
            claim,
        )
    };
    cluster.until("the scheduler may name another node", again).await;
    // The node says later who it is.
    let label = |name: Value| Patch::Merge(json!({"metadata": {"labels": {"kubernetes.io/hostname": name}}}));
    let how = PatchParams::default();
    nodes.patch("n1", &how, &label(json!(null))).await.unwrap();
    storage.annotate_claim("c", SELECTED, "n1").await;
    storage
        .told(
            "default",
            "c",
            "ProvisioningFailed",
            "has no label kubernetes.io/hostname",
        )
        .await;
    nodes.patch("n1", &how, &label(json!("n1"))).await.unwrap();
    let uid = storage.claims.get("c").await.unwrap().metadata.uid.unwrap();
    let name = format!("pvc-{uid}");
    storage.claim_is("c", "Bound", &name).await;
    storage
        .told("default", "c", "ProvisioningSucceeded", "its size is not enforced")
        .await;
    let volume = storage.volumes.get(&name).await.unwrap();
    let spec = volume.spec.unwrap();
    assert_eq!(spec.local.unwrap().path, format!("/srv/mk8s/volumes/default_c_{uid}"));
    assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Delete"));
    assert_eq!(
        volume.metadata.annotations.unwrap()["pv.kubernetes.io/provisioned-by"],
        "mk8s.io/local-path"
    );

    // It goes with its claim, and not before, however it is deleted.
    storage.volumes.delete(&name, &DeleteParams::default()).await.unwrap();
    assert!(
        storage
            .volumes
            .get(&name)
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
    );
    cluster
        .api::<Pod>("default")
        .delete("p", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    storage.claims.delete("c", &DeleteParams::default()).await.unwrap();
    storage.volume_is_gone(&name).await;

    storage
        .claim(
            "shared",
            json!({"storageClassName": "local-path", "accessModes": ["ReadWriteMany"]}),
        )
        .await;
    storage.annotate_claim("shared", SELECTED, "n1").await;
    storage
        .told(
            "default",
            "shared",
            "ProvisioningFailed",
            "access mode ReadWriteMany is not supported",
        )
        .await;

    // Nothing is left behind by a namespace that goes.
    let namespaces: Api<Namespace> = Api::all(cluster.admin.clone());
    create(&namespaces, json!({"metadata": {"name": "ns"}})).await;
    let claims = cluster.api::<PersistentVolumeClaim>("ns");
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "local-path"});
    let claim = create(
        &claims,
        json!({"metadata": {"name": "d", "annotations": {SELECTED: "n1"}}, "spec": spec}),
    )
    .await;
    let name = format!("pvc-{}", claim.metadata.uid.unwrap());
    let asked = || async {
        let claim = claims.get("d").await.unwrap();
        holds(
            claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()) == Some(&name),
            claim,
        )
    };
    cluster.until("the claim has its volume", asked).await;
    namespaces.delete("ns", &DeleteParams::default()).await.unwrap();
    storage.volume_is_gone(&name).await;
    storage.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_volumes_have_claims_that_go_with_their_pod() {
    let storage = Storage::start().await;
    let cluster = &storage.cluster;
    cluster.node("n1").await;
    cluster.takes_pods("default").await;
    let pods = cluster.api::<Pod>("default");
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""}});
    let pod = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}]}})
    };
    storage.claim("taken-v", json!({})).await;
    create(&pods, pod("taken")).await;
    storage
        .told(
            "default",
            "taken",
            "FailedBinding",
            "ephemeral volume v: PVC default/taken-v was not created for pod default/taken (pod is not owner)",
        )
        .await;
    create(&pods, pod("p")).await;
    let asked = || async {
        let claim = storage.claims.get_opt("p-v").await.unwrap();
        holds(claim.is_some(), claim)
    };
    cluster.until("the claim is made", asked).await;
    let claim = storage.claims.get("p-v").await.unwrap();
    let owner = claim.metadata.owner_references.unwrap().remove(0);
    assert_eq!(
        (owner.kind.as_str(), owner.name.as_str(), owner.controller),
        ("Pod", "p", Some(true))
    );
    assert_eq!(claim.metadata.labels.unwrap()["a"], "b");
    pods.delete("p", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    let asked = || async {
        let claim = storage.claims.get_opt("p-v").await.unwrap();
        holds(claim.is_none(), claim)
    };
    cluster.until("the claim is gone", asked).await;
    storage.cluster.stop().await;
}
