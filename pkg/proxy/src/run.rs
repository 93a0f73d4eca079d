//! Follows the informers and keeps the kernel's table at what they say.
//!
//! Whatever has arrived by the time a sync begins is in it; while it runs, the next one's changes gather. So a lone change
//! is applied at once and a burst costs few transactions, without a timer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{self as api, Pod, Service},
    discovery::v1::EndpointSlice,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mk8s_client::{
    ApiServers, Event, EventRecorder, Informer, Informers, Partial, ServiceSlices, lasting_containers, node_addresses,
    services_of,
};
use mk8s_network::{Occupied, conntrack, elements, monitor::Monitor, names, nft};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    conflicts::{Conflicts, reference, too_large},
    flows::Flows,
    health::HealthPorts,
    held::{Held, Refusal},
    model::{self, Node, Routed},
    ranges::{Ranges, changed},
    reserved::{API_SERVICE, Reserved},
    rules::{Dest, Key},
    tracker::{ChangeTracker, Changes, Owner},
};

/// After a transaction that failed the table is made anew; not at once again and again.
const RETRY: Duration = Duration::from_secs(1);

/// For what Services do without.
const PATIENCE: Duration = Duration::from_secs(2);

/// The objects that count, and what they come to.
struct State {
    services: Informer<Service>,
    slices: ServiceSlices,
    /// Those with host ports.
    pods: HashMap<Arc<str>, Arc<Pod>>,
    dirty: BTreeSet<Owner>,
    /// None once nodes or API servers have changed.
    reserved: Option<Arc<Reserved>>,
    ranges: Ranges,
    tracker: ChangeTracker,
    health: HealthPorts,
    held: Held,
    conflicts: Conflicts,
}

fn key(metadata: &ObjectMeta) -> Arc<str> {
    let of = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", of(&metadata.namespace), of(&metadata.name)).into()
}

impl State {
    fn new(
        services: &Informer<Service>,
        slices: &Informer<EndpointSlice>,
        ranges: Ranges,
        events: EventRecorder,
    ) -> Self {
        Self {
            services: services.clone(),
            slices: ServiceSlices::of(slices),
            pods: HashMap::new(),
            dirty: BTreeSet::new(),
            reserved: None,
            ranges,
            tracker: ChangeTracker::default(),
            health: HealthPorts::default(),
            held: Held::default(),
            conflicts: Conflicts::new(events),
        }
    }

    fn service(&mut self, event: &Event<Service>) {
        self.dirty.insert(Owner::Service(key(&event.object().metadata)));
    }

    fn slice(&mut self, event: &Event<EndpointSlice>) {
        let services = services_of(event);
        if services.iter().any(|service| service == API_SERVICE) {
            self.reserved = None;
        }
        let services = services.into_iter();
        self.dirty.extend(services.map(|key| Owner::Service(key.into())));
    }

    fn pod(&mut self, event: Event<Pod>) {
        let key = key(&event.object().metadata);
        let had = match event {
            Event::Applied { new, .. } if has_host_ports(&new) => {
                self.pods.insert(key.clone(), new);
                true
            }
            Event::Applied { .. } | Event::Deleted(_) => self.pods.remove(&key).is_some(),
        };
        if had {
            self.dirty.insert(Owner::Pod(key));
        }
    }

    fn node(&mut self, event: &Event<api::Node>) {
        let moved = match event {
            Event::Applied { old: Some(old), new } => node_addresses(old).ne(node_addresses(new)),
            Event::Applied { old: None, .. } | Event::Deleted(_) => true,
        };
        if moved {
            self.reserved = None;
            self.ranges.note_change();
        }
    }

    fn api_servers(&mut self, node: &mut Node, are: &mut ApiServers) {
        node.api = are.borrow_and_update().clone();
        self.reserved = None;
        self.ranges.note_change();
    }

    /// Whether Services have their addresses elsewhere than before, or others are there.
    fn look_at_ranges(&mut self, node: &mut Node) -> bool {
        let moved = self.ranges.look(node, &mut self.conflicts);
        if moved {
            self.all_services();
        }
        moved
    }

