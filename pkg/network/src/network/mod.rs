//! The node's network as a whole: the bridge and the way to the peers once, a namespace with an address per pod.
//!
//! A pod has its address as a /32 and reaches everything, its neighbours on the bridge included, by the gateway: so every
//! packet passes the node's routing and its Service rules, with or without bridge-nf-call-iptables. Hardware addresses
//! follow from IP addresses and are entered on both sides: nobody broadcasts for them, and a pod's port of the bridge takes
//! no other one, so that no pod speaks or listens in another's name.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::Ipv4Net;
use netlink_packet_route::link::InfoKind;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

mod attach;

pub use attach::Attaching;

use crate::{
    before,
    error::{Error, Result},
    firewall,
    ipam::{self, Ipam},
    monitor::{self, Changes, Monitor},
    names, netns, nft,
    overlay::{self, Peer, overlap},
    rtnl::{ForeignRoute, Heard, Link, RouteMonitor, Rtnl},
};

/// How packets get to the pods of other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In UDP packets between the nodes: works wherever the nodes reach each other.
    Vxlan,
    /// By plain routes: the network between the nodes has to let foreign addresses pass.
    Routes,
}

#[derive(Debug, Clone)]
pub struct Config {
    pub mode: Mode,
    pub node_ip: Ipv4Addr,
    /// This node's part of the cluster's pod range.
    pub pod_cidr: Ipv4Net,
    /// The pods of the whole cluster. What leaves it gets the node's address.
    pub cluster_cidr: Ipv4Net,
    /// The cluster's Services. Routed to the bridge, so that the node itself reaches them whatever its other routes are;
    /// the Service rules change the address before anything gets there.
    pub service_cidr: Option<Ipv4Net>,
    /// The address at which the node answers DNS for its pods; it is put on the bridge.
    pub dns: Option<Ipv4Addr>,
    /// Of pods and bridge; without it the node's own, less what VXLAN needs.
    pub mtu: Option<u32>,
    /// Where the addresses in use are kept: /var/lib/mk8s/node.
    pub state_dir: PathBuf,
}

/// What a pod has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodAddress {
    pub ip: Ipv4Addr,
    pub netns: PathBuf,
}

/// Cheap to clone; all clones are one network.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    config: Config,
    mtu: u32,
    rtnl: Rtnl,
    bridge: Link,
    /// The link by which peers are reached.
    overlay: Link,
    ipam: Mutex<Ipam>,
    /// What was last asked for; one change at a time.
    peers: tokio::sync::Mutex<Option<Wanted>>,
    /// Where Services have addresses, in the config's range or else; None: nobody has said so yet, or not all of it is done.
    services: tokio::sync::Mutex<Option<BTreeSet<Ipv4Net>>>,
    /// None: nobody has looked yet.
    occupied: watch::Sender<Option<Occupied>>,
}

/// The ranges of Services, besides the config's, that the host has routes of its own into, each with the lowest of these, or the
/// one that was known before: mk8s makes none there.
pub type Occupied = BTreeMap<Ipv4Net, Ipv4Net>;

struct Wanted {
    peers: BTreeSet<Peer>,
    /// Until it is all done, the next call tries again.
    is_done: bool,
}

/// What VXLAN puts before a packet: outer IP 20, UDP 8, VXLAN 8, inner Ethernet 14.
const VXLAN_OVERHEAD: u32 = 50;

/// Between two looks at the host's own routes.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

