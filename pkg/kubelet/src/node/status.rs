//! The node's status: what it is, what it can give, and how it does.

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::machine::{self, Supply};
use super::thresholds::Signal::{
    self, ImagefsAvailable, ImagefsInodesFree, MemoryAvailable, NodefsAvailable, NodefsInodesFree, PidAvailable,
};
use crate::admission::Pressure;
use crate::agent::Agent;
use crate::pod;

/// How the node does right now.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// None: containerd doesn't answer.
    pub containerd: Option<String>,
    pub containerd_error: String,
    pub network_ready: bool,
    pub pressure: Pressure,
    pub images: Vec<ContainerImage>,
    /// How long the pressure can't change.
    pub certain_for: Duration,
}

impl Observed {
    pub async fn look(agent: &Agent) -> Self {
        let mut observed = Self::default();
        observed.look_at_containerd(agent).await;
        observed.look_at_node(agent);
        observed
    }

    /// Its events say when this may have changed.
    pub async fn look_at_containerd(&mut self, agent: &Agent) {
        match agent.containerd.version().await {
            Ok(version) => {
                self.images = super::images::images(agent).await;
                (self.containerd, self.containerd_error) = (Some(version.version), String::new());
            }
            Err(error) => (self.containerd, self.containerd_error) = (None, error.to_string()),
        }
    }

    pub fn look_at_node(&mut self, agent: &Agent) {
        let thresholds = &agent.config.eviction_hard;
        let node_fs = machine::file_system(&agent.config.root_dir);
        let image_fs = agent.containerd.image_dir().and_then(machine::file_system);
        let supplies: [(Signal, Option<Supply>); 6] = [
            (MemoryAvailable, machine::memory()),
            (NodefsAvailable, node_fs.map(|(bytes, _)| bytes)),
            (NodefsInodesFree, node_fs.map(|(_, inodes)| inodes)),
            (ImagefsAvailable, image_fs.map(|(bytes, _)| bytes)),
            (ImagefsInodesFree, image_fs.map(|(_, inodes)| inodes)),
            (PidAvailable, machine::pids()),
        ];
        let low = |signals: &[Signal]| {
            let mut of_these = supplies.iter().filter(|(signal, _)| signals.contains(signal));
            of_these.any(|(signal, supply)| supply.is_some_and(|supply| thresholds.low(*signal, supply)))
        };
        self.pressure = Pressure {
            memory: low(&[MemoryAvailable]),
            disk: low(&[NodefsAvailable, NodefsInodesFree, ImagefsAvailable, ImagefsInodesFree]),
            pids: low(&[PidAvailable]),
        };
        self.certain_for = thresholds.certain_for(&supplies);
        self.network_ready = agent.network.ready();
    }

    /// Why the node can't run pods.
    pub fn not_ready(&self) -> Option<String> {
        if self.containerd.is_none() {
            return Some(format!("[container runtime is down: {}]", self.containerd_error));
        }
        if !self.network_ready {
            return Some(
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
                 message:the node has no pod range yet"
                    .to_owned(),
            );
        }
        None
    }
}

pub fn status(agent: &Agent, node: Option<&Node>, observed: &Observed) -> NodeStatus {
    let machine = &agent.machine;
    let old = node.and_then(|n| n.status.as_ref());
    let known_runtime = old
        .and_then(|s| s.node_info.as_ref())
        .map(|i| i.container_runtime_version.clone());
    let runtime = observed
        .containerd
        .clone()
        .or_else(|| known_runtime.and_then(|v| v.strip_prefix("containerd://").map(str::to_owned)));
    let mut allocatable = machine.allocatable();
    let mut capacity = machine.capacity();
    // Resources that somebody else put into the node's capacity can be given as well.
    for (name, quantity) in old.and_then(|s| s.capacity.as_ref()).into_iter().flatten() {
        if !capacity.contains_key(name) {
            capacity.insert(name.clone(), quantity.clone());
            allocatable.insert(name.clone(), quantity.clone());
        }
    }
    NodeStatus {
        addresses: Some(vec![
            NodeAddress {
                address: agent.config.node_ip.to_string(),
                type_: "InternalIP".to_owned(),
            },
            NodeAddress {
                address: agent.config.node_name.clone(),
                type_: "Hostname".to_owned(),
            },
        ]),
        allocatable: Some(allocatable),
        capacity: Some(capacity),
        conditions: Some(conditions(old, observed)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint {
                port: i32::from(agent.config.listen.port()),
            }),
        }),
        images: (!observed.images.is_empty()).then(|| observed.images.clone()),
        node_info: Some(machine.info(&agent.config.version, runtime.as_deref().unwrap_or("unknown"))),
        runtime_handlers: Some(vec![NodeRuntimeHandler {
            features: Some(NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(false),
                user_namespaces: Some(false),
            }),
            name: Some(String::new()),
        }]),
        ..NodeStatus::default()
    }
}

/// (type, holds, reason, message)
type Condition = (&'static str, bool, &'static str, String);

fn found(observed: &Observed) -> [Condition; 4] {
    let pick = |type_, low: bool, bad: (&'static str, &str), good: (&'static str, &str)| {
        let (reason, message) = if low { bad } else { good };
        (type_, low, reason, message.to_owned())
    };
    let pressure = observed.pressure;
    [
        pick(
            "MemoryPressure",
            pressure.memory,
            (
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
            ),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pick(
            "DiskPressure",
            pressure.disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pick(
            "PIDPressure",
            pressure.pids,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        match observed.not_ready() {
            None => (
                "Ready",
                true,
                "KubeletReady",
                "kubelet is posting ready status".to_owned(),
            ),
            Some(why) => ("Ready", false, "KubeletNotReady", why),
        },
    ]
}

fn conditions(old: Option<&NodeStatus>, observed: &Observed) -> Vec<NodeCondition> {
    let now: Time = pod::time(jiff::Timestamp::now());
    found(observed)
        .into_iter()
        .map(|(type_, holds, reason, message)| {
            let status = if holds { "True" } else { "False" };
            let before = old
                .and_then(|s| s.conditions.as_ref())
                .into_iter()
                .flatten()
                .find(|c| c.type_ == type_);
            let since = before
                .filter(|b| b.status == status)
                .and_then(|b| b.last_transition_time.clone());
            NodeCondition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_heartbeat_time: Some(now.clone()),
                last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
            }
        })
        .collect()
}
