//! What a worker does: the plan's actions. What takes time is set going as a job.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::step::{Outcome, Step};
use super::{PodWorker, in_seconds};
use crate::plan::Action;
use crate::record::{
    Activity, CgroupStep, ContainerRecord, ForgetStep, ImageStep, KillReason, SandboxStep, Verdict, VolumesStep,
};
use crate::resize::Refused;
use crate::resources::qos;
use crate::{backoff, clock, containers, images, names, persist, plan, pod, resize, sandbox, unsupported, volumes};

impl PodWorker {
    pub(super) fn admit(&mut self) {
        if self.record.admitted || pod::is_terminal_phase(pod::phase(&self.pod)) {
            return;
        }
        let adopted = self.record.containers.values().any(|r| r.current.is_some());
        if pod::deleting(&self.pod) && !adopted {
            return;
        }
        if !adopted && self.hold() {
            return;
        }
        let node = self.agent.node();
        match self
            .agent
            .admission
            .admit(&self.agent, &self.pod, node.as_deref(), adopted)
        {
            Ok(()) => {
                self.record.admitted = true;
                self.record.start_time.get_or_insert_with(|| {
                    pod::status(&self.pod)
                        .start_time
                        .as_ref()
                        .map_or_else(clock::now, |t| t.0)
                });
                self.hold_objects();
                if let Some(field) = unsupported::unheeded(&self.pod).filter(|_| !adopted) {
                    let text = unsupported::message(&field);
                    self.agent.pod_event(&self.pod, "Warning", "NotEnforced", text);
                }
            }
            Err(verdict) => {
                let text = verdict.message.clone();
                self.agent.pod_event(&self.pod, "Warning", &verdict.reason, text);
                self.record.start_time.get_or_insert_with(clock::now);
                self.record.verdict = Some(verdict);
            }
        }
    }

    /// Whether the pod asks for what is not done here yet: it waits, and an event says for which field.
    fn hold(&mut self) -> bool {
        let field = unsupported::field(&self.pod, unsupported::enforces_selinux());
        if let Some(field) = field.as_ref().filter(|_| field != self.record.held_by) {
            let text = unsupported::message(field);
            self.agent.pod_event(&self.pod, "Warning", "FailedValidation", text);
        }
        self.record.held_by = field;
        self.record.held_by.is_some()
    }

    /// The pod with what its containers have, where it asks for something else.
    pub(super) fn hold_resize(&mut self, wanted: Arc<Pod>) -> Arc<Pod> {
        // Before anything was made for it the pod gets what it asks for.
        if !self.record.admitted {
            return wanted;
        }
        let begun = |name: &str| self.record.container(name).is_some_and(ContainerRecord::begun);
        let of_begun = |name: &str| resize::of_spec(&self.pod, name).filter(|_| begun(name));
        let (mut held, mut refused) = resize::held(&wanted, of_begun);
        let over = plan::ends(&self.pod, &self.record);
        if resize::differs(&held, &self.pod) && (over || !self.makes_room(&held)) {
            (held, refused) = resize::held(&wanted, |name| resize::of_spec(&self.pod, name));
        }
        self.note_resize(&held, refused);
        held
    }

    /// What has not begun may take another size if the node has that.
    fn makes_room(&self, resized: &Pod) -> bool {
        let (agent, node) = (&self.agent, self.agent.node());
        agent.admission.resize(agent, resized, node.as_deref()).is_ok()
    }

    pub(super) fn note_resize(&mut self, pod: &Pod, refused: Refused) {
        if !refused.is_empty() && self.record.resize_held != refused {
            let text = format!("Pod resize Infeasible: {}", resize::WHY);
            self.agent.pod_event(pod, "Warning", "ResizeInfeasible", text);
        }
        self.record.resize_held = refused;
    }

    /// Those that the status does not name yet: that they wait is said once of each.
    pub(super) fn hold_ephemeral_containers(&mut self) {
        let told = self.written.ephemeral_container_statuses.iter().flatten();
        let told: HashSet<&str> = told.map(|status| status.name.as_str()).collect();
        for container in pod::spec(&self.pod).ephemeral_containers.iter().flatten() {
            let name = container.name.as_str();
            if !told.contains(name) && self.record.ephemeral_held.insert(name.to_owned()) {
                let text = format!(
                    "spec.ephemeralContainers{{{name}}}: {}",
                    unsupported::EPHEMERAL_CONTAINERS
                );
                self.agent.pod_event(&self.pod, "Warning", "FailedValidation", text);
            }
        }
    }

