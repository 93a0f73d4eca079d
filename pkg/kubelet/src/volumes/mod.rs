//! The pod's volumes: made before its containers, kept up to date while they run, removed after them.
//!
//! `Volumes` is the node's manager: it writes down each step before it is taken (`record`) and calls the kind's driver
//! (`driver`). Taking down needs nothing but what is on disk, says what stands in its way, and may be asked for again.

pub mod atomic;
pub mod driver;
mod empty_dir;
mod folder;
mod from_api;
pub mod hostpath;
pub mod live;
mod manager;
pub mod payload;
mod record;
pub mod subpath;
mod tmpfs;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::pod;
use mk8s_dirfd::Dir;

pub use manager::Volumes;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Dir(#[from] mk8s_dirfd::Error),
    #[error(transparent)]
    Atomic(#[from] atomic::Error),
    #[error(transparent)]
    HostPath(#[from] hostpath::Error),
    #[error(transparent)]
    Payload(#[from] payload::Error),
    #[error(transparent)]
    SubPath(#[from] subpath::Error),
    #[error("volume {0:?} is of a kind that is not in this version of mk8s")]
    Kind(String),
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    SetUp { volume: String, source: Box<Error> },
    #[error("the pod's volumes are being removed")]
    Closed,
    #[error("a step of one of the pod's volumes does not return: a hostPath on a server that is gone, most likely")]
    Hangs,
    #[error(transparent)]
    Job(#[from] mk8s_supervisor::job::JobError),
}

/// Where a pod keeps its things below the agent's root. Files there are reached by `open`, through no link; the paths are
/// for who is told where to find them.
#[derive(Clone, Debug)]
pub struct PodDir {
    root: Arc<Dir>,
    below: PathBuf,
}

impl PodDir {
    pub fn path(&self) -> PathBuf {
        self.root.path().join(&self.below)
    }

    pub fn open(&self) -> mk8s_dirfd::Result<Dir> {
        self.root.dir(&self.below)
    }

    pub fn volume(&self, plugin: &str, name: &str) -> PathBuf {
        self.path().join("volumes").join(plugin).join(name)
    }

    pub fn etc_hosts(&self) -> PathBuf {
        self.path().join("etc-hosts")
    }

    /// Makes the directories that exist whatever the pod mounts.
    pub fn create(&self) -> mk8s_dirfd::Result<Dir> {
        let (dir, _) = self.root.ensure_dir(&self.below, 0o750)?;
        for name in ["volumes", "plugins", "containers"] {
            dir.ensure_dir(name, 0o750)?;
        }
        Ok(dir)
    }
}

/// Volumes whose content comes from the API and so may change while the pod runs.
pub fn is_live(volume: &Volume) -> bool {
    driver::of(volume).is_some_and(|driver| !driver.is_writable())
}

/// Name of the volume → path on the host.
pub type Paths = BTreeMap<String, PathBuf>;

pub fn fs_group(pod: &Pod) -> Option<u32> {
    pod::spec(pod)
        .security_context
        .as_ref()
        .and_then(|s| s.fs_group)
        .and_then(|g| u32::try_from(g).ok())
}

/// Whether containers may write to the pod's volume of this name.
pub fn is_writable(pod: &Pod, volume: &str) -> bool {
    let found = pod::spec(pod).volumes.iter().flatten().find(|v| v.name == volume);
    found.and_then(driver::of).is_none_or(driver::Driver::is_writable)
}
