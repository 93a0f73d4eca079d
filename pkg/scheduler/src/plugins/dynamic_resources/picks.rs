//! What a search found, and how it is found again.

use crate::cluster::claims::{Candidate, Cursor, Device, Picked, next};
use crate::cluster::{Claims, NodeInfo};

/// A device that is given to a request of a claim.
#[derive(Debug, Clone, Copy)]
pub struct Pick<'a> {
    pub request: usize,
    pub choice: usize,
    pub driver: &'a str,
    pub pool: &'a str,
    pub device: Device<'a>,
    pub at: Cursor,
}

impl<'a> Pick<'a> {
    pub fn new(request: usize, choice: usize, candidate: Candidate<'a>) -> Self {
        Pick {
            request,
            choice,
            driver: candidate.driver,
            pool: candidate.pool,
            device: candidate.device,
            at: candidate.at,
        }
    }

    /// To be found again.
    pub fn places(&self, claim: u32) -> Picked {
        let number = |place| u32::try_from(place).unwrap_or(u32::MAX);
        Picked {
            claim,
            request: number(self.request),
            choice: number(self.choice),
            at: self.at,
        }
    }
}

/// What a search found on a node, once more.
pub fn found<'a>(picks: &[Picked], asks: usize, claims: &'a Claims, node: &NodeInfo) -> Vec<Vec<Pick<'a>>> {
    let pools = claims.pools_of(node);
    let mut all: Vec<_> = (0..asks).map(|_| Vec::new()).collect();
    for own in picks {
        if let (Some(candidate), Some(of_claim)) = (next(&pools, own.at), all.get_mut(own.claim as usize)) {
            of_claim.push(Pick::new(own.request as usize, own.choice as usize, candidate));
        }
    }
    all
}
