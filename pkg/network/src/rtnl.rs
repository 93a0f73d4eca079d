//! Netlink in the words of this crate. Every call says what it wanted in its error; what exists already, or is gone
//! already, is success.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use futures::{FutureExt, Stream, StreamExt, TryStreamExt, channel::mpsc::UnboundedReceiver};
use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressAttribute,
    link::{InfoBridgePort, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
    },
};
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan,
    MulticastGroup, RouteMessageBuilder,
    packet_core::{NetlinkMessage, NetlinkPayload},
    sys::SocketAddr,
};

use mk8s_supervisor::job;

use crate::{
    error::{Error, Result},
    names,
};

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Clone)]
pub struct Rtnl(Handle);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    pub mac: Vec<u8>,
    pub kind: Option<InfoKind>,
    data: Option<InfoData>,
}

impl Link {
    /// The local address of a VXLAN device.
    pub fn vxlan_local(&self) -> Option<Ipv4Addr> {
        let Some(InfoData::Vxlan(data)) = &self.data else {
            return None;
        };
        data.iter().find_map(|info| match info {
            netlink_packet_route::link::InfoVxlan::Local(local) => Some(*local),
            _ => None,
        })
    }
}

/// A route of the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignRoute {
    pub to: Ipv4Net,
    /// None where it leads by several, or nowhere.
    pub link: Option<u32>,
    /// It is none that lets nothing pass.
    pub leads: bool,
}

/// A route of mk8s's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub to: Ipv4Net,
    pub via: Ipv4Addr,
    pub link: u32,
    /// Take the gateway to be on the link, whatever the link's own addresses say.
    pub onlink: bool,
}

fn tried<T>(what: impl FnOnce() -> String, result: Result<T, rtnetlink::Error>) -> Result<T> {
    result.map_err(|source| Error::Netlink { what: what(), source })
}

fn errno(error: &rtnetlink::Error) -> i32 {
    match error {
        rtnetlink::Error::NetlinkError(message) => -message.raw_code(),
        _ => 0,
    }
}

/// Success too if the kernel answers one of `codes`.
fn unless(codes: &[i32], result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if codes.contains(&errno(&error)) => Ok(()),
        other => other,
    }
}

async fn collect<T>(stream: impl Stream<Item = Result<T, rtnetlink::Error>>) -> Result<Vec<T>, rtnetlink::Error> {
    stream.try_collect().await
}

