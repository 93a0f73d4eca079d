//! Nodes that stopped answering: their conditions become Unknown, their taints keep pods away and drive them out, their pods are not ready.
//!
//! Watches nodes, their leases and pods; writes nodes' conditions, the taints that follow from conditions, labels that repeat others, and
//! condition Ready of pods on nodes that are not ready. A heartbeat is a renewed lease or a posted status, timed by this process's own
//! clock. Pods are driven out by [`zones`].

mod zones;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams, PostParams};
use mk8s_client::{Event, EventRecorder, Index, Informer, WorkQueue};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::index;
use crate::meta::{self, Key};
use crate::pod;
use zones::{Turn, Zones};

const NAME: &str = "node-controller";
const WORKERS: usize = 4;
const LEASES: &str = "kube-node-lease";

/// A node that never posted its status has so much longer.
const STARTUP_GRACE: Duration = Duration::from_secs(10);
/// Labels, and the older names that they have too.
const REPEATED: [(&str, &str); 2] = [
    ("kubernetes.io/os", "beta.kubernetes.io/os"),
    ("kubernetes.io/arch", "beta.kubernetes.io/arch"),
];

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// Conditions, and the taints that they bring in the given status.
const TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// Conditions that only the node's agent knows.
const POSTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

struct Controller {
    ctx: Context,
    nodes: Informer<Node>,
    pods: Index<Pod>,
    heartbeats: Heartbeats,
    zones: Arc<Mutex<Zones>>,
    queue: WorkQueue<Key>,
    recorder: EventRecorder,
}

/// When a node was last heard of.
type Heartbeats = Arc<Mutex<HashMap<String, Instant>>>;

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let nodes = ctx.informers.of::<Node>();
    let leases = ctx.informers.in_namespace::<Lease>(LEASES, "");
    let (heartbeats, zones) = (Heartbeats::default(), Arc::<Mutex<Zones>>::default());
    let all_pods = ctx.informers.of::<Pod>();
    let pods = index::node(&all_pods);
    let recorder = ctx.recorder(NAME);
    let mut driver = Driver::new(NAME, &ctx.scope);
    follow_nodes(&mut driver, &nodes, &heartbeats, &zones, tell_of(recorder.clone()));
    driver.watch(&leases, {
        let heartbeats = heartbeats.clone();
        move |event| {
            if let Event::Applied { old, new } = event {
                let renewed = |l: &Lease| l.spec.as_ref().and_then(|s| s.renew_time.clone());
                if old.as_deref().and_then(renewed) != renewed(new) {
                    heartbeats.lock().insert(meta::name(&**new).to_owned(), Instant::now());
                }
            }
            // The node's own timer looks at the time that was noted.
            Vec::new()
        }
    });
    driver.watch(&all_pods, {
        let nodes = nodes.clone();
        move |event| {
            match event {
                // A pod that claims to be ready on a node that is not.
                Event::Applied { new, .. } if pod::is_ready(new) => {
                    let node = nodes.get(None, pod::node(new));
                    let unready = node.is_some_and(|n| condition(&n, "Ready").is_some_and(|c| c.status == "Unknown"));
                    if unready {
                        vec![Key::new("", pod::node(new))]
                    } else {
                        Vec::new()
                    }
                }
                _ => Vec::new(),
            }
        }
    });
    let controller = Controller {
        ctx,
        nodes,
        pods,
        heartbeats,
        zones,
        queue: driver.queue.clone(),
        recorder,
    };
    driver.run(WORKERS, controller).await
}

/// Says of nodes that they came or went.
fn tell_of(recorder: EventRecorder) -> impl Fn(&Event<Node>) + Send {
    move |event| {
        let node = event.object();
        let name = meta::name(&**node);
        let (reason, text) = match event {
            Event::Applied { old: None, .. } => ("RegisteredNode", format!("Registered Node {name} in Controller")),
            Event::Applied { .. } => return,
            Event::Deleted(_) => ("RemovingNode", format!("Removing Node {name} from Controller")),
        };
        let text = format!("Node {name} event: {text}");
        recorder.event(&meta::reference(&**node), "Normal", reason, text);
    }
}

