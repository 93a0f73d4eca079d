//! Taking over what an earlier run of the agent left: containers are known by their labels, their ends by the files beside
//! the pod. Nothing that runs is restarted.

use std::collections::HashMap;

use jiff::Timestamp;
use mk8s_containerd::{Container, Task, TaskStatus};

use super::PodWorker;
use crate::record::{Exit, Health, Instance, Sandbox, SandboxStep};
use crate::{names, persist, pod};

/// A container of ours as containerd has it, and its task.
#[derive(Clone, Debug)]
pub struct Found {
    pub container: Container,
    pub task: Option<Task>,
}

impl Found {
    fn label(&self, key: &str) -> &str {
        self.container.labels.get(key).map(String::as_str).unwrap_or_default()
    }

    fn attempt(&self) -> u32 {
        self.label(names::ATTEMPT).parse().unwrap_or(0)
    }

    fn runs(&self) -> bool {
        self.task.as_ref().is_some_and(|t| ended(Some(t)).is_none())
    }
}

/// (code, when) of a task that ended; a task that is nowhere ended without anybody seeing how.
pub fn ended(task: Option<&Task>) -> Option<(u32, Timestamp)> {
    let Some(task) = task else {
        return Some((255, Timestamp::now()));
    };
    match (&task.exit, task.status) {
        (Some(exit), _) => Some((
            exit.status,
            Timestamp::try_from(exit.at).unwrap_or_else(|_| Timestamp::now()),
        )),
        (None, TaskStatus::Stopped) => Some((255, Timestamp::now())),
        _ => None,
    }
}

impl PodWorker {
    pub(super) async fn adopt(&mut self, found: Vec<Found>) {
        if found.is_empty() {
            return;
        }
        let dir = self.agent.pod_dir(pod::uid(&self.pod));
        let (sandboxes, containers): (Vec<Found>, Vec<Found>) =
            found.into_iter().partition(|f| f.label(names::KIND) == names::SANDBOX);
        self.adopt_sandbox(sandboxes, persist::load_sandbox(&dir)).await;
        let mut by_name: HashMap<String, Vec<Found>> = HashMap::new();
        for container in containers {
            by_name
                .entry(container.label(names::CONTAINER_NAME).to_owned())
                .or_default()
                .push(container);
        }
        for (name, mut found) in by_name {
            found.sort_by_key(Found::attempt);
            let known = persist::load_instances(&dir, &name);
            let mut lives: Vec<(Instance, Option<Found>)> = Vec::new();
            for container in found {
                let instance = known
                    .iter()
                    .find(|i| i.id == container.container.id)
                    .cloned()
                    .unwrap_or_else(|| instance_of(&container));
                lives.push((instance, Some(container)));
            }
            for instance in known {
                if !lives.iter().any(|(i, _)| i.id == instance.id) {
                    lives.push((instance, None));
                }
            }
            lives.sort_by_key(|(i, _)| i.attempt);
            self.adopt_container(&name, lives);
        }
    }

    async fn adopt_sandbox(&mut self, sandboxes: Vec<Found>, stored: Option<Sandbox>) {
        let newest = sandboxes.iter().map(Found::attempt).max();
        self.record.sandboxes = newest.map_or(0, |n| n + 1);
        let running = sandboxes.iter().filter(|s| s.runs()).max_by_key(|s| s.attempt());
        let Some((running, stored)) = running.zip(stored).filter(|(r, s)| r.container.id == s.id) else {
            self.drop_dead_sandboxes(&sandboxes, None).await;
            return;
        };
        let mut sandbox = stored;
        sandbox.pid = running.task.as_ref().map_or(sandbox.pid, |t| t.pid);
        let uid = pod::uid(&self.pod);
        let network_is_there = match (&sandbox.netns, self.agent.network.now()) {
            (None, _) => true,
            (Some(_), Some(network)) => network.address(uid).is_some(),
            (Some(path), None) => std::path::Path::new(path).exists(),
        };
        if network_is_there {
            let keep = sandbox.id.clone();
            self.agent.owners.lock().insert(keep.clone(), uid.to_owned());
            self.record.sandbox = SandboxStep::Ready(std::sync::Arc::new(sandbox));
            self.drop_dead_sandboxes(&sandboxes, Some(&keep)).await;
        } else {
            self.drop_dead_sandboxes(&sandboxes, None).await;
        }
    }

    async fn drop_dead_sandboxes(&self, sandboxes: &[Found], keep: Option<&str>) {
        for sandbox in sandboxes.iter().filter(|s| Some(s.container.id.as_str()) != keep) {
            if let Err(error) = self.agent.containerd.delete(&sandbox.container.id).await {
                tracing::warn!(pod = pod::display(&self.pod), %error, "cannot remove an old sandbox");
            }
        }
    }

    fn adopt_container(&mut self, name: &str, mut lives: Vec<(Instance, Option<Found>)>) {
        let Some((mut current, found)) = lives.pop() else {
            return;
        };
        let last = lives.pop().map(|(instance, _)| instance).map(|mut i| {
            i.exit.get_or_insert_with(unknown_exit);
            i
        });
        let id = current.id.clone();
        let task = found.and_then(|f| f.task);
        let over = if current.exit.is_some() {
            None
        } else {
            ended(task.as_ref())
        };
        if current.started_at.is_none() && current.exit.is_none() {
            if over.is_some() {
                // Made, but never begun: as if it had not been there.
                current.exit = Some(unknown_exit());
            } else {
                current.started_at = Some(Timestamp::now());
            }
        }
        let before = self
            .written
            .container_statuses
            .iter()
            .chain(&self.written.init_container_statuses)
            .flatten();
        let before = before.into_iter().find(|s| s.name == name).cloned();
        let lost = task.is_none();
        let r = self.container(name);
        r.last = last;
        r.current = Some(current);
        if r.running() {
            let health = before.map_or_else(Health::default, |s| Health {
                started: s.started.unwrap_or(false),
                ready: s.ready,
                ..Health::default()
            });
            self.watch_instance(name, &id, health);
            if lost {
                // The host was started anew: nobody saw how it ended.
                let dir = self.agent.pod_dir(pod::uid(&self.pod));
                self.live.remove(name);
                let r = self.container(name);
                r.health = Health::default();
                if let Some(instance) = r.current.as_mut() {
                    instance.exit = Some(unknown_exit());
                    persist::store_instance(&dir, name, instance);
                }
            } else if let Some((code, at)) = over {
                self.exited(id, code, at);
            }
        }
    }
}

fn unknown_exit() -> Exit {
    Exit {
        code: 255,
        reason: "Unknown".to_owned(),
        message: String::new(),
        finished_at: Timestamp::now(),
    }
}

/// From the labels alone, where the file is missing.
fn instance_of(found: &Found) -> Instance {
    Instance {
        id: found.container.id.clone(),
        sandbox: found.label(names::SANDBOX_ID).to_owned(),
        attempt: found.attempt(),
        image: found.label(names::IMAGE).to_owned(),
        image_name: found.container.image.clone(),
        image_id: String::new(),
        started_at: found
            .runs()
            .then(|| Timestamp::try_from(found.container.created_at).ok())
            .flatten(),
        exit: None,
        user: None,
    }
}