    fn all_services(&mut self) {
        let all = self.services.list();
        self.dirty
            .extend(all.iter().map(|service| Owner::Service(key(&service.metadata))));
    }

    /// Ports that somebody else had: perhaps no more.
    fn look_at_held(&mut self) {
        self.dirty.extend(self.held.take_due().into_iter().map(Owner::Service));
    }

    /// What nobody takes over, and for whom that is news.
    fn reserve(&mut self, node: &Node, nodes: &Informer<api::Node>) -> Arc<Reserved> {
        if let Some(reserved) = &self.reserved {
            return reserved.clone();
        }
        let (nodes, slices) = (nodes.list(), self.slices.get(API_SERVICE));
        let reserved = Reserved::of(node, nodes.iter().map(AsRef::as_ref), slices.iter().map(AsRef::as_ref));
        self.tracker.set(Owner::Cluster, reserved.entries());
        self.all_services();
        self.dirty.extend(self.pods.keys().cloned().map(Owner::Pod));
        self.reserved.insert(Arc::new(reserved)).clone()
    }

    /// What the kernel lacks; everything, where nothing of it is known.
    fn changes(&mut self, node: &Node, fresh: bool) -> Changes {
        if fresh {
            self.tracker.take_all(node)
        } else {
            self.tracker.take(node)
        }
    }

    /// Brings the tracker up to date with the objects.
    fn settle(&mut self, node: &mut Node, nodes: &Informer<api::Node>) {
        let zone = nodes.get(None, &node.name).as_deref().and_then(zone);
        if zone != node.zone {
            node.zone = zone;
            self.all_services();
        }
        let node = &*node;
        let reserved = self.reserve(node, nodes);
        for owner in std::mem::take(&mut self.dirty) {
            let entries = match &owner {
                Owner::Cluster => continue,
                Owner::Service(key) => {
                    let slices = self.slices.get(key);
                    let slices = slices.iter().map(AsRef::as_ref);
                    let (namespace, name) = key.split_once('/').unwrap_or_default();
                    let service = self.services.get(Some(namespace), name);
                    let service = service.as_deref();
                    let health = service.and_then(|service| model::health(node, service, slices.clone()));
                    self.health.set(key, health);
                    let routed = service.map(|service| model::service(node, service, slices));
                    let Routed { mut entries, beyond } = routed.unwrap_or_default();
                    let about = || service.map(reference);
                    let beyond = beyond.filter(|_| node.api_port.is_some()).map(too_large);
                    self.conflicts.tell(key, about(), "ServiceTooLarge", beyond);
                    let conflict = service.and_then(|service| reserved.conflict_of_service(node, service, &entries));
                    self.conflicts.tell(key, about(), "ExternalIPConflict", conflict);
                    let taken = self.held.set(key, reserved.unreserved(external(service, &entries)));
                    entries.retain(|key, _| key.dest().is_none_or(|dest| !taken.contains_key(dest)));
                    let taken = not_held(&node.name, &taken);
                    self.conflicts.tell(key, about(), "PortInUse", taken);
                    entries
                }
                Owner::Pod(key) => {
                    let pod = self.pods.get(key).map(AsRef::as_ref);
                    let entries = pod.map(|pod| model::host_ports(node, pod)).unwrap_or_default();
                    let conflict = reserved.conflict_of_pod(&entries);
                    self.conflicts
                        .tell(key, pod.map(reference), "HostPortConflict", conflict);
                    entries
                }
            };
            self.tracker.set(owner, entries);
        }
    }
}

/// Where the outside reaches a Service, at an address of its own.
fn external(service: Option<&Service>, entries: &model::Entries) -> BTreeSet<Dest> {
    let spec = service.and_then(|service| service.spec.as_ref());
    let cluster = spec.and_then(|spec| spec.cluster_ip.as_deref()?.parse().ok());
    let dest = |key: &Key| match key {
        Key::Entry(dest) | Key::Refused(dest) => Some(*dest),
        _ => None,
    };
    let all = entries.keys().filter_map(dest);
    all.filter(|dest| dest.ip.is_some() && dest.ip != cluster).collect()
}

