//! nodeSelector and node affinity: where a pod has to go, and where it would like to; and the same of a profile, for all of its pods.

use mk8s_client::{NodeNames, NodeTerms};

use crate::change::{Change, Kind};
use crate::cluster::{Cluster, NodeInfo};
use crate::framework::{Filter, Objection, Plugin, PreFilter, Score, scale};
use crate::pod::PodInfo;

/// Upstream's NodeAffinity.
#[derive(Debug, Default)]
pub struct NodeAffinity {
    /// What every pod has to have beside its own (`addedAffinity`).
    pub added: NodeTerms,
    /// What every pod would like, with weights.
    pub added_preferred: Vec<(i64, NodeTerms)>,
}

struct Required<'a> {
    added: &'a NodeTerms,
    own: &'a NodeTerms,
}

impl Filter for Required<'_> {
    fn check(&self, node: &NodeInfo) -> Option<Objection> {
        if !node.is_one_of(self.added) {
            return Some(Objection::unresolvable(
                "node(s) didn't match scheduler-enforced node affinity",
            ));
        }
        let fits = node.is_one_of(self.own);
        (!fits).then(|| Objection::unresolvable("node(s) didn't match Pod's node affinity/selector"))
    }
}

struct Preferred<'a> {
    added: &'a [(i64, NodeTerms)],
    own: &'a [(i64, NodeTerms)],
}

impl Score for Preferred<'_> {
    fn score(&self, nodes: &[&NodeInfo], scores: &mut [i64]) {
        for (node, score) in nodes.iter().zip(scores) {
            let met = self
                .added
                .iter()
                .chain(self.own)
                .filter(|(_, terms)| node.is_one_of(terms));
            *score = met.map(|(weight, _)| weight).sum();
        }
    }

    fn normalise(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        scale(scores, false);
    }
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, _: &'a Cluster) -> PreFilter<'a> {
        let own = &pod.wishes().required;
        if own.is_empty() && self.added.is_empty() {
            return PreFilter::Skip;
        }
        let filter = Box::new(Required {
            added: &self.added,
            own,
        });
        match own.node_names() {
            NodeNames::Any => PreFilter::Check(filter),
            NodeNames::None => PreFilter::Refuse(Objection::unresolvable("pod affinity terms conflict")),
            NodeNames::These(names) => PreFilter::Only(names, filter),
        }
    }

    fn pre_score<'a>(&'a self, pod: &'a PodInfo, _: &'a Cluster, _: &[&NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let own = &pod.wishes().preferred;
        if own.is_empty() && self.added_preferred.is_empty() {
            return None;
        }
        Some(Box::new(Preferred {
            added: &self.added_preferred,
            own,
        }))
    }

    fn wakes_on(&self) -> u32 {
        Kind::NodeAdded as u32 | Kind::NodeLabels as u32
    }

    fn helps(&self, pod: &PodInfo, change: &Change<'_>, _: &Cluster) -> bool {
        let Change::Node { before, node } = change else {
            return true;
        };
        let fits = |labels| self.added.matches(&node.name, labels) && pod.wishes().required.matches(&node.name, labels);
        fits(&node.facts.labels) && before.is_none_or(|before| !fits(&before.labels))
    }
}
