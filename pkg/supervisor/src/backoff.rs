//! Exponential back-off: the one way things are tried again.

use std::time::Duration;

/// Doubles from `first` up to `max`, with up to a tenth of jitter added.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(first: Duration, max: Duration) -> Self {
        Backoff {
            first,
            max,
            next: first,
        }
    }

    /// How long to wait before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (self.next * 2).min(self.max);
        delay + delay.mul_f64(rand::random::<f64>() * 0.1)
    }

    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_maximum_and_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for expected in [100, 200, 350, 350] {
            let delay = backoff.next_delay().as_millis();
            assert!(
                (expected..=expected + expected / 10).contains(&delay),
                "{delay} for {expected}"
            );
        }
        backoff.reset();
        assert!(backoff.next_delay().as_millis() <= 110);
    }
}
