//! Jobs count each of their pods once, and end.

use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, holds, template};

const FINALIZER: &str = "batch.kubernetes.io/job-tracking";

/// A Job whose pods do `outcome`, or run it where it is a script.
async fn make(cluster: &Cluster, name: &str, outcome: &str, spec: Value) -> Job {
    let mut template = template(name, outcome);
    template["spec"]["restartPolicy"] = json!("Never");
    if outcome.contains(' ') {
        template["spec"]["containers"][0]["name"] = json!("case");
        template["spec"]["containers"][0]["command"] = json!(["sh", "-c"]);
        template["spec"]["containers"][0]["args"] = json!([outcome]);
    }
    let mut job = json!({"metadata": {"name": name}, "spec": {"template": template}});
    for (key, value) in spec.as_object().unwrap() {
        job["spec"][key] = value.clone();
    }
    cluster.create::<Job>("default", job).await
}

async fn pods(cluster: &Cluster, name: &str) -> Vec<Pod> {
    let of = ListParams::default().labels(&format!("job-name={name}"));
    cluster.api::<Pod>("default").list(&of).await.unwrap().items
}

/// Until the Job's status is so.
async fn until(cluster: &Cluster, name: &str, what: &str, is: impl Fn(&Value) -> bool) {
    cluster
        .until(&format!("{name} {what}"), || async {
            let job = cluster.api::<Job>("default").get(name).await.unwrap();
            let status = serde_json::to_value(job.status).unwrap();
            holds(is(&status), status)
        })
        .await;
}

/// `TYPE REASON` of the conditions that are true.
fn conditions(status: &Value) -> Vec<String> {
    let all = status["conditions"].as_array().into_iter().flatten();
    let held = all.filter(|c| c["status"] == "True");
    held.map(|c| format!("{} {}", c["type"].as_str().unwrap(), c["reason"].as_str().unwrap()))
        .collect()
}

async fn tells(cluster: &Cluster, name: &str, reason: &str) {
    let of = format!("involvedObject.kind=Job,involvedObject.name={name},reason={reason}");
    cluster
        .until(&format!("{reason} is told of {name}"), || async {
            let events = cluster
                .api::<Event>("default")
                .list(&ListParams::default().fields(&of))
                .await
                .unwrap();
            holds(!events.items.is_empty(), "no event")
        })
        .await;
}

