//! Answers: bytes of the cache as they are where the client takes them so, else the same object in another shape.

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WARNING, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use mk8s_api::codec::protobuf;
use mk8s_api::status::Status;
use serde_json::Value;

use crate::call::Call;
use crate::negotiate::{self, Encoding, Output, Shape};
use crate::object::Object;
use crate::table;

/// Bodies above this are compressed where the client takes it, as upstream does.
const COMPRESS_FROM: usize = 128 << 10;

pub const TEXT: &str = "text/plain; charset=utf-8";

pub fn bytes(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A refusal.
pub fn status(status: &Status, output: Output) -> Response<Body> {
    if status.code == 500 {
        tracing::warn!(reason = %status.reason, message = %status.message, "a request failed");
    }
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = value(code, output, status.to_value()).unwrap_or_else(|_| {
        let text = serde_json::to_vec(&status.to_value()).unwrap_or_default();
        bytes(code, "application/json", text)
    });
    if let Some(seconds) = status.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(warnings) = &status.warnings {
        warn(&mut response, warnings);
    }
    response
}

/// Of a path outside of every API.
pub fn no_such_page() -> Response<Body> {
    let mut response = bytes(StatusCode::NOT_FOUND, TEXT, "404 page not found\n");
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// Of a path that nothing is served at.
pub fn no_such_path() -> Status {
    let mut status = Status::new(404, "NotFound", "the server could not find the requested resource");
    status.details = Some(serde_json::json!({}));
    status
}

/// A cached object to one client.
pub fn object(code: StatusCode, call: &Call, object: &Arc<Object>) -> Result<Response<Body>, Status> {
    let (row, output) = (&call.row, call.output);
    if row.shows_stored() && output.shape == Shape::Object {
        match output.encoding {
            Encoding::Json if !output.pretty => {
                let mut text = Vec::with_capacity(object.sent_len() + 1);
                object.print_at(object.revision, &mut text);
                text.push(b'\n');
                return Ok(compressed(code, negotiate::JSON, text.into(), output));
            }
            Encoding::Protobuf => {
                let item = object.proto_item()?;
                let body = protobuf::envelope(&row.api_version, row.kind(), protobuf::item_raw(item));
                return Ok(compressed(code, Encoding::Protobuf.content_type(), body.into(), output));
            }
            _ => {}
        }
    }
    value(code, output, shape_one(call, object.whole()?)?)
}

/// One stored object in the row's version and the asked-for shape.
///
/// # Errors
/// 406: the shape of a list; 400: a table of rows that there are none of.
pub fn shape_one(call: &Call, stored: Value) -> Result<Value, Status> {
    let row = &call.row;
    let look = table::look(call.output, &call.query)?;
    Ok(match call.output.shape {
        Shape::Object => row.show(stored),
        Shape::Metadata => table::partial_metadata(stored, look),
        Shape::MetadataList => return Err(no_list(&row.resource.go_type(row.kind()))),
        Shape::Table => table::of_one(row, &stored, look),
    })
}

/// A Scale in the asked-for shape.
///
/// # Errors
/// 406: the shape of a list; 400: a table of rows that there are none of.
pub fn shape_scale(call: &Call, scale: Value) -> Result<Value, Status> {
    let look = table::look(call.output, &call.query)?;
    Ok(match call.output.shape {
        Shape::Object => scale,
        Shape::Metadata => table::partial_metadata(scale, look),
        Shape::MetadataList => return Err(no_list("*autoscaling.Scale")),
        Shape::Table => table::of_scale(&call.row, &scale, look),
    })
}

/// A TokenRequest in the asked-for shape, of which there is no table.
///
/// # Errors
/// 406: the shape of a list.
pub fn shape_token(call: &Call, issued: Value) -> Result<Value, Status> {
    let look = table::look(call.output, &call.query)?;
    Ok(match call.output.shape {
        Shape::Metadata => table::partial_metadata(issued, look),
        Shape::MetadataList => return Err(no_list("*authentication.TokenRequest")),
        Shape::Object | Shape::Table => issued,
    })
}

fn no_list(go_type: &str) -> Status {
    let asked = "you requested PartialObjectMetadataList, but the requested object is not a list";
    Status::not_acceptable(format!("{asked} ({go_type})"))
}

/// Any tree with kind and apiVersion, in the asked-for encoding (its shape is made already).
pub fn value(code: StatusCode, output: Output, value: Value) -> Result<Response<Body>, Status> {
    let failed = |error: String| Status::internal(format!("encoding the answer: {error}"));
    let body = match output.encoding {
        // For eyes, and as upstream without the line's end.
        Encoding::Json if output.pretty => {
            serde_json::to_vec_pretty(&value).map_err(|error| failed(error.to_string()))?
        }
        Encoding::Json => {
            let mut text = serde_json::to_vec(&value).map_err(|error| failed(error.to_string()))?;
            text.push(b'\n');
            text
        }
        Encoding::Yaml => serde_saphyr::to_string(&value)
            .map_err(|error| failed(error.to_string()))?
            .into_bytes(),
        Encoding::Protobuf => protobuf::encode(&value).map_err(|error| failed(error.to_string()))?,
    };
    Ok(compressed(code, output.encoding.content_type(), body.into(), output))
}

fn compressed(code: StatusCode, content_type: &'static str, body: Bytes, output: Output) -> Response<Body> {
    if !output.gzip || body.len() < COMPRESS_FROM {
        return bytes(code, content_type, body);
    }
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    let Ok(zipped) = encoder.write_all(&body).and_then(|()| encoder.finish()) else {
        return bytes(code, content_type, body);
    };
    let mut response = bytes(code, content_type, zipped);
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(http::header::VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// Puts a warning before those that are there.
pub fn warn_first(response: &mut Response<Body>, warning: &str) {
    let others: Vec<HeaderValue> = response.headers().get_all(WARNING).iter().cloned().collect();
    response.headers_mut().remove(WARNING);
    warn(response, &[warning.to_string()]);
    for other in others {
        response.headers_mut().append(WARNING, other);
    }
}

/// Adds `Warning: 299 - "…"` for each text once, within upstream's bound of 4 KiB.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let mut total = 0;
    let mut told = HashSet::new();
    for text in warnings {
        if !told.insert(text) {
            continue;
        }
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
        total += quoted.len();
        if total > 4096 {
            break;
        }
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
