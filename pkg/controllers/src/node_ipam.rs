//! A share of the pod network for each node.
//!
//! Watches nodes; writes `spec.podCIDR` and `spec.podCIDRs` of those that have none. A share is free again when its node is gone.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use mk8s_client::{Event, EventRecorder, Informer};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};

const NAME: &str = "node-ipam-controller";
/// Has what is kept from nodes; no node is called so.
const NO_NODE: &str = "";

struct Controller {
    ctx: Context,
    nodes: Informer<Node>,
    networks: Arc<Mutex<Networks>>,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let settings = &ctx.settings;
    if settings.cluster_cidrs.is_empty() {
        ctx.scope.token().cancelled().await;
        return Ok(());
    }
    let networks = Networks::new(&settings.cluster_cidrs, settings.node_masks, settings.service_cidr)?;
    let networks = Arc::new(Mutex::new(networks));
    let nodes = ctx.informers.of::<Node>();
    let mut driver = Driver::new(NAME, &ctx.scope);
    driver.watch(&nodes, {
        let networks = networks.clone();
        move |event| {
            let mut networks = networks.lock();
            match event {
                Event::Applied { new, .. } => {
                    let cidrs = cidrs(new);
                    networks.occupy(&cidrs, meta::name(&**new));
                    if cidrs.is_empty() {
                        vec![Key::of(&**new)]
                    } else {
                        Vec::new()
                    }
                }
                Event::Deleted(old) => networks
                    .release(meta::name(&**old))
                    .iter()
                    .map(|waiting| Key::new("", waiting))
                    .collect(),
            }
        }
    });
    let recorder = ctx.recorder(NAME);
    let controller = Controller {
        ctx,
        nodes,
        networks,
        recorder,
    };
    driver.run(1, controller).await
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(node) = self.nodes.get(None, &key.name) else {
            return Ok(Next::Done);
        };
        if !cidrs(&node).is_empty() || meta::deleting(&*node) {
            return Ok(Next::Done);
        }
        let Some(shares) = self.networks.lock().take(&key.name) else {
            let text = format!("Node {key} status is now: CIDRNotAvailable");
            self.recorder
                .event(&meta::reference(&*node), "Normal", "CIDRNotAvailable", text);
            return Err(Error::Invalid(format!(
                "no share of the pod network is left for node {key}"
            )));
        };
        let shares: Vec<String> = shares.iter().map(ToString::to_string).collect();
        let patch =
            json!({"metadata": {"uid": meta::uid(&*node)}, "spec": {"podCIDR": shares.first(), "podCIDRs": shares}});
        let api = self.ctx.all::<Node>();
        let done = api
            .patch(&key.name, &PatchParams::default(), &Patch::Strategic(patch))
            .await;
        if done
            .tried_if_exists(|| format!("give node {key} its shares {}", shares.join(", ")))?
            .is_none()
        {
            // The node is gone; who waits for its share hears of that from the informer.
            self.networks.lock().free(&key.name);
        }
        Ok(Next::Done)
    }
}

fn cidrs(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let one = spec
        .pod_cidr
        .iter()
        .filter(|_| spec.pod_cidrs.as_ref().is_none_or(Vec::is_empty));
    spec.pod_cidrs
        .iter()
        .flatten()
        .chain(one)
        .filter_map(|text| text.parse().ok())
        .collect()
}

/// The pod networks, one for each family.
struct Networks {
    all: Vec<Shares>,
    /// Nodes for which a share was missing.
    waiting: BTreeSet<String>,
}

impl Networks {
    fn new(networks: &[IpNet], (v4, v6): (u8, u8), service: Option<IpNet>) -> Result<Self, Error> {
        let mask = |network: &IpNet| match network {
            IpNet::V4(_) => v4,
            IpNet::V6(_) => v6,
        };
        let shares = networks
            .iter()
            .map(|network| Shares::new(*network, mask(network), service));
        Ok(Networks {
            all: shares.collect::<Result<_, _>>()?,
            waiting: BTreeSet::new(),
        })
    }

