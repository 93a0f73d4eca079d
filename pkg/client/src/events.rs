//! The events recorder: what a component has to tell about an object, as core/v1 Events. Repetitions raise a count instead
//! of making objects, and a noisy object is throttled, as client-go's recorder does.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;

/// Entries remembered for counting; the oldest are forgotten beyond.
const REMEMBERED: usize = 4096;
/// Token bucket per (source, object): a burst of 25, then one in 300 s.
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
/// Events waiting to be written; more are dropped, since telling must never hold up doing.
const QUEUED: usize = 1000;

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
    /// `component` and `host` become the events' source. The writing task ends with the last clone.
    pub fn new(client: kube::Client, component: &str, host: &str) -> Self {
        let (queue, reports) = mpsc::channel(QUEUED);
        let source = EventSource {
            component: Some(component.to_string()),
            host: (!host.is_empty()).then(|| host.to_string()),
        };
        tokio::spawn(write(client, source, reports));
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
            tracing::debug!(reason, "an event was dropped: too many wait to be written");
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    object: String,
    field_path: String,
    type_: &'static str,
    reason: String,
    message: String,
}

struct Known {
    namespace: String,
    name: String,
    count: i32,
    used: Instant,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

async fn write(client: kube::Client, source: EventSource, mut reports: mpsc::Receiver<Report>) {
    let mut known: HashMap<Key, Known> = HashMap::new();
    let mut buckets: HashMap<String, Bucket> = HashMap::new();
    while let Some(report) = reports.recv().await {
        let object = object_id(&report.object);
        if !admit(&mut buckets, &object) {
            continue;
        }
        let key = Key {
            uid: report.object.uid.clone().unwrap_or_default(),
            object,
            field_path: report.object.field_path.clone().unwrap_or_default(),
            type_: report.type_,
            reason: report.reason.clone(),
            message: report.message.clone(),
        };
        if let Some(entry) = known.get_mut(&key) {
            entry.count += 1;
            entry.used = Instant::now();
            let api: Api<Event> = Api::namespaced(client.clone(), &entry.namespace);
            let patch = json!({"count": entry.count, "lastTimestamp": Time(report.at)});
            match api
                .patch(&entry.name, &PatchParams::default(), &Patch::Strategic(patch))
                .await
            {
                Ok(_) => continue,
                // Expired or deleted meanwhile: it is made again.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    tracing::debug!(%error, "an event could not be updated");
                    continue;
                }
            }
        }
        let count = known.get(&key).map_or(1, |entry| entry.count);
        let event = new_event(&source, &report, count);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let name = event.metadata.name.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            tracing::debug!(%error, reason = report.reason, "an event could not be written");
            continue;
        }
        known.insert(
            key,
            Known {
                namespace,
                name,
                count,
                used: Instant::now(),
            },
        );
        if known.len() > REMEMBERED {
            forget_oldest(&mut known);
            buckets.retain(|_, bucket| bucket.filled.elapsed() < Duration::from_secs(3600));
        }
    }
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

/// Forgets a quarter, so that the work is rare.
fn forget_oldest(known: &mut HashMap<Key, Known>) {
    let mut ages: Vec<Instant> = known.values().map(|entry| entry.used).collect();
    ages.sort_unstable();
    if let Some(limit) = ages.get(REMEMBERED / 4).copied() {
        known.retain(|_, entry| entry.used > limit);
    }
}

fn new_event(source: &EventSource, report: &Report, count: i32) -> Event {
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
        last_timestamp: Some(Time(report.at)),
        count: Some(count),
        reporting_component: source.component.clone(),
        reporting_instance: source.host.clone(),
        ..Event::default()
    }
}
