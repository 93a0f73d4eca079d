//! Which kins of pods are on which nodes, and how many of each.

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
}

impl Residents {
    /// Nothing is left in it.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.index.is_empty()
    }

    /// A pod is on a node. The kin if it is the first of it.
    pub fn add(&mut self, kin: &Arc<Kin>, node: NodeId, going: bool) -> (&mut Resident, bool) {
        let mut first = false;
        let resident = self.all.entry(kin.id).or_insert_with(|| {
            first = true;
            self.index.insert_kin(kin.id, kin);
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
        let mut look = |all: &mut IntMap<KinId, Resident>, id: KinId| {
            let Some(resident) = all.get_mut(&id) else { return };
            if pods.iter().all(|pods| pods.picks(&resident.kin, namespaces)) {
                picked(resident);
            }
        };
        if first.picks_everywhere() {
            let all: Vec<KinId> = self.all.keys().copied().collect();
            return all.into_iter().for_each(|id| look(&mut self.all, id));
        }
        let named = first.namespaces.iter().map(|name| &**name);
        let mut names: Vec<&str> = named.chain(namespaces.picked(&first.of_namespaces)).collect();
        names.sort_unstable();
        names.dedup();
        self.index
            .kins(names.into_iter(), &first.labels, |id| look(&mut self.all, id));
    }
}
