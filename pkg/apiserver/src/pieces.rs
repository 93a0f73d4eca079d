//! What a connection holds of answers on their way to its client, and how long he lets it lie. Who opens many streams and reads
//! none of them answers pings all the same, and would keep what was made for him as long as he likes: so his connection is closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::guarded;

/// Shorter pieces are not looked after: a connection may hold them as they are.
pub const FROM: usize = 16 << 10;

/// Marks an answer that somebody else gives, who waits for its reader himself: a log that is read in a pager lies as long as
/// it likes.
#[derive(Clone)]
struct Relayed;

pub fn relayed<B>(mut response: Response<B>) -> Response<B> {
    response.extensions_mut().insert(Relayed);
    response
}

pub fn is_relayed<B>(response: &Response<B>) -> bool {
    response.extensions().get::<Relayed>().is_some()
}

/// One connection's.
#[derive(Clone, Default)]
pub struct Pieces(Arc<Mutex<Lying>>);

#[derive(Default)]
struct Lying {
    /// Since when each lies, the oldest first.
    since: BTreeMap<u64, Instant>,
    next: u64,
}

/// Takes its piece off when the last of its bytes is dropped: sent, or given up.
struct Taken(u64, Pieces);

impl Drop for Taken {
    fn drop(&mut self) {
        self.1.0.lock().since.remove(&self.0);
    }
}

impl Pieces {
    pub fn look_after(&self, data: Bytes) -> Bytes {
        if data.len() < FROM {
            return data;
        }
        let mut lying = self.0.lock();
        let number = lying.next;
        lying.next += 1;
        lying.since.insert(number, Instant::now());
        drop(lying);
        guarded::bytes(data, Taken(number, self.clone()))
    }

    /// Ends when a piece has lain for longer than that.
    pub async fn overdue(self, patience: Duration) {
        loop {
            let oldest = self.0.lock().since.first_key_value().map(|(_, since)| *since);
            let due = oldest.unwrap_or_else(Instant::now) + patience;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_piece_that_lies_too_long_is_noticed_and_one_that_is_sent_is_not() {
        let pieces = Pieces::default();
        let piece = || pieces.look_after(Bytes::from(vec![0; FROM]));
        let within = |seconds| {
            tokio::time::timeout(
                Duration::from_secs(seconds),
                pieces.clone().overdue(Duration::from_secs(60)),
            )
        };
        for _ in 0..5 {
            let sent = piece();
            assert!(within(50).await.is_err());
            drop(sent);
        }
        let _short = pieces.look_after(Bytes::from_static(b"event"));
        assert!(within(500).await.is_err());
        let lies = piece();
        let sent = piece();
        drop(sent);
        assert!(within(121).await.is_ok());
        drop(lies);
        assert!(within(500).await.is_err());
    }
}
