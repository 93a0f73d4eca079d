//! The next steps for one pod, from its spec and what the node knows of it. Pure: no clock but `now`, no IO; may be
//! asked again at any time.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::backoff;
use crate::pod;
use crate::record::{
    Activity, CgroupStep, ContainerRecord, Exit, ForgetStep, ImageStep, KillReason, PodRecord, SandboxStep, Stuck,
    VolumesStep,
};
use crate::resources::qos;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    PrepareVolumes,
    CreateSandbox,
    /// The pod's cgroup has another size than what is held of the pod.
    SizeCgroup,
    EnsureImage(String),
    Start(String),
    /// End what a start may have begun of which nothing is known.
    Undo(String),
    Kill {
        container: String,
        reason: KillReason,
        message: String,
    },
    /// Say that a crashed container's restart is being held back.
    AnnounceCrash(String),
    /// Say that an image's next pull is being held back.
    AnnouncePull(String),
    /// The pod's activeDeadlineSeconds are over.
    Expire,
    RemoveSandbox,
    /// Volumes and cgroup go.
    TearDown,
    DeleteFromApi,
    /// The API has the pod no more: what is left of it here goes.
    Forget,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// When to ask again if nothing else happens.
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn again(&mut self, stuck: &Stuck, now: Timestamp, action: Action) {
        if stuck.retry_at <= now {
            self.push(action);
        } else {
            self.wake(stuck.retry_at);
        }
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }
}

/// How long a failed pull is shown as itself before it is shown as backing off.
const SHOW_PULL_ERROR: Duration = Duration::from_secs(2);
/// A start that failed before the container existed (a missing ConfigMap, say) is tried again this often; a change of the
/// object it waits for wakes it sooner.
pub const START_RETRY: Duration = Duration::from_secs(10);

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

pub fn plan(pod: &Pod, record: &PodRecord, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if ends(pod, record) {
        end(pod, record, now, &mut plan);
        return plan;
    }
    if !record.admitted {
        return plan;
    }
    if let Some(at) = deadline(pod, record) {
        if at <= now {
            plan.push(Action::Expire);
            return plan;
        }
        plan.wake(at);
    }
    run(pod, record, now, &mut plan);
    plan
}

fn deadline(pod: &Pod, record: &PodRecord) -> Option<Timestamp> {
    let seconds = pod::spec(pod).active_deadline_seconds?;
    Some(later(record.start_time?, Duration::from_secs(seconds.max(0) as u64)))
}

/// Whether the pod is to stop, or has stopped, for good.
pub fn ends(pod: &Pod, record: &PodRecord) -> bool {
    record.verdict.is_some()
        || record.gone
        || pod::deleting(pod)
        || pod::is_terminal_phase(pod::phase(pod))
        || finished(pod, record).is_some()
}

/// Some(success) when no container of the pod will ever run again by its restart policy.
pub fn finished(pod: &Pod, record: &PodRecord) -> Option<bool> {
    for container in pod::init_containers(pod).iter().filter(|c| !pod::is_sidecar(c)) {
        let r = record.container(&container.name);
        if let Some(exit) = r.and_then(ContainerRecord::exit)
            && exit.code != 0
            && !pod::restarts(pod, container, exit.code)
            && !r.is_some_and(ContainerRecord::busy)
        {
            return Some(false);
        }
    }
    let mut success = true;
    for container in pod::containers(pod) {
        let r = record.container(&container.name)?;
        let exit = r.exit()?;
        if r.busy() || pod::restarts(pod, container, exit.code) {
            return None;
        }
        success &= exit.code == 0;
    }
    (!pod::containers(pod).is_empty()).then_some(success)
}

/// Each step only when the one before is confirmed: the containers, then what they shared, the address with it, then volumes
/// and cgroup, then the API, then what was kept for people to look at.
fn end(pod: &Pod, record: &PodRecord, now: Timestamp, plan: &mut Plan) {
    if end_containers(pod, record, now, plan) || end_sandbox(record, now, plan) || end_volumes(record, now, plan) {
        return;
    }
    if record.gone {
        match &record.forget {
            ForgetStep::Pending => plan.push(Action::Forget),
            ForgetStep::Stuck(stuck) => plan.again(stuck, now, Action::Forget),
            ForgetStep::Forgetting(_) | ForgetStep::Forgotten => {}
        }
    } else if pod::deleting(pod) && !record.delete_asked {
        plan.push(Action::DeleteFromApi);
    }
}

