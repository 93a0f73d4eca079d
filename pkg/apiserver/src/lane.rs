//! Where long answers are sent. To encrypt and write megabytes takes a core for as long as it lasts, and whoever waits behind
//! it for a thread waits with it; so a connection moves to threads of its own while it sends one, with all that is asked on it
//! meanwhile, and comes back when that is sent, or its client takes no more of it. The others keep threads that only ever work
//! for moments, which the kernel gives a core as soon as there is something to do.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Response, Uri};
use http_body::{Frame, SizeHint};
use hyper::rt::Executor;
use mk8s_supervisor::job::{Home, Lane};
use parking_lot::Mutex;
use tower_service::Service;

use crate::pieces::{self, Pieces};

/// An answer of which so much is there at once is a long one: more than two pieces of a list.
const LONG: usize = 256 << 10;

/// How long a connection stays away after what it last sent of a long answer.
#[derive(Clone, Copy)]
struct Patience {
    /// While there is more of it. Who stops reading would do all of his work where others' long answers are sent.
    within: Duration,
    /// When it is over: who reads page after page does not come and go with each.
    after: Duration,
}

const PATIENCE: Patience = Patience {
    within: Duration::from_secs(1),
    after: Duration::from_millis(20),
};

/// Begins what outlives a request where everything began, wherever the request is: on the threads of long answers it would wait
/// behind them, and end with them.
#[derive(Clone)]
pub struct AtHome(Home);

impl AtHome {
    /// Needs the runtime around it on which everything begins.
    pub fn current() -> AtHome {
        AtHome(Home::current())
    }

    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(name, work);
    }
}

/// A client's connector: the sockets of connections that its callers share belong where everything began, too.
#[derive(Clone)]
pub struct Connector<C> {
    inner: C,
    home: AtHome,
}

impl AtHome {
    pub fn connector<C>(&self, inner: C) -> Connector<C> {
        Connector {
            inner,
            home: self.clone(),
        }
    }
}

type Reached<C> = Result<<C as Service<Uri>>::Response, BoxError>;

impl<C> Service<Uri> for Connector<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Response: Send + 'static,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Reached<C>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let reached = self.home.0.spawn("connect", self.inner.call(to)).abort_on_drop();
        Box::pin(async move { reached.await? })
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for AtHome {
    fn execute(&self, work: F) {
        self.0.spawn("client", work);
    }
}

/// Half as many as serve everything: those have the other cores.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 4).max(1))
}

/// As the process list shows them.
const NAME: &str = "long-answers";

/// The threads for all connections of a listener. There are none until somebody needs them.
#[derive(Clone)]
pub struct Lanes {
    home: Home,
    lane: Arc<OnceLock<Option<Lane>>>,
    patience: Patience,
    /// How long a client may let a piece of his answers lie.
    unread: Duration,
}

impl Lanes {
    /// Made on the runtime where everything begins.
    pub fn new(unread: Duration) -> Lanes {
        Lanes {
            home: Home::current(),
            lane: Arc::default(),
            patience: PATIENCE,
            unread,
        }
    }

    fn lane(&self) -> Option<&Lane> {
        let started = self.lane.get_or_init(|| {
            Lane::start(NAME, threads())
                .inspect_err(
                    |error| tracing::warn!(%error, "long answers are sent by the threads that serve everything"),
                )
                .ok()
        });
        started.as_ref()
    }

    pub fn carrier(&self) -> Carrier {
        Carrier {
            lanes: self.clone(),
            answers: Arc::default(),
            pieces: Pieces::default(),
        }
    }
}

/// The long answers of one connection.
#[derive(Default)]
struct Answers {
    under_way: AtomicUsize,
    /// Whether `sent` may say that it is away.
    recent: AtomicBool,
    /// When one last began, went on by as much as makes a long one, or ended.
    sent: Mutex<Option<Instant>>,
}

impl Answers {
    fn begin(&self) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    fn goes_on(&self) {
        *self.sent.lock() = Some(Instant::now());
        self.recent.store(true, Ordering::Relaxed);
    }

    fn end(&self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        self.goes_on();
    }

