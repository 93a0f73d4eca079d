//! The pod's phase: one word for the states of all its containers.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

use crate::plan;
use crate::pod;
use crate::record::PodRecord;

/// The phase after `old`. A terminal one stays; it comes only when nothing of the pod may run any more, since by it others take
/// the pod's place.
pub fn phase(pod: &Pod, old: &str, status: &PodStatus, record: &PodRecord) -> String {
    if pod::is_terminal_phase(old) {
        return old.to_owned();
    }
    let next = of_containers(pod, status, record);
    let early = pod::is_terminal_phase(next) && plan::something_lives(pod, record);
    match old {
        "" if early => "Pending",
        old if early => old,
        _ => next,
    }
    .to_owned()
}

fn of_containers(pod: &Pod, status: &PodStatus, record: &PodRecord) -> &'static str {
    if record.verdict.is_some() {
        return "Failed";
    }
    let terminal = plan::ends(pod, record);
    let find = |list: &Option<Vec<ContainerStatus>>, name: &str| -> Option<ContainerStatus> {
        list.iter().flatten().find(|s| s.name == name).cloned()
    };
    let mut init_pending = false;
    for container in pod::init_containers(pod) {
        let known = find(&status.init_container_statuses, &container.name);
        match (pod::is_sidecar(container), end_of(known.as_ref())) {
            (true, State::Running) => {
                init_pending |= known.as_ref().and_then(|s| s.started) != Some(true) && !plan::initialized(pod, record);
            }
            (true, State::Ended(_)) => {}
            (true, State::Waiting) => init_pending |= !plan::initialized(pod, record),
            (false, State::Ended(code)) => {
                if code != 0 && !pod::restarts(pod, container, code) {
                    return "Failed";
                }
            }
            (false, State::Running | State::Waiting) => init_pending = true,
        }
    }
    let mut running = 0;
    let mut waiting = 0;
    let mut ended = 0;
    let mut succeeded = 0;
    let mut final_ends = 0;
    for container in pod::containers(pod) {
        match end_of(find(&status.container_statuses, &container.name).as_ref()) {
            State::Running => running += 1,
            State::Waiting => waiting += 1,
            State::Ended(code) => {
                ended += 1;
                succeeded += u32::from(code == 0);
                final_ends += u32::from(!pod::restarts(pod, container, code));
            }
        }
    }
    if init_pending || waiting > 0 {
        return "Pending";
    }
    if running > 0 {
        return "Running";
    }
    if ended == 0 {
        return "Pending";
    }
    if !terminal && ended != final_ends {
        return "Running";
    }
    if ended == succeeded { "Succeeded" } else { "Failed" }
}

enum State {
    Waiting,
    Running,
    Ended(i32),
}

/// A container that waits for its restart counts as ended.
fn end_of(status: Option<&ContainerStatus>) -> State {
    let Some(status) = status else { return State::Waiting };
    let Some(state) = &status.state else {
        return State::Waiting;
    };
    if state.running.is_some() {
        return State::Running;
    }
    if let Some(terminated) = &state.terminated {
        return State::Ended(terminated.exit_code);
    }
    match status.last_state.as_ref().and_then(|s| s.terminated.as_ref()) {
        Some(terminated) => State::Ended(terminated.exit_code),
        None => State::Waiting,
    }
}
