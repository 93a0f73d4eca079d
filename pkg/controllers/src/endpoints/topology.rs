//! Endpoints shared out among zones by the processors that their nodes have, for Services that ask for it by annotation
//! `service.kubernetes.io/topology-mode: Auto` (<https://kubernetes.io/docs/concepts/services-networking/topology-aware-routing/>). Pure.
//!
//! Slices that are to be written are shared out anew; those that are not stay as they are, as long as no zone has too much by them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForZone};
use mk8s_api::quantity::Quantity;

use super::plan::Changes;
use crate::{meta, node_lifecycle};

const ZONE: &str = "topology.kubernetes.io/zone";
/// The newer annotation, and the one that goes before it where there is one.
const MODES: [&str; 2] = [
    "service.kubernetes.io/topology-aware-hints",
    "service.kubernetes.io/topology-mode",
];
/// Nodes that run no workloads.
const MASTERS: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];
/// An endpoint may get so much more than its share.
const OVERLOAD: f64 = 0.2;

/// Whether the Service asks for it.
pub fn is_auto(service: &Service) -> bool {
    let mode = MODES.iter().find_map(|mode| meta::annotation(service, mode));
    matches!(mode, Some("Auto" | "auto"))
}

/// The part of all processors that each zone has; none where that can't be told.
pub type Ratios = BTreeMap<String, f64>;

/// How it went, for each type of addresses; an error says why no endpoint has hints.
pub type SharedOut = Vec<(String, Result<(), String>)>;

/// Of ready nodes that run workloads. One that does not say enough spoils it for all.
pub fn ratios<'a>(nodes: impl Iterator<Item = &'a Node>) -> Ratios {
    let mut cpus: BTreeMap<String, f64> = BTreeMap::new();
    for node in nodes.filter(|node| counts(node)) {
        let Some((zone, cpu)) = zone_and_cpu(node) else {
            return Ratios::new();
        };
        *cpus.entry(zone.to_owned()).or_default() += cpu;
    }
    if cpus.len() < 2 {
        return Ratios::new();
    }
    let total: f64 = cpus.values().sum();
    cpus.into_iter().map(|(zone, cpu)| (zone, cpu / total)).collect()
}

fn counts(node: &Node) -> bool {
    let labels = meta::labels(node);
    node_lifecycle::is_ready(node) && !MASTERS.iter().any(|label| labels.contains_key(*label))
}

fn zone_and_cpu(node: &Node) -> Option<(&str, f64)> {
    let zone = meta::labels(node).get(ZONE).filter(|zone| !zone.is_empty())?;
    let cpu = node.status.as_ref()?.allocatable.as_ref()?.get("cpu")?;
    let cpu = Quantity::parse(&cpu.0).ok()?.milli_value();
    (cpu > 0).then_some((zone, cpu as f64))
}

/// What of a node the shares follow from.
pub fn share_part(node: &Node) -> Option<(String, String)> {
    let cpu = node.status.as_ref().and_then(|s| s.allocatable.as_ref()?.get("cpu"));
    let zone = meta::labels(node).get(ZONE).cloned().unwrap_or_default();
    counts(node).then(|| (zone, cpu.map(|cpu| cpu.0.clone()).unwrap_or_default()))
}

/// How many endpoints a zone is to have.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Share {
    minimum: usize,
    maximum: usize,
    desired: f64,
}

fn shares(endpoints: usize, ratios: &Ratios) -> Result<BTreeMap<&str, Share>, String> {
    let counted = || format!("({endpoints} endpoints, {} zones)", ratios.len());
    if ratios.is_empty() {
        return Err(
            "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes".to_owned(),
        );
    }
    if ratios.len() > endpoints {
        return Err(format!("Insufficient number of endpoints {}", counted()));
    }
    let mut shares = BTreeMap::new();
    for (zone, ratio) in ratios {
        let desired = ratio * endpoints as f64;
        let minimum = (desired / (1.0 + OVERLOAD)).ceil();
        let share = Share {
            minimum: minimum as usize,
            maximum: 0,
            desired: desired.max(minimum),
        };
        shares.insert(zone.as_str(), share);
    }
    let least: usize = shares.values().map(|share| share.minimum).sum();
    let Some(free) = endpoints.checked_sub(least) else {
        let why = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";
        return Err(format!("{why} {}", counted()));
    };
    shares
        .values_mut()
        .for_each(|share| share.maximum = share.minimum + free);
    Ok(shares)
}

