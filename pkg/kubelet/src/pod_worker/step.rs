//! The worker's jobs: what each is called, and what it answers. Every job ends with an answer, a lost one's is its failure;
//! all end with the worker.

use futures::FutureExt as _;
use mk8s_containerd::{Image, Task};

use k8s_openapi::api::core::v1::Pod;

use super::PodWorker;
use crate::containers::Stopped;
use crate::record::{Exit, Instance};
use crate::sandbox::{Created, Unconfirmed};
use crate::status::writer;
use crate::volumes::{self, Paths};
use crate::{containers, images, runtime, sandbox};

/// A job's key: what it is for, so that a late answer is known for what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Volumes,
    Sandbox {
        id: String,
    },
    BeginSandbox {
        id: String,
    },
    RemoveSandbox,
    Cgroup,
    Image {
        container: String,
    },
    Start {
        container: String,
        id: String,
    },
    Undo {
        container: String,
        id: String,
    },
    Stop {
        container: String,
        id: String,
    },
    /// The last words of a container that ended.
    End {
        container: String,
        id: String,
    },
    /// Whether something still runs of which an event may have been missed.
    Look {
        id: String,
    },
    TearDown,
    Forget,
    WriteStatus,
    DeleteFromApi,
    /// Runs beside the pod and has nothing to answer: a probe, the upkeep of a volume.
    Beside(&'static str),
}

#[derive(Debug)]
pub enum Outcome {
    Volumes(Result<Paths, volumes::Error>),
    Sandbox(Result<Created, sandbox::Error>),
    SandboxBegun(Result<(), runtime::Error>),
    SandboxRemoved(Result<(), Unconfirmed>),
    Sized(Result<(), runtime::Error>),
    /// None: the pod ends, nobody waits for it any more.
    Image(Option<Result<Image, images::Failure>>),
    Started(Box<Result<Instance, containers::Failure>>),
    Undone(Result<(), runtime::Error>),
    Stopped(Stopped),
    Ended(Exit),
    Looked(Result<Option<Task>, runtime::Error>),
    TornDown(Result<(), Unconfirmed>),
    Forgotten(Result<(), Unconfirmed>),
    Written(Result<Box<Pod>, writer::Error>),
    DeletedFromApi,
    Nothing,
}

impl PodWorker {
    pub(super) fn job<F>(&self, step: Step, work: F)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        // Boxed: one kind of task for all of a pod's steps.
        self.jobs.spawn("pod-step", step, work.boxed());
    }
}
