//! The events recorders: what a component has to tell about an object. Repetitions raise a count instead of making objects.
//!
//! Two manners, as upstream's components have them: most count in core/v1, where many that differ in the message alone become one
//! and a noisy object is throttled ([`EventRecorder`]); the scheduler tells of a series in events.k8s.io/v1
//! ([`SeriesRecorder`]). Many are written at once: a scheduler tells of thousands of pods a second, and one request at a time would
//! fall behind for ever.

mod noise;
mod wire;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use mk8s_supervisor::Supervisor;
use mk8s_supervisor::job::{self, JobError, Jobs};
use serde::de::IgnoredAny;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use noise::Noise;
use wire::{Manner, Write};

/// Entries remembered for counting; the oldest are forgotten beyond.
const REMEMBERED: usize = 4096;
/// Requests under way at once: few, so that what is told of waits for no telling, and more as more wait.
const WRITERS: std::ops::RangeInclusive<usize> = 8..=32;
/// So many that wait are a request more.
const WAITING: usize = 64;
/// Events waiting to be written. More are dropped, since telling must never hold up doing; so many wait only while the API
/// server is away.
const QUEUED: usize = 32_768;
/// A series that did not go on for so long is over: its end is written, and the next time another begins.
const OVER: Duration = Duration::from_secs(6 * 60);
/// One that goes on is written so often, lest it expire.
const REFRESHED: Duration = Duration::from_secs(30 * 60);

struct Report {
    object: ObjectReference,
    type_: &'static str,
    reason: String,
    /// Of a series.
    action: &'static str,
    message: String,
    at: Timestamp,
}

/// Records events of one component, with counts; clones share its queue.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Report>,
}

/// Records events of one component, as series; clones share its queue.
#[derive(Clone)]
pub struct SeriesRecorder {
    queue: mpsc::Sender<Report>,
}

impl EventRecorder {
    /// `component` and `host` become the events' source. The writing task ends with the last clone, or after all other tasks of
    /// `owner`, so that what these tell at their end is written too.
    pub fn new(client: kube::Client, component: &str, host: &str, owner: &Supervisor) -> Self {
        let source = EventSource {
            component: Some(component.to_string()),
            host: (!host.is_empty()).then(|| host.to_string()),
        };
        let queue = begin(client, component, Manner::Counts(source), owner);
        EventRecorder { queue }
    }

    /// Tells something of `object`; `type_` is `Normal` or `Warning`. Never blocks.
    pub fn event(&self, object: &ObjectReference, type_: &'static str, reason: &str, message: impl Into<String>) {
        put(&self.queue, object, (type_, reason, ""), message.into());
    }
}

impl SeriesRecorder {
    /// `controller` says what tells, `instance` which one of these. The writing task ends as an [`EventRecorder`]'s.
    pub fn new(client: kube::Client, controller: &str, instance: &str, owner: &Supervisor) -> Self {
        let manner = Manner::Series {
            controller: controller.to_string(),
            instance: instance.to_string(),
        };
        let queue = begin(client, controller, manner, owner);
        SeriesRecorder { queue }
    }

    /// Tells what came of `action` on `object`; `type_` is `Normal` or `Warning`. What is told again within six minutes becomes a
    /// series; another message is another Event, of which one object has no more for each reason than an [`EventRecorder`] tells of it
    /// in all. (Upstream takes another revision of the object for another, whose condition has changed with the message, without a
    /// bound.) Never blocks.
    pub fn event(
        &self,
        object: &ObjectReference,
        type_: &'static str,
        reason: &str,
        action: &'static str,
        message: impl Into<String>,
    ) {
        put(&self.queue, object, (type_, reason, action), message.into());
    }
}

fn begin(client: kube::Client, component: &str, manner: Manner, owner: &Supervisor) -> mpsc::Sender<Report> {
    let (queue, mut reports) = mpsc::channel(QUEUED);
    owner.spawn_trailing(format!("events of {component}"), move |token, overdue| async move {
        loop {
            let mut writer = Writer::new(client.clone(), manner.clone());
            let run = writer.run(&mut reports, &token, &overdue);
            match AssertUnwindSafe(run).catch_unwind().await {
                Ok(()) => return Ok(()),
                // What was counted is lost, and events of it are made anew; what waits is written all the same.
                Err(panic) => drop(job::record_panic("events", panic.as_ref())),
            }
        }
    });
    queue
}

