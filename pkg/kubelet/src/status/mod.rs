//! The pod's status as the API shows it, computed from spec and record. Pure; `writer` sends what changed.

pub mod conditions;
pub mod patch;
pub mod phase;
#[cfg(test)]
mod tests;
pub mod writer;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, EphemeralContainer, HostIP, LinuxContainerUser, Pod, PodIP, PodStatus, VolumeMountStatus,
};

use crate::record::{Activity, ContainerRecord, ImageStep, Instance, PodRecord};
use crate::resources::qos;
use crate::{backoff, images, pod, unsupported};

/// Of containers that this node is not able to start.
const CONFIG_ERROR: &str = "CreateContainerConfigError";

/// The whole status that the pod should have now. `old` is what the API last showed.
pub fn status(pod: &Pod, old: &PodStatus, record: &PodRecord, host_ip: &str, now: Timestamp) -> PodStatus {
    let mut status = PodStatus {
        qos_class: Some(qos::class(pod).as_str().to_owned()),
        observed_generation: pod.metadata.generation,
        start_time: old.start_time.clone().or_else(|| record.start_time.map(pod::time)),
        host_ip: Some(host_ip.to_owned()),
        host_ips: Some(vec![HostIP { ip: host_ip.to_owned() }]),
        nominated_node_name: old.nominated_node_name.clone(),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        ..PodStatus::default()
    };
    let ips = pod_ips(pod, old, record, host_ip);
    status.pod_ip = ips.first().cloned();
    status.pod_ips = (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect());
    if record.admitted || record.held_by.is_some() || old.container_statuses.is_some() {
        let has_init = !pod::init_containers(pod).is_empty();
        let of = |containers: &[Container], old: Option<&Vec<ContainerStatus>>, init: bool| -> Vec<ContainerStatus> {
            let one = |c: &Container| {
                let before = old.into_iter().flatten().find(|s| s.name == c.name);
                let own = container_status(pod, c, before, record, init, has_init, now);
                before
                    .filter(|before| stays(pod, c, before, &own))
                    .cloned()
                    .unwrap_or(own)
            };
            containers.iter().map(one).collect()
        };
        let mut main = of(pod::containers(pod), old.container_statuses.as_ref(), false);
        main.sort_by(|a, b| a.name.cmp(&b.name));
        status.container_statuses = Some(main);
        let init = of(pod::init_containers(pod), old.init_container_statuses.as_ref(), true);
        status.init_container_statuses = has_init.then_some(init);
    }
    status.ephemeral_container_statuses = ephemeral(pod);
    let old_phase = old.phase.as_deref().unwrap_or_default();
    let phase = phase::phase(pod, old_phase, &status, record);
    if phase == old_phase {
        status.reason.clone_from(&old.reason);
        status.message.clone_from(&old.message);
    }
    if let Some(verdict) = record.verdict.as_ref().filter(|_| phase == "Failed")
        && !pod::is_terminal_phase(old_phase)
    {
        status.reason = Some(verdict.reason.clone());
        status.message = Some(verdict.message.clone());
    }
    status.phase = Some(phase);
    status.conditions = Some(conditions::conditions(pod, old, &status, record, now));
    status
}

/// Whether a container that begins again goes on being shown as it ended: the API lets none leave its end but by its policy, and init
/// containers run in a new sandbox whatever that is. What is refused of one would keep back what is told of all.
fn stays(pod: &Pod, container: &Container, before: &ContainerStatus, own: &ContainerStatus) -> bool {
    let end = |status: &ContainerStatus| status.state.as_ref()?.terminated.as_ref().map(|end| end.exit_code);
    let for_good = |code| !pod::restarts(pod, container, code);
    end(own).is_none() && end(before).is_some_and(for_good)
}

/// Ephemeral containers wait: none is started here yet.
fn ephemeral(pod: &Pod) -> Option<Vec<ContainerStatus>> {
    let containers = pod::spec(pod).ephemeral_containers.as_ref()?;
    let one = |container: &EphemeralContainer| ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        last_state: Some(ContainerState::default()),
        state: Some(waiting(
            CONFIG_ERROR,
            Some(unsupported::EPHEMERAL_CONTAINERS.to_owned()),
        )),
        ..ContainerStatus::default()
    };
    Some(containers.iter().map(one).collect())
}

fn pod_ips(pod: &Pod, old: &PodStatus, record: &PodRecord, host_ip: &str) -> Vec<String> {
    if let Some(sandbox) = record.sandbox() {
        if pod::host_network(pod) {
            return vec![host_ip.to_owned()];
        }
        if !sandbox.ips.is_empty() {
            return sandbox.ips.clone();
        }
    }
    // A pod that is over, or between two sandboxes, goes on showing the address it had.
    old.pod_ips.iter().flatten().map(|p| p.ip.clone()).collect()
}

