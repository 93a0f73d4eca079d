//! The time of day by which the pods' workers plan and wait. In tests it goes with tokio's clock: where that is paused, an
//! hour's back-off is over at once, and nothing depends on how fast the machine is.

use jiff::Timestamp;

#[cfg(not(test))]
pub fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
pub fn now() -> Timestamp {
    use std::sync::LazyLock;
    use std::time::Instant;
    static BEGAN: LazyLock<(Timestamp, Instant)> = LazyLock::new(|| (Timestamp::now(), Instant::now()));
    let (at, instant) = *BEGAN;
    let passed = tokio::time::Instant::now()
        .into_std()
        .saturating_duration_since(instant);
    at.checked_add(passed).unwrap_or(Timestamp::MAX)
}