async fn patch(cluster: &Cluster, name: &str, spec: Value) {
    let jobs = cluster.api::<Job>("default");
    let patch = Patch::Merge(json!({"spec": spec}));
    jobs.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_rest_while_they_are_suspended() {
    let cluster = Cluster::start().await;
    cluster.takes_pods("default").await;
    cluster.node("n1").await;
    make(
        &cluster,
        "rests",
        "run",
        json!({"parallelism": 3, "completions": 9, "suspend": true}),
    )
    .await;
    until(&cluster, "rests", "is suspended", |status| {
        conditions(status) == ["Suspended JobSuspended"]
    })
    .await;
    let begun = |status: &Value| status["startTime"].is_string();
    until(&cluster, "rests", "has not begun", |status| !begun(status)).await;
    patch(&cluster, "rests", json!({"suspend": false})).await;
    until(&cluster, "rests", "runs", |status| {
        status["ready"] == 3 && begun(status) && conditions(status).is_empty()
    })
    .await;
    patch(&cluster, "rests", json!({"suspend": true})).await;
    until(&cluster, "rests", "has stopped", |status| {
        let none = status["active"].is_null() && status["ready"] == 0 && status["terminating"] == 0;
        none && status["failed"].is_null() && conditions(status) == ["Suspended JobSuspended"]
    })
    .await;
    assert!(pods(&cluster, "rests").await.is_empty());
    for reason in ["Suspended", "Resumed", "SuccessfulCreate", "SuccessfulDelete"] {
        tells(&cluster, "rests", reason).await;
    }
    // One that others look after, and one that runs out of time.
    make(&cluster, "others", "run", json!({"managedBy": "example.com/another"})).await;
    make(&cluster, "late", "run", json!({"activeDeadlineSeconds": 1})).await;
    let late = ["FailureTarget DeadlineExceeded", "Failed DeadlineExceeded"];
    until(&cluster, "late", "is too late", |status| {
        conditions(status) == late && status["failed"] == 1
    })
    .await;
    tells(&cluster, "late", "DeadlineExceeded").await;
    assert!(pods(&cluster, "others").await.is_empty());
    until(&cluster, "others", "is left alone", |status| *status == json!({})).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_pods_cannot_be_made_ends_in_time() {
    let cluster = Cluster::start().await;
    cluster.takes_pods("default").await;
    // Its tries are five seconds apart by then.
    let mut template = template("refused", "run");
    template["spec"]["priorityClassName"] = json!("none-such");
    template["spec"]["restartPolicy"] = json!("Never");
    let job = json!({"metadata": {"name": "refused"}, "spec": {"activeDeadlineSeconds": 6, "template": template}});
    cluster.create::<Job>("default", job).await;
    tells(&cluster, "refused", "FailedCreate").await;
    until(&cluster, "refused", "is too late", |status| {
        conditions(status) == ["FailureTarget DeadlineExceeded", "Failed DeadlineExceeded"]
    })
    .await;
    let job = cluster.api::<Job>("default").get("refused").await.unwrap();
    let status = job.status.unwrap();
    let ended = status.conditions.unwrap()[0].last_transition_time.clone().unwrap().0;
    let took = ended.duration_since(status.start_time.unwrap().0);
    assert!(took.as_secs() < 9, "{took:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_decide_what_a_failure_is() {
    let cluster = Cluster::start().await;
    cluster.takes_pods("default").await;
    cluster.node("n1").await;
    let rule = |action: &str| {
        let codes = json!({"operator": "In", "values": [42]});
        json!({"rules": [{"action": action, "onExitCodes": codes}]})
    };
    let spec = json!({"backoffLimit": 6, "podFailurePolicy": rule("FailJob")});
    make(&cluster, "fails", "exit 42", spec).await;
    let failed = ["FailureTarget PodFailurePolicy", "Failed PodFailurePolicy"];
    until(&cluster, "fails", "has failed", |status| {
        conditions(status) == failed && status["failed"] == 1
    })
    .await;
    // Two of four indexes fail: one at once, one in its second try.
    let spec = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 2, "backoffLimitPerIndex": 1,
        "podFailurePolicy": rule("FailIndex")});
    make(
        &cluster,
        "indexed",
        "case $JOB_COMPLETION_INDEX in 1) exit 42;; 2) exit 1;; esac",
        spec,
    )
    .await;
    until(&cluster, "indexed", "has failed indexes", |status| {
        let lists = (&status["completedIndexes"], &status["failedIndexes"]) == (&json!("0,3"), &json!("1,2"));
        let counts = (&status["succeeded"], &status["failed"]) == (&json!(2), &json!(3));
        lists && counts && conditions(status) == ["FailureTarget FailedIndexes", "Failed FailedIndexes"]
    })
    .await;
    let left = pods(&cluster, "indexed").await;
    assert_eq!(left.len(), 5, "they stay to be read");
    assert!(left.iter().all(|pod| pod.metadata.finalizers.is_none()));
    // It is enough that the first one passes.
    let spec = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 1,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]}});
    make(&cluster, "enough", "true $JOB_COMPLETION_INDEX", spec).await;
    let enough = ["SuccessCriteriaMet SuccessPolicy", "Complete SuccessPolicy"];
    until(&cluster, "enough", "is complete", |status| {
        conditions(status) == enough && status["succeeded"] != 3
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn indexed_jobs_grow_shrink_and_let_their_pods_go() {
    let cluster = Cluster::start().await;
    cluster.takes_pods("default").await;
    cluster.node("n1").await;
    let size = |many: i32| json!({"completions": many, "parallelism": many});
    let mut spec = size(2);
    spec["completionMode"] = json!("Indexed");
    make(&cluster, "elastic", "run", spec).await;
    for many in [2, 4, 1] {
        patch(&cluster, "elastic", size(many)).await;
        let settled =
            |status: &Value| status["ready"] == many && status["terminating"] == 0 && status["active"] == many;
        until(&cluster, "elastic", "has changed its size", settled).await;
        let found = pods(&cluster, "elastic").await;
        let mut hosts: Vec<String> = found.into_iter().filter_map(|pod| pod.spec?.hostname).collect();
        hosts.sort();
        let expected: Vec<String> = (0..many).map(|index| format!("elastic-{index}")).collect();
        assert_eq!(hosts, expected);
    }
    // Somebody else says that it has failed: nothing holds its pod any more.
    let over = |type_: &str| json!({"type": type_, "status": "True", "reason": "Told", "message": "so"});
    let status = json!({"status": {"active": null, "ready": 0, "conditions": [over("FailureTarget"), over("Failed")]}});
    let jobs = cluster.api::<Job>("default");
    jobs.patch_status("elastic", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
    let free = || async {
        let found = pods(&cluster, "elastic").await;
        let held = found.iter().any(|pod| pod.metadata.finalizers.is_some());
        holds(!held && found.len() == 1, found)
    };
    cluster.until("its pod is released", free).await;
    // And one that is given the finalizer afterwards.
    let name = pods(&cluster, "elastic").await[0].metadata.name.clone().unwrap();
    let hold = Patch::Merge(json!({"metadata": {"finalizers": [FINALIZER]}}));
    let held = cluster
        .api::<Pod>("default")
        .patch(&name, &PatchParams::default(), &hold)
        .await
        .unwrap();
    assert!(held.metadata.finalizers.is_some());
    cluster.until("it is released again", free).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_pods_do_is_written_together() {
    const PODS: i32 = 300;
    let cluster = Cluster::start().await;
    cluster.takes_pods("default").await;
    for node in ["n1", "n2", "n3"] {
        cluster.node(node).await;
    }
    let spec = json!({"completionMode": "Indexed", "completions": PODS, "parallelism": PODS});
    let made = make(&cluster, "large", "succeed", spec).await;
    let jobs = cluster.api::<Job>("default");
    let of = WatchParams::default().fields("metadata.name=large").timeout(60);
    let changes = jobs.watch(&of, &made.metadata.resource_version.unwrap()).await.unwrap();
    let changes = changes.map(|change| match change.unwrap() {
        WatchEvent::Modified(job) => serde_json::to_value(job.status).unwrap(),
        other => panic!("{other:?}"),
    });
    let last = format!("0-{}", PODS - 1);
    let ended = |status: &Value| conditions(status).iter().any(|c| c.starts_with("Complete "));
    let mut written = 0;
    let mut changes = std::pin::pin!(changes);
    while let Some(status) = changes.next().await {
        written += 1;
        if ended(&status) {
            assert_eq!(
                (&status["completedIndexes"], &status["succeeded"]),
                (&json!(last), &json!(PODS))
            );
            break;
        }
    }
    assert!(written > 0 && written < PODS / 3, "{written} versions");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_count_each_pod_once_and_end() {
    let cluster = Cluster::start().await;
    cluster.node("n1").await;
    let job = |name: &str, outcome: &str, spec: serde_json::Value| {
        let mut template = template(name, outcome);
        template["spec"]["restartPolicy"] = json!("Never");
        let mut job = json!({"metadata": {"name": name}, "spec": {"template": template}});
        for (key, value) in spec.as_object().unwrap() {
            job["spec"][key] = value.clone();
        }
        job
    };
    cluster
        .create::<Job>(
            "default",
            job("good", "succeed", json!({"completions": 5, "parallelism": 2})),
        )
        .await;
    cluster
        .create::<Job>("default", job("bad", "fail", json!({"backoffLimit": 0})))
        .await;
    let indexed = json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed"});
    cluster
        .create::<Job>("default", job("indexed", "succeed", indexed))
        .await;
    let brief = json!({"completions": 1, "ttlSecondsAfterFinished": 1});
    cluster.create::<Job>("default", job("brief", "succeed", brief)).await;
    let jobs = cluster.api::<Job>("default");
    let conditions = |job: &Job| -> Vec<String> {
        let all = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
        all.map(|c| format!("{} {}", c.type_, c.reason.clone().unwrap_or_default()))
            .collect()
    };
    cluster
        .until("the good one is complete", || async {
            let found = jobs.get("good").await.unwrap();
            let done = conditions(&found) == ["SuccessCriteriaMet CompletionsReached", "Complete CompletionsReached"];
            let status = found.status.clone().unwrap_or_default();
            let counted = status.succeeded == Some(5) && status.failed.is_none() && status.ready == Some(0);
            holds(done && counted && status.completion_time.is_some(), status)
        })
        .await;
    cluster
        .until("the bad one has failed", || async {
            let found = jobs.get("bad").await.unwrap();
            let done = conditions(&found) == ["FailureTarget BackoffLimitExceeded", "Failed BackoffLimitExceeded"];
            holds(
                done && found.status.as_ref().and_then(|s| s.failed) == Some(1),
                found.status,
            )
        })
        .await;
    cluster
        .until("the indexed one has all indexes", || async {
            let found = jobs.get("indexed").await.unwrap();
            let status = found.status.clone().unwrap_or_default();
            holds(
                status.completed_indexes.as_deref() == Some("0-3") && status.completion_time.is_some(),
                status,
            )
        })
        .await;
    cluster
        .until("the brief one is gone, with its pod", || async {
            let found = jobs.get_opt("brief").await.unwrap();
            let pods = cluster
                .api::<Pod>("default")
                .list(&ListParams::default().labels("app=brief"))
                .await
                .unwrap();
            holds(found.is_none() && pods.items.is_empty(), (found, pods.items.len()))
        })
        .await;
    cluster.stop().await;
}
