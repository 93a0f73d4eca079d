//! Which pods answer for a service, and on which ports: the part that EndpointSlices and Endpoints share. Pure, but for the event handlers.

pub mod legacy;
pub mod mirroring;
pub mod plan;
mod repack;
pub mod slices;
pub mod topology;
mod trigger;
mod write;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mk8s_client::{Event, Index, Informer};

use crate::driver::Driver;
use crate::index;
use crate::meta::{self, Key};
use crate::pod;
use crate::selecting::Selecting;

/// Marks what belongs to a service without a cluster address.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// The service whose slice this is, where `manager` keeps it.
fn service_of(slice: &EndpointSlice, manager: &str) -> Option<Key> {
    let labels = meta::labels(slice);
    let kept = labels.get(plan::MANAGED_BY).is_some_and(|by| by == manager);
    let name = labels.get(plan::SERVICE_NAME).filter(|_| kept)?;
    Some(Key::new(meta::namespace(slice), name))
}

/// The pod, as an address names what it is of.
fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// A service has no cluster address.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// Neither set by hand (no selector) nor only a name for something else.
pub fn is_managed(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.selector.as_ref().is_some_and(|s| !s.is_empty()) && spec.type_.as_deref() != Some("ExternalName")
}

/// Unready pods are published too.
pub fn publishes_unready(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|s| s.publish_not_ready_addresses)
        .unwrap_or(false)
}

/// Has the pod an address to be published? One that is being deleted only where asked for.
pub fn is_published(pod: &Pod, terminating_too: bool) -> bool {
    !pod::is_terminal(pod) && addresses(pod).next().is_some() && (terminating_too || !meta::deleting(pod))
}

/// The pod's addresses.
pub fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> + '_ {
    let status = pod.status.as_ref();
    let many = status
        .into_iter()
        .flat_map(|s| s.pod_ips.iter().flatten())
        .map(|ip| ip.ip.as_str());
    let one = status
        .and_then(|s| s.pod_ip.as_deref())
        .filter(|_| status.is_none_or(|s| s.pod_ips.iter().flatten().next().is_none()));
    many.chain(one).filter_map(|ip| ip.parse().ok())
}

/// A name that the DNS has for the pod within the service.
pub fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_deref().filter(|h| !h.is_empty())?;
    (spec.subdomain.as_deref() == Some(meta::name(service))).then(|| hostname.to_owned())
}

/// The number behind a service's target port on this pod.
pub fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|c| c.restart_policy.as_deref() == Some("Always"));
            spec.containers
                .iter()
                .chain(sidecars)
                .find_map(|c| named_port(c, name, protocol))
        }
    }
}

fn service_ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    service.spec.iter().flat_map(|spec| spec.ports.iter().flatten())
}

/// Pods' endpoints by the numbers that the service's ports have on them. As a rule all pods have the same.
pub struct ByNumbers<'a, G> {
    service: &'a Service,
    groups: Vec<(Vec<Option<i32>>, G)>,
}

impl<'a, G> ByNumbers<'a, G> {
    /// No pods yet.
    pub fn new(service: &'a Service) -> Self {
        let groups = Vec::new();
        ByNumbers { service, groups }
    }

    /// The pod's group; `begin` makes one of the ports behind which there is a number, and those.
    pub fn of(
        &mut self,
        pod: &Pod,
        begin: impl FnOnce(&mut dyn Iterator<Item = (&'a ServicePort, i32)>) -> G,
    ) -> &mut G {
        let service = self.service;
        let numbers = || service_ports(service).map(|port| target_port(pod, port));
        let known = self
            .groups
            .iter()
            .position(|(own, _)| numbers().eq(own.iter().copied()));
        let at = known.unwrap_or_else(|| {
            let mut ports = service_ports(service)
                .zip(numbers())
                .filter_map(|(port, number)| Some((port, number?)));
            let group = begin(&mut ports);
            self.groups.push((numbers().collect(), group));
            self.groups.len() - 1
        });
        &mut self.groups[at].1
    }

    /// All groups.
    pub fn into_groups(self) -> impl Iterator<Item = G> {
        self.groups.into_iter().map(|(_, group)| group)
    }
}

fn named_port(container: &Container, name: &str, protocol: &str) -> Option<i32> {
    container
        .ports
        .iter()
        .flatten()
        .find(|p| p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol)
        .map(|p| p.container_port)
}

/// The pods that a service selects, of those that an index by labels has.
pub fn selected(service: &Service, pods: &Index<Pod>) -> Vec<std::sync::Arc<Pod>> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref()).unwrap_or(&NONE);
    let mut found = index::with_labels(pods, meta::namespace(service), selector);
    found.retain(|pod| meta::selects(selector, meta::labels(&**pod)));
    found.sort_by(|a, b| meta::name(&**a).cmp(meta::name(&**b)));
    found
}