/// Puts hints on what a plan has; by types of addresses, and with how that went for each.
pub fn shared_out(changes: Changes, ratios: &Ratios) -> (Changes, SharedOut) {
    let mut families: BTreeMap<String, (Changes, Vec<EndpointSlice>)> = BTreeMap::new();
    for slice in changes.create {
        families
            .entry(slice.address_type.clone())
            .or_default()
            .0
            .create
            .push(slice);
    }
    for slice in changes.update {
        families
            .entry(slice.address_type.clone())
            .or_default()
            .0
            .update
            .push(slice);
    }
    for slice in changes.unchanged {
        families.entry(slice.address_type.clone()).or_default().1.push(slice);
    }
    let mut all = Changes {
        delete: changes.delete,
        ..Changes::default()
    };
    let mut done = Vec::new();
    for (family, (mut own, unchanged)) in families {
        done.push((family, share_out(&mut own, unchanged, ratios)));
        all.create.append(&mut own.create);
        all.update.append(&mut own.update);
    }
    (all, done)
}

/// Puts hints on what a plan has for one type of addresses; `unchanged` are the slices that it leaves as they are, of which some may be
/// changed by this. An error says why no endpoint has hints.
fn share_out(changes: &mut Changes, mut unchanged: Vec<EndpointSlice>, ratios: &Ratios) -> Result<(), String> {
    let all = changes.create.iter().chain(&changes.update).chain(&unchanged);
    let endpoints = all
        .flat_map(|slice| &slice.endpoints)
        .filter(|endpoint| is_ready(endpoint));
    let done = shares(endpoints.count(), ratios).and_then(|shares| {
        let mut given: BTreeMap<String, usize> = BTreeMap::new();
        for slice in std::mem::take(&mut unchanged) {
            match kept(&slice, &given, &shares) {
                Some(own) => {
                    own.into_iter()
                        .for_each(|(zone, count)| *given.entry(zone).or_default() += count);
                    unchanged.push(slice);
                }
                None => changes.update.push(slice),
            }
        }
        share(changes, &shares, given)
    });
    if done.is_err() {
        for slice in unchanged {
            if slice.endpoints.iter().any(|endpoint| endpoint.hints.is_some()) {
                changes.update.push(slice);
            }
        }
        for endpoint in endpoints_of(changes) {
            endpoint.hints = None;
        }
    }
    done
}

fn endpoints_of(changes: &mut Changes) -> impl Iterator<Item = &mut Endpoint> {
    let slices = changes.create.iter_mut().chain(&mut changes.update);
    slices.flat_map(|slice| &mut slice.endpoints)
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true)
}

/// How many endpoints a slice gives to each zone; None: it can't stay as it is.
fn kept(
    slice: &EndpointSlice,
    given: &BTreeMap<String, usize>,
    shares: &BTreeMap<&str, Share>,
) -> Option<BTreeMap<String, usize>> {
    let mut own: BTreeMap<String, usize> = BTreeMap::new();
    for endpoint in slice.endpoints.iter().filter(|endpoint| is_ready(endpoint)) {
        let zones = endpoint
            .hints
            .as_ref()?
            .for_zones
            .as_ref()
            .filter(|zones| !zones.is_empty())?;
        for zone in zones {
            *own.entry(zone.name.clone()).or_default() += 1;
        }
    }
    let fits = |(zone, count): (&String, &usize)| {
        let share = shares.get(zone.as_str());
        share.is_some_and(|share| count + given.get(zone).unwrap_or(&0) <= share.maximum)
    };
    own.iter().all(fits).then_some(own)
}

