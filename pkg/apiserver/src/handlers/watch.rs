//! watch: a cursor in the resource's ring, written out as fast as the socket takes it. Frames are made once per event
//! and shared; what a burst left is sent as one chunk.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use mk8s_api::codec::{json as text, protobuf};
use mk8s_api::status::Status;
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep};

use super::list;
use crate::call::Call;
use crate::crd::conversion;
use crate::filter::Filter;
use crate::loan::Loan;
use crate::negotiate::{Encoding, Output, STREAMS, Shape};
use crate::object::Object;
use crate::options::ListOptions;
use crate::respond;
use crate::rows::Row;
use crate::state::State;
use crate::table::{self, Look};
use crate::watch_cache::{Event, EventKind, Form, Next, ResourceCache, Snapshot, Watcher};

const CHUNK: usize = 64 << 10;
/// The version in which metadata alone is asked for, as a rule.
const META: &str = "meta.k8s.io/v1";
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

pub async fn watch(call: &Call) -> Result<Response<Body>, Status> {
    let options = ListOptions::parse(&call.query, &call.info)?;
    let filter = Filter::new(&call.row, &call.info, &options)?;
    if call.output.encoding == Encoding::Yaml {
        return Err(Status::not_acceptable(format!(
            "only the following media types are accepted: {}",
            STREAMS.join(", ")
        )));
    }
    let encoder = Encoder::new(call)?;
    let timeout = match options.timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds),
        _ => Duration::from_secs(1800 + u64::from(rand::random::<u16>()) % 1800),
    };
    let mut stream = Stream {
        source: None,
        initial: None,
        scope: Scope { prefix: None, filter },
        encoder,
        deadline: Box::pin(tokio::time::sleep(timeout)),
        bookmark: None,
        events: Vec::new(),
        last_words: None,
        ended: false,
        // A namespace's watch of another resource gets bookmarks of the same revision space.
        allow_bookmarks: options.allow_bookmarks,
        converts: call.row.webhook().map(|_| call.server.clone()),
    };
    if options.allow_bookmarks {
        stream.bookmark = Some(Box::pin(tokio::time::sleep(BOOKMARK_EVERY)));
    }
    start(call, &options, &mut stream).await?;
    let content_type = match call.output.encoding {
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    let mut response = respond::bytes(StatusCode::OK, content_type, Bytes::new());
    // Behind a pointer: it is handed on with each chunk.
    let frames = futures::stream::unfold(Box::new(stream), |mut stream| async move {
        let chunk = stream.next().await?;
        Some((Ok::<_, Infallible>(chunk), stream))
    });
    *response.body_mut() = Body::from_stream(frames);
    Ok(response)
}

/// Decides where the watch begins.
async fn start(call: &Call, options: &ListOptions, stream: &mut Stream) -> Result<(), Status> {
    let Some(cache) = &call.row.cache else {
        return Ok(());
    };
    let namespace = call.info.namespace.as_str();
    let namespaced = call.row.resource.is_namespaced() && !namespace.is_empty();
    if namespaced {
        stream.scope.prefix = Some(cache.list(namespace).prefix().clone());
    }
    let revision = options.revision()?;
    let with_snapshot = match options.send_initial_events {
        Some(wanted) => wanted,
        None => revision.is_none(),
    };
    let indexed = stream.scope.filter.indexed.clone();
    if let Some(revision) = revision {
        // One that does not come is of another store's history, as after the restore of an older backup: events of this
        // one would be taken for known. The client lists again.
        list::wait_for(call, revision).await?;
    }
    if with_snapshot {
        let (snapshot, watcher) = cache.watch_with_snapshot(namespace, indexed.as_deref());
        is_present(call)?;
        let snapshot = converted(call, snapshot, &stream.scope.filter).await?;
        let initial = Initial {
            snapshot,
            after: None,
            bookmark: options.send_initial_events == Some(true) && options.allow_bookmarks,
        };
        stream.initial = Some(Loan::new(&call.server, initial));
        stream.source = Some(watcher);
        return Ok(());
    }
    match revision {
        None => stream.source = Some(cache.watch_with_snapshot(namespace, indexed.as_deref()).1),
        Some(revision) => match cache.watch_from(namespace, revision, indexed.as_deref()) {
            Ok(watcher) => stream.source = Some(watcher),
            Err(oldest) => stream.last_words = Some(too_old(revision, oldest)),
        },
    }
    is_present(call)
}

