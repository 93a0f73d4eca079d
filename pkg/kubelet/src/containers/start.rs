//! From an image, a sandbox and volumes that are ready to a running container whose postStart hook is done.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use mk8s_containerd::spec::{self, ContainerConfig, Identity, Namespaces, PidNamespace, Resources};
use mk8s_containerd::{ContainerSpec, Image, Stdio};
use mk8s_supervisor::job;
use tokio_util::sync::CancellationToken;

use super::env::{Env, environment, service_env};
use super::expansion::{TooLong, expand_all};
use super::{Failure, FailureKind, env_file, hooks, mounts, security};
use crate::agent::{Agent, ReferencedObjects};
use crate::record::{Exit, Instance, Sandbox, User};
use crate::resources::qos;
use crate::sandbox::files;
use crate::volumes::Paths;
use crate::{clock, names, persist, pod, runtime, sandbox};

pub struct Start {
    pub agent: Arc<Agent>,
    pub pod: Arc<Pod>,
    pub container: Container,
    pub attempt: u32,
    /// The new container's id.
    pub id: String,
    /// The life before the one before this: nobody asks for it any more.
    pub older: Option<String>,
    pub sandbox: Arc<Sandbox>,
    pub image: Image,
    pub volumes: Arc<Paths>,
    pub held: Arc<ReferencedObjects>,
    /// The pod is to end: no need to begin.
    pub ending: CancellationToken,
}

impl Start {
    pub async fn run(self) -> Result<Instance, Failure> {
        let result = self.steps().await;
        if let Err(failure) = &result {
            let text = format!("Error: {}", failure.message);
            match failure.kind {
                // The hook's words may hold secrets.
                FailureKind::PostStartHook => self.warn("FailedPostStartHook", "PostStartHook failed"),
                _ => self.warn("Failed", text),
            }
        }
        result
    }

    fn warn(&self, reason: &str, message: impl Into<String>) {
        self.agent
            .container_event(&self.pod, &self.container.name, "Warning", reason, message);
    }

    fn normal(&self, reason: &str, message: &str) {
        self.agent
            .container_event(&self.pod, &self.container.name, "Normal", reason, message);
    }

    async fn steps(&self) -> Result<Instance, Failure> {
        let (spec, user) = self.spec().await?;
        if self.ending.is_cancelled() {
            return Err(Failure::create("the pod is being stopped"));
        }
        let runtime = &self.agent.runtime;
        let made = runtime
            .create(spec)
            .await
            .map_err(|error| not_created(&self.id, &error))?;
        tracing::debug!(container = self.container.name, "container is created");
        self.normal("Created", "Container created");
        self.agent
            .owners
            .lock()
            .insert(self.id.clone(), pod::uid(&self.pod).to_owned());
        let mut instance = self.instance(user);
        let place = self.agent.starts.acquire().await;
        let begun = self.begin(&made).await;
        drop(place);
        // However it went: a container that never starts would leave one with each try.
        self.forget_older().await;
        if let Err(error) = begun {
            return Err(not_begun(instance, &error));
        }
        instance.started_at = Some(clock::now());
        self.normal("Started", "Container started");
        persist::store_instance(
            &self.agent.pod_dir(pod::uid(&self.pod)),
            &self.container.name,
            &instance,
        );
        self.link_log(&instance.id);
        self.post_start(instance).await
    }

    /// The container's spec, and whom it runs as.
    async fn spec(&self) -> Result<(ContainerSpec, User), Failure> {
        let env = tokio::select! {
            env = self.environment() => env?,
            () = self.ending.cancelled() => return Err(Failure::config("the pod is being stopped")),
        };
        let accounts = self
            .agent
            .runtime
            .accounts(&self.image)
            .await
            .map_err(Failure::create)?;
        let security =
            security::security(&self.pod, &self.container, &self.image, &self.agent).map_err(Failure::config)?;
        let mounts = mounts::Request {
            agent: self.agent.clone(),
            pod: self.pod.clone(),
            container: self.container.clone(),
            attempt: self.attempt,
            volumes: self.volumes.clone(),
            env: env.clone(),
        };
        let mounts = job::blocking("container-mounts", move || mounts.resolve())
            .await
            .map_err(Failure::config)?
            .map_err(Failure::config)?;
        let config = self.config(&env, accounts, security, mounts).map_err(Failure::config)?;
        let oci = spec::container(&config, &self.agent.host).map_err(Failure::create)?;
        let user = user(&config.identity().map_err(Failure::create)?);
        let spec = ContainerSpec {
            id: self.id.clone(),
            image: self.image.clone(),
            labels: self.labels(),
            oci,
            stdio: self.stdio(),
            runtime: sandbox::oci_runtime(&self.agent, &self.sandbox.handler)
                .await
                .map_err(Failure::create)?,
        };
        Ok((spec, user))
    }

