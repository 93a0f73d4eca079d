//! Jobs count each of their pods once, and end.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::json;

use crate::cluster::{Cluster, holds, template};

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
