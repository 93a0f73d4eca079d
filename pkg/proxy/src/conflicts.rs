//! What Services, pods and ranges of Services are told that they don't get, each time it is news.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use mk8s_client::{EventRecorder, Partial};

use crate::model::MAX_ELEMENTS;

const OVERLAP: &str = "ServiceCIDROverlap";

/// What is wrong with an object's ranges, of which `all` says it, besides the cluster's `own`.
fn overlap(object: &Partial, own: &[Ipv4Net], all: &BTreeMap<Ipv4Net, String>) -> Option<String> {
    let ranges = object.cidrs::<Ipv4Net>().map(|range| range.trunc());
    let beside = ranges.filter(|range| !own.contains(range));
    let beside = beside.filter_map(|range| Some(format!("{range} {}", all.get(&range)?)));
    let beside: Vec<String> = beside.collect();
    (!beside.is_empty()).then(|| beside.join("; "))
}

/// By the event's reason, and what the object is called.
#[derive(Default)]
struct Told(HashMap<(&'static str, Arc<str>), String>);

impl Told {
    /// What was not told before.
    fn news(&mut self, reason: &'static str, name: &Arc<str>, conflict: Option<String>) -> Option<String> {
        let key = (reason, name.clone());
        let Some(conflict) = conflict else {
            self.0.remove(&key);
            return None;
        };
        let before = self.0.insert(key, conflict.clone());
        (before.as_ref() != Some(&conflict)).then_some(conflict)
    }

    /// Objects that are not there any more are forgotten.
    fn keep(&mut self, reason: &'static str, names: &HashSet<Arc<str>>) {
        self.0.retain(|(of, name), _| *of != reason || names.contains(name));
    }
}

/// What Services and pods were told that they don't get.
pub struct Conflicts {
    told: Told,
    events: EventRecorder,
}

impl Conflicts {
    pub fn new(events: EventRecorder) -> Self {
        Self {
            told: Told::default(),
            events,
        }
    }

    pub fn tell(
        &mut self,
        name: &Arc<str>,
        object: Option<ObjectReference>,
        reason: &'static str,
        conflict: Option<String>,
    ) {
        let conflict = conflict.filter(|_| object.is_some());
        if let (Some(news), Some(object)) = (self.told.news(reason, name, conflict), object) {
            self.events.event(&object, "Warning", reason, news);
        }
    }

    /// Objects that are not there any more are forgotten.
    pub fn tell_of_ranges(&mut self, own: &[Ipv4Net], objects: &[Arc<Partial>], all: &BTreeMap<Ipv4Net, String>) {
        let mut there = HashSet::new();
        for object in objects {
            let name: Arc<str> = object.metadata.uid.as_deref().unwrap_or_default().into();
            let text = overlap(object, own, all);
            self.tell(&name, Some(of_range(object)), OVERLAP, text);
            there.insert(name);
        }
        self.told.keep(OVERLAP, &there);
    }
}

/// What an event is about.
pub fn reference<K: Resource + Metadata<Ty = ObjectMeta>>(object: &K) -> ObjectReference {
    let metadata = object.metadata().clone();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        field_path: None,
    }
}

fn of_range(object: &Partial) -> ObjectReference {
    ObjectReference {
        api_version: Some("networking.k8s.io/v1".to_owned()),
        kind: Some("ServiceCIDR".to_owned()),
        name: object.metadata.name.clone(),
        uid: object.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// What a Service is told by the API server's node, for all of them.
pub fn too_large(port: u16) -> String {
    format!(
        "the Service takes more than {MAX_ELEMENTS} elements of a node's table: port {port} and those after it are not served"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_with_ranges_is_told_once() {
        let range = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let own = [range("10.96.0.0/16")];
        let object: Partial = serde_json::from_value(json!({"spec": {"cidrs":
            ["10.96.0.0/16", "10.9.0.1/24", "10.98.0.0/16", "fd00::/112"]}}))
        .unwrap();
        let all = |beside: Option<&str>| {
            let own = (range("10.96.0.0/16"), "holds a node".to_owned());
            let beside = beside.map(|beside| (range("10.9.0.0/24"), beside.to_owned()));
            BTreeMap::from_iter([own].into_iter().chain(beside))
        };
        let name: Arc<str> = "uid".into();
        let mut told = Told::default();
        let tell = |told: &mut Told, beside| told.news(OVERLAP, &name, overlap(&object, &own, &all(beside)));
        let text = "10.9.0.0/24 holds b";
        for (beside, news) in [
            (None, None),
            (Some("holds b"), Some(text)),
            (Some("holds b"), None),
            (None, None),
            (Some("holds b"), Some(text)),
        ] {
            assert_eq!(tell(&mut told, beside).as_deref(), news, "{beside:?}");
        }
        told.news("Another", &"of another".into(), Some("conflict".to_owned()));
        told.keep(OVERLAP, &HashSet::from([name.clone()]));
        assert_eq!(told.0.len(), 2);
        told.keep(OVERLAP, &HashSet::new());
        assert_eq!(told.0.len(), 1, "of objects that are gone nothing is kept");
    }
}
