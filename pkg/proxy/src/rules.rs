//! The nftables table `ip mk8s`: its shape, its elements, and their words for `nft -f -`.
//!
//! Two families of maps mirror each other: `ip-*`, keyed by (address, protocol, port), for the addresses of Services, and
//! `port-*`, keyed by (protocol, port), for every address of this node. By an element of `*-entry` a packet goes to a
//! chain for so many endpoints ([`Balancer`]), and by one of `*-endpoint-PROTOCOL` to its endpoint. Session affinity takes a step
//! more: the endpoint's id is remembered per client in `*-affinity`, which the kernel alone writes and expires.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use mk8s_network::elements::{self, Data, Element};

use crate::model::Node;

pub const TABLE: &str = mk8s_network::names::SERVICE_TABLE;
/// "Masquerade this connection", from the destination's choice to its way out. The bit that kube-proxy uses too.
const MASQUERADE: u32 = 0x4000;
/// Endpoint ids live in the packet's mark for the length of a chain; the tag keeps them apart from others' marks.
const ID_TAG: u32 = 0x6d68_0000;
/// Ids leave the masquerade bit free.
pub const IDS: u32 = 0x2000;
/// Endpoints are kept by protocol: nft (1.0.6) wants their port to be a port of the protocol that the rule is for.
const PROTOS: [Proto; 3] = [Proto::Tcp, Proto::Udp, Proto::Sctp];
/// Indices of the endpoints on this node begin here, where a destination has two sets of endpoints.
const LOCAL: u32 = 0x1_0000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proto {
    Tcp,
    Udp,
    Sctp,
}

impl Proto {
    pub fn parse(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Where a packet wants to go. Without an address: to any address of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dest {
    pub ip: Option<Ipv4Addr>,
    pub proto: Proto,
    pub port: u16,
}

impl Dest {
    pub fn of(ip: Ipv4Addr, proto: Proto, port: u16) -> Self {
        let ip = Some(ip);
        Self { ip, proto, port }
    }

    /// At every address of this node.
    pub fn of_node(proto: Proto, port: u16) -> Self {
        let ip = None;
        Self { ip, proto, port }
    }

    fn space(&self) -> Space {
        if self.ip.is_some() { Space::Ip } else { Space::Port }
    }
}

impl fmt::Display for Dest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ip) = self.ip {
            write!(f, "{ip} . ")?;
        }
        write!(f, "{} . {}", self.proto, self.port)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Space {
    Ip,
    Port,
}

impl Space {
    fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Port => "port",
        }
    }

    /// The packet's destination, as the keys of this family have it.
    fn key(self) -> &'static str {
        match self {
            Self::Ip => "ip daddr . meta l4proto . th dport",
            Self::Port => "meta l4proto . th dport",
        }
    }
}

/// Whose connections get the node's own address as their source, so that the answers come back this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Masquerade {
    Never,
    /// Of everyone but the cluster's pods.
    Foreign,
    /// Of this node itself (localhost among it).
    Host,
    Always,
}

/// A chain that sends a packet to one of `count` endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Balancer {
    space: Space,
    masquerade: Masquerade,
    count: u32,
    /// Among the endpoints on this node.
    local: bool,
    /// Session affinity, in seconds.
    sticky: Option<u32>,
    /// Only what comes to an address of this node: a pod may name any address, and takes over none but the node's.
    own: bool,
}

impl Balancer {
    pub fn new(dest: &Dest, masquerade: Masquerade, count: usize, local: bool, sticky: Option<u32>) -> Self {
        Self {
            space: dest.space(),
            masquerade,
            count: count as u32,
            local,
            sticky,
            own: false,
        }
    }

    /// For a destination that a pod named. One without an address is looked up for the node's own alone in any case.
    pub fn of_own_addresses(self) -> Self {
        Self {
            own: self.space == Space::Ip,
            ..self
        }
    }

    fn name(&self) -> String {
        let masquerade = match self.masquerade {
            Masquerade::Never => "never",
            Masquerade::Foreign => "foreign",
            Masquerade::Host => "host",
            Masquerade::Always => "always",
        };
        let mut name = format!("{}-{masquerade}-{}", self.space.name(), self.count);
        if self.local {
            name.push_str("-local");
        }
        if self.own {
            name.push_str("-own");
        }
        if let Some(seconds) = self.sticky {
            let _ = write!(name, "-sticky-{seconds}");
        }
        name
    }