fn put(
    queue: &mpsc::Sender<Report>,
    object: &ObjectReference,
    (type_, reason, action): (&'static str, &str, &'static str),
    message: String,
) {
    let report = Report {
        object: object.clone(),
        type_,
        reason: reason.to_string(),
        action,
        message,
        at: Timestamp::now(),
    };
    if queue.try_send(report).is_err() {
        tracing::warn!(reason, "an event was dropped: too many wait to be written");
    }
}

/// What tells one from another, hashed: it would be as long as the message. Two in 2^64 would be counted as one.
type Key = u64;

/// An Event that this recorder made, or is making.
struct Known {
    /// As it was first told; a count has the last message.
    event: Event,
    count: i32,
    /// When it happened last.
    at: Timestamp,
    used: Instant,
    /// The count that the API server has, and since when.
    written: (i32, Instant),
    /// The count that the request under way writes; none: no request is under way.
    writing: Option<i32>,
}

/// How a request ended.
enum Written {
    Done,
    /// The Event to be counted expired, or was deleted: it is made again.
    Missing,
    Failed,
}

/// Decides what is written, and has it written.
struct Writer {
    client: kube::Client,
    manner: Manner,
    hashes: RandomState,
    known: HashMap<Key, Known>,
    noise: Noise,
    running: Jobs<Key, Written>,
    /// When series are looked at next; none where nothing is known.
    look: Option<Instant>,
}

impl Writer {
    fn new(client: kube::Client, manner: Manner) -> Self {
        Writer {
            client,
            manner,
            hashes: RandomState::new(),
            known: HashMap::new(),
            noise: Noise::default(),
            running: Jobs::default(),
            look: None,
        }
    }

    /// Until no recorder is left, or `token` says that no more is told, and all is written but how long series went on; or it is
    /// overdue.
    async fn run(
        &mut self,
        reports: &mut mpsc::Receiver<Report>,
        token: &CancellationToken,
        overdue: &CancellationToken,
    ) {
        let mut open = true;
        while open || !self.running.is_empty() {
            let look = self.look;
            tokio::select! {
                () = token.cancelled(), if !reports.is_closed() => reports.close(),
                () = overdue.cancelled() => {
                    let (waiting, under_way) = (reports.len(), self.running.len());
                    tracing::warn!(waiting, under_way, "events were dropped: they could not be written in time");
                    return self.running.stop().await;
                }
                report = reports.recv(), if open && self.running.len() < writers(reports.len()) => match report {
                    Some(report) => self.told(report),
                    None => open = false,
                },
                Some((key, ended)) = self.running.next(), if !self.running.is_empty() => self.ended(key, ended),
                () = tokio::time::sleep_until(look.unwrap_or_else(Instant::now)), if look.is_some() => self.look(),
            }
        }
    }

    fn told(&mut self, mut report: Report) {
        let key = match &self.manner {
            Manner::Series { .. } => {
                let key = self.hashes.hash_one((happening(&report), &report.message));
                // What is known makes no object more. Each reason has a bucket of its own: a pod that waited long is scheduled
                // in the end, which is told once.
                let bucket = (object_of(&report.object), &report.reason);
                let is_heard = self.known.contains_key(&key) || self.noise.admit(self.hashes.hash_one(bucket));
                if !is_heard {
                    return;
                }
                key
            }
            Manner::Counts(_) => {
                let object = self.hashes.hash_one(object_of(&report.object));
                if !self.noise.admit(object) {
                    return;
                }
                let any = self.hashes.hash_one(happening(&report));
                if self.noise.is_one_of_many(any, &report.message) {
                    report.message = format!("(combined from similar events): {}", report.message);
                    any
                } else {
                    self.hashes.hash_one((any, &report.message))
                }
            }
        };
        let now = Instant::now();
        let Some(known) = self.known.get_mut(&key) else {
            return self.begin(key, report, now);
        };
        known.count += 1;
        known.at = report.at;
        known.used = now;
        if matches!(self.manner, Manner::Counts(_)) {
            known.event.message = Some(report.message);
        }
        self.tell(key);
    }

