//! The pods of this node: a worker for each, fed by the watch and by containerd's events. A pod that the API has no more
//! and of which something is left here, from an earlier run too, has a worker as well, until nothing is left.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mk8s_client::{Event, Informer};
use mk8s_containerd::{Event as Runtime, Task};
use mk8s_supervisor::backoff::Backoff;
use mk8s_supervisor::{JobError, Jobs, job};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, View, Worker};
use crate::pod_worker::{Message, PodWorker, Wiring};
use crate::runtime::Found;
use crate::{clock, names, persist, pod, sandbox};

/// All containers of ours that containerd has, by pod.
pub type Inventory = HashMap<String, Vec<Found>>;

pub async fn inventory(agent: &Agent) -> Result<Inventory, mk8s_containerd::Error> {
    let mut containers = agent.containerd.containers(&[(names::KIND, names::CONTAINER)]).await?;
    containers.extend(agent.containerd.containers(&[(names::KIND, names::SANDBOX)]).await?);
    let tasks = tasks(agent).await?;
    let mut found = Inventory::new();
    for container in containers {
        let Some(uid) = container.labels.get(names::POD_UID).cloned() else {
            continue;
        };
        let task = tasks.get(&container.id).cloned();
        found.entry(uid).or_default().push(Found::new(container, task));
    }
    Ok(found)
}

/// The inventory, as soon as containerd gives it.
pub async fn wait_for_inventory(agent: &Agent) -> Inventory {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match inventory(agent).await {
            Ok(inventory) => return inventory,
            Err(error) => tracing::warn!(%error, "cannot list what containerd runs, trying again"),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn tasks(agent: &Agent) -> Result<HashMap<String, Task>, mk8s_containerd::Error> {
    let tasks = agent.containerd.tasks().await?;
    Ok(tasks.into_iter().map(|t| (t.id.clone(), t)).collect())
}

/// Follows the watch until the agent stops.
pub async fn run(agent: Arc<Agent>, pods: Informer<Pod>, inventory: Inventory, token: CancellationToken) {
    // Workers of an earlier run of this task ended with it.
    agent.workers.lock().clear();
    // Only now are the pods known that are to be kept.
    pods.wait_synced().await;
    let mut node = Pods::new(agent, pods, inventory);
    node.take_up_what_is_left();
    let mut events = node.informer.subscribe();
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            event = events.next() => node.observe(event),
            Some((uid, ended)) = node.workers.next(), if !node.workers.is_empty() => node.observe_end(uid, ended),
            Some((uid, found)) = node.lost.next(), if !node.lost.is_empty() => node.replace(uid, found),
        }
    }
}

pub(crate) struct Pods {
    agent: Arc<Agent>,
    informer: Informer<Pod>,
    /// What was here at the start and has no worker yet.
    inventory: Inventory,
    /// By pod uid.
    workers: Jobs<String, ()>,
    /// Workers that panicked: what containerd has of their pods, for those that take over.
    lost: Jobs<String, Vec<Found>>,
    backoffs: HashMap<String, Backoff>,
}

impl Pods {
    pub(crate) fn new(agent: Arc<Agent>, informer: Informer<Pod>, inventory: Inventory) -> Self {
        Self {
            agent,
            informer,
            inventory,
            workers: Jobs::default(),
            lost: Jobs::default(),
            backoffs: HashMap::new(),
        }
    }

    pub(crate) fn observe(&mut self, event: Event<Pod>) {
        match event {
            Event::Applied { old, new } => {
                if let Some(old) = old.filter(|o| pod::uid(o) != pod::uid(&new)) {
                    self.agent.gone(pod::uid(&old));
                }
                let uid = pod::uid(&new);
                if self.agent.workers.lock().contains_key(uid) {
                    let uid = uid.to_owned();
                    self.agent.send(&uid, Message::Update(new));
                } else {
                    let found = self.inventory.remove(uid).unwrap_or_default();
                    self.start(new, found, false);
                }
            }
            Event::Deleted(last) => self.agent.gone(pod::uid(&last)),
        }
    }

    fn start(&mut self, pod: Arc<Pod>, found: Vec<Found>, gone: bool) {
        let (tx, mailbox) = mpsc::unbounded_channel();
        let (view, seen) = watch::channel(Arc::new(View {
            pod: pod.clone(),
            ..View::default()
        }));
        let uid = pod::uid(&pod).to_owned();
        let worker = Worker {
            mailbox: tx.clone(),
            view: seen,
        };
        self.agent.workers.lock().insert(uid.clone(), worker);
        let worker = PodWorker::new(self.agent.clone(), pod, Wiring { mailbox, tx, view });
        self.workers.spawn("pod-worker", uid, worker.run(found, gone));
    }

    /// A worker that ended has nothing left. One that panicked leaves a pod without an owner, which gets another as soon as
    /// containerd has said what there is of it: without that, it would start the pod a second time.
    fn observe_end(&mut self, uid: String, ended: Result<(), JobError>) {
        if ended.is_ok() {
            self.agent.workers.lock().remove(&uid);
            self.backoffs.remove(&uid);
            return;
        }
        let fresh = || Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let delay = self.backoffs.entry(uid.clone()).or_insert_with(fresh).next_delay();
        let agent = self.agent.clone();
        let wanted = uid.clone();
        self.lost.spawn("pod-worker-lost", uid, async move {
            tokio::time::sleep(delay).await;
            let mut backoff = fresh();
            loop {
                match agent.runtime.containers_of(&wanted).await {
                    Ok(found) => return found,
                    Err(error) => tracing::warn!(uid = wanted, %error, "a pod without a worker waits for containerd"),
                }
                tokio::time::sleep(backoff.next_delay()).await;
            }
        });
    }

