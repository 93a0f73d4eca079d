//! What waits for the committer. Who queues takes a lock for a push, and wakes the committer only when it sleeps. Writers who
//! have given up leave their transactions here, so it is bounded: a disk that hangs does not fill the memory.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::{Follower, Loaded, StoreError, Txn, TxnError};

pub(crate) type Reply = oneshot::Sender<Result<u64, TxnError>>;

pub(crate) enum Request {
    Txn {
        txn: Txn,
        reply: Reply,
    },
    Load(std::sync::mpsc::SyncSender<Result<Loaded, StoreError>>),
    Follow {
        after: u64,
        follower: Box<dyn Follower>,
        reply: std::sync::mpsc::SyncSender<Result<(), StoreError>>,
    },
}

/// Bounds of what waits: some batches' worth.
pub(crate) const MAX_TXNS: usize = 16 * 1024;
pub(crate) const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Why a request is not queued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    Full,
    Closed,
}

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    /// Of the values of those transactions.
    bytes: usize,
    asleep: bool,
    closed: bool,
}

/// Why a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Arrived,
    Timeout,
    /// Nothing waits, and nothing will.
    Closed,
}

impl Queue {
    /// Queues a request. A transaction finds the queue full where it would go beyond its bounds.
    pub fn push(&self, request: Request) -> Result<(), Rejected> {
        let txn_bytes = match &request {
            Request::Txn { txn, .. } => Some(txn.bytes()),
            Request::Load(_) | Request::Follow { .. } => None,
        };
        let mut state = self.state.lock();
        if state.closed {
            return Err(Rejected::Closed);
        }
        if let Some(bytes) = txn_bytes {
            let total = state.bytes + bytes;
            let full = state.requests.len() >= MAX_TXNS || total > MAX_BYTES;
            if full && !state.requests.is_empty() {
                return Err(Rejected::Full);
            }
            state.bytes = total;
        }
        state.requests.push_back(request);
        if std::mem::take(&mut state.asleep) {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Moves everything that waits to the end of `into`.
    pub fn drain(&self, into: &mut VecDeque<Request>) {
        let mut state = self.state.lock();
        state.bytes = 0;
        if into.is_empty() {
            std::mem::swap(into, &mut state.requests);
        } else {
            into.append(&mut state.requests);
        }
    }

    /// Sleeps until something waits, the time is over, or the queue is closed and empty.
    pub fn wait(&self, until: Option<Instant>) -> Woken {
        let mut state = self.state.lock();
        loop {
            if !state.requests.is_empty() {
                state.asleep = false;
                return Woken::Arrived;
            }
            if state.closed {
                return Woken::Closed;
            }
            state.asleep = true;
            match until {
                None => self.arrived.wait(&mut state),
                Some(until) => {
                    if self.arrived.wait_until(&mut state, until).timed_out() && state.requests.is_empty() {
                        state.asleep = false;
                        return Woken::Timeout;
                    }
                }
            }
        }
    }

    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Takes no more requests; those that wait are still handed out.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_one();
    }
}
