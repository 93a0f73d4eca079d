//! A claim that one pod may use is no second pod's, and a disk that a pod names itself is on a node once, unless all only read it.

use crate::change::{Change, Kind};
use crate::cluster::{Cluster, NodeInfo};
use crate::framework::{Filter, Objection, Plugin, PreFilter, Trial};
use crate::pod::PodInfo;
use crate::pod_volumes::{Disk, PodVolumes};

/// Upstream's VolumeRestrictions.
pub struct VolumeRestrictions;

struct Restrictions<'a> {
    disks: &'a [Disk],
    /// The pod's claims that are one pod's.
    once: Vec<&'a str>,
    /// Uses of those by other pods, wherever.
    uses: i64,
}

fn meet(disks: &[Disk], pod: &PodVolumes) -> bool {
    disks
        .iter()
        .any(|disk| pod.disks.iter().any(|other| disk.conflicts(other)))
}

impl Restrictions<'_> {
    fn objection(&self, node: &NodeInfo, uses: i64) -> Option<Objection> {
        let mut pods = node.pods.iter().filter_map(|pod| pod.volumes.as_deref());
        if !self.disks.is_empty() && pods.any(|pod| meet(self.disks, pod)) {
            return Some(Objection::new("node(s) had no available disk"));
        }
        (uses > 0).then(|| {
            Objection::new(
                "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
            )
        })
    }
}

impl Filter for Restrictions<'_> {
    fn check(&self, node: &NodeInfo) -> Option<Objection> {
        self.objection(node, self.uses)
    }

    fn trial(&self) -> Option<Box<dyn Trial + '_>> {
        Some(Box::new(Uses {
            all: self,
            uses: self.uses,
        }))
    }
}

/// With those who come and go in the trial.
struct Uses<'a> {
    all: &'a Restrictions<'a>,
    uses: i64,
}

impl Trial for Uses<'_> {
    fn check(&self, node: &NodeInfo) -> Option<Objection> {
        self.all.objection(node, self.uses)
    }

    fn change(&mut self, pod: &PodInfo, _: &NodeInfo, by: i64) {
        let claims = pod.volumes.iter().flat_map(|own| &own.claims);
        for _ in claims.filter(|own| !own.ephemeral && self.all.once.contains(&&*own.key)) {
            self.uses += by;
        }
    }
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Cluster) -> PreFilter<'a> {
        let Some(volumes) = &pod.volumes else {
            return PreFilter::Skip;
        };
        let mut once = Vec::new();
        for own in volumes.claims.iter().filter(|own| !own.ephemeral) {
            match cluster.volumes.claim(&own.key) {
                None => return PreFilter::Refuse(super::volume_zone::no_claim(own.name())),
                Some(claim) if claim.once && !once.contains(&&*own.key) => once.push(&*own.key),
                Some(_) => {}
            }
        }
        let uses = once.iter().map(|key| cluster.volumes.direct_uses(key)).sum::<usize>();
        if volumes.disks.is_empty() && uses == 0 {
            return PreFilter::Skip;
        }
        PreFilter::Check(Box::new(Restrictions {
            disks: &volumes.disks,
            once,
            uses: i64::try_from(uses).unwrap_or(i64::MAX),
        }))
    }

    fn wakes_on(&self) -> u32 {
        Kind::PodGone as u32 | Kind::NodeAdded as u32 | Kind::ClaimAdded as u32
    }

    fn helps(&self, pod: &PodInfo, change: &Change<'_>, _: &Cluster) -> bool {
        let Some(volumes) = &pod.volumes else { return false };
        let uses = |claim: &str| volumes.claims.iter().any(|own| !own.ephemeral && *own.key == *claim);
        match change {
            Change::PodGone(gone) => {
                gone.namespace() == pod.namespace()
                    && gone.volumes.as_ref().is_some_and(|gone| {
                        let mut claims = gone.claims.iter().filter(|own| !own.ephemeral);
                        meet(&volumes.disks, gone) || claims.any(|own| uses(&own.key))
                    })
            }
            Change::Claim { key, .. } => uses(key),
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

    const IN_USE: &str = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";

    fn once(world: &mut World, claim: &str) {
        world.bound(claim, "v", &json!({"spec": {"accessModes": ["ReadWriteOncePod"]}}));
    }

    #[test]
    fn a_claim_of_one_pod_is_no_others_wherever_that_is() {
        let mut world = World::new(&["n", "m"]);
        world.volume("v", &json!({}));
        once(&mut world, "a");
        world.bound("shared", "v", &json!({}));
        let user = world.pod_with("u", &["a", "shared"]);
        world.place(&user, "m");
        for (claims, expected) in [
            (&["a"][..], Some(format!("2 {IN_USE}"))),
            (&["shared"], None),
            (&["b"], Some("persistentvolumeclaim \"b\" not found".to_owned())),
        ] {
            let pod = world.pod_with("p", claims);
            assert_eq!(world.decide(&pod).err(), expected, "{claims:?}");
        }
        world.cluster.remove("u");
        let pod = world.pod_with("p", &["a"]);
        assert_eq!(world.decide(&pod).ok().as_deref(), Some("n"));
    }

    #[test]
    fn a_trial_frees_what_its_pods_use() {
        let mut world = World::new(&["n"]);
        world.volume("v", &json!({}));
        once(&mut world, "a");
        let user = world.pod_with("u", &["a"]);
        world.place(&user, "n");
        let pod = world.pod_with("p", &["a"]);
        let PreFilter::Check(filter) = VolumeRestrictions.pre_filter(&pod, &world.cluster) else {
            panic!("nothing to check");
        };
        let node = world.cluster.find("n").unwrap();
        let mut trial = filter.trial().unwrap();
        for (by, fits) in [(-1, true), (1, false)] {
            trial.change(&user, node, by);
            assert_eq!(trial.check(node).is_none(), fits, "{by}");
        }
    }

    #[test]
    fn a_disk_is_on_a_node_once() {
        let disk = |id: &str| json!([{"awsElasticBlockStore": {"volumeID": id}}]);
        let mut world = World::new(&["n"]);
        let user = world.pod("u", &disk("a"));
        world.place(&user, "n");
        for (id, expected) in [("a", Some("1 node(s) had no available disk")), ("b", None)] {
            let pod = world.pod("p", &disk(id));
            assert_eq!(world.decide(&pod).err().as_deref(), expected, "{id}");
        }
    }

    #[test]
    fn who_leaves_helps_those_who_want_the_same() {
        let mut world = World::default();
        let ebs = json!({"awsElasticBlockStore": {"volumeID": "e"}});
        let claim = json!({"persistentVolumeClaim": {"claimName": "a"}});
        let pod = world.pod("p", &json!([ebs, claim]));
        for (gone, expected) in [
            (json!([ebs]), true),
            (json!([claim]), true),
            (json!([{"persistentVolumeClaim": {"claimName": "b"}}]), false),
            (json!([]), false),
        ] {
            let gone: Value = gone;
            let other = world.pod("g", &gone);
            let helps = VolumeRestrictions.helps(&pod, &Change::PodGone(&other), &world.cluster);
            assert_eq!(helps, expected, "{gone}");
        }
    }
}
