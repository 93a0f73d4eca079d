//! How long a node may keep what it knows of Secrets and ConfigMaps, which clusters of many nodes tell theirs by an annotation.
//!
//! Watches nodes; writes that annotation alone. It follows the number of nodes in steps that overlap, so that one node that
//! comes and goes does not have all others rewritten.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use mk8s_client::{Event, Informer};
use serde_json::json;

use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::meta::{self, Key};

const NAME: &str = "ttl-controller";
const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// For so many nodes at least and at most: so many seconds. Upstream's steps.
const STEPS: [(usize, usize, u32); 5] = [
    (0, 100, 0),
    (90, 500, 15),
    (450, 1_000, 30),
    (900, 2_000, 60),
    (1_800, usize::MAX, 300),
];

struct Controller {
    ctx: Context,
    nodes: Informer<Node>,
    step: Arc<AtomicUsize>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let nodes = ctx.informers.of::<Node>();
    let step: Arc<AtomicUsize> = Arc::default();
    let mut driver = Driver::new(NAME, &ctx.scope);
    driver.watch(&nodes, {
        let (step, nodes) = (step.clone(), nodes.clone());
        move |event| {
            let before = step.load(Ordering::Relaxed);
            let now = next(before, nodes.len());
            if now != before {
                step.store(now, Ordering::Relaxed);
                return nodes.list().iter().map(|node| Key::of(&**node)).collect();
            }
            match event {
                Event::Applied { new, .. } if told(new) != Some(STEPS[now].2) => vec![Key::of(&**new)],
                _ => Vec::new(),
            }
        }
    });
    driver.run(1, Controller { ctx, nodes, step }).await
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let seconds = STEPS[self.step.load(Ordering::Relaxed)].2;
        let found = self
            .nodes
            .get(None, &key.name)
            .filter(|node| told(node) != Some(seconds));
        let Some(node) = found else { return Ok(Next::Done) };
        let change = json!({"metadata": {"uid": meta::uid(&*node), "annotations": {ANNOTATION: seconds.to_string()}}});
        let nodes = self.ctx.all::<Node>();
        let done = nodes
            .patch(&key.name, &PatchParams::default(), &Patch::Strategic(change))
            .await;
        done.tried_if_exists(|| format!("annotate node {key}"))?;
        Ok(Next::Done)
    }
}

fn told(node: &Node) -> Option<u32> {
    meta::annotation(node, ANNOTATION)?.parse().ok()
}

/// The step for so many nodes, from the one before.
fn next(mut step: usize, nodes: usize) -> usize {
    while nodes > STEPS[step].1 {
        step += 1;
    }
    while nodes < STEPS[step].0 {
        step -= 1;
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_overlap() {
        for (before, nodes, after) in [
            (0, 100, 0),
            (0, 101, 1),
            (1, 90, 1),
            (1, 89, 0),
            (0, 1_500, 3),
            (4, 1_800, 4),
            (4, 3, 0),
        ] {
            assert_eq!(next(before, nodes), after, "{before} {nodes}");
        }
    }
}
