//! Numbers of pods by domain, and the least of them.

use std::collections::BTreeMap;

use nohash_hasher::IntMap;

use super::topology::DomainId;

/// Sums by domain; what is not there is 0.
pub type Sums = IntMap<DomainId, i64>;

/// Adds to a sum; its value before and now.
pub fn add(sums: &mut IntMap<u32, i64>, at: u32, by: i64) -> (i64, i64) {
    let sum = sums.entry(at).or_default();
    let before = *sum;
    *sum += by;
    let now = *sum;
    if now == 0 {
        sums.remove(&at);
    }
    (before, now)
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tally {
    pub sums: Sums,
    pub total: i64,
    /// How many domains have which sum, but 0.
    ranks: BTreeMap<i64, usize>,
}

impl Tally {
    /// So many pods more.
    pub fn add(&mut self, domain: DomainId, by: i64) {
        self.total += by;
        let (before, now) = add(&mut self.sums, domain, by);
        if now != 0 {
            *self.ranks.entry(now).or_default() += 1;
        }
        if let Some(domains) = self.ranks.get_mut(&before) {
            *domains -= 1;
            if *domains == 0 {
                self.ranks.remove(&before);
            }
        }
    }

    /// How many pods are in a domain.
    pub fn of(&self, domain: DomainId) -> i64 {
        self.sums.get(&domain).copied().unwrap_or(0)
    }

    /// The least of so many domains.
    pub fn least(&self, domains: usize) -> i64 {
        let first = self.ranks.keys().next().copied();
        first.filter(|_| self.sums.len() >= domains).unwrap_or(0)
    }

    /// The least of so many domains without this one of them; none: it is the only one.
    pub fn least_beside(&self, domain: DomainId, domains: usize) -> Option<i64> {
        let own = self.of(domain);
        let (counted, others) = (self.sums.len() - usize::from(own != 0), domains.checked_sub(1)?);
        if others == 0 {
            return None;
        }
        let mut ranks = self.ranks.iter();
        let next = ranks.find(|(sum, domains)| **sum != own || **domains > 1);
        next.map(|(sum, _)| *sum).filter(|_| counted >= others).or(Some(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_is_known_with_and_without_a_domain() {
        let mut tally = Tally::default();
        for (domain, by) in [(1, 5), (2, 2), (3, 2), (1, -1), (4, 1), (4, -1)] {
            tally.add(domain, by);
        }
        assert_eq!((tally.total, tally.of(1), tally.of(4)), (8, 4, 0));
        assert_eq!((tally.least(3), tally.least(4), Tally::default().least(0)), (2, 0, 0));
        assert_eq!(tally.least_beside(2, 3), Some(2));
        tally.add(3, 1);
        assert_eq!((tally.least_beside(2, 3), tally.least_beside(3, 3)), (Some(3), Some(2)));
        assert_eq!((tally.least_beside(9, 4), tally.least_beside(9, 5)), (Some(2), Some(0)));
        assert_eq!(
            (tally.least_beside(9, 1), Tally::default().least_beside(9, 1)),
            (None, None)
        );
    }
}
