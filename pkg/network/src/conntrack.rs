//! Forgets UDP flows in the kernel's connection tracking. UDP has no end of a connection: as long as a client keeps
//! sending, its packets go where the first one went, also when that endpoint is gone.
//!
//! Spoken over netlink directly: three attributes deep, and `conntrack` is one program more to install.

use std::net::Ipv4Addr;

use rtnetlink::sys::{Socket, SocketAddr};

use crate::{
    error::{Error, Result},
    nfnl::{ACK, DONE, DUMP, ERROR, FAMILY, NETLINK_NETFILTER, REQUEST, attribute, find, message, messages, refusal},
};

/// Flows to a destination: those that lead to `endpoint`, or, without one, those that were not led anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    /// None: any address (a port of this node).
    pub ip: Option<Ipv4Addr>,
    pub port: u16,
    pub endpoint: Option<(Ipv4Addr, u16)>,
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

/// Forgets all flows that one of `wanted` describes; tells how many.
pub async fn forget(wanted: Vec<Udp>) -> Result<usize> {
    mk8s_supervisor::job::blocking("network-conntrack", move || forget_now(&wanted)).await?
}

fn forget_now(wanted: &[Udp]) -> Result<usize> {
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
                    if let Some(original) = matching(attributes, wanted) {
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

/// The flow's original tuple, if it is one of those wanted.
fn matching<'a>(flow: &'a [u8], wanted: &[Udp]) -> Option<&'a [u8]> {
    let original = find(flow, TUPLE_ORIG)?;
    let (to, answer) = (tuple(original)?, tuple(find(flow, TUPLE_REPLY)?)?);
    let is_wanted = |udp: &Udp| {
        let led_by = (answer.source, answer.source_port);
        to.protocol == UDP
            && to.port == udp.port
            && udp.ip.is_none_or(|ip| ip == to.destination)
            && match udp.endpoint {
                Some(endpoint) => led_by == endpoint,
                // Nothing was translated: the answer would come from where the flow was sent.
                None => led_by == (to.destination, to.port),
            }
    };
    wanted.iter().any(is_wanted).then_some(original)
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
