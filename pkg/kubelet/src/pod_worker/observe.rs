//! What happens to a pod, put into its record: messages from outside, and what the worker's own jobs answer. What follows
//! from it is decided by `plan`.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use mk8s_containerd::{Image, Task};
use mk8s_supervisor::JobError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::step::{Outcome, Step};
use super::{Live, Message, PodWorker, adopt, in_seconds, version};
use crate::containers::Stopped;
use crate::record::{Activity, CgroupStep, Exit, Health, ImageStep, Instance, StartError, Stuck, VolumesStep};
use crate::{backoff, clock, containers, images, persist, pod, probes, runtime};

impl PodWorker {
    pub(super) fn observe(&mut self, message: Message) {
        match message {
            Message::Update(pod) => self.observe_update(pod),
            Message::Gone => self.observe_gone(),
            Message::Exit { id, code, at } => self.observe_exit(id, code, at),
            Message::Oom { id } => {
                self.oomed.insert(id);
            }
            Message::Reconcile(tasks) => self.observe_tasks(&tasks),
            Message::Probe {
                container,
                instance,
                result,
            } => self.observe_probe(&container, &instance, result),
            Message::ObjectsChanged => self.observe_objects(),
        }
    }

    pub(super) fn observe_step(&mut self, step: Step, ended: Result<Outcome, JobError>) {
        match ended {
            Ok(outcome) => self.observe_outcome(step, outcome),
            Err(lost) => self.observe_lost(step, lost),
        }
    }

    fn observe_outcome(&mut self, step: Step, outcome: Outcome) {
        match (step, outcome) {
            (Step::Volumes, Outcome::Volumes(result)) => self.observe_volumes(result),
            (Step::Sandbox { .. }, Outcome::Sandbox(result)) => self.observe_sandbox(result),
            (Step::BeginSandbox { id }, Outcome::SandboxBegun(result)) => self.observe_sandbox_begun(&id, result),
            (Step::RemoveSandbox, Outcome::SandboxRemoved(result)) => self.observe_sandbox_removed(result),
            (Step::Cgroup, Outcome::Sized(result)) => self.observe_sized(result),
            (Step::Image { container }, Outcome::Image(result)) => self.observe_image(&container, result),
            (Step::Start { container, .. }, Outcome::Started(result)) => self.observe_start(&container, *result),
            (Step::Undo { container, .. }, Outcome::Undone(result)) => self.observe_undone(&container, result),
            (Step::Stop { container, id }, Outcome::Stopped(stopped)) => self.observe_stopped(&container, id, stopped),
            (Step::End { container, id }, Outcome::Ended(exit)) => self.observe_end(&container, &id, exit),
            (Step::Look { id }, Outcome::Looked(result)) => self.observe_look(id, result),
            (Step::TearDown, Outcome::TornDown(result)) => self.observe_torn_down(result),
            (Step::Forget, Outcome::Forgotten(result)) => self.observe_forgotten(result),
            (Step::WriteStatus, Outcome::Written(result)) => self.observe_written(result),
            (Step::DeleteFromApi, Outcome::DeletedFromApi) | (Step::Beside(_), Outcome::Nothing) => {}
            (step, outcome) => {
                tracing::error!(
                    pod = pod::display(&self.pod),
                    ?step,
                    ?outcome,
                    "a step answers for another"
                );
            }
        }
    }

