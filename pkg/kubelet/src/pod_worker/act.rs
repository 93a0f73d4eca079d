//! What a worker does: the plan's actions, each set going as a job that reports back through the mailbox.

use jiff::Timestamp;

use super::{Message, PodWorker, in_seconds};
use crate::plan::Action;
use crate::record::{Activity, ImageStep, KillReason, SandboxStep, Verdict, VolumesStep};
use crate::{backoff, containers, images, plan, pod, sandbox, volumes};

impl PodWorker {
    pub(super) fn admit(&mut self) {
        if self.record.admitted || pod::is_terminal_phase(pod::phase(&self.pod)) {
            return;
        }
        let adopted = self.record.containers.values().any(|r| r.current.is_some());
        if pod::deleting(&self.pod) && !adopted {
            return;
        }
        let node = self.agent.node();
        match self
            .agent
            .admission
            .admit(&self.agent, &self.pod, node.as_deref(), adopted)
        {
            Ok(()) => {
                self.record.admitted = true;
                self.record.start_time.get_or_insert_with(|| {
                    pod::status(&self.pod)
                        .start_time
                        .as_ref()
                        .map_or_else(Timestamp::now, |t| t.0)
                });
            }
            Err(verdict) => {
                let text = verdict.message.clone();
                self.agent.pod_event(&self.pod, "Warning", &verdict.reason, text);
                self.record.start_time.get_or_insert_with(Timestamp::now);
                self.record.verdict = Some(verdict);
            }
        }
    }

    /// Carries out the plan until there is nothing more to do now. Answers when to look again.
    pub(super) fn act(&mut self) -> Option<Timestamp> {
        // Each action changes the record, so this ends after a few rounds; a bound keeps a mistake from spinning.
        for _ in 0..16 {
            let plan = plan::plan(&self.pod, &self.record, Timestamp::now());
            let over = plan::ends(&self.pod, &self.record);
            if over {
                self.stop_waiting_for_images();
            }
            if plan.actions.is_empty() {
                return plan.wake_at;
            }
            for action in plan.actions {
                self.perform(action);
            }
        }
        tracing::error!(pod = pod::display(&self.pod), "a pod's plan does not come to rest");
        Some(in_seconds(1))
    }

