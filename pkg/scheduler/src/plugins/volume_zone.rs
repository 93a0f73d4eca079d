//! A volume that is of a zone or a region by its labels is to be had only there.

use smallvec::SmallVec;

use crate::change::{Change, Kind};
use crate::cluster::migrated::ZONES;
use crate::cluster::{Cluster, NodeInfo, Volume};
use crate::framework::{Filter, Objection, Plugin, PreFilter};
use crate::pod::PodInfo;

/// Upstream's VolumeZone.
pub struct VolumeZone;

/// The labels, the old ones first, each with the one that took its place.
const LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];

/// What is said of a claim that is not there.
pub fn no_claim(name: &str) -> Objection {
    Objection::unresolvable(format!("persistentvolumeclaim {name:?} not found"))
}

/// A label of a volume, of whose values a node has to have one.
struct Place<'a> {
    key: &'static str,
    now: &'static str,
    values: SmallVec<[&'a str; 1]>,
}

fn places(volume: &Volume) -> impl Iterator<Item = Place<'_>> {
    LABELS.into_iter().filter_map(|(key, now)| {
        let values = volume.labels.get(key)?.split(ZONES).map(str::trim);
        let values: SmallVec<[&str; 1]> = values.collect();
        // One without a name says nothing.
        let reads = values.iter().all(|value| !value.is_empty());
        reads.then_some(Place { key, now, values })
    })
}

struct Places<'a>(Vec<Place<'a>>);

impl Filter for Places<'_> {
    fn check(&self, node: &NodeInfo) -> Option<Objection> {
        // A cluster of one zone may do without labels.
        if LABELS.iter().all(|(key, _)| node.label(key).is_none()) {
            return None;
        }
        let elsewhere = |place: &Place<'_>| {
            let value = node.label(place.key).or_else(|| node.label(place.now));
            value.is_none_or(|value| !place.values.contains(&value))
        };
        let conflict = self.0.iter().any(elsewhere);
        conflict.then(|| Objection::unresolvable("node(s) had no available volume zone"))
    }
}

