//! ReplicaSets: as many pods as asked for.
//!
//! Watches ReplicaSets and pods; makes, deletes, adopts and releases pods; writes the ReplicaSet's status. Never counts while its own last
//! writes have not come back as events.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use mk8s_client::{Event, EventRecorder, Index, Informer, Seen};
use parking_lot::Mutex;

use crate::adoption::{self, manager};
use crate::context::Context;
use crate::delete::delete;
use crate::driver::{Driver, Next, Reconcile};
use crate::error::{Error, Tried, message, namespace_terminating};
use crate::meta::{self, Key, nonzero, to_i32};
use crate::replicas::{self, Pause, Round};
use crate::{index, pod};

const NAME: &str = "replicaset-controller";
const WORKERS: usize = 5;

struct Controller {
    ctx: Context,
    sets: Informer<ReplicaSet>,
    /// By their Deployment.
    siblings: Index<ReplicaSet>,
    all_pods: Informer<Pod>,
    pods: Index<Pod>,
    /// Pods that were made or deleted.
    seen: Seen<Key>,
    /// Of the sets that wait because their pods failed.
    rounds: Mutex<HashMap<Key, Round>>,
    recorder: EventRecorder,
    /// Tells why there are no more pods. It counts for itself: what is told of each pod is soon too much for one set.
    pauses: EventRecorder,
}

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let sets = ctx.informers.of::<ReplicaSet>();
    let all_pods = ctx.informers.of::<Pod>();
    let (pods, siblings) = (index::owner(&all_pods), index::owner(&sets));
    let mut driver = Driver::new(NAME, &ctx.scope);

    // A deleted one too: what is remembered of its name is forgotten between two reconciliations, not under one.
    driver.watch(&sets, |event| vec![Key::of(&**event.object())]);
    driver.watch(&all_pods, {
        let in_namespace = index::namespace(&sets);
        move |event| pod_event(event, &in_namespace)
    });

    let (recorder, pauses) = (ctx.recorder(NAME), ctx.recorder(NAME));
    let controller = Controller {
        ctx,
        sets,
        siblings,
        all_pods,
        pods,
        seen: Seen::default(),
        rounds: Mutex::default(),
        recorder,
        pauses,
    };
    driver.run(WORKERS, controller).await
}

fn pod_event(event: &Event<Pod>, in_namespace: &Index<ReplicaSet>) -> Vec<Key> {
    let Event::Applied { old, new } = event else {
        return manager::<ReplicaSet>(&**event.object()).into_iter().collect();
    };
    let mut keys: Vec<Key> = manager::<ReplicaSet>(&**new).into_iter().collect();
    if let Some(before) = old.as_deref().and_then(manager::<ReplicaSet>)
        && Some(&before) != keys.first()
    {
        keys.push(before);
    }
    if meta::controller_of(&**new).is_none() && !meta::deleting(&**new) {
        let relabelled = old
            .as_ref()
            .is_none_or(|o| o.metadata.labels != new.metadata.labels || !keys.is_empty());
        if relabelled {
            let selector = |set: &ReplicaSet| set.spec.as_ref().map(|s| s.selector.clone());
            keys.extend(adoption::selecting(&**new, in_namespace, selector));
        }
    }
    keys
}

impl Reconcile for Controller {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let Some(set) = self.sets.get(key.ns(), &key.name) else {
            self.seen.forget(&key);
            self.rounds.lock().remove(&key);
            return Ok(Next::Done);
        };
        let Some(spec) = &set.spec else { return Ok(Next::Done) };
        let selector = meta::selector(&spec.selector)?;
        // Until what was written last has come back, what there is can't be counted.
        let missing = self.seen.missing(&key, &self.all_pods);

        let mut candidates = self.pods.get(meta::uid(&*set));
        let required = spec.selector.match_labels.clone().unwrap_or_default();
        candidates.extend(index::orphans(&self.pods, &key.namespace, &required));
        let api = self.ctx.api::<Pod>(&key.namespace);
        let claimed = adoption::claim(&api, &*set, &selector, candidates, pod::is_active, None, || async {
            let live = self.ctx.api::<ReplicaSet>(&key.namespace).get_opt(&key.name).await;
            let live = live.tried(|| format!("get ReplicaSet {key}"))?;
            Ok(live.is_some_and(|l| l.metadata.uid == set.metadata.uid && !meta::deleting(&l)))
        })
        .await?;
        let active: Vec<_> = claimed.iter().filter(|p| pod::is_active(p)).cloned().collect();

