//! Pods that nobody else will ever remove: those of nodes that are gone, those deleted before they had a node or on one that is out of
//! service, and the oldest of too many finished ones.
//!
//! Watches pods and nodes; deletes pods without grace.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use mk8s_client::{Event, Index, Informer};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::Context;
use crate::delete::delete;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::index;
use crate::meta::{self, Key};
use crate::taint_eviction::disruption;
use crate::{node_lifecycle, pod};

const NAME: &str = "pod-garbage-collector";
const WORKERS: usize = 4;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// A node that is gone for this time won't come back.
const QUARANTINE: Duration = Duration::from_secs(40);

/// How long after there are too many finished pods they are looked at: all of them are, and every pod that ends may be one more.
const GATHER: Duration = Duration::from_secs(20);

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Item {
    /// The pods of a node that is gone.
    Node(String),
    /// A pod that was deleted and has nobody who ends it.
    Stuck(Key),
    /// The number of finished pods.
    Finished,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Node(name) => write!(f, "node {name}"),
            Item::Stuck(key) => write!(f, "pod {key}"),
            Item::Finished => f.write_str("finished pods"),
        }
    }
}

struct Controller {
    ctx: Context,
    pods: Informer<Pod>,
    on_node: Index<Pod>,
    finished: Index<Pod>,
    nodes: Informer<Node>,
    /// Since when a node is missing.
    missing: Mutex<HashMap<String, Instant>>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (pods, nodes) = (ctx.informers.of::<Pod>(), ctx.informers.of::<Node>());
    let (on_node, finished) = (index::node(&pods), index::finished(&pods));
    let threshold = ctx.settings.terminated_pod_threshold;
    let mut driver = Driver::new(NAME, &ctx.scope);
    let pods_of = on_node.clone();
    driver.watch(&nodes, move |event| {
        let mut items = match event {
            // One that is there (again) is missing no more: should it go, its quarantine begins anew.
            Event::Deleted(node) | Event::Applied { old: None, new: node } => {
                vec![Item::Node(meta::name(&**node).to_owned())]
            }
            Event::Applied { .. } => Vec::new(),
        };
        if let Event::Applied { old, new } = event
            && is_out_of_service(new)
            && !old.as_deref().is_some_and(is_out_of_service)
        {
            let pods = pods_of.get(meta::name(&**new)).into_iter();
            items.extend(
                pods.filter(|pod| meta::deleting(&**pod))
                    .map(|pod| Item::Stuck(Key::of(&*pod))),
            );
        }
        items
    });
    let there = nodes.clone();
    follow_pods(&mut driver, &pods, threshold, move |pod| {
        let node = pod::node(pod);
        if is_stuck(pod, &there) {
            return Some(Item::Stuck(Key::of(pod)));
        }
        let lost = !node.is_empty() && there.get(None, node).is_none();
        lost.then(|| Item::Node(node.to_owned()))
    });
    let controller = Controller {
        ctx,
        pods,
        on_node,
        finished,
        nodes,
        missing: Mutex::default(),
    };
    driver.run(WORKERS, controller).await
}

/// `lost` names a pod that nobody ends.
fn follow_pods(
    driver: &mut Driver<Item>,
    pods: &Informer<Pod>,
    threshold: usize,
    lost: impl Fn(&Pod) -> Option<Item> + Send + 'static,
) {
    let (finished, queue) = (index::finished(pods), driver.queue.clone());
    driver.watch(pods, move |event| {
        let Event::Applied { new, .. } = event else {
            return Vec::new();
        };
        if threshold > 0 && pod::is_terminal(new) && finished.count("") > threshold {
            queue.add_after(Item::Finished, GATHER);
        }
        lost(new).into_iter().collect()
    });
}

/// Somebody said that the node is off for good, and it does not answer.
fn is_out_of_service(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.any(|taint| taint.key == OUT_OF_SERVICE) && !node_lifecycle::is_ready(node)
}

