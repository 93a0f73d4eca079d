//! What is to be done about the pods of a StatefulSet, and the status that they amount to. Pure.
//!
//! Ordered sets go one step at a time: a pod is made when all before it are available, one goes when all after it are gone. Parallel sets
//! make and scale away all at once; both replace pods of an old revision one by one, from the last.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{claims, identity};
use crate::meta::{self, nonzero, to_i32};
use crate::{pod, replicas};

/// A pod and its ordinal.
type Placed = (i32, Arc<Pod>);

/// A set as it was found.
pub(super) struct View<'a> {
    pub set: &'a StatefulSet,
    /// The name of the revision that pods had before the present rollout.
    pub current: &'a str,
    /// The name of the present template's revision.
    pub update: &'a str,
    /// The set's own.
    pub pods: &'a [Arc<Pod>],
    /// The metadata of a claim of the namespace.
    pub claim: &'a (dyn Fn(&str) -> Option<ObjectMeta> + Sync),
    pub now: Timestamp,
}

#[derive(Debug)]
pub(super) enum Step {
    /// Make the pod with this ordinal, of the current revision or of the update.
    Create { ordinal: i32, current: bool },
    /// Delete a pod that has ended, so that it is made again.
    Replace { ordinal: i32, pod: Arc<Pod> },
    /// Give a pod what its name says that it has: its claims, their owners, its labels.
    Tend { ordinal: i32, pod: Arc<Pod> },
    /// Delete a pod that is not wanted, or is of an old revision.
    Delete(Arc<Pod>),
}

/// Each phase to its end before the next; where one step fails, no further phase.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub phases: Vec<Vec<Step>>,
    /// Pods of the current revision that this plan takes away.
    pub outdated: i32,
}

/// Is the set one whose pods need not wait for each other?
pub(super) fn is_parallel(set: &StatefulSet) -> bool {
    let policy = set.spec.as_ref().and_then(|spec| spec.pod_management_policy.as_deref());
    policy == Some("Parallel")
}

fn strategy(spec: &StatefulSetSpec) -> &str {
    let strategy = spec
        .update_strategy
        .as_ref()
        .and_then(|strategy| strategy.type_.as_deref());
    strategy.unwrap_or("RollingUpdate")
}

/// How many pods from the first the present rollout leaves alone.
fn partition(spec: &StatefulSetSpec) -> Option<i32> {
    let rolling = spec.update_strategy.as_ref()?.rolling_update.as_ref()?;
    Some(rolling.partition.unwrap_or(0))
}

