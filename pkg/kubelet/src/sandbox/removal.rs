//! The end of a pod on the node, step by step. Each answers whether it is confirmed, and is asked for again until it is.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use mk8s_supervisor::{JobError, job};

use super::{Error, Files};
use crate::agent::Agent;
use crate::{names, persist, pod, runtime};

/// What of a removal is not confirmed: everything was tried, these failed.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Unconfirmed(Vec<Error>);

impl From<JobError> for Unconfirmed {
    fn from(lost: JobError) -> Self {
        Self(vec![lost.into()])
    }
}

impl Unconfirmed {
    fn check(failures: Vec<Error>) -> Result<(), Self> {
        if failures.is_empty() {
            Ok(())
        } else {
            Err(Self(failures))
        }
    }
}

/// A sandbox's removal.
pub struct Remove {
    pub agent: Arc<Agent>,
    pub pod: Arc<Pod>,
    /// The pod is over: whatever of it containerd still runs is ended, known or not. Else its containers end in their time.
    pub whole: bool,
}

impl Remove {
    /// Ok: the processes are gone, then the network, then what was mounted for them. The address is given back only when
    /// nothing can use it any more.
    pub async fn run(self) -> Result<(), Unconfirmed> {
        Unconfirmed::check(self.end_tasks().await)?;
        let mut failures = Vec::new();
        if let Err(error) = self.detach().await {
            failures.push(error);
        }
        let files = Files::of(&self.agent, pod::uid(&self.pod));
        match job::blocking("sandbox-files", move || files.remove()).await {
            Ok(removed) => failures.extend(removed.err().map(Error::from)),
            Err(lost) => failures.push(lost.into()),
        }
        if failures.is_empty() {
            persist::forget_sandbox(&self.agent.pod_dir(pod::uid(&self.pod)));
        }
        Unconfirmed::check(failures)
    }

    /// Asked of containerd, not of the worker's memory: a start that was cut off left one that nobody remembers.
    async fn end_tasks(&self) -> Vec<Error> {
        let runtime = &self.agent.runtime;
        let found = match runtime.containers_of(pod::uid(&self.pod)).await {
            Ok(found) => found,
            Err(error) => return vec![error.into()],
        };
        let ends = found.iter().map(async |f| {
            let id = &f.id;
            match (f.is_sandbox(), &f.task) {
                (true, _) => {
                    runtime.delete(id).await?;
                    self.agent.owners.lock().remove(id);
                }
                (false, Some(_)) if self.whole => {
                    runtime.delete_task(id).await?;
                }
                (false, _) => {}
            }
            Ok(())
        });
        let ended = futures::future::join_all(ends).await;
        ended.into_iter().filter_map(Result::err).collect()
    }

    async fn detach(&self) -> Result<(), Error> {
        if pod::host_network(&self.pod) {
            return Ok(());
        }
        let (runtime, uid) = (&self.agent.runtime, pod::uid(&self.pod));
        if !runtime.network_is_open() {
            // Asked of the node, as tasks are of containerd: an agent that died between the act and its record knew more.
            if !runtime.has_network(uid) {
                return Ok(());
            }
            // The agent has just started: its network is being taken over.
            runtime.until_network_is_open().await;
        }
        Ok(runtime.detach(uid).await?)
    }
}

/// Gone already is as good.
fn removed(result: std::io::Result<()>, path: &Path) -> Result<(), Error> {
    match result {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::Io {
            what: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Volumes and cgroup go; logs and dead containers stay for those who look.
pub async fn tear_down(agent: &Arc<Agent>, pod: &Arc<Pod>) -> Result<(), Unconfirmed> {
    let uid = pod::uid(pod);
    let mut failures = Vec::new();
    failures.extend(agent.volumes.tear_down(uid).await.err().map(Error::from));
    failures.extend(agent.runtime.remove_cgroup(uid).await.err().map(Error::from));
    Unconfirmed::check(failures)
}

/// The API has forgotten the pod: so does the node.
pub async fn forget(agent: &Arc<Agent>, pod: &Arc<Pod>) -> Result<(), Unconfirmed> {
    let left = match agent.runtime.containers_of(pod::uid(pod)).await {
        Ok(left) => left,
        Err(error) => return Err(Unconfirmed(vec![error.into()])),
    };
    let ids: Vec<String> = left.into_iter().map(|f| f.id).collect();
    let deletions = ids.iter().map(async |id| {
        agent.runtime.delete(id).await?;
        agent.owners.lock().remove(id);
        Ok::<_, runtime::Error>(())
    });
    let deleted = futures::future::join_all(deletions).await;
    let mut failures: Vec<Error> = deleted.into_iter().filter_map(|d| Some(d.err()?.into())).collect();
    let (volumes, uid) = (agent.volumes.clone(), pod::uid(pod).to_owned());
    if failures.is_empty() {
        let (agent, pod) = (agent.clone(), pod.clone());
        match job::blocking("pod-files", move || forget_files(&agent, &pod, &ids)).await {
            Ok(forgotten) => failures.extend(forgotten.err()),
            Err(lost) => failures.push(lost.into()),
        }
    }
    if failures.is_empty() {
        failures.extend(volumes.remove(&uid).await.err().map(Error::from));
    }
    Unconfirmed::check(failures)
}

/// Logs first: the pod's directory is the record that there is something left to do.
fn forget_files(agent: &Agent, pod: &Pod, ids: &[String]) -> Result<(), Error> {
    let uid = pod::uid(pod);
    for container in pod::all_containers(pod) {
        for id in ids {
            let link = names::log_link(&agent.config, pod, &container.name, id);
            removed(fs::remove_file(&link), &link)?;
        }
    }
    let logs = names::pod_logs(pod::namespace(pod), pod::name(pod), uid);
    Ok(names::remove_logs(&agent.config.pod_log_dir, &logs)?)
}
