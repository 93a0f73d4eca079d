//! Whether the node takes a pod that was given to it: what the scheduler believed may be out of date, and some pods never
//! passed one.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Node, Pod};
use mk8s_client::{HostPort, NodeTerms, host_ports};
use parking_lot::Mutex;

use crate::agent::Agent;
use crate::pod;
use crate::record::Verdict;
use crate::resources::qos::Class;
use crate::resources::{self, qos};

#[derive(Default)]
pub struct Admission {
    taken: Mutex<HashMap<String, Taken>>,
}

#[derive(Clone, Debug)]
struct Taken {
    requests: BTreeMap<String, i64>,
    ports: Vec<HostPort>,
    burstable_cpu: i64,
}

/// Sysctls that stay within the pod's namespaces; others could disturb the node.
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

fn refused(reason: &str, message: impl Into<String>) -> Verdict {
    Verdict {
        reason: reason.to_owned(),
        message: message.into(),
    }
}

/// What a node is short of, by its thresholds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pids: bool,
}

/// Pods of this priority and above are what the cluster itself runs on.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// A node under pressure takes only what the cluster needs; one that is short of memory alone also what asks for a certain
/// amount of it, or tolerates that.
fn check_pressure(pod: &Pod, pressure: Pressure) -> Result<(), Verdict> {
    let names = [
        (pressure.memory, "MemoryPressure"),
        (pressure.disk, "DiskPressure"),
        (pressure.pids, "PIDPressure"),
    ];
    let short: Vec<&str> = names.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
    let critical = pod::spec(pod).priority.is_some_and(|p| p >= SYSTEM_CRITICAL);
    let only_memory = short == ["MemoryPressure"];
    let bears_it = only_memory && (qos::class(pod) != Class::BestEffort || tolerates_memory_pressure(pod));
    if short.is_empty() || critical || bears_it {
        return Ok(());
    }
    let text = format!("The node had condition: [{}]. ", short.join(" "));
    Err(refused("Evicted", text))
}

fn tolerates_memory_pressure(pod: &Pod) -> bool {
    pod::spec(pod).tolerations.iter().flatten().any(|t| {
        let key = t.key.as_deref().unwrap_or_default();
        let effect = t.effect.as_deref().unwrap_or_default();
        let exists = t.operator.as_deref() == Some("Exists");
        // The taint has no value.
        let value = exists || t.value.as_deref().unwrap_or_default().is_empty();
        (key == "node.kubernetes.io/memory-pressure" || (key.is_empty() && exists))
            && (effect.is_empty() || effect == "NoSchedule")
            && value
    })
}

/// What doesn't depend on other pods.
fn check_alone(pod: &Pod, node: &str, labels: &BTreeMap<String, String>) -> Result<(), Verdict> {
    let spec = pod::spec(pod);
    for sysctl in spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten()) {
        let name = sysctl.name.replace('/', ".");
        let of_host = (name.starts_with("net.") && pod::host_network(pod))
            || (name.starts_with("kernel.shm") && spec.host_ipc.unwrap_or(false));
        if of_host || !SAFE_SYSCTLS.contains(&name.as_str()) {
            return Err(refused(
                "SysctlForbidden",
                format!("forbidden sysctl: \"{name}\" not allowlisted"),
            ));
        }
    }
    if !NodeTerms::required(pod).matches(node, labels) {
        return Err(refused(
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ));
    }
    let os = labels.get("kubernetes.io/os").map_or("linux", String::as_str);
    if let Some(wanted) = spec.os.as_ref().filter(|o| o.name != os) {
        let text = format!(
            "Failed to admit pod as the OS field doesn't match node OS: {}",
            wanted.name
        );
        return Err(refused("PodOSNotSupported", text));
    }
    Ok(())
}

impl Taken {
    fn of(pod: &Pod) -> Self {
        let requests = resources::pod_requests(pod);
        let cpu = requests.get("cpu").copied().unwrap_or(0);
        Self {
            ports: host_ports(pod::spec(pod)),
            burstable_cpu: if qos::class(pod) == Class::Burstable { cpu } else { 0 },
            requests,
        }
    }
}

