//! What a kind of volume has to be able to do. The manager keeps the records and calls; a driver acts. Adding a kind is one
//! row in `DRIVERS`.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::record::{Record, Step};
use super::{Error, PodDir, empty_dir, from_api, hostpath};

/// A volume that a pod asks for.
pub struct Request<'a> {
    pub pod: &'a Arc<Pod>,
    pub volume: &'a Volume,
    pub dir: &'a PodDir,
}

/// All calls block, may be repeated at any time, and then change nothing that is as it should be.
pub trait Driver: Send + Sync {
    /// `kubernetes.io~NAME`, the name of its folder in a pod's `volumes`.
    fn plugin(&self) -> &'static str;

    fn claims(&self, volume: &Volume) -> bool;

    fn steps(&self) -> &'static [Step] {
        &[Step::Publish]
    }

    /// Whether what it makes is still there after a power cut.
    fn is_durable(&self, volume: &Volume) -> bool;

    /// Whether containers may write to it where the pod doesn't say otherwise.
    fn is_writable(&self) -> bool {
        true
    }

    /// Takes the step, and notes in the record what undoing it needs. `record.is_done(step)`: it was taken before.
    fn ensure(&self, step: Step, request: &Request<'_>, record: &mut Record) -> Result<(), Error>;

    /// Undoes a step that may have been taken wholly, partly or not at all. Only what the driver made may go.
    fn undo(&self, step: Step, dir: &PodDir, volume: &str, record: &Record) -> Result<(), Error>;

    /// Where containers find it once it is published.
    fn path(&self, request: &Request<'_>) -> PathBuf {
        request.dir.volume(self.plugin(), &request.volume.name)
    }
}

pub static DRIVERS: &[&dyn Driver] = &[
    &hostpath::HostPath,
    &from_api::CONFIG_MAP,
    &from_api::SECRET,
    &from_api::DOWNWARD_API,
    &from_api::PROJECTED,
    &empty_dir::EmptyDir,
];

/// The driver of a volume's kind, if this version of mk8s has it.
pub fn of(volume: &Volume) -> Option<&'static dyn Driver> {
    DRIVERS.iter().copied().find(|driver| driver.claims(volume))
}
