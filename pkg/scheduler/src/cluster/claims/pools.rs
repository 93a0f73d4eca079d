//! The devices that drivers publish: slices, each a part of a pool, and which nodes reach them. A driver that changes a pool publishes
//! it anew, slice by slice, as its next generation; what is in between is not to be allocated.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::resource::v1::{Device as ApiDevice, ResourceSlice};
use mk8s_client::NodeTerms;
use smallvec::SmallVec;

use super::names::{self, DeviceId, Names};
use super::selectors::{Selectors, Slot};
use crate::cluster::NodeInfo;

/// All slices.
#[derive(Debug, Default)]
pub struct Pools {
    /// By id; one that is free has no slices.
    pools: Vec<Pool>,
    free: Vec<PoolId>,
    /// By driver and name.
    ids: HashMap<(Box<str>, Box<str>), PoolId>,
    /// The pools with slices of one node, by it.
    on_node: HashMap<Box<str>, SmallVec<[PoolId; 2]>>,
    /// The pools with slices of several nodes.
    shared: Vec<PoolId>,
    /// The pool of each slice, by its name.
    pool_of: HashMap<Box<str>, PoolId>,
}

/// A pool's place in the table.
type PoolId = u32;

#[derive(Debug, Default)]
struct Pool {
    driver: Box<str>,
    name: Box<str>,
    /// In the order of their names.
    slices: Vec<Slice>,
    /// Some generation has a device twice.
    repeats: bool,
}

/// A part of a pool.
#[derive(Debug)]
pub struct Slice {
    pub object: Arc<ResourceSlice>,
    place: Place,
    marks: Box<[Mark]>,
}

#[derive(Debug)]
enum Place {
    Node(Box<str>),
    Everywhere,
    Nodes(NodeTerms),
    /// As a feature has it that is off, or that nobody knows yet.
    Nowhere,
}

/// What most decisions ask of a device, beside each other.
#[derive(Debug, Clone, Copy)]
struct Mark {
    id: DeviceId,
    slot: Slot,
    selectable: bool,
    usable: bool,
}

/// A device in its slice.
#[derive(Debug, Clone, Copy)]
pub struct Device<'c> {
    pub id: DeviceId,
    pub slot: Slot,
    /// No conditions of it have to be waited for: that is a feature that is off.
    pub selectable: bool,
    /// It takes nothing from counters: so is that.
    pub usable: bool,
    pub slice: &'c Slice,
    pub object: &'c ApiDevice,
}

/// A pool as a node sees it.
#[derive(Debug)]
pub struct NodePool<'c> {
    pub driver: &'c str,
    pub name: &'c str,
    pub state: State,
    /// Those that the node reaches.
    pub slices: SmallVec<[&'c Slice; 2]>,
}

/// Whether a pool can be allocated from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Whole,
    /// Slices are missing.
    Incomplete,
    /// A device is there twice.
    Invalid,
}

impl Slice {
    fn new(object: &Arc<ResourceSlice>, names: &mut Names, selectors: &mut Selectors) -> Self {
        let spec = &object.spec;
        let mut mark = |device: &ApiDevice| Mark {
            id: names.hold(&names::name(&spec.driver, &spec.pool.name, &device.name)),
            slot: selectors.slot(),
            selectable: device.binding_conditions.as_ref().is_none_or(Vec::is_empty),
            usable: device.consumes_counters.as_ref().is_none_or(Vec::is_empty),
        };
        Slice {
            marks: spec.devices.iter().flatten().map(&mut mark).collect(),
            place: Place::of(object),
            object: object.clone(),
        }
    }

    fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    fn generation(&self) -> i64 {
        self.object.spec.pool.generation
    }

    fn is_on(&self, node: &NodeInfo) -> bool {
        match &self.place {
            Place::Node(name) => **name == *node.name,
            Place::Everywhere => true,
            Place::Nodes(terms) => node.is_one_of(terms),
            Place::Nowhere => false,
        }
    }

    /// A device by its place; none: there are no more.
    pub fn device(&self, at: usize) -> Option<Device<'_>> {
        let mark = self.marks.get(at)?;
        Some(Device {
            id: mark.id,
            slot: mark.slot,
            selectable: mark.selectable,
            usable: mark.usable,
            slice: self,
            object: self.object.spec.devices.as_ref()?.get(at)?,
        })
    }

    /// All of them, in the order in which the driver has them.
    pub fn devices(&self) -> impl Iterator<Item = Device<'_>> {
        (0..self.marks.len()).filter_map(|at| self.device(at))
    }
}

impl Place {
    fn of(slice: &ResourceSlice) -> Self {
        let spec = &slice.spec;
        let counters = spec.shared_counters.as_ref().is_some_and(|sets| !sets.is_empty());
        let node = spec.node_name.as_deref().filter(|name| !name.is_empty());
        match (node, &spec.node_selector) {
            _ if counters || spec.per_device_node_selection.is_some() => Place::Nowhere,
            (Some(name), _) => Place::Node(name.into()),
            (None, _) if spec.all_nodes == Some(true) => Place::Everywhere,
            (None, Some(selector)) => Place::Nodes(NodeTerms::of_selector(Some(selector))),
            (None, None) => Place::Nowhere,
        }
    }
}

