//! What pods belong together by: the Services that select them and the sets that own them. Pods without rules of their own are spread
//! by these.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Service;
use kube::core::Selector;

use crate::pod::PodInfo;

/// The selectors of Services and owners.
#[derive(Debug, Default)]
pub struct Groups {
    /// Selectors of Services by namespace and name.
    services: HashMap<String, HashMap<String, BTreeMap<String, String>>>,
    /// Selectors of ReplicaSets, StatefulSets and the like by uid.
    owners: HashMap<String, Selector>,
}

impl Groups {
    /// A Service came or changed.
    pub fn set_service(&mut self, service: &Service) {
        let (namespace, name) = names(service);
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone());
        let all = self.services.entry(namespace).or_default();
        match selector.filter(|selector| !selector.is_empty()) {
            Some(selector) => all.insert(name, selector),
            None => all.remove(&name),
        };
    }

    /// A Service went.
    pub fn remove_service(&mut self, service: &Service) {
        let (namespace, name) = names(service);
        if let Some(all) = self.services.get_mut(&namespace) {
            all.remove(&name);
            if all.is_empty() {
                self.services.remove(&namespace);
            }
        }
    }

    /// An owner of pods came or changed.
    pub fn set_owner(&mut self, uid: &str, selector: Option<Selector>) {
        match selector {
            Some(selector) => self.owners.insert(uid.to_owned(), selector),
            None => self.owners.remove(uid),
        };
    }

    /// All that selects the pod, put together; None when nothing does.
    pub fn selector_of(&self, pod: &PodInfo) -> Option<Selector> {
        let mut merged = Selector::default();
        let mut any = false;
        let services = self.services.get(pod.namespace()).into_iter().flat_map(HashMap::values);
        for selector in services {
            if selector
                .iter()
                .all(|(key, value)| pod.kin.labels.get(key) == Some(value))
            {
                any = true;
                merged.extend(Selector::from_iter(selector.clone()));
            }
        }
        let owner = pod.wishes().controller.as_deref();
        if let Some(selector) = owner.and_then(|uid| self.owners.get(uid)) {
            any = true;
            merged.extend(selector.clone());
        }
        any.then_some(merged)
    }
}

fn names(service: &Service) -> (String, String) {
    let meta = &service.metadata;
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}
