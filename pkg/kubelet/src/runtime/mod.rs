//! All that the pods' workers do to the node, in one trait: containerd's tasks and containers, the pod network, the cgroups.
//! `Node` is the real thing, `fake` one that records its calls and fails at will, so that each order of failures is a test.
//!
//! Every call may be made again: what is gone already has been removed, what is there already has been made.

#[cfg(test)]
pub mod fake;
mod node;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use mk8s_containerd::{
    Accounts, Container, ContainerSpec, ExecOutput, Exit, Image, Keychain, PullError, Task, TaskStatus,
};
use mk8s_network::{Attaching, PodAddress};

pub use node::Node;

pub type Call<'a, T> = BoxFuture<'a, Result<T, Error>>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Containerd(#[from] mk8s_containerd::Error),
    #[error(transparent)]
    Pull(#[from] PullError),
    #[error("network: {0}")]
    Network(#[from] mk8s_network::Error),
    #[error("the pod network is not open")]
    NetworkNotOpen,
    #[error("the pod's network was not begun by this runtime")]
    NotBegun,
    #[error(transparent)]
    Cgroup(#[from] crate::resources::cgroup::Error),
    #[error(transparent)]
    Job(#[from] mk8s_supervisor::JobError),
}

impl Error {
    /// No answer: what was asked for may have happened, or may yet happen.
    pub fn leaves_doubt(&self) -> bool {
        match self {
            Error::Containerd(error) => error.is_timeout() || error.is_unavailable(),
            Error::Job(_) => true,
            Error::Pull(_) | Error::Network(_) | Error::NetworkNotOpen | Error::NotBegun | Error::Cgroup(_) => false,
        }
    }
}

/// A container of ours as containerd has it, and its task.
#[derive(Clone, Debug)]
pub struct Found {
    pub id: String,
    pub labels: HashMap<String, String>,
    /// Name of the image record that it was made from.
    pub image: String,
    pub created_at: SystemTime,
    pub task: Option<Task>,
}

impl Found {
    pub fn new(container: Container, task: Option<Task>) -> Self {
        Self {
            id: container.id,
            labels: container.labels,
            image: container.image,
            created_at: container.created_at,
            task,
        }
    }

    pub fn label(&self, key: &str) -> &str {
        self.labels.get(key).map(String::as_str).unwrap_or_default()
    }

    pub fn attempt(&self) -> u32 {
        self.label(crate::names::ATTEMPT).parse().unwrap_or(0)
    }

    pub fn is_sandbox(&self) -> bool {
        self.label(crate::names::KIND) == crate::names::SANDBOX
    }

    /// Its first process was begun and has not ended. A task that is only created waits before its exec.
    pub fn runs(&self) -> bool {
        let status = self.task.as_ref().map(|t| t.status);
        matches!(
            status,
            Some(TaskStatus::Running | TaskStatus::Paused | TaskStatus::Unknown)
        )
    }

    /// A crash came between its creation and its start, or before either: it never ran.
    pub fn only_created(&self) -> bool {
        self.task.as_ref().is_some_and(|t| t.status == TaskStatus::Created)
    }
}

/// A container that was just created: its task is made from what only its maker knows.
#[derive(Debug)]
pub struct Made {
    pub id: String,
    container: Option<Container>,
}

/// A pod's address and network namespace, to which nothing leads yet: that takes what only its maker knows.
pub struct Attached {
    pub address: PodAddress,
    /// None: of the fake, whose networks have no second half.
    begun: Option<Attaching>,
}

pub trait Runtime: Send + Sync + 'static {
    /// None: containerd has none of that name.
    fn image<'a>(&'a self, name: &'a str) -> Call<'a, Option<Image>>;
    fn pull<'a>(&'a self, name: &'a str, keychain: &'a Keychain) -> BoxFuture<'a, Result<Image, PullError>>;
    /// The image's own users and groups.
    fn accounts<'a>(&'a self, image: &'a Image) -> Call<'a, Arc<Accounts>>;
    /// The image of the process that holds a sandbox.
    fn pause_image(&self) -> Call<'_, Image>;

    /// What runs containers under this RuntimeClass handler, '' being that of pods without a class; None: nothing does.
    fn oci_runtime<'a>(&'a self, handler: &'a str) -> Call<'a, Option<mk8s_containerd::Runtime>>;
    fn create(&self, spec: ContainerSpec) -> Call<'_, Made>;
    /// Makes namespaces, cgroup and mounts; the process waits before its exec. Answers its pid.
    fn create_task<'a>(&'a self, made: &'a Made) -> Call<'a, u32>;
    fn start_task<'a>(&'a self, id: &'a str) -> Call<'a, ()>;
    fn kill<'a>(&'a self, id: &'a str, signal: i32, all: bool) -> Call<'a, ()>;
    /// Resolves when the task has ended; None: there is no such task.
    fn wait<'a>(&'a self, id: &'a str) -> Call<'a, Option<Exit>>;
    /// None: there is no such task.
    fn task<'a>(&'a self, id: &'a str) -> Call<'a, Option<Task>>;
    /// Ends the task if it runs, and takes it away; Ok: it is surely gone.
    fn delete_task<'a>(&'a self, id: &'a str) -> Call<'a, Option<Exit>>;
    /// Task, record, snapshot and streams; Ok: they are surely gone.
    fn delete<'a>(&'a self, id: &'a str) -> Call<'a, ()>;
    /// What containerd has of one pod.
    fn containers_of<'a>(&'a self, uid: &'a str) -> Call<'a, Vec<Found>>;
    fn exec<'a>(&'a self, id: &'a str, command: &'a [String], limit: Duration) -> Call<'a, ExecOutput>;

    /// Whether the node has a network, which needs its pod range.
    fn network_is_open(&self) -> bool;
    /// Resolves when it has.
    fn until_network_is_open(&self) -> BoxFuture<'_, ()>;
    /// Whether the pod has a network namespace: while the node's network is not open, one of an earlier agent's.
    fn has_network(&self, uid: &str) -> bool;
    /// Gives the pod an address and a network namespace.
    fn attach<'a>(&'a self, uid: &'a str) -> Call<'a, Attached>;
    /// Makes the way there. Err: the pod has neither any more.
    fn connect(&self, attached: Attached) -> Call<'_, ()>;
    /// Gives them back; Ok: they are surely gone.
    fn detach<'a>(&'a self, uid: &'a str) -> Call<'a, ()>;

    /// Answers the cgroup's path.
    fn ensure_cgroup<'a>(&'a self, pod: &'a Arc<Pod>) -> Call<'a, String>;
    /// Whatever its class was.
    fn remove_cgroup<'a>(&'a self, uid: &'a str) -> Call<'a, ()>;
    fn oom_killed(&self, cgroup: &str) -> bool;
}
