//! A node takes only so many volumes of a driver.

use smallvec::SmallVec;

use crate::change::{Change, Kind};
use crate::cluster::{Attachable, Cluster, DriverId, Load, NodeInfo, Uses, Volumes};
use crate::framework::{Filter, Objection, Plugin, PreFilter, Trial};
use crate::pod::PodInfo;

/// Upstream's NodeVolumeLimits.
pub struct NodeVolumeLimits;

struct New<'a> {
    volumes: &'a Volumes,
    /// What the pod would have attached.
    asked: SmallVec<[Attachable<'a>; 4]>,
    /// How many of each driver that is limited somewhere.
    of_drivers: SmallVec<[(DriverId, i64); 1]>,
}

impl New<'_> {
    /// By what is used there, and how many of each driver are there.
    fn objection(
        &self,
        node: &NodeInfo,
        used: impl Fn(&Attachable<'_>) -> bool,
        count: impl Fn(&str) -> i64,
    ) -> Option<Objection> {
        let csi = node.csi.as_deref()?;
        let exceeds = |asked: &Attachable<'_>| {
            let limit = csi.limit(asked.driver)?;
            let others = self.asked.iter().filter(|other| other.driver == asked.driver);
            let new = others.filter(|other| other.counts(Some(csi)) && !used(other));
            let new = i64::try_from(new.count()).unwrap_or(i64::MAX);
            (new > 0 && count(asked.driver) + new > limit).then_some(())
        };
        let exceeded = self.asked.iter().find_map(exceeds);
        exceeded.map(|()| Objection::new("node(s) exceed max volume count"))
    }
}

impl New<'_> {
    fn objection_as_it_is(&self, node: &NodeInfo) -> Option<Objection> {
        let attached = &node.attached;
        self.objection(node, |volume| attached.uses(volume), |driver| attached.count(driver))
    }
}

impl Filter for New<'_> {
    fn check(&self, node: &NodeInfo) -> Option<Objection> {
        // Where all would fit if none were there already, nobody need look which are.
        let full = |load: &Load| {
            let mut of_it = self.of_drivers.iter().filter(|(driver, _)| *driver == load.driver);
            of_it.any(|(_, new)| load.count + new > load.limit)
        };
        let full = node.loads.iter().any(full);
        full.then(|| self.objection_as_it_is(node)).flatten()
    }

    fn trial(&self) -> Option<Box<dyn Trial + '_>> {
        Some(Box::new(Tried { new: self, uses: None }))
    }
}

/// With those who come and go in the trial.
struct Tried<'t, 'a> {
    new: &'t New<'a>,
    /// None: as at the node.
    uses: Option<Uses>,
}

impl Trial for Tried<'_, '_> {
    fn check(&self, node: &NodeInfo) -> Option<Objection> {
        match &self.uses {
            None => self.new.objection_as_it_is(node),
            Some(own) => self
                .new
                .objection(node, |volume| own.uses(volume), |driver| own.count(driver)),
        }
    }