    fn are_away(&self, patience: Patience) -> bool {
        self.recent.load(Ordering::Relaxed) && self.are_recent(patience)
    }

    fn are_recent(&self, patience: Patience) -> bool {
        let patience = match self.under_way.load(Ordering::Relaxed) {
            0 => patience.after,
            _ => patience.within,
        };
        let sent = self.sent.lock();
        let recent = sent.is_some_and(|sent| sent.elapsed() < patience);
        self.recent.store(recent, Ordering::Relaxed);
        recent
    }
}

/// Runs what is done for one connection, here or there.
#[derive(Clone)]
pub struct Carrier {
    lanes: Lanes,
    answers: Arc<Answers>,
    pieces: Pieces,
}

impl Carrier {
    fn is_away(&self) -> bool {
        self.answers.are_away(self.lanes.patience)
    }

    pub async fn carry(self, mut work: BoxFuture<'static, ()>) {
        loop {
            let is_away = self.is_away();
            let leg = Leg {
                work: Some(work),
                carrier: self.clone(),
                is_away,
            };
            let lane = if is_away { self.lanes.lane() } else { None };
            let rest = match lane {
                Some(lane) => lane.spawn("long-answer", leg).abort_on_drop().await.ok().flatten(),
                None => leg.await,
            };
            let Some(rest) = rest else { return };
            work = rest;
        }
    }

    /// An answer with a body which tells when it is a long one.
    pub fn weigh(&self, response: Response<Body>) -> Response<Weighed> {
        let is_relayed = pieces::is_relayed(&response);
        response.map(|body| Weighed {
            body,
            at_once: 0,
            is_long: false,
            is_relayed,
            carrier: self.clone(),
        })
    }

    /// Ends when the client has let a piece of an answer lie for too long.
    pub fn overdue(&self) -> impl Future<Output = ()> + Send + use<> {
        self.pieces.clone().overdue(self.lanes.unread)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Carrier {
    fn execute(&self, work: F) {
        self.lanes.home.spawn("request", self.clone().carry(Box::pin(work)));
    }
}

/// Work until it is to be done elsewhere: what is left of it then.
struct Leg {
    work: Option<BoxFuture<'static, ()>>,
    carrier: Carrier,
    is_away: bool,
}

impl Future for Leg {
    type Output = Option<BoxFuture<'static, ()>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else {
            return Poll::Ready(None);
        };
        if work.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        if self.carrier.is_away() == self.is_away {
            return Poll::Pending;
        }
        Poll::Ready(self.work.take())
    }
}

/// See [`Carrier::weigh`].
pub struct Weighed {
    body: Body,
    /// What it gave since it last had to wait, or was last told of.
    at_once: usize,
    is_long: bool,
    is_relayed: bool,
    carrier: Carrier,
}

impl Weighed {
    fn count(&mut self, length: usize) {
        self.at_once += length;
        if self.at_once < LONG {
            return;
        }
        self.at_once = 0;
        if !self.is_long {
            self.is_long = true;
            self.carrier.answers.begin();
        }
        self.carrier.answers.goes_on();
    }

    /// It waits for something else than its reader, or is over.
    fn rest(&mut self) {
        self.at_once = 0;
        if self.is_long {
            self.is_long = false;
            self.carrier.answers.end();
        }
    }
}

impl Drop for Weighed {
    fn drop(&mut self) {
        self.rest();
    }
}

