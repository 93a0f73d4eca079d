//! rbac.authorization.k8s.io/v1.

use super::row::row;
use super::{NameRule, Resource, columns};
use crate::defaults;

pub(super) fn rows() -> Vec<Resource> {
    let rbac = |kind, plural| row("rbac.authorization.k8s.io", "v1", kind, plural).named(NameRule::PathSegment);
    vec![
        rbac("ClusterRoleBinding", "clusterrolebindings")
            .columns(columns::role_binding())
            .cluster()
            .default(defaults::role_binding),
        rbac("ClusterRole", "clusterroles")
            .columns(columns::created_at())
            .cluster()
            .default(defaults::role),
        rbac("RoleBinding", "rolebindings")
            .columns(columns::role_binding())
            .default(defaults::role_binding),
        rbac("Role", "roles")
            .columns(columns::created_at())
            .default(defaults::role),
    ]
}
