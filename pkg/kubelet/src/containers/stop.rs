//! Ending a running container: preStop, the signal it asks for, its grace, and then no more asking.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::hooks;
use crate::agent::Agent;
use crate::{clock, runtime};

/// However hurried, a container gets this long between the first signal and the last.
const SHORTEST: Duration = Duration::from_secs(2);
/// After SIGKILL a process is gone at once unless the kernel can't let it go.
const LAST_WAIT: Duration = Duration::from_secs(30);

pub struct Stop {
    pub agent: Arc<Agent>,
    pub pod: Arc<Pod>,
    pub container: Container,
    pub id: String,
    pub signal: Option<String>,
    pub exited: CancellationToken,
    /// Its own last moment, where it has one: a restart's grace, counted from now.
    pub own_deadline: Option<Timestamp>,
    /// The whole pod's, once it ends; it may come nearer meanwhile.
    pub pod_deadline: watch::Receiver<Option<Timestamp>>,
    pub ip: Option<String>,
}

/// How a stop came out.
#[derive(Debug)]
pub enum Stopped {
    /// Its end has been heard, and is being looked into.
    Heard,
    /// containerd says so.
    Ended { code: u32, at: Timestamp },
    /// Nobody knows: it is to be tried again.
    Unconfirmed(Error),
}

/// Why it isn't known to have ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    #[error("it survives SIGKILL")]
    Survives,
}

impl Stop {
    /// A signal that could not be sent is as good as sent: the deadline goes on, and at its end there must be an answer.
    pub async fn run(self) -> Stopped {
        self.pre_stop().await;
        if self.exited.is_cancelled() {
            return Stopped::Heard;
        }
        let signal = self.stop_signal().await;
        if let Err(error) = self.agent.runtime.kill(&self.id, signal, false).await {
            tracing::warn!(id = self.id, %error, "cannot signal a container");
        }
        if self.wait_grace(clock::now()).await {
            return Stopped::Heard;
        }
        let killed = self.agent.runtime.kill(&self.id, Signal::SIGKILL as i32, true).await;
        // The event normally tells; asking as well makes sure that a lost one holds nothing up.
        tokio::select! {
            () = self.exited.cancelled() => Stopped::Heard,
            answer = self.ask_for_end(killed) => answer,
            () = tokio::time::sleep(LAST_WAIT) => Stopped::Unconfirmed(Error::Survives),
        }
    }

    async fn ask_for_end(&self, killed: Result<(), runtime::Error>) -> Stopped {
        if let Err(error) = killed {
            return Stopped::Unconfirmed(error.into());
        }
        match self.agent.runtime.wait(&self.id).await {
            Ok(Some(exit)) => Stopped::Ended {
                code: exit.status,
                at: Timestamp::try_from(exit.at).unwrap_or_else(|_| clock::now()),
            },
            // Nothing of it is left: it was killed, and somebody took it away.
            Ok(None) => Stopped::Ended {
                code: 137,
                at: clock::now(),
            },
            Err(error) => Stopped::Unconfirmed(error.into()),
        }
    }

    /// None: it may take any time.
    fn deadline(&self) -> Option<Timestamp> {
        [self.own_deadline, *self.pod_deadline.borrow()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Resolves at the deadline, wherever it moves; not before `least`.
    async fn until_deadline(&self, least: Timestamp) {
        let mut moved = self.pod_deadline.clone();
        loop {
            moved.mark_unchanged();
            let timer = async {
                match self.deadline() {
                    Some(at) => tokio::time::sleep(until(at.max(least))).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer => return,
                changed = moved.changed() => if changed.is_err() { std::future::pending::<()>().await },
            }
        }
    }

    async fn pre_stop(&self) {
        let hook = self.container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
        let now = clock::now();
        let Some(hook) = hook.filter(|_| self.deadline().is_none_or(|at| at > now)) else {
            return;
        };
        let target = hooks::Target {
            agent: &self.agent,
            pod: &self.pod,
            container: &self.container,
            id: &self.id,
            ip: self.ip.clone().unwrap_or_default(),
        };
        let result = tokio::select! {
            result = hooks::run(&target, hook) => result.map_err(|error| error.to_string()),
            () = self.until_deadline(now) => Err("it did not finish within the grace period".to_owned()),
            () = self.exited.cancelled() => return,
        };
        if let Err(error) = result {
            tracing::debug!(container = self.container.name, error, "a preStop hook failed");
            let name = &self.container.name;
            self.agent
                .container_event(&self.pod, name, "Warning", "FailedPreStopHook", "PreStopHook failed");
        }
    }

    /// What the image asks for.
    async fn stop_signal(&self) -> i32 {
        if let Some(name) = &self.signal {
            return signal(name);
        }
        // An instance of an earlier version's making.
        let name = self.container.image.as_deref().unwrap_or_default();
        let image = self.agent.runtime.image(name).await.ok().flatten();
        signal(&image.map(|i| i.config.stop_signal.clone()).unwrap_or_default())
    }

    /// True: it ended in time.
    async fn wait_grace(&self, signalled: Timestamp) -> bool {
        let least = signalled.checked_add(SHORTEST).unwrap_or(signalled);
        tokio::select! {
            () = self.exited.cancelled() => true,
            () = self.until_deadline(least) => false,
        }
    }
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(clock::now())).unwrap_or_default()
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
