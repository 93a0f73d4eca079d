//! The constraints that would be nice to hold: the fewer of its like are in a node's domains, the better. Where there are many domains,
//! each pod of a domain weighs more, since there are fewer of them in each.

use smallvec::SmallVec;

use super::{AllWanted, HOSTNAME, Wanted};
use crate::cluster::{Cluster, Column, NONE, NodeInfo, Pick, Scope, Tally};
use crate::framework::{MAX_SCORE, Score};

enum Numbers<'a> {
    /// Each node is a domain, and all of its pods count.
    ByNode(&'a Pick),
    ByDomain(&'a Tally),
}

struct Part<'a> {
    numbers: Numbers<'a>,
    column: &'a Column,
    max_skew: i64,
    weight: f64,
}

/// See the module.
pub struct Spreading<'a> {
    parts: SmallVec<[Part<'a>; 2]>,
    /// A node that lacks a key is the worst.
    every_key: bool,
}

#[expect(clippy::cast_precision_loss, reason = "numbers of pods and domains are small")]
impl<'a> Spreading<'a> {
    pub fn new(wanted: &AllWanted<'_>, cluster: &'a Cluster, feasible: &[&NodeInfo]) -> Self {
        let counts = cluster.counts();
        let included = wanted.included(|inclusion| counts.included(inclusion));
        let part = |own: &Wanted<'_>| {
            let pods = std::slice::from_ref(&own.counted);
            let numbers = match &*own.rule.key {
                HOSTNAME => Numbers::ByNode(counts.pick(pods, true)),
                _ => Numbers::ByDomain(counts.counted(pods, true, &included.scope(own.rule)).tally),
            };
            Part {
                numbers,
                column: counts.column(&Scope::of_key(&own.rule.key)),
                max_skew: own.rule.max_skew,
                weight: 0.0,
            }
        };
        let mut all = Spreading {
            parts: wanted.all.iter().map(part).collect(),
            every_key: !wanted.keys.is_empty(),
        };
        all.weigh(feasible);
        all
    }

    fn weigh(&mut self, feasible: &[&NodeInfo]) {
        let counted: Vec<&NodeInfo> = feasible.iter().copied().filter(|node| !self.ignores(node)).collect();
        for part in &mut self.parts {
            let domains = match part.numbers {
                Numbers::ByNode(_) => counted.len(),
                Numbers::ByDomain(_) => distinct(part.column, &counted),
            };
            part.weight = ((domains + 2) as f64).ln();
        }
    }

    fn ignores(&self, node: &NodeInfo) -> bool {
        self.every_key && self.parts.iter().any(|part| part.column.domain(node.id) == NONE)
    }

    fn of(&self, node: &NodeInfo) -> f64 {
        let part = |part: &Part<'_>| {
            let domain = part.column.domain(node.id);
            if domain == NONE {
                return 0.0;
            }
            let pods = match part.numbers {
                Numbers::ByNode(pick) => pick.on.get(&node.id).copied().unwrap_or(0),
                Numbers::ByDomain(tally) => tally.of(domain),
            };
            pods as f64 * part.weight + (part.max_skew - 1) as f64
        };
        self.parts.iter().map(part).sum()
    }
}

/// How many domains these nodes have; those without the label are one more.
fn distinct(column: &Column, nodes: &[&NodeInfo]) -> usize {
    let mut seen = vec![0_u64; column.end().div_ceil(64)];
    let mut count = 0;
    for node in nodes {
        let domain = column.domain_or_empty(node.id) as usize;
        let (word, bit) = (&mut seen[domain / 64], 1 << (domain % 64));
        count += usize::from(*word & bit == 0);
        *word |= bit;
    }
    count
}

impl Score for Spreading<'_> {
    #[expect(clippy::cast_possible_truncation, reason = "numbers of pods are small")]
    fn score(&self, nodes: &[&NodeInfo], scores: &mut [i64]) {
        for (node, score) in nodes.iter().zip(scores).filter(|(node, _)| !self.ignores(node)) {
            *score = self.of(node).round() as i64;
        }
    }

    /// The fewest get the most.
    fn normalise(&self, nodes: &[&NodeInfo], scores: &mut [i64]) {
        let counted = || nodes.iter().zip(&*scores).filter(|(node, _)| !self.ignores(node));
        let least = counted().map(|(_, score)| *score).min().unwrap_or(0);
        let most = counted().map(|(_, score)| *score).max().unwrap_or(0);
        for (node, score) in nodes.iter().zip(scores) {
            *score = match most {
                _ if self.ignores(node) => 0,
                0 => MAX_SCORE,
                _ => MAX_SCORE * (most + least - *score) / most,
            };
        }
    }
}
