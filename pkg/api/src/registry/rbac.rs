//! rbac.authorization.k8s.io/v1.

use super::row::row;
use super::{NameRule, Resource};

pub(super) fn rows() -> Vec<Resource> {
    let rbac = |kind, plural| row("rbac.authorization.k8s.io", "v1", kind, plural).named(NameRule::PathSegment);
    vec![
        rbac("ClusterRoleBinding", "clusterrolebindings").cluster(),
        rbac("ClusterRole", "clusterroles").cluster(),
        rbac("RoleBinding", "rolebindings"),
        rbac("Role", "roles"),
    ]
}