/// Refuses a watch that began on what the definition made of the resource since the request was routed: nothing would end it,
/// and it would show one version's text as another's. The client begins again.
fn is_present(call: &Call) -> Result<(), Status> {
    match call.row.is_past() {
        true => Err(Status::expired("the definition of this resource has changed")),
        false => Ok(()),
    }
}

/// What there is, in the form of the row's version where a webhook makes that: of what may be picked alone.
async fn converted(call: &Call, snapshot: Snapshot, filter: &Filter) -> Result<Snapshot, Status> {
    if call.row.webhook().is_none() {
        return Ok(snapshot);
    }
    let all = snapshot
        .iter()
        .filter(|object| filter.may_match(object))
        .cloned()
        .collect();
    let shown = conversion::objects(&call.server, &call.row, all).await?;
    Ok(snapshot.with(shown))
}

fn too_old(revision: u64, oldest: u64) -> Status {
    Status::expired(format!("too old resource version: {revision} ({oldest})"))
}

/// Which objects a watch is about.
pub(crate) struct Scope {
    /// Key prefix of the namespace.
    prefix: Option<Arc<str>>,
    filter: Filter,
}

impl Scope {
    /// Of one namespace (empty: all), what a filter picks.
    pub(crate) fn new(cache: &ResourceCache, namespace: &str, filter: Filter) -> Scope {
        let namespaced = cache.resource().is_namespaced() && !namespace.is_empty();
        Scope {
            prefix: namespaced.then(|| cache.list(namespace).prefix().clone()),
            filter,
        }
    }

    fn is_everything(&self) -> bool {
        self.prefix.is_none() && self.filter.is_everything()
    }

    fn is_in_namespace(&self, object: &Object) -> bool {
        self.prefix
            .as_ref()
            .is_none_or(|prefix| object.key.starts_with(&**prefix))
    }

    /// Whether it can be about an object, whatever a webhook makes of it.
    fn may_cover(&self, object: &Object) -> bool {
        self.is_in_namespace(object) && self.filter.may_match(object)
    }

    pub(crate) fn covers(&self, object: &Object) -> bool {
        self.is_in_namespace(object) && self.filter.matches(object)
    }

    /// What an event is to this watcher: entering a selector is ADDED, leaving it DELETED with the last object seen.
    pub(crate) fn sees<'e>(&self, event: &'e Event) -> Option<(EventKind, &'e Arc<Object>)> {
        let before = event.old.as_ref().filter(|old| self.covers(old));
        let now = event.kind != EventKind::Deleted && self.covers(&event.object);
        match (before, now) {
            (None, false) => None,
            (None, true) => Some((EventKind::Added, &event.object)),
            (Some(_), true) => Some((event.kind, &event.object)),
            (Some(old), false) => Some((EventKind::Deleted, old)),
        }
    }
}

struct Initial {
    snapshot: Snapshot,
    after: Option<Arc<str>>,
    /// Whether the closing bookmark was asked for.
    bookmark: bool,
}

impl Initial {
    /// Writes a chunk; whether it was the last.
    fn put_chunk(&mut self, scope: &Scope, encoder: &mut Encoder, chunk: &mut Vec<u8>) -> Result<bool, Status> {
        let everything = scope.filter.is_everything();
        let after = self.after.take();
        for object in self.snapshot.iter_after(after.as_deref()) {
            if !everything && !scope.filter.matches(object) {
                continue;
            }
            encoder.put(chunk, EventKind::Added, object, object.revision)?;
            if chunk.len() >= CHUNK {
                self.after = Some(object.key.clone());
                return Ok(false);
            }
        }
        if self.bookmark {
            encoder.bookmark(chunk, self.snapshot.revision, true)?;
        }
        Ok(true)
    }
}