pub(super) fn min_ready(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

fn runs(pod: &Pod) -> bool {
    pod::phase(pod) == "Running" && pod::is_ready(pod)
}

impl View<'_> {
    pub(super) fn plan(&self) -> Plan {
        let mut plan = Plan::default();
        let Some(spec) = &self.set.spec else { return plan };
        let ordered = !is_parallel(self.set);
        let (wanted, condemned) = self.sorted();
        let (steps, stopped) = self.fill(spec, &wanted, ordered);
        plan.phases.push(steps);
        if stopped {
            return plan;
        }
        let owners = condemned
            .iter()
            .filter(|(ordinal, pod)| self.owners_change(pod, *ordinal));
        plan.phases
            .push(owners.map(|(ordinal, pod)| tend(*ordinal, pod)).collect());
        let (steps, stopped) = self.shrink(&wanted, &condemned, ordered);
        plan.phases.push(steps);
        if stopped || strategy(spec) == "OnDelete" {
            return plan;
        }
        if let Some(outdated) = self.outdated(spec, &wanted) {
            plan.outdated = i32::from(identity::revision(&outdated) == self.current);
            plan.phases.push(vec![Step::Delete(outdated)]);
        }
        plan
    }

    /// By ordinal: those that are wanted, and those that have to go, the last first.
    fn sorted(&self) -> (BTreeMap<i32, Arc<Pod>>, Vec<Placed>) {
        let (mut wanted, mut condemned) = (BTreeMap::new(), Vec::new());
        for pod in self.pods {
            match identity::ordinal(self.set, pod) {
                Some(ordinal) if identity::in_range(self.set, ordinal) => {
                    wanted.insert(ordinal, pod.clone());
                }
                Some(ordinal) => condemned.push((ordinal, pod.clone())),
                None => {}
            }
        }
        condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
        (wanted, condemned)
    }

    /// Those that are wanted, after so many that are left out. None is larger than what the API knows.
    fn ordinals(&self, left_out: i32) -> impl DoubleEndedIterator<Item = i32> + use<> {
        let first = i64::from(identity::start(self.set));
        let end = first + i64::from(identity::wanted(self.set));
        let ordinals = first + i64::from(left_out)..end;
        ordinals.filter_map(|ordinal| i32::try_from(ordinal).ok())
    }

    /// The pods that are wanted; true where nothing else may be done before what is asked for here has come about.
    fn fill(&self, spec: &StatefulSetSpec, wanted: &BTreeMap<i32, Arc<Pod>>, ordered: bool) -> (Vec<Step>, bool) {
        let mut steps = Vec::new();
        let mut made = 0;
        for ordinal in self.ordinals(0) {
            let Some(pod) = wanted.get(&ordinal) else {
                let current = partition(spec).is_some_and(|partition| {
                    i64::from(ordinal) < i64::from(identity::start(self.set)) + i64::from(partition)
                });
                if !self.waits_for_claims(ordinal) {
                    steps.push(Step::Create { ordinal, current });
                    made += 1;
                }
                if ordered || made >= replicas::BURST {
                    return (steps, true);
                }
                continue;
            };
            if pod::is_terminal(pod) {
                if !meta::deleting(&**pod) {
                    let pod = pod.clone();
                    steps.push(Step::Replace { ordinal, pod });
                }
                if ordered {
                    return (steps, true);
                }
                continue;
            }
            let waits = ordered && (meta::deleting(&**pod) || !runs(pod) || !self.is_available(pod));
            let lacks_claims = pod::phase(pod) == "Pending" && self.lacks_claims(ordinal);
            let mended = || identity::mended(self.set, pod, ordinal).is_some();
            if lacks_claims || self.owners_change(pod, ordinal) || (!waits && mended()) {
                steps.push(tend(ordinal, pod));
            }
            if waits {
                return (steps, true);
            }
        }
        (steps, false)
    }

    fn shrink(&self, wanted: &BTreeMap<i32, Arc<Pod>>, condemned: &[Placed], ordered: bool) -> (Vec<Step>, bool) {
        if !ordered {
            let leaving = condemned.iter().filter(|(_, pod)| !meta::deleting(&**pod));
            return (leaving.map(|(_, pod)| Step::Delete(pod.clone())).collect(), false);
        }
        let Some((_, last)) = condemned.first() else {
            return (Vec::new(), false);
        };
        // One that is unwell may go only if all before it are well: it is waited for otherwise.
        let before = wanted.values().chain(condemned.iter().rev().map(|(_, pod)| pod));
        let unwell = before
            .into_iter()
            .find(|pod| meta::deleting(&***pod) || !self.is_available(pod));
        let well = runs(last) && self.is_available(last);
        let first_unwell = unwell.is_some_and(|pod| meta::uid(&**pod) == meta::uid(&**last));
        if meta::deleting(&**last) || !(well || first_unwell) {
            return (Vec::new(), true);
        }
        (vec![Step::Delete(last.clone())], true)
    }

    /// The pod to be replaced by one of the present revision; none while one after it is not there yet.
    fn outdated(&self, spec: &StatefulSetSpec, wanted: &BTreeMap<i32, Arc<Pod>>) -> Option<Arc<Pod>> {
        for ordinal in self.ordinals(partition(spec).unwrap_or(0)).rev() {
            let pod = wanted.get(&ordinal)?;
            // One that has ended is replaced as it is.
            if meta::deleting(&**pod) || pod::is_terminal(pod) {
                return None;
            }
            if identity::revision(pod) != self.update {
                return Some(pod.clone());
            }
            if !self.is_available(pod) {
                return None;
            }
        }
        None
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod::is_available(pod, min_ready(self.set), self.now)
    }

    fn waits_for_claims(&self, ordinal: i32) -> bool {
        let pod = identity::name(self.set, ordinal);
        self.claims(ordinal)
            .flatten()
            .any(|claim| claims::is_stale(&claim, self.set, &pod))
    }

    fn lacks_claims(&self, ordinal: i32) -> bool {
        self.claims(ordinal)
            .any(|claim| claim.is_none_or(|claim| claim.deletion_timestamp.is_some()))
    }

    fn owners_change(&self, pod: &Pod, ordinal: i32) -> bool {
        let mut claims = self.claims(ordinal).flatten();
        claims.any(|claim| claims::changed(&claim, self.set, pod, ordinal).is_some())
    }

    fn claims(&self, ordinal: i32) -> impl Iterator<Item = Option<ObjectMeta>> {
        claims::of(self.set, ordinal).map(|(_, name)| (self.claim)(&name))
    }

    /// The status that the pods amount to, less those of the current revision that are being taken away.
    pub(super) fn status(&self, outdated: i32, collisions: Option<i32>) -> StatefulSetStatus {
        let min_ready = min_ready(self.set);
        let count = |keep: &dyn Fn(&Pod) -> bool| to_i32(self.pods.iter().filter(|p| keep(p)).count());
        let of = |revision: &str| count(&|p| !meta::deleting(p) && identity::revision(p) == revision);
        let replicas = to_i32(self.pods.len());
        let ready = count(&runs);
        let updated = of(self.update);
        let mut current = (self.current, of(self.current) - outdated);
        let wanted = identity::wanted(self.set);
        let rolling = self
            .set
            .spec
            .as_ref()
            .is_some_and(|spec| strategy(spec) == "RollingUpdate");
        if rolling && [updated, ready, replicas] == [wanted; 3] {
            current = (self.update, updated);
        }
        let name = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        StatefulSetStatus {
            replicas,
            ready_replicas: nonzero(ready),
            available_replicas: Some(count(&|p| runs(p) && pod::is_available(p, min_ready, self.now))),
            current_replicas: nonzero(current.1),
            updated_replicas: nonzero(updated),
            current_revision: name(current.0),
            update_revision: name(self.update),
            collision_count: collisions,
            observed_generation: self.set.metadata.generation,
            conditions: self.set.status.as_ref().and_then(|status| status.conditions.clone()),
        }
    }
}

fn tend(ordinal: i32, pod: &Arc<Pod>) -> Step {
    let pod = pod.clone();
    Step::Tend { ordinal, pod }
}
