//! Pods get the claims that their templates describe, and give them back.

use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, holds};

const PROTECTION: &str = "resource.kubernetes.io/delete-protection";

fn pod(name: &str, claims: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], "resourceClaims": claims,
        "nodeSelector": {"never": "there"}}})
}

/// The claim that the pod's status names.
async fn claim_of(cluster: &Cluster, name: &str) -> ResourceClaim {
    let (pods, claims) = (cluster.api::<Pod>("default"), cluster.api::<ResourceClaim>("default"));
    let said = || async {
        let pod = pods.get(name).await.unwrap();
        let statuses = pod.status.clone().and_then(|status| status.resource_claim_statuses);
        holds(
            statuses.is_some_and(|all| all.iter().all(|one| one.resource_claim_name.is_some())),
            pod,
        )
    };
    cluster.until("the pod's status names its claim", said).await;
    let statuses = pods
        .get(name)
        .await
        .unwrap()
        .status
        .unwrap()
        .resource_claim_statuses
        .unwrap();
    claims
        .get(statuses[0].resource_claim_name.as_deref().unwrap())
        .await
        .unwrap()
}

/// What a scheduler does.
async fn allocate(cluster: &Cluster, claim: &str, pod: &Pod) {
    let claims = cluster.api::<ResourceClaim>("default");
    let finalizers = Patch::Merge(json!({"metadata": {"finalizers": [PROTECTION]}}));
    claims.patch(claim, &PatchParams::default(), &finalizers).await.unwrap();
    let uid = pod.metadata.uid.as_deref().unwrap();
    let consumer = json!({"resource": "pods", "name": pod.metadata.name, "uid": uid});
    let status = Patch::Merge(json!({"status": {"allocation": {"devices": {}}, "reservedFor": [consumer]}}));
    claims
        .patch_status(claim, &PatchParams::default(), &status)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_makes_a_claim_that_goes_with_its_pod() {
    let cluster = Cluster::start().await;
    cluster.takes_pods("default").await;
    let (pods, claims) = (cluster.api::<Pod>("default"), cluster.api::<ResourceClaim>("default"));
    let named = json!([{"name": "gpu", "resourceClaimTemplateName": "t"}]);
    cluster.create::<Pod>("default", pod("p", &named)).await;
    let told = || async {
        let events = cluster
            .api::<Event>("default")
            .list(&ListParams::default())
            .await
            .unwrap()
            .items;
        let why = "PodResourceClaim gpu: resource claim template \"t\": resourceclaimtemplate.resource.k8s.io \"t\" not found";
        let is = |event: &Event| {
            event.message.as_deref() == Some(why) && event.reason.as_deref() == Some("FailedResourceClaimCreation")
        };
        holds(events.iter().any(is), events)
    };
    cluster.until("the missing template is told of", told).await;
    let spec = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "d"}}]}}});
    cluster
        .create::<ResourceClaimTemplate>("default", json!({"metadata": {"name": "t"}, "spec": spec}))
        .await;
    let claim = claim_of(&cluster, "p").await;
    let name = claim.metadata.name.clone().unwrap();
    assert!(name.starts_with("p-gpu-"), "{name}");
    assert_eq!(
        claim.metadata.annotations.unwrap()["resource.kubernetes.io/pod-claim-name"],
        "gpu"
    );
    assert_eq!(claim.metadata.labels.unwrap()["a"], "b");
    assert_eq!(claims.list(&ListParams::default()).await.unwrap().items.len(), 1);

    // The pod ends: what it had is given back, and the claim goes.
    let user = pods.get("p").await.unwrap();
    allocate(&cluster, &name, &user).await;
    let ended = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    pods.patch_status("p", &PatchParams::default(), &ended).await.unwrap();
    let gone = || async {
        let claim = claims.get_opt(&name).await.unwrap();
        holds(claim.is_none(), claim)
    };
    cluster.until("the claim is gone with what its pod had", gone).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_pods_share_is_given_back_by_the_last() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.takes_pods("default").await;
    let (pods, claims) = (cluster.api::<Pod>("default"), cluster.api::<ResourceClaim>("default"));
    let spec = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "d"}}]}});
    cluster
        .create::<ResourceClaim>("default", json!({"metadata": {"name": "c"}, "spec": spec}))
        .await;
    let named = json!([{"name": "gpu", "resourceClaimName": "c"}]);
    let first = cluster.create::<Pod>("default", pod("first", &named)).await;
    allocate(&cluster, "c", &first).await;
    // One that was bound without the scheduler is reserved it.
    let mut bound = pod("second", &named);
    bound["spec"]["nodeName"] = "n1".into();
    cluster.create::<Pod>("default", bound).await;
    let reserved_for = |expected: &'static [&'static str], allocated: bool| {
        let claims = claims.clone();
        move || {
            let claims = claims.clone();
            async move {
                let claim = claims.get("c").await.unwrap();
                let status = claim.status.clone().unwrap_or_default();
                let names: Vec<String> = status
                    .reserved_for
                    .iter()
                    .flatten()
                    .map(|pod| pod.name.clone())
                    .collect();
                let protected = claim.metadata.finalizers.iter().flatten().any(|own| own == PROTECTION);
                holds(
                    names == expected && status.allocation.is_some() == allocated && protected == allocated,
                    claim,
                )
            }
        }
    };
    cluster
        .until("both have it", reserved_for(&["first", "second"], true))
        .await;
    pods.delete("first", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    cluster
        .until("the second has it", reserved_for(&["second"], true))
        .await;
    pods.delete("second", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    cluster.until("nobody has it", reserved_for(&[], false)).await;

    // Nobody uses it: it goes, whatever is left of an allocation.
    let patch = Patch::Merge(json!({"metadata": {"finalizers": [PROTECTION]}}));
    claims.patch("c", &PatchParams::default(), &patch).await.unwrap();
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    let gone = || async {
        let claim = claims.get_opt("c").await.unwrap();
        holds(claim.is_none(), claim)
    };
    cluster.until("the claim is gone", gone).await;
    cluster.stop().await;
}
