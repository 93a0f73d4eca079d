//! How much of its answers each user leaves unread. A request for a megabyte costs its client sixty bytes, and he may ask a
//! thousand times on one connection and read nothing: so what was made for him and is not sent yet is counted, and beyond a
//! bound nothing more is made for him until he has read some of it. Others do not wait with him. What is relayed to him from a
//! node or a pod may lie for as long as he likes, as a log in a pager does: it has a bound of its own, and keeps nothing else.

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
use crate::{guarded, pieces};

/// Bytes that are made for one user, or for all service accounts of one namespace, and not sent.
const MOST: usize = 64 << 20;
/// The same of one service account: no pod keeps its neighbours from reading.
const MOST_OF_ACCOUNT: usize = MOST / 4;
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// The accounts of those who have any, by whose turn it is (see [`Flow`]) and by service account.
#[derive(Default)]
pub struct Unsent(Mutex<Accounts>);

#[derive(Default)]
struct Accounts {
    known: HashMap<Owner, Weak<Account>>,
    /// How many there may be before those are looked for that nobody has any more.
    enough: usize,
}

/// A flow, and the service account of it; empty: all together.
type Owner = (u64, Box<str>);

/// Who makes an answer: this server, or who stands behind it.
#[derive(Clone, Copy)]
pub enum Source {
    Own,
    Relayed,
}

/// What is made for somebody.
pub struct Account {
    /// By its source.
    bytes: [AtomicUsize; 2],
    most: usize,
    freed: Arc<Notify>,
    /// That of a namespace's service accounts together.
    shared: Option<Arc<Account>>,
}

/// Bytes that are counted until it is dropped.
struct Charge(Source, usize, Arc<Account>);

impl Drop for Charge {
    fn drop(&mut self) {
        self.2.release(self.0, self.1);
    }
}

impl Unsent {
    /// Administrators and the cluster's own have none.
    pub fn of(&self, flow: Option<Flow>, user: &str) -> Option<Arc<Account>> {
        let Some(Flow::Of(flow)) = flow else { return None };
        let shared = self.account(flow, "", None);
        if !user.starts_with(SERVICE_ACCOUNT) {
            return Some(shared);
        }
        Some(self.account(flow, user, Some(shared)))
    }

    fn account(&self, flow: u64, user: &str, shared: Option<Arc<Account>>) -> Arc<Account> {
        let mut accounts = self.0.lock();
        let key = (flow, Box::from(user));
        if let Some(own) = accounts.known.get(&key).and_then(Weak::upgrade) {
            return own;
        }
        if accounts.known.len() > accounts.enough {
            accounts.known.retain(|_, own| own.strong_count() > 0);
            accounts.enough = 64 + 2 * accounts.known.len();
        }
        let own = Arc::new(Account::new(shared));
        accounts.known.insert(key, Arc::downgrade(&own));
        own
    }
}

impl Account {
    fn new(shared: Option<Arc<Account>>) -> Account {
        Account {
            bytes: Default::default(),
            most: if shared.is_some() { MOST_OF_ACCOUNT } else { MOST },
            freed: shared.as_ref().map_or_else(Arc::default, |shared| shared.freed.clone()),
            shared,
        }
    }

    fn is_full(&self, of: Source) -> bool {
        let bytes = self.bytes[of as usize].load(Ordering::Acquire);
        bytes >= self.most || self.shared.as_ref().is_some_and(|shared| shared.is_full(of))
    }

    /// Whether an answer that has begun stands still. One that is relayed does not for what his neighbours leave unread, unless
    /// something of his own lies there too: all together they leave no more than a piece each beyond their bound.
    fn stands_still(&self, of: Source) -> bool {
        let own = self.bytes[of as usize].load(Ordering::Acquire);
        let reads_well = matches!(of, Source::Relayed) && self.shared.is_some() && own == 0;
        !reads_well && self.is_full(of)
    }

    fn charge(&self, of: Source, bytes: usize) {
        self.bytes[of as usize].fetch_add(bytes, Ordering::AcqRel);
        if let Some(shared) = &self.shared {
            shared.charge(of, bytes);
        }
    }

    fn release(&self, of: Source, bytes: usize) {
        if let Some(shared) = &self.shared {
            shared.release(of, bytes);
        }
        let before = self.bytes[of as usize].fetch_sub(bytes, Ordering::AcqRel);
        let has_room_again = before >= self.most && before - bytes < self.most;
        if has_room_again || (bytes > 0 && before == bytes) {
            self.freed.notify_waiters();
        }
    }

