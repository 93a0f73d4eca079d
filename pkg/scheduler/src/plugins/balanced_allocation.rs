//! A node whose resources would be used to the same share is better: what is left of one is of no use without the other.

use super::allocation::{Asked, Sums, Weighed, asked, cpu_and_memory};
use crate::cluster::{Cluster, NodeInfo};
use crate::framework::{MAX_SCORE, Plugin, Score};
use crate::pod::PodInfo;

/// Upstream's NodeResourcesBalancedAllocation.
#[derive(Debug)]
pub struct BalancedAllocation {
    pub resources: Vec<Weighed>,
}

impl Default for BalancedAllocation {
    fn default() -> Self {
        BalancedAllocation {
            resources: cpu_and_memory(),
        }
    }
}

struct Balance<'a>(Vec<(Asked<'a>, i64)>);

impl Score for Balance<'_> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "shares of resources"
    )]
    fn score(&self, nodes: &[&NodeInfo], scores: &mut [i64]) {
        let mut shares: Vec<f64> = Vec::with_capacity(self.0.len());
        for (node, score) in nodes.iter().zip(scores) {
            shares.clear();
            let amounts = self.0.iter().map(|(asked, _)| asked.of(node, Sums::Requested));
            let given = amounts.filter(|(_, all)| *all != 0);
            shares.extend(given.map(|(used, all)| (used as f64 / all as f64).min(1.0)));
            *score = ((1.0 - deviation(&shares)) * MAX_SCORE as f64) as i64;
        }
    }
}

/// The standard deviation.
#[expect(clippy::cast_precision_loss, reason = "a handful of resources")]
fn deviation(shares: &[f64]) -> f64 {
    match shares {
        [] | [_] => 0.0,
        [one, other] => ((one - other) / 2.0).abs(),
        _ => {
            let count = shares.len() as f64;
            let mean = shares.iter().sum::<f64>() / count;
            let squares = shares.iter().map(|share| (share - mean) * (share - mean));
            (squares.sum::<f64>() / count).sqrt()
        }
    }
}

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    /// A pod that asks for nothing is left to the other plugins: each node that is in balance would draw all such pods.
    fn pre_score<'a>(&'a self, pod: &'a PodInfo, _: &'a Cluster, _: &[&NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let asked = asked(pod, &self.resources, Sums::Requested);
        let any = asked.iter().any(|(asked, _)| asked.amount() != 0);
        any.then(|| -> Box<dyn Score> { Box::new(Balance(asked)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_further_shares_are_apart_the_larger_the_deviation() {
        for (shares, expected) in [
            (&[][..], 0.0),
            (&[0.5], 0.0),
            (&[0.5, 0.5], 0.0),
            (&[0.0, 1.0], 0.5),
            (&[0.25, 0.25, 0.25], 0.0),
            (&[0.0, 0.0, 0.0, 1.0], 0.1875_f64.sqrt()),
        ] {
            assert!((deviation(shares) - expected).abs() < 1e-12, "{shares:?}");
        }
    }
}
