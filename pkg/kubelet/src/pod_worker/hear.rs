//! What happens to a pod, as its worker hears it: each message goes into the record, and nothing is decided here.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use mk8s_containerd::{Image, Task};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Live, Message, PodWorker, adopt, in_seconds, version};
use crate::record::{Activity, Exit, Health, ImageStep, Instance, KillReason, Sandbox, SandboxStep, VolumesStep};
use crate::volumes::Paths;
use crate::{backoff, containers, images, persist, plan, pod, probes, volumes};

impl PodWorker {
    pub(super) fn hear(&mut self, message: Message) {
        match message {
            Message::Update(pod) => self.updated(pod),
            Message::Gone => self.gone(),
            Message::Exit { id, code, at } => self.exited(id, code, at),
            Message::Oom { id } => {
                self.oomed.insert(id);
            }
            Message::Reconcile(tasks) => self.reconcile(&tasks),
            Message::Probe {
                container,
                instance,
                result,
            } => self.probed(&container, &instance, result),
            Message::Sandbox(result) => self.sandbox_made(result),
            Message::SandboxRemoved => {
                let over = plan::ends(&self.pod, &self.record) || self.gone;
                self.record.sandbox = if over { SandboxStep::Gone } else { SandboxStep::Absent };
            }
            Message::Volumes(result) => self.volumes_made(result),
            Message::ObjectsChanged => self.objects_changed(),
            Message::Image { container, result } => self.image_ready(&container, result),
            Message::Started { container, result } => self.started(&container, result),
            Message::Ended { container, id, exit } => self.ended(&container, &id, exit),
            Message::KillFinished { container, id } => self.kill_finished(&container, &id),
            Message::TornDown => {
                self.record.volumes = VolumesStep::Gone;
                self.record.torn_down = true;
            }
            Message::Written(result) => self.written(result),
            Message::DeletedFromApi => {}
            Message::CleanedUp => self.finished = true,
        }
    }

