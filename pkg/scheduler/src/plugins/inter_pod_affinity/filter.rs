//! The terms that have to hold.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::sums::{ByKey, OfKey};
use super::{all_pick, sum_up, terms};
use crate::affinity::{PodTerms, Term};
use crate::cluster::{Cluster, Counted, NONE, NodeInfo, Scope, Sort};
use crate::framework::{Filter, Objection, Trial};
use crate::pod::PodInfo;

/// Numbers that a trial adds to those that are counted, by key.
type ByLabel = SmallVec<[(Box<str>, i64); 2]>;

/// See the module.
pub struct Rules<'a> {
    pod: &'a PodInfo,
    cluster: &'a Cluster,
    terms: &'a PodTerms,
    /// The pods that all required terms are about, by the key of each.
    required: SmallVec<[Counted<'a>; 2]>,
    /// The pods that its anti-affinity is about, by key.
    anti: SmallVec<[OfKey<'a>; 2]>,
    /// The pods whose anti-affinity is about this one.
    theirs: SmallVec<[OfKey<'a>; 2]>,
    /// It is one of those that its required terms are about.
    likes_itself: bool,
}

impl<'a> Rules<'a> {
    /// None: there are none.
    pub fn new(pod: &'a PodInfo, cluster: &'a Cluster) -> Option<Self> {
        let (own, counts) = (terms(pod), cluster.counts());
        let mut theirs = ByKey::default();
        counts.about(Sort::Anti, &pod.kin, cluster.namespaces(), |column, sums| {
            theirs.push(column, 1, sums);
        });
        let theirs = theirs.finish();
        if theirs.is_empty() && own.required.is_empty() && own.anti.is_empty() {
            return None;
        }
        let near = |term: &Arc<Term>| counts.counted(&own.required_pods, false, &Scope::of_key(&term.key));
        let mut anti = ByKey::default();
        for term in &own.anti {
            sum_up(term, 1, own, cluster, &mut anti);
        }
        Some(Rules {
            pod,
            cluster,
            terms: own,
            required: own.required.iter().map(near).collect(),
            anti: anti.finish(),
            theirs,
            likes_itself: all_pick(&own.required, &pod.kin, cluster),
        })
    }

    /// With none of the pods that it has to be near anywhere, it may be the first of them; but a node has to have all keys.
    fn near(&self, node: &NodeInfo, more: impl Fn(usize) -> i64) -> bool {
        let all = || self.required.iter().enumerate();
        let mut together = true;
        for (at, counted) in all() {
            let domain = counted.column.domain(node.id);
            if domain == NONE {
                return false;
            }
            together &= counted.tally.of(domain) + more(at) > 0;
        }
        let nobody = || all().all(|(at, counted)| counted.tally.total + more(at) == 0);
        together || self.likes_itself && nobody()
    }
}

/// There is nobody in the node's domains, with what a trial adds by key.
fn nobody(sums: &[OfKey<'_>], more: &[(Box<str>, i64)], node: &NodeInfo) -> bool {
    let added = |key: &str| more.iter().find(|(own, _)| **own == *key).map_or(0, |(_, more)| *more);
    let mut others = more
        .iter()
        .filter(|(key, _)| !sums.iter().any(|own| *own.key() == **key));
    sums.iter()
        .all(|own| own.of(node).is_none_or(|sum| sum + added(own.key()) <= 0))
        && others.all(|(key, more)| node.label(key).is_none() || *more <= 0)
}

const NOT_NEAR: &str = "node(s) didn't match pod affinity rules";
const NOT_AWAY: &str = "node(s) didn't match pod anti-affinity rules";
const NOT_LIKED: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// What is said of a node, as the first of these that does not hold says it.
fn judged(near: bool, away: impl FnOnce() -> bool, liked: impl FnOnce() -> bool) -> Option<Objection> {
    if !near {
        Some(Objection::unresolvable(NOT_NEAR))
    } else if !away() {
        Some(Objection::new(NOT_AWAY))
    } else {
        (!liked()).then(|| Objection::new(NOT_LIKED))
    }
}

impl Filter for Rules<'_> {
    fn check(&self, node: &NodeInfo) -> Option<Objection> {
        let near = self.near(node, |_| 0);
        judged(
            near,
            || nobody(&self.anti, &[], node),
            || nobody(&self.theirs, &[], node),
        )
    }

    fn trial(&self) -> Option<Box<dyn Trial + '_>> {
        Some(Box::new(OnTrial {
            rules: self,
            required: smallvec![0; self.required.len()],
            anti: SmallVec::new(),
            theirs: SmallVec::new(),
        }))
    }
}

struct OnTrial<'r, 'a> {
    rules: &'r Rules<'a>,
    /// Beside the rules'.
    required: SmallVec<[i64; 2]>,
    anti: ByLabel,
    theirs: ByLabel,
}

fn bump(more: &mut ByLabel, key: &str, by: i64) {
    match more.iter_mut().find(|(own, _)| **own == *key) {
        Some((_, more)) => *more += by,
        None => more.push((key.into(), by)),
    }
}

impl Trial for OnTrial<'_, '_> {
    fn check(&self, node: &NodeInfo) -> Option<Objection> {
        let (rules, near) = (self.rules, self.rules.near(node, |at| self.required[at]));
        let away = || nobody(&rules.anti, &self.anti, node);
        judged(near, away, || nobody(&rules.theirs, &self.theirs, node))
    }

    fn change(&mut self, pod: &PodInfo, node: &NodeInfo, by: i64) {
        let (rules, namespaces) = (self.rules, self.rules.cluster.namespaces());
        let has = |counted: &Counted<'_>| counted.column.domain(node.id) != NONE;
        if all_pick(&rules.terms.required, &pod.kin, rules.cluster) {
            let each = rules.required.iter().zip(&mut self.required);
            each.filter(|(counted, _)| has(counted))
                .for_each(|(_, more)| *more += by);
        }
        for term in &rules.terms.anti {
            if node.label(&term.key).is_some() && term.pods.picks(&pod.kin, namespaces) {
                bump(&mut self.anti, &term.key, by);
            }
        }
        for term in &terms(pod).anti {
            if node.label(&term.key).is_some() && term.pods.concerns(&rules.pod.kin, namespaces) {
                bump(&mut self.theirs, &term.key, by);
            }
        }
    }
}
