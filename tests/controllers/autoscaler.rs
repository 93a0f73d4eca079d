//! Autoscalers follow what is measured, by a source that says what the test wants.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use mk8s_controllers::autoscaler::metrics::{
    Answer, Described, Metric, Metrics, MetricsError, Sample, Samples, Source,
};
use mk8s_controllers::context::Settings;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cluster::{Cluster, deployment, holds};

/// What is measured of each pod, and of all together; nothing while it is None.
#[derive(Default)]
struct Recorded {
    /// Thousandths of a processor, of each pod that the API has.
    cpu: Mutex<Option<i64>>,
    queue: Mutex<Option<i64>>,
    pods: Mutex<Option<Api<Pod>>>,
}

impl Recorded {
    async fn samples(&self, selector: &str, milli: Option<i64>, of: Source) -> Result<Samples, MetricsError> {
        let Some(milli) = milli else {
            return Err(MetricsError::Nothing(of));
        };
        let pods = self.pods.lock().clone().unwrap();
        let pods = pods.list(&ListParams::default().labels(selector)).await.unwrap();
        let sample = |pod: Pod| {
            let (at, window) = (Timestamp::now(), Duration::from_secs(15));
            (pod.metadata.name.unwrap(), Sample { at, window, milli })
        };
        Ok(pods.items.into_iter().map(sample).collect())
    }
}

impl Metrics for Recorded {
    fn resource<'a>(&'a self, _: &'a str, pods: &'a str, resource: &'a str, _: Option<&'a str>) -> Answer<'a, Samples> {
        assert_eq!(resource, "cpu");
        let cpu = *self.cpu.lock();
        self.samples(pods, cpu, Source::Resource).boxed()
    }

    fn pods<'a>(&'a self, _: &'a str, pods: &'a str, _: Metric<'a>) -> Answer<'a, Samples> {
        let queue = *self.queue.lock();
        self.samples(pods, queue, Source::Custom).boxed()
    }

    fn object<'a>(&'a self, _: &'a str, described: Described<'a>, _: Metric<'a>) -> Answer<'a, i64> {
        assert_eq!(
            (described.group, described.plural, described.name),
            ("networking.k8s.io", "ingresses", "main")
        );
        let queue = *self.queue.lock();
        async move { queue.ok_or(MetricsError::Nothing(Source::Custom)) }.boxed()
    }

    fn external<'a>(&'a self, _: &'a str, metric: Metric<'a>) -> Answer<'a, Vec<i64>> {
        assert_eq!((metric.name, metric.selector), ("queued", "q=a"));
        let queue = *self.queue.lock();
        async move { queue.map(|n| vec![n, n]).ok_or(MetricsError::Nothing(Source::External)) }.boxed()
    }
}

fn autoscaler(name: &str, target: &str, spec: &Value) -> Value {
    let mut object = json!({"metadata": {"name": name}, "spec": {"maxReplicas": 8,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}}});
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

