//! DaemonSets: a pod on each node that is right for it, and rollouts of them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, holds, template};

fn set(outcome: &str, strategy: &Value) -> Value {
    let mut template = template("agent", outcome);
    template["spec"]["terminationGracePeriodSeconds"] = json!(0);
    // Ports of the host: two of them on one node would be a matter of the scheduler's.
    template["spec"]["containers"][0]["ports"] = json!([]);
    let selector = json!({"matchLabels": {"app": "agent"}});
    json!({"metadata": {"name": "agent"}, "spec": {"selector": selector, "template": template, "updateStrategy": strategy}})
}

/// Of each node the image of its pods that are not being deleted.
async fn images(cluster: &Cluster) -> BTreeMap<String, Vec<String>> {
    let agents = ListParams::default().labels("app=agent");
    let all = cluster.api::<Pod>("default").list(&agents).await.unwrap();
    let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in all
        .items
        .into_iter()
        .filter(|p| p.metadata.deletion_timestamp.is_none())
    {
        let spec = pod.spec.unwrap();
        let image = spec.containers[0].image.clone().unwrap();
        nodes.entry(spec.node_name.unwrap_or_default()).or_default().push(image);
    }
    nodes
}

async fn patch(cluster: &Cluster, patch: Value) {
    let sets = cluster.api::<DaemonSet>("default");
    sets.patch("agent", &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .unwrap();
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// Waits until these nodes, and no others, run one pod of this image, and the status says so.
async fn runs_on(cluster: &Cluster, nodes: &[&str], image: &str) {
    let sets = cluster.api::<DaemonSet>("default");
    let count = i32::try_from(nodes.len()).unwrap();
    cluster
        .until(&format!("{image} runs on {nodes:?}"), || async {
            let set = sets.get("agent").await.unwrap();
            let status = set.status.unwrap();
            let expected = DaemonSetStatus {
                current_number_scheduled: count,
                desired_number_scheduled: count,
                number_ready: count,
                number_available: Some(count),
                updated_number_scheduled: Some(count),
                observed_generation: set.metadata.generation,
                ..DaemonSetStatus::default()
            };
            let found = images(cluster).await;
            let wanted = nodes
                .iter()
                .map(|node| ((*node).to_owned(), vec![image.to_owned()]))
                .collect();
            holds(found == wanted && status == expected, (found, status))
        })
        .await;
}

async fn taint(cluster: &Cluster, node: &str, effect: Option<&str>) {
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    let taints: Vec<Value> = effect
        .iter()
        .map(|effect| json!({"key": "test/taint", "effect": effect}))
        .collect();
    let patch = Patch::Merge(json!({"spec": {"taints": taints}}));
    nodes.patch(node, &PatchParams::default(), &patch).await.unwrap();
}

async fn label(cluster: &Cluster, node: &str, disk: Option<&str>) {
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    let patch = Patch::Merge(json!({"metadata": {"labels": {"disk": disk}}}));
    nodes.patch(node, &PatchParams::default(), &patch).await.unwrap();
}

async fn status_is(cluster: &Cluster, what: &str, is: impl Fn(&DaemonSetStatus) -> bool) {
    let sets = cluster.api::<DaemonSet>("default");
    cluster
        .until(what, || async {
            let status = sets.get("agent").await.unwrap().status.unwrap();
            holds(is(&status), status)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_follow_their_nodes() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.node("n2").await;
    cluster.takes_pods("default").await;
    cluster.create::<DaemonSet>("default", set("run", &json!({}))).await;
    runs_on(&cluster, &["n1", "n2"], "busybox").await;
    // Another node, one that is cordoned too.
    cluster.node("n3").await;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    nodes.cordon("n3").await.unwrap();
    runs_on(&cluster, &["n1", "n2", "n3"], "busybox").await;

    // A taint that it does not tolerate: no pod is made, one that is there stays, and is counted.
    taint(&cluster, "n2", Some("NoSchedule")).await;
    status_is(&cluster, "one is where none should be", |s| {
        (s.desired_number_scheduled, s.number_misscheduled) == (2, 1)
    })
    .await;
    assert_eq!(images(&cluster).await.len(), 3);
    taint(&cluster, "n2", Some("NoExecute")).await;
    runs_on(&cluster, &["n1", "n3"], "busybox").await;
    taint(&cluster, "n2", None).await;
    runs_on(&cluster, &["n1", "n2", "n3"], "busybox").await;

    // Nodes by label.
    label(&cluster, "n1", Some("ssd")).await;
    patch(
        &cluster,
        json!({"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}}),
    )
    .await;
    runs_on(&cluster, &["n1"], "busybox").await;
    label(&cluster, "n2", Some("ssd")).await;
    runs_on(&cluster, &["n1", "n2"], "busybox").await;
    label(&cluster, "n1", None).await;
    runs_on(&cluster, &["n2"], "busybox").await;

    // A pod that somebody deletes is made again; one more than there should be is not.
    let pods = cluster.api::<Pod>("default");
    let agents = ListParams::default().labels("app=agent");
    let first = pods.list(&agents).await.unwrap().items.remove(0).metadata;
    pods.delete(first.name.as_deref().unwrap(), &DeleteParams::default())
        .await
        .unwrap();
    cluster
        .until("another one is there", || async {
            let all = pods.list(&agents).await.unwrap().items;
            holds(all.len() == 1 && all[0].metadata.uid != first.uid, all.len())
        })
        .await;
    runs_on(&cluster, &["n2"], "busybox").await;
    let sets = cluster.api::<DaemonSet>("default");
    sets.delete("agent", &DeleteParams::background()).await.unwrap();
    cluster
        .until("all is gone", || async {
            let left = pods.list(&agents).await.unwrap().items.len();
            let history = cluster
                .api::<ControllerRevision>("default")
                .list(&agents)
                .await
                .unwrap()
                .items
                .len();
            holds(left + history == 0, (left, history))
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_are_rolled_out_and_back() {
    let cluster = Cluster::start().await;
    for node in ["n1", "n2", "n3"] {
        cluster.node(node).await;
    }
    cluster.takes_pods("default").await;
    let all = ["n1", "n2", "n3"];
    cluster
        .create::<DaemonSet>("default", set("run", &json!({"type": "OnDelete"})))
        .await;
    runs_on(&cluster, &all, "busybox").await;
    let pods = cluster.api::<Pod>("default");
    let agents = ListParams::default().labels("app=agent");
    let on = |node: &'static str| {
        let (pods, agents) = (pods.clone(), agents.clone());
        async move {
            let all = pods.list(&agents).await.unwrap();
            let mut found = all
                .items
                .into_iter()
                .filter(|p| p.spec.as_ref().unwrap().node_name.as_deref() == Some(node));
            found.next().unwrap().metadata
        }
    };
    // OnDelete: only who is deleted is of the new template.
    patch(&cluster, image("two")).await;
    let kept = (on("n1").await.uid, on("n3").await.uid);
    let doomed = on("n2").await.name.unwrap();
    pods.delete(&doomed, &DeleteParams::default()).await.unwrap();
    status_is(&cluster, "one is of the second template", |s| {
        (s.updated_number_scheduled, s.number_available) == (Some(1), Some(3))
    })
    .await;
    assert_eq!(images(&cluster).await["n2"], ["two"]);

    // A rollback in the middle restarts nobody who is of that template.
    let revisions = cluster.api::<ControllerRevision>("default");
    let listed = revisions.list(&agents).await.unwrap();
    let first = listed.items.iter().find(|r| r.revision == 1).unwrap();
    let hash = &first.metadata.labels.as_ref().unwrap()["controller-revision-hash"];
    assert_eq!(first.metadata.name, Some(format!("agent-{hash}")));
    let mut back = first.data.clone().unwrap().0;
    back["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}});
    patch(&cluster, back).await;
    runs_on(&cluster, &all, "busybox").await;
    let numbers = revisions.list(&agents).await.unwrap();
    let mut numbers: Vec<_> = numbers
        .iter()
        .map(|r| (r.revision, r.metadata.name == first.metadata.name))
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [(2, false), (3, true)]);
    assert_eq!(
        (on("n1").await.uid, on("n3").await.uid),
        kept,
        "a pod of the right template was restarted"
    );

    // A surge: no node is ever without an available pod.
    patch(
        &cluster,
        json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "100%"}}}}),
    )
    .await;
    patch(&cluster, image("three")).await;
    runs_on(&cluster, &all, "three").await;
    patch(&cluster, json!({"spec": {"revisionHistoryLimit": 0}})).await;
    cluster
        .until("one revision is left", || async {
            let left = revisions.list(&agents).await.unwrap().items.len();
            holds(left == 1, left)
        })
        .await;
    // A revision that somebody deletes is made again, and its pods are its own.
    let only = revisions.list(&agents).await.unwrap().items.remove(0).metadata;
    revisions
        .delete(only.name.as_deref().unwrap(), &DeleteParams::default())
        .await
        .unwrap();
    cluster
        .until("the revision is there again", || async {
            let found = revisions.list(&agents).await.unwrap().items;
            let again = found.len() == 1 && found[0].metadata.uid != only.uid && found[0].metadata.name == only.name;
            holds(again, found)
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_fail_are_made_again_ever_later() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.takes_pods("default").await;
    cluster.create::<DaemonSet>("default", set("fail", &json!({}))).await;
    let told = |reason: &'static str| {
        let events = cluster.api::<Event>("default");
        async move {
            let of = ListParams::default().fields(&format!("involvedObject.kind=DaemonSet,reason={reason}"));
            events.list(&of).await.unwrap().items
        }
    };
    cluster
        .until("a failed one is told of", || async {
            let all = told("FailedDaemonPod").await;
            let text = all.first().and_then(|e| e.message.clone()).unwrap_or_default();
            let words = text.starts_with("Found failed daemon pod default/agent-")
                && text.ends_with(" on node n1, will try to kill it");
            holds(words, text)
        })
        .await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let again: i32 = told("SuccessfulCreate")
        .await
        .iter()
        .map(|e| e.count.unwrap_or(1))
        .sum();
    assert!((2..=5).contains(&again), "{again} pods were made in two seconds");
    // What mends it is not waited with.
    patch(
        &cluster,
        json!({"spec": {"template": {"metadata": {"annotations": {"test/outcome": "run"}}}}}),
    )
    .await;
    runs_on(&cluster, &["n1"], "busybox").await;
    cluster.stop().await;
}
