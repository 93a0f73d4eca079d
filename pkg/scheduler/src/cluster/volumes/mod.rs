//! The cluster's storage, as far as it has a part in where pods may run: claims, volumes, their classes, and what drivers say.

mod attached;
mod bindings;
mod claim;
mod class;
mod csi;
pub mod migrated;
mod places;
mod shelf;
#[cfg(test)]
mod tests;
mod volume;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use mk8s_client::Raw;
use smallvec::SmallVec;

pub use attached::{Attachable, Attached, DriverId, Load, Uses};
pub use bindings::{Decided, Ended, Part};
pub use claim::Claim;
pub use class::Class;
pub use csi::{Attachment, Capacity, CsiNode};
pub use places::{Pinned, Places};
pub use shelf::Shelf;
pub use volume::{ClaimRef, Source, Volume};

use self::attached::Limited;
use self::bindings::Bindings;
use super::NodeId;
use crate::pod_volumes::PodVolumes;

/// By the name of one thing the names of others.
type Names<T> = HashMap<Box<str>, SmallVec<[T; 1]>>;

/// That a pod on a node uses a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Use {
    node: NodeId,
    ephemeral: bool,
}

/// See the module. Keys are `namespace/name` where there are namespaces.
#[derive(Debug, Default)]
pub struct Volumes {
    claims: HashMap<Box<str>, Claim>,
    volumes: HashMap<Arc<str>, Arc<Volume>>,
    classes: HashMap<Box<str>, Class>,
    csi_nodes: HashMap<Box<str>, Arc<CsiNode>>,
    /// The drivers whose room is to be looked at.
    tracked: HashSet<Box<str>>,
    capacities: HashMap<Box<str>, Arc<Capacity>>,
    /// The same by class.
    room: HashMap<Box<str>, Pinned<Arc<Capacity>>>,
    /// By node and name.
    attachments: HashMap<Box<str>, BTreeMap<Box<str>, Attachment>>,
    /// The nodes that a volume is attached to.
    attached_to: Names<Box<str>>,
    /// Volumes that anybody may have, by class.
    shelves: HashMap<Box<str>, Shelf>,
    /// Volumes by the claim that they are for.
    volumes_for: Names<Arc<str>>,
    /// Claims by the volume that they name.
    claims_of: Names<Box<str>>,
    /// The uses of claims by pods on nodes.
    users: Names<Use>,
    /// Nodes whose [`Attached`] is not up to date, and nodes by name of which the same is true.
    stale: HashSet<NodeId>,
    stale_names: HashSet<Box<str>>,
    /// By which labels nodes reach volumes and room.
    pub places: Places,
    limited: Limited,
    bindings: Bindings,
}

/// `namespace/name`, or `name` of what has no namespace.
pub fn key(object: &Raw) -> Box<str> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    match object.metadata.namespace.as_deref().unwrap_or_default() {
        "" => name.into(),
        namespace => format!("{namespace}/{name}").into(),
    }
}

fn drop_name<T: PartialEq>(names: &mut Names<T>, key: &str, name: &T) {
    if let Some(all) = names.get_mut(key) {
        if let Some(at) = all.iter().position(|own| own == name) {
            all.swap_remove(at);
        }
        if all.is_empty() {
            names.remove(key);
        }
    }
}

