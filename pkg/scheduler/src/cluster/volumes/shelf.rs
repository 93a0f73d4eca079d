//! The volumes of a class that anybody may have: those that the same nodes reach are one group, and each group is sorted by size.

use std::collections::HashMap;
use std::sync::Arc;

use mk8s_client::NodeTerms;

use super::claim::Want;
use super::places::{Pin, Pinned, Places};
use super::volume::{Volume, holds};
use crate::cluster::NodeInfo;

/// See the module.
#[derive(Debug, Default)]
pub struct Shelf {
    groups: Vec<Group>,
    free: Vec<usize>,
    by_affinity: HashMap<Box<str>, usize>,
    reach: Pinned<usize>,
}

#[derive(Debug, Default)]
struct Group {
    affinity: Arc<NodeTerms>,
    /// Found by it; none: looked at from every node.
    pin: Option<Pin>,
    /// Every node by which it is found reaches it.
    whole: bool,
    /// By size, then by name.
    volumes: Vec<Arc<Volume>>,
}

impl Group {
    fn place_of(&self, volume: &Volume) -> Result<usize, usize> {
        let order = |own: &Arc<Volume>| (own.size, &own.name).cmp(&(volume.size, &volume.name));
        self.volumes.binary_search_by(order)
    }
}

impl Shelf {
    pub(super) fn put(&mut self, volume: &Arc<Volume>, places: &mut Places) {
        let at = match self.by_affinity.get(&volume.affinity_text) {
            Some(at) => *at,
            None => self.add_group(volume, places),
        };
        let group = &mut self.groups[at];
        match group.place_of(volume) {
            Ok(own) => group.volumes[own] = volume.clone(),
            Err(own) => group.volumes.insert(own, volume.clone()),
        }
    }

    fn add_group(&mut self, volume: &Volume, places: &mut Places) -> usize {
        let at = self.free.pop().unwrap_or_else(|| {
            self.groups.push(Group::default());
            self.groups.len() - 1
        });
        let affinity = volume.affinity.clone();
        let pin = affinity.pin();
        self.groups[at] = Group {
            whole: affinity.is_empty() || pin.as_ref().is_some_and(|pin| pin.whole),
            pin: pin.map(|pin| places.pin(&pin)),
            affinity: affinity.clone(),
            volumes: Vec::new(),
        };
        self.by_affinity.insert(volume.affinity_text.clone(), at);
        self.reach.add(self.groups[at].pin.as_ref(), &at);
        at
    }

    /// A volume as it was put there is to be had no more.
    pub(super) fn take(&mut self, volume: &Volume, places: &mut Places) {
        let Some(at) = self.by_affinity.get(&volume.affinity_text).copied() else {
            return;
        };
        let group = &mut self.groups[at];
        if let Ok(own) = group.place_of(volume) {
            group.volumes.remove(own);
        }
        if group.volumes.is_empty() {
            let group = std::mem::take(group);
            self.by_affinity.remove(&volume.affinity_text);
            self.reach.remove(group.pin.as_ref(), &at);
            if let Some(pin) = &group.pin {
                places.unpin(pin);
            }
            self.free.push(at);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_affinity.is_empty()
    }

    /// The smallest that a node reaches and that does, but for those that are taken already.
    pub fn smallest(&self, want: &Want, node: &NodeInfo, places: &Places, taken: &[&str]) -> Option<&Arc<Volume>> {
        let near = self.reach.near(node.id, places).map(|at| &self.groups[*at]);
        let near = near.filter(|group| group.whole || holds(&group.affinity, &node.facts.labels));
        let first = near.filter_map(|group| {
            let from = group.volumes.partition_point(|volume| volume.size < want.size);
            let mut large = group.volumes[from..].iter();
            large.find(|volume| want.takes(volume) && !taken.contains(&&*volume.name))
        });
        first.min_by(|one, other| (one.size, &one.name).cmp(&(other.size, &other.name)))
    }
}
