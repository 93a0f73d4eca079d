//! The one task that owns a pod: it observes what happens, asks `plan` what to do, applies that, and writes the status.
//!
//! ```text
//!   mailbox (watch, containerd's events, probes) ┐
//!   jobs' outcomes ──────────────────────────────┴▶ observe ─▶ record ─▶ plan (pure) ─▶ apply ─▶ jobs
//!                                                                 └────▶ status (pure) ─▶ report ─▶ API
//!
//!   a pod's end: containers ─▶ sandbox and address ─▶ volumes and cgroup ─▶ API ─▶ directory, logs, dead containers
//! ```
//!
//! Steps that take time are jobs with typed outcomes, so the worker never waits for one thing while another needs it. Each
//! step of a pod's end is tried again until it is confirmed, and no later one begins before.

mod adopt;
mod apply;
mod observe;
mod report;
mod shared;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use mk8s_containerd::{Image, Task};
use mk8s_supervisor::Jobs;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::agent::{Agent, ReferencedObjects, View};
use crate::record::{ForgetStep, PodRecord};
use crate::resize::{self, Refused};
use crate::runtime::Found;
use crate::volumes::{self, Paths};
use crate::{clock, pod, probes};
use step::{Outcome, Step};

/// What a worker is told from outside.
#[derive(Debug)]
pub enum Message {
    /// The pod as the API now has it.
    Update(Arc<Pod>),
    /// The API has it no more.
    Gone,
    /// A container's first process ended.
    Exit { id: String, code: u32, at: Timestamp },
    /// The kernel killed something in a container for want of memory.
    Oom { id: String },
    /// containerd was out of reach: these are the tasks it has now.
    Reconcile(Arc<HashMap<String, Task>>),
    Probe {
        container: String,
        instance: String,
        result: probes::Report,
    },
    /// A ConfigMap, Secret or token that a container or volume waits for may be there now.
    ObjectsChanged,
}

/// What accompanies a running instance; its probes end with it.
struct Live {
    id: String,
    exited: CancellationToken,
    started: watch::Sender<bool>,
    _probes: DropGuard,
}

pub struct PodWorker {
    agent: Arc<Agent>,
    pod: Arc<Pod>,
    record: PodRecord,
    mailbox: mpsc::UnboundedReceiver<Message>,
    tx: mpsc::UnboundedSender<Message>,
    view: watch::Sender<Arc<View>>,
    jobs: Jobs<Step, Outcome>,
    images: HashMap<String, Image>,
    /// The image that a container's job is getting.
    ensuring: HashMap<String, String>,
    volumes: Arc<Paths>,
    /// Ends the upkeep of the live volumes.
    upkeep: Option<DropGuard>,
    /// The pod for jobs that outlive a change of it (live volumes).
    current: watch::Sender<Arc<Pod>>,
    held: Arc<ReferencedObjects>,
    tokens: Arc<volumes::live::Tokens>,
    live: HashMap<String, Live>,
    /// Ends that came before the start was told.
    early: HashMap<String, (u32, Timestamp)>,
    oomed: HashSet<String>,
    /// When the pod's last container is to be gone, once it ends; comes nearer when the deletion is hurried.
    deadline: watch::Sender<Option<Timestamp>>,
    /// Cancelled when the pod ends: no job waits for anything any more.
    ending: CancellationToken,
    written: PodStatus,
    written_version: u64,
    write_in_flight: bool,
    last_patch: Option<serde_json::Value>,
    write_retry: Option<Timestamp>,
    delete_wanted: bool,
}

/// How a worker is wired to the rest.
pub struct Wiring {
    pub mailbox: mpsc::UnboundedReceiver<Message>,
    pub tx: mpsc::UnboundedSender<Message>,
    pub view: watch::Sender<Arc<View>>,
}

impl PodWorker {
    pub fn new(agent: Arc<Agent>, pod: Arc<Pod>, wiring: Wiring) -> Self {
        let written = pod::status(&pod).clone();
        Self {
            written_version: version(&pod),
            written,
            held: Arc::default(),
            tokens: Arc::default(),
            current: watch::Sender::new(pod.clone()),
            deadline: watch::Sender::new(None),
            agent,
            pod,
            record: PodRecord::default(),
            mailbox: wiring.mailbox,
            tx: wiring.tx,
            view: wiring.view,
            jobs: Jobs::default(),
            images: HashMap::new(),
            ensuring: HashMap::new(),
            volumes: Arc::default(),
            upkeep: None,
            live: HashMap::new(),
            early: HashMap::new(),
            oomed: HashSet::new(),
            ending: CancellationToken::new(),
            write_in_flight: false,
            last_patch: None,
            write_retry: None,
            delete_wanted: false,
        }
    }

    /// Runs until the pod is gone from the API and from the node. `gone`: the API has it no more already.
    pub async fn run(mut self, found: Vec<Found>, gone: bool) {
        tracing::debug!(pod = pod::display(&self.pod), "a pod is here");
        self.record.gone = gone;
        let (wanted, is_known) = (self.pod.clone(), !found.is_empty());
        let (mut held, refused) = match is_known {
            // What it has of the node is what an earlier run of the agent gave it.
            true => resize::held(&wanted, |name| resize::of_status(&wanted, name)),
            false => (wanted.clone(), Refused::new()),
        };
        self.hold_pod(held.clone());
        self.adopt(found);
        self.admit();
        if is_known && self.record.admitted {
            // By now there may be room for what it asks for.
            held = self.hold_resize(wanted);
        } else {
            self.note_resize(&held, refused);
        }
        self.hold_pod(held);
        if gone {
            // As of a pod that goes while the agent runs: its room is another's at once.
            self.agent.admission.release(&self.agent, pod::uid(&self.pod));
        }
        self.hold_ephemeral_containers();
        while self.record.forget != ForgetStep::Forgotten {
            let wake = self.apply_plan();
            self.report();
            self.publish_view();
            self.observe_next(wake).await;
        }
    }

    fn hold_pod(&mut self, pod: Arc<Pod>) {
        self.current.send_replace(pod.clone());
        self.pod = pod;
    }

    /// Of a pod that is admitted: a start or a volume may wait for an object that isn't there yet.
    fn hold_objects(&mut self) {
        self.held = Arc::new(ReferencedObjects::of(&self.agent, &self.pod));
        let mut watched = self.held.changes();
        if watched.is_empty() {
            return;
        }
        let tx = self.tx.clone();
        self.job(Step::Beside("objects"), async move {
            loop {
                volumes::live::any_change(&mut watched).await;
                for receiver in &mut watched {
                    receiver.mark_unchanged();
                }
                if tx.send(Message::ObjectsChanged).is_err() {
                    return Outcome::Nothing;
                }
            }
        });
    }

    async fn observe_next(&mut self, wake: Option<Timestamp>) {
        let wake = [wake, self.write_wake()].into_iter().flatten().min();
        let timer = async {
            match wake {
                Some(at) => {
                    let delay = Duration::try_from(at.duration_since(clock::now())).unwrap_or_default();
                    tokio::time::sleep(delay).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(message) = self.mailbox.recv() => self.observe(message),
            Some((step, ended)) = self.jobs.next(), if !self.jobs.is_empty() => self.observe_step(step, ended),
            () = timer => {}
        }
        // All that is there already is one look.
        while let Ok(message) = self.mailbox.try_recv() {
            self.observe(message);
        }
        while let Some(Some((step, ended))) = self.jobs.next().now_or_never() {
            self.observe_step(step, ended);
        }
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
    clock::now()
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}