    /// Waits until something may be made for him.
    ///
    /// # Errors
    /// 429 where he has read too little by the deadline.
    pub async fn room(&self, of: Source, deadline: Instant) -> Result<(), Status> {
        while self.is_full(of) {
            let freed = self.freed.notified();
            if !self.is_full(of) {
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
        if hint.exact().is_some() && made < pieces::FROM {
            return response;
        }
        let (of, made) = if relayed {
            (Source::Relayed, 0)
        } else {
            (Source::Own, made)
        };
        response.map(|body| {
            self.charge(of, made);
            Body::new(Counted {
                body,
                of,
                made,
                account: self,
                freed: None,
            })
        })
    }
}

struct Counted {
    body: Body,
    of: Source,
    /// What of it was there from the start, and is counted already.
    made: usize,
    account: Arc<Account>,
    freed: Option<Pin<Box<OwnedNotified>>>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.account.release(self.of, self.made);
    }
}

impl Counted {
    /// Ready when something may be made.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.made == 0 && !self.body.is_end_stream() && self.account.stands_still(self.of) {
            let freed = &self.account.freed;
            let waiting = self
                .freed
                .get_or_insert_with(|| Box::pin(freed.clone().notified_owned()));
            // From here on it hears of what is freed: only then is it asked again whether there is room.
            waiting.as_mut().enable();
            if self.account.stands_still(self.of) {
                ready!(waiting.as_mut().poll(cx));
            }
            self.freed = None;
        }
        Poll::Ready(())
    }

    fn counted(&mut self, data: Bytes) -> Bytes {
        let of_made = self.made.min(data.len());
        self.made -= of_made;
        if data.len() < pieces::FROM {
            self.account.release(self.of, of_made);
            return data;
        }
        self.account.charge(self.of, data.len() - of_made);
        let charge = Charge(self.of, data.len(), self.account.clone());
        guarded::bytes(data, charge)
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

    /// Reads and keeps all that is made of it.
    async fn fill(body: &mut Body) -> Vec<Frame<Bytes>> {
        let mut held = Vec::new();
        let waits = async {
            loop {
                held.push(body.frame().await.expect("endless").expect("a frame"));
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(1), waits).await.is_err());
        assert_eq!(held.len() * PIECE, MOST);
        held
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_made_than_may_lie_unread() {
        let accounts = Unsent::default();
        let own = accounts.of(Some(Flow::Of(1)), "jane").expect("an account");
        let mut body = own.clone().count(endless(), false).into_body();
        let mut held = fill(&mut body).await;
        let refused = own.room(Source::Own, Instant::now() + Duration::from_secs(1)).await;
        assert_eq!(refused.map_err(|status| status.code), Err(429));
        // Others are not kept waiting, and who reads goes on.
        let other = accounts.of(Some(Flow::Of(2)), "joe").expect("an account");
        assert!(other.room(Source::Own, Instant::now()).await.is_ok());
        let next = mk8s_supervisor::job::spawn("reader", async move { body.frame().await.is_some() });
        tokio::task::yield_now().await;
        drop(held.pop());
        assert!(next.await.expect("a frame"));
        drop(held);
        assert_eq!(own.bytes[Source::Own as usize].load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_relayed_and_not_read_keeps_nothing_else() {
        let own = Arc::new(Account::new(None));
        let mut body = own.clone().count(endless(), true).into_body();
        let held = fill(&mut body).await;
        assert!(own.room(Source::Own, Instant::now()).await.is_ok());
        assert!(own.room(Source::Relayed, Instant::now()).await.is_err());
        // What is read is given back where it was counted.
        drop((held, body));
        let left = [Source::Own, Source::Relayed].map(|of| own.bytes[of as usize].load(Ordering::Relaxed));
        assert_eq!(left, [0, 0]);
    }

    #[test]
    fn accounts_that_nobody_has_any_more_are_forgotten() {
        let accounts = Unsent::default();
        let of = |flow: u64| accounts.of(Some(Flow::Of(flow)), "jane").expect("an account");
        let held = of(0);
        for flow in 1..1000 {
            drop(of(flow));
        }
        let known = accounts.0.lock().known.len();
        assert!(known < 200, "{known}");
        assert!(Arc::ptr_eq(&held, &of(0)));
    }

    #[test]
    fn one_service_account_leaves_room_for_the_others_of_its_namespace() {
        let accounts = Unsent::default();
        let of = |name: &str| {
            let account = accounts.of(Some(Flow::Of(1)), &format!("{SERVICE_ACCOUNT}ns:{name}"));
            account.expect("an account")
        };
        let all = ["a", "b", "c", "d", "e"].map(of);
        all[0].charge(Source::Own, MOST_OF_ACCOUNT);
        assert!(all[0].is_full(Source::Own) && of("a").is_full(Source::Own) && !all[1].is_full(Source::Own));
        for account in &all[1..4] {
            account.charge(Source::Own, MOST_OF_ACCOUNT);
        }
        assert!(all[4].is_full(Source::Own), "together they have no more than a user");
        all[0].release(Source::Own, MOST_OF_ACCOUNT);
        assert!(!all[4].is_full(Source::Own) && !all[0].is_full(Source::Own));
    }

    /// A log that is followed goes on, whatever the namespace's other accounts leave unread of theirs.
    #[tokio::test(start_paused = true)]
    async fn what_is_relayed_to_who_reads_goes_on() {
        let shared = Arc::new(Account::new(None));
        let own = Arc::new(Account::new(Some(shared.clone())));
        let mut relayed = own.clone().count(endless(), true).into_body();
        let mut made = own.clone().count(endless(), false).into_body();
        shared.charge(Source::Relayed, MOST);
        shared.charge(Source::Own, MOST);
        for _ in 0..10 {
            let next = tokio::time::timeout(Duration::from_secs(1), relayed.frame()).await;
            assert!(next.is_ok_and(|frame| frame.is_some()), "it stands still");
        }
        let soon = Duration::from_secs(1);
        assert!(tokio::time::timeout(soon, made.frame()).await.is_err());
        assert!(own.room(Source::Relayed, Instant::now()).await.is_err(), "none begins");
        // Who leaves something of it stands still until he has read that.
        let held = relayed.frame().await;
        assert!(tokio::time::timeout(soon, relayed.frame()).await.is_err());
        let next = mk8s_supervisor::job::spawn("reader", async move { relayed.frame().await.is_some() });
        tokio::task::yield_now().await;
        drop(held);
        let next = tokio::time::timeout(soon, next).await;
        assert!(next.is_ok_and(|frame| frame.is_ok_and(|is_some| is_some)));
    }

    #[tokio::test]
    async fn what_is_whole_is_counted_from_the_start_and_once() {
        let own = Arc::new(Account::new(None));
        let bytes = || own.bytes[Source::Own as usize].load(Ordering::Relaxed);
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
        assert!(Unsent::default().of(None, "admin").is_none());
    }
}
