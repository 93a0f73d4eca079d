//! How many pods that some rule is about are on each node and in each domain. A rule is looked up when a decision asks for it first, and
//! kept up to date from then on as pods come and go: each kin of pods knows which picks count it.

use std::collections::HashMap;
use std::sync::Arc;

use nohash_hasher::IntMap;
use smallvec::SmallVec;

use super::index::{Index, Places};
use super::kin::Kin;
use super::namespaces::Namespaces;
use super::node::NodeId;
use super::residents::{Number, Residents};
use super::rosters::{RosterId, Rosters};
use super::selector::PodSelector;
use super::slots::{Limit, Slots};
use super::tally::{Tally, add};
use super::topology::Topology;

/// The number of a pick.
pub type PickId = u32;

/// So much is kept that nobody asked for lately.
const KEPT: Limit = Limit {
    number: 512,
    size: 16 << 20,
};

/// Pods that all of some selectors pick, by node.
#[derive(Debug)]
pub struct Pick {
    pods: Box<[Arc<PodSelector>]>,
    /// Those that are going don't count.
    live: bool,
    pub on: IntMap<NodeId, i64>,
    tallies: IntMap<RosterId, Tally>,
    places: Places,
    asked: u64,
    /// About how many bytes it takes without what it counts.
    bare: usize,
    /// How many numbers it has, by node and in all tallies.
    numbers: usize,
}

/// About how many bytes a number takes in its table, and a tally without numbers.
const NUMBER: usize = 24;
const TALLY: usize = 96;

impl Pick {
    fn number(&self, number: Number) -> i64 {
        i64::from(number.all - if self.live { number.going } else { 0 })
    }

    fn size(&self) -> usize {
        self.bare + NUMBER * self.numbers + TALLY * self.tallies.len()
    }

    fn add(&mut self, node: NodeId, by: i64, rosters: &Rosters, topology: &Topology) {
        self.numbers -= self.on.len();
        add(&mut self.on, node, by);
        self.numbers += self.on.len();
        for (id, tally) in &mut self.tallies {
            if let Some(domain) = rosters.domain(*id, node, topology) {
                self.numbers -= tally.sums.len();
                tally.add(domain, by);
                self.numbers += tally.sums.len();
            }
        }
    }

    /// The pods by the domains of a roster.
    pub fn tally(&self, roster: RosterId) -> Option<&Tally> {
        self.tallies.get(&roster)
    }

    /// Has them counted by the domains of a roster.
    pub fn count(&mut self, id: RosterId, rosters: &Rosters, topology: &Topology) {
        if self.tally(id).is_some() {
            return;
        }
        let mut tally = Tally::default();
        for (node, pods) in self.on.iter().filter(|_| !rosters.is_empty(id)) {
            if let Some(domain) = rosters.domain(id, *node, topology) {
                tally.add(domain, *pods);
            }
        }
        self.numbers += tally.sums.len();
        self.tallies.insert(id, tally);
    }
}

/// All picks.
#[derive(Debug, Default)]
pub struct Picks {
    all: Slots<Pick>,
    /// Those that count every pod, and those that leave out the ones that are going.
    ids: [HashMap<Box<[Arc<PodSelector>]>, PickId>; 2],
    index: Index,
}

impl Picks {
    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Each knows how many numbers it has.
    #[cfg(test)]
    pub fn are_measured(&self) -> bool {
        self.all.iter().all(|(_, pick)| {
            let tallies = pick.tallies.values().map(|tally| tally.sums.len());
            pick.numbers == pick.on.len() + tallies.sum::<usize>()
        })
    }

    /// The pick of these selectors, if there is one.
    pub fn find(&self, pods: &[Arc<PodSelector>], live: bool) -> Option<&Pick> {
        self.all.get(*self.ids[usize::from(live)].get(pods)?)
    }

