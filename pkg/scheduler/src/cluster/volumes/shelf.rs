//! The volumes of a class that anybody may have: those that the same nodes reach are one group, found by a label of the node, and each
//! group by size.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mk8s_client::NodeTerms;

use super::claim::Want;
use super::pinned::Pinned;
use super::volume::Volume;
use crate::cluster::Labels;

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
    volumes: BTreeMap<(i128, Arc<str>), Arc<Volume>>,
}

impl Shelf {
    pub(super) fn put(&mut self, volume: &Arc<Volume>) {
        let at = match self.by_affinity.get(&volume.affinity_text) {
            Some(at) => *at,
            None => self.add_group(volume),
        };
        let key = (volume.size, volume.name.clone());
        self.groups[at].volumes.insert(key, volume.clone());
    }

    fn add_group(&mut self, volume: &Volume) -> usize {
        let at = self.free.pop().unwrap_or_else(|| {
            self.groups.push(Group::default());
            self.groups.len() - 1
        });
        self.groups[at].affinity = volume.affinity.clone();
        self.by_affinity.insert(volume.affinity_text.clone(), at);
        self.reach.add(&volume.affinity.pin(), &at);
        at
    }

    /// A volume as it was put there is to be had no more.
    pub(super) fn take(&mut self, volume: &Volume) {
        let Some(at) = self.by_affinity.get(&volume.affinity_text).copied() else {
            return;
        };
        let volumes = &mut self.groups[at].volumes;
        volumes.remove(&(volume.size, volume.name.clone()));
        if volumes.is_empty() {
            self.by_affinity.remove(&volume.affinity_text);
            self.reach.remove(&volume.affinity.pin(), &at);
            self.free.push(at);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_affinity.is_empty()
    }

    /// The smallest that a node with these labels reaches and that does, but for those that are taken already.
    pub fn smallest(&self, want: &Want, labels: &Labels, taken: &[&str]) -> Option<&Arc<Volume>> {
        let near = self.reach.near(labels).map(|at| &self.groups[*at]);
        let near = near.filter(|group| group.affinity.is_empty() || group.affinity.matches("", labels));
        let does = |volume: &Arc<Volume>| want.takes(volume) && !taken.contains(&&*volume.name);
        let first = near.filter_map(|group| {
            let mut large = group.volumes.range(&want.from..);
            large.find(|(_, volume)| does(volume))
        });
        first.min_by_key(|(key, _)| *key).map(|(_, volume)| volume)
    }
}