impl Rtnl {
    /// Within a tokio runtime. The task that serves the socket ends with its last handle.
    pub fn open() -> Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|source| Error::io("open a netlink socket", source))?;
        drop(job::spawn("network-netlink", connection));
        Ok(Self(handle))
    }

    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        match collect(self.0.link().get().match_name(name).execute()).await {
            Ok(found) => Ok(found.into_iter().next().map(link)),
            Err(error) if errno(&error) == libc::ENODEV => Ok(None),
            Err(source) => Err(Error::Netlink {
                what: format!("look up link {name}"),
                source,
            }),
        }
    }

    pub async fn links(&self) -> Result<Vec<Link>> {
        let found = collect(self.0.link().get().execute()).await;
        Ok(tried(|| "list links".into(), found)?.into_iter().map(link).collect())
    }

    async fn made(&self, name: &str) -> Result<Link> {
        self.link(name)
            .await?
            .ok_or_else(|| Error::Invalid(format!("link {name} went away as soon as it was made")))
    }

    pub async fn delete_link(&self, link: &Link) -> Result<()> {
        let done = self.0.link().del(link.index).execute().await;
        tried(|| format!("delete link {}", link.name), unless(&[libc::ENODEV], done))
    }

    pub async fn delete_link_named(&self, name: &str) -> Result<()> {
        let message = LinkUnspec::new_with_name(name).build();
        let done = self.0.link().del_with_message(message).execute().await;
        tried(|| format!("delete link {name}"), unless(&[libc::ENODEV], done))
    }

    pub async fn add_bridge(&self, name: &str, mac: [u8; 6], mtu: u32) -> Result<Link> {
        let message = LinkBridge::new(name).address(mac.to_vec()).mtu(mtu).up().build();
        tried(
            || format!("add bridge {name}"),
            self.0.link().add(message).execute().await,
        )?;
        self.made(name).await
    }

    pub async fn add_vxlan(&self, name: &str, local: Ipv4Addr, mac: [u8; 6], mtu: u32) -> Result<Link> {
        // No underlying link is named: which one leads to a peer is the routing table's matter.
        let message = LinkVxlan::new(name, names::VXLAN_ID)
            .port(names::VXLAN_PORT)
            .local(local)
            .learning(false)
            .address(mac.to_vec())
            .mtu(mtu)
            .up()
            .build();
        tried(
            || format!("add VXLAN link {name}"),
            self.0.link().add(message).execute().await,
        )?;
        self.made(name).await
    }

    /// A veth whose other end is `eth0` in the namespace behind `netns`, down as yet (the kernel refuses to set one end
    /// up before both are there).
    pub async fn add_veth(
        &self,
        name: &str,
        bridge: &Link,
        netns: std::os::fd::RawFd,
        mac: [u8; 6],
        mtu: u32,
    ) -> Result<Link> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name("eth0")
            .address(mac.to_vec())
            .mtu(mtu)
            .setns_by_fd(netns)
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .controller(bridge.index)
            .mtu(mtu)
            .up()
            .build();
        // Both are sent at once; the kernel takes them in order.
        let (added, found) = futures::join!(self.0.link().add(message).execute(), self.link(name));
        tried(|| format!("add veth {name}"), added)?;
        found?.ok_or_else(|| Error::Invalid(format!("link {name} went away as soon as it was made")))
    }

    /// Makes the host side of a veth the bridge's port for this hardware address and no other. A port that learns would let
    /// a pod take its neighbour's packets by one frame in its name; one that is locked (Linux 5.18 and later, others pass
    /// over it) takes no such frame at all.
    pub async fn set_pod_port(&self, link: &Link, mac: [u8; 6]) -> Result<()> {
        let address = self
            .0
            .neighbours()
            .add_bridge(link.index, &mac)
            .flags(NeighbourFlags::Controller)
            .state(NeighbourState::Noarp)
            .replace();
        let port = LinkBridgePort::new(link.index)
            .append_info_data(InfoBridgePort::Learning(false))
            .append_info_data(InfoBridgePort::Locked(true))
            // With bridge-nf-call-iptables on, a pod's connection to itself by its Service never leaves the bridge.
            .append_info_data(InfoBridgePort::HairpinMode(true))
            .build();
        let (known, set) = futures::join!(address.execute(), self.0.link().set_port(port).execute());
        tried(|| format!("make the pod's address known at {}", link.name), known)?;
        tried(|| format!("set up {} as a port of the bridge", link.name), set)
    }

    pub async fn set_up(&self, link: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(link).up().build();
        tried(
            || format!("set link {link} up"),
            self.0.link().change(message).execute().await,
        )
    }

    pub async fn set_mtu(&self, link: &Link, mtu: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(link.index).mtu(mtu).build();
        tried(
            || format!("set the MTU of {} to {mtu}", link.name),
            self.0.link().change(message).execute().await,
        )
    }

    pub async fn set_mac(&self, link: &Link, mac: [u8; 6]) -> Result<()> {
        let message = LinkUnspec::new_with_index(link.index).address(mac.to_vec()).build();
        tried(
            || format!("set the hardware address of {}", link.name),
            self.0.link().change(message).execute().await,
        )
    }

    /// IPv4 addresses with their prefix length, of one link or of all: (link, address, length).
    pub async fn addresses(&self, link: Option<u32>) -> Result<Vec<(u32, Ipv4Addr, u8)>> {
        let mut request = self.0.address().get();
        request.message_mut().header.family = AddressFamily::Inet;
        if let Some(link) = link {
            request = request.set_link_index_filter(link);
        }
        let found = tried(|| "list addresses".into(), collect(request.execute()).await)?;
        Ok(found
            .into_iter()
            .filter_map(|message| {
                let address = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                    _ => None,
                })?;
                Some((message.header.index, address, message.header.prefix_len))
            })
            .collect())
    }

    pub async fn add_address(&self, link: u32, address: Ipv4Addr, prefix: u8) -> Result<()> {
        let done = self.0.address().add(link, address.into(), prefix).execute().await;
        tried(
            || format!("add address {address}/{prefix}"),
            unless(&[libc::EEXIST], done),
        )
    }

    pub async fn delete_address(&self, link: u32, address: Ipv4Addr, prefix: u8) -> Result<()> {
        let message = AddressMessageBuilder::<Ipv4Addr>::new()
            .index(link)
            .address(address, prefix)
            .build();
        let done = self.0.address().del(message).execute().await;
        tried(
            || format!("delete address {address}/{prefix}"),
            unless(&[libc::EADDRNOTAVAIL, libc::ENODEV], done),
        )
    }

    pub async fn set_neighbour(&self, link: u32, address: Ipv4Addr, mac: [u8; 6]) -> Result<()> {
        let request = self
            .0
            .neighbours()
            .add(link, address.into())
            .link_layer_address(&mac)
            .replace();
        tried(|| format!("set neighbour {address}"), request.execute().await)
    }

    pub async fn delete_neighbour(&self, link: u32, address: Ipv4Addr) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = link;
        message
            .attributes
            .push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
        let done = self.0.neighbours().del(message).execute().await;
        tried(
            || format!("delete neighbour {address}"),
            unless(&[libc::ENOENT, libc::ENODEV], done),
        )
    }

    /// Permanent IPv4 neighbours of a link.
    pub async fn neighbours(&self, link: u32) -> Result<Vec<(Ipv4Addr, Vec<u8>)>> {
        let request = self.0.neighbours().get().set_address_family(AddressFamily::Inet);
        let found = tried(|| "list neighbours".into(), collect(request.execute()).await)?;
        Ok(permanent(found, link)
            .filter_map(|message| Some((destination(&message)?, hardware_address(&message)?)))
            .collect())
    }

    /// "This hardware address is behind that node."
    pub async fn set_fdb(&self, link: u32, mac: [u8; 6], node: Ipv4Addr) -> Result<()> {
        let request = self
            .0
            .neighbours()
            .add_bridge(link, &mac)
            .destination(node.into())
            .flags(NeighbourFlags::Own)
            .replace();
        tried(
            || format!("set the forwarding entry of node {node}"),
            request.execute().await,
        )
    }

    pub async fn delete_fdb(&self, link: u32, mac: &[u8], node: Ipv4Addr) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = link;
        message.header.state = NeighbourState::Permanent;
        message.header.flags = NeighbourFlags::Own;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        message
            .attributes
            .push(NeighbourAttribute::Destination(NeighbourAddress::Inet(node)));
        let done = self.0.neighbours().del(message).execute().await;
        tried(
            || format!("delete the forwarding entry of node {node}"),
            unless(&[libc::ENOENT, libc::ENODEV], done),
        )
    }

    pub async fn fdb(&self, link: u32) -> Result<Vec<(Vec<u8>, Ipv4Addr)>> {
        let request = self.0.neighbours().get().set_address_family(AddressFamily::Bridge);
        let found = tried(|| "list forwarding entries".into(), collect(request.execute()).await)?;
        Ok(permanent(found, link)
            .filter_map(|message| Some((hardware_address(&message)?, destination(&message)?)))
            .collect())
    }

    /// mk8s's own routes.
    pub async fn routes(&self) -> Result<Vec<Route>> {
        let request = self.0.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let found = tried(|| "list routes".into(), collect(request.execute()).await)?;
        Ok(found.into_iter().filter(is_ours).filter_map(route).collect())
    }

    /// The main table's IPv4 routes that mk8s did not make.
    pub async fn foreign_routes(&self) -> Result<Vec<ForeignRoute>> {
        let request = self.0.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build());
        // One by one: of a whole table of the internet's routes only what counts is kept.
        let foreign = request.execute().try_filter_map(|message| {
            let is_foreign = is_in_main(&message) && !is_ours(&message);
            let destination = destination_of(&message).filter(|_| is_foreign);
            std::future::ready(Ok(destination.map(|to| ForeignRoute {
                to,
                link: message.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Oif(link) => Some(*link),
                    _ => None,
                }),
                leads: leads(&message),
            })))
        });
        tried(|| "list routes".into(), collect(foreign).await)
    }

    /// Where another's route to the same range is, that one stays and this is an error.
    pub async fn set_route(&self, route: Route) -> Result<()> {
        let mut message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(route.to.addr(), route.to.prefix_len())
            .gateway(route.via)
            .output_interface(route.link)
            .protocol(RouteProtocol::from(names::ROUTE_PROTOCOL));
        if route.onlink {
            message = message.onlink();
        }
        let done = self.0.route().add(message.build()).execute().await;
        tried(|| format!("route {} by {}", route.to, route.via), done)
    }

    /// A range that is reached by a link without a gateway, whoever's route was there.
    pub async fn set_link_route(&self, to: Ipv4Net, link: u32) -> Result<()> {
        tried(
            || format!("route {to} to the bridge"),
            self.0.route().add(link_route(to, link)).replace().execute().await,
        )
    }

    /// As [`Rtnl::set_link_route`], but another's route to the same range stays; false then.
    pub async fn add_link_route(&self, to: Ipv4Net, link: u32) -> Result<bool> {
        let done = match self.0.route().add(link_route(to, link)).execute().await {
            Err(error) if errno(&error) == libc::EEXIST => Ok(false),
            done => done.map(|()| true),
        };
        tried(|| format!("route {to} to the bridge"), done)
    }

    pub async fn delete_link_route(&self, to: Ipv4Net, link: u32) -> Result<()> {
        let done = self.0.route().del(link_route(to, link)).execute().await;
        tried(
            || format!("delete the route of {to} to the bridge"),
            unless(&[libc::ESRCH, libc::ENODEV], done),
        )
    }

    /// The ranges that mk8s's own routes lead to by this link without a gateway.
    pub async fn link_routes(&self, link: u32) -> Result<BTreeSet<Ipv4Net>> {
        let request = self.0.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let found = tried(|| "list routes".into(), collect(request.execute()).await)?;
        let by_link = |message: &RouteMessage| {
            let attributes = &message.attributes;
            let has_gateway = attributes.iter().any(|own| matches!(own, RouteAttribute::Gateway(_)));
            !has_gateway && attributes.contains(&RouteAttribute::Oif(link))
        };
        let ours = found.iter().filter(|message| is_ours(message) && by_link(message));
        Ok(ours.filter_map(destination_of).collect())
    }

    pub async fn delete_route(&self, route: Route) -> Result<()> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(route.to.addr(), route.to.prefix_len())
            .gateway(route.via)
            .output_interface(route.link)
            .protocol(RouteProtocol::from(names::ROUTE_PROTOCOL))
            .build();
        let done = self.0.route().del(message).execute().await;
        tried(
            || format!("delete the route to {}", route.to),
            unless(&[libc::ESRCH, libc::ENODEV], done),
        )
    }

    /// In a pod: the gateway is on the link, and everything goes by it.
    pub async fn set_pod_routes(&self, link: u32, gateway: Ipv4Addr) -> Result<()> {
        let near = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(gateway, 32)
            .output_interface(link)
            .scope(RouteScope::Link)
            .build();
        let all = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .output_interface(link)
            .build();
        // Sent in this order, and so taken.
        let (near, all) = futures::join!(self.0.route().add(near).execute(), self.0.route().add(all).execute());
        tried(|| format!("route everything by {gateway}"), near.and(all))
    }
}

