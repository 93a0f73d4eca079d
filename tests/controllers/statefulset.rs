//! StatefulSets: pods with names, claims that belong to them, and a history that kubectl can read.

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, holds, template};

/// A set of pods that run, with these fields of its spec.
fn set(name: &str, changes: &Value) -> Value {
    let mut template = template(name, "run");
    template["spec"]["terminationGracePeriodSeconds"] = json!(0);
    let mut set = json!({"metadata": {"name": name, "annotations": {"kubernetes.io/change-cause": "made"}}, "spec": {
        "serviceName": name, "replicas": 3, "selector": {"matchLabels": {"app": name}}, "template": template,
    }});
    for (key, value) in changes.as_object().unwrap() {
        set["spec"][key] = value.clone();
    }
    set
}

/// Name, revision and image of each pod, by name.
async fn pods(cluster: &Cluster, app: &str) -> Vec<(String, String, String)> {
    let of_app = ListParams::default().labels(&format!("app={app}"));
    let all = cluster.api::<Pod>("default").list(&of_app).await.unwrap();
    let told = |pod: Pod| {
        let revision = pod.metadata.labels.as_ref().unwrap()["controller-revision-hash"].clone();
        let image = pod.spec.unwrap().containers[0].image.clone().unwrap();
        (pod.metadata.name.unwrap(), revision, image)
    };
    all.into_iter().map(told).collect()
}

async fn revisions(cluster: &Cluster, app: &str) -> Vec<ControllerRevision> {
    let of_app = ListParams::default().labels(&format!("app={app}"));
    let mut all = cluster
        .api::<ControllerRevision>("default")
        .list(&of_app)
        .await
        .unwrap()
        .items;
    all.sort_by_key(|revision| revision.revision);
    all
}

