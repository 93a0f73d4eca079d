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
    #[error("cannot read /proc/self/mountinfo: {0}")]
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
    hierarchy: Hierarchy,
}

/// `/kubepods/burstable/pod<uid>`: guaranteed pods stand directly below `/kubepods`.
pub fn pod_path(class: Class, uid: &str) -> String {
    match class {
        Class::Guaranteed => format!("/kubepods/pod{uid}"),
        Class::Burstable => format!("/kubepods/burstable/pod{uid}"),
        Class::BestEffort => format!("/kubepods/besteffort/pod{uid}"),
    }
}

fn hierarchy_of(mountinfo: &str) -> Option<Hierarchy> {
    let mut controllers = Vec::new();
    let mut unified = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let Some(mount_point) = left.split(' ').nth(4) else {
            continue;
        };
        let mut fields = right.split(' ');
        let (kind, options) = (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
        match kind {
            "cgroup2" => {
                unified.get_or_insert_with(|| PathBuf::from(mount_point));
            }
            "cgroup" => {
                for controller in options.split(',') {
                    if !controllers.iter().any(|(c, _)| c == controller) {
                        controllers.push((controller.to_owned(), PathBuf::from(mount_point)));
                    }
                }
            }
            _ => {}
        }
    }
    if controllers
        .iter()
        .any(|(c, _)| c == "memory" || c == "cpu" || c == "pids")
    {
        return Some(Hierarchy::V1(controllers));
    }
    unified.map(Hierarchy::V2)
}

impl Cgroups {
    pub fn detect() -> Result<Self, Error> {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").map_err(Error::Mounts)?;
        Ok(Self {
            hierarchy: hierarchy_of(&mountinfo).ok_or(Error::NotMounted)?,
        })
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

    fn roots(&self) -> Vec<&Path> {
        match &self.hierarchy {
            Hierarchy::V1(list) => {
                let mut roots: Vec<&Path> = list.iter().map(|(_, p)| p.as_path()).collect();
                roots.dedup();
                roots
            }
            Hierarchy::V2(root) => vec![root],
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
        let class = qos::class(pod);
        let path = pod_path(class, pod::uid(pod));
        self.ensure(&path, &qos::pod_limits(pod, class))?;
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

    /// Removes the pod's cgroup with what is left below it, in every hierarchy.
    pub fn remove(&self, path: &str) {
        for root in self.roots() {
            remove_tree(&join(root, path));
        }
    }

    /// Pods that have a cgroup: (class path, uid).
    pub fn pods(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let Some(root) = self.controller("memory").or_else(|| self.controller("cpu")) else {
            return found;
        };
        for parent in ["/kubepods", "/kubepods/burstable", "/kubepods/besteffort"] {
            let Ok(entries) = std::fs::read_dir(join(root, parent)) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name();
                if let Some(uid) = name.to_str().and_then(|n| n.strip_prefix("pod")) {
                    found.push((format!("{parent}/pod{uid}"), uid.to_owned()));
                }
            }
        }
        found
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

/// In v2 a parent hands controllers down one by one; one that isn't there is skipped.
fn enable_controllers(dir: &Path) {
    for controller in V2_CONTROLLERS {
        let _ = std::fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn remove_tree(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    if let Err(error) = std::fs::remove_dir(dir) {
        tracing::debug!(path = %dir.display(), %error, "cgroup stays for now");
    }
}

#[cfg(test)]
mod tests {
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
        let v1 = "31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                  32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                  33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        assert!(
            matches!(hierarchy_of(v1), Some(Hierarchy::V1(list)) if list.iter().any(|(c, p)| c == "memory" && p.ends_with("memory")))
        );
        let v2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
        assert!(matches!(hierarchy_of(v2), Some(Hierarchy::V2(root)) if root == Path::new("/sys/fs/cgroup")));
        assert!(hierarchy_of("1 2 0:1 / / rw - ext4 /dev/vda rw").is_none());
    }
}
