//! Liveness, readiness and startup: one task per probe of a running container. It asks at its times, counts, and tells the
//! pod's worker when the answer turned.

mod exec;
mod grpc;
pub mod http;
mod tcp;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::sync::{mpsc, watch};

use crate::agent::Agent;
use crate::clock;
use crate::pod_worker::Message;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }
}

/// A turn: the probe's threshold was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub kind: Kind,
    pub success: bool,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// What it said.
    Failure(String),
    /// It could not be asked: that is no answer.
    Error(String),
}

#[derive(Clone)]
pub struct Target {
    pub agent: Arc<Agent>,
    pub pod: Arc<Pod>,
    pub container: Container,
    pub instance: String,
    pub ip: String,
    pub started_at: Option<Timestamp>,
}

/// Counts answers: what holds now changes only after so many equal ones in a row.
#[derive(Clone, Copy, Debug)]
struct Counter {
    success: u32,
    failure: u32,
    last: Option<bool>,
    run: u32,
}

impl Counter {
    fn new(probe: &Probe) -> Self {
        let of = |value: Option<i32>, default: i32| value.filter(|v| *v > 0).unwrap_or(default) as u32;
        Self {
            success: of(probe.success_threshold, 1),
            failure: of(probe.failure_threshold, 3),
            last: None,
            run: 0,
        }
    }

    /// Some: the threshold is reached (again).
    fn count(&mut self, success: bool) -> Option<bool> {
        if self.last == Some(success) {
            self.run += 1;
        } else {
            self.last = Some(success);
            self.run = 1;
        }
        let threshold = if success { self.success } else { self.failure };
        (self.run >= threshold).then_some(success)
    }
}

fn seconds(value: Option<i32>, default: i32) -> Duration {
    Duration::from_secs(value.filter(|v| *v > 0).unwrap_or(default) as u64)
}

/// The tasks for a container's probes; `startup` where its startup probe has yet to succeed.
pub fn probes(
    target: &Target,
    started: &watch::Receiver<bool>,
    tx: &mpsc::UnboundedSender<Message>,
    startup: bool,
) -> Vec<BoxFuture<'static, ()>> {
    let container = &target.container;
    let mut tasks: Vec<BoxFuture<'static, ()>> = Vec::new();
    let mut add = |kind: Kind, probe: Option<&Probe>| {
        if let Some(probe) = probe {
            tasks.push(Box::pin(run(
                kind,
                probe.clone(),
                target.clone(),
                started.clone(),
                tx.clone(),
            )));
        }
    };
    if startup {
        add(Kind::Startup, container.startup_probe.as_ref());
    }
    add(Kind::Liveness, container.liveness_probe.as_ref());
    add(Kind::Readiness, container.readiness_probe.as_ref());
    tasks
}

async fn run(
    kind: Kind,
    probe: Probe,
    target: Target,
    mut started: watch::Receiver<bool>,
    tx: mpsc::UnboundedSender<Message>,
) {
    if kind != Kind::Startup && started.wait_for(|s| *s).await.is_err() {
        return;
    }
    let begun = target.started_at.unwrap_or_else(clock::now);
    let delay = Duration::from_secs(probe.initial_delay_seconds.unwrap_or(0).max(0) as u64);
    let age = Duration::try_from(clock::now().duration_since(begun)).unwrap_or_default();
    tokio::time::sleep(delay.saturating_sub(age)).await;
    let mut ticks = tokio::time::interval(seconds(probe.period_seconds, 10));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut counter = Counter::new(&probe);
    let mut told = None;
    loop {
        ticks.tick().await;
        let outcome = ask(&probe, &target).await;
        let event = |text: String| {
            let name = &target.container.name;
            target
                .agent
                .container_event(&target.pod, name, "Warning", "Unhealthy", text);
        };
        let success = match outcome {
            Outcome::Success => true,
            Outcome::Failure(said) => {
                event(format!("{} probe failed: {said}", kind.name()));
                false
            }
            Outcome::Error(error) => {
                event(format!(
                    "{} probe errored and resulted in unknown state: {error}",
                    kind.name()
                ));
                continue;
            }
        };
        let Some(turned) = counter.count(success) else { continue };
        if told != Some(turned) {
            told = Some(turned);
            let result = Report { kind, success: turned };
            let message = Message::Probe {
                container: target.container.name.clone(),
                instance: target.instance.clone(),
                result,
            };
            if tx.send(message).is_err() {
                return;
            }
        }
        // The container is restarted next, or has started: either way nothing is left to ask.
        if kind == Kind::Startup || (kind == Kind::Liveness && !turned) {
            return;
        }
    }
}

async fn ask(probe: &Probe, target: &Target) -> Outcome {
    let timeout = seconds(probe.timeout_seconds, 1);
    if let Some(action) = &probe.exec {
        return exec::ask(target, action.command.as_deref().unwrap_or_default(), timeout).await;
    }
    if let Some(action) = &probe.http_get {
        return http::ask(action, &target.container, &target.ip, timeout).await;
    }
    if let Some(action) = &probe.tcp_socket {
        let Some(port) = port(&action.port, &target.container) else {
            return Outcome::Error(format!("invalid port number: {:?}", action.port));
        };
        let host = action
            .host
            .clone()
            .filter(|h| !h.is_empty())
            .unwrap_or_else(|| target.ip.clone());
        return tcp::ask(&host, port, timeout).await;
    }
    if let Some(action) = &probe.grpc {
        let service = action.service.clone().unwrap_or_default();
        return grpc::ask(&target.ip, action.port as u16, &service, timeout).await;
    }
    Outcome::Error("missing probe handler".to_owned())
}

/// A port by number or by the name that the container gives it.
pub fn port(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match name.parse::<i32>() {
            Ok(number) => number,
            Err(_) => {
                let named = container
                    .ports
                    .iter()
                    .flatten()
                    .find(|p| p.name.as_deref() == Some(name))?;
                named.container_port
            }
        },
    };
    u16::try_from(number).ok().filter(|p| *p > 0)
}

/// An address as a message and a URL write it.
fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The kernel's answer to a connect, in the words that people search for.
fn dial_error(host: &str, port: u16, error: &std::io::Error) -> String {
    let cause = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        std::io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {}: {cause}", host_port(host, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn thresholds() {
        let probe: Probe = serde_json::from_value(json!({"successThreshold": 2, "failureThreshold": 3})).unwrap();
        let mut counter = Counter::new(&probe);
        for (answer, expected) in [
            (false, None),
            (false, None),
            (true, None),
            (true, Some(true)),
            (false, None),
            (false, None),
            (false, Some(false)),
            (false, Some(false)),
        ] {
            assert_eq!(counter.count(answer), expected);
        }
    }

    #[test]
    fn ports() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]})).unwrap();
        for (wanted, expected) in [
            (IntOrString::Int(80), Some(80)),
            (IntOrString::String("web".into()), Some(8080)),
            (IntOrString::String("81".into()), Some(81)),
            (IntOrString::String("none".into()), None),
            (IntOrString::Int(0), None),
            (IntOrString::Int(70000), None),
        ] {
            assert_eq!(port(&wanted, &container), expected, "{wanted:?}");
        }
    }
}
