//! The one task that owns a pod: it hears what happens, asks `plan` what to do, sets the steps going, and writes the status.
//!
//! Steps that take time run as jobs of their own and report back through the mailbox, so the worker never waits for one
//! thing while another needs it. All jobs end with the worker.

mod adopt;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use mk8s_containerd::{Image, Task};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, HeldObjects, View};
use crate::record::{
    Activity, Exit, Health, ImageStep, Instance, KillReason, PodRecord, Sandbox, SandboxStep, Verdict, VolumesStep,
};
use crate::status::writer;
use crate::volumes::{self, Paths};
use crate::{backoff, containers, images, persist, plan, pod, probes, sandbox, status};
use plan::Action;

pub use adopt::Found;

/// What a worker hears.
#[derive(Debug)]
pub enum Message {
    /// The pod as the API now has it.
    Update(Arc<Pod>),
    /// The API has it no more.
    Gone,
    /// A container's first process ended.
    Exit {
        id: String,
        code: u32,
        at: Timestamp,
    },
    /// The kernel killed something in a container for want of memory.
    Oom {
        id: String,
    },
    /// containerd was out of reach: these are the tasks it has now.
    Reconcile(Arc<HashMap<String, Task>>),
    Probe {
        container: String,
        instance: String,
        result: probes::Report,
    },
    Sandbox(Result<Arc<Sandbox>, String>),
    SandboxRemoved,
    Volumes(Result<Paths, String>),
    /// A ConfigMap, Secret or token that a container or volume waits for may be there now.
    ObjectsChanged,
    Image {
        container: String,
        result: Result<Image, images::Failure>,
    },
    Started {
        container: String,
        result: Result<Instance, containers::Failure>,
    },
    /// A container's end, with all that is to be said about it.
    Ended {
        container: String,
        id: String,
        exit: Exit,
    },
    KillFinished {
        container: String,
        id: String,
    },
    TornDown,
    Written(Result<Box<Pod>, writer::Error>),
    DeletedFromApi,
    CleanedUp,
}

/// What accompanies a running instance.
struct Live {
    id: String,
    exited: CancellationToken,
    started: watch::Sender<bool>,
    probes: Vec<AbortHandle>,
}

impl Drop for Live {
    fn drop(&mut self) {
        for probe in &self.probes {
            probe.abort();
        }
    }
}

pub struct PodWorker {
    agent: Arc<Agent>,
    pod: Arc<Pod>,
    record: PodRecord,
    mailbox: mpsc::UnboundedReceiver<Message>,
    tx: mpsc::UnboundedSender<Message>,
    view: watch::Sender<Arc<View>>,
    jobs: JoinSet<()>,
    image_jobs: HashMap<String, AbortHandle>,
    images: HashMap<String, Image>,
    volumes: Arc<Paths>,
    refresh: Option<AbortHandle>,
    /// The pod for jobs that outlive a change of it (live volumes).
    current: watch::Sender<Arc<Pod>>,
    held: Arc<HeldObjects>,
    tokens: Arc<volumes::live::Tokens>,
    live: HashMap<String, Live>,
    /// Ends that came before the start was told.
    early: HashMap<String, (u32, Timestamp)>,
    oomed: HashSet<String>,
    /// Shrinks when the pod's deletion is hurried.
    grace: watch::Sender<i64>,
    ending: CancellationToken,
    written: PodStatus,
    written_version: u64,
    write_in_flight: bool,
    last_patch: Option<serde_json::Value>,
    write_retry: Option<Timestamp>,
    delete_wanted: bool,
    gone: bool,
    finished: bool,
}

/// How a worker is wired to the rest.
pub struct Wiring {
    pub mailbox: mpsc::UnboundedReceiver<Message>,
    pub tx: mpsc::UnboundedSender<Message>,
    pub view: watch::Sender<Arc<View>>,
}

