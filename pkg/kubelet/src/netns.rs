//! The pod network as the agent sees it: not there until the node has its pod range, then attach and detach. And the
//! upkeep of the way to the other nodes.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use mk8s_client::{ApiServers, Event, Informer, Informers, Partial, Subscription, internal_addresses, service_ranges};
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
    /// Where the agent reaches API servers: no range that these are in becomes the host's way to Services.
    pub api: ApiServers,
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
    let range: Ipv4Net = node.spec.as_ref()?.pod_cidr.as_deref()?.parse().ok()?;
    Some(range.trunc())
}

/// The nodes whose pods this one must reach.
fn peers(nodes: &[Arc<Node>], own: &str) -> BTreeSet<Peer> {
    let others = nodes.iter().filter(|n| n.metadata.name.as_deref() != Some(own));
    others
        .filter_map(|n| {
            Some(Peer {
                node_ip: internal_addresses(n).next()?,
                pod_cidr: pod_cidr(n)?,
            })
        })
        .collect()
}

/// Once all nodes are known: while the first list is being read, those that it has not named yet would lose their ways,
/// which are still there from the agent's last run.
async fn all(nodes: &Informer<Node>) -> Vec<Arc<Node>> {
    nodes.wait_synced().await;
    nodes.list()
}

/// Where nobody but Services is known to have addresses.
fn services(ranges: &[Arc<Partial>], nodes: &[Arc<Node>], settings: &Settings) -> BTreeSet<Ipv4Net> {
    let (objects, nodes) = (ranges.iter().map(AsRef::as_ref), nodes.iter().map(AsRef::as_ref));
    let api = settings.api.borrow().iter().map(|server| *server.ip()).collect();
    let all = service_ranges(objects, settings.cluster_cidr, &api, nodes).into_iter();
    all.filter(|(_, beside)| beside.is_none())
        .map(|(range, _)| range)
        .collect()
}

/// What the ways to the other nodes' pods and to Services follow from.
struct Sources {
    nodes: Informer<Node>,
    of_nodes: Subscription<Node>,
    ranges: Informer<Partial>,
    of_ranges: Subscription<Partial>,
    api: ApiServers,
}

impl Sources {
    fn of(informers: &Informers, api: &ApiServers) -> Self {
        let (nodes, ranges) = (informers.of::<Node>(), Partial::service_cidrs(informers));
        Self {
            of_nodes: nodes.subscribe(),
            nodes,
            of_ranges: ranges.subscribe(),
            ranges,
            api: api.clone(),
        }
    }

    /// When something of it is another; `are_known`: whether the ranges were, when it was looked at. A burst of changes is one.
    async fn changed(&mut self, are_known: bool) {
        let moved = async {
            if self.api.changed().await.is_err() {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = next_move(&mut self.of_nodes) => {}
            _ = self.of_ranges.next() => {}
            // The last of the first list may have been heard of a moment before all were known.
            () = self.ranges.wait_synced(), if !are_known => {}
            () = moved => {}
        }
        while self.of_nodes.try_next().is_some() || self.of_ranges.try_next().is_some() {}
    }
}

/// What nodes tell of themselves all the time, that they are alive and how full they are, is no matter of their network.
async fn next_move(nodes: &mut Subscription<Node>) {
    while !has_moved(&nodes.next().await) {}
}

/// Whether the node, or its pods, are elsewhere than before.
fn has_moved(event: &Event<Node>) -> bool {
    let Event::Applied { old: Some(old), new } = event else {
        return true;
    };
    pod_cidr(old) != pod_cidr(new) || internal_addresses(old).ne(internal_addresses(new))
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
    let mut sources = Sources::of(&informers, &agent.config.network.api);
    let mut open: Option<Network> = network.borrow().clone();
    let mut told = None;
    loop {
        let own = sources.nodes.get(None, node_name);
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
        let are_known = sources.ranges.is_synced();
        if let Some(network) = &open {
            let nodes = all(&sources.nodes).await;
            if let Err(error) = network.peers(peers(&nodes, node_name)).await {
                tracing::error!(%error, "cannot set the ways to the other nodes' pods, trying again");
                again = Some(RETRY);
            }
            // Until they are known, those of the last run.
            if are_known
                && let Err(error) = network
                    .services(services(&sources.ranges.list(), &nodes, &agent.config.network))
                    .await
            {
                tracing::error!(%error, "cannot set the host's ways to Services, trying again");
                again = Some(RETRY);
            }
        }
        tokio::select! {
            () = sources.changed(are_known) => {}
            () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;
    use std::net::SocketAddrV4;

    use http::{Request, Response};
    use mk8s_supervisor::Supervisor;
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn node(number: u8) -> Value {
        json!({"metadata": {"name": format!("node-{number}"), "resourceVersion": "1"},
            "spec": {"podCIDR": format!("10.244.{number}.0/24")},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("10.0.0.{number}")}]}})
    }

