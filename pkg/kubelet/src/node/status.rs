//! The node's status: what it is, what it can give, and how it does.

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
    pub low_memory: bool,
    pub low_disk: bool,
    pub low_pids: bool,
    pub images: Vec<ContainerImage>,
}

impl Observed {
    pub async fn look(agent: &Agent) -> Self {
        let version = agent.containerd.version().await;
        let (containerd, containerd_error) = match version {
            Ok(version) => (Some(version.version), String::new()),
            Err(error) => (None, error.to_string()),
        };
        let node_fs = machine::file_system(&agent.config.root_dir);
        let image_fs = agent.containerd.image_dir().and_then(machine::file_system);
        let low = |supplies: &[(Signal, Option<Supply>)]| {
            let mut supplies = supplies.iter();
            supplies
                .any(|(signal, supply)| supply.is_some_and(|supply| agent.config.eviction_hard.low(*signal, supply)))
        };
        Self {
            images: if containerd.is_some() {
                super::images::images(agent).await
            } else {
                Vec::new()
            },
            containerd,
            containerd_error,
            network_ready: agent.network.ready(),
            low_memory: low(&[(MemoryAvailable, machine::memory())]),
            low_disk: low(&[
                (NodefsAvailable, node_fs.map(|(bytes, _)| bytes)),
                (NodefsInodesFree, node_fs.map(|(_, inodes)| inodes)),
                (ImagefsAvailable, image_fs.map(|(bytes, _)| bytes)),
                (ImagefsInodesFree, image_fs.map(|(_, inodes)| inodes)),
            ]),
            low_pids: low(&[(PidAvailable, machine::pids())]),
        }
    }

    pub fn pressure(&self) -> Pressure {
        Pressure {
            memory: self.low_memory,
            disk: self.low_disk,
            pids: self.low_pids,
        }
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

fn conditions(old: Option<&NodeStatus>, observed: &Observed) -> Vec<NodeCondition> {
    let not_ready = observed.not_ready();
    let pick = |low: bool, bad: (&'static str, &str), good: (&'static str, &str)| {
        let (reason, message) = if low { bad } else { good };
        (low, reason, message.to_owned())
    };
    let all = [
        (
            "MemoryPressure",
            pick(
                observed.low_memory,
                (
                    "KubeletHasInsufficientMemory",
                    "kubelet has insufficient memory available",
                ),
                ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ),
        ),
        (
            "DiskPressure",
            pick(
                observed.low_disk,
                ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ),
        ),
        (
            "PIDPressure",
            pick(
                observed.low_pids,
                ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
                ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ),
        ),
        (
            "Ready",
            match not_ready {
                None => (true, "KubeletReady", "kubelet is posting ready status".to_owned()),
                Some(why) => (false, "KubeletNotReady", why),
            },
        ),
    ];
    let now: Time = pod::time(jiff::Timestamp::now());
    all.into_iter()
        .map(|(type_, (holds, reason, message))| {
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
