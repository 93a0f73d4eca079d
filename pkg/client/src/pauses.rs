//! How long a feed that ended stays closed: however it ended, opening it again at once would make a server that closes what it has
//! just opened answer one list or watch after the other, from each kind of each node.

use std::time::Duration;

use mk8s_supervisor::backoff::Backoff;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(15);
/// A feed that was open as long as this worked, and its end is the first trouble of a new row. (That it told something proves nothing: a
/// watch whose history is lost at once tells a whole list each time.)
const STOOD: Duration = LONGEST;

/// The pauses of one feed.
#[derive(Debug)]
pub struct Pauses {
    backoff: Backoff,
    opened: Instant,
}

impl Default for Pauses {
    fn default() -> Self {
        Pauses {
            backoff: Backoff::new(FIRST, LONGEST),
            opened: Instant::now(),
        }
    }
}

impl Pauses {
    /// The feed is opened now.
    pub fn opened(&mut self) {
        self.opened = Instant::now();
    }

    /// The feed has ended: how long to wait before it is opened again, 200 ms at first, 15 s at most.
    pub fn ended(&mut self) -> Duration {
        if self.opened.elapsed() >= STOOD {
            self.backoff.reset();
        }
        self.backoff.next_delay()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_the_feed_stands() {
        let mut pauses = Pauses::default();
        let mut end_after = async |open: Duration| {
            pauses.opened();
            tokio::time::advance(open).await;
            pauses.ended().as_millis()
        };
        let brief = Duration::from_millis(10);
        for expected in [200, 400, 800] {
            let pause = end_after(brief).await;
            assert!((expected..=expected + expected / 10).contains(&pause), "{pause}");
        }
        for _ in 0..10 {
            end_after(brief).await;
        }
        assert!((15_000..=16_500).contains(&end_after(brief).await));
        assert!(end_after(STOOD).await <= 220);
    }
}
