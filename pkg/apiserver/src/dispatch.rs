//! From a request's verb and resource to the handler: the one place that knows them all.

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http::request::Parts;
use mk8s_api::registry::{Handler, Verbs};
use mk8s_api::status::Status;

use crate::call::Call;
use crate::handlers::{create, delete, get, list, patch, update, watch};
use crate::negotiate;
use crate::pipeline::Part;
use crate::receive;
use crate::respond;
use crate::routes::{self, Place};
use crate::subresources::{binding, eviction, proxy, rollback, scale, streams, token};

/// Runs a request to a resource, which its route allows.
pub async fn resource(call: Call, place: Place, parts: Parts, body: Body) -> Result<Response<Body>, Status> {
    let is_named = matches!(place, Place::Item | Place::Part(_));
    if is_named && call.info.path_name().is_empty() {
        return Err(Status::bad_request("name must be provided"));
    }
    if let Place::Part(name) = &place {
        return subresource(call, name, parts, body).await;
    }
    match call.info.verb {
        "get" => get::get(&call).await,
        "list" => list::list(&call).await,
        "watch" if !call.row.resource.verbs.contains(Verbs::WATCH) => Err(Status::method_not_allowed(format!(
            "watch is not supported on resources of kind {:?}",
            call.row.resource.qualified()
        ))),
        "watch" => watch::watch(&call).await,
        _ => receive::then(call, body, write).await,
    }
}

/// A new object's content type is looked at before anything else that is said of it.
fn check_content(call: &Call) -> Result<(), Status> {
    match call.info.verb {
        "create" => negotiate::body_encoding(&call.headers).map(drop),
        _ => Ok(()),
    }
}

async fn write(call: Call, body: Bytes) -> Result<Response<Body>, Status> {
    check_content(&call)?;
    match call.info.verb {
        "create" => create::create(&call, body).await,
        "update" => update::update(&call, body).await,
        "patch" => patch::patch(&call, body).await,
        "delete" => delete::delete(&call, body).await,
        "deletecollection" => delete::delete_collection(&call, body).await,
        _ => Err(routes::not_allowed()),
    }
}

async fn subresource(call: Call, name: &str, parts: Parts, body: Body) -> Result<Response<Body>, Status> {
    let subresource = call.row.subresource(name).ok_or_else(respond::no_such_path)?;
    let verb = call.info.verb;
    let handler = subresource.handler;
    match handler {
        Handler::NotYet => Err(call.not_in_this_version(&call.info.subresource)),
        Handler::Log => streams::log(&call, parts).await,
        Handler::Connect | Handler::Proxy if call.query.text("dryRun").is_some() => {
            Err(Status::bad_request("dryRun is not supported"))
        }
        Handler::Connect => streams::upgrade(&call, parts).await,
        Handler::Proxy => proxy::proxy(&call, parts, body).await,
        _ if verb == "get" => part(call, Bytes::new(), handler).await,
        _ => receive::then(call, body, move |call, body| part(call, body, handler)).await,
    }
}

async fn part(call: Call, body: Bytes, handler: Handler) -> Result<Response<Body>, Status> {
    check_content(&call)?;
    let part = match handler {
        Handler::Binding => return binding::create(&call, body).await,
        Handler::Eviction => return eviction::create(&call, body).await,
        Handler::Token => return token::create(&call, body).await,
        Handler::Scale => return scale::dispatch(&call, body).await,
        Handler::Rollback => return rollback::create(&call, body).await,
        Handler::Status => Part::Status,
        Handler::Strategy(strategy) => Part::Of(strategy),
        Handler::NotYet | Handler::Log | Handler::Connect | Handler::Proxy | Handler::Review => {
            return Err(Status::internal("this handler takes no body of a subresource"));
        }
    };
    match call.info.verb {
        "get" => get::get(&call).await,
        "update" => update::update_part(&call, body, part).await,
        "patch" => patch::patch_part(&call, body, part).await,
        _ => Err(routes::not_allowed()),
    }
}
