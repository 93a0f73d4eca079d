//! rbac.authorization.k8s.io/v1.

use super::row::{COMPLETE_CHANGED, row};
use super::{NameRule, Resource, columns};
use crate::{defaults, validation};

pub(super) fn rows() -> Vec<Resource> {
    let rbac = |kind, plural| row("rbac.authorization.k8s.io", "v1", kind, plural).named(NameRule::PathSegment);
    vec![
        rbac("ClusterRoleBinding", "clusterrolebindings")
            .metadata_checks(COMPLETE_CHANGED)
            .put_creates()
            .validate(validation::cluster_role_binding)
            .validate_update(validation::role_binding_update)
            .columns(columns::role_binding())
            .cluster()
            .default(defaults::role_binding),
        rbac("ClusterRole", "clusterroles")
            .metadata_checks(COMPLETE_CHANGED)
            .put_creates()
            .validate(validation::cluster_role)
            .columns(columns::created_at())
            .cluster()
            .default(defaults::role),
        rbac("RoleBinding", "rolebindings")
            .metadata_checks(COMPLETE_CHANGED)
            .put_creates()
            .validate(validation::role_binding)
            .validate_update(validation::role_binding_update)
            .columns(columns::role_binding())
            .default(defaults::role_binding),
        rbac("Role", "roles")
            .metadata_checks(COMPLETE_CHANGED)
            .put_creates()
            .validate(validation::role)
            .columns(columns::created_at())
            .default(defaults::role),
    ]
}