fn follow_nodes(
    driver: &mut Driver,
    nodes: &Informer<Node>,
    heartbeats: &Heartbeats,
    zones: &Arc<Mutex<Zones>>,
    tell: impl Fn(&Event<Node>) + Send + 'static,
) {
    let (heartbeats, zones, all) = (heartbeats.clone(), zones.clone(), nodes.clone());
    driver.watch(nodes, move |event| {
        tell(event);
        let mut keys: Vec<Key> = node_event(event, &heartbeats).into_iter().collect();
        let moved = match event {
            Event::Applied { new, .. } => zones.lock().applied(new),
            Event::Deleted(old) => zones.lock().gone(meta::name(&**old)),
        };
        if moved.back {
            // That none was heard of was the control plane's fault: each has its time anew.
            let now = Instant::now();
            heartbeats.lock().values_mut().for_each(|heard| *heard = now);
        }
        // Whether pods are driven off the others depends on whether any node is left. Asked only when that changes: a zone that
        // fails would else have every node of the cluster looked at once for each of its own.
        match moved.all {
            true => all.list().iter().map(|n| Key::of(&**n)).collect(),
            false => {
                keys.extend(moved.nodes.iter().map(|name| Key::new("", name)));
                keys
            }
        }
    });
}

fn node_event(event: &Event<Node>, heartbeats: &Heartbeats) -> Option<Key> {
    let key = Key::of(&**event.object());
    match event {
        Event::Applied { old, new } => {
            let posted = |n: &Node| condition(n, "Ready").and_then(|c| c.last_heartbeat_time.clone());
            if old.as_deref().is_none_or(|old| posted(old) != posted(new)) {
                heartbeats.lock().insert(key.name.clone(), Instant::now());
            }
            Some(key)
        }
        Event::Deleted(_) => {
            heartbeats.lock().remove(&key.name);
            None
        }
    }
}

fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status
        .as_ref()?
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == type_)
}

/// Does the node answer, and say that it can run pods?
pub fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|c| c.status == "True")
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(node) = self.nodes.get(None, &key.name) else {
            return Ok(Next::Done);
        };
        let mut grace = self.ctx.settings.node_grace_period;
        if condition(&node, "Ready").is_none() {
            grace += STARTUP_GRACE;
        }
        let heard = *self
            .heartbeats
            .lock()
            .entry(key.name.clone())
            .or_insert_with(Instant::now);
        let left = grace.saturating_sub(heard.elapsed());
        let mut node = (*node).clone();
        if left.is_zero()
            && let Some(silent) = silenced(&node, &meta::now())
        {
            let was_ready = is_ready(&node);
            let api = self.ctx.all::<Node>();
            let done = api.replace_status(&key.name, &PostParams::default(), &silent).await;
            let done = done.and_then(|updated| updated.object());
            let Some(updated) = done.tried_if_exists(|| format!("update status of node {key}"))? else {
                return Ok(Next::Done);
            };
            node = updated;
            if was_ready {
                let text = format!("Node {key} status is now: NodeNotReady");
                self.recorder
                    .event(&meta::reference(&node), "Normal", "NodeNotReady", text);
            }
        }
        let (turn, tainted) = self.taints(&mut node).await;
        // An agent that answers looks after its pods' conditions itself.
        let done = match tainted {
            Ok(()) if condition(&node, "Ready").is_some_and(|c| c.status == "Unknown") => self.mark_pods(&node).await,
            done => done,
        };
        let heartbeat = Next::After(if left.is_zero() { grace } else { left });
        heartbeat.sooner(turn).even_if(done)
    }
}

impl Controller {
    /// Taints a node, and drives its pods out when it is its turn; when that is asked again.
    async fn taints(&self, node: &mut Node) -> (Next, Result<(), Error>) {
        let (name, asks, now) = (meta::name(node).to_owned(), asks_for_turn(node), Instant::now());
        let (may_drive_out, next) = self.turn(node);
        let written = self.write_taints(node, may_drive_out).await;
        // Who lost to another writer has not used its turn, and does not wait for all others.
        if asks && may_drive_out && !written.as_ref().is_err_and(Error::is_conflict) {
            self.zones.lock().took(&name, now);
        }
        (next, written)
    }

    /// Brings the taints that conditions make in line with them, and labels that repeat others.
    async fn write_taints(&self, node: &mut Node, may_drive_out: bool) -> Result<(), Error> {
        let wanted = taints(node, may_drive_out, &meta::now());
        let labels = repeated(meta::labels(node));
        let before = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
        if before == wanted && labels.is_empty() {
            return Ok(());
        }
        node.spec.get_or_insert_default().taints = (!wanted.is_empty()).then_some(wanted);
        node.metadata.labels.get_or_insert_default().extend(labels);
        let name = meta::name(node).to_owned();
        let done = self
            .ctx
            .all::<Node>()
            .replace(&name, &PostParams::default(), node)
            .await
            .and_then(|updated| updated.object());
        if let Some(updated) = done.tried_if_exists(|| format!("update taints of node {name}"))? {
            *node = updated;
        }
        Ok(())
    }

