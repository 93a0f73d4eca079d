//! `Warning` texts: fields that are stored though nothing acts on them yet, each named by its path, and what upstream
//! warns of in a pod spec (duplicates, deprecated labels, fractional bytes).

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{Path, each, has, list, text};
use crate::{meta as object, quantity};

const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const SPEC: Path<'static> = Path::new("spec");

/// Of a Pod.
pub fn pod_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    // told once, when the pod is made
    if old.is_some() {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    if let Some(spec) = has(new, "spec") {
        upstream_warnings(spec, &SPEC, &mut warnings);
        spec_warnings(spec, &SPEC, &mut warnings);
    }
    warnings
}

/// Of a workload kind with `spec.template`.
pub fn pod_template_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let template = |object: &Value| -> Option<Value> { object::at(object, &["spec", "template"]).cloned() };
    if let Some(old) = old
        && template(new) == template(old)
    {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    if let Some(spec) = object::at(new, &["spec", "template", "spec"]) {
        let template = SPEC.child("template");
        let path = template.child("spec");
        upstream_warnings(spec, &path, &mut warnings);
        spec_warnings(spec, &path, &mut warnings);
    }
    warnings
}

fn nothing_acts(warnings: &mut Vec<String>, path: impl std::fmt::Display) {
    warnings.push(format!(
        "{path}: stored, but nothing acts on it in this version of mk8s"
    ));
}

fn spec_warnings(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        if !object::items(spec, &["affinity", kind, PREFERRED]).is_empty() {
            nothing_acts(warnings, path.child("affinity").child(kind).child(PREFERRED));
        }
    }
    for (index, volume) in each(spec, "volumes") {
        let Some(empty) = has(volume, "emptyDir") else { continue };
        if has(empty, "sizeLimit").is_some() && text(empty, "medium") != "Memory" {
            let volumes = path.child("volumes");
            nothing_acts(warnings, volumes.index(index).child("emptyDir").child("sizeLimit"));
        }
    }
    for kind in ["initContainers", "containers"] {
        for (index, container) in list(spec, kind).iter().enumerate() {
            if object::at(container, &["resources", "limits", "ephemeral-storage"]).is_some() {
                let containers = path.child(kind);
                let container_path = containers.index(index);
                let resources = container_path.child("resources");
                nothing_acts(warnings, resources.child("limits").key("ephemeral-storage"));
            }
        }
    }
    let priority = object::i64_at(spec, &["priority"]).unwrap_or(0);
    if priority > 0 && text(spec, "preemptionPolicy") != "Never" {
        warnings.push(format!(
            "{}: orders the queue, but preempts nothing in this version of mk8s",
            path.child("priority")
        ));
    }
}

/// (deprecated label of nodes, what to do)
const OLD_LABELS: [(&str, &str); 7] = [
    (
        "beta.kubernetes.io/arch",
        "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
    ),
    (
        "beta.kubernetes.io/os",
        "deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "node-role.kubernetes.io/master",
        "use \"node-role.kubernetes.io/control-plane\" instead",
    ),
];

fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS
        .iter()
        .find(|(label, _)| *label == key)
        .map(|(_, what)| *what)
}

fn upstream_warnings(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    for key in object::map_at(spec, &["nodeSelector"])
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
    {
        if let Some(why) = old_label(key) {
            warnings.push(format!("{}: {why}", path.child("nodeSelector").key(key)));
        }
    }
    let spread = path.child("topologySpreadConstraints");
    for (index, constraint) in each(spec, "topologySpreadConstraints") {
        let path = spread.index(index);
        let key = text(constraint, "topologyKey");
        if let Some(why) = old_label(key) {
            warnings.push(format!("{}: {key} is {why}", path.child("topologyKey")));
        }
        if has(constraint, "labelSelector").is_none() {
            warnings.push(format!(
                "{}: a null labelSelector results in matching no pod",
                path.child("labelSelector")
            ));
        }
    }
    repeated(spec, "hostAliases", "ip", path, warnings);
    repeated(spec, "imagePullSecrets", "name", path, warnings);
    let secrets = path.child("imagePullSecrets");
    for (index, secret) in each(spec, "imagePullSecrets") {
        if text(secret, "name").is_empty() {
            warnings.push(format!(
                "{}: invalid empty name \"\"",
                secrets.index(index).child("name")
            ));
        }
    }
    let lists = ["initContainers", "containers"];
    for kind in lists {
        let containers = path.child(kind);
        for (index, container) in each(spec, kind) {
            let path = containers.index(index);
            fractional_bytes(container, &path.child("resources"), warnings);
            hidden_variables(container, &path.child("env"), warnings);
        }
    }
    ports(spec, path, warnings);
    if object::i64_at(spec, &["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0) {
        warnings.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            path.child("terminationGracePeriodSeconds")
        ));
    }
}

/// The same value again in a list of objects.
fn repeated(spec: &Value, list_key: &str, key: &str, path: &Path<'_>, warnings: &mut Vec<String>) {
    let items = list(spec, list_key);
    let list_path = path.child(list_key);
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let own = text(item, key);
        if !seen.insert(own) {
            warnings.push(format!(
                "{}: duplicate {key} {own:?}",
                list_path.index(index).child(key)
            ));
        }
    }
}

fn fractional_bytes(container: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        for kind in ["limits", "requests"] {
            let Some(value) = object::at(container, &["resources", kind, name]) else {
                continue;
            };
            if let Ok(quantity) = quantity::from_json(value)
                && !quantity.is_whole()
            {
                warnings.push(format!(
                    "{}: fractional byte value {:?} is invalid, must be an integer",
                    path.child(kind).key(name),
                    value.as_str().unwrap_or_default()
                ));
            }
        }
    }
}

/// A variable that is defined twice, unless the second extends the first.
fn hidden_variables(container: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, variable) in each(container, "env") {
        let name = text(variable, "name");
        if seen.insert(name) {
            continue;
        }
        let (value, reference) = (text(variable, "value"), format!("$({name})"));
        let extends = has(variable, "valueFrom").is_none() && value != reference && value.contains(&reference);
        if !extends {
            warnings.push(format!(
                "{}: hides previous definition of {name:?}, which may be dropped when using apply",
                path.index(index)
            ));
        }
    }
}

/// Ports of all containers of the pod against each other.
fn ports(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    // Paths become text only when there is something to say.
    let shown = |(kind, container, port): (&str, usize, usize)| -> String {
        let containers = path.child(kind);
        let container = containers.index(container);
        container.child("ports").index(port).into()
    };
    let mut seen = Ports::default();
    let mut by_name: HashMap<&str, (&str, usize, usize)> = HashMap::new();
    let mut names = Vec::new();
    for kind in ["initContainers", "containers"] {
        for (container_index, container) in each(spec, kind) {
            for (index, port) in each(container, "ports") {
                let own = (kind, container_index, index);
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

/// No answer's headers hold as many, and ports can clash each with each.
const MOST: usize = 1000;

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_names_its_field() {
        let pod = json!({"spec": {"priority": 5, "volumes": [{"emptyDir": {"sizeLimit": "1Gi"}}],
            "containers": [{"resources": {"limits": {"ephemeral-storage": "1Gi"}}}]}});
        assert_eq!(
            pod_warnings(&pod, None),
            [
                "spec.volumes[0].emptyDir.sizeLimit: stored, but nothing acts on it in this version of mk8s",
                "spec.containers[0].resources.limits[ephemeral-storage]: stored, but nothing acts on it in this version of mk8s",
                "spec.priority: orders the queue, but preempts nothing in this version of mk8s",
            ]
        );
    }
}
