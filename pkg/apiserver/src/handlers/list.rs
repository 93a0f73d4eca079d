//! list: streamed out of a snapshot as the socket takes it; pages pinned to the first page's revision.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, VARY};
use http::{HeaderValue, Response, StatusCode};
use http_body::Frame;
use mk8s_api::codec::protobuf;
use mk8s_api::status::Status;
use serde_json::{Value, json};

use super::Call;
use crate::filter::Filter;
use crate::negotiate::{Encoding, Shape};
use crate::object::Object;
use crate::options::{ListOptions, Match};
use crate::respond;
use crate::rows::Row;
use crate::table::{self, Include};
use crate::watch_cache::Snapshot;

/// A chunk of a list's body. Big enough that its cost is the copy, small enough to be reused by the allocator.
const CHUNK: usize = 96 << 10;
/// How long a list waits for a revision that is still to come.
const PATIENCE: Duration = Duration::from_secs(3);

pub async fn list(call: &Call) -> Result<Response<Body>, Status> {
    let options = ListOptions::parse(&call.query, false)?;
    let Some(cache) = &call.row.cache else {
        return respond_list(call, Page::default());
    };
    let filter = Filter::new(&call.row, &options)?;
    let namespace = call.info.namespace.as_str();
    if let Some(page) = by_index(call, &options, &filter) {
        return respond_list(call, page);
    }
    let (snapshot, after, left) = if options.continue_token.is_empty() {
        let snapshot = match snapshot_for(call, &options).await? {
            Some(revision) => cache.at(namespace, revision).ok_or_else(too_old)?,
            None => cache.list(namespace),
        };
        (snapshot, None, None)
    } else {
        resume(call, &options)?
    };
    let mut page = Page {
        revision: snapshot.revision,
        ..Page::default()
    };
    if let (Some(name), false) = (filter.name(), namespace.is_empty() && call.row.resource.is_namespaced()) {
        let key = cache.key(namespace, name);
        let found = snapshot.get(&key).filter(|object| filter.matches(object)).cloned();
        page.source = Source::Items(found.into_iter().collect::<Vec<_>>().into_iter());
    } else if options.limit == 0 {
        page.source = Source::Snapshot {
            snapshot,
            after,
            filter,
        };
    } else {
        take_page(&mut page, &snapshot, after, &filter, options.limit, left);
        if !page.continue_token.is_empty() {
            cache.pin(&snapshot);
            call.server.schedule_pin_expiry();
        }
    }
    respond_list(call, page)
}

/// A node's own pods, now: by the index, without a look at all the others.
fn by_index(call: &Call, options: &ListOptions, filter: &Filter) -> Option<Page> {
    let plain = options.limit == 0
        && options.continue_token.is_empty()
        && matches!(options.resource_version.as_str(), "" | "0");
    let value = filter.indexed.as_deref().filter(|_| plain)?;
    let cache = call.row.cache.as_ref()?;
    let (mut objects, revision) = cache.list_indexed(&call.info.namespace, value)?;
    objects.retain(|object| filter.matches(object));
    Some(Page {
        revision,
        source: Source::Items(objects.into_iter()),
        ..Page::default()
    })
}

/// The past revision to show; None: now. Waits for one that is not there yet.
async fn snapshot_for(call: &Call, options: &ListOptions) -> Result<Option<u64>, Status> {
    let Some(revision) = options.revision()? else {
        return Ok(None);
    };
    let cache = call.server.cache();
    if revision > cache.revision() && !cache.wait_for(revision, PATIENCE).await {
        return Err(too_new(revision, cache.revision()));
    }
    let exact = match options.version_match {
        Match::Exact => true,
        Match::NotOlderThan => false,
        // Upstream's legacy rule: a limit makes an unset match exact.
        Match::Unset => options.limit > 0,
    };
    Ok(exact.then_some(revision))
}

pub fn too_new(revision: u64, current: u64) -> Status {
    let mut status = Status::timeout(format!("Too large resource version: {revision}, current: {current}"));
    status.retry_after = Some(1);
    status.details = Some(json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }));
    status
}

fn too_old() -> Status {
    Status::expired("The resourceVersion for the provided list is too old.")
}

/// Where a continue token leads: snapshot, last key seen, objects left.
type Resumed = (Snapshot, Option<Arc<str>>, Option<usize>);

