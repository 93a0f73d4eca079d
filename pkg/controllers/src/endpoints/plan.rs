//! From a service, its pods and the slices there are to the slices that have to be made, changed and deleted. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::topology::is_auto;
use super::{ByNumbers, HEADLESS, addresses, hostname, is_headless, is_published, publishes_unready, target};
use crate::{meta, pod};

/// Names the service that a slice belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Names who keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Us.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";

/// No more endpoints than this in a slice: a change of one is sent with all its neighbours.
const MAX_PER_SLICE: usize = 100;

/// What has to be written.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// New slices.
    pub create: Vec<EndpointSlice>,
    /// Slices with new content.
    pub update: Vec<EndpointSlice>,
    /// Slices that are empty now.
    pub delete: Vec<EndpointSlice>,
    /// Slices that stay as they are, where that matters ([`Frame::keeps_hints`]).
    pub unchanged: Vec<EndpointSlice>,
}

/// Endpoints that share their ports and the type of their addresses.
pub struct Group {
    family: String,
    ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
}

impl Group {
    /// No endpoints yet.
    pub fn new(family: &str, ports: Vec<EndpointPort>) -> Self {
        Group {
            family: family.to_owned(),
            ports,
            endpoints: Vec::new(),
        }
    }
}

/// What the slices of one owner have in common.
pub struct Frame {
    pub generate_name: String,
    pub namespace: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: Option<BTreeMap<String, String>>,
    pub owner: OwnerReference,
    /// Hints stay as they are: [`super::topology`] has what is written shared out anew.
    pub keeps_hints: bool,
    /// What an endpoint is known by: no two of the frame have the same.
    pub identity: fn(&Endpoint) -> Cow<'_, str>,
}

impl Frame {
    fn of(service: &Service) -> Self {
        Frame {
            generate_name: format!("{}-", meta::name(service)),
            namespace: service.metadata.namespace.clone(),
            labels: labels(service),
            annotations: None,
            owner: meta::owner_reference(service),
            keeps_hints: is_auto(service),
            identity: pod_or_address,
        }
    }
}

/// The zone that a node is in, if it is in one; None: there is no such node.
pub type Zoned = Option<Option<String>>;

/// Decides for one service. `zone_of` knows the nodes.
pub fn changes(
    service: &Service,
    pods: &[Arc<Pod>],
    existing: &[Arc<EndpointSlice>],
    zone_of: impl Fn(&str) -> Zoned,
) -> Changes {
    let families = families(service);
    let groups = families
        .iter()
        .flat_map(|family| {
            let mut groups = groups(service, pods, family, &zone_of);
            if groups.is_empty() {
                // An empty slice tells that the service is known and has no endpoints.
                groups.push(Group::new(family, Vec::new()));
            }
            groups
        })
        .collect();
    arrange(&Frame::of(service), groups, existing)
}

/// Puts groups of endpoints into slices, changing as few of those there are as it can.
pub fn arrange(frame: &Frame, groups: Vec<Group>, existing: &[Arc<EndpointSlice>]) -> Changes {
    let mut changes = Changes::default();
    let mut rest: Vec<&EndpointSlice> = existing.iter().map(|s| &**s).filter(|s| !meta::deleting(*s)).collect();
    rest.sort_by(|a, b| meta::name(*a).cmp(meta::name(*b)));
    for group in groups {
        let key = ports_key(&group.ports);
        let (same, other) = rest
            .into_iter()
            .partition(|s| s.address_type == group.family && ports_key(s.ports.as_deref().unwrap_or_default()) == key);
        rest = other;
        fill(frame, group, same, &mut changes);
    }
    changes.delete.extend(rest.into_iter().cloned());
    changes
}

/// The address types that a service has.
fn families(service: &Service) -> Vec<&'static str> {
    let names = service
        .spec
        .as_ref()
        .and_then(|s| s.ip_families.clone())
        .unwrap_or_default();
    let mut found: Vec<&'static str> = names
        .iter()
        .filter_map(|n| match n.as_str() {
            "IPv4" => Some("IPv4"),
            "IPv6" => Some("IPv6"),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        found.push("IPv4");
    }
    found
}

