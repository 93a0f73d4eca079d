//! Disks of plugins that were in the tree once, as the drivers that do their work now name and place them
//! (<https://kubernetes.io/docs/concepts/storage/volumes/#csi-migration>).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Volume as PodVolume;
use mk8s_api::meta as object;
use mk8s_client::Raw;
use mk8s_client::storage::migrated_to;
use serde_json::{Value, json};

use super::csi::CsiNode;
use crate::cluster::Labels;

const EBS: &str = "kubernetes.io/aws-ebs";
const GCE: &str = "kubernetes.io/gce-pd";
const AZURE_DISK: &str = "kubernetes.io/azure-disk";
const CINDER: &str = "kubernetes.io/cinder";
const PORTWORX: &str = "kubernetes.io/portworx-volume";

const ZONE: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
const REGION: [&str; 2] = [
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/region",
];
/// Between the zones that a label lists.
pub const ZONES: &str = "__";

/// A disk of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    pub plugin: &'static str,
    /// As the driver calls it.
    pub handle: Box<str>,
}

impl Migrated {
    fn new(plugin: &'static str, handle: impl Into<Box<str>>) -> Self {
        let handle = handle.into();
        Migrated { plugin, handle }
    }

    /// Who does the plugin's work.
    pub fn driver(&self) -> &'static str {
        migrated_to(self.plugin).unwrap_or_default()
    }
}

/// The plugin of this name, if its disks count as the driver's.
pub fn plugin(name: &str) -> Option<&'static str> {
    let all = [EBS, GCE, AZURE_DISK, CINDER, PORTWORX];
    all.into_iter().find(|plugin| *plugin == name)
}

/// Whether a plugin's disks count as its driver's on a node.
pub fn counts(plugin: &str, node: Option<&CsiNode>) -> bool {
    node.is_some_and(|node| plugin != PORTWORX || node.has_migrated(plugin))
}

/// The disk that a pod names.
pub fn of_pod(volume: &PodVolume) -> Option<Migrated> {
    if let Some(disk) = &volume.aws_elastic_block_store {
        return Some(Migrated::new(EBS, ebs_handle(&disk.volume_id)?));
    }
    if let Some(disk) = &volume.gce_persistent_disk {
        return Some(Migrated::new(GCE, gce_handle("zones/UNSPECIFIED", &disk.pd_name)));
    }
    if let Some(disk) = &volume.azure_disk {
        return is_managed(disk.kind.as_deref()).then(|| Migrated::new(AZURE_DISK, disk.disk_uri.as_str()));
    }
    if let Some(disk) = &volume.cinder {
        return Some(Migrated::new(CINDER, disk.volume_id.as_str()));
    }
    let disk = volume.portworx_volume.as_ref()?;
    Some(Migrated::new(PORTWORX, disk.volume_id.as_str()))
}

/// The disk that a PersistentVolume is.
pub fn of_volume(volume: &Raw, labels: &Labels) -> Option<Migrated> {
    let text = |source: &str, field: &str| object::str_at(&volume.value, &["spec", source, field]);
    if let Some(id) = text("awsElasticBlockStore", "volumeID") {
        return Some(Migrated::new(EBS, ebs_handle(id)?));
    }
    if let Some(name) = text("gcePersistentDisk", "pdName") {
        return Some(Migrated::new(GCE, gce_handle(&gce_place(labels)?, name)));
    }
    if let Some(uri) = text("azureDisk", "diskURI") {
        return is_managed(text("azureDisk", "kind")).then(|| Migrated::new(AZURE_DISK, uri));
    }
    if let Some(id) = text("cinder", "volumeID") {
        return Some(Migrated::new(CINDER, id));
    }
    Some(Migrated::new(PORTWORX, text("portworxVolume", "volumeID")?))
}

/// Of `aws://zone/vol-1` the part after the zone.
fn ebs_handle(id: &str) -> Option<&str> {
    let Some(rest) = id.strip_prefix("aws://") else {
        return Some(id);
    };
    let (_, path) = rest.split_once('/')?;
    let own = path.trim_matches('/');
    (own.starts_with("vol-") && !own.contains('/')).then_some(own)
}