/// What a [`RouteMonitor`] heard.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Heard {
    /// A route of mk8s's is deleted, or may have gone with its link.
    pub lost: bool,
    /// There was more to hear than the socket holds, and nobody tells it again.
    pub overrun: bool,
    /// A link of others' is gone or down, and with it the routes that it had.
    pub link_lost: bool,
    /// Where the host has another route of its own to, or one less.
    pub others: BTreeSet<Ipv4Net>,
}

impl Heard {
    /// `own`: the links by which mk8s's routes lead.
    fn note(&mut self, message: NetlinkMessage<RouteNetlinkMessage>, own: [u32; 2]) {
        let message = match message.payload {
            NetlinkPayload::InnerMessage(message) => message,
            NetlinkPayload::Overrun(_) => return self.overrun = true,
            _ => return,
        };
        match message {
            RouteNetlinkMessage::DelRoute(route) if is_ours(&route) => self.lost = true,
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)
                if is_in_main(&route) && !is_ours(&route) =>
            {
                self.others.extend(destination_of(&route));
            }
            // A port of a bridge is told of as such, too.
            RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)
                if message.header.interface_family == AddressFamily::Bridge => {}
            RouteNetlinkMessage::NewLink(message) => {
                let LinkHeader {
                    index,
                    flags,
                    change_mask,
                    ..
                } = message.header;
                let has_turned = change_mask.contains(LinkFlags::Up);
                self.lost |= has_turned && own.contains(&index);
                self.link_lost |= has_turned && !flags.contains(LinkFlags::Up) && !own.contains(&index);
            }
            RouteNetlinkMessage::DelLink(message) if own.contains(&message.header.index) => self.lost = true,
            RouteNetlinkMessage::DelLink(_) => self.link_lost = true,
            _ => {}
        }
    }
}