/// It is to go, and has no node that ends it.
fn is_stuck(pod: &Pod, nodes: &Informer<Node>) -> bool {
    let node = pod::node(pod);
    let nobody = || node.is_empty() || nodes.get(None, node).is_some_and(|node| is_out_of_service(&node));
    meta::deleting(pod) && nobody()
}

/// Which finished pods go first: evicted ones, which no controller counts, then the oldest.
fn order(pod: &Pod) -> (bool, jiff::Timestamp, &str) {
    let reason = pod.status.as_ref().and_then(|s| s.reason.as_deref());
    let evicted = pod::phase(pod) == "Failed" && reason == Some("Evicted");
    (!evicted, meta::created(pod), meta::name(pod))
}

/// Does it to all pods: one that may not be touched keeps nobody from the others. The first failure, when they are done.
async fn each<'a>(
    pods: Vec<Arc<Pod>>,
    act: impl Fn(Arc<Pod>) -> BoxFuture<'a, Result<(), Error>>,
) -> Result<(), Error> {
    let mut done = Ok(());
    for pod in pods {
        done = done.and(act(pod).await);
    }
    done
}

impl Reconcile<Item> for Controller {
    async fn reconcile(&self, item: Item) -> Result<Next, Error> {
        match item {
            Item::Node(name) => self.node(&name).await,
            Item::Stuck(key) => {
                let pod = self.pods.get(key.ns(), &key.name);
                if let Some(pod) = pod.filter(|pod| is_stuck(pod, &self.nodes)) {
                    self.fail(&pod, None).await?;
                    self.delete(&pod).await?;
                }
                Ok(Next::Done)
            }
            Item::Finished => {
                let mut all = self.finished.get("");
                let surplus = all.len().saturating_sub(self.ctx.settings.terminated_pod_threshold);
                all.sort_by(|a, b| order(a).cmp(&order(b)));
                // One that goes already counts as one that went.
                all.truncate(surplus);
                all.retain(|pod| !meta::deleting(&**pod));
                each(all, |pod| async move { self.delete(&pod).await }.boxed()).await?;
                Ok(Next::Done)
            }
        }
    }
}

impl Controller {
    async fn node(&self, name: &str) -> Result<Next, Error> {
        if self.nodes.get(None, name).is_some() {
            self.missing.lock().remove(name);
            return Ok(Next::Done);
        }
        let since = *self.missing.lock().entry(name.to_owned()).or_insert_with(Instant::now);
        let left = QUARANTINE.saturating_sub(since.elapsed());
        let pods = self.on_node.get(name);
        if pods.is_empty() {
            self.missing.lock().remove(name);
            return Ok(Next::Done);
        }
        if !left.is_zero() {
            return Ok(Next::After(left));
        }
        let live = self
            .ctx
            .all::<Node>()
            .get_opt(name)
            .await
            .tried(|| format!("get node {name}"))?;
        if live.is_some() {
            return Ok(Next::Done);
        }
        let end = |pod: Arc<Pod>| async move {
            self.fail(&pod, Some("PodGC: node no longer exists")).await?;
            self.delete(&pod).await
        };
        each(pods, |pod| end(pod).boxed()).await?;
        self.missing.lock().remove(name);
        Ok(Next::Done)
    }

    /// Says of a pod that nobody ends what became of it, for those who watch it.
    async fn fail(&self, pod: &Pod, disrupted: Option<&str>) -> Result<(), Error> {
        if pod::is_terminal(pod) {
            return Ok(());
        }
        let mut patch = match disrupted {
            Some(why) => disruption(pod, "DeletionByPodGC", why),
            None => json!({"metadata": {"uid": meta::uid(pod)}}),
        };
        patch["status"]["phase"] = json!("Failed");
        patch["status"]["observedGeneration"] = json!(pod.metadata.generation);
        let (namespace, name) = (meta::namespace(pod), meta::name(pod));
        let api = self.ctx.api::<Pod>(namespace);
        let done = api
            .patch_status(name, &PatchParams::default(), &Patch::Strategic(patch))
            .await;
        done.tried_if_exists(|| format!("mark pod {namespace}/{name} as failed"))
            .map(drop)
    }

