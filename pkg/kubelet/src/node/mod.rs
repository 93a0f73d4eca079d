//! The node itself: registered at start, its status told when it changes and every five minutes, its lease every ten
//! seconds.

mod images;
mod lease;
mod machine;
mod status;
mod thresholds;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeSpec, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use mk8s_client::Api;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;

pub use lease::renew;
pub use machine::Machine;
pub use thresholds::{DEFAULT as DEFAULT_EVICTION_HARD, Malformed, Thresholds};

/// The status is sent at least this often, changed or not.
const REPORT_EVERY: Duration = Duration::from_secs(300);
/// A status that could not be written is tried again after this long.
const RETRY: Duration = Duration::from_secs(10);

fn labels(agent: &Agent) -> BTreeMap<String, String> {
    let arch = agent.machine.architecture;
    let mut labels: BTreeMap<String, String> = [
        ("beta.kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/hostname", agent.config.node_name.as_str()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect();
    labels.extend(agent.config.labels.clone());
    labels
}

pub fn reference(agent: &Agent) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(agent.config.node_name.clone()),
        uid: Some(agent.config.node_name.clone()),
        ..ObjectReference::default()
    }
}

/// Creates the Node, or sets right the labels of the one there is. Tries until it is done.
pub async fn register(agent: &Agent) -> Node {
    let mut delay = Duration::from_millis(200);
    loop {
        match try_register(agent).await {
            Ok(node) => return node,
            Err(error) => tracing::warn!(%error, "the node cannot be registered yet, trying again"),
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(Duration::from_secs(7));
    }
}

async fn try_register(agent: &Agent) -> Result<Node, kube::Error> {
    let api: Api<Node> = Api::all(agent.client.clone());
    let taints = agent.config.register_taints.clone();
    let node = Node {
        metadata: ObjectMeta {
            name: Some(agent.config.node_name.clone()),
            labels: Some(labels(agent)),
            annotations: Some(annotations(agent)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!taints.is_empty()).then_some(taints),
            ..NodeSpec::default()
        }),
        status: Some(status::status(agent, None, &status::Observed::look(agent).await)),
    };
    let written = match api.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(answer)) if answer.code == 409 => {
            let patch = json!({"metadata": {"labels": labels(agent), "annotations": node.metadata.annotations}});
            api.patch(
                &agent.config.node_name,
                &PatchParams::default(),
                &Patch::Strategic(patch),
            )
            .await
        }
        other => other,
    };
    written.and_then(|written| written.object())
}

fn annotations(agent: &Agent) -> BTreeMap<String, String> {
    let volumes = agent.config.volumes_dir.display().to_string();
    let own = [
        (
            "volumes.kubernetes.io/controller-managed-attach-detach",
            "true".to_owned(),
        ),
        (mk8s_api::meta::VOLUMES_DIRECTORY, volumes),
    ];
    own.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Reports the node's status for as long as the agent runs: when something of it changed, and from time to time. `changed`
/// counts up when somebody knows of a change (containerd came or went, an image did).
pub async fn report(agent: Arc<Agent>, mut changed: watch::Receiver<u64>, token: CancellationToken) {
    let reference = reference(&agent);
    agent.event(&reference, "Normal", "Starting", "Starting kubelet.");
    let mut nodes = agent.nodes.subscribe();
    let mut network = agent.network.changes();
    let mut report = Report {
        reference,
        observed: status::Observed::default(),
        told: None,
        was_ready: None,
        agent,
    };
    let mut ask_containerd = true;
    loop {
        changed.mark_unchanged();
        network.mark_unchanged();
        if ask_containerd {
            report.observed.look_at_containerd(&report.agent).await;
        }
        report.observed.look_at_node(&report.agent);
        let wait = report.write().await;
        report.tell_readiness();
        ask_containerd = tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(wait) => report.due(),
            result = changed.changed() => if result.is_err() { return } else { true },
            result = network.changed() => if result.is_err() { return } else { false },
            () = capacity_changed(&mut nodes, &report.agent.config.node_name) => false,
        };
    }
}

