//! What all containers of a pod share: namespaces, the pause process that holds them, and the files that name the pod.

pub mod files;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use mk8s_containerd::spec::{self, SandboxConfig};
use mk8s_containerd::{ContainerSpec, Stdio};
use mk8s_network::resolv_conf::ResolvConf;
use mk8s_supervisor::job;
use nix::mount::MsFlags;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::containers::sandbox_security;
use crate::record::Sandbox;
use crate::resources::qos;
use crate::runtime::Attached;
use crate::{names, persist, pod, runtime};
use mk8s_dirfd::{Dir, found};

mod removal;

pub use removal::{Remove, Unconfirmed, forget, tear_down};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Dir(#[from] mk8s_dirfd::Error),
    /// Why a pod's volumes can't go.
    #[error(transparent)]
    Volumes(#[from] crate::volumes::Error),
    #[error("the pod ends")]
    Ending,
    /// In words that people search for.
    #[error("no runtime for {handler:?} is configured")]
    NoRuntime { handler: String },
    #[error("RuntimeClass {class:?}: {source}")]
    RuntimeClass { class: String, source: Box<kube::Error> },
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    #[error(transparent)]
    Spec(#[from] spec::SpecError),
    #[error(transparent)]
    Job(#[from] mk8s_supervisor::JobError),
}

/// The files of a pod that every container of it sees.
#[derive(Clone, Debug)]
pub struct Files {
    all: PathBuf,
    uid: String,
}

impl Files {
    /// The directory in which all pods' files stand.
    pub fn all(agent: &Agent) -> PathBuf {
        agent.config.data_dir.join("sandboxes")
    }

    pub fn of(agent: &Agent, uid: &str) -> Self {
        Self {
            all: Self::all(agent),
            uid: uid.to_owned(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.all.join(&self.uid)
    }

    pub fn resolv_conf(&self) -> PathBuf {
        self.dir().join(RESOLV_CONF)
    }

    pub fn hostname(&self) -> PathBuf {
        self.dir().join(HOSTNAME)
    }

    pub fn shm(&self) -> PathBuf {
        self.dir().join(SHM)
    }

    fn ensure(&self) -> mk8s_dirfd::Result<Dir> {
        Ok(Dir::create(&self.all)?.ensure_dir(&self.uid, 0o755)?.0)
    }

    /// Blocking. May be repeated until it succeeds.
    pub fn remove(&self) -> mk8s_dirfd::Result<()> {
        let Some(all) = found(Dir::open(&self.all))? else {
            return Ok(());
        };
        let Some(dir) = found(all.dir(&self.uid))? else {
            return Ok(());
        };
        while found(dir.is_mount_point(SHM))? == Some(true) {
            dir.unmount(SHM)?;
        }
        found(dir.remove_dir(SHM))?;
        drop(dir);
        all.remove_tree(&self.uid)
    }
}

const RESOLV_CONF: &str = "resolv.conf";
const HOSTNAME: &str = "hostname";
const SHM: &str = "shm";
const SHM_OPTIONS: &str = "mode=1777,size=67108864";

/// What a sandbox is made from.
pub struct Create {
    pub agent: Arc<Agent>,
    pub pod: Arc<Pod>,
    pub attempt: u32,
    /// The pause container's id.
    pub id: String,
    /// The pod is to end: no need to go on waiting.
    pub ending: CancellationToken,
}

/// A sandbox whose namespaces exist: containers may be started in it. Its pause process waits to be begun, and holds its
/// place among the starts till then.
#[derive(Debug)]
pub struct Created {
    pub sandbox: Sandbox,
    pub place: OwnedSemaphorePermit,
}

impl Create {
    pub async fn run(self) -> Result<Created, Error> {
        let (agent, pod) = (&self.agent, &self.pod);
        let uid = pod::uid(pod);
        agent.pod_dir(uid).create()?;
        // Before there is anything to take back: should the API forget the pod, this says what to take back.
        persist::store_pod(&agent.pod_dir(uid), pod);
        let handler = self.handler().await?;
        let oci_runtime = oci_runtime(agent, &handler).await?;
        if self.attempt > 0 {
            self.remove_earlier().await?;
        }
        let network = self.attach().await?;
        let address = network.as_ref().map(|n| n.address.clone());
        let ips: Vec<String> = address.iter().map(|n| n.ip.to_string()).collect();
        let netns = address.map(|n| n.netns);
        let (setup, for_setup, setup_ips) = (agent.clone(), pod.clone(), ips.clone());
        let files = job::blocking("sandbox-files", move || set_up(&setup, &for_setup, &setup_ips));
        let files = async { files.await? };
        let cgroup = agent.runtime.ensure_cgroup(pod).await?;
        let spec = self.spec(oci_runtime, &cgroup, netns.clone()).await?;
        // The pause process is made in the namespace; that something leads there is the containers' concern.
        let connected = async {
            match network {
                Some(network) => agent.runtime.connect(network).await,
                None => Ok(()),
            }
        };
        let (begun, connected) = futures::join!(self.begin(spec, files), connected);
        if let Err(error) = connected {
            self.take_back().await;
            return Err(error.into());
        }
        let (pid, place) = begun?;
        let sandbox = Sandbox {
            id: self.id.clone(),
            attempt: self.attempt,
            pid,
            netns: netns.map(|p| p.display().to_string()),
            ips,
            cgroup,
            handler,
        };
        persist::store_sandbox(&agent.pod_dir(uid), &sandbox);
        Ok(Created { sandbox, place })
    }

    async fn spec(
        &self,
        runtime: mk8s_containerd::Runtime,
        cgroup: &str,
        netns: Option<PathBuf>,
    ) -> Result<ContainerSpec, Error> {
        let (agent, pod) = (&self.agent, &self.pod);
        let image = agent.runtime.pause_image().await?;
        let config = config(agent, pod, &self.id, cgroup, &image, netns);
        Ok(ContainerSpec {
            id: self.id.clone(),
            oci: spec::sandbox(&config, &agent.host)?,
            image,
            labels: names::pod_labels(pod, names::SANDBOX, self.attempt),
            stdio: Stdio::default(),
            runtime,
        })
    }

    /// What tries that failed have left, as far as it is known by now: else each that fails would leave one more.
    async fn remove_earlier(&self) -> Result<(), Error> {
        let runtime = &self.agent.runtime;
        let found = runtime.containers_of(pod::uid(&self.pod)).await?;
        for earlier in found.iter().filter(|f| f.is_sandbox()) {
            runtime.delete(&earlier.id).await?;
            self.agent.owners.lock().remove(&earlier.id);
        }
        Ok(())
    }

    /// `files`: what the task needs of them. A failure leaves nothing, unless containerd does not answer; then what it left is
    /// found by its labels.
    async fn begin(
        &self,
        spec: ContainerSpec,
        files: impl Future<Output = Result<(), Error>>,
    ) -> Result<(u32, OwnedSemaphorePermit), Error> {
        let runtime = &self.agent.runtime;
        let (made, files) = futures::join!(runtime.create(spec), files);
        let made = made?;
        let owner = pod::uid(&self.pod).to_owned();
        self.agent.owners.lock().insert(self.id.clone(), owner);
        let begun = async {
            files?;
            let starts = self.agent.starts.clone();
            let place = starts.acquire_owned().await.map_err(|_| Error::Ending)?;
            Ok((runtime.create_task(&made).await?, place))
        };
        let begun = begun.await;
        if begun.is_err() {
            self.take_back().await;
        }
        begun
    }

    async fn take_back(&self) {
        match self.agent.runtime.delete(&self.id).await {
            Ok(()) => drop(self.agent.owners.lock().remove(&self.id)),
            Err(left) => tracing::warn!(id = self.id, error = %left, "a sandbox that failed stays for now"),
        }
    }

    async fn attach(&self) -> Result<Option<Attached>, Error> {
        let (agent, pod) = (&self.agent, &self.pod);
        if pod::host_network(pod) {
            return Ok(None);
        }
        let runtime = &agent.runtime;
        if !runtime.network_is_open() {
            let text = "network is not ready: container runtime network not ready: NetworkReady=false \
                        reason:NetworkPluginNotReady message:the node has no pod range yet";
            agent.pod_event(pod, "Warning", "NetworkNotReady", text);
            tokio::select! {
                () = runtime.until_network_is_open() => {}
                () = self.ending.cancelled() => return Err(Error::Ending),
            }
        }
        Ok(Some(runtime.attach(pod::uid(pod)).await?))
    }

    /// containerd's name for the runtime that the pod's class asks for; '' is its default.
    async fn handler(&self) -> Result<String, Error> {
        let Some(class) = pod::spec(&self.pod)
            .runtime_class_name
            .as_deref()
            .filter(|c| !c.is_empty())
        else {
            return Ok(String::new());
        };
        let api: kube::Api<RuntimeClass> = kube::Api::all(self.agent.client.clone());
        let found = api.get(class).await.map_err(|source| Error::RuntimeClass {
            class: class.to_owned(),
            source: Box::new(source),
        })?;
        Ok(found.handler)
    }
}

/// What containerd calls the runtime of a handler.
pub async fn oci_runtime(agent: &Agent, handler: &str) -> Result<mk8s_containerd::Runtime, Error> {
    let runtime = agent.runtime.oci_runtime(handler).await?;
    runtime.ok_or_else(|| Error::NoRuntime {
        handler: handler.to_owned(),
    })
}

fn config(
    agent: &Agent,
    pod: &Pod,
    id: &str,
    cgroup: &str,
    image: &mk8s_containerd::Image,
    netns: Option<PathBuf>,
) -> SandboxConfig {
    let spec = pod::spec(pod);
    let security = sandbox_security(pod, agent);
    let (host, domain) = files::host_and_domain(pod, &agent.config.cluster_domain);
    let host_ipc = spec.host_ipc.unwrap_or(false);
    let sysctls = spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten());
    SandboxConfig {
        image: image.config.clone(),
        hostname: netns.is_some().then(|| files::kernel_hostname(pod, &host, &domain)),
        network: netns,
        host_ipc,
        host_pid: spec.host_pid.unwrap_or(false),
        shm: Some(if host_ipc {
            "/dev/shm".into()
        } else {
            Files::of(agent, pod::uid(pod)).shm()
        }),
        sysctls: sysctls
            .map(|s| (s.name.replace('/', "."), s.value.clone()))
            .collect::<BTreeMap<_, _>>(),
        run_as_user: security.user,
        run_as_group: security.group,
        supplemental_groups: security.groups,
        seccomp: security.seccomp,
        privileged: security.privileged,
        oom_score_adj: Some(qos::PAUSE_OOM_SCORE_ADJ),
        cgroups_path: format!("{cgroup}/{id}"),
        annotations: [
            ("io.kubernetes.cri.container-type".to_owned(), "sandbox".to_owned()),
            ("io.kubernetes.cri.sandbox-id".to_owned(), id.to_owned()),
            ("io.kubernetes.cri.sandbox-name".to_owned(), pod::name(pod).to_owned()),
            (
                "io.kubernetes.cri.sandbox-namespace".to_owned(),
                pod::namespace(pod).to_owned(),
            ),
        ]
        .into(),
        shim_group: id.to_owned(),
    }
}

/// Directories and the files that name the pod.
fn set_up(agent: &Agent, pod: &Pod, ips: &[String]) -> Result<(), Error> {
    let uid = pod::uid(pod);
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |source: std::io::Error| Error::Io { what, path, source }
    };
    let logs = names::pod_log_dir(&agent.config, pod::namespace(pod), pod::name(pod), uid);
    fs::create_dir_all(&logs).map_err(io("create", &logs))?;
    let (host, domain) = files::host_and_domain(pod, &agent.config.cluster_domain);
    let node_resolver = ResolvConf::of_host();
    let dns: &[IpAddr] = &agent.config.cluster_dns;
    let resolver = files::resolver(pod, &node_resolver, dns, &agent.config.cluster_domain);
    let hosts = if pod::host_network(pod) {
        files::host_network_hosts(pod, &fs::read_to_string("/etc/hosts").unwrap_or_default())
    } else {
        files::hosts(pod, ips, &host, &domain)
    };
    let kernel = files::kernel_hostname(pod, &host, &domain);
    let files = Files::of(agent, uid).ensure()?;
    files.replace_file(RESOLV_CONF, resolver.print().as_bytes(), 0o644, false)?;
    files.replace_file(HOSTNAME, format!("{kernel}\n").as_bytes(), 0o644, false)?;
    agent
        .pod_dir(uid)
        .open()?
        .replace_file("etc-hosts", hosts.as_bytes(), 0o644, false)?;
    if !pod::spec(pod).host_ipc.unwrap_or(false) {
        files.ensure_dir(SHM, 0o755)?;
        if !files.is_mount_point(SHM)? {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            files.mount(SHM, "tmpfs", flags, Some(SHM_OPTIONS))?;
        }
    }
    Ok(())
}
