//! Pods: the STATUS column tells a whole story in a word, computed from phase, reasons and container states.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::Column;
use super::{age, name, or, text};
use crate::{meta, time};

pub fn pod() -> Vec<Column> {
    vec![
        name(),
        text(
            "Ready",
            "Containers that are ready, of all that should run.",
            |pod, _| {
                let summary = summary(pod);
                format!("{}/{}", summary.ready, summary.total).into()
            },
        ),
        text(
            "Status",
            "State of the pod, with the reason if something is wrong.",
            |pod, _| summary(pod).reason.into(),
        ),
        text(
            "Restarts",
            "Restarts of its containers, and how long ago the last was.",
            |pod, now| summary(pod).restarts(now).into(),
        ),
        age(),
        text("IP", "Address of the pod.", |pod, _| {
            let first = meta::items(pod, &["status", "podIPs"]).first();
            match first.and_then(|first| meta::str_at(first, &["ip"])) {
                Some(ip) if !ip.is_empty() => ip.into(),
                _ => "<none>".into(),
            }
        })
        .wide(),
        text("Node", "Node that the pod is bound to.", |pod, _| {
            or(pod, &["spec", "nodeName"], "<none>")
        })
        .wide(),
        text("Nominated Node", "Node that preemption is making room on.", |pod, _| {
            or(pod, &["status", "nominatedNodeName"], "<none>")
        })
        .wide(),
        text("Readiness Gates", "Readiness gates that are true, of all.", |pod, _| {
            let gates = meta::items(pod, &["spec", "readinessGates"]);
            if gates.is_empty() {
                return "<none>".into();
            }
            let open = gates
                .iter()
                .filter(|gate| meta::condition_is_true(pod, meta::string(gate, &["conditionType"])))
                .count();
            format!("{open}/{}", gates.len()).into()
        })
        .wide(),
    ]
}

/// The row's conditions: a finished pod is marked so that clients can grey it out.
pub fn pod_conditions(pod: &Value) -> Option<Value> {
    let (reason, message) = match meta::string(pod, &["status", "phase"]) {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

struct Summary<'a> {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    /// The latest end of a container that was restarted.
    last: Option<&'a str>,
}

impl Summary<'_> {
    fn restarts(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.restarts != 0 => format!("{} ({} ago)", self.restarts, time::age(Some(last), now)),
            _ => self.restarts.to_string(),
        }
    }
}

/// RFC 3339 in UTC with whole seconds: text order is time order.
fn later<'a>(last: &mut Option<&'a str>, status: &'a Value) {
    if let Some(at) = meta::str_at(status, &["lastState", "terminated", "finishedAt"])
        && last.is_none_or(|last| at > last)
    {
        *last = Some(at);
    }
}

fn ended(prefix: &str, terminated: &Value) -> String {
    let reason = meta::string(terminated, &["reason"]);
    if !reason.is_empty() {
        return format!("{prefix}{reason}");
    }
    match meta::i64_at(terminated, &["signal"]).unwrap_or(0) {
        0 => format!(
            "{prefix}ExitCode:{}",
            meta::i64_at(terminated, &["exitCode"]).unwrap_or(0)
        ),
        signal => format!("{prefix}Signal:{signal}"),
    }
}

fn is_sidecar(container: &Value) -> bool {
    meta::str_at(container, &["restartPolicy"]) == Some("Always")
}

fn summary(pod: &Value) -> Summary<'_> {
    let phase = meta::string(pod, &["status", "phase"]);
    let init_containers = meta::items(pod, &["spec", "initContainers"]);
    let mut summary = Summary {
        ready: 0,
        total: meta::items(pod, &["spec", "containers"]).len()
            + init_containers.iter().filter(|container| is_sidecar(container)).count(),
        reason: match meta::string(pod, &["status", "reason"]) {
            "" => phase.to_string(),
            reason => reason.to_string(),
        },
        restarts: 0,
        last: None,
    };
    if meta::condition(pod, "PodScheduled").is_some_and(|condition| condition["reason"] == "SchedulingGated") {
        summary.reason = "SchedulingGated".into();
    }
    let begun = init_containers_of(pod, init_containers, &mut summary);
    if !begun.initializing || meta::condition_is_true(pod, "Initialized") {
        summary.restarts = begun.sidecar_restarts;
        summary.last = begun.sidecar_last;
        main_containers(pod, &mut summary);
    }
    if meta::is_deleting(pod) {
        if meta::string(pod, &["status", "reason"]) == "NodeLost" {
            summary.reason = "Unknown".into();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".into();
        }
    }
    summary
}

/// How far the init containers came, and what of them counts beside the main containers.
struct Initialization<'a> {
    initializing: bool,
    sidecar_restarts: i64,
    sidecar_last: Option<&'a str>,
}

