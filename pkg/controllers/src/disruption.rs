//! PodDisruptionBudgets: how many of the pods that they cover may be disrupted now.
//!
//! Watches budgets, pods and the workloads that own pods; writes the budgets' status. Eviction consults it and notes there which pods it
//! has let go; a note is good for two minutes, or until the pod is gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::PostParams;
use kube::core::SelectorExt;
use mk8s_api::conditions;
use mk8s_client::{Event, EventRecorder, Index, Informer};

use crate::context::Context;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried};
use crate::index;
use crate::meta::to_i32;
use crate::meta::{self, Key};
use crate::pod;

const NAME: &str = "controllermanager";
const WORKERS: usize = 4;
/// An eviction that did not lead to a deletion in this time did not happen.
const NOTE: Duration = Duration::from_secs(120);

struct Controller {
    ctx: Context,
    budgets: Informer<PodDisruptionBudget>,
    pods: Index<Pod>,
    scales: Scales,
    recorder: EventRecorder,
}

/// The workloads that say how many pods there should be.
struct Scales {
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    stateful: Informer<StatefulSet>,
    controllers: Informer<ReplicationController>,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let budgets = ctx.informers.of::<PodDisruptionBudget>();
    let all_pods = ctx.informers.of::<Pod>();
    let (by_ns, pods) = (index::namespace(&budgets), index::labels(&all_pods));
    let scales = Scales {
        deployments: ctx.informers.of(),
        sets: ctx.informers.of(),
        stateful: ctx.informers.of(),
        controllers: ctx.informers.of(),
    };
    let mut driver = Driver::new("disruption-controller", &ctx.scope);
    driver.watch(&budgets, |event| vec![Key::of(&**event.object())]);
    driver.watch(&all_pods, {
        let by_ns = by_ns.clone();
        move |event| covering(event, &by_ns)
    });
    // A new size changes what a percentage means.
    follow(&mut driver, &scales.deployments, &by_ns, |d| {
        d.spec.as_ref().and_then(|s| s.replicas)
    });
    follow(&mut driver, &scales.sets, &by_ns, |s| {
        s.spec.as_ref().and_then(|s| s.replicas)
    });
    follow(&mut driver, &scales.stateful, &by_ns, |s| {
        s.spec.as_ref().and_then(|s| s.replicas)
    });
    follow(&mut driver, &scales.controllers, &by_ns, |c| {
        c.spec.as_ref().and_then(|s| s.replicas)
    });
    let recorder = ctx.recorder(NAME);
    let controller = Controller {
        ctx,
        budgets,
        pods,
        scales,
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

fn covering(event: &Event<Pod>, budgets: &Index<PodDisruptionBudget>) -> Vec<Key> {
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
    let all = budgets.get(meta::namespace(&**event.object()));
    let concerned = all
        .iter()
        .filter(|b| [old, new].into_iter().flatten().any(|pod| covers(b, pod)));
    concerned.map(|b| Key::of(&**b)).collect()
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(budget) = self.budgets.get(key.ns(), &key.name) else {
            return Ok(Next::Done);
        };
        let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
        let required = selector.and_then(|s| s.match_labels.clone()).unwrap_or_default();
        let mut pods = index::with_labels(&self.pods, &key.namespace, &required);
        pods.retain(|pod| covers(&budget, pod) && !pod::is_terminal(pod));
        if pods.is_empty() {
            self.recorder
                .event(&meta::reference(&*budget), "Normal", "NoPods", "No matching pods found");
        }
        let expected = if needs_scale(&budget) {
            self.scales.expected(&key.namespace, &pods)
        } else {
            Ok(0)
        };
        let (status, next) = match expected {
            Ok(scale) => status(&budget, &pods, scale, Timestamp::now()),
            Err(message) => {
                let reference = meta::reference(&*budget);
                self.recorder
                    .event(&reference, "Warning", "CalculateExpectedPodCountFailed", &message);
                (failed(&budget, &message), Next::Done)
            }
        };
        if budget.status.as_ref() != Some(&status) {
            let update = PodDisruptionBudget {
                status: Some(status),
                ..(*budget).clone()
            };
            let api = self.ctx.api::<PodDisruptionBudget>(&key.namespace);
            let done = api.replace_status(&key.name, &PostParams::default(), &update).await;
            done.tried_if_exists(|| format!("update status of PodDisruptionBudget {key}"))?;
        }
        Ok(next)
    }
}

impl Scales {
    /// How many pods their owners ask for together.
    fn expected(&self, namespace: &str, pods: &[Arc<Pod>]) -> Result<i32, String> {
        let mut owners: HashMap<&str, i32> = HashMap::new();
        let mut resolved: HashMap<String, i32> = HashMap::new();
        for pod in pods {
            // A pod without an owner counts for itself; upstream has no number for it either.
            let Some(owner) = meta::controller_of(&**pod) else {
                continue;
            };
            if owners.contains_key(owner.uid.as_str()) {
                continue;
            }
            let (uid, scale) = self
                .scale(namespace, &owner.kind, &owner.name, &owner.uid)
                .ok_or_else(|| {
                    format!(
                        "no scale found for owner {} {} of pod {}",
                        owner.kind,
                        owner.name,
                        meta::name(&**pod)
                    )
                })?;
            owners.insert(&owner.uid, scale);
            resolved.insert(uid, scale);
        }
        Ok(resolved.values().sum())
    }

