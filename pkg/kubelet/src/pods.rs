//! The pods of this node: a worker for each, fed by the watch and by containerd's events. And at start the sweep of what
//! an earlier run left of pods that are no more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use mk8s_client::{Event, Informer};
use mk8s_containerd::{Container, Event as Runtime, Task};
use mk8s_supervisor::job;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, View, Worker};
use crate::pod_worker::{Found, Message, PodWorker, Wiring};
use crate::volumes::Teardown;
use crate::{names, pod, sandbox};

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
        found.entry(uid).or_default().push(Found { container, task });
    }
    Ok(found)
}

async fn tasks(agent: &Agent) -> Result<HashMap<String, Task>, mk8s_containerd::Error> {
    let tasks = agent.containerd.tasks().await?;
    Ok(tasks.into_iter().map(|t| (t.id.clone(), t)).collect())
}

/// Follows the watch until the agent stops.
pub async fn run(agent: Arc<Agent>, pods: Informer<Pod>, mut inventory: Inventory, token: CancellationToken) {
    // Only now are the pods known that are to be kept; what is not among them is swept.
    pods.wait_synced().await;
    let known: HashSet<String> = pods.list().iter().map(|p| pod::uid(p).to_owned()).collect();
    let orphans: Inventory = inventory.extract_if(|uid, _| !known.contains(uid)).collect();
    let mut workers: JoinSet<String> = JoinSet::new();
    let mut sweeping: JoinSet<()> = JoinSet::new();
    sweeping.spawn(sweep(agent.clone(), orphans, known));
    let mut events = pods.subscribe();
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            event = events.next() => match event {
                Event::Applied { old, new } => {
                    if let Some(old) = old.filter(|o| pod::uid(o) != pod::uid(&new)) {
                        agent.send(pod::uid(&old), Message::Gone);
                    }
                    let uid = pod::uid(&new).to_owned();
                    let running = agent.workers.lock().get(&uid).map(|w| w.mailbox.clone());
                    match running {
                        Some(mailbox) => {
                            let _ = mailbox.send(Message::Update(new));
                        }
                        None => {
                            let found = inventory.remove(&uid).unwrap_or_default();
                            start(&agent, &mut workers, new, found);
                        }
                    }
                }
                Event::Deleted(last) => agent.send(pod::uid(&last), Message::Gone),
            },
            Some(ended) = workers.join_next_with_id() => ended_worker(&agent, &pods, &mut workers, ended).await,
        }
    }
}

fn start(agent: &Arc<Agent>, workers: &mut JoinSet<String>, pod: Arc<Pod>, found: Vec<Found>) {
    let (tx, mailbox) = mpsc::unbounded_channel();
    let (view, seen) = watch::channel(Arc::new(View {
        pod: pod.clone(),
        ..View::default()
    }));
    let uid = pod::uid(&pod).to_owned();
    agent.workers.lock().insert(
        uid.clone(),
        Worker {
            mailbox: tx.clone(),
            view: seen,
        },
    );
    let worker = PodWorker::new(agent.clone(), pod, Wiring { mailbox, tx, view });
    workers.spawn(async move {
        worker.run(found).await;
        uid
    });
}

/// A worker that ended has nothing left; one that panicked leaves a pod without an owner, which gets a new one.
async fn ended_worker(
    agent: &Arc<Agent>,
    pods: &Informer<Pod>,
    workers: &mut JoinSet<String>,
    ended: Result<(tokio::task::Id, String), tokio::task::JoinError>,
) {
    match ended {
        Ok((_, uid)) => {
            agent.workers.lock().remove(&uid);
        }
        Err(error) => {
            tracing::error!(%error, "the task of a pod ended before its time");
            let dead: Vec<String> = {
                let table = agent.workers.lock();
                table
                    .iter()
                    .filter(|(_, w)| w.mailbox.is_closed())
                    .map(|(uid, _)| uid.clone())
                    .collect()
            };
            let mut left = inventory(agent).await.unwrap_or_default();
            for uid in dead {
                agent.workers.lock().remove(&uid);
                if let Some(pod) = pods.list().into_iter().find(|p| pod::uid(p) == uid) {
                    let found = left.remove(&uid).unwrap_or_default();
                    start(agent, workers, pod, found);
                }
            }
        }
    }
}

