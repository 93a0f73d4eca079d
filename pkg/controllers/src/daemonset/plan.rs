//! What is to be done about the pods of a DaemonSet, and the status that they amount to. Pure.
//!
//! First one pod for each node that should have one, and none elsewhere ([`Daemons::manage`]); where that is so, pods of an old revision
//! are replaced ([`Daemons::roll`]): deleted, as many at a time as may be unavailable, or joined by a new one first, as many as may surge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::place::{self, Fit};
use crate::meta::{self, nonzero, to_i32};
use crate::pod;

/// A DaemonSet as it was found.
pub(super) struct Daemons<'a> {
    pub set: &'a DaemonSet,
    /// The hash of the present revision.
    pub hash: &'a str,
    /// What each node means to it.
    pub nodes: BTreeMap<String, Fit>,
    /// Its pods, by the node that they are on or were made for.
    pub pods: BTreeMap<String, Vec<Arc<Pod>>>,
    pub now: Timestamp,
}

/// Why a pod is deleted, where that is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Failed,
    Succeeded,
    Other,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The nodes that get a pod.
    pub create: Vec<String>,
    pub delete: Vec<(Arc<Pod>, Why)>,
    /// When a pod goes that has to stay yet.
    pub next: Option<Duration>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }

    fn delete(&mut self, pod: &Arc<Pod>) {
        self.delete.push((pod.clone(), Why::Other));
    }
}

/// Groups the pods by their nodes, the one that counts first: what is on its node, then what was made first. Of those that have ended and
/// are being deleted there is nothing to do.
pub(super) fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut nodes: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods
        .iter()
        .filter(|pod| !(pod::is_terminal(pod) && meta::deleting(&***pod)))
    {
        if let Some(node) = place::node_of(pod) {
            nodes.entry(node.to_owned()).or_default().push(pod.clone());
        }
    }
    for pods in nodes.values_mut() {
        pods.sort_by_key(|pod| {
            (
                pod::node(pod).is_empty(),
                meta::created(&**pod),
                meta::name(&**pod).to_owned(),
            )
        });
    }
    nodes
}

