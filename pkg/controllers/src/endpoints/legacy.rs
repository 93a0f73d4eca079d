//! Endpoints: the older form of EndpointSlices, one object per service, for clients that still read it.
//!
//! Watches services, pods and Endpoints; writes the Endpoints of services that have a selector, and deletes those it made with the service.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use mk8s_client::{Event, Index, Informer, Seen};

use super::{
    ByNumbers, HEADLESS, addresses, follow, hostname, is_headless, is_managed, is_published, publishes_unready,
    selected, service_ports, target, trigger,
};
use crate::context::Context;
use crate::delete::delete;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::namespace_terminating;
use crate::error::{Error, Tried};
use crate::index;
use crate::meta::{self, Key};
use crate::pod;

const NAME: &str = "endpoint-controller";
const WORKERS: usize = 5;
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// No more addresses than this in an object; who needs all reads slices.
const MAX_ADDRESSES: usize = 1000;

struct Controller {
    ctx: Context,
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    pods: Index<Pod>,
    /// Endpoints that were written.
    seen: Arc<Seen<Key>>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (services, endpoints) = (ctx.informers.of::<Service>(), ctx.informers.of::<Endpoints>());
    let pods = index::published(&ctx.informers.of());
    let mut driver = Driver::new(NAME, &ctx.scope);
    follow(&mut driver, &ctx);
    let seen = Arc::<Seen<Key>>::default();
    let written = seen.clone();
    driver.watch(&endpoints, move |event| match event {
        // What others write into them stays until something changes of the service, as upstream has it.
        Event::Applied { old: Some(_), new } => Some(Key::of(&**new))
            .filter(|key| written.is_waited_for(key))
            .into_iter()
            .collect(),
        // At the start: those whose service went meanwhile. Later: those that someone took away.
        event => vec![Key::of(&**event.object())],
    });
    let controller = Controller {
        ctx,
        services,
        endpoints,
        pods,
        seen,
    };
    driver.run(WORKERS, controller).await
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        // On the base of an older state it would only be refused. Asked before that state is read.
        if let Some(later) = self.seen.missing(&key, &self.endpoints) {
            return Ok(Next::After(later));
        }
        let known = self.endpoints.get(key.ns(), &key.name);
        let api = self.ctx.api::<Endpoints>(&key.namespace);
        let Some(service) = self.services.get(key.ns(), &key.name) else {
            let ours = known.filter(|e| meta::labels(&**e).get(MANAGED_BY).is_some_and(|by| by == NAME));
            if let Some(ours) = ours {
                delete(&api, &*ours, DeleteParams::default()).await?;
            }
            self.seen.forget(&key);
            return Ok(Next::Done);
        };
        if !is_managed(&service) || meta::deleting(&*service) {
            return Ok(Next::Done);
        }
        let pods = selected(&service, &self.pods);
        let mut wanted = wanted(&service, &pods, known.as_deref());
        if known.as_deref() == Some(&wanted) {
            return Ok(Next::Done);
        }
        trigger::on_endpoints(&mut wanted, &service, &pods, known.as_deref());
        let result = match &known {
            Some(_) => api.replace(&key.name, &PostParams::default(), &wanted).await,
            None => api.create(&PostParams::default(), &wanted).await,
        };
        match result {
            Err(e) if namespace_terminating(&e) => Ok(Next::Done),
            result => {
                let written = result.tried(|| format!("write Endpoints {key}"))?;
                self.seen.wrote(&key, written.revision);
                Ok(Next::Done)
            }
        }
    }
}

/// The object as it should be, on the base of the one there is.
fn wanted(service: &Service, pods: &[Arc<Pod>], known: Option<&Endpoints>) -> Endpoints {
    let (subsets, truncated) = subsets(service, pods);
    let metadata = known.map(|known| known.metadata.clone());
    let mut endpoints = Endpoints {
        metadata: metadata.unwrap_or_else(|| ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        }),
        subsets: None,
    };
    let mut labels = meta::labels(service).clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), NAME.to_owned());
    endpoints.metadata.labels = Some(labels);
    if truncated {
        meta::set_annotation(&mut endpoints.metadata, OVER_CAPACITY, "truncated");
    } else if let Some(annotations) = &mut endpoints.metadata.annotations {
        annotations.remove(OVER_CAPACITY);
        if annotations.is_empty() {
            endpoints.metadata.annotations = None;
        }
    }
    endpoints.subsets = (!subsets.is_empty()).then_some(subsets);
    endpoints
}

