//! What must exist before the first request: planned by a pure function from what is stored, written in one transaction.

mod flow_control;
pub mod objects;
pub mod roles;

use mk8s_api::registry::{self, Resource};
use serde_json::{Map, Value};

pub use flow_control::GROUP as FLOW_CONTROL;
pub use objects::Facts;

use crate::lookup::Lookup;

/// An object to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub group: &'static str,
    pub plural: &'static str,
    /// Complete but for metadata.resourceVersion; registry defaults are still to be applied.
    pub object: Value,
    /// Present: replaces what is stored at this revision. Absent: must not exist.
    pub replaces: Option<u64>,
}

/// What to write where an object is there already, from what is stored and what is wanted; None: nothing.
type Merge = fn(&Value, &Value) -> Option<Value>;

/// What has to be written so that the cluster has all it begins with; empty when nothing is missing.
pub fn plan(lookup: &dyn Lookup, facts: &Facts) -> Vec<Planned> {
    let left_alone: Merge = |_, _| None;
    let once = objects::once(facts).into_iter().map(|object| (object, left_alone));
    let roles = roles::upstream().into_iter().map(|object| {
        let merge = if flow_control::is_one(&object) {
            flow_control::revised as Merge
        } else {
            reconciled
        };
        (object, merge)
    });
    let always = objects::always(facts)
        .into_iter()
        .map(|object| (object, overlaid as Merge));
    wanting(lookup, once.chain(roles).chain(always))
}

/// What of it has to be there at any time, and is missing: what every pod finds the API and the cluster's names by, and by
/// whose requests are told apart. Upstream looks every ten seconds, and every minute. Roles come back at the next start.
pub fn missing(lookup: &dyn Lookup, facts: &Facts) -> Vec<Planned> {
    let left_alone: Merge = |_, _| None;
    let kept = objects::kept(facts).into_iter().chain(objects::always(facts));
    let flows = flow_control::wanted().into_iter();
    let flows = flows.map(|object| (object, flow_control::revised as Merge));
    wanting(lookup, kept.map(|object| (object, left_alone)).chain(flows))
}

fn wanting(lookup: &dyn Lookup, objects: impl Iterator<Item = (Value, Merge)>) -> Vec<Planned> {
    let mut planned = Vec::new();
    for (object, merge) in objects {
        let (group, version) = mk8s_api::meta::split_api_version(mk8s_api::meta::api_version(&object));
        let Some(resource) = registry::find_kind(group, version, mk8s_api::meta::kind(&object)) else {
            tracing::error!(%object, "the cluster begins with an object of no known kind");
            continue;
        };
        let (namespace, name) = (mk8s_api::meta::namespace(&object), mk8s_api::meta::name(&object));
        let (group, plural): (&'static str, &'static str) = (&resource.group, &resource.plural);
        match lookup.value(group, plural, namespace, name) {
            None => planned.push(Planned {
                object: created(object, resource),
                group,
                plural,
                replaces: None,
            }),
            Some(stored) => {
                if let Some(object) = merge(&stored, &object) {
                    let revision = mk8s_api::meta::resource_version(&stored).parse().ok();
                    planned.push(Planned {
                        group,
                        plural,
                        object,
                        replaces: revision,
                    });
                }
            }
        }
    }
    planned
}

/// uid and time of creation.
fn created(mut object: Value, resource: &Resource) -> Value {
    let metadata = mk8s_api::meta::metadata_mut(&mut object);
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), objects::now().into());
    if resource.generation {
        metadata.insert("generation".into(), 1.into());
    }
    object
}

/// Upstream's reconciliation of its roles and bindings at a start: missing rules and subjects come back, additions stay,
/// unless `rbac.authorization.kubernetes.io/autoupdate` says no. None when nothing is missing.
fn reconciled(stored: &Value, wanted: &Value) -> Option<Value> {
    if mk8s_api::meta::annotation(stored, "rbac.authorization.kubernetes.io/autoupdate") != Some("true") {
        return None;
    }
    let list = match mk8s_api::meta::kind(wanted) {
        // The aggregation controller owns the rules of a role that aggregates.
        "ClusterRole" if !wanted["aggregationRule"].is_null() => return None,
        "ClusterRole" | "Role" => "rules",
        "ClusterRoleBinding" | "RoleBinding" => "subjects",
        _ => return None,
    };
    let held = stored[list].as_array().cloned().unwrap_or_default();
    let missing: Vec<Value> = wanted[list]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| !covered(&held, entry))
        .cloned()
        .collect();
    if missing.is_empty() {
        return None;
    }
    let mut object = stored.clone();
    object[list] = held.into_iter().chain(missing).collect();
    Some(object)
}

fn covered(held: &[Value], entry: &Value) -> bool {
    if held.contains(entry) {
        return true;
    }
    let rules = |values: &[Value]| serde_json::from_value::<crate::filters::authz::RuleSet>(values.to_vec().into());
    match (rules(held), rules(std::slice::from_ref(entry))) {
        (Ok(held), Ok(wanted)) if entry.get("verbs").is_some() => {
            crate::filters::authz::rules::uncovered(&held, &wanted).is_ok_and(|lacking| lacking.is_empty())
        }
        _ => false,
    }
}

/// The wanted fields over the stored ones: `data` by key, everything else whole. None when that changes nothing.
fn overlaid(stored: &Value, wanted: &Value) -> Option<Value> {
    let mut object = stored.clone();
    for (field, value) in wanted.as_object().into_iter().flatten() {
        match (field.as_str(), value) {
            ("apiVersion" | "kind" | "metadata", _) => {}
            ("data", Value::Object(data)) => {
                let held = object
                    .as_object_mut()?
                    .entry("data")
                    .or_insert_with(|| Value::Object(Map::new()))
                    .as_object_mut()?;
                for (key, value) in data {
                    held.insert(key.clone(), value.clone());
                }
            }
            _ => object[field] = value.clone(),
        }
    }
    (object != *stored).then_some(object)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::lookup::MapLookup;

    fn facts(address: &str) -> Facts {
        Facts {
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            advertise_address: address.parse().unwrap(),
            secure_port: 6443,
            ca: "CA".into(),
            front_proxy_ca: "FP".into(),
            server_url: format!("https://{address}:6443"),
        }
    }

    #[test]
    fn planned_once() {
        let lookup = MapLookup::default();
        let first = plan(&lookup, &facts("10.0.0.1"));
        assert!(first.len() > 150, "{}", first.len());
        for planned in &first {
            assert!(!planned.plural.is_empty(), "{}", planned.object);
            lookup.put(planned.group, planned.plural, &planned.object);
        }
        assert_eq!(plan(&lookup, &facts("10.0.0.1")), []);
        let moved = plan(&lookup, &facts("10.0.0.2"));
        let names: Vec<&str> = moved.iter().map(|planned| planned.plural).collect();
        assert_eq!(names, ["endpoints", "endpointslices", "configmaps"]);

        let mut view = lookup
            .value("rbac.authorization.k8s.io", "clusterroles", "", "system:discovery")
            .unwrap();
        view["rules"] = serde_json::json!([]);
        lookup.put("rbac.authorization.k8s.io", "clusterroles", &view);
        assert_eq!(
            plan(&lookup, &facts("10.0.0.1")).len(),
            1,
            "a rule taken away comes back"
        );
    }

    #[test]
    fn addresses() {
        let cidr = "10.96.0.0/16".parse().unwrap();
        assert_eq!(objects::service_address(&cidr, 10).to_string(), "10.96.0.10");
    }
}