struct Stream {
    source: Option<Watcher>,
    initial: Option<Loan<Initial>>,
    scope: Scope,
    encoder: Encoder,
    deadline: Pin<Box<Sleep>>,
    bookmark: Option<Pin<Box<Sleep>>>,
    events: Vec<Arc<Event>>,
    last_words: Option<Status>,
    ended: bool,
    allow_bookmarks: bool,
    /// What the webhook is called by that makes the row's form of each object; None where there is none to call.
    converts: Option<Arc<State>>,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.ended {
                return None;
            }
            if let Some(status) = self.last_words.take() {
                self.ended = true;
                return Some(self.encoder.error(&status));
            }
            if let Some(initial) = self.initial.take() {
                let chunk = self.initial_chunk(initial);
                if !chunk.is_empty() {
                    return Some(chunk.into());
                }
                continue;
            }
            // Who is never caught up waits for nothing; what he may see was asked for this long only.
            if Instant::now() >= self.deadline.deadline() {
                self.ended = true;
                continue;
            }
            self.take();
            if let Err(status) = self.convert().await {
                self.last_words = Some(status);
                continue;
            }
            if let Some(chunk) = self.ready() {
                return Some(chunk);
            }
            if !self.events.is_empty() || self.last_words.is_some() || self.ended {
                continue;
            }
            if let Some(chunk) = self.wait().await {
                return Some(chunk);
            }
        }
    }

    /// What the watch begins with, chunk by chunk; it is kept until nothing is left of it.
    fn initial_chunk(&mut self, loan: Loan<Initial>) -> Vec<u8> {
        let mut chunk = Vec::new();
        let (scope, encoder) = (&self.scope, &mut self.encoder);
        let done = loan.with(|initial| initial.put_chunk(scope, encoder, &mut chunk));
        match done {
            Some(Ok(true)) => {}
            Some(Ok(false)) => self.initial = Some(loan),
            Some(Err(status)) => self.last_words = Some(status),
            None => self.last_words = Some(Status::expired("the watch was not read in time; list again")),
        }
        chunk
    }

    /// Takes what there is; leaves `events` non-empty when events were taken, shown or not.
    fn take(&mut self) {
        self.events.clear();
        let Some(watcher) = &mut self.source else { return };
        match watcher.take(&mut self.events) {
            Next::Events => {}
            Next::Ended => self.ended = true,
            Next::TooOld => {
                self.last_words = Some(Status::expired(
                    "the watch fell behind what is kept of the history; list again",
                ));
            }
        }
    }

    /// Events of objects that only a webhook can show are told in the form it gives them, what was before as well: by it is
    /// decided whether the client saw it.
    async fn convert(&mut self) -> Result<(), Status> {
        let Some(state) = &self.converts else { return Ok(()) };
        let scope = &self.scope;
        self.events.retain(|event| scope.may_cover(&event.object));
        let before = |event: &Event| event.old.clone().filter(|old| !Arc::ptr_eq(old, &event.object));
        let all = self.events.iter();
        let all = all.flat_map(|event| std::iter::once(event.object.clone()).chain(before(event)));
        let shown = conversion::objects(state, &self.encoder.row, all.collect()).await?;
        let mut shown = shown.into_iter();
        for event in &mut self.events {
            let object = shown.next().unwrap_or_else(|| event.object.clone());
            let old = match before(event) {
                Some(_) => shown.next(),
                None => event.old.as_ref().map(|_| object.clone()),
            };
            let at = std::time::Instant::now();
            *event = Arc::new(Event::new(event.kind, event.revision, object, old, at));
        }
        Ok(())
    }

    /// What can be sent of the events that were taken.
    fn ready(&mut self) -> Option<Bytes> {
        let mut chunk = Chunk::default();
        let everything = self.scope.is_everything();
        for event in &self.events {
            let (kind, object) = if everything {
                (event.kind, &event.object)
            } else {
                match self.scope.sees(event) {
                    Some(seen) => seen,
                    None => continue,
                }
            };
            let own = kind == event.kind && Arc::ptr_eq(object, &event.object);
            let put = match self.encoder.form.filter(|_| own) {
                Some(form) => self.encoder.frame(form, event).map(|frame| chunk.add(frame)),
                None => self.encoder.put(chunk.text(), kind, object, event.revision),
            };
            if let Err(status) = put {
                // Not one event is left out in silence: the client hears why, and lists again.
                self.last_words = Some(status);
                break;
            }
        }
        let chunk = chunk.finish()?;
        // Who reads slowly holds on to his chunk, not to the objects that it was made of.
        self.events.clear();
        Some(chunk)
    }

    async fn wait(&mut self) -> Option<Bytes> {
        let Stream {
            source,
            deadline,
            bookmark,
            ..
        } = self;
        let changed = async {
            match source {
                Some(watcher) => watcher.changed().await,
                None => std::future::pending().await,
            }
        };
        let tick = async {
            match bookmark {
                Some(sleep) => sleep.as_mut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = changed => return None,
            () = deadline.as_mut() => self.ended = true,
            () = tick => {}
        }
        if let Some(sleep) = &mut self.bookmark {
            sleep.as_mut().reset(Instant::now() + BOOKMARK_EVERY);
        }
        let revision = self.source.as_ref().and_then(Watcher::caught_up)?;
        if !self.allow_bookmarks {
            return None;
        }
        let mut chunk = Vec::new();
        match self.encoder.bookmark(&mut chunk, revision, false) {
            Ok(()) => Some(chunk.into()),
            Err(status) => {
                self.last_words = Some(status);
                None
            }
        }
    }
}

