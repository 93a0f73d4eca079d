//! The pod's cgroup: names as every node agent gives them (monitoring finds pods by them), on cgroup v1 and v2 alike.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use super::qos::{self, CPU_PERIOD, Class, Limits};
use crate::pod;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot read the table of mounts: {0}")]
    Mounts(std::io::Error),
    #[error("no cgroup hierarchy is mounted on this host")]
    NotMounted,
}

/// v1's controllers that a pod's cgroup is made in; the others (devices, freezer …) runc makes below them on its own.
const V1_CONTROLLERS: &[&str] = &["cpu", "memory", "pids"];
const V2_CONTROLLERS: &[&str] = &["cpu", "memory", "pids", "cpuset", "io"];

#[derive(Clone, Debug)]
pub enum Hierarchy {
    /// One mount point per controller; a mount that serves two stands here twice.
    V1(Vec<(String, PathBuf)>),
    V2(PathBuf),
}

#[derive(Clone, Debug)]
pub struct Cgroups {
    /// Where limits are set.
    hierarchy: Hierarchy,
    /// Where cgroups are: on a host with both versions a runtime makes each in v1's hierarchies and in v2's.
    roots: Vec<PathBuf>,
}

/// `/kubepods/burstable/pod<uid>`: guaranteed pods stand directly below `/kubepods`.
pub fn pod_path(class: Class, uid: &str) -> String {
    match class {
        Class::Guaranteed => format!("/kubepods/pod{uid}"),
        Class::Burstable => format!("/kubepods/burstable/pod{uid}"),
        Class::BestEffort => format!("/kubepods/besteffort/pod{uid}"),
    }
}

/// A mount of a cgroup file system.
struct CgroupMount<'a> {
    point: PathBuf,
    is_v2: bool,
    /// v1's.
    controllers: Vec<&'a str>,
}

fn cgroup_mounts(mountinfo: &str) -> impl Iterator<Item = CgroupMount<'_>> {
    mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = right.split(' ');
        let (kind, options) = (fields.next()?, fields.nth(1).unwrap_or_default());
        let is_v2 = kind == "cgroup2";
        (is_v2 || kind == "cgroup").then_some(CgroupMount {
            point: PathBuf::from(left.split(' ').nth(4)?),
            is_v2,
            controllers: options.split(',').collect(),
        })
    })
}

fn cgroups_of(mountinfo: &str) -> Option<Cgroups> {
    let mut controllers: Vec<(String, PathBuf)> = Vec::new();
    let mut unified = None;
    let mut roots = Vec::new();
    for mount in cgroup_mounts(mountinfo) {
        roots.push(mount.point.clone());
        if mount.is_v2 {
            unified.get_or_insert(mount.point);
            continue;
        }
        for controller in mount.controllers {
            if !controllers.iter().any(|(c, _)| c == controller) {
                controllers.push((controller.to_owned(), mount.point.clone()));
            }
        }
    }
    let v1 = controllers.iter().any(|(c, _)| V1_CONTROLLERS.contains(&c.as_str()));
    let hierarchy = if v1 {
        Hierarchy::V1(controllers)
    } else {
        Hierarchy::V2(unified?)
    };
    Some(Cgroups { hierarchy, roots })
}

impl Cgroups {
    pub fn detect() -> Result<Self, Error> {
        // As text: another mount's name that is none concerns nobody here.
        let mountinfo = std::fs::read("/proc/thread-self/mountinfo").map_err(Error::Mounts)?;
        cgroups_of(&String::from_utf8_lossy(&mountinfo)).ok_or(Error::NotMounted)
    }

    pub fn is_v2(&self) -> bool {
        matches!(self.hierarchy, Hierarchy::V2(_))
    }

    fn controller(&self, name: &str) -> Option<&Path> {
        match &self.hierarchy {
            Hierarchy::V1(list) => list.iter().find(|(c, _)| c == name).map(|(_, p)| p.as_path()),
            Hierarchy::V2(root) => Some(root),
        }
    }

