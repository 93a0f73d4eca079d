//! Hand-made Endpoints, mirrored into EndpointSlices: for services without a selector, since routing reads slices alone.
//!
//! Watches Endpoints, services and slices; writes slices that carry its mark, no others.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use mk8s_client::{Event, Index, Informer, Seen};

use super::plan::{Frame, Group, MANAGED_BY, SERVICE_NAME, arrange};
use super::repack::{Packed, repack};
use super::service_of;
use super::write::write;
use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::Error;
use crate::error::namespace_terminating;
use crate::meta::{self, Key};

const WORKERS: usize = 2;
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that were once used as a lock are no addresses.
const LOCK: &str = "control-plane.alpha.kubernetes.io/leader";
/// No more addresses of a subset than this.
const MAX_ADDRESSES: usize = 1000;

struct Controller {
    ctx: Context,
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Index<EndpointSlice>,
    all_slices: Informer<EndpointSlice>,
    /// Slices that were written.
    seen: Seen<Key>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (services, endpoints) = (ctx.informers.of::<Service>(), ctx.informers.of::<Endpoints>());
    let all_slices = ctx.informers.of::<EndpointSlice>();
    let slices = all_slices.index("mirrored service", |slice| {
        service_of(slice, MANAGER).iter().map(Key::to_string).collect()
    });
    let mut driver = Driver::new("endpointslicemirroring-controller", &ctx.scope);
    driver.watch(&services, |event| {
        let selector = |s: &Service| s.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
        match event {
            Event::Applied { old: Some(old), new } if selector(old).is_empty() == selector(new).is_empty() => {
                Vec::new()
            }
            event => vec![Key::of(&**event.object())],
        }
    });
    driver.watch(&endpoints, |event| vec![Key::of(&**event.object())]);
    driver.watch(&all_slices, |event| {
        service_of(event.object(), MANAGER).into_iter().collect()
    });
    let controller = Controller {
        ctx,
        services,
        endpoints,
        slices,
        all_slices,
        seen: Seen::default(),
    };
    driver.run(WORKERS, controller).await
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        // Before the slices are read: they must not be older than the answer.
        if let Some(later) = self.seen.missing(&key, &self.all_slices) {
            return Ok(Next::After(later));
        }
        let slices = self.slices.get(&key.to_string());
        let mirrored = self.endpoints.get(key.ns(), &key.name).filter(|e| {
            is_mirrored(e)
                && self
                    .services
                    .get(key.ns(), &key.name)
                    .is_some_and(|s| !has_selector(&s))
        });
        let changes = match mirrored {
            Some(endpoints) => arrange(&frame(&endpoints), groups(&endpoints), &slices),
            None if slices.is_empty() => {
                self.seen.forget(&key);
                return Ok(Next::Done);
            }
            None => super::plan::Changes {
                delete: slices.iter().map(|slice| (**slice).clone()).collect(),
                ..Default::default()
            },
        };
        match write(&self.ctx, &self.seen, &key, changes).await {
            Err(Error::Api { source, .. }) if namespace_terminating(&source) => Ok(Next::Done),
            result => result.map(|()| Next::Done),
        }
    }
}

fn has_selector(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|s| s.selector.as_ref())
        .is_some_and(|s| !s.is_empty())
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    meta::labels(endpoints).get(SKIP).is_none_or(|skip| skip != "true")
        && meta::annotation(endpoints, LOCK).is_none()
        && !meta::deleting(endpoints)
}

fn frame(endpoints: &Endpoints) -> Frame {
    const NOT_COPIED: [&str; 2] = [
        "kubectl.kubernetes.io/last-applied-configuration",
        "endpoints.kubernetes.io/last-change-trigger-time",
    ];
    let mut labels = meta::labels(endpoints).clone();
    labels.insert(SERVICE_NAME.to_owned(), meta::name(endpoints).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let annotations: BTreeMap<String, String> = endpoints
        .metadata
        .annotations
        .iter()
        .flatten()
        .filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Frame {
        generate_name: format!("{}-", meta::name(endpoints)),
        namespace: endpoints.metadata.namespace.clone(),
        labels,
        annotations: (!annotations.is_empty()).then_some(annotations),
        keeps_hints: false,
        identity: named_address,
        owner: meta::owner_reference(endpoints),
    }
}

/// What a hand-made endpoint is known by: many of its addresses may be of one object, and the object may have no uid.
fn named_address(endpoint: &Endpoint) -> Cow<'_, str> {
    let target = endpoint.target_ref.as_ref();
    let parts = [
        endpoint.hostname.as_ref(),
        target.and_then(|target| target.namespace.as_ref()),
        target.and_then(|target| target.name.as_ref()),
        target.and_then(|target| target.uid.as_ref()),
    ];
    let parts = parts.map(|part| part.map(String::as_str).unwrap_or_default());
    format!("{}/{}", endpoint.addresses.join(","), parts.join("/")).into()
}

