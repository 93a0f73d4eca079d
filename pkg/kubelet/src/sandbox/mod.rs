//! What all containers of a pod share: namespaces, the pause process that holds them, and the files that name the pod.

pub mod files;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use mk8s_containerd::spec::{self, SandboxConfig};
use mk8s_containerd::{ContainerSpec, Stdio};
use nix::mount::{MsFlags, mount};
use tokio::sync::mpsc;

use crate::agent::Agent;
use crate::containers::sandbox_security;
use crate::pod_worker::Message;
use crate::record::Sandbox;
use crate::resources::{cgroup, qos};
use crate::{names, persist, pod, volumes};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Volumes(#[from] volumes::Error),
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
    #[error("a step did not finish: {0}")]
    Join(#[from] tokio::task::JoinError),
}

/// The files of a pod that every container of it sees.
#[derive(Clone, Debug)]
pub struct Files(PathBuf);

impl Files {
    pub fn of(agent: &Agent, uid: &str) -> Self {
        Self(agent.config.data_dir.join("sandboxes").join(uid))
    }

    pub fn dir(&self) -> &Path {
        &self.0
    }

    pub fn resolv_conf(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }

    pub fn hostname(&self) -> PathBuf {
        self.0.join("hostname")
    }

    pub fn shm(&self) -> PathBuf {
        self.0.join("shm")
    }
}

const SHM_OPTIONS: &str = "mode=1777,size=67108864";

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
    let cgroup = tokio::task::spawn_blocking(move || set_up(&setup, &for_setup, &setup_ips)).await??;

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
    let files = Files::of(agent, uid);
    fs::create_dir_all(files.dir()).map_err(io("create", files.dir()))?;
    let (host, domain) = files::host_and_domain(pod, &agent.config.cluster_domain);
    let node_resolver = files::Resolver::parse(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let dns: &[IpAddr] = &agent.config.cluster_dns;
    let resolver = files::resolver(pod, &node_resolver, dns, &agent.config.cluster_domain);
    let hosts = if pod::host_network(pod) {
        files::host_network_hosts(pod, &fs::read_to_string("/etc/hosts").unwrap_or_default())
    } else {
        files::hosts(pod, ips, &host, &domain)
    };
    let kernel = files::kernel_hostname(pod, &host, &domain);
    for (path, text) in [
        (files.resolv_conf(), resolver.print()),
        (files.hostname(), format!("{kernel}\n")),
        (agent.pod_dir(uid).etc_hosts(), hosts),
    ] {
        fs::write(&path, text).map_err(io("write", &path))?;
    }
    let shm = files.shm();
    if !pod::spec(pod).host_ipc.unwrap_or(false) {
        fs::create_dir_all(&shm).map_err(io("create", &shm))?;
        if !volumes::is_mount_point(&shm) {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("shm"), &shm, Some("tmpfs"), flags, Some(SHM_OPTIONS)).map_err(|e| Error::Io {
                what: "mount a tmpfs on",
                path: shm.clone(),
                source: e.into(),
            })?;
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
    let dir = Files::of(agent, uid).dir().to_owned();
    let _ = tokio::task::spawn_blocking(move || {
        let unmounted = volumes::unmount_below(&dir);
        let _ = fs::remove_dir_all(&dir);
        if let Err(error) = unmounted {
            tracing::warn!(%error, "cannot unmount a pod's shared memory");
        }
    })
    .await;
}

/// Volumes and cgroup go; logs and dead containers stay for those who look.
pub async fn tear_down(agent: &Arc<Agent>, pod: &Arc<Pod>) {
    let (agent, pod) = (agent.clone(), pod.clone());
    let _ = tokio::task::spawn_blocking(move || {
        if let Err(error) = volumes::tear_down(&agent.pod_dir(pod::uid(&pod))) {
            tracing::warn!(pod = pod::display(&pod), %error, "cannot remove a pod's volumes");
        }
        agent
            .cgroups
            .remove(&cgroup::pod_path(qos::class(&pod), pod::uid(&pod)));
    })
    .await;
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
    let ids: Vec<String> = left.into_iter().map(|c| c.id).collect();
    let (agent, pod) = (agent.clone(), pod.clone());
    let _ = tokio::task::spawn_blocking(move || {
        let uid = pod::uid(&pod);
        if let Err(error) = volumes::remove(&agent.pod_dir(uid)) {
            tracing::warn!(pod = pod::display(&pod), %error, "cannot remove a pod's directory");
        }
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