/// Each endpoint to its own zone first; then those that a zone has too many to zones that have too few.
fn share(
    changes: &mut Changes,
    shares: &BTreeMap<&str, Share>,
    mut given: BTreeMap<String, usize>,
) -> Result<(), String> {
    let for_zone = |zone: &str| {
        Some(EndpointHints {
            for_zones: Some(vec![ForZone { name: zone.to_owned() }]),
            for_nodes: None,
        })
    };
    for endpoint in endpoints_of(changes) {
        if !is_ready(endpoint) {
            endpoint.hints = None;
            continue;
        }
        let Some(zone) = endpoint.zone.clone().filter(|zone| !zone.is_empty()) else {
            return Err("One or more endpoints do not have a zone specified".to_owned());
        };
        endpoint.hints = for_zone(&zone);
        *given.entry(zone).or_default() += 1;
    }
    let (mut giving, mut receiving) = moves(shares, &given);
    for endpoint in endpoints_of(changes).filter(|endpoint| is_ready(endpoint)) {
        let zone = endpoint.zone.as_deref().unwrap_or_default();
        let Some(gives) = giving.get_mut(zone).filter(|gives| **gives > 0) else {
            continue;
        };
        let Some((to, takes)) = receiving.iter_mut().find(|(_, takes)| **takes > 0) else {
            break;
        };
        endpoint.hints = for_zone(to);
        *gives -= 1;
        *takes -= 1;
    }
    match given.is_empty() {
        true => Err("No hints allocated for zones".to_owned()),
        false => Ok(()),
    }
}