impl Network {
    /// Makes the node's network, or finds it and sets right what differs. Pods that are attached stay so.
    pub async fn open(config: Config) -> Result<Self> {
        let (range, cluster) = (config.pod_cidr, config.cluster_cidr);
        if !cluster.contains(&range) {
            return Err(Error::ForeignRange { range, cluster });
        }
        let rtnl = Rtnl::open()?;
        let ipam = Ipam::open(&config.state_dir, config.pod_cidr)?;
        before::require(before::IP_FORWARD, "1")?;
        let node_link = node_link(&rtnl, config.node_ip).await?;
        let mtu = config.mtu.unwrap_or(match config.mode {
            Mode::Vxlan => node_link.mtu.saturating_sub(VXLAN_OVERHEAD),
            Mode::Routes => node_link.mtu,
        });
        let bridge = ensure_bridge(&rtnl, &config, mtu).await?;
        let overlay = match config.mode {
            Mode::Vxlan => ensure_vxlan(&rtnl, &config, mtu).await?,
            Mode::Routes => {
                rtnl.delete_link_named(names::VXLAN).await?;
                node_link.clone()
            }
        };
        for link in [names::BRIDGE, names::VXLAN] {
            // The network is IPv4's. Else any pod could tell the node of a router, by an advertisement on the bridge.
            before::set_if_known(&format!("net/ipv6/conf/{link}/disable_ipv6"), "1");
        }
        for link in BTreeSet::from([names::BRIDGE, overlay.name.as_str(), node_link.name.as_str()]) {
            // A NodePort at 127.0.0.1 leads to pods and nodes by these links; table() keeps strangers out.
            before::set(&format!("net/ipv4/conf/{link}/route_localnet"), "1");
        }
        if let Some(services) = config.service_cidr {
            rtnl.set_link_route(services, bridge.index).await?;
        }
        // Until the peers are told, those of the last run: their packets must not stop.
        let have = overlay::observed(&rtnl, config.mode, overlay.index).await?;
        nft::apply(&table(&config, &have.nodes())).await?;
        firewall::open(config.cluster_cidr).await?;
        Ok(Self(Arc::new(Inner {
            config,
            mtu,
            rtnl,
            bridge,
            overlay,
            ipam: Mutex::new(ipam),
            peers: tokio::sync::Mutex::new(None),
            services: tokio::sync::Mutex::default(),
            occupied: watch::Sender::default(),
        })))
    }

    /// The range that its pods' addresses come from.
    pub fn pod_cidr(&self) -> Ipv4Net {
        self.0.config.pod_cidr
    }

    pub fn mtu(&self) -> u32 {
        self.0.mtu
    }

    pub fn gateway(&self) -> Ipv4Addr {
        ipam::gateway(self.0.config.pod_cidr)
    }

    /// What the pod has, if it is attached.
    pub fn address(&self, uid: &str) -> Option<PodAddress> {
        let ip = self.ipam().pool.get(uid)?;
        netns::exists(uid).then(|| PodAddress {
            ip,
            netns: netns::path(uid),
        })
    }

    /// Removes all that the pod has; what is gone already is fine.
    pub async fn detach(&self, uid: &str) -> Result<()> {
        self.0.rtnl.delete_link_named(&names::veth(uid)).await?;
        netns::remove(uid)?;
        let ip = self.ipam().pool.get(uid);
        if let Some(ip) = ip {
            self.0.rtnl.delete_neighbour(self.0.bridge.index, ip).await?;
        }
        let mut ipam = self.ipam();
        if ipam.pool.release(uid).is_some() {
            ipam.save()?;
        }
        Ok(())
    }

    /// After a start: these pods run. Tells what each still has; a pod that is not in the answer has no working network
    /// and needs a new sandbox. The remains of all others are removed.
    pub async fn adopt(&self, uids: &[String]) -> Result<BTreeMap<String, PodAddress>> {
        let links = self.0.rtnl.links().await?.into_iter();
        let links: HashMap<String, Link> = links.map(|link| (link.name.clone(), link)).collect();
        let mut kept = BTreeMap::new();
        for uid in uids {
            if let (Some(address), Some(veth)) = (self.address(uid), links.get(&names::veth(uid))) {
                // An earlier mk8s may have made it otherwise.
                if let Err(error) = self.0.rtnl.set_pod_port(veth, names::pod_mac(address.ip)).await {
                    tracing::warn!(uid, %error, "the pod's port of the bridge stays as it is");
                }
                kept.insert(uid.clone(), address);
            }
        }
        // One that can't be removed keeps none of the others.
        let mut failed = None;
        let mut stale: BTreeSet<String> = netns::list()?.into_iter().collect();
        stale.extend(self.ipam().pool.uids().map(str::to_owned));
        for uid in stale.iter().filter(|uid| !kept.contains_key(*uid)) {
            tracing::info!(uid, "removing what is left of a pod's network");
            failed = failed.or(self.detach(uid).await.err());
        }
        let known: HashSet<String> = kept.keys().map(|uid| names::veth(uid)).collect();
        for link in links
            .keys()
            .filter(|name| name.starts_with(names::VETH_PREFIX) && !known.contains(*name))
        {
            failed = failed.or(self.0.rtnl.delete_link_named(link).await.err());
        }
        failed.map_or(Ok(kept), Err)
    }

