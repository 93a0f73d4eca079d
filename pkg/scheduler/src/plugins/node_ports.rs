//! Two pods on one node can't have the same host port.

use mk8s_client::HostPort;

use crate::change::{Change, Kind};
use crate::cluster::{Cluster, NodeInfo};
use crate::framework::{Filter, Objection, Plugin, PreFilter};
use crate::pod::PodInfo;

/// Upstream's NodePorts.
pub struct NodePorts;

struct Wanted<'a>(&'a [HostPort]);

/// Both are sorted.
fn meet(wanted: &[HostPort], taken: &[HostPort]) -> bool {
    wanted.iter().any(|wanted| wanted.meets(taken))
}

impl Filter for Wanted<'_> {
    fn check(&self, node: &NodeInfo) -> Option<Objection> {
        meet(self.0, &node.ports).then(|| Objection::new("node(s) didn't have free ports for the requested pod ports"))
    }
}

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, _: &'a Cluster) -> PreFilter<'a> {
        match pod.ports.is_empty() {
            true => PreFilter::Skip,
            false => PreFilter::Check(Box::new(Wanted(&pod.ports))),
        }
    }

    fn wakes_on(&self) -> u32 {
        Kind::NodeAdded as u32 | Kind::PodGone as u32
    }

    fn helps(&self, pod: &PodInfo, change: &Change<'_>, _: &Cluster) -> bool {
        match change {
            Change::PodGone(gone) => meet(&pod.ports, &gone.ports),
            _ => true,
        }
    }
}
