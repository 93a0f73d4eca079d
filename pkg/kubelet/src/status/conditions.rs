//! The conditions that the node agent owns; all others stay as somebody else set them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};

use crate::pod;
use crate::record::PodRecord;
use crate::resize;

pub const OWNED: &[&str] = &[
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    RESIZE_PENDING,
];

/// Shown as long as it holds.
const RESIZE_PENDING: &str = "PodResizePending";

pub fn conditions(
    pod: &Pod,
    old: &PodStatus,
    new: &PodStatus,
    record: &PodRecord,
    now: Timestamp,
) -> Vec<PodCondition> {
    let before = old.conditions.as_deref().unwrap_or_default();
    let mut all: Vec<PodCondition> = before
        .iter()
        .filter(|c| !OWNED.contains(&c.type_.as_str()))
        .cloned()
        .collect();
    let containers_ready = containers_ready(pod, new);
    let ready = ready(pod, &all, &containers_ready);
    let sandbox = if record.sandbox().is_some() {
        Verdict::yes()
    } else {
        Verdict::no("", String::new())
    };
    let resize = (!record.resize_held.is_empty()).then(|| {
        let why = Verdict::no("Infeasible", resize::WHY.to_owned());
        (RESIZE_PENDING, Verdict { holds: true, ..why })
    });
    let owned = [
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", initialized(pod, new)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::yes()),
    ];
    for (type_, verdict) in owned.into_iter().chain(resize) {
        let previous = before.iter().find(|c| c.type_ == type_);
        let status = if verdict.holds { "True" } else { "False" };
        let since = previous
            .filter(|p| p.status == status)
            .and_then(|p| p.last_transition_time.clone());
        all.push(PodCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: (!verdict.reason.is_empty()).then(|| verdict.reason.to_owned()),
            message: (!verdict.message.is_empty()).then_some(verdict.message),
            observed_generation: pod.metadata.generation,
            last_probe_time: None,
            last_transition_time: Some(since.unwrap_or_else(|| pod::time(now))),
        });
    }
    all
}

#[derive(Clone)]
struct Verdict {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes() -> Self {
        Self {
            holds: true,
            reason: "",
            message: String::new(),
        }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Self {
            holds: false,
            reason,
            message,
        }
    }
}

fn list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn find<'a>(statuses: &'a Option<Vec<ContainerStatus>>, name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().flatten().find(|s| s.name == name)
}

fn messages(unknown: &[&str], others: &[&str], what: &str) -> String {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: {}", list(unknown)));
    }
    if !others.is_empty() {
        parts.push(format!("containers with {what} status: {}", list(others)));
    }
    parts.join(", ")
}

fn containers_ready(pod: &Pod, status: &PodStatus) -> Verdict {
    if status.container_statuses.is_none() {
        return Verdict::no("UnknownContainerStatuses", String::new());
    }
    let mut unknown = Vec::new();
    let mut unready = Vec::new();
    let sidecars = pod::init_containers(pod).iter().filter(|c| pod::is_sidecar(c));
    for container in sidecars.chain(pod::containers(pod)) {
        let found = find(&status.init_container_statuses, &container.name)
            .or_else(|| find(&status.container_statuses, &container.name));
        match found {
            None => unknown.push(container.name.as_str()),
            Some(status) if !status.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    match status.phase.as_deref() {
        Some("Succeeded") if unknown.is_empty() => return Verdict::no("PodCompleted", String::new()),
        Some("Failed") => return Verdict::no("PodFailed", String::new()),
        _ => {}
    }
    let message = messages(&unknown, &unready, "unready");
    if message.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ContainersNotReady", message)
    }
}

fn ready(pod: &Pod, others: &[PodCondition], containers_ready: &Verdict) -> Verdict {
    if !containers_ready.holds {
        return containers_ready.clone();
    }
    let mut missing = Vec::new();
    for gate in pod::spec(pod).readiness_gates.iter().flatten() {
        let gate = &gate.condition_type;
        match others.iter().find(|c| c.type_ == *gate) {
            None => missing.push(format!(
                "corresponding condition of pod readiness gate \"{gate}\" does not exist."
            )),
            Some(c) if c.status != "True" => missing.push(format!(
                "the status of pod readiness gate \"{gate}\" is not \"True\", but {}",
                c.status
            )),
            Some(_) => {}
        }
    }
    if missing.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ReadinessGatesNotReady", missing.join(", "))
    }
}

fn initialized(pod: &Pod, status: &PodStatus) -> Verdict {
    let inits = pod::init_containers(pod);
    if status.container_statuses.is_none() && !inits.is_empty() {
        return Verdict::no("UnknownContainerStatuses", String::new());
    }
    let mut unknown = Vec::new();
    let mut incomplete = Vec::new();
    for container in inits {
        match find(&status.init_container_statuses, &container.name) {
            None => unknown.push(container.name.as_str()),
            Some(s) => {
                let done = if pod::is_sidecar(container) {
                    s.started == Some(true)
                } else {
                    s.ready
                };
                if !done {
                    incomplete.push(container.name.as_str());
                }
            }
        }
    }
    if status.phase.as_deref() == Some("Succeeded") && unknown.is_empty() {
        return Verdict {
            holds: true,
            reason: "PodCompleted",
            message: String::new(),
        };
    }
    let begun = status.container_statuses.iter().flatten().any(|s| {
        let happened = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
            state
                .as_ref()
                .is_some_and(|s| s.running.is_some() || s.terminated.is_some())
        };
        s.started == Some(true) || happened(&s.state) || happened(&s.last_state)
    });
    let message = messages(&unknown, &incomplete, "incomplete");
    if begun || message.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ContainersNotInitialized", message)
    }
}
