//! How much of its answers each user leaves unread. A request for a megabyte costs its client sixty bytes, and he may ask a
//! thousand times on one connection and read nothing: so what was made for him and is not sent yet is counted, and beyond a
//! bound nothing more is made for him until he has read some of it. Others do not wait with him.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};
use mk8s_api::status::Status;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use crate::limits::Flow;

/// Bytes that are made for one user and not sent.
const MOST: usize = 64 << 20;
/// Shorter pieces are not counted: a connection may hold them as they are.
const COUNTED_FROM: usize = 16 << 10;

/// The accounts of those who have any.
#[derive(Default)]
pub struct Unsent(Mutex<HashMap<u64, Weak<Account>>>);

/// What is made for one user, or for all service accounts of one namespace.
#[derive(Default)]
pub struct Account {
    bytes: AtomicUsize,
    freed: Arc<Notify>,
}

impl Unsent {
    /// Administrators and the cluster's own have none.
    pub fn of(&self, flow: Option<Flow>) -> Option<Arc<Account>> {
        let Some(Flow::Of(user)) = flow else { return None };
        let mut accounts = self.0.lock();
        if let Some(own) = accounts.get(&user).and_then(Weak::upgrade) {
            return Some(own);
        }
        accounts.retain(|_, own| own.strong_count() > 0);
        let own = Arc::<Account>::default();
        accounts.insert(user, Arc::downgrade(&own));
        Some(own)
    }
}

impl Account {
    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Acquire) >= MOST
    }

    fn charge(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    fn release(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before >= MOST && before - bytes < MOST {
            self.freed.notify_waiters();
        }
    }

    /// Waits until something may be made for him.
    ///
    /// # Errors
    /// 429 where he has read too little by the deadline.
    pub async fn room(&self, deadline: Instant) -> Result<(), Status> {
        while self.is_full() {
            let freed = self.freed.notified();
            if !self.is_full() {
                break;
            }
            let waited = tokio::time::timeout_at(deadline, freed).await;
            waited.map_err(|_| Status::too_many_requests("too much of what was answered before is not read yet", 1))?;
        }
        Ok(())
    }

    /// Counts an answer until it is sent: what is there of it already, and each piece as it is made. Of one that is
    /// `relayed` nothing is there.
    pub fn count(self: Arc<Self>, response: Response<Body>, relayed: bool) -> Response<Body> {
        let hint = response.body().size_hint();
        let made = usize::try_from(hint.lower()).unwrap_or(usize::MAX);
        if hint.exact().is_some() && made < COUNTED_FROM {
            return response;
        }
        let made = if relayed { 0 } else { made };
        response.map(|body| {
            self.charge(made);
            Body::new(Counted {
                body,
                made,
                account: self,
                freed: None,
            })
        })
    }
}

struct Counted {
    body: Body,
    /// What of it was there from the start, and is counted already.
    made: usize,
    account: Arc<Account>,
    freed: Option<Pin<Box<OwnedNotified>>>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.account.release(self.made);
    }
}

impl Counted {
    /// Ready when something may be made.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.made == 0 && self.account.is_full() {
            let freed = &self.account.freed;
            let waiting = self
                .freed
                .get_or_insert_with(|| Box::pin(freed.clone().notified_owned()));
            // From here on it hears of what is freed: only then is it asked again whether there is room.
            waiting.as_mut().enable();
            if self.account.is_full() {
                ready!(waiting.as_mut().poll(cx));
            }
            self.freed = None;
        }
        Poll::Ready(())
    }

    fn counted(&mut self, data: Bytes) -> Bytes {
        let of_made = self.made.min(data.len());
        self.made -= of_made;
        if data.len() < COUNTED_FROM {
            self.account.release(of_made);
            return data;
        }
        self.account.charge(data.len() - of_made);
        let account = self.account.clone();
        Bytes::from_owner(Piece { data, account })
    }
}

/// Bytes on their way to the client; whoever drops the last of them has sent them, or gives up.
struct Piece {
    data: Bytes,
    account: Arc<Account>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.account.release(self.data.len());
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        ready!(self.poll_room(cx));
        let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(polled.map(|frame| frame.map(|frame| frame.map_data(|data| self.counted(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;

    use super::*;

    const PIECE: usize = 8 << 20;

    fn endless() -> Response<Body> {
        let pieces = futures::stream::repeat_with(|| Ok::<_, std::convert::Infallible>(vec![0; PIECE]));
        Response::new(Body::from_stream(pieces))
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_made_than_may_lie_unread() {
        let accounts = Unsent::default();
        let own = accounts.of(Some(Flow::Of(1))).expect("an account");
        let mut body = own.clone().count(endless(), false).into_body();
        let mut held = Vec::new();
        let waits = async {
            loop {
                held.push(body.frame().await.expect("endless").expect("a frame"));
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(1), waits).await.is_err());
        assert_eq!(held.len() * PIECE, MOST);
        let refused = own.room(Instant::now() + Duration::from_secs(1)).await;
        assert_eq!(refused.map_err(|status| status.code), Err(429));
        // Others are not kept waiting, and who reads goes on.
        let other = accounts.of(Some(Flow::Of(2))).expect("an account");
        assert!(other.room(Instant::now()).await.is_ok());
        let next = mk8s_supervisor::job::spawn("reader", async move { body.frame().await.is_some() });
        tokio::task::yield_now().await;
        drop(held.pop());
        assert!(next.await.expect("a frame"));
        drop(held);
        assert_eq!(own.bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_is_whole_is_counted_from_the_start_and_once() {
        let own = Arc::<Account>::default();
        let bytes = || own.bytes.load(Ordering::Relaxed);
        let whole = || Response::new(Body::from(vec![0; PIECE]));
        let body = own.clone().count(whole(), false).into_body();
        assert_eq!(bytes(), PIECE);
        let sent = body.collect().await.expect("bytes").to_bytes();
        assert_eq!((sent.len(), bytes()), (PIECE, PIECE));
        drop(sent);
        assert_eq!(bytes(), 0);
        drop(own.clone().count(whole(), false));
        assert_eq!(bytes(), 0);
        let _relayed = own.clone().count(whole(), true);
        assert_eq!(bytes(), 0);
        assert!(Unsent::default().of(None).is_none());
    }
}