    /// Makes these, and no others, the nodes whose pods are reached. Costs nothing when nothing changed.
    pub async fn peers(&self, peers: BTreeSet<Peer>) -> Result<()> {
        let inner = &self.0;
        let mut wanted = inner.peers.lock().await;
        if wanted
            .as_ref()
            .is_some_and(|wanted| wanted.is_done && wanted.peers == peers)
        {
            return Ok(());
        }
        let is_done = false;
        let wanted = wanted.insert(Wanted { peers, is_done });
        // A way that can't be made keeps out no packet of those that can.
        let reached = inner.reach(&wanted.peers).await;
        inner.admit(&wanted.peers).await?;
        reached?;
        wanted.is_done = true;
        Ok(())
    }

    /// The host's own processes reach Services in these ranges, and in no others but the config's. Costs nothing when nothing
    /// changed. What the host has routes of its own to, by which a range is reached or a part of it, is left to these.
    pub async fn services(&self, ranges: BTreeSet<Ipv4Net>) -> Result<()> {
        let mut known = self.0.services.lock().await;
        if known.as_ref() != Some(&ranges) {
            // Unknown until it is all done, so that the next call tries again.
            *known = None;
            self.0.lead_to_services(&ranges).await?;
            *known = Some(ranges);
        }
        Ok(())
    }

    /// Where the host is found to have ways of its own in what [`Network::services`] was last told, each time that changes.
    pub fn occupied(&self) -> watch::Receiver<Option<Occupied>> {
        self.0.occupied.subscribe()
    }

    /// Looks at the host's firewalls again: one may have been started, or reloaded, since.
    pub async fn recheck_firewall(&self) -> Result<()> {
        firewall::open(self.0.config.cluster_cidr).await
    }

    /// Keeps there what others may take away: the node's table, its accepts in other firewalls, its routes. Ends only
    /// with an error; to be run again then.
    pub async fn guard(&self) -> Result<()> {
        let (mut monitor, mut routes) = (Monitor::open()?, RouteMonitor::open()?);
        // What changed before they listened, or while the last run ended.
        let mut changes = monitor::present().await?;
        self.restore_routes().await;
        // Whoever learns routes by the thousand costs one look a second.
        let (mut looked, mut look) = (Instant::now(), None);
        loop {
            if changes.gone.contains(names::TABLE) {
                tracing::warn!(table = names::TABLE, "somebody removed the table: mk8s makes it again");
                let wanted = self.0.peers.lock().await;
                let state = match wanted.as_ref() {
                    Some(wanted) => self.0.desired(&wanted.peers).await?,
                    // Those of the last run, as at the start.
                    None => self.0.observed().await?,
                };
                nft::apply(&table(&self.0.config, &state.nodes())).await?;
            }
            if changes.foreign {
                self.recheck_firewall().await?;
            }
            changes = tokio::select! {
                changes = monitor.next() => changes?,
                heard = routes.next([self.0.overlay.index, self.0.bridge.index]) => {
                    let heard = heard?;
                    if heard.lost {
                        look = Some(Instant::now());
                    } else if heard.overrun || self.concerns(&heard).await {
                        look.get_or_insert((looked + BETWEEN_LOOKS).max(Instant::now()));
                    }
                    Changes::default()
                }
                () = sleep_until(look.unwrap_or(looked)), if look.is_some() => {
                    self.restore_routes().await;
                    (looked, look) = (Instant::now(), None);
                    Changes::default()
                }
            };
        }
    }

    /// Whether a route of others' that came or went is in the way to a range of Services but the first, or may no longer be.
    async fn concerns(&self, heard: &Heard) -> bool {
        let is_occupied = || {
            self.0
                .occupied
                .borrow()
                .as_ref()
                .is_some_and(|ranges| !ranges.is_empty())
        };
        if heard.link_lost && is_occupied() {
            return true;
        }
        let others = &heard.others;
        let known = self.0.services.lock().await;
        let ranges = known.iter().flatten();
        let mut further = ranges.filter(|range| self.0.config.service_cidr != Some(**range));
        further.any(|range| others.iter().any(|to| to.prefix_len() > 0 && overlap(range, to)))
    }

    /// What is missing of the last calls to [`Network::peers`] and [`Network::services`]. A failure (the link is down) has its end
    /// announced, and keeps nothing else from coming back.
    async fn restore_routes(&self) {
        let inner = &self.0;
        let wanted = inner.peers.lock().await;
        let mut done = Vec::new();
        if let Some(services) = inner.config.service_cidr {
            done.push(inner.rtnl.set_link_route(services, inner.bridge.index).await);
        }
        let services = inner.services.lock().await;
        if let Some(ranges) = services.as_ref() {
            done.push(inner.lead_to_services(ranges).await);
        }
        drop(services);
        if let Some(wanted) = wanted.as_ref() {
            done.push(inner.reach(&wanted.peers).await);
        }
        for error in done.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "routes that were lost are not all back");
        }
    }

    fn ipam(&self) -> MutexGuard<'_, Ipam> {
        self.0.ipam.lock()
    }
}

