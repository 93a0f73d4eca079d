//! The node agent in this process, the same on a master and on a worker: kubelet, service routing, DNS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Taint};
use mk8s_client::{ApiServers, EventRecorder, Informers, api_servers};
use mk8s_containerd::Containerd;
use mk8s_kubelet::{DEFAULT_EVICTION_HARD, Kubelet, NetworkHandle, NetworkMode, NetworkSettings, Thresholds};
use mk8s_supervisor::backoff::Backoff;
use mk8s_supervisor::{OnExit, Supervisor};

use crate::cli::Network;
use crate::failure::{Failure, Result};
use crate::settings::{BINARY, Settings};

/// kubelet's default.
const MAX_PODS: u32 = 110;
const KUBELET_PORT: u16 = 10250;

/// How the node proves itself, and to whom.
#[derive(Clone)]
pub struct Identity {
    pub client: kube::Client,
    pub informers: Informers,
    pub server_certificate: Arc<dyn rustls::server::ResolvesServerCert>,
    pub ca_pem: String,
}

/// Starts the node agent, at once or as soon as containerd answers: a master serves the API meanwhile. What else keeps the
/// agent from starting ends the process.
pub fn start(settings: &Settings, identity: Identity, supervisor: &Supervisor) -> Result<()> {
    check(settings)?;
    let (settings, owner) = (settings.clone(), supervisor.clone());
    supervisor.spawn("node-agent", OnExit::Fatal, move |token| {
        let (settings, identity, supervisor) = (settings.clone(), identity.clone(), owner.clone());
        async move {
            let containerd = tokio::select! {
                containerd = reachable(&settings) => containerd,
                () = token.cancelled() => return Ok(()),
            };
            let started = run(&settings, identity, containerd, &supervisor).await;
            started.map_err(|failure| failure.to_string())?;
            token.cancelled().await;
            Ok(())
        }
    });
    Ok(())
}