/// True: some are not surely over.
fn end_containers(pod: &Pod, record: &PodRecord, now: Timestamp, plan: &mut Plan) -> bool {
    let mut pending = false;
    let main_alive = pod::containers(pod).iter().any(|c| alive(record, &c.name));
    // Sidecars go last, the latest started first.
    let mut sidecar_turn = !main_alive;
    let order = pod::containers(pod)
        .iter()
        .chain(pod::init_containers(pod).iter().rev());
    for container in order {
        let Some(r) = record.container(&container.name) else {
            continue;
        };
        let sidecar = pod::is_init(pod, &container.name) && pod::is_sidecar(container);
        if !alive(record, &container.name) {
            continue;
        }
        pending = true;
        if sidecar && !std::mem::replace(&mut sidecar_turn, false) {
            continue;
        }
        let name = &container.name;
        match r.activity {
            Activity::Doubtful(_) => undo(name, r, now, plan),
            Activity::Killing(_) | Activity::Undoing(_) => {}
            Activity::Idle | Activity::Starting if r.running() => {
                let kill = kill(name, KillReason::PodEnds, format!("Stopping container {name}"));
                retry(plan, r.stuck.as_ref(), now, kill);
            }
            Activity::Idle | Activity::Starting => {}
        }
    }
    pending
}

fn end_sandbox(record: &PodRecord, now: Timestamp, plan: &mut Plan) -> bool {
    match &record.sandbox {
        SandboxStep::Gone => return false,
        SandboxStep::Creating | SandboxStep::Removing(_) => {}
        SandboxStep::Stuck(stuck) => plan.again(stuck, now, Action::RemoveSandbox),
        SandboxStep::Absent | SandboxStep::Ready(_) | SandboxStep::Failed { .. } | SandboxStep::Dead => {
            plan.push(Action::RemoveSandbox);
        }
    }
    true
}

fn end_volumes(record: &PodRecord, now: Timestamp, plan: &mut Plan) -> bool {
    match &record.volumes {
        VolumesStep::Gone => return false,
        VolumesStep::Preparing | VolumesStep::TearingDown(_) => {}
        VolumesStep::Stuck(stuck) => plan.again(stuck, now, Action::TearDown),
        VolumesStep::Pending | VolumesStep::Ready | VolumesStep::Failed { .. } if sizing(record) => {}
        VolumesStep::Pending | VolumesStep::Ready | VolumesStep::Failed { .. } => plan.push(Action::TearDown),
    }
    true
}

fn undo(name: &str, record: &ContainerRecord, now: Timestamp, plan: &mut Plan) {
    retry(plan, record.stuck.as_ref(), now, Action::Undo(name.to_owned()));
}

/// At once the first time, else when its time has come.
fn retry(plan: &mut Plan, stuck: Option<&Stuck>, now: Timestamp, action: Action) {
    match stuck {
        None => plan.push(action),
        Some(stuck) => plan.again(stuck, now, action),
    }
}

/// A container of the pod may run.
pub fn something_lives(pod: &Pod, record: &PodRecord) -> bool {
    pod::all_containers(pod).any(|container| alive(record, &container.name))
}

/// Runs, or is just being made to.
fn alive(record: &PodRecord, name: &str) -> bool {
    record
        .container(name)
        .is_some_and(|r| r.running() || r.activity != Activity::Idle)
}

fn kill(container: &str, reason: KillReason, message: String) -> Action {
    Action::Kill {
        container: container.to_owned(),
        reason,
        message,
    }
}

