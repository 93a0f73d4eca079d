//! The one task that owns a pod: it hears what happens, asks `plan` what to do, sets the steps going, and writes the status.
//!
//! Steps that take time run as jobs of their own and report back through the mailbox, so the worker never waits for one
//! thing while another needs it. All jobs end with the worker.

mod act;
mod adopt;
mod hear;
mod report;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use mk8s_containerd::{Image, Task};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, HeldObjects, View};
use crate::record::{Exit, Instance, PodRecord, Sandbox};
use crate::status::writer;
use crate::volumes::{self, Paths};
use crate::{containers, images, pod, probes};

pub use adopt::Found;

/// What a worker hears.
#[derive(Debug)]
pub enum Message {
    /// The pod as the API now has it.
    Update(Arc<Pod>),
    /// The API has it no more.
    Gone,
    /// A container's first process ended.
    Exit {
        id: String,
        code: u32,
        at: Timestamp,
    },
    /// The kernel killed something in a container for want of memory.
    Oom {
        id: String,
    },
    /// containerd was out of reach: these are the tasks it has now.
    Reconcile(Arc<HashMap<String, Task>>),
    Probe {
        container: String,
        instance: String,
        result: probes::Report,
    },
    Sandbox(Result<Arc<Sandbox>, String>),
    SandboxRemoved,
    Volumes(Result<Paths, String>),
    /// A ConfigMap, Secret or token that a container or volume waits for may be there now.
    ObjectsChanged,
    Image {
        container: String,
        result: Result<Image, images::Failure>,
    },
    Started {
        container: String,
        result: Result<Instance, containers::Failure>,
    },
    /// A container's end, with all that is to be said about it.
    Ended {
        container: String,
        id: String,
        exit: Exit,
    },
    KillFinished {
        container: String,
        id: String,
    },
    TornDown,
    Written(Result<Box<Pod>, writer::Error>),
    DeletedFromApi,
    CleanedUp,
}

/// What accompanies a running instance.
struct Live {
    id: String,
    exited: CancellationToken,
    started: watch::Sender<bool>,
    probes: Vec<AbortHandle>,
}

impl Drop for Live {
    fn drop(&mut self) {
        for probe in &self.probes {
            probe.abort();
        }
    }
}

pub struct PodWorker {
    agent: Arc<Agent>,
    pod: Arc<Pod>,
    record: PodRecord,
    mailbox: mpsc::UnboundedReceiver<Message>,
    tx: mpsc::UnboundedSender<Message>,
    view: watch::Sender<Arc<View>>,
    jobs: JoinSet<()>,
    image_jobs: HashMap<String, AbortHandle>,
    images: HashMap<String, Image>,
    volumes: Arc<Paths>,
    refresh: Option<AbortHandle>,
    /// The pod for jobs that outlive a change of it (live volumes).
    current: watch::Sender<Arc<Pod>>,
    held: Arc<HeldObjects>,
    tokens: Arc<volumes::live::Tokens>,
    live: HashMap<String, Live>,
    /// Ends that came before the start was told.
    early: HashMap<String, (u32, Timestamp)>,
    oomed: HashSet<String>,
    /// Shrinks when the pod's deletion is hurried.
    grace: watch::Sender<i64>,
    ending: CancellationToken,
    written: PodStatus,
    written_version: u64,
    write_in_flight: bool,
    last_patch: Option<serde_json::Value>,
    write_retry: Option<Timestamp>,
    delete_wanted: bool,
    gone: bool,
    finished: bool,
}

/// How a worker is wired to the rest.
pub struct Wiring {
    pub mailbox: mpsc::UnboundedReceiver<Message>,
    pub tx: mpsc::UnboundedSender<Message>,
    pub view: watch::Sender<Arc<View>>,
}

impl PodWorker {
    pub fn new(agent: Arc<Agent>, pod: Arc<Pod>, wiring: Wiring) -> Self {
        let held = Arc::new(HeldObjects::of(&agent, &pod));
        let written = pod::status(&pod).clone();
        Self {
            written_version: version(&pod),
            written,
            held,
            tokens: Arc::default(),
            current: watch::Sender::new(pod.clone()),
            grace: watch::Sender::new(pod::grace_seconds(&pod)),
            agent,
            pod,
            record: PodRecord::default(),
            mailbox: wiring.mailbox,
            tx: wiring.tx,
            view: wiring.view,
            jobs: JoinSet::new(),
            image_jobs: HashMap::new(),
            images: HashMap::new(),
            volumes: Arc::default(),
            refresh: None,
            live: HashMap::new(),
            early: HashMap::new(),
            oomed: HashSet::new(),
            ending: CancellationToken::new(),
            write_in_flight: false,
            last_patch: None,
            write_retry: None,
            delete_wanted: false,
            gone: false,
            finished: false,
        }
    }

    /// Runs until the pod is gone from the API and from the node.
    pub async fn run(mut self, found: Vec<Found>) {
        tracing::debug!(pod = pod::display(&self.pod), "a pod is here");
        self.adopt(found).await;
        self.admit();
        self.follow_objects();
        while !self.finished {
            let wake = self.act();
            self.report();
            self.show();
            self.next_message(wake).await;
            while let Some(result) = self.jobs.try_join_next() {
                if let Err(error) = result.as_ref()
                    && error.is_panic()
                {
                    tracing::error!(pod = pod::display(&self.pod), %error, "a step of a pod failed unexpectedly");
                }
            }
        }
    }

    /// A start or a volume may wait for an object that isn't there yet.
    fn follow_objects(&mut self) {
        let mut watched = self.held.changes();
        if watched.is_empty() {
            return;
        }
        let tx = self.tx.clone();
        self.job(async move {
            loop {
                volumes::live::any_change(&mut watched).await;
                for receiver in &mut watched {
                    receiver.mark_unchanged();
                }
                if tx.send(Message::ObjectsChanged).is_err() {
                    return;
                }
            }
        });
    }

    async fn next_message(&mut self, wake: Option<Timestamp>) {
        let wake = [wake, self.write_retry].into_iter().flatten().min();
        let delay = wake.map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
        let first = match delay {
            Some(delay) => tokio::time::timeout(delay, self.mailbox.recv()).await.unwrap_or(None),
            None => self.mailbox.recv().await,
        };
        if let Some(message) = first {
            self.hear(message);
        }
        while let Ok(message) = self.mailbox.try_recv() {
            self.hear(message);
        }
    }

    fn job<F>(&mut self, work: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Boxed: one kind of task for all of a pod's steps.
        self.jobs.spawn(work.boxed())
    }

    fn container(&mut self, name: &str) -> &mut crate::record::ContainerRecord {
        self.record.containers.entry(name.to_owned()).or_default()
    }
}

fn version(pod: &Pod) -> u64 {
    pod.metadata
        .resource_version
        .as_deref()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

fn in_seconds(seconds: u64) -> Timestamp {
    Timestamp::now()
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}