    /// The chains, in the order in which they must come to be: (name, rules).
    fn chains(&self, node: &Node) -> Vec<(String, Vec<String>)> {
        let (name, space, key) = (self.name(), self.space.name(), self.space.key());
        let offset = if self.local {
            format!(" offset {LOCAL}")
        } else {
            String::new()
        };
        let random = format!("numgen random mod {}{offset}", self.count);
        let mark = format!("meta mark set meta mark | {MASQUERADE:#x}");
        let masquerade = match self.masquerade {
            Masquerade::Never => None,
            Masquerade::Foreign => Some(format!("ip saddr != {} {mark}", node.cluster_cidr)),
            Masquerade::Host => Some(format!("fib saddr type local {mark}")),
            Masquerade::Always => Some(mark),
        };
        let dnat = |index: &str, map: &str| {
            PROTOS.map(|proto| format!("meta l4proto {proto} dnat ip to {key} . {index} map @{space}-{map}-{proto}"))
        };
        let Some(seconds) = self.sticky else {
            let own = self.own.then(|| "fib daddr type != local return".to_owned());
            let mut rules: Vec<String> = own.into_iter().chain(masquerade).collect();
            rules.extend(dnat(&random, "endpoint"));
            return vec![(name, rules)];
        };
        let stuck = format!("{name}-known");
        let mut known = vec![format!(
            "update @{space}-affinity {{ ip saddr . {key} timeout {seconds}s : meta mark }}"
        )];
        known.extend(masquerade);
        known.extend(dnat("meta mark", "by-id"));
        let rules = vec![
            format!("meta mark set ip saddr . {key} map @{space}-affinity jump {stuck}"),
            // Unknown, or known by an endpoint that is gone.
            format!("delete @{space}-affinity {{ ip saddr . {key} : meta mark }}"),
            format!("meta mark set {key} . {random} map @{space}-id"),
            format!("goto {stuck}"),
        ];
        vec![(stuck, known), (name, rules)]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    Balancer(Balancer),
    /// externalTrafficPolicy Local: by `*-near` from this node and its pods, else by `*-local`.
    PolicyLocal,
    Drop,
}

/// One element of one of the table's sets and maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Entry(Dest),
    Near(Dest),
    Local(Dest),
    Endpoint(Dest, u32),
    Id(Dest, u32),
    ById(Dest, u32),
    /// Answered with a refusal: the destination has no endpoints.
    Refused(Dest),
    /// Only for the sources in `Allowed`.
    Restricted(Dest),
    Allowed(Dest, Ipv4Net),
    /// The cluster's or the node's own: nothing takes it over.
    Reserved(Dest),
    /// A pod of this node that may be sent back to itself.
    Hairpin(Ipv4Addr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    Member,
    Verdict(Verdict),
    Endpoint(Ipv4Addr, u16),
    Id(u32),
}

impl Key {
    /// The destination that it is about.
    pub fn dest(&self) -> Option<&Dest> {
        match self {
            Self::Entry(dest)
            | Self::Near(dest)
            | Self::Local(dest)
            | Self::Endpoint(dest, _)
            | Self::Id(dest, _)
            | Self::ById(dest, _)
            | Self::Refused(dest)
            | Self::Restricted(dest)
            | Self::Reserved(dest)
            | Self::Allowed(dest, _) => Some(dest),
            Self::Hairpin(_) => None,
        }
    }

    pub fn endpoint(dest: Dest, index: usize, local: bool) -> Self {
        Self::Endpoint(dest, index as u32 + if local { LOCAL } else { 0 })
    }

    pub fn id(dest: Dest, index: usize, local: bool) -> Self {
        Self::Id(dest, index as u32 + if local { LOCAL } else { 0 })
    }

    /// An id is looked up with and without the masquerade bit.
    pub fn by_id(dest: Dest, id: u32) -> [Self; 2] {
        [
            Self::ById(dest, ID_TAG | id),
            Self::ById(dest, ID_TAG | id | MASQUERADE),
        ]
    }