impl PodWorker {
    pub fn new(agent: Arc<Agent>, pod: Arc<Pod>, wiring: Wiring) -> Self {
        let held = Arc::new(HeldObjects::of(&agent, &pod));
        let written = pod::status(&pod).clone();
        Self {
            written_version: version(&pod),
            written,
            held,
            tokens: Arc::default(),
            current: watch::Sender::new(pod.clone()),
            grace: watch::Sender::new(pod::grace_seconds(&pod)),
            agent,
            pod,
            record: PodRecord::default(),
            mailbox: wiring.mailbox,
            tx: wiring.tx,
            view: wiring.view,
            jobs: JoinSet::new(),
            image_jobs: HashMap::new(),
            images: HashMap::new(),
            volumes: Arc::default(),
            refresh: None,
            live: HashMap::new(),
            early: HashMap::new(),
            oomed: HashSet::new(),
            ending: CancellationToken::new(),
            write_in_flight: false,
            last_patch: None,
            write_retry: None,
            delete_wanted: false,
            gone: false,
            finished: false,
        }
    }

    /// Runs until the pod is gone from the API and from the node.
    pub async fn run(mut self, found: Vec<Found>) {
        tracing::debug!(pod = pod::display(&self.pod), "a pod is here");
        self.adopt(found).await;
        self.admit();
        self.follow_objects();
        while !self.finished {
            let wake = self.act();
            self.report();
            self.show();
            self.next_message(wake).await;
            while let Some(result) = self.jobs.try_join_next() {
                if let Err(error) = result.as_ref()
                    && error.is_panic()
                {
                    tracing::error!(pod = pod::display(&self.pod), %error, "a step of a pod failed unexpectedly");
                }
            }
        }
    }

    /// A start or a volume may wait for an object that isn't there yet.
    fn follow_objects(&mut self) {
        let mut watched = self.held.changes();
        if watched.is_empty() {
            return;
        }
        let tx = self.tx.clone();
        self.job(async move {
            loop {
                volumes::live::any_change(&mut watched).await;
                for receiver in &mut watched {
                    receiver.mark_unchanged();
                }
                if tx.send(Message::ObjectsChanged).is_err() {
                    return;
                }
            }
        });
    }

    async fn next_message(&mut self, wake: Option<Timestamp>) {
        let wake = [wake, self.write_retry].into_iter().flatten().min();
        let delay = wake.map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
        let first = match delay {
            Some(delay) => tokio::time::timeout(delay, self.mailbox.recv()).await.unwrap_or(None),
            None => self.mailbox.recv().await,
        };
        if let Some(message) = first {
            self.hear(message);
        }
        while let Ok(message) = self.mailbox.try_recv() {
            self.hear(message);
        }
    }

    fn job<F>(&mut self, work: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Boxed: one kind of task for all of a pod's steps.
        self.jobs.spawn(work.boxed())
    }

    fn container(&mut self, name: &str) -> &mut crate::record::ContainerRecord {
        self.record.containers.entry(name.to_owned()).or_default()
    }

    // ---- what happens ----

