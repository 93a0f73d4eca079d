//! PodDisruptionBudgets: how many of the pods that they cover may be disrupted now.
//!
//! Watches budgets, pods and the workloads that own pods; writes the budgets' status. Eviction consults it and notes there which pods it
//! has let go; a note is good for two minutes, or until the pod is gone. [`sizes`] finds how many pods there should be, [`status`] does
//! the sums; [`stale`] takes back what was said of a pod that stayed.

mod sizes;
pub mod stale;
mod status;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::SelectorExt;
use mk8s_client::{Event, EventRecorder, Index, Informer};

use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::Error;
use crate::index;
use crate::meta::{self, Key};
use crate::pod;
use crate::selecting::Selecting;

use sizes::{Expected, Sizes};

const NAME: &str = "controllermanager";
const WORKERS: usize = 4;

struct Controller {
    ctx: Context,
    budgets: Informer<PodDisruptionBudget>,
    pods: Index<Pod>,
    sizes: Sizes,
    recorder: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let budgets = ctx.informers.of::<PodDisruptionBudget>();
    let all_pods = ctx.informers.of::<Pod>();
    let (by_ns, pods) = (index::namespace(&budgets), index::labels(&all_pods));
    let sizes = Sizes::new(&ctx);
    let mut driver = Driver::new("disruption-controller", &ctx.scope);
    driver.watch(&budgets, |event| vec![Key::of(&**event.object())]);
    driver.watch(&all_pods, {
        let covering = Selecting::of(&budgets, |budget| budget.spec.as_ref()?.selector.clone());
        move |event| covered(event, &covering)
    });
    // A new size changes what a percentage means.
    follow(&mut driver, &sizes.deployments, &by_ns, |d| {
        d.spec.as_ref().and_then(|s| s.replicas)
    });
    follow(&mut driver, &sizes.sets, &by_ns, |s| {
        s.spec.as_ref().and_then(|s| s.replicas)
    });
    follow(&mut driver, &sizes.stateful, &by_ns, |s| {
        s.spec.as_ref().and_then(|s| s.replicas)
    });
    follow(&mut driver, &sizes.controllers, &by_ns, |c| {
        c.spec.as_ref().and_then(|s| s.replicas)
    });
    let recorder = ctx.recorder(NAME);
    let controller = Controller {
        ctx,
        budgets,
        pods,
        sizes,
        recorder,
    };
    driver.run(WORKERS, controller).await
}

fn follow<K: mk8s_client::Kind>(
    driver: &mut Driver,
    informer: &Informer<K>,
    budgets: &Index<PodDisruptionBudget>,
    size: fn(&K) -> Option<i32>,
) {
    let budgets = budgets.clone();
    driver.watch(informer, move |event| {
        let changed = match event {
            Event::Applied { old, new } => old.as_deref().map(size) != Some(size(new)),
            Event::Deleted(_) => false,
        };
        let namespace = meta::namespace(&**event.object());
        if changed {
            budgets.get(namespace).iter().map(|b| Key::of(&**b)).collect()
        } else {
            Vec::new()
        }
    });
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector
        .and_then(|s| meta::selector(s).ok())
        .is_some_and(|s| s.matches(meta::labels(pod)))
}

fn covered(event: &Event<Pod>, budgets: &Selecting<PodDisruptionBudget>) -> Vec<Key> {
    let (old, new) = match event {
        Event::Applied { old, new } => (old.as_deref(), Some(&**new)),
        Event::Deleted(old) => (Some(&**old), None),
    };
    if let (Some(old), Some(new)) = (old, new) {
        let part = |p: &Pod| {
            (
                pod::is_ready(p),
                pod::is_terminal(p),
                meta::deleting(p),
                meta::labels(p).clone(),
            )
        };
        if part(old) == part(new) {
            return Vec::new();
        }
    }
    let pods = [old, new].into_iter().flatten();
    pods.flat_map(|pod| budgets.who(pod))
        .map(|(budget, _)| Key::of(&*budget))
        .collect()
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(budget) = self.budgets.get(key.ns(), &key.name) else {
            return Ok(Next::Done);
        };
        let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
        let required = selector.and_then(|s| s.match_labels.clone()).unwrap_or_default();
        let mut pods = index::with_labels(&self.pods, &key.namespace, &required);
        pods.retain(|pod| covers(&budget, pod));
        if pods.is_empty() {
            self.recorder
                .event(&meta::reference(&*budget), "Normal", "NoPods", "No matching pods found");
        }
        let expected = if status::needs_scale(&budget) {
            self.sizes.expected(&key.namespace, &pods).await
        } else {
            Ok(Expected::default())
        };
        let (status, next) = match expected {
            Ok(expected) => {
                if expected.unmanaged {
                    self.tell_unmanaged(&budget);
                }
                let (noted, next, kept) = status::notes(&budget, &pods, Timestamp::now());
                for pod in kept {
                    // Upstream names the namespace twice.
                    let text = format!(
                        "Pod was expected by PDB {0}/{0} to be deleted but it wasn't",
                        key.namespace
                    );
                    self.recorder
                        .event(&meta::reference(&*pod), "Warning", "NotDeleted", text);
                }
                (status::status(&budget, &pods, expected.pods, noted), next)
            }
            Err(why) => {
                let text = format!("Failed to calculate the number of expected pods: {why}");
                self.recorder.event(
                    &meta::reference(&*budget),
                    "Warning",
                    "CalculateExpectedPodCountFailed",
                    text,
                );
                (status::failed(&budget, &why), Next::Done)
            }
        };
        if budget.status.as_ref() != Some(&status) {
            let update = PodDisruptionBudget {
                status: Some(status),
                ..(*budget).clone()
            };
            self.ctx.write_status(&update).await?;
        }
        Ok(next)
    }
}

impl Controller {
    fn tell_unmanaged(&self, budget: &PodDisruptionBudget) {
        let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
        let text = format!(
            "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
            meta::go_selector(selector)
        );
        self.recorder
            .event(&meta::reference(budget), "Warning", "UnmanagedPods", text);
    }
}