fn is_managed(kind: Option<&str>) -> bool {
    kind.is_none_or(|kind| kind.eq_ignore_ascii_case("managed"))
}

fn gce_handle(place: &str, name: &str) -> String {
    format!("projects/UNSPECIFIED/{place}/disks/{name}")
}

/// A volume of several zones is its region's.
fn gce_place(labels: &Labels) -> Option<String> {
    let label = |key: &str| labels.get(key).filter(|zones| !zones.is_empty());
    let Some(zones) = label(ZONE[1]).or_else(|| label(ZONE[0])) else {
        return Some("zones/UNSPECIFIED".to_owned());
    };
    if !zones.contains(ZONES) {
        return Some(format!("zones/{zones}"));
    }
    let regions = zones
        .split(ZONES)
        .map(|zone| zone.rsplit_once('-').map(|(region, _)| region));
    let regions: BTreeSet<&str> = regions.collect::<Option<_>>()?;
    let region = regions.first().filter(|_| regions.len() == 1)?;
    Some(format!("regions/{region}"))
}

/// The label by which a plugin's driver tells where its disks are; none: it places them as the plugin did.
fn topology_key(plugin: &str) -> Option<&'static str> {
    match plugin {
        EBS => Some("topology.ebs.csi.aws.com/zone"),
        GCE => Some("topology.gke.io/zone"),
        CINDER => Some("topology.cinder.csi.openstack.org/zone"),
        _ => None,
    }
}

/// A volume's required node affinity as its driver would have it; none: as it is.
pub fn affinity(plugin: &str, required: Option<&Value>, labels: &Labels) -> Option<Value> {
    let key = topology_key(plugin)?;
    let mut new = required.cloned().unwrap_or_else(|| json!({}));
    let beta = is_beta(&new, labels);
    let (zone, region) = (ZONE[usize::from(beta)], REGION[usize::from(beta)]);
    if lists(&new, zone) {
        rename(&mut new, zone, key);
    } else {
        let zones = labels.get(zone).into_iter().flat_map(|zones| zones.split(ZONES));
        let zones: BTreeSet<&str> = zones.map(str::trim).filter(|zone| !zone.is_empty()).collect();
        if !zones.is_empty() {
            require(&mut new, &json!({"key": key, "operator": "In", "values": zones}));
        }
    }
    if beta && lists(&new, region) {
        rename(&mut new, region, REGION[0]);
    }
    (required.is_some() || object::at(&new, &["nodeSelectorTerms"]).is_some()).then_some(new)
}

/// Whether a volume is placed by the labels of old.
fn is_beta(required: &Value, labels: &Labels) -> bool {
    let mentions = |key: &str| requirements(required).any(|own| object::string(own, &["key"]) == key);
    let known = [
        mentions(ZONE[0]),
        mentions(ZONE[1]),
        labels.contains_key(ZONE[0]),
        labels.contains_key(ZONE[1]),
    ];
    known
        .iter()
        .position(|known| *known)
        .is_some_and(|first| first % 2 == 1)
}

fn requirements(required: &Value) -> impl Iterator<Item = &Value> {
    let terms = object::items(required, &["nodeSelectorTerms"]);
    terms.iter().flat_map(|term| object::items(term, &["matchExpressions"]))
}

fn lists(required: &Value, key: &str) -> bool {
    let mut own = requirements(required).filter(|own| object::string(own, &["key"]) == key);
    own.any(|own| !object::items(own, &["values"]).is_empty())
}

fn rename(required: &mut Value, from: &str, to: &str) {
    for term in object::items_mut(required, &["nodeSelectorTerms"]) {
        for own in object::items_mut(term, &["matchExpressions"]) {
            if object::string(own, &["key"]) == from {
                object::set(own, &["key"], to);
            }
        }
    }
}

