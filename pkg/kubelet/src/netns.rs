//! The pod network as the agent sees it: not there until the node has its pod range, then attach and detach. And the
//! upkeep of the way to the other nodes.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use mk8s_client::Informers;
use mk8s_network::{Config, Mode, Network, Peer};
use tokio::sync::watch;

use crate::agent::Agent;

/// What the network needs to know beside the node's own range.
#[derive(Clone, Debug)]
pub struct Settings {
    pub mode: Mode,
    pub cluster_cidr: Ipv4Net,
    pub service_cidr: Ipv4Net,
    /// The address at which the node answers DNS.
    pub dns: Option<Ipv4Addr>,
    pub mtu: Option<u32>,
    pub state_dir: PathBuf,
}

/// A handle on the network; clones share it.
#[derive(Clone)]
pub struct Handle(watch::Receiver<Option<Network>>);

impl Handle {
    pub fn ready(&self) -> bool {
        self.0.borrow().is_some()
    }

    pub fn now(&self) -> Option<Network> {
        self.0.borrow().clone()
    }

    /// Waits for the node's pod range; None when the agent is shutting down.
    pub async fn get(&self) -> Option<Network> {
        let mut receiver = self.0.clone();
        let found = receiver.wait_for(Option::is_some).await.ok()?;
        found.clone()
    }

    pub fn changes(&self) -> watch::Receiver<Option<Network>> {
        self.0.clone()
    }
}

pub fn channel() -> (watch::Sender<Option<Network>>, Handle) {
    let (sender, receiver) = watch::channel(None);
    (sender, Handle(receiver))
}

fn pod_cidr(node: &Node) -> Option<Ipv4Net> {
    node.spec.as_ref()?.pod_cidr.as_deref()?.parse().ok()
}

fn internal_ip(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().find(|a| a.type_ == "InternalIP")?.address.parse().ok()
}

/// The nodes whose pods this one must reach.
fn peers(nodes: &[std::sync::Arc<Node>], own: &str) -> BTreeSet<Peer> {
    let others = nodes.iter().filter(|n| n.metadata.name.as_deref() != Some(own));
    others
        .filter_map(|n| {
            Some(Peer {
                node_ip: internal_ip(n)?,
                pod_cidr: pod_cidr(n)?,
            })
        })
        .collect()
}

const RETRY: Duration = Duration::from_secs(5);

fn config(agent: &Agent, pod_cidr: Ipv4Net) -> Config {
    let settings = &agent.config.network;
    Config {
        mode: settings.mode,
        node_ip: agent.config.node_ip,
        pod_cidr,
        cluster_cidr: settings.cluster_cidr,
        service_cidr: Some(settings.service_cidr),
        dns: settings.dns,
        mtu: settings.mtu,
        state_dir: settings.state_dir.clone(),
    }
}

/// Opens the network once the node has a range, and follows the other nodes. `running` are the pods that ran when the
/// agent started: what no one of them has is removed. Run again after a failure, it goes on with the network that is open:
/// the pods that came since are in no list.
pub async fn run(
    agent: Arc<Agent>,
    informers: Informers,
    network: watch::Sender<Option<Network>>,
    running: Vec<String>,
) {
    let node_name = &agent.config.node_name;
    let nodes = informers.of::<Node>();
    let mut changes = nodes.subscribe();
    let mut open: Option<Network> = network.borrow().clone();
    let mut told = None;
    loop {
        let own = nodes.get(None, node_name);
        let range = own.as_deref().and_then(pod_cidr);
        if let (Some(opened), Some(range)) = (&open, range)
            && range != opened.pod_cidr()
            && told.replace(range) != Some(range)
        {
            let was = opened.pod_cidr();
            tracing::error!(%was, now = %range, "the node has another pod range: it counts from the agent's next start");
        }
        if let (None, Some(range)) = (&open, range) {
            match Network::open(config(&agent, range)).await {
                Ok(opened) => {
                    if let Err(error) = opened.adopt(&running).await {
                        tracing::warn!(%error, "cannot take over the pods' network from an earlier run");
                    }
                    network.send_replace(Some(opened.clone()));
                    open = Some(opened);
                }
                Err(error) => {
                    tracing::error!(%error, %range, "the pod network cannot be set up, trying again");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        let mut again = None;
        if let Some(network) = &open {
            let wanted = peers(&nodes.list(), node_name);
            if let Err(error) = network.peers(wanted).await {
                tracing::error!(%error, "cannot set the ways to the other nodes' pods, trying again");
                again = Some(RETRY);
            }
        }
        match again {
            Some(delay) => {
                let _ = tokio::time::timeout(delay, changes.next()).await;
            }
            None => {
                changes.next().await;
            }
        }
        // A burst of changes is one look.
        while changes.try_next().is_some() {}
    }
}