    /// Whether the node may have the taint that drives pods out, and when that is asked again.
    fn turn(&self, node: &Node) -> (bool, Next) {
        let mut zones = self.zones.lock();
        if !asks_for_turn(node) {
            let first = zones.settled(node);
            let down = zones.all_down();
            drop(zones);
            if let Some(first) = first {
                self.queue.add(Key::new("", &first));
            }
            return (!down, Next::Done);
        }
        match zones.turn(node, Instant::now()) {
            Turn::Now => (true, Next::Done),
            Turn::In(wait) => (false, Next::After(wait)),
            Turn::Never => (false, Next::Done),
        }
    }

    async fn mark_pods(&self, node: &Node) -> Result<(), Error> {
        for pod in self.pods.get(meta::name(node)).iter().filter(|p| pod::is_ready(p)) {
            let (namespace, name) = (meta::namespace(&**pod), meta::name(&**pod));
            let patch = json!({
                "metadata": {"uid": meta::uid(&**pod)},
                "status": {"conditions": [
                    {"type": "Ready", "status": "False", "lastTransitionTime": meta::now()},
                ]},
            });
            let api = self.ctx.api::<Pod>(namespace);
            let done = api
                .patch_status(name, &PatchParams::default(), &Patch::Strategic(patch))
                .await;
            match done.tried_if_exists(|| format!("mark pod {namespace}/{name} unready")) {
                Ok(Some(_)) => {
                    self.recorder
                        .event(&meta::reference(&**pod), "Warning", "NodeNotReady", "Node is not ready");
                }
                Ok(None) => {}
                Err(e) if e.is_conflict() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// The node with the conditions of one that does not answer; None if it has them.
fn silenced(node: &Node, now: &Time) -> Option<Node> {
    let mut node = node.clone();
    let created = node.metadata.creation_timestamp.clone();
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    let mut changed = false;
    for type_ in POSTED {
        match conditions.iter_mut().find(|c| c.type_ == type_) {
            None => {
                conditions.push(NodeCondition {
                    type_: type_.to_owned(),
                    status: "Unknown".to_owned(),
                    reason: Some("NodeStatusNeverUpdated".to_owned()),
                    message: Some("Kubelet never posted node status.".to_owned()),
                    last_heartbeat_time: created.clone(),
                    last_transition_time: Some(now.clone()),
                });
                changed = true;
            }
            Some(condition) if condition.status != "Unknown" => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(now.clone());
                changed = true;
            }
            Some(_) => {}
        }
    }
    changed.then_some(node)
}

/// The labels that a node lacks, or has otherwise, of those that repeat others.
fn repeated(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let lacks = |(from, to): &(&str, &str)| {
        let value = labels.get(*from)?;
        (labels.get(*to) != Some(value)).then(|| ((*to).to_owned(), value.clone()))
    };
    REPEATED.iter().filter_map(lacks).collect()
}

/// It is not ready, and its pods are still let be.
fn asks_for_turn(node: &Node) -> bool {
    let unready = condition(node, "Ready").is_some_and(|c| c.status != "True");
    unready && !has_taint(node, NO_EXECUTE)
}

fn has_taint(node: &Node, effect: &str) -> bool {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.into_iter().any(|t| t.effect == effect && is_ours(t))
}

/// Does the taint follow from a condition?
fn is_ours(taint: &Taint) -> bool {
    match taint.effect.as_str() {
        NO_SCHEDULE => taint.key == UNSCHEDULABLE || TAINTS.iter().any(|(_, _, key)| *key == taint.key),
        NO_EXECUTE => taint.key == NOT_READY || taint.key == UNREACHABLE,
        _ => false,
    }
}

/// The taints that the node should have: those that follow from its conditions, and all others as they are. Those that drive pods out
/// only where that may be.
fn taints(node: &Node, may_drive_out: bool, now: &Time) -> Vec<Taint> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (type_, status, key) in TAINTS {
        if condition(node, type_).is_some_and(|c| c.status == status) {
            wanted.push((key, NO_SCHEDULE));
            if type_ == "Ready" && may_drive_out {
                wanted.push((key, NO_EXECUTE));
            }
        }
    }
    let spec = node.spec.as_ref();
    if spec.and_then(|s| s.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let mut all: Vec<Taint> = spec.and_then(|s| s.taints.clone()).unwrap_or_default();
    // A node that has not posted anything yet keeps the taint it was registered with.
    let unknown = condition(node, "Ready").is_none();
    all.retain(|t| {
        !is_ours(t) || (unknown && t.key == NOT_READY) || wanted.contains(&(t.key.as_str(), t.effect.as_str()))
    });
    for (key, effect) in wanted {
        if !all.iter().any(|t| t.key == key && t.effect == effect) {
            all.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                value: None,
                time_added: Some(now.clone()),
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mk8s_supervisor::Supervisor;
    use serde_json::Value;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::told::Tell;

    fn node(conditions: &[(&str, &str)], spec: Value) -> Node {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(t, s)| json!({"type": t, "status": s}))
            .collect();
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}}))
            .unwrap()
    }

