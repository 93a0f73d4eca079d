//! rbac.authorization.k8s.io/v1.

use super::row::row;
use super::{NameRule, Resource};
use crate::defaults;

pub(super) fn rows() -> Vec<Resource> {
    let rbac = |kind, plural| row("rbac.authorization.k8s.io", "v1", kind, plural).named(NameRule::PathSegment);
    vec![
        rbac("ClusterRoleBinding", "clusterrolebindings")
            .cluster()
            .default(defaults::role_binding),
        rbac("ClusterRole", "clusterroles").cluster().default(defaults::role),
        rbac("RoleBinding", "rolebindings").default(defaults::role_binding),
        rbac("Role", "roles").default(defaults::role),
    ]
}
