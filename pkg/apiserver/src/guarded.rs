//! An answer's body, or bytes of one, that hold something until they are sent, or dropped.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// The same bytes, which hold `guard` until the last of them is dropped.
pub fn bytes<G: Send + 'static>(data: Bytes, guard: G) -> Bytes {
    Bytes::from_owner(Piece { data, _guard: guard })
}

struct Piece<G> {
    data: Bytes,
    _guard: G,
}

impl<G> AsRef<[u8]> for Piece<G> {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

pub struct Guarded<G, B = Body> {
    pub body: B,
    pub _guard: G,
}

impl<G, B> http_body::Body for Guarded<G, B>
where
    G: Unpin,
    B: http_body::Body<Data = Bytes, Error = axum::Error> + Unpin,
{
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