/// What a Service is told that does not get all ports of a node's own addresses.
fn not_held(node: &str, refused: &BTreeMap<Dest, Refusal>) -> Option<String> {
    let of = |why| {
        let all = refused.iter().filter(move |(_, own)| **own == why);
        let named = all.take(4).map(|(dest, _)| {
            let ip = dest.ip.map(|ip| ip.to_string()).unwrap_or_default();
            format!("port {}/{} of {ip}", dest.port, dest.proto)
        });
        named.collect::<Vec<_>>().join(", ")
    };
    let told = [
        (of(Refusal::InUse), format!("is in use on node {node}")),
        (
            of(Refusal::TooMany),
            format!("is more than node {node} holds open for one Service, or for all of them"),
        ),
    ];
    let told = told.into_iter().filter(|(named, _)| !named.is_empty());
    let told: Vec<_> = told.map(|(named, why)| format!("{named} {why}")).collect();
    (!told.is_empty()).then(|| format!("{}: the Service does not get what is sent there", told.join("; ")))
}

fn has_host_ports(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let mut ports = lasting_containers(spec).flat_map(|container| container.ports.iter().flatten());
    spec.host_network != Some(true) && ports.any(|port| port.host_port.is_some_and(|port| port > 0))
}

/// What the hosts are known to have beside the cluster's objects, as it changes.
pub struct Hosts {
    /// Of the node's [`Network`](mk8s_network::Network).
    pub occupied: watch::Receiver<Option<Occupied>>,
    /// From what [`Node::api`] is on.
    pub api: ApiServers,
}

/// Until the token is cancelled. The rules stay then: pods go on, and so does what leads to them.
pub async fn run(node: Node, informers: Informers, hosts: Hosts, events: EventRecorder, token: CancellationToken) {
    tokio::select! {
        () = token.cancelled() => {}
        () = follow(node, &informers, hosts, events) => {}
    }
}

