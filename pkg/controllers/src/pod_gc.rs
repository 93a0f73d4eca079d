//! Pods that nobody else will ever remove: those of nodes that are gone, those deleted before they had a node, and the oldest of too many
//! finished ones.
//!
//! Watches pods and nodes; deletes pods without grace.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

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
use crate::pod;
use crate::taint_eviction::disruption;

const NAME: &str = "pod-garbage-collector";
const WORKERS: usize = 4;
/// A node that is gone for this time won't come back.
const QUARANTINE: Duration = Duration::from_secs(40);

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Item {
    /// The pods of a node that is gone.
    Node(String),
    /// A pod that was deleted before it had a node.
    Unscheduled(Key),
    /// The number of finished pods.
    Finished,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Node(name) => write!(f, "node {name}"),
            Item::Unscheduled(key) => write!(f, "pod {key}"),
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
    driver.watch(&nodes, |event| match event {
        // One that is there (again) is missing no more: should it go, its quarantine begins anew.
        Event::Deleted(node) | Event::Applied { old: None, new: node } => {
            vec![Item::Node(meta::name(&**node).to_owned())]
        }
        Event::Applied { .. } => Vec::new(),
    });
    driver.watch(&pods, {
        let (finished, nodes) = (finished.clone(), nodes.clone());
        move |event| {
            let Event::Applied { new, .. } = event else {
                return Vec::new();
            };
            let node = pod::node(new);
            let mut items = Vec::new();
            if node.is_empty() {
                if meta::deleting(&**new) {
                    items.push(Item::Unscheduled(Key::of(&**new)));
                }
            } else if nodes.get(None, node).is_none() {
                items.push(Item::Node(node.to_owned()));
            }
            if threshold > 0 && finished.count("") > threshold {
                items.push(Item::Finished);
            }
            items
        }
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

impl Reconcile<Item> for Controller {
    async fn reconcile(&self, item: Item) -> Result<Next, Error> {
        match item {
            Item::Node(name) => self.node(&name).await,
            Item::Unscheduled(key) => {
                let pod = self.pods.get(key.ns(), &key.name);
                if let Some(pod) = pod.filter(|p| meta::deleting(&**p) && pod::node(p).is_empty()) {
                    self.delete(&pod).await?;
                }
                Ok(Next::Done)
            }
            Item::Finished => {
                let mut all = self.finished.get("");
                let surplus = all.len().saturating_sub(self.ctx.settings.terminated_pod_threshold);
                all.sort_by_key(|p| meta::created(&**p));
                for pod in all.iter().take(surplus) {
                    self.delete(pod).await?;
                }
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
        for pod in pods {
            self.fail(&pod).await?;
            self.delete(&pod).await?;
        }
        self.missing.lock().remove(name);
        Ok(Next::Done)
    }

    /// Says what became of a pod whose node is gone, for those who watch it.
    async fn fail(&self, pod: &Pod) -> Result<(), Error> {
        if pod::is_terminal(pod) {
            return Ok(());
        }
        let mut patch = disruption(pod, "DeletionByPodGC", "PodGC: node no longer exists");
        patch["status"]["phase"] = json!("Failed");
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