fn groups(service: &Service, pods: &[Arc<Pod>], family: &str, zone_of: &impl Fn(&str) -> Zoned) -> Vec<Group> {
    let mut groups = ByNumbers::new(service);
    for pod in pods.iter().filter(|p| is_published(p, true)) {
        if let Some(endpoint) = endpoint(service, pod, family, zone_of) {
            let group = groups.of(pod, |ports| Group::new(family, ports.map(endpoint_port).collect()));
            group.endpoints.push(endpoint);
        }
    }
    let mut groups: Vec<Group> = groups.into_groups().collect();
    groups.sort_by_cached_key(|group| ports_key(&group.ports));
    groups
}

fn endpoint_port((port, number): (&ServicePort, i32)) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(number),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

/// Equal for equal ports, in whatever order.
fn ports_key(ports: &[EndpointPort]) -> String {
    let mut all: Vec<String> = ports
        .iter()
        .map(|p| {
            let text = |v: &Option<String>| v.clone().unwrap_or_default();
            format!(
                "{}/{}/{}/{}",
                text(&p.name),
                p.port.unwrap_or(0),
                text(&p.protocol),
                text(&p.app_protocol)
            )
        })
        .collect();
    all.sort();
    all.join(",")
}

/// None: it has no address of the family; or its node is not there (yet), and only what is ready is published.
fn endpoint(service: &Service, pod: &Pod, family: &str, zone_of: &impl Fn(&str) -> Zoned) -> Option<Endpoint> {
    let addresses: Vec<String> = addresses(pod)
        .filter(|ip| matches!((family, ip), ("IPv4", IpAddr::V4(_)) | ("IPv6", IpAddr::V6(_))))
        .map(|ip| ip.to_string())
        .collect();
    if addresses.is_empty() {
        return None;
    }
    let (serving, terminating) = (pod::is_ready(pod), meta::deleting(pod));
    let ready = publishes_unready(service) || (serving && !terminating);
    let node = Some(pod::node(pod).to_owned()).filter(|n| !n.is_empty());
    let zoned = node.as_deref().and_then(zone_of);
    if zoned.is_none() && !publishes_unready(service) {
        return None;
    }
    let zone = zoned.flatten();
    Some(Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: ready
            .then(|| hints(service, node.as_deref(), zone.as_deref()))
            .flatten(),
        hostname: hostname(pod, service),
        target_ref: Some(target(pod)),
        node_name: node,
        zone,
        deprecated_topology: None,
    })
}

/// Where traffic for this endpoint should come from, if the service prefers it near.
fn hints(service: &Service, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let wish = service.spec.as_ref().and_then(|s| s.traffic_distribution.as_deref())?;
    if is_auto(service) {
        return None;
    }
    let zones = zone.map(|z| vec![ForZone { name: z.to_owned() }]);
    let nodes = node
        .filter(|_| wish == "PreferSameNode")
        .map(|n| vec![ForNode { name: n.to_owned() }]);
    let wanted = matches!(wish, "PreferClose" | "PreferSameZone" | "PreferSameNode");
    (wanted && (zones.is_some() || nodes.is_some())).then_some(EndpointHints {
        for_zones: zones,
        for_nodes: nodes,
    })
}

/// Puts endpoints into the slices of their ports, changing as few of these as it can.
fn fill(frame: &Frame, group: Group, slices: Vec<&EndpointSlice>, changes: &mut Changes) {
    let Group {
        family,
        ports,
        endpoints,
    } = group;
    let empty_wanted = endpoints.is_empty();
    let (mut kept, missing) = place(frame, endpoints, &slices);
    let missing = spread_over(&mut kept, missing);
    let mut placeholder = false;
    for (slice, changed) in kept {
        if slice.endpoints.is_empty() && (!empty_wanted || placeholder) {
            changes.delete.push(slice);
            continue;
        }
        placeholder |= empty_wanted;
        if changed {
            changes.update.push(slice);
        } else if frame.keeps_hints {
            changes.unchanged.push(slice);
        }
    }
    if empty_wanted && !placeholder {
        changes.create.push(new_slice(frame, &family, &ports, Vec::new()));
    }
    for chunk in missing.chunks(MAX_PER_SLICE) {
        changes.create.push(new_slice(frame, &family, &ports, chunk.to_vec()));
    }
}

