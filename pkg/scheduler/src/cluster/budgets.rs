//! What PodDisruptionBudgets allow (<https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-budgets>): a preemption
//! goes against one only where nothing else helps.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::selector::Selector;
use crate::pod::PodInfo;

/// All budgets, by namespace and name.
#[derive(Debug, Default)]
pub struct Budgets(HashMap<Box<str>, BTreeMap<Box<str>, Budget>>);

#[derive(Debug)]
struct Budget {
    selector: Selector,
    allowed: i64,
    /// Pods that count already, by name.
    disrupted: Box<[Box<str>]>,
}

impl Budget {
    /// None: it selects nothing, as an empty selector does here.
    fn new(budget: &PodDisruptionBudget) -> Option<Self> {
        let selector = Selector::new(Some(budget.spec.as_ref()?.selector.as_ref()?));
        if selector.is_empty() {
            return None;
        }
        let status = budget.status.as_ref();
        let disrupted = status.and_then(|status| status.disrupted_pods.as_ref());
        Some(Budget {
            selector,
            allowed: status.map_or(0, |status| i64::from(status.disruptions_allowed)),
            disrupted: disrupted
                .iter()
                .flat_map(|pods| pods.keys())
                .map(|name| name.as_str().into())
                .collect(),
        })
    }

    fn counts(&self, pod: &PodInfo) -> bool {
        let listed = self.disrupted.contains(&pod.name);
        !pod.kin.labels.is_empty() && !listed && self.selector.matches(&pod.kin.labels)
    }
}

impl Budgets {
    /// A budget came or changed.
    pub fn set(&mut self, budget: &PodDisruptionBudget) {
        let meta = &budget.metadata;
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        match Budget::new(budget) {
            Some(known) => {
                self.0.entry(namespace.into()).or_default().insert(name.into(), known);
            }
            None => self.remove(namespace, name),
        }
    }

    /// A budget went.
    pub fn remove(&mut self, namespace: &str, name: &str) {
        if let Some(own) = self.0.get_mut(namespace) {
            own.remove(name);
            if own.is_empty() {
                self.0.remove(namespace);
            }
        }
    }

    /// For each of these pods, whether it would break a budget if all went, in this order.
    pub fn broken_by(&self, pods: &[Arc<PodInfo>]) -> Vec<bool> {
        let mut left: HashMap<*const Budget, i64> = HashMap::new();
        let mut breaks = |pod: &Arc<PodInfo>| {
            let own = self.0.get(pod.namespace()).into_iter().flat_map(BTreeMap::values);
            let mut broken = false;
            for budget in own.filter(|budget| budget.counts(pod)) {
                let left = left.entry(std::ptr::from_ref(budget)).or_insert(budget.allowed);
                *left -= 1;
                broken |= *left < 0;
            }
            broken
        };
        pods.iter().map(&mut breaks).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::Kins;

    #[test]
    fn a_budget_breaks_when_it_allows_no_more() {
        let mut budgets = Budgets::default();
        let budget = |name: &str, selector: Value, allowed: i32| {
            let disrupted = json!({"gone": "2020-01-01T00:00:00Z"});
            let budget = json!({"metadata": {"namespace": "d", "name": name}, "spec": {"selector": selector},
                "status": {"disruptionsAllowed": allowed, "disruptedPods": disrupted, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}});
            serde_json::from_value::<PodDisruptionBudget>(budget).unwrap()
        };
        budgets.set(&budget("one", json!({"matchLabels": {"app": "web"}}), 1));
        budgets.set(&budget("all", json!({}), 0));
        let mut kins = Kins::default();
        let mut pod = |namespace: &str, name: &str, app: &str| {
            let pod = json!({"metadata": {"namespace": namespace, "name": name, "labels": {"app": app}}, "spec": {"containers": []}});
            Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap(), &mut kins))
        };
        let pods = [
            pod("d", "gone", "web"),
            pod("e", "x", "web"),
            pod("d", "y", "other"),
            pod("d", "a", "web"),
            pod("d", "b", "web"),
        ];
        assert_eq!(budgets.broken_by(&pods), [false, false, false, false, true]);
        budgets.remove("d", "one");
        assert_eq!(budgets.broken_by(&pods), [false; 5]);
    }
}
