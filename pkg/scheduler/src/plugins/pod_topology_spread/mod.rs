//! A pod's like are spread over zones, nodes or other domains: a node whose domain has too many more of them than the emptiest is not
//! right, or is worse than others.

mod filter;
mod score;

#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use smallvec::SmallVec;

use crate::change::{Change, Kind};
use crate::cluster::{Cluster, Inclusion, InclusionId, Labels, NodeInfo, PodSelector, Scope};
use crate::framework::{Plugin, PreFilter, Score};
use crate::pod::PodInfo;
use crate::spread::{Constraint, Rule};

/// The key by which each node is a domain of its own.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// How pods without constraints of their own are spread (`defaultingType`, `defaultConstraints`): by what their Services and owners
/// select.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Defaults {
    /// Over nodes, and over zones where nodes have them.
    System,
    List(Vec<Rule>),
}

static SYSTEM: LazyLock<[Rule; 2]> =
    LazyLock::new(|| [Rule::soft(HOSTNAME, 3), Rule::soft("topology.kubernetes.io/zone", 5)]);

/// Upstream's PodTopologySpread.
#[derive(Debug)]
pub struct PodTopologySpread {
    pub defaults: Defaults,
}

impl Default for PodTopologySpread {
    fn default() -> Self {
        PodTopologySpread {
            defaults: Defaults::System,
        }
    }
}

/// A constraint of a decision.
struct Wanted<'a> {
    rule: &'a Rule,
    pods: Arc<PodSelector>,
    counted: Arc<PodSelector>,
}

impl Wanted<'_> {
    fn selects(&self, labels: &Labels) -> bool {
        self.pods.labels.matches(labels)
    }
}

/// All constraints of a decision, either those that have to hold or those that would be nice to.
struct AllWanted<'a> {
    pod: &'a PodInfo,
    all: SmallVec<[Wanted<'a>; 2]>,
    /// Of all of them: only nodes count that have each. Empty: each is for itself.
    keys: SmallVec<[&'a str; 2]>,
}

impl AllWanted<'_> {
    /// The nodes that count for each of them: asked for once for all that honor the same.
    fn included(&self, mut ask: impl FnMut(&Inclusion<'_>) -> InclusionId) -> Included {
        let mut all = Included::default();
        for wanted in &self.all {
            let id = &mut all.0[honored(wanted.rule)];
            *id = id.or_else(|| Some(ask(&self.inclusion(wanted.rule))));
        }
        all
    }

    fn inclusion(&self, rule: &Rule) -> Inclusion<'_> {
        let wishes = self.pod.wishes();
        Inclusion {
            keys: &self.keys,
            required: Some(&wishes.required).filter(|terms| rule.honors_affinity && !terms.is_empty()),
            tolerations: rule.honors_taints.then_some(&*wishes.tolerations),
        }
    }
}

/// By what rules honor.
#[derive(Default)]
struct Included([Option<InclusionId>; 4]);

fn honored(rule: &Rule) -> usize {
    2 * usize::from(rule.honors_affinity) + usize::from(rule.honors_taints)
}

impl Included {
    /// The nodes that count for a rule.
    fn scope<'s>(&self, rule: &'s Rule) -> Scope<'s> {
        Scope {
            key: &rule.key,
            included: self.0[honored(rule)],
        }
    }
}

impl PodTopologySpread {
    /// The constraints for a pod.
    fn wanted<'a>(&'a self, pod: &'a PodInfo, cluster: &Cluster, hard: bool) -> AllWanted<'a> {
        let own = &pod.wishes().spread;
        let all = match own.is_empty() {
            true => self.by_default(pod, cluster, hard),
            false => of_its_own(own, hard),
        };
        let each_for_itself = own.is_empty() && self.defaults == Defaults::System;
        let keys = all.iter().map(|wanted| &*wanted.rule.key).filter(|_| !each_for_itself);
        AllWanted {
            pod,
            keys: keys.collect(),
            all,
        }
    }

