//! What happened in the cluster, as far as it may make a waiting pod schedulable. Each plugin says of a change whether it helps a pod
//! that it refused (upstream's queueing hints).

use crate::cluster::{Facts, NodeInfo};
use crate::pod::PodInfo;

/// The kinds of changes, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    NodeAdded = 1,
    NodeLabels = 2,
    NodeTaints = 4,
    NodeAllocatable = 8,
    /// A pod has its node, by whose hand it may be.
    PodPlaced = 16,
    /// A pod on a node ended or was deleted.
    PodGone = 32,
    /// A pod on a node has other labels, or asks for less.
    PodChanged = 64,
    NodeGone = 128,
}

/// A change.
pub enum Change<'a> {
    /// A node came (`before` is none) or changed.
    Node {
        before: Option<&'a Facts>,
        node: &'a NodeInfo,
    },
    /// A node went that was so.
    NodeGone(&'a Facts),
    /// See [`Kind::PodPlaced`].
    PodPlaced(&'a PodInfo),
    /// See [`Kind::PodGone`].
    PodGone(&'a PodInfo),
    /// See [`Kind::PodChanged`].
    PodChanged { before: &'a PodInfo, now: &'a PodInfo },
}

impl Change<'_> {
    /// Bits of [`Kind`]: a node may change in several ways at once.
    pub fn kinds(&self) -> u32 {
        match self {
            Change::Node { before: None, .. } => Kind::NodeAdded as u32,
            Change::Node {
                before: Some(before),
                node,
            } => of_node(before, &node.facts),
            Change::NodeGone(_) => Kind::NodeGone as u32,
            Change::PodPlaced(_) => Kind::PodPlaced as u32,
            Change::PodGone(_) => Kind::PodGone as u32,
            Change::PodChanged { .. } => Kind::PodChanged as u32,
        }
    }
}

fn of_node(before: &Facts, now: &Facts) -> u32 {
    let mut kinds = 0;
    for (changed, kind) in [
        (before.labels != now.labels, Kind::NodeLabels),
        (
            before.taints != now.taints || before.unschedulable != now.unschedulable,
            Kind::NodeTaints,
        ),
        (before.allocatable != now.allocatable, Kind::NodeAllocatable),
    ] {
        if changed {
            kinds |= kind as u32;
        }
    }
    kinds
}