fn groups(endpoints: &Endpoints) -> Vec<Group> {
    let subsets = endpoints.subsets.as_deref().unwrap_or_default();
    repack(subsets).iter().flat_map(families).collect()
}

/// A subset's addresses, by the family they are of.
fn families(subset: &Packed<'_>) -> Vec<Group> {
    let ports: Vec<EndpointPort> = subset
        .ports
        .iter()
        .map(|port| EndpointPort {
            name: Some(port.name.to_owned()),
            port: Some(port.port),
            protocol: Some(port.protocol.to_owned()),
            app_protocol: port.app_protocol.map(str::to_owned),
        })
        .collect();
    let mut families = [Group::new("IPv4", ports.clone()), Group::new("IPv6", ports)];
    for (address, ready) in subset.addresses.iter().take(MAX_ADDRESSES) {
        let at = match address.ip.parse() {
            Ok(IpAddr::V4(_)) => 0,
            Ok(IpAddr::V6(_)) => 1,
            Err(_) => continue,
        };
        families[at].endpoints.push(endpoint(address, *ready));
    }
    families
        .into_iter()
        .filter(|group| !group.endpoints.is_empty())
        .collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn endpoints(subsets: serde_json::Value) -> Endpoints {
        let metadata = json!({"name": "db", "namespace": "d", "uid": "e", "labels": {"l": "1"}});
        serde_json::from_value(json!({"metadata": metadata, "subsets": subsets})).unwrap()
    }

    /// The slices made of `subsets`, of which nothing has to be changed when they are there.
    fn settled(subsets: serde_json::Value) -> Vec<Arc<EndpointSlice>> {
        let endpoints = endpoints(subsets);
        let made = arrange(&frame(&endpoints), groups(&endpoints), &[]);
        let stored = made.create.into_iter().enumerate().map(|(n, mut slice)| {
            slice.metadata.name = Some(format!("db-{n}"));
            Arc::new(slice)
        });
        let there: Vec<_> = stored.collect();
        assert_eq!(
            arrange(&frame(&endpoints), groups(&endpoints), &there),
            super::super::plan::Changes::default()
        );
        there
    }

    fn addresses(slice: &EndpointSlice) -> Vec<&str> {
        slice.endpoints.iter().map(|e| e.addresses[0].as_str()).collect()
    }

    #[test]
    fn subsets_become_slices_of_their_ports_and_family() {
        let made = settled(json!([{"addresses": [{"ip": "1.2.3.4"}, {"ip": "fd00::1"}],
            "notReadyAddresses": [{"ip": "1.2.3.5"}], "ports": [{"port": 5432}]}]));
        let shape: Vec<_> = made.iter().map(|s| (s.address_type.as_str(), addresses(s))).collect();
        assert_eq!(shape, [("IPv4", vec!["1.2.3.4", "1.2.3.5"]), ("IPv6", vec!["fd00::1"])]);
        let ready = |slice: &EndpointSlice, at: usize| slice.endpoints[at].conditions.as_ref().unwrap().ready;
        assert_eq!((ready(&made[0], 0), ready(&made[0], 1)), (Some(true), Some(false)));
        assert_eq!(made[0].metadata.labels.as_ref().unwrap().len(), 3);
    }

    #[test]
    fn subsets_of_the_same_ports_share_their_slice() {
        let ports = json!([{"name": "a", "port": 1}, {"name": "b", "port": 2}]);
        let turned = json!([{"name": "b", "port": 2, "protocol": "TCP"}, {"name": "a", "port": 1}]);
        let made = settled(json!([
            {"addresses": [{"ip": "1.2.3.4"}], "ports": ports},
            {"addresses": [{"ip": "1.2.3.5"}], "ports": turned},
            {"addresses": [{"ip": "1.2.3.6"}], "ports": [{"port": 9}]},
        ]));
        let all: Vec<_> = made.iter().map(|slice| addresses(slice)).collect();
        assert_eq!(all, [vec!["1.2.3.4", "1.2.3.5"], vec!["1.2.3.6"]]);
    }

    #[test]
    fn all_addresses_of_one_object_are_mirrored() {
        let of = |ip: &str, uid: Option<&str>| json!({"ip": ip, "targetRef": {"kind": "Pod", "namespace": "d", "name": "p", "uid": uid}});
        let made = settled(json!([{"ports": [{"port": 9}], "addresses":
            [of("1.2.3.4", Some("u")), of("1.2.3.5", Some("u")), of("1.2.3.6", None), {"ip": "1.2.3.7"}]}]));
        assert_eq!(addresses(&made[0]), ["1.2.3.4", "1.2.3.5", "1.2.3.6", "1.2.3.7"]);
    }
}
