//! The pods that wait for a node.
//!
//! active: to be tried now, by priority, then by age · backoff: to be tried again at a time · unschedulable: until something happens that may
//! help (each remembers which filters stood in its way, and an event says which filters it may please) · gated: until the gates are gone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::info::PodInfo;

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A pod that no event helped is tried again after this time all the same.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Highest priority first, then first come, first served.
type Rank = (Reverse<i32>, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Active,
    Backoff(Instant),
    /// Refused by these filters.
    Unschedulable(u32, Instant),
    Gated,
    /// Being tried or bound.
    InFlight,
}

struct Entry {
    pod: Arc<PodInfo>,
    rank: Rank,
    attempts: u32,
    /// When the last attempt ended.
    tried: Option<Instant>,
    place: Place,
}

impl Entry {
    fn backoff_until(&self) -> Option<Instant> {
        if self.attempts == 0 {
            return None;
        }
        let factor = 1u32.checked_shl(self.attempts - 1).unwrap_or(u32::MAX);
        Some(self.tried? + FIRST_BACKOFF.saturating_mul(factor).min(LONGEST_BACKOFF))
    }
}

/// The queue.
#[derive(Default)]
pub struct Queue {
    entries: HashMap<String, Entry>,
    active: BTreeMap<Rank, String>,
    backoff: BTreeSet<(Instant, String)>,
    unschedulable: BTreeSet<(Instant, String)>,
    arrivals: u64,
}