    fn by_default<'a>(&'a self, pod: &PodInfo, cluster: &Cluster, hard: bool) -> SmallVec<[Wanted<'a>; 2]> {
        let rules = match &self.defaults {
            Defaults::System => &SYSTEM[..],
            Defaults::List(rules) => rules,
        };
        let mut rules = rules.iter().filter(|rule| rule.hard == hard).peekable();
        if rules.peek().is_none() {
            return SmallVec::new();
        }
        let Some(pods) = cluster.groups.selector_of(pod) else {
            return SmallVec::new();
        };
        let wanted = rules.map(|rule| Wanted {
            rule,
            pods: pods.clone(),
            counted: pods.clone(),
        });
        wanted.collect()
    }
}

fn of_its_own(all: &[Constraint], hard: bool) -> SmallVec<[Wanted<'_>; 2]> {
    let all = all.iter().filter(|constraint| constraint.rule.hard == hard);
    let wanted = all.map(|constraint| Wanted {
        rule: &constraint.rule,
        pods: constraint.pods.clone(),
        counted: constraint.counted().clone(),
    });
    wanted.collect()
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn prepare(&self, pod: &PodInfo, cluster: &mut Cluster) {
        if pod.wishes().spread.is_empty() {
            cluster.groups.ask(pod);
        }
        let hard = self.wanted(pod, cluster, true);
        let included = hard.included(|inclusion| cluster.include(inclusion));
        for wanted in &hard.all {
            cluster.count(
                std::slice::from_ref(&wanted.counted),
                true,
                [included.scope(wanted.rule)],
            );
        }
        let soft = self.wanted(pod, cluster, false);
        let included = soft.included(|inclusion| cluster.include(inclusion));
        for wanted in &soft.all {
            let scope = (*wanted.rule.key != *HOSTNAME).then(|| included.scope(wanted.rule));
            cluster.count(std::slice::from_ref(&wanted.counted), true, scope);
            cluster.note_domains(&wanted.rule.key);
        }
    }

    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Cluster) -> PreFilter<'a> {
        let wanted = self.wanted(pod, cluster, true);
        match wanted.all.is_empty() {
            true => PreFilter::Skip,
            false => PreFilter::Check(Box::new(filter::Limits::new(wanted, cluster))),
        }
    }

    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        cluster: &'a Cluster,
        feasible: &[&NodeInfo],
    ) -> Option<Box<dyn Score + 'a>> {
        let wanted = self.wanted(pod, cluster, false);
        (!wanted.all.is_empty()).then(|| Box::new(score::Spreading::new(&wanted, cluster, feasible)) as Box<dyn Score>)
    }

    fn wakes_on(&self) -> u32 {
        let pods = Kind::PodPlaced as u32 | Kind::PodGone as u32 | Kind::PodChanged as u32;
        let nodes = Kind::NodeAdded as u32 | Kind::NodeGone as u32;
        pods | nodes | Kind::NodeLabels as u32 | Kind::NodeTaints as u32
    }

    fn helps(&self, pod: &PodInfo, change: &Change<'_>, cluster: &Cluster) -> bool {
        let wanted = self.wanted(pod, cluster, true);
        let counts = |other: &PodInfo| {
            let like = |wanted: &Wanted<'_>| wanted.selects(&other.kin.labels);
            other.namespace() == pod.namespace() && wanted.all.iter().any(like)
        };
        let has_all = |labels: &Labels| wanted.all.iter().all(|wanted| labels.contains_key(&*wanted.rule.key));
        match change {
            Change::PodPlaced(other) | Change::PodGone(other) => counts(other),
            Change::PodChanged { before, now } => {
                let (was, is) = (&before.kin.labels, &now.kin.labels);
                let differs = |wanted: &Wanted<'_>| wanted.selects(was) != wanted.selects(is);
                now.namespace() == pod.namespace() && wanted.all.iter().any(differs)
            }
            Change::Node { before: None, node } => has_all(&node.facts.labels),
            Change::NodeGone(facts) => has_all(&facts.labels),
            Change::Node {
                before: Some(before),
                node,
            } => {
                let (was, is) = (&before.labels, &node.facts.labels);
                let moved = |wanted: &Wanted<'_>| was.get(&*wanted.rule.key) != is.get(&*wanted.rule.key);
                let elsewhere = || wanted.all.iter().any(moved) || before.taints != node.facts.taints;
                has_all(was) != has_all(is) || has_all(is) && elsewhere()
            }
            _ => false,
        }
    }
}
