//! What the server knows of the definitions there are, and what follows from one that changed: pure, but for the part of the
//! watch cache that each resource has.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use mk8s_api::meta;
use mk8s_api::registry::{self, Resource, custom};
use serde_json::{Value, json};

use super::conditions::{self, Condition};
use super::names::{self, Taken};
use super::{CLEANUP, read};
use crate::watch_cache::Cache;
use crate::webhook;

/// The definitions by their names.
#[derive(Default)]
pub struct Definitions {
    known: BTreeMap<String, Known>,
    /// The definition that nobody can look at.
    #[cfg(test)]
    pub panics_at: Option<&'static str>,
}

struct Known {
    group: String,
    uid: String,
    /// `status.acceptedNames`, also where they are not written yet.
    accepted: Value,
    /// Of what the resource is made of.
    fingerprint: u64,
    /// What is served; None while its names are not accepted.
    resource: Option<Arc<Resource>>,
    /// Its objects are being removed.
    cleaning: bool,
}

/// What is to be done for a definition.
#[derive(Debug, Default, PartialEq)]
pub struct Consequence {
    /// The definition with its status as it should be, where that is another.
    pub status: Option<Value>,
    /// The registry is to be made anew.
    pub serves_other: bool,
    /// Objects of its kind are to be removed, and the definition with the last of them.
    pub cleans_up: bool,
}

impl Definitions {
    /// Every resource that is served for a definition.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.known.values().filter_map(|known| known.resource.as_ref())
    }

    /// What is served for a definition, which others of the same name may follow.
    pub fn resource(&self, name: &str, uid: &str) -> Option<Arc<Resource>> {
        let known = self.known.get(name).filter(|known| known.uid == uid);
        known?.resource.clone()
    }

    pub fn names(&self) -> impl Iterator<Item = String> {
        self.known.keys().cloned()
    }

    /// Whether nobody removes a definition's objects yet: from now on the caller does.
    pub fn begins_cleanup(&mut self, name: &str) -> bool {
        let known = self.known.get_mut(name);
        known.is_some_and(|known| !std::mem::replace(&mut known.cleaning, true))
    }

    pub fn ends_cleanup(&mut self, name: &str) {
        if let Some(known) = self.known.get_mut(name) {
            known.cleaning = false;
        }
    }

    /// The other definitions of a group.
    pub fn others(&self, group: &str, except: &str) -> Vec<String> {
        let others = self.known.iter();
        let others = others.filter(|(name, known)| known.group == group && *name != except);
        others.map(|(name, _)| name.clone()).collect()
    }

    /// A definition is there no more: whether something was served for it, and its group.
    pub fn removed(&mut self, name: &str, cache: &Cache) -> Option<(bool, String)> {
        let known = self.known.remove(name)?;
        if let Some(resource) = &known.resource {
            cache.retire(&resource.group, &resource.plural);
        }
        Some((known.resource.is_some(), known.group))
    }

    /// A definition came or changed.
    pub fn changed(&mut self, definition: &Value, cache: &Cache) -> Consequence {
        let name = meta::name(definition);
        #[cfg(test)]
        assert_ne!(self.panics_at, Some(name), "as the test wants it");
        let mut consequence = Consequence::default();
        let reborn = self
            .known
            .get(name)
            .is_some_and(|known| known.uid != meta::uid(definition));
        if reborn && let Some((served, _)) = self.removed(name, cache) {
            consequence.serves_other = served;
        }
        let group = meta::string(definition, &["spec", "group"]);
        let now = self.with_status(definition, group);
        let fingerprint = fingerprint(&now);
        let before = self.known.get(name);
        let mut resource = before.and_then(|known| known.resource.clone());
        if before.is_none_or(|known| known.fingerprint != fingerprint) {
            resource = is_served(&now).then(|| custom::resource(&now).map(Arc::new)).flatten();
            let before = before.and_then(|known| known.resource.as_ref());
            consequence.serves_other |= resource.is_some() || before.is_some();
            match (&resource, before) {
                (Some(resource), _) => cache.serve(resource, &read),
                (None, Some(before)) => cache.retire(&before.group, &before.plural),
                (None, None) => {}
            }
        }
        consequence.cleans_up = meta::is_deleting(definition) && meta::finalizers(definition).any(|own| own == CLEANUP);
        if consequence.cleans_up
            && let Some(resource) = &resource
        {
            cache.close(&resource.group, &resource.plural);
        }
        let known = Known {
            group: group.into(),
            uid: meta::uid(definition).into(),
            accepted: now["status"]["acceptedNames"].clone(),
            fingerprint,
            resource,
            cleaning: before.is_some_and(|known| known.cleaning),
        };
        self.known.insert(name.into(), known);
        consequence.status = (now != *definition).then_some(now);
        consequence
    }

    /// The definition with the status that it should have.
    fn with_status(&self, definition: &Value, group: &str) -> Value {
        let mut now = definition.clone();
        let wanted = &definition["spec"]["names"];
        let mut told = Vec::new();
        // A name that was accepted stays so while the definition asks for it.
        let judged = meta::condition(definition, "NamesAccepted").is_some();
        if !judged || !same_names(wanted, &definition["status"]["acceptedNames"]) {
            let mut taken = Taken::default();
            let own = meta::name(definition);
            for (name, known) in &self.known {
                if known.group == group && name != own {
                    taken.add(&known.accepted);
                }
            }
            let accepted = &definition["status"]["acceptedNames"];
            let (accepted, condition) = names::accept(wanted, accepted, &taken);
            meta::set(&mut now, &["status", "acceptedNames"], accepted);
            if !condition.is_true() && meta::condition(definition, "Established").is_none() {
                told.push(Condition::new(
                    "Established",
                    false,
                    "NotAccepted",
                    "not all names are accepted",
                ));
            }
            told.insert(0, condition);
        }
        let form = conditions::non_structural(definition);
        if form.is_none() {
            conditions::remove(&mut now, conditions::NON_STRUCTURAL);
        }
        for condition in told.into_iter().chain(conditions::approval(definition)).chain(form) {
            if !condition.stands_in(&now) {
                condition.put(&mut now);
            }
        }
        if meta::condition_is_true(&now, "NamesAccepted") && !meta::condition_is_true(&now, "Established") {
            let established = established(definition);
            if !established.stands_in(&now) {
                established.put(&mut now);
            }
        }
        now
    }
}