struct Report {
    agent: Arc<Agent>,
    reference: ObjectReference,
    observed: status::Observed,
    told: Option<tokio::time::Instant>,
    was_ready: Option<bool>,
}

impl Report {
    fn due(&self) -> bool {
        self.told.is_none_or(|t| t.elapsed() >= REPORT_EVERY)
    }

    /// Writes what changed. Answers when to look again if nothing happens before.
    async fn write(&mut self) -> Duration {
        let agent = &self.agent;
        *agent.pressure.lock() = self.observed.pressure;
        let node = agent.node();
        let wanted = status::status(agent, node.as_deref(), &self.observed);
        let Some(patch) = patch(node.as_deref(), &wanted, self.due()) else {
            return self.wait();
        };
        let api: Api<Node> = Api::all(agent.client.clone());
        let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
        match api.patch_status(&agent.config.node_name, &params, &patch).await {
            Ok(_) => self.told = Some(tokio::time::Instant::now()),
            Err(kube::Error::Api(answer)) if answer.code == 404 => {
                // Deleted by hand: a node that runs is a node.
                register(agent).await;
                self.told = None;
                return RETRY;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot write the node's status, trying again");
                return RETRY;
            }
        }
        self.wait()
    }

    fn wait(&self) -> Duration {
        let until_due = self.told.map_or(RETRY, |t| REPORT_EVERY.saturating_sub(t.elapsed()));
        until_due.min(self.observed.certain_for)
    }

    fn tell_readiness(&mut self) {
        let ready = self.observed.not_ready().is_none();
        let turned = self.was_ready.replace(ready).is_some_and(|before| before != ready);
        if turned || (ready && self.told.is_none()) {
            let text = if ready { "NodeReady" } else { "NodeNotReady" };
            let message = format!("Node {} status is now: {text}", self.agent.config.node_name);
            self.agent.event(&self.reference, "Normal", text, message);
        }
    }
}

/// Somebody patched the node's capacity: what it is allowed to give follows.
async fn capacity_changed(nodes: &mut mk8s_client::Subscription<Node>, own: &str) {
    loop {
        let event = nodes.next().await;
        let mk8s_client::Event::Applied { old, new } = &event else {
            if event.object().metadata.name.as_deref() == Some(own) {
                return;
            }
            continue;
        };
        let capacity = |n: &Node| n.status.as_ref().and_then(|s| s.capacity.clone());
        let own = new.metadata.name.as_deref() == Some(own);
        if own && old.as_deref().is_some_and(|o| capacity(o) != capacity(new)) {
            return;
        }
    }
}

/// None: the API has it all. Heartbeat times alone are no change unless one is due.
fn patch(node: Option<&Node>, wanted: &k8s_openapi::api::core::v1::NodeStatus, due: bool) -> Option<Value> {
    let old = node
        .and_then(|n| n.status.as_ref())
        .and_then(|s| serde_json::to_value(s).ok())
        .unwrap_or(Value::Null);
    let new = serde_json::to_value(wanted).ok()?;
    let mut changes = serde_json::Map::new();
    for (key, value) in new.as_object()? {
        let before = &old[key];
        if key == "conditions" {
            let changed: Vec<Value> = items(value)
                .iter()
                .filter(|c| due || !items(before).iter().any(|b| same_condition(b, c)))
                .cloned()
                .collect();
            if !changed.is_empty() {
                changes.insert(key.clone(), Value::Array(changed));
            }
        } else if before != value {
            changes.insert(key.clone(), value.clone());
        }
    }
    (!changes.is_empty()).then(|| json!({"status": changes}))
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn same_condition(a: &Value, b: &Value) -> bool {
    ["type", "status", "reason", "message"]
        .iter()
        .all(|key| a[key] == b[key])
}
