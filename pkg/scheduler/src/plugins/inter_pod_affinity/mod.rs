//! Pods that are to be where others are, or where others are not: what the pod says of those that are there, and what they say of it.

mod filter;
mod score;
mod sums;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::sums::ByKey;
use crate::affinity::{PodTerms, Term};
use crate::change::{Change, Kind};
use crate::cluster::{Cluster, Kin, Labels, NodeInfo, Scope, Sort};
use crate::framework::{Plugin, PreFilter, Score};
use crate::pod::PodInfo;

/// Upstream's InterPodAffinity.
#[derive(Debug)]
pub struct InterPodAffinity {
    /// How much a node gains by a pod there that requires one like this (`hardPodAffinityWeight`).
    pub hard_weight: i64,
    /// What pods there would like is no matter to a pod that would like nothing (`ignorePreferredTermsOfExistingPods`).
    pub ignores_preferred: bool,
}

impl Default for InterPodAffinity {
    fn default() -> Self {
        InterPodAffinity {
            hard_weight: 1,
            ignores_preferred: false,
        }
    }
}

/// The pods of so many terms are counted on from one decision to the next: of each, on thousands of nodes maybe.
const MANY: usize = 64;

static NO_TERMS: std::sync::LazyLock<PodTerms> = std::sync::LazyLock::new(PodTerms::default);

fn terms(pod: &PodInfo) -> &PodTerms {
    pod.terms.as_deref().unwrap_or(&NO_TERMS)
}

/// Too many for their pods to be counted on. Of required affinity, all terms together are about some pods.
fn are_many(terms: &PodTerms) -> bool {
    terms.anti.len() + terms.preferred.len() > MANY
}

/// Adds the pods that one of the pod's terms is about, each `factor` times. The terms of a key can be put together: no pod counts less
/// than nothing.
fn sum_up<'a>(term: &Term, factor: i64, own: &PodTerms, cluster: &'a Cluster, sums: &mut ByKey<'a>) {
    let (counts, scope) = (cluster.counts(), Scope::of_key(&term.key));
    if !are_many(own) {
        let counted = counts.counted(std::slice::from_ref(&term.pods), false, &scope);
        return sums.push(counted.column, factor, &counted.tally.sums);
    }
    let column = counts.column(&scope);
    if !column.is_empty() {
        counts.pour(&term.pods, column, factor, cluster.namespaces(), sums.together(column));
    }
}

/// All of the terms are about these pods.
fn all_pick(terms: &[Arc<Term>], kin: &Kin, cluster: &Cluster) -> bool {
    let picks = |term: &Arc<Term>| term.pods.picks(kin, cluster.namespaces());
    !terms.is_empty() && terms.iter().all(picks)
}

/// Some of the terms are about these pods.
fn any_picks(terms: &[Arc<Term>], kin: &Kin, cluster: &Cluster) -> bool {
    terms.iter().any(|term| term.pods.picks(kin, cluster.namespaces()))
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn prepare(&self, pod: &PodInfo, cluster: &mut Cluster) {
        let Some(terms) = pod.terms.as_deref() else { return };
        let keys = terms.required.iter().map(|term| Scope::of_key(&term.key));
        if !terms.required.is_empty() {
            cluster.count(&terms.required_pods, false, keys);
        }
        for term in terms.anti.iter().chain(terms.preferred.iter().map(|(_, term)| term)) {
            match are_many(terms) {
                true => cluster.note_domains(&term.key),
                false => cluster.count(std::slice::from_ref(&term.pods), false, [Scope::of_key(&term.key)]),
            }
        }
    }

    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Cluster) -> PreFilter<'a> {
        match filter::Rules::new(pod, cluster) {
            Some(rules) => PreFilter::Check(Box::new(rules)),
            None => PreFilter::Skip,
        }
    }

    fn pre_score<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Cluster, _: &[&NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let preferred = &terms(pod).preferred;
        if preferred.is_empty() && self.ignores_preferred {
            return None;
        }
        let score = score::Likes::new(self.hard_weight, pod, cluster)?;
        Some(Box::new(score))
    }

    fn wakes_on(&self) -> u32 {
        let pods = Kind::PodPlaced as u32 | Kind::PodGone as u32 | Kind::PodChanged as u32;
        pods | Kind::NodeAdded as u32 | Kind::NodeLabels as u32
    }

    /// Beyond upstream, where such pods wait for minutes: a pod that went helps if any rule was about it, also one of its own, and the
    /// labels of namespaces count.
    fn helps(&self, pod: &PodInfo, change: &Change<'_>, cluster: &Cluster) -> bool {
        let own = terms(pod);
        match change {
            Change::PodPlaced(other) => all_pick(&own.required, &other.kin, cluster),
            Change::PodGone(other) => {
                let mut theirs = terms(other).anti.iter();
                any_picks(&own.anti, &other.kin, cluster)
                    || theirs.any(|term| term.pods.concerns(&pod.kin, cluster.namespaces()))
            }
            Change::PodChanged { before, now } => {
                let picked = |kin: &Kin| all_pick(&own.required, kin, cluster);
                let kept_away = |kin: &Kin| any_picks(&own.anti, kin, cluster);
                !picked(&before.kin) && picked(&now.kin) || kept_away(&before.kin) && !kept_away(&now.kin)
            }
            Change::Node { before, node } => {
                let before = before.map(|facts| &facts.labels);
                own.required.iter().any(|term| gained(&term.key, before, node))
                    || own.anti.iter().any(|term| left(&term.key, before, node))
            }
            _ => false,
        }
    }
}

/// The node is in a domain in which it was not.
fn gained(key: &str, before: Option<&Labels>, node: &NodeInfo) -> bool {
    let now = node.label(key);
    now.is_some() && before.and_then(|labels| labels.get(key)).map(String::as_str) != now
}

/// The node is not in the domain any more in which it was, or is new.
fn left(key: &str, before: Option<&Labels>, node: &NodeInfo) -> bool {
    let Some(before) = before else { return true };
    let was = before.get(key).map(String::as_str);
    was.is_some() && was != node.label(key)
}

/// The sorts of terms of pods on nodes that make scores, with what their numbers are multiplied by.
fn scored(hard_weight: i64) -> impl Iterator<Item = (Sort, i64)> {
    let hard = (hard_weight > 0).then_some((Sort::Required, hard_weight));
    hard.into_iter().chain([(Sort::Preferred, 1)])
}
