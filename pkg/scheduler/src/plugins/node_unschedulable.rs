//! A cordoned node takes no pods, but those that tolerate it.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::Taint;
use mk8s_api::taints::tolerates;

use crate::change::{Change, Kind};
use crate::cluster::{Cluster, NodeInfo};
use crate::framework::{Filter, Objection, Plugin, PreFilter};
use crate::pod::PodInfo;

/// Upstream's NodeUnschedulable.
pub struct NodeUnschedulable;

static CORDON: LazyLock<Taint> = LazyLock::new(|| Taint {
    key: "node.kubernetes.io/unschedulable".to_owned(),
    effect: "NoSchedule".to_owned(),
    value: None,
    time_added: None,
});

struct Uncordoned;

impl Filter for Uncordoned {
    fn check(&self, node: &NodeInfo) -> Option<Objection> {
        (node.tainted && node.facts.unschedulable).then(|| Objection::unresolvable("node(s) were unschedulable"))
    }
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, _: &'a Cluster) -> PreFilter<'a> {
        match pod.wishes().tolerations.iter().any(|own| tolerates(own, &CORDON)) {
            true => PreFilter::Skip,
            false => PreFilter::Check(Box::new(Uncordoned)),
        }
    }

    fn wakes_on(&self) -> u32 {
        Kind::NodeAdded as u32 | Kind::NodeTaints as u32
    }

    fn helps(&self, _: &PodInfo, change: &Change<'_>, _: &Cluster) -> bool {
        let Change::Node { before, node } = change else {
            return true;
        };
        before.is_none_or(|before| before.unschedulable) && !node.facts.unschedulable
    }
}
