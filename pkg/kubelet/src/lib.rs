//! mk8s-kubelet: the node agent. It makes the pods that the API server gave this node run on containerd, and reports.
//!
//! ```text
//!  watch pods (spec.nodeName) ─▶ pods ─▶ pod_worker (one task per pod) ─▶ plan (pure) ─▶ volumes ∥ sandbox ∥ images
//!                                          ▲   │                                           ▼
//!               containerd's events, probes┘   └─▶ status (pure) ─▶ API            containers ─▶ probes, hooks
//! ```
//!
//! Invariants: a pod has one task that owns it and alone writes its status; nothing is polled; what runs needs no
//! process of ours to go on running, and is found again by its labels in containerd.

mod admission;
mod agent;
mod backoff;
mod cache;
mod clock;
mod containers;
mod downward;
mod images;
mod names;
mod netns;
mod node;
mod persist;
mod plan;
mod pod;
mod pod_worker;
mod pods;
mod probes;
mod record;
mod resize;
mod resources;
mod runtime;
mod sandbox;
mod server;
mod status;
mod uninstall;
mod unsupported;
mod volumes;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Node, Pod, Service, Taint};
use mk8s_client::{EventRecorder, Informer, Informers};
use mk8s_containerd::Containerd;
use mk8s_supervisor::{OnExit, Supervisor, TaskError};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

pub use mk8s_network::Mode as NetworkMode;
pub use netns::{Handle as NetworkHandle, Settings as NetworkSettings};
pub use node::{DEFAULT_EVICTION_HARD, Malformed, Thresholds};
pub use resources::cgroup::Error as CgroupError;
pub use uninstall::{RemoveError, remove_all_pods, remove_cgroups};

use agent::Agent;

