//! What an answer's body holds while its client reads. A client that stops reading stops its body too: nothing polls it,
//! and the snapshot of the cache in it would live as long as the connection. So it is on loan, and taken back.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::state::State;

/// How long a client may leave a body unread; as long as upstream lets a request take.
const PATIENCE: Duration = Duration::from_secs(60);

struct Lent<T> {
    value: Option<T>,
    used: Instant,
}

/// A value that is used from time to time, or gone.
pub struct Loan<T> {
    lent: Arc<Mutex<Lent<T>>>,
    /// Dropped with the loan, which ends the one who waits to take it back.
    _returned: oneshot::Sender<()>,
}

impl<T: Send + 'static> Loan<T> {
    pub fn new(server: &State, value: T) -> Loan<T> {
        let lent = Arc::new(Mutex::new(Lent {
            value: Some(value),
            used: Instant::now(),
        }));
        let (returned, waits) = oneshot::channel();
        server.spawn("lent-snapshots", take_back(lent.clone(), waits));
        Loan {
            lent,
            _returned: returned,
        }
    }

    /// Uses it; None where it was not used for too long.
    pub fn with<R>(&self, use_it: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut lent = self.lent.lock();
        lent.used = Instant::now();
        lent.value.as_mut().map(use_it)
    }
}

async fn take_back<T>(lent: Arc<Mutex<Lent<T>>>, mut returned: oneshot::Receiver<()>) {
    loop {
        let due = lent.lock().used + PATIENCE;
        tokio::select! {
            _ = &mut returned => return,
            () = tokio::time::sleep_until(due) => {}
        }
        let mut lent = lent.lock();
        if lent.used + PATIENCE <= Instant::now() {
            lent.value = None;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_used_is_taken_back() {
        let (returned, waits) = oneshot::channel();
        let lent = Arc::new(Mutex::new(Lent {
            value: Some(Arc::new(())),
            used: Instant::now(),
        }));
        let loan = Loan {
            lent: lent.clone(),
            _returned: returned,
        };
        let kept = loan.with(|value| value.clone()).expect("it is there");
        let taker = take_back(lent, waits);
        tokio::pin!(taker);
        for _ in 0..5 {
            let early = tokio::time::timeout(PATIENCE / 2, &mut taker).await;
            assert!(early.is_err());
            assert!(loan.with(|_| ()).is_some());
        }
        taker.await;
        assert!(loan.with(|_| ()).is_none());
        assert_eq!(Arc::strong_count(&kept), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_what_is_returned() {
        let (returned, waits) = oneshot::channel();
        let lent = Arc::new(Mutex::new(Lent {
            value: Some(()),
            used: Instant::now(),
        }));
        let begun = Instant::now();
        drop(returned);
        take_back(lent, waits).await;
        assert_eq!(Instant::now(), begun);
    }
}
