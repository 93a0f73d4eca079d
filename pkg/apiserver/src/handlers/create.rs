//! create, of stored objects and of reviews.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use mk8s_api::meta;
use mk8s_api::registry::Handler;
use mk8s_api::status::Status;
use serde_json::Value;

use super::answer;
use super::decode::{self, Expected};
use crate::admission::{Operation, Options};
use crate::call::Call;
use crate::options::WriteOptions;
use crate::{managers, pipeline, respond, reviews, subresources};

pub async fn create(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    call.refuse_unsupported()?;
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let mut warnings = Vec::new();
    let mut object = decode::object(call, &body, &Expected::row(call), options, &mut warnings)?;
    call.row.to_stored(&mut object);
    match call.row.resource.semantics.answered_by {
        Some(Handler::Binding) => return subresources::binding::bind(call, object, options, warnings).await,
        Some(_) => return review(call, object, options, warnings).await,
        None => {}
    }
    let written = pipeline::create(call, object, options, &mut warnings).await;
    let written = written.map_err(|status| status.warned(&warnings))?;
    answer(call, StatusCode::CREATED, written, &warnings).await
}

/// Answers a review: a question of which nothing is stored.
async fn review(
    call: &Call,
    mut object: Value,
    options: WriteOptions,
    mut warnings: Vec<String>,
) -> Result<Response<Body>, Status> {
    let name = meta::name(&object).to_string();
    let attributes = call.attributes(Operation::Create, &name, None, Options::Write(options));
    call.admit(&attributes, &mut object, &mut warnings).await?;
    let sent = managers::take(&mut object);
    let managed = managers::created(call, &object, sent.as_ref());
    let (server, info) = (&call.server, &call.info);
    let plural = call.row.plural();
    let mut answer = reviews::answer(
        server.authenticator(),
        server.authorizer(),
        &call.user,
        plural,
        &info.namespace,
        object,
    )?;
    managers::put(&mut answer, &managed);
    let mut response = respond::value(StatusCode::CREATED, call.output, respond::shape_one(call, answer)?)?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}