/// The slices with what their endpoints are now, and whether that changes them; and the endpoints that are in none.
fn place(
    frame: &Frame,
    endpoints: Vec<Endpoint>,
    slices: &[&EndpointSlice],
) -> (Vec<(EndpointSlice, bool)>, Vec<Endpoint>) {
    let places = slices.iter().enumerate().flat_map(|(of, slice)| {
        let endpoints = slice.endpoints.iter().enumerate();
        endpoints.map(move |(at, endpoint)| ((frame.identity)(endpoint), (of, at)))
    });
    // The first place of one that is in several: it was put there before.
    let mut known: HashMap<Cow<'_, str>, (usize, usize)> = HashMap::new();
    for (identity, place) in places {
        known.entry(identity).or_insert(place);
    }
    let mut placed: Vec<Vec<Option<Endpoint>>> = slices.iter().map(|slice| vec![None; slice.endpoints.len()]).collect();
    let mut missing = Vec::new();
    for mut endpoint in endpoints {
        let Some((of, at)) = known.get(&(frame.identity)(&endpoint)).copied() else {
            missing.push(endpoint);
            continue;
        };
        if frame.keeps_hints && endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true) {
            endpoint.hints.clone_from(&slices[of].endpoints[at].hints);
        }
        placed[of][at] = Some(endpoint);
    }
    let kept = slices.iter().zip(placed).map(|(slice, placed)| {
        let mut next = EndpointSlice {
            endpoints: placed.into_iter().flatten().collect(),
            metadata: slice.metadata.clone(),
            address_type: slice.address_type.clone(),
            ports: slice.ports.clone(),
        };
        next.metadata.labels = Some(frame.labels.clone());
        next.metadata.owner_references = Some(vec![frame.owner.clone()]);
        if frame.annotations.is_some() {
            next.metadata.annotations.clone_from(&frame.annotations);
        }
        let changed = next != **slice;
        (next, changed)
    });
    (kept.collect(), missing)
}

/// Puts endpoints into slices that have room: first into those that change anyway; then, if one takes all the rest, into that. Returns those
/// that need slices of their own.
fn spread_over(kept: &mut [(EndpointSlice, bool)], mut missing: Vec<Endpoint>) -> Vec<Endpoint> {
    for (slice, _) in kept
        .iter_mut()
        .filter(|(slice, changed)| *changed && !slice.endpoints.is_empty())
    {
        let room = MAX_PER_SLICE.saturating_sub(slice.endpoints.len()).min(missing.len());
        slice.endpoints.extend(missing.drain(..room));
    }
    if !missing.is_empty() && missing.len() < MAX_PER_SLICE {
        let fits = kept
            .iter_mut()
            .find(|(s, _)| s.endpoints.len() + missing.len() <= MAX_PER_SLICE);
        if let Some((slice, changed)) = fits {
            slice.endpoints.append(&mut missing);
            *changed = true;
        }
    }
    missing
}

