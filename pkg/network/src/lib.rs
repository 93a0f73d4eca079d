//! The node's part of the cluster network: a namespace, a veth and an address per pod on one bridge, and the way to the
//! other nodes' pods. The only user of netlink, setns, nft and iptables.
//!
//! Everything made here carries mk8s's name ([`names`]), is found again by that name after a restart, and is removed by
//! [`teardown`]. Decisions (addresses, peers, rules) are pure functions; the rest only carries them out.

mod before;
pub mod conntrack;
pub mod elements;
mod error;
pub mod firewall;
mod ipam;
pub mod monitor;
pub mod names;
pub mod netns;
mod network;
mod nfnl;
pub mod nft;
mod overlay;
pub mod resolv_conf;
mod rtnl;

pub use error::{Error, Result};
pub use network::{Attaching, Config, Mode, Network, Occupied, PodAddress, overlapping_routes, teardown};
pub use overlay::{Peer, overlap};
