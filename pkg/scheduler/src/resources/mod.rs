//! What a pod asks of a node and what a node offers, as plain integers: computed once per object, added and compared per cycle.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Node, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use mk8s_api::quantity::Quantity;

/// What a container without a request counts as in scores, so that many of them don't all end up on one node.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// More than this counts as this (2 PiB, of bytes): more than any node has, and the sum of 4 096 of it is still a number. A pod may
/// ask for 8 EiB, twice.
const MOST: i64 = i64::MAX >> 12;

/// No sum is more than this: with [`MOST`] more it is still a number.
const FULL: i64 = i64::MAX >> 1;

/// Amounts of resources: CPU in thousandths, all else in units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// How many pods (of a node alone).
    pub pods: i64,
    /// Everything else, by name, sorted.
    pub scalars: Vec<(String, i64)>,
}

impl Resources {
    /// Reads a ResourceList; what can't be read counts as zero (validation lets none through).
    pub fn from_list(list: Option<&BTreeMap<String, Text>>) -> Self {
        let mut all = Resources::default();
        for (name, text) in list.into_iter().flatten() {
            let Ok(quantity) = Quantity::parse(&text.0) else {
                continue;
            };
            let value = || quantity.value().clamp(0, MOST);
            match name.as_str() {
                "cpu" => all.milli_cpu = quantity.milli_value().clamp(0, MOST),
                "memory" => all.memory = value(),
                "ephemeral-storage" => all.ephemeral_storage = value(),
                "pods" => all.pods = value(),
                _ => all.scalars.push((name.clone(), value())),
            }
        }
        all
    }

    /// The amount of a named scalar.
    pub fn scalar(&self, name: &str) -> i64 {
        self.scalars
            .binary_search_by(|(n, _)| n.as_str().cmp(name))
            .map_or(0, |at| self.scalars[at].1)
    }

    fn plain_mut(&mut self) -> [&mut i64; 4] {
        [
            &mut self.milli_cpu,
            &mut self.memory,
            &mut self.ephemeral_storage,
            &mut self.pods,
        ]
    }

    /// Puts `join` of its own and the other's amount of each in place of its own.
    fn merge(&mut self, other: &Resources, join: fn(i64, i64) -> i64) {
        let plain = [other.milli_cpu, other.memory, other.ephemeral_storage, other.pods];
        for (own, other) in self.plain_mut().into_iter().zip(plain) {
            *own = join(*own, other);
        }
        self.merge_scalars(&other.scalars, join);
    }

    fn merge_scalars(&mut self, others: &[(String, i64)], join: fn(i64, i64) -> i64) {
        let mut new = Vec::new();
        for (name, other) in others {
            match self.scalars.binary_search_by(|(own, _)| own.cmp(name)) {
                Ok(at) => self.scalars[at].1 = join(self.scalars[at].1, *other),
                Err(_) => new.push((name.clone(), join(0, *other))),
            }
        }
        if !new.is_empty() {
            self.scalars.extend(new);
            self.scalars.sort();
        }
    }

    /// Adds each amount; no sum gets larger than [`FULL`].
    pub fn add(&mut self, other: &Resources) {
        self.merge(other, |own, other| own.saturating_add(other).min(FULL));
    }

    /// Takes each amount off. Not of a sum that is full, which may have been more.
    pub fn sub(&mut self, other: &Resources) {
        self.merge(other, |own, other| own.saturating_sub(other));
        self.scalars.retain(|(_, amount)| *amount != 0);
    }

    /// Some sum may have been more.
    pub fn is_full(&self) -> bool {
        let plain = [self.milli_cpu, self.memory, self.ephemeral_storage, self.pods];
        let scalars = self.scalars.iter().map(|(_, amount)| *amount);
        plain.into_iter().chain(scalars).any(|amount| amount >= FULL)
    }

    /// From what the containers ask for to what the pod does.
    fn finish(&mut self, spec: &PodSpec, whole: &BTreeMap<String, Text>) {
        self.replace(whole);
        self.add(&Resources::from_list(spec.overhead.as_ref()));
        self.clamp();
    }

    /// No amount is more than [`MOST`].
    fn clamp(&mut self) {
        self.plain_mut()
            .into_iter()
            .for_each(|amount| *amount = (*amount).min(MOST));
        self.scalars
            .iter_mut()
            .for_each(|(_, amount)| *amount = (*amount).min(MOST));
    }

    /// Puts these amounts in place of its own.
    fn replace(&mut self, list: &BTreeMap<String, Text>) {
        let amounts = Resources::from_list(Some(list));
        for name in list.keys() {
            match name.as_str() {
                "cpu" => self.milli_cpu = amounts.milli_cpu,
                "memory" => self.memory = amounts.memory,
                _ => {}
            }
        }
        self.merge_scalars(&amounts.scalars, |_, now| now);
    }

    /// Whether `differ` holds between two lists for something that is asked for here.
    pub fn asks_where(&self, one: &Resources, other: &Resources, differ: fn(i64, i64) -> bool) -> bool {
        (self.milli_cpu > 0 && differ(one.milli_cpu, other.milli_cpu))
            || (self.memory > 0 && differ(one.memory, other.memory))
            || (self.ephemeral_storage > 0 && differ(one.ephemeral_storage, other.ephemeral_storage))
            || self
                .scalars
                .iter()
                .any(|(name, asked)| *asked > 0 && differ(one.scalar(name), other.scalar(name)))
    }

