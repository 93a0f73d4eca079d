//! What a pod asks of a node and what a node offers, as plain integers: computed once per object, added and compared per cycle.

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
            let value = || quantity.value().min(MOST);
            match name.as_str() {
                "cpu" => all.milli_cpu = quantity.milli_value().min(MOST),
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

    fn scalar_mut(&mut self, name: &str) -> &mut i64 {
        let at = match self.scalars.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(at) => at,
            Err(at) => {
                self.scalars.insert(at, (name.to_owned(), 0));
                at
            }
        };
        &mut self.scalars[at].1
    }

    /// Adds each amount.
    pub fn add(&mut self, other: &Resources) {
        self.milli_cpu += other.milli_cpu;
        self.memory += other.memory;
        self.ephemeral_storage += other.ephemeral_storage;
        self.pods += other.pods;
        for (name, amount) in &other.scalars {
            *self.scalar_mut(name) += amount;
        }
    }

    /// Takes each amount off.
    pub fn sub(&mut self, other: &Resources) {
        self.milli_cpu -= other.milli_cpu;
        self.memory -= other.memory;
        self.ephemeral_storage -= other.ephemeral_storage;
        self.pods -= other.pods;
        for (name, amount) in &other.scalars {
            *self.scalar_mut(name) -= amount;
        }
    }

    /// From what the containers ask for to what the pod does.
    fn finish(&mut self, spec: &PodSpec, whole: &BTreeMap<String, Text>) {
        self.replace(whole);
        self.add(&Resources::from_list(spec.overhead.as_ref()));
        self.clamp();
    }

    /// No amount is more than [`MOST`].
    fn clamp(&mut self) {
        for amount in [&mut self.milli_cpu, &mut self.memory, &mut self.ephemeral_storage] {
            *amount = (*amount).min(MOST);
        }
        for (_, amount) in &mut self.scalars {
            *amount = (*amount).min(MOST);
        }
    }

    /// Puts these amounts in place of its own.
    fn replace(&mut self, list: &BTreeMap<String, Text>) {
        let amounts = Resources::from_list(Some(list));
        for name in list.keys() {
            match name.as_str() {
                "cpu" => self.milli_cpu = amounts.milli_cpu,
                "memory" => self.memory = amounts.memory,
                name => *self.scalar_mut(name) = amounts.scalar(name),
            }
        }
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
        self.milli_cpu = self.milli_cpu.max(other.milli_cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.scalars {
            let own = self.scalar_mut(name);
            *own = (*own).max(*amount);
        }
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

/// Whether the pod leaves others more of something than before.
pub fn gives_room(before: &Pod, now: &Pod) -> bool {
    let (before, mut both) = (requests(before), requests(now));
    let now = both.clone();
    both.max(&before);
    both != now
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {}, "spec": spec})).unwrap()
    }

    #[test]
    fn pod_asks_for_the_larger_of_containers_and_init_containers_and_for_its_overhead() {
        let c = |cpu: &str, gpus: &str| serde_json::json!({"name": "c", "resources": {"requests": {"cpu": cpu, "a.b/gpu": gpus}}});
        let spec = serde_json::json!({
            "containers": [c("100m", "1"), c("0.2", "1")],
            "initContainers": [c("1", "1")],
            "overhead": {"cpu": "10m", "memory": "1Ki"},
        });
        let asked = requests(&pod(spec));
        assert_eq!(
            (asked.milli_cpu, asked.memory, asked.scalar("a.b/gpu")),
            (1010, 1024, 2)
        );
    }

    #[test]
    fn sidecar_counts_beside_later_init_containers_and_the_containers() {
        let c = |cpu: &str, policy: Option<&str>| serde_json::json!({"name": "c", "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}});
        let spec = |main: &str| {
            serde_json::json!({
                "containers": [c(main, None)],
                "initContainers": [c("100m", Some("Always")), c("500m", None)],
            })
        };
        assert_eq!(requests(&pod(spec("200m"))).milli_cpu, 600);
        assert_eq!(requests(&pod(spec("700m"))).milli_cpu, 800);
    }

    #[test]
    fn what_the_pod_asks_for_as_a_whole_counts_instead() {
        let container =
            json!({"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "1Ki", "a.b/gpu": "1"}}});
        let spec = json!({
            "containers": [container, {"name": "d"}],
            "resources": {"requests": {"cpu": "2", "hugepages-2Mi": "4Mi"}},
            "overhead": {"cpu": "10m"},
        });
        let (asked, nonzero) = (requests(&pod(spec.clone())), nonzero_requests(&pod(spec.clone())));
        let scalars = (asked.scalar("a.b/gpu"), asked.scalar("hugepages-2Mi"));
        assert_eq!((asked.milli_cpu, asked.memory, scalars), (2010, 1024, (1, 4 << 20)));
        assert_eq!((nonzero.milli_cpu, nonzero.memory), (2010, 1024));
        let scored = scored_requests(&pod(spec)).unwrap();
        assert_eq!((scored.milli_cpu, scored.memory), (210, 1024 + DEFAULT_MEMORY));
    }

    #[test]
    fn a_container_that_is_not_resized_counts_as_what_it_has() {
        for (asks, has, pending, expected) in [
            ("100m", None, "", 100),
            // It is not the one that is not resized.
            ("100m", None, "Infeasible", 100),
            ("100m", Some("100m"), "", 100),
            ("100m", Some("4"), "Infeasible", 4000),
            ("100m", Some("4"), "", 4000),
            ("1000", Some("1"), "Infeasible", 1000),
            ("1000", Some("1"), "Deferred", 1_000_000),
        ] {
            let list = |cpu: &str| json!({"requests": {"cpu": cpu}});
            let pod: Pod = serde_json::from_value(json!({
                "spec": {"containers": [{"name": "c", "resources": list(asks)}]},
                "status": {
                    "conditions": [{"type": "PodResizePending", "status": "True", "reason": pending}],
                    "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                        "resources": has.map(list)}],
                },
            }))
            .unwrap();
            let asked = (requests(&pod).milli_cpu, nonzero_requests(&pod).milli_cpu);
            assert_eq!(asked, (expected, expected), "{asks} {has:?} {pending}");
        }
    }

    #[test]
    fn a_pod_that_asks_for_less_of_something_gives_room() {
        let asks = |list: serde_json::Value| {
            let container = json!({"name": "c", "resources": {"requests": list}});
            pod(json!({"containers": [container]}))
        };
        let one = asks(json!({"cpu": "1", "memory": "1Gi", "x.y/z": "1"}));
        for (now, gives) in [
            (json!({"cpu": "1", "memory": "1Gi", "x.y/z": "1"}), false),
            (json!({"cpu": "2", "memory": "1Gi", "x.y/z": "1"}), false),
            (json!({"cpu": "500m", "memory": "2Gi", "x.y/z": "1"}), true),
            (json!({"cpu": "1", "memory": "1Gi"}), true),
        ] {
            assert_eq!(gives_room(&one, &asks(now.clone())), gives, "{now}");
        }
    }

    #[test]
    fn containers_without_requests_count_in_scores_only() {
        let spec =
            serde_json::json!({"containers": [{"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "0"}}}]});
        assert_eq!(requests(&pod(spec.clone())), Resources::default());
        let asked = nonzero_requests(&pod(spec));
        assert_eq!((asked.milli_cpu, asked.memory), (DEFAULT_MILLI_CPU, 2 * DEFAULT_MEMORY));
    }

    #[test]
    fn sums_of_the_largest_requests_are_still_large() {
        let huge = json!({"name": "c", "resources": {"requests": {"memory": "5E", "cpu": "9E", "x.y/z": "5E"}}});
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"containers": [huge, huge], "overhead": {"memory": "5E"}}}))
                .unwrap();
        let asked = requests(&pod);
        assert_eq!(
            (asked.memory, asked.milli_cpu, asked.scalar("x.y/z")),
            (MOST, MOST, MOST)
        );
        let mut node = Resources::default();
        for _ in 0..2000 {
            node.add(&asked);
        }
        assert!(node.memory > MOST && node.scalar("x.y/z") > MOST);
        for _ in 0..2000 {
            node.sub(&asked);
        }
        assert_eq!((node.memory, node.milli_cpu, node.scalar("x.y/z")), (0, 0, 0));
    }
}
