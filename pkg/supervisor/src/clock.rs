//! The wall clock: what is due at a time of day goes by it. People set it, and machines sleep; timers of the runtime notice neither.
//! So who waits for a time of day also waits for [`Jumps`].

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// The system's clock, or one that stands still until it is set.
#[derive(Clone, Default)]
pub struct Clock(Option<watch::Sender<SystemTime>>);

impl Clock {
    /// One that shows this time until it is [`set`](Clock::set); so do its clones.
    pub fn standing(at: SystemTime) -> Self {
        Clock(Some(watch::Sender::new(at)))
    }

    /// Sets one that stands still; the system's is none of ours to set.
    pub fn set(&self, at: SystemTime) {
        if let Some(standing) = &self.0 {
            standing.send_replace(at);
        }
    }

    /// What it shows.
    pub fn now(&self) -> SystemTime {
        match &self.0 {
            Some(standing) => *standing.borrow(),
            None => SystemTime::now(),
        }
    }

    /// From now on, every time that it is set.
    pub fn jumps(&self) -> Jumps {
        match &self.0 {
            Some(standing) => Jumps::Standing(standing.subscribe()),
            None => Jumps::System(
                armed()
                    .map_err(|error| tracing::warn!(%error, "a clock that is set goes unnoticed"))
                    .ok(),
            ),
        }
    }
}

/// Each time that a clock is set, or its machine has slept.
pub enum Jumps {
    /// Of the system's clock; none: the kernel does not tell.
    System(Option<AsyncFd<Timer>>),
    /// Of one that stands still.
    Standing(watch::Receiver<SystemTime>),
}

impl Jumps {
    /// Waits for the next one.
    pub async fn next(&mut self) {
        let told = match self {
            Jumps::System(Some(timer)) => told(timer).await.is_ok(),
            Jumps::System(None) => false,
            Jumps::Standing(clock) => clock.changed().await.is_ok(),
        };
        if !told {
            std::future::pending::<()>().await;
        }
    }
}

/// Never due, but cancelled when the clock is set.
pub struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

fn armed() -> Result<AsyncFd<Timer>, Errno> {
    let timer = TimerFd::new(
        ClockId::CLOCK_REALTIME,
        TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK,
    )?;
    arm(&timer)?;
    #[allow(
        deprecated,
        reason = "the descriptor is owned by what is registered; the way that replaces it is unsafe"
    )]
    let timer = AsyncFd::new(Timer(timer));
    timer.map_err(|_| Errno::EIO)
}

fn arm(timer: &TimerFd) -> Result<(), Errno> {
    const NEVER: Duration = Duration::from_secs(1 << 33);
    let told_of = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    timer.set(Expiration::OneShot(TimeSpec::from_duration(NEVER)), told_of)
}

async fn told(timer: &AsyncFd<Timer>) -> Result<(), Errno> {
    loop {
        let mut ready = timer.readable().await.map_err(|_| Errno::EIO)?;
        match timer.get_ref().0.wait() {
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(error) => return Err(error),
            Ok(()) => {
                ready.clear_ready();
                return arm(&timer.get_ref().0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_standing_clock_shows_what_it_was_set_to_and_tells_of_it() {
        let (first, second) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(60));
        let clock = Clock::standing(first);
        let mut jumps = clock.clone().jumps();
        assert_eq!(clock.now(), first);
        clock.clone().set(second);
        jumps.next().await;
        assert_eq!(clock.now(), second);
        let more = tokio::time::timeout(Duration::from_millis(10), jumps.next());
        assert!(more.await.is_err(), "it was set once");
    }

    #[tokio::test]
    async fn nothing_is_told_of_a_system_clock_that_nobody_sets() {
        let mut jumps = Clock::default().jumps();
        assert!(matches!(jumps, Jumps::System(Some(_))), "the kernel must tell");
        let told = tokio::time::timeout(Duration::from_millis(50), jumps.next());
        assert!(told.await.is_err());
    }
}