    fn change(&mut self, pod: &PodInfo, node: &NodeInfo, by: i64) {
        let Some(pod) = pod.volumes.as_deref() else { return };
        let volumes = self.new.volumes;
        match &mut self.uses {
            // The node shows it already.
            None => self.uses = Some(volumes.uses(node)),
            Some(uses) => volumes.change_uses(uses, pod, node.csi.as_deref(), by > 0),
        }
    }
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn prepare(&self, pod: &PodInfo, cluster: &mut Cluster) {
        if pod.volumes.is_some() {
            cluster.count_attached();
        }
    }

    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Cluster) -> PreFilter<'a> {
        let Some(pod) = &pod.volumes else {
            return PreFilter::Skip;
        };
        // Of claims that are missing VolumeBinding tells.
        let volumes = &cluster.volumes;
        let asked = volumes.counted_of(pod);
        let mut of_drivers: SmallVec<[(DriverId, i64); 1]> = SmallVec::new();
        for driver in asked.iter().filter_map(|own| volumes.limited(own.driver)) {
            match of_drivers.iter_mut().find(|(own, _)| *own == driver) {
                Some((_, count)) => *count += 1,
                None => of_drivers.push((driver, 1)),
            }
        }
        if of_drivers.is_empty() {
            return PreFilter::Skip;
        }
        PreFilter::Check(Box::new(New {
            volumes,
            asked,
            of_drivers,
        }))
    }

    fn wakes_on(&self) -> u32 {
        Kind::CsiNodeAdded as u32
            | Kind::CsiNodeChanged as u32
            | Kind::PodGone as u32
            | Kind::ClaimAdded as u32
            | Kind::Detached as u32
    }

    fn helps(&self, pod: &PodInfo, change: &Change<'_>, _: &Cluster) -> bool {
        let Some(volumes) = &pod.volumes else { return false };
        match change {
            Change::CsiNode { before, now } => before.is_none_or(|before| now.takes_more(before)),
            Change::PodGone(gone) => gone
                .volumes
                .as_ref()
                .is_some_and(|gone| !gone.claims.is_empty() || !gone.migrated.is_empty()),
            Change::Claim { key, .. } => volumes.uses(key),
            Change::Detached(driver) => {
                let mut migrated = volumes.migrated.iter();
                volumes.claims.iter().any(|own| !own.ephemeral) || migrated.any(|own| own.driver() == *driver)
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::testing::{World, merged, of_claim};

    const FULL: &str = "1 node(s) exceed max volume count";
    const EBS: &str = "ebs.csi.aws.com";

    fn csi(handle: &str) -> Value {
        json!({"spec": {"csi": {"driver": "d", "volumeHandle": handle}}})
    }

    fn disk(id: &str) -> Value {
        json!({"awsElasticBlockStore": {"volumeID": id}})
    }

    /// Volumes `x`, `y`, `also-x` and `ebs` with bound claims of the same names, and claims `new` and `old` that wait for theirs; a pod
    /// on the node uses what it is given.
    fn world(limits: &[(&str, i64)], used: &[Value]) -> World {
        let mut world = World::new(&["n"]);
        world.drivers("n", limits, &json!({}));
        for (name, volume) in [("x", csi("x")), ("y", csi("y")), ("also-x", csi("x"))] {
            world.volume(name, &volume);
        }
        world.volume(
            "ebs",
            &merged(json!({"spec": {}}), &json!({"spec": disk("aws://z/vol-1")})),
        );
        for name in ["x", "y", "also-x", "ebs"] {
            world.bound(name, name, &json!({}));
        }
        world.class("c", &json!({}));
        world.class("ebs", &json!({"provisioner": "kubernetes.io/aws-ebs"}));
        world.claim("new", &json!({}));
        world.claim("old", &json!({"spec": {"storageClassName": "ebs"}}));
        let user = world.pod("u", &json!(used));
        world.place(&user, "n");
        world
    }

    #[test]
    fn each_volume_counts_once_and_so_many_fit() {
        let (x, y, also_x, ebs) = (of_claim("x"), of_claim("y"), of_claim("also-x"), of_claim("ebs"));
        let (new, old) = (of_claim("new"), of_claim("old"));
        for (limits, used, asked, expected) in [
            (&[("d", 1)][..], vec![], vec![x.clone()], None),
            (&[("d", 1)], vec![x.clone()], vec![y.clone()], Some(FULL)),
            (&[("d", 2)], vec![x.clone()], vec![y.clone()], None),
            (&[("other", 1)], vec![x.clone()], vec![y.clone()], None),
            (&[("d", 1)], vec![x.clone()], vec![also_x.clone()], None),
            (&[("d", 1)], vec![], vec![x.clone(), also_x], None),
            (&[("d", 1)], vec![], vec![x.clone(), y.clone()], Some(FULL)),
            (&[("d", 1)], vec![x.clone()], vec![new.clone()], Some(FULL)),
            (&[("d", 1)], vec![new.clone()], vec![new.clone()], None),
            (&[("d", 1)], vec![new], vec![x], Some(FULL)),
            // What plugins of the tree had.
            (&[(EBS, 1)], vec![ebs.clone()], vec![disk("vol-1")], None),
            (&[(EBS, 1)], vec![disk("vol-2")], vec![ebs.clone()], Some(FULL)),
            (&[(EBS, 1)], vec![ebs], vec![old], Some(FULL)),
        ] {
            let mut world = world(limits, &used);
            let pod = world.pod("p", &json!(asked));
            assert_eq!(world.decide(&pod).err().as_deref(), expected, "{used:?} {asked:?}");
        }
    }

    #[test]
    fn a_plugins_disks_count_where_its_driver_is_at_work() {
        const PORTWORX: &str = "pxd.portworx.com";
        for (migrated, expected) in [("", None), ("kubernetes.io/portworx-volume", Some(FULL))] {
            let disk = |id: &str| json!({"portworxVolume": {"volumeID": id}});
            let mut world = world(&[], &[disk("a")]);
            let plugins = json!({"storage.alpha.kubernetes.io/migrated-plugins": migrated});
            world.drivers("n", &[(PORTWORX, 1)], &json!({"metadata": {"annotations": plugins}}));
            world.volume(
                "p",
                &json!({"spec": {"csi": {"driver": PORTWORX, "volumeHandle": "p"}}}),
            );
            world.bound("p", "p", &json!({}));
            for asked in [of_claim("p"), disk("b")] {
                let pod = world.pod("p", &json!([asked]));
                assert_eq!(world.decide(&pod).err().as_deref(), expected, "{migrated} {asked}");
            }
        }
    }

    #[test]
    fn what_is_attached_counts_and_what_changes_is_counted_anew() {
        let mut world = world(&[("d", 2)], &[of_claim("x")]);
        let pod = world.pod_with("p", &["y"]);
        let attached = |world: &mut World, name: &str, volume: &str| {
            let spec = json!({"nodeName": "n", "attacher": "d", "source": {"persistentVolumeName": volume}});
            let raw = world.raw(json!({"metadata": {"name": name}, "spec": spec}), &json!({}));
            world.cluster.volumes.set_attachment(&raw);
            raw
        };
        attached(&mut world, "a", "x");
        assert!(world.decide(&pod).is_ok(), "its pod is counted");
        let late = attached(&mut world, "b", "z");
        assert!(world.decide(&pod).is_ok(), "nobody knows the volume");
        world.volume("z", &csi("z"));
        assert_eq!(world.decide(&pod).unwrap_err(), FULL);
        world.cluster.volumes.remove_attachment(&late);
        assert!(world.decide(&pod).is_ok());
        world.drivers("n", &[("d", 1)], &json!({}));
        assert_eq!(world.decide(&pod).unwrap_err(), FULL);
        // The claim of the pod that is there gets the same volume.
        world.bound("x", "y", &json!({}));
        world
            .cluster
            .volumes
            .remove_attachment(&attached(&mut World::default(), "a", "x"));
        assert!(world.decide(&pod).is_ok());
        world.bound("x", "x", &json!({}));
        assert_eq!(world.decide(&pod).unwrap_err(), FULL);
        world.cluster.remove("u");
        assert!(world.decide(&pod).is_ok());
    }

    #[test]
    fn a_trial_frees_what_its_pods_use() {
        let mut world = world(&[("d", 1)], &[of_claim("x")]);
        let pod = world.pod_with("p", &["y"]);
        assert_eq!(world.decide(&pod).unwrap_err(), FULL);
        let user = world.cluster.find("n").unwrap().pods[0].clone();
        let PreFilter::Check(filter) = NodeVolumeLimits.pre_filter(&pod, &world.cluster) else {
            panic!("nothing to check");
        };
        let mut node = world.cluster.find("n").unwrap().clone();
        let mut trial = filter.trial().unwrap();
        assert!(trial.check(&node).is_some());
        node.remove(&user.uid);
        trial.change(&user, &node, -1);
        assert!(trial.check(&node).is_none());
        node.add(user.clone());
        trial.change(&user, &node, 1);
        assert!(trial.check(&node).is_some());
    }

    #[test]
    fn a_trial_counts_as_the_node_would_be_counted() {
        let mut world = world(&[("d", 9)], &[of_claim("x")]);
        let attached = json!({"nodeName": "n", "attacher": "d", "source": {"persistentVolumeName": "y"}});
        let raw = world.raw(json!({"metadata": {"name": "a"}, "spec": attached}), &json!({}));
        world.cluster.volumes.set_attachment(&raw);
        let pods = [
            world.pod_with("p", &["y"]),
            world.pod_with("q", &["x", "y"]),
            world.pod_with("r", &["also-x", "new", "ebs"]),
        ];
        let mut node = world.cluster.find("n").unwrap().clone();
        let volumes = &world.cluster.volumes;
        let (mut uses, csi) = (volumes.uses(&node), node.csi.clone());
        for (pod, comes) in [
            (0, true),
            (1, true),
            (2, true),
            (1, false),
            (0, false),
            (2, false),
            (1, true),
        ] {
            let pod = &pods[pod];
            match comes {
                true => node.add(pod.clone()),
                false => drop(node.remove(&pod.uid)),
            }
            volumes.change_uses(&mut uses, pod.volumes.as_deref().unwrap(), csi.as_deref(), comes);
            let expected = volumes.attached(&node);
            for driver in ["d", EBS] {
                assert_eq!(uses.count(driver), expected.count(driver), "{}: {comes}", pod.name);
            }
            for own in pods
                .iter()
                .flat_map(|pod| volumes.counted_of(pod.volumes.as_deref().unwrap()))
            {
                assert_eq!(uses.uses(&own), expected.uses(&own), "{own:?}");
            }
        }
    }

    #[test]
    fn what_may_make_room_is_worth_another_try() {
        let mut world = world(&[], &[]);
        let [plain, claims, disks] =
            [json!([]), json!([of_claim("x")]), json!([disk("e")])].map(|volumes| world.pod("p", &volumes));
        let now = world.cluster.volumes.claim("d/x").unwrap();
        let claim = |key| Change::Claim { key, before: None, now };
        for (pod, change, expected) in [
            (&claims, Change::PodGone(&plain), false),
            (&claims, Change::PodGone(&claims), true),
            (&claims, Change::PodGone(&disks), true),
            (&claims, claim("d/x"), true),
            (&claims, claim("d/y"), false),
            (&claims, Change::Detached("d"), true),
            (&disks, Change::Detached("d"), false),
            (&disks, Change::Detached(EBS), true),
        ] {
            let kinds = change.kinds();
            assert_eq!(
                NodeVolumeLimits.helps(pod, &change, &world.cluster),
                expected,
                "{kinds}"
            );
            assert!(NodeVolumeLimits.wakes_on() & kinds != 0, "{kinds}");
        }
    }
}