    /// A job that panicked has failed as if it had said so.
    fn observe_lost(&mut self, step: Step, lost: JobError) {
        let pod = pod::display(&self.pod);
        tracing::error!(pod, ?step, error = %lost, "a step of a pod did not come to its end");
        match step {
            Step::Volumes => self.observe_volumes(Err(lost.into())),
            Step::Sandbox { .. } => self.observe_sandbox(Err(lost.into())),
            Step::BeginSandbox { id } => self.observe_sandbox_begun(&id, Err(lost.into())),
            Step::RemoveSandbox => self.observe_sandbox_removed(Err(lost.into())),
            Step::Cgroup => self.observe_sized(Err(lost.into())),
            Step::Image { container } => self.observe_image(&container, Some(Err(lost.into()))),
            Step::Start { container, id } => {
                self.observe_start(&container, Err(containers::Failure::lost(id, lost)));
            }
            Step::Undo { container, .. } => self.observe_undone(&container, Err(lost.into())),
            Step::Stop { container, id } => {
                let lost = containers::StopError::Runtime(lost.into());
                self.observe_stopped(&container, id, Stopped::Unconfirmed(lost));
            }
            Step::End { container, id } => {
                let exit = self.early.remove(&id);
                let (code, finished_at) = exit.unwrap_or_else(|| (255, clock::now()));
                let exit = Exit {
                    code: code as i32,
                    reason: if code == 0 { "Completed" } else { "Error" }.to_owned(),
                    message: String::new(),
                    finished_at,
                };
                self.observe_end(&container, &id, exit);
            }
            Step::Look { id } => self.observe_look(id, Err(lost.into())),
            Step::TearDown => self.observe_torn_down(Err(lost.into())),
            Step::Forget => self.observe_forgotten(Err(lost.into())),
            Step::WriteStatus => self.retry_write(),
            Step::DeleteFromApi => {
                self.record.delete_asked = false;
                self.write_retry = Some(in_seconds(2));
            }
            Step::Beside(_) => {}
        }
    }

    /// The steps of stopping are through. Where nobody knows whether the container still runs (the kernel can't let it go, or
    /// containerd didn't answer), the plan begins them anew.
    fn observe_stopped(&mut self, container: &str, id: String, stopped: Stopped) {
        match stopped {
            Stopped::Heard => {}
            Stopped::Ended { code, at } => self.observe_exit(id, code, at),
            Stopped::Unconfirmed(error) => {
                tracing::warn!(pod = pod::display(&self.pod), container, %error, "a container's end is not confirmed");
                if self
                    .live
                    .get(container)
                    .is_some_and(|l| l.id == id && l.exited.is_cancelled())
                {
                    return;
                }
                let r = self.container(container);
                if matches!(r.activity, Activity::Killing(_)) {
                    r.activity = Activity::Idle;
                    r.stuck = Some(Stuck::again(r.stuck.as_ref(), clock::now()));
                }
            }
        }
    }

    fn observe_update(&mut self, pod: Arc<Pod>) {
        if self.record.gone || pod::uid(&pod) != pod::uid(&self.pod) {
            return;
        }
        let version = version(&pod);
        if version >= self.written_version {
            self.written = pod::status(&pod).clone();
            self.written_version = version;
        }
        let pod = self.hold_resize(pod);
        for container in pod::all_containers(&pod) {
            let before = pod::container(&self.pod, &container.name).and_then(|c| c.image.as_ref());
            if before != container.image.as_ref() {
                self.images.remove(&container.name);
                let r = self.container(&container.name);
                if r.image != ImageStep::Ensuring {
                    r.image = ImageStep::Needed;
                }
                r.pull = None;
            }
        }
        self.hold_pod(pod);
        self.hold_ephemeral_containers();
        self.bring_deadline_nearer();
    }

    fn observe_sized(&mut self, result: Result<(), runtime::Error>) {
        let CgroupStep::Writing(limits, before) = std::mem::take(&mut self.record.cgroup) else {
            return;
        };
        self.record.cgroup = match result {
            Ok(()) => CgroupStep::Written(limits),
            Err(error) => {
                tracing::warn!(pod = pod::display(&self.pod), %error, "a pod's cgroup has another size than the pod");
                CgroupStep::Stuck(Stuck::again(before.as_ref(), clock::now()))
            }
        };
    }

    /// Deleted without us (force, pod GC): what runs is stopped all the same, and what it holds is held until then.
    fn observe_gone(&mut self) {
        if !self.record.gone {
            self.record.gone = true;
            if self.record.volumes != VolumesStep::Gone {
                self.record_gone();
            }
        }
    }

    fn observe_objects(&mut self) {
        for r in self.record.containers.values_mut() {
            let waits = r
                .start_error
                .as_ref()
                .is_some_and(|e| e.kind == containers::FailureKind::Config);
            if waits && r.activity == Activity::Idle {
                r.start_error = None;
            }
        }
        if matches!(self.record.volumes, VolumesStep::Failed { .. }) {
            self.record.volumes = VolumesStep::Pending;
        }
    }

