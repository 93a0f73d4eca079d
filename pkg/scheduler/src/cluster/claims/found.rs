//! What the decision at hand has found out of its pod's claims: what is found when nodes are looked at is not searched for again when
//! they are compared, or when one of them is taken.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use nohash_hasher::IntMap;

use super::candidates::Cursor;
use super::clock::Clock;
use crate::cluster::NodeId;

/// So many devices are kept, on all nodes together. A pod may have so many claims that they would take much room.
const MOST: usize = 1 << 18;

/// A device for a request of a claim, by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    pub claim: u32,
    pub request: u32,
    pub choice: u32,
    pub at: Cursor,
}

/// There are devices for all claims on a node.
#[derive(Debug, Clone)]
pub struct Solution {
    /// How good it is, compared with those of other nodes.
    pub worth: i64,
    /// None: they were too many to keep.
    pub picks: Option<Arc<[Picked]>>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Found {
    pub clock: Clock,
    on: RefCell<Solutions>,
}

#[derive(Debug, Default)]
struct Solutions {
    all: IntMap<NodeId, Solution>,
    /// How many picks are kept.
    picks: usize,
}

impl Found {
    /// A decision begins, which may search for so long.
    pub fn new(timeout: Option<Duration>) -> Self {
        Found {
            clock: Clock::new(timeout),
            ..Found::default()
        }
    }

    /// What was found on a node; none: nothing was, or it has not been looked at.
    pub fn on(&self, node: NodeId) -> Option<Solution> {
        self.on.borrow().all.get(&node).cloned()
    }

    /// This was found on a node.
    pub fn keep(&self, node: NodeId, worth: i64, picks: &[Picked]) {
        let mut on = self.on.borrow_mut();
        let fits = on.picks + picks.len() <= MOST;
        let picks: Option<Arc<[Picked]>> = fits.then(|| picks.into());
        on.picks += picks.as_ref().map_or(0, |picks| picks.len());
        on.all.insert(node, Solution { worth, picks });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_devices_are_kept() {
        let found = Found::default();
        let pick = Picked {
            claim: 0,
            request: 0,
            choice: 0,
            at: Cursor::default(),
        };
        for node in 0..3 {
            found.keep(node, i64::from(node), &vec![pick; MOST / 2]);
        }
        let on = |node| found.on(node).map(|own| (own.worth, own.picks.is_some()));
        assert_eq!(
            [0, 1, 2, 3].map(on),
            [Some((0, true)), Some((1, true)), Some((2, false)), None]
        );
    }
}
