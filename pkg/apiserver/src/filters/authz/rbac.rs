//! RBAC. Roles and bindings are parsed once per change and indexed by subject; what a user may is put together once per
//! user and change, so that a request costs a map look-up and a walk over that user's few rules.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, LazyLock};

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use mk8s_api::selectors::LabelSelector;
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use serde_json::Value;

use super::{Attributes, Decision, Rule, RuleSet};
use crate::identity::User;
use crate::lookup::Lookup;

pub const GROUP: &str = "rbac.authorization.k8s.io";
/// Users remembered per state of the roles; beyond it they are put together anew.
const MAX_USERS: usize = 4096;
/// Bytes of a name and its groups that are remembered: reviews and impersonation may invent users of any size, and real
/// ones have a few hundred.
const MAX_USER_BYTES: usize = 4 << 10;

pub struct Rbac {
    lookup: Arc<dyn Lookup>,
    index: ArcSwap<Index>,
    /// One rebuild at a time; also holds what was parsed, so that a change costs the changed objects.
    parsed: Mutex<Parsed>,
}

/// What a user was found to be granted.
type Known = (User, Arc<Granted>);

/// Everything that is granted, at one state of the four resources.
#[derive(Default)]
struct Index {
    /// The group's count of changes.
    changes: u64,
    /// (namespace or "", role name) → rules
    roles: HashMap<(String, String), Arc<RuleSet>>,
    by_user: HashMap<String, Vec<Arc<Grant>>>,
    by_group: HashMap<String, Vec<Arc<Grant>>>,
    /// By the hash of a user's name and groups, so that nobody clones them to ask.
    users: RwLock<HashMap<u64, Vec<Known>>>,
}

/// One binding of one role to one subject.
struct Grant {
    /// Empty: the whole cluster.
    namespace: String,
    /// None: the role doesn't exist.
    rules: Option<Arc<RuleSet>>,
    /// `ClusterRoleBinding "a" of ClusterRole "b" to Group "c"`
    source: String,
    role: String,
}

/// What one user is granted.
#[derive(Default)]
pub struct Granted {
    cluster: Vec<Arc<Grant>>,
    namespaced: HashMap<String, Vec<Arc<Grant>>>,
}

