//! Cluster DNS, answered by every node itself for its pods, from the informers that the node has anyway.
//!
//! `index` knows the names (pure), `answer` makes a response of a query (pure), `upstream` asks the host's resolvers for
//! everything else, `server` listens, `run` keeps the index at what the informers say.

mod answer;
mod index;
mod run;
mod server;
mod upstream;

pub use answer::{Decision, decide};
pub use index::{Entry, Index, entry};
pub use run::{Error, run};

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

#[derive(Debug, Clone)]
pub struct Config {
    /// cluster.local
    pub domain: String,
    /// The address of Service kube-system/kube-dns: the only one that is listened on. It need not be there yet.
    pub address: Ipv4Addr,
    /// Reverse names in these ranges are never asked of the host's resolvers.
    pub service_cidr: Ipv4Net,
    pub cluster_cidr: Ipv4Net,
}
