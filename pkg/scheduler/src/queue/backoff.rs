//! How long pods wait before they are tried again.

use std::time::{Duration, Instant};

/// What nobody lives to see. Clocks do not reach as far as a configuration may.
const NEVER: Duration = Duration::from_secs(3_000_000_000);

/// How long a pod waits after an attempt: twice as long after each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// After so many attempts, of which the last ended at `tried`. None: it need not wait.
    pub(super) fn until(self, attempts: u32, tried: Option<Instant>) -> Option<Instant> {
        let factor = 1u32.checked_shl(attempts.checked_sub(1)?).unwrap_or(u32::MAX);
        let wait = self.first.saturating_mul(factor).min(self.longest);
        let tried = tried?;
        Some(tried.checked_add(wait).unwrap_or(tried + NEVER))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_wait_is_twice_as_long_up_to_a_limit() {
        let (seconds, now) = (Duration::from_secs, Instant::now());
        let endless = seconds(i64::MAX.unsigned_abs());
        for (first, longest, attempts, expected) in [
            (seconds(1), seconds(10), 0, None),
            (seconds(1), seconds(10), 1, Some(seconds(1))),
            (seconds(1), seconds(10), 3, Some(seconds(4))),
            (seconds(1), seconds(10), 5, Some(seconds(10))),
            (seconds(1), seconds(10), 99, Some(seconds(10))),
            (endless, endless, 9, Some(NEVER)),
        ] {
            let backoff = Backoff { first, longest };
            let until = backoff.until(attempts, Some(now));
            assert_eq!(until.map(|until| until - now), expected, "{first:?} {attempts}");
        }
        assert_eq!(Backoff::default().until(1, None), None);
    }
}
