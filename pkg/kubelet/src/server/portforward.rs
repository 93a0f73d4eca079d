//! GET and POST /portForward: connections to ports inside a pod, over SPDY streams. Each is a pair of streams with the
//! same request id: one for data, one to say what went wrong. From kubectl 1.31 on the SPDY bytes come in the messages
//! of a WebSocket.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Sink, SinkExt, StreamExt};
use http::StatusCode;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use mk8s_network::netns;
use mk8s_supervisor::job;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::codec::{BytesCodec, FramedWrite};
use tokio_util::io::StreamReader;

use super::dial::{self, Outlet, Target};
use super::spdy::{Session, Stream};
use super::upgrade::{self, Kind};
use super::{portforward_channels, websocket};
use crate::agent::Agent;
use crate::pod;

const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const OVER_WEBSOCKET: [&str; 3] = [TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];
const OVER_SPDY: [&str; 1] = ["portforward.k8s.io"];
/// The second stream of a pair follows the first within this time.
const CREATION: Duration = Duration::from_secs(30);

pub async fn handle(
    State(agent): State<Arc<Agent>>,
    Path((namespace, name)): Path<(String, String)>,
    mut request: Request,
) -> Response {
    let Some(view) = super::find(&agent, &namespace, &name) else {
        return (StatusCode::NOT_FOUND, "pod does not exist").into_response();
    };
    let uid = pod::uid(&view.pod).to_owned();
    let netns = (!pod::host_network(&view.pod)).then(|| netns::path(&uid));
    if netns.is_some() && !netns::exists(&uid) {
        let text = format!("unable to do port forwarding: pod {name:?} has no network yet, or no more");
        return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let upgrade = match upgrade::negotiate(&mut request, &OVER_WEBSOCKET, &OVER_SPDY) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return *refusal,
    };
    let is_tunnel = upgrade.protocol == Some(TUNNEL);
    let by_channels = match upgrade.kind {
        Kind::WebSocket if !is_tunnel => match portforward_channels::ports(&query) {
            Ok(ports) => Some(ports),
            Err(text) => return (StatusCode::BAD_REQUEST, text).into_response(),
        },
        _ => None,
    };
    let target = Target { netns, pod: name, uid };
    let serving = job::spawn("portforward", async move {
        let connection = match upgrade.connection.await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%error, "an upgrade did not come about");
                return;
            }
        };
        match by_channels {
            Some(ports) => {
                let dialect = websocket::Dialect::of(upgrade.protocol);
                portforward_channels::serve(connection, dialect, &ports, &target).await;
            }
            None if is_tunnel => tunnelled(connection, target).await,
            None => plain(connection, target).await,
        }
    });
    drop(serving);
    upgrade.response
}

async fn plain(connection: Upgraded, target: Target) {
    let (from, to) = tokio::io::split(TokioIo::new(connection));
    let to = FramedWrite::new(to, BytesCodec::new());
    serve(Session::start(tokio::io::BufReader::new(from), to), target).await;
}

async fn tunnelled(connection: Upgraded, target: Target) {
    let (sink, stream) = websocket::open(connection).await.split();
    let data = stream.filter_map(|message| async {
        match message {
            Ok(Message::Binary(data)) => Some(Ok(data)),
            Ok(_) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        }
    });
    let to = sink
        .sink_map_err(io::Error::other)
        .with(|frame: Bytes| async { Ok::<_, io::Error>(Message::Binary(frame)) });
    serve(Session::start(StreamReader::new(Box::pin(data)), Box::pin(to)), target).await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Data,
    Error,
}

/// What a stream's headers ask for: its port, its role, and the request that it belongs to.
fn request(stream: &Stream) -> Result<(u16, Role, String), String> {
    let headers = &stream.headers;
    let port = port(headers.get("port"))?;
    let role = match headers.get("streamtype") {
        "data" => Role::Data,
        "error" => Role::Error,
        "" => return Err("\"streamType\" header is required".to_owned()),
        other => return Err(format!("invalid stream type {other:?}")),
    };
    let id = match headers.get("requestid") {
        // Old clients: the error stream is opened first, the data stream right after it.
        "" if role == Role::Error => stream.id.to_string(),
        "" => stream.id.wrapping_sub(2).to_string(),
        id => id.to_owned(),
    };
    Ok((port, role, id))
}

pub fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) => Err(format!("port {text:?} must be > 0")),
        Ok(port) => Ok(port),
        Err(error) => Err(format!("unable to parse {text:?} as a port: {error}")),
    }
}

async fn serve<S>(mut session: Session<S>, target: Target)
where
    S: Sink<Bytes, Error = io::Error> + Unpin + Send + 'static,
{
    let target = Arc::new(target);
    let mut halves: HashMap<String, oneshot::Sender<(Role, Stream)>> = HashMap::new();
    while let Some(stream) = session.incoming.recv().await {
        let (port, role, id) = match request(&stream) {
            Ok(request) => request,
            Err(error) => {
                tracing::debug!(error, pod = target.pod, "a stream is refused");
                stream.writer.refuse().await;
                continue;
            }
        };
        if let Some(waiting) = halves.remove(&id) {
            // One that waited in vain has dropped its end, and this one with it.
            let _ = waiting.send((role, stream));
            continue;
        }
        halves.retain(|_, waiting| !waiting.is_closed());
        let (sender, other) = oneshot::channel();
        halves.insert(id, sender);
        let target = target.clone();
        drop(job::spawn("portforward-port", async move {
            if let Some((data, error)) = pair((role, stream), other).await {
                forward(data, error, &target, port).await;
            }
        }));
    }
    session.close().await;
}

/// Data and error stream, in this order.
async fn pair(first: (Role, Stream), other: oneshot::Receiver<(Role, Stream)>) -> Option<(Stream, Stream)> {
    let second = match tokio::time::timeout(CREATION, other).await {
        Ok(Ok(second)) => second,
        // The connection ended.
        Ok(Err(_)) => return None,
        Err(_) => {
            first.1.writer.refuse().await;
            return None;
        }
    };
    match (first, second) {
        ((Role::Data, data), (Role::Error, error)) | ((Role::Error, error), (Role::Data, data)) => Some((data, error)),
        ((_, one), (_, two)) => {
            one.writer.refuse().await;
            two.writer.refuse().await;
            None
        }
    }
}

async fn forward(data: Stream, error: Stream, target: &Target, port: u16) {
    let outlet = Outlet::Stream(data.writer.clone());
    let work = dial::forward(target, port, data.data, &outlet);
    let result = tokio::select! {
        result = work => result,
        // The client wants no more of it, or is gone.
        _ = data.reset => Ok(()),
    };
    if let Err(text) = result {
        tracing::debug!(error = text, pod = target.pod, "a port is not forwarded");
        error.writer.write(text.as_bytes()).await;
    }
    // The client waits for the ends of both.
    data.writer.finish().await;
    error.writer.finish().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        for (text, expected) in [("80", Some(80)), ("65535", Some(65535))] {
            assert_eq!(port(text).ok(), expected);
        }
        for text in ["0", "65536", "", "http", "-1"] {
            assert!(port(text).is_err(), "{text}");
        }
    }
}
