//! Pods leave nodes that have a NoExecute taint, at once or when what they tolerate is over.
//!
//! Watches nodes and pods; deletes pods, each with condition DisruptionTarget before. A taint that goes in time cancels it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use kube::api::{DeleteParams, Patch, PatchParams};
use mk8s_api::taints::tolerates;
use mk8s_client::{Event, EventRecorder, Informer};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::Context;
use crate::delete::delete;
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
    first_seen: Arc<Mutex<FirstSeen>>,
    /// The uids of pods that have to go later.
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
        let first_seen = first_seen.clone();
        move |event| {
            let Event::Applied { old, new } = event else {
                first_seen.lock().forget(event.object());
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
        first_seen,
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
        // Of several that tolerate it the first counts, as users order them.
        let Some(toleration) = tolerations.iter().find(|t| tolerates(t, taint)) else {
            return Stay::Until(Timestamp::MIN);
        };
        if let Some(seconds) = toleration.toleration_seconds {
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
        let taints = self.first_seen.lock().since(&node, &pod, Timestamp::now());
        let tolerations = pod
            .spec
            .as_ref()
            .and_then(|s| s.tolerations.clone())
            .unwrap_or_default();
        let until = match stay(&tolerations, &taints) {
            Stay::Until(until) => until,
            Stay::Forever => {
                let marked = self.marked.lock().remove(&key);
                if marked.is_some_and(|uid| uid == meta::uid(&*pod)) {
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

/// When a taint without a time of its own was seen first, by the node's uid and the taint.
#[derive(Default)]
struct FirstSeen(HashMap<String, HashMap<String, Timestamp>>);

impl FirstSeen {
    /// The node's taints, each with the time that the pod has had to live with it since.
    fn since(&mut self, node: &Node, pod: &Pod, now: Timestamp) -> Vec<(Taint, Timestamp)> {
        let taints = no_execute(node);
        if taints.is_empty() {
            self.forget(node);
            return taints.into_iter().map(|taint| (taint, now)).collect();
        }
        let seen = self.0.entry(meta::uid(node).to_owned()).or_default();
        let id = |t: &Taint| format!("{}={}", t.key, t.value.as_deref().unwrap_or_default());
        seen.retain(|taint, _| taints.iter().any(|t| id(t) == *taint));
        let since = taints.into_iter().map(|taint| {
            let first = *seen.entry(id(&taint)).or_insert(now);
            let since = taint.time_added.as_ref().map_or(first, |t| t.0);
            (taint, since.max(meta::created(pod)))
        });
        since.collect()
    }

    /// The node is gone, or has no such taint any more.
    fn forget(&mut self, node: &Node) {
        self.0.remove(meta::uid(node));
    }
}

impl Controller {
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
        delete(&api, pod, DeleteParams::default()).await.map(drop)
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
    fn times_of_taints_are_those_of_one_node_and_end_with_it() {
        let node = |uid: &str, keys: &[&str]| -> Node {
            let taints: Vec<_> = keys
                .iter()
                .map(|key| json!({"key": key, "effect": "NoExecute"}))
                .collect();
            let node = json!({"metadata": {"name": "a", "uid": uid}, "spec": {"taints": taints}});
            serde_json::from_value(node).unwrap_or_default()
        };
        let (mut seen, pod, at) = (FirstSeen::default(), Pod::default(), |s| {
            Timestamp::from_second(s).unwrap_or_default()
        });
        let mut times = |uid, keys: &[&str], now| -> Vec<Timestamp> {
            let all = seen.since(&node(uid, keys), &pod, at(now));
            all.into_iter().map(|(_, since)| since).collect()
        };
        assert_eq!(times("1", &["x"], 5), [at(5)]);
        assert_eq!(times("1", &["x", "y"], 6), [at(5), at(6)]);
        assert_eq!(times("2", &["x"], 7), [at(7)], "another node of that name");
        assert_eq!(times("1", &["y"], 8), [at(6)]);
        assert_eq!(times("1", &["x"], 9), [at(9)], "the taint came back");
        seen.forget(&node("1", &[]));
        seen.since(&node("2", &[]), &pod, at(10));
        assert!(seen.0.is_empty());
    }

    fn all(seconds: Option<i64>) -> Toleration {
        Toleration {
            key: None,
            ..tolerate("", seconds)
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
            // The first that tolerates a taint counts, with an end or without; of several taints the one that ends first.
            (
                vec![tolerate("a", Some(5)), tolerate("a", Some(2))],
                vec![taint("a", 10)],
                at(15),
            ),
            (
                vec![all(None), tolerate("a", Some(5))],
                vec![taint("a", 10)],
                Stay::Forever,
            ),
            (
                vec![tolerate("a", Some(6000)), all(Some(10))],
                vec![taint("a", 10)],
                at(6010),
            ),
            (
                vec![tolerate("a", Some(6000)), all(Some(10))],
                vec![taint("a", 10), taint("b", 20)],
                at(30),
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