/// Every term asks for it, too.
fn require(required: &mut Value, requirement: &Value) {
    if object::items(required, &["nodeSelectorTerms"]).is_empty() {
        object::set(required, &["nodeSelectorTerms"], json!([{}]));
    }
    for term in object::items_mut(required, &["nodeSelectorTerms"]) {
        let mut all = object::items(term, &["matchExpressions"]).to_vec();
        all.push(requirement.clone());
        object::set(term, &["matchExpressions"], all);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_volume_has_the_name_that_its_driver_gives_it() {
        let (zone, beta) = (ZONE[0], ZONE[1]);
        for (spec, labels, expected) in [
            (
                json!({"awsElasticBlockStore": {"volumeID": "aws://z/vol-1"}}),
                json!({}),
                Some((EBS, "vol-1")),
            ),
            (
                json!({"awsElasticBlockStore": {"volumeID": "vol-1"}}),
                json!({}),
                Some((EBS, "vol-1")),
            ),
            (
                json!({"awsElasticBlockStore": {"volumeID": "aws://z/disk"}}),
                json!({}),
                None,
            ),
            (
                json!({"gcePersistentDisk": {"pdName": "d"}}),
                json!({}),
                Some((GCE, "projects/UNSPECIFIED/zones/UNSPECIFIED/disks/d")),
            ),
            (
                json!({"gcePersistentDisk": {"pdName": "d"}}),
                json!({zone: "r-a", beta: "r-b"}),
                Some((GCE, "projects/UNSPECIFIED/zones/r-b/disks/d")),
            ),
            (
                json!({"gcePersistentDisk": {"pdName": "d"}}),
                json!({zone: "r-a__r-b"}),
                Some((GCE, "projects/UNSPECIFIED/regions/r/disks/d")),
            ),
            (
                json!({"azureDisk": {"diskURI": "u", "kind": "Managed"}}),
                json!({}),
                Some((AZURE_DISK, "u")),
            ),
            (
                json!({"azureDisk": {"diskURI": "u", "kind": "Dedicated"}}),
                json!({}),
                None,
            ),
            (json!({"cinder": {"volumeID": "c"}}), json!({}), Some((CINDER, "c"))),
            (
                json!({"portworxVolume": {"volumeID": "p"}}),
                json!({}),
                Some((PORTWORX, "p")),
            ),
            (json!({"hostPath": {"path": "/p"}}), json!({}), None),
        ] {
            let volume = Raw::new(json!({"metadata": {"name": "v", "labels": labels}, "spec": spec})).unwrap();
            let labels = volume.metadata.labels.clone().unwrap_or_default();
            let expected = expected.map(|(plugin, handle)| Migrated::new(plugin, handle));
            assert_eq!(of_volume(&volume, &labels), expected, "{spec}");
        }
    }

    #[test]
    fn a_driver_finds_its_zones_by_its_own_label() {
        let list = |key: &str, values: &[&str]| json!({"key": key, "operator": "In", "values": values});
        let terms = |all: &[Value]| json!({"nodeSelectorTerms": [{"matchExpressions": all}]});
        let key = topology_key(EBS).unwrap();
        let (zone, beta) = (ZONE[0], ZONE[1]);
        for (required, labels, expected) in [
            (
                Some(terms(&[list(zone, &["a"])])),
                json!({}),
                Some(terms(&[list(key, &["a"])])),
            ),
            (
                Some(terms(&[list(beta, &["a"]), list(REGION[1], &["r"])])),
                json!({}),
                Some(terms(&[list(key, &["a"]), list(REGION[0], &["r"])])),
            ),
            (None, json!({beta: "b__a"}), Some(terms(&[list(key, &["a", "b"])]))),
            (
                Some(terms(&[list("x", &["y"])])),
                json!({zone: "a"}),
                Some(terms(&[list("x", &["y"]), list(key, &["a"])])),
            ),
            (None, json!({}), None),
        ] {
            let labels: Labels = serde_json::from_value(labels).unwrap();
            assert_eq!(affinity(EBS, required.as_ref(), &labels), expected, "{required:?}");
            assert_eq!(affinity(PORTWORX, required.as_ref(), &labels), None);
        }
    }
}
