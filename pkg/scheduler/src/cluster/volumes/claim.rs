//! A PersistentVolumeClaim as decisions ask of it.

use mk8s_api::meta as object;
use mk8s_api::selectors::LabelSelector;
use mk8s_client::Raw;
use mk8s_client::storage::{
    BIND_COMPLETED, REQUEST, SELECTED_NODE, annotation, attributes_class, class, is_block, phase, size, volume_name,
};

use super::volume::{Modes, Volume};
use crate::cluster::Labels;

/// See the module.
#[derive(Debug)]
pub struct Claim {
    pub uid: Box<str>,
    pub revision: Box<str>,
    /// Empty: none.
    pub class: Box<str>,
    /// The volume that it names; empty: none.
    pub volume: Box<str>,
    /// Both sides of the binding are written.
    pub bound: bool,
    /// Its volume is gone.
    pub lost: bool,
    pub deleting: bool,
    /// One pod at a time has it.
    pub once: bool,
    /// The uid of its controller: of a volume that is made for a pod, the pod's.
    pub controller: Option<Box<str>>,
    /// The node that it is to have its volume for, as the API server has it.
    pub told_node: Option<Box<str>>,
    /// The same, as it was decided and is not written yet.
    pub(super) assumed_node: Option<Box<str>>,
    /// The size that it asks for, in bytes.
    pub size: Option<i64>,
    pub want: Want,
}

/// What a volume has to be for a claim.
#[derive(Debug)]
pub struct Want {
    /// At least so large, in billionths of a byte.
    pub size: i128,
    modes: Modes,
    block: bool,
    attributes: Box<str>,
    selector: LabelSelector,
}

impl Claim {
    pub(super) fn new(claim: &Raw) -> Self {
        let meta = &claim.metadata;
        let volume = volume_name(claim);
        let owners = meta.owner_references.iter().flatten();
        let controller = owners
            .filter(|owner| owner.controller == Some(true))
            .map(|owner| owner.uid.as_str().into())
            .next();
        let modes = Modes::of(claim);
        Claim {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            revision: meta.resource_version.as_deref().unwrap_or_default().into(),
            class: class(claim).unwrap_or_default().into(),
            volume: volume.into(),
            bound: !volume.is_empty() && annotation(claim, BIND_COMPLETED).is_some(),
            lost: phase(claim) == "Lost",
            deleting: meta.deletion_timestamp.is_some(),
            once: modes.has_once_pod(),
            controller,
            told_node: annotation(claim, SELECTED_NODE).map(Into::into),
            assumed_node: None,
            size: size(claim, &REQUEST).map(|size| size.value()),
            want: Want::of(claim, modes),
        }
    }

    /// The node that it is to have its volume for.
    pub fn node(&self) -> Option<&str> {
        self.assumed_node.as_deref().or(self.told_node.as_deref())
    }
}

impl Want {
    fn of(claim: &Raw, modes: Modes) -> Self {
        // One that does not read takes nothing; validation lets none through.
        let selector = match object::at(&claim.value, &["spec", "selector"]) {
            Some(selector) => LabelSelector::from_json(selector).unwrap_or_else(|_| LabelSelector::nothing()),
            None => LabelSelector::everything(),
        };
        Want {
            size: size(claim, &REQUEST).map_or(0, |size| size.nanos()),
            modes,
            block: is_block(claim),
            attributes: attributes_class(claim).into(),
            selector,
        }
    }

    /// Whether a volume that names the claim does for it.
    pub fn takes_own(&self, volume: &Volume) -> bool {
        volume.size >= self.size
            && volume.block == self.block
            && volume.attributes == self.attributes
            && !volume.deleting
    }

    /// Whether a volume that anybody may have does.
    pub fn takes(&self, volume: &Volume) -> bool {
        let labels: &Labels = &volume.labels;
        self.takes_own(volume)
            && volume.modes.contain(self.modes)
            && self.selector.matches(|key| labels.get(key).map(String::as_str))
    }
}