impl Volumes {
    pub fn claim(&self, key: &str) -> Option<&Claim> {
        self.claims.get(key)
    }

    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.get(name).map(|volume| &**volume)
    }

    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.get(name)
    }

    /// The drivers of a node.
    pub fn csi_node(&self, node: &str) -> Option<&Arc<CsiNode>> {
        self.csi_nodes.get(node)
    }

    /// The volumes of a class that anybody may have.
    pub fn shelf(&self, class: &str) -> Option<&Shelf> {
        self.shelves.get(class)
    }

    /// The volume that waits for a claim and does for it: of several the first by name.
    pub fn waiting_volume(&self, key: &str, claim: &Claim) -> Option<&Volume> {
        let named = self.volumes_for.get(key)?.iter().filter_map(|name| self.volume(name));
        let fitting =
            named.filter(|own| own.is_for(key, claim) && own.class == claim.class && claim.want.takes_own(own));
        fitting.min_by(|one, other| one.name.cmp(&other.name))
    }

    /// Whether the room for a class's volumes is to be looked at.
    pub fn tracks_room(&self, class: &Class) -> bool {
        self.tracked.contains(&class.provisioner)
    }

    /// The room that there is for volumes of a class.
    pub fn room(&self, class: &str) -> Option<&Pinned<Arc<Capacity>>> {
        self.room.get(class)
    }

    /// How many uses of a claim there are by pods on nodes that name it.
    pub fn direct_uses(&self, claim: &str) -> usize {
        let uses = self.users.get(claim).into_iter().flatten();
        uses.filter(|own| !own.ephemeral).count()
    }

    /// A claim came or changed; what it was.
    pub(super) fn set_claim(&mut self, raw: &Raw) -> Option<Claim> {
        let (key, claim) = (key(raw), Claim::new(raw));
        if !claim.volume.is_empty() {
            self.claims_of
                .entry(claim.volume.clone())
                .or_default()
                .push(key.clone());
        }
        let elsewhere = |before: &Claim| before.volume != claim.volume || before.class != claim.class;
        let changed = self.claims.get(&key).is_none_or(elsewhere);
        let before = self.claims.insert(key.clone(), claim);
        self.claim_was(&key, before.as_ref(), changed);
        before
    }

    /// A claim went.
    pub(super) fn remove_claim(&mut self, key: &str) {
        let before = self.claims.remove(key);
        self.claim_was(key, before.as_ref(), true);
    }

    fn claim_was(&mut self, key: &str, before: Option<&Claim>, changed: bool) {
        if let Some(before) = before.filter(|before| !before.volume.is_empty()) {
            drop_name(&mut self.claims_of, &before.volume, &key.into());
        }
        if changed {
            self.stale_users(key);
        }
    }

    fn stale_users(&mut self, claim: &str) {
        let users = self.users.get(claim).into_iter().flatten();
        self.stale.extend(users.map(|own| own.node));
    }

    /// A volume came or changed; what it was.
    pub(super) fn set_volume(&mut self, raw: &Raw) -> Option<Arc<Volume>> {
        let volume = Arc::new(Volume::new(raw));
        let name = volume.name.clone();
        let known = self.volumes.get(&name);
        let changed = known.is_none_or(|before| before.source != volume.source);
        let before = self.take_volume(&name);
        self.put_volume(volume);
        if changed {
            self.stale_around(&name);
        }
        before
    }

    /// A volume went; what it was.
    pub(super) fn remove_volume(&mut self, name: &str) -> Option<Arc<Volume>> {
        let before = self.take_volume(name);
        self.stale_around(name);
        before
    }

    fn stale_around(&mut self, volume: &str) {
        let claims = self.claims_of.get(volume).cloned().unwrap_or_default();
        claims.iter().for_each(|claim| self.stale_users(claim));
        let nodes = self.attached_to.get(volume).into_iter().flatten();
        self.stale_names.extend(nodes.cloned());
    }

    fn take_volume(&mut self, name: &str) -> Option<Arc<Volume>> {
        let volume = self.volumes.remove(name)?;
        if let Some(claim) = volume.claim() {
            drop_name(&mut self.volumes_for, &claim.key, &volume.name);
        }
        if let Some(shelf) = self.shelves.get_mut(&volume.class) {
            shelf.take(&volume, &mut self.places);
            if shelf.is_empty() {
                self.shelves.remove(&volume.class);
            }
        }
        Some(volume)
    }

    fn put_volume(&mut self, volume: Arc<Volume>) {
        if let Some(claim) = volume.claim() {
            let all = self.volumes_for.entry(claim.key.clone()).or_default();
            all.push(volume.name.clone());
        }
        if volume.is_free() {
            let shelf = self.shelves.entry(volume.class.clone()).or_default();
            shelf.put(&volume, &mut self.places);
        }
        self.volumes.insert(volume.name.clone(), volume);
    }

    /// Changes a volume and where it is found.
    fn change_volume(&mut self, name: &str, change: impl FnOnce(&mut Volume)) {
        let Some(mut volume) = self.take_volume(name) else {
            return;
        };
        change(Arc::make_mut(&mut volume));
        self.put_volume(volume);
    }

    /// A class came or changed; what it was.
    pub(super) fn set_class(&mut self, raw: &Raw) -> Option<Class> {
        let (name, class) = (key(raw), Class::new(raw));
        let before = self.classes.insert(name, class);
        self.stale_all();
        before
    }

    /// A class went.
    pub(super) fn remove_class(&mut self, name: &str) {
        self.classes.remove(name);
        self.stale_all();
    }

    fn stale_all(&mut self) {
        self.stale.extend(self.users.values().flatten().map(|own| own.node));
    }

    pub(super) fn set_csi_node(&mut self, node: &str, csi: Option<Arc<CsiNode>>) {
        match csi {
            Some(csi) => self.csi_nodes.insert(node.into(), csi),
            None => self.csi_nodes.remove(node),
        };
        self.stale_names.insert(node.into());
    }

    /// A driver came or changed: whether its room was looked at, and whether it is.
    pub fn set_driver(&mut self, driver: &Raw) -> (bool, bool) {
        let name = key(driver);
        let now = csi::tracks_capacity(driver);
        let before = match now {
            true => !self.tracked.insert(name),
            false => self.tracked.remove(&name),
        };
        (before, now)
    }

    /// A driver went.
    pub fn remove_driver(&mut self, name: &str) {
        self.tracked.remove(name);
    }

    /// There is other room than before; what it was.
    pub fn set_capacity(&mut self, raw: &Raw) -> Option<Arc<Capacity>> {
        let key = key(raw);
        let before = self.remove_capacity(&key);
        let mut capacity = Capacity::new(raw);
        capacity.pin = capacity.node_pin().map(|pin| self.places.pin(&pin));
        let capacity = Arc::new(capacity);
        let room = self.room.entry(capacity.class.clone()).or_default();
        room.add(capacity.pin.as_ref(), &capacity);
        self.capacities.insert(key, capacity);
        before
    }

    /// Room that is not told of any more.
    pub fn remove_capacity(&mut self, key: &str) -> Option<Arc<Capacity>> {
        let capacity = self.capacities.remove(key)?;
        if let Some(room) = self.room.get_mut(&capacity.class) {
            room.remove(capacity.pin.as_ref(), &capacity);
            if room.is_empty() {
                self.room.remove(&capacity.class);
            }
        }
        if let Some(pin) = &capacity.pin {
            self.places.unpin(pin);
        }
        Some(capacity)
    }

    /// The room of this name.
    pub fn capacity(&self, key: &str) -> Option<&Capacity> {
        self.capacities.get(key).map(|capacity| &**capacity)
    }

    /// A volume is attached, or to be.
    pub fn set_attachment(&mut self, raw: &Raw) {
        let Some(attachment) = Attachment::new(raw) else { return };
        let all = self.attachments.entry(attachment.node.clone()).or_default();
        self.stale_names.insert(attachment.node.clone());
        let (node, volume) = (attachment.node.clone(), attachment.volume.clone());
        // What it is about never changes.
        if all.insert(key(raw), attachment).is_none() {
            self.attached_to.entry(volume).or_default().push(node);
        }
    }

    /// An attachment went: whose it was.
    pub fn remove_attachment(&mut self, raw: &Raw) -> Option<Box<str>> {
        let attachment = Attachment::new(raw)?;
        let all = self.attachments.get_mut(&attachment.node)?;
        if all.remove(&key(raw)).is_some() {
            drop_name(&mut self.attached_to, &attachment.volume, &attachment.node);
        }
        if all.is_empty() {
            self.attachments.remove(&attachment.node);
        }
        self.stale_names.insert(attachment.node);
        Some(attachment.driver)
    }

    /// A node of which nothing was known is there, or a pod of it.
    pub(super) fn node_appeared(&mut self, node: NodeId) {
        self.stale.insert(node);
    }

    /// A pod that mounts these came to a node.
    pub(super) fn came(&mut self, pod: &PodVolumes, node: NodeId) {
        for own in &pod.claims {
            let ephemeral = own.ephemeral;
            self.users
                .entry(own.key.clone())
                .or_default()
                .push(Use { node, ephemeral });
        }
        self.stale.insert(node);
    }

    /// It went from there.
    pub(super) fn left(&mut self, pod: &PodVolumes, node: NodeId) {
        for own in &pod.claims {
            let ephemeral = own.ephemeral;
            drop_name(&mut self.users, &own.key, &Use { node, ephemeral });
        }
        self.stale.insert(node);
    }

    /// The nodes whose [`Attached`] is not up to date, by id and by name.
    pub(super) fn take_stale(&mut self) -> (HashSet<NodeId>, HashSet<Box<str>>) {
        (std::mem::take(&mut self.stale), std::mem::take(&mut self.stale_names))
    }
}
