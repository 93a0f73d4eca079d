//! TLS connections: h2 and HTTP/1.1 by ALPN, the client's certificate read once per connection, slow ones closed.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use futures::FutureExt as _;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mk8s_supervisor::job;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::activity::Activity;
use crate::filters::authn::user_of_certificate;
use crate::gather::{self, Drain, Gather};
use crate::guarded::Guarded;
use crate::identity::User;
use crate::lane::{Carrier, Lanes};
use crate::unread::{self, Lingering};

const HANDSHAKE: Duration = Duration::from_secs(10);
/// An HTTP/1.1 connection without a request for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// An h2 connection on which nothing goes on for so long is closed.
const SILENCE: Duration = Duration::from_secs(90);
/// What requests under way get when the server stops.
const DRAIN: Duration = Duration::from_secs(3);
/// Upstream's window for what clients send.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 25 << 20;
/// Requests at once on a connection, as upstream's. One of many watches has a client certificate: a node's agent.
const STREAMS: u32 = 100;
const STREAMS_OF_COMPONENTS: u32 = 1000;

/// The other end of a connection; in each of its requests' extensions.
#[derive(Clone)]
pub struct Peer {
    /// Whom the client certificate names.
    pub user: Option<Arc<User>>,
    pub address: Option<IpAddr>,
}

/// Serves until the token is cancelled; a client that lets a piece of an answer lie for longer than `unread` loses his
/// connection.
pub async fn serve<H, F>(
    handle: H,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    token: CancellationToken,
    unread: Duration,
) -> std::io::Result<()>
where
    H: Fn(Request<Body>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(tls);
    let connections = TaskTracker::new();
    let lanes = Lanes::new(unread);
    loop {
        let accepted = tokio::select! {
            () = token.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(handle.clone(), acceptor.clone(), stream, token.clone(), lanes.carrier());
                job::spawn("connection", connections.track_future(connection));
            }
            Err(error) => {
                // Out of file descriptors, mostly: others have to end first.
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    connections.close();
    let _ = tokio::time::timeout(DRAIN, connections.wait()).await;
    Ok(())
}

async fn connection<H, F>(
    handle: H,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    token: CancellationToken,
    carrier: Carrier,
) where
    H: Fn(Request<Body>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = Peer {
        user: certificate.and_then(user_of_certificate).map(Arc::new),
        address: stream.get_ref().0.peer_addr().ok().map(|address| address.ip()),
    };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        let serving = http2(handle, peer, stream, token, carrier.clone());
        carrier.carry(Box::pin(serving)).await;
    } else {
        let serving = http1(handle, peer, stream, token, carrier.clone());
        carrier.carry(Box::pin(serving)).await;
    }
}

fn http2_builder(carrier: Carrier, peer: &Peer) -> http2::Builder<Carrier> {
    let streams = peer.user.as_ref().map_or(STREAMS, |_| STREAMS_OF_COMPONENTS);
    let mut builder = http2::Builder::new(carrier);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(streams)
        .max_send_buf_size(256 << 10)
        .max_header_list_size(1 << 20)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

fn told(end: Result<(), hyper::Error>) {
    if let Err(error) = end {
        tracing::debug!(%error, "a connection ended");
    }
}

/// What was gathered is encrypted and written at once; by itself TLS does so with every 64 KB, each of which wakes the reader.
fn gathered(mut stream: TlsStream<TcpStream>) -> (Gather<TlsStream<TcpStream>>, Drain<TlsStream<TcpStream>>) {
    stream.get_mut().1.set_buffer_limit(Some(gather::LARGE));
    gather::gather(stream)
}

/// A connection of many requests at once, until it is silent for too long or the server stops.
async fn http2<H, F>(handle: H, peer: Peer, stream: TlsStream<TcpStream>, token: CancellationToken, carrier: Carrier)
where
    H: Fn(Request<Body>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let builder = http2_builder(carrier.clone(), &peer);
    let activity = Activity::new();
    let (requests, weighs) = (activity.clone(), carrier.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        let busy = requests.begin();
        request.extensions_mut().insert(peer.clone());
        // Kilobytes, of which nothing is left when the answer is there, though it may lie unread for long.
        let handled = Box::pin(handle(request.map(Body::new)));
        let weighs = weighs.clone();
        async move {
            let response = weighs.weigh(handled.await);
            Ok::<_, Infallible>(response.map(|body| Guarded { body, _guard: busy }))
        }
    });
    let (io, drain) = gathered(stream);
    let overdue = carrier.overdue();
    tokio::pin!(overdue);
    let serving = builder.serve_connection(TokioIo::new(io), service);
    tokio::pin!(serving);
    let mut stopping = false;
    let deadline = tokio::time::sleep(SILENCE);
    tokio::pin!(deadline);
    let stop = token.cancelled().fuse();
    tokio::pin!(stop);
    std::future::poll_fn(|cx| {
        let done = serving.as_mut().poll(cx);
        // After the poll, so that all it wrote goes out together.
        if !drain.poll(cx) {
            return Poll::Ready(());
        }
        if let Poll::Ready(result) = done {
            told(result);
            return Poll::Ready(());
        }
        if overdue.as_mut().poll(cx).is_ready() {
            tracing::debug!("a connection whose client does not read is closed");
            return Poll::Ready(());
        }
        let mut leave = stop.as_mut().poll(cx).is_ready();
        if deadline.as_mut().poll(cx).is_ready() {
            if stopping {
                return Poll::Ready(());
            }
            match activity.patience(SILENCE) {
                Some(left) => {
                    deadline.as_mut().reset(Instant::now() + left);
                    cx.waker().wake_by_ref();
                }
                None => leave = true,
            }
        }
        if leave && !stopping {
            stopping = true;
            serving.as_mut().graceful_shutdown();
            deadline.as_mut().reset(Instant::now() + DRAIN);
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
}

/// A connection of one request after another. What a client still sends when it has its answer is read and dropped.
async fn http1<H, F>(handle: H, peer: Peer, stream: TlsStream<TcpStream>, token: CancellationToken, carrier: Carrier)
where
    H: Fn(Request<Body>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (io, linger) = Lingering::new(stream);
    let overdue = carrier.overdue();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let expects_continue = request.headers().contains_key(EXPECT);
        let (parts, body) = request.into_parts();
        let (lent, unread) = unread::lend(body);
        let handled = handle(Request::from_parts(parts, Body::new(lent)));
        let (linger, weighs) = (linger.clone(), carrier.clone());
        async move {
            let mut response = handled.await;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS && !unread.drain(expects_continue).await {
                linger.store(true, Ordering::Relaxed);
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(weighs.weigh(response))
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .keep_alive(true);
    let serving = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
    tokio::pin!(serving);
    tokio::select! {
        result = serving.as_mut() => {
            told(result);
            return;
        }
        () = overdue => {
            tracing::debug!("a connection whose client does not read is closed");
            return;
        }
        () = token.cancelled() => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(DRAIN, serving).await;
}