    /// Task and process. A failure leaves no task behind, unless containerd does not answer.
    async fn begin(&self, made: &runtime::Made) -> Result<(), runtime::Error> {
        let runtime = &self.agent.runtime;
        runtime.create_task(made).await?;
        let Err(error) = runtime.start_task(&self.id).await else {
            return Ok(());
        };
        match runtime.delete_task(&self.id).await {
            Ok(_) => Err(error),
            // Which failure says more of what may run now.
            Err(doubt) => Err(if doubt.leaves_doubt() { doubt } else { error }),
        }
    }

    async fn environment(&self) -> Result<Env, Failure> {
        let mut objects = self.held.for_env(&self.container).await;
        let (container, volumes) = (self.container.clone(), self.volumes.clone());
        let files = job::blocking("environment-files", move || env_file::read_all(&container, &volumes)).await;
        objects.files = files.map_err(Failure::config)?;
        let agent = &self.agent;
        agent.services.wait_synced().await;
        let links = pod::spec(&self.pod).enable_service_links.unwrap_or(true);
        let namespace = pod::namespace(&self.pod);
        let services = agent.services.filter(|s| {
            let ns = s.metadata.namespace.as_deref().unwrap_or_default();
            ns == namespace || ns == "default"
        });
        let services = service_env(services.iter().map(Arc::as_ref), namespace, links);
        let values = agent.runtime_values(self.sandbox_ips());
        environment(&self.pod, &self.container, &objects, &services, &values).map_err(Failure::config)
    }

    fn sandbox_ips(&self) -> Vec<String> {
        if pod::host_network(&self.pod) {
            return vec![self.agent.config.node_ip.to_string()];
        }
        self.sandbox.ips.clone()
    }

    fn config(
        &self,
        env: &Env,
        accounts: Arc<mk8s_containerd::Accounts>,
        security: spec::Security,
        mounts: Vec<spec::Mount>,
    ) -> Result<ContainerConfig, TooLong> {
        let spec = pod::spec(&self.pod);
        let container = &self.container;
        let expanded = |list: &Option<Vec<String>>| expand_all(list.as_deref().unwrap_or_default(), env);
        let (host, domain) = files::host_and_domain(&self.pod, &self.agent.config.cluster_domain);
        let hostname = if pod::host_network(&self.pod) {
            self.agent.machine.hostname.clone()
        } else {
            files::kernel_hostname(&self.pod, &host, &domain)
        };
        let pid = if spec.host_pid.unwrap_or(false) {
            PidNamespace::Host
        } else if spec.share_process_namespace.unwrap_or(false) {
            PidNamespace::Of(self.sandbox.pid)
        } else {
            PidNamespace::Container
        };
        Ok(ContainerConfig {
            image: self.image.config.clone(),
            accounts,
            command: expanded(&container.command)?,
            args: expanded(&container.args)?,
            env: env.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            working_dir: container.working_dir.clone().filter(|d| !d.is_empty()),
            tty: container.tty.unwrap_or(false),
            hostname,
            mounts,
            devices: Vec::new(),
            security,
            resources: self.resources(),
            cgroups_path: format!("{}/{}", self.sandbox.cgroup, self.id),
            namespaces: Namespaces {
                sandbox_pid: self.sandbox.pid,
                host_network: pod::host_network(&self.pod),
                host_ipc: spec.host_ipc.unwrap_or(false),
                pid,
            },
            annotations: [
                ("io.kubernetes.cri.container-type".to_owned(), "container".to_owned()),
                ("io.kubernetes.cri.sandbox-id".to_owned(), self.sandbox.id.clone()),
                ("io.kubernetes.cri.container-name".to_owned(), container.name.clone()),
            ]
            .into(),
            shim_group: self.sandbox.id.clone(),
        })
    }

    fn resources(&self) -> Resources {
        let limits = qos::container_limits(&self.container);
        let capacity = self.agent.machine.memory;
        Resources {
            cpu_shares: limits.shares.unwrap_or(2),
            cpu_quota: limits.quota.unwrap_or(0),
            cpu_period: if limits.quota.is_some() { qos::CPU_PERIOD } else { 0 },
            memory_limit: limits.memory.unwrap_or(0),
            oom_score_adj: Some(qos::oom_score_adj(&self.pod, &self.container, capacity)),
            ..Resources::default()
        }
    }

