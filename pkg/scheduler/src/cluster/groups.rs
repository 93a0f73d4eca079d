//! What pods belong together by: the Services that select them and the sets that own them. Pods without rules of their own are spread
//! by these.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

use super::index::{Index, Places};
use super::kin::Kin;
use super::selector::{PodSelector, Selector};
use super::slots::Slots;
use crate::pod::PodInfo;

/// The selectors of Services and owners.
#[derive(Debug, Default)]
pub struct Groups {
    services: Slots<(PodSelector, Places)>,
    /// By namespace and name.
    ids: HashMap<(String, String), u32>,
    /// Services by what they select.
    index: Index,
    /// Selectors of ReplicaSets, StatefulSets and the like by uid.
    owners: HashMap<String, Selector>,
    asked: Option<Asked>,
}

/// What was worked out for the last decision.
#[derive(Debug)]
struct Asked {
    kin: Arc<Kin>,
    owner: Option<Box<str>>,
    selector: Option<Arc<PodSelector>>,
}

impl Groups {
    /// A Service came or changed.
    pub fn set_service(&mut self, service: &Service) {
        self.remove_service(service);
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
            return;
        };
        let name = names(service);
        let pods = PodSelector::within(&name.0, Selector::equal(selector));
        let id = self.services.insert((pods, Places::new()));
        if let Some((pods, places)) = self.services.get_mut(id) {
            *places = self.index.insert_selector(id, pods);
        }
        self.ids.insert(name, id);
    }

    /// A Service went.
    pub fn remove_service(&mut self, service: &Service) {
        self.asked = None;
        let Some(id) = self.ids.remove(&names(service)) else {
            return;
        };
        if let Some((_, places)) = self.services.remove(id) {
            self.index.remove_selector(id, &places);
        }
    }

    /// An owner of pods came or changed.
    pub fn set_owner(&mut self, uid: &str, selector: Option<Selector>) {
        self.asked = None;
        match selector {
            Some(selector) => self.owners.insert(uid.to_owned(), selector),
            None => self.owners.remove(uid),
        };
    }

    /// Before a decision: works out what selects the pod.
    pub fn ask(&mut self, pod: &PodInfo) {
        if self.known(pod).is_none() {
            self.asked = Some(Asked {
                kin: pod.kin.clone(),
                owner: pod.wishes().controller.clone(),
                selector: self.merged(pod).map(Arc::new),
            });
        }
    }

    fn known(&self, pod: &PodInfo) -> Option<&Asked> {
        let is = |asked: &&Asked| Arc::ptr_eq(&asked.kin, &pod.kin) && asked.owner == pod.wishes().controller;
        self.asked.as_ref().filter(is)
    }

    /// All that selects the pod, put together; None when nothing does. At once for a pod that was asked for.
    pub fn selector_of(&self, pod: &PodInfo) -> Option<Arc<PodSelector>> {
        match self.known(pod) {
            Some(asked) => asked.selector.clone(),
            None => self.merged(pod).map(Arc::new),
        }
    }

    fn merged(&self, pod: &PodInfo) -> Option<PodSelector> {
        let owner = pod.wishes().controller.as_deref();
        let mut merged = owner.and_then(|uid| self.owners.get(uid)).cloned();
        self.index.selectors(&pod.kin, |id| {
            let service = self.services.get(id);
            if let Some((pods, _)) = service.filter(|(pods, _)| pods.labels.matches(&pod.kin.labels)) {
                merged = Some(match merged.take() {
                    Some(merged) => merged.and(pods.labels.clone()),
                    None => pods.labels.clone(),
                });
            }
        });
        let merged = merged.filter(|merged| !merged.is_empty())?;
        Some(PodSelector::within(pod.namespace(), merged))
    }
}

fn names(service: &Service) -> (String, String) {
    let meta = &service.metadata;
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::{Kins, Labels};

    #[test]
    fn services_and_the_owner_select_together() {
        let mut groups = Groups::default();
        let service = |namespace: &str, name: &str, selector: Value| {
            let service = json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"selector": selector}});
            serde_json::from_value::<Service>(service).unwrap()
        };
        let labels = |text: &str| -> Labels { text.split(' ').map(|key| (key.to_owned(), "1".to_owned())).collect() };
        for (namespace, name, selector) in [
            ("d", "a", json!({"a": "1"})),
            ("d", "other", json!({"c": "1"})),
            ("d", "all", json!({})),
            ("e", "b", json!({"b": "1"})),
        ] {
            groups.set_service(&service(namespace, name, selector));
        }
        groups.set_owner("set", Some(Selector::equal(&labels("b"))));
        let mut kins = Kins::default();
        let mut pod = |owner: &str| {
            let owner = json!([{"uid": owner, "controller": true, "kind": "", "name": "", "apiVersion": ""}]);
            let pod = json!({"metadata": {"namespace": "d", "labels": labels("a b"), "ownerReferences": owner}, "spec": {"containers": []}});
            PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut kins)
        };
        let (set, unknown) = (pod("set"), pod("unknown"));
        let asked = |groups: &mut Groups, pod: &PodInfo| {
            let before = groups.selector_of(pod);
            groups.ask(pod);
            let (once, twice) = (groups.selector_of(pod), groups.selector_of(pod));
            assert_eq!(before, once);
            assert_eq!(
                once.as_ref().map(Arc::as_ptr),
                twice.as_ref().map(Arc::as_ptr),
                "it is worked out once"
            );
            once.map(|pods| pods.labels.clone())
        };
        let equal = |text: &str| Some(Selector::equal(&labels(text)));
        assert_eq!(asked(&mut groups, &set), equal("a b"));
        assert_eq!(asked(&mut groups, &unknown), equal("a"));
        groups.set_service(&service("d", "a", json!({"b": "1"})));
        assert_eq!(asked(&mut groups, &unknown), equal("b"));
        groups.remove_service(&service("d", "a", json!({})));
        assert_eq!(asked(&mut groups, &unknown), None);
        groups.set_owner("set", Some(Selector::equal(&Labels::new())));
        assert_eq!(asked(&mut groups, &set), None);
    }
}