fn run(pod: &Pod, record: &PodRecord, now: Timestamp, plan: &mut Plan) {
    let stale = correct_containers(pod, record, now, plan) || sizing(record);
    match &record.sandbox {
        SandboxStep::Absent if !stale => match sandbox_waits_until(record, now) {
            Some(until) => plan.wake(until),
            None => plan.push(Action::CreateSandbox),
        },
        SandboxStep::Failed { retry_at, .. } if *retry_at <= now => plan.push(Action::CreateSandbox),
        SandboxStep::Failed { retry_at, .. } => plan.wake(*retry_at),
        SandboxStep::Dead => plan.push(Action::RemoveSandbox),
        SandboxStep::Stuck(stuck) => plan.again(stuck, now, Action::RemoveSandbox),
        _ => {}
    }
    match &record.volumes {
        VolumesStep::Pending => plan.push(Action::PrepareVolumes),
        VolumesStep::Failed { retry_at, .. } if *retry_at <= now => plan.push(Action::PrepareVolumes),
        VolumesStep::Failed { retry_at, .. } => plan.wake(*retry_at),
        _ => {}
    }
    let sized = record.sandbox().is_some() && size_cgroup(pod, record, now, plan);
    let ready = sized && record.volumes == VolumesStep::Ready;
    for container in startable(pod, record) {
        let r = record.container(&container.name);
        step(pod, container, r, ready, now, plan);
    }
}

/// The pod's cgroup is being written. Nobody else does that meanwhile, or takes it away: whoever came last would win.
fn sizing(record: &PodRecord) -> bool {
    matches!(record.cgroup, CgroupStep::Writing(..))
}

/// Where the cgroup has another size than the pod, it gets the pod's. False: containers wait for that, for they would get more
/// than what they are in. One that can't be written is no reason to wait.
fn size_cgroup(pod: &Pod, record: &PodRecord, now: Timestamp, plan: &mut Plan) -> bool {
    match &record.cgroup {
        CgroupStep::Written(limits) if *limits == qos::pod_limits(pod) => return true,
        CgroupStep::Unknown | CgroupStep::Written(_) => plan.push(Action::SizeCgroup),
        CgroupStep::Writing(..) => {}
        CgroupStep::Stuck(stuck) => {
            plan.again(stuck, now, Action::SizeCgroup);
            return true;
        }
    }
    false
}

/// A sandbox that ended by itself soon after the one before waits, as a container that crashes does.
fn sandbox_waits_until(record: &PodRecord, now: Timestamp) -> Option<Timestamp> {
    backoff::waits_until(record.sandbox_crash, record.sandbox_died_at?, now)
}

/// Ends what should not run as it does. True: something of an old sandbox is not over yet.
fn correct_containers(pod: &Pod, record: &PodRecord, now: Timestamp, plan: &mut Plan) -> bool {
    let sandbox = record.sandbox().map(|s| s.id.as_str());
    let mut stale = false;
    for container in pod::all_containers(pod) {
        let Some(r) = record.container(&container.name) else {
            continue;
        };
        if matches!(r.activity, Activity::Doubtful(_)) {
            undo(&container.name, r, now, plan);
        }
        let Some(instance) = r.current.as_ref().filter(|i| i.running()) else {
            stale |= r.activity != Activity::Idle && sandbox.is_none();
            continue;
        };
        let in_old_sandbox = sandbox != Some(instance.sandbox.as_str());
        stale |= in_old_sandbox;
        if r.activity == Activity::Idle
            && let Some(kill) = correction(pod, container, r, in_old_sandbox)
        {
            retry(plan, r.stuck.as_ref(), now, kill);
        }
    }
    stale
}

/// Why a running container is to be ended although its pod goes on.
fn correction(pod: &Pod, container: &Container, record: &ContainerRecord, in_old_sandbox: bool) -> Option<Action> {
    let again = if pod::restarts_when_ended(pod, container) {
        ", will be restarted"
    } else {
        ""
    };
    let name = &container.name;
    let image = record.current.as_ref().map(|i| i.image.as_str());
    let (reason, message) = if in_old_sandbox {
        (KillReason::SandboxChanged, format!("Stopping container {name}"))
    } else if record.health.hook_failed {
        (KillReason::PostStartHook, "FailedPostStartHook".to_owned())
    } else if image != Some(container.image.as_deref().unwrap_or_default()) {
        let message = format!("Container {name} definition changed, will be restarted");
        (KillReason::DefinitionChanged, message)
    } else if record.health.live_failed {
        let message = format!("Container {name} failed liveness probe{again}");
        (KillReason::LivenessProbe, message)
    } else if record.health.startup_failed {
        let message = format!("Container {name} failed startup probe{again}");
        (KillReason::StartupProbe, message)
    } else {
        return None;
    };
    Some(kill(name, reason, message))
}