impl Inner {
    async fn desired(&self, peers: &BTreeSet<Peer>) -> Result<overlay::State> {
        let own = Peer {
            node_ip: self.config.node_ip,
            pod_cidr: self.config.pod_cidr,
        };
        let addresses = self.rtnl.addresses(None).await?;
        let host: Vec<Ipv4Net> = addresses
            .into_iter()
            .filter_map(|(_, address, prefix)| Some(Ipv4Net::new(address, prefix).ok()?.trunc()))
            .collect();
        let (accepted, refused) = overlay::accepted(own, self.config.cluster_cidr, &host, peers);
        for Peer { node_ip, pod_cidr } in refused {
            tracing::warn!(%node_ip, %pod_cidr, "no way to a node's pods: their range is not the cluster's, or another's too");
        }
        Ok(overlay::desired(self.config.mode, self.overlay.index, &accepted))
    }

    async fn observed(&self) -> Result<overlay::State> {
        overlay::observed(&self.rtnl, self.config.mode, self.overlay.index).await
    }

    async fn reach(&self, peers: &BTreeSet<Peer>) -> Result<()> {
        let have = self.observed().await?;
        overlay::apply(&self.rtnl, self.overlay.index, &have, &self.desired(peers).await?).await
    }

    async fn lead_to_services(&self, ranges: &BTreeSet<Ipv4Net>) -> Result<()> {
        let have = self.rtnl.link_routes(self.bridge.index).await?;
        let mut others = foreign_routes(&self.rtnl).await?;
        others.sort_unstable_by_key(|(route, _)| route.to);
        let further = |range: &&Ipv4Net| self.config.service_cidr != Some(**range);
        let before = self.occupied.borrow().clone().unwrap_or_default();
        // The one that is known already as long as there is, or each that is learned would be news.
        let into = |range: &Ipv4Net| {
            let ways = others.iter().map(|(route, _)| route);
            let mut ways = ways.filter(|route| is_within_reach(range, route)).map(|route| route.to);
            let known = before.get(range).filter(|known| ways.clone().any(|to| to == **known));
            known.copied().or_else(|| ways.next())
        };
        let mut occupied = Occupied::new();
        let mut free = BTreeSet::new();
        for range in ranges.iter().filter(further) {
            match into(range) {
                Some(to) => drop(occupied.insert(*range, to)),
                None => drop(free.insert(*range)),
            }
        }
        let mut done = Ok(());
        // One that cannot be set keeps none of the others from it.
        for range in have.difference(&free).filter(further) {
            done = done.and(self.rtnl.delete_link_route(*range, self.bridge.index).await);
        }
        for range in free.difference(&have) {
            match self.rtnl.add_link_route(*range, self.bridge.index).await {
                Ok(true) => {}
                // The host was quicker.
                Ok(false) => drop(occupied.insert(*range, *range)),
                Err(error) => done = done.and(Err(error)),
            }
        }
        self.occupied.send_if_modified(|known| {
            for (range, to) in occupied.iter().filter(|(range, _)| !before.contains_key(*range)) {
                tracing::warn!(%range, %to, "the host has ways of its own in a range of Services: these stay, and mk8s makes none there");
            }
            let known_before = known.replace(occupied);
            known_before != *known
        });
        done
    }

    /// Takes VXLAN packets from these nodes and no others.
    async fn admit(&self, peers: &BTreeSet<Peer>) -> Result<()> {
        let table = names::TABLE;
        let elements = elements(&self.desired(peers).await?.nodes());
        nft::apply(&format!(
            "flush set ip {table} nodes\n{}",
            match elements.is_empty() {
                true => String::new(),
                false => format!("add element ip {table} nodes {{ {elements} }}\n"),
            }
        ))
        .await
    }
}