    fn set(&self) -> String {
        let (dest, name) = match self {
            Self::Entry(dest) => (dest, "entry"),
            Self::Near(dest) => (dest, "near"),
            Self::Local(dest) => (dest, "local"),
            Self::Endpoint(dest, _) => return format!("{}-endpoint-{}", dest.space().name(), dest.proto),
            Self::Id(dest, _) => (dest, "id"),
            Self::ById(dest, _) => return format!("{}-by-id-{}", dest.space().name(), dest.proto),
            Self::Refused(dest) => (dest, "refused"),
            Self::Reserved(dest) => (dest, "reserved"),
            Self::Restricted(_) => return "restricted".into(),
            Self::Allowed(..) => return "allowed".into(),
            Self::Hairpin(_) => return "hairpin".into(),
        };
        format!("{}-{name}", dest.space().name())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(dest)
            | Self::Near(dest)
            | Self::Local(dest)
            | Self::Refused(dest)
            | Self::Restricted(dest)
            | Self::Reserved(dest) => write!(f, "{dest}"),
            Self::Endpoint(dest, index) | Self::Id(dest, index) => write!(f, "{dest} . {index}"),
            Self::ById(dest, id) => write!(f, "{dest} . {id:#x}"),
            Self::Allowed(dest, source) => write!(f, "{dest} . {source}"),
            Self::Hairpin(ip) => write!(f, "{ip} . {ip}"),
        }
    }
}

impl Value {
    pub fn id(id: u32) -> Self {
        Self::Id(ID_TAG | id)
    }
}

/// A key's value as it follows the key in an element.
struct Suffix<'a>(&'a Key, &'a Value);

impl fmt::Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Value::Member => Ok(()),
            Value::Verdict(Verdict::Balancer(balancer)) => write!(f, " : goto {}", balancer.name()),
            Value::Verdict(Verdict::PolicyLocal) => write!(f, " : goto {}", policy_local(self.0)),
            Value::Verdict(Verdict::Drop) => f.write_str(" : drop"),
            Value::Endpoint(ip, port) => write!(f, " : {ip} . {port}"),
            Value::Id(id) => write!(f, " : {id:#x}"),
        }
    }
}

/// The same change as [`transaction`]'s text, for the kernel itself; None where that takes more than elements of plain keys.
pub fn elements(
    removed: &BTreeMap<Key, Value>,
    chains: &BTreeSet<Balancer>,
    added: &BTreeMap<Key, Value>,
) -> Option<Vec<Element>> {
    if !chains.is_empty() || removed.len() + added.len() > elements::MAX {
        return None;
    }
    let element = |key: &Key, add| {
        Some(Element {
            set: key.set(),
            key: key.bytes()?,
            add,
        })
    };
    let removed = removed.keys().map(|key| element(key, None));
    let added = added.iter().map(|(key, value)| element(key, Some(value.data(key))));
    removed.chain(added).collect()
}

impl Dest {
    fn bytes(&self) -> Vec<u8> {
        let proto: u8 = match self.proto {
            Proto::Tcp => 6,
            Proto::Udp => 17,
            Proto::Sctp => 132,
        };
        let [high, low] = self.port.to_be_bytes();
        let mut bytes: Vec<u8> = self.ip.map(|ip| ip.octets()).into_iter().flatten().collect();
        bytes.extend([proto, 0, 0, 0, high, low, 0, 0]);
        bytes
    }
}

impl Key {
    /// As the kernel has it; an interval is left to nft.
    fn bytes(&self) -> Option<Vec<u8>> {
        Some(match self {
            Self::Entry(dest)
            | Self::Near(dest)
            | Self::Local(dest)
            | Self::Refused(dest)
            | Self::Restricted(dest)
            | Self::Reserved(dest) => dest.bytes(),
            // Numbers and marks are in the host's order.
            Self::Endpoint(dest, number) | Self::Id(dest, number) | Self::ById(dest, number) => {
                [dest.bytes(), number.to_ne_bytes().to_vec()].concat()
            }
            Self::Allowed(..) => return None,
            Self::Hairpin(ip) => [ip.octets(), ip.octets()].concat(),
        })
    }
}

impl Value {
    fn data(&self, key: &Key) -> Data {
        match self {
            Self::Member => Data::None,
            Self::Verdict(Verdict::Balancer(balancer)) => Data::Goto(balancer.name()),
            Self::Verdict(Verdict::PolicyLocal) => Data::Goto(policy_local(key)),
            Self::Verdict(Verdict::Drop) => Data::Drop,
            Self::Endpoint(ip, port) => {
                let ([a, b, c, d], [high, low]) = (ip.octets(), port.to_be_bytes());
                Data::Value(vec![a, b, c, d, high, low, 0, 0])
            }
            Self::Id(id) => Data::Value(id.to_ne_bytes().to_vec()),
        }
    }
}