/// The containers whose turn it is, running or not.
fn startable<'a>(pod: &'a Pod, record: &PodRecord) -> Vec<&'a Container> {
    let mut found = Vec::new();
    let started = |c: &Container| {
        record
            .container(&c.name)
            .is_some_and(|r| r.running() && r.health.started)
    };
    if initialized(pod, record) {
        found.extend(pod::init_containers(pod).iter().filter(|c| pod::is_sidecar(c)));
        for container in pod::containers(pod) {
            found.push(container);
            // The next waits until this one's postStart hook is done, as people order their containers by it.
            let hook = container.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some());
            let begun = record
                .container(&container.name)
                .is_some_and(|r| r.activity == Activity::Idle && (r.current.is_some() || r.start_error.is_some()));
            if hook && !begun {
                break;
            }
        }
        return found;
    }
    for container in pod::init_containers(pod) {
        if pod::is_sidecar(container) {
            found.push(container);
            if !started(container) {
                break;
            }
        } else if !succeeded_here(record, &container.name) {
            found.push(container);
            break;
        }
    }
    found
}

fn succeeded_here(record: &PodRecord, name: &str) -> bool {
    let Some(sandbox) = record.sandbox() else { return false };
    let instance = record.container(name).and_then(|r| r.current.as_ref());
    instance.is_some_and(|i| i.sandbox == sandbox.id && i.exit.as_ref().is_some_and(|e| e.code == 0))
}

/// All init containers have done their part in the present sandbox.
pub fn initialized(pod: &Pod, record: &PodRecord) -> bool {
    let inits = pod::init_containers(pod);
    if inits.is_empty() {
        return true;
    }
    let Some(sandbox) = record.sandbox() else { return false };
    let begun = pod::containers(pod).iter().any(|c| {
        record
            .container(&c.name)
            .and_then(|r| r.current.as_ref())
            .is_some_and(|i| i.sandbox == sandbox.id)
    });
    begun
        || inits.iter().all(|c| {
            if pod::is_sidecar(c) {
                record
                    .container(&c.name)
                    .is_some_and(|r| r.running() && r.health.started)
            } else {
                succeeded_here(record, &c.name)
            }
        })
}

/// The restart of a container that ended, if its policy has one. Init containers that succeeded are only here when the
/// sandbox is new: then they run again whatever the policy.
pub fn restarts(pod: &Pod, container: &Container, exit: &Exit) -> bool {
    let has_done_its_part = pod::is_init(pod, &container.name) && exit.code == 0;
    has_done_its_part || pod::restarts(pod, container, exit.code)
}