/// Removes everything of mk8s's from the kernel's network, and gives the host back the settings that mk8s changed. Needs
/// no [`Network`]; what is not there is fine. The lines say what stays because others need it.
pub async fn teardown() -> Result<Vec<String>> {
    let rtnl = Rtnl::open()?;
    for table in [names::SERVICE_TABLE, names::TABLE] {
        match nft::delete_table(table).await {
            // Where there is no nft there is no table.
            Ok(()) | Err(Error::Invalid(_)) => {}
            Err(error) => return Err(error),
        }
    }
    firewall::close().await?;
    for route in rtnl.routes().await? {
        rtnl.delete_route(route).await?;
    }
    for link in rtnl.links().await? {
        if link.name.starts_with(names::VETH_PREFIX) || [names::BRIDGE, names::VXLAN].contains(&link.name.as_str()) {
            rtnl.delete_link(&link).await?;
        }
    }
    for uid in netns::list()? {
        netns::remove(&uid)?;
    }
    before::restore(forwarder(&rtnl).await?.as_deref())
}

/// Somebody else on this host who forwards packets: a bridge that is not mk8s's, or a firewall with rules for them.
async fn forwarder(rtnl: &Rtnl) -> Result<Option<String>> {
    let links = rtnl.links().await?;
    let bridge = links.into_iter().find(|link| link.kind == Some(InfoKind::Bridge));
    match bridge {
        Some(bridge) => Ok(Some(format!("the bridge {}", bridge.name))),
        None => firewall::forwards().await,
    }
}

/// The routes of this host that overlap one of `ranges` and are not mk8s's: (route, link). One by several links, or that lets
/// nothing pass, has none. For init's checks.
pub async fn overlapping_routes(ranges: &[Ipv4Net]) -> Result<Vec<(Ipv4Net, Option<String>)>> {
    let others = foreign_routes(&Rtnl::open()?).await?.into_iter();
    let others = others.filter(|(route, _)| ranges.iter().any(|range| is_within_reach(range, route)));
    Ok(others.map(|(route, link)| (route.to, link)).collect())
}

/// Whether a route of the host's leads somebody into a range. One by which nothing passes keeps others out of wide networks, as
/// a rule: what is more specific is meant to be reached all the same.
fn is_within_reach(range: &Ipv4Net, route: &ForeignRoute) -> bool {
    match route.leads {
        true => overlap(range, &route.to),
        false => range.contains(&route.to),
    }
}

/// The routes of this host that are not mk8s's, but for the default one, and their links' names.
async fn foreign_routes(rtnl: &Rtnl) -> Result<Vec<(ForeignRoute, Option<String>)>> {
    let links = rtnl.links().await?.into_iter();
    let names: BTreeMap<u32, String> = links.map(|link| (link.index, link.name)).collect();
    let found = rtnl.foreign_routes().await?.into_iter();
    Ok(found
        .map(|route| (route, route.link.and_then(|link| names.get(&link).cloned())))
        .filter(|(route, link)| {
            let own = [names::BRIDGE, names::VXLAN];
            route.to.prefix_len() > 0 && !link.as_deref().is_some_and(|link| own.contains(&link))
        })
        .collect())
}

async fn node_link(rtnl: &Rtnl, node_ip: Ipv4Addr) -> Result<Link> {
    let addresses = rtnl.addresses(None).await?;
    let index = addresses
        .iter()
        .find(|(_, address, _)| *address == node_ip)
        .map(|(link, ..)| *link);
    let links = rtnl.links().await?;
    links
        .into_iter()
        .find(|link| Some(link.index) == index)
        .ok_or(Error::NoLink(node_ip))
}

async fn ensure_bridge(rtnl: &Rtnl, config: &Config, mtu: u32) -> Result<Link> {
    let gateway = ipam::gateway(config.pod_cidr);
    let mac = names::pod_mac(gateway);
    let bridge = match rtnl.link(names::BRIDGE).await? {
        Some(link) if link.kind == Some(InfoKind::Bridge) => link,
        Some(link) => return Err(Error::Invalid(format!("link {} is there and is no bridge", link.name))),
        None => rtnl.add_bridge(names::BRIDGE, mac, mtu).await?,
    };
    if bridge.mac != mac {
        rtnl.set_mac(&bridge, mac).await?;
    }
    if bridge.mtu != mtu {
        rtnl.set_mtu(&bridge, mtu).await?;
    }
    rtnl.set_up(bridge.index).await?;
    let mut wanted = vec![(gateway, config.pod_cidr.prefix_len())];
    wanted.extend(config.dns.map(|dns| (dns, 32)));
    ensure_addresses(rtnl, &bridge, &wanted).await?;
    Ok(bridge)
}