fn check_beside(
    mine: &Taken,
    others: &HashMap<String, Taken>,
    allocatable: &BTreeMap<String, i64>,
    max_pods: usize,
) -> Result<(), Verdict> {
    if others.len() >= max_pods {
        let text = format!(
            "Node didn't have enough resource: pods, requested: 1, used: {}, capacity: {max_pods}",
            others.len()
        );
        return Err(refused("OutOfpods", text));
    }
    if others
        .values()
        .any(|o| o.ports.iter().any(|p| mine.ports.iter().any(|m| m.conflicts(p))))
    {
        let text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Err(refused("NodePorts", text));
    }
    check_room(&mine.requests, &BTreeMap::new(), others, allocatable)
}

/// What the burstable pods ask for together.
fn burstable_cpu(taken: &HashMap<String, Taken>) -> i64 {
    taken.values().map(|t| t.burstable_cpu).sum()
}

/// Of a pod that has something already only what it wants more of has to be free.
fn check_room(
    wanted: &BTreeMap<String, i64>,
    has: &BTreeMap<String, i64>,
    others: &HashMap<String, Taken>,
    allocatable: &BTreeMap<String, i64>,
) -> Result<(), Verdict> {
    for (name, requested) in wanted {
        if *requested <= has.get(name).copied().unwrap_or(0) {
            continue;
        }
        let capacity = allocatable.get(name).copied().unwrap_or(0);
        let asked = others.values().filter_map(|o| o.requests.get(name));
        let used = asked.fold(0_i64, |sum, amount| sum.saturating_add(*amount));
        if used.saturating_add(*requested) > capacity {
            let text = format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return Err(refused(&format!("OutOf{name}"), text));
        }
    }
    Ok(())
}

/// What there is for pods: as the node's object has it, where that says something.
fn allocatable(agent: &Agent, node: Option<&Node>) -> BTreeMap<String, i64> {
    let mut allocatable = agent.machine.allocatable_amounts();
    let of_node = node.and_then(|n| n.status.as_ref()?.allocatable.as_ref()).into_iter();
    allocatable.extend(of_node.flatten().map(|(n, q)| (n.clone(), resources::amount(n, q))));
    allocatable
}

