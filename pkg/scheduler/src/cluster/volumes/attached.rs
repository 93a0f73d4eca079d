//! Which volumes of drivers are at a node: those that its pods use, and those that are attached beside. Worked out anew for a node where
//! something of it changed, when the next decision asks.

use std::collections::{HashMap, HashSet};

use smallvec::SmallVec;

use super::Volumes;
use super::claim::Claim;
use super::csi::CsiNode;
use super::migrated::{self, Migrated};
use super::volume::{Source, Volume};
use crate::cluster::NodeInfo;
use crate::pod_volumes::PodVolumes;

/// What one volume is told from others by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Handle<'a> {
    /// As its driver calls it.
    Known(&'a str),
    /// It is still to be made, for this claim.
    Of(&'a str),
}

/// A volume of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachable<'a> {
    pub driver: &'a str,
    pub handle: Handle<'a>,
    /// It counts where the driver does this plugin's work.
    pub plugin: Option<&'static str>,
}

impl<'a> Attachable<'a> {
    /// Of a disk that a pod names.
    pub fn of_disk(disk: &'a Migrated) -> Self {
        Attachable {
            driver: disk.driver(),
            handle: Handle::Known(&disk.handle),
            plugin: Some(disk.plugin),
        }
    }

    fn of_volume(volume: &'a Volume) -> Option<Self> {
        match &volume.source {
            Source::Csi { driver, handle } => Some(Attachable {
                driver,
                handle: Handle::Known(handle),
                plugin: None,
            }),
            Source::Migrated(disk) => Some(Attachable::of_disk(disk)),
            Source::Other => None,
        }
    }

    /// Whether it counts on a node.
    pub fn counts(&self, node: Option<&CsiNode>) -> bool {
        self.plugin.is_none_or(|plugin| migrated::counts(plugin, node))
    }

    fn key(&self) -> (&'a str, Handle<'a>) {
        (self.driver, self.handle)
    }
}

/// A driver that takes only so many volumes on some node, by number.
pub type DriverId = u32;

/// The numbers of such drivers. There are few in a cluster, and they stay.
#[derive(Debug, Default)]
pub struct Limited(HashMap<Box<str>, DriverId>);

/// How many volumes of a driver are at a node, of how many that it takes.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub driver: DriverId,
    pub count: i64,
    pub limit: i64,
}

/// Driver, whether it is still to be made, handle or claim.
type Used = (Box<str>, bool, Box<str>);

/// The volumes at a node.
#[derive(Debug, Default)]
pub struct Attached {
    /// Those that pods use, sorted.
    used: Box<[Used]>,
    /// How many of each driver, used or not.
    counts: SmallVec<[(Box<str>, i64); 1]>,
}

impl Attached {
    /// Whether a pod on the node uses it.
    pub fn uses(&self, volume: &Attachable<'_>) -> bool {
        let (to_make, name) = match volume.handle {
            Handle::Known(handle) => (false, handle),
            Handle::Of(claim) => (true, claim),
        };
        let key = (volume.driver, to_make, name);
        let found = self
            .used
            .binary_search_by(|(driver, to_make, name)| (&**driver, *to_make, &**name).cmp(&key));
        found.is_ok()
    }

    /// How many volumes of a driver are there.
    pub fn count(&self, driver: &str) -> i64 {
        let own = self.counts.iter().find(|(name, _)| **name == *driver);
        own.map_or(0, |(_, count)| *count)
    }

    fn count_one(&mut self, driver: &str) {
        match self.counts.iter_mut().find(|(name, _)| **name == *driver) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((driver.into(), 1)),
        }
    }
}

/// The same while pods come and go: who comes or goes is counted alone.
#[derive(Debug, Default)]
pub struct Uses {
    /// By how many pods each is used.
    users: HashMap<Used, usize>,
    /// Those that are attached, used or not.
    beside: HashSet<Used>,
    counts: HashMap<Box<str>, i64>,
}

impl Uses {
    /// See [`Attached::uses`].
    pub fn uses(&self, volume: &Attachable<'_>) -> bool {
        self.users.get(&owned(volume)).is_some_and(|users| *users > 0)
    }

    /// See [`Attached::count`].
    pub fn count(&self, driver: &str) -> i64 {
        self.counts.get(driver).copied().unwrap_or(0)
    }

    fn change(&mut self, volume: &Attachable<'_>, comes: bool) {
        let key = owned(volume);
        let users = self.users.entry(key.clone()).or_default();
        let before = *users;
        *users = if comes { before + 1 } else { before.saturating_sub(1) };
        if (before == 0) != (*users == 0) && !self.beside.contains(&key) {
            *self.counts.entry(key.0).or_default() += if comes { 1 } else { -1 };
        }
    }
}

