//! Forgets UDP flows in the kernel's connection tracking. UDP has no end of a connection: as long as a client keeps
//! sending, its packets go where the first one went, also when that endpoint is gone.
//!
//! Spoken over netlink directly: three attributes deep, and `conntrack` is one program more to install.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rtnetlink::sys::{Socket, SocketAddr};

use crate::{
    error::{Error, Result},
    nfnl::{ACK, DONE, DUMP, ERROR, FAMILY, NETLINK_NETFILTER, REQUEST, attribute, find, message, messages, refusal},
};

/// Flows to a destination: those that lead to `endpoint`, or, without one, those that were not led anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Udp {
    /// None: any address (a port of this node).
    pub ip: Option<Ipv4Addr>,
    pub port: u16,
    pub endpoint: Option<(Ipv4Addr, u16)>,
}

impl Udp {
    fn describes(&self, to: (Ipv4Addr, u16), led: (Ipv4Addr, u16)) -> bool {
        to.1 == self.port && self.ip.is_none_or(|ip| ip == to.0) && led == self.endpoint.unwrap_or(to)
    }
}

/// Where a flow is led: an address and a port.
pub type Endpoint = (Ipv4Addr, u16);

/// Where all flows to Services may lead: after a restart nobody knows what the last process left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truth {
    /// By address (none: any of this node's) and port, the endpoints.
    pub destinations: BTreeMap<(Option<Ipv4Addr>, u16), BTreeSet<Endpoint>>,
    /// The cluster's pods, and its Services.
    pub pods: Ipv4Net,
    pub services: Vec<Ipv4Net>,
}

impl Truth {
    /// Whether a flow to `to` that is led to `led` contradicts this. Flows that others translate are theirs: to a port of
    /// any address only those count that lead to a pod.
    fn contradicts(&self, to: (Ipv4Addr, u16), led: (Ipv4Addr, u16)) -> bool {
        let is_translated = led != to;
        if let Some(endpoints) = self.destinations.get(&(Some(to.0), to.1)) {
            return match is_translated {
                true => !endpoints.contains(&led),
                false => !endpoints.is_empty(),
            };
        }
        if let Some(endpoints) = self.destinations.get(&(None, to.1)) {
            return is_translated && self.pods.contains(&led.0) && !endpoints.contains(&led);
        }
        is_translated && self.services.iter().any(|range| range.contains(&to.0))
    }
}

/// Subsystem 1, connection tracking.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_SRC: u16 = 1;
const IP_DST: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_SRC: u16 = 2;
const PROTO_DST: u16 = 3;
const UDP: u8 = 17;

/// Forgets all flows that one of `gone` describes or that contradict `truth`; tells how many.
pub async fn forget(gone: Vec<Udp>, truth: Option<Truth>) -> Result<usize> {
    if gone.is_empty() && truth.is_none() {
        return Ok(0);
    }
    let is_stale = move |to: (Ipv4Addr, u16), led: (Ipv4Addr, u16)| {
        gone.iter().any(|udp| udp.describes(to, led)) || truth.as_ref().is_some_and(|truth| truth.contradicts(to, led))
    };
    mk8s_supervisor::job::blocking("network-conntrack", move || forget_now(&is_stale)).await?
}

type IsStale = dyn Fn((Ipv4Addr, u16), (Ipv4Addr, u16)) -> bool;

fn forget_now(is_stale: &IsStale) -> Result<usize> {
    let failed = |source| Error::io("talk to connection tracking", source);
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed)?;
    socket.bind_auto().map_err(failed)?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
    socket.send(&message(GET, REQUEST | DUMP, &[]), 0).map_err(failed)?;
    let mut doomed = Vec::new();
    'dump: loop {
        let (bytes, _) = socket.recv_from_full().map_err(failed)?;
        for (kind, body) in messages(&bytes) {
            match kind {
                DONE => break 'dump,
                ERROR => return Err(failed(refusal(body))),
                _ => {
                    let attributes = body.get(FAMILY..).unwrap_or_default();
                    if let Some(original) = matching(attributes, is_stale) {
                        doomed.push(original.to_vec());
                    }
                }
            }
        }
    }
    let count = doomed.len();
    for original in doomed {
        socket
            .send(
                &message(DELETE, REQUEST | ACK, &attribute(TUPLE_ORIG | 0x8000, &original)),
                0,
            )
            .map_err(failed)?;
        let (bytes, _) = socket.recv_from_full().map_err(failed)?;
        for (kind, body) in messages(&bytes) {
            let refusal = refusal(body);
            // It may have ended by itself meanwhile.
            if kind == ERROR && !matches!(refusal.raw_os_error(), Some(0 | libc::ENOENT)) {
                return Err(failed(refusal));
            }
        }
    }
    Ok(count)
}

/// The original tuple of a UDP flow, if that is stale.
fn matching<'a>(flow: &'a [u8], is_stale: &IsStale) -> Option<&'a [u8]> {
    let original = find(flow, TUPLE_ORIG)?;
    let (to, answer) = (tuple(original)?, tuple(find(flow, TUPLE_REPLY)?)?);
    // Untranslated, the answer comes from where the flow was sent.
    let is_stale = to.protocol == UDP && is_stale((to.destination, to.port), (answer.source, answer.source_port));
    is_stale.then_some(original)
}

struct Tuple {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    source_port: u16,
    port: u16,
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (ip, proto) = (find(bytes, TUPLE_IP)?, find(bytes, TUPLE_PROTO)?);
    let address = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(find(ip, kind)?).ok()?));
    let port = |kind| Some(u16::from_be_bytes(find(proto, kind)?.try_into().ok()?));
    Some(Tuple {
        source: address(IP_SRC)?,
        destination: address(IP_DST)?,
        protocol: *find(proto, PROTO_NUM)?.first()?,
        source_port: port(PROTO_SRC)?,
        port: port(PROTO_DST)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_contradicts_the_services_is_stale() {
        let at = |text: &str| {
            let address: std::net::SocketAddrV4 = text.parse().unwrap();
            (*address.ip(), address.port())
        };
        let served = BTreeSet::from([at("10.244.1.5:53")]);
        let truth = Truth {
            destinations: BTreeMap::from([
                ((Some([10, 96, 0, 10].into()), 53), served.clone()),
                ((Some([10, 96, 0, 11].into()), 53), BTreeSet::new()),
                ((None, 30053), served),
            ]),
            pods: "10.244.0.0/16".parse().unwrap(),
            services: vec!["10.96.0.0/16".parse().unwrap()],
        };
        for (to, led, stale) in [
            ("10.96.0.10:53", "10.244.1.5:53", false),
            ("10.96.0.10:53", "10.244.1.6:53", true),
            // Sent before there was an endpoint.
            ("10.96.0.10:53", "10.96.0.10:53", true),
            ("10.96.0.11:53", "10.244.1.5:53", true),
            ("10.96.0.11:53", "10.96.0.11:53", false),
            // A Service that is gone.
            ("10.96.0.12:53", "10.244.1.5:53", true),
            ("10.0.0.1:30053", "10.244.1.5:53", false),
            ("10.0.0.1:30053", "10.244.1.6:53", true),
            // Not ours: the world's, and another's port mapping.
            ("8.8.8.8:30053", "8.8.8.8:30053", false),
            ("10.0.0.1:30053", "172.17.0.2:53", false),
            ("8.8.8.8:53", "8.8.8.8:53", false),
            ("10.0.0.1:53", "172.17.0.2:53", false),
        ] {
            assert_eq!(truth.contradicts(at(to), at(led)), stale, "{to} led to {led}");
        }
    }
}