impl Admission {
    /// `adopted`: it runs here already and is only counted.
    pub fn admit(&self, agent: &Agent, pod: &Pod, node: Option<&Node>, adopted: bool) -> Result<(), Verdict> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let labels = node.and_then(|n| n.metadata.labels.as_ref()).unwrap_or(&NONE);
        if !adopted {
            check_pressure(pod, *agent.pressure.lock())?;
        }
        if !adopted && node.is_some() {
            check_alone(pod, &agent.config.node_name, labels)?;
        }
        let mine = Taken::of(pod);
        let mut taken = self.taken.lock();
        taken.remove(pod::uid(pod));
        if !adopted {
            check_beside(&mine, &taken, &allocatable(agent, node), agent.config.max_pods as usize)?;
        }
        let weighs = mine.burstable_cpu > 0;
        taken.insert(pod::uid(pod).to_owned(), mine);
        if weighs {
            self.weigh(agent, &taken);
        }
        Ok(())
    }

    /// A pod that is here takes another size; refused, it keeps what it has. Nothing is asked of it but that there is room:
    /// whether it may be here was decided when it came.
    pub fn resize(&self, agent: &Agent, pod: &Pod, node: Option<&Node>) -> Result<(), Verdict> {
        let (uid, mine, mut taken) = (pod::uid(pod), Taken::of(pod), self.taken.lock());
        let before = taken.remove(uid);
        let none = BTreeMap::new();
        let has = before.as_ref().map_or(&none, |before| &before.requests);
        let room = check_room(&mine.requests, has, &taken, &allocatable(agent, node));
        if let Err(verdict) = room {
            taken.extend(before.map(|before| (uid.to_owned(), before)));
            return Err(verdict);
        }
        let weighs = before.map_or(0, |before| before.burstable_cpu) != mine.burstable_cpu;
        taken.insert(uid.to_owned(), mine);
        if weighs {
            self.weigh(agent, &taken);
        }
        Ok(())
    }

    pub fn release(&self, agent: &Agent, uid: &str) {
        let mut taken = self.taken.lock();
        if taken.remove(uid).is_some_and(|t| t.burstable_cpu > 0) {
            self.weigh(agent, &taken);
        }
    }

    #[cfg(test)]
    pub fn weight(&self) -> i64 {
        burstable_cpu(&self.taken.lock())
    }

    fn weigh(&self, agent: &Agent, taken: &HashMap<String, Taken>) {
        if let Err(error) = agent.cgroups.set_burstable_shares(burstable_cpu(taken)) {
            tracing::warn!(%error, "cannot set the share of the burstable pods");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "c", "image": "i"}]);
        }
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})).unwrap()
    }

    #[test]
    fn alone() {
        let labels: BTreeMap<String, String> = [("disk".to_owned(), "ssd".to_owned())].into();
        for (spec, expected) in [
            (json!({}), None),
            (json!({"nodeSelector": {"disk": "ssd"}}), None),
            (json!({"nodeSelector": {"disk": "hdd"}}), Some("NodeAffinity")),
            (
                json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}}),
                None,
            ),
            (
                json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
                Some("SysctlForbidden"),
            ),
        ] {
            let got = check_alone(&pod(spec.clone()), "node-a", &labels)
                .err()
                .map(|v| v.reason);
            assert_eq!(got.as_deref(), expected, "{spec}");
        }
    }

    #[test]
    fn under_pressure() {
        let of = |memory, disk, pids| Pressure { memory, disk, pids };
        let certain = json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "1Mi"}}}]});
        let tolerant = json!({"tolerations": [{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]});
        let critical = json!({"priority": 2_000_001_000});
        for (spec, pressure, expected) in [
            (json!({}), of(false, false, false), None),
            (
                json!({}),
                of(true, false, false),
                Some("The node had condition: [MemoryPressure]. "),
            ),
            (certain.clone(), of(true, false, false), None),
            (tolerant.clone(), of(true, false, false), None),
            (
                certain,
                of(false, true, false),
                Some("The node had condition: [DiskPressure]. "),
            ),
            (
                tolerant,
                of(true, true, true),
                Some("The node had condition: [MemoryPressure DiskPressure PIDPressure]. "),
            ),
            (critical, of(true, true, true), None),
        ] {
            let got = check_pressure(&pod(spec.clone()), pressure).err().map(|v| v.message);
            assert_eq!(got.as_deref(), expected, "{spec}");
        }
    }

    fn check(
        pod: &Pod,
        others: &HashMap<String, Taken>,
        free: &BTreeMap<String, i64>,
        max: usize,
    ) -> Result<Taken, Verdict> {
        let mine = Taken::of(pod);
        check_beside(&mine, others, free, max).map(|()| mine)
    }

    #[test]
    fn beside() {
        let with = |port: i32, cpu: &str| {
            pod(
                json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": port}],
                "resources": {"requests": {"cpu": cpu}}}]}),
            )
        };
        let allocatable: BTreeMap<String, i64> = [("cpu".to_owned(), 2000)].into();
        let mut others = HashMap::new();
        others.insert(
            "o".to_owned(),
            check(&with(8080, "1500m"), &others, &allocatable, 10).unwrap(),
        );
        for (pod, max, expected) in [
            (with(8081, "500m"), 10, None),
            (with(8080, "100m"), 10, Some("NodePorts")),
            (with(8081, "501m"), 10, Some("OutOfcpu")),
            (with(8081, "100m"), 1, Some("OutOfpods")),
        ] {
            let got = check(&pod, &others, &allocatable, max).err().map(|v| v.reason);
            assert_eq!(got.as_deref(), expected);
        }
    }

    #[test]
    fn a_sidecar_takes_its_host_ports_and_an_init_container_none() {
        let with = |policy: Value| {
            pod(json!({"containers": [{"name": "c", "image": "i"}], "initContainers": [
                {"name": "i", "image": "i", "restartPolicy": policy, "ports": [{"containerPort": 80, "hostPort": 8080}]},
            ]}))
        };
        let (sidecar, init) = (with(json!("Always")), with(Value::Null));
        let free = BTreeMap::new();
        let taken = |pod: &Pod| check(pod, &HashMap::new(), &free, 10).unwrap();
        for (there, comes, fits) in [
            (&sidecar, &sidecar, false),
            (&sidecar, &init, true),
            (&init, &sidecar, true),
        ] {
            let others = HashMap::from([("o".to_owned(), taken(there))]);
            let verdict = check(comes, &others, &free, 10).map_err(|v| v.reason);
            assert_eq!(
                verdict.map(drop),
                if fits { Ok(()) } else { Err("NodePorts".to_owned()) }
            );
        }
    }
}
