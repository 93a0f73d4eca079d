//! Hears of changes to the host's nftables (iptables-nft is among them), so that nothing has to look on a timer: another
//! firewall was started or reloaded, or somebody flushed everything, mk8s's tables among it.

use std::collections::BTreeSet;

use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use crate::{
    error::{Error, Result},
    names,
    nfnl::{FAMILY, NETLINK_NETFILTER, find, messages},
    nft,
};

/// NFNLGRP_NFTABLES
const GROUP: u32 = 7;
/// Subsystem 10; which message is the low byte.
const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const DELETE_CHAIN: u16 = SUBSYSTEM | 5;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
/// Ends what one transaction changed.
const NEW_GENERATION: u16 = SUBSYSTEM | 15;
/// In every message that counts here, attribute 1 is the table's name.
const TABLE_NAME: u16 = 1;
const IPV4: u8 = 2;

const OURS: [&str; 2] = [names::TABLE, names::SERVICE_TABLE];

/// What a transaction, or several, changed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Chains or rules of others.
    pub foreign: bool,
    /// Tables of mk8s's that are not there any more.
    pub gone: BTreeSet<&'static str>,
}

pub struct Monitor {
    socket: TokioSocket,
    /// Since the last whole transaction.
    seen: Changes,
}

impl Monitor {
    /// Within a tokio runtime. From here on nothing is missed.
    pub fn open() -> Result<Self> {
        let failed = |source| Error::io("listen to changes of nftables", source);
        let mut socket = TokioSocket::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        socket.socket_mut().add_membership(GROUP).map_err(failed)?;
        Ok(Self {
            socket,
            seen: Changes::default(),
        })
    }

    /// The next change that matters. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Changes> {
        loop {
            match self.socket.recv_from_full().await {
                Ok((bytes, _)) => {
                    for (kind, body) in messages(&bytes) {
                        note(&mut self.seen, kind, body);
                        if kind == NEW_GENERATION && self.seen != Changes::default() {
                            return Ok(std::mem::take(&mut self.seen));
                        }
                    }
                }
                // More than the socket holds (a table of many thousand elements was loaded): look once.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return present().await;
                }
                Err(source) => return Err(Error::io("listen to changes of nftables", source)),
            }
        }
    }
}

fn note(seen: &mut Changes, kind: u16, body: &[u8]) {
    let name = || {
        let bytes = find(body.get(FAMILY..)?, TABLE_NAME)?;
        std::str::from_utf8(bytes).ok().map(|name| name.trim_end_matches('\0'))
    };
    let ours = || {
        let name = name().filter(|_| body.first() == Some(&IPV4))?;
        OURS.into_iter().find(|ours| *ours == name)
    };
    match kind {
        NEW_TABLE => {
            if let Some(table) = ours() {
                seen.gone.remove(table);
            }
        }
        DELETE_TABLE => match ours() {
            Some(table) => drop(seen.gone.insert(table)),
            None => seen.foreign = true,
        },
        NEW_CHAIN | DELETE_CHAIN | NEW_RULE | DELETE_RULE => seen.foreign |= ours().is_none(),
        _ => {}
    }
}

/// What a listener has to assume that has heard nothing yet, or not all.
pub async fn present() -> Result<Changes> {
    let listed = nft::list(&["list", "tables", "ip"]).await?;
    let tables = listed["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let there = |name: &str| tables.iter().any(|item| item["table"]["name"] == name);
    Ok(Changes {
        foreign: true,
        gone: OURS.into_iter().filter(|name| !there(name)).collect(),
    })
}