    fn labels(&self) -> std::collections::HashMap<String, String> {
        let mut labels = names::pod_labels(&self.pod, names::CONTAINER, self.attempt);
        labels.insert(names::CONTAINER_NAME.to_owned(), self.container.name.clone());
        labels.insert(names::SANDBOX_ID.to_owned(), self.sandbox.id.clone());
        labels.insert(
            names::IMAGE.to_owned(),
            self.container.image.clone().unwrap_or_default(),
        );
        labels
    }

    fn stdio(&self) -> Stdio {
        Stdio {
            log_path: Some(names::log_file(
                &self.agent.config,
                &self.pod,
                &self.container.name,
                self.attempt,
            )),
            stdin: self.container.stdin.unwrap_or(false),
            tty: self.container.tty.unwrap_or(false),
        }
    }

    fn instance(&self, user: User) -> Instance {
        let named = self.image.repo_tags.first().cloned();
        Instance {
            id: self.id.clone(),
            sandbox: self.sandbox.id.clone(),
            attempt: self.attempt,
            image: self.container.image.clone().unwrap_or_default(),
            image_name: named.unwrap_or_else(|| self.container.image.clone().unwrap_or_default()),
            image_id: self.image.image_id().to_owned(),
            started_at: None,
            exit: None,
            stop_signal: Some(self.image.config.stop_signal.clone()),
            user: Some(user),
        }
    }

    fn link_log(&self, id: &str) {
        let config = &self.agent.config;
        let file = names::log_file(config, &self.pod, &self.container.name, self.attempt);
        let link = names::log_link(config, &self.pod, &self.container.name, id);
        if let Err(error) = std::os::unix::fs::symlink(file, &link) {
            tracing::debug!(link = %link.display(), %error, "no link to a container's log");
        }
    }

    /// One dead container is kept per container, for people to look at; its log and the one before are kept as well.
    async fn forget_older(&self) {
        if let Some(older) = &self.older {
            let config = &self.agent.config;
            let _ = std::fs::remove_file(names::log_link(config, &self.pod, &self.container.name, older));
            if let Err(error) = self.agent.runtime.delete(older).await {
                tracing::debug!(id = older, %error, "an old container stays for now");
            }
            self.agent.owners.lock().remove(older);
        }
        if let Some(old) = self.attempt.checked_sub(2) {
            let file = names::log_file(&self.agent.config, &self.pod, &self.container.name, old);
            let _ = std::fs::remove_file(file);
            let dir = self.agent.pod_dir(pod::uid(&self.pod));
            if let Err(error) = mounts::forget_message(&dir, &self.container.name, old) {
                tracing::debug!(%error, "the last words of an old container stay for now");
            }
        }
    }

    async fn post_start(&self, instance: Instance) -> Result<Instance, Failure> {
        let hook = self.container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
        let Some(hook) = hook else { return Ok(instance) };
        let target = hooks::Target {
            agent: &self.agent,
            pod: &self.pod,
            container: &self.container,
            id: &instance.id,
            ip: self.sandbox_ips().first().cloned().unwrap_or_default(),
        };
        let result = tokio::select! {
            result = hooks::run(&target, hook) => result,
            // A hook must not keep a deleted pod.
            () = self.ending.cancelled() => return Ok(instance),
        };
        match result {
            Ok(()) => Ok(instance),
            Err(error) => Err(Failure {
                kind: FailureKind::PostStartHook,
                message: error.to_string(),
                instance: Some(instance),
                doubtful: None,
            }),
        }
    }
}

/// No container, or nobody knows.
fn not_created(id: &str, error: &runtime::Error) -> Failure {
    Failure {
        doubtful: error.leaves_doubt().then(|| id.to_owned()),
        ..Failure::create(error)
    }
}

/// No process, or nobody knows.
fn not_begun(mut instance: Instance, error: &runtime::Error) -> Failure {
    let message = error.to_string();
    let doubtful = error.leaves_doubt().then(|| instance.id.clone());
    instance.exit = Some(Exit {
        code: 128,
        reason: "StartError".to_owned(),
        message: message.clone(),
        finished_at: clock::now(),
    });
    Failure {
        kind: FailureKind::Run,
        message,
        instance: Some(instance),
        doubtful,
    }
}

/// Whom the process runs as.
fn user(identity: &Identity) -> User {
    let gid = i64::from(identity.gid);
    let others = identity
        .additional_gids
        .iter()
        .map(|g| i64::from(*g))
        .filter(|g| *g != gid);
    User {
        uid: i64::from(identity.uid),
        gid,
        groups: std::iter::once(gid).chain(others).collect(),
    }
}
