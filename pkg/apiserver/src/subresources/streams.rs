//! pods/log, exec, attach and portforward: authorized here, spoken by the pod's node. An upgraded connection is spliced
//! through; which protocol it carries is between the client and the node.

use std::time::Duration;

use axum::body::Body;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mk8s_api::meta;
use mk8s_api::status::Status;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::nodes;
use crate::admission::{Operation, Options};
use crate::call::Call;
use crate::filters::authz::Attributes;
use crate::layers::Guard;

const BUFFER: usize = 32 << 10;
/// How long a client may stay after its node has ended the stream.
const LINGER: Duration = Duration::from_secs(30);

pub async fn log(call: &Call, parts: Parts) -> Result<Response<Body>, Status> {
    let pod = call.object()?.value()?;
    let container = container(&pod, call.query.get("container").unwrap_or_default(), false)?;
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
        "stream",
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
        nodes::address(call.server.cache(), node)?,
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

/// The container meant: the named one, or the only one.
fn container(pod: &Value, named: &str, running_only: bool) -> Result<String, Status> {
    let names = |list: &str| -> Vec<&str> {
        meta::items(pod, &["spec", list])
            .iter()
            .map(|container| meta::string(container, &["name"]))
            .collect()
    };
    let (containers, init, ephemeral) = (
        names("containers"),
        names("initContainers"),
        names("ephemeralContainers"),
    );
    let name = meta::name(pod);
    if !named.is_empty() {
        let known = containers
            .iter()
            .chain(&init)
            .chain(&ephemeral)
            .any(|own| *own == named);
        if !known {
            return Err(Status::bad_request(format!(
                "container {named} is not valid for pod {name}"
            )));
        }
        return Ok(named.to_string());
    }
    if let ([only], true) = (containers.as_slice(), running_only || init.is_empty()) {
        return Ok((*only).to_string());
    }
    if let [only] = containers.as_slice()
        && ephemeral.is_empty()
        && init.is_empty()
    {
        return Ok((*only).to_string());
    }
    // exec and attach may be told a default by annotation.
    if let Some(default) = meta::annotation(pod, "kubectl.kubernetes.io/default-container")
        && containers.contains(&default)
    {
        return Ok(default.to_string());
    }
    let mut text = format!(
        "a container name must be specified for pod {name}, choose one of: [{}]",
        containers.join(" ")
    );
    if !init.is_empty() {
        text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
    }
    Err(Status::bad_request(text))
}

/// exec, attach and portforward.
pub async fn upgrade(call: &Call, parts: Parts) -> Result<Response<Body>, Status> {
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
    let node = meta::string(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        return Err(Status::bad_request(format!(
            "pod {} does not have a host assigned",
            call.info.name
        )));
    }
    let base = nodes::address(call.server.cache(), node)?;
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let path = if call.info.subresource == "portforward" {
        format!("portForward/{namespace}/{name}")
    } else {
        let container = container(&pod, call.query.get("container").unwrap_or_default(), true)?;
        format!("{}/{namespace}/{name}/{container}", call.info.subresource)
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