/// Hands containerd's events to the pods they concern.
pub async fn follow_containerd(agent: Arc<Agent>, changed: watch::Sender<u64>, token: CancellationToken) {
    let mut events = agent.containerd.events(token.clone());
    while let Some(event) = events.recv().await {
        match event {
            Runtime::Connected => {
                changed.send_modify(|n| *n += 1);
                match tasks(&agent).await {
                    Ok(tasks) => {
                        let tasks = Arc::new(tasks);
                        let workers: Vec<Worker> = agent.workers.lock().values().cloned().collect();
                        for worker in workers {
                            let _ = worker.mailbox.send(Message::Reconcile(tasks.clone()));
                        }
                    }
                    Err(error) => tracing::warn!(%error, "cannot list containerd's tasks"),
                }
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
                    let at = Timestamp::try_from(at).unwrap_or_else(|_| Timestamp::now());
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

/// Removes what is left of pods that the API no longer has: containers, cgroups, directories, logs.
async fn sweep(agent: Arc<Agent>, orphans: Inventory, known: HashSet<String>) {
    for (uid, found) in orphans {
        tracing::info!(uid, "removing what is left of a pod that is no more");
        let (sandboxes, containers): (Vec<Container>, Vec<Container>) = found
            .into_iter()
            .map(|f| f.container)
            .partition(|c| c.labels.get(names::KIND).is_some_and(|k| k == names::SANDBOX));
        let stopping = containers.iter().map(|c| stop_orphan(&agent, c));
        futures::future::join_all(stopping).await;
        for container in containers.iter().chain(&sandboxes) {
            if let Err(error) = agent.containerd.delete(&container.id).await {
                tracing::warn!(id = container.id, %error, "cannot remove a container of a pod that is no more");
            }
        }
        if let Some(network) = agent.network.now()
            && let Err(error) = network.detach(&uid).await
        {
            tracing::warn!(uid, %error, "cannot give back the network of a pod that is no more");
        }
    }
    let dirs = agent.volumes.pods().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot list the directories of pods");
        Vec::new()
    });
    let dirs: HashSet<String> = dirs.into_iter().filter(|uid| !keeps(&agent, &known, uid)).collect();
    for uid in &dirs {
        if let Teardown::Blocked { why } = agent.volumes.remove(uid).await {
            tracing::warn!(uid, why, "cannot remove the directory of a pod that is no more");
        }
    }
    let result = job::blocking("sweep-pod-files", move || sweep_files(&agent, &known, &dirs)).await;
    if let Err(error) = result {
        tracing::warn!(%error, "the sweep of old pods' files did not finish");
    }
}

/// Its pod's grace is no longer known: it gets the default.
async fn stop_orphan(agent: &Agent, container: &Container) {
    let _ = agent
        .containerd
        .kill(&container.id, nix::sys::signal::Signal::SIGTERM as i32, false)
        .await;
    let limit = std::time::Duration::from_secs(30);
    if tokio::time::timeout(limit, agent.containerd.wait(&container.id))
        .await
        .is_err()
    {
        let _ = agent
            .containerd
            .kill(&container.id, nix::sys::signal::Signal::SIGKILL as i32, true)
            .await;
    }
}

/// A pod that came meanwhile has a worker, and what is its stays.
fn keeps(agent: &Agent, known: &HashSet<String>, uid: &str) -> bool {
    known.contains(uid) || agent.workers.lock().contains_key(uid)
}

/// `dirs`: the pods whose directories went. Only their cgroups go: those of several agents may stand side by side.
fn sweep_files(agent: &Agent, known: &HashSet<String>, dirs: &HashSet<String>) {
    let keep = |uid: &str| keeps(agent, known, uid);
    for (path, uid) in agent.cgroups.pods() {
        if dirs.contains(&uid)
            && let Err(error) = agent.cgroups.remove(&path)
        {
            tracing::warn!(uid, %error, "cannot remove the cgroup of a pod that is no more");
        }
    }
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
        if !keep(uid) {
            let _ = std::fs::remove_dir_all(agent.config.pod_log_dir.join(&name));
        }
    }
    for name in dir_names(&agent.config.container_log_dir) {
        let link = agent.config.container_log_dir.join(&name);
        // A link that leads nowhere is of a container that is gone.
        if link.is_symlink() && !link.exists() {
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
