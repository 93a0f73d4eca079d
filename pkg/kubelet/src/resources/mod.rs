//! What a pod may use: quantities, QoS class, cgroup names and the numbers that go into them.

pub mod cgroup;
pub mod qos;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod;

/// Rounded up to whole units; an unreadable quantity (admission lets none through) counts as nothing.
pub fn value(quantity: &Quantity) -> i64 {
    mk8s_api::quantity::Quantity::parse(&quantity.0).map_or(0, |q| q.value().max(0))
}

/// Rounded up to thousandths.
pub fn milli(quantity: &Quantity) -> i64 {
    mk8s_api::quantity::Quantity::parse(&quantity.0).map_or(0, |q| q.milli_value().max(0))
}

/// The number a resource is counted in: thousandths for cpu, whole units for all others.
pub fn amount(name: &str, quantity: &Quantity) -> i64 {
    if name == "cpu" {
        milli(quantity)
    } else {
        value(quantity)
    }
}

pub fn request(container: &Container, name: &str) -> Option<i64> {
    let resources = container.resources.as_ref()?;
    resources.requests.as_ref()?.get(name).map(|q| amount(name, q))
}

pub fn limit(container: &Container, name: &str) -> Option<i64> {
    let resources = container.resources.as_ref()?;
    resources.limits.as_ref()?.get(name).map(|q| amount(name, q))
}

/// What the pod asks of a node: the larger of the sum of its containers and of each init container in its turn (with the
/// sidecars started before it), and the overhead.
pub fn pod_requests(pod: &Pod) -> BTreeMap<String, i64> {
    let mut total: BTreeMap<String, i64> = BTreeMap::new();
    for container in pod::containers(pod) {
        add(&mut total, container);
    }
    let mut sidecars: BTreeMap<String, i64> = BTreeMap::new();
    let mut peak: BTreeMap<String, i64> = BTreeMap::new();
    for container in pod::init_containers(pod) {
        let mut here = sidecars.clone();
        add(&mut here, container);
        if pod::is_sidecar(container) {
            add(&mut sidecars, container);
            add(&mut total, container);
        }
        for (name, amount) in here {
            let entry = peak.entry(name).or_default();
            *entry = (*entry).max(amount);
        }
    }
    for (name, amount) in peak {
        let entry = total.entry(name).or_default();
        *entry = (*entry).max(amount);
    }
    for (name, quantity) in pod::spec(pod).overhead.iter().flatten() {
        let sum = total.entry(name.clone()).or_default();
        *sum = sum.saturating_add(amount(name, quantity));
    }
    total
}

fn add(total: &mut BTreeMap<String, i64>, container: &Container) {
    let Some(requests) = container.resources.as_ref().and_then(|r| r.requests.as_ref()) else {
        return;
    };
    for (name, quantity) in requests {
        let sum = total.entry(name.clone()).or_default();
        *sum = sum.saturating_add(amount(name, quantity));
    }
}