/// Hears when a route of the main table comes or goes, when a link goes up or down or away (one that goes takes its routes
/// along without a word of them), and when there was more to hear than its socket holds.
pub struct RouteMonitor(UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>);

impl RouteMonitor {
    /// Within a tokio runtime.
    pub fn open() -> Result<Self> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Route];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(|source| Error::io("listen to changes of routes", source))?;
        drop(job::spawn("network-netlink", connection));
        Ok(Self(messages))
    }

    /// The next loss, possible loss by mk8s's `own` links, or change of others' routes, with all that came since the last call.
    /// May be dropped and called again.
    pub async fn next(&mut self, own: [u32; 2]) -> Result<Heard> {
        while let Some((message, _)) = self.0.next().await {
            let mut heard = Heard::default();
            heard.note(message, own);
            while let Some(Some((message, _))) = self.0.next().now_or_never() {
                heard.note(message, own);
            }
            if heard != Heard::default() {
                return Ok(heard);
            }
        }
        Err(Error::Invalid(
            "the netlink socket for changes of routes is closed".into(),
        ))
    }
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        mac: Vec::new(),
        kind: None,
        data: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(mac) => link.mac = mac,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = Some(kind),
                        LinkInfo::Data(data) => link.data = Some(data),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}

fn permanent(found: Vec<NeighbourMessage>, link: u32) -> impl Iterator<Item = NeighbourMessage> {
    found
        .into_iter()
        .filter(move |message| message.header.ifindex == link && message.header.state == NeighbourState::Permanent)
}