impl Queue {
    /// A new pod, or a waiting one that changed. A change of what the pod asks for is worth another try.
    pub fn add(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let uid = pod.uid().to_owned();
        let gated = pod
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.scheduling_gates.as_ref())
            .is_some_and(|g| !g.is_empty());
        let Some(entry) = self.entries.get_mut(&uid) else {
            self.arrivals += 1;
            let rank = (Reverse(pod.priority()), self.arrivals);
            let place = if gated { Place::Gated } else { Place::Active };
            if !gated {
                self.active.insert(rank, uid.clone());
            }
            self.entries.insert(
                uid,
                Entry {
                    pod,
                    rank,
                    attempts: 0,
                    tried: None,
                    place,
                },
            );
            return;
        };
        let changed = entry.pod.pod.spec != pod.pod.spec || entry.pod.pod.metadata.labels != pod.pod.metadata.labels;
        entry.pod = pod;
        match entry.place {
            Place::Gated if !gated => self.activate(&uid, now),
            Place::Unschedulable(..) if changed => self.activate(&uid, now),
            _ => {}
        }
    }

    /// The pod is bound by someone, finished or gone.
    pub fn remove(&mut self, uid: &str) {
        if let Some(entry) = self.entries.remove(uid) {
            self.take_out(uid, entry.rank, entry.place);
        }
    }

    /// The next pod to be tried.
    pub fn pop(&mut self) -> Option<Arc<PodInfo>> {
        let (_, uid) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&uid)?;
        entry.place = Place::InFlight;
        entry.attempts += 1;
        Some(entry.pod.clone())
    }

    /// No node took it: it waits for an event that may please one of `filters`.
    pub fn unschedulable(&mut self, uid: &str, filters: u32, now: Instant) {
        self.rest(uid, now, Place::Unschedulable(filters, now));
        if self.entries.contains_key(uid) {
            self.unschedulable.insert((now, uid.to_owned()));
        }
    }

    /// A try failed for another reason (the API refused, the node went): tried again after the back-off.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        self.rest(uid, now, Place::InFlight);
        self.activate(uid, now);
    }

    fn rest(&mut self, uid: &str, now: Instant, place: Place) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.tried = Some(now);
            entry.place = place;
        }
    }

    /// Something happened that may please these filters.
    pub fn wake(&mut self, filters: u32, now: Instant) {
        let helped = |uid: &String| {
            let place = self.entries.get(uid).map(|e| e.place);
            matches!(place, Some(Place::Unschedulable(refused, _)) if refused & filters != 0)
        };
        let woken: Vec<String> = self
            .unschedulable
            .iter()
            .map(|(_, uid)| uid)
            .filter(|uid| helped(uid))
            .cloned()
            .collect();
        for uid in woken {
            self.activate(&uid, now);
        }
    }

    /// Moves what has waited long enough; says when to look again.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        while let Some((until, _)) = self.backoff.first() {
            if *until > now {
                break;
            }
            if let Some((_, uid)) = self.backoff.pop_first()
                && let Some(entry) = self.entries.get_mut(&uid)
            {
                entry.place = Place::Active;
                self.active.insert(entry.rank, uid);
            }
        }
        while let Some((since, uid)) = self.unschedulable.first() {
            if *since + LONGEST_WAIT > now {
                break;
            }
            let uid = uid.clone();
            self.activate(&uid, now);
        }
        let backoff = self.backoff.first().map(|(until, _)| *until);
        let wait = self.unschedulable.first().map(|(since, _)| *since + LONGEST_WAIT);
        backoff.into_iter().chain(wait).min()
    }

    /// Is there a pod to be tried?
    pub fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// The pod as last seen, if it is still waiting.
    pub fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.entries.get(uid).map(|e| &e.pod)
    }

    fn activate(&mut self, uid: &str, now: Instant) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let (rank, place) = (entry.rank, entry.place);
        let until = entry.backoff_until().filter(|until| *until > now);
        entry.place = until.map_or(Place::Active, Place::Backoff);
        self.take_out(uid, rank, place);
        match until {
            Some(until) => {
                self.backoff.insert((until, uid.to_owned()));
            }
            None => {
                self.active.insert(rank, uid.to_owned());
            }
        }
    }

    fn take_out(&mut self, uid: &str, rank: Rank, place: Place) {
        match place {
            Place::Active => {
                self.active.remove(&rank);
            }
            Place::Backoff(until) => {
                self.backoff.remove(&(until, uid.to_owned()));
            }
            Place::Unschedulable(_, since) => {
                self.unschedulable.remove(&(since, uid.to_owned()));
            }
            Place::Gated | Place::InFlight => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::filters::Filter;

    fn pod(uid: &str, priority: i32, gates: &[&str]) -> Arc<PodInfo> {
        let gates: Vec<_> = gates.iter().map(|name| json!({"name": name})).collect();
        let pod = json!({"metadata": {"uid": uid}, "spec": {"containers": [], "priority": priority, "schedulingGates": gates}});
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
    }

    fn pop(queue: &mut Queue) -> Option<String> {
        queue.pop().map(|p| p.uid().to_owned())
    }

    #[test]
    fn higher_priority_first_then_first_come() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (uid, priority) in [("a", 0), ("b", 5), ("c", 0)] {
            queue.add(pod(uid, priority, &[]), now);
        }
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue)).collect();
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[test]
    fn gated_pod_waits_for_its_gates_to_go() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0, &["g"]), now);
        assert_eq!(pop(&mut queue), None);
        queue.add(pod("a", 0, &[]), now);
        assert_eq!(pop(&mut queue), Some("a".to_owned()));
    }

    #[test]
    fn unschedulable_pod_is_woken_by_an_event_that_may_help_and_backs_off() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0, &[]), now);
        queue.pop();
        queue.unschedulable("a", Filter::NodeResourcesFit as u32, now);
        queue.wake(Filter::TaintToleration as u32, now);
        assert!(!queue.has_active());
        queue.wake(Filter::NodeResourcesFit as u32, now);
        assert!(!queue.has_active(), "backs off first");
        let next = queue.tick(now).unwrap();
        assert_eq!(next, now + FIRST_BACKOFF);
        queue.tick(next);
        assert_eq!(pop(&mut queue), Some("a".to_owned()));
        queue.unschedulable("a", Filter::NodeResourcesFit as u32, next);
        queue.wake(Filter::NodeResourcesFit as u32, next + Duration::from_secs(3));
        assert!(queue.has_active(), "the second back-off of 2 s is over");
        queue.remove("a");
        assert!(!queue.has_active());
    }

    #[test]
    fn pod_that_nothing_helped_is_tried_again_after_five_minutes() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0, &[]), now);
        queue.pop();
        queue.unschedulable("a", 0, now);
        assert_eq!(queue.tick(now), Some(now + LONGEST_WAIT));
        queue.tick(now + LONGEST_WAIT);
        assert!(queue.has_active());
    }
}
