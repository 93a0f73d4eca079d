//! Nobody grants what he doesn't hold: the checks on writes of roles and bindings, unless `escalate` or `bind` is granted.

use mk8s_api::meta;
use mk8s_api::status::Status;
use serde_json::Value;

use super::rbac::{GROUP, RoleRef};
use super::rules::{describe, uncovered};
use super::{Attributes, Authorizer, MASTERS, Rule};
use crate::identity::User;

/// Checks a create or update of one of the four kinds; `old` on update.
pub fn check(
    authorizer: &Authorizer,
    user: &User,
    plural: &str,
    namespace: &str,
    name: &str,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if user.in_group(MASTERS) || old.is_some_and(|old| only_for_the_collector(object, old)) {
        return Ok(());
    }
    let write = Write {
        authorizer,
        user,
        plural,
        namespace,
        name,
    };
    match plural {
        "roles" | "clusterroles" => write.role(object, old),
        _ => write.binding(object),
    }
}

/// Who writes what.
struct Write<'a> {
    authorizer: &'a Authorizer,
    user: &'a User,
    plural: &'a str,
    namespace: &'a str,
    name: &'a str,
}

impl Write<'_> {
    fn role(&self, object: &Value, old: Option<&Value>) -> Result<(), Status> {
        let forbidden = |why: &str| Err(Status::forbidden(GROUP, self.plural, self.name, why));
        let escalate = Attributes {
            namespace: self.namespace,
            name: self.name,
            ..Attributes::of_resource(self.user, "escalate", GROUP, self.plural)
        };
        if self.authorizer.allows(&escalate) {
            return Ok(());
        }
        let wanted: Option<Vec<Rule>> = match serde_json::from_value(object["rules"].clone()) {
            Ok(wanted) => wanted,
            Err(error) => return forbidden(&format!("its rules can't be read: {error}")),
        };
        let wanted = wanted.unwrap_or_default();
        if let Some(why) = self.missing(&wanted) {
            return forbidden(&why);
        }
        let aggregates = |role: &Value| !meta::items(role, &["aggregationRule", "clusterRoleSelectors"]).is_empty();
        if (aggregates(object) || old.is_some_and(aggregates)) && self.missing(&everything()).is_some() {
            return forbidden("must have cluster-admin privileges to use the aggregationRule");
        }
        Ok(())
    }

    fn binding(&self, object: &Value) -> Result<(), Status> {
        let forbidden = |name: &str, why: &str| Err(Status::forbidden(GROUP, self.plural, name, why));
        let role: RoleRef = match serde_json::from_value(object["roleRef"].clone()) {
            Ok(role) => role,
            Err(error) => return forbidden(self.name, &format!("its roleRef can't be read: {error}")),
        };
        let resource = if role.kind == "ClusterRole" {
            "clusterroles"
        } else {
            "roles"
        };
        let bind = Attributes {
            namespace: self.namespace,
            name: &role.name,
            ..Attributes::of_resource(self.user, "bind", GROUP, resource)
        };
        if self.authorizer.allows(&bind) {
            return Ok(());
        }
        let Some(wanted) = self.authorizer.rbac().rules_of(&role, self.namespace) else {
            // Upstream's words are of the binding.
            return Err(Status::not_found(GROUP, self.plural, &role.name));
        };
        let name = object["metadata"]["name"].as_str().unwrap_or(self.name);
        match self.missing(&wanted) {
            Some(why) => forbidden(name, &why),
            None => Ok(()),
        }
    }

    fn missing(&self, wanted: &[Rule]) -> Option<String> {
        missing(self.authorizer, self.user, self.namespace, wanted)
    }
}