async fn ensure_vxlan(rtnl: &Rtnl, config: &Config, mtu: u32) -> Result<Link> {
    let mac = names::vxlan_mac(config.node_ip);
    let link = match rtnl.link(names::VXLAN).await? {
        Some(link) if link.vxlan_local() == Some(config.node_ip) && link.mac == mac => link,
        // What differs can't be changed on a device that is there.
        Some(link) => {
            rtnl.delete_link(&link).await?;
            rtnl.add_vxlan(names::VXLAN, config.node_ip, mac, mtu).await?
        }
        None => rtnl.add_vxlan(names::VXLAN, config.node_ip, mac, mtu).await?,
    };
    if link.mtu != mtu {
        rtnl.set_mtu(&link, mtu).await?;
    }
    rtnl.set_up(link.index).await?;
    // The source of what this node itself sends to other nodes' pods: their answers come back by the same way.
    ensure_addresses(rtnl, &link, &[(config.pod_cidr.network(), 32)]).await?;
    Ok(link)
}

async fn ensure_addresses(rtnl: &Rtnl, link: &Link, wanted: &[(Ipv4Addr, u8)]) -> Result<()> {
    let have: Vec<(Ipv4Addr, u8)> = rtnl
        .addresses(Some(link.index))
        .await?
        .into_iter()
        .filter(|(index, ..)| *index == link.index)
        .map(|(_, a, p)| (a, p))
        .collect();
    for (address, prefix) in have.iter().filter(|pair| !wanted.contains(pair)) {
        rtnl.delete_address(link.index, *address, *prefix).await?;
    }
    for (address, prefix) in wanted.iter().filter(|pair| !have.contains(pair)) {
        rtnl.add_address(link.index, *address, *prefix).await?;
    }
    Ok(())
}

/// Addresses as nft has them in a set.
fn elements(nodes: &BTreeSet<Ipv4Addr>) -> String {
    let nodes: Vec<String> = nodes.iter().map(Ipv4Addr::to_string).collect();
    nodes.join(", ")
}

/// A pod's hardware address as nft has it.
fn hardware(ip: Ipv4Addr) -> String {
    names::pod_mac(ip).map(|byte| format!("{byte:02x}")).join(":")
}

/// The node's own table, whole, with the nodes whose VXLAN packets it takes. Services have theirs.
fn table(config: &Config, nodes: &BTreeSet<Ipv4Addr>) -> String {
    let Config {
        pod_cidr,
        cluster_cidr,
        dns,
        ..
    } = config;
    let (table, bridge, port) = (names::TABLE, names::BRIDGE, names::VXLAN_PORT);
    let nodes = match nodes.is_empty() {
        true => String::new(),
        false => format!("elements = {{ {} }}", elements(nodes)),
    };
    let pods: Vec<String> = pod_cidr.hosts().map(|ip| format!("{ip} . {}", hardware(ip))).collect();
    let pods = pods.join(", ");
    let dns_guard = dns.map_or(String::new(), |dns| {
        format!("    # DNS is for this node and its pods alone\n    ip daddr {dns} iifname != {{ \"lo\", \"{bridge}\" }} drop\n")
    });
    format!(
        "table ip {table}
delete table ip {table}
table ip {table} {{
  comment \"pod network of mk8s\"
  set nodes {{
    type ipv4_addr; {nodes}
  }}
  # by their addresses, which hardware addresses follow from
  set pods {{
    typeof ip saddr . ether saddr; elements = {{ {pods} }}
  }}
  chain sources {{
    type filter hook prerouting priority raw; policy accept;
    # a pod speaks as itself (its port of the bridge takes no other hardware address), and nobody else as a pod
    iifname \"{bridge}\" ip saddr . ether saddr != @pods drop
    iifname != {{ \"lo\", \"{bridge}\" }} ip saddr {pod_cidr} drop
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    # pods reach their neighbours by the gateway on purpose; the sysctl against redirects is the whole host's
    oifname \"{bridge}\" icmp type redirect drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname != \"lo\" ip saddr {pod_cidr} ip daddr != {{ {cluster_cidr}, 224.0.0.0/4 }} masquerade fully-random
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    # route_localnet is on for NodePorts at localhost: nobody else gets to 127.0.0.0/8
    iifname != \"lo\" ip daddr 127.0.0.0/8 ct state new ct status & dnat != dnat drop
    # who may put packets into the pod network
    udp dport {port} ip saddr != @nodes drop
{dns_guard}  }}
}}
"
    )
}