/// What is sent at once: one event's shared frame as it is, several in a text of their own.
#[derive(Default)]
struct Chunk {
    only: Option<Bytes>,
    text: Vec<u8>,
}

impl Chunk {
    fn add(&mut self, frame: Bytes) {
        if self.only.is_none() && self.text.is_empty() {
            self.only = Some(frame);
        } else {
            self.text().extend_from_slice(&frame);
        }
    }

    /// The text so far, to be added to.
    fn text(&mut self) -> &mut Vec<u8> {
        if let Some(only) = self.only.take() {
            self.text.reserve(only.len() * 2);
            self.text.extend_from_slice(&only);
        }
        &mut self.text
    }

    fn finish(self) -> Option<Bytes> {
        self.only.or_else(|| (!self.text.is_empty()).then(|| self.text.into()))
    }
}

/// Writes events the way one client wants them.
struct Encoder {
    row: Arc<Row>,
    output: Output,
    look: Look,
    /// The form in which all who ask for the same get an event; none where it is made for this one.
    form: Option<Form>,
    /// Column definitions are sent with the first table only, as upstream does.
    columns_sent: bool,
}

impl Encoder {
    fn new(call: &Call) -> Result<Encoder, Status> {
        let look = table::look(call.output, &call.query)?;
        Ok(Encoder {
            row: call.row.clone(),
            output: call.output,
            look,
            form: match (call.output.encoding, call.output.shape) {
                (Encoding::Protobuf, Shape::Object) => call.row.shows_stored().then_some(Form::Protobuf),
                (_, Shape::Object) => call.row.shows_stored().then_some(Form::Json),
                (Encoding::Json, Shape::Metadata | Shape::MetadataList) if look.api_version == META => {
                    Some(Form::Metadata)
                }
                _ => None,
            },
            columns_sent: false,
        })
    }

    /// Writes an event as the row shows it.
    fn put(&mut self, chunk: &mut Vec<u8>, kind: EventKind, object: &Arc<Object>, revision: u64) -> Result<(), Status> {
        match self.form {
            Some(Form::Json) => {
                chunk.reserve(object.sent_len() + 48);
                put_frame(chunk, kind.as_str(), |chunk| object.print_at(revision, chunk));
                return Ok(());
            }
            Some(Form::Protobuf) => return self.put_protobuf(chunk, kind, object, revision),
            Some(Form::Metadata) => {
                let text = object.partial_metadata(revision, self.look.api_version)?;
                put_frame(chunk, kind.as_str(), |chunk| chunk.extend_from_slice(&text));
                return Ok(());
            }
            None => {}
        }
        let mut value = object.whole()?;
        if revision != object.revision {
            mk8s_api::meta::set(&mut value, &["metadata", "resourceVersion"], revision.to_string());
        }
        let shown = match self.output.shape {
            Shape::Object => self.row.show(value),
            Shape::Metadata | Shape::MetadataList => table::partial_metadata(value, self.look),
            Shape::Table => self.table(&value),
        };
        self.put_value(chunk, kind.as_str(), &shown)
    }

