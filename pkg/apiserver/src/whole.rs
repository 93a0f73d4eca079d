//! An answer that was made whole, and its client who may not read it. What a client asks for costs him a few bytes, and would
//! lie in memory for as long as he keeps the connection: so the answer is on loan too, and handed to the connection in small
//! pieces, since what that has it keeps.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};

use crate::loan::Loan;
use crate::state::State;

/// From this length on an answer is lent; shorter ones a connection may hold as it is.
const LENT_FROM: u64 = 16 << 10;
/// What a connection is given at once.
const PIECE: usize = 16 << 10;

/// Lends what is long and whole; lists and watches, whose length nobody knows, see to themselves.
pub fn lend(state: &Arc<State>, response: Response<Body>) -> Response<Body> {
    match response.body().size_hint().exact() {
        Some(length) if length > LENT_FROM => response.map(|body| {
            let rest = Bytes::new();
            let loan = Loan::new(state, Whole { body, rest });
            Body::new(Lent { loan, left: length })
        }),
        _ => response,
    }
}

struct Whole {
    body: Body,
    /// Of the frame that is being handed out.
    rest: Bytes,
}

struct Lent {
    loan: Loan<Whole>,
    left: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("the answer was not read in time")]
struct NotRead;

impl Whole {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        // A copy, which does not keep the whole.
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&piece)))))
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(polled) = self.loan.with(|whole| whole.poll(cx)) else {
            return Poll::Ready(Some(Err(axum::Error::new(NotRead))));
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let sent = frame.data_ref().map_or(0, Bytes::len) as u64;
            self.left = self.left.saturating_sub(sent);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
