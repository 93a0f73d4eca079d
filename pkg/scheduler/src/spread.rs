//! Pods of one service or one owner are spread over hosts and zones: the fewer of them a place has, the better.
//!
//! A pod with ScheduleAnyway constraints of its own is spread by these; any other by what selects it (services, its owner), at most 3 apart
//! on hosts and 5 on zones, as upstream's built-in default has it.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::core::{Selector, SelectorExt};

use crate::info::{NodeInfo, PodInfo};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const MAX: i64 = 100;

/// The selectors of services and owners that pods are spread by.
#[derive(Debug, Default)]
pub struct Groups {
    /// Selectors of services by namespace and name.
    services: HashMap<String, HashMap<String, BTreeMap<String, String>>>,
    /// Selectors of ReplicaSets, StatefulSets and the like by uid.
    owners: HashMap<String, Selector>,
}

impl Groups {
    /// A service came or changed.
    pub fn set_service(&mut self, service: &Service) {
        let (namespace, name) = names(service);
        let selector = service
            .spec
            .as_ref()
            .and_then(|s| s.selector.clone())
            .unwrap_or_default();
        let all = self.services.entry(namespace).or_default();
        if selector.is_empty() {
            all.remove(&name);
        } else {
            all.insert(name, selector);
        }
    }

    /// A service went.
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
    fn selector_of(&self, pod: &Pod) -> Option<Selector> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let labels = pod.metadata.labels.as_ref().unwrap_or(&NONE);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut merged = Selector::default();
        let mut any = false;
        for selector in self.services.get(namespace).into_iter().flat_map(HashMap::values) {
            if selector.iter().all(|(key, value)| labels.get(key) == Some(value)) {
                any = true;
                merged.extend(Selector::from_iter(selector.clone()));
            }
        }
        let owner = pod
            .metadata
            .owner_references
            .iter()
            .flatten()
            .find(|o| o.controller == Some(true));
        if let Some(selector) = owner.and_then(|o| self.owners.get(&o.uid)) {
            any = true;
            merged.extend(selector.clone());
        }
        any.then_some(merged)
    }
}

fn names(service: &Service) -> (String, String) {
    (
        service.metadata.namespace.clone().unwrap_or_default(),
        service.metadata.name.clone().unwrap_or_default(),
    )
}

struct Constraint {
    key: String,
    max_skew: i64,
    selector: Selector,
}

/// The spreading of one pod.
pub struct Spread<'a> {
    groups: &'a Groups,
}

impl<'a> Spread<'a> {
    /// Spreads by these groups.
    pub fn new(groups: &'a Groups) -> Self {
        Spread { groups }
    }

    /// Own constraints, or the defaults. With it, whether a node must have every key to be compared.
    fn constraints(&self, pod: &Pod) -> (Vec<Constraint>, bool) {
        let own: Vec<Constraint> = pod
            .spec
            .iter()
            .flat_map(|s| s.topology_spread_constraints.iter().flatten())
            .filter(|c| c.when_unsatisfiable == "ScheduleAnyway")
            .filter_map(|c| {
                let mut selector = Selector::try_from(c.label_selector.clone().unwrap_or_default()).ok()?;
                if let (Some(keys), Some(labels)) = (&c.match_label_keys, &pod.metadata.labels) {
                    let values = keys.iter().filter_map(|k| Some((k.clone(), labels.get(k)?.clone())));
                    selector.extend(Selector::from_iter(values.collect::<BTreeMap<_, _>>()));
                }
                Some(Constraint {
                    key: c.topology_key.clone(),
                    max_skew: i64::from(c.max_skew),
                    selector,
                })
            })
            .collect();
        if !own.is_empty() {
            return (own, true);
        }
        let Some(selector) = self.groups.selector_of(pod) else {
            return (Vec::new(), false);
        };
        let default = |key: &str, max_skew| Constraint {
            key: key.to_owned(),
            max_skew,
            selector: selector.clone(),
        };
        (vec![default(HOSTNAME, 3), default(ZONE, 5)], false)
    }

    /// The score of each candidate: 100 where the fewest of the pod's group are.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    pub fn scores(&self, pod: &PodInfo, nodes: &[&NodeInfo]) -> Vec<i64> {
        let (constraints, needs_all) = self.constraints(&pod.pod);
        if constraints.is_empty() {
            return vec![0; nodes.len()];
        }
        let namespace = pod.pod.metadata.namespace.as_deref().unwrap_or_default();
        let comparable = |node: &NodeInfo| !needs_all || constraints.iter().all(|c| place(node, &c.key).is_some());
        let mut raw = vec![0.0_f64; nodes.len()];
        for constraint in &constraints {
            let mut count_at: HashMap<&str, i64> = HashMap::new();
            for node in nodes.iter().filter(|n| comparable(n)) {
                let Some(place) = place(node, &constraint.key) else {
                    continue;
                };
                *count_at.entry(place).or_default() += matching(node, namespace, &constraint.selector);
            }
            let weight = ((count_at.len() + 2) as f64).ln();
            for (node, score) in nodes.iter().zip(&mut raw) {
                if let Some(count) = place(node, &constraint.key).and_then(|p| count_at.get(p)) {
                    *score += *count as f64 * weight + (constraint.max_skew - 1) as f64;
                }
            }
        }
        let raw: Vec<Option<i64>> = nodes
            .iter()
            .zip(raw)
            .map(|(node, score)| comparable(node).then_some(score.round() as i64))
            .collect();
        let (min, max) = raw
            .iter()
            .flatten()
            .fold((i64::MAX, 0), |(lo, hi), s| (lo.min(*s), hi.max(*s)));
        raw.into_iter()
            .map(|score| match score {
                None => 0,
                Some(_) if max == 0 => MAX,
                Some(score) => MAX * (max + min - score) / max,
            })
            .collect()
    }
}

/// The value of a topology key on a node; a node is its own host even without the label.
fn place<'n>(node: &'n NodeInfo, key: &str) -> Option<&'n str> {
    node.label(key)
        .or_else(|| (key == HOSTNAME).then_some(node.name.as_str()))
}

fn matching(node: &NodeInfo, namespace: &str, selector: &Selector) -> i64 {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    let count = node.pods.values().filter(|other| {
        let meta = &other.pod.metadata;
        meta.deletion_timestamp.is_none()
            && meta.namespace.as_deref().unwrap_or_default() == namespace
            && selector.matches(meta.labels.as_ref().unwrap_or(&NONE))
    });
    i64::try_from(count.count()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn node_with_fewer_pods_of_the_service_scores_higher() {
        let mut groups = Groups::default();
        groups.set_service(
            &serde_json::from_value(
                json!({"metadata": {"name": "web", "namespace": "d"}, "spec": {"selector": {"app": "web"}}}),
            )
            .unwrap(),
        );
        let pod = |uid: &str, app: &str| {
            let pod =
                json!({"metadata": {"uid": uid, "namespace": "d", "labels": {"app": app}}, "spec": {"containers": []}});
            Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
        };
        let node = |name: &str| {
            let mut info = NodeInfo::named(name);
            info.set_node(Arc::new(
                serde_json::from_value(json!({"metadata": {"name": name}})).unwrap(),
            ));
            info
        };
        let (mut a, b) = (node("a"), node("b"));
        a.add_pod(pod("1", "web"));
        a.add_pod(pod("2", "other"));
        let spread = Spread::new(&groups);
        let scores = spread.scores(&pod("3", "web"), &[&a, &b]);
        assert!(scores[1] > scores[0], "{scores:?}");
        assert_eq!(spread.scores(&pod("4", "other"), &[&a, &b]), [0, 0]);
    }
}