async fn follow(mut node: Node, informers: &Informers, hosts: Hosts, events: EventRecorder) {
    let Hosts { mut occupied, mut api } = hosts;
    let (services, slices) = (informers.of::<Service>(), informers.of::<EndpointSlice>());
    let pods = informers.of_where::<Pod>(&format!("spec.nodeName={}", node.name));
    let (mut of_services, mut of_slices, mut of_pods) = (services.subscribe(), slices.subscribe(), pods.subscribe());
    let (nodes, ranges) = (informers.of::<api::Node>(), Partial::service_cidrs(informers));
    let (mut of_nodes, mut of_ranges) = (nodes.subscribe(), ranges.subscribe());
    tokio::join!(
        services.wait_synced(),
        slices.wait_synced(),
        pods.wait_synced(),
        nodes.wait_synced(),
        known_for_now(&ranges, &mut occupied),
    );
    let ranges = Ranges::new(&node, ranges, nodes.clone(), occupied);
    let mut state = State::new(&services, &slices, ranges, events);
    let mut fresh = true;
    // Before the table is made, so that no loss of it goes unheard.
    let mut monitor = monitor();
    let mut kernel = Kernel::default();
    loop {
        while let Some(event) = of_services.try_next() {
            state.service(&event);
        }
        while let Some(event) = of_slices.try_next() {
            state.slice(&event);
        }
        while let Some(event) = of_pods.try_next() {
            state.pod(event);
        }
        while let Some(event) = of_nodes.try_next() {
            state.node(&event);
        }
        while of_ranges.try_next().is_some() {
            state.ranges.note_change();
        }
        fresh |= state.look_at_ranges(&mut node);
        state.settle(&mut node, &nodes);
        match kernel.apply(state.changes(&node, fresh)).await {
            Ok(()) => fresh = false,
            Err(error) => {
                tracing::error!(%error, "service rules could not be applied; the table is made anew");
                fresh = true;
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        tokio::select! {
            event = of_services.next() => state.service(&event),
            event = of_slices.next() => state.slice(&event),
            event = of_pods.next() => state.pod(event),
            event = of_nodes.next() => state.node(&event),
            _ = of_ranges.next() => state.ranges.note_change(),
            () = state.ranges.due() => {}
            () = state.held.due() => state.look_at_held(),
            () = changed(&mut api) => state.api_servers(&mut node, &mut api),
            lost = lost(&mut monitor) => fresh |= lost,
        }
    }
}

/// An API server of another version may not have them, or they may not be read; then the network is not asked either.
async fn known_for_now(ranges: &Informer<Partial>, occupied: &mut watch::Receiver<Option<Occupied>>) {
    let known = async {
        ranges.wait_synced().await;
        // Its end is the agent's.
        let _ = occupied.wait_for(Option::is_some).await;
    };
    if tokio::time::timeout(PATIENCE, known).await.is_err() {
        tracing::warn!(
            "ServiceCIDRs, or the host's own routes, are not known yet: until they are, Services' addresses in further ranges may \
             count as external, and what is no Service's there may be refused"
        );
    }
}

/// Hints of endpoints may name it.
fn zone(node: &api::Node) -> Option<String> {
    node.metadata
        .labels
        .as_ref()?
        .get("topology.kubernetes.io/zone")
        .cloned()
}

fn monitor() -> Option<Monitor> {
    Monitor::open()
        .inspect_err(|error| tracing::warn!(%error, "if somebody flushes nftables, Services fail until the next start"))
        .ok()
}

/// Whether the table is gone; never without a monitor.
async fn lost(monitor: &mut Option<Monitor>) -> bool {
    let Some(listening) = monitor else {
        return std::future::pending().await;
    };
    match listening.next().await {
        Ok(changes) => {
            let gone = changes.gone.contains(names::SERVICE_TABLE);
            if gone {
                tracing::warn!(
                    table = names::SERVICE_TABLE,
                    "somebody removed the table: mk8s makes it again"
                );
            }
            gone
        }
        Err(error) => {
            tracing::warn!(%error, "changes of nftables may have been missed: the table is made anew");
            tokio::time::sleep(RETRY).await;
            *monitor = self::monitor();
            true
        }
    }
}

/// Where changes go.
#[derive(Default)]
pub struct Kernel {
    socket: Option<elements::Socket>,
    flows: Flows,
}

impl Kernel {
    /// Waits until the flows that the changes so far made stale are forgotten.
    pub async fn settled(&self) {
        self.flows.settled().await;
    }

    /// The table's part; flows are forgotten beside it.
    pub async fn apply(&mut self, changes: Changes) -> Result<(), mk8s_network::Error> {
        if let Some(elements) = &changes.elements
            && self.transact(elements)
        {
            // Done without nft.
        } else if !changes.text.is_empty() {
            nft::apply(&changes.text).await?;
        }
        let gone = changes.stale.iter().map(|stale| conntrack::Udp {
            ip: stale.dest.ip,
            port: stale.dest.port,
            endpoint: stale.endpoint,
        });
        self.flows.forget(gone.collect());
        if let Some(truth) = changes.truth {
            self.flows.compare(truth);
        }
        Ok(())
    }

    /// Whether the kernel took them. What it refused, nft may try, and says more about.
    fn transact(&mut self, elements: &[elements::Element]) -> bool {
        let socket = match self.socket.take() {
            Some(socket) => Ok(socket),
            None => elements::Socket::open(),
        };
        match socket.and_then(|socket| socket.transact(names::SERVICE_TABLE, elements).map(|()| socket)) {
            Ok(socket) => self.socket = Some(socket),
            Err(error) => tracing::debug!(%error, "left to nft"),
        }
        self.socket.is_some()
    }
}