/// What becomes of a definition whose names are accepted.
fn established(definition: &Value) -> Condition {
    let webhook = custom::webhook(definition);
    if webhook.is_some_and(|webhook| !webhook::is_bundle(&webhook.authorities)) {
        let message = "The conversion webhook CABundle is invalid";
        return Condition::new("Established", false, "InvalidCABundle", message);
    }
    let message = "the initial names have been accepted";
    Condition::new("Established", true, "InitialNamesAccepted", message)
}

/// Whether requests reach its objects. Kinds that are built in stay what they are.
fn is_served(definition: &Value) -> bool {
    let accepted =
        meta::condition_is_true(definition, "NamesAccepted") || meta::condition_is_true(definition, "Established");
    accepted && !overlaps(definition)
}

/// Whether its objects would lie where a built-in kind's are.
pub fn overlaps(definition: &Value) -> bool {
    let group = meta::string(definition, &["spec", "group"]);
    let plural = meta::string(definition, &["spec", "names", "plural"]);
    let built_in = registry::builtin().iter().chain(registry::unserved());
    built_in.into_iter().any(|row| {
        let groups = row.versions.iter().map(|served| &*served.group);
        row.plural == plural && groups.chain([&*row.group]).any(|own| own == group)
    })
}

/// Equal but for lists that are empty or absent.
fn same_names(wanted: &Value, accepted: &Value) -> bool {
    ["plural", "singular", "kind", "listKind", "shortNames", "categories"]
        .iter()
        .all(|key| {
            let of = |names: &Value| names.get(key).filter(|value| **value != json!([])).cloned();
            of(wanted) == of(accepted)
        })
}

/// Changes with what the resource is made of.
fn fingerprint(definition: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    definition["spec"].to_string().hash(&mut hasher);
    definition["status"]["acceptedNames"].to_string().hash(&mut hasher);
    is_served(definition).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str) -> Value {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.example.org"), "uid": plural},
            "spec": {
                "group": "example.org", "scope": "Namespaced",
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
                "versions": [{"name": "v1", "served": true, "storage": true}]},
            "status": {"storedVersions": ["v1"]},
        })
    }

    #[test]
    fn a_definition_is_established_served_and_taken_away() {
        let cache = Cache::new(std::iter::empty(), 0);
        let mut all = Definitions::default();
        let told = all.changed(&definition("cars", "Car"), &cache);
        let established = told.status.expect("a status");
        assert!(told.serves_other && meta::condition_is_true(&established, "Established"));
        assert!(cache.resource("example.org", "cars").is_some());
        // What was written is what is expected: nothing more follows from it.
        assert_eq!(all.changed(&established, &cache), Consequence::default());

        let told = all.changed(&definition("autos", "Car"), &cache);
        let refused = told.status.expect("a status");
        assert!(!told.serves_other && cache.resource("example.org", "autos").is_none());
        assert!(!meta::condition_is_true(&refused, "NamesAccepted"));
        assert_eq!(all.changed(&refused, &cache), Consequence::default());
        // The kind is free when its first owner is gone.
        assert_eq!(
            all.removed("cars.example.org", &cache),
            Some((true, "example.org".into()))
        );
        assert!(cache.resource("example.org", "cars").is_none());
        assert_eq!(all.others("example.org", "cars.example.org"), ["autos.example.org"]);
        let told = all.changed(&refused, &cache);
        assert!(told.serves_other && cache.resource("example.org", "autos").is_some());
    }

    #[test]
    fn a_built_in_kind_is_not_replaced() {
        let mut pods = definition("deployments", "Deployment");
        pods["spec"]["group"] = "apps".into();
        assert!(overlaps(&pods) && !overlaps(&definition("cars", "Car")));
    }
}