    /// The tree above the pods: made at start; `shares` of the node for all pods together.
    pub fn ensure_base(&self, allocatable_milli_cpu: i64) -> Result<(), Error> {
        self.ensure(
            "/kubepods",
            &Limits {
                shares: Some(qos::shares(allocatable_milli_cpu)),
                ..Limits::default()
            },
        )?;
        self.ensure(
            "/kubepods/burstable",
            &Limits {
                shares: Some(2),
                ..Limits::default()
            },
        )?;
        self.ensure(
            "/kubepods/besteffort",
            &Limits {
                shares: Some(2),
                ..Limits::default()
            },
        )
    }

    /// Burstable pods together weigh what they ask for together.
    pub fn set_burstable_shares(&self, milli_cpu: i64) -> Result<(), Error> {
        self.apply(
            "/kubepods/burstable",
            &Limits {
                shares: Some(qos::shares(milli_cpu)),
                ..Limits::default()
            },
        )
    }

    pub fn ensure_pod(&self, pod: &Pod) -> Result<String, Error> {
        let path = pod_path(qos::class(pod), pod::uid(pod));
        self.ensure(&path, &qos::pod_limits(pod))?;
        Ok(path)
    }

    fn ensure(&self, path: &str, limits: &Limits) -> Result<(), Error> {
        match &self.hierarchy {
            Hierarchy::V1(list) => {
                for (_, root) in list.iter().filter(|(c, _)| V1_CONTROLLERS.contains(&c.as_str())) {
                    make(&join(root, path))?;
                }
            }
            Hierarchy::V2(root) => {
                let mut at = root.clone();
                for part in path.trim_start_matches('/').split('/') {
                    enable_controllers(&at);
                    at.push(part);
                    make(&at)?;
                }
            }
        }
        self.apply(path, limits)
    }

    fn apply(&self, path: &str, limits: &Limits) -> Result<(), Error> {
        match &self.hierarchy {
            Hierarchy::V1(_) => {
                if let (Some(root), Some(shares)) = (self.controller("cpu"), limits.shares) {
                    write(&join(root, path).join("cpu.shares"), &shares.to_string())?;
                }
                if let (Some(root), Some(quota)) = (self.controller("cpu"), limits.quota) {
                    write(&join(root, path).join("cpu.cfs_period_us"), &CPU_PERIOD.to_string())?;
                    write(&join(root, path).join("cpu.cfs_quota_us"), &quota.to_string())?;
                }
                if let (Some(root), Some(memory)) = (self.controller("memory"), limits.memory) {
                    write(&join(root, path).join("memory.limit_in_bytes"), &memory.to_string())?;
                }
                if let (Some(root), Some(pids)) = (self.controller("pids"), limits.pids) {
                    write(&join(root, path).join("pids.max"), &pids.to_string())?;
                }
            }
            Hierarchy::V2(root) => {
                let dir = join(root, path);
                if let Some(shares) = limits.shares {
                    write(&dir.join("cpu.weight"), &qos::weight(shares).to_string())?;
                }
                if let Some(quota) = limits.quota {
                    write(&dir.join("cpu.max"), &format!("{quota} {CPU_PERIOD}"))?;
                }
                if let Some(memory) = limits.memory {
                    write(&dir.join("memory.max"), &memory.to_string())?;
                }
                if let Some(pids) = limits.pids {
                    write(&dir.join("pids.max"), &pids.to_string())?;
                }
            }
        }
        Ok(())
    }

    /// Whether the kernel killed a process in the cgroup for want of memory.
    pub fn oom_killed(&self, path: &str) -> bool {
        let Some(root) = self.controller("memory") else {
            return false;
        };
        let dir = join(root, path);
        let file = if self.is_v2() {
            dir.join("memory.events")
        } else {
            dir.join("memory.oom_control")
        };
        let Ok(text) = std::fs::read_to_string(file) else {
            return false;
        };
        text.lines()
            .filter_map(|l| l.strip_prefix("oom_kill "))
            .any(|n| n.trim() != "0")
    }

    /// Removes a cgroup with what is left below it, in every hierarchy. One in which something still runs can't go; the
    /// others do, and the first failure is told. Blocking.
    pub fn remove(&self, path: &str) -> Result<(), Error> {
        let mut failed = None;
        for root in &self.roots {
            failed = failed.or(remove_tree(&join(root, path)).err());
        }
        failed.map_or(Ok(()), Err)
    }
}

