//! Pods leave nodes that have a NoExecute taint, at once or when what they tolerate is over.
//!
//! Watches nodes and pods; deletes pods, each with condition DisruptionTarget before. A taint that goes in time cancels it.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use kube::api::{DeleteParams, Patch, PatchParams};
use mk8s_api::taints::tolerates;
use mk8s_client::{Event, EventRecorder, Informer};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::index;
use crate::meta::{self, Key};
use crate::pod;

const NAME: &str = "taint-eviction-controller";
const WORKERS: usize = 8;

struct Controller {
    ctx: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    /// When a taint without a time of its own was seen first, by node and taint.
    seen: Mutex<HashMap<(String, String), Timestamp>>,
    /// Pods that were told that they have to go.
    marked: Mutex<HashMap<Key, String>>,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (nodes, pods) = (ctx.informers.of::<Node>(), ctx.informers.of::<Pod>());
    let on_node = index::node(&pods);
    let mut driver = Driver::new(NAME, &ctx.scope);
    let first_seen: Arc<Mutex<FirstSeen>> = Arc::default();
    driver.watch(&nodes, {
        move |event| {
            let Event::Applied { old, new } = event else {
                return Vec::new();
            };
            let before = old.as_deref().map(no_execute).unwrap_or_default();
            if before == no_execute(new) {
                return Vec::new();
            }
            on_node.get(meta::name(&**new)).iter().map(|p| Key::of(&**p)).collect()
        }
    });
    driver.watch(&pods, {
        let nodes = nodes.clone();
        move |event| {
            let Event::Applied { old, new } = event else {
                return Vec::new();
            };
            let part = |p: &Pod| {
                (
                    pod::node(p).to_owned(),
                    p.spec.as_ref().and_then(|s| s.tolerations.clone()),
                )
            };
            let tainted = nodes
                .get(None, pod::node(new))
                .is_some_and(|n| !no_execute(&n).is_empty());
            if tainted && old.as_deref().map(part) != Some(part(new)) {
                vec![Key::of(&**new)]
            } else {
                Vec::new()
            }
        }
    });
    let recorder = ctx.recorder(NAME);
    let controller = Controller {
        ctx,
        nodes,
        pods,
        seen: Mutex::default(),
        marked: Mutex::default(),
        recorder,
    };
    driver.run(WORKERS, controller).await
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
    taints
        .into_iter()
        .flatten()
        .filter(|t| t.effect == "NoExecute")
        .cloned()
        .collect()
}

/// What the pod's tolerations make of the taints.
#[derive(Debug, PartialEq, Eq)]
enum Stay {
    /// For good.
    Forever,
    /// Until this time.
    Until(Timestamp),
}

/// How long a pod may stay, given its tolerations and the taints with the times they are there since.
fn stay(tolerations: &[Toleration], taints: &[(Taint, Timestamp)]) -> Stay {
    let mut until: Option<Timestamp> = None;
    for (taint, since) in taints {
        let matching: Vec<&Toleration> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if matching.is_empty() {
            return Stay::Until(Timestamp::MIN);
        }
        // The shortest of those that have an end; none: for ever.
        let seconds = matching.iter().filter_map(|t| t.toleration_seconds).min();
        if let Some(seconds) = seconds {
            let end =
                Timestamp::from_second(since.as_second().saturating_add(seconds.max(0))).unwrap_or(Timestamp::MAX);
            until = Some(until.map_or(end, |known| known.min(end)));
        }
    }
    until.map_or(Stay::Forever, Stay::Until)
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(pod) = self.pods.get(key.ns(), &key.name) else {
            self.marked.lock().remove(&key);
            return Ok(Next::Done);
        };
        let Some(node) = self.nodes.get(None, pod::node(&pod)) else {
            return Ok(Next::Done);
        };
        if meta::deleting(&*pod) {
            return Ok(Next::Done);
        }
        let taints = self.since(&node, &pod);
        let tolerations = pod
            .spec
            .as_ref()
            .and_then(|s| s.tolerations.clone())
            .unwrap_or_default();
        let until = match stay(&tolerations, &taints) {
            Stay::Until(until) => until,
            Stay::Forever => {
                if self.marked.lock().remove(&key).is_some() {
                    let text = format!("Cancelling deletion of Pod {key}");
                    self.recorder
                        .event(&meta::reference(&*pod), "Normal", "TaintManagerEviction", text);
                }
                return Ok(Next::Done);
            }
        };
        let now = Timestamp::now();
        if until > now {
            self.marked.lock().insert(key, meta::uid(&*pod).to_owned());
            return Ok(Next::After(
                Duration::try_from(until.duration_since(now)).unwrap_or_default(),
            ));
        }
        self.evict(&key, &pod).await?;
        self.marked.lock().remove(&key);
        Ok(Next::Done)
    }
}