/// Looks at them up to the first that is not over: that one says what the pod waits for.
fn init_containers_of<'a>(pod: &'a Value, declared: &[Value], summary: &mut Summary<'a>) -> Initialization<'a> {
    let sidecars = declared.iter().filter(|container| is_sidecar(container));
    let sidecars: HashSet<&str> = sidecars.map(|container| meta::string(container, &["name"])).collect();
    let mut begun = Initialization {
        initializing: false,
        sidecar_restarts: 0,
        sidecar_last: None,
    };
    for (index, status) in meta::items(pod, &["status", "initContainerStatuses"])
        .iter()
        .enumerate()
    {
        let restarts = meta::i64_at(status, &["restartCount"]).unwrap_or(0);
        let name = meta::string(status, &["name"]);
        let is_sidecar = sidecars.contains(name);
        summary.restarts += restarts;
        later(&mut summary.last, status);
        if is_sidecar {
            begun.sidecar_restarts += restarts;
            later(&mut begun.sidecar_last, status);
        }
        let terminated = meta::at(status, &["state", "terminated"]);
        let waiting = meta::string(status, &["state", "waiting", "reason"]);
        match terminated {
            Some(terminated) if meta::i64_at(terminated, &["exitCode"]).unwrap_or(0) == 0 => continue,
            _ if is_sidecar && meta::bool_at(status, &["started"]) == Some(true) => {
                if meta::bool_at(status, &["ready"]) == Some(true) {
                    summary.ready += 1;
                }
                continue;
            }
            Some(terminated) => summary.reason = ended("Init:", terminated),
            None if !waiting.is_empty() && waiting != "PodInitializing" => summary.reason = format!("Init:{waiting}"),
            None => summary.reason = format!("Init:{index}/{}", declared.len()),
        }
        begun.initializing = true;
        break;
    }
    begun
}

fn main_containers<'a>(pod: &'a Value, summary: &mut Summary<'a>) {
    let (mut running, mut error) = (false, None);
    for status in meta::items(pod, &["status", "containerStatuses"]).iter().rev() {
        summary.restarts += meta::i64_at(status, &["restartCount"]).unwrap_or(0);
        later(&mut summary.last, status);
        let waiting = meta::string(status, &["state", "waiting", "reason"]);
        if !waiting.is_empty() {
            summary.reason = waiting.into();
        } else if let Some(terminated) = meta::at(status, &["state", "terminated"]) {
            summary.reason = ended("", terminated);
            if meta::i64_at(terminated, &["exitCode"]).unwrap_or(0) != 0 {
                error = Some(summary.reason.clone());
            }
        } else if meta::bool_at(status, &["ready"]) == Some(true) && meta::at(status, &["state", "running"]).is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" {
        match error {
            _ if running && meta::condition_is_true(pod, "Ready") => summary.reason = "Running".into(),
            Some(error) => summary.reason = error,
            None if running => summary.reason = "NotReady".into(),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn status_words() {
        let waiting = |reason: &str| {
            json!({"name": "c", "state": {"waiting": {"reason": reason}}, "restartCount": 3,
            "lastState": {"terminated": {"finishedAt": "2024-01-01T00:00:00Z"}}})
        };
        let running = json!({"name": "c", "ready": true, "state": {"running": {}}, "restartCount": 0});
        let done = |code: i64| {
            json!({"name": "d", "state": {"terminated": {"exitCode": code,
            "reason": if code == 0 { "Completed" } else { "Error" }}}, "restartCount": 0})
        };
        let spec = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]});
        let pod = |status: Value| json!({"spec": spec, "status": status});
        let now = "2024-01-01T00:05:00Z".parse().unwrap();
        for (pod, expected) in [
            (pod(json!({"phase": "Pending"})), "0/1 Pending 0"),
            (
                pod(json!({"phase": "Running", "containerStatuses": [running]})),
                "1/1 Running 0",
            ),
            (
                pod(json!({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff")]})),
                "0/1 CrashLoopBackOff 3 (5m ago)",
            ),
            (
                pod(json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]})),
                "0/1 Init:0/1 0",
            ),
            (
                pod(json!({"phase": "Pending", "initContainerStatuses": [waiting("ImagePullBackOff")]})),
                "0/1 Init:ImagePullBackOff 3 (5m ago)",
            ),
            (
                pod(json!({"phase": "Failed", "initContainerStatuses": [done(2)]})),
                "0/1 Init:Error 0",
            ),
            (
                pod(json!({"phase": "Succeeded", "containerStatuses": [done(0)]})),
                "0/1 Completed 0",
            ),
            (
                pod(json!({"phase": "Running", "containerStatuses": [done(0), done(1)]})),
                "0/1 Error 0",
            ),
            (
                pod(json!({"phase": "Running", "containerStatuses": [done(0), running]})),
                "1/1 NotReady 0",
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}, "spec": spec,
                    "status": {"phase": "Running", "containerStatuses": [running]}}),
                "1/1 Terminating 0",
            ),
            (pod(json!({"phase": "Failed", "reason": "Evicted"})), "0/1 Evicted 0"),
        ] {
            let summary = summary(&pod);
            let line = format!(
                "{}/{} {} {}",
                summary.ready,
                summary.total,
                summary.reason,
                summary.restarts(now)
            );
            assert_eq!(line, expected);
        }
    }
}
