//! Nodes that stopped answering: their conditions become Unknown, their taints keep pods away and drive them out, their pods are not ready.
//!
//! Watches nodes, their leases and pods; writes nodes' conditions and the taints that follow from conditions, and condition Ready of pods on
//! nodes that are not ready. A heartbeat is a renewed lease or a posted status, timed by this process's own clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams, PostParams};
use mk8s_client::{Event, EventRecorder, Index, Informer};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::index;
use crate::meta::{self, Key};
use crate::pod;

const NAME: &str = "node-controller";
const WORKERS: usize = 4;
const LEASES: &str = "kube-node-lease";

/// A node that never posted its status has so much longer.
const STARTUP_GRACE: Duration = Duration::from_secs(10);
/// Nodes whose pods are driven out follow one another at this distance: so that a fault of the control plane does not empty the cluster.
const EVICTION_DISTANCE: Duration = Duration::from_secs(10);

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
    ready: Index<Node>,
    pods: Index<Pod>,
    heartbeats: Arc<Mutex<HashMap<String, Instant>>>,
    /// When a node's pods may be driven out next.
    next_eviction: Mutex<Instant>,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let nodes = ctx.informers.of::<Node>();
    let leases = ctx.informers.in_namespace::<Lease>(LEASES, "");
    let heartbeats = Arc::new(Mutex::new(HashMap::new()));
    let all_pods = ctx.informers.of::<Pod>();
    let (pods, ready) = (index::node(&all_pods), index::ready(&nodes));
    let mut driver = Driver::new(NAME, &ctx.scope);
    follow_nodes(&mut driver, &nodes, &heartbeats);
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
    let recorder = ctx.recorder(NAME);
    let next_eviction = Mutex::new(Instant::now());
    let controller = Controller {
        ctx,
        nodes,
        ready,
        pods,
        heartbeats,
        next_eviction,
        recorder,
    };
    driver.run(WORKERS, controller).await
}

fn follow_nodes(driver: &mut Driver, nodes: &Informer<Node>, heartbeats: &Arc<Mutex<HashMap<String, Instant>>>) {
    let (heartbeats, all, ready) = (heartbeats.clone(), nodes.clone(), index::ready(nodes));
    let mut any = false;
    driver.watch(nodes, move |event| {
        let before = std::mem::replace(&mut any, ready.count("") > 0);
        let key = node_event(event, &heartbeats);
        // Whether pods are driven off the others depends on whether any node is left. Asked only when that changes: a zone that
        // fails would else have every node of the cluster looked at once for each of its own.
        match any == before {
            true => key.into_iter().collect(),
            false => all.list().iter().map(|n| Key::of(&**n)).collect(),
        }
    });
}

fn node_event(event: &Event<Node>, heartbeats: &Mutex<HashMap<String, Instant>>) -> Option<Key> {
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
        let taints = self.taints(&mut node).await?;
        // An agent that answers looks after its pods' conditions itself.
        if condition(&node, "Ready").is_some_and(|c| c.status == "Unknown") {
            self.mark_pods(&node).await?;
        }
        let heartbeat = Next::After(if left.is_zero() { grace } else { left });
        Ok(heartbeat.sooner(taints))
    }
}

impl Controller {
    /// Brings the taints that conditions make in line with them.
    async fn taints(&self, node: &mut Node) -> Result<Next, Error> {
        let any_ready = self.ready.count("") > 0;
        let had = has_taint(node, NO_EXECUTE);
        let (mut wanted, mut next) = (taints(node, any_ready, &meta::now()), Next::Done);
        let drives_out = wanted.iter().any(|t| t.effect == NO_EXECUTE && is_ours(t));
        if drives_out && !had {
            let mut at = self.next_eviction.lock();
            let wait = at.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                *at = Instant::now() + EVICTION_DISTANCE;
            } else {
                wanted.retain(|t| t.effect != NO_EXECUTE || !is_ours(t));
                next = Next::After(wait);
            }
        }
        let before = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
        if before == wanted {
            return Ok(next);
        }
        node.spec.get_or_insert_default().taints = (!wanted.is_empty()).then_some(wanted);
        let name = meta::name(node).to_owned();
        let done = self
            .ctx
            .all::<Node>()
            .replace(&name, &PostParams::default(), node)
            .await;
        if let Some(updated) = done.tried_if_exists(|| format!("update taints of node {name}"))? {
            *node = updated;
        }
        Ok(next)
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

/// The taints that the node should have: those that follow from its conditions, and all others as they are. When no node at all is ready,
/// there is nowhere to go, and pods stay.
fn taints(node: &Node, any_ready: bool, now: &Time) -> Vec<Taint> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (type_, status, key) in TAINTS {
        if condition(node, type_).is_some_and(|c| c.status == status) {
            wanted.push((key, NO_SCHEDULE));
            if type_ == "Ready" && any_ready {
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
    use mk8s_api::stored::Stored;
    use mk8s_client::{Change, Feed, Informers, Selection};
    use mk8s_supervisor::Supervisor;
    use serde_json::Value;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;

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

    struct Text(String, u64, String);

    impl Stored for Text {
        fn namespace(&self) -> &str {
            ""
        }

        fn name(&self) -> &str {
            &self.0
        }

        fn revision(&self) -> u64 {
            self.1
        }

        fn json(&self) -> &[u8] {
            self.2.as_bytes()
        }
    }

    /// Tells of nodes what the test says.
    struct Told(Mutex<Option<mpsc::UnboundedReceiver<Change>>>);

    impl Feed for Told {
        fn open(&self, _: &Selection, _: Option<u64>) -> mk8s_client::feed::Changes {
            let told = self.0.lock().take().unwrap();
            let told = futures::stream::unfold(told, |mut told| async { Some((told.recv().await?, told)) });
            Box::pin(futures::StreamExt::map(told, Ok))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_goes_concerns_the_others_only_if_it_was_the_last_ready_one() {
        let (tell, told) = mpsc::unbounded_channel();
        let scope = Supervisor::new(CancellationToken::new());
        let informers = Informers::fed(Arc::new(Told(Mutex::new(Some(told)))), &scope);
        let mut revision = 0;
        let mut set = |name: usize, status: &str| {
            revision += 1;
            let mut node = node(&[("Ready", status)], json!({}));
            node.metadata.name = Some(name.to_string());
            let text = serde_json::to_string(&node).unwrap();
            let node = Arc::new(Text(name.to_string(), revision, text));
            tell.send(Change::Applied(node)).unwrap();
        };
        for name in 0..20 {
            set(name, "True");
        }
        tell.send(Change::UpTo(20)).unwrap();
        let nodes = informers.of::<Node>();
        let mut driver: Driver = Driver::new("nodes-of-a-test", &scope);
        follow_nodes(&mut driver, &nodes, &Arc::default());
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
            set(name, "Unknown");
            assert_eq!(looked_at().await, 1, "{name}");
        }
        set(0, "Unknown");
        assert_eq!(looked_at().await, 20, "none is left");
        set(5, "True");
        assert_eq!(looked_at().await, 20, "there is one again");
    }
}