async fn reachable(settings: &Settings) -> Containerd {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match containerd(settings).await {
            Ok(containerd) => return containerd,
            Err(failure) => tracing::warn!(%failure, "the node agent waits for containerd"),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn run(settings: &Settings, identity: Identity, containerd: Containerd, supervisor: &Supervisor) -> Result<()> {
    let cluster = &settings.cluster;
    let roots = mk8s_pki::rotation::roots(&identity.ca_pem)?;
    let (register_taints, eviction_hard) = checked(settings)?;
    let api = api_servers(&settings.endpoints, supervisor).await;
    let config = mk8s_kubelet::Config {
        node_name: settings.node_name.clone(),
        node_ip: settings.node_ip,
        root_dir: "/var/lib/kubelet".into(),
        data_dir: settings.node_dir(),
        volumes_dir: settings.data_dir().join("volumes"),
        pod_log_dir: "/var/log/pods".into(),
        container_log_dir: "/var/log/containers".into(),
        cluster_dns: vec![IpAddr::V4(cluster.dns_address())],
        cluster_domain: cluster.dns_domain.clone(),
        register_taints,
        labels: std::collections::BTreeMap::new(),
        max_pods: MAX_PODS,
        eviction_hard,
        version: mk8s_apiserver::config::VERSION.into(),
        pause_image: cluster
            .image_repository
            .as_ref()
            .map(|repository| format!("{repository}/pause:3.10.1")),
        network: NetworkSettings {
            mode: match cluster.network {
                Network::Vxlan => NetworkMode::Vxlan,
                Network::Routes => NetworkMode::Routes,
            },
            cluster_cidr: cluster.pod_cidr,
            service_cidr: cluster.service_cidr,
            dns: Some(cluster.dns_address()),
            mtu: None,
            api: api.clone(),
            state_dir: settings.node_dir(),
        },
        listen: SocketAddr::from((settings.node_ip, KUBELET_PORT)),
        server_certificate: identity.server_certificate,
        client_ca: Arc::new(roots),
    };
    let informers = identity.informers.clone();
    let events = EventRecorder::new(
        identity.client.clone(),
        "kube-proxy",
        &settings.node_name,
        informers.owner(),
    );
    let kubelet = Kubelet::new(config, identity.client, identity.informers, containerd)
        .map_err(|error| Failure::of("set up the node agent", error))?;
    let network = kubelet.network();
    route_services(settings, api, network.clone(), informers.clone(), events, supervisor);
    answer_dns(settings, network, informers, supervisor);
    kubelet.run(supervisor).await;
    Ok(())
}

pub async fn containerd(settings: &Settings) -> Result<Containerd> {
    let socket = settings.cri_socket.clone();
    let what = format!("talk to containerd at {}", socket.display());
    // The log writer is this very program; a rename over it leaves "(deleted)" in the link, so the installed path is used.
    let writer = std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| BINARY.into());
    let options = mk8s_containerd::Options {
        socket,
        log_writer: writer,
        volumes_dir: settings.node_dir().join("volumes"),
        ..mk8s_containerd::Options::default()
    };
    Containerd::connect(options)
        .await
        .map_err(|error| Failure::of(what, error))
}

fn route_services(
    settings: &Settings,
    api: ApiServers,
    network: NetworkHandle,
    informers: Informers,
    events: EventRecorder,
    supervisor: &Supervisor,
) {
    let settings = settings.clone();
    supervisor.spawn("proxy", OnExit::Restart, move |token| {
        let (settings, network) = (settings.clone(), network.clone());
        let (api, informers, events) = (api.clone(), informers.clone(), events.clone());
        async move {
            let Some(network) = network.get().await else {
                return Ok(());
            };
            let node = informers.of::<Node>().get(None, &settings.node_name);
            let range = node.and_then(|node| node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok());
            let node = mk8s_proxy::Node {
                name: settings.node_name.clone(),
                zone: None,
                pod_cidr: range.ok_or("the node has lost its pod range")?,
                cluster_cidr: settings.cluster.pod_cidr,
                service_cidrs: vec![settings.cluster.service_cidr],
                shared: Vec::new(),
                dns: Some(settings.cluster.dns_address()),
                api: api.borrow().clone(),
                api_port: settings.master.as_ref().map(|master| master.bind_port),
                kubelet_port: KUBELET_PORT,
                node_ports: mk8s_apiserver::config::NODE_PORTS,
            };
            let hosts = mk8s_proxy::Hosts {
                occupied: network.occupied(),
                api,
            };
            mk8s_proxy::run(node, informers, hosts, events, token).await;
            Ok(())
        }
    });
}

fn answer_dns(settings: &Settings, network: NetworkHandle, informers: Informers, supervisor: &Supervisor) {
    let config = mk8s_dns::Config {
        domain: settings.cluster.dns_domain.clone(),
        address: settings.cluster.dns_address(),
        service_cidr: settings.cluster.service_cidr,
        cluster_cidr: settings.cluster.pod_cidr,
    };
    supervisor.spawn("dns", OnExit::Restart, move |token| {
        let (config, network, informers) = (config.clone(), network.clone(), informers.clone());
        async move {
            if network.get().await.is_none() {
                return Ok(());
            }
            mk8s_dns::run(config, informers, token).await?;
            Ok(())
        }
    });
}

/// Refuses what the node agent could not read, before anything is changed.
pub fn check(settings: &Settings) -> Result<()> {
    checked(settings).map(drop)
}

fn checked(settings: &Settings) -> Result<(Vec<Taint>, Thresholds)> {
    let taints = settings.register_with_taints.iter().map(|text| taint(text));
    let eviction_hard = settings.eviction_hard.as_deref().unwrap_or(DEFAULT_EVICTION_HARD);
    Ok((taints.collect::<Result<_>>()?, eviction_hard.parse()?))
}

/// `KEY[=VALUE]:EFFECT`
fn taint(text: &str) -> Result<Taint> {
    let parsed = text.rsplit_once(':').map(|(key, effect)| {
        let (key, value) = key
            .split_once('=')
            .map_or((key, None), |(key, value)| (key, Some(value.to_string())));
        Taint {
            key: key.into(),
            value,
            effect: effect.into(),
            time_added: None,
        }
    });
    parsed
        .filter(|taint| {
            !taint.key.is_empty() && ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&taint.effect.as_str())
        })
        .ok_or_else(|| {
            Failure::new(format!(
                "{text:?} is not a taint: write KEY[=VALUE]:EFFECT with NoSchedule, PreferNoSchedule or NoExecute"
            ))
        })
}