    fn hear(&mut self, message: Message) {
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
    fn kill_finished(&mut self, container: &str, id: &str) {
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

    fn updated(&mut self, pod: Arc<Pod>) {
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
    fn gone(&mut self) {
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

    fn objects_changed(&mut self) {
        for r in self.record.containers.values_mut() {
            if matches!(r.start_error, Some(("CreateContainerConfigError", _, _))) && r.activity == Activity::Idle {
                r.start_error = None;
            }
        }
        if matches!(self.record.volumes, VolumesStep::Failed { .. }) {
            self.record.volumes = VolumesStep::Pending;
        }
    }

    fn sandbox_made(&mut self, result: Result<Arc<Sandbox>, String>) {
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

    fn volumes_made(&mut self, result: Result<Paths, String>) {
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

    fn keep_volumes_fresh(&mut self) {
        if let Some(old) = self.refresh.take() {
            old.abort();
        }
        let live = pod::spec(&self.pod).volumes.iter().flatten().any(volumes::is_live);
        if live {
            let (agent, held) = (self.agent.clone(), self.held.clone());
            let (pod, paths) = (self.current.subscribe(), self.volumes.clone());
            let ips = self.record.sandbox().map(|s| s.ips.clone()).unwrap_or_default();
            let tokens = self.tokens.clone();
            let handle = self.job(volumes::live::keep_fresh(agent, pod, held, tokens, paths, ips));
            self.refresh = Some(handle);
        }
    }

    fn image_ready(&mut self, container: &str, result: Result<Image, images::Failure>) {
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

    fn started(&mut self, container: &str, result: Result<Instance, containers::Failure>) {
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
    fn watch_instance(&mut self, container: &str, id: &str, health: Health) {
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

    fn probed(&mut self, container: &str, instance: &str, result: probes::Report) {
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

    fn exited(&mut self, id: String, code: u32, at: Timestamp) {
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

    fn ended(&mut self, container: &str, id: &str, exit: Exit) {
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
    fn sandbox_died(&mut self, _sandbox: &Arc<Sandbox>) {
        if plan::ends(&self.pod, &self.record) || self.record.sandbox == SandboxStep::Removing {
            return;
        }
        let text = "Pod sandbox changed, it will be killed and re-created.";
        self.agent.pod_event(&self.pod, "Normal", "SandboxChanged", text);
        self.remove_sandbox();
    }

    /// Events were lost: what containerd no longer runs has ended.
    fn reconcile(&mut self, tasks: &HashMap<String, Task>) {
        let mut ids: Vec<String> = self.live.values().map(|l| l.id.clone()).collect();
        ids.extend(self.record.sandbox().map(|s| s.id.clone()));
        for id in ids {
            match adopt::ended(tasks.get(&id)) {
                Some((code, at)) => self.exited(id, code, at),
                None => continue,
            }
        }
    }

    // ---- what is done ----

    fn admit(&mut self) {
        if self.record.admitted || pod::is_terminal_phase(pod::phase(&self.pod)) {
            return;
        }
        let adopted = self.record.containers.values().any(|r| r.current.is_some());
        if pod::deleting(&self.pod) && !adopted {
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
                        .map_or_else(Timestamp::now, |t| t.0)
                });
            }
            Err(verdict) => {
                let text = verdict.message.clone();
                self.agent.pod_event(&self.pod, "Warning", &verdict.reason, text);
                self.record.start_time.get_or_insert_with(Timestamp::now);
                self.record.verdict = Some(verdict);
            }
        }
    }

    /// Carries out the plan until there is nothing more to do now. Answers when to look again.
    fn act(&mut self) -> Option<Timestamp> {
        // Each action changes the record, so this ends after a few rounds; a bound keeps a mistake from spinning.
        for _ in 0..16 {
            let plan = plan::plan(&self.pod, &self.record, Timestamp::now());
            let over = plan::ends(&self.pod, &self.record);
            if over {
                self.stop_waiting_for_images();
            }
            if plan.actions.is_empty() {
                return plan.wake_at;
            }
            for action in plan.actions {
                self.perform(action);
            }
        }
        tracing::error!(pod = pod::display(&self.pod), "a pod's plan does not come to rest");
        Some(in_seconds(1))
    }

    fn stop_waiting_for_images(&mut self) {
        self.ending.cancel();
        for (name, job) in self.image_jobs.drain() {
            job.abort();
            if let Some(r) = self.record.containers.get_mut(&name) {
                r.image = ImageStep::Needed;
            }
        }
        if pod::deleting(&self.pod) {
            // Liveness and startup have nothing to say of what is being stopped.
            for r in self.record.containers.values_mut() {
                r.health.live_failed = false;
                r.health.startup_failed = false;
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::PrepareVolumes => self.prepare_volumes(),
            Action::CreateSandbox => self.create_sandbox(),
            Action::EnsureImage(container) => self.ensure_image(container),
            Action::Start(container) => self.start(container),
            Action::Kill {
                container,
                reason,
                message,
            } => self.kill(&container, reason, message),
            Action::AnnounceCrash(container) => self.announce_crash(&container),
            Action::AnnouncePull(container) => self.announce_pull(&container),
            Action::Expire => {
                self.record.verdict = Some(Verdict {
                    reason: "DeadlineExceeded".to_owned(),
                    message: "Pod was active on the node longer than the specified deadline".to_owned(),
                });
                let text = "Pod was active on the node longer than the specified deadline";
                self.agent.pod_event(&self.pod, "Normal", "DeadlineExceeded", text);
            }
            Action::RemoveSandbox => self.remove_sandbox(),
            Action::TearDown => self.tear_down(),
            Action::DeleteFromApi => {
                self.record.removed_from_api = true;
                if self.gone {
                    self.clean_up();
                } else {
                    self.delete_wanted = true;
                }
            }
        }
    }

    fn prepare_volumes(&mut self) {
        self.record.volumes = VolumesStep::Preparing;
        let (agent, pod, held, tx) = (self.agent.clone(), self.pod.clone(), self.held.clone(), self.tx.clone());
        let tokens = self.tokens.clone();
        self.job(async move {
            let result = volumes::live::prepare_all(&agent, &pod, &held, &tokens).await;
            let _ = tx.send(Message::Volumes(result.map_err(|e| e.to_string())));
        });
    }

    fn create_sandbox(&mut self) {
        let attempt = self.record.sandboxes;
        self.record.sandbox = SandboxStep::Creating;
        let (agent, pod, tx) = (self.agent.clone(), self.pod.clone(), self.tx.clone());
        self.job(async move {
            if let Err(error) = sandbox::create(&agent, &pod, attempt, &tx).await {
                let _ = tx.send(Message::Sandbox(Err(error.to_string())));
            }
        });
    }

    fn remove_sandbox(&mut self) {
        let sandbox = self.record.sandbox().cloned();
        self.record.sandbox = SandboxStep::Removing;
        let (agent, pod, tx) = (self.agent.clone(), self.pod.clone(), self.tx.clone());
        self.job(async move {
            sandbox::remove(&agent, &pod, sandbox.as_deref()).await;
            let _ = tx.send(Message::SandboxRemoved);
        });
    }

    fn ensure_image(&mut self, name: String) {
        let Some(container) = pod::container(&self.pod, &name).cloned() else {
            return;
        };
        let r = self.container(&name);
        r.image = ImageStep::Ensuring;
        let (agent, pod, held, tx) = (self.agent.clone(), self.pod.clone(), self.held.clone(), self.tx.clone());
        let key = name.clone();
        let handle = self.job(async move {
            let result = images::ensure(&agent, &pod, &container, &held).await;
            let _ = tx.send(Message::Image {
                container: name,
                result,
            });
        });
        self.image_jobs.insert(key, handle);
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
        let now = Timestamp::now();
        let r = self.container(&name);
        if let Some(exit) = r.exit() {
            r.crash = Some(backoff::next(r.crash, exit.finished_at, now));
        }
        r.activity = Activity::Starting;
        r.image = ImageStep::Needed;
        let start = containers::Start {
            attempt: r.next_attempt(),
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
        let tx = self.tx.clone();
        self.job(async move {
            // Boxed: the largest of the jobs by far.
            let result = Box::pin(start.run()).await;
            let _ = tx.send(Message::Started {
                container: name,
                result,
            });
        });
    }

    fn kill(&mut self, name: &str, reason: KillReason, message: String) {
        let Some(container) = pod::container(&self.pod, name).cloned() else {
            return;
        };
        let Some(live) = self.live.get(name) else { return };
        let (id, exited) = (live.id.clone(), live.exited.clone());
        self.agent
            .container_event(&self.pod, name, "Normal", "Killing", message);
        let r = self.container(name);
        r.activity = Activity::Killing(reason);
        let stop = containers::Stop {
            agent: self.agent.clone(),
            pod: self.pod.clone(),
            container,
            id,
            exited,
            reason,
            grace: self.grace.subscribe(),
            ip: self.record.sandbox().and_then(|s| s.ips.first().cloned()),
        };
        let (tx, container) = (self.tx.clone(), name.to_owned());
        self.job(async move {
            let id = stop.id.clone();
            stop.run(&tx).await;
            let _ = tx.send(Message::KillFinished { container, id });
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
        let mut reason = "";
        if let ImageStep::Failed {
            backing_off,
            reason: why,
            ..
        } = &mut self.container(name).image
        {
            *backing_off = true;
            reason = why;
        }
        if reason == "ErrImagePull" {
            let text = format!("Back-off pulling image \"{image}\"");
            self.agent.container_event(&self.pod, name, "Normal", "BackOff", text);
            self.agent
                .container_event(&self.pod, name, "Warning", "Failed", "Error: ImagePullBackOff");
        }
    }

    fn tear_down(&mut self) {
        if let Some(refresh) = self.refresh.take() {
            refresh.abort();
        }
        // Marked at once, so that the plan doesn't ask again; the message confirms.
        self.record.volumes = VolumesStep::Preparing;
        let (agent, pod, tx) = (self.agent.clone(), self.pod.clone(), self.tx.clone());
        self.job(async move {
            sandbox::tear_down(&agent, &pod).await;
            agent.admission.release(&agent, pod::uid(&pod));
            let _ = tx.send(Message::TornDown);
        });
    }

    fn clean_up(&mut self) {
        let (agent, pod, tx) = (self.agent.clone(), self.pod.clone(), self.tx.clone());
        self.job(async move {
            sandbox::clean_up(&agent, &pod).await;
            let _ = tx.send(Message::CleanedUp);
        });
    }

    // ---- what is told ----

    fn report(&mut self) {
        if self.gone || self.write_in_flight {
            return;
        }
        if self.write_retry.is_some_and(|at| at > Timestamp::now()) {
            return;
        }
        self.write_retry = None;
        let host_ip = self.agent.config.node_ip.to_string();
        let wanted = status::status(&self.pod, &self.written, &self.record, &host_ip, Timestamp::now());
        let (Ok(old), Ok(new)) = (serde_json::to_value(&self.written), serde_json::to_value(&wanted)) else {
            return;
        };
        let patch = status::patch::patch(pod::uid(&self.pod), &old, &new);
        if patch.is_some() && self.last_patch == patch {
            // The server keeps something else than what it was told: asking again would go on for ever.
            tracing::debug!(
                pod = pod::display(&self.pod),
                ?patch,
                "a pod's status doesn't stay as written"
            );
        } else if let Some(patch) = patch {
            self.last_patch = Some(patch.clone());
            self.write_in_flight = true;
            let (agent, pod, tx) = (self.agent.clone(), self.pod.clone(), self.tx.clone());
            self.job(async move {
                let result = writer::write(&agent, &pod, patch).await;
                let _ = tx.send(Message::Written(result));
            });
            return;
        } else {
            self.last_patch = None;
        }
        if std::mem::take(&mut self.delete_wanted) {
            let (agent, pod, tx) = (self.agent.clone(), self.pod.clone(), self.tx.clone());
            self.job(async move {
                writer::delete(&agent, &pod).await;
                let _ = tx.send(Message::DeletedFromApi);
            });
        }
    }

    fn written(&mut self, result: Result<Box<Pod>, writer::Error>) {
        self.write_in_flight = false;
        match result {
            Ok(pod) => {
                let version = version(&pod);
                if version >= self.written_version {
                    self.written = pod.status.unwrap_or_default();
                    self.written_version = version;
                }
            }
            // The watch will tell that it is gone.
            Err(writer::Error::Gone) => {
                self.last_patch = None;
                self.write_retry = Some(in_seconds(5));
            }
            Err(writer::Error::Api(error)) => {
                self.last_patch = None;
                tracing::warn!(pod = pod::display(&self.pod), %error, "cannot write a pod's status, trying again");
                self.write_retry = Some(in_seconds(2));
            }
        }
    }

    /// The server's picture of the pod.
    fn show(&mut self) {
        let containers = self.record.containers.iter();
        let view = View {
            pod: self.pod.clone(),
            containers: containers
                .map(|(n, r)| (n.clone(), (r.current.clone(), r.last.clone())))
                .collect(),
        };
        self.view.send_replace(Arc::new(view));
    }
}

fn version(pod: &Pod) -> u64 {
    pod.metadata
        .resource_version
        .as_deref()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

fn in_seconds(seconds: u64) -> Timestamp {
    Timestamp::now()
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}
