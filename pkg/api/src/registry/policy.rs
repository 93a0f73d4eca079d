//! Small groups: policy, scheduling.k8s.io, coordination.k8s.io, node.k8s.io, flowcontrol.apiserver.k8s.io.

use super::row::row;
use super::{Resource, Support};

pub(super) fn policy() -> Vec<Resource> {
    vec![
        row("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
            .short(&["pdb"])
            .generation()
            .status(),
    ]
}

pub(super) fn scheduling() -> Vec<Resource> {
    vec![
        row("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
            .cluster()
            .short(&["pc"])
            .generation(),
    ]
}

pub(super) fn coordination() -> Vec<Resource> {
    vec![row("coordination.k8s.io", "v1", "Lease", "leases")]
}

pub(super) fn node() -> Vec<Resource> {
    vec![row("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses").cluster()]
}

pub(super) fn flowcontrol() -> Vec<Resource> {
    let flowcontrol = |kind, plural| {
        row("flowcontrol.apiserver.k8s.io", "v1", kind, plural)
            .cluster()
            .generation()
            .status()
            .support(Support::StoredOnly)
    };
    vec![
        flowcontrol("FlowSchema", "flowschemas"),
        flowcontrol("PriorityLevelConfiguration", "prioritylevelconfigurations"),
    ]
}
