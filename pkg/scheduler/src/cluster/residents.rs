//! Which kins of pods are on which nodes, and how many of each.

use std::collections::HashMap;
use std::sync::Arc;

use nohash_hasher::IntMap;
use smallvec::SmallVec;

use super::index::Index;
use super::kin::{Kin, KinId};
use super::namespaces::Namespaces;
use super::node::NodeId;
use super::picks::PickId;
use super::selector::PodSelector;

/// Pods of one kin on a node.
#[derive(Debug, Clone, Copy, Default)]
pub struct Number {
    pub all: u32,
    /// Those of them that are going.
    pub going: u32,
}

/// A kin that is on some node.
#[derive(Debug)]
pub struct Resident {
    pub kin: Arc<Kin>,
    pub on: IntMap<NodeId, Number>,
    /// What counts them.
    pub picks: SmallVec<[PickId; 2]>,
}

/// All kins that are on some node.
#[derive(Debug, Default)]
pub struct Residents {
    all: IntMap<KinId, Resident>,
    index: Index,
    /// With the number of kins in each.
    namespaces: HashMap<Arc<str>, usize>,
}

impl Residents {
    /// Nothing is left in it.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.index.is_empty() && self.namespaces.is_empty()
    }

    /// A pod is on a node. The kin if it is the first of it.
    pub fn add(&mut self, kin: &Arc<Kin>, node: NodeId, going: bool) -> (&mut Resident, bool) {
        let mut first = false;
        let resident = self.all.entry(kin.id).or_insert_with(|| {
            first = true;
            self.index.insert_kin(kin.id, kin);
            *self.namespaces.entry(kin.namespace.clone()).or_default() += 1;
            Resident {
                kin: kin.clone(),
                on: IntMap::default(),
                picks: SmallVec::new(),
            }
        });
        let number = resident.on.entry(node).or_default();
        number.all += 1;
        number.going += u32::from(going);
        (resident, first)
    }

    /// A pod is on a node no more. What counted it.
    pub fn remove(&mut self, kin: &Kin, node: NodeId, going: bool) -> SmallVec<[PickId; 2]> {
        let Some(resident) = self.all.get_mut(&kin.id) else {
            return SmallVec::new();
        };
        if let Some(number) = resident.on.get_mut(&node) {
            number.all -= 1;
            number.going -= u32::from(going);
            if number.all == 0 {
                resident.on.remove(&node);
            }
        }
        if !resident.on.is_empty() {
            return resident.picks.clone();
        }
        self.index.remove_kin(kin.id, kin);
        if let Some(kins) = self.namespaces.get_mut(&kin.namespace) {
            *kins -= 1;
            if *kins == 0 {
                self.namespaces.remove(&kin.namespace);
            }
        }
        self.all.remove(&kin.id).map(|gone| gone.picks).unwrap_or_default()
    }

    /// Each kin that all these selectors pick.
    pub fn each_picked(
        &mut self,
        pods: &[Arc<PodSelector>],
        namespaces: &Namespaces,
        mut picked: impl FnMut(&mut Resident),
    ) {
        let Some(first) = pods.first() else { return };
        for id in self.candidates(first, namespaces) {
            let Some(resident) = self.all.get_mut(&id) else {
                continue;
            };
            if pods.iter().all(|pods| pods.picks(&resident.kin, namespaces)) {
                picked(resident);
            }
        }
    }

    /// Each kin that this selector picks.
    pub fn picked<'r>(
        &'r self,
        pods: &'r PodSelector,
        namespaces: &'r Namespaces,
    ) -> impl Iterator<Item = &'r Resident> {
        let all = self.candidates(pods, namespaces).into_iter();
        let all = all.filter_map(|id| self.all.get(&id));
        all.filter(|resident| pods.picks(&resident.kin, namespaces))
    }

    /// Kins of which it may pick some: those that its rarest equality leaves. Without any, all of its namespaces, so that a decision
    /// looks at most once at each kin for each of its pod's terms (upstream: at each pod).
    fn candidates(&self, pods: &PodSelector, namespaces: &Namespaces) -> Vec<KinId> {
        let mut names: Vec<&str> = match pods.picks_everywhere() {
            true => self.namespaces.keys().map(|name| &**name).collect(),
            false => {
                let named = pods.namespaces.iter().map(|name| &**name);
                named.chain(namespaces.picked(&pods.of_namespaces)).collect()
            }
        };
        names.sort_unstable();
        names.dedup();
        let mut found = Vec::new();
        self.index.kins(names.into_iter(), &pods.labels, |id| found.push(id));
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::super::{Kins, Labels, Selector};
    use super::*;

    #[test]
    fn kins_are_found_by_labels_in_all_namespaces_too() {
        let (mut kins, mut residents) = (Kins::default(), Residents::default());
        let all: Vec<Arc<Kin>> = (0..300)
            .map(|n| {
                let labels = Labels::from([("app".to_owned(), (n % 100).to_string())]);
                kins.of(&format!("namespace-{}", n % 3), labels)
            })
            .collect();
        for kin in &all {
            residents.add(kin, 0, false);
        }
        let selector = |value: Value| Selector::new(serde_json::from_value::<Option<_>>(value).unwrap().as_ref());
        for (names, of, labels, expected) in [
            (&[][..], json!({}), json!({"matchLabels": {"app": "7"}}), 3),
            (&[], json!({}), json!({}), 300),
            (&["namespace-1"], Value::Null, json!({"matchLabels": {"app": "7"}}), 1),
            (&["namespace-1", "namespace-9"], Value::Null, json!({}), 100),
        ] {
            let pods = PodSelector {
                namespaces: names.iter().map(|name: &&str| (*name).into()).collect(),
                of_namespaces: selector(of),
                labels: selector(labels),
            };
            assert_eq!(
                residents.candidates(&pods, &Namespaces::default()).len(),
                expected,
                "{pods:?}"
            );
        }
        for kin in &all {
            residents.remove(kin, 0, false);
        }
        assert!(residents.is_empty());
    }
}
