//! What drivers say: of each node how many volumes it takes, of each driver whether its room is to be looked at, how much room there
//! is, and which volumes are attached where.

use mk8s_api::meta as object;
use mk8s_api::quantity;
use mk8s_api::selectors::{LabelSelector, Operator};
use mk8s_client::storage::annotation;
use mk8s_client::{NodePin, Raw};

use super::key;
use super::places::Pin;
use crate::cluster::NodeInfo;

/// On a CSINode: the plugins whose work drivers do on this node.
const MIGRATED_PLUGINS: &str = "storage.alpha.kubernetes.io/migrated-plugins";

/// The drivers of a node.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CsiNode {
    /// With how many volumes each takes, where it says so.
    drivers: Box<[(Box<str>, Option<i64>)]>,
    migrated: Box<str>,
}

impl CsiNode {
    pub fn new(node: &Raw) -> Self {
        let drivers = object::items(&node.value, &["spec", "drivers"]).iter();
        CsiNode {
            drivers: drivers
                .map(|driver| {
                    let count = object::i64_at(driver, &["allocatable", "count"]);
                    (object::string(driver, &["name"]).into(), count)
                })
                .collect(),
            migrated: annotation(node, MIGRATED_PLUGINS).unwrap_or_default().into(),
        }
    }

    /// How many volumes of a driver the node takes; none: as many as may be.
    pub fn limit(&self, driver: &str) -> Option<i64> {
        let own = self.drivers.iter().find(|(name, _)| **name == *driver);
        own.and_then(|(_, count)| *count)
    }

    /// The drivers that take only so many.
    pub fn limits(&self) -> impl Iterator<Item = (&str, i64)> {
        self.drivers
            .iter()
            .filter_map(|(name, count)| Some((&**name, (*count)?)))
    }

    /// Whether a driver does the plugin's work on the node.
    pub fn has_migrated(&self, plugin: &str) -> bool {
        self.migrated.split(',').any(|own| own == plugin)
    }

    /// Whether others do the work of other plugins than before.
    pub fn migrates_otherwise(&self, before: &CsiNode) -> bool {
        self.migrated != before.migrated
    }

    /// Whether it takes more of some driver's volumes than before.
    pub fn takes_more(&self, before: &CsiNode) -> bool {
        let limits = self.drivers.iter().map(|(name, count)| (name, count.unwrap_or(0)));
        let mut more = limits.map(|(name, count)| count > before.limit(name).unwrap_or(0));
        more.any(|more| more)
    }
}

/// Room for volumes of a class, where the selected nodes reach it.
#[derive(Debug, PartialEq, Eq)]
pub struct Capacity {
    key: Box<str>,
    pub class: Box<str>,
    /// The largest volume that fits, in bytes.
    pub limit: Option<i64>,
    /// None: no node reaches it.
    topology: Option<LabelSelector>,
    /// Nodes are told by one label.
    whole: bool,
    /// By which it is found, while it is looked for.
    pub(super) pin: Option<Pin>,
}

impl Capacity {
    pub(super) fn new(capacity: &Raw) -> Self {
        let at = |field: &str| object::at(&capacity.value, &[field]);
        let limit = at("maximumVolumeSize").or_else(|| at("capacity"));
        let limit = limit.and_then(|limit| quantity::from_json(limit).ok());
        let topology = at("nodeTopology").and_then(|topology| LabelSelector::from_json(topology).ok());
        Capacity {
            key: key(capacity),
            class: object::string(&capacity.value, &["storageClassName"]).into(),
            limit: limit.map(|limit| limit.value()),
            whole: topology
                .as_ref()
                .is_some_and(|topology| topology.requirements.len() == 1),
            topology,
            pin: None,
        }
    }

    /// Whether a volume of this size can be made on a node near it.
    pub fn gives(&self, size: i64, node: &NodeInfo) -> bool {
        let get = |key: &str| node.label(key);
        let reached = || self.topology.as_ref().is_some_and(|topology| topology.matches(get));
        let found = self.whole && self.pin.is_some();
        self.limit.is_some_and(|limit| limit >= size) && (found || reached())
    }

    /// Whether there is more room than before.
    pub fn grew(&self, before: &Capacity) -> bool {
        self.limit > before.limit
    }

    /// As [`mk8s_client::NodeTerms::pin`].
    pub(super) fn node_pin(&self) -> Option<NodePin<'_>> {
        let requirements = self.topology.as_ref()?.requirements.iter();
        let lists = requirements.filter(|own| matches!(own.operator, Operator::In | Operator::Equals));
        let shortest = lists.min_by_key(|own| own.values.len())?;
        Some(NodePin {
            key: &shortest.key,
            values: shortest.values.iter().map(String::as_str).collect(),
            whole: self.whole,
        })
    }
}

/// A volume that is, or is to be, attached to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub node: Box<str>,
    pub driver: Box<str>,
    pub volume: Box<str>,
}

impl Attachment {
    /// None: it is of no driver or of no PersistentVolume.
    pub(super) fn new(attachment: &Raw) -> Option<Self> {
        let text = |path: &[&str]| object::str_at(&attachment.value, path).filter(|text| !text.is_empty());
        Some(Attachment {
            node: text(&["spec", "nodeName"])?.into(),
            driver: text(&["spec", "attacher"])?.into(),
            volume: text(&["spec", "source", "persistentVolumeName"])?.into(),
        })
    }
}

/// Whether a CSIDriver has its room looked at.
pub(super) fn tracks_capacity(driver: &Raw) -> bool {
    object::bool_at(&driver.value, &["spec", "storageCapacity"]) == Some(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::Facts;

    #[test]
    fn a_node_takes_more_where_a_limit_rose() {
        let node =
            |drivers: Value| CsiNode::new(&Raw::new(json!({"metadata": {}, "spec": {"drivers": drivers}})).unwrap());
        let limit = |count: i64| json!([{"name": "a", "allocatable": {"count": count}}]);
        for (before, now, expected) in [
            (limit(1), limit(2), true),
            (limit(2), limit(1), false),
            (json!([]), limit(1), true),
            (limit(1), json!([{"name": "a"}]), false),
        ] {
            assert_eq!(node(now.clone()).takes_more(&node(before)), expected, "{now}");
        }
        assert_eq!((node(limit(3)).limit("a"), node(limit(3)).limit("b")), (Some(3), None));
    }

    #[test]
    fn room_is_for_those_who_reach_it() {
        let reach = json!({"matchLabels": {"zone": "a"}});
        let node = |zone: &str| NodeInfo {
            facts: Arc::new(Facts {
                labels: [("zone".to_owned(), zone.to_owned())].into(),
                ..Facts::default()
            }),
            ..NodeInfo::default()
        };
        for (room, zone, expected) in [
            (json!({"capacity": "5", "nodeTopology": reach}), "a", true),
            (json!({"capacity": "4", "nodeTopology": reach}), "a", false),
            (
                json!({"capacity": "9", "maximumVolumeSize": "4", "nodeTopology": reach}),
                "a",
                false,
            ),
            (json!({"capacity": "5", "nodeTopology": reach}), "b", false),
            (json!({"capacity": "5", "nodeTopology": {}}), "b", true),
            (json!({"capacity": "5"}), "a", false),
            (json!({"nodeTopology": reach}), "a", false),
        ] {
            let mut all = json!({"metadata": {}, "storageClassName": "c"});
            mk8s_api::patch::merge(&mut all, &room).unwrap();
            let capacity = Capacity::new(&Raw::new(all).unwrap());
            assert_eq!(capacity.gives(5, &node(zone)), expected, "{room} {zone}");
        }
    }
}