        let now = Timestamp::now();
        let failed = claimed.iter().filter(|p| pod::phase(p) == "Failed");
        let pause = replicas::pause(
            failed.filter_map(|p| Some(p.metadata.creation_timestamp.as_ref()?.0)),
            now,
        );
        let (mut failure, mut paused) = (None, Next::Done);
        if missing.is_none() && !meta::deleting(&*set) {
            match self.manage(&key, &set, &active, pause).await {
                Ok(next) => paused = next,
                Err(error) => failure = Some(error),
            }
        }
        let status = status(&set, &claimed, failure.as_ref(), active.len(), now);
        let changed = set.status.as_ref() != Some(&status);
        if changed {
            let mut update = (*set).clone();
            update.status = Some(status);
            self.ctx
                .api::<ReplicaSet>(&key.namespace)
                .replace_status(&key.name, &PostParams::default(), &update)
                .await
                .tried_if_exists(|| format!("update status of ReplicaSet {key}"))?;
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let next = next_availability(&active, spec.min_ready_seconds.unwrap_or(0), now);
        Ok(next.sooner(paused).sooner(missing.map_or(Next::Done, Next::After)))
    }
}

impl Controller {
    /// `pause`: before which no more pods are made than are missing beside those that failed, where there is one.
    async fn manage(
        &self,
        key: &Key,
        set: &ReplicaSet,
        active: &[Arc<Pod>],
        pause: Option<Pause>,
    ) -> Result<Next, Error> {
        let Some(spec) = &set.spec else { return Ok(Next::Done) };
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        let missing = wanted.saturating_sub(active.len());
        let waiting = self.waiting(key, set, pause.as_ref(), missing);
        let now = missing.saturating_sub(waiting);
        let done = if now > 0 {
            self.create(key, set, now.min(replicas::BURST)).await
        } else if active.len() > wanted {
            let count = (active.len() - wanted).min(replicas::BURST);
            let mut related = active.to_vec();
            for sibling in meta::controller_of(set)
                .iter()
                .flat_map(|owner| self.siblings.get(&owner.uid))
            {
                if meta::uid(&*sibling) != meta::uid(set) {
                    related.extend(self.pods.get(meta::uid(&*sibling)));
                }
            }
            self.delete(key, set, replicas::to_delete(active, &related, count, Timestamp::now()))
                .await
        } else {
            Ok(())
        };
        let paused = pause.filter(|_| waiting > 0);
        done.map(|()| paused.map_or(Next::Done, |pause| Next::After(pause.left)))
    }

    /// How many of those that are missing are not made before the pause is over.
    fn waiting(&self, key: &Key, set: &ReplicaSet, pause: Option<&Pause>, missing: usize) -> usize {
        let Some(pause) = pause else {
            self.rounds.lock().remove(key);
            return 0;
        };
        let (waiting, is_news) = self.rounds.lock().entry(key.clone()).or_default().waits(pause, missing);
        if is_news {
            let text = format!(
                "Back-off creating pods: those that failed soon after they were made are made anew in {}s",
                pause.left.as_secs()
            );
            self.pauses.event(&meta::reference(set), "Warning", "BackOff", text);
        }
        waiting
    }

    async fn create(&self, key: &Key, set: &ReplicaSet, count: usize) -> Result<(), Error> {
        let template = set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
        let new = replicas::from_template(&template, &key.name, meta::owner_reference(set));
        let api = self.ctx.api::<Pod>(&key.namespace);
        let (_, error) = replicas::slow_start(count, |_| async {
            match api.create(&PostParams::default(), &new).await {
                Ok(created) => {
                    self.seen.wrote(key, &created);
                    let message = format!("Created pod: {}", meta::name(&created));
                    self.recorder
                        .event(&meta::reference(set), "Normal", "SuccessfulCreate", &message);
                    Ok(())
                }
                Err(e) => Err(e),
            }
        })
        .await;
        match error {
            None => Ok(()),
            // Nothing can be made in a namespace that goes; retrying would only make noise.
            Some(e) if namespace_terminating(&e) => Ok(()),
            Some(e) => {
                self.recorder.event(
                    &meta::reference(set),
                    "Warning",
                    "FailedCreate",
                    format!("Error creating: {}", message(&e)),
                );
                Err(e).tried(|| format!("create pods of ReplicaSet {key}"))
            }
        }
    }

    async fn delete(&self, key: &Key, set: &ReplicaSet, doomed: Vec<Arc<Pod>>) -> Result<(), Error> {
        let api = self.ctx.api::<Pod>(&key.namespace);
        let results = futures::future::join_all(doomed.iter().map(|pod| async {
            let name = meta::name(&**pod);
            match delete(&api, &**pod, DeleteParams::default()).await {
                Ok(true) => {
                    self.seen.deleted(key, &**pod);
                    let message = format!("Deleted pod: {name}");
                    self.recorder
                        .event(&meta::reference(set), "Normal", "SuccessfulDelete", &message);
                    Ok(())
                }
                Ok(false) => Ok(()),
                Err(e) => {
                    self.recorder.event(
                        &meta::reference(set),
                        "Warning",
                        "FailedDelete",
                        format!("Error deleting: {e}"),
                    );
                    Err(e)
                }
            }
        }))
        .await;
        results.into_iter().collect()
    }
}