    pub(super) fn stop_waiting_for_images(&mut self) {
        self.ending.cancel();
        for (name, job) in self.image_jobs.drain() {
            job.abort();
            if let Some(r) = self.record.containers.get_mut(&name) {
                r.image = ImageStep::Needed;
            }
        }
        if pod::deleting(&self.pod) {
            // Liveness and startup have nothing to say of what is being stopped.
            for r in self.record.containers.values_mut() {
                r.health.live_failed = false;
                r.health.startup_failed = false;
            }
        }
    }

    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::PrepareVolumes => self.prepare_volumes(),
            Action::CreateSandbox => self.create_sandbox(),
            Action::EnsureImage(container) => self.ensure_image(container),
            Action::Start(container) => self.start(container),
            Action::Kill {
                container,
                reason,
                message,
            } => self.kill(&container, reason, message),
            Action::AnnounceCrash(container) => self.announce_crash(&container),
            Action::AnnouncePull(container) => self.announce_pull(&container),
            Action::Expire => {
                self.record.verdict = Some(Verdict {
                    reason: "DeadlineExceeded".to_owned(),
                    message: "Pod was active on the node longer than the specified deadline".to_owned(),
                });
                let text = "Pod was active on the node longer than the specified deadline";
                self.agent.pod_event(&self.pod, "Normal", "DeadlineExceeded", text);
            }
            Action::RemoveSandbox => self.remove_sandbox(),
            Action::TearDown => self.tear_down(),
            Action::DeleteFromApi => {
                self.record.removed_from_api = true;
                if self.gone {
                    self.clean_up();
                } else {
                    self.delete_wanted = true;
                }
            }
        }
    }

    pub(super) fn prepare_volumes(&mut self) {
        self.record.volumes = VolumesStep::Preparing;
        let (agent, pod, held, tx) = (self.agent.clone(), self.pod.clone(), self.held.clone(), self.tx.clone());
        let tokens = self.tokens.clone();
        self.job(async move {
            let result = volumes::live::prepare_all(&agent, &pod, &held, &tokens).await;
            let _ = tx.send(Message::Volumes(result.map_err(|e| e.to_string())));
        });
    }

    pub(super) fn create_sandbox(&mut self) {
        let attempt = self.record.sandboxes;
        self.record.sandbox = SandboxStep::Creating;
        let (agent, pod, tx) = (self.agent.clone(), self.pod.clone(), self.tx.clone());
        self.job(async move {
            if let Err(error) = sandbox::create(&agent, &pod, attempt, &tx).await {
                let _ = tx.send(Message::Sandbox(Err(error.to_string())));
            }
        });
    }

    pub(super) fn remove_sandbox(&mut self) {
        let sandbox = self.record.sandbox().cloned();
        self.record.sandbox = SandboxStep::Removing;
        let (agent, pod, tx) = (self.agent.clone(), self.pod.clone(), self.tx.clone());
        self.job(async move {
            sandbox::remove(&agent, &pod, sandbox.as_deref()).await;
            let _ = tx.send(Message::SandboxRemoved);
        });
    }

    pub(super) fn ensure_image(&mut self, name: String) {
        let Some(container) = pod::container(&self.pod, &name).cloned() else {
            return;
        };
        let r = self.container(&name);
        r.image = ImageStep::Ensuring;
        let (agent, pod, held, tx) = (self.agent.clone(), self.pod.clone(), self.held.clone(), self.tx.clone());
        let key = name.clone();
        let handle = self.job(async move {
            let result = images::ensure(&agent, &pod, &container, &held).await;
            let _ = tx.send(Message::Image {
                container: name,
                result,
            });
        });
        self.image_jobs.insert(key, handle);
    }

    pub(super) fn start(&mut self, name: String) {
        let (Some(container), Some(sandbox)) = (
            pod::container(&self.pod, &name).cloned(),
            self.record.sandbox().cloned(),
        ) else {
            return;
        };
        let Some(image) = self.images.remove(&name) else {
            self.container(&name).image = ImageStep::Needed;
            return;
        };
        let now = Timestamp::now();
        let r = self.container(&name);
        if let Some(exit) = r.exit() {
            r.crash = Some(backoff::next(r.crash, exit.finished_at, now));
        }
        r.activity = Activity::Starting;
        r.image = ImageStep::Needed;
        let start = containers::Start {
            attempt: r.next_attempt(),
            older: r.last.as_ref().map(|i| i.id.clone()),
            agent: self.agent.clone(),
            pod: self.pod.clone(),
            container,
            sandbox,
            image,
            volumes: self.volumes.clone(),
            held: self.held.clone(),
            ending: self.ending.clone(),
        };
        let tx = self.tx.clone();
        self.job(async move {
            // Boxed: the largest of the jobs by far.
            let result = Box::pin(start.run()).await;
            let _ = tx.send(Message::Started {
                container: name,
                result,
            });
        });
    }

    pub(super) fn kill(&mut self, name: &str, reason: KillReason, message: String) {
        let Some(container) = pod::container(&self.pod, name).cloned() else {
            return;
        };
        let Some(live) = self.live.get(name) else { return };
        let (id, exited) = (live.id.clone(), live.exited.clone());
        self.agent
            .container_event(&self.pod, name, "Normal", "Killing", message);
        let r = self.container(name);
        r.activity = Activity::Killing(reason);
        let stop = containers::Stop {
            agent: self.agent.clone(),
            pod: self.pod.clone(),
            container,
            id,
            exited,
            reason,
            grace: self.grace.subscribe(),
            ip: self.record.sandbox().and_then(|s| s.ips.first().cloned()),
        };
        let (tx, container) = (self.tx.clone(), name.to_owned());
        self.job(async move {
            let id = stop.id.clone();
            stop.run(&tx).await;
            let _ = tx.send(Message::KillFinished { container, id });
        });
    }

    pub(super) fn announce_crash(&mut self, name: &str) {
        let display = pod::display(&self.pod);
        let r = self.container(name);
        r.announced = r.current.as_ref().map(|i| i.id.clone());
        let text = format!("Back-off restarting failed container {name} in pod {display}");
        self.agent.container_event(&self.pod, name, "Warning", "BackOff", text);
    }

    pub(super) fn announce_pull(&mut self, name: &str) {
        let image = pod::container(&self.pod, name)
            .and_then(|c| c.image.clone())
            .unwrap_or_default();
        let mut reason = "";
        if let ImageStep::Failed {
            backing_off,
            reason: why,
            ..
        } = &mut self.container(name).image
        {
            *backing_off = true;
            reason = why;
        }
        if reason == "ErrImagePull" {
            let text = format!("Back-off pulling image \"{image}\"");
            self.agent.container_event(&self.pod, name, "Normal", "BackOff", text);
            self.agent
                .container_event(&self.pod, name, "Warning", "Failed", "Error: ImagePullBackOff");
        }
    }

    pub(super) fn tear_down(&mut self) {
        if let Some(refresh) = self.refresh.take() {
            refresh.abort();
        }
        // Marked at once, so that the plan doesn't ask again; the message confirms.
        self.record.volumes = VolumesStep::Preparing;
        let (agent, pod, tx) = (self.agent.clone(), self.pod.clone(), self.tx.clone());
        self.job(async move {
            sandbox::tear_down(&agent, &pod).await;
            agent.admission.release(&agent, pod::uid(&pod));
            let _ = tx.send(Message::TornDown);
        });
    }

    pub(super) fn clean_up(&mut self) {
        let (agent, pod, tx) = (self.agent.clone(), self.pod.clone(), self.tx.clone());
        self.job(async move {
            sandbox::clean_up(&agent, &pod).await;
            let _ = tx.send(Message::CleanedUp);
        });
    }
}