    fn observe_image(&mut self, container: &str, result: Option<Result<Image, images::Failure>>) {
        let now = clock::now();
        let wanted = pod::container(&self.pod, container).and_then(|c| c.image.clone());
        let r = self.record.containers.entry(container.to_owned()).or_default();
        match result {
            None => r.image = ImageStep::Needed,
            // The pod names another by now.
            Some(_) if self.ensuring.remove(container) != wanted => r.image = ImageStep::Needed,
            Some(Ok(image)) => {
                r.image = ImageStep::Ready;
                r.pull = None;
                self.images.insert(container.to_owned(), image);
            }
            Some(Err(failure)) => {
                r.pull = Some(backoff::next(r.pull, now, now));
                let text = format!("Error: {}", failure.reason());
                r.image = ImageStep::Failed {
                    failure,
                    failed_at: now,
                    backing_off: false,
                };
                self.agent
                    .container_event(&self.pod, container, "Warning", "Failed", text);
            }
        }
    }

    fn observe_start(&mut self, container: &str, result: Result<Instance, containers::Failure>) {
        let r = self.record.containers.entry(container.to_owned()).or_default();
        r.activity = Activity::Idle;
        match result {
            Ok(instance) => {
                tracing::debug!(pod = pod::display(&self.pod), container, "container is started");
                r.start_error = None;
                self.begin_life(container, instance, Health::default());
            }
            Err(failure) if failure.doubtful.is_some() => r.activity = Activity::Doubtful(failure),
            Err(failure) => self.observe_start_failed(container, failure),
        }
    }

    fn observe_start_failed(&mut self, container: &str, failure: containers::Failure) {
        let r = self.container(container);
        r.start_error = Some(StartError {
            kind: failure.kind,
            message: failure.message,
            at: clock::now(),
            left_instance: failure.instance.is_some(),
        });
        let Some(instance) = failure.instance else { return };
        let dir = self.agent.pod_dir(pod::uid(&self.pod));
        persist::store_instance(&dir, container, &instance);
        // It runs, but its postStart hook failed: the plan ends it.
        let health = Health {
            started: true,
            hook_failed: instance.exit.is_none(),
            ..Health::default()
        };
        self.begin_life(container, instance, health);
    }

    fn begin_life(&mut self, container: &str, instance: Instance, health: Health) {
        let (id, runs) = (instance.id.clone(), instance.exit.is_none());
        let r = self.container(container);
        r.last = r.current.take();
        r.current = Some(instance);
        r.health = Health::default();
        if !runs {
            // It never began: no end of it will be told, nor asked for.
            self.early.remove(&id);
            self.agent.owners.lock().remove(&id);
            return;
        }
        self.accompany(container, &id, health);
        if let Some((code, at)) = self.early.remove(&id) {
            self.observe_exit(id, code, at);
        }
    }

    fn observe_undone(&mut self, container: &str, result: Result<(), runtime::Error>) {
        let pod = pod::display(&self.pod);
        let r = self.container(container);
        let Activity::Undoing(mut failure) = std::mem::take(&mut r.activity) else {
            return;
        };
        match result {
            Ok(()) => {
                r.stuck = None;
                failure.doubtful = None;
                self.observe_start_failed(container, failure);
            }
            Err(error) => {
                tracing::warn!(
                    pod,
                    container,
                    %error,
                    "a start of which nothing is known is not taken back yet"
                );
                r.stuck = Some(Stuck::again(r.stuck.as_ref(), clock::now()));
                r.activity = Activity::Doubtful(failure);
            }
        }
    }

    /// Probes, and the token that says it has ended.
    pub(super) fn accompany(&mut self, container: &str, id: &str, health: Health) {
        let Some(spec) = pod::container(&self.pod, container).cloned() else {
            return;
        };
        let has_startup = spec.startup_probe.is_some();
        let has_readiness = spec.readiness_probe.is_some();
        let started = health.started || !has_startup;
        let ready = if has_readiness { health.ready } else { true };
        self.container(container).health = Health {
            started,
            ready,
            hook_failed: health.hook_failed,
            ..Health::default()
        };
        let (sender, receiver) = watch::channel(started);
        let ip = match self.record.sandbox() {
            Some(s) if !pod::host_network(&self.pod) => s.ips.first().cloned(),
            _ => Some(self.agent.config.node_ip.to_string()),
        };
        let target = probes::Target {
            agent: self.agent.clone(),
            pod: self.pod.clone(),
            container: spec,
            instance: id.to_owned(),
            ip: ip.unwrap_or_default(),
            started_at: self
                .record
                .container(container)
                .and_then(|r| r.current.as_ref()?.started_at),
        };
        let asking = probes::probes(&target, &receiver, &self.tx, has_startup && !started);
        let live = Live {
            id: id.to_owned(),
            exited: CancellationToken::new(),
            started: sender,
            _probes: self.beside("probes", futures::future::join_all(asking).map(drop)),
        };
        self.agent
            .owners
            .lock()
            .insert(id.to_owned(), pod::uid(&self.pod).to_owned());
        self.live.insert(container.to_owned(), live);
    }

