//! A list's body: written chunk by chunk out of what it shows, as the socket takes it, in whichever encoding and shape.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, VARY};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};
use mk8s_api::codec::protobuf;
use mk8s_api::status::Status;
use serde_json::{Value, json as tree};

use super::layout::Layout;
use crate::call::Call;
use crate::filter::Filter;
use crate::loan::Loan;
use crate::negotiate::{Encoding, Shape};
use crate::object::Object;
use crate::respond;
use crate::rows::Row;
use crate::table::{self, Look};
use crate::watch_cache::Snapshot;

/// A chunk of a list's body. Big enough that its cost is the copy, small enough to be reused by the allocator.
const CHUNK: usize = 96 << 10;

/// What one answer shows.
#[derive(Default)]
pub struct Page {
    pub revision: u64,
    pub continue_token: String,
    pub remaining: Option<u64>,
    pub source: Source,
}

pub async fn respond_list(call: &Call, page: Page) -> Result<Response<Body>, Status> {
    let output = call.output;
    if output.shape == Shape::Metadata {
        let row = &call.row;
        let asked = "you requested PartialObjectMetadata, but the requested object is a list";
        let go = row.resource.go_type(&row.resource.list_kind);
        return Err(Status::not_acceptable(format!("{asked} ({go})")));
    }
    let layout = match (output.encoding, output.shape) {
        (Encoding::Json, _) if output.pretty => Layout::Pretty,
        (Encoding::Json, _) => Layout::Compact,
        (Encoding::Yaml, _) => Layout::Yaml,
        (Encoding::Protobuf, Shape::Object) if call.row.shows_stored() => return protobuf_list(call, page).await,
        (Encoding::Protobuf, _) => return whole(call, page),
    };
    send(call, Lister::text(call, page, layout)?, output.encoding.content_type())
}

/// Rarely asked for, in protobuf, where the length of all stands before it: the JSON text, read back and encoded.
fn whole(call: &Call, page: Page) -> Result<Response<Body>, Status> {
    let mut list = Lister::text(call, page, Layout::Compact)?;
    let mut text = Vec::new();
    while let Some(chunk) = list.chunk()? {
        text.extend_from_slice(&chunk);
    }
    let value = serde_json::from_slice(&text).map_err(|error| Status::internal(error.to_string()))?;
    respond::value(StatusCode::OK, call.output, value)
}

fn send(call: &Call, mut list: Lister, content_type: &'static str) -> Result<Response<Body>, Status> {
    // What fails here is answered; later the body can only break off.
    let first = list.chunk()?.unwrap_or_default();
    if list.state == State::Done {
        return Ok(respond::bytes(StatusCode::OK, content_type, first));
    }
    Ok(stream(call, list, first, content_type))
}

/// How many objects are encoded before others have a turn: to encode those of a whole cluster takes a tenth of a second.
const STEP: usize = 64;

/// Bytes of all items.
async fn encoded(source: &Source) -> Result<usize, Status> {
    let mut length = 0;
    for (at, object) in source.iter().enumerate() {
        length += object.proto_item()?.len();
        if at % STEP == STEP - 1 {
            tokio::task::yield_now().await;
        }
    }
    Ok(length)
}

async fn protobuf_list(call: &Call, page: Page) -> Result<Response<Body>, Status> {
    let length = encoded(&page.source).await?;
    let revision = if page.revision > 0 {
        page.revision.to_string()
    } else {
        String::new()
    };
    let meta = protobuf::ListMeta {
        resource_version: &revision,
        continue_token: &page.continue_token,
        remaining_item_count: page.remaining.and_then(|remaining| i64::try_from(remaining).ok()),
    };
    let head = protobuf::list_head(&call.row.api_version, &call.row.resource.list_kind, &meta, length);
    let list = Lister {
        source: page.source,
        state: State::Head(head),
        item: Item::Protobuf,
        layout: Layout::Protobuf,
        tail: protobuf::TAIL.to_vec(),
        row: call.row.clone(),
        first: true,
    };
    send(call, list, Encoding::Protobuf.content_type())
}

