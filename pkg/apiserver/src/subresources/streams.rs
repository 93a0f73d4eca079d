//! pods/log, exec, attach and portforward: authorized here, spoken by the pod's node. An upgraded connection is spliced
//! through; which protocol it carries is between the client and the node.

use std::time::Duration;

use axum::body::Body;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mk8s_api::status::{FieldError, Status};
use mk8s_api::validation::Errors;
use mk8s_api::{codec, meta};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::nodes;
use crate::admission::{Operation, Options};
use crate::call::Call;
use crate::filters::authz::Attributes;
use crate::layers::Guard;
use crate::options;

const BUFFER: usize = 32 << 10;
/// How long a client may stay after its node has ended the stream.
const LINGER: Duration = Duration::from_secs(30);

pub async fn log(call: &Call, parts: Parts) -> Result<Response<Body>, Status> {
    check_log_options(call)?;
    let pod = call.object()?.value()?;
    let container = container(&pod, call.query.get("container").unwrap_or_default())?;
    let node = meta::string(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        // Nothing has run yet: an empty log.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let query: String = [
        "follow",
        "limitBytes",
        "previous",
        "sinceSeconds",
        "sinceTime",
        "tailLines",
        "timestamps",
    ]
    .iter()
    .filter_map(|key| {
        let value = call.query.get(key)?;
        Some(format!("{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
    })
    .collect::<Vec<_>>()
    .join("&");
    let target = format!(
        "{}/containerLogs/{}/{}/{container}?{query}",
        address(call, node)?,
        call.info.namespace,
        call.info.name,
    );
    if call.headers.contains_key(UPGRADE) {
        return relay(call, parts, node, &target).await;
    }
    let place = call.server.streams.take(node, &call.user)?;
    let request = Request::get(nodes::uri(&target)?)
        .body(Body::empty())
        .map_err(|error| Status::internal(error.to_string()))?;
    let answer = ask(call, node, request).await?;
    let (parts, body) = answer.into_parts();
    if !parts.status.is_success() {
        return Err(relayed(parts.status, body).await);
    }
    let mut response = Response::new(Body::new(body));
    let content_type = parts.headers.get(CONTENT_TYPE).cloned();
    response.headers_mut().insert(
        CONTENT_TYPE,
        content_type.unwrap_or(HeaderValue::from_static("text/plain")),
    );
    Ok(Guard::of(place).hang_on(response))
}

async fn ask(call: &Call, node: &str, request: Request<Body>) -> Result<Response<hyper::body::Incoming>, Status> {
    let client = nodes::client_of(&call.server)?;
    client.request(request).await.map_err(|error| {
        tracing::warn!(node, %error, "a node's server does not answer");
        let cause = std::error::Error::source(&error)
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        Status::new(500, "InternalError", format!("Get from node {node:?}: {error}{cause}"))
    })
}

/// What a node refused, as a Status.
async fn relayed(code: StatusCode, body: hyper::body::Incoming) -> Status {
    use http_body_util::BodyExt as _;
    let text = http_body_util::Limited::new(body, 64 << 10).collect().await;
    let text = text.map(|collected| String::from_utf8_lossy(&collected.to_bytes()).trim().to_string());
    let text = text.unwrap_or_default();
    match code.as_u16() {
        400 => Status::bad_request(text),
        403 => Status::new(403, "Forbidden", text),
        404 => Status::new(404, "NotFound", text),
        code => Status::new(code, "InternalError", text),
    }
}

/// What upstream takes of PodLogOptions, whichever pod it is: first what can be read, then what holds.
fn check_log_options(call: &Call) -> Result<(), Status> {
    let query = &call.query;
    let since_seconds = options::integer(query, "sinceSeconds")?;
    let since_time = query.get("sinceTime");
    if let Some(text) = since_time.filter(|text| !matches!(*text, "" | "null")) {
        codec::check_time(text).map_err(Status::bad_request)?;
    }
    let tail_lines = options::integer(query, "tailLines")?;
    let limit_bytes = options::integer(query, "limitBytes")?;

    let mut errors = Errors::new();
    if let Some(lines) = tail_lines.filter(|lines| *lines < 0) {
        errors.push(FieldError::invalid(
            "tailLines",
            lines,
            "must be greater than or equal to 0",
        ));
    }
    let mut positive = |field: &str, value: Option<i64>| {
        if let Some(value) = value.filter(|value| *value < 1) {
            errors.push(FieldError::invalid(field, value, "must be greater than 0"));
        }
    };
    positive("limitBytes", limit_bytes);
    if since_time.is_none() {
        positive("sinceSeconds", since_seconds);
    } else if since_seconds.is_some() {
        let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(FieldError::forbidden("[]", why));
    }
    if query.get("stream").is_some() {
        errors.push(FieldError::forbidden("stream", "may not be specified"));
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid("", "PodLogOptions", &call.info.name, &errors)),
    }
}

/// The ports that a portforward names have to be numbers before anything else is looked at.
fn check_ports(call: &Call) -> Result<(), Status> {
    for port in call.query.all("ports").flat_map(|list| list.split(',')) {
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        if port.parse::<u16>().is_err() || !digits {
            let why = if digits { "value out of range" } else { "invalid syntax" };
            let text = format!("cannot convert to []int32: strconv.ParseUint: parsing {port:?}: {why}");
            return Err(Status::bad_request(text));
        }
    }
    Ok(())
}

/// Where the pod's node listens. One that is not there is, as upstream has it, a pod that is not.
fn address(call: &Call, node: &str) -> Result<String, Status> {
    nodes::address(call.server.cache(), node).map_err(|status| match status.code {
        404 => Status::not_found("", "pods", node),
        _ => status,
    })
}

/// The container meant: the named one, or the only one that is neither an init nor an ephemeral container.
fn container(pod: &Value, named: &str) -> Result<String, Status> {
    let names = |list: &str| -> Vec<&str> {
        let list = meta::items(pod, &["spec", list]).iter();
        list.map(|container| meta::string(container, &["name"])).collect()
    };
    let containers = names("containers");
    let all = [
        names("initContainers"),
        containers.clone(),
        names("ephemeralContainers"),
    ]
    .concat();
    let name = meta::name(pod);
    match (named, containers.as_slice()) {
        ("", [only]) => Ok((*only).to_string()),
        ("", _) => Err(Status::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all.join(" ")
        ))),
        (named, _) if all.contains(&named) => Ok(named.to_string()),
        (named, _) => Err(Status::bad_request(format!(
            "container {named} is not valid for pod {name}"
        ))),
    }
}

