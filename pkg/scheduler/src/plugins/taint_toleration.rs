//! A tainted node takes only pods that tolerate its taints; of those that would rather have none, the one with the fewest is best.

use k8s_openapi::api::core::v1::Toleration;
use mk8s_api::taints::tolerates;

use crate::change::{Change, Kind};
use crate::cluster::{Cluster, NodeInfo, repels};
use crate::framework::{Filter, Objection, Plugin, PreFilter, Score, scale};
use crate::pod::PodInfo;

/// Upstream's TaintToleration.
pub struct TaintToleration;

struct Tolerations<'a>(&'a [Toleration]);

impl Filter for Tolerations<'_> {
    fn check(&self, node: &NodeInfo) -> Option<Objection> {
        let repelled = node.tainted && repels(&node.facts.taints, self.0);
        repelled.then(|| Objection::unresolvable("node(s) had untolerated taint(s)"))
    }
}

impl Score for Tolerations<'_> {
    fn score(&self, nodes: &[&NodeInfo], scores: &mut [i64]) {
        let meant = |own: &Toleration| matches!(own.effect.as_deref(), None | Some("" | "PreferNoSchedule"));
        for (node, score) in nodes.iter().zip(scores).filter(|(node, _)| node.tainted) {
            let soft = node
                .facts
                .taints
                .iter()
                .filter(|taint| taint.effect == "PreferNoSchedule");
            let untolerated = soft.filter(|taint| !self.0.iter().any(|own| meant(own) && tolerates(own, taint)));
            *score = i64::try_from(untolerated.count()).unwrap_or(i64::MAX);
        }
    }

    fn normalise(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        scale(scores, true);
    }
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, _: &'a Cluster) -> PreFilter<'a> {
        PreFilter::Check(Box::new(Tolerations(&pod.wishes().tolerations)))
    }

    fn pre_score<'a>(&'a self, pod: &'a PodInfo, _: &'a Cluster, _: &[&NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        Some(Box::new(Tolerations(&pod.wishes().tolerations)))
    }

    fn wakes_on(&self) -> u32 {
        Kind::NodeAdded as u32 | Kind::NodeTaints as u32
    }

    fn helps(&self, pod: &PodInfo, change: &Change<'_>, _: &Cluster) -> bool {
        let Change::Node { before, node } = change else {
            return true;
        };
        let tolerations = &pod.wishes().tolerations;
        before.is_none_or(|before| repels(&before.taints, tolerations)) && !repels(&node.facts.taints, tolerations)
    }
}
