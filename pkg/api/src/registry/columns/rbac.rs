//! rbac.authorization.k8s.io, and kinds that show when they were made.

use serde_json::Value;

use super::super::Column;
use super::{age, name, text};
use crate::meta;

/// RoleBinding and ClusterRoleBinding.
pub fn role_binding() -> Vec<Column> {
    vec![
        name(),
        text("Role", "The role that is granted.", |object, _| {
            format!(
                "{}/{}",
                meta::string(object, &["roleRef", "kind"]),
                meta::string(object, &["roleRef", "name"])
            )
            .into()
        }),
        age(),
        text("Users", "Users it is granted to.", |object, _| subjects(object, "User")).wide(),
        text("Groups", "Groups it is granted to.", |object, _| {
            subjects(object, "Group")
        })
        .wide(),
        text("ServiceAccounts", "Service accounts it is granted to.", |object, _| {
            subjects(object, "ServiceAccount")
        })
        .wide(),
    ]
}

fn subjects(object: &Value, kind: &str) -> Value {
    let names: Vec<String> = meta::items(object, &["subjects"])
        .iter()
        .filter(|subject| subject["kind"] == kind)
        .map(|subject| {
            let name = meta::string(subject, &["name"]);
            if kind == "ServiceAccount" {
                format!("{}/{name}", meta::string(subject, &["namespace"]))
            } else {
                name.to_string()
            }
        })
        .collect();
    names.join(", ").into()
}

/// Name and the time of creation: kinds that upstream has no printer for.
pub fn created_at() -> Vec<Column> {
    vec![
        name(),
        Column {
            type_: "date".into(),
            ..text("Created At", "When the object was created.", |object, _| {
                meta::string(object, &["metadata", "creationTimestamp"]).into()
            })
        },
    ]
}
