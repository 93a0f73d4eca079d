//! The constraints that have to hold.

use smallvec::{SmallVec, smallvec};

use super::{AllWanted, Wanted};
use crate::cluster::{Cluster, Counted, NONE, NodeInfo};
use crate::framework::{Filter, Objection, Trial};
use crate::pod::PodInfo;

/// A constraint with what it counts.
struct Limit<'a> {
    wanted: Wanted<'a>,
    counted: Counted<'a>,
    /// 1: the pod counts itself.
    itself: i64,
    /// The number of the emptiest domain.
    least: i64,
}

impl Limit<'_> {
    fn broken(&self, in_domain: i64, least: i64) -> bool {
        in_domain + self.itself - least > self.wanted.rule.max_skew
    }

    /// Too few domains: the emptiest counts as empty.
    fn pretends_an_empty_one(&self) -> bool {
        self.counted.domains() < self.wanted.rule.min_domains
    }

    /// What it says of a node in whose domain there are so many pods more than are counted.
    fn check(&self, node: &NodeInfo, more: i64) -> Option<Objection> {
        let domain = self.counted.column.domain(node.id);
        if domain == NONE {
            return Some(Objection::unresolvable(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            ));
        }
        let tally = self.counted.tally;
        let now = tally.of(domain) + more;
        let least = match more == 0 || self.pretends_an_empty_one() {
            true => self.least,
            false => {
                let others = tally.least_beside(domain, self.counted.domains());
                others.map_or(now, |others| others.min(now))
            }
        };
        let broken = self.broken(now, least);
        broken.then(|| Objection::new("node(s) didn't match pod topology spread constraints"))
    }
}

/// See the module.
pub struct Limits<'a> {
    pod: &'a PodInfo,
    all: SmallVec<[Limit<'a>; 2]>,
}

impl<'a> Limits<'a> {
    pub fn new(wanted: AllWanted<'a>, cluster: &'a Cluster) -> Self {
        let counts = cluster.counts();
        let included = wanted.included(|inclusion| counts.included(inclusion));
        let counted =
            |own: &Wanted<'_>| counts.counted(std::slice::from_ref(&own.counted), true, &included.scope(own.rule));
        let counted: SmallVec<[Counted<'a>; 2]> = wanted.all.iter().map(counted).collect();
        let pod = wanted.pod;
        let limit = |(wanted, counted): (Wanted<'a>, Counted<'a>)| {
            let mut limit = Limit {
                itself: i64::from(wanted.selects(&pod.kin.labels)),
                least: 0,
                wanted,
                counted,
            };
            if !limit.pretends_an_empty_one() {
                limit.least = counted.tally.least(counted.domains());
            }
            limit
        };
        Limits {
            pod,
            all: wanted.all.into_iter().zip(counted).map(limit).collect(),
        }
    }
}

impl Filter for Limits<'_> {
    fn check(&self, node: &NodeInfo) -> Option<Objection> {
        self.all.iter().find_map(|limit| limit.check(node, 0))
    }

    fn trial(&self) -> Option<Box<dyn Trial + '_>> {
        Some(Box::new(OnTrial {
            limits: self,
            more: smallvec![0; self.all.len()],
        }))
    }
}

struct OnTrial<'l, 'a> {
    limits: &'l Limits<'a>,
    /// Beside the limits.
    more: SmallVec<[i64; 2]>,
}

impl Trial for OnTrial<'_, '_> {
    fn check(&self, node: &NodeInfo) -> Option<Objection> {
        let mut all = self.limits.all.iter().zip(&self.more);
        all.find_map(|(limit, more)| limit.check(node, *more))
    }

    /// As upstream, pods that are going change it too, and those that a selector of everything selects.
    fn change(&mut self, pod: &PodInfo, node: &NodeInfo, by: i64) {
        if pod.namespace() != self.limits.pod.namespace() {
            return;
        }
        for (limit, more) in self.limits.all.iter().zip(&mut self.more) {
            if limit.counted.has(node.id) && limit.wanted.selects(&pod.kin.labels) {
                *more += by;
            }
        }
    }
}