fn container_status(
    pod: &Pod,
    container: &Container,
    old: Option<&ContainerStatus>,
    record: &PodRecord,
    init: bool,
    has_init: bool,
    now: Timestamp,
) -> ContainerStatus {
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        // The API always shows it, empty or not.
        last_state: Some(ContainerState::default()),
        volume_mounts: volume_mounts(container),
        ..ContainerStatus::default()
    };
    if record.resize_held.contains_key(&container.name) {
        // What has not begun yet tells what it will get only where that is not what the pod asks for.
        of_resources(&mut status, container);
    }
    if let Some(field) = &record.held_by {
        // Its event goes after an hour; the pod may wait for longer.
        status.state = Some(waiting(CONFIG_ERROR, Some(unsupported::message(field))));
        return status;
    }
    if let Some(old) = old {
        status.restart_count = old.restart_count;
        status.last_state = Some(old.last_state.clone().unwrap_or_default());
        if record.containers.is_empty() {
            // Turned away, or over before this agent knew it: nothing newer is known.
            return old.clone();
        }
    }
    static NEW: std::sync::LazyLock<ContainerRecord> = std::sync::LazyLock::new(ContainerRecord::default);
    let r = record.container(&container.name).unwrap_or(&NEW);
    let default_waiting = if has_init {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    status.state = Some(waiting(default_waiting, None));
    let Some(instance) = &r.current else {
        if let Some((reason, message)) = trouble(pod, container, r, now) {
            status.state = Some(waiting(reason, Some(message)));
        }
        return status;
    };
    of_instance(&mut status, container, instance, r);
    if let Some(terminated) = terminated(instance) {
        of_its_end(&mut status, (pod, record), (container, r), now, terminated);
        return status;
    }
    if instance.started_at.is_none() || r.activity == Activity::Starting {
        // Created, or still in its postStart hook.
        return status;
    }
    status.state = Some(ContainerState {
        running: Some(ContainerStateRunning {
            started_at: instance.started_at.map(pod::time),
        }),
        ..Default::default()
    });
    status.started = Some(r.health.started);
    status.ready = r.health.started && r.health.ready && (!init || pod::is_sidecar(container));
    status
}

/// What is shown of a container's present life whatever its state.
fn of_instance(status: &mut ContainerStatus, container: &Container, instance: &Instance, r: &ContainerRecord) {
    status.restart_count = instance.attempt as i32;
    status.image.clone_from(&instance.image_name);
    status.image_id.clone_from(&instance.image_id);
    status.container_id = Some(container_id(instance));
    status.last_state = Some(ContainerState {
        terminated: r.last.as_ref().and_then(terminated),
        ..Default::default()
    });
    of_resources(status, container);
    status.user = instance.user.as_ref().map(|user| ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: Some(user.groups.clone()),
        }),
    });
}

/// As they are held: what the container has, or gets when it begins.
fn of_resources(status: &mut ContainerStatus, container: &Container) {
    status.allocated_resources = container.resources.as_ref().and_then(|r| r.requests.clone());
    status.resources = Some(container.resources.clone().unwrap_or_default());
}

/// It ended: that is its state, or, where it waits for its next life, its last one.
fn of_its_end(
    status: &mut ContainerStatus,
    (pod, record): (&Pod, &PodRecord),
    (container, r): (&Container, &ContainerRecord),
    now: Timestamp,
    terminated: ContainerStateTerminated,
) {
    let init = pod::is_init(pod, &container.name);
    let success = terminated.exit_code == 0;
    let ended = ContainerState {
        terminated: Some(terminated),
        ..Default::default()
    };
    let restarts = r.exit().is_some_and(|e| crate::plan::restarts(pod, container, e));
    let waits = !(init && success) && restarts && !crate::plan::ends(pod, record);
    match trouble(pod, container, r, now).filter(|_| waits) {
        Some((reason, message)) => {
            status.last_state = Some(ended);
            status.state = Some(waiting(reason, Some(message)));
        }
        None => status.state = Some(ended),
    }
    status.ready = init && !pod::is_sidecar(container) && success;
}

pub fn container_id(instance: &Instance) -> String {
    format!("containerd://{}", instance.id)
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?;
    let one = |m: &k8s_openapi::api::core::v1::VolumeMount| VolumeMountStatus {
        name: m.name.clone(),
        mount_path: m.mount_path.clone(),
        read_only: m.read_only,
        recursive_read_only: m.read_only.unwrap_or(false).then(|| "Disabled".to_owned()),
    };
    Some(mounts.iter().map(one).collect())
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message,
        }),
        ..Default::default()
    }
}

fn terminated(instance: &Instance) -> Option<ContainerStateTerminated> {
    let exit = instance.exit.as_ref()?;
    Some(ContainerStateTerminated {
        container_id: Some(container_id(instance)),
        exit_code: exit.code,
        finished_at: Some(pod::time(exit.finished_at)),
        message: (!exit.message.is_empty()).then(|| exit.message.clone()),
        reason: Some(exit.reason.clone()),
        signal: None,
        // What never started shows the epoch, as it always has.
        started_at: Some(pod::time(instance.started_at.unwrap_or(Timestamp::UNIX_EPOCH))),
    })
}

/// Why a container isn't running although it should: what its waiting state says.
pub fn trouble(
    pod: &Pod,
    container: &Container,
    record: &ContainerRecord,
    now: Timestamp,
) -> Option<(&'static str, String)> {
    if let ImageStep::Failed {
        failure, backing_off, ..
    } = &record.image
    {
        let image = container.image.as_deref().unwrap_or_default();
        return Some(match failure {
            images::Failure::Pull(cause) if *backing_off => (
                "ImagePullBackOff",
                format!("Back-off pulling image \"{image}\": {}: {cause}", failure.reason()),
            ),
            other => (other.reason(), other.to_string()),
        });
    }
    let start_error = || {
        record
            .start_error
            .as_ref()
            .map(|e| (e.kind.reason(), e.message.clone()))
    };
    if record.busy() {
        return start_error();
    }
    if let Some(exit) = record.exit()
        && backoff::waits_until(record.crash, exit.finished_at, now).is_some()
    {
        return Some(("CrashLoopBackOff", crash_message(pod, container, record)));
    }
    start_error()
}

pub fn crash_message(pod: &Pod, container: &Container, record: &ContainerRecord) -> String {
    let delay = record.crash.map(|c| backoff::print(c.delay)).unwrap_or_default();
    format!(
        "back-off {delay} restarting failed container={} pod={}",
        container.name,
        pod::display(pod)
    )
}