    #[tokio::test]
    async fn no_node_is_gone_for_not_being_listed_yet() {
        let more = watch::Sender::new(false);
        let asked = more.clone();
        let api = tower::service_fn(move |request: Request<kube::client::Body>| {
            let mut more = asked.subscribe();
            async move {
                let query = request.uri().query().unwrap_or_default().to_owned();
                if query.contains("watch=true") {
                    return std::future::pending().await;
                }
                let (token, node) = match query.contains("continue=") {
                    false => ("more", node(1)),
                    true => {
                        more.wait_for(|more| *more).await.unwrap();
                        ("", node(2))
                    }
                };
                let list = json!({"kind": "NodeList", "apiVersion": "v1", "items": [node],
                    "metadata": {"resourceVersion": "1", "continue": token}});
                Ok::<_, Infallible>(Response::new(kube::client::Body::from(list.to_string().into_bytes())))
            }
        });
        let token = CancellationToken::new();
        let informers = Informers::new(kube::Client::new(api, "default"), &Supervisor::new(token.clone()));
        let nodes = informers.of::<Node>();
        let mut events = nodes.subscribe();
        // The first page has come.
        events.next().await;
        let early = tokio::time::timeout(Duration::from_millis(100), all(&nodes)).await;
        assert!(early.is_err(), "{early:?}");
        more.send_replace(true);
        let peer = Peer {
            node_ip: [10, 0, 0, 2].into(),
            pod_cidr: "10.244.2.0/24".parse().unwrap(),
        };
        assert_eq!(peers(&all(&nodes).await, "node-1"), BTreeSet::from([peer]));
        token.cancel();
    }

    #[test]
    fn a_node_that_says_it_is_alive_is_where_it_was() {
        let parsed = |node: Value| Arc::new(serde_json::from_value::<Node>(node).unwrap());
        let change = |path: &str, value: Value| {
            let mut new = node(1);
            *new.pointer_mut(path).unwrap() = value;
            let (old, new) = (Some(parsed(node(1))), parsed(new));
            has_moved(&Event::Applied { old, new })
        };
        assert!(!change("/metadata/resourceVersion", json!("2")));
        assert!(change("/spec/podCIDR", json!("10.244.9.0/24")));
        assert!(change("/status/addresses/0/address", json!("10.0.0.9")));
        assert!(has_moved(&Event::Deleted(parsed(node(1)))));
        let (old, new) = (None, parsed(node(1)));
        assert!(has_moved(&Event::Applied { old, new }));
    }

    fn settings(api: &watch::Sender<BTreeSet<SocketAddrV4>>) -> Settings {
        Settings {
            mode: Mode::Vxlan,
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            dns: None,
            api: api.subscribe(),
            mtu: None,
            state_dir: PathBuf::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_is_found_later_is_heard_of() {
        let api = tower::service_fn(async |request: Request<kube::client::Body>| {
            if request.uri().query().unwrap_or_default().contains("watch=true") {
                return std::future::pending().await;
            }
            let (kind, item) = match request.uri().path().ends_with("/nodes") {
                true => ("NodeList", node(1)),
                false => (
                    "ServiceCIDRList",
                    json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["192.0.2.0/24"]}}),
                ),
            };
            let list = json!({"kind": kind, "apiVersion": "v1", "items": [item], "metadata": {"resourceVersion": "1"}});
            Ok::<_, Infallible>(Response::new(kube::client::Body::from(list.to_string().into_bytes())))
        });
        let token = CancellationToken::new();
        let informers = Informers::new(kube::Client::new(api, "default"), &Supervisor::new(token.clone()));
        let known = watch::Sender::new(BTreeSet::new());
        let settings = settings(&known);
        let mut sources = Sources::of(&informers, &settings.api);
        let nodes = all(&sources.nodes).await;
        sources.ranges.wait_synced().await;
        let second = Duration::from_secs(1);
        let changes = async |sources: &mut Sources| tokio::time::timeout(second, sources.changed(true)).await;
        // Both lists.
        while changes(&mut sources).await.is_ok() {}
        assert_eq!(services(&sources.ranges.list(), &nodes, &settings).len(), 1);
        known.send_replace(["192.0.2.7:6443".parse().unwrap()].into());
        changes(&mut sources).await.unwrap();
        assert_eq!(services(&sources.ranges.list(), &nodes, &settings).len(), 0);
        assert!(changes(&mut sources).await.is_err(), "heard of once");
        token.cancel();
    }

    #[test]
    fn the_host_leads_to_ranges_that_are_the_services_alone() {
        let settings = settings(&watch::Sender::new(["192.0.2.7:6443".parse().unwrap()].into()));
        let range = |cidr: &str| Arc::new(serde_json::from_value(json!({"spec": {"cidrs": [cidr]}})).unwrap());
        let ranges = [
            "10.96.0.0/16",
            "10.98.0.0/16",
            "10.0.0.0/24",
            "192.0.2.0/24",
            "10.244.9.0/24",
        ]
        .map(range);
        let nodes = [Arc::new(serde_json::from_value(node(1)).unwrap())];
        for (nodes, expected) in [
            (&nodes[..], &["10.96.0.0/16", "10.98.0.0/16"][..]),
            // It has left.
            (&[], &["10.0.0.0/24", "10.96.0.0/16", "10.98.0.0/16"]),
        ] {
            let expected = expected.iter().map(|range| range.parse().unwrap()).collect();
            assert_eq!(services(&ranges, nodes, &settings), expected);
        }
    }
}
