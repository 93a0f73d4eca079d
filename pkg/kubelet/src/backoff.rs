//! Waiting longer after each failure: crashed containers and images that can't be pulled share one rule.

use std::time::Duration;

use jiff::Timestamp;

const INITIAL: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);
/// After this long without a failure the count begins again.
const RESET: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub delay: Duration,
    updated: Timestamp,
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// Until when a thing that failed at `failed` has to wait; None: it may try at once.
pub fn waits_until(backoff: Option<Backoff>, failed: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let backoff = backoff?;
    if between(backoff.updated, failed) > RESET {
        return None;
    }
    let until = failed.checked_add(backoff.delay).ok()?;
    (until > now).then_some(until)
}

/// The state after one more try, that was made because of a failure at `failed`.
pub fn next(backoff: Option<Backoff>, failed: Timestamp, now: Timestamp) -> Backoff {
    let delay = match backoff {
        Some(b) if between(b.updated, failed) <= RESET => (b.delay * 2).min(MAX),
        _ => INITIAL,
    };
    Backoff { delay, updated: now }
}

/// Go's way to print a duration, which messages to people use: `10s`, `1m20s`, `5m0s`.
pub fn print(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

/// A duration with a fraction, as in `Successfully pulled image … in 1.234s`.
pub fn print_short(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let whole = print(Duration::from_secs(duration.as_secs()));
    let fraction = duration.subsec_millis();
    if fraction == 0 {
        return whole;
    }
    let fraction = format!("{fraction:03}");
    format!("{}.{}s", whole.trim_end_matches('s'), fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn doubles_up_to_five_minutes_and_resets() {
        assert_eq!(waits_until(None, at(0), at(0)), None, "the first restart is at once");
        let mut backoff = None;
        let mut now = 0;
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            backoff = Some(next(backoff, at(now), at(now)));
            assert_eq!(backoff.unwrap().delay, Duration::from_secs(expected));
            assert_eq!(
                waits_until(backoff, at(now + 1), at(now + 1)),
                Some(at(now + 1 + expected as i64))
            );
            now += expected as i64 + 1;
        }
        let after_long_run = at(now + 1000);
        assert_eq!(waits_until(backoff, after_long_run, after_long_run), None);
        assert_eq!(
            next(backoff, after_long_run, after_long_run).delay,
            Duration::from_secs(10)
        );
    }

    #[test]
    fn printed_as_go_does() {
        for (millis, expected) in [(10_000, "10s"), (80_000, "1m20s"), (300_000, "5m0s")] {
            assert_eq!(print(Duration::from_millis(millis)), expected);
        }
        for (millis, expected) in [
            (5, "5ms"),
            (1000, "1s"),
            (1234, "1.234s"),
            (61_500, "1m1.5s"),
            (2_100, "2.1s"),
        ] {
            assert_eq!(print_short(Duration::from_millis(millis)), expected);
        }
    }
}