fn resume(call: &Call, options: &ListOptions) -> Result<Resumed, Status> {
    if !matches!(options.resource_version.as_str(), "" | "0") {
        return Err(Status::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    let token = Token::decode(&options.continue_token).ok_or_else(|| {
        Status::bad_request("continue key is not valid: illegal base64 data or not a token of this server")
    })?;
    let cache = call.cache()?;
    let namespace = call.info.namespace.as_str();
    let Some(revision) = token.revision else {
        let snapshot = cache.list(namespace);
        let after = after_key(&snapshot, &token.start);
        return Ok((snapshot, after, None));
    };
    let Some(snapshot) = cache.at(namespace, revision) else {
        let mut status = Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
             the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
             Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
             deleted between the time the first chunk was returned and now may show up in the list.",
        );
        status.continue_token = Some(
            Token {
                revision: None,
                ..token
            }
            .encode(),
        );
        return Err(status);
    };
    let after = after_key(&snapshot, &token.start);
    Ok((snapshot, after, token.left))
}

fn after_key(snapshot: &Snapshot, start: &str) -> Option<Arc<str>> {
    let start = start.strip_suffix('\0').unwrap_or(start);
    Some(format!("{}{start}", snapshot.prefix()).into())
}

/// The continue token, in upstream's form with one field more.
struct Token {
    /// None: inconsistent, the rest as it is now.
    revision: Option<u64>,
    /// What follows the list's prefix in the last key shown, and a NUL.
    start: String,
    left: Option<usize>,
}

impl Token {
    fn encode(&self) -> String {
        let revision = self
            .revision
            .map_or(-1, |revision| i64::try_from(revision).unwrap_or(i64::MAX));
        let mut token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": self.start});
        if let Some(left) = self.left {
            token["left"] = left.into();
        }
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn decode(text: &str) -> Option<Token> {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        let token: Value = serde_json::from_slice(&bytes.ok()?).ok()?;
        (token["v"] == "meta.k8s.io/v1").then_some(())?;
        let start = token["start"].as_str()?;
        (!start.contains("..")).then_some(())?;
        Some(Token {
            revision: u64::try_from(token["rv"].as_i64()?).ok(),
            start: start.to_string(),
            left: token["left"].as_u64().and_then(|left| usize::try_from(left).ok()),
        })
    }
}

/// What one answer shows.
#[derive(Default)]
struct Page {
    revision: u64,
    continue_token: String,
    remaining: Option<u64>,
    source: Source,
}

fn take_page(
    page: &mut Page,
    snapshot: &Snapshot,
    after: Option<Arc<str>>,
    filter: &Filter,
    limit: usize,
    left: Option<usize>,
) {
    let mut matching = snapshot
        .iter_after(after.as_deref())
        .filter(|object| filter.matches(object));
    let items: Vec<Arc<Object>> = matching.by_ref().take(limit).cloned().collect();
    if matching.next().is_some() {
        let start = items.last().map_or("", |last| &last.key[snapshot.prefix().len()..]);
        // With a selector upstream does not count either.
        let left = filter.is_everything().then(|| {
            let before = left.unwrap_or_else(|| snapshot.count_after(after.as_deref()));
            before.saturating_sub(items.len())
        });
        page.remaining = left.map(|left| left as u64);
        page.continue_token = Token {
            revision: Some(snapshot.revision),
            start: format!("{start}\0"),
            left,
        }
        .encode();
    }
    page.source = Source::Items(items.into_iter());
}

fn respond_list(call: &Call, page: Page) -> Result<Response<Body>, Status> {
    let output = call.output;
    match (output.encoding, output.shape) {
        (Encoding::Protobuf, Shape::Object) if call.row.shows_stored() => protobuf_list(call, page),
        (Encoding::Json, _) if !output.pretty => Ok(json_list(call, page)),
        _ => {
            // Rarely asked for: the JSON text, read back and printed in the other form.
            let mut list = Lister::json(call, page);
            let mut text = Vec::new();
            while let Some(chunk) = list.chunk() {
                text.extend_from_slice(&chunk);
            }
            let value = serde_json::from_slice(&text).map_err(|error| Status::internal(error.to_string()))?;
            respond::value(StatusCode::OK, output, value)
        }
    }
}

fn json_list(call: &Call, page: Page) -> Response<Body> {
    let mut list = Lister::json(call, page);
    let first = list.chunk().unwrap_or_default();
    if list.state == State::Done {
        return respond::bytes(StatusCode::OK, "application/json", first);
    }
    stream(call, list, first, "application/json")
}

fn protobuf_list(call: &Call, page: Page) -> Result<Response<Body>, Status> {
    let objects: Vec<Arc<Object>> = page.source.collect();
    let mut length = 0;
    for object in &objects {
        length += respond::proto_item(&call.row, object)?.len();
    }
    let revision = page.revision.to_string();
    let meta = protobuf::ListMeta {
        resource_version: &revision,
        continue_token: &page.continue_token,
        remaining_item_count: page.remaining.and_then(|remaining| i64::try_from(remaining).ok()),
    };
    let head = protobuf::list_head(&call.row.api_version, &call.row.resource.list_kind, &meta, length);
    let mut list = Lister {
        source: Source::Items(objects.into_iter()),
        state: State::Head(head),
        item: Item::Protobuf,
        row: call.row.clone(),
        first: true,
    };
    let first = list.chunk().unwrap_or_default();
    let content_type = Encoding::Protobuf.content_type();
    if list.state == State::Done {
        return Ok(respond::bytes(StatusCode::OK, content_type, first));
    }
    Ok(stream(call, list, first, content_type))
}

/// A body of more than one chunk, compressed where the client takes that.
fn stream(call: &Call, list: Lister, first: Bytes, content_type: &'static str) -> Response<Body> {
    let mut response = respond::bytes(StatusCode::OK, content_type, Bytes::new());
    let first = Some(first);
    if call.output.gzip {
        let headers = response.headers_mut();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        let encoder = flate2::write::GzEncoder::new(Vec::with_capacity(CHUNK), flate2::Compression::fast());
        *response.body_mut() = Body::new(ListBody {
            list,
            first,
            gzip: Some(encoder),
        });
    } else {
        *response.body_mut() = Body::new(ListBody {
            list,
            first,
            gzip: None,
        });
    }
    response
}

/// Where a list's objects come from.
enum Source {
    Items(std::vec::IntoIter<Arc<Object>>),
    Snapshot {
        snapshot: Snapshot,
        after: Option<Arc<str>>,
        filter: Filter,
    },
}

impl Default for Source {
    fn default() -> Self {
        Source::Items(Vec::new().into_iter())
    }
}

impl Source {
    fn collect(self) -> Vec<Arc<Object>> {
        match self {
            Source::Items(items) => items.collect(),
            Source::Snapshot {
                snapshot,
                after,
                filter,
            } => snapshot
                .iter_after(after.as_deref())
                .filter(|object| filter.matches(object))
                .cloned()
                .collect(),
        }
    }

    /// Hands objects to `put` until it says that it has enough; false when there are none left.
    fn feed(&mut self, mut put: impl FnMut(&Arc<Object>) -> bool) -> bool {
        match self {
            Source::Items(items) => {
                for object in items.by_ref() {
                    if !put(&object) {
                        return true;
                    }
                }
                false
            }
            Source::Snapshot {
                snapshot,
                after,
                filter,
            } => {
                let mut last = None;
                let matching = snapshot
                    .iter_after(after.as_deref())
                    .filter(|object| filter.matches(object));
                for object in matching {
                    if !put(object) {
                        last = Some(object.key.clone());
                        break;
                    }
                }
                match last {
                    Some(key) => {
                        *after = Some(key);
                        true
                    }
                    None => false,
                }
            }
        }
    }
}

#[derive(PartialEq)]
enum State {
    Head(Vec<u8>),
    Items,
    Done,
}

/// How one object is written.
enum Item {
    /// The stored bytes.
    Json,
    /// As the row shows it.
    Shown,
    Metadata,
    Row(Include),
    Protobuf,
}

/// Writes a list chunk by chunk.
struct Lister {
    source: Source,
    state: State,
    item: Item,
    row: Arc<Row>,
    first: bool,
}

impl Lister {
    fn json(call: &Call, page: Page) -> Lister {
        let row = &call.row;
        let mut meta = json!({"resourceVersion": page.revision.to_string()});
        if !page.continue_token.is_empty() {
            meta["continue"] = page.continue_token.into();
        }
        if let Some(remaining) = page.remaining {
            meta["remainingItemCount"] = remaining.into();
        }
        let (item, kind, api_version) = match call.output.shape {
            Shape::Object if row.shows_stored() => (Item::Json, &*row.resource.list_kind, row.api_version.as_str()),
            Shape::Object => (Item::Shown, &*row.resource.list_kind, row.api_version.as_str()),
            Shape::Metadata => (Item::Metadata, "PartialObjectMetadataList", "meta.k8s.io/v1"),
            Shape::Table => (Item::Row(table::include(&call.query)), "Table", "meta.k8s.io/v1"),
        };
        let mut head =
            format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{meta},").into_bytes();
        if matches!(item, Item::Row(_)) {
            head.extend_from_slice(format!("\"columnDefinitions\":{},\"rows\":[", table::columns(row)).as_bytes());
        } else {
            head.extend_from_slice(b"\"items\":[");
        }
        Lister {
            source: page.source,
            state: State::Head(head),
            item,
            row: row.clone(),
            first: true,
        }
    }

    fn chunk(&mut self) -> Option<Bytes> {
        let mut chunk = match std::mem::replace(&mut self.state, State::Items) {
            State::Head(head) => head,
            State::Items => Vec::with_capacity(CHUNK + (4 << 10)),
            State::Done => {
                self.state = State::Done;
                return None;
            }
        };
        let (item, row, first) = (&self.item, &self.row, &mut self.first);
        let more = self.source.feed(|object| {
            if !*first && !matches!(item, Item::Protobuf) {
                chunk.push(b',');
            }
            *first = false;
            write_item(&mut chunk, item, row, object);
            chunk.len() < CHUNK
        });
        if !more {
            match self.item {
                Item::Protobuf => chunk.extend_from_slice(protobuf::TAIL),
                _ => chunk.extend_from_slice(b"]}\n"),
            }
            self.state = State::Done;
        }
        Some(chunk.into())
    }
}

fn write_item(chunk: &mut Vec<u8>, item: &Item, row: &Row, object: &Arc<Object>) {
    let value = match item {
        Item::Json => {
            chunk.extend_from_slice(&object.json);
            return;
        }
        Item::Protobuf => {
            // Encoded before the head was written: the lengths in it are of these bytes.
            if let Ok(item) = respond::proto_item(row, object) {
                chunk.extend_from_slice(&item);
            }
            return;
        }
        Item::Shown => row.show(object.value()),
        Item::Metadata => table::partial_metadata(row.show(object.value())),
        Item::Row(include) => table::row(row, &row.show(object.value()), *include),
    };
    if serde_json::to_writer(&mut *chunk, &value).is_err() {
        chunk.extend_from_slice(b"null");
    }
}

struct ListBody {
    list: Lister,
    first: Option<Bytes>,
    gzip: Option<flate2::write::GzEncoder<Vec<u8>>>,
}

impl ListBody {
    fn next(&mut self) -> Option<Bytes> {
        use std::io::Write;
        if self.gzip.is_none() {
            return self.first.take().or_else(|| self.list.chunk());
        }
        loop {
            let plain = self.first.take().or_else(|| self.list.chunk());
            let Some(plain) = plain else {
                let encoder = self.gzip.take()?;
                self.list.state = State::Done;
                return encoder.finish().ok().map(Bytes::from);
            };
            let encoder = self.gzip.as_mut()?;
            encoder.write_all(&plain).ok()?;
            if encoder.get_ref().len() >= CHUNK / 2 {
                let full = std::mem::replace(encoder.get_mut(), Vec::with_capacity(CHUNK));
                return Some(full.into());
            }
        }
    }
}

impl http_body::Body for ListBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.get_mut().next().map(|chunk| Ok(Frame::data(chunk))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_come_back() {
        let token = Token {
            revision: Some(7),
            start: "ns/a\0".into(),
            left: Some(3),
        };
        let back = Token::decode(&token.encode()).unwrap();
        assert_eq!(
            (back.revision, back.start.as_str(), back.left),
            (Some(7), "ns/a\0", Some(3))
        );
        let inconsistent = Token {
            revision: None,
            ..token
        };
        assert_eq!(Token::decode(&inconsistent.encode()).unwrap().revision, None);
        assert!(Token::decode("rubbish").is_none());
    }
}
