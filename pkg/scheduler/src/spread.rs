//! Pods of one service or one owner are spread over hosts and zones: the fewer of them a place has, the better.
//!
//! A pod with ScheduleAnyway constraints of its own is spread by these; any other by what selects it (services, its owner), at most 3 apart
//! on hosts and 5 on zones, as upstream's built-in default has it.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::core::Selector;

use crate::cache::Cache;
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

/// Pods that a selector picks are kept apart over the places of a topology key.
#[derive(Debug, Clone)]
struct Constraint {
    key: String,
    max_skew: i64,
    /// Nodes that the pod's nodeSelector and affinity rule out don't count (nodeAffinityPolicy Honor).
    honours_affinity: bool,
}

/// The spreading of one pod.
#[derive(Debug, Default)]
pub struct Spread {
    namespace: String,
    constraints: Vec<(Constraint, Selector)>,
    /// A node without every key is not compared.
    needs_all_keys: bool,
}

impl Spread {
    /// By the pod's own constraints, or the defaults.
    pub fn new(pod: &Pod, groups: &Groups) -> Self {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let own: Vec<(Constraint, Selector)> = pod
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
                Some((
                    Constraint {
                        key: c.topology_key.clone(),
                        max_skew: i64::from(c.max_skew),
                        honours_affinity: c.node_affinity_policy.as_deref() != Some("Ignore"),
                    },
                    selector,
                ))
            })
            .collect();
        if !own.is_empty() {
            return Spread {
                namespace,
                constraints: own,
                needs_all_keys: true,
            };
        }
        let Some(selector) = groups.selector_of(pod) else {
            return Spread::default();
        };
        let default = |key: &str, max_skew| {
            (
                Constraint {
                    key: key.to_owned(),
                    max_skew,
                    honours_affinity: true,
                },
                selector.clone(),
            )
        };
        Spread {
            namespace,
            constraints: vec![default(HOSTNAME, 3), default(ZONE, 5)],
            needs_all_keys: false,
        }
    }

    /// The selectors whose counts the scores need, with their namespace.
    pub fn selectors(&self) -> impl Iterator<Item = (&str, &Selector)> {
        self.constraints
            .iter()
            .map(|(_, selector)| (self.namespace.as_str(), selector))
    }

    /// The score of each candidate: 100 where the fewest of the pod's group are. A place counts the pods of all its nodes, also of
    /// those that can't take this pod: a zone of full nodes is not an empty zone (upstream's PodTopologySpread, scoring.go).
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    pub fn scores(&self, pod: &PodInfo, candidates: &[&NodeInfo], cache: &Cache) -> Vec<i64> {
        if self.constraints.is_empty() {
            return vec![0; candidates.len()];
        }
        let comparable = |node: &NodeInfo| {
            !self.needs_all_keys || self.constraints.iter().all(|(c, _)| place(node, &c.key).is_some())
        };
        let mut raw = vec![0.0_f64; candidates.len()];
        for (constraint, selector) in &self.constraints {
            let of_candidates = candidates.iter().filter(|node| comparable(node));
            let places = of_candidates.filter_map(|node| place(node, &constraint.key));
            let mut count_at: HashMap<&str, i64> = places.map(|place| (place, 0)).collect();
            for (name, count) in cache.counts().of(&self.namespace, selector).into_iter().flatten() {
                let Some(node) = cache.node(name).filter(|node| node.node.is_some()) else {
                    continue;
                };
                let counted = comparable(node) && (!constraint.honours_affinity || node.is_one_of(&pod.required));
                if counted && let Some(at) = place(node, &constraint.key).and_then(|place| count_at.get_mut(place)) {
                    *at += count;
                }
            }
            let weight = ((count_at.len() + 2) as f64).ln();
            for (node, score) in candidates.iter().zip(&mut raw) {
                if let Some(count) = place(node, &constraint.key).and_then(|p| count_at.get(p)) {
                    *score += *count as f64 * weight + (constraint.max_skew - 1) as f64;
                }
            }
        }
        let nodes = candidates;
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
        let node = |name: &str| Arc::new(serde_json::from_value(json!({"metadata": {"name": name}})).unwrap());
        let mut cache = crate::cache::Cache::default();
        cache.set_node(node("a"));
        cache.set_node(node("b"));
        cache.add_pod(&pod("1", "web"), "a");
        cache.add_pod(&pod("2", "other"), "a");
        let scores = |cache: &mut crate::cache::Cache, pod: &PodInfo| {
            let spread = Spread::new(&pod.pod, &groups);
            cache.prepare(&spread);
            let nodes: Vec<&NodeInfo> = ["a", "b"].iter().filter_map(|n| cache.node(n)).collect();
            spread.scores(pod, &nodes, cache)
        };
        let found = scores(&mut cache, &pod("3", "web"));
        assert!(found[1] > found[0], "{found:?}");
        assert_eq!(scores(&mut cache, &pod("4", "other")), [0, 0]);
        // Counts follow what comes and goes.
        cache.add_pod(&pod("5", "web"), "b");
        cache.remove_pod("1");
        let found = scores(&mut cache, &pod("3", "web"));
        assert!(found[0] > found[1], "{found:?}");
    }

    #[test]
    fn a_zone_of_full_nodes_is_not_empty() {
        let groups = {
            let mut groups = Groups::default();
            let service = json!({"metadata": {"name": "web", "namespace": "d"}, "spec": {"selector": {"app": "web"}}});
            groups.set_service(&serde_json::from_value(service).unwrap());
            groups
        };
        let pod = |uid: &str, selector: serde_json::Value| {
            let pod = json!({"metadata": {"uid": uid, "namespace": "d", "labels": {"app": "web"}},
                "spec": {"containers": [], "nodeSelector": selector}});
            Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
        };
        let mut cache = Cache::default();
        for (name, zone, disk) in [("a1", "a", "hdd"), ("a2", "a", "ssd"), ("b1", "b", "ssd")] {
            let labels = json!({ZONE: zone, "disk": disk});
            let node = json!({"metadata": {"name": name, "labels": labels}});
            cache.set_node(Arc::new(serde_json::from_value(node).unwrap()));
        }
        for uid in 0..12 {
            cache.add_pod(&pod(&uid.to_string(), json!({})), "a1");
        }
        let scores = |cache: &mut Cache, pod: &PodInfo| {
            let spread = Spread::new(&pod.pod, &groups);
            cache.prepare(&spread);
            // a1 is full: no candidate, yet in zone a.
            let candidates: Vec<&NodeInfo> = ["a2", "b1"].iter().filter_map(|n| cache.node(n)).collect();
            spread.scores(pod, &candidates, cache)
        };
        let found = scores(&mut cache, &pod("x", json!({})));
        assert!(found[1] > found[0], "{found:?}");
        // For a pod that could never run on a1, what is there does not count.
        assert_eq!(scores(&mut cache, &pod("y", json!({"disk": "ssd"}))), [100, 100]);
    }
}