/// The places of a pod's volumes.
fn of_pod<'a>(pod: &'a PodInfo, cluster: &'a Cluster) -> Result<Vec<Place<'a>>, Objection> {
    let mut all = Vec::new();
    let claims = pod.volumes.iter().flat_map(|volumes| &volumes.claims);
    for own in claims.filter(|own| !own.ephemeral) {
        let claim = cluster.volumes.claim(&own.key).ok_or_else(|| no_claim(own.name()))?;
        if !claim.volume.is_empty() {
            let volume = cluster.volumes.volume(&claim.volume);
            let missing = || Objection::unresolvable(format!("persistentvolume {:?} not found", claim.volume));
            all.extend(places(volume.ok_or_else(missing)?));
            continue;
        }
        if claim.class.is_empty() {
            let why = "PersistentVolumeClaim had no pv name and storageClass name";
            return Err(Objection::unresolvable(why));
        }
        match cluster.volumes.class(&claim.class) {
            Some(class) if class.delayed => {}
            Some(_) => return Err(Objection::unresolvable("PersistentVolume had no name")),
            None => {
                let why = format!("storageclass.storage.k8s.io {:?} not found", claim.class);
                return Err(Objection::unresolvable(why));
            }
        }
    }
    Ok(all)
}

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Cluster) -> PreFilter<'a> {
        if pod.volumes.is_none() {
            return PreFilter::Skip;
        }
        match of_pod(pod, cluster) {
            Err(objection) => PreFilter::Refuse(objection),
            Ok(places) if places.is_empty() => PreFilter::Skip,
            Ok(places) => PreFilter::Check(Box::new(Places(places))),
        }
    }

    fn wakes_on(&self) -> u32 {
        Kind::ClassAdded as u32
            | Kind::NodeAdded as u32
            | Kind::NodeLabels as u32
            | Kind::ClaimAdded as u32
            | Kind::ClaimChanged as u32
            | Kind::VolumeAdded as u32
            | Kind::VolumeChanged as u32
    }

    fn helps(&self, pod: &PodInfo, change: &Change<'_>, _: &Cluster) -> bool {
        match change {
            Change::Class { now, .. } => now.delayed,
            Change::Claim { key, .. } => {
                let mut claims = pod.volumes.iter().flat_map(|volumes| &volumes.claims);
                claims.any(|own| !own.ephemeral && *own.key == **key)
            }
            Change::Volume { before, now } => before.is_none_or(|before| {
                let of = |place: Place<'_>| {
                    (
                        place.key,
                        place.values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>(),
                    )
                };
                places(before).map(of).ne(places(now).map(of))
            }),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::testing::World;

    const ZONE: &str = "topology.kubernetes.io/zone";
    const BETA: &str = "failure-domain.beta.kubernetes.io/zone";
    const REGION: &str = "topology.kubernetes.io/region";

    fn labels(labels: &Value) -> Value {
        json!({"metadata": {"labels": labels}})
    }

    #[test]
    fn a_node_has_to_be_of_the_volumes_zone() {
        let elsewhere = Some("1 node(s) had no available volume zone");
        for (volume, node, expected) in [
            (json!({}), json!({ZONE: "a"}), None),
            (json!({ZONE: "a"}), json!({ZONE: "a"}), None),
            (json!({ZONE: "a"}), json!({ZONE: "b"}), elsewhere),
            (json!({ZONE: "a"}), json!({}), None),
            (json!({ZONE: "a"}), json!({REGION: "r"}), elsewhere),
            (json!({ZONE: "a__b"}), json!({ZONE: "b"}), None),
            (json!({BETA: "a"}), json!({ZONE: "a"}), None),
            (json!({BETA: "a"}), json!({ZONE: "a", BETA: "b"}), elsewhere),
            (json!({ZONE: "a"}), json!({BETA: "a"}), elsewhere),
            (
                json!({ZONE: "a", REGION: "r"}),
                json!({ZONE: "a", REGION: "s"}),
                elsewhere,
            ),
            (json!({ZONE: "a____b"}), json!({ZONE: "c"}), None),
        ] {
            let mut world = World::default();
            world.node("n", &node);
            world.volume("v", &labels(&volume));
            world.bound("a", "v", &json!({}));
            let pod = world.pod_with("p", &["a"]);
            assert_eq!(world.decide(&pod).err().as_deref(), expected, "{volume} {node}");
        }
    }

    #[test]
    fn a_claim_has_to_have_a_volume_or_to_wait_for_its_pod() {
        let no_name = "PersistentVolume had no name";
        for (more, expected) in [
            (json!({}), None),
            (json!({"spec": {"storageClassName": "immediate"}}), Some(no_name)),
            (
                json!({"spec": {"storageClassName": null}}),
                Some("PersistentVolumeClaim had no pv name and storageClass name"),
            ),
            (
                json!({"spec": {"storageClassName": "x"}}),
                Some("storageclass.storage.k8s.io \"x\" not found"),
            ),
            (
                json!({"spec": {"volumeName": "v"}}),
                Some("persistentvolume \"v\" not found"),
            ),
            (
                json!({"metadata": {"name": "b"}}),
                Some("persistentvolumeclaim \"a\" not found"),
            ),
        ] {
            let mut world = World::default();
            world.class("c", &json!({}));
            world.class("immediate", &json!({"volumeBindingMode": "Immediate"}));
            world.claim("a", &more);
            let pod = world.pod_with("p", &["a"]);
            let said = match VolumeZone.pre_filter(&pod, &world.cluster) {
                PreFilter::Refuse(objection) => Some(objection.reasons.join("")),
                _ => None,
            };
            assert_eq!(said.as_deref(), expected, "{more}");
        }
    }

    #[test]
    fn a_volume_that_moves_is_worth_another_try() {
        let mut world = World::default();
        let pod = world.pod_with("p", &["a"]);
        for (name, zone) in [("v", "a"), ("same", "a"), ("moved", "b")] {
            world.volume(name, &labels(&json!({ZONE: zone, "other": name})));
        }
        let volume = |name: &str| world.cluster.volumes.volume(name).unwrap();
        for (before, now, expected) in [
            (None, "v", true),
            (Some("v"), "same", false),
            (Some("v"), "moved", true),
        ] {
            let before = before.map(volume);
            let change = Change::Volume {
                before,
                now: volume(now),
            };
            assert_eq!(VolumeZone.helps(&pod, &change, &world.cluster), expected, "{now}");
        }
    }
}