/// A body of more than one chunk, compressed where the client takes that.
fn stream(call: &Call, list: Lister, first: Bytes, content_type: &'static str) -> Response<Body> {
    let mut response = respond::bytes(StatusCode::OK, content_type, Bytes::new());
    let (first, list) = (Some(first), Loan::new(&call.server, list));
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
pub enum Source {
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
    fn iter(&self) -> Box<dyn Iterator<Item = &Arc<Object>> + Send + '_> {
        match self {
            Source::Items(items) => Box::new(items.as_slice().iter()),
            Source::Snapshot {
                snapshot,
                after,
                filter,
            } => Box::new(
                snapshot
                    .iter_after(after.as_deref())
                    .filter(|object| filter.matches(object)),
            ),
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
    /// The stored bytes, without what they begin with.
    Json(Vec<u8>),
    /// As the row shows it.
    Shown,
    Metadata(Look),
    Row(Look),
    Protobuf,
}

impl Item {
    /// How no item at all is written: in metadata alone, which upstream makes one by one, as Go's nil.
    fn none(&self, layout: Layout) -> &'static str {
        match (self, layout) {
            (Item::Metadata(_), Layout::Yaml) => " null",
            (Item::Metadata(_), _) => "null",
            (_, Layout::Yaml) => " []",
            _ => "[]",
        }
    }
}

/// Writes a list chunk by chunk.
struct Lister {
    source: Source,
    state: State,
    item: Item,
    layout: Layout,
    /// What follows the last item.
    tail: Vec<u8>,
    row: Arc<Row>,
    first: bool,
}

impl Lister {
    fn text(call: &Call, page: Page, layout: Layout) -> Result<Lister, Status> {
        let row = &call.row;
        let mut meta = tree!({});
        // Of what is not stored there is none.
        if page.revision > 0 {
            meta["resourceVersion"] = page.revision.to_string().into();
        }
        // Lists of custom objects say that they end.
        let says_end = row.schema.is_none() && call.output.shape == Shape::Object;
        if says_end || !page.continue_token.is_empty() {
            meta["continue"] = page.continue_token.into();
        }
        if let Some(remaining) = page.remaining {
            meta["remainingItemCount"] = remaining.into();
        }
        let look = table::look(call.output, &call.query)?;
        let (item, kind, api_version) = match call.output.shape {
            Shape::Object if row.shows_stored() => (
                Item::Json(first(row)),
                &*row.resource.list_kind,
                row.api_version.as_str(),
            ),
            Shape::Object => (Item::Shown, &*row.resource.list_kind, row.api_version.as_str()),
            Shape::Metadata | Shape::MetadataList => {
                (Item::Metadata(look), "PartialObjectMetadataList", look.api_version)
            }
            Shape::Table => (Item::Row(look), "Table", look.api_version),
        };
        let mut fields = vec![
            ("kind", kind.into()),
            ("apiVersion", api_version.into()),
            ("metadata", meta),
        ];
        let mut items = "items";
        if matches!(item, Item::Row(_)) {
            fields.push(("columnDefinitions", table::columns(row)));
            items = "rows";
        }
        let (head, tail) = layout.around(fields, items)?;
        Ok(Lister {
            source: page.source,
            state: State::Head(head),
            item,
            layout,
            tail,
            row: row.clone(),
            first: true,
        })
    }

    /// The next chunk; None after the last.
    fn chunk(&mut self) -> Result<Option<Bytes>, Status> {
        let mut chunk = match std::mem::replace(&mut self.state, State::Items) {
            State::Head(head) => head,
            State::Items => Vec::with_capacity(CHUNK + (4 << 10)),
            State::Done => {
                self.state = State::Done;
                return Ok(None);
            }
        };
        let mut failed = None;
        let (item, layout, row, first) = (&self.item, self.layout, &self.row, &mut self.first);
        let more = self.source.feed(|object| {
            chunk.extend_from_slice(layout.before_item(*first).as_bytes());
            *first = false;
            failed = write_item(&mut chunk, item, layout, row, object).err();
            failed.is_none() && chunk.len() < CHUNK
        });
        if let Some(status) = failed {
            return Err(status);
        }
        if !more {
            chunk.extend_from_slice(layout.after_items(self.first, self.item.none(layout)).as_bytes());
            chunk.append(&mut self.tail);
            self.state = State::Done;
        }
        Ok(Some(chunk.into()))
    }
}

/// What every item's text begins with: the list has said it, where all is of one built-in type.
fn first(row: &Row) -> Vec<u8> {
    match row.schema {
        Some(_) => format!("{{\"apiVersion\":{:?},\"kind\":{:?},", row.api_version, row.kind()).into_bytes(),
        None => b"{".to_vec(),
    }
}

fn untyped(row: &Row, mut item: Value) -> Value {
    if let (Some(_), Value::Object(fields)) = (&row.schema, &mut item) {
        fields.retain(|key, _| key != "apiVersion" && key != "kind");
    }
    item
}

fn write_item(chunk: &mut Vec<u8>, item: &Item, layout: Layout, row: &Row, object: &Arc<Object>) -> Result<(), Status> {
    let compact = layout == Layout::Compact;
    let value = match item {
        Item::Json(first) if compact && object.print_item(first, chunk) => return Ok(()),
        Item::Json(_) => untyped(row, object.whole()?),
        Item::Protobuf => {
            // Encoded before the head was written: the lengths in it are of these bytes.
            chunk.extend_from_slice(object.proto_item()?);
            return Ok(());
        }
        Item::Shown => untyped(row, row.show(object.whole()?)),
        Item::Metadata(look) if compact => {
            chunk.extend_from_slice(&object.partial_metadata(object.revision, look.api_version)?);
            return Ok(());
        }
        Item::Metadata(look) => table::partial_metadata(object.whole()?, *look),
        Item::Row(look) => table::row(row, &object.whole()?, *look),
    };
    layout.print(&value, chunk)
}

struct ListBody {
    list: Loan<Lister>,
    first: Option<Bytes>,
    gzip: Option<flate2::write::GzEncoder<Vec<u8>>>,
}

impl ListBody {
    fn plain(&mut self) -> Result<Option<Bytes>, Status> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let chunk = self.list.with(Lister::chunk);
        chunk.unwrap_or_else(|| Err(Status::timeout("the list was not read in time")))
    }

    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        use std::io::Write as _;
        while let Some(encoder) = &mut self.gzip {
            if encoder.get_ref().len() >= CHUNK / 2 {
                let full = std::mem::replace(encoder.get_mut(), Vec::with_capacity(CHUNK));
                return Ok(Some(full.into()));
            }
            // Compressing into memory does not fail; where it does, the body breaks off.
            let failed = |error: std::io::Error| Status::internal(format!("compressing a list: {error}"));
            match self.plain()? {
                Some(plain) => {
                    if let Some(encoder) = &mut self.gzip {
                        encoder.write_all(&plain).map_err(failed)?;
                    }
                }
                None => {
                    let last = self.gzip.take().map(flate2::write::GzEncoder::finish);
                    return last.transpose().map(|last| last.map(Bytes::from)).map_err(failed);
                }
            }
        }
        self.plain()
    }
}

impl http_body::Body for ListBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let next = self.get_mut().next();
        Poll::Ready(
            next.map(|chunk| chunk.map(Frame::data))
                .map_err(axum::Error::new)
                .transpose(),
        )
    }

    /// What is there already.
    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.first.as_ref().map_or(0, Bytes::len) as u64);
        hint
    }
}