    /// The pick of these selectors.
    pub fn ask(
        &mut self,
        pods: &[Arc<PodSelector>],
        live: bool,
        residents: &mut Residents,
        namespaces: &Namespaces,
        now: u64,
    ) -> Option<&mut Pick> {
        let known = self.ids[usize::from(live)].get(pods).copied();
        let id = known.unwrap_or_else(|| self.insert(pods, live, residents, namespaces));
        let pick = self.all.get_mut(id)?;
        pick.asked = now;
        Some(pick)
    }

    fn insert(
        &mut self,
        pods: &[Arc<PodSelector>],
        live: bool,
        residents: &mut Residents,
        namespaces: &Namespaces,
    ) -> PickId {
        let id = self.all.insert(Pick {
            pods: pods.into(),
            live,
            on: IntMap::default(),
            tallies: IntMap::default(),
            places: Places::new(),
            asked: 0,
            bare: 256 + pods.iter().map(|pods| 32 + pods.size()).sum::<usize>(),
            numbers: 0,
        });
        if let (Some(pick), Some(first)) = (self.all.get_mut(id), pods.first()) {
            pick.places = self.index.insert_selector(id, first);
            residents.each_picked(pods, namespaces, |resident| {
                resident.picks.push(id);
                for (node, number) in &resident.on {
                    let number = pick.number(*number);
                    if number != 0 {
                        add(&mut pick.on, *node, number);
                    }
                }
            });
            pick.numbers = pick.on.len();
        }
        self.ids[usize::from(live)].insert(pods.into(), id);
        id
    }

    /// A pod of a kin that is new on all nodes: the picks that count it.
    pub fn of(&self, kin: &Kin, namespaces: &Namespaces) -> SmallVec<[PickId; 2]> {
        let mut found = SmallVec::new();
        self.index.selectors(kin, |id| {
            let pick = self.all.get(id);
            if pick.is_some_and(|pick| pick.pods.iter().all(|pods| pods.picks(kin, namespaces))) {
                found.push(id);
            }
        });
        found
    }

    /// Pods that these picks count came to a node or went from it.
    pub fn add(
        &mut self,
        picks: &[PickId],
        node: NodeId,
        going: bool,
        by: i64,
        rosters: &Rosters,
        topology: &Topology,
    ) {
        for id in picks {
            if let Some(pick) = self.all.get_mut(*id).filter(|pick| !(pick.live && going)) {
                pick.add(node, by, rosters, topology);
            }
        }
    }

    /// Forgets those that were not asked for longest, where there are too many.
    pub fn sweep(&mut self, residents: &mut Residents, namespaces: &Namespaces) {
        let old = self.all.oldest(KEPT, |pick| (pick.asked, pick.size()));
        old.into_iter().for_each(|id| self.forget(id, residents, namespaces));
    }

    fn forget(&mut self, id: PickId, residents: &mut Residents, namespaces: &Namespaces) {
        let Some(pick) = self.all.remove(id) else { return };
        self.ids[usize::from(pick.live)].remove(&pick.pods);
        self.index.remove_selector(id, &pick.places);
        residents.each_picked(&pick.pods, namespaces, |resident| {
            resident.picks.retain(|own| *own != id)
        });
    }

    /// Those rosters are no more.
    pub fn forget_rosters(&mut self, gone: &[RosterId]) {
        for pick in self.all.values_mut() {
            for roster in gone {
                let tally = pick.tallies.remove(roster);
                pick.numbers -= tally.map_or(0, |tally| tally.sums.len());
            }
        }
    }

    /// Before the labels of namespaces change: forgets what goes by them.
    pub fn forget_by_namespaces(&mut self, residents: &mut Residents, namespaces: &Namespaces) {
        let by_labels = |pick: &Pick| pick.pods.iter().any(|pods| pods.goes_by_labels_of_namespaces());
        let all = self.all.iter().filter(|(_, pick)| by_labels(pick));
        let all: Vec<PickId> = all.map(|(id, _)| id).collect();
        all.into_iter().for_each(|id| self.forget(id, residents, namespaces));
    }
}
