//! A request's body on its way in. Who sends slowly holds nobody up: a place among the requests that are worked on is taken
//! when the body is here, and while it comes only a long one needs a place, among others that are long. So a node's lease,
//! which is short, is written whatever others send.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use mk8s_api::status::Status;
use tokio::time::Instant;

use crate::call::Call;
use crate::limits::{Permit, Pool};

/// What upstream accepts of a body, in bytes.
pub const MAX_BODY: usize = 3 << 20;
/// What is received without asking how many others are sending.
const SHORT: usize = 64 << 10;

/// Reads the body of a request that writes, and takes its place among those that are worked on.
pub async fn body(call: &mut Call, body: Body) -> Result<Bytes, Status> {
    let state = &call.server;
    let bytes = read(body, call.deadline, &state.receiving).await;
    if call.waits_for_body && bytes.is_ok() {
        let place = place(&state.writing, call.deadline).inspect_err(|_| state.metrics().dropped())?;
        call.place = Some(place);
    }
    bytes
}

/// A place in a pool, or the 429 of who finds none.
pub fn place(pool: &Pool, deadline: Instant) -> Result<Permit, Status> {
    let refusal = || Status::too_many_requests("Too many requests, please try again later.", 1);
    pool.take(deadline).ok_or_else(refusal)
}

async fn read(body: Body, deadline: Instant, receiving: &Pool) -> Result<Bytes, Status> {
    let mut body = Limited::new(body, MAX_BODY);
    let mut long = None;
    if body.size_hint().lower() > SHORT as u64 {
        long = Some(place(receiving, deadline)?);
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
                long = Some(place(receiving, deadline)?);
            }
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
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
        let none = Pool::new(0);
        let short = read(frames(SHORT), deadline, &none).await.unwrap();
        assert_eq!(short.len(), SHORT);
        assert_eq!(read(frames(SHORT + 1), deadline, &none).await.unwrap_err().code, 429);
        assert_eq!(
            read(Body::from(vec![0; SHORT + 1]), deadline, &none)
                .await
                .unwrap_err()
                .code,
            429
        );
        let one = Pool::new(1);
        for _ in 0..3 {
            assert_eq!(read(frames(MAX_BODY), deadline, &one).await.unwrap().len(), MAX_BODY);
        }
        assert_eq!(read(frames(MAX_BODY + 1), deadline, &one).await.unwrap_err().code, 413);
        let never = Body::from_stream(futures::stream::pending::<Result<Bytes, axum::Error>>());
        assert_eq!(read(never, deadline, &one).await.unwrap_err().code, 504);
    }
}
