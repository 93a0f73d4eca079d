//! What a pod's containers share, sandbox and volumes: how it came to be, how it ended, and what of that did not come off.

use std::sync::Arc;

use jiff::Timestamp;

use super::{PodWorker, in_seconds};
use crate::record::{ForgetStep, SandboxStep, Stuck, VolumesStep};
use crate::sandbox::{Created, Unconfirmed};
use crate::volumes::Paths;
use crate::{backoff, clock, plan, pod, runtime, sandbox, volumes};

impl PodWorker {
    pub(super) fn observe_sandbox(&mut self, result: Result<Created, sandbox::Error>) {
        match result {
            Ok(created) => {
                tracing::debug!(pod = pod::display(&self.pod), "sandbox is ready");
                let sandbox = Arc::new(created.sandbox);
                self.record.sandboxes = sandbox.attempt + 1;
                self.record.sandbox = SandboxStep::Ready(sandbox.clone());
                self.begin_sandbox(sandbox.id.clone(), created.place);
                if let Some((code, at)) = self.early.remove(&sandbox.id) {
                    self.observe_exit(sandbox.id.clone(), code, at);
                }
            }
            Err(error) => {
                let message = error.to_string();
                if !matches!(error, sandbox::Error::Ending) {
                    let text = format!("Failed to create pod sandbox: {message}");
                    self.agent
                        .pod_event(&self.pod, "Warning", "FailedCreatePodSandBox", text);
                }
                let now = clock::now();
                let waits = backoff::next(self.record.sandbox_crash, now, now);
                self.record.sandbox_crash = Some(waits);
                let retry_at = now.checked_add(waits.delay).unwrap_or(Timestamp::MAX);
                self.record.sandboxes += 1;
                self.record.sandbox = SandboxStep::Failed { message, retry_at };
            }
        }
    }

    pub(super) fn observe_sandbox_begun(&mut self, id: &str, result: Result<(), runtime::Error>) {
        if let Err(error) = result {
            tracing::warn!(pod = pod::display(&self.pod), %error, "a pod's pause process did not begin");
            self.observe_exit(id.to_owned(), 255, clock::now());
        }
    }

    pub(super) fn observe_sandbox_removed(&mut self, result: Result<(), Unconfirmed>) {
        match result {
            Ok(()) => {
                let over = plan::ends(&self.pod, &self.record);
                self.record.sandbox = if over { SandboxStep::Gone } else { SandboxStep::Absent };
            }
            Err(error) => {
                let before = match &self.record.sandbox {
                    SandboxStep::Removing(before) => before.as_ref(),
                    _ => None,
                };
                self.record.sandbox = SandboxStep::Stuck(self.tell_stuck(before, "FailedKillPod", &error));
            }
        }
    }

    pub(super) fn observe_torn_down(&mut self, result: Result<(), Unconfirmed>) {
        self.record.volumes = match result {
            Ok(()) => {
                self.agent.admission.release(&self.agent, pod::uid(&self.pod));
                VolumesStep::Gone
            }
            Err(error) => {
                let before = match &self.record.volumes {
                    VolumesStep::TearingDown(before) => before.as_ref(),
                    _ => None,
                };
                VolumesStep::Stuck(self.tell_stuck(before, "FailedUnMount", &error))
            }
        };
    }

    pub(super) fn observe_forgotten(&mut self, result: Result<(), Unconfirmed>) {
        self.record.forget = match result {
            Ok(()) => ForgetStep::Forgotten,
            Err(error) => {
                let before = match &self.record.forget {
                    ForgetStep::Forgetting(before) => before.as_ref(),
                    _ => None,
                };
                ForgetStep::Stuck(self.tell_stuck(before, "FailedKillPod", &error))
            }
        };
    }

    /// A step of the pod's end that must come off did not: people are told at the first failure, the log each time.
    fn tell_stuck(&self, before: Option<&Stuck>, reason: &str, error: &Unconfirmed) -> Stuck {
        tracing::warn!(pod = pod::display(&self.pod), %error, "a pod's end is not confirmed, trying again");
        if before.is_none() && !self.record.gone {
            self.agent.pod_event(&self.pod, "Warning", reason, error.to_string());
        }
        Stuck::again(before, clock::now())
    }

    pub(super) fn observe_volumes(&mut self, result: Result<Paths, volumes::Error>) {
        match result {
            Ok(paths) => {
                tracing::debug!(pod = pod::display(&self.pod), "volumes are ready");
                self.volumes = Arc::new(paths);
                self.record.volumes = VolumesStep::Ready;
                self.keep_volumes_fresh();
            }
            Err(error) => {
                let message = error.to_string();
                if !self.ending.is_cancelled() {
                    self.agent
                        .pod_event(&self.pod, "Warning", "FailedMount", message.clone());
                }
                self.record.volumes = VolumesStep::Failed {
                    message,
                    retry_at: in_seconds(10),
                };
            }
        }
    }

    fn keep_volumes_fresh(&mut self) {
        self.upkeep = None;
        if !pod::spec(&self.pod).volumes.iter().flatten().any(volumes::is_live) {
            return;
        }
        let (agent, held) = (self.agent.clone(), self.held.clone());
        let pod = self.current.subscribe();
        let ips = self.record.sandbox().map(|s| s.ips.clone()).unwrap_or_default();
        let keep_fresh = volumes::live::keep_fresh(agent, pod, held, self.tokens.clone(), ips);
        self.upkeep = Some(self.beside("volumes", keep_fresh));
    }

    /// The pause process ended by itself: the pod needs a new sandbox, and everything in the old one goes.
    pub(super) fn observe_sandbox_died(&mut self, id: &str, at: Timestamp) {
        if plan::ends(&self.pod, &self.record) {
            return;
        }
        tracing::debug!(pod = pod::display(&self.pod), id, "a sandbox ended by itself");
        let text = "Pod sandbox changed, it will be killed and re-created.";
        self.agent.pod_event(&self.pod, "Normal", "SandboxChanged", text);
        self.record.sandbox = SandboxStep::Dead;
        self.record.sandbox_died_at = Some(at);
    }
}