/// The same pod, or the same address where there is no pod.
fn pod_or_address(endpoint: &Endpoint) -> Cow<'_, str> {
    let uid = endpoint.target_ref.as_ref().and_then(|r| r.uid.as_deref());
    uid.map_or_else(|| endpoint.addresses.join(",").into(), Cow::Borrowed)
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = meta::labels(service).clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), meta::name(service).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn new_slice(frame: &Frame, family: &str, ports: &[EndpointPort], endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(frame.generate_name.clone()),
            namespace: frame.namespace.clone(),
            labels: Some(frame.labels.clone()),
            annotations: frame.annotations.clone(),
            owner_references: Some(vec![frame.owner.clone()]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints,
        ports: (!ports.is_empty()).then(|| ports.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn service() -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "web", "namespace": "d", "uid": "s", "labels": {"l": "1"}},
            "spec": {"selector": {"a": "b"}, "clusterIP": "10.96.0.7", "ipFamilies": ["IPv4"],
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]}}),
        )
        .unwrap()
    }

    fn pod(n: usize, port: i32, ready: bool, deleting: bool) -> Arc<Pod> {
        let at = deleting.then_some("2024-01-01T00:00:00Z");
        let status = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": format!("p{n:03}"), "namespace": "d", "uid": format!("u{n}"), "deletionTimestamp": at},
                "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
                "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", n / 250, n % 250), "conditions": [{"type": "Ready", "status": status}]},
            }))
            .unwrap(),
        )
    }

    fn stored(slices: Vec<EndpointSlice>) -> Vec<Arc<EndpointSlice>> {
        let name = |(n, mut s): (usize, EndpointSlice)| {
            s.metadata.name.get_or_insert(format!("web-{n}"));
            Arc::new(s)
        };
        slices.into_iter().enumerate().map(name).collect()
    }

    fn zone(node: &str) -> Zoned {
        Some(Some(format!("zone-of-{node}")))
    }

    #[test]
    fn endpoints_carry_conditions_target_node_and_zone() {
        let found = changes(
            &service(),
            &[
                pod(1, 8080, true, false),
                pod(2, 8080, true, true),
                pod(3, 8080, false, false),
            ],
            &[],
            zone,
        );
        let slice = &found.create[0];
        assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));
        assert_eq!(slice.metadata.labels.as_ref().unwrap().len(), 3);
        let conditions: Vec<_> = slice
            .endpoints
            .iter()
            .map(|e| {
                e.conditions
                    .clone()
                    .map(|c| (c.ready, c.serving, c.terminating))
                    .unwrap()
            })
            .collect();
        let b = Some;
        assert_eq!(
            conditions,
            [
                (b(true), b(true), b(false)),
                (b(false), b(true), b(true)),
                (b(false), b(false), b(false))
            ]
        );
        assert_eq!(slice.endpoints[0].zone.as_deref(), Some("zone-of-n1"));
        let mut unready = service();
        unready.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        let found = changes(&unready, &[pod(3, 8080, false, false)], &[], zone);
        assert_eq!(
            found.create[0].endpoints[0].conditions.as_ref().unwrap().ready,
            Some(true)
        );
    }

    #[test]
    fn nothing_changes_when_nothing_changed_and_pods_split_by_ports_and_by_hundreds() {
        let pods: Vec<_> = (0..150)
            .map(|n| pod(n, 8080, true, false))
            .chain([pod(200, 9090, true, false)])
            .collect();
        let first = changes(&service(), &pods, &[], zone);
        let sizes: Vec<_> = first.create.iter().map(|s| s.endpoints.len()).collect();
        assert_eq!(sizes, [100, 50, 1]);
        let there = stored(first.create);
        assert_eq!(changes(&service(), &pods, &there, zone), Changes::default());
        // One goes, one comes: one slice changes.
        let mut next = pods[1..].to_vec();
        next.push(pod(300, 8080, true, false));
        let second = changes(&service(), &next, &there, zone);
        assert_eq!(
            (second.create.len(), second.update.len(), second.delete.len()),
            (0, 1, 0)
        );
        assert_eq!(second.update[0].endpoints.len(), 100);
    }

    #[test]
    fn a_pod_whose_node_is_not_there_is_published_only_with_the_unready() {
        let pods = [pod(1, 8080, true, false)];
        let made = |service: &Service| changes(service, &pods, &[], |_| None).create[0].endpoints.len();
        assert_eq!(made(&service()), 0);
        let mut unready = service();
        unready.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        assert_eq!(made(&unready), 1);
    }

    #[test]
    fn service_without_pods_has_one_empty_slice() {
        let first = changes(&service(), &[], &[], zone);
        assert_eq!((first.create.len(), first.create[0].endpoints.len()), (1, 0));
        let there = stored(first.create);
        assert_eq!(changes(&service(), &[], &there, zone), Changes::default());
        let filled = changes(&service(), &[pod(1, 8080, true, false)], &there, zone);
        assert_eq!((filled.create.len(), filled.delete.len()), (1, 1));
    }
}
