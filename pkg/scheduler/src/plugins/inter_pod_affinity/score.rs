//! The terms that would be nice to hold: those of the pod about pods that are there, and theirs about it.

use smallvec::SmallVec;

use super::sums::{ByKey, OfKey};
use super::{scored, sum_up, terms};
use crate::cluster::{Cluster, NodeInfo};
use crate::framework::{MAX_SCORE, Score};
use crate::pod::PodInfo;

/// See the module.
pub struct Likes<'a>(SmallVec<[OfKey<'a>; 2]>);

impl<'a> Likes<'a> {
    /// None: nobody likes or dislikes anything.
    pub fn new(hard_weight: i64, pod: &'a PodInfo, cluster: &'a Cluster) -> Option<Self> {
        let (counts, mut all) = (cluster.counts(), ByKey::default());
        for (weight, term) in &terms(pod).preferred {
            sum_up(term, *weight, terms(pod), cluster, &mut all);
        }
        for (sort, factor) in scored(hard_weight) {
            counts.about(sort, &pod.kin, cluster.namespaces(), |column, sums| {
                all.push(column, factor, sums);
            });
        }
        let all = all.finish();
        (!all.is_empty()).then_some(Likes(all))
    }
}

impl Score for Likes<'_> {
    fn score(&self, nodes: &[&NodeInfo], scores: &mut [i64]) {
        for (node, score) in nodes.iter().zip(scores) {
            *score = self.0.iter().filter_map(|own| own.of(node)).sum();
        }
    }

    /// From the least to the most.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "sums of weights are small, and the result is at most 100"
    )]
    fn normalise(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        let least = scores.iter().copied().min().unwrap_or(0);
        let most = scores.iter().copied().max().unwrap_or(0);
        for score in scores {
            *score = match most - least {
                0 => 0,
                range => (MAX_SCORE as f64 * ((*score - least) as f64 / range as f64)) as i64,
            };
        }
    }
}
