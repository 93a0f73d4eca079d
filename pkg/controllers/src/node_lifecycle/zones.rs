//! How fast nodes' pods are driven out, by zone: one node after the other at upstream's rates, slower where much of a zone fails, and
//! not at all where everything does, since then it is more likely the control plane that is cut off. Pure: times are handed in.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;

use super::is_ready;
use crate::meta;

/// Nodes that do not count in what is said of their zone.
const UNCOUNTED: &str = "node.kubernetes.io/exclude-disruption";
/// Between two nodes of a zone: a tenth of a node per second.
const NORMAL: Duration = Duration::from_secs(10);
/// The same while a large part of a large zone is down: a hundredth.
const SLOW: Duration = Duration::from_secs(100);
/// A zone of no more nodes loses no pods while a large part of it is down.
const SMALL: usize = 50;
/// Percent of a zone's nodes, and more than two: a large part.
const UNHEALTHY: usize = 55;

/// Region and zone of a node; empty where it has neither.
pub fn zone_of(node: &Node) -> String {
    let labels = meta::labels(node);
    let label = |keys: [&str; 2]| {
        keys.into_iter()
            .find_map(|key| labels.get(key))
            .map_or("", String::as_str)
    };
    let region = label([
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ]);
    let zone = label(["failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"]);
    match (region, zone) {
        ("", "") => String::new(),
        _ => format!("{region}:\0:{zone}"),
    }
}

/// How a zone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Normal,
    /// A large part of its nodes is not ready.
    Partial,
    /// No node is ready.
    Full,
}

fn mode(nodes: usize, ready: usize) -> Mode {
    let unready = nodes - ready;
    if ready == 0 && unready > 0 {
        Mode::Full
    } else if unready > 2 && unready * 100 >= nodes * UNHEALTHY {
        Mode::Partial
    } else {
        Mode::Normal
    }
}

/// The time between two nodes; None: no node at all.
fn distance(mode: Mode, nodes: usize) -> Option<Duration> {
    match mode {
        Mode::Normal | Mode::Full => Some(NORMAL),
        Mode::Partial if nodes > SMALL => Some(SLOW),
        Mode::Partial => None,
    }
}

#[derive(Default)]
struct Zone {
    /// All that are in it, and whether they count.
    nodes: HashMap<String, bool>,
    counted: usize,
    ready: HashSet<String>,
    /// When the last node's pods began to be driven out.
    last: Option<Instant>,
    /// Those whose turn it is not, first come first served.
    waiting: VecDeque<String>,
}

impl Zone {
    fn mode(&self) -> Mode {
        mode(self.counted, self.ready.len())
    }
}

/// Whether a node's pods may be driven out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Now,
    /// It is asked again then.
    In(Duration),
    /// When something changes.
    Never,
}

/// All zones.
#[derive(Default)]
pub struct Zones {
    zones: HashMap<String, Zone>,
    place: HashMap<String, String>,
}

/// What a change of one node means for others.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Whether there is a zone with a ready node changed: all nodes are looked at.
    pub all: bool,
    /// There is one again, after there was none.
    pub back: bool,
    /// Nodes whose turn is another.
    pub nodes: Vec<String>,
}

impl Zones {
    /// No zone has a ready node: nobody's pods are driven out.
    pub fn all_down(&self) -> bool {
        let mut counted = self.zones.values().filter(|zone| zone.counted > 0).peekable();
        counted.peek().is_some() && counted.all(|zone| zone.ready.is_empty())
    }

    /// A node is there, as it is now.
    pub fn applied(&mut self, node: &Node) -> Moved {
        let (name, zone) = (meta::name(node), zone_of(node));
        let counts = !meta::labels(node).contains_key(UNCOUNTED);
        self.change(name, |zones| {
            if zones.place.get(name).is_some_and(|place| *place != zone) {
                zones.take_out(name);
            }
            zones.place.insert(name.to_owned(), zone.clone());
            let zone = zones.zones.entry(zone).or_default();
            let before = zone.nodes.insert(name.to_owned(), counts) == Some(true);
            zone.counted = zone.counted + usize::from(counts) - usize::from(before);
            if counts && is_ready(node) {
                zone.ready.insert(name.to_owned());
            } else {
                zone.ready.remove(name);
            }
        })
    }