    fn occupy(&mut self, cidrs: &[IpNet], node: &str) {
        for cidr in cidrs {
            self.all.iter_mut().for_each(|shares| shares.occupy(cidr, node));
        }
    }

    fn free(&mut self, node: &str) {
        self.all.iter_mut().for_each(|shares| shares.free(node));
        self.waiting.remove(node);
    }

    /// A node is gone; returns those that waited for a share.
    fn release(&mut self, node: &str) -> BTreeSet<String> {
        self.free(node);
        std::mem::take(&mut self.waiting)
    }

    /// A share of each; none at all where one is missing.
    fn take(&mut self, node: &str) -> Option<Vec<IpNet>> {
        let taken: Option<Vec<IpNet>> = self.all.iter_mut().map(|shares| shares.take(node)).collect();
        if taken.is_none() {
            self.free(node);
            self.waiting.insert(node.to_owned());
        }
        taken
    }
}

/// Who has which share of a network.
struct Shares {
    network: IpNet,
    mask: u8,
    count: u64,
    taken: HashMap<u64, String>,
    /// Of those whose networks touch more than one: a node names what it likes, and no loop is to be as long as that.
    wide: HashMap<String, Vec<RangeInclusive<u64>>>,
    next: u64,
}

impl Shares {
    fn new(network: IpNet, mask: u8, service: Option<IpNet>) -> Result<Self, Error> {
        let bits = mask
            .checked_sub(network.prefix_len())
            .filter(|_| mask <= network.max_prefix_len());
        let Some(bits) = bits else {
            return Err(Error::Invalid(format!(
                "pod network {network} is smaller than a node's share, /{mask}"
            )));
        };
        let count = 1_u64.checked_shl(u32::from(bits)).unwrap_or(u64::MAX);
        let mut shares = Shares {
            network: network.trunc(),
            mask,
            count,
            taken: HashMap::new(),
            wide: HashMap::new(),
            next: 0,
        };
        if let Some(service) = service {
            shares.occupy(&service, NO_NODE);
        }
        Ok(shares)
    }

    /// Shares that a network touches.
    fn touched(&self, cidr: &IpNet) -> Option<RangeInclusive<u64>> {
        if self.network.contains(&cidr.network()) {
            Some(self.index(cidr.network())..=self.index(cidr.broadcast()).min(self.count - 1))
        } else {
            cidr.contains(&self.network).then_some(0..=self.count - 1)
        }
    }

    fn index(&self, address: IpAddr) -> u64 {
        let width = u32::from(self.network.max_prefix_len() - self.mask);
        let offset = match (address, self.network.network()) {
            (IpAddr::V4(a), IpAddr::V4(base)) => u128::from(u32::from(a) - u32::from(base)),
            (IpAddr::V6(a), IpAddr::V6(base)) => u128::from(a) - u128::from(base),
            _ => 0,
        };
        u64::try_from(offset >> width).unwrap_or(u64::MAX)
    }