    fn observe_probe(&mut self, container: &str, instance: &str, result: probes::Report) {
        let Some(live) = self.live.get(container).filter(|l| l.id == instance) else {
            return;
        };
        let live_started = live.started.clone();
        let r = self.container(container);
        match (result.kind, result.success) {
            (probes::Kind::Readiness, success) => r.health.ready = success,
            (probes::Kind::Liveness, success) => r.health.live_failed = !success,
            (probes::Kind::Startup, true) => {
                r.health.started = true;
                live_started.send_replace(true);
            }
            (probes::Kind::Startup, false) => r.health.startup_failed = true,
        }
    }

    pub(super) fn observe_exit(&mut self, id: String, code: u32, at: Timestamp) {
        if let Some(sandbox) = self.record.sandbox().filter(|s| s.id == id).cloned() {
            self.observe_sandbox_died(&sandbox.id, at);
            return;
        }
        let name = self.record.containers.iter().find_map(|(name, r)| {
            let instance = r.current.as_ref()?;
            (instance.id == id && instance.exit.is_none()).then(|| name.clone())
        });
        let Some(name) = name else {
            if self.record.begins_something() {
                // The start hasn't been told yet.
                self.early.insert(id, (code, at));
            }
            return;
        };
        let Some(live) = self.live.get(&name).filter(|l| l.id == id && !l.exited.is_cancelled()) else {
            return;
        };
        live.exited.cancel();
        let Some(instance) = self.record.container(&name).and_then(|r| r.current.clone()) else {
            return;
        };
        let ending = containers::Ending {
            agent: self.agent.clone(),
            pod: self.pod.clone(),
            container: name,
            instance,
            cgroup: self.record.sandbox().map(|s| s.cgroup.clone()),
            oom: self.oomed.remove(&id),
            code: code as i32,
            at,
        };
        let step = Step::End {
            container: ending.container.clone(),
            id: id.clone(),
        };
        // Kept for a job that is lost.
        self.early.insert(id, (code, at));
        self.job(step, async move { Outcome::Ended(ending.finish().await) });
    }

    fn observe_end(&mut self, container: &str, id: &str, exit: Exit) {
        self.live.remove(container);
        self.early.remove(id);
        self.agent.owners.lock().remove(id);
        let dir = self.agent.pod_dir(pod::uid(&self.pod));
        let r = self.container(container);
        let Some(instance) = r.current.as_mut().filter(|i| i.id == id) else {
            return;
        };
        instance.exit = Some(exit);
        let instance = instance.clone();
        r.health = Health::default();
        r.stuck = None;
        if matches!(r.activity, Activity::Killing(_)) {
            r.activity = Activity::Idle;
        }
        persist::store_instance(&dir, container, &instance);
    }

    /// Events were lost: what containerd seemingly no longer runs is looked at. Not believed as it is listed, for what was
    /// started since the list was made is not on it.
    fn observe_tasks(&mut self, tasks: &HashMap<String, Task>) {
        self.record.retry_now(clock::now());
        for id in self.running_ids() {
            if adopt::ended(tasks.get(&id)).is_some() {
                self.look(id);
            }
        }
    }

    fn observe_look(&mut self, id: String, result: Result<Option<Task>, runtime::Error>) {
        match result {
            Ok(task) => {
                if let Some((code, at)) = adopt::ended(task.as_ref()) {
                    self.observe_exit(id, code, at);
                }
            }
            // containerd's coming back brings the list of tasks, and the next look.
            Err(error) => {
                tracing::debug!(id, %error, "cannot look after a container");
            }
        }
    }
}
