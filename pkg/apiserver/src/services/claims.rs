//! Who holds an address or a node port: an object of its own for each, an IPAddress of networking.k8s.io (named after the
//! address, as upstream's allocator makes it) or a NodePort (which only this server reads). A Service's write carries the
//! making and removing of its claims in its own transaction, and a claim is made only where there is none: so neither a
//! cancelled request nor another master can hand one out twice.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use mk8s_api::meta;
use mk8s_api::service_cidr::MANAGED_BY;
use mk8s_api::status::Status;
use mk8s_api::time;
use mk8s_store::{Expect, Op};
use serde_json::{Value, json};

use crate::managers;
use crate::object::Object;
use crate::watch_cache::{Cache, ResourceCache};
use crate::write::{self, Printed};

/// The lowest so many node ports are left to those who name theirs.
const STATIC_PORTS: u16 = 86;
const MAX_STATIC_ADDRESSES: u32 = 256;
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";

/// Something of which there is one: whoever holds it has an object of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    Address(IpAddr),
    Port(u16),
}

/// The two kinds of objects that say who holds what.
pub struct Holders {
    addresses: Arc<ResourceCache>,
    ports: Arc<ResourceCache>,
}

impl Holders {
    pub fn new(cache: &Cache) -> Option<Holders> {
        Some(Holders {
            addresses: cache.resource("networking.k8s.io", "ipaddresses")?,
            ports: cache.resource("internal.mk8s.io", "nodeports")?,
        })
    }

    fn cache(&self, claim: Claim) -> &Arc<ResourceCache> {
        match claim {
            Claim::Address(_) => &self.addresses,
            Claim::Port(_) => &self.ports,
        }
    }

    /// The object that holds it.
    pub fn holder(&self, claim: Claim) -> Option<Arc<Object>> {
        self.cache(claim).get("", &claim.name())
    }

    pub fn is_free(&self, claim: Claim) -> bool {
        self.holder(claim).is_none()
    }

    /// Makes a service the holder of something, unless somebody else is by then.
    pub fn take(&self, claim: Claim, service: &Value) -> Result<Op, Status> {
        let cache = self.cache(claim);
        let object = claim.object(service);
        let resource = cache.resource();
        let printed = Printed::of(&resource, &object, &managers::begun(&resource, &object))?;
        Ok(printed.put(cache.key("", &claim.name()), Expect::Absent).0)
    }

    /// Gives something back, where it is the service's own.
    pub fn give_back(&self, claim: Claim, service: &Value) -> Option<Op> {
        let holder = self.holder(claim)?;
        let own = holder.value().is_ok_and(|holder| holds(&holder, service));
        own.then(|| write::removal(holder.key.clone(), Expect::Revision(holder.revision)))
    }
}

/// Whether a holder's object names a service.
pub fn holds(holder: &Value, service: &Value) -> bool {
    let parent = |key| meta::string(holder, &["spec", "parentRef", key]);
    parent("group").is_empty()
        && parent("resource") == "services"
        && parent("namespace") == meta::namespace(service)
        && parent("name") == meta::name(service)
}

impl Claim {
    fn name(self) -> String {
        match self {
            Claim::Address(address) => address.to_string(),
            Claim::Port(port) => port.to_string(),
        }
    }

    fn object(self, service: &Value) -> Value {
        let parent = json!({
            "name": meta::name(service), "namespace": meta::namespace(service), "resource": "services",
        });
        let mut metadata = json!({
            "name": self.name(),
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": time::rfc3339(jiff::Timestamp::now()),
        });
        let (api_version, kind) = match self {
            Claim::Address(address) => {
                let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                metadata["labels"] = json!({FAMILY: family, MANAGED_BY.0: MANAGED_BY.1});
                ("networking.k8s.io/v1", "IPAddress")
            }
            Claim::Port(_) => ("internal.mk8s.io/v1", "NodePort"),
        };
        json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": {"parentRef": parent}})
    }
}

/// A free address of the upper part of a range, which upstream keeps for those who name none; then of all. The search
/// begins at random, so that two who search at once seldom want the same.
pub fn any_address(cidr: &IpNet, free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    // The host bits: of a large IPv6 range the lowest 2^32 addresses are enough.
    let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len()).min(32);
    let size = u32::try_from((1u64 << bits) - 1).unwrap_or(u32::MAX);
    // The last IPv4 address is the broadcast one, the first of either family the network's.
    let end = if cidr.addr().is_ipv4() {
        size
    } else {
        size.saturating_add(1)
    };
    let lower = (end / 16).clamp(16, MAX_STATIC_ADDRESSES).min(end / 2);
    let at = |offset: u32| match cidr.network() {
        IpAddr::V4(first) => IpAddr::V4((u32::from(first) + offset).into()),
        IpAddr::V6(first) => IpAddr::V6((u128::from(first) + u128::from(offset)).into()),
    };
    from_random(lower.max(1), end)
        .chain(from_random(1, lower))
        .map(at)
        .find(|address| free(*address))
}

/// A free port, of those that nobody names first.
pub fn any_port(ports: &RangeInclusive<u16>, free: impl Fn(u16) -> bool) -> Option<u16> {
    let (low, end) = (u32::from(*ports.start()), u32::from(*ports.end()) + 1);
    let lower = (low + u32::from(STATIC_PORTS)).min(end);
    from_random(lower, end)
        .chain(from_random(low, lower))
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| free(*port))
}

/// `from..to`, beginning anywhere in it.
fn from_random(from: u32, to: u32) -> impl Iterator<Item = u32> {
    let span = to.saturating_sub(from);
    let start = if span == 0 { 0 } else { rand::random::<u32>() % span };
    (start..span).chain(0..start).map(move |offset| from + offset)
}
