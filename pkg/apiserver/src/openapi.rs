//! /openapi/v2 and /openapi/v3: documents that the object model makes of the rows, made when first asked for and kept
//! compressed, which is how nearly every client takes them.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, ETAG, IF_NONE_MATCH, LOCATION, VARY};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use mk8s_api::openapi;
use mk8s_api::registry::Resource;
use mk8s_api::status::Status;
use mk8s_supervisor::job;
use parking_lot::Mutex;

use crate::negotiate::{self, Clause};
use crate::request::Query;
use crate::respond;

type Made = Arc<OnceLock<Option<Bytes>>>;

/// The documents of some resources.
pub struct Documents {
    resources: Vec<Arc<Resource>>,
    /// Compressed, by path and content type. Whoever asks while one is made waits for it: after a change of a definition
    /// all clients ask at once.
    made: Mutex<HashMap<(String, &'static str), Made>>,
}

impl Documents {
    pub fn new(resources: Vec<Arc<Resource>>) -> Documents {
        Documents {
            resources,
            made: Mutex::default(),
        }
    }

    fn get(
        &self,
        path: &str,
        content_type: &'static str,
        make: impl FnOnce(&[Arc<Resource>]) -> Option<Vec<u8>>,
    ) -> Option<Bytes> {
        let made = self
            .made
            .lock()
            .entry((path.to_string(), content_type))
            .or_default()
            .clone();
        let zipped = made.get_or_init(|| {
            let plain = make(&self.resources)?;
            let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::default());
            let zipped = encoder.write_all(&plain).and_then(|()| encoder.finish()).ok()?;
            Some(Bytes::from(zipped))
        });
        zipped.clone()
    }
}

/// What a client may ask a document of version 3 as; it comes as JSON.
const V3_KINDS: [&str; 3] = [
    "application/json",
    "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v3@v1.0+protobuf",
];

pub async fn handle(
    documents: &Arc<Documents>,
    path: &str,
    parts: &Parts,
    query: &Query,
) -> Result<Response<Body>, Status> {
    match path {
        "/openapi/v3" => Ok(respond::bytes(
            StatusCode::OK,
            // As upstream calls what it does not say to be JSON.
            "text/plain; charset=utf-8",
            openapi::v3_index(&documents.resources),
        )),
        "/openapi/v2" => v2(documents, parts).await,
        _ => match path.strip_prefix("/openapi/v3/") {
            Some(place) => v3(documents, place, parts, query).await,
            None => Ok(respond::no_such_page()),
        },
    }
}

async fn v2(documents: &Arc<Documents>, parts: &Parts) -> Result<Response<Body>, Status> {
    let kinds = ["application/json", openapi::V2_PROTOBUF_ASKED, openapi::V2_PROTOBUF];
    if !negotiate::is_any_wanted(&parts.headers, &kinds) {
        return Ok(empty(StatusCode::NOT_ACCEPTABLE));
    }
    let asks_protobuf = |clause: &Clause<'_>| matches!(clause.media, openapi::V2_PROTOBUF_ASKED | openapi::V2_PROTOBUF);
    let proto = negotiate::accepted(&parts.headers).iter().any(asks_protobuf);
    let content_type = if proto {
        openapi::V2_PROTOBUF
    } else {
        "application/json"
    };
    let etag = format!("\"{}\"", openapi::v2_hash(&documents.resources));
    let mut response = document(documents, "/openapi/v2", content_type, parts, &etag, move |rows| {
        Some(if proto {
            openapi::v2_protobuf(rows)
        } else {
            openapi::v2_json(rows)
        })
    })
    .await?;
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

async fn v3(documents: &Arc<Documents>, place: &str, parts: &Parts, query: &Query) -> Result<Response<Body>, Status> {
    let Some(hash) = openapi::v3_hash(&documents.resources, place) else {
        return Ok(empty(StatusCode::NOT_FOUND));
    };
    if !negotiate::is_any_wanted(&parts.headers, &V3_KINDS) {
        return Ok(empty(StatusCode::NOT_ACCEPTABLE));
    }
    let asked = query.text("hash");
    if let Some(asked) = asked.filter(|asked| *asked != hash) {
        tracing::debug!(asked, hash, place, "an OpenAPI document by an old hash");
        let mut response = empty(StatusCode::MOVED_PERMANENTLY);
        let target = HeaderValue::from_str(&format!("/openapi/v3/{place}?hash={hash}"));
        let target = target.map_err(|error| Status::internal(error.to_string()))?;
        response.headers_mut().insert(LOCATION, target);
        return Ok(response);
    }
    let etag = format!("\"{hash}\"");
    let owned = place.to_string();
    let path = format!("/openapi/v3/{place}");
    let make = move |rows: &[Arc<Resource>]| openapi::v3(rows, &owned);
    let mut response = document(documents, &path, "application/json", parts, &etag, make).await?;
    if asked.is_some() {
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        headers.insert(VARY, HeaderValue::from_static("Accept"));
    }
    Ok(response)
}

fn empty(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

async fn document(
    documents: &Arc<Documents>,
    path: &str,
    content_type: &'static str,
    parts: &Parts,
    etag: &str,
    make: impl FnOnce(&[Arc<Resource>]) -> Option<Vec<u8>> + Send + 'static,
) -> Result<Response<Body>, Status> {
    let etag = HeaderValue::from_str(etag).map_err(|error| Status::internal(error.to_string()))?;
    if parts.headers.get(IF_NONE_MATCH) == Some(&etag) {
        let mut response = empty(StatusCode::NOT_MODIFIED);
        response.headers_mut().insert(ETAG, etag);
        return Ok(response);
    }
    // Tens of milliseconds of work the first time: not on a thread that serves requests.
    let (own, at) = (documents.clone(), path.to_string());
    let made = job::blocking("openapi", move || own.get(&at, content_type, make)).await;
    let zipped = made.ok().flatten().ok_or_else(respond::no_such_path)?;
    let mut response = if negotiate::takes_gzip(&parts.headers) {
        let mut response = respond::bytes(StatusCode::OK, content_type, zipped);
        response
            .headers_mut()
            .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let mut response = respond::bytes(StatusCode::OK, content_type, Bytes::new());
        *response.body_mut() = unpacked(zipped);
        response
    };
    response.headers_mut().insert(ETAG, etag);
    Ok(response)
}

/// How much of a document is unpacked ahead of who reads it.
const PIECE: u64 = 64 << 10;

/// A document unpacked as it is read: who leaves it unread holds a piece of it, no copy of megabytes.
fn unpacked(zipped: Bytes) -> Body {
    let decoder = GzDecoder::new(std::io::Cursor::new(zipped));
    Body::from_stream(futures::stream::unfold(Some(decoder), |decoder| async move {
        let mut decoder = decoder?;
        let mut piece = Vec::new();
        match decoder.by_ref().take(PIECE).read_to_end(&mut piece) {
            Ok(0) => None,
            Ok(_) => Some((Ok(Bytes::from(piece)), Some(decoder))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}
