//! What a pod mounts that has a part in where it may run: claims, and disks that it names itself. Most pods mount neither.

use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::cluster::{Migrated, migrated};

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PodVolumes {
    pub claims: Box<[ClaimUse]>,
    /// Those that two pods of a node can't have.
    pub disks: Box<[Disk]>,
    /// Disks of plugins that were in the tree once, as the drivers that do their work now name them.
    pub migrated: Box<[Migrated]>,
}

/// A claim that a pod uses.
#[derive(Debug, PartialEq, Eq)]
pub struct ClaimUse {
    /// `namespace/name`.
    pub key: Box<str>,
    /// It is made for this pod and goes with it.
    pub ephemeral: bool,
}

impl ClaimUse {
    pub fn name(&self) -> &str {
        self.key.split_once('/').map_or(&self.key, |(_, name)| name)
    }
}

/// A disk that a pod names by itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Disk {
    Gce {
        name: Box<str>,
        read_only: bool,
    },
    Ebs(Box<str>),
    Iscsi {
        iqn: Box<str>,
        read_only: bool,
    },
    Rbd {
        monitors: Box<[Box<str>]>,
        pool: Box<str>,
        image: Box<str>,
        read_only: bool,
    },
}

impl Disk {
    fn of(volume: &Volume) -> Option<Self> {
        if let Some(disk) = &volume.gce_persistent_disk {
            return Some(Disk::Gce {
                name: disk.pd_name.as_str().into(),
                read_only: disk.read_only == Some(true),
            });
        }
        if let Some(disk) = &volume.aws_elastic_block_store {
            return Some(Disk::Ebs(disk.volume_id.as_str().into()));
        }
        if let Some(disk) = &volume.iscsi {
            return Some(Disk::Iscsi {
                iqn: disk.iqn.as_str().into(),
                read_only: disk.read_only == Some(true),
            });
        }
        let disk = volume.rbd.as_ref()?;
        Some(Disk::Rbd {
            monitors: disk.monitors.iter().map(|monitor| monitor.as_str().into()).collect(),
            pool: disk.pool.as_deref().unwrap_or("rbd").into(),
            image: disk.image.as_str().into(),
            read_only: disk.read_only == Some(true),
        })
    }

    /// Whether it is the same disk, and one of the two would write.
    pub fn conflicts(&self, other: &Disk) -> bool {
        match (self, other) {
            (
                Disk::Gce { name, read_only },
                Disk::Gce {
                    name: other,
                    read_only: others,
                },
            ) => name == other && !(*read_only && *others),
            (Disk::Ebs(id), Disk::Ebs(other)) => id == other,
            (
                Disk::Iscsi { iqn, read_only },
                Disk::Iscsi {
                    iqn: other,
                    read_only: others,
                },
            ) => iqn == other && !(*read_only && *others),
            (
                Disk::Rbd {
                    monitors,
                    pool,
                    image,
                    read_only,
                },
                Disk::Rbd {
                    monitors: other_monitors,
                    pool: other_pool,
                    image: other_image,
                    read_only: others,
                },
            ) => {
                let meet = monitors.iter().any(|monitor| other_monitors.contains(monitor));
                meet && pool == other_pool && image == other_image && !(*read_only && *others)
            }
            _ => false,
        }
    }
}

impl PodVolumes {
    /// None: it mounts nothing of that.
    pub fn new(pod: &Pod) -> Option<Box<Self>> {
        let volumes = pod.spec.as_ref()?.volumes.as_deref().unwrap_or_default();
        let all = PodVolumes {
            claims: volumes.iter().filter_map(|volume| claim(pod, volume)).collect(),
            disks: volumes.iter().filter_map(Disk::of).collect(),
            migrated: volumes.iter().filter_map(migrated::of_pod).collect(),
        };
        let empty = all.claims.is_empty() && all.disks.is_empty() && all.migrated.is_empty();
        (!empty).then(|| Box::new(all))
    }

    /// Whether it uses the claim.
    pub fn uses(&self, claim: &str) -> bool {
        self.claims.iter().any(|own| *own.key == *claim)
    }
}

fn claim(pod: &Pod, volume: &Volume) -> Option<ClaimUse> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(ClaimUse {
            key: format!("{namespace}/{}", claim.claim_name).into(),
            ephemeral: false,
        });
    }
    volume.ephemeral.as_ref()?;
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    Some(ClaimUse {
        key: format!("{namespace}/{pod}-{}", volume.name).into(),
        ephemeral: true,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn volumes(volumes: &Value) -> Option<Box<PodVolumes>> {
        let pod = json!({"metadata": {"namespace": "d", "name": "p"}, "spec": {"containers": [], "volumes": volumes}});
        PodVolumes::new(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn claims_are_named_and_those_of_the_pod_after_it() {
        let all = volumes(&json!([
            {"name": "a", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "b", "ephemeral": {}},
            {"name": "e", "emptyDir": {}},
        ]));
        let all = all.unwrap();
        let named: Vec<_> = all.claims.iter().map(|own| (own.name(), own.ephemeral)).collect();
        assert_eq!(named, [("c", false), ("p-b", true)]);
        assert!(all.uses("d/c") && !all.uses("e/c"));
        assert!(volumes(&json!([{"name": "e", "emptyDir": {}}])).is_none());
    }

    #[test]
    fn a_disk_is_one_pods_unless_all_only_read() {
        let gce = |name: &str, ro: bool| json!({"gcePersistentDisk": {"pdName": name, "readOnly": ro}});
        let ebs = |id: &str| json!({"awsElasticBlockStore": {"volumeID": id, "readOnly": true}});
        let iscsi = |iqn: &str, ro: bool| json!({"iscsi": {"iqn": iqn, "lun": 0, "targetPortal": "t", "readOnly": ro}});
        let rbd = |monitors: &[&str], image: &str, ro: bool| json!({"rbd": {"monitors": monitors, "image": image, "readOnly": ro}});
        for (one, other, expected) in [
            (gce("a", true), gce("a", false), true),
            (gce("a", true), gce("a", true), false),
            (gce("a", false), gce("b", false), false),
            (ebs("a"), ebs("a"), true),
            (ebs("a"), gce("a", false), false),
            (iscsi("a", false), iscsi("a", true), true),
            (iscsi("a", true), iscsi("a", true), false),
            (rbd(&["m", "n"], "i", false), rbd(&["n"], "i", true), true),
            (rbd(&["m"], "i", false), rbd(&["n"], "i", true), false),
            (rbd(&["m"], "i", false), rbd(&["m"], "j", false), false),
            (rbd(&["m"], "i", true), rbd(&["m"], "i", true), false),
        ] {
            let disk = |mut volume: Value| {
                volume["name"] = json!("v");
                Disk::of(&serde_json::from_value(volume).unwrap()).unwrap()
            };
            let text = format!("{one} {other}");
            assert_eq!(disk(one).conflicts(&disk(other)), expected, "{text}");
        }
    }
}
