//! get: the cache's bytes.

use axum::body::Body;
use http::{Response, StatusCode};
use mk8s_api::status::Status;

use crate::call::Call;
use crate::{respond, table};

pub async fn get(call: &Call) -> Result<Response<Body>, Status> {
    let object = call.shown_object().await?;
    if call.output.shape == crate::negotiate::Shape::Table {
        let value = table::of_one(&call.row, &object.whole()?, table::include(&call.query));
        return respond::value(StatusCode::OK, call.output, value);
    }
    respond::object(StatusCode::OK, &call.row, call.output, &object)
}
