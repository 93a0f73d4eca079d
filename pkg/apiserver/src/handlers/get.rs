//! get: the cache's bytes.

use axum::body::Body;
use http::{Response, StatusCode};
use mk8s_api::status::Status;

use super::list;
use crate::call::Call;
use crate::{options, respond};

/// At the revision that is asked for at least.
pub async fn get(call: &Call) -> Result<Response<Body>, Status> {
    refuse_export(call)?;
    if let Some(revision) = options::revision(call.query.get("resourceVersion").unwrap_or_default())? {
        list::wait_for(call, revision).await?;
    }
    let object = call.shown_object().await?;
    respond::object(StatusCode::OK, call, &object)
}

/// What old clients asked for, of which nothing is left.
pub fn refuse_export(call: &Call) -> Result<(), Status> {
    match call.query.flag("export") {
        true => Err(Status::bad_request(
            "the export parameter, deprecated since v1.14, is no longer supported",
        )),
        false => Ok(()),
    }
}