impl Controller {
    /// The node's taints, each with the time that the pod has had to live with it since.
    fn since(&self, node: &Node, pod: &Pod) -> Vec<(Taint, Timestamp)> {
        let name = meta::name(node);
        let taints = no_execute(node);
        let mut seen = self.seen.lock();
        let id = |t: &Taint| format!("{}={}", t.key, t.value.as_deref().unwrap_or_default());
        seen.retain(|(on, taint), _| on != name || taints.iter().any(|t| id(t) == *taint));
        taints
            .into_iter()
            .map(|taint| {
                let first = *seen.entry((name.to_owned(), id(&taint))).or_insert_with(Timestamp::now);
                let since = taint.time_added.as_ref().map_or(first, |t| t.0);
                (taint, since.max(meta::created(pod)))
            })
            .collect()
    }

    async fn evict(&self, key: &Key, pod: &Pod) -> Result<(), Error> {
        let text = format!("Marking for deletion Pod {key}");
        self.recorder
            .event(&meta::reference(pod), "Normal", "TaintManagerEviction", text);
        let api = self.ctx.api::<Pod>(&key.namespace);
        if pod::condition(pod, "DisruptionTarget").is_none_or(|c| c.status != "True") {
            let patch = disruption(
                pod,
                "DeletionByTaintManager",
                "Taint manager: deleting due to NoExecute taint",
            );
            let done = api
                .patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch))
                .await;
            if done
                .tried_if_exists(|| format!("mark pod {key} as disrupted"))?
                .is_none()
            {
                return Ok(());
            }
        }
        let params = DeleteParams::default().preconditions(meta::this(pod));
        let done = api.delete(&key.name, &params).await.map(drop);
        done.tried_if_exists(|| format!("evict pod {key}")).map(drop)
    }
}

/// The patch that says of a pod that it is about to be disrupted, and by what.
pub fn disruption(pod: &Pod, reason: &str, message: &str) -> serde_json::Value {
    json!({
        "metadata": {"uid": meta::uid(pod)},
        "status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": meta::now(), "observedGeneration": pod.metadata.generation,
        }]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, since: i64) -> (Taint, Timestamp) {
        let taint = Taint {
            key: key.to_owned(),
            effect: "NoExecute".to_owned(),
            value: None,
            time_added: None,
        };
        (taint, Timestamp::from_second(since).unwrap_or_default())
    }

    fn tolerate(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            toleration_seconds: seconds,
            value: None,
        }
    }

    #[test]
    fn pod_stays_as_long_as_every_taint_is_tolerated() {
        let at = |s: i64| Stay::Until(Timestamp::from_second(s).unwrap_or_default());
        for (tolerations, taints, expected) in [
            (vec![], vec![], Stay::Forever),
            (vec![], vec![taint("a", 10)], Stay::Until(Timestamp::MIN)),
            (vec![tolerate("a", None)], vec![taint("a", 10)], Stay::Forever),
            (vec![tolerate("a", Some(5))], vec![taint("a", 10)], at(15)),
            (
                vec![tolerate("a", Some(5)), tolerate("a", Some(2))],
                vec![taint("a", 10)],
                at(12),
            ),
            (
                vec![tolerate("a", Some(5)), tolerate("b", Some(1))],
                vec![taint("a", 10), taint("b", 20)],
                at(15),
            ),
            (
                vec![tolerate("a", None)],
                vec![taint("a", 10), taint("b", 20)],
                Stay::Until(Timestamp::MIN),
            ),
        ] {
            assert_eq!(stay(&tolerations, &taints), expected, "{tolerations:?}");
        }
    }
}
