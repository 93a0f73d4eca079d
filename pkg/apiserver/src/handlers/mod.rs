//! One file per verb, generic over the registry's rows.

pub mod create;
pub mod decode;
pub mod delete;
pub mod get;
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
use crate::guaranteed_update::Written;
use crate::respond;

/// Answers a write, with its warnings.
pub fn answer(
    call: &Call,
    code: http::StatusCode,
    written: Written,
    warnings: &[String],
) -> Result<Response<Body>, Status> {
    let mut response = match written {
        Written::Stored(object) => respond::object(code, &call.row, call.output, &object)?,
        Written::Tree(value) => {
            let shaped = respond::shape_one(&call.row, call.output.shape, value)?;
            respond::value(code, call.output, shaped)?
        }
    };
    respond::warn(&mut response, warnings);
    Ok(response)
}
