//! What a connection holds of answers on their way to its client, and how long he lets it lie. Who opens many streams and reads
//! none of them answers pings all the same, and would keep what was made for him as long as he likes: so his connection is closed.
//! Who reads, however slowly, keeps his.

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

/// Who takes so many bytes within his patience reads, of what comes before the oldest piece or of that itself.
const READS: usize = 256 << 10;

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
    /// The oldest first.
    pieces: BTreeMap<u64, Piece>,
    next: u64,
    taken: usize,
}

struct Piece {
    since: Instant,
    length: usize,
    /// How many bytes of the connection had been taken by then.
    taken: usize,
}

impl Piece {
    /// A long one takes its time, too, in which so many times as much is to be taken.
    fn times(&self) -> usize {
        1 + self.length / READS
    }

    fn due(&self, patience: Duration) -> Instant {
        self.since + patience.saturating_mul(u32::try_from(self.times()).unwrap_or(u32::MAX))
    }
}

/// Takes its piece off when the last of its bytes is dropped: sent, or given up.
struct Taken {
    number: u64,
    length: usize,
    of: Pieces,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut lying = self.of.0.lock();
        lying.pieces.remove(&self.number);
        lying.taken = lying.taken.wrapping_add(self.length);
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
        let (length, taken) = (data.len(), lying.taken);
        let since = Instant::now();
        lying.pieces.insert(number, Piece { since, length, taken });
        drop(lying);
        let taken = Taken {
            number,
            length,
            of: self.clone(),
        };
        guarded::bytes(data, taken)
    }

    /// Ends when a piece has lain for longer than that, and the client took next to nothing meanwhile.
    pub async fn overdue(self, patience: Duration) {
        while let Some(due) = self.due(patience, Instant::now()) {
            tokio::time::sleep_until(due).await;
        }
    }

    /// When to look again; None: it is time to end.
    fn due(&self, patience: Duration, now: Instant) -> Option<Instant> {
        let lying = &mut *self.0.lock();
        let Some(mut oldest) = lying.pieces.first_entry() else {
            return Some(now + patience);
        };
        let oldest = oldest.get_mut();
        if oldest.due(patience) <= now {
            if lying.taken.wrapping_sub(oldest.taken) < READS.saturating_mul(oldest.times()) {
                return None;
            }
            (oldest.since, oldest.taken) = (now, lying.taken);
        }
        Some(oldest.due(patience))
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
        let long = pieces.look_after(Bytes::from(vec![0; 4 * READS]));
        assert!(within(299).await.is_err());
        assert!(within(2).await.is_ok());
        drop(long);
        assert!(within(500).await.is_err());
    }

    /// A few bytes of something else kept a long one for its time over and over.
    #[tokio::test(start_paused = true)]
    async fn a_long_piece_lies_no_longer_for_little_that_is_read_beside_it() {
        for (beside, ends) in [(1, true), (5, false)] {
            let pieces = Pieces::default();
            let _long = pieces.look_after(Bytes::from(vec![0; 4 * READS]));
            for _ in 0..beside {
                drop(pieces.look_after(Bytes::from(vec![0; READS])));
            }
            let overdue = pieces.clone().overdue(Duration::from_secs(60));
            let over = tokio::time::timeout(Duration::from_secs(301), overdue).await;
            assert_eq!(over.is_ok(), ends, "{beside}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_is_waited_for_until_he_stops() {
        let pieces = Pieces::default();
        let _queued = pieces.look_after(Bytes::from(vec![0; FROM]));
        let overdue = pieces.clone().overdue(Duration::from_secs(60));
        tokio::pin!(overdue);
        for _ in 0..60 {
            drop(pieces.look_after(Bytes::from(vec![0; READS / 4])));
            assert!(
                tokio::time::timeout(Duration::from_secs(10), &mut overdue)
                    .await
                    .is_err()
            );
        }
        assert!(
            tokio::time::timeout(Duration::from_secs(121), &mut overdue)
                .await
                .is_ok()
        );
    }
}
