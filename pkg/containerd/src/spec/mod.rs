//! The OCI runtime spec of a container: a pure function of what the pod asks for, the image says, and the host can do.
//!
//! The defaults are those of containerd's CRI plugin, since workloads and their authors have met no others. The types
//! here speak the kernel's words, not Kubernetes': the node agent translates a security context into them once.

pub mod accounts;
mod build;
mod capabilities;
mod devices;
mod host;
mod seccomp;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use build::{container, sandbox};
pub use host::Host;

use crate::image::ImageConfig;
use accounts::Accounts;
pub use accounts::Identity;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("no command specified")]
    NoCommand,
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
    #[error("invalid USER value {0}")]
    InvalidUser(String),
    #[error("unknown capability {0:?} to add")]
    UnknownCapability(String),
    #[error("read seccomp profile {path}: {message}")]
    SeccompProfile { path: String, message: String },
    #[error("apparmor is not supported")]
    AppArmorMissing,
    #[error("apparmor profile not found {0}")]
    AppArmorProfile(String),
    #[error("device {path}: {message}")]
    Device { path: String, message: String },
}

/// Everything about one container that its runtime spec depends on.
#[derive(Clone, Debug, Default)]
pub struct ContainerConfig {
    pub image: Arc<ImageConfig>,
    /// The image's users and groups, from [`crate::Containerd::accounts`].
    pub accounts: Arc<Accounts>,
    /// Replaces the image's entrypoint (and with it the image's cmd) unless empty.
    pub command: Vec<String>,
    /// Replaces the image's cmd unless empty.
    pub args: Vec<String>,
    /// Comes after the image's, and wins over it.
    pub env: Vec<(String, String)>,
    /// Replaces the image's.
    pub working_dir: Option<String>,
    pub tty: bool,
    /// Goes into $HOSTNAME; the UTS namespace is the sandbox's.
    pub hostname: String,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub security: Security,
    pub resources: Resources,
    /// Absolute inside the cgroup hierarchy, e.g. `/kubepods/burstable/podUID/ID`.
    pub cgroups_path: String,
    pub namespaces: Namespaces,
    pub annotations: BTreeMap<String, String>,
    /// Containers of one group share one shim process: the pod's sandbox id.
    pub shim_group: String,
}

impl ContainerConfig {
    /// Who its process will be; what a container's status shows as its user.
    pub fn identity(&self) -> Result<Identity, SpecError> {
        self.accounts.identity(&self.image.user, &self.security)
    }
}

/// Everything about one sandbox (pause) container that its runtime spec depends on.
#[derive(Clone, Debug, Default)]
pub struct SandboxConfig {
    pub image: Arc<ImageConfig>,
    /// Set in a UTS namespace of its own; `None`: the host's (hostNetwork).
    pub hostname: Option<String>,
    /// `None`: the host's network; else a namespace's path.
    pub network: Option<PathBuf>,
    pub host_ipc: bool,
    pub host_pid: bool,
    /// Bind mounted on /dev/shm: the pod's own, or the host's with host_ipc.
    pub shm: Option<PathBuf>,
    pub sysctls: BTreeMap<String, String>,
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub supplemental_groups: Vec<u32>,
    pub seccomp: Seccomp,
    pub privileged: bool,
    pub oom_score_adj: Option<i32>,
    pub cgroups_path: String,
    pub annotations: BTreeMap<String, String>,
    pub shim_group: String,
}

#[derive(Clone, Debug, Default)]
pub struct Mount {
    pub container_path: String,
    /// Exists, and is resolved by the caller; bind mounted with all below it.
    pub host_path: PathBuf,
    pub readonly: bool,
    /// Read-only all the way down (mount_setattr); needs a runtime that knows `rro`.
    pub recursive_readonly: bool,
    pub propagation: Propagation,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

#[derive(Clone, Debug)]
pub struct Device {
    pub host_path: PathBuf,
    pub container_path: String,
    /// Any of `r`, `w`, `m`.
    pub permissions: String,
}

#[derive(Clone, Debug, Default)]
pub struct Security {
    pub privileged: bool,
    /// Upper case without `CAP_`, or `ALL`.
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub run_as_user: Option<u32>,
    /// Only with a user, as CRI has it.
    pub run_as_group: Option<u32>,
    /// supplementalGroups and fsGroup.
    pub supplemental_groups: Vec<u32>,
    /// supplementalGroupsPolicy Strict: groups that the image's /etc/group gives the user are left out.
    pub strict_supplemental_groups: bool,
    pub readonly_rootfs: bool,
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    pub apparmor: AppArmor,
    /// procMount Unmasked: neither masked nor read-only paths below /proc.
    pub unmasked_proc: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    #[default]
    Unconfined,
    RuntimeDefault,
    /// A profile file in OCI's JSON form.
    Localhost(PathBuf),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AppArmor {
    /// Nothing asked for: the default profile where the host has AppArmor and containerd's profile is loaded.
    #[default]
    Unset,
    Unconfined,
    RuntimeDefault,
    Localhost(String),
}

/// Zero or empty: no such limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_shares: u64,
    /// Microseconds per period; -1: none.
    pub cpu_quota: i64,
    pub cpu_period: u64,
    pub memory_limit: i64,
    pub pids_limit: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub oom_score_adj: Option<i32>,
    /// cgroup v2 only: file name to content.
    pub unified: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    /// The sandbox's pid; its network, IPC and UTS namespaces are joined.
    pub sandbox_pid: u32,
    pub host_network: bool,
    pub host_ipc: bool,
    pub pid: PidNamespace,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PidNamespace {
    /// Its own.
    #[default]
    Container,
    Host,
    /// That of this process: the sandbox's (shareProcessNamespace) or a target container's.
    Of(u32),
}
