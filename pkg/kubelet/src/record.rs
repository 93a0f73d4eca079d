//! What the node knows of one pod: the memory of its worker, read by `plan` and `status`. Rebuilt at start from
//! containerd's labels and from the small files below the pod's directory (`persist`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::resize::Refused;
use crate::resources::qos::Limits;
use crate::{containers, images};

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
    /// What its image asks to be stopped with; None in the record of an earlier version.
    #[serde(default)]
    pub stop_signal: Option<String>,
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
        failure: images::Failure,
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
    /// The sandbox that it runs in is no more.
    SandboxChanged,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Activity {
    #[default]
    Idle,
    /// From the decision to start until the postStart hook is done.
    Starting,
    Killing(KillReason),
    /// Nobody knows whether a start came off (containerd did not answer in time): before anything else it is taken back.
    Doubtful(containers::Failure),
    Undoing(containers::Failure),
}

/// Something that has to come off and did not: when it is tried again, and how often it was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    pub tries: u32,
    pub retry_at: Timestamp,
}

/// Between tries of what must come off: a removal, a stop. containerd's coming back is heard sooner.
const STUCK_FIRST: Duration = Duration::from_secs(1);
const STUCK_MAX: Duration = Duration::from_secs(30);

impl Stuck {
    /// After one more failure.
    pub fn again(before: Option<&Stuck>, now: Timestamp) -> Self {
        let tries = before.map_or(0, |s| s.tries);
        let delay = STUCK_FIRST.saturating_mul(1 << tries.min(5)).min(STUCK_MAX);
        Self {
            tries: tries + 1,
            retry_at: now.checked_add(delay).unwrap_or(Timestamp::MAX),
        }
    }
}

/// Why the last start failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    pub kind: containers::FailureKind,
    pub message: String,
    pub at: Timestamp,
    /// It came to an instance: then that one's end says when the next try is.
    pub left_instance: bool,
}

/// What the probes last said of the running instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub started: bool,
    pub ready: bool,
    pub live_failed: bool,
    pub startup_failed: bool,
    /// Its postStart hook failed: it has to end.
    pub hook_failed: bool,
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
    pub start_error: Option<StartError>,
    /// It could not be ended, or a start not be taken back, or not yet surely.
    pub stuck: Option<Stuck>,
    /// The exit for which a BackOff event was written already.
    pub announced: Option<String>,
}

impl ContainerRecord {
    pub fn running(&self) -> bool {
        self.current.as_ref().is_some_and(Instance::running)
    }

    /// Something of it may run, or have run.
    pub fn begun(&self) -> bool {
        self.current.is_some() || self.activity != Activity::Idle
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
    /// containerd's name for what runs it; '' is containerd's default.
    #[serde(default)]
    pub handler: String,
}

/// ```text
/// Absent ─▶ Creating ─▶ Ready ─(pause ended)─▶ Dead ─▶ Removing ─▶ Absent, or Gone where the pod ends
///   ▲          └▶ Failed ─(retry)─▶ Creating             │  ▲
///   └────────────────────────────────────────────────────┘  └─(retry)─ Stuck
/// ```
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
    /// The pause process ended by itself.
    Dead,
    /// Again, where it did not come off before.
    Removing(Option<Stuck>),
    /// Not all of it is surely gone.
    Stuck(Stuck),
    /// The pod is over; there will be no other.
    Gone,
}

/// What the pod's cgroup has. Who makes a sandbox writes it first: from then on it counts as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum CgroupStep {
    /// As an earlier run of the agent left it.
    #[default]
    Unknown,
    Written(Limits),
    /// Again, where it did not come off before.
    Writing(Limits, Option<Stuck>),
    Stuck(Stuck),
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
    TearingDown(Option<Stuck>),
    /// Something is still in them, or mounted on them.
    Stuck(Stuck),
    Gone,
}

/// The last step: what is left of a pod that the API has no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ForgetStep {
    #[default]
    Pending,
    Forgetting(Option<Stuck>),
    Stuck(Stuck),
    Forgotten,
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
    /// The field for which the pod waits: what it asks for is not done here yet.
    pub held_by: Option<String>,
    /// What containers ask for and do not get.
    pub resize_held: Refused,
    /// The ephemeral containers of which it was said that they wait.
    pub ephemeral_held: BTreeSet<String>,
    /// Refused at admission, or over its deadline: phase Failed with this reason.
    pub verdict: Option<Verdict>,
    pub start_time: Option<Timestamp>,
    pub sandbox: SandboxStep,
    /// Sandboxes so far: the next one's attempt.
    pub sandboxes: u32,
    /// When the last one ended by itself, and how long the next one waits for that.
    pub sandbox_died_at: Option<Timestamp>,
    pub sandbox_crash: Option<Backoff>,
    pub cgroup: CgroupStep,
    pub volumes: VolumesStep,
    pub containers: BTreeMap<String, ContainerRecord>,
    /// The API has the pod no more: somebody else removed it, or this node did at the end.
    pub gone: bool,
    /// The API has been asked to remove the pod.
    pub delete_asked: bool,
    pub forget: ForgetStep,
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

    /// A container or sandbox may run that nobody was told of yet.
    pub fn begins_something(&self) -> bool {
        let begins = |r: &ContainerRecord| !matches!(r.activity, Activity::Idle | Activity::Killing(_));
        self.sandbox == SandboxStep::Creating || self.containers.values().any(begins)
    }

    /// containerd is back: what was stuck for want of it is tried now.
    pub fn retry_now(&mut self, now: Timestamp) {
        if let SandboxStep::Failed { retry_at, .. } = &mut self.sandbox {
            *retry_at = (*retry_at).min(now);
        }
        let steps = [
            match &mut self.sandbox {
                SandboxStep::Stuck(stuck) => Some(stuck),
                _ => None,
            },
            match &mut self.volumes {
                VolumesStep::Stuck(stuck) => Some(stuck),
                _ => None,
            },
            match &mut self.forget {
                ForgetStep::Stuck(stuck) => Some(stuck),
                _ => None,
            },
        ];
        let containers = self.containers.values_mut().filter_map(|r| r.stuck.as_mut());
        for stuck in steps.into_iter().flatten().chain(containers) {
            stuck.retry_at = stuck.retry_at.min(now);
        }
    }
}
