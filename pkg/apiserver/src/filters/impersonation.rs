//! `--as`: a request acts as another user when its own may impersonate that one
//! (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation>).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use mk8s_api::names;
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
    let asked = Asked::read(headers)?;
    if asked.name.is_empty() {
        if asked.uid.is_empty() && asked.groups.is_empty() && asked.extra.is_empty() {
            return Ok(user.clone());
        }
        return Err(Status::bad_request(format!(
            "requested [{}] without impersonating a user",
            asked.references().join(" ")
        )));
    }
    asked.authorize(authorizer, user)?;
    Ok(Arc::new(asked.user()))
}

/// Whom the headers ask for.
struct Asked {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// Names are UTF-8. One that is not is refused: read as less than it is, the request would run as somebody else.
fn text(bytes: &[u8]) -> Result<String, Status> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_string()),
        Err(_) => Err(Status::bad_request("an Impersonate-* header is not UTF-8")),
    }
}

impl Asked {
    fn read(headers: &HeaderMap) -> Result<Asked, Status> {
        let one = |name: &str| {
            headers
                .get(name)
                .map_or(Ok(String::new()), |value| text(value.as_bytes()))
        };
        let groups = headers.get_all(GROUP).iter().map(|value| text(value.as_bytes()));
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in headers {
            if let Some(key) = key.as_str().strip_prefix(EXTRA) {
                let key: Vec<u8> = percent_encoding::percent_decode_str(key).collect();
                let values = extra.entry(text(&key)?.to_lowercase()).or_default();
                values.push(text(value.as_bytes())?);
            }
        }
        Ok(Asked {
            name: one(USER)?,
            uid: one(UID)?,
            groups: groups.collect::<Result<_, _>>()?,
            extra,
        })
    }

    /// Each thing but the name, as an ObjectReference is printed.
    fn references(&self) -> Vec<String> {
        const VERSION: &str = "authentication.k8s.io/v1";
        let groups = self.groups.iter().map(|group| format!("{{Group  {group}    }}"));
        let extra = self.extra.iter().flat_map(|(key, values)| {
            let of = move |value| format!("{{UserExtra  {value}  {VERSION}  {key}}}");
            values.iter().map(of)
        });
        let uid = (!self.uid.is_empty()).then(|| format!("{{UID  {}  {VERSION}  }}", self.uid));
        groups.chain(extra).chain(uid).collect()
    }

    /// Namespace and name where a service account is asked for. What can be no service account's name is a user's, for
    /// which `impersonate` on users is needed.
    fn service_account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        let valid = names::dns_label(namespace).is_empty() && names::dns_subdomain(name).is_empty();
        valid.then_some((namespace, name))
    }

    /// Asks for each part by itself.
    fn authorize(&self, authorizer: &Authorizer, user: &User) -> Result<(), Status> {
        const AUTHENTICATION: &str = "authentication.k8s.io";
        let may = |attributes: Attributes<'_>| authorizer.check(&attributes);
        let ask = |group, resource| Attributes::of_resource(user, "impersonate", group, resource);
        match self.service_account() {
            Some((namespace, name)) => may(Attributes {
                namespace,
                name,
                ..ask("", "serviceaccounts")
            })?,
            None => may(Attributes {
                name: &self.name,
                ..ask("", "users")
            })?,
        }
        for group in &self.groups {
            may(Attributes {
                name: group,
                ..ask("", "groups")
            })?;
        }
        for (key, value) in self
            .extra
            .iter()
            .flat_map(|(key, all)| all.iter().map(move |value| (key, value)))
        {
            may(Attributes {
                subresource: key,
                name: value,
                ..ask(AUTHENTICATION, "userextras")
            })?;
        }
        if !self.uid.is_empty() {
            may(Attributes {
                name: &self.uid,
                ..ask(AUTHENTICATION, "uids")
            })?;
        }
        Ok(())
    }

    /// The user, with the groups that everybody of its kind is in.
    fn user(mut self) -> User {
        if self.groups.is_empty()
            && let Some((namespace, _)) = self.service_account()
        {
            let of_namespace = format!("system:serviceaccounts:{namespace}");
            self.groups = vec!["system:serviceaccounts".into(), of_namespace];
        }
        let marker = if self.name == "system:anonymous" {
            "system:unauthenticated"
        } else {
            "system:authenticated"
        };
        let is_marker = |group: &String| group == "system:authenticated" || group == "system:unauthenticated";
        if !self.groups.iter().any(is_marker) {
            self.groups.push(marker.into());
        }
        User {
            name: self.name,
            uid: self.uid,
            groups: self.groups,
            extra: self.extra,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderValue;
    use serde_json::json;

    use super::*;
    use crate::filters::authz::rbac;
    use crate::lookup::MapLookup;

    /// Who may be joe, and any service account.
    fn jane() -> (Authorizer, Arc<User>) {
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
        (Authorizer::new(lookup), Arc::new(User::authenticated("jane", [])))
    }

    #[test]
    fn only_who_may() {
        let (authorizer, jane) = jane();
        let as_user = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
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
        // What cannot be an account's name is a user's.
        for none in ["a:b:c", "a:", ":b", "a", "A:b", "a:b_c"] {
            let user = format!("system:serviceaccount:{none}");
            let refused = as_user(&[(USER, &user)]).unwrap_err();
            assert!(
                refused.message.starts_with(&format!("users {user:?} is forbidden")),
                "{}",
                refused.message
            );
        }
        assert_eq!(as_user(&[(GROUP, "x")]).unwrap_err().code, 400);
        // Beyond ASCII it is a name like any other.
        assert_eq!(as_user(&[(USER, "josé")]).unwrap_err().code, 403);
        for more in [
            (GROUP, "größe"),
            (UID, "ü"),
            ("impersonate-extra-a", "é"),
            ("impersonate-extra-%c3%a9", "a"),
        ] {
            assert_eq!(as_user(&[(USER, "joe"), more]).unwrap_err().code, 403, "{more:?}");
        }
    }

    #[test]
    fn what_is_not_utf8_is_refused() {
        let authorizer = Authorizer::new(Arc::new(MapLookup::default()));
        let root = Arc::new(User::authenticated("root", ["system:masters".to_string()]));
        for bad in [USER, GROUP, UID, "impersonate-extra-a", "impersonate-extra-%ff"] {
            let mut headers = HeaderMap::new();
            headers.append(bad, HeaderValue::from_bytes(b"jos\xe9").unwrap());
            for user in [None, Some(HeaderValue::from_static("joe"))] {
                if let Some(user) = user {
                    headers.append(USER, user);
                }
                assert_eq!(apply(&authorizer, &root, &headers).unwrap_err().code, 400, "{bad}");
            }
        }
    }
}