/// exec, attach and portforward.
pub async fn upgrade(call: &Call, parts: Parts) -> Result<Response<Body>, Status> {
    if &*call.info.subresource == "portforward" {
        check_ports(call)?;
    }
    let pod = call.object()?.value()?;
    // A WebSocket begins with a GET; that alone must not be enough to act on a pod.
    if call.info.verb == "get" {
        let mut attributes = Attributes::of_request(&call.user, &call.info);
        attributes.verb = "create";
        call.server.authorizer().check(&attributes)?;
    }
    {
        let attributes = call.attributes(Operation::Connect, &call.info.name, Some(&pod), Options::Connect);
        call.admit(&attributes, &mut Value::Null, &mut Vec::new()).await?;
    }
    let container = match &*call.info.subresource {
        "portforward" => None,
        _ => Some(container(&pod, call.query.get("container").unwrap_or_default())?),
    };
    let node = meta::string(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        return Err(Status::bad_request(format!(
            "pod {} does not have a host assigned",
            call.info.name
        )));
    }
    let base = address(call, node)?;
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let path = match container {
        None => format!("portForward/{namespace}/{name}"),
        Some(container) => format!("{}/{namespace}/{name}/{container}", call.info.subresource),
    };
    let query = node_query(call);
    relay(call, parts, node, &format!("{base}/{path}?{query}")).await
}

