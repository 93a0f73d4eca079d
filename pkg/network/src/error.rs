//! What can go wrong in the kernel's network, always with what was tried and on what.

use std::{io, net::Ipv4Addr};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {what}: {source}")]
    Netlink { what: String, source: rtnetlink::Error },
    #[error("cannot {what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{program} failed on {what}: {stderr}")]
    Program {
        program: &'static str,
        what: String,
        stderr: String,
    },
    #[error("no free pod address in {0}")]
    NoFreeAddress(ipnet::Ipv4Net),
    #[error("the node's pod range {range} is not within the cluster's, {cluster}")]
    ForeignRange {
        range: ipnet::Ipv4Net,
        cluster: ipnet::Ipv4Net,
    },
    #[error("no link of this host has the node address {0}")]
    NoLink(Ipv4Addr),
    #[error(transparent)]
    Job(#[from] mk8s_supervisor::job::JobError),
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }

    pub(crate) fn errno(what: impl Into<String>, source: nix::Error) -> Self {
        Self::Io {
            what: what.into(),
            source: source.into(),
        }
    }
}
