//! Between h2 and TLS: h2 flushes every DATA frame by itself, which would be a TLS record and a system call for each.
//! What one poll of the connection produces is gathered here and written once, after that poll.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Beyond this the gathered bytes go out at once, and when the socket does not take them, the writer waits.
const LIMIT: usize = 128 << 10;
/// A buffer that grew beyond this is given back when it is empty.
const KEEP: usize = 16 << 10;
/// What is reserved for who gathers more than that: the limit, and the frame that goes beyond it.
pub const LARGE: usize = LIMIT + (32 << 10);

thread_local! {
    /// A large buffer that was given back: who sends megabytes fills one as often as every tenth of a millisecond.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

struct Inner<T> {
    io: T,
    out: Vec<u8>,
    written: usize,
    /// Whether the stream below may still hold what was written to it: TLS does while the socket takes no more.
    held_below: bool,
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    /// Writes what is gathered, and flushes.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.held_below = true;
        }
        self.written = 0;
        self.out.clear();
        if self.out.capacity() > KEEP {
            let large = std::mem::take(&mut self.out);
            if large.capacity() <= LARGE {
                SPARE.set(large);
            }
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.held_below = false;
        Poll::Ready(Ok(()))
    }

    fn put(&mut self, bytes: &[u8]) {
        let length = self.out.len() + bytes.len();
        if length > KEEP.max(self.out.capacity()) {
            let mut large = SPARE.take();
            large.reserve(LARGE.max(length));
            large.extend_from_slice(&self.out);
            self.out = large;
        }
        self.out.extend_from_slice(bytes);
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.len() - self.written < LIMIT {
            return Poll::Ready(Ok(()));
        }
        self.poll_drain(cx)
    }
}

/// The connection's side.
pub struct Gather<T>(Arc<Mutex<Inner<T>>>);

/// Whoever polls the connection writes out through this afterwards.
pub struct Drain<T>(Arc<Mutex<Inner<T>>>);

pub fn gather<T>(io: T) -> (Gather<T>, Drain<T>) {
    let inner = Arc::new(Mutex::new(Inner {
        io,
        out: Vec::new(),
        written: 0,
        held_below: false,
    }));
    (Gather(inner.clone()), Drain(inner))
}

impl<T: AsyncWrite + Unpin> Drain<T> {
    /// Writes out what the last poll left. Errors show in the connection's next write or read.
    pub fn poll(&self, cx: &mut Context<'_>) -> bool {
        let mut inner = self.0.lock();
        if inner.out.is_empty() && !inner.held_below {
            return true;
        }
        !matches!(inner.poll_drain(cx), Poll::Ready(Err(_)))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gather<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_read(cx, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gather<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_room(cx))?;
        inner.put(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_room(cx))?;
        let mut total = 0;
        for slice in slices {
            inner.put(slice);
            total += slice.len();
        }
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The drain after the poll does it.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A socket below TLS that takes nothing for a while: what is written is taken, and held until it is flushed.
    struct Full {
        held: Vec<u8>,
        sent: Vec<u8>,
        refusals: usize,
    }

    impl AsyncWrite for Full {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.held.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.refusals > 0 {
                self.refusals -= 1;
                return Poll::Pending;
            }
            let held = std::mem::take(&mut self.held);
            self.sent.extend(held);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Nothing else may ever be written after it: a watch's last event.
    #[tokio::test]
    async fn what_is_held_below_is_flushed_though_nothing_is_gathered_any_more() {
        let full = Full {
            held: Vec::new(),
            sent: Vec::new(),
            refusals: 2,
        };
        let gathered = Arc::new(Mutex::new(Inner {
            io: full,
            out: b"event".to_vec(),
            written: 0,
            held_below: false,
        }));
        let drain = Drain(gathered.clone());
        for sent in [&b""[..], b"", b"event"] {
            assert!(std::future::poll_fn(|cx| Poll::Ready(drain.poll(cx))).await);
            assert_eq!(gathered.lock().io.sent, sent);
        }
    }

    #[tokio::test]
    async fn bytes_wait_for_the_drain() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut writer, drain) = gather(near);
        writer.write_all(b"a").await.unwrap();
        writer.flush().await.unwrap();
        writer.write_all(b"bc").await.unwrap();
        let mut seen = [0; 3];
        let early = tokio::time::timeout(std::time::Duration::from_millis(5), far.read(&mut seen)).await;
        assert!(early.is_err());
        assert!(std::future::poll_fn(|cx| Poll::Ready(drain.poll(cx))).await);
        far.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"abc");
        writer.write_all(&vec![1; LIMIT * 2]).await.unwrap();
        writer.shutdown().await.unwrap();
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest.len(), LIMIT * 2);
    }
}
