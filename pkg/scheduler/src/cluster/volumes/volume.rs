//! A PersistentVolume as decisions ask of it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::NodeSelector;
use mk8s_api::meta as object;
use mk8s_client::storage::{CAPACITY, access_modes, attributes_class, class, is_block, phase, size};
use mk8s_client::{NodeTerms, Raw};
use serde_json::Value;

use super::claim::Claim;
use super::csi::CsiNode;
use super::migrated::{self, Migrated};
use crate::cluster::{Labels, NodeInfo};

/// Access modes as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes(u8);

impl Modes {
    pub(super) fn of(owner: &Raw) -> Self {
        let bit = |mode: &str| match mode {
            "ReadWriteOnce" => 1,
            "ReadOnlyMany" => 2,
            "ReadWriteMany" => 4,
            "ReadWriteOncePod" => 8,
            _ => 16,
        };
        Modes(access_modes(owner).fold(0, |bits, mode| bits | bit(mode)))
    }

    pub(super) fn contain(self, asked: Modes) -> bool {
        self.0 & asked.0 == asked.0
    }

    pub(super) fn has_once_pod(self) -> bool {
        self.0 & 8 != 0
    }
}

/// The claim that a volume is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRef {
    /// `namespace/name`.
    pub key: Box<str>,
    /// Empty: whichever has that name.
    pub uid: Box<str>,
}

impl ClaimRef {
    /// Whether it is this claim.
    pub fn names(&self, key: &str, claim: &Claim) -> bool {
        *self.key == *key && (self.uid.is_empty() || self.uid == claim.uid)
    }
}

/// Who has the volume's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Csi { driver: Box<str>, handle: Box<str> },
    Migrated(Migrated),
    Other,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Volume {
    pub name: Arc<str>,
    pub revision: Box<str>,
    pub class: Box<str>,
    pub labels: Labels,
    pub(super) size: i128,
    pub(super) modes: Modes,
    pub(super) block: bool,
    pub(super) attributes: Box<str>,
    pub(super) deleting: bool,
    available: bool,
    /// The claim that it is for, as the API server has it.
    pub told_claim: Option<ClaimRef>,
    /// The same, as it was decided and is not written yet.
    pub(super) assumed_claim: Option<ClaimRef>,
    pub source: Source,
    /// The required node affinity, as text: equal ones are looked at once.
    pub(super) affinity_text: Box<str>,
    pub(super) affinity: Arc<NodeTerms>,
    /// The same where a driver does the plugin's work.
    migrated_affinity: Option<(&'static str, Arc<NodeTerms>)>,
}

impl Volume {
    pub(super) fn new(volume: &Raw) -> Self {
        let meta = &volume.metadata;
        let labels = meta.labels.clone().unwrap_or_default();
        let required = object::at(&volume.value, &["spec", "nodeAffinity", "required"]);
        let source = source(volume, &labels);
        let migrated_affinity = match &source {
            Source::Migrated(disk) => migrated::affinity(disk.plugin, required, &labels)
                .map(|required| (disk.plugin, Arc::new(terms(Some(&required))))),
            _ => None,
        };
        Volume {
            name: meta.name.as_deref().unwrap_or_default().into(),
            revision: meta.resource_version.as_deref().unwrap_or_default().into(),
            class: class(volume).unwrap_or_default().into(),
            labels,
            size: size(volume, &CAPACITY).map_or(0, |size| size.nanos()),
            modes: Modes::of(volume),
            block: is_block(volume),
            attributes: attributes_class(volume).into(),
            deleting: meta.deletion_timestamp.is_some(),
            available: phase(volume) == "Available",
            told_claim: claim_ref(volume),
            assumed_claim: None,
            source,
            affinity_text: required.map(Value::to_string).unwrap_or_default().into(),
            affinity: Arc::new(terms(required)),
            migrated_affinity,
        }
    }

    /// The claim that it is for.
    pub fn claim(&self) -> Option<&ClaimRef> {
        self.assumed_claim.as_ref().or(self.told_claim.as_ref())
    }

    /// Whether it is for this claim: by name, and by uid where it has one.
    pub fn is_for(&self, key: &str, claim: &Claim) -> bool {
        self.claim().is_some_and(|own| own.names(key, claim))
    }

    /// Whether anybody may have it.
    pub(super) fn is_free(&self) -> bool {
        self.available && self.claim().is_none() && !self.deleting
    }

    /// Whether nodes with these labels reach it, as it says itself.
    pub fn is_near_to(&self, labels: &Labels) -> bool {
        holds(&self.affinity, labels)
    }

    /// Whether a node reaches it: where a driver does the work of the volume's plugin, as the driver would have it.
    pub fn is_near(&self, node: &NodeInfo) -> bool {
        let migrated = |csi: &CsiNode| {
            let (plugin, terms) = self.migrated_affinity.as_ref()?;
            csi.has_migrated(plugin).then_some(terms)
        };
        let terms = node.csi.as_deref().and_then(migrated).unwrap_or(&self.affinity);
        holds(terms, &node.facts.labels)
    }
}

/// Terms about names hold nowhere, as upstream looks at labels alone.
pub(super) fn holds(terms: &NodeTerms, labels: &Labels) -> bool {
    terms.is_empty() || terms.matches("", labels)
}

fn terms(required: Option<&Value>) -> NodeTerms {
    let selector = required.map(|required| {
        // What does not read holds nowhere.
        serde_json::from_value::<NodeSelector>(required.clone()).unwrap_or_default()
    });
    NodeTerms::of_selector(selector.as_ref())
}

fn claim_ref(volume: &Raw) -> Option<ClaimRef> {
    let claim = object::at(&volume.value, &["spec", "claimRef"])?;
    let text = |field: &str| object::string(claim, &[field]);
    Some(ClaimRef {
        key: format!("{}/{}", text("namespace"), text("name")).into(),
        uid: text("uid").into(),
    })
}

fn source(volume: &Raw, labels: &Labels) -> Source {
    let Some(csi) = object::at(&volume.value, &["spec", "csi"]) else {
        return migrated::of_volume(volume, labels).map_or(Source::Other, Source::Migrated);
    };
    Source::Csi {
        driver: object::string(csi, &["driver"]).into(),
        handle: object::string(csi, &["volumeHandle"]).into(),
    }
}
