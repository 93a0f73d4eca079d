//! One file per verb, generic over the registry's rows.

pub mod apply;
pub mod create;
pub mod decode;
pub mod delete;
pub mod get;
pub mod identity;
mod layout;
pub mod list;
mod list_body;
pub mod patch;
pub mod update;
pub mod watch;

use axum::body::Body;
use http::Response;
use mk8s_api::status::Status;

use crate::call::Call;
use crate::crd::conversion::{self, Form};
use crate::guaranteed_update::Written;
use crate::respond;

/// Answers a write, with its warnings.
pub async fn answer(
    call: &Call,
    code: http::StatusCode,
    written: Written,
    warnings: &[String],
) -> Result<Response<Body>, Status> {
    let mut response = match written {
        // What a webhook shows of it is what is stored, to all that follows.
        written if call.row.webhook().is_some() => {
            let shown = conversion::tree(call, written.value()?, Form::Row).await?;
            let shaped = respond::shape_one(call, shown)?;
            respond::value(code, call.output, shaped)?
        }
        Written::Stored(object) => respond::object(code, call, &object)?,
        Written::Tree(value) => {
            let shaped = respond::shape_one(call, value)?;
            respond::value(code, call.output, shaped)?
        }
    };
    respond::warn(&mut response, warnings);
    Ok(response)
}
