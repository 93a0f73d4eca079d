//! Whose turn it is among long requests, which take a core for a while each. One user, or all service accounts of one
//! namespace, has one at a time, so that who sends many waits for himself; and one is kept for the cluster's own.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use mk8s_api::status::Status;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::limits::Flow;
use crate::write::timed_out;

#[derive(Clone)]
pub struct Turns {
    all: Arc<Semaphore>,
    common: Arc<Semaphore>,
    /// One permit for each flow that has a turn or waits for one.
    flows: Arc<Mutex<HashMap<u64, Weak<Semaphore>>>>,
}

impl Turns {
    /// So many for everybody, and one more for the cluster.
    pub fn new(common: usize) -> Turns {
        Turns {
            all: Arc::new(Semaphore::new(common + 1)),
            common: Arc::new(Semaphore::new(common)),
            flows: Arc::default(),
        }
    }

    /// Waits for a turn; 504 when the deadline comes first. Administrators have no flow.
    pub async fn take(&self, flow: Option<Flow>, deadline: Instant) -> Result<Turn, Status> {
        let turn = Turn {
            turns: self.clone(),
            flow,
            deadline,
            held: Mutex::default(),
        };
        turn.hold().await?;
        Ok(turn)
    }

    async fn permits(&self, flow: Option<Flow>) -> Option<Vec<OwnedSemaphorePermit>> {
        // In this order: who waits for his own turn takes nobody else's.
        let mut kinds = Vec::with_capacity(3);
        if let Some(Flow::Of(user)) = flow {
            kinds.extend([self.of(user), self.common.clone()]);
        }
        kinds.push(self.all.clone());
        let mut permits = Vec::with_capacity(kinds.len());
        for kind in kinds {
            permits.push(kind.acquire_owned().await.ok()?);
        }
        Some(permits)
    }

    fn of(&self, user: u64) -> Arc<Semaphore> {
        let mut flows = self.flows.lock();
        if let Some(own) = flows.get(&user).and_then(Weak::upgrade) {
            return own;
        }
        flows.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(1));
        flows.insert(user, Arc::downgrade(&own));
        own
    }
}

/// The turn of one request. It is given back while the request waits for the store, and taken again for another try.
pub struct Turn {
    turns: Turns,
    flow: Option<Flow>,
    deadline: Instant,
    held: Mutex<Option<Vec<OwnedSemaphorePermit>>>,
}

impl Turn {
    /// Waits for it, where it is not held.
    pub async fn hold(&self) -> Result<(), Status> {
        if self.held.lock().is_some() {
            return Ok(());
        }
        let permits = tokio::time::timeout_at(self.deadline, self.turns.permits(self.flow)).await;
        let permits = permits.ok().flatten().ok_or_else(timed_out)?;
        *self.held.lock() = Some(permits);
        Ok(())
    }

    /// Whether it was held.
    pub fn give_back(&self) -> bool {
        self.held.lock().take().is_some()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    /// All waited in one line: a user's fifty long bodies were worked on before anybody else's one.
    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_another_users_many() {
        let turns = Turns::new(2);
        let within = |seconds| Instant::now() + Duration::from_secs(seconds);
        let take = |flow| turns.take(flow, within(1));
        let refused = |turn: Result<Turn, Status>| turn.err().map(|status| status.code);
        let jane = Some(Flow::Of(1));
        let first = turns.take(jane, within(60)).await.unwrap();
        assert_eq!(refused(take(jane).await), Some(504), "one at a time");
        let joe = take(Some(Flow::Of(2))).await.unwrap();
        assert_eq!(
            refused(take(Some(Flow::Of(3))).await),
            Some(504),
            "one is the cluster's"
        );
        let node = take(Some(Flow::Cluster)).await.unwrap();
        assert_eq!(refused(take(None).await), Some(504), "three are at work");
        drop(node);
        assert_eq!(refused(take(None).await), None, "administrators have the cluster's");

        first.give_back();
        let second = take(jane).await.unwrap();
        let mut again = Box::pin(first.hold());
        assert!(futures::poll!(&mut again).is_pending(), "it is taken again in line");
        drop(second);
        (&mut again).await.unwrap();
        drop(again);
        first.hold().await.unwrap();
        assert_eq!(refused(take(jane).await), Some(504));
        drop((first, joe));
        drop(take(Some(Flow::Of(4))).await);
        assert_eq!(turns.flows.lock().len(), 1, "who waits no more is forgotten");
    }
}