    /// A node is gone.
    pub fn gone(&mut self, name: &str) -> Moved {
        self.change(name, |zones| zones.take_out(name))
    }

    fn take_out(&mut self, name: &str) {
        let Some(place) = self.place.remove(name) else { return };
        let Some(zone) = self.zones.get_mut(&place) else { return };
        if zone.nodes.remove(name) == Some(true) {
            zone.counted -= 1;
        }
        zone.ready.remove(name);
        zone.waiting.retain(|waiting| waiting != name);
        if zone.nodes.is_empty() {
            self.zones.remove(&place);
        }
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Self)) -> Moved {
        let state = |zones: &Self| {
            let place = zones.place.get(name).cloned().unwrap_or_default();
            let zone = zones.zones.get(&place);
            (
                zones.all_down(),
                zone.map(|zone| distance(zone.mode(), zone.counted)),
                place,
            )
        };
        let before = state(self);
        change(self);
        let after = state(self);
        let mut moved = Moved {
            all: before.0 != after.0,
            back: before.0 && !after.0,
            nodes: Vec::new(),
        };
        if before.1 != after.1 {
            for place in [&before.2, &after.2] {
                let zone = self.zones.get(place);
                moved
                    .nodes
                    .extend(zone.into_iter().flat_map(|zone| zone.waiting.iter().cloned()));
            }
            moved.nodes.dedup();
        }
        moved
    }

    /// The node's pods are to be driven out: is it its turn? It stays so until it [took](Self::took) it.
    pub fn turn(&mut self, node: &Node, now: Instant) -> Turn {
        let name = meta::name(node);
        let down = self.all_down();
        let Some(zone) = self.zones.get_mut(&zone_of(node)) else {
            return Turn::Never;
        };
        let place = match zone.waiting.iter().position(|waiting| waiting == name) {
            Some(place) => place,
            None => {
                zone.waiting.push_back(name.to_owned());
                zone.waiting.len() - 1
            }
        };
        let Some(distance) = distance(zone.mode(), zone.counted).filter(|_| !down) else {
            return Turn::Never;
        };
        let next = zone.last.map_or(now, |last| last + distance);
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        let wait = next.saturating_duration_since(now) + distance.saturating_mul(place);
        if !wait.is_zero() {
            return Turn::In(wait);
        }
        Turn::Now
    }

    /// The node's pods are driven out since `now`: the turn of others is later by as much.
    pub fn took(&mut self, node: &str, now: Instant) {
        let place = self.place.get(node);
        if let Some(zone) = place.and_then(|place| self.zones.get_mut(place)) {
            zone.waiting.retain(|waiting| waiting != node);
            zone.last = Some(now);
        }
    }

    /// The node has nothing to wait for; who comes first now, if that is another.
    pub fn settled(&mut self, node: &Node) -> Option<String> {
        let zone = self.zones.get_mut(&zone_of(node))?;
        let name = meta::name(node);
        let was_first = zone.waiting.front().is_some_and(|first| first == name);
        zone.waiting.retain(|waiting| waiting != name);
        zone.waiting.front().filter(|_| was_first).cloned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn node(name: &str, zone: &str, ready: bool) -> Node {
        let labels = json!({"topology.kubernetes.io/zone": zone});
        let ready = if ready { "True" } else { "Unknown" };
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
        .unwrap()
    }

    #[test]
    fn a_zone_is_as_its_nodes_are() {
        for (nodes, ready, expected) in [
            (0, 0, Mode::Normal),
            (1, 0, Mode::Full),
            (1, 1, Mode::Normal),
            (3, 1, Mode::Normal),
            (4, 1, Mode::Partial),
            (10, 5, Mode::Normal),
            (100, 45, Mode::Partial),
            (100, 46, Mode::Normal),
            (100, 0, Mode::Full),
        ] {
            assert_eq!(mode(nodes, ready), expected, "{ready} of {nodes}");
        }
        for (mode, nodes, expected) in [
            (Mode::Normal, 3, Some(10)),
            (Mode::Full, 3, Some(10)),
            (Mode::Partial, 50, None),
            (Mode::Partial, 51, Some(100)),
        ] {
            assert_eq!(distance(mode, nodes).map(|d| d.as_secs()), expected, "{mode:?} {nodes}");
        }
    }

    #[test]
    fn nodes_follow_one_another_in_each_zone() {
        let mut zones = Zones::default();
        let start = Instant::now();
        for at in 0..20 {
            zones.applied(&node(&format!("a{at}"), "a", at > 3));
            zones.applied(&node(&format!("b{at}"), "b", at > 3));
        }
        let second = Duration::from_secs;
        assert_eq!(zones.turn(&node("a0", "a", false), start), Turn::Now);
        let second_of_all = zones.turn(&node("a1", "a", false), start);
        assert_eq!(second_of_all, Turn::In(second(10)), "the first could not use its turn");
        let mut ask = |name: &str, zone: &str, at| {
            let (node, now) = (node(name, zone, false), start + second(at));
            let turn = zones.turn(&node, now);
            if turn == Turn::Now {
                zones.took(name, now);
            }
            turn
        };
        assert_eq!(ask("a0", "a", 0), Turn::Now, "and has it again");
        assert_eq!(ask("a1", "a", 0), Turn::In(second(10)));
        assert_eq!(ask("a2", "a", 1), Turn::In(second(19)));
        assert_eq!(ask("a1", "a", 2), Turn::In(second(8)), "its place stays");
        assert_eq!(ask("b0", "b", 2), Turn::Now, "another zone");
        assert_eq!(ask("a1", "a", 10), Turn::Now);
        assert_eq!(ask("a2", "a", 10), Turn::In(second(10)));
        assert_eq!(ask("a3", "a", 12), Turn::In(second(18)));
        let next = zones.settled(&node("a2", "a", true));
        assert_eq!(next, Some("a3".to_owned()), "it is next");
        let third = node("a3", "a", false);
        assert_eq!(zones.turn(&third, start + second(20)), Turn::Now);
        zones.took("a3", start + second(20));
        assert_eq!(zones.settled(&node("a3", "a", true)), None);
    }

    #[test]
    fn a_zone_that_fails_stops_and_a_cluster_that_fails_too() {
        let mut zones = Zones::default();
        let start = Instant::now();
        for at in 0..10 {
            zones.applied(&node(&format!("a{at}"), "a", true));
        }
        zones.applied(&node("b0", "b", true));
        for at in 0..5 {
            let moved = zones.applied(&node(&format!("a{at}"), "a", false));
            assert_eq!(moved, Moved::default(), "{at}");
        }
        let down = |zones: &mut Zones, name: &str| zones.turn(&node(name, "a", false), start);
        assert_eq!(down(&mut zones, "a0"), Turn::Now);
        zones.took("a0", start);
        assert!(matches!(down(&mut zones, "a1"), Turn::In(_)));
        // Six of ten: a large part of a small zone.
        let moved = zones.applied(&node("a5", "a", false));
        assert_eq!(moved.nodes, ["a1"], "it waits for ever now");
        assert_eq!(down(&mut zones, "a1"), Turn::Never);
        for at in 6..10 {
            zones.applied(&node(&format!("a{at}"), "a", false));
        }
        assert!(
            matches!(down(&mut zones, "a1"), Turn::In(_)),
            "all of it, but not of the cluster"
        );
        let moved = zones.applied(&node("b0", "b", false));
        assert!(moved.all && !moved.back && zones.all_down());
        assert_eq!(down(&mut zones, "a1"), Turn::Never);
        let moved = zones.applied(&node("b0", "b", true));
        assert!(moved.all && moved.back);
        assert!(zones.gone("b0").all, "the last ready one is gone");
        let mut uncounted = node("c0", "c", true);
        uncounted
            .metadata
            .labels
            .as_mut()
            .unwrap()
            .insert(UNCOUNTED.to_owned(), String::new());
        assert_eq!(
            zones.applied(&uncounted),
            Moved::default(),
            "it says nothing of the cluster"
        );
        assert!(zones.all_down());
    }

    #[test]
    fn a_node_that_moves_is_in_one_zone() {
        let mut zones = Zones::default();
        zones.applied(&node("n", "a", true));
        zones.applied(&node("n", "b", true));
        assert_eq!(zones.zones.len(), 1);
        zones.gone("n");
        assert!(zones.zones.is_empty() && zones.place.is_empty());
    }
}
