//! A request's body on its way in. Who sends slowly holds nobody up: a place among the requests that are worked on is taken
//! when the body is here, and while it comes only a long one needs a place, among others that are long. So a node's lease,
//! which is short, is written whatever others send.
//!
//! A long one is then worked on out of everybody's way: decoding, patching and checking megabytes takes a core for a while,
//! and a worker of the runtime that does it serves nobody else meanwhile. So such requests run on threads beside the
//! runtime's, as many at once as that has workers, and keep their place among the long ones until it is their turn.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use mk8s_api::status::Status;
use mk8s_supervisor::job::{self, JobError};
use tokio::time::Instant;

use crate::call::Call;
use crate::identity::User;
use crate::limits::{Permit, Pool};

/// What upstream accepts of a body, in bytes.
pub const MAX_BODY: usize = 3 << 20;
/// What is received without asking how many others are sending, and worked on where it came in.
const SHORT: usize = 64 << 10;

/// Reads the body of a request that writes, and has `handle` answer it when its turn has come.
pub async fn then<F>(
    mut call: Call,
    body: Body,
    handle: impl FnOnce(Call, Bytes) -> F + Send + 'static,
) -> Result<Response<Body>, Status>
where
    F: Future<Output = Result<Response<Body>, Status>> + Send + 'static,
{
    let state = call.server.clone();
    let (bytes, mut long) = read(body, &call.user, call.deadline, &state.receiving).await?;
    if long.is_none() && changes_long(&call) {
        long = Some(place(&state.receiving, &call.user, call.deadline)?);
    }
    if long.is_some() {
        let flow = state.receiving.flow(&call.user);
        call.turn = Some(state.long.take(flow, call.deadline).await?);
    }
    drop(long);
    if call.waits_for_body {
        let place = place(&state.writing, &call.user, call.deadline).inspect_err(|_| state.metrics().dropped())?;
        call.place = Some(place);
    }
    if call.turn.is_none() {
        return handle(call, bytes).await;
    }
    let answer = job::heavy(
        "apiserver-long-request",
        async move { Box::pin(handle(call, bytes)).await },
    );
    answer.await.unwrap_or_else(|error| {
        Err(match error {
            JobError::Panicked { .. } => Status::internal("the handler of this request panicked"),
            JobError::Cancelled { .. } => Status::unavailable("the server is shutting down"),
        })
    })
}

/// Whether the object that a request names is long, however short the request.
fn changes_long(call: &Call) -> bool {
    let cache = call.row.cache.as_ref().filter(|_| !call.info.name.is_empty());
    let stored = cache.and_then(|cache| cache.get(&call.info.namespace, call.info.path_name()));
    stored.is_some_and(|object| object.json.len() > SHORT)
}

/// A place in a pool, or the 429 of who finds none.
pub fn place(pool: &Pool, user: &User, deadline: Instant) -> Result<Permit, Status> {
    let refusal = || Status::too_many_requests("Too many requests, please try again later.", 1);
    pool.take(user, deadline).ok_or_else(refusal)
}

/// A body, and the place that it has if it is long.
async fn read(body: Body, user: &User, deadline: Instant, receiving: &Pool) -> Result<(Bytes, Option<Permit>), Status> {
    let mut body = Limited::new(body, MAX_BODY);
    let mut long = None;
    if body.size_hint().lower() > SHORT as u64 {
        long = Some(place(receiving, user, deadline)?);
    }
    let collect = async {
        // Most come as one frame, which is not copied.
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(refusal)?.into_data() else {
                continue;
            };
            if first.is_empty() {
                first = data;
                continue;
            }
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
            if all.len() > SHORT && long.is_none() {
                long = Some(place(receiving, user, deadline)?);
            }
        }
        let bytes = if all.is_empty() { first } else { all.freeze() };
        Ok((bytes, long))
    };
    let late = |_| Status::timeout("the request's body did not arrive in time");
    tokio::time::timeout_at(deadline, collect).await.map_err(late)?
}

fn refusal(error: Box<dyn std::error::Error + Send + Sync>) -> Status {
    if error.downcast_ref::<LengthLimitError>().is_some() {
        return Status::too_large(format!("Request entity too large: limit is {MAX_BODY}"));
    }
    Status::bad_request(format!("reading the request's body: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    /// A body of so many bytes in frames of 16 KiB.
    fn frames(length: usize) -> Body {
        let all = vec![b'x'; length];
        let frames: Vec<_> = all
            .chunks(16 << 10)
            .map(|frame| Ok::<_, axum::Error>(Bytes::copy_from_slice(frame)))
            .collect();
        Body::from_stream(futures::stream::iter(frames))
    }

    #[tokio::test(start_paused = true)]
    async fn only_long_bodies_wait_for_each_other() {
        let deadline = Instant::now() + Duration::from_secs(5);
        let user = User::authenticated("system:node:a", ["system:nodes".to_string()]);
        let none = Pool::new(0);
        let (short, long) = read(frames(SHORT), &user, deadline, &none).await.unwrap();
        assert!(short.len() == SHORT && long.is_none());
        assert_eq!(
            read(frames(SHORT + 1), &user, deadline, &none)
                .await
                .err()
                .unwrap()
                .code,
            429
        );
        assert_eq!(
            read(Body::from(vec![0; SHORT + 1]), &user, deadline, &none)
                .await
                .err()
                .unwrap()
                .code,
            429
        );
        let one = Pool::new(1);
        for _ in 0..3 {
            let (body, long) = read(frames(MAX_BODY), &user, deadline, &one).await.unwrap();
            assert!(body.len() == MAX_BODY && long.is_some());
            assert_eq!(
                read(frames(SHORT + 1), &user, deadline, &one).await.err().unwrap().code,
                429
            );
        }
        assert_eq!(
            read(frames(MAX_BODY + 1), &user, deadline, &one)
                .await
                .err()
                .unwrap()
                .code,
            413
        );
        let never = Body::from_stream(futures::stream::pending::<Result<Bytes, axum::Error>>());
        assert_eq!(read(never, &user, deadline, &one).await.err().unwrap().code, 504);
    }
}