    fn short(taints: &[Taint]) -> Vec<String> {
        taints
            .iter()
            .map(|t| format!("{}:{}", t.key.rsplit('/').next().unwrap_or_default(), t.effect))
            .collect()
    }

    #[test]
    fn taints_follow_conditions_and_leave_others_alone() {
        let now = meta::now();
        let other =
            json!({"taints": [{"key": "mine", "effect": "NoSchedule"}, {"key": UNREACHABLE, "effect": "NoExecute"}]});
        for (conditions, spec, any_ready, expected) in [
            (vec![("Ready", "True")], json!({}), true, vec![]),
            (vec![("Ready", "True")], other, true, vec!["mine:NoSchedule"]),
            (
                vec![("Ready", "Unknown")],
                json!({}),
                true,
                vec!["unreachable:NoSchedule", "unreachable:NoExecute"],
            ),
            (
                vec![("Ready", "Unknown")],
                json!({}),
                false,
                vec!["unreachable:NoSchedule"],
            ),
            (
                vec![("Ready", "False"), ("DiskPressure", "True")],
                json!({}),
                true,
                vec![
                    "not-ready:NoSchedule",
                    "not-ready:NoExecute",
                    "disk-pressure:NoSchedule",
                ],
            ),
            (
                vec![("Ready", "True")],
                json!({"unschedulable": true}),
                true,
                vec!["unschedulable:NoSchedule"],
            ),
            (
                vec![],
                json!({"taints": [{"key": NOT_READY, "effect": "NoSchedule"}]}),
                true,
                vec!["not-ready:NoSchedule"],
            ),
        ] {
            assert_eq!(
                short(&taints(&node(&conditions, spec), any_ready, &now)),
                expected,
                "{conditions:?}"
            );
        }
    }

    #[test]
    fn silent_node_has_unknown_conditions_once() {
        let silent = silenced(&node(&[("Ready", "True")], json!({})), &meta::now()).unwrap();
        assert_eq!(
            condition(&silent, "Ready").unwrap().reason.as_deref(),
            Some("NodeStatusUnknown")
        );
        assert_eq!(
            condition(&silent, "DiskPressure").unwrap().reason.as_deref(),
            Some("NodeStatusNeverUpdated")
        );
        assert!(silenced(&silent, &meta::now()).is_none());
    }

    #[test]
    fn older_names_of_labels_follow_the_newer() {
        let labels = |all: &[(&str, &str)]| all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        for (has, lacks) in [
            (vec![], vec![]),
            (vec![("beta.kubernetes.io/os", "linux")], vec![]),
            (
                vec![("kubernetes.io/os", "linux")],
                vec![("beta.kubernetes.io/os", "linux")],
            ),
            (
                vec![("kubernetes.io/arch", "arm64"), ("beta.kubernetes.io/arch", "amd64")],
                vec![("beta.kubernetes.io/arch", "arm64")],
            ),
            (
                vec![("kubernetes.io/os", "linux"), ("beta.kubernetes.io/os", "linux")],
                vec![],
            ),
        ] {
            assert_eq!(repeated(&labels(&has)), labels(&lacks), "{has:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_goes_concerns_the_others_only_if_it_was_the_last_ready_one() {
        let scope = Supervisor::new(CancellationToken::new());
        let (mut tell, informers) = Tell::new(&scope);
        let of = |name: usize, status: &str| {
            let mut node = node(&[("Ready", status)], json!({}));
            node.metadata.name = Some(name.to_string());
            serde_json::to_value(node).unwrap()
        };
        (0..20).for_each(|name| tell.set(&of(name, "True")));
        tell.all_told();
        let nodes = informers.of::<Node>();
        let mut driver: Driver = Driver::new("nodes-of-a-test", &scope);
        follow_nodes(&mut driver, &nodes, &Arc::default(), &Arc::default(), |_| ());
        let queue = driver.queue.clone();
        let looked_at = || async {
            let mut keys = 0;
            while let Ok(key) = tokio::time::timeout(Duration::from_secs(1), queue.next()).await {
                queue.done(&key);
                keys += 1;
            }
            keys
        };
        assert_eq!(looked_at().await, 20);
        for name in 1..20 {
            tell.set(&of(name, "Unknown"));
            assert_eq!(looked_at().await, 1, "{name}");
        }
        tell.set(&of(0, "Unknown"));
        assert_eq!(looked_at().await, 20, "none is left");
        tell.set(&of(5, "True"));
        assert_eq!(looked_at().await, 20, "there is one again");
    }
}