    /// Carries out the plan until there is nothing more to do now. Answers when to look again.
    pub(super) fn apply_plan(&mut self) -> Option<Timestamp> {
        // Each action changes the record, so this ends after a few rounds; a bound keeps a mistake from spinning.
        for _ in 0..16 {
            if plan::ends(&self.pod, &self.record) {
                self.begin_end();
            }
            let plan = plan::plan(&self.pod, &self.record, clock::now());
            if plan.actions.is_empty() {
                return plan.wake_at;
            }
            for action in plan.actions {
                self.apply(action);
            }
        }
        tracing::error!(pod = pod::display(&self.pod), "a pod's plan does not come to rest");
        Some(in_seconds(1))
    }

    /// No job waits for anything any more, and the pod has a last moment.
    fn begin_end(&mut self) {
        self.ending.cancel();
        self.bring_deadline_nearer();
        if pod::deleting(&self.pod) || self.record.gone {
            // Liveness and startup have nothing to say of what is being stopped.
            for r in self.record.containers.values_mut() {
                r.health.live_failed = false;
                r.health.startup_failed = false;
            }
        }
    }

    /// The one deadline of the pod's end. It is counted from when the API took the deletion, so that neither a restart of
    /// the agent nor one container after another begins it anew; a later wish can only hurry it.
    pub(super) fn bring_deadline_nearer(&mut self) {
        if !plan::ends(&self.pod, &self.record) {
            return;
        }
        let wanted = pod::deadline(&self.pod, clock::now());
        self.deadline.send_if_modified(|known| {
            let nearer = known.is_none_or(|known| wanted < known);
            if nearer {
                *known = Some(wanted);
            }
            nearer
        });
    }

