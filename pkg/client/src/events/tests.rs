#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::noise::SIMILAR_FOR;
use super::*;

#[test]
fn buckets_are_as_many_as_events_are_remembered() {
    let mut noise = Noise::default();
    for object in 0..3 * REMEMBERED as u64 {
        assert!(noise.admit(object));
        assert!(!noise.is_one_of_many(object, "a"));
    }
    let (buckets, similar) = (noise.buckets, noise.similar);
    assert!(buckets.len() <= REMEMBERED, "{}", buckets.len());
    assert!(similar.len() <= REMEMBERED, "{}", similar.len());
    assert!(buckets.contains_key(&(3 * REMEMBERED as u64 - 1)));
}

#[derive(Default)]
struct Api {
    /// (name of the reason, count) in the order written.
    written: Mutex<Vec<(String, i64)>>,
    at_once: Mutex<(usize, usize)>,
    /// Where it was written, and what.
    bodies: Mutex<Vec<(String, Value)>>,
}

async fn answer(State(api): State<Arc<Api>>, method: Method, uri: http::Uri, body: Bytes) -> (StatusCode, String) {
    {
        let mut at_once = api.at_once.lock();
        at_once.0 += 1;
        at_once.1 = at_once.1.max(at_once.0);
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    api.at_once.lock().0 -= 1;
    let value: Value = serde_json::from_slice(&body).unwrap();
    let reason = value["reason"].as_str().unwrap_or_default();
    if reason == "Panic" {
        panic!("as asked");
    }
    let seen = if method == Method::POST { reason } else { "counted" };
    let series = value["series"]["count"].as_i64();
    let count = value["count"].as_i64().or(series).unwrap_or_default();
    api.written.lock().push((seen.to_string(), count));
    api.bodies.lock().push((uri.path().to_string(), value));
    let event = json!({"metadata": {"name": "a", "namespace": "d"}, "involvedObject": {}});
    (StatusCode::OK, event.to_string())
}

fn recorder() -> (EventRecorder, Arc<Api>) {
    recorder_of(&Supervisor::new(CancellationToken::new()))
}

fn recorder_of(owner: &Supervisor) -> (EventRecorder, Arc<Api>) {
    let api = Arc::new(Api::default());
    let router = Router::new().fallback(answer).with_state(api.clone());
    let client = crate::in_process(router, "test");
    (EventRecorder::new(client, "test", "", owner), api)
}

fn object(name: &str) -> ObjectReference {
    ObjectReference {
        namespace: Some("d".into()),
        name: Some(name.into()),
        ..ObjectReference::default()
    }
}

async fn until(api: &Api, enough: impl Fn(&[(String, i64)]) -> bool) {
    for _ in 0..1000 {
        if enough(&api.written.lock()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", api.written.lock());
}

#[tokio::test]
async fn a_burst_is_written_whole_and_many_at_once() {
    let (recorder, api) = recorder();
    for number in 0..3000 {
        recorder.event(&object(&format!("pod-{number}")), "Normal", "Scheduled", "to a");
    }
    until(&api, |written| written.len() == 3000).await;
    assert_eq!(api.at_once.lock().1, *WRITERS.end());
}

#[tokio::test]
async fn some_are_written_few_at_once() {
    let (recorder, api) = recorder();
    for number in 0..300 {
        recorder.event(&object(&format!("pod-{number}")), "Normal", "Scheduled", "to a");
    }
    until(&api, |written| written.len() == 300).await;
    assert_eq!(api.at_once.lock().1, *WRITERS.start());
}

#[tokio::test]
async fn what_repeats_while_it_is_written_becomes_one_count() {
    let (recorder, api) = recorder();
    for _ in 0..5 {
        recorder.event(&object("a"), "Warning", "BackOff", "again");
    }
    until(&api, |written| written.last().is_some_and(|(_, count)| *count == 5)).await;
    let written = api.written.lock();
    assert_eq!(*written, [("BackOff".to_string(), 1), ("counted".to_string(), 5)]);
}

#[tokio::test]
async fn many_that_differ_in_the_message_become_one() {
    let (recorder, api) = recorder();
    for number in 0..15 {
        recorder.event(&object("a"), "Warning", "Failed", format!("try {number}"));
        recorder.event(&object("b"), "Warning", "Failed", "the same");
    }
    let sum = |written: &[(String, i64)]| -> Vec<i64> { written.iter().map(|(_, count)| *count).collect() };
    // Nine alone, then six of the first object's as one; the other's are one from the start.
    until(&api, |written| {
        let counts = sum(written);
        counts.contains(&6) && counts.contains(&15)
    })
    .await;
    let written = api.written.lock();
    assert_eq!(written.iter().filter(|(reason, _)| reason == "Failed").count(), 11);
}

#[test]
fn messages_of_long_ago_are_forgotten() {
    let mut noise = Noise::default();
    let mut told = |message: usize| noise.is_one_of_many(1, &message.to_string());
    assert_eq!((0..12).filter(|number| told(*number)).count(), 3);
    assert!(!told(0), "one that is known is counted by itself");
    noise.similar.get_mut(&1).unwrap().last -= SIMILAR_FOR + Duration::from_secs(1);
    assert!(!noise.is_one_of_many(1, "another"));
}

#[tokio::test]
async fn what_was_told_until_the_end_is_written_before_the_end() {
    let owner = Supervisor::new(CancellationToken::new());
    let (scope, other) = (owner.scope(), owner.scope());
    let (recorder, api) = recorder_of(&scope);
    let teller = recorder.clone();
    scope.spawn("teller", mk8s_supervisor::OnExit::Restart, move |token| {
        let recorder = teller.clone();
        async move {
            token.cancelled().await;
            for number in 0..200 {
                recorder.event(&object(&format!("pod-{number}")), "Normal", "Last", "");
            }
            Ok(())
        }
    });
    recorder.event(&object("a"), "Normal", "First", "");
    let elsewhere = recorder_of(&other);
    assert!(scope.shutdown(Duration::from_secs(8)).await);
    assert_eq!(api.written.lock().len(), 201);
    elsewhere.0.event(&object("a"), "Normal", "After", "");
    until(&elsewhere.1, |written| written.len() == 1).await;
}

#[tokio::test]
async fn the_end_does_not_wait_for_an_api_that_is_away() {
    let owner = Supervisor::new(CancellationToken::new());
    let away = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
    });
    let recorder = EventRecorder::new(kube::Client::new(away, "d"), "test", "", &owner);
    recorder.event(&object("a"), "Normal", "First", "");
    let began = Instant::now();
    assert!(
        owner.shutdown(Duration::from_millis(800)).await,
        "nothing is left behind"
    );
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_panic_is_that_event_s_failure() {
    let (recorder, api) = recorder();
    recorder.event(&object("a"), "Normal", "Panic", "");
    recorder.event(&object("a"), "Normal", "After", "");
    until(&api, |written| written.iter().any(|(reason, _)| reason == "After")).await;
}

fn series() -> (SeriesRecorder, Arc<Api>) {
    let api = Arc::new(Api::default());
    let client = crate::in_process(Router::new().fallback(answer).with_state(api.clone()), "test");
    let owner = Supervisor::new(CancellationToken::new());
    (SeriesRecorder::new(client, "s", "s-host", &owner), api)
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_is_a_series_until_it_is_over() {
    let (recorder, api) = series();
    let told = || recorder.event(&object("a"), "Warning", "FailedScheduling", "Scheduling", "no room");
    let counts = |written: &[(String, i64)]| written.iter().map(|(_, count)| *count).collect::<Vec<_>>();
    told();
    until(&api, |written| written.len() == 1).await;
    told();
    until(&api, |written| written.len() == 2).await;
    // It has begun; that it goes on is not written each time, but before it would expire.
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(100)).await;
        told();
    }
    assert_eq!(
        counts(&api.written.lock()),
        [0, 2, 23],
        "once in more than half an hour"
    );
    tokio::time::sleep(Duration::from_secs(13 * 60)).await;
    assert_eq!(counts(&api.written.lock()), [0, 2, 23, 32], "it is over");
    tokio::time::sleep(Duration::from_secs(7200)).await;
    told();
    until(&api, |written| written.len() == 5).await;

    let bodies = api.bodies.lock();
    let (path, first) = &bodies[0];
    assert_eq!(path, "/apis/events.k8s.io/v1/namespaces/d/events");
    let name = first["metadata"]["name"].as_str().unwrap();
    let told = json!([
        first["note"],
        first["action"],
        first["reportingController"],
        first["reportingInstance"]
    ]);
    assert_eq!(told, json!(["no room", "Scheduling", "s", "s-host"]));
    assert_eq!(bodies[1].0, format!("{path}/{name}"));
    assert_eq!(bodies[1].1.as_object().unwrap().len(), 1, "{}", bodies[1].1);
    assert_ne!(bodies[4].1["metadata"]["name"], name, "another begins");
}

#[tokio::test]
async fn one_object_has_no_more_series_than_counts() {
    let (recorder, api) = series();
    let told = |name: &str, message: String| {
        recorder.event(&object(name), "Warning", "FailedScheduling", "Scheduling", message);
    };
    for nodes in 0..100 {
        told("a", format!("0/{nodes} nodes are available"));
    }
    // It is one that is known, and goes on; another object is heard all the same.
    told("a", "0/0 nodes are available".to_owned());
    told("b", "0/99 nodes are available".to_owned());
    recorder.event(&object("a"), "Normal", "Scheduled", "Binding", "to node-1".to_owned());
    until(&api, |written| written.iter().any(|(reason, _)| reason == "Scheduled")).await;
    until(&api, |written| written.len() >= 28).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let written = api.written.lock();
    let made = written
        .iter()
        .filter(|(reason, _)| reason == "FailedScheduling")
        .count();
    assert_eq!((made, written.len()), (26, 28), "{written:?}");
}

#[tokio::test]
async fn a_series_says_no_more_than_upstream_takes() {
    let (recorder, api) = series();
    recorder.event(
        &object(&"n".repeat(253)),
        "Normal",
        "Scheduled",
        "Binding",
        "é".repeat(1000),
    );
    until(&api, |written| written.len() == 1).await;
    let bodies = api.bodies.lock();
    let (note, name) = (bodies[0].1["note"].as_str().unwrap(), &bodies[0].1["metadata"]["name"]);
    assert!(note.len() <= 1024 && note.ends_with("é ..."), "{}", note.len());
    assert!(name.as_str().unwrap().starts_with("event."), "{name}");
}
