//! Small groups: policy, scheduling.k8s.io, coordination.k8s.io, node.k8s.io, flowcontrol.apiserver.k8s.io.

use super::row::{COMPLETE, COMPLETE_CHANGED, row};
use super::{ChangeOrder, NameRule, Resource, Support, columns, gates};
use crate::{defaults, validation};

pub(super) fn policy() -> Vec<Resource> {
    vec![
        row("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
            .metadata_checks(&[])
            .free_finalizers()
            .named(NameRule::PathSegment)
            .conditional_only()
            .validate(validation::disruption_budget)
            .validate_status(validation::disruption_budget_status)
            .columns(columns::disruption_budget())
            .short(&["pdb"])
            .default(defaults::disruption_budget)
            .prepare(defaults::disruption_budget_create, defaults::nothing_on_update)
            .generation()
            .status(),
    ]
}

pub(super) fn scheduling() -> Vec<Resource> {
    vec![
        row("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
            .validate(validation::priority_class)
            .validate_update(validation::priority_class_update)
            .change_order(ChangeOrder::ChangeAlone)
            .columns(columns::priority_class())
            .cluster()
            .short(&["pc"])
            .default(defaults::priority_class)
            .generation()
            .generation_stays(),
    ]
}

pub(super) fn coordination() -> Vec<Resource> {
    vec![
        row("coordination.k8s.io", "v1", "Lease", "leases")
            .gates(gates::LEASES)
            .free_finalizers()
            .put_creates()
            .conditional_only()
            .validate(validation::lease)
            .columns(columns::lease())
            .default(defaults::spec_only),
    ]
}

pub(super) fn node() -> Vec<Resource> {
    vec![
        row("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses")
            .warnings(validation::runtime_class_warnings)
            .metadata_checks(COMPLETE_CHANGED)
            .free_finalizers()
            .put_creates()
            .conditional_only()
            .validate(validation::runtime_class)
            .validate_update(validation::runtime_class_update)
            .columns(columns::runtime_class())
            .cluster()
            .default(defaults::runtime_class),
    ]
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
        flowcontrol("FlowSchema", "flowschemas")
            .metadata_checks(COMPLETE)
            .validate(validation::flow_schema)
            .validate_status(validation::flow_control_status)
            .columns(columns::flow_schema())
            .default(defaults::flow_schema)
            .status_alone()
            .prepare(defaults::reset_status, defaults::nothing_on_update),
        flowcontrol("PriorityLevelConfiguration", "prioritylevelconfigurations")
            .metadata_checks(COMPLETE)
            .validate(validation::priority_level)
            .validate_status(validation::flow_control_status)
            .columns(columns::priority_level())
            .default(defaults::priority_level)
            .status_alone()
            .prepare(defaults::reset_status, defaults::nothing_on_update),
    ]
}
