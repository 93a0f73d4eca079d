//! What an HTTP/1.1 client is still sending when its request has been answered. Closing a socket with bytes in it that
//! nobody has read makes the kernel cut the connection, and the answer is lost on its way: so the rest of the body is read
//! and dropped, and where it is too long for that, the connection is closed in two steps.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How much of a body is read for nothing, and for how long, so that the connection can go on. Go's server reads as much.
const DRAIN: usize = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection that ends is read from, so that its last answer is not cut.
const LINGER: Duration = Duration::from_millis(500);

struct Slot {
    body: Mutex<Option<Incoming>>,
    /// Whether any of it was asked for: a client that expects `100 Continue` sends nothing before.
    asked: AtomicBool,
}

/// A request's body as its handler reads it.
pub struct Lent(Arc<Slot>);

/// The same body for when the handler is done.
pub struct Unread(Arc<Slot>);

pub fn lend(body: Incoming) -> (Lent, Unread) {
    let slot = Arc::new(Slot {
        body: Mutex::new(Some(body)),
        asked: AtomicBool::new(false),
    });
    (Lent(slot.clone()), Unread(slot))
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.asked.store(true, Ordering::Relaxed);
        let mut slot = self.0.body.lock();
        let Some(body) = slot.as_mut() else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            *slot = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.body.lock().as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .body
            .lock()
            .as_ref()
            .map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Unread {
    /// Reads what the handler has left; whether the connection can serve another request.
    pub async fn drain(self, expects_continue: bool) -> bool {
        let Some(mut body) = self.0.body.lock().take() else {
            return true;
        };
        if body.is_end_stream() {
            return true;
        }
        if body.size_hint().lower() > DRAIN as u64 || (expects_continue && !self.0.asked.load(Ordering::Relaxed)) {
            return false;
        }
        let read = async {
            let mut left = DRAIN;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                let length = frame.data_ref().map_or(0, Bytes::len);
                match left.checked_sub(length) {
                    Some(rest) => left = rest,
                    None => return false,
                }
            }
            true
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap_or(false)
    }
}

/// A connection that is closed in two steps when it is told to: it says that nothing more comes, and goes on reading for
/// a moment.
pub struct Lingering<T> {
    io: T,
    asked: Arc<AtomicBool>,
    /// Set once nothing more is written.
    until: Option<Pin<Box<Sleep>>>,
}

impl<T> Lingering<T> {
    /// The connection, and what tells it that its client may still be sending when it ends.
    pub fn new(io: T) -> (Lingering<T>, Arc<AtomicBool>) {
        let asked = Arc::new(AtomicBool::new(false));
        let lingering = Lingering {
            io,
            asked: asked.clone(),
            until: None,
        };
        (lingering, asked)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Lingering<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.until.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        }
        if !this.asked.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let until = this.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut dropped = [0; 8 << 10];
        while until.as_mut().poll(cx).is_pending() {
            let mut into = ReadBuf::new(&mut dropped);
            let read = ready!(Pin::new(&mut this.io).poll_read(cx, &mut into));
            if read.is_err() || into.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}
