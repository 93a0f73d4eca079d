//! The events recorder: what a component has to tell about an object, as core/v1 Events. Repetitions raise a count instead
//! of making objects, many that differ in the message alone become one, and a noisy object is throttled, as client-go's
//! recorder does. Many are written at once: a scheduler
//! tells of thousands of pods a second, and one request at a time would fall behind for ever.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use mk8s_supervisor::Supervisor;
use mk8s_supervisor::job::{self, JobError, Jobs};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Entries remembered for counting; the oldest are forgotten beyond.
const REMEMBERED: usize = 4096;
/// So many that differ in the message alone, each within so long of the last, and the next are told as one.
const SIMILAR: usize = 10;
const SIMILAR_FOR: Duration = Duration::from_secs(600);
/// Token bucket per (source, object): a burst of 25, then one in 300 s.
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
/// Requests under way at once.
const WRITERS: usize = 32;
/// Events waiting to be written. More are dropped, since telling must never hold up doing; so many wait only while the API
/// server is away.
const QUEUED: usize = 32_768;

struct Report {
    object: ObjectReference,
    type_: &'static str,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Records events of one component; clones share its queue.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Report>,
}

impl EventRecorder {
    /// `component` and `host` become the events' source. The writing task ends with the last clone, or after all other tasks of
    /// `owner`, so that what these tell at their end is written too.
    pub fn new(client: kube::Client, component: &str, host: &str, owner: &Supervisor) -> Self {
        let (queue, mut reports) = mpsc::channel(QUEUED);
        let source = EventSource {
            component: Some(component.to_string()),
            host: (!host.is_empty()).then(|| host.to_string()),
        };
        owner.spawn_trailing(format!("events of {component}"), move |token, overdue| async move {
            loop {
                let mut writer = Writer::new(client.clone(), source.clone());
                let run = writer.run(&mut reports, &token, &overdue);
                match AssertUnwindSafe(run).catch_unwind().await {
                    Ok(()) => return Ok(()),
                    // What was counted is lost, and events of it are made anew; what waits is written all the same.
                    Err(panic) => drop(job::record_panic("events", panic.as_ref())),
                }
            }
        });
        EventRecorder { queue }
    }

