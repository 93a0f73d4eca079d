//! Subresources: status and scale for every kind that has them, and those that Pods, Namespaces and a few more have alone.

pub mod binding;
pub mod eviction;
pub mod nodes;
pub mod scale;
pub mod streams;

use axum::body::Body;
use http::Response;
use http::request::Parts;
use mk8s_api::status::Status;

use crate::handlers::{Call, decode, get, patch, update};
use crate::pipeline::Part;
use crate::virtuals;

pub async fn dispatch(call: Call, parts: Parts, body: Body) -> Result<Response<Body>, Status> {
    let Some(subresource) = call.row.resource.subresource(&call.info.subresource) else {
        return Err(Status::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        ));
    };
    let verb = call.info.verb;
    if !subresource.verbs.names().any(|own| own == verb) {
        return Err(Status::method_not_allowed(
            "the server does not allow this method on the requested resource",
        ));
    }
    let plural = call.row.plural().to_string();
    let name = call.info.subresource.clone();
    match (plural.as_str(), name.as_str(), verb) {
        (_, "proxy" | "ephemeralcontainers" | "resize", _) => Err(call.not_in_this_version(&name)),
        ("pods", "log", _) => streams::log(&call, parts).await,
        ("pods", "exec" | "attach" | "portforward", _) => streams::upgrade(&call, parts).await,
        ("pods", "binding", "create") => binding::create(&call, decode::read(body).await?).await,
        ("pods", "eviction", "create") => eviction::create(&call, decode::read(body).await?).await,
        ("serviceaccounts", "token", "create") => virtuals::token(&call, decode::read(body).await?).await,
        (_, "scale", _) => scale::dispatch(&call, decode::read(body).await?).await,
        (_, _, "get") => get::get(&call),
        (_, part, "update") => update::update_part(&call, decode::read(body).await?, part_of(part)).await,
        (_, part, "patch") => patch::patch_part(&call, decode::read(body).await?, part_of(part)).await,
        _ => Err(Status::method_not_allowed(
            "the server does not allow this method on the requested resource",
        )),
    }
}

fn part_of(subresource: &str) -> Part {
    match subresource {
        "finalize" => Part::Finalizers,
        "approval" => Part::Approval,
        _ => Part::Status,
    }
}