fn step(
    pod: &Pod,
    container: &Container,
    record: Option<&ContainerRecord>,
    ready: bool,
    now: Timestamp,
    plan: &mut Plan,
) {
    static NEW: std::sync::LazyLock<ContainerRecord> = std::sync::LazyLock::new(ContainerRecord::default);
    let record = record.unwrap_or(&NEW);
    let name = &container.name;
    if record.busy() || record.running() {
        return;
    }
    if let Some(exit) = record.exit() {
        if !restarts(pod, container, exit) {
            return;
        }
        if let Some(until) = backoff::waits_until(record.crash, exit.finished_at, now) {
            let id = record.current.as_ref().map(|i| &i.id);
            if record.announced.as_ref() != id {
                plan.push(Action::AnnounceCrash(name.clone()));
            }
            plan.wake(until);
            return;
        }
    }
    if let Some(error) = &record.start_error {
        let until = later(error.at, START_RETRY);
        // An exit of before is no reason to hurry: by its back-off, which counts from that exit, every moment is right.
        if !error.left_instance && until > now {
            plan.wake(until);
            return;
        }
    }
    match &record.image {
        ImageStep::Needed => plan.push(Action::EnsureImage(name.clone())),
        ImageStep::Ensuring => {}
        ImageStep::Ready if ready => plan.push(Action::Start(name.clone())),
        ImageStep::Ready => {}
        ImageStep::Failed {
            failed_at, backing_off, ..
        } => {
            let Some(until) = backoff::waits_until(record.pull, *failed_at, now) else {
                plan.push(Action::EnsureImage(name.clone()));
                return;
            };
            let shown_until = later(*failed_at, SHOW_PULL_ERROR);
            if *backing_off {
            } else if shown_until <= now {
                plan.push(Action::AnnouncePull(name.clone()));
            } else {
                plan.wake(shown_until);
            }
            plan.wake(until);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::record::{Health, Instance, Sandbox, StartError};
    use serde_json::json;
    use std::sync::Arc;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(value: serde_json::Value) -> Pod {
        let mut base = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": value});
        if let Some(deletion) = base["spec"].as_object_mut().unwrap().remove("deleted") {
            base["metadata"]["deletionTimestamp"] = deletion;
        }
        serde_json::from_value(base).unwrap()
    }

    fn simple(policy: &str) -> Pod {
        pod(json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}]}))
    }

    fn sandbox(id: &str) -> SandboxStep {
        SandboxStep::Ready(Arc::new(Sandbox {
            id: id.into(),
            attempt: 0,
            pid: 1,
            netns: None,
            ips: vec![],
            cgroup: String::new(),
            handler: String::new(),
        }))
    }

    fn instance(id: &str, sandbox: &str, exit: Option<i32>) -> Instance {
        Instance {
            id: id.into(),
            sandbox: sandbox.into(),
            attempt: 0,
            image: "i".into(),
            image_name: "i".into(),
            image_id: "sha".into(),
            started_at: Some(at(100)),
            exit: exit.map(|code| Exit {
                code,
                reason: "Error".into(),
                message: String::new(),
                finished_at: at(200),
            }),
            stop_signal: None,
            user: None,
        }
    }

    fn with(current: Option<Instance>) -> ContainerRecord {
        ContainerRecord {
            current,
            health: Health {
                started: true,
                ready: true,
                ..Health::default()
            },
            ..Default::default()
        }
    }

    fn record(sandbox: SandboxStep, containers: Vec<(&str, ContainerRecord)>) -> PodRecord {
        PodRecord {
            admitted: true,
            sandbox,
            cgroup: CgroupStep::Written(qos::pod_limits(&simple("Always"))),
            volumes: VolumesStep::Ready,
            start_time: Some(at(90)),
            containers: containers.into_iter().map(|(n, r)| (n.to_owned(), r)).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_new_pod_begins_everything_at_once() {
        let mut r = record(SandboxStep::Absent, vec![]);
        r.volumes = VolumesStep::Pending;
        let p = plan(&simple("Always"), &r, at(100));
        assert_eq!(
            p.actions,
            vec![
                Action::CreateSandbox,
                Action::PrepareVolumes,
                Action::EnsureImage("a".into())
            ]
        );
        r.admitted = false;
        assert_eq!(plan(&simple("Always"), &r, at(100)), Plan::default());
    }

    #[test]
    fn starts_when_all_three_are_ready() {
        let c = ContainerRecord {
            image: ImageStep::Ready,
            ..Default::default()
        };
        for (step, volumes, expected) in [
            (sandbox("s"), VolumesStep::Ready, vec![Action::Start("a".into())]),
            (SandboxStep::Creating, VolumesStep::Ready, vec![]),
            (sandbox("s"), VolumesStep::Preparing, vec![]),
        ] {
            let mut r = record(step, vec![("a", c.clone())]);
            r.volumes = volumes;
            assert_eq!(plan(&simple("Always"), &r, at(100)).actions, expected);
        }
    }

    #[test]
    fn the_cgroup_gets_the_pods_size_by_one_hand_at_a_time_and_containers_wait_for_it() {
        let p = simple("Always");
        let (is, other) = (qos::pod_limits(&p), crate::resources::qos::Limits::default());
        let (size, start) = (vec![Action::SizeCgroup], vec![Action::Start("a".into())]);
        let stuck = Stuck::again(None, at(100));
        for (cgroup, now, expected) in [
            (CgroupStep::Written(is), 100, start.clone()),
            (CgroupStep::Written(other), 100, size.clone()),
            (CgroupStep::Unknown, 100, size.clone()),
            (CgroupStep::Writing(other, None), 100, vec![]),
            (CgroupStep::Writing(is, None), 100, vec![]),
            (CgroupStep::Stuck(stuck.clone()), 100, start.clone()),
            (CgroupStep::Stuck(stuck), 101, [size, start].concat()),
        ] {
            let image = ImageStep::Ready;
            let c = ContainerRecord {
                image,
                ..ContainerRecord::default()
            };
            let mut r = record(sandbox("s"), vec![("a", c)]);
            r.cgroup = cgroup.clone();
            assert_eq!(plan(&p, &r, at(now)).actions, expected, "{cgroup:?} {now}");
        }
        let mut r = record(SandboxStep::Absent, vec![]);
        r.cgroup = CgroupStep::Writing(is, None);
        assert!(!plan(&p, &r, at(100)).actions.contains(&Action::CreateSandbox));
        (r.sandbox, r.gone) = (SandboxStep::Gone, true);
        assert!(plan(&p, &r, at(100)).actions.is_empty(), "it would be there again");
    }

    #[test]
    fn restart_policies() {
        for (policy, code, restarts) in [
            ("Always", 0, true),
            ("Always", 1, true),
            ("OnFailure", 0, false),
            ("OnFailure", 1, true),
            ("Never", 1, false),
        ] {
            let r = record(sandbox("s"), vec![("a", with(Some(instance("1", "s", Some(code)))))]);
            let actions = plan(&simple(policy), &r, at(300)).actions;
            let expected = if restarts {
                Action::EnsureImage("a".into())
            } else {
                Action::RemoveSandbox
            };
            assert_eq!(actions, vec![expected], "{policy} {code}");
        }
    }

    #[test]
    fn crash_loop_waits_and_says_so_once() {
        let mut c = with(Some(instance("1", "s", Some(1))));
        c.crash = Some(backoff::next(None, at(190), at(190)));
        let mut r = record(sandbox("s"), vec![("a", c)]);
        let p = plan(&simple("Always"), &r, at(201));
        assert_eq!(
            (p.actions, p.wake_at),
            (vec![Action::AnnounceCrash("a".into())], Some(at(210)))
        );
        r.containers.get_mut("a").unwrap().announced = Some("1".into());
        assert!(plan(&simple("Always"), &r, at(201)).actions.is_empty());
        assert_eq!(
            plan(&simple("Always"), &r, at(210)).actions,
            vec![Action::EnsureImage("a".into())]
        );
    }

    #[test]
    fn a_start_that_left_no_instance_waits_whatever_ended_before() {
        let error = |left_instance| StartError {
            kind: crate::containers::FailureKind::Config,
            message: String::new(),
            at: at(1000),
            left_instance,
        };
        let again = vec![Action::EnsureImage("a".into())];
        let exited = || with(Some(instance("1", "s", Some(1))));
        for (mut c, left_instance, now, expected, wake_at) in [
            (ContainerRecord::default(), false, 1001, vec![], Some(at(1010))),
            (exited(), false, 1001, vec![], Some(at(1010))),
            (exited(), false, 1010, again.clone(), None),
            (exited(), true, 1001, again.clone(), None),
        ] {
            c.start_error = Some(error(left_instance));
            c.crash = Some(backoff::next(None, at(190), at(190)));
            let p = plan(&simple("Always"), &record(sandbox("s"), vec![("a", c)]), at(now));
            assert_eq!((p.actions, p.wake_at), (expected, wake_at), "{left_instance} {now}");
        }
    }

    #[test]
    fn init_containers_run_in_order_and_again_in_a_new_sandbox() {
        let p = pod(json!({
            "initContainers": [{"name": "i1", "image": "i"}, {"name": "i2", "image": "i"}],
            "containers": [{"name": "a", "image": "i"}],
        }));
        let done = |id: &str, sandbox: &str| with(Some(instance(id, sandbox, Some(0))));
        for (containers, expected) in [
            (vec![], "i1"),
            (vec![("i1", done("1", "s"))], "i2"),
            (vec![("i1", done("1", "s")), ("i2", done("2", "s"))], "a"),
            (vec![("i1", done("1", "old")), ("i2", done("2", "old"))], "i1"),
            (
                vec![("i1", done("1", "old")), ("a", with(Some(instance("3", "s", Some(1)))))],
                "a",
            ),
        ] {
            let r = record(sandbox("s"), containers.clone());
            assert_eq!(
                plan(&p, &r, at(300)).actions,
                vec![Action::EnsureImage(expected.into())],
                "{containers:?}"
            );
        }
    }

    #[test]
    fn probes_and_definitions_kill() {
        let p = simple("Always");
        for (change, expected) in [
            (
                Box::new(|_: &mut ContainerRecord| {}) as Box<dyn Fn(&mut ContainerRecord)>,
                None,
            ),
            (
                Box::new(|r| r.health.live_failed = true),
                Some("Container a failed liveness probe, will be restarted"),
            ),
            (
                Box::new(|r| r.health.startup_failed = true),
                Some("Container a failed startup probe, will be restarted"),
            ),
            (
                Box::new(|r| r.current.as_mut().unwrap().image = "old".into()),
                Some("Container a definition changed, will be restarted"),
            ),
            (
                Box::new(|r| r.current.as_mut().unwrap().sandbox = "old".into()),
                Some("Stopping container a"),
            ),
        ] {
            let mut c = with(Some(instance("1", "s", None)));
            change(&mut c);
            let actions = plan(&p, &record(sandbox("s"), vec![("a", c)]), at(300)).actions;
            let message = actions.first().map(|a| match a {
                Action::Kill { message, .. } => message.clone(),
                other => panic!("{other:?}"),
            });
            assert_eq!(message.as_deref(), expected);
        }
    }

    #[test]
    fn a_deleted_pod_goes_step_by_step() {
        let mut p = simple("Always");
        p.metadata.deletion_timestamp = Some(pod::time(at(300)));
        let mut r = record(sandbox("s"), vec![("a", with(Some(instance("1", "s", None))))]);
        let first = plan(&p, &r, at(300)).actions;
        assert!(
            matches!(
                &first[..],
                [Action::Kill {
                    reason: KillReason::PodEnds,
                    ..
                }]
            ),
            "{first:?}"
        );
        r.containers.get_mut("a").unwrap().activity = Activity::Killing(KillReason::PodEnds);
        assert!(plan(&p, &r, at(301)).actions.is_empty());
        r.containers
            .insert("a".into(), with(Some(instance("1", "s", Some(143)))));
        assert_eq!(plan(&p, &r, at(302)).actions, vec![Action::RemoveSandbox]);
        r.sandbox = SandboxStep::Gone;
        assert_eq!(plan(&p, &r, at(302)).actions, vec![Action::TearDown]);
        r.volumes = VolumesStep::Gone;
        assert_eq!(plan(&p, &r, at(302)).actions, vec![Action::DeleteFromApi]);
        r.delete_asked = true;
        assert_eq!(plan(&p, &r, at(302)), Plan::default());
        r.gone = true;
        assert_eq!(plan(&p, &r, at(302)).actions, vec![Action::Forget]);
    }

    #[test]
    fn a_deadline_ends_the_pod() {
        let p = pod(json!({"activeDeadlineSeconds": 30, "containers": [{"name": "a", "image": "i"}]}));
        let r = record(sandbox("s"), vec![("a", with(Some(instance("1", "s", None))))]);
        assert_eq!(plan(&p, &r, at(100)).wake_at, Some(at(120)));
        assert_eq!(plan(&p, &r, at(120)).actions, vec![Action::Expire]);
    }

    #[test]
    fn a_failed_pull_is_shown_then_backs_off() {
        let c = ContainerRecord {
            image: ImageStep::Failed {
                failure: crate::images::Failure::Pull(String::new()),
                failed_at: at(100),
                backing_off: false,
            },
            pull: Some(backoff::next(None, at(100), at(100))),
            ..Default::default()
        };
        let r = record(sandbox("s"), vec![("a", c)]);
        let p = simple("Always");
        assert_eq!(plan(&p, &r, at(101)).wake_at, Some(at(102)));
        assert_eq!(plan(&p, &r, at(102)).actions, vec![Action::AnnouncePull("a".into())]);
        assert_eq!(plan(&p, &r, at(110)).actions, vec![Action::EnsureImage("a".into())]);
    }
}