fn join(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn make(dir: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(dir).map_err(|source| Error::Io {
        what: "create the cgroup",
        path: dir.to_owned(),
        source,
    })
}

fn write(file: &Path, text: &str) -> Result<(), Error> {
    match std::fs::write(file, text) {
        Ok(()) => Ok(()),
        // A controller that this host's hierarchy doesn't have limits nothing; the pod still runs.
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Io {
            what: "write",
            path: file.to_owned(),
            source,
        }),
    }
}

/// In v2 a parent hands controllers down; where this host lacks one of them, the others go one by one.
fn enable_controllers(dir: &Path) {
    let file = dir.join("cgroup.subtree_control");
    let all: Vec<String> = V2_CONTROLLERS
        .iter()
        .map(|controller| format!("+{controller}"))
        .collect();
    if std::fs::write(&file, all.join(" ")).is_err() {
        for controller in all {
            let _ = std::fs::write(&file, controller);
        }
    }
}

fn remove_tree(dir: &Path) -> Result<(), Error> {
    let failed = |source| Error::Io {
        what: "remove the cgroup",
        path: dir.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    for patience in PATIENCE {
        match std::fs::remove_dir(dir) {
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(patience));
            }
            removed => return removed.map_err(failed),
        }
    }
    std::fs::remove_dir(dir).map_err(failed)
}

/// Milliseconds: the kernel takes a moment to let go of a cgroup whose last process has ended.
const PATIENCE: [u64; 5] = [5, 10, 20, 40, 80];

/// The runtime removes its own at the same time.
fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names() {
        for (class, expected) in [
            (Class::Guaranteed, "/kubepods/podU"),
            (Class::Burstable, "/kubepods/burstable/podU"),
            (Class::BestEffort, "/kubepods/besteffort/podU"),
        ] {
            assert_eq!(pod_path(class, "U"), expected);
        }
    }

    #[test]
    fn hierarchies() {
        let hybrid = "31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                  32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                  33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let found = cgroups_of(hybrid).unwrap();
        assert!(!found.is_v2());
        assert_eq!(found.controller("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpu")));
        assert_eq!(found.controller("memory"), Some(Path::new("/sys/fs/cgroup/memory")));
        assert_eq!(found.roots.len(), 3);
        let v2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
        let found = cgroups_of(v2).unwrap();
        assert_eq!(found.controller("memory"), Some(Path::new("/sys/fs/cgroup")));
        assert_eq!(found.roots, [Path::new("/sys/fs/cgroup")]);
        assert!(cgroups_of("1 2 0:1 / / rw - ext4 /dev/vda rw").is_none());
    }

    /// A hybrid host: v2 is mounted beside v1's hierarchies, and a runtime makes its cgroups there too.
    #[test]
    fn every_hierarchy_is_swept() {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        mk8s_dirfd::testing::with_shared_mounts(|root| {
            let unified = root.join("unified");
            std::fs::create_dir(&unified).unwrap();
            mount(
                Some("cgroup2"),
                &unified,
                Some("cgroup2"),
                MsFlags::empty(),
                None::<&str>,
            )
            .unwrap();
            let cgroups = Cgroups::detect().unwrap();
            let path = format!("/mk8s-test-{}", std::process::id());
            let places: Vec<PathBuf> = cgroups.roots.iter().map(|root| join(root, &path)).collect();
            assert!(places.iter().any(|place| place.starts_with(&unified)));
            for place in &places {
                // v1's cpuset wants to be set up before anything may run in it; nothing does.
                std::fs::create_dir_all(place.join("burstable/pod1/container")).unwrap();
            }
            let mut sleeper = std::process::Command::new("sleep").arg("100").spawn().unwrap();
            let busy = join(&unified, &path).join("burstable/pod1/container/cgroup.procs");
            std::fs::write(busy, sleeper.id().to_string()).unwrap();
            let error = cgroups.remove(&path).unwrap_err().to_string();
            assert!(error.contains("burstable/pod1/container"), "{error}");
            let left = places.iter().filter(|place| place.exists()).count();
            // Two mounts of the same hierarchy show the one that can't go yet.
            assert!((1..=2).contains(&left), "{left}");
            sleeper.kill().unwrap();
            sleeper.wait().unwrap();
            cgroups.remove(&path).unwrap();
            assert!(!places.iter().any(|place| place.exists()));
            cgroups.remove(&path).unwrap();
            umount2(&unified, MntFlags::empty()).unwrap();
        });
    }
}