fn conditions(found: &HorizontalPodAutoscaler) -> Vec<String> {
    let all = found.status.iter().flat_map(|s| s.conditions.iter().flatten());
    all.map(|c| format!("{} {} {}", c.type_, c.status, c.reason.clone().unwrap_or_default()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_follow_what_is_measured() {
    let recorded = Arc::new(Recorded::default());
    let cluster = Cluster::start_with(Settings {
        metrics: Some(recorded.clone()),
        ..Settings::default()
    })
    .await;
    *recorded.pods.lock() = Some(cluster.api::<Pod>("default"));
    cluster.node("n1").await;
    let mut web = deployment(2, "1");
    web["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}});
    cluster.create::<Deployment>("default", web).await;
    let deployments = cluster.api::<Deployment>("default");
    cluster
        .until("both pods are ready", || async {
            let found = deployments.get("web").await.unwrap().status.unwrap_or_default();
            holds(found.ready_replicas == Some(2), found)
        })
        .await;
    let cpu = json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]});
    cluster
        .create::<HorizontalPodAutoscaler>("default", autoscaler("web", "web", &cpu))
        .await;
    let scalers = cluster.api::<HorizontalPodAutoscaler>("default");
    cluster
        .until("it says that it measures nothing", || async {
            let found = scalers.get("web").await.unwrap();
            let all = conditions(&found);
            let why = found.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == "ScalingActive");
            let why = why.and_then(|c| c.message.clone()).unwrap_or_default();
            let expected = "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API";
            holds(all == ["AbleToScale True SucceededGetScale", "ScalingActive False FailedGetResourceMetric"] && why == expected, (all, why))
        })
        .await;
    // Twice of what it is to be: each change of what it asks for is acted upon at once.
    *recorded.cpu.lock() = Some(100);
    let change = json!({"spec": {"minReplicas": 2}});
    scalers
        .patch("web", &PatchParams::default(), &Patch::Merge(change))
        .await
        .unwrap();
    cluster
        .until("there are twice as many", || async {
            let scaled = deployments.get("web").await.unwrap().spec.unwrap().replicas;
            let status = scalers.get("web").await.unwrap().status.unwrap_or_default();
            let measured = serde_json::to_value(&status.current_metrics).unwrap();
            let expected = json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 100, "averageValue": "100m"}}}]);
            let done = scaled == Some(4) && status.desired_replicas == 4 && status.last_scale_time.is_some();
            holds(done && measured == expected, (scaled, status))
        })
        .await;
    let found = scalers.get("web").await.unwrap();
    let expected = [
        "AbleToScale True SucceededRescale",
        "ScalingActive True ValidMetricFound",
        "ScalingLimited False DesiredWithinRange",
    ];
    assert_eq!(conditions(&found), expected);

    // A second one that selects the same pods: both say so, and neither acts.
    cluster
        .create::<HorizontalPodAutoscaler>("default", autoscaler("again", "web", &cpu))
        .await;
    cluster
        .until("the second one sees the first", || async {
            let all = conditions(&scalers.get("again").await.unwrap());
            holds(all.contains(&"ScalingActive False AmbiguousSelector".to_owned()), all)
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_metrics_count_as_well_and_the_highest_decides() {
    let recorded = Arc::new(Recorded::default());
    let cluster = Cluster::start_with(Settings {
        metrics: Some(recorded.clone()),
        ..Settings::default()
    })
    .await;
    *recorded.pods.lock() = Some(cluster.api::<Pod>("default"));
    *recorded.queue.lock() = Some(30_000);
    cluster.node("n1").await;
    cluster.create::<Deployment>("default", deployment(2, "1")).await;
    let deployments = cluster.api::<Deployment>("default");
    cluster
        .until("both pods are ready", || async {
            let found = deployments.get("web").await.unwrap().status.unwrap_or_default();
            holds(found.ready_replicas == Some(2), found)
        })
        .await;
    let metrics = json!({"minReplicas": 1, "metrics": [
        {"type": "Pods", "pods": {"metric": {"name": "queued"}, "target": {"type": "AverageValue", "averageValue": "30"}}},
        {"type": "Object", "object": {"metric": {"name": "hits"}, "target": {"type": "Value", "value": "20"},
            "describedObject": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main"}}},
        {"type": "External", "external": {"metric": {"name": "queued", "selector": {"matchLabels": {"q": "a"}}}, "target": {"type": "AverageValue", "averageValue": "15"}}},
    ]});
    cluster
        .create::<HorizontalPodAutoscaler>("default", autoscaler("web", "web", &metrics))
        .await;
    let scalers = cluster.api::<HorizontalPodAutoscaler>("default");
    cluster
        .until("the external metric's size is taken", || async {
            let scaled = deployments.get("web").await.unwrap().spec.unwrap().replicas;
            let status = scalers.get("web").await.unwrap().status.unwrap_or_default();
            let measured = serde_json::to_value(&status.current_metrics).unwrap();
            let values: Vec<_> = [
                "/0/pods/current/averageValue",
                "/1/object/current/value",
                "/2/external/current/averageValue",
            ]
            .iter()
            .map(|at| measured.pointer(at).cloned().unwrap_or_default())
            .collect();
            holds(scaled == Some(4) && values == ["30", "30", "30"], (scaled, status))
        })
        .await;
    let active = scalers
        .get("web")
        .await
        .unwrap()
        .status
        .unwrap()
        .conditions
        .unwrap_or_default();
    let active = active
        .into_iter()
        .find(|c| c.type_ == "ScalingActive")
        .and_then(|c| c.message);
    let expected = "the HPA was able to successfully calculate a replica count from external metric queued(&LabelSelector{MatchLabels:map[string]string{q: a,},MatchExpressions:[]LabelSelectorRequirement{},})";
    assert_eq!(active.as_deref(), Some(expected));

    // A target that is not there, and one that someone has set to zero.
    cluster
        .create::<HorizontalPodAutoscaler>("default", autoscaler("lost", "nothing", &metrics))
        .await;
    let zero = json!({"spec": {"replicas": 0}});
    deployments
        .patch("web", &PatchParams::default(), &Patch::Merge(zero))
        .await
        .unwrap();
    let more = json!({"spec": {"maxReplicas": 9}});
    scalers
        .patch("web", &PatchParams::default(), &Patch::Merge(more))
        .await
        .unwrap();
    cluster
        .until("both say why they do nothing", || async {
            let lost = conditions(&scalers.get("lost").await.unwrap());
            let zero = conditions(&scalers.get("web").await.unwrap());
            let done = lost == ["AbleToScale False FailedGetScale"]
                && zero.contains(&"ScalingActive False ScalingDisabled".to_owned());
            holds(done, (lost, zero))
        })
        .await;
    assert_eq!(deployments.get("web").await.unwrap().spec.unwrap().replicas, Some(0));
    cluster.stop().await;
}