/// Asks the node for the same upgrade.
async fn relay(call: &Call, parts: Parts, node: &str, target: &str) -> Result<Response<Body>, Status> {
    if !call.headers.contains_key(UPGRADE) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let mut request = Request::builder().method(parts.method.clone()).uri(nodes::uri(target)?);
    for (key, value) in &call.headers {
        if passes(key) {
            request = request.header(key, value);
        }
    }
    let request = request
        .body(Body::empty())
        .map_err(|error| Status::internal(error.to_string()))?;
    splice_through(call, parts, node, request, |request| ask(call, node, request)).await
}

/// Asks a server for an upgrade, answers as it does, and from then on only passes bytes.
pub(super) async fn splice_through<F>(
    call: &Call,
    mut parts: Parts,
    server: &str,
    request: Request<Body>,
    ask: impl FnOnce(Request<Body>) -> F,
) -> Result<Response<Body>, Status>
where
    F: Future<Output = Result<Response<hyper::body::Incoming>, Status>>,
{
    let Some(client_side) = parts.extensions.remove::<OnUpgrade>() else {
        return Err(Status::bad_request("Upgrade request required"));
    };
    let place = call.server.streams.take(server, &call.user)?;
    let mut answer = ask(request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return refused(call, answer).await;
    }
    let server_side = hyper::upgrade::on(&mut answer);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    call.server.spawn("stream", async move {
        splice(client_side, server_side).await;
        drop(place);
    });
    Ok(response)
}

/// What a server says that does not upgrade: a node's own words as a Status, a proxied one's as they are.
async fn refused(call: &Call, answer: Response<hyper::body::Incoming>) -> Result<Response<Body>, Status> {
    let (parts, body) = answer.into_parts();
    if call.info.subresource != "proxy" {
        return Err(relayed(parts.status, body).await);
    }
    if parts.status.as_u16() < 400 {
        let code = parts.status.as_u16();
        return Err(Status::new(
            500,
            "",
            format!("invalid upgrade response: status code {code}"),
        ));
    }
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// The node's query is the client's: command, streams, tty, ports.
fn node_query(call: &Call) -> String {
    let keys = ["command", "stdin", "stdout", "stderr", "tty", "ports", "port"];
    let mut pairs = Vec::new();
    for key in keys {
        for value in call.query.all(key) {
            pairs.push(format!("{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        }
    }
    // The kubelet's own names of the streams, which upstream's API server sends.
    for (key, own) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error")] {
        if call.query.flag(key) {
            pairs.push(format!("{own}=1"));
        }
    }
    pairs.join("&")
}

/// Headers that belong to the protocol, not to the client's standing with this server.
fn passes(key: &HeaderName) -> bool {
    let name = key.as_str();
    !(*key == HOST
        || *key == CONTENT_LENGTH
        || *key == TRANSFER_ENCODING
        || matches!(name, "authorization" | "cookie")
        || name.starts_with("impersonate-"))
}

async fn splice(client: OnUpgrade, node: OnUpgrade) {
    let (client, node) = match tokio::try_join!(client, node) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "an upgrade did not come about");
            return;
        }
    };
    let (client_from, client_to) = tokio::io::split(TokioIo::new(client));
    let (node_from, node_to) = tokio::io::split(TokioIo::new(node));
    let up = one_way(client_from, node_to);
    let down = one_way(node_from, client_to);
    tokio::pin!(up, down);
    tokio::select! {
        () = &mut up => down.await,
        // Whoever reads what the node said last has to have the time; but a client that then stays is left.
        () = &mut down => {
            let _ = tokio::time::timeout(LINGER, up).await;
        }
    }
}

/// Copies until the end, and passes the end on.
async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut buffer = vec![0; BUFFER];
    let copying = async {
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                return Ok::<(), std::io::Error>(());
            }
            to.write_all(&buffer[..read]).await?;
            to.flush().await?;
        }
    };
    if let Err(error) = copying.await {
        tracing::debug!(%error, "a spliced stream ended");
    }
    // Also after an error: a client that was killed says no goodbye, and its command has to learn of it.
    let _ = to.shutdown().await;
}