fn destination(message: &NeighbourMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
        // In entries of the bridge family the address has no family of its own.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from)
        }
        _ => None,
    })
}

fn hardware_address(message: &NeighbourMessage) -> Option<Vec<u8>> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => Some(mac.clone()),
        _ => None,
    })
}

fn link_route(to: Ipv4Net, link: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(to.addr(), to.prefix_len())
        .output_interface(link)
        .scope(RouteScope::Link)
        .protocol(RouteProtocol::from(names::ROUTE_PROTOCOL))
        .build()
}

/// Not what the kernel learned of a way's size or of a better gateway, which it lists among the routes.
fn is_in_main(message: &RouteMessage) -> bool {
    let header = &message.header;
    let is_route = !header.flags.contains(RouteFlags::Cloned);
    is_route && header.address_family == AddressFamily::Inet && header.table == RouteHeader::RT_TABLE_MAIN
}

/// Whether packets go anywhere by it.
fn leads(message: &RouteMessage) -> bool {
    let kind = message.header.kind;
    !matches!(
        kind,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw
    )
}

fn is_ours(message: &RouteMessage) -> bool {
    message.header.protocol == RouteProtocol::from(names::ROUTE_PROTOCOL)
}

fn destination_of(message: &RouteMessage) -> Option<Ipv4Net> {
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
            _ => None,
        })
        .unwrap_or(Ipv4Addr::UNSPECIFIED);
    Ipv4Net::new(address, message.header.destination_prefix_length).ok()
}