    fn begin(&mut self, key: Key, report: Report, now: Instant) {
        let known = Known {
            count: 1,
            at: report.at,
            event: self.manner.first(report),
            used: now,
            written: (0, now),
            writing: None,
        };
        self.known.insert(key, known);
        if matches!(self.manner, Manner::Series { .. }) {
            self.look.get_or_insert(now + OVER);
        }
        self.write(key, Write::Create);
        if self.known.len() > REMEMBERED {
            forget_oldest(&mut self.known);
        }
    }

    /// Writes a count that the API server has not, unless a request is under way, which this follows. Of a series it is told that
    /// it has begun; what comes then is written when it is looked at.
    fn tell(&mut self, key: Key) {
        let Some(known) = self.known.get(&key) else { return };
        let begun = matches!(self.manner, Manner::Series { .. }) && known.written.0 > 1;
        if known.writing.is_none() && known.count != known.written.0 && !begun {
            self.write(key, Write::Count);
        }
    }

    fn ended(&mut self, key: Key, ended: Result<Written, JobError>) {
        let Some(known) = self.known.get_mut(&key) else { return };
        let wrote = known.writing.take();
        match ended {
            Ok(Written::Done) => {
                known.written = (wrote.unwrap_or(known.count), Instant::now());
                self.tell(key);
            }
            Ok(Written::Missing) => self.write(key, Write::Create),
            // The next time it happens it is made anew.
            Ok(Written::Failed) | Err(_) => drop(self.known.remove(&key)),
        }
    }

    /// Writes of series what is not written: of those that are over the end, of others what keeps them from expiring. What is
    /// over and written is forgotten.
    fn look(&mut self) {
        let now = Instant::now();
        let mut due = Vec::new();
        self.known.retain(|key, known| {
            let over = now - known.used >= OVER;
            let waits = known.writing.is_none() && known.count != known.written.0;
            if waits && (over || now - known.written.1 >= REFRESHED) {
                due.push(*key);
            }
            !over || waits || known.writing.is_some()
        });
        let room = WRITERS.end().saturating_sub(self.running.len());
        let next = if due.len() > room { Duration::from_secs(1) } else { OVER };
        for key in due.into_iter().take(room) {
            self.write(key, Write::Count);
        }
        self.look = (!self.known.is_empty()).then(|| now + next);
    }

    fn write(&mut self, key: Key, write: Write) {
        let Some(known) = self.known.get_mut(&key) else { return };
        known.writing = Some(known.count);
        let request = self.manner.request(&known.event, (known.count, known.at), write);
        let client = self.client.clone();
        self.running.spawn("event", key, perform(client, request, write));
    }
}

fn writers(waiting: usize) -> usize {
    (waiting / WAITING).clamp(*WRITERS.start(), *WRITERS.end())
}

async fn perform(
    client: kube::Client,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    write: Write,
) -> Written {
    let result = match request {
        Ok(request) => client.request::<IgnoredAny>(request).await.map(drop),
        Err(error) => Err(kube::Error::BuildRequest(error)),
    };
    match (result, write) {
        (Ok(()), _) => Written::Done,
        (Err(kube::Error::Api(status)), Write::Count) if status.code == 404 => Written::Missing,
        (Err(error), _) => {
            tracing::debug!(%error, "an event could not be written");
            Written::Failed
        }
    }
}

/// What an event is of, as a hash takes it.
fn object_of(object: &ObjectReference) -> [&str; 4] {
    [&object.kind, &object.namespace, &object.name, &object.uid].map(|part| part.as_deref().unwrap_or_default())
}

/// What happened to it, whatever is said of it.
fn happening(report: &Report) -> ([&str; 4], &str, [&str; 3]) {
    let part = report.object.field_path.as_deref().unwrap_or_default();
    (
        object_of(&report.object),
        part,
        [report.type_, &report.reason, report.action],
    )
}

/// Forgets a quarter, so that the work is rare; not what is being written.
fn forget_oldest(known: &mut HashMap<Key, Known>) {
    let mut ages: Vec<Instant> = known.values().map(|entry| entry.used).collect();
    ages.sort_unstable();
    if let Some(limit) = ages.get(REMEMBERED / 4).copied() {
        known.retain(|_, entry| entry.used > limit || entry.writing.is_some());
    }
}

#[cfg(test)]
mod tests;