    /// Tells something of `object`; `type_` is `Normal` or `Warning`. Never blocks.
    pub fn event(&self, object: &ObjectReference, type_: &'static str, reason: &str, message: impl Into<String>) {
        let report = Report {
            object: object.clone(),
            type_,
            reason: reason.to_string(),
            message: message.into(),
            at: Timestamp::now(),
        };
        if self.queue.try_send(report).is_err() {
            tracing::warn!(reason, "an event was dropped: too many wait to be written");
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    object: String,
    field_path: String,
    type_: &'static str,
    reason: String,
    message: String,
}

/// The messages of events that are the same but for them.
struct Similar {
    messages: HashSet<String>,
    last: Instant,
}

/// An Event that this recorder made, or is making.
struct Known {
    /// As it was first told.
    event: Event,
    count: i32,
    /// When it happened last.
    at: Timestamp,
    used: Instant,
    /// The count that the request under way writes; none: no request is under way.
    writing: Option<i32>,
}

/// What a request does.
#[derive(Clone, Copy)]
enum Write {
    Create,
    Count,
}

/// How a request ended.
enum Written {
    Done,
    /// The Event to be counted expired, or was deleted: it is made again.
    Missing,
    Failed,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// Decides what is written, and has it written.
struct Writer {
    client: kube::Client,
    source: EventSource,
    known: HashMap<Key, Known>,
    /// By their key without a message.
    similar: HashMap<Key, Similar>,
    buckets: HashMap<String, Bucket>,
    running: Jobs<Key, Written>,
}

impl Writer {
    fn new(client: kube::Client, source: EventSource) -> Self {
        Writer {
            client,
            source,
            known: HashMap::new(),
            similar: HashMap::new(),
            buckets: HashMap::new(),
            running: Jobs::default(),
        }
    }

    /// Until no recorder is left, or `token` says that no more is told, and all is written; or it is overdue.
    async fn run(
        &mut self,
        reports: &mut mpsc::Receiver<Report>,
        token: &CancellationToken,
        overdue: &CancellationToken,
    ) {
        let mut open = true;
        while open || !self.running.is_empty() {
            tokio::select! {
                () = token.cancelled(), if !reports.is_closed() => reports.close(),
                () = overdue.cancelled() => {
                    let (waiting, under_way) = (reports.len(), self.running.len());
                    tracing::warn!(waiting, under_way, "events were dropped: they could not be written in time");
                    return self.running.stop().await;
                }
                report = reports.recv(), if open && self.running.len() < WRITERS => match report {
                    Some(report) => self.told(report),
                    None => open = false,
                },
                Some((key, ended)) = self.running.next(), if !self.running.is_empty() => self.ended(key, ended),
            }
        }
    }

    fn told(&mut self, mut report: Report) {
        let object = object_id(&report.object);
        if !admit(&mut self.buckets, &object) {
            return;
        }
        let mut key = Key {
            uid: report.object.uid.clone().unwrap_or_default(),
            object,
            field_path: report.object.field_path.clone().unwrap_or_default(),
            type_: report.type_,
            reason: report.reason.clone(),
            message: String::new(),
        };
        if is_one_of_many(&mut self.similar, &key, &report.message) {
            report.message = format!("(combined from similar events): {}", report.message);
        } else {
            key.message.clone_from(&report.message);
        }
        if let Some(known) = self.known.get_mut(&key) {
            known.count += 1;
            known.event.message = Some(report.message);
            known.at = report.at;
            known.used = Instant::now();
            // Else it follows the request under way.
            if known.writing.is_none() {
                self.write(key, Write::Count);
            }
            return;
        }
        let known = Known {
            event: new_event(&self.source, &report),
            count: 1,
            at: report.at,
            used: Instant::now(),
            writing: None,
        };
        self.known.insert(key.clone(), known);
        self.write(key, Write::Create);
        if self.known.len() > REMEMBERED {
            forget_oldest(&mut self.known);
        }
    }

    fn ended(&mut self, key: Key, ended: Result<Written, JobError>) {
        let Some(known) = self.known.get_mut(&key) else { return };
        let wrote = known.writing.take();
        match ended {
            Ok(Written::Done) if wrote != Some(known.count) => self.write(key, Write::Count),
            Ok(Written::Done) => {}
            Ok(Written::Missing) => self.write(key, Write::Create),
            // The next time it happens it is made anew.
            Ok(Written::Failed) | Err(_) => drop(self.known.remove(&key)),
        }
    }

    fn write(&mut self, key: Key, write: Write) {
        let Some(known) = self.known.get_mut(&key) else { return };
        known.writing = Some(known.count);
        let namespace = known.event.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let event = Event {
            count: Some(known.count),
            last_timestamp: Some(Time(known.at)),
            ..known.event.clone()
        };
        self.running.spawn("event", key, perform(api, event, write));
    }
}

async fn perform(api: Api<Event>, event: Event, write: Write) -> Written {
    let result = match write {
        Write::Create => api.create(&PostParams::default(), &event).await,
        Write::Count => {
            let name = event.metadata.name.as_deref().unwrap_or_default();
            let patch = json!({"count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message});
            let patch = Patch::Strategic(patch);
            api.patch(name, &PatchParams::default(), &patch).await
        }
    };
    match (result, write) {
        (Ok(_), _) => Written::Done,
        (Err(kube::Error::Api(status)), Write::Count) if status.code == 404 => Written::Missing,
        (Err(error), _) => {
            tracing::debug!(%error, reason = event.reason, "an event could not be written");
            Written::Failed
        }
    }
}

/// Whether too many have been told of lately that differ in the message alone.
fn is_one_of_many(similar: &mut HashMap<Key, Similar>, key: &Key, message: &str) -> bool {
    let now = Instant::now();
    if similar.len() >= REMEMBERED {
        let mut ages: Vec<Instant> = similar.values().map(|entry| entry.last).collect();
        ages.sort_unstable();
        let limit = ages[REMEMBERED / 4];
        similar.retain(|_, entry| entry.last > limit);
    }
    let entry = similar.entry(key.clone()).or_insert_with(|| Similar {
        messages: HashSet::new(),
        last: now,
    });
    if now.duration_since(entry.last) > SIMILAR_FOR {
        entry.messages.clear();
    }
    entry.last = now;
    if entry.messages.contains(message) {
        return false;
    }
    let many = entry.messages.len() + 1 >= SIMILAR;
    if !many {
        entry.messages.insert(message.to_string());
    }
    many
}

fn object_id(object: &ObjectReference) -> String {
    let part = |field: &Option<String>| field.clone().unwrap_or_default();
    format!(
        "{}/{}/{}/{}",
        part(&object.kind),
        part(&object.namespace),
        part(&object.name),
        part(&object.uid)
    )
}

fn admit(buckets: &mut HashMap<String, Bucket>, object: &str) -> bool {
    let now = Instant::now();
    if buckets.len() >= REMEMBERED {
        // A quarter, so that the work is rare: those that nobody told anything of for longest.
        let mut filled: Vec<Instant> = buckets.values().map(|bucket| bucket.filled).collect();
        filled.sort_unstable();
        let limit = filled[REMEMBERED / 4];
        buckets.retain(|_, bucket| bucket.filled > limit);
    }
    let bucket = buckets.entry(object.to_string()).or_insert(Bucket {
        tokens: BURST,
        filled: now,
    });
    let refilled = bucket.tokens + now.duration_since(bucket.filled).as_secs_f64() * REFILL_PER_SECOND;
    bucket.tokens = refilled.min(BURST);
    bucket.filled = now;
    if bucket.tokens < 1.0 {
        return false;
    }
    bucket.tokens -= 1.0;
    true
}

/// Forgets a quarter, so that the work is rare; not what is being written.
fn forget_oldest(known: &mut HashMap<Key, Known>) {
    let mut ages: Vec<Instant> = known.values().map(|entry| entry.used).collect();
    ages.sort_unstable();
    if let Some(limit) = ages.get(REMEMBERED / 4).copied() {
        known.retain(|_, entry| entry.used > limit || entry.writing.is_some());
    }
}

fn new_event(source: &EventSource, report: &Report) -> Event {
    let object_name = report.object.name.clone().unwrap_or_default();
    let namespace = report
        .object
        .namespace
        .clone()
        .filter(|namespace| !namespace.is_empty());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{object_name}.{:x}", report.at.as_nanosecond())),
            namespace: Some(namespace.unwrap_or_else(|| "default".into())),
            ..ObjectMeta::default()
        },
        involved_object: report.object.clone(),
        reason: Some(report.reason.clone()),
        message: Some(report.message.clone()),
        type_: Some(report.type_.to_string()),
        source: Some(source.clone()),
        first_timestamp: Some(Time(report.at)),
        reporting_component: source.component.clone(),
        reporting_instance: source.host.clone(),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use axum::Router;
    use axum::body::Bytes;
    use axum::extract::State;
    use http::{Method, StatusCode};
    use parking_lot::Mutex;
    use serde_json::Value;

    use super::*;

    #[test]
    fn buckets_are_as_many_as_events_are_remembered() {
        let mut buckets = HashMap::new();
        for object in 0..3 * REMEMBERED {
            assert!(admit(&mut buckets, &object.to_string()));
        }
        assert!(buckets.len() <= REMEMBERED, "{}", buckets.len());
        assert!(buckets.contains_key(&(3 * REMEMBERED - 1).to_string()));
    }

    #[derive(Default)]
    struct Api {
        /// (name of the reason, count) in the order written.
        written: Mutex<Vec<(String, i64)>>,
        at_once: Mutex<(usize, usize)>,
    }

    async fn answer(State(api): State<Arc<Api>>, method: Method, body: Bytes) -> (StatusCode, String) {
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
        let count = value["count"].as_i64().unwrap();
        api.written.lock().push((seen.to_string(), count));
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
        assert_eq!(api.at_once.lock().1, WRITERS);
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
        let key = Key {
            uid: "u".into(),
            object: "o".into(),
            field_path: String::new(),
            type_: "Normal",
            reason: "R".into(),
            message: String::new(),
        };
        let mut similar = HashMap::new();
        let mut told = |message: usize| is_one_of_many(&mut similar, &key, &message.to_string());
        assert_eq!((0..12).filter(|number| told(*number)).count(), 3);
        assert!(!told(0), "one that is known is counted by itself");
        similar.get_mut(&key).unwrap().last -= SIMILAR_FOR + Duration::from_secs(1);
        assert!(!is_one_of_many(&mut similar, &key, "another"));
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
}