impl Volumes {
    /// The volumes at a node, to be changed.
    pub fn uses(&self, node: &NodeInfo) -> Uses {
        let mut uses = Uses::default();
        for own in self.attachments_on(&node.name) {
            if uses.beside.insert(owned(&own)) {
                *uses.counts.entry(own.driver.into()).or_default() += 1;
            }
        }
        for pod in node.pods.iter().filter_map(|pod| pod.volumes.as_deref()) {
            self.change_uses(&mut uses, pod, node.csi.as_deref(), true);
        }
        uses
    }

    /// A pod that mounts these came or went.
    pub fn change_uses(&self, uses: &mut Uses, pod: &PodVolumes, csi: Option<&CsiNode>, comes: bool) {
        let counted = self.counted_of(pod).into_iter().filter(|own| own.counts(csi));
        counted.for_each(|own| uses.change(&own, comes));
    }

    /// The number of a driver that takes only so many volumes on some node.
    pub fn limited(&self, driver: &str) -> Option<DriverId> {
        self.limited.0.get(driver).copied()
    }

    /// How full a node is, of those drivers that limit it.
    pub(in crate::cluster) fn loads(&mut self, csi: Option<&CsiNode>, attached: &Attached) -> SmallVec<[Load; 1]> {
        let limits = csi.into_iter().flat_map(CsiNode::limits);
        let loads = limits.map(|(driver, limit)| {
            let known = &mut self.limited.0;
            let next = DriverId::try_from(known.len()).unwrap_or(DriverId::MAX);
            let id = known.get(driver).copied();
            Load {
                driver: id.unwrap_or_else(|| *known.entry(driver.into()).or_insert(next)),
                count: attached.count(driver),
                limit,
            }
        });
        loads.collect()
    }

    /// The volume behind a claim, as far as a driver has or will have it.
    pub fn counted<'a>(&'a self, key: &'a str, claim: &'a Claim) -> Option<Attachable<'a>> {
        if let Some(volume) = self.volume(&claim.volume) {
            return Attachable::of_volume(volume).filter(|own| !own.driver.is_empty());
        }
        let provisioner = &*self.class(&claim.class)?.provisioner;
        let driver = mk8s_client::storage::migrated_to(provisioner).unwrap_or(provisioner);
        // Plugins whose disks never count as the driver's count as nobody's.
        let plugin = migrated::plugin(provisioner);
        if driver.is_empty() || (driver != provisioner && plugin.is_none()) {
            return None;
        }
        Some(Attachable {
            driver,
            handle: Handle::Of(key),
            plugin,
        })
    }

    /// What a pod has a node attach; each once. Claims that are missing are left out.
    pub fn counted_of<'a>(&'a self, pod: &'a PodVolumes) -> SmallVec<[Attachable<'a>; 4]> {
        let claims = pod
            .claims
            .iter()
            .filter_map(|own| self.counted(&own.key, self.claim(&own.key)?));
        let mut all: SmallVec<[Attachable<'a>; 4]> =
            claims.chain(pod.migrated.iter().map(Attachable::of_disk)).collect();
        all.sort_unstable();
        all.dedup_by_key(|own| own.key());
        all
    }

    /// The volumes at a node, by the pods that it has and by what is attached.
    pub fn attached(&self, node: &NodeInfo) -> Attached {
        let csi = node.csi.as_deref();
        let pods = node.pods.iter().filter_map(|pod| pod.volumes.as_deref());
        let mut used: Vec<Attachable<'_>> = pods.flat_map(|pod| self.counted_of(pod)).collect();
        used.retain(|own| own.counts(csi));
        used.sort_unstable();
        used.dedup_by_key(|own| own.key());
        let mut all = Attached {
            used: used.iter().map(owned).collect(),
            counts: SmallVec::new(),
        };
        used.iter().for_each(|own| all.count_one(own.driver));
        let mut beside: Vec<Attachable<'_>> = self.attachments_on(&node.name).collect();
        beside.sort_unstable();
        beside.dedup_by_key(|own| own.key());
        beside.retain(|own| !all.uses(own));
        beside.iter().for_each(|own| all.count_one(own.driver));
        all
    }

    fn attachments_on<'a>(&'a self, node: &str) -> impl Iterator<Item = Attachable<'a>> {
        let own = self.attachments.get(node).into_iter().flat_map(|own| own.values());
        own.filter_map(|attachment| match &self.volume(&attachment.volume)?.source {
            Source::Csi { handle, .. } => Some(Attachable {
                driver: &attachment.driver,
                handle: Handle::Known(handle),
                plugin: None,
            }),
            _ => None,
        })
    }
}

fn owned(volume: &Attachable<'_>) -> Used {
    let (to_make, name) = match volume.handle {
        Handle::Known(handle) => (false, handle),
        Handle::Of(claim) => (true, claim),
    };
    (volume.driver.into(), to_make, name.into())
}
