//! Whether a node has enough devices at all, whoever gets which: without this, a search for more than there are tries every order of
//! those that there are.

use std::collections::HashSet;

use super::ask::{Amount, Ask, Choice};
use super::search::Unfound;
use crate::cluster::Claims;
use crate::cluster::claims::{Device, DeviceId, NodePool, State};

/// What of a node's devices is in question.
struct Supply<'s, 'a> {
    pools: &'s [NodePool<'a>],
    claims: &'a Claims,
    /// Those that some request could have for itself.
    useful: HashSet<DeviceId>,
}

/// False: there are too few devices. What constraints say is not looked at.
///
/// # Errors
/// The time is over.
pub fn suffices<'a>(asks: &[Ask<'a>], pools: &[NodePool<'a>], claims: &'a Claims) -> Result<bool, Unfound> {
    let mut supply = Supply {
        pools,
        claims,
        useful: HashSet::new(),
    };
    match supply.covers(asks) {
        // An expression that fails is the search's to tell of.
        Err(Unfound::Failed(_)) => Ok(true),
        known => known,
    }
}

impl<'a> Supply<'_, 'a> {
    fn covers(&mut self, asks: &[Ask<'a>]) -> Result<bool, Unfound> {
        let mut least = 0_usize;
        for ask in asks {
            for request in &ask.requests {
                let mut smallest = None;
                for choice in &request.choices {
                    if let Some(size) = self.size(ask, choice)? {
                        let alone = if choice.admin { 0 } else { size };
                        smallest = Some(smallest.map_or(alone, |smallest: usize| smallest.min(alone)));
                    }
                }
                let Some(smallest) = smallest else { return Ok(false) };
                least = least.saturating_add(smallest);
            }
        }
        Ok(least <= self.useful.len())
    }

    /// How many devices a choice needs; none: it can't have them.
    fn size(&mut self, ask: &Ask<'a>, choice: &Choice<'a>) -> Result<Option<usize>, Unfound> {
        let (mut all, mut free, clock) = (0, Vec::new(), self.claims.clock());
        let pools = self.pools.iter().filter(|pool| pool.state == State::Whole);
        for device in pools.flat_map(|pool| &pool.slices).flat_map(|slice| slice.devices()) {
            clock.step()?;
            if choice.selects(ask.claim, &device, clock)? {
                all += 1;
                free.extend(self.is_free(choice, &device).then_some(device.id));
            }
        }
        let wanted = match choice.amount {
            Amount::Exactly(count) => count,
            Amount::All => all.max(1),
        };
        let enough = free.len() >= wanted;
        if !choice.admin {
            self.useful.extend(free);
        }
        Ok(enough.then_some(wanted))
    }

    fn is_free(&self, choice: &Choice<'_>, device: &Device<'_>) -> bool {
        device.usable && (choice.admin || !self.claims.is_taken(device.id))
    }
}
