//! Ports of a pod's containers that clash with each other.

use std::collections::HashMap;

use serde_json::Value;

use super::{CONTAINERS, MOST};
use crate::meta as object;
use crate::validation::{Path, each, text};

/// Ports of all containers of the pod against each other.
pub(super) fn check(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    // Paths become text only when there is something to say.
    let shown = |(kind, container, port): (&str, usize, usize)| -> String {
        let containers = path.child(kind);
        let container = containers.index(container);
        container.child("ports").index(port).into()
    };
    let mut seen = Ports::default();
    let mut by_name: HashMap<&str, (&str, usize, usize)> = HashMap::new();
    let mut names = Vec::new();
    for kind in CONTAINERS {
        for (container_index, container) in each(spec, kind) {
            for (index, port) in each(container, "ports") {
                let own = (kind, container_index, index);
                if !text(port, "hostIP").is_empty() && number(port, "hostPort") == 0 {
                    warnings.push(format!(
                        "{}: hostIP set without hostPort: {}",
                        shown(own),
                        printed(port)
                    ));
                }
                for (other, what) in seen.clashes(port) {
                    let (own, other) = (shown(own), shown(other));
                    warnings.push(format!("{own}: {what} port definition with {other}"));
                    if warnings.len() >= MOST {
                        return;
                    }
                }
                let name = text(port, "name");
                if !name.is_empty() {
                    let first = *by_name.entry(name).or_insert(own);
                    if first != own {
                        let (own, first) = (shown(own), shown(first));
                        names.push(format!(
                            "{own}: duplicate port name {name:?} with {first}, services and probes that select ports by name will use {first}"
                        ));
                    }
                }
                seen.add(own, port);
            }
        }
    }
    warnings.append(&mut names);
}

/// A pod's ports, filed by all that another one may clash with.
#[derive(Default)]
struct Ports<'a> {
    all: Vec<((&'a str, usize, usize), &'a Value)>,
    filed: HashMap<Shelf<'a>, Vec<usize>>,
}

/// Container port and protocol; host port; host address.
type Shelf<'a> = (i64, &'a str, Option<i64>, Option<&'a str>);

impl<'a> Ports<'a> {
    fn add(&mut self, own: (&'a str, usize, usize), port: &'a Value) {
        let (number, protocol) = (number(port, "containerPort"), text(port, "protocol"));
        let (host, ip) = (Some(self::number(port, "hostPort")), Some(text(port, "hostIP")));
        for (host, ip) in [(None, None), (host, None), (host, ip)] {
            let shelf = self.filed.entry((number, protocol, host, ip)).or_default();
            shelf.push(self.all.len());
        }
        self.all.push((own, port));
    }

    /// Those that clash with a port, and how, in the order they were added.
    fn clashes(&self, port: &'a Value) -> impl Iterator<Item = ((&'a str, usize, usize), &'static str)> {
        let (number, protocol) = (number(port, "containerPort"), text(port, "protocol"));
        let (host, ip) = (self::number(port, "hostPort"), text(port, "hostIP"));
        let shelves = match (host, ip) {
            (0, _) => vec![(None, None)],
            (host, "") => vec![(Some(0), None), (Some(host), None)],
            (host, ip) => vec![(Some(0), None), (Some(host), Some(ip)), (Some(host), Some(""))],
        };
        let filed = |(host, ip)| self.filed.get(&(number, protocol, host, ip));
        let mut found: Vec<usize> = shelves.into_iter().filter_map(filed).flatten().copied().collect();
        found.sort_unstable();
        let all = found.into_iter().map(|index| self.all[index]);
        all.filter_map(move |(other, other_port)| Some((other, clash(port, other_port)?)))
    }
}

/// As Go prints its struct.
fn printed(port: &Value) -> String {
    format!(
        "{{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
        text(port, "name"),
        number(port, "hostPort"),
        number(port, "containerPort"),
        text(port, "protocol"),
        text(port, "hostIP")
    )
}

fn number(port: &Value, key: &str) -> i64 {
    object::i64_at(port, &[key]).unwrap_or(0)
}

/// What two ports of a pod are to each other, if they cannot both be meant.
fn clash(port: &Value, other: &Value) -> Option<&'static str> {
    if number(other, "containerPort") != number(port, "containerPort")
        || text(other, "protocol") != text(port, "protocol")
    {
        return None;
    }
    let (ip, host) = (text(port, "hostIP"), number(port, "hostPort"));
    let (other_ip, other_host) = (text(other, "hostIP"), number(other, "hostPort"));
    if ip == other_ip && host == other_host {
        Some("duplicate")
    } else if host == 0 || other_host == 0 {
        Some("overlapping")
    } else if host == other_host && (ip.is_empty() != other_ip.is_empty()) {
        Some("dangerously ambiguous")
    } else {
        None
    }
}
