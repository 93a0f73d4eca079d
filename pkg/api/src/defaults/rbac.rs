//! rbac.authorization.k8s.io.

use serde_json::Value;

use super::{Object, each, map, object, text};

fn subjects(map: &mut Object) {
    for subject in each(map, "subjects") {
        if matches!(super::str_of(subject, "kind"), "User" | "Group") {
            text(subject, "apiGroup", "rbac.authorization.k8s.io");
        }
    }
}

/// RoleBinding and ClusterRoleBinding.
pub fn role_binding(binding: &mut Value) {
    let Some(map) = map(binding) else { return };
    if let Some(role) = object(map, "roleRef") {
        text(role, "apiGroup", "rbac.authorization.k8s.io");
    }
    subjects(map);
}

/// Role and ClusterRole.
pub fn role(role: &mut Value) {
    if let Some(map) = map(role) {
        map.entry("rules").or_insert(Value::Null);
        for rule in each(map, "rules") {
            rule.entry("verbs").or_insert(Value::Null);
        }
    }
}