async fn patch(cluster: &Cluster, name: &str, patch: Value) {
    let sets = cluster.api::<StatefulSet>("default");
    sets.patch(name, &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .unwrap();
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// Waits until all pods are of this image, and the status says so.
async fn rolled_out(cluster: &Cluster, name: &str, image: &str, count: i32) {
    let sets = cluster.api::<StatefulSet>("default");
    cluster
        .until(&format!("{name} runs {image}"), || async {
            let set = sets.get(name).await.unwrap();
            let status = set.status.unwrap();
            let images: Vec<String> = pods(cluster, name)
                .await
                .into_iter()
                .map(|(_, _, image)| image)
                .collect();
            let counts = [Some(status.replicas), status.ready_replicas, status.available_replicas];
            let more = [status.current_replicas, status.updated_replicas];
            let done = status.observed_generation == set.metadata.generation
                && status.current_revision == status.update_revision
                && counts.iter().chain(&more).all(|n| *n == Some(count))
                && images.len() == usize::try_from(count).unwrap()
                && images.iter().all(|i| i == image);
            holds(done, (status.clone(), images))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_filled_rolled_out_and_back() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.takes_pods("default").await;
    cluster.create::<StatefulSet>("default", set("web", &json!({}))).await;
    rolled_out(&cluster, "web", "busybox", 3).await;
    let made = cluster.api::<Pod>("default");
    for (at, (name, _, _)) in pods(&cluster, "web").await.into_iter().enumerate() {
        assert_eq!(name, format!("web-{at}"));
        let pod = made.get(&name).await.unwrap();
        let labels = pod.metadata.labels.unwrap();
        assert_eq!(labels["statefulset.kubernetes.io/pod-name"], name);
        assert_eq!(labels["apps.kubernetes.io/pod-index"], at.to_string());
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("web-"));
        let spec = pod.spec.unwrap();
        assert_eq!((spec.hostname, spec.subdomain.as_deref()), (Some(name), Some("web")));
    }
    let first = revisions(&cluster, "web").await.remove(0);
    let hash = first.metadata.labels.as_ref().unwrap()["controller.kubernetes.io/hash"].clone();
    assert_eq!(first.metadata.name, Some(format!("web-{hash}")));
    assert_eq!(
        first.metadata.annotations.as_ref().unwrap()["kubernetes.io/change-cause"],
        "made"
    );
    let held = first.data.clone().unwrap().0;
    assert_eq!(held["spec"]["template"]["$patch"], "replace");
    assert_eq!(
        held["spec"]["template"]["spec"]["containers"][0]["resources"],
        json!({})
    );

    // A canary: what is below the partition stays.
    patch(
        &cluster,
        "web",
        json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}}),
    )
    .await;
    patch(&cluster, "web", image("two")).await;
    let sets = cluster.api::<StatefulSet>("default");
    cluster
        .until("the last pod is of the second image", || async {
            let images: Vec<String> = pods(&cluster, "web")
                .await
                .into_iter()
                .map(|(_, _, image)| image)
                .collect();
            let status = sets.get("web").await.unwrap().status.unwrap();
            let told = (
                status.current_replicas,
                status.updated_replicas,
                status.available_replicas,
            );
            let rolled = images == ["busybox", "busybox", "two"] && told == (Some(2), Some(1), Some(3));
            holds(
                rolled && status.current_revision == first.metadata.name,
                (images, status),
            )
        })
        .await;
    // One below it comes back as it was.
    made.delete("web-0", &DeleteParams::default()).await.unwrap();
    cluster
        .until("the first pod is back", || async {
            let all = pods(&cluster, "web").await;
            let back = all.len() == 3 && all[0].2 == "busybox" && Some(&all[0].1) == first.metadata.name.as_ref();
            holds(back, all)
        })
        .await;
    patch(
        &cluster,
        "web",
        json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}),
    )
    .await;
    rolled_out(&cluster, "web", "two", 3).await;

    // As `kubectl rollout undo` does: the patch that the revision holds. The revision is the newest again, not another one.
    let back = revisions(&cluster, "web").await.remove(0).data.unwrap().0;
    patch(&cluster, "web", back).await;
    rolled_out(&cluster, "web", "busybox", 3).await;
    let all = revisions(&cluster, "web").await;
    let numbers: Vec<_> = all
        .iter()
        .map(|r| (r.revision, r.metadata.name == first.metadata.name))
        .collect();
    assert_eq!(numbers, [(2, false), (3, true)]);

    // From the last to the first, and no more history than is wanted.
    patch(
        &cluster,
        "web",
        json!({"spec": {"replicas": 1, "revisionHistoryLimit": 0}}),
    )
    .await;
    rolled_out(&cluster, "web", "busybox", 1).await;
    cluster
        .until("one revision is left", || async {
            let all = revisions(&cluster, "web").await;
            holds(all.len() == 1 && all[0].metadata.name == first.metadata.name, all)
        })
        .await;
    let events = cluster.api::<Event>("default");
    cluster
        .until("events tell of it in upstream's words", || async {
            let all = events.list(&ListParams::default()).await.unwrap();
            let told: Vec<_> = all
                .iter()
                .map(|e| (e.reason.as_deref(), e.message.as_deref()))
                .collect();
            let made = (
                Some("SuccessfulCreate"),
                Some("Create Pod web-2 in StatefulSet web successful"),
            );
            let gone = (
                Some("SuccessfulDelete"),
                Some("Delete Pod web-2 in StatefulSet web successful"),
            );
            holds(told.contains(&made) && told.contains(&gone), told)
        })
        .await;

    // A revision that somebody deletes is made again.
    let api = cluster.api::<ControllerRevision>("default");
    let name = first.metadata.name.clone().unwrap();
    let before = api.get(&name).await.unwrap().metadata.uid;
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    cluster
        .until("the revision is there again", || async {
            let found = api.get_opt(&name).await.unwrap();
            holds(found.as_ref().is_some_and(|r| r.metadata.uid != before), found)
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_set_goes_on_when_its_pod_is_deleted() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.takes_pods("default").await;
    cluster
        .create::<StatefulSet>("default", set("web", &json!({"replicas": 2})))
        .await;
    rolled_out(&cluster, "web", "busybox", 2).await;
    // A pod that fails is made again, ever later, and its words are told.
    let broken = |outcome: &str| {
        let annotations = json!({"test/outcome": outcome});
        json!({"spec": {"template": {"metadata": {"annotations": annotations}}}})
    };
    patch(&cluster, "web", broken("fail")).await;
    let made = cluster.api::<Pod>("default");
    cluster
        .until("the last pod failed", || async {
            let found = made.get_opt("web-1").await.unwrap();
            let phase = found.as_ref().and_then(|p| p.status.as_ref()?.phase.clone());
            holds(phase.as_deref() == Some("Failed"), found)
        })
        .await;
    let times = ListParams::default().fields("involvedObject.kind=StatefulSet,reason=SuccessfulCreate");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let all = cluster.api::<Event>("default").list(&times).await.unwrap();
    let again: i32 = all
        .iter()
        .filter(|e| e.message.as_deref().is_some_and(|m| m.contains("web-1")))
        .map(|e| e.count.unwrap_or(1))
        .sum();
    assert!((2..=5).contains(&again), "{again} pods were made in two seconds");
    patch(&cluster, "web", broken("run")).await;
    rolled_out(&cluster, "web", "busybox", 2).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_pods_adopt_and_wait_for_nobody() {
    let cluster = Cluster::start().await;
    cluster.takes_pods("default").await;
    // No node: none of them ever runs.
    let parallel = json!({"podManagementPolicy": "Parallel", "ordinals": {"start": 4}});
    cluster.create::<StatefulSet>("default", set("web", &parallel)).await;
    let names = |wanted: &'static [&'static str]| {
        let cluster = &cluster;
        cluster.until("the pods are there", move || async move {
            let all: Vec<String> = pods(cluster, "web")
                .await
                .into_iter()
                .map(|(name, _, _)| name)
                .collect();
            holds(all == wanted, all)
        })
    };
    names(&["web-4", "web-5", "web-6"]).await;
    let api = cluster.api::<Pod>("default");
    let orphan = json!({"metadata": {"ownerReferences": null}});
    api.patch("web-5", &PatchParams::default(), &Patch::Merge(orphan))
        .await
        .unwrap();
    cluster
        .until("the orphan is the set's again", || async {
            let pod = api.get("web-5").await.unwrap();
            let owners: Vec<OwnerReference> = pod.metadata.owner_references.unwrap_or_default();
            holds(owners.len() == 1 && owners[0].kind == "StatefulSet", owners)
        })
        .await;
    patch(&cluster, "web", json!({"spec": {"replicas": 1}})).await;
    names(&["web-4"]).await;
    // Somebody else's pod has the name: the set waits until it goes.
    let mut foreign = template("other", "run");
    foreign["metadata"]["name"] = json!("web-5");
    foreign["metadata"]["labels"]["controller-revision-hash"] = json!("none");
    cluster.create::<Pod>("default", foreign).await;
    patch(&cluster, "web", json!({"spec": {"replicas": 2}})).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    api.delete("web-5", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    names(&["web-4", "web-5"]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_belong_to_names_and_go_as_the_policy_says() {
    let cluster = Cluster::start().await;
    cluster.takes_pods("default").await;
    let storage = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let claimed = json!({
        "podManagementPolicy": "Parallel", "replicas": 2,
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": storage}],
        "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Delete"},
    });
    cluster.create::<StatefulSet>("default", set("db", &claimed)).await;
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    let owned = |wanted: &'static [(&'static str, &'static str)]| {
        let (cluster, claims) = (&cluster, &claims);
        cluster.until("the claims are whose they should be", move || async move {
            let all = claims.list(&ListParams::default().labels("app=db")).await.unwrap();
            let owner = |claim: &PersistentVolumeClaim| {
                let owners = claim.metadata.owner_references.iter().flatten();
                owners.map(|o| o.name.clone()).collect::<Vec<_>>().join(" ")
            };
            let all: Vec<_> = all
                .iter()
                .map(|c| (c.metadata.name.clone().unwrap(), owner(c)))
                .collect();
            let same = all
                .iter()
                .map(|(name, owner)| (name.as_str(), owner.as_str()))
                .eq(wanted.iter().copied());
            holds(same, all)
        })
    };
    owned(&[("data-db-0", "db"), ("data-db-1", "db")]).await;
    let made = cluster.api::<Pod>("default");
    cluster
        .until("the second pod is there", || async {
            holds(made.get_opt("db-1").await.unwrap().is_some(), "none")
        })
        .await;
    let pod = made.get("db-1").await.unwrap();
    let volumes = serde_json::to_value(pod.spec.unwrap().volumes).unwrap();
    assert_eq!(
        volumes[0],
        json!({"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}})
    );
    // The claim of the pod that is scaled away goes with it.
    patch(&cluster, "db", json!({"spec": {"replicas": 1}})).await;
    owned(&[("data-db-0", "db")]).await;
    let kept = json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}}});
    patch(&cluster, "db", kept).await;
    owned(&[("data-db-0", "")]).await;
    // A claim that is deleted under a pod that does not run yet is made again.
    claims.delete("data-db-0", &DeleteParams::default()).await.unwrap();
    cluster
        .until("the claim is there", || async {
            let found = claims.get_opt("data-db-0").await.unwrap();
            let there = found.as_ref().is_some_and(|c| c.metadata.deletion_timestamp.is_none());
            holds(there, found)
        })
        .await;
    let sets = cluster.api::<StatefulSet>("default");
    sets.delete("db", &DeleteParams::background()).await.unwrap();
    cluster
        .until("pods and history are gone, and the claim is kept", || async {
            let left = (pods(&cluster, "db").await, revisions(&cluster, "db").await);
            holds(left.0.is_empty() && left.1.is_empty(), left)
        })
        .await;
    owned(&[("data-db-0", "")]).await;
    cluster.stop().await;
}

/// The last ordinal that there is.
#[tokio::test]
async fn a_set_may_end_with_the_largest_number() {
    let cluster = Cluster::start().await;
    cluster.takes_pods("default").await;
    cluster.node("n").await;
    let spec = json!({"replicas": 2, "ordinals": {"start": 2_147_483_646}, "podManagementPolicy": "Parallel"});
    cluster.create::<StatefulSet>("default", set("last", &spec)).await;
    cluster
        .until("both are there", || async {
            let names: Vec<String> = pods(&cluster, "last")
                .await
                .into_iter()
                .map(|(name, ..)| name)
                .collect();
            holds(names == ["last-2147483646", "last-2147483647"], names)
        })
        .await;
    cluster.stop().await;
}
