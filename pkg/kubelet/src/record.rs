//! What the node knows of one pod: the memory of its worker, read by `plan` and `status`. Rebuilt at start from
//! containerd's labels and from the small files below the pod's directory (`persist`).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub code: i32,
    pub reason: String,
    pub message: String,
    pub finished_at: Timestamp,
}

/// One life of a container: each restart is a new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub id: String,
    /// The sandbox it ran in: init containers run again in a new one.
    pub sandbox: String,
    /// How often the container had been restarted before.
    pub attempt: u32,
    /// As the pod named it: another name later means another container.
    pub image: String,
    /// As the status shows it.
    pub image_name: String,
    pub image_id: String,
    pub started_at: Option<Timestamp>,
    pub exit: Option<Exit>,
    /// The identity it runs with.
    #[serde(default)]
    pub user: Option<User>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: i64,
    pub gid: i64,
    pub groups: Vec<i64>,
}

impl Instance {
    pub fn running(&self) -> bool {
        self.started_at.is_some() && self.exit.is_none()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum ImageStep {
    #[default]
    Needed,
    Ensuring,
    /// The worker holds it.
    Ready,
    /// `backing_off`: the retry's time isn't here yet, and that has been said.
    Failed {
        reason: &'static str,
        message: String,
        failed_at: Timestamp,
        backing_off: bool,
    },
}

/// Why a running container is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// The pod ends.
    PodEnds,
    LivenessProbe,
    StartupProbe,
    DefinitionChanged,
    PostStartHook,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Activity {
    #[default]
    Idle,
    /// From the decision to start until the postStart hook is done.
    Starting,
    Killing(KillReason),
}

/// What the probes last said of the running instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub started: bool,
    pub ready: bool,
    pub live_failed: bool,
    pub startup_failed: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerRecord {
    pub current: Option<Instance>,
    pub last: Option<Instance>,
    pub activity: Activity,
    pub image: ImageStep,
    pub health: Health,
    /// Crash back-off, and the one of the image.
    pub crash: Option<Backoff>,
    pub pull: Option<Backoff>,
    /// A start that failed before there was an instance: (reason, message, when).
    pub start_error: Option<(&'static str, String, Timestamp)>,
    /// The exit for which a BackOff event was written already.
    pub announced: Option<String>,
}

impl ContainerRecord {
    pub fn running(&self) -> bool {
        self.current.as_ref().is_some_and(Instance::running)
    }

    pub fn busy(&self) -> bool {
        self.activity != Activity::Idle || self.image == ImageStep::Ensuring
    }

    pub fn exit(&self) -> Option<&Exit> {
        self.current.as_ref().and_then(|i| i.exit.as_ref())
    }

    pub fn next_attempt(&self) -> u32 {
        self.current.as_ref().map_or(0, |i| i.attempt + 1)
    }
}

/// The pause container and the namespaces it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub pid: u32,
    /// None on the host's network.
    pub netns: Option<String>,
    pub ips: Vec<String>,
    pub cgroup: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum SandboxStep {
    #[default]
    Absent,
    Creating,
    Ready(Arc<Sandbox>),
    Failed {
        message: String,
        retry_at: Timestamp,
    },
    Removing,
    /// The pod is over; there will be no other.
    Gone,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum VolumesStep {
    #[default]
    Pending,
    Preparing,
    Ready,
    Failed {
        message: String,
        retry_at: Timestamp,
    },
    Gone,
}

/// The pod as a whole was turned away or ended by the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodRecord {
    pub admitted: bool,
    /// Refused at admission, or over its deadline: phase Failed with this reason.
    pub verdict: Option<Verdict>,
    pub start_time: Option<Timestamp>,
    pub sandbox: SandboxStep,
    /// Sandboxes so far: the next one's attempt.
    pub sandboxes: u32,
    pub volumes: VolumesStep,
    pub containers: BTreeMap<String, ContainerRecord>,
    /// Sandbox, volumes and cgroup are gone for good.
    pub torn_down: bool,
    pub removed_from_api: bool,
}

impl PodRecord {
    pub fn container(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers.get(name)
    }

    pub fn sandbox(&self) -> Option<&Arc<Sandbox>> {
        match &self.sandbox {
            SandboxStep::Ready(sandbox) => Some(sandbox),
            _ => None,
        }
    }
}