    /// The size that an owner asks for; a ReplicaSet's is its Deployment's.
    fn scale(&self, namespace: &str, kind: &str, name: &str, uid: &str) -> Option<(String, i32)> {
        let ns = Some(namespace);
        let size = |replicas: Option<i32>| Some((uid.to_owned(), replicas.unwrap_or(1)));
        match kind {
            "ReplicaSet" => {
                let set = self.sets.get(ns, name).filter(|s| meta::uid(&**s) == uid)?;
                if let Some(owner) = meta::controller_of_kind::<Deployment, _>(&*set) {
                    let deployment = self
                        .deployments
                        .get(ns, &owner.name)
                        .filter(|d| meta::uid(&**d) == owner.uid)?;
                    return Some((
                        owner.uid.clone(),
                        deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1),
                    ));
                }
                size(set.spec.as_ref().and_then(|s| s.replicas))
            }
            "StatefulSet" => {
                let set = self.stateful.get(ns, name).filter(|s| meta::uid(&**s) == uid)?;
                size(set.spec.as_ref().and_then(|s| s.replicas))
            }
            "ReplicationController" => {
                let controller = self.controllers.get(ns, name).filter(|c| meta::uid(&**c) == uid)?;
                size(controller.spec.as_ref().and_then(|s| s.replicas))
            }
            _ => None,
        }
    }
}

fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.as_ref();
    spec.is_some_and(|s| s.max_unavailable.is_some() || matches!(s.min_available, Some(IntOrString::String(_))))
}

/// The numbers, and when a note runs out.
fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scale: i32,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Next) {
    let up = |value: &IntOrString, total: i32| crate::deployment::scaled(value, total, true);
    let spec = budget.spec.clone().unwrap_or_default();
    let (expected, desired) = if let Some(max) = &spec.max_unavailable {
        (scale, (scale - up(max, scale)).max(0))
    } else {
        match &spec.min_available {
            Some(IntOrString::Int(min)) => (to_i32(pods.len()), *min),
            Some(percent) => (scale, up(percent, scale)),
            None => (to_i32(pods.len()), 0),
        }
    };
    let (noted, next) = notes(budget, pods, now);
    let healthy = pods
        .iter()
        .filter(|p| pod::is_ready(p) && !meta::deleting(&***p) && !noted.contains_key(meta::name(&***p)))
        .count();
    let healthy = to_i32(healthy);
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let reason = if allowed > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    let before = budget.status.clone().unwrap_or_default();
    let status = PodDisruptionBudgetStatus {
        current_healthy: healthy,
        desired_healthy: desired,
        expected_pods: expected,
        disruptions_allowed: allowed,
        disrupted_pods: (!noted.is_empty()).then_some(noted),
        observed_generation: budget.metadata.generation,
        conditions: Some(disruption_allowed(budget, before.conditions, reason, "")),
    };
    (status, next)
}