/// Follows services and pods: a service is looked at when it changes, and when a pod that it selects (or did) changes in what is published.
pub fn follow(driver: &mut Driver, ctx: &crate::Context) {
    let all = ctx.informers.of::<Service>();
    driver.watch(&all, |event| vec![Key::of(&**event.object())]);
    let services = selecting(&all);
    driver.watch(&ctx.informers.of::<Pod>(), move |event| concerned(event, &services));
}

/// Services by what they select.
fn selecting(services: &Informer<Service>) -> Selecting<Service> {
    Selecting::of(services, |service| {
        let spec = service.spec.as_ref().filter(|_| is_managed(service))?;
        Some(LabelSelector {
            match_labels: spec.selector.clone(),
            match_expressions: None,
        })
    })
}

/// The Services that select a pod.
fn services_of(pod: &Pod, services: &Selecting<Service>) -> impl Iterator<Item = Key> {
    services.who(pod).map(|(service, _)| Key::of(&*service))
}

fn concerned(event: &Event<Pod>, services: &Selecting<Service>) -> Vec<Key> {
    let (old, new) = match event {
        Event::Applied { old, new } => (old.as_deref(), Some(&**new)),
        Event::Deleted(old) => (Some(&**old), None),
    };
    // One without an address has no endpoint to come or go.
    let shows = |pod: Option<&Pod>| pod.is_some_and(|pod| addresses(pod).next().is_some());
    if !shows(old) && !shows(new) {
        return Vec::new();
    }
    if let (Some(old), Some(new)) = (old, new)
        && published_part(old) == published_part(new)
    {
        return Vec::new();
    }
    let mut keys: Vec<Key> = new.into_iter().flat_map(|pod| services_of(pod, services)).collect();
    let moved = old.filter(|old| new.is_none_or(|new| meta::labels(*old) != meta::labels(new)));
    keys.extend(moved.into_iter().flat_map(|old| services_of(old, services)));
    keys
}

/// What of a pod shows in an endpoint.
fn published_part(pod: &Pod) -> impl PartialEq + use<'_> {
    let spec = pod.spec.as_ref();
    (
        meta::uid(pod),
        addresses(pod).collect::<Vec<_>>(),
        pod::is_ready(pod),
        pod::is_terminal(pod),
        meta::deleting(pod),
        meta::labels(pod),
        pod::node(pod),
        spec.and_then(|s| s.hostname.as_deref()),
        spec.and_then(|s| s.subdomain.as_deref()),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn target_ports_are_numbers_or_names_of_the_right_protocol() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [
            {"name": "a", "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"name": "dns-tcp", "containerPort": 5353}]}]}}))
        .unwrap();
        for (port, expected) in [
            (json!({"port": 80}), Some(80)),
            (json!({"port": 80, "targetPort": 8080}), Some(8080)),
            (
                json!({"port": 80, "targetPort": "dns-tcp", "protocol": "TCP"}),
                Some(5353),
            ),
            (json!({"port": 53, "targetPort": "dns", "protocol": "UDP"}), Some(53)),
            (json!({"port": 53, "targetPort": "dns", "protocol": "TCP"}), None),
            (json!({"port": 53, "targetPort": "no"}), None),
        ] {
            assert_eq!(
                target_port(&pod, &serde_json::from_value(port.clone()).unwrap()),
                expected,
                "{port}"
            );
        }
    }
}
