//! Taking over what an earlier run of the agent left: containers are known by their labels, their ends by the files beside
//! the pod. Nothing that runs is restarted.

use std::collections::HashMap;

use jiff::Timestamp;
use mk8s_containerd::{Task, TaskStatus};

use super::PodWorker;
use super::step::{Outcome, Step};
use crate::record::{Exit, Health, Instance, Sandbox, SandboxStep};
use crate::runtime::Found;
use crate::{clock, names, persist, pod};

/// (code, when) of a task that ended; a task that is nowhere ended without anybody seeing how.
pub fn ended(task: Option<&Task>) -> Option<(u32, Timestamp)> {
    let Some(task) = task else {
        return Some((255, clock::now()));
    };
    match (&task.exit, task.status) {
        (Some(exit), _) => Some((
            exit.status,
            Timestamp::try_from(exit.at).unwrap_or_else(|_| clock::now()),
        )),
        (None, TaskStatus::Stopped) => Some((255, clock::now())),
        _ => None,
    }
}

impl PodWorker {
    pub(super) fn adopt(&mut self, found: Vec<Found>) {
        let dir = self.agent.pod_dir(pod::uid(&self.pod));
        let stored = persist::load_sandbox(&dir);
        if found.is_empty() {
            return;
        }
        let (sandboxes, containers): (Vec<Found>, Vec<Found>) = found.into_iter().partition(Found::is_sandbox);
        let kept = self.adopt_sandbox(&sandboxes, stored);
        let mut leftovers: Vec<String> = sandboxes.iter().map(|s| s.id.clone()).collect();
        leftovers.retain(|id| Some(id) != kept.as_ref());
        let mut by_name: HashMap<String, Vec<(Instance, Option<Found>)>> = HashMap::new();
        for container in containers {
            let name = container.label(names::CONTAINER_NAME).to_owned();
            let known = persist::load_instances(&dir, &name);
            let written = known.into_iter().find(|i| i.id == container.id);
            if written.is_none() && (container.only_created() || container.task.is_none()) {
                // A crash came before its start: it is as if it had not been there.
                leftovers.push(container.id.clone());
                by_name.entry(name).or_default();
                continue;
            }
            let instance = written.unwrap_or_else(|| instance_of(&container));
            by_name.entry(name).or_default().push((instance, Some(container)));
        }
        for (name, mut lives) in by_name {
            for instance in persist::load_instances(&dir, &name) {
                if !lives.iter().any(|(i, _)| i.id == instance.id) {
                    lives.push((instance, None));
                }
            }
            lives.sort_by_key(|(i, _)| i.attempt);
            self.adopt_container(&name, lives);
        }
        self.delete_leftovers(leftovers);
        // What ended since the list was made, before anybody listened, is in no event.
        self.look_at_all();
    }

    /// Answers the id of the one that goes on.
    fn adopt_sandbox(&mut self, sandboxes: &[Found], stored: Option<Sandbox>) -> Option<String> {
        let newest = sandboxes.iter().map(Found::attempt).max();
        self.record.sandboxes = newest.map_or(0, |n| n + 1);
        let running = sandboxes.iter().filter(|s| s.runs()).max_by_key(|s| s.attempt());
        let (running, mut sandbox) = running.zip(stored).filter(|(r, s)| r.id == s.id)?;
        sandbox.pid = running.task.as_ref().map_or(sandbox.pid, |t| t.pid);
        let uid = pod::uid(&self.pod);
        if sandbox.netns.is_some() && !self.agent.runtime.has_network(uid) {
            return None;
        }
        let id = sandbox.id.clone();
        self.agent.owners.lock().insert(id.clone(), uid.to_owned());
        self.record.sandbox = SandboxStep::Ready(std::sync::Arc::new(sandbox));
        Some(id)
    }

    /// What cannot be deleted now is found again by its labels when the pod ends.
    fn delete_leftovers(&self, ids: Vec<String>) {
        if ids.is_empty() {
            return;
        }
        let (agent, pod) = (self.agent.clone(), pod::display(&self.pod));
        self.job(Step::Beside("leftovers"), async move {
            for id in ids {
                if let Err(error) = agent.runtime.delete(&id).await {
                    tracing::warn!(pod, id, %error, "what an earlier run left stays for now");
                }
            }
            Outcome::Nothing
        });
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
        if current.exit.is_none() {
            current.started_at.get_or_insert_with(clock::now);
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
            self.accompany(name, &id, health);
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
                self.observe_exit(id, code, at);
            }
        }
    }
}

fn unknown_exit() -> Exit {
    Exit {
        code: 255,
        reason: "Unknown".to_owned(),
        message: String::new(),
        finished_at: clock::now(),
    }
}

/// From the labels alone, where the file is missing: the crash came just after its start.
fn instance_of(found: &Found) -> Instance {
    Instance {
        id: found.id.clone(),
        sandbox: found.label(names::SANDBOX_ID).to_owned(),
        attempt: found.attempt(),
        image: found.label(names::IMAGE).to_owned(),
        image_name: found.image.clone(),
        image_id: String::new(),
        started_at: Timestamp::try_from(found.created_at).ok(),
        exit: None,
        stop_signal: None,
        user: None,
    }
}
