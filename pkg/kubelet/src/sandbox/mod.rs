//! What all containers of a pod share: namespaces, the pause process that holds them, and the files that name the pod.

pub mod files;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use mk8s_containerd::spec::{self, SandboxConfig};
use mk8s_containerd::{ContainerSpec, Stdio};
use mk8s_network::resolv_conf::ResolvConf;
use mk8s_supervisor::job;
use nix::mount::MsFlags;
use tokio::sync::mpsc;

use crate::agent::Agent;
use crate::containers::sandbox_security;
use crate::dirfd::{self, Dir, found};
use crate::pod_worker::Message;
use crate::record::Sandbox;
use crate::resources::{cgroup, qos};
use crate::volumes::Teardown;
use crate::{names, persist, pod};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Dir(#[from] dirfd::Error),
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    #[error("network: {0}")]
    Network(#[from] mk8s_network::Error),
    #[error("the agent is shutting down")]
    ShuttingDown,
    #[error(transparent)]
    Containerd(#[from] mk8s_containerd::Error),
    #[error(transparent)]
    Spec(#[from] spec::SpecError),
    #[error(transparent)]
    Job(#[from] mk8s_supervisor::job::JobError),
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

    fn ensure(&self) -> dirfd::Result<Dir> {
        Ok(Dir::create(&self.all)?.ensure_dir(&self.uid, 0o755)?.0)
    }

    /// Blocking. May be repeated until it succeeds.
    pub fn remove(&self) -> dirfd::Result<()> {
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
/// What stands in the way of a pod's volumes is looked at again after this long, and after twice as long each time …
const TEAR_DOWN_RETRY: Duration = Duration::from_secs(1);
/// … up to this.
const TEAR_DOWN_RETRY_MAX: Duration = Duration::from_secs(30);

/// Makes the pod's sandbox. The containers may be started in it as soon as its namespaces exist, which is told before the
/// pause process itself has begun.
pub async fn create(
    agent: &Arc<Agent>,
    pod: &Arc<Pod>,
    attempt: u32,
    tx: &mpsc::UnboundedSender<Message>,
) -> Result<(), Error> {
    let uid = pod::uid(pod).to_owned();
    agent.pod_dir(&uid).create()?;
    let (ips, netns) = if pod::host_network(pod) {
        (Vec::new(), None)
    } else {
        if !agent.network.ready() {
            let text = "network is not ready: container runtime network not ready: NetworkReady=false \
                        reason:NetworkPluginNotReady message:the node has no pod range yet";
            agent.pod_event(pod, "Warning", "NetworkNotReady", text);
        }
        let network = agent.network.get().await.ok_or(Error::ShuttingDown)?;
        let address = network.attach(&uid).await?;
        (vec![address.ip.to_string()], Some(address.netns))
    };
    let (setup, for_setup, setup_ips) = (agent.clone(), pod.clone(), ips.clone());
    let cgroup = job::blocking("set-up-sandbox", move || set_up(&setup, &for_setup, &setup_ips)).await??;

    let image = agent.pause_image().await?.clone();
    let id = names::fresh_id();
    let config = config(agent, pod, &id, &cgroup, &image, netns.clone());
    let oci = spec::sandbox(&config, &agent.host)?;
    let containerd = &agent.containerd;
    let labels = names::pod_labels(pod, names::SANDBOX, attempt);
    let made = containerd
        .create(ContainerSpec {
            id: id.clone(),
            image,
            labels,
            oci,
            stdio: Stdio::default(),
            runtime: Default::default(),
        })
        .await?;
    agent.owners.lock().insert(id.clone(), uid.clone());
    let permit = agent.starts.acquire().await;
    let pid = match containerd.create_task(&made).await {
        Ok(pid) => pid,
        Err(error) => {
            let _ = containerd.delete(&id).await;
            return Err(error.into());
        }
    };
    let sandbox = Sandbox {
        id: id.clone(),
        attempt,
        pid,
        netns: netns.map(|p| p.display().to_string()),
        ips,
        cgroup,
    };
    persist::store_sandbox(&agent.pod_dir(&uid), &sandbox);
    let _ = tx.send(Message::Sandbox(Ok(Arc::new(sandbox))));
    let begun = containerd.start_task(&id).await;
    drop(permit);
    if let Err(error) = begun {
        tracing::warn!(pod = pod::display(pod), %error, "a pod's pause process did not begin");
        let _ = tx.send(Message::Exit {
            id,
            code: 255,
            at: jiff::Timestamp::now(),
        });
    }
    Ok(())
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

/// Directories, cgroup and the files that name the pod. Answers the cgroup's path.
fn set_up(agent: &Agent, pod: &Pod, ips: &[String]) -> Result<String, Error> {
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
    Ok(agent.cgroups.ensure_pod(pod)?)
}

/// Ends the pause process and gives the network back. What fails is told and tried again when the pod's remains are swept.
pub async fn remove(agent: &Arc<Agent>, pod: &Pod, sandbox: Option<&Sandbox>) {
    let uid = pod::uid(pod);
    if let Some(sandbox) = sandbox {
        agent.owners.lock().remove(&sandbox.id);
        if let Err(error) = agent.containerd.delete(&sandbox.id).await {
            tracing::warn!(pod = pod::display(pod), %error, "cannot remove a pod's sandbox");
        }
    }
    if let Some(network) = agent.network.now().filter(|_| !pod::host_network(pod))
        && let Err(error) = network.detach(uid).await
    {
        tracing::warn!(pod = pod::display(pod), %error, "cannot give back a pod's network");
    }
    let files = Files::of(agent, uid);
    let removed = job::blocking("remove-sandbox-files", move || files.remove()).await;
    if let Err(error) | Ok(Err(error)) = removed.map(|r| r.map_err(Error::from)).map_err(Error::from) {
        tracing::warn!(pod = pod::display(pod), %error, "cannot remove the files of a pod's sandbox");
    }
}

/// Volumes and cgroup go; logs and dead containers stay for those who look. A volume that can't go is told of and tried again.
pub async fn tear_down(agent: &Arc<Agent>, pod: &Arc<Pod>) {
    let mut told = None;
    let mut delay = TEAR_DOWN_RETRY;
    while let Teardown::Blocked { why } = agent.volumes.tear_down(pod::uid(pod)).await {
        if told.as_ref() != Some(&why) {
            agent.pod_event(pod, "Warning", "FailedUnMount", why.clone());
            tracing::warn!(pod = pod::display(pod), why, "cannot remove a pod's volumes");
            told = Some(why);
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(TEAR_DOWN_RETRY_MAX);
    }
    let (cgroups, path) = (agent.cgroups.clone(), cgroup::pod_path(qos::class(pod), pod::uid(pod)));
    let removed = job::blocking("remove-pod-cgroup", move || cgroups.remove(&path)).await;
    if let Err(error) | Ok(Err(error)) = removed.map(|r| r.map_err(Error::from)).map_err(Error::from) {
        tracing::warn!(pod = pod::display(pod), %error, "cannot remove a pod's cgroup");
    }
}

/// The API has forgotten the pod: so does the node.
pub async fn clean_up(agent: &Arc<Agent>, pod: &Arc<Pod>) {
    // Asked of containerd, not of the worker's memory: a start that was cut off left one that nobody remembers.
    let left = agent.containerd.containers(&[(names::POD_UID, pod::uid(pod))]).await;
    let left = left.unwrap_or_else(|error| {
        tracing::warn!(pod = pod::display(pod), %error, "cannot list a pod's dead containers");
        Vec::new()
    });
    for container in &left {
        if let Err(error) = agent.containerd.delete(&container.id).await {
            tracing::warn!(pod = pod::display(pod), %error, "cannot remove a dead container");
        }
        agent.owners.lock().remove(&container.id);
    }
    if let Teardown::Blocked { why } = agent.volumes.remove(pod::uid(pod)).await {
        tracing::warn!(pod = pod::display(pod), why, "cannot remove a pod's directory");
    }
    let ids: Vec<String> = left.into_iter().map(|c| c.id).collect();
    let (agent, pod) = (agent.clone(), pod.clone());
    let _ = tokio::task::spawn_blocking(move || {
        let uid = pod::uid(&pod);
        let logs = names::pod_log_dir(&agent.config, pod::namespace(&pod), pod::name(&pod), uid);
        let _ = fs::remove_dir_all(logs);
        for container in pod::all_containers(&pod) {
            for id in &ids {
                let _ = fs::remove_file(names::log_link(&agent.config, &pod, &container.name, id));
            }
        }
    })
    .await;
}
