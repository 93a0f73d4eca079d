//! The scheduler without its informers: events are handed to it one by one.
#![allow(clippy::unwrap_used)]
use std::convert::Infallible;

use kube::client::Body;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;

#[tokio::test]
async fn room_of_a_binding_that_failed_is_free_unless_the_pod_is_there() {
    let serve = |_| async { Ok::<_, Infallible>(http::Response::new(Body::empty())) };
    let client = Client::new(tower::service_fn(serve), "d");
    let scope = Supervisor::new(CancellationToken::new());
    let pod = |deleted: bool, node: Option<&str>| -> Arc<Pod> {
        let deleted = deleted.then_some("2024-01-01T00:00:00Z");
        let pod = json!({"metadata": {"namespace": "d", "name": "p", "uid": "p", "deletionTimestamp": deleted},
            "spec": {"containers": [{"name": "c"}], "nodeName": node}});
        Arc::new(serde_json::from_value(pod).unwrap())
    };
    for (meanwhile, counted, queued) in [
        (None, false, true),
        (Some(pod(true, None)), false, false),
        (Some(pod(false, Some("n"))), true, false),
        (Some(pod(true, Some("n"))), true, false),
    ] {
        let recorder = SeriesRecorder::new(client.clone(), crate::NAME, "test", &scope);
        let mut state = Scheduler::new(client.clone(), recorder);
        state.pod_applied(pod(false, None));
        let info = state.queue.pop().unwrap();
        state.bind(info.clone(), "n".to_owned());
        if let Some(event) = meanwhile {
            state.pod_applied(event);
        }
        let binding = Binding {
            pod: info,
            node: "n".to_owned(),
        };
        state.bound(binding, Err(JobError::Cancelled { job: "binding" }.into()));
        assert_eq!(state.queue.get("p").is_some(), queued);
        assert_eq!(state.cache.remove_pod("p"), counted);
    }
}

#[tokio::test]
async fn a_wish_that_was_not_weighed_is_told_where_the_pod_is_bound() {
    let (told, mut events) = tokio::sync::mpsc::unbounded_channel();
    let serve = move |request: http::Request<Body>| {
        let told = told.clone();
        async move {
            let body = request.into_body().collect_bytes().await.unwrap();
            let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
            told.send((event["reason"].clone(), event["note"].clone())).unwrap();
            Ok::<_, Infallible>(http::Response::new(Body::from(body.to_vec())))
        }
    };
    let client = Client::new(tower::service_fn(serve), "d");
    let scope = Supervisor::new(CancellationToken::new());
    let recorder = SeriesRecorder::new(client.clone(), crate::NAME, "test", &scope);
    let mut state = Scheduler::new(client, recorder);
    let wish = json!([{"weight": 1, "podAffinityTerm": {"topologyKey": "z"}}]);
    let affinity = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": wish}});
    let pod = json!({"metadata": {"namespace": "d", "name": "p", "uid": "p"},
        "spec": {"containers": [{"name": "c"}], "affinity": affinity}});
    let pod = Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())));
    let node = "n".to_owned();
    state.bound(Binding { pod, node }, Ok(()));
    let mut found = [events.recv().await.unwrap(), events.recv().await.unwrap()];
    found.sort_by_key(|(reason, _)| reason.to_string());
    assert_eq!(found[1].0, "Scheduled");
    let note = "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution: not weighed in this version of mk8s";
    assert_eq!(found[0], (json!("NotWeighed"), json!(note)));
}

/// As resizes do it, of the pod or of what its node has given it.
#[tokio::test]
async fn who_waits_for_room_is_tried_again_when_a_pod_gets_smaller() {
    let serve = |_| async { Ok::<_, Infallible>(http::Response::new(Body::empty())) };
    let client = Client::new(tower::service_fn(serve), "d");
    let scope = Supervisor::new(CancellationToken::new());
    let recorder = SeriesRecorder::new(client.clone(), crate::NAME, "test", &scope);
    let mut state = Scheduler::new(client, recorder);
    let pod = |name: &str, cpu: &str, node: Option<&str>| -> Arc<Pod> {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let pod = json!({"metadata": {"namespace": "d", "name": name, "uid": name},
            "spec": {"containers": [container], "nodeName": node}});
        Arc::new(serde_json::from_value(pod).unwrap())
    };
    let applied = |old: Option<Arc<Pod>>, new: Arc<Pod>| Event::Applied { old, new };
    state.pod_event(applied(None, pod("runs", "4", Some("n"))));
    state.pod_event(applied(None, pod("waits", "3", None)));
    state.schedule_next();
    assert!(!state.queue.has_active(), "no node is there");
    for (before, now, tried) in [("4", "5", false), ("5", "1", true)] {
        state.pod_event(applied(
            Some(pod("runs", before, Some("n"))),
            pod("runs", now, Some("n")),
        ));
        // After its back-off.
        let _ = state.queue.tick(Instant::now() + std::time::Duration::from_secs(60));
        assert_eq!(state.queue.has_active(), tried, "{before} {now}");
    }
}