    fn share(&self, index: u64) -> Option<IpNet> {
        let width = u32::from(self.network.max_prefix_len() - self.mask);
        let offset = u128::from(index) << width;
        let address = match self.network.network() {
            IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(
                u32::from(base).checked_add(u32::try_from(offset).ok()?)?,
            )),
            IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).checked_add(offset)?)),
        };
        IpNet::new(address, self.mask).ok()
    }

    fn occupy(&mut self, cidr: &IpNet, node: &str) {
        let Some(touched) = self.touched(cidr) else { return };
        if touched.start() == touched.end() {
            let taken = self.taken.entry(*touched.start());
            taken.or_insert_with(|| node.to_owned());
            return;
        }
        let own = self.wide.entry(node.to_owned()).or_default();
        if !own.contains(&touched) {
            own.push(touched);
        }
    }

    fn free(&mut self, node: &str) {
        self.taken.retain(|_, owner| owner != node);
        self.wide.remove(node);
    }

    /// The last of the shares from here on that somebody has.
    fn taken_to(&self, index: u64) -> Option<u64> {
        let wide = self.wide.values().flatten().filter(|range| range.contains(&index));
        let last = wide.map(|range| *range.end()).max();
        last.or_else(|| self.taken.contains_key(&index).then_some(index))
    }

    /// The node's share: what it was given before, else the next free one.
    fn take(&mut self, node: &str) -> Option<IpNet> {
        if let Some((index, _)) = self.taken.iter().find(|(_, owner)| *owner == node) {
            return self.share(*index);
        }
        let first = self.next;
        let free = self.free_in(first, self.count).or_else(|| self.free_in(0, first))?;
        self.next = (free + 1) % self.count;
        self.taken.insert(free, node.to_owned());
        self.share(free)
    }

    /// The first free share of those from here to before there.
    fn free_in(&self, mut index: u64, end: u64) -> Option<u64> {
        while index < end {
            match self.taken_to(index) {
                None => return Some(index),
                Some(last) => index = last.saturating_add(1),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn networks(networks: &[&str], masks: (u8, u8), service: &str) -> Networks {
        let all: Vec<IpNet> = networks.iter().map(|network| network.parse().unwrap()).collect();
        Networks::new(&all, masks, service.parse().ok()).unwrap()
    }

    fn take(all: &mut Networks, node: &str) -> Option<String> {
        let shares = all.take(node)?;
        Some(shares.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn each_node_gets_a_free_share_and_keeps_it() {
        let mut all = networks(&["10.244.0.0/22"], (24, 64), "10.96.0.0/16");
        all.occupy(&["10.244.1.0/24".parse().unwrap()], "old");
        assert_eq!(take(&mut all, "a").as_deref(), Some("10.244.0.0/24"));
        assert_eq!(take(&mut all, "a").as_deref(), Some("10.244.0.0/24"));
        assert_eq!(take(&mut all, "b").as_deref(), Some("10.244.2.0/24"));
        assert_eq!(take(&mut all, "c").as_deref(), Some("10.244.3.0/24"));
        assert_eq!(take(&mut all, "d"), None);
        let woken = all.release("old");
        assert!(woken.iter().eq(["d"]), "who waits hears of it: {woken:?}");
        assert_eq!(take(&mut all, "d").as_deref(), Some("10.244.1.0/24"));
        assert!(all.release("d").is_empty());
    }

    #[test]
    fn a_node_gets_a_share_of_each_family_or_none() {
        let mut all = networks(&["fd00::/62", "10.244.0.0/23"], (24, 64), "");
        all.occupy(&["fd00::/64".parse().unwrap(), "10.244.1.0/24".parse().unwrap()], "old");
        assert_eq!(take(&mut all, "a").as_deref(), Some("fd00:0:0:1::/64 10.244.0.0/24"));
        assert_eq!(take(&mut all, "b"), None, "there is an IPv6 one, but no other");
        assert!(all.release("a").iter().eq(["b"]));
        assert_eq!(take(&mut all, "b").as_deref(), Some("fd00:0:0:3::/64 10.244.0.0/24"));
    }

    #[test]
    fn service_network_is_kept_out() {
        let mut all = networks(&["10.0.0.0/22"], (24, 64), "10.0.0.0/23");
        assert!(
            all.release("services").is_empty(),
            "a node of this name has nothing of it"
        );
        assert_eq!(take(&mut all, "a").as_deref(), Some("10.0.2.0/24"));
    }

    #[test]
    fn what_a_node_says_it_has_takes_no_longer_than_what_it_has() {
        let mut all = networks(&["fd00::/16"], (24, 64), "");
        for _ in 0..3 {
            all.occupy(
                &["fd00::/17".parse().unwrap(), "fd00:8000::/64".parse().unwrap()],
                "greedy",
            );
        }
        assert_eq!(take(&mut all, "a").as_deref(), Some("fd00:8000:0:1::/64"));
        all.occupy(&["::/0".parse().unwrap()], "greedier");
        assert_eq!(take(&mut all, "b"), None);
        assert!(all.release("greedier").iter().eq(["b"]));
        assert_eq!(take(&mut all, "b").as_deref(), Some("fd00:8000:0:2::/64"));
        all.release("greedy");
        assert!(all.all[0].wide.is_empty() && all.all[0].taken.len() == 2);
    }
}