/// When the next ready pod becomes available, in case availability takes time.
fn next_availability(active: &[Arc<Pod>], min_ready_seconds: i32, now: Timestamp) -> Next {
    let soonest = active
        .iter()
        .filter_map(|p| pod::available_in(p, min_ready_seconds, now))
        .filter(|left| *left > Duration::ZERO)
        .min();
    soonest.map_or(Next::Done, Next::After)
}

/// The status that the pods amount to.
fn status(
    set: &ReplicaSet,
    claimed: &[Arc<Pod>],
    failure: Option<&Error>,
    active_count: usize,
    now: Timestamp,
) -> ReplicaSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let before = set.status.clone().unwrap_or_default();
    let template = spec
        .template
        .as_ref()
        .and_then(|t| t.metadata.as_ref())
        .and_then(|m| m.labels.clone())
        .unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let active: Vec<&Arc<Pod>> = claimed.iter().filter(|p| pod::is_active(p)).collect();
    let count = |keep: &dyn Fn(&Pod) -> bool| to_i32(active.iter().filter(|p| keep(p)).count());
    let terminating = to_i32(
        claimed
            .iter()
            .filter(|p| meta::deleting(&***p) && !pod::is_terminal(p))
            .count(),
    );

    let mut conditions: Vec<ReplicaSetCondition> = before.conditions.unwrap_or_default();
    let known = conditions.iter().position(|c| c.type_ == "ReplicaFailure");
    match failure {
        Some(error) if known.is_none() => {
            let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
            let reason = if active_count < wanted {
                "FailedCreate"
            } else {
                "FailedDelete"
            };
            let text = error.message();
            conditions.push(ReplicaSetCondition {
                type_: "ReplicaFailure".to_owned(),
                status: "True".to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(text),
                last_transition_time: Some(meta::now()),
            });
        }
        None => conditions.retain(|c| c.type_ != "ReplicaFailure"),
        Some(_) => {}
    }
    ReplicaSetStatus {
        replicas: to_i32(active.len()),
        fully_labeled_replicas: nonzero(count(&|p| meta::selects(&template, meta::labels(p)))),
        ready_replicas: nonzero(count(&pod::is_ready)),
        available_replicas: nonzero(count(&|p| pod::is_available(p, min_ready, now))),
        terminating_replicas: Some(terminating),
        observed_generation: set.metadata.generation.or(before.observed_generation),
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn status_counts_active_pods_and_sets_failure_once() {
        let set: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"name": "rs", "generation": 3},
            "spec": {"replicas": 4, "selector": {}, "minReadySeconds": 10, "template": {"metadata": {"labels": {"a": "b"}}}},
        }))
        .unwrap();
        let now: Timestamp = "2024-01-01T00:01:00Z".parse().unwrap();
        let pod = |since: &str, phase: &str, deleting: bool| -> Arc<Pod> {
            let at = deleting.then_some("2024-01-01T00:00:00Z");
            let value = json!({"metadata": {"labels": {"a": "b"}, "deletionTimestamp": at},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]}});
            Arc::new(serde_json::from_value(value).unwrap())
        };
        let pods = [
            pod("2024-01-01T00:00:00Z", "Running", false),
            pod("2024-01-01T00:00:55Z", "Running", false),
            pod("2024-01-01T00:00:00Z", "Failed", false),
            pod("2024-01-01T00:00:00Z", "Running", true),
        ];
        let error = Error::Invalid("no quota".to_owned());
        let found = status(&set, &pods, Some(&error), 2, now);
        assert_eq!(
            (found.replicas, found.ready_replicas, found.available_replicas),
            (2, Some(2), Some(1))
        );
        assert_eq!(
            (
                found.fully_labeled_replicas,
                found.terminating_replicas,
                found.observed_generation
            ),
            (Some(2), Some(1), Some(3))
        );
        let condition = &found.conditions.as_ref().unwrap()[0];
        assert_eq!(
            (condition.reason.as_deref(), condition.message.as_deref()),
            (Some("FailedCreate"), Some("no quota"))
        );
        let mut next = set.clone();
        next.status = Some(found);
        assert_eq!(status(&next, &pods, None, 4, now).conditions, None);
        let active: Vec<_> = pods[..2].to_vec();
        assert_eq!(next_availability(&active, 10, now), Next::After(Duration::from_secs(5)));
    }
}
