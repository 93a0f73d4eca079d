//! create, of stored objects and of reviews.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use mk8s_api::status::Status;

use super::decode::{self, Expected};
use super::{Call, answer};
use crate::options::WriteOptions;
use crate::{pipeline, subresources, virtuals};

pub async fn create(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    call.refuse_unsupported()?;
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let mut warnings = Vec::new();
    let mut object = decode::object(call, &body, &Expected::row(call), options, &mut warnings)?;
    if call.row.is_virtual() {
        if call.row.plural() == "bindings" {
            return subresources::binding::bind(call, object, options.dry_run).await;
        }
        return virtuals::create(call, object, &warnings).await;
    }
    call.row.to_stored(&mut object);
    let written = pipeline::create(call, object, options.dry_run, &mut warnings).await?;
    answer(call, StatusCode::CREATED, written, &warnings)
}