impl Pool {
    fn repeats(&self) -> bool {
        let mut seen = HashSet::new();
        let mut devices = self
            .slices
            .iter()
            .flat_map(|slice| slice.marks.iter().map(|mark| (slice.generation(), mark.id)));
        !devices.all(|device| seen.insert(device))
    }

    fn has_slices_on(&self, node: &str) -> bool {
        let mut slices = self.slices.iter();
        slices.any(|slice| matches!(&slice.place, Place::Node(name) if **name == *node))
    }

    fn is_shared(&self) -> bool {
        let mut slices = self.slices.iter();
        slices.any(|slice| matches!(slice.place, Place::Everywhere | Place::Nodes(_)))
    }

    /// None: the node reaches nothing of it that counts.
    fn seen_from(&self, node: &NodeInfo) -> Option<NodePool<'_>> {
        let mut own: SmallVec<[&Slice; 2]> = self.slices.iter().filter(|slice| slice.is_on(node)).collect();
        let newest = own.iter().map(|slice| slice.generation()).max()?;
        own.retain(|slice| slice.generation() == newest);
        let wanted = own.first()?.object.spec.pool.resource_slice_count;
        let is_all = |found: usize| i64::try_from(found) == Ok(wanted);
        let state = if is_all(own.len()) {
            self.state_of(&own)
        } else {
            // The rest may be of other nodes, or newer ones may be on their way here.
            if self.slices.iter().any(|slice| slice.generation() > newest) {
                return None;
            }
            let same = self.slices.iter().filter(|slice| slice.generation() == newest);
            if is_all(same.count()) {
                self.state_of(&own)
            } else {
                State::Incomplete
            }
        };
        Some(NodePool {
            driver: &self.driver,
            name: &self.name,
            state,
            slices: own,
        })
    }

    fn state_of(&self, slices: &[&Slice]) -> State {
        let mut seen = HashSet::new();
        let mut ids = slices.iter().flat_map(|slice| &slice.marks).map(|mark| mark.id);
        match self.repeats && !ids.all(|id| seen.insert(id)) {
            true => State::Invalid,
            false => State::Whole,
        }
    }
}

impl Pools {
    /// A slice came or changed.
    pub fn set(&mut self, object: &Arc<ResourceSlice>, names: &mut Names, selectors: &mut Selectors) {
        let slice = Slice::new(object, names, selectors);
        // Its devices keep their numbers over this.
        self.remove(slice.name(), names, selectors);
        let id = self.id(&object.spec.driver, &object.spec.pool.name);
        match &slice.place {
            Place::Node(node) => {
                let own = self.on_node.entry(node.clone()).or_default();
                if !own.contains(&id) {
                    own.push(id);
                }
            }
            Place::Everywhere | Place::Nodes(_) if !self.shared.contains(&id) => self.shared.push(id),
            _ => {}
        }
        self.pool_of.insert(slice.name().into(), id);
        let pool = &mut self.pools[id as usize];
        let at = pool.slices.partition_point(|other| other.name() < slice.name());
        pool.slices.insert(at, slice);
        pool.repeats = pool.repeats();
    }

    fn id(&mut self, driver: &str, name: &str) -> PoolId {
        let key = (driver.into(), name.into());
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.pools.push(Pool::default());
            PoolId::try_from(self.pools.len() - 1).unwrap_or(PoolId::MAX)
        });
        self.pools[id as usize] = Pool {
            driver: driver.into(),
            name: name.into(),
            ..Pool::default()
        };
        self.ids.insert(key, id);
        id
    }

    /// A slice went.
    pub fn remove(&mut self, name: &str, names: &mut Names, selectors: &mut Selectors) {
        let Some(id) = self.pool_of.remove(name) else { return };
        let pool = &mut self.pools[id as usize];
        let Some(at) = pool.slices.iter().position(|slice| slice.name() == name) else {
            return;
        };
        let slice = pool.slices.remove(at);
        pool.repeats = pool.repeats();
        for mark in &slice.marks {
            names.drop(mark.id);
            selectors.forget(mark.slot);
        }
        if let Place::Node(node) = &slice.place
            && !pool.has_slices_on(node)
            && let Some(own) = self.on_node.get_mut(node)
        {
            own.retain(|other| *other != id);
            if own.is_empty() {
                self.on_node.remove(node);
            }
        }
        let pool = &mut self.pools[id as usize];
        if !pool.is_shared() {
            self.shared.retain(|other| *other != id);
        }
        if pool.slices.is_empty() {
            let Pool { driver, name, .. } = std::mem::take(pool);
            self.ids.remove(&(driver, name));
            self.free.push(id);
        }
    }

    /// The pools that a node reaches, whatever their state.
    pub fn of(&self, node: &NodeInfo) -> SmallVec<[NodePool<'_>; 4]> {
        let own = self
            .on_node
            .get(&*node.name)
            .map(SmallVec::as_slice)
            .unwrap_or_default();
        let shared = self.shared.iter().filter(|id| !own.contains(id));
        let all = own.iter().chain(shared);
        all.filter_map(|id| self.pools[*id as usize].seen_from(node)).collect()
    }
}