/// Upstream's sentence about what the user lacks, or why that can't be told; None when nothing.
fn missing(authorizer: &Authorizer, user: &User, namespace: &str, wanted: &[Rule]) -> Option<String> {
    let owned = authorizer.rbac().rules_for(user, namespace);
    let lacking = match uncovered(&owned, wanted) {
        Ok(lacking) => lacking,
        Err(too_large) => return Some(too_large.to_string()),
    };
    if lacking.is_empty() {
        return None;
    }
    let groups: Vec<String> = user.groups.iter().map(|group| format!("{group:?}")).collect();
    let held = format!("user {:?} (groups=[{}])", user.name, groups.join(" "));
    Some(format!(
        "{held} is attempting to grant RBAC permissions not currently held:\n{}",
        describe(&lacking)
    ))
}

fn everything() -> Vec<Rule> {
    let star = || vec!["*".to_string()];
    vec![
        Rule {
            verbs: star(),
            api_groups: star(),
            resources: star(),
            ..Rule::default()
        },
        Rule {
            verbs: star(),
            non_resource_urls: star(),
            ..Rule::default()
        },
    ]
}

/// Whether an update touches owner references and finalizers alone.
fn only_for_the_collector(new: &Value, old: &Value) -> bool {
    let stripped = |value: &Value| {
        let mut value = value.clone();
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in [
                "ownerReferences",
                "finalizers",
                "managedFields",
                "resourceVersion",
                "generation",
            ] {
                metadata.remove(field);
            }
        }
        value
    };
    stripped(new) == stripped(old)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::lookup::MapLookup;

    #[test]
    fn what_cannot_be_read_grants_nothing() {
        let authorizer = Authorizer::new(Arc::new(MapLookup::default()));
        let jane = User::authenticated("jane", []);
        let ask = |plural: &str, object: Value| {
            check(&authorizer, &jane, plural, "default", "a", &object, None).map_err(|status| status.code)
        };
        assert_eq!(ask("roles", json!({"rules": [{"verbs": "*"}]})), Err(403));
        assert_eq!(ask("roles", json!({"rules": null})), Ok(()));
        assert_eq!(ask("roles", json!({})), Ok(()));
        assert_eq!(ask("rolebindings", json!({"roleRef": {"kind": 1}})), Err(403));
        let many: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        let cube = json!({"apiGroups": [""], "resources": many, "verbs": many, "resourceNames": many});
        assert_eq!(ask("roles", json!({"rules": [cube]})), Err(403));
    }

    #[test]
    fn grants_only_what_is_held() {
        let lookup = Arc::new(MapLookup::default());
        lookup.put(
            GROUP,
            "clusterroles",
            &json!({"metadata": {"name": "dev"}, "rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
            {"apiGroups": [GROUP], "resources": ["roles", "rolebindings"], "verbs": ["*"]}]}),
        );
        lookup.put(
            GROUP,
            "clusterroles",
            &json!({"metadata": {"name": "admin"}, "rules": [
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}),
        );
        lookup.put(
            GROUP,
            "clusterrolebindings",
            &json!({"metadata": {"name": "dev"},
            "roleRef": {"kind": "ClusterRole", "name": "dev"}, "subjects": [{"kind": "User", "name": "jane"}]}),
        );
        let authorizer = Authorizer::new(lookup);
        // verbs "*" on roles includes escalate and bind, on roles alone.
        let jane = User::authenticated("jane", []);
        let role = json!({"metadata": {"name": "x"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "delete"]}]});
        check(&authorizer, &jane, "roles", "default", "x", &role, None).unwrap();
        let refused = check(&authorizer, &jane, "clusterroles", "", "x", &role, None).unwrap_err();
        assert_eq!(
            refused.message,
            "clusterroles.rbac.authorization.k8s.io \"x\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
        );
        let bind = |role: &str| {
            let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": role}});
            check(&authorizer, &jane, "rolebindings", "default", "b", &binding, None)
        };
        bind("dev").unwrap();
        assert_eq!(bind("admin").unwrap_err().code, 403);
        assert_eq!(bind("none").unwrap_err().code, 404);
    }
}