impl http_body::Body for Weighed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.count(frame.data_ref().map_or(0, Bytes::len)),
            Poll::Ready(_) | Poll::Pending => self.rest(),
        }
        if self.is_relayed {
            return polled;
        }
        let pieces = &self.carrier.pieces;
        polled.map(|frame| Some(frame?.map(|frame| frame.map_data(|data| pieces.look_after(data)))))
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
    #![allow(clippy::unwrap_used)]
    use futures::StreamExt as _;
    use http_body_util::BodyExt as _;

    use super::*;

    const LONG_TIME: Duration = Duration::from_secs(3600);

    /// One that stays away for so long.
    fn carrier(within: Duration, after: Duration) -> Carrier {
        let mut lanes = Lanes::new(LONG_TIME);
        lanes.patience = Patience { within, after };
        lanes.carrier()
    }

    /// Where what is asked on a connection begins.
    async fn place(carrier: &Carrier) -> bool {
        let (tell, told) = tokio::sync::oneshot::channel();
        carrier.execute(async move { tell.send(is_away()).unwrap() });
        told.await.unwrap()
    }

    fn is_away() -> bool {
        std::thread::current().name() == Some(NAME)
    }

    #[tokio::test]
    async fn what_callers_share_is_connected_at_home() {
        let lane = Lane::start(NAME, 1).unwrap();
        let connects = tower::service_fn(|_: Uri| async { Ok::<_, BoxError>(is_away()) });
        let mut connector = AtHome::current().connector(connects);
        let asked = lane.spawn("asked", async move {
            (is_away(), connector.call(Uri::from_static("https://webhook")).await)
        });
        let (caller, connection) = asked.await.unwrap();
        assert!(caller && !connection.unwrap());
    }

    /// So many frames of 100 KB, with a pause where there is a zero.
    fn body(frames: &'static [usize]) -> Body {
        let frames = futures::stream::iter(frames).then(|times| async move {
            if *times == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok::<_, axum::Error>(Bytes::from(vec![0; times * 100_000]))
        });
        Body::from_stream(frames)
    }

    /// Where each frame of an answer is read, as a connection does that gives way after each.
    async fn places(carrier: &Carrier, frames: &'static [usize]) -> Vec<bool> {
        let seen: Arc<Mutex<Vec<bool>>> = Arc::default();
        let (mut answer, saw) = (carrier.weigh(Response::new(body(frames))).into_body(), seen.clone());
        let work = async move {
            while answer.frame().await.is_some() {
                saw.lock().push(is_away());
                tokio::task::yield_now().await;
            }
            drop(answer);
            tokio::task::yield_now().await;
            saw.lock().push(is_away());
        };
        carrier.clone().carry(Box::pin(work)).await;
        let seen = seen.lock();
        seen.clone()
    }

    #[tokio::test]
    async fn a_connection_is_away_while_it_sends_a_long_answer() {
        let carrier = carrier(LONG_TIME, Duration::ZERO);
        let away = places(&carrier, &[1, 1, 1, 1, 1]).await;
        assert_eq!(away, [false, false, false, true, true, false]);
        // Who waits for something to tell, as watches do, is not long, however much he told in all.
        let away = places(&carrier, &[1, 1, 0, 1, 1, 0, 2]).await;
        assert!(away.iter().all(|away| !away), "{away:?}");
        // And who begins to wait comes back after a while.
        let away = places(&carrier, &[3, 1, 0, 1]).await;
        assert_eq!((&away[..2], away.last()), (&[false, true][..], Some(&false)));
    }

    /// What else is asked on the connection goes with it.
    #[tokio::test]
    async fn requests_run_where_their_connection_is() {
        for after in [LONG_TIME, Duration::ZERO] {
            let carrier = carrier(LONG_TIME, after);
            assert!(!place(&carrier).await);
            let mut answer = carrier.weigh(Response::new(body(&[3]))).into_body();
            answer.frame().await.unwrap().unwrap();
            assert!(place(&carrier).await);
            drop(answer);
            assert_eq!(place(&carrier).await, after > Duration::ZERO, "a page may follow");
        }
    }

    #[tokio::test]
    async fn whoever_stops_reading_comes_back_until_he_goes_on() {
        let within = Duration::from_millis(500);
        let carrier = carrier(within, LONG_TIME);
        let mut answer = carrier.weigh(Response::new(body(&[3, 1, 3]))).into_body();
        answer.frame().await.unwrap().unwrap();
        tokio::time::sleep(within).await;
        assert!(!place(&carrier).await);
        // A little now and then is no reason to leave.
        answer.frame().await.unwrap().unwrap();
        assert!(!carrier.is_away());
        answer.frame().await.unwrap().unwrap();
        assert!(carrier.is_away());
    }
}