    /// Keeps the larger of each amount.
    pub fn max(&mut self, other: &Resources) {
        self.merge(other, i64::max);
    }
}

/// What the node has for pods.
pub fn allocatable(node: &Node) -> Resources {
    Resources::from_list(node.status.as_ref().and_then(|s| s.allocatable.as_ref()))
}

/// What the pod asks for: its containers together, or more where an init container needs more than was taken before it; and its overhead.
pub fn requests(pod: &Pod) -> Resources {
    let told = Told::of(pod);
    let Some(spec) = &pod.spec else {
        return Resources::default();
    };
    let mut all = fold(spec, |own| told.requests(own));
    all.finish(spec, &of_whole_pod(spec));
    all
}

/// The same for scores, where a container without a request counts as a small one; one of a pod that asks as a whole only for what
/// nothing of the pod asks for.
pub fn nonzero_requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else {
        return Resources::default();
    };
    let whole = of_whole_pod(spec);
    let missing = |name: &str| whole.is_empty() || !asks_for(spec, &whole, name);
    let mut all = with_defaults(pod, spec, missing("cpu"), missing("memory"));
    all.finish(spec, &whole);
    all
}

/// What a pod that waits is scored by where that is not its [`nonzero_requests`]: upstream leaves out there what it asks for as a
/// whole.
pub fn scored_requests(pod: &Pod) -> Option<Resources> {
    let spec = pod.spec.as_ref().filter(|spec| !of_whole_pod(spec).is_empty())?;
    let mut all = with_defaults(pod, spec, true, true);
    all.finish(spec, &BTreeMap::new());
    Some(all)
}

/// Whether the pod, one of its containers or its overhead asks for some of it.
fn asks_for(spec: &PodSpec, whole: &BTreeMap<String, Text>, name: &str) -> bool {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut lists = containers.filter_map(|own| own.resources.as_ref()?.requests.as_ref());
    let overhead = spec.overhead.iter().any(|own| own.contains_key(name));
    whole.contains_key(name) || overhead || lists.any(|own| own.contains_key(name))
}

fn with_defaults(pod: &Pod, spec: &PodSpec, cpu: bool, memory: bool) -> Resources {
    let told = Told::of(pod);
    fold(spec, |container| {
        let mut requests = told.requests(container);
        let own = container.resources.as_ref().and_then(|own| own.requests.as_ref());
        let has = |name| own.is_some_and(|own| own.contains_key(name));
        if cpu && !has("cpu") {
            requests.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if memory && !has("memory") {
            requests.memory = DEFAULT_MEMORY;
        }
        requests
    })
}

/// What the pod's node tells of its containers, by their names.
struct Told<'a> {
    statuses: HashMap<&'a str, &'a ContainerStatus>,
    infeasible: bool,
}

impl<'a> Told<'a> {
    fn of(pod: &'a Pod) -> Self {
        let status = pod.status.iter();
        let init = status.clone().flat_map(|s| s.init_container_statuses.iter().flatten());
        let main = status.clone().flat_map(|s| s.container_statuses.iter().flatten());
        let mut conditions = status.flat_map(|s| s.conditions.iter().flatten());
        let pending = conditions.find(|condition| condition.type_ == "PodResizePending");
        Told {
            statuses: init.chain(main).map(|told| (told.name.as_str(), told)).collect(),
            infeasible: pending.is_some_and(|condition| condition.reason.as_deref() == Some("Infeasible")),
        }
    }

    /// What a container asks for or has, whichever is more: its node may not have resized it yet. Where the node never will,
    /// what it has.
    fn requests(&self, container: &Container) -> Resources {
        let asked = Resources::from_list(container.resources.as_ref().and_then(|r| r.requests.as_ref()));
        let told = self.statuses.get(container.name.as_str());
        let Some((told, actual)) = told.and_then(|told| Some((told, told.resources.as_ref()?))) else {
            return asked;
        };
        let mut has = Resources::from_list(actual.requests.as_ref());
        has.max(&Resources::from_list(told.allocated_resources.as_ref()));
        if !self.infeasible {
            has.max(&asked);
        }
        has
    }
}

/// What the pod asks for as a whole, whatever its containers do (KEP-2837).
fn of_whole_pod(spec: &PodSpec) -> BTreeMap<String, Text> {
    let asked = spec.resources.iter().flat_map(|own| own.requests.iter().flatten());
    let supported = asked.filter(|(name, _)| matches!(&***name, "cpu" | "memory") || name.starts_with("hugepages-"));
    supported.map(|(name, amount)| (name.clone(), amount.clone())).collect()
}

fn fold(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&of(container));
    }
    // Init containers run one by one, beside the restartable ones (sidecars) before them.
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut own = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&own);
            total.add(&own);
            own = sidecars.clone();
        } else {
            own.add(&sidecars);
        }
        peak.max(&own);
    }
    total.max(&peak);
    total
}