/// What a node agent is told at start.
#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    pub node_ip: Ipv4Addr,
    /// Pods' directories: /var/lib/kubelet. Node DaemonSets mount it by this name.
    pub root_dir: PathBuf,
    /// The agent's own state: /var/lib/mk8s/node.
    pub data_dir: PathBuf,
    /// Below it the local volumes that claims get; the node says so of itself.
    pub volumes_dir: PathBuf,
    /// /var/log/pods
    pub pod_log_dir: PathBuf,
    /// /var/log/containers
    pub container_log_dir: PathBuf,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    pub register_taints: Vec<Taint>,
    /// Beside those that every node has.
    pub labels: BTreeMap<String, String>,
    pub max_pods: u32,
    /// When the node is under pressure.
    pub eviction_hard: Thresholds,
    /// As nodeInfo shows it: `v1.35.4+mk8s.1`.
    pub version: String,
    /// Replaces the pause image in the binary.
    pub pause_image: Option<String>,
    pub network: NetworkSettings,
    /// Where the node's HTTPS server listens: the node's address, port 10250.
    pub listen: std::net::SocketAddr,
    /// Its certificate, replaced in place on renewal.
    pub server_certificate: Arc<dyn rustls::server::ResolvesServerCert>,
    /// Who may sign the API server's client certificate.
    pub client_ca: Arc<rustls::RootCertStore>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot create {path}: {source}")]
    Directory { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    RootDirectory(#[from] mk8s_dirfd::Error),
    #[error(transparent)]
    Cgroup(#[from] resources::cgroup::Error),
}

/// The node agent. Made, it has done nothing yet; `run` starts its tasks.
pub struct Kubelet {
    agent: Arc<Agent>,
    informers: Informers,
    network: watch::Sender<Option<mk8s_network::Network>>,
}

/// Container starts in flight per core.
const STARTS_PER_CORE: usize = 2;

impl Kubelet {
    pub fn new(
        config: Config,
        client: kube::Client,
        informers: Informers,
        containerd: Containerd,
    ) -> Result<Self, Error> {
        for path in [&config.data_dir, &config.pod_log_dir, &config.container_log_dir] {
            std::fs::create_dir_all(path).map_err(|source| Error::Directory {
                path: path.clone(),
                source,
            })?;
        }
        let (network, handle) = netns::channel();
        let machine = node::Machine::detect(&config);
        let cgroups = resources::cgroup::Cgroups::detect()?;
        cgroups.ensure_base(machine.cpus * 1000)?;
        let cores = usize::try_from(machine.cpus).unwrap_or(1);
        let pause_name = config.pause_image.clone();
        let runtime = runtime::Node::new(containerd.clone(), handle.clone(), cgroups.clone(), pause_name);
        let agent = Agent {
            runtime: Arc::new(runtime),
            recorder: EventRecorder::new(client.clone(), "kubelet", &config.node_name, informers.owner()),
            services: informers.of::<Service>(),
            nodes: informers.of::<Node>(),
            objects: cache::Objects::new(informers.clone()),
            client,
            containerd,
            host: mk8s_containerd::spec::Host::detect(),
            network: handle,
            cgroups,
            admission: admission::Admission::default(),
            pressure: Mutex::default(),
            machine,
            starts: Arc::new(Semaphore::new(cores * STARTS_PER_CORE)),
            workers: Mutex::new(HashMap::new()),
            owners: Mutex::new(HashMap::new()),
            volumes: Arc::new(volumes::Volumes::open(&config.root_dir)?),
            config,
        };
        Ok(Self {
            agent: Arc::new(agent),
            informers,
            network,
        })
    }

    /// The pod network, once the node has its range: others on the node (service routing, DNS) wait for it too.
    pub fn network(&self) -> NetworkHandle {
        self.agent.network.clone()
    }

    /// Registers the node, takes over what runs, and starts the agent's tasks.
    pub async fn run(self, supervisor: &Supervisor) {
        let Kubelet {
            agent,
            informers,
            network,
        } = self;
        let name = &agent.config.node_name;
        let pods = informers.of_where::<Pod>(&format!("spec.nodeName={name}"));
        if let Err(error) = agent.containerd.sweep_leftovers().await {
            tracing::warn!(%error, "what a crash left of containers stay for now");
        }
        let inventory = pods::wait_for_inventory(&agent).await;
        let changed = watch::Sender::new(0u64);
        let tasks = Tasks {
            agent: agent.clone(),
            supervisor,
        };
        tasks.spawn("kubelet-server", OnExit::Restart, |agent, token| async {
            Ok(server::serve(agent, token).await?)
        });
        let sender = changed.clone();
        tasks.until("kubelet-containerd", move |agent, token| {
            pods::follow_containerd(agent, sender.clone(), token)
        });
        // Quietly ready before the first pod comes.
        tasks.spawn("kubelet-pause-image", OnExit::Done, |agent, _| async move {
            agent.runtime.pause_image().await?;
            Ok(())
        });
        let running: Vec<String> = inventory.keys().cloned().collect();
        tasks.until("kubelet-network", move |agent, token| {
            let work = netns::run(agent, informers.clone(), network.clone(), running.clone());
            token.run_until_cancelled_owned(work).map(drop)
        });
        tasks.spawn("kubelet-network-guard", OnExit::Restart, |agent, token| {
            let guard = async move {
                match agent.network.get().await {
                    Some(network) => Ok(network.guard().await?),
                    None => Ok(()),
                }
            };
            token
                .run_until_cancelled_owned(guard)
                .map(|ended| ended.unwrap_or(Ok(())))
        });
        node::register(&agent).await;
        tasks.report_node(&changed);
        tasks.run_pods(pods, inventory);
    }
}

/// The agent's tasks, each with the agent; they return soon after their token is cancelled.
struct Tasks<'a> {
    agent: Arc<Agent>,
    supervisor: &'a Supervisor,
}

impl Tasks<'_> {
    fn spawn<F, Fut>(&self, name: &'static str, on_exit: OnExit, make: F)
    where
        F: Fn(Arc<Agent>, CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        let agent = self.agent.clone();
        self.supervisor
            .spawn(name, on_exit, move |token| make(agent.clone(), token));
    }

    fn report_node(&self, changed: &watch::Sender<u64>) {
        let changed = changed.subscribe();
        self.until("kubelet-node-status", move |agent, token| {
            node::report(agent, changed.clone(), token)
        });
        self.until("kubelet-node-lease", node::renew);
    }

    fn run_pods(&self, pods: Informer<Pod>, inventory: pods::Inventory) {
        let first = Mutex::new(Some(inventory));
        self.until("kubelet-pods", move |agent, token| {
            let first = first.lock().take();
            let pods = pods.clone();
            async move {
                let inventory = match first {
                    Some(inventory) => inventory,
                    // The task died and with it every worker: look again.
                    None => pods::wait_for_inventory(&agent).await,
                };
                pods::run(agent, pods, inventory, token).await;
            }
        });
    }

    /// One that goes on as long as the agent.
    fn until<F, Fut>(&self, name: &'static str, make: F)
    where
        F: Fn(Arc<Agent>, CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.spawn(name, OnExit::Restart, move |agent, token| {
            let work = make(agent, token);
            async move {
                work.await;
                Ok(())
            }
        });
    }
}