/// Addresses that share their ports.
#[derive(Default)]
struct Group {
    ports: Vec<EndpointPort>,
    ready: Vec<EndpointAddress>,
    unready: Vec<EndpointAddress>,
}

/// Pods with the same ports share a subset. With it, whether some had to be left out.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let unready_too = publishes_unready(service);
    let has_ports = service_ports(service).next().is_some();
    let mut groups = ByNumbers::new(service);
    let (mut count, mut truncated) = (0, false);
    // Ready ones first, should there be too many.
    let (ready, unready): (Vec<_>, Vec<_>) = pods
        .iter()
        .filter(|p| is_published(p, unready_too))
        .partition(|p| unready_too || pod::is_ready(p));
    let ready_count = ready.len();
    for (at, pod) in ready.into_iter().chain(unready).enumerate() {
        let Some(address) = address(service, pod) else { continue };
        let group = groups.of(pod, |ports| Group {
            ports: sorted_ports(ports),
            ..Group::default()
        });
        if group.ports.is_empty() && has_ports {
            continue;
        }
        if count == MAX_ADDRESSES {
            truncated = true;
            break;
        }
        count += 1;
        if at < ready_count {
            group.ready.push(address)
        } else {
            group.unready.push(address)
        }
    }
    let sorted = |mut all: Vec<EndpointAddress>| {
        all.sort_by(|a, b| a.ip.cmp(&b.ip));
        (!all.is_empty()).then_some(all)
    };
    let mut subsets: Vec<EndpointSubset> = groups
        .into_groups()
        .filter(|group| !group.ready.is_empty() || !group.unready.is_empty())
        .map(|group| EndpointSubset {
            addresses: sorted(group.ready),
            not_ready_addresses: sorted(group.unready),
            ports: (!group.ports.is_empty()).then_some(group.ports),
        })
        .collect();
    subsets.sort_by_cached_key(|s| {
        let mut addresses = s.addresses.iter().chain(&s.not_ready_addresses).flatten();
        addresses.next().map(|a| a.ip.clone())
    });
    (subsets, truncated)
}

fn sorted_ports(ports: &mut dyn Iterator<Item = (&ServicePort, i32)>) -> Vec<EndpointPort> {
    let ports = ports.map(|(port, number)| EndpointPort {
        name: port.name.clone().filter(|n| !n.is_empty()),
        port: number,
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    });
    let mut ports: Vec<_> = ports.collect();
    ports.sort_by(|a, b| (&a.name, a.port).cmp(&(&b.name, b.port)));
    ports
}

fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let wanted_v6 = service
        .spec
        .as_ref()
        .and_then(|s| s.ip_families.as_ref()?.first().cloned())
        .as_deref()
        == Some("IPv6");
    let ip = addresses(pod).find(|ip| ip.is_ipv6() == wanted_v6)?;
    Some(EndpointAddress {
        ip: ip.to_string(),
        hostname: hostname(pod, service),
        node_name: Some(pod::node(pod).to_owned()).filter(|n| !n.is_empty()),
        target_ref: Some(target(pod)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn subsets_part_ready_from_unready_and_leave_out_what_terminates() {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "d"},
            "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": 8080}]}}))
        .unwrap();
        let pod = |n: u8, ready: bool, deleting: bool| {
            let at = deleting.then_some("2024-01-01T00:00:00Z");
            let status = if ready { "True" } else { "False" };
            Arc::new(
                serde_json::from_value::<Pod>(json!({
                    "metadata": {"name": format!("p{n}"), "namespace": "d", "uid": format!("u{n}"), "deletionTimestamp": at},
                    "spec": {"nodeName": "n", "containers": []},
                    "status": {"phase": "Running", "podIP": format!("10.0.0.{n}"), "conditions": [{"type": "Ready", "status": status}]},
                }))
                .unwrap(),
            )
        };
        let pods = [
            pod(2, true, false),
            pod(1, true, false),
            pod(3, false, false),
            pod(4, true, true),
        ];
        let made = wanted(&service, &pods, None);
        let subset = &made.subsets.as_ref().unwrap()[0];
        let ips = |all: &Option<Vec<EndpointAddress>>| all.iter().flatten().map(|a| a.ip.clone()).collect::<Vec<_>>();
        assert_eq!(ips(&subset.addresses), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(ips(&subset.not_ready_addresses), ["10.0.0.3"]);
        assert_eq!(subset.ports.as_ref().unwrap()[0].port, 8080);
        assert_eq!(wanted(&service, &pods, Some(&made)), made);
    }
}