    fn replace(&mut self, uid: String, found: Result<Vec<Found>, JobError>) {
        let Ok(found) = found else {
            return self.observe_end(uid, Err(JobError::Cancelled { job: "pod-worker-lost" }));
        };
        let known = self.informer.list().into_iter().find(|p| pod::uid(p) == uid);
        let gone = known.is_none();
        let last = self.agent.workers.lock().get(&uid).map(|w| w.view.borrow().pod.clone());
        if let Some(pod) = known.or(last) {
            self.start(pod, found, gone);
        }
    }

    /// Pods that the API has no more, by what containerd runs and by the directories on disk. The files of those that left
    /// nothing else are swept.
    fn take_up_what_is_left(&mut self) {
        let known: HashSet<String> = self.informer.list().iter().map(|p| pod::uid(p).to_owned()).collect();
        let dirs = self.agent.volumes.pods().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot list the directories of pods");
            Vec::new()
        });
        let here: BTreeSet<String> = self.inventory.keys().cloned().chain(dirs).collect();
        for uid in here.into_iter().filter(|uid| !known.contains(uid)) {
            tracing::info!(uid, "removing what is left of a pod that is no more");
            let found = self.inventory.remove(&uid).unwrap_or_default();
            let pod = persist::load_pod(&self.agent.pod_dir(&uid)).unwrap_or_else(|| from_labels(&uid, &found));
            self.start(Arc::new(pod), found, true);
        }
        let agent = self.agent.clone();
        drop(job::blocking("sweep-pod-files", move || sweep_files(&agent, &known)));
    }
}

/// As much of a pod as its containers' labels say, where it left no record.
fn from_labels(uid: &str, found: &[Found]) -> Pod {
    let label = |key: &str| found.first().map(|f| f.label(key).to_owned());
    let names: BTreeSet<&str> = found
        .iter()
        .filter(|f| !f.is_sandbox())
        .map(|f| f.label(names::CONTAINER_NAME))
        .collect();
    let container = |name: &str| Container {
        name: name.to_owned(),
        ..Container::default()
    };
    Pod {
        metadata: ObjectMeta {
            uid: Some(uid.to_owned()),
            name: label(names::POD_NAME),
            namespace: label(names::POD_NAMESPACE),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: names.into_iter().map(container).collect(),
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// Hands containerd's events to the pods they concern.
pub async fn follow_containerd(agent: Arc<Agent>, changed: watch::Sender<u64>, token: CancellationToken) {
    let mut events = agent.containerd.events(token.clone());
    while let Some(event) = events.recv().await {
        match event {
            Runtime::Lost => changed.send_modify(|n| *n += 1),
            Runtime::Connected => {
                changed.send_modify(|n| *n += 1);
                reconcile(&agent).await;
            }
            Runtime::Exit {
                id,
                exec_id,
                status,
                at,
                ..
            } if exec_id.is_empty() => {
                let owner = agent.owners.lock().get(&id).cloned();
                if let Some(uid) = owner {
                    let at = Timestamp::try_from(at).unwrap_or_else(|_| clock::now());
                    agent.send(&uid, Message::Exit { id, code: status, at });
                }
            }
            Runtime::Exit { .. } => {}
            Runtime::Oom { id } => {
                let owner = agent.owners.lock().get(&id).cloned();
                if let Some(uid) = owner {
                    agent.send(&uid, Message::Oom { id });
                }
            }
            Runtime::ImageChanged { .. } => changed.send_modify(|n| *n += 1),
        }
    }
}

/// Tells the workers what containerd runs now. What happens meanwhile is in the events that are read after this.
async fn reconcile(agent: &Agent) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let tasks = loop {
        match tasks(agent).await {
            Ok(tasks) => break Arc::new(tasks),
            // Gone again: its next coming begins anew.
            Err(error) if error.is_unavailable() => return,
            Err(error) => tracing::warn!(%error, "cannot list containerd's tasks, trying again"),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    };
    for worker in agent.workers.lock().values() {
        // A worker that has ended has nothing left to hear.
        let _ = worker.mailbox.send(Message::Reconcile(tasks.clone()));
    }
}

/// Removes files that no pod's worker will: of pods that left neither a container nor a directory of their own. A pod that
/// came meanwhile has a worker, and what is its stays.
fn sweep_files(agent: &Agent, known: &HashSet<String>) {
    let keep = |uid: &str| known.contains(uid) || agent.workers.lock().contains_key(uid);
    for uid in dir_names(&sandbox::Files::all(agent)).into_iter().filter(|u| !keep(u)) {
        if let Err(error) = sandbox::Files::of(agent, &uid).remove() {
            tracing::warn!(uid, %error, "cannot remove the sandbox's files of a pod that is no more");
        }
    }
    for name in dir_names(&agent.config.pod_log_dir) {
        // NAMESPACE_NAME_UID; anything else is not a pod's.
        let [_, _, uid] = name.split('_').collect::<Vec<_>>()[..] else {
            continue;
        };
        if !keep(uid)
            && let Err(error) = names::remove_logs(&agent.config.pod_log_dir, &name)
        {
            tracing::warn!(uid, %error, "cannot remove the logs of a pod that is no more");
        }
    }
    for name in dir_names(&agent.config.container_log_dir) {
        let link = agent.config.container_log_dir.join(&name);
        // A link that leads nowhere is of a container that is gone.
        if names::is_log_link(&agent.config.pod_log_dir, &link) && !link.exists() {
            let _ = std::fs::remove_file(link);
        }
    }
}

fn dir_names(dir: &std::path::Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .collect()
}
