//! Ending a running container: preStop, the signal it asks for, its grace, and then no more asking.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::hooks;
use crate::agent::Agent;
use crate::pod_worker::Message;
use crate::record::KillReason;

/// However hurried, a container gets this long between the first signal and the last.
const SHORTEST: Duration = Duration::from_secs(2);
/// After SIGKILL a process is gone at once unless the kernel can't let it go.
const LAST_WAIT: Duration = Duration::from_secs(30);

pub struct Stop {
    pub agent: Arc<Agent>,
    pub pod: Arc<Pod>,
    pub container: Container,
    pub id: String,
    pub exited: CancellationToken,
    pub reason: KillReason,
    /// The pod's grace in seconds; it may shrink meanwhile.
    pub grace: watch::Receiver<i64>,
    pub ip: Option<String>,
}

impl Stop {
    pub async fn run(mut self, tx: &mpsc::UnboundedSender<Message>) {
        let began = Instant::now();
        let grace = self.grace_seconds();
        self.pre_stop(began, grace).await;
        if self.exited.is_cancelled() {
            return;
        }
        let signal = self.stop_signal().await;
        if let Err(error) = self.agent.containerd.kill(&self.id, signal, false).await {
            tracing::warn!(id = self.id, %error, "cannot signal a container");
        }
        let signalled = Instant::now();
        if self.wait_grace(began, signalled).await {
            return;
        }
        if let Err(error) = self.agent.containerd.kill(&self.id, Signal::SIGKILL as i32, true).await {
            tracing::warn!(id = self.id, %error, "cannot kill a container");
        }
        // The event normally tells; asking as well makes sure that a lost one holds nothing up.
        tokio::select! {
            () = self.exited.cancelled() => {}
            exit = self.agent.containerd.wait(&self.id) => {
                let (code, at) = exit.map_or((137, Timestamp::now()), |e| {
                    (e.status, Timestamp::try_from(e.at).unwrap_or_else(|_| Timestamp::now()))
                });
                let _ = tx.send(Message::Exit { id: self.id.clone(), code, at });
                self.exited.cancelled().await;
            }
            () = tokio::time::sleep(LAST_WAIT) => {
                tracing::error!(id = self.id, "a container survives SIGKILL");
            }
        }
    }

    /// A probe may have a grace of its own; it counts when the probe is why.
    fn grace_seconds(&self) -> i64 {
        let probe = match self.reason {
            KillReason::LivenessProbe => self.container.liveness_probe.as_ref(),
            KillReason::StartupProbe => self.container.startup_probe.as_ref(),
            _ => None,
        };
        let own = probe.and_then(|p| p.termination_grace_period_seconds);
        own.unwrap_or_else(|| *self.grace.borrow())
    }

    async fn pre_stop(&self, began: Instant, grace: i64) {
        let hook = self.container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
        let Some(hook) = hook.filter(|_| grace > 0) else { return };
        let target = hooks::Target {
            agent: &self.agent,
            pod: &self.pod,
            container: &self.container,
            id: &self.id,
            ip: self.ip.clone().unwrap_or_default(),
        };
        let mut shrinking = self.grace.clone();
        let limit = async {
            loop {
                let grace = Duration::from_secs((*shrinking.borrow_and_update()).clamp(0, grace) as u64);
                tokio::select! {
                    () = tokio::time::sleep_until(began + grace) => return,
                    changed = shrinking.changed() => if changed.is_err() { std::future::pending::<()>().await },
                }
            }
        };
        let result = tokio::select! {
            result = hooks::run(&target, hook) => result,
            () = limit => Err("preStop hook did not finish within the grace period".to_owned()),
            () = self.exited.cancelled() => return,
        };
        if let Err(error) = result {
            tracing::debug!(container = self.container.name, error, "a preStop hook failed");
            let name = &self.container.name;
            self.agent
                .container_event(&self.pod, name, "Warning", "FailedPreStopHook", "PreStopHook failed");
        }
    }

    async fn stop_signal(&self) -> i32 {
        let wanted = self
            .agent
            .containerd
            .image(self.container.image.as_deref().unwrap_or_default())
            .await;
        let name = wanted
            .ok()
            .flatten()
            .map(|i| i.config.stop_signal.clone())
            .unwrap_or_default();
        signal(&name)
    }

    /// True: it ended in time.
    async fn wait_grace(&mut self, began: Instant, signalled: Instant) -> bool {
        let own = self.grace_seconds();
        loop {
            let grace = (*self.grace.borrow_and_update()).min(own).max(0);
            let until = (began + Duration::from_secs(grace as u64)).max(signalled + SHORTEST);
            tokio::select! {
                () = self.exited.cancelled() => return true,
                () = tokio::time::sleep_until(until) => return false,
                changed = self.grace.changed() => if changed.is_err() { return self.exited.is_cancelled() },
            }
        }
    }
}

/// `SIGTERM`, `TERM`, `15`; what isn't understood is SIGTERM.
fn signal(name: &str) -> i32 {
    if let Ok(number) = name.parse::<i32>() {
        return number;
    }
    let full = if name.starts_with("SIG") {
        name.to_owned()
    } else {
        format!("SIG{name}")
    };
    full.parse::<Signal>().map_or(Signal::SIGTERM as i32, |s| s as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (name, number) in [("", 15), ("SIGINT", 2), ("QUIT", 3), ("9", 9), ("SIGRTMIN+3", 15)] {
            assert_eq!(signal(name), number, "{name}");
        }
    }
}
