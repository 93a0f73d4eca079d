//! Resources of which nothing is stored: reviews and tokens, answered by the parts that decide them.

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use mk8s_api::status::Status;
use serde_json::Value;

use crate::handlers::Call;

pub async fn create(call: &Call, object: Value, _warnings: &[String]) -> Result<Response<Body>, Status> {
    let _ = object;
    Err(call.not_in_this_version(call.row.kind()))
}

/// serviceaccounts/token
pub async fn token(call: &Call, _body: Bytes) -> Result<Response<Body>, Status> {
    Err(call.not_in_this_version("token"))
}