    /// An event as every watcher of this form gets it.
    fn frame(&mut self, form: Form, event: &Event) -> Result<Bytes, Status> {
        event.frame(form, || {
            let mut frame = Vec::new();
            self.put(&mut frame, event.kind, &event.object, event.revision)?;
            Ok(frame.into())
        })
    }

    /// The stored version in protobuf: the object keeps its own encoded form.
    fn put_protobuf(&self, chunk: &mut Vec<u8>, kind: EventKind, object: &Object, revision: u64) -> Result<(), Status> {
        let frame = |raw: &[u8]| protobuf::watch_frame(kind.as_str(), &self.row.api_version, self.row.kind(), raw);
        if revision == object.revision {
            let item = object.proto_item()?;
            chunk.extend_from_slice(&frame(protobuf::item_raw(item)));
        } else {
            chunk.extend_from_slice(&frame(&object.proto_at(revision)?));
        }
        Ok(())
    }

    fn table(&mut self, stored: &Value) -> Value {
        let mut table = table::of_one(&self.row, stored, self.look);
        if self.columns_sent {
            table["columnDefinitions"] = Value::Null;
        }
        self.columns_sent = true;
        table
    }

    fn put_value(&self, chunk: &mut Vec<u8>, kind: &str, value: &Value) -> Result<(), Status> {
        if self.output.encoding != Encoding::Protobuf {
            put_frame(chunk, kind, |chunk| text::print(value, chunk));
            return Ok(());
        }
        let (api_version, own) = (mk8s_api::meta::api_version(value), mk8s_api::meta::kind(value));
        let schema = mk8s_api::schema::by_api_version(api_version, own)
            .ok_or_else(|| Status::not_acceptable(format!("{own} has no protobuf form")))?;
        let raw = protobuf::encode_raw(schema, value)
            .map_err(|error| Status::internal(format!("encoding an event of {own}: {error}")))?;
        chunk.extend_from_slice(&protobuf::watch_frame(kind, api_version, own, &raw));
        Ok(())
    }

    fn bookmark(&mut self, chunk: &mut Vec<u8>, revision: u64, initial_end: bool) -> Result<(), Status> {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let value = match self.output.shape {
            Shape::Object => json!({"kind": self.row.kind(), "apiVersion": self.row.api_version, "metadata": metadata}),
            Shape::Metadata | Shape::MetadataList => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": self.look.api_version, "metadata": metadata})
            }
            // A row like any other, of an object that is nothing else.
            Shape::Table => {
                let object = json!({"kind": self.row.kind(), "apiVersion": self.row.api_version, "metadata": metadata});
                self.table(&object)
            }
        };
        self.put_value(chunk, "BOOKMARK", &value)
    }

    /// The last event of a watch; nothing where not even that can be written.
    fn error(&self, status: &Status) -> Bytes {
        let mut chunk = Vec::new();
        if let Err(error) = self.put_value(&mut chunk, "ERROR", &status.to_value()) {
            tracing::error!(%error, "a watch ends without its error");
        }
        chunk.into()
    }
}

/// A line of a JSON watch: `{"type":"ADDED","object":…}`.
fn put_frame(chunk: &mut Vec<u8>, kind: &str, object: impl FnOnce(&mut Vec<u8>)) {
    chunk.extend_from_slice(b"{\"type\":\"");
    chunk.extend_from_slice(kind.as_bytes());
    chunk.extend_from_slice(b"\",\"object\":");
    object(chunk);
    chunk.extend_from_slice(b"}\n");
}
