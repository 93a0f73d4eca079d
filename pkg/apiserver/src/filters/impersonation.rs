//! `--as`: a request acts as another user when its own may impersonate that one
//! (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation>).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use mk8s_api::status::Status;

use super::authz::{Attributes, Authorizer};
use crate::identity::User;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// The user that the request acts as: `user` itself when no header asks for another.
pub fn apply(authorizer: &Authorizer, user: &Arc<User>, headers: &HeaderMap) -> Result<Arc<User>, Status> {
    // The usual request has none: one look at the names, no allocation.
    if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Ok(user.clone());
    }
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_string()
    };
    let name = text(USER);
    let uid = text(UID);
    let asked_groups: Vec<String> = headers
        .get_all(GROUP)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(str::to_string)
        .collect();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in headers {
        if let (Some(key), Ok(value)) = (key.as_str().strip_prefix(EXTRA), value.to_str()) {
            let key = percent_encoding::percent_decode_str(key)
                .decode_utf8_lossy()
                .to_lowercase();
            extra.entry(key).or_default().push(value.to_string());
        }
    }
    if name.is_empty() {
        if uid.is_empty() && asked_groups.is_empty() && extra.is_empty() {
            return Ok(user.clone());
        }
        return Err(Status::internal(
            "requested impersonation of groups, uid or extra without impersonating a user",
        ));
    }

    let may = |attributes: Attributes<'_>| authorizer.check(&attributes);
    let ask = |group, resource| Attributes::of_resource(user, "impersonate", group, resource);
    let service_account = name
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    match service_account {
        Some((namespace, name)) => may(Attributes {
            namespace,
            name,
            ..ask("", "serviceaccounts")
        })?,
        None => may(Attributes {
            name: &name,
            ..ask("", "users")
        })?,
    }
    for group in &asked_groups {
        may(Attributes {
            name: group,
            ..ask("", "groups")
        })?;
    }
    const AUTHENTICATION: &str = "authentication.k8s.io";
    for (key, values) in &extra {
        for value in values {
            may(Attributes {
                subresource: key,
                name: value,
                ..ask(AUTHENTICATION, "userextras")
            })?;
        }
    }
    if !uid.is_empty() {
        may(Attributes {
            name: &uid,
            ..ask(AUTHENTICATION, "uids")
        })?;
    }

    let mut groups = asked_groups;
    if groups.is_empty()
        && let Some((namespace, _)) = service_account
    {
        groups = vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{namespace}"),
        ];
    }
    let marker = if name == "system:anonymous" {
        "system:unauthenticated"
    } else {
        "system:authenticated"
    };
    let marked = groups
        .iter()
        .any(|group| group == "system:authenticated" || group == "system:unauthenticated");
    if !marked {
        groups.push(marker.into());
    }
    Ok(Arc::new(User {
        name,
        uid,
        groups,
        extra,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::filters::authz::rbac;
    use crate::lookup::MapLookup;

    #[test]
    fn only_who_may() {
        let lookup = Arc::new(MapLookup::default());
        lookup.put(
            rbac::GROUP,
            "clusterroles",
            &json!({"metadata": {"name": "imp"}, "rules": [
            {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["joe"]},
            {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]}]}),
        );
        lookup.put(
            rbac::GROUP,
            "clusterrolebindings",
            &json!({"metadata": {"name": "imp"},
            "roleRef": {"kind": "ClusterRole", "name": "imp"}, "subjects": [{"kind": "User", "name": "jane"}]}),
        );
        let authorizer = Authorizer::new(lookup);
        let jane = Arc::new(User::authenticated("jane", []));
        let as_user = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            apply(&authorizer, &jane, &headers)
        };
        assert_eq!(as_user(&[]).unwrap(), jane);
        let joe = as_user(&[(USER, "joe")]).unwrap();
        assert_eq!(
            (joe.name.as_str(), joe.groups.as_slice()),
            ("joe", &["system:authenticated".to_string()][..])
        );
        let refused = as_user(&[(USER, "root")]).unwrap_err();
        assert_eq!(
            refused.message,
            r#"users "root" is forbidden: User "jane" cannot impersonate resource "users" in API group "" at the cluster scope"#
        );
        assert_eq!(
            as_user(&[(USER, "joe"), (GROUP, "system:masters")]).unwrap_err().code,
            403
        );
        let sa = as_user(&[(USER, "system:serviceaccount:a:b")]).unwrap();
        assert_eq!(
            sa.groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:a",
                "system:authenticated"
            ]
        );
        assert_eq!(as_user(&[(GROUP, "x")]).unwrap_err().code, 500);
    }
}