    async fn delete(&self, pod: &Pod) -> Result<(), Error> {
        let api = self.ctx.api::<Pod>(meta::namespace(pod));
        delete(&api, pod, DeleteParams::default().grace_period(0))
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::future::ready;
    use mk8s_supervisor::Supervisor;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::told::Tell;

    #[test]
    fn a_node_is_out_of_service_when_somebody_says_so_and_it_is_silent() {
        let node = |key: &str, ready: &str| -> Node {
            let status = json!({"conditions": [{"type": "Ready", "status": ready}]});
            let spec = json!({"taints": [{"key": key, "effect": "NoExecute"}]});
            serde_json::from_value(json!({"metadata": {}, "spec": spec, "status": status})).unwrap()
        };
        for (key, ready, expected) in [
            (OUT_OF_SERVICE, "Unknown", true),
            (OUT_OF_SERVICE, "False", true),
            (OUT_OF_SERVICE, "True", false),
            ("other", "Unknown", false),
        ] {
            assert_eq!(is_out_of_service(&node(key, ready)), expected, "{key} {ready}");
        }
    }

    #[test]
    fn evicted_pods_go_first_then_the_oldest() {
        let pod = |name: &str, second: u8, phase: &str, reason: &str| -> Pod {
            let created = format!("2026-01-01T00:00:0{second}Z");
            let metadata = json!({"name": name, "creationTimestamp": created});
            serde_json::from_value(json!({"metadata": metadata, "status": {"phase": phase, "reason": reason}})).unwrap()
        };
        let mut pods = [
            pod("b", 1, "Succeeded", ""),
            pod("a", 1, "Failed", "Error"),
            pod("c", 5, "Failed", "Evicted"),
            pod("d", 0, "Failed", ""),
        ];
        pods.sort_by(|a, b| order(a).cmp(&order(b)));
        let names: Vec<_> = pods.iter().map(meta::name).collect();
        assert_eq!(names, ["c", "d", "a", "b"]);
    }

    #[tokio::test]
    async fn a_pod_that_may_not_be_touched_keeps_nobody_from_the_others() {
        let pods = ["a", "b", "c"]
            .map(|name| -> Arc<Pod> { Arc::new(serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()) });
        let tried = Mutex::new(Vec::new());
        let done = each(pods.into(), |pod| {
            let name = meta::name(&*pod).to_owned();
            tried.lock().push(name.clone());
            ready(if name == "c" { Ok(()) } else { Err(Error::Invalid(name)) }).boxed()
        });
        assert!(matches!(done.await, Err(Error::Invalid(name)) if name == "a"));
        assert_eq!(*tried.lock(), ["a", "b", "c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_pods_end_the_finished_are_looked_at_once_in_a_while() {
        let scope = Supervisor::new(CancellationToken::new());
        let (mut tell, informers) = Tell::new(&scope);
        let ended = |name: usize| json!({"metadata": {"name": name.to_string()}, "status": {"phase": "Succeeded"}});
        tell.all_told();
        let mut driver: Driver<Item> = Driver::new("finished-pods-of-a-test", &scope);
        follow_pods(&mut driver, &informers.of(), 5, |_| None);
        let queue = driver.queue.clone();
        let looked_at = || async {
            let mut looks = 0;
            while let Ok(item) = tokio::time::timeout(GATHER * 3, queue.next()).await {
                assert_eq!(item, Item::Finished);
                queue.done(&item);
                looks += 1;
            }
            looks
        };
        (0..5).for_each(|name| tell.set(&ended(name)));
        assert_eq!(looked_at().await, 0, "not too many");
        (5..50).for_each(|name| tell.set(&ended(name)));
        assert_eq!(looked_at().await, 1);
        tell.set(&json!({"metadata": {"name": "runs"}, "status": {"phase": "Running"}}));
        assert_eq!(looked_at().await, 0, "it is none of them");
        tell.set(&ended(50));
        assert_eq!(looked_at().await, 1);
    }
}
