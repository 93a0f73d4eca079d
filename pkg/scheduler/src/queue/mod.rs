//! The pods that wait for a node.
//!
//! active: to be tried now, by priority, then by age · backoff: to be tried again at a time · unschedulable: until something happens that may
//! help (each remembers which plugins stood in its way, and those say of an event whether it may) · gated: until the gates are gone.

mod backoff;
mod held;
mod preempting;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::backoff::Backoff;
use crate::pod::PodInfo;
use crate::profile::Rows;

/// A pod that no event helped is tried again after this time all the same.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Highest priority first, then first come, first served.
type Rank = (Reverse<i32>, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Active,
    Backoff(Instant),
    /// Refused by the plugins of these rows.
    Unschedulable(Rows, Instant),
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
    /// It ended by a failure, not by a refusal.
    failed: bool,
    /// It asks for something else since this try began.
    changed: bool,
    place: Place,
}

/// By the time until which they wait, or since.
type Waiting = BTreeSet<(Instant, Arc<str>)>;

/// The queue.
#[derive(Default)]
pub struct Queue {
    settings: Backoff,
    entries: HashMap<Arc<str>, Entry>,
    active: BTreeMap<Rank, Arc<str>>,
    /// Those that back off after a refusal, and those that do after a failure.
    refused: Waiting,
    failed: Waiting,
    unschedulable: Waiting,
    held: held::Held,
    preempting: preempting::Preempting,
    arrivals: u64,
}

/// Whether a waiting pod's change is one of what it asks for.
fn asks_otherwise(before: &PodInfo, now: &PodInfo) -> bool {
    let (was, is) = (before.wishes(), now.wishes());
    let wishes = was.tolerations != is.tolerations || was.claims != is.claims;
    before.kin != now.kin || before.requests != now.requests || wishes
}

impl Queue {
    /// An empty queue.
    pub fn new(settings: Backoff) -> Self {
        Queue {
            settings,
            ..Queue::default()
        }
    }

    /// A new pod, or a waiting one that changed. A change of what the pod asks for is worth another try.
    pub fn add(&mut self, pod: Arc<PodInfo>, now: Instant) {
        self.release(&pod.uid);
        let gated = !pod.wishes().gates.is_empty();
        self.put(pod, gated, now);
    }

    fn put(&mut self, pod: Arc<PodInfo>, gated: bool, now: Instant) {
        let uid = pod.uid.clone();
        let Some(entry) = self.entries.get_mut(&uid) else {
            let rank = self.rank(pod.priority);
            if !gated {
                self.active.insert(rank, uid.clone());
            }
            let entry = Entry {
                pod,
                rank,
                attempts: 0,
                tried: None,
                failed: false,
                changed: false,
                place: if gated { Place::Gated } else { Place::Active },
            };
            return drop(self.entries.insert(uid, entry));
        };
        let changed = asks_otherwise(&entry.pod, &pod);
        entry.pod = pod;
        entry.changed |= changed && entry.place == Place::InFlight;
        match entry.place {
            Place::Gated if !gated => self.activate(&uid, now),
            Place::Unschedulable(..) if changed && !gated => self.try_again(&uid, now),
            _ => {}
        }
    }

    fn rank(&mut self, priority: i32) -> Rank {
        self.arrivals += 1;
        (Reverse(priority), self.arrivals)
    }

    /// The pod is bound by someone, finished or gone.
    pub fn remove(&mut self, uid: &str) {
        self.release(uid);
        self.preempting.forget(uid);
        if let Some((uid, entry)) = self.entries.remove_entry(uid) {
            self.take_out(&uid, entry.rank, entry.place);
        }
    }

    /// The next pod to be tried. Where none is active, one that backs off after a refusal and was woken since: it would find
    /// nobody before it.
    pub fn pop(&mut self) -> Option<Arc<PodInfo>> {
        let uid = match self.active.pop_first() {
            Some((_, uid)) => uid,
            None => self.refused.pop_first()?.1,
        };
        let entry = self.entries.get_mut(&uid)?;
        entry.place = Place::InFlight;
        entry.attempts += 1;
        entry.changed = false;
        Some(entry.pod.clone())
    }