fn policy_local(key: &Key) -> String {
    let space = match key {
        Key::Entry(dest) => dest.space(),
        _ => Space::Port,
    };
    format!("{}-policy-local", space.name())
}

/// The chains that these values need.
pub fn balancers<'a>(values: impl IntoIterator<Item = &'a Value>) -> BTreeSet<Balancer> {
    let balancer = |value: &Value| match value {
        Value::Verdict(Verdict::Balancer(balancer)) => Some(*balancer),
        _ => None,
    };
    values.into_iter().filter_map(balancer).collect()
}

/// Chains that are there from the start, so that most changes are of elements alone.
pub fn common() -> BTreeSet<Balancer> {
    let balancer = |space, masquerade, count| Balancer {
        space,
        masquerade,
        count,
        local: false,
        sticky: None,
        own: false,
    };
    (1..=8)
        .flat_map(|count| {
            [
                balancer(Space::Ip, Masquerade::Foreign, count),
                balancer(Space::Port, Masquerade::Always, count),
            ]
        })
        .chain([balancer(Space::Port, Masquerade::Host, 1)])
        .collect()
}

/// The whole table anew, in one transaction: nothing of an earlier one stays.
pub fn rebuild<'a>(node: &Node, elements: impl Iterator<Item = (&'a Key, &'a Value)> + Clone) -> String {
    let mut text = format!("table ip {TABLE}\ndelete table ip {TABLE}\n{}", skeleton(node));
    let mut chains = balancers(elements.clone().map(|(_, value)| value));
    chains.extend(common());
    add_chains(&mut text, node, chains);
    add_elements(&mut text, elements);
    text
}

/// A change: elements that go, chains that are not there yet, elements that come. A changed element is in both lists.
pub fn transaction(
    node: &Node,
    removed: &BTreeMap<Key, Value>,
    chains: BTreeSet<Balancer>,
    added: &BTreeMap<Key, Value>,
) -> String {
    let mut text = String::new();
    add_chains(&mut text, node, chains);
    statements(
        &mut text,
        "delete",
        removed.keys().map(|key| (key.set(), key.to_string())),
    );
    add_elements(&mut text, added.iter());
    text
}

fn add_chains(text: &mut String, node: &Node, balancers: BTreeSet<Balancer>) {
    for (name, rules) in balancers.iter().flat_map(|balancer| balancer.chains(node)) {
        let _ = writeln!(text, "add chain ip {TABLE} {name}\nflush chain ip {TABLE} {name}");
        for rule in rules {
            let _ = writeln!(text, "add rule ip {TABLE} {name} {rule}");
        }
    }
}

/// Once no element leads to them. Of two chains the one goes first that leads to the other.
pub fn delete_chains(text: &mut String, node: &Node, balancers: &BTreeSet<Balancer>) {
    for (name, _) in balancers
        .iter()
        .flat_map(|balancer| balancer.chains(node).into_iter().rev())
    {
        let _ = writeln!(text, "flush chain ip {TABLE} {name}\ndelete chain ip {TABLE} {name}");
    }
}

fn add_elements<'a>(text: &mut String, elements: impl Iterator<Item = (&'a Key, &'a Value)>) {
    statements(
        text,
        "add",
        elements.map(|(key, value)| (key.set(), format!("{key}{}", Suffix(key, value)))),
    );
}

/// One statement per set; keys come in their order, which is by set.
fn statements(text: &mut String, verb: &str, elements: impl Iterator<Item = (String, String)>) {
    let mut sets: BTreeMap<String, String> = BTreeMap::new();
    for (set, element) in elements {
        let line = sets.entry(set).or_default();
        if !line.is_empty() {
            line.push_str(", ");
        }
        line.push_str(&element);
    }
    for (set, line) in sets {
        let _ = writeln!(text, "{verb} element ip {TABLE} {set} {{ {line} }}");
    }
}