impl Daemons<'_> {
    fn fit(&self, node: &str) -> Fit {
        self.nodes.get(node).copied().unwrap_or(Fit::No)
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        place::is_updated(pod, self.hash, place::template_generation(self.set))
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod::is_available(pod, self.min_ready(), self.now)
    }

    pub(super) fn min_ready(&self) -> i32 {
        self.set
            .spec
            .as_ref()
            .and_then(|spec| spec.min_ready_seconds)
            .unwrap_or(0)
    }

    /// None where pods are replaced only when somebody deletes them.
    fn rolling(&self) -> Option<RollingUpdateDaemonSet> {
        let strategy = self.set.spec.as_ref()?.update_strategy.as_ref();
        let type_ = strategy.and_then(|strategy| strategy.type_.as_deref());
        let rolls = type_.is_none_or(|type_| type_ == "RollingUpdate");
        rolls.then(|| {
            strategy
                .and_then(|strategy| strategy.rolling_update.clone())
                .unwrap_or_default()
        })
    }

    fn surges(&self) -> bool {
        self.rolling()
            .is_some_and(|rolling| share(rolling.max_surge.as_ref(), 1) > 0)
    }

    /// One pod for each node that should have one. `wait`: how long a failed pod stays yet.
    pub(super) fn manage(&self, wait: impl Fn(&str, &Pod) -> Option<Duration>) -> Plan {
        let mut plan = Plan::default();
        let surges = self.surges();
        for (node, fit) in &self.nodes {
            let pods = self.pods.get(node);
            match (fit, pods) {
                (Fit::Runs, None) => plan.create.push(node.clone()),
                (_, None) => {}
                (Fit::No, Some(pods)) => {
                    pods.iter()
                        .filter(|pod| !meta::deleting(&***pod))
                        .for_each(|pod| plan.delete(pod));
                }
                (Fit::Runs | Fit::Stays, Some(pods)) => {
                    let (running, held) = self.without_ended(pods, &mut plan, |pod| wait(node, pod));
                    if !surges {
                        running.iter().skip(1).for_each(|pod| plan.delete(pod));
                    } else if running.is_empty() && !held && *fit == Fit::Runs {
                        plan.create.push(node.clone());
                    } else if running.len() > 1 {
                        self.reduce(&running, &mut plan);
                    }
                }
            }
        }
        // Nobody else deletes what waits for a node that is gone.
        let lost = self.pods.iter().filter(|(node, _)| !self.nodes.contains_key(*node));
        for pod in lost.flat_map(|(_, pods)| pods) {
            if pod::node(pod).is_empty() && !meta::deleting(&**pod) {
                plan.delete(pod);
            }
        }
        plan
    }

    /// The pods that run or will; whether one that failed stays yet.
    fn without_ended(
        &self,
        pods: &[Arc<Pod>],
        plan: &mut Plan,
        wait: impl Fn(&Pod) -> Option<Duration>,
    ) -> (Vec<Arc<Pod>>, bool) {
        let (mut running, mut held) = (Vec::new(), false);
        for pod in pods.iter().filter(|pod| !meta::deleting(&***pod)) {
            match pod::phase(pod) {
                "Failed" => match wait(pod) {
                    Some(left) => {
                        plan.next = Some(plan.next.map_or(left, |next| next.min(left)));
                        held = true;
                    }
                    None => plan.delete.push((pod.clone(), Why::Failed)),
                },
                "Succeeded" => plan.delete.push((pod.clone(), Why::Succeeded)),
                _ => running.push(pod.clone()),
            }
        }
        (running, held)
    }

    /// Two may be on a node while the old one is ready and the new one not yet available.
    fn reduce(&self, running: &[Arc<Pod>], plan: &mut Plan) {
        let of_hash = |pod: &Pod| {
            meta::labels(pod)
                .get(place::HASH_LABEL)
                .is_some_and(|hash| hash == self.hash)
        };
        let new = running.iter().find(|pod| of_hash(pod));
        let old = running.iter().find(|pod| !of_hash(pod));
        let kept = |pod: &Arc<Pod>| [new, old].into_iter().flatten().any(|kept| Arc::ptr_eq(kept, pod));
        running.iter().filter(|pod| !kept(pod)).for_each(|pod| plan.delete(pod));
        if let (Some(new), Some(old)) = (new, old)
            && (!pod::is_ready(old) || self.is_available(new))
        {
            plan.delete(old);
        }
    }

    /// Replaces pods of old revisions.
    pub(super) fn roll(&self) -> Plan {
        let Some(rolling) = self.rolling() else {
            return Plan::default();
        };
        let desired = self.nodes.values().filter(|fit| **fit == Fit::Runs).count();
        let surge = share(rolling.max_surge.as_ref(), desired);
        let mut unavailable = share(rolling.max_unavailable.as_ref(), desired);
        if surge > 0 {
            return self.roll_by_surge(surge, desired);
        }
        if unavailable == 0 {
            unavailable = 1;
        }
        self.roll_by_deletion(unavailable)
    }

    /// The new and the old pod of a node; none where there are several of one kind, which [`Daemons::manage`] ends.
    fn new_and_old(&self, pods: &[Arc<Pod>]) -> Option<[Option<Arc<Pod>>; 2]> {
        let (mut new, mut old) = (None, None);
        for pod in pods.iter().filter(|pod| !meta::deleting(&***pod)) {
            let place = if self.is_updated(pod) { &mut new } else { &mut old };
            if place.replace(pod.clone()).is_some() {
                return None;
            }
        }
        Some([new, old])
    }

    /// The nodes that have pods, or should.
    fn concerned(&self) -> impl Iterator<Item = (&String, &[Arc<Pod>])> {
        let missing = self
            .nodes
            .iter()
            .filter(|(node, fit)| **fit == Fit::Runs && !self.pods.contains_key(*node));
        let missing = missing.map(|(node, _)| (node, &[][..]));
        self.pods
            .iter()
            .map(|(node, pods)| (node, pods.as_slice()))
            .chain(missing)
    }

    fn roll_by_deletion(&self, most: usize) -> Plan {
        let (mut plan, mut unavailable, mut candidates) = (Plan::default(), 0, Vec::new());
        for (_, pods) in self.concerned() {
            match self.new_and_old(pods) {
                // Somebody is on the way, or leaves.
                None | Some([None, None] | [Some(_), Some(_)]) => unavailable += 1,
                Some([Some(new), None]) => unavailable += usize::from(!self.is_available(&new)),
                Some([None, Some(old)]) if !self.is_available(&old) => {
                    unavailable += 1;
                    plan.delete(&old);
                }
                Some([None, Some(old)]) => candidates.push(old),
            }
        }
        let room = most.saturating_sub(unavailable);
        candidates.iter().take(room).for_each(|old| plan.delete(old));
        plan
    }

    fn roll_by_surge(&self, most: usize, desired: usize) -> Plan {
        let mut plan = Plan::default();
        let (mut surging, mut available) = (0, 0);
        let (mut candidates, mut misplaced) = (Vec::new(), Vec::new());
        for (node, pods) in self.concerned() {
            let Some([new, old]) = self.new_and_old(pods) else {
                surging += 1;
                continue;
            };
            let counts = old.as_ref().or(new.as_ref()).is_some_and(|pod| self.is_available(pod));
            available += usize::from(counts);
            match (new, old) {
                (_, None) => {}
                (Some(new), Some(_)) if !self.is_available(&new) => surging += 1,
                (Some(_), Some(old)) => plan.delete(&old),
                (None, Some(old)) => match (self.fit(node) == Fit::Runs, counts) {
                    (true, true) => candidates.push(node.clone()),
                    (true, false) => plan.create.push(node.clone()),
                    (false, true) => misplaced.push(old),
                    (false, false) => plan.delete(&old),
                },
            }
        }
        // Who surges is never fewer than wanted: one goes from where it should not be when there is another elsewhere.
        let spare = available.saturating_sub(desired);
        misplaced.iter().take(spare).for_each(|old| plan.delete(old));
        plan.create
            .extend(candidates.into_iter().take(most.saturating_sub(surging)));
        plan
    }

    pub(super) fn status(&self, collisions: Option<i32>) -> DaemonSetStatus {
        let (mut desired, mut current, mut misplaced) = (0, 0, 0);
        let (mut ready, mut updated, mut available) = (0, 0, 0);
        for (node, fit) in &self.nodes {
            let first = self.pods.get(node).and_then(|pods| pods.first());
            if *fit != Fit::Runs {
                misplaced += usize::from(first.is_some());
                continue;
            }
            desired += 1;
            let Some(pod) = first else { continue };
            current += 1;
            ready += usize::from(pod::is_ready(pod));
            available += usize::from(self.is_available(pod));
            updated += usize::from(self.is_updated(pod));
        }
        DaemonSetStatus {
            current_number_scheduled: to_i32(current),
            number_misscheduled: to_i32(misplaced),
            desired_number_scheduled: to_i32(desired),
            number_ready: to_i32(ready),
            observed_generation: self.set.metadata.generation,
            updated_number_scheduled: nonzero(to_i32(updated)),
            number_available: nonzero(to_i32(available)),
            number_unavailable: nonzero(to_i32(desired - available)),
            collision_count: collisions,
            conditions: self.set.status.as_ref().and_then(|status| status.conditions.clone()),
        }
    }
}

/// A number, or its share of all in percent, rounded up.
fn share(part: Option<&IntOrString>, all: usize) -> usize {
    match part {
        Some(IntOrString::Int(count)) => usize::try_from(*count).unwrap_or(0),
        Some(IntOrString::String(text)) => {
            let percent = text.strip_suffix('%').and_then(|percent| percent.parse::<usize>().ok());
            percent.map_or(0, |percent| all.saturating_mul(percent).div_ceil(100))
        }
        None => 0,
    }
}
