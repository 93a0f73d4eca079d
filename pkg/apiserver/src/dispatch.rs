//! From a request's verb and resource to the handler: the one place that knows them all.

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};
use mk8s_api::registry::Handler;
use mk8s_api::status::Status;

use crate::call::Call;
use crate::handlers::{create, delete, get, list, patch, update, watch};
use crate::pipeline::Part;
use crate::receive;
use crate::subresources::{binding, eviction, proxy, scale, streams, token};

/// Runs a request to a resource.
pub async fn resource(call: Call, parts: Parts, body: Body) -> Result<Response<Body>, Status> {
    if !call.info.subresource.is_empty() {
        return subresource(call, parts, body).await;
    }
    if !supports(&call) {
        return Err(not_allowed());
    }
    match call.info.verb {
        "get" => get::get(&call),
        "list" => list::list(&call).await,
        // By its path's prefix it may come with any method.
        "watch" if parts.method == Method::GET => watch::watch(&call).await,
        "watch" => Err(not_allowed()),
        _ => receive::then(call, body, write).await,
    }
}

async fn write(call: Call, body: Bytes) -> Result<Response<Body>, Status> {
    match call.info.verb {
        "create" => create::create(&call, body).await,
        "update" => update::update(&call, body).await,
        "patch" => patch::patch(&call, body).await,
        "delete" => delete::delete(&call, body).await,
        "deletecollection" => delete::delete_collection(&call, body).await,
        _ => Err(not_allowed()),
    }
}

fn not_allowed() -> Status {
    Status::method_not_allowed("the server does not allow this method on the requested resource")
}

fn supports(call: &Call) -> bool {
    // A namespaced resource is written in a namespace only.
    if call.row.resource.is_namespaced()
        && call.info.namespace.is_empty()
        && !matches!(call.info.verb, "list" | "watch")
        && !(call.info.verb == "create" && call.row.is_virtual())
    {
        return false;
    }
    let needs_name = matches!(call.info.verb, "update" | "patch" | "delete");
    if needs_name && call.info.name.is_empty() {
        return false;
    }
    if call.info.verb == "create" && !call.info.name.is_empty() {
        return false;
    }
    call.row.resource.verbs.names().any(|verb| verb == call.info.verb)
}

async fn subresource(call: Call, parts: Parts, body: Body) -> Result<Response<Body>, Status> {
    let Some(subresource) = call.row.subresource(&call.info.subresource) else {
        return Err(Status::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        ));
    };
    let verb = call.info.verb;
    // OPTIONS has no verb: to what is proxied it is a method like any other.
    let passes_on = subresource.handler == Handler::Proxy && (verb.is_empty() && parts.method == Method::OPTIONS);
    if !passes_on && !subresource.verbs.names().any(|own| own == verb) {
        return Err(not_allowed());
    }
    let handler = subresource.handler;
    match handler {
        Handler::NotYet => Err(call.not_in_this_version(&call.info.subresource)),
        Handler::Log => streams::log(&call, parts).await,
        Handler::Connect => streams::upgrade(&call, parts).await,
        Handler::Proxy => proxy::proxy(&call, parts, body).await,
        _ if verb == "get" => part(call, Bytes::new(), handler).await,
        _ => receive::then(call, body, move |call, body| part(call, body, handler)).await,
    }
}

async fn part(call: Call, body: Bytes, handler: Handler) -> Result<Response<Body>, Status> {
    let part = match handler {
        Handler::Binding => return binding::create(&call, body).await,
        Handler::Eviction => return eviction::create(&call, body).await,
        Handler::Token => return token::create(&call, body).await,
        Handler::Scale => return scale::dispatch(&call, body).await,
        Handler::Status => Part::Status,
        Handler::Finalize => Part::Finalizers,
        Handler::Approval => Part::Approval,
        Handler::NotYet | Handler::Log | Handler::Connect | Handler::Proxy | Handler::Review => {
            return Err(Status::internal("this handler takes no body of a subresource"));
        }
    };
    match call.info.verb {
        "get" => get::get(&call),
        "update" => update::update_part(&call, body, part).await,
        "patch" => patch::patch_part(&call, body, part).await,
        _ => Err(not_allowed()),
    }
}