    /// The steps of stopping are through. Where the container still runs (the kernel can't let it go, or containerd didn't
    /// answer), the plan begins them anew; where its end is just being looked into, that tells.
    pub(super) fn kill_finished(&mut self, container: &str, id: &str) {
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
        }
    }

    pub(super) fn updated(&mut self, pod: Arc<Pod>) {
        if self.gone || pod::uid(&pod) != pod::uid(&self.pod) {
            return;
        }
        let version = version(&pod);
        if version >= self.written_version {
            self.written = pod::status(&pod).clone();
            self.written_version = version;
        }
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
        self.pod = pod.clone();
        self.current.send_replace(pod);
        let grace = pod::grace_seconds(&self.pod);
        self.grace.send_if_modified(|known| {
            let changed = *known != grace;
            *known = grace;
            changed
        });
    }

    /// Deleted without us (force): what runs is stopped all the same.
    pub(super) fn gone(&mut self) {
        self.gone = true;
        if !pod::deleting(&self.pod) {
            let mut pod = (*self.pod).clone();
            pod.metadata.deletion_timestamp = Some(pod::time(Timestamp::now()));
            self.pod = Arc::new(pod);
        }
        if self.record.removed_from_api {
            self.record.removed_from_api = false;
        }
    }

    pub(super) fn objects_changed(&mut self) {
        for r in self.record.containers.values_mut() {
            if matches!(r.start_error, Some(("CreateContainerConfigError", _, _))) && r.activity == Activity::Idle {
                r.start_error = None;
            }
        }
        if matches!(self.record.volumes, VolumesStep::Failed { .. }) {
            self.record.volumes = VolumesStep::Pending;
        }
    }

    pub(super) fn sandbox_made(&mut self, result: Result<Arc<Sandbox>, String>) {
        match result {
            Ok(sandbox) => {
                if self.record.sandbox != SandboxStep::Creating {
                    return;
                }
                tracing::debug!(pod = pod::display(&self.pod), "sandbox is ready");
                self.record.sandboxes = sandbox.attempt + 1;
                self.record.sandbox = SandboxStep::Ready(sandbox);
            }
            Err(message) => {
                let text = format!("Failed to create pod sandbox: {message}");
                self.agent
                    .pod_event(&self.pod, "Warning", "FailedCreatePodSandBox", text);
                let retry_at = in_seconds(5);
                self.record.sandboxes += 1;
                self.record.sandbox = SandboxStep::Failed { message, retry_at };
            }
        }
    }

    pub(super) fn volumes_made(&mut self, result: Result<Paths, String>) {
        match result {
            Ok(paths) => {
                tracing::debug!(pod = pod::display(&self.pod), "volumes are ready");
                self.volumes = Arc::new(paths);
                self.record.volumes = VolumesStep::Ready;
                self.keep_volumes_fresh();
            }
            Err(message) => {
                self.agent
                    .pod_event(&self.pod, "Warning", "FailedMount", message.clone());
                self.record.volumes = VolumesStep::Failed {
                    message,
                    retry_at: in_seconds(10),
                };
            }
        }
    }

    pub(super) fn keep_volumes_fresh(&mut self) {
        if let Some(old) = self.refresh.take() {
            old.abort();
        }
        let live = pod::spec(&self.pod).volumes.iter().flatten().any(volumes::is_live);
        if live {
            let (agent, held) = (self.agent.clone(), self.held.clone());
            let pod = self.current.subscribe();
            let ips = self.record.sandbox().map(|s| s.ips.clone()).unwrap_or_default();
            let tokens = self.tokens.clone();
            let handle = self.job(volumes::live::keep_fresh(agent, pod, held, tokens, ips));
            self.refresh = Some(handle);
        }
    }

    pub(super) fn image_ready(&mut self, container: &str, result: Result<Image, images::Failure>) {
        self.image_jobs.remove(container);
        let now = Timestamp::now();
        let r = self.record.containers.entry(container.to_owned()).or_default();
        match result {
            Ok(image) => {
                r.image = ImageStep::Ready;
                r.pull = None;
                self.images.insert(container.to_owned(), image);
            }
            Err(failure) => {
                r.pull = Some(backoff::next(r.pull, now, now));
                r.image = ImageStep::Failed {
                    reason: failure.reason,
                    message: failure.message,
                    failed_at: now,
                    backing_off: false,
                };
                let text = format!("Error: {}", failure.reason);
                self.agent
                    .container_event(&self.pod, container, "Warning", "Failed", text);
            }
        }
    }

    pub(super) fn started(&mut self, container: &str, result: Result<Instance, containers::Failure>) {
        let dir = self.agent.pod_dir(pod::uid(&self.pod));
        let r = self.record.containers.entry(container.to_owned()).or_default();
        r.activity = Activity::Idle;
        match result {
            Ok(instance) => {
                tracing::debug!(pod = pod::display(&self.pod), container, "container is started");
                let id = instance.id.clone();
                r.last = r.current.take();
                r.current = Some(instance.clone());
                r.start_error = None;
                r.health = Health::default();
                self.watch_instance(container, &id, Health::default());
                if let Some((code, at)) = self.early.remove(&id) {
                    self.exited(id, code, at);
                }
            }
            Err(failure) => {
                let now = Timestamp::now();
                r.start_error = Some((failure.reason, failure.message, now));
                if let Some(instance) = failure.instance {
                    persist::store_instance(&dir, container, &instance);
                    r.last = r.current.take();
                    r.current = Some(instance.clone());
                    r.health = Health::default();
                    if instance.exit.is_none() {
                        // It runs, but its postStart hook failed: it has to end.
                        self.watch_instance(
                            container,
                            &instance.id,
                            Health {
                                started: true,
                                ..Health::default()
                            },
                        );
                        let id = instance.id.clone();
                        match self.early.remove(&id) {
                            Some((code, at)) => self.exited(id, code, at),
                            None => self.kill(container, KillReason::PostStartHook, "FailedPostStartHook".to_owned()),
                        }
                    }
                }
            }
        }
    }

    /// Probes, and the token that says it has ended.
    pub(super) fn watch_instance(&mut self, container: &str, id: &str, health: Health) {
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
            ..Health::default()
        };
        let (sender, receiver) = watch::channel(started);
        let mut live = Live {
            id: id.to_owned(),
            exited: CancellationToken::new(),
            started: sender,
            probes: Vec::new(),
        };
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
        for probe in probes::probes(&target, &receiver, &self.tx, has_startup && !started) {
            live.probes.push(self.jobs.spawn(probe));
        }
        self.agent
            .owners
            .lock()
            .insert(id.to_owned(), pod::uid(&self.pod).to_owned());
        self.live.insert(container.to_owned(), live);
    }

    pub(super) fn probed(&mut self, container: &str, instance: &str, result: probes::Report) {
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

    pub(super) fn exited(&mut self, id: String, code: u32, at: Timestamp) {
        if let Some(sandbox) = self.record.sandbox().filter(|s| s.id == id).cloned() {
            self.sandbox_died(&sandbox);
            return;
        }
        let name = self.record.containers.iter().find_map(|(name, r)| {
            let instance = r.current.as_ref()?;
            (instance.id == id && instance.exit.is_none()).then(|| name.clone())
        });
        let Some(name) = name else {
            // The start hasn't been told yet.
            self.early.insert(id, (code, at));
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
        let tx = self.tx.clone();
        self.job(async move {
            let (container, id) = (ending.container.clone(), ending.instance.id.clone());
            let exit = ending.finish().await;
            let _ = tx.send(Message::Ended { container, id, exit });
        });
    }

    pub(super) fn ended(&mut self, container: &str, id: &str, exit: Exit) {
        self.live.remove(container);
        self.agent.owners.lock().remove(id);
        let dir = self.agent.pod_dir(pod::uid(&self.pod));
        let r = self.container(container);
        let Some(instance) = r.current.as_mut().filter(|i| i.id == id) else {
            return;
        };
        instance.exit = Some(exit);
        let instance = instance.clone();
        r.health = Health::default();
        if matches!(r.activity, Activity::Killing(_)) {
            r.activity = Activity::Idle;
        }
        persist::store_instance(&dir, container, &instance);
    }

    /// The pause process ended by itself: the pod needs a new sandbox, and everything in the old one goes.
    pub(super) fn sandbox_died(&mut self, _sandbox: &Arc<Sandbox>) {
        if plan::ends(&self.pod, &self.record) || self.record.sandbox == SandboxStep::Removing {
            return;
        }
        let text = "Pod sandbox changed, it will be killed and re-created.";
        self.agent.pod_event(&self.pod, "Normal", "SandboxChanged", text);
        self.remove_sandbox();
    }

    /// Events were lost: what containerd no longer runs has ended.
    pub(super) fn reconcile(&mut self, tasks: &HashMap<String, Task>) {
        let mut ids: Vec<String> = self.live.values().map(|l| l.id.clone()).collect();
        ids.extend(self.record.sandbox().map(|s| s.id.clone()));
        for id in ids {
            match adopt::ended(tasks.get(&id)) {
                Some((code, at)) => self.exited(id, code, at),
                None => continue,
            }
        }
    }
}
