//! What pods claim of devices (<https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/>): claims, classes,
//! the devices that drivers publish, and which of them are given away or about to be.

mod candidates;
mod clock;
mod found;
mod names;
mod pools;
mod reserved;
mod selectors;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};
use smallvec::SmallVec;

pub use candidates::{Candidate, Cursor, next};
pub use clock::{Clock, Over};
pub use found::{Found, Picked};
pub use names::DeviceId;
pub use pools::{Device, NodePool, Slice, State};
pub use reserved::{Reserved, Written};
pub use selectors::{Selector, SelectorError};

use crate::cluster::NodeInfo;

/// See the module.
#[derive(Debug, Default)]
pub struct Claims {
    /// By namespace and name.
    all: HashMap<Box<str>, HashMap<Box<str>, Arc<ResourceClaim>>>,
    classes: HashMap<Box<str>, Arc<DeviceClass>>,
    pools: pools::Pools,
    selectors: selectors::Selectors,
    names: names::Names,
    reserved: reserved::Reservations,
    found: Found,
}

impl Claims {
    /// A claim came or changed, seen or written. What is older than what is known is not looked at.
    pub fn set(&mut self, claim: Arc<ResourceClaim>) {
        let meta = &claim.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        let known = self.get(namespace, name).cloned();
        if known.as_ref().is_some_and(|known| is_older(&claim, known)) {
            return;
        }
        self.take(claim.status.as_ref().and_then(|status| status.allocation.as_ref()));
        let of_namespace = self.all.entry(namespace.into()).or_default();
        let before = of_namespace.insert(name.into(), claim.clone());
        self.give_back(before.as_deref().and_then(allocation));
    }

    /// A claim went.
    pub fn remove(&mut self, claim: &ResourceClaim) {
        let meta = &claim.metadata;
        let (namespace, name) = (
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        );
        let Some(of_namespace) = self.all.get_mut(namespace) else {
            return;
        };
        let gone = of_namespace.remove(name);
        if of_namespace.is_empty() {
            self.all.remove(namespace);
        }
        self.give_back(gone.as_deref().and_then(allocation));
    }

    /// A claim by its name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<ResourceClaim>> {
        self.all.get(namespace)?.get(name)
    }

    /// A class came or changed.
    pub fn set_class(&mut self, class: Arc<DeviceClass>) {
        let name = class.metadata.name.as_deref().unwrap_or_default().into();
        self.classes.insert(name, class);
    }

    /// A class went.
    pub fn remove_class(&mut self, name: &str) {
        self.classes.remove(name);
    }

    /// A class by its name.
    pub fn class(&self, name: &str) -> Option<&DeviceClass> {
        self.classes.get(name).map(|class| &**class)
    }

    /// A slice came or changed.
    pub fn set_slice(&mut self, slice: &Arc<ResourceSlice>) {
        self.pools.set(slice, &mut self.names, &mut self.selectors);
    }

    /// A slice went.
    pub fn remove_slice(&mut self, name: &str) {
        self.pools.remove(name, &mut self.names, &mut self.selectors);
    }

    /// The pools that a node reaches.
    pub fn pools_of(&self, node: &NodeInfo) -> SmallVec<[NodePool<'_>; 4]> {
        self.pools.of(node)
    }

    /// Whether somebody has a device for himself, or is about to.
    pub fn is_taken(&self, device: DeviceId) -> bool {
        self.names.is_taken(device)
    }

    /// Before a decision, which may search for so long: has at hand what selects devices for these claims.
    pub fn prepare(&mut self, claims: &[Arc<ResourceClaim>], timeout: Option<Duration>) {
        self.settle();
        self.found = Found::new(timeout);
        let classes = &self.classes;
        let wanted = claims.iter().filter(|claim| allocation(claim).is_none());
        self.selectors
            .prepare(wanted.flat_map(|claim| expressions(claim, classes)));
    }

    /// What the decision at hand has found.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The time that it has.
    pub fn clock(&self) -> &Clock {
        &self.found.clock
    }

    /// One of those that were prepared.
    pub fn selector(&self, expression: &str) -> Option<&Selector> {
        self.selectors.get(expression)
    }

    fn take(&mut self, allocation: Option<&AllocationResult>) {
        for name in exclusive(allocation) {
            self.names.take(&name);
        }
    }

    fn give_back(&mut self, allocation: Option<&AllocationResult>) {
        for name in exclusive(allocation) {
            self.names.give_back(&name);
        }
    }
}

/// What a claim has.
pub fn allocation(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

/// The devices of an allocation that nobody else may have. An administrator looks over others' shoulders.
fn exclusive(allocation: Option<&AllocationResult>) -> impl Iterator<Item = String> {
    let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
    let results = devices
        .and_then(|devices| devices.results.as_ref())
        .into_iter()
        .flatten();
    results
        .filter(|result| result.admin_access != Some(true))
        .map(|result| names::name(&result.driver, &result.pool, &result.device))
}

/// All that selects devices for a claim: of the classes, and its own.
fn expressions<'c>(
    claim: &'c ResourceClaim,
    classes: &'c HashMap<Box<str>, Arc<DeviceClass>>,
) -> impl Iterator<Item = &'c str> {
    let requests = claim
        .spec
        .devices
        .iter()
        .flat_map(|devices| devices.requests.iter().flatten());
    let choices = requests.flat_map(|request| {
        let exactly = request
            .exactly
            .iter()
            .map(|own| (&own.device_class_name, &own.selectors));
        let choices = request.first_available.iter().flatten();
        exactly.chain(choices.map(|own| (&own.device_class_name, &own.selectors)))
    });
    let selectors = choices.flat_map(|(class, own)| {
        let class = classes
            .get(class.as_str())
            .and_then(|class| class.spec.selectors.as_ref());
        class.into_iter().chain(own).flatten()
    });
    selectors.filter_map(|selector| Some(selector.cel.as_ref()?.expression.as_str()))
}

/// An object's revision. Those of one object can be compared.
pub(super) fn revision(claim: &ResourceClaim) -> u64 {
    let revision = claim.metadata.resource_version.as_deref();
    revision.and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

fn is_older(claim: &ResourceClaim, known: &ResourceClaim) -> bool {
    claim.metadata.uid == known.metadata.uid && revision(claim) < revision(known)
}