/// How many endpoints zones give, and how many they get.
fn moves(
    shares: &BTreeMap<&str, Share>,
    given: &BTreeMap<String, usize>,
) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let excess = |(zone, share): (&&str, &Share)| {
        let has = given.get(*zone).copied().unwrap_or(0) as f64;
        ((*zone).to_owned(), has - share.desired)
    };
    let mut excess: BTreeMap<String, f64> = shares.iter().map(excess).collect();
    let (mut giving, mut receiving) = (BTreeMap::new(), BTreeMap::new());
    loop {
        let most = excess
            .iter()
            .max_by(|a, b| a.1.total_cmp(b.1))
            .map(|(zone, n)| (zone.clone(), *n));
        let least = excess
            .iter()
            .min_by(|a, b| a.1.total_cmp(b.1))
            .map(|(zone, n)| (zone.clone(), -*n));
        let (Some((from, gives)), Some((to, gets))) = (most, least) else {
            break;
        };
        // Less than half an endpoint is none, and one of both has to have a whole one.
        if (gives < 1.0 && gets < 1.0) || gives < 0.5 || gets < 0.5 {
            break;
        }
        *excess.entry(from.clone()).or_default() -= 1.0;
        *excess.entry(to.clone()).or_default() += 1.0;
        *giving.entry(from).or_default() += 1;
        *receiving.entry(to).or_default() += 1;
    }
    (giving, receiving)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn node(zone: &str, cpu: &str, ready: bool, label: &str) -> Node {
        let mut labels = json!({label: ""});
        if !zone.is_empty() {
            labels[ZONE] = zone.into();
        }
        let ready = if ready { "True" } else { "False" };
        serde_json::from_value(json!({"metadata": {"name": zone, "labels": labels},
            "status": {"allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": ready}]}}))
        .unwrap()
    }

    #[test]
    fn zones_have_parts_of_all_processors() {
        let plain = |zone: &str, cpu: &str| node(zone, cpu, true, "x");
        let master = node("c", "8", true, MASTERS[0]);
        for (nodes, expected) in [
            (
                vec![plain("a", "1"), plain("b", "3000m"), master.clone()],
                vec![("a", 0.25), ("b", 0.75)],
            ),
            (
                vec![plain("a", "1"), plain("b", "1"), plain("a", "2")],
                vec![("a", 0.75), ("b", 0.25)],
            ),
            (vec![plain("a", "1"), node("b", "1", false, "x")], vec![]),
            (vec![plain("a", "1"), plain("b", "1"), plain("", "1")], vec![]),
            (vec![plain("a", "1"), plain("b", "1"), plain("c", "0")], vec![]),
        ] {
            let found = ratios(nodes.iter());
            let found: Vec<(&str, f64)> = found.iter().map(|(zone, part)| (zone.as_str(), *part)).collect();
            assert_eq!(found, expected);
        }
    }

    fn slice(endpoints: &[(&str, &str)]) -> EndpointSlice {
        let endpoint = |(zone, hint): &(&str, &str)| {
            let hints = (!hint.is_empty()).then(|| json!({"forZones": [{"name": hint}]}));
            json!({"addresses": ["10.0.0.1"], "zone": zone, "conditions": {"ready": *zone != "down"}, "hints": hints})
        };
        let endpoints: Vec<Value> = endpoints.iter().map(endpoint).collect();
        serde_json::from_value(json!({"addressType": "IPv4", "metadata": {}, "endpoints": endpoints})).unwrap()
    }

    fn hints(slices: &[EndpointSlice]) -> Vec<String> {
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let hint = |endpoint: &Endpoint| {
            endpoint
                .hints
                .as_ref()
                .map(|hints| hints.for_zones.as_ref().unwrap()[0].name.clone())
        };
        endpoints.map(|endpoint| hint(endpoint).unwrap_or_default()).collect()
    }

    #[test]
    fn endpoints_go_where_the_processors_are() {
        let equal = Ratios::from([("a".to_owned(), 0.5), ("b".to_owned(), 0.5)]);
        let three = Ratios::from([("a".to_owned(), 0.25), ("b".to_owned(), 0.75)]);
        for (ratios, endpoints, expected) in [
            (&equal, vec![("a", ""), ("b", "")], Ok(vec!["a", "b"])),
            (
                &equal,
                vec![("a", ""), ("a", ""), ("a", ""), ("b", "")],
                Ok(vec!["b", "a", "a", "b"]),
            ),
            (&equal, vec![("a", ""), ("down", ""), ("b", "")], Ok(vec!["a", "", "b"])),
            (
                &three,
                vec![("a", ""), ("a", ""), ("a", ""), ("b", "")],
                Ok(vec!["b", "b", "a", "b"]),
            ),
            (
                &equal,
                vec![("a", "")],
                Err("Insufficient number of endpoints (1 endpoints, 2 zones)"),
            ),
            (
                &equal,
                vec![("a", ""), ("", "")],
                Err("One or more endpoints do not have a zone specified"),
            ),
            (
                &equal,
                vec![("a", ""), ("a", ""), ("b", "")],
                Err(
                    "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold (3 endpoints, 2 zones)",
                ),
            ),
            (
                &Ratios::new(),
                vec![("a", ""), ("b", "")],
                Err("Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"),
            ),
        ] {
            let mut changes = Changes {
                create: vec![slice(&endpoints)],
                ..Changes::default()
            };
            let done = share_out(&mut changes, Vec::new(), ratios);
            match expected {
                Ok(expected) => assert_eq!(
                    (done, hints(&changes.create)),
                    (Ok(()), expected.iter().map(ToString::to_string).collect())
                ),
                Err(why) => {
                    assert_eq!(done, Err(why.to_owned()));
                    assert!(hints(&changes.create).iter().all(String::is_empty));
                }
            }
        }
    }

    #[test]
    fn slices_that_fit_are_left_alone() {
        let equal = Ratios::from([("a".to_owned(), 0.5), ("b".to_owned(), 0.5)]);
        let fits = slice(&[("a", "a"), ("b", "b")]);
        let mut changes = Changes::default();
        assert_eq!(share_out(&mut changes, vec![fits.clone()], &equal), Ok(()));
        assert_eq!(changes, Changes::default());
        for wrong in [
            slice(&[("a", "a"), ("b", "")]),
            slice(&[("a", "a"), ("b", "c")]),
            slice(&[("a", "a"), ("b", "a")]),
        ] {
            let mut changes = Changes::default();
            assert_eq!(share_out(&mut changes, vec![wrong], &equal), Ok(()));
            assert_eq!(hints(&changes.update), ["a", "b"]);
        }
        // Where nothing can be shared out, what was is taken back.
        let mut changes = Changes::default();
        assert!(share_out(&mut changes, vec![fits, slice(&[("down", "")])], &Ratios::new()).is_err());
        assert_eq!(changes.update.len(), 1);
        assert_eq!(hints(&changes.update), ["", ""]);
    }

    #[test]
    fn the_older_annotation_goes_first() {
        for (annotations, expected) in [
            (json!({}), false),
            (json!({MODES[1]: "Auto"}), true),
            (json!({MODES[1]: "auto"}), true),
            (json!({MODES[1]: "on"}), false),
            (json!({MODES[0]: "Disabled", MODES[1]: "Auto"}), false),
            (json!({MODES[0]: "Auto"}), true),
        ] {
            let service = json!({"metadata": {"annotations": annotations}});
            assert_eq!(
                is_auto(&serde_json::from_value(service).unwrap()),
                expected,
                "{annotations}"
            );
        }
    }
}