/// The maps of one family.
fn maps(space: Space) -> String {
    let (name, key) = (space.name(), space.key());
    let mut maps = format!(
        "  map {name}-entry {{ typeof {key} : verdict; }}
  map {name}-near {{ typeof {key} : verdict; }}
  map {name}-local {{ typeof {key} : verdict; }}
  map {name}-id {{ typeof {key} . numgen random mod 2 : meta mark; }}
  map {name}-affinity {{ typeof ip saddr . {key} : meta mark; size 262144; flags dynamic,timeout; timeout 3h; }}
  set {name}-refused {{ typeof {key}; }}
  set {name}-reserved {{ typeof {key}; }}
"
    );
    for proto in PROTOS {
        let _ = write!(
            maps,
            "  map {name}-endpoint-{proto} {{ typeof {key} . numgen random mod 2 : ip daddr . {proto} dport; }}
  map {name}-by-id-{proto} {{ typeof {key} . meta mark : ip daddr . {proto} dport; }}
"
        );
    }
    maps
}

/// externalTrafficPolicy Local: the cluster's own clients may go anywhere, others to endpoints of this node.
fn local_policy(space: Space, pod_cidr: &Ipv4Net) -> String {
    let (name, key) = (space.name(), space.key());
    format!(
        "  chain {name}-policy-local {{
    ip saddr {pod_cidr} {key} vmap @{name}-near
    fib saddr type local {key} vmap @{name}-near
    {key} vmap @{name}-local
  }}
"
    )
}

/// What a packet's destination is before anything is looked up for it: nobody's but the cluster's own.
fn reserved() -> String {
    format!(
        "    {ip} @ip-reserved return
    {port} @port-reserved fib daddr type local return
",
        ip = Space::Ip.key(),
        port = Space::Port.key(),
    )
}

/// The chains that choose for a new connection.
fn services(node: &Node) -> String {
    let own_dns = node
        .dns
        .map_or(String::new(), |dns| format!("    ip daddr {dns} return\n"));
    let (ip, port) = (Space::Ip.key(), Space::Port.key());
    let reserved = reserved();
    let restricted = format!("    {ip} @restricted {ip} . ip saddr != @allowed drop\n");
    let (first, last) = (node.node_ports.start(), node.node_ports.end());
    format!(
        "  chain node-ports {{
    # a node port that is one Service's is not taken by another's external address, not even while it has no endpoints
    {port} @port-refused return
    {port} vmap @port-entry
{restricted}    {ip} vmap @ip-entry
  }}
  chain services {{
{own_dns}{reserved}    th dport {first}-{last} fib daddr type local goto node-ports
{restricted}    {ip} vmap @ip-entry
    fib daddr type local {port} vmap @port-entry
  }}
"
    )
}

/// What is always there: sets, maps, and the chains that the kernel's hooks run.
fn skeleton(node: &Node) -> String {
    let maps = [Space::Ip, Space::Port].map(maps).concat();
    let locals = [Space::Ip, Space::Port]
        .map(|space| local_policy(space, &node.pod_cidr))
        .concat();
    let (ip, port) = (Space::Ip.key(), Space::Port.key());
    let (reserved, services) = (reserved(), services(node));
    let not_dns = node.dns.map_or(String::new(), |dns| format!(" ip daddr != {dns}"));
    // One rule each: they may overlap, which what a set holds may not. A range that was named by mistake keeps nobody from this
    // node itself, and none with others in it is taken for the Services' alone.
    let ranges = node.service_cidrs.iter().filter(|range| !node.shared.contains(range));
    let ranges: String = ranges
        .map(|range| format!("    ip daddr {range}{not_dns} fib daddr type != local goto refuse\n"))
        .collect();
    format!(
        "table ip {TABLE} {{
  comment \"services and host ports of mk8s\"
{maps}  set restricted {{ typeof {ip}; }}
  set allowed {{ typeof {ip} . ip saddr; flags interval; }}
  set hairpin {{ typeof ip saddr . ip daddr; }}
{locals}{services}  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump services
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    jump services
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ct status & dnat == dnat ip saddr . ip daddr @hairpin masquerade fully-random
    meta mark & {MASQUERADE:#x} == {MASQUERADE:#x} meta mark set meta mark ^ {MASQUERADE:#x} masquerade fully-random
  }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject
  }}
  chain unanswered {{
{reserved}    # what no entry took: an address or a port of a Service that has none
{ranges}    {ip} @ip-refused goto refuse
    fib daddr type local {port} @port-refused goto refuse
  }}
  chain filter-input {{
    type filter hook input priority -110; policy accept;
    ct state new jump unanswered
  }}
  chain filter-forward {{
    type filter hook forward priority -110; policy accept;
    ct state new jump unanswered
  }}
  chain filter-output {{
    type filter hook output priority -90; policy accept;
    ct state new jump unanswered
  }}
}}
"
    )
}