fn route(message: RouteMessage) -> Option<Route> {
    let to = destination_of(&message)?;
    let (mut via, mut link) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => via = Some(*address),
            RouteAttribute::Oif(index) => link = Some(*index),
            _ => {}
        }
    }
    let onlink = message.header.flags.contains(RouteFlags::Onlink);
    Some(Route {
        to,
        via: via?,
        link: link?,
        onlink,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_the_kernel_learned_of_a_way_is_no_route() {
        let mut message = RouteMessageBuilder::<Ipv4Addr>::new().build();
        assert!(is_in_main(&message));
        message.header.flags = RouteFlags::Cloned;
        assert!(!is_in_main(&message));
    }

    /// Whoever looks for the host's routes first may be too slow.
    #[test]
    fn a_route_of_another_s_to_the_same_range_stays() {
        let work = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let script = "ip link add b0 type bridge; ip link set b0 up; ip route add 10.98.0.0/16 dev b0 scope link";
            let done = std::process::Command::new("sh").args(["-ec", script]).status().unwrap();
            assert!(done.success());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let rtnl = Rtnl::open().unwrap();
                let link = rtnl.link("b0").await.unwrap().unwrap().index;
                let [theirs, free] = ["10.98.0.0/16", "10.99.0.0/16"].map(|to| to.parse().unwrap());
                assert!(!rtnl.add_link_route(theirs, link).await.unwrap());
                assert!(rtnl.add_link_route(free, link).await.unwrap());
                assert_eq!(rtnl.link_routes(link).await.unwrap(), [free].into());
            });
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "a panic in a test's own thread is the test's failure"
        )]
        std::thread::spawn(work).join().unwrap();
    }

    /// A link that only got another name, or a port, has lost no route.
    #[test]
    fn links_count_that_go_up_down_or_away() {
        let note = |away: bool, index: u32, flags: LinkFlags, changed: LinkFlags| {
            let mut message = LinkMessage::default();
            message.header.index = index;
            (message.header.flags, message.header.change_mask) = (flags, changed);
            let message = match away {
                true => RouteNetlinkMessage::DelLink(message),
                false => RouteNetlinkMessage::NewLink(message),
            };
            let mut heard = Heard::default();
            heard.note(message.into(), [7, 8]);
            (heard.lost, heard.link_lost)
        };
        let (up, none) = (LinkFlags::Up, LinkFlags::empty());
        assert_eq!(note(false, 8, up, none), (false, false));
        assert_eq!(note(false, 8, up, up), (true, false));
        assert_eq!(note(false, 7, none, up), (true, false));
        assert_eq!(note(true, 7, none, none), (true, false));
        assert_eq!(note(false, 9, up, up), (false, false));
        assert_eq!(note(false, 9, none, up), (false, true));
        assert_eq!(note(true, 9, none, none), (false, true));
    }
}