#[derive(Default)]
struct Parsed {
    roles: HashMap<(String, String), (Bytes, Arc<Role>)>,
    bindings: HashMap<(String, String), (Bytes, Arc<Binding>)>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawRole {
    metadata: Metadata,
    rules: Option<Vec<Rule>>,
    #[serde(rename = "aggregationRule")]
    aggregation_rule: Option<Aggregation>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Aggregation {
    #[serde(rename = "clusterRoleSelectors")]
    selectors: Option<Vec<Value>>,
}

struct Role {
    metadata: Metadata,
    rules: Arc<RuleSet>,
    /// Whose rules this role has besides its own.
    aggregates: Vec<LabelSelector>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Binding {
    metadata: Metadata,
    role_ref: RoleRef,
    subjects: Option<Vec<Subject>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RoleRef {
    pub api_group: String,
    pub kind: String,
    pub name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

impl Rbac {
    pub fn new(lookup: Arc<dyn Lookup>) -> Self {
        // No real state has had so many changes, so that the first question builds the index.
        let never = Index {
            changes: u64::MAX,
            ..Index::default()
        };
        Rbac {
            lookup,
            index: ArcSwap::from_pointee(never),
            parsed: Mutex::new(Parsed::default()),
        }
    }

    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let granted = self.granted(attributes.user);
        granted
            .applying(attributes.namespace)
            .any(|grant| grant.allows(attributes))
    }

    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let granted = self.granted(attributes.user);
        match granted
            .applying(attributes.namespace)
            .find(|grant| grant.allows(attributes))
        {
            Some(grant) => Decision::Allow(format!("RBAC: allowed by {}", grant.source)),
            None => Decision::NoOpinion(granted.problems()),
        }
    }

    /// `RBAC: clusterrole.rbac.authorization.k8s.io "x" not found`, empty when all is well.
    pub fn problems(&self, user: &User) -> String {
        self.granted(user).problems()
    }

    /// All rules of a user, in one namespace and cluster wide.
    pub fn rules_for(&self, user: &User, namespace: &str) -> Vec<Rule> {
        let granted = self.granted(user);
        granted
            .applying(namespace)
            .filter_map(|grant| grant.rules.as_deref())
            .flatten()
            .cloned()
            .collect()
    }

    /// What a roleRef grants; None when there is no such role.
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Option<Arc<RuleSet>> {
        let namespace = if role.kind == "ClusterRole" { "" } else { namespace };
        self.index()
            .roles
            .get(&(namespace.to_string(), role.name.clone()))
            .cloned()
    }

    fn granted(&self, user: &User) -> Arc<Granted> {
        let index = self.index();
        let hash = hash_of(user);
        let known = |users: &HashMap<u64, Vec<(User, Arc<Granted>)>>| {
            let same = users.get(&hash)?.iter().find(|(own, _)| is_same(own, user))?;
            Some(same.1.clone())
        };
        if let Some(found) = known(&index.users.read()) {
            return found;
        }
        let mut granted = Granted::default();
        let own = index.by_user.get(&user.name).into_iter();
        let of_groups = user.groups.iter().filter_map(|group| index.by_group.get(group));
        for grant in own.chain(of_groups).flatten() {
            if grant.namespace.is_empty() {
                granted.cluster.push(grant.clone());
            } else {
                granted
                    .namespaced
                    .entry(grant.namespace.clone())
                    .or_default()
                    .push(grant.clone());
            }
        }
        let granted = Arc::new(granted);
        if bytes_of(user) > MAX_USER_BYTES {
            return granted;
        }
        let mut users = index.users.write();
        if users.len() >= MAX_USERS {
            users.clear();
        }
        let own = User {
            name: user.name.clone(),
            groups: user.groups.clone(),
            ..User::default()
        };
        users.entry(hash).or_default().push((own, granted.clone()));
        granted
    }

    /// The index of the present state.
    fn index(&self) -> Guard<Arc<Index>> {
        let changes = self.lookup.changes(GROUP);
        let held = self.index.load();
        if held.changes == changes {
            return held;
        }
        let mut parsed = self.parsed.lock();
        let held = self.index.load();
        if held.changes == changes {
            return held;
        }
        // Taken before the lists: what changes in between is seen at the next request.
        parsed.refresh(&*self.lookup);
        self.index.store(Arc::new(parsed.build(changes)));
        self.index.load()
    }
}

/// What a user is granted hangs on these alone.
fn hash_of(user: &User) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one((&user.name, &user.groups))
}

/// What remembering a user takes, about: a group has its text and the place for it.
fn bytes_of(user: &User) -> usize {
    let groups = user.groups.iter().map(|group| size_of::<String>() + group.len());
    user.name.len() + groups.sum::<usize>()
}

fn is_same(one: &User, other: &User) -> bool {
    one.name == other.name && one.groups == other.groups
}

impl Grant {
    fn allows(&self, attributes: &Attributes<'_>) -> bool {
        self.rules
            .as_ref()
            .is_some_and(|rules| rules.iter().any(|rule| rule.allows(attributes)))
    }
}

impl Granted {
    fn applying(&self, namespace: &str) -> impl Iterator<Item = &Arc<Grant>> {
        let own = if namespace.is_empty() {
            None
        } else {
            self.namespaced.get(namespace)
        };
        self.cluster.iter().chain(own.into_iter().flatten())
    }

    fn problems(&self) -> String {
        let missing = self.cluster.iter().filter(|grant| grant.rules.is_none());
        let mut texts: Vec<String> = missing.map(|grant| format!("{} not found", grant.role)).collect();
        texts.dedup();
        match texts.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        }
    }
}

/// Keeps what is unchanged (the same bytes), parses the rest.
fn refresh<T>(
    held: &mut HashMap<(String, String), (Bytes, Arc<T>)>,
    current: impl Iterator<Item = (&'static str, Bytes)>,
    parse: impl Fn(&[u8]) -> Option<(String, String, T)>,
) {
    // The same memory is the same object: `held` keeps it from being used again.
    let mut by_address: HashMap<usize, (String, String)> = held
        .iter()
        .map(|(key, (bytes, _))| (bytes.as_ptr() as usize, key.clone()))
        .collect();
    let mut next = HashMap::with_capacity(held.len());
    for (_, bytes) in current {
        let known = by_address
            .remove(&(bytes.as_ptr() as usize))
            .and_then(|key| held.remove_entry(&key));
        match known {
            Some((key, entry)) => {
                next.insert(key, entry);
            }
            None => {
                if let Some((namespace, name, object)) = parse(&bytes) {
                    next.insert((namespace, name), (bytes, Arc::new(object)));
                }
            }
        }
    }
    *held = next;
}

impl Parsed {
    fn refresh(&mut self, lookup: &dyn Lookup) {
        let both = |cluster: &'static str, namespaced: &'static str| {
            let cluster_wide = lookup
                .list(GROUP, cluster, "")
                .into_iter()
                .map(move |bytes| (cluster, bytes));
            cluster_wide.chain(
                lookup
                    .list(GROUP, namespaced, "")
                    .into_iter()
                    .map(move |bytes| (namespaced, bytes)),
            )
        };
        refresh(&mut self.roles, both("clusterroles", "roles"), |bytes| {
            let raw: RawRole = serde_json::from_slice(bytes).ok()?;
            let key = (raw.metadata.namespace.clone(), raw.metadata.name.clone());
            let selectors = raw.aggregation_rule.and_then(|rule| rule.selectors).unwrap_or_default();
            let role = Role {
                metadata: raw.metadata,
                rules: Arc::new(raw.rules.unwrap_or_default()),
                aggregates: selectors
                    .iter()
                    .filter_map(|selector| LabelSelector::from_json(selector).ok())
                    .collect(),
            };
            Some((key.0, key.1, role))
        });
        refresh(
            &mut self.bindings,
            both("clusterrolebindings", "rolebindings"),
            |bytes| {
                let binding: Binding = serde_json::from_slice(bytes).ok()?;
                Some((
                    binding.metadata.namespace.clone(),
                    binding.metadata.name.clone(),
                    binding,
                ))
            },
        );
    }

    /// A role's rules with those of the roles that it selects: in force at once, whenever a part is labelled or changed.
    fn aggregated(&self, role: &Role, depth: usize) -> RuleSet {
        /// Roles that aggregate aggregating roles (admin, edit, view) end soon; circles end here.
        const DEEPEST: usize = 4;
        let mut rules: RuleSet = role.rules.to_vec();
        if depth == DEEPEST {
            return rules;
        }
        for (_, part) in self.roles.values() {
            let label = |key: &str| part.metadata.labels.as_ref()?.get(key).map(String::as_str);
            let selected = part.metadata.namespace.is_empty()
                && part.metadata.name != role.metadata.name
                && role.aggregates.iter().any(|selector| selector.matches(label));
            if selected {
                let more = match part.aggregates.is_empty() {
                    true => part.rules.to_vec(),
                    false => self.aggregated(part, depth + 1),
                };
                rules.extend(more.into_iter().filter(|rule| !role.rules.contains(rule)));
            }
        }
        rules
    }

    fn build(&self, changes: u64) -> Index {
        let mut index = Index {
            changes,
            ..Index::default()
        };
        for (_, role) in self.roles.values() {
            let key = (role.metadata.namespace.clone(), role.metadata.name.clone());
            let rules = match role.aggregates.is_empty() {
                true => role.rules.clone(),
                false => Arc::new(self.aggregated(role, 0)),
            };
            index.roles.insert(key, rules);
        }
        for (_, binding) in self.bindings.values() {
            let namespace = &binding.metadata.namespace;
            let role = &binding.role_ref;
            let role_namespace = if role.kind == "ClusterRole" {
                ""
            } else {
                namespace.as_str()
            };
            let rules = index
                .roles
                .get(&(role_namespace.to_string(), role.name.clone()))
                .cloned();
            let (kind, place) = match namespace.is_empty() {
                true => ("ClusterRoleBinding", binding.metadata.name.clone()),
                false => ("RoleBinding", format!("{}/{namespace}", binding.metadata.name)),
            };
            for subject in binding.subjects.iter().flatten() {
                let (user, to) = match subject.kind.as_str() {
                    "ServiceAccount" => (
                        format!("system:serviceaccount:{}:{}", subject.namespace, subject.name),
                        format!("{:?}", format!("{}/{}", subject.name, subject.namespace)),
                    ),
                    _ => (subject.name.clone(), format!("{:?}", subject.name)),
                };
                let grant = Arc::new(Grant {
                    namespace: namespace.clone(),
                    rules: rules.clone(),
                    source: format!(
                        "{kind} {place:?} of {} {:?} to {} {to}",
                        role.kind, role.name, subject.kind
                    ),
                    role: format!("{}.{GROUP} {:?}", role.kind.to_lowercase(), role.name),
                });
                let subjects = match subject.kind.as_str() {
                    "Group" => &mut index.by_group,
                    _ => &mut index.by_user,
                };
                subjects.entry(user).or_default().push(grant);
            }
        }
        index
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::filters::authz::Authorizer;
    use crate::lookup::MapLookup;
    use crate::request::{Query, RequestInfo};

    fn cluster() -> Arc<MapLookup> {
        let lookup = Arc::new(MapLookup::default());
        let put = |plural: &str, object: serde_json::Value| lookup.put(GROUP, plural, &object);
        put(
            "clusterroles",
            json!({"metadata": {"name": "view"}, "rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]}),
        );
        put(
            "clusterroles",
            json!({"metadata": {"name": "health"}, "rules": [
            {"nonResourceURLs": ["/healthz"], "verbs": ["get"]}]}),
        );
        put(
            "roles",
            json!({"metadata": {"name": "edit", "namespace": "a"}, "rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["update"], "resourceNames": ["one"]}]}),
        );
        put(
            "clusterrolebindings",
            json!({"metadata": {"name": "health"},
            "roleRef": {"kind": "ClusterRole", "name": "health"},
            "subjects": [{"kind": "Group", "name": "system:authenticated"}]}),
        );
        put(
            "rolebindings",
            json!({"metadata": {"name": "view", "namespace": "a"},
            "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "name": "jane"}, {"kind": "ServiceAccount", "name": "sa", "namespace": "b"}]}),
        );
        put(
            "rolebindings",
            json!({"metadata": {"name": "edit", "namespace": "a"},
            "roleRef": {"kind": "Role", "name": "edit"}, "subjects": [{"kind": "User", "name": "jane"}]}),
        );
        lookup
    }

    #[test]
    fn bindings() {
        let authorizer = Authorizer::new(cluster());
        let sa = "system:serviceaccount:b:sa";
        for (user, method, path, wanted) in [
            ("jane", "GET", "/api/v1/namespaces/a/pods", true),
            ("jane", "GET", "/api/v1/namespaces/b/pods", false),
            ("jane", "GET", "/api/v1/pods", false),
            ("jane", "DELETE", "/api/v1/namespaces/a/pods/x", false),
            ("jane", "PUT", "/api/v1/namespaces/a/configmaps/one", true),
            ("jane", "PUT", "/api/v1/namespaces/a/configmaps/two", false),
            (sa, "GET", "/api/v1/namespaces/a/pods/x", true),
            ("joe", "GET", "/healthz", true),
            ("joe", "GET", "/livez", false),
            ("joe", "GET", "/api/v1/namespaces/a/pods", false),
        ] {
            let user = User::authenticated(user, []);
            let info = RequestInfo::parse(&method.parse().unwrap(), path, &Query::default());
            let got = authorizer.authorize(&user, &info);
            assert_eq!(got.is_ok(), wanted, "{} {method} {path}: {got:?}", user.name);
        }
    }

    #[test]
    fn aggregation() {
        let lookup = cluster();
        let authorizer = Authorizer::new(lookup.clone());
        let joe = User::authenticated("joe", []);
        let allowed = || authorizer.allows(&Attributes::of_resource(&joe, "get", "example.org", "things"));
        let role = |name: &str, label: &str, aggregates: &str| json!({"metadata": {"name": name, "labels": {label: "true"}}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {aggregates: "true"}}]}});
        lookup.put(GROUP, "clusterroles", &role("outer", "none", "to-outer"));
        lookup.put(GROUP, "clusterroles", &role("inner", "to-outer", "to-inner"));
        lookup.put(
            GROUP,
            "clusterrolebindings",
            &json!({"metadata": {"name": "joe"},
            "roleRef": {"kind": "ClusterRole", "name": "outer"}, "subjects": [{"kind": "User", "name": "joe"}]}),
        );
        assert!(!allowed());
        let part = json!({"metadata": {"name": "part", "labels": {"to-inner": "true"}}, "rules": [
            {"apiGroups": ["example.org"], "resources": ["things"], "verbs": ["get"]}]});
        lookup.put(GROUP, "clusterroles", &part);
        assert!(allowed());
    }

    #[test]
    fn users_invented_at_any_size_are_not_remembered() {
        let rbac = Rbac::new(cluster());
        let remembered = || rbac.index().users.read().len();
        let long = User::authenticated("x".repeat(MAX_USER_BYTES), []);
        let many = User::authenticated("jane", (0..1000).map(|n| n.to_string()));
        for user in [&long, &many] {
            let asked = Attributes {
                is_resource: false,
                path: "/healthz",
                ..Attributes::of_resource(user, "get", "", "")
            };
            // What they are granted they get all the same.
            assert!(rbac.allows(&asked));
            assert_eq!(remembered(), 0);
        }
        rbac.problems(&User::authenticated("jane", ["devs".to_string()]));
        assert_eq!(remembered(), 1);
    }

    #[test]
    fn words_and_changes() {
        let lookup = cluster();
        let authorizer = Authorizer::new(lookup.clone());
        let joe = User::authenticated("joe", []);
        let info = RequestInfo::parse(&http::Method::GET, "/api/v1/namespaces/default/pods", &Query::default());
        let refused = authorizer.authorize(&joe, &info).unwrap_err();
        assert_eq!(
            refused.message,
            r#"pods is forbidden: User "joe" cannot list resource "pods" in API group "" in the namespace "default""#
        );
        lookup.put(
            GROUP,
            "clusterrolebindings",
            &json!({"metadata": {"name": "joe"},
            "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "joe"}]}),
        );
        assert!(authorizer.authorize(&joe, &info).is_ok());
        let decision = authorizer.decide(&Attributes::of_request(&joe, &info));
        assert_eq!(
            decision.reason(),
            r#"RBAC: allowed by ClusterRoleBinding "joe" of ClusterRole "view" to User "joe""#
        );
        lookup.remove(GROUP, "clusterroles", "", "view");
        let refused = authorizer.authorize(&joe, &info).unwrap_err();
        assert!(
            refused
                .message
                .ends_with(r#": RBAC: clusterrole.rbac.authorization.k8s.io "view" not found"#),
            "{}",
            refused.message
        );
        let masters = User::authenticated("root", [crate::filters::authz::MASTERS.to_string()]);
        assert!(authorizer.authorize(&masters, &info).is_ok());
    }
}