/// Evictions that have not led to a deletion yet, and when the first of them runs out.
fn notes(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], now: Timestamp) -> (BTreeMap<String, Time>, Next) {
    let mut next = Next::Done;
    let mut noted = BTreeMap::new();
    for (name, at) in budget.status.iter().flat_map(|s| s.disrupted_pods.iter().flatten()) {
        let Some(pod) = pods.iter().find(|p| meta::name(&***p) == name) else {
            continue;
        };
        let age = Duration::try_from(now.duration_since(at.0)).unwrap_or_default();
        if meta::deleting(&**pod) || age >= NOTE {
            continue;
        }
        next = next.sooner(Next::After(NOTE - age));
        noted.insert(name.clone(), at.clone());
    }
    (noted, next)
}

/// Nothing may be disrupted while the numbers are unknown.
fn failed(budget: &PodDisruptionBudget, message: &str) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = 0;
    status.observed_generation = budget.metadata.generation;
    status.conditions = Some(disruption_allowed(
        budget,
        status.conditions,
        ("False", "SyncFailed"),
        message,
    ));
    status
}

fn disruption_allowed(
    budget: &PodDisruptionBudget,
    known: Option<Vec<Condition>>,
    (status, reason): (&str, &str),
    message: &str,
) -> Vec<Condition> {
    const TYPE: &str = "DisruptionAllowed";
    let mut all = known.unwrap_or_default();
    let new = Condition {
        type_: TYPE.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: budget.metadata.generation,
        last_transition_time: meta::now(),
    };
    conditions::put(&mut all, new);
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        serde_json::from_value(
            json!({"metadata": {"name": "b", "namespace": "d", "generation": 1}, "spec": spec, "status": status}),
        )
        .unwrap()
    }

    fn pods(ready: usize, unready: usize) -> Vec<Arc<Pod>> {
        (0..ready + unready)
            .map(|n| {
                let status = if n < ready { "True" } else { "False" };
                let pod = json!({"metadata": {"name": format!("p{n}")}, "status": {"conditions": [{"type": "Ready", "status": status}]}});
                Arc::new(serde_json::from_value(pod).unwrap())
            })
            .collect()
    }

    #[test]
    fn budgets_allow_what_is_healthy_beyond_what_is_desired() {
        for (spec, ready, unready, scale, expected) in [
            (json!({"minAvailable": 2}), 3, 0, 3, (3, 2, 1)),
            (json!({"minAvailable": 2}), 2, 1, 3, (3, 2, 0)),
            (json!({"minAvailable": "50%"}), 3, 0, 5, (5, 3, 0)),
            (json!({"maxUnavailable": 1}), 3, 0, 3, (3, 2, 1)),
            (json!({"maxUnavailable": "34%"}), 3, 0, 3, (3, 1, 2)),
            (json!({"maxUnavailable": 1}), 0, 0, 0, (0, 0, 0)),
        ] {
            let (found, _) = status(
                &budget(spec.clone(), Value::Null),
                &pods(ready, unready),
                scale,
                Timestamp::now(),
            );
            assert_eq!(
                (found.expected_pods, found.desired_healthy, found.disruptions_allowed),
                expected,
                "{spec}"
            );
        }
    }

    #[test]
    fn noted_evictions_count_as_unhealthy_for_two_minutes() {
        let now: Timestamp = "2024-01-01T00:02:30Z".parse().unwrap();
        let noted = json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0, "disruptedPods": {
            "p0": "2024-01-01T00:01:00Z", "p1": "2024-01-01T00:00:00Z", "gone": "2024-01-01T00:02:00Z"}});
        let b = budget(json!({"minAvailable": 1}), noted);
        let (found, next) = status(&b, &pods(3, 0), 3, now);
        assert_eq!((found.current_healthy, found.disruptions_allowed), (2, 1));
        assert_eq!(found.disrupted_pods.as_ref().unwrap().len(), 1);
        assert_eq!(next, Next::After(Duration::from_secs(30)));
        let same = PodDisruptionBudget {
            status: Some(found.clone()),
            ..b
        };
        assert_eq!(status(&same, &pods(3, 0), 3, now).0, found);
    }
}