    /// No node took it: it waits for an event that may please one of the plugins of `rows`.
    pub fn unschedulable(&mut self, uid: &str, rows: Rows, now: Instant) {
        self.rest(uid, now, false);
        if let Some((uid, _)) = self.entries.get_key_value(uid) {
            self.unschedulable.insert((now, uid.clone()));
        }
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.place = Place::Unschedulable(rows, now);
        if entry.changed {
            self.try_again(uid, now);
        }
    }

    /// A try failed for another reason (the API refused, the node went): tried again after the back-off.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        self.preempting.forget(uid);
        self.rest(uid, now, true);
        self.activate(uid, now);
    }

    /// After a try it stands behind those of its priority that came meanwhile.
    fn rest(&mut self, uid: &str, now: Instant, failed: bool) {
        let Some(priority) = self.entries.get(uid).map(|entry| entry.pod.priority) else {
            return;
        };
        let rank = self.rank(priority);
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.tried = Some(now);
            entry.failed = failed;
            entry.rank = rank;
            entry.place = Place::InFlight;
        }
    }

    /// Does any pod wait for events?
    pub fn has_unschedulable(&self) -> bool {
        !self.unschedulable.is_empty()
    }

    /// Something happened that may help pods, as `helps` says of each and of the rows that refused it.
    pub fn wake(&mut self, mut helps: impl FnMut(&PodInfo, Rows) -> bool, now: Instant) {
        let mut helped = |uid: &Arc<str>| {
            let entry = self.entries.get(uid)?;
            let Place::Unschedulable(rows, _) = entry.place else {
                return None;
            };
            helps(&entry.pod, rows).then(|| uid.clone())
        };
        let woken: Vec<_> = self.unschedulable.iter().filter_map(|(_, uid)| helped(uid)).collect();
        for uid in woken {
            self.try_again(&uid, now);
        }
    }

    /// What refused a pod that waits for an event.
    pub fn refused_by(&self, uid: &str) -> Option<Rows> {
        match self.entries.get(uid)?.place {
            Place::Unschedulable(rows, _) => Some(rows),
            _ => None,
        }
    }

    /// It is to be tried again, whatever refused it.
    pub fn retry(&mut self, uid: &str, now: Instant) {
        let waits = self
            .entries
            .get(uid)
            .is_some_and(|entry| matches!(entry.place, Place::Unschedulable(..)));
        if waits {
            self.try_again(uid, now);
        }
    }

    /// Moves what has waited long enough; says when to look again.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        let is_due = |(until, _): &(Instant, Arc<str>)| *until <= now;
        for backing_off in [&mut self.refused, &mut self.failed] {
            while backing_off.first().is_some_and(is_due)
                && let Some((_, uid)) = backing_off.pop_first()
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
            self.preempting.forget(&uid);
            self.activate(&uid, now);
        }
        let backoff = [&self.refused, &self.failed].map(|waiting| Some(waiting.first()?.0));
        let wait = self.unschedulable.first().map(|(since, _)| *since + LONGEST_WAIT);
        backoff.into_iter().flatten().chain(wait).min()
    }

    /// Is there a pod to be tried?
    pub fn has_next(&self) -> bool {
        !self.active.is_empty() || !self.refused.is_empty()
    }

    /// The pod as last seen, if it is still waiting.
    pub fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.entries.get(uid).map(|e| &e.pod)
    }

    /// One that waits for an event, unless its victims are to go first.
    fn try_again(&mut self, uid: &str, now: Instant) {
        if !self.preempting.holds(uid) {
            self.activate(uid, now);
        }
    }

    fn activate(&mut self, uid: &str, now: Instant) {
        let Some((uid, _)) = self.entries.get_key_value(uid) else {
            return;
        };
        let uid = uid.clone();
        let Some(entry) = self.entries.get_mut(&uid) else {
            return;
        };
        let (rank, place, failed) = (entry.rank, entry.place, entry.failed);
        let until = self
            .settings
            .until(entry.attempts, entry.tried)
            .filter(|until| *until > now);
        entry.place = until.map_or(Place::Active, Place::Backoff);
        self.take_out(&uid, rank, place);
        match until {
            Some(until) => {
                self.backing_off(failed).insert((until, uid));
            }
            None => {
                self.active.insert(rank, uid);
            }
        }
    }

    fn backing_off(&mut self, failed: bool) -> &mut Waiting {
        match failed {
            true => &mut self.failed,
            false => &mut self.refused,
        }
    }

    fn take_out(&mut self, uid: &Arc<str>, rank: Rank, place: Place) {
        match place {
            Place::Active => {
                self.active.remove(&rank);
            }
            Place::Backoff(until) => {
                // Which of both it is in nobody knows who has its entry no more.
                let waits = (until, uid.clone());
                let _ = self.refused.remove(&waits) || self.failed.remove(&waits);
            }
            Place::Unschedulable(_, since) => {
                self.unschedulable.remove(&(since, uid.clone()));
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
    use crate::cluster::Kins;

    const FIT: Rows = 1;
    const TAINTS: Rows = 2;

    fn pod(uid: &str, priority: i32, gates: &[&str]) -> Arc<PodInfo> {
        let gates: Vec<_> = gates.iter().map(|name| json!({"name": name})).collect();
        let pod = json!({"metadata": {"uid": uid}, "spec": {"containers": [], "priority": priority, "schedulingGates": gates}});
        let pod = serde_json::from_value(pod).unwrap();
        Arc::new(PodInfo::new(&pod, &mut Kins::default()))
    }

    fn pop(queue: &mut Queue) -> Option<String> {
        queue.pop().map(|pod| pod.uid.to_string())
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
    fn unschedulable_pod_is_woken_by_an_event_that_may_help_and_backs_off_behind_others() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0, &[]), now);
        queue.pop();
        queue.unschedulable("a", FIT, now);
        queue.wake(|_, rows| rows & TAINTS != 0, now);
        assert!(!queue.has_next());
        queue.wake(|_, rows| rows & FIT != 0, now);
        queue.add(pod("b", 0, &[]), now);
        assert_eq!(pop(&mut queue), Some("b".to_owned()), "a backs off");
        let next = queue.tick(now).unwrap();
        assert_eq!(next, now + Backoff::default().first);
        // With nobody else to try it need not wait.
        assert_eq!(pop(&mut queue), Some("a".to_owned()));
        queue.unschedulable("a", FIT, next);
        queue.wake(|_, _| true, next + Duration::from_secs(3));
        queue.add(pod("c", 0, &[]), next);
        assert_eq!(
            pop(&mut queue),
            Some("a".to_owned()),
            "the second back-off of 2 s is over"
        );
        queue.remove("c");
        assert!(!queue.has_next());
    }

    #[test]
    fn a_try_that_failed_backs_off_though_nobody_else_waits() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0, &[]), now);
        queue.pop();
        queue.failed("a", now);
        assert!(!queue.has_next() && pop(&mut queue).is_none());
        queue.tick(now + Backoff::default().first);
        assert_eq!(pop(&mut queue), Some("a".to_owned()));
    }

    #[test]
    fn pod_that_nothing_helped_is_tried_again_after_five_minutes() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0, &[]), now);
        queue.pop();
        queue.unschedulable("a", 0, now);
        assert_eq!(queue.tick(now), Some(now + LONGEST_WAIT));
        queue.tick(now + LONGEST_WAIT);
        assert!(queue.has_next());
    }

    #[test]
    fn one_that_asks_otherwise_is_tried_again() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0, &[]), now);
        queue.pop();
        queue.unschedulable("a", 0, now);
        queue.add(pod("a", 0, &[]), now);
        assert!(!queue.has_next());
        let tolerant =
            json!({"metadata": {"uid": "a"}, "spec": {"containers": [], "tolerations": [{"operator": "Exists"}]}});
        let tolerant = PodInfo::new(&serde_json::from_value(tolerant).unwrap(), &mut Kins::default());
        queue.add(Arc::new(tolerant), now);
        assert!(queue.has_next());
    }
}
