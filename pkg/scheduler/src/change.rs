//! What happened in the cluster, as far as it may make a waiting pod schedulable. Each plugin says of a change whether it helps a pod
//! that it refused (upstream's queueing hints).

use k8s_openapi::api::resource::v1::ResourceClaim;

use crate::cluster::{Capacity, Claim, Class, CsiNode, Facts, NodeInfo, Volume};
use crate::pod::PodInfo;

/// The kinds of changes, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    NodeAdded = 1,
    NodeLabels = 2,
    NodeTaints = 4,
    NodeAllocatable = 8,
    /// A pod has its node, by whose hand it may be.
    PodPlaced = 16,
    /// A pod on a node ended or was deleted.
    PodGone = 32,
    /// A pod on a node has other labels, or asks for less.
    PodChanged = 64,
    ClaimAdded = 1 << 7,
    ClaimChanged = 1 << 8,
    VolumeAdded = 1 << 9,
    VolumeChanged = 1 << 10,
    ClassAdded = 1 << 11,
    ClassChanged = 1 << 12,
    CsiNodeAdded = 1 << 13,
    CsiNodeChanged = 1 << 14,
    /// A driver's room is looked at no more.
    RoomIgnored = 1 << 15,
    RoomAdded = 1 << 16,
    RoomChanged = 1 << 17,
    /// A volume is attached to a node no more.
    Detached = 1 << 18,
    NodeGone = 1 << 19,
    /// A claim of devices came, changed, or gave back what it had.
    DeviceClaim = 1 << 20,
    /// A class of devices came or changed.
    DeviceClass = 1 << 21,
    /// A driver publishes other devices.
    ResourceSlice = 1 << 22,
}

/// A change.
pub enum Change<'a> {
    /// A node came (`before` is none) or changed.
    Node {
        before: Option<&'a Facts>,
        node: &'a NodeInfo,
    },
    /// A node went that was so.
    NodeGone(&'a Facts),
    /// See [`Kind::PodPlaced`].
    PodPlaced(&'a PodInfo),
    /// See [`Kind::PodGone`].
    PodGone(&'a PodInfo),
    /// See [`Kind::PodChanged`].
    PodChanged { before: &'a PodInfo, now: &'a PodInfo },
    /// A claim came (`before` is none) or changed; `key` is `namespace/name`.
    Claim {
        key: &'a str,
        before: Option<&'a Claim>,
        now: &'a Claim,
    },
    /// A PersistentVolume came or changed.
    Volume {
        before: Option<&'a Volume>,
        now: &'a Volume,
    },
    /// A StorageClass came or changed.
    Class { before: Option<&'a Class>, now: &'a Class },
    /// A node's drivers came or changed.
    CsiNode {
        before: Option<&'a CsiNode>,
        now: &'a CsiNode,
    },
    /// See [`Kind::RoomIgnored`]: the driver's name.
    RoomIgnored(&'a str),
    /// Room for a driver's volumes came or changed.
    Room {
        before: Option<&'a Capacity>,
        now: &'a Capacity,
    },
    /// See [`Kind::Detached`]: the driver's name.
    Detached(&'a str),
    /// See [`Kind::DeviceClaim`]. One that is gone has nothing any more.
    DeviceClaim {
        before: Option<&'a ResourceClaim>,
        now: &'a ResourceClaim,
    },
    /// See [`Kind::DeviceClass`].
    DeviceClass,
    /// See [`Kind::ResourceSlice`].
    ResourceSlice,
}

impl Change<'_> {
    /// Bits of [`Kind`]: a node may change in several ways at once.
    pub fn kinds(&self) -> u32 {
        match self {
            Change::Node { before: None, .. } => Kind::NodeAdded as u32,
            Change::Node {
                before: Some(before),
                node,
            } => of_node(before, &node.facts),
            Change::NodeGone(_) => Kind::NodeGone as u32,
            Change::PodPlaced(_) => Kind::PodPlaced as u32,
            Change::PodGone(_) => Kind::PodGone as u32,
            Change::PodChanged { .. } => Kind::PodChanged as u32,
            Change::Claim { before, .. } => of(before, Kind::ClaimAdded, Kind::ClaimChanged),
            Change::Volume { before, .. } => of(before, Kind::VolumeAdded, Kind::VolumeChanged),
            Change::Class { before, .. } => of(before, Kind::ClassAdded, Kind::ClassChanged),
            Change::CsiNode { before, .. } => of(before, Kind::CsiNodeAdded, Kind::CsiNodeChanged),
            Change::RoomIgnored(_) => Kind::RoomIgnored as u32,
            Change::Room { before, .. } => of(before, Kind::RoomAdded, Kind::RoomChanged),
            Change::Detached(_) => Kind::Detached as u32,
            Change::DeviceClaim { .. } => Kind::DeviceClaim as u32,
            Change::DeviceClass => Kind::DeviceClass as u32,
            Change::ResourceSlice => Kind::ResourceSlice as u32,
        }
    }
}

fn of<T>(before: &Option<T>, added: Kind, changed: Kind) -> u32 {
    match before {
        None => added as u32,
        Some(_) => changed as u32,
    }
}

fn of_node(before: &Facts, now: &Facts) -> u32 {
    let mut kinds = 0;
    for (changed, kind) in [
        (before.labels != now.labels, Kind::NodeLabels),
        (
            before.taints != now.taints || before.unschedulable != now.unschedulable,
            Kind::NodeTaints,
        ),
        (before.allocatable != now.allocatable, Kind::NodeAllocatable),
    ] {
        if changed {
            kinds |= kind as u32;
        }
    }
    kinds
}