    /// Of a pod that the API has no more, this alone says what is left to do, to this agent and to the next.
    pub(super) fn record_gone(&self) {
        let deadline = pod::deadline(&self.pod, clock::now());
        let mut pod = (*self.pod).clone();
        pod.metadata.deletion_timestamp.get_or_insert(pod::time(deadline));
        persist::store_pod(&self.agent.pod_dir(pod::uid(&pod)), &pod);
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::PrepareVolumes => self.prepare_volumes(),
            Action::CreateSandbox => self.create_sandbox(),
            Action::SizeCgroup => self.size_cgroup(),
            Action::EnsureImage(container) => self.ensure_image(container),
            Action::Start(container) => self.start(container),
            Action::Undo(container) => self.undo(container),
            Action::Kill {
                container,
                reason,
                message,
            } => self.kill(&container, reason, message),
            Action::AnnounceCrash(container) => self.announce_crash(&container),
            Action::AnnouncePull(container) => self.announce_pull(&container),
            Action::Expire => self.expire(),
            Action::RemoveSandbox => self.remove_sandbox(),
            Action::TearDown => self.tear_down(),
            Action::DeleteFromApi => {
                self.record.delete_asked = true;
                self.delete_wanted = true;
            }
            Action::Forget => self.forget(),
        }
    }

    fn expire(&mut self) {
        let text = "Pod was active on the node longer than the specified deadline";
        self.record.verdict = Some(Verdict {
            reason: "DeadlineExceeded".to_owned(),
            message: text.to_owned(),
        });
        self.agent.pod_event(&self.pod, "Normal", "DeadlineExceeded", text);
    }

    /// Work that runs beside the pod until the guard is dropped.
    pub(super) fn beside<F>(&self, name: &'static str, work: F) -> DropGuard
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = CancellationToken::new();
        let guard = token.clone().drop_guard();
        self.job(Step::Beside(name), async move {
            token.run_until_cancelled_owned(work).await;
            Outcome::Nothing
        });
        guard
    }

    fn prepare_volumes(&mut self) {
        self.record.volumes = VolumesStep::Preparing;
        let (agent, pod, held) = (self.agent.clone(), self.pod.clone(), self.held.clone());
        let (tokens, ending) = (self.tokens.clone(), self.ending.clone());
        self.job(Step::Volumes, async move {
            let prepare = volumes::live::prepare_all(&agent, &pod, &held, &tokens);
            // What still runs of it when it is given up is waited for by the volumes' end.
            let prepared = ending.run_until_cancelled(prepare).await;
            Outcome::Volumes(prepared.unwrap_or(Err(volumes::Error::Closed)))
        });
    }

    fn create_sandbox(&mut self) {
        let now = clock::now();
        if let Some(died_at) = self.record.sandbox_died_at.take() {
            self.record.sandbox_crash = Some(backoff::next(self.record.sandbox_crash, died_at, now));
        }
        self.record.sandbox = SandboxStep::Creating;
        // Its cgroup is made with it.
        self.record.cgroup = CgroupStep::Written(qos::pod_limits(&self.pod));
        let id = names::fresh_id();
        let create = sandbox::Create {
            agent: self.agent.clone(),
            pod: self.pod.clone(),
            attempt: self.record.sandboxes,
            id: id.clone(),
            ending: self.ending.clone(),
        };
        self.job(
            Step::Sandbox { id },
            async move { Outcome::Sandbox(create.run().await) },
        );
    }

    /// The pause process execs. Nobody waits for it: the namespaces are there.
    pub(super) fn begin_sandbox(&self, id: String, place: OwnedSemaphorePermit) {
        let agent = self.agent.clone();
        self.job(Step::BeginSandbox { id: id.clone() }, async move {
            let begun = agent.runtime.start_task(&id).await;
            drop(place);
            Outcome::SandboxBegun(begun)
        });
    }

    fn size_cgroup(&mut self) {
        let before = match std::mem::take(&mut self.record.cgroup) {
            CgroupStep::Stuck(stuck) => Some(stuck),
            _ => None,
        };
        self.record.cgroup = CgroupStep::Writing(qos::pod_limits(&self.pod), before);
        let (agent, pod) = (self.agent.clone(), self.pod.clone());
        self.job(Step::Cgroup, async move {
            Outcome::Sized(agent.runtime.ensure_cgroup(&pod).await.map(drop))
        });
    }

    fn remove_sandbox(&mut self) {
        let before = match std::mem::take(&mut self.record.sandbox) {
            SandboxStep::Stuck(stuck) => Some(stuck),
            _ => None,
        };
        self.record.sandbox = SandboxStep::Removing(before);
        let remove = sandbox::Remove {
            agent: self.agent.clone(),
            pod: self.pod.clone(),
            whole: plan::ends(&self.pod, &self.record),
        };
        self.job(Step::RemoveSandbox, async move {
            Outcome::SandboxRemoved(remove.run().await)
        });
    }

    fn ensure_image(&mut self, name: String) {
        let Some(container) = pod::container(&self.pod, &name).cloned() else {
            return;
        };
        self.container(&name).image = ImageStep::Ensuring;
        if let Some(image) = container.image.clone() {
            self.ensuring.insert(name.clone(), image);
        }
        let (agent, pod, held) = (self.agent.clone(), self.pod.clone(), self.held.clone());
        let ending = self.ending.clone();
        self.job(Step::Image { container: name }, async move {
            let ensure = images::ensure(&agent, &pod, &container, &held);
            Outcome::Image(ending.run_until_cancelled(ensure).await)
        });
    }

    fn start(&mut self, name: String) {
        let (Some(container), Some(sandbox)) = (
            pod::container(&self.pod, &name).cloned(),
            self.record.sandbox().cloned(),
        ) else {
            return;
        };
        let Some(image) = self.images.remove(&name) else {
            self.container(&name).image = ImageStep::Needed;
            return;
        };
        let now = clock::now();
        let id = names::fresh_id();
        let r = self.container(&name);
        if let Some(exit) = r.exit() {
            r.crash = Some(backoff::next(r.crash, exit.finished_at, now));
        }
        r.activity = Activity::Starting;
        r.image = ImageStep::Needed;
        let start = containers::Start {
            attempt: r.next_attempt(),
            id: id.clone(),
            older: r.last.as_ref().map(|i| i.id.clone()),
            agent: self.agent.clone(),
            pod: self.pod.clone(),
            container,
            sandbox,
            image,
            volumes: self.volumes.clone(),
            held: self.held.clone(),
            ending: self.ending.clone(),
        };
        let step = Step::Start { container: name, id };
        self.job(step, async move { Outcome::Started(Box::new(start.run().await)) });
    }

    /// containerd did not say what became of a start: what it may have begun is ended before there can be another.
    fn undo(&mut self, name: String) {
        let r = self.container(&name);
        let Activity::Doubtful(failure) = std::mem::take(&mut r.activity) else {
            return;
        };
        let id = failure.doubtful.clone().unwrap_or_default();
        let is_known = failure.instance.is_some();
        r.activity = Activity::Undoing(failure);
        let agent = self.agent.clone();
        let step = Step::Undo {
            container: name,
            id: id.clone(),
        };
        self.job(step, async move {
            let undone = match is_known {
                true => agent.runtime.delete_task(&id).await.map(drop),
                // Nobody will ask for it: there is no life of the container that it stands for.
                false => agent.runtime.delete(&id).await,
            };
            Outcome::Undone(undone)
        });
    }

    fn kill(&mut self, name: &str, reason: KillReason, message: String) {
        let Some(container) = pod::container(&self.pod, name).cloned() else {
            return;
        };
        let Some(live) = self.live.get(name) else { return };
        let (id, exited) = (live.id.clone(), live.exited.clone());
        let own_deadline = self.own_deadline(&container, reason);
        let r = self.container(name);
        r.activity = Activity::Killing(reason);
        let signal = r.current.as_ref().and_then(|i| i.stop_signal.clone());
        if r.stuck.is_none() {
            self.agent
                .container_event(&self.pod, name, "Normal", "Killing", message);
        }
        let stop = containers::Stop {
            agent: self.agent.clone(),
            pod: self.pod.clone(),
            container,
            id: id.clone(),
            signal,
            exited,
            own_deadline,
            pod_deadline: self.deadline.subscribe(),
            ip: self.record.sandbox().and_then(|s| s.ips.first().cloned()),
        };
        let step = Step::Stop {
            container: name.to_owned(),
            id,
        };
        self.job(step, async move { Outcome::Stopped(stop.run().await) });
    }

    /// Of a restart, counted from now; none where the pod's own counts. A probe may have a grace of its own, which counts
    /// when the probe is why.
    fn own_deadline(&self, container: &k8s_openapi::api::core::v1::Container, reason: KillReason) -> Option<Timestamp> {
        let probe = match reason {
            KillReason::PodEnds => return None,
            KillReason::LivenessProbe => container.liveness_probe.as_ref(),
            KillReason::StartupProbe => container.startup_probe.as_ref(),
            KillReason::DefinitionChanged | KillReason::PostStartHook | KillReason::SandboxChanged => None,
        };
        let own = probe.and_then(|p| p.termination_grace_period_seconds);
        let grace = own.unwrap_or_else(|| pod::grace_seconds(&self.pod));
        Some(in_seconds(u64::try_from(grace).unwrap_or(0)))
    }

    /// Everything that is thought to run.
    pub(super) fn running_ids(&self) -> Vec<String> {
        let live = self.live.values().filter(|l| !l.exited.is_cancelled());
        let mut ids: Vec<String> = live.map(|l| l.id.clone()).collect();
        ids.extend(self.record.sandbox().map(|s| s.id.clone()));
        ids
    }

    pub(super) fn look_at_all(&self) {
        for id in self.running_ids() {
            self.look(id);
        }
    }

    pub(super) fn look(&self, id: String) {
        let agent = self.agent.clone();
        self.job(Step::Look { id: id.clone() }, async move {
            Outcome::Looked(agent.runtime.task(&id).await)
        });
    }

    fn announce_crash(&mut self, name: &str) {
        let display = pod::display(&self.pod);
        let r = self.container(name);
        r.announced = r.current.as_ref().map(|i| i.id.clone());
        let text = format!("Back-off restarting failed container {name} in pod {display}");
        self.agent.container_event(&self.pod, name, "Warning", "BackOff", text);
    }

    fn announce_pull(&mut self, name: &str) {
        let image = pod::container(&self.pod, name)
            .and_then(|c| c.image.clone())
            .unwrap_or_default();
        let mut pull_failed = false;
        if let ImageStep::Failed {
            backing_off, failure, ..
        } = &mut self.container(name).image
        {
            *backing_off = true;
            pull_failed = matches!(failure, images::Failure::Pull(_));
        }
        if pull_failed {
            let text = format!("Back-off pulling image \"{image}\"");
            self.agent.container_event(&self.pod, name, "Normal", "BackOff", text);
            self.agent
                .container_event(&self.pod, name, "Warning", "Failed", "Error: ImagePullBackOff");
        }
    }

    fn tear_down(&mut self) {
        self.upkeep = None;
        let before = match std::mem::take(&mut self.record.volumes) {
            VolumesStep::Stuck(stuck) => Some(stuck),
            _ => None,
        };
        self.record.volumes = VolumesStep::TearingDown(before);
        let (agent, pod) = (self.agent.clone(), self.pod.clone());
        self.job(Step::TearDown, async move {
            Outcome::TornDown(sandbox::tear_down(&agent, &pod).await)
        });
    }

    fn forget(&mut self) {
        let before = match std::mem::take(&mut self.record.forget) {
            ForgetStep::Stuck(stuck) => Some(stuck),
            _ => None,
        };
        self.record.forget = ForgetStep::Forgetting(before);
        let (agent, pod) = (self.agent.clone(), self.pod.clone());
        self.job(Step::Forget, async move {
            Outcome::Forgotten(sandbox::forget(&agent, &pod).await)
        });
    }
}
