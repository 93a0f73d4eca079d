//! The way to the other nodes' pods: for each peer a route, and by VXLAN the hardware address of its device and the
//! node behind it (three entries that never need to be learned or asked for). Level-triggered: what the kernel holds is
//! compared with what should be there.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;

use crate::{
    error::Result,
    names,
    network::Mode,
    rtnl::{Route, Rtnl},
};

/// Another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    pub node_ip: Ipv4Addr,
    pub pod_cidr: Ipv4Net,
}

/// Everything that the kernel should hold, or holds, for the peers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct State {
    pub routes: BTreeSet<Route>,
    /// By VXLAN only: the peers' devices as neighbours.
    pub neighbours: BTreeSet<(Ipv4Addr, [u8; 6])>,
    /// By VXLAN only: the node behind each device.
    pub fdb: BTreeSet<([u8; 6], Ipv4Addr)>,
}

impl State {
    /// The nodes that VXLAN packets come from.
    pub fn nodes(&self) -> BTreeSet<Ipv4Addr> {
        self.fdb.iter().map(|(_, node)| *node).collect()
    }
}

/// The peers that a way is made to, and those that none is made to. What a Node says of its range steers every host's
/// packets, so it is taken only inside the cluster's network, off this node's own range, the networks of the host's links
/// and the range of a peer before it. A peer that names this node is in neither.
pub fn accepted(own: Peer, cluster: Ipv4Net, host: &[Ipv4Net], peers: &BTreeSet<Peer>) -> (Vec<Peer>, Vec<Peer>) {
    let mut taken = vec![own.pod_cidr];
    taken.extend(host);
    let others = peers.iter().copied().filter(|peer| peer.node_ip != own.node_ip);
    others.partition(|peer| {
        let range = peer.pod_cidr;
        let fits = cluster.contains(&range) && !taken.iter().any(|taken| overlap(taken, &range));
        if fits {
            taken.push(range);
        }
        fits
    })
}

/// Whether two ranges have addresses in common, by whichever address each is written.
pub fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(&other.addr()) || other.contains(&one.addr())
}

/// The ways to [`accepted`] peers. `link` is the VXLAN device's, or the link that has the node's address.
pub fn desired(mode: Mode, link: u32, peers: &[Peer]) -> State {
    let mut state = State::default();
    for peer in peers {
        match mode {
            Mode::Vxlan => {
                let (device, mac) = (peer.pod_cidr.network(), names::vxlan_mac(peer.node_ip));
                state.routes.insert(Route {
                    to: peer.pod_cidr,
                    via: device,
                    link,
                    onlink: true,
                });
                state.neighbours.insert((device, mac));
                state.fdb.insert((mac, peer.node_ip));
            }
            Mode::Routes => {
                state.routes.insert(Route {
                    to: peer.pod_cidr,
                    via: peer.node_ip,
                    link,
                    onlink: false,
                });
            }
        }
    }
    state
}

/// What the kernel holds now.
pub async fn observed(rtnl: &Rtnl, mode: Mode, link: u32) -> Result<State> {
    let mut state = State {
        routes: rtnl.routes().await?.into_iter().collect(),
        ..State::default()
    };
    if mode == Mode::Vxlan {
        state.neighbours = rtnl
            .neighbours(link)
            .await?
            .into_iter()
            .filter_map(|(address, mac)| Some((address, mac.try_into().ok()?)))
            .collect();
        state.fdb = rtnl
            .fdb(link)
            .await?
            .into_iter()
            .filter_map(|(mac, node)| Some((mac.try_into().ok()?, node)))
            .collect();
    }
    Ok(state)
}

/// Makes `wanted` of `have`. One entry that the kernel refuses (a node that no link leads to) does not keep the others
/// from being made; the first such error is returned in the end.
pub async fn apply(rtnl: &Rtnl, link: u32, have: &State, wanted: &State) -> Result<()> {
    let mut first = Ok(());
    let mut note = |result: Result<()>| {
        if let (Err(error), true) = (result, first.is_ok()) {
            first = Err(error);
        }
    };
    // Away before new: a range that moved from one node to another has two entries with one key.
    for route in have.routes.difference(&wanted.routes) {
        note(rtnl.delete_route(*route).await);
    }
    let kept: BTreeSet<_> = wanted.neighbours.iter().map(|(address, _)| *address).collect();
    for (address, _) in have.neighbours.iter().filter(|(address, _)| !kept.contains(address)) {
        note(rtnl.delete_neighbour(link, *address).await);
    }
    for (mac, node) in have.fdb.difference(&wanted.fdb) {
        note(rtnl.delete_fdb(link, mac, *node).await);
    }
    for (mac, node) in wanted.fdb.difference(&have.fdb) {
        note(rtnl.set_fdb(link, *mac, *node).await);
    }
    for (address, mac) in wanted.neighbours.difference(&have.neighbours) {
        note(rtnl.set_neighbour(link, *address, *mac).await);
    }
    for route in wanted.routes.difference(&have.routes) {
        note(rtnl.set_route(*route).await);
    }
    first
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn peer(node: u8) -> Peer {
        Peer {
            node_ip: [10, 0, 0, node].into(),
            pod_cidr: Ipv4Net::new([10, 244, node, 0].into(), 24).unwrap(),
        }
    }

    #[test]
    fn only_ranges_of_the_cluster_that_nobody_has() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let with = |node: u8, range: &str| Peer {
            pod_cidr: net(range),
            ..peer(node)
        };
        let host = [net("10.0.0.0/24"), net("10.244.77.0/24"), net("127.0.0.0/8")];
        let refused = [
            (4, "128.0.0.0/1"),
            (5, "0.0.0.0/0"),
            (6, "10.0.0.0/8"),
            (7, "10.244.0.0/15"),
            (8, "10.0.0.0/24"),
            // This node's, a part of it, more than it; another node's; the host's own network.
            (9, "10.244.1.0/24"),
            (10, "10.244.1.0/25"),
            (11, "10.244.0.0/23"),
            (12, "10.244.2.128/25"),
            (13, "10.244.3.0/24"),
            (14, "10.244.76.0/23"),
        ]
        .map(|(node, range)| with(node, range));
        // Itself, whatever its Node says, is no peer.
        let own = with(1, "10.244.99.0/24");
        let all = refused.into_iter().chain([own, peer(2), peer(3)]).collect();
        let (accepted, others) = accepted(peer(1), net("10.244.0.0/16"), &host, &all);
        assert_eq!(accepted, [peer(2), peer(3)]);
        assert_eq!(others, refused);
    }

    #[test]
    fn three_entries_per_peer() {
        let state = desired(Mode::Vxlan, 7, &[peer(2)]);
        let route = Route {
            to: peer(2).pod_cidr,
            via: [10, 244, 2, 0].into(),
            link: 7,
            onlink: true,
        };
        assert_eq!(state.routes, BTreeSet::from([route]));
        assert_eq!(
            state.fdb,
            BTreeSet::from([([0x0e, 0x6d, 10, 0, 0, 2], [10, 0, 0, 2].into())])
        );
        assert_eq!(
            state.neighbours,
            BTreeSet::from([([10, 244, 2, 0].into(), [0x0e, 0x6d, 10, 0, 0, 2])])
        );
    }

    #[test]
    fn plain_routes() {
        let state = desired(Mode::Routes, 2, &[peer(2)]);
        let route = Route {
            to: peer(2).pod_cidr,
            via: [10, 0, 0, 2].into(),
            link: 2,
            onlink: false,
        };
        assert_eq!(
            state,
            State {
                routes: BTreeSet::from([route]),
                ..State::default()
            }
        );
    }
}
