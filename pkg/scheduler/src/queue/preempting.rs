//! Pods whose victims have not all been seen going. Such a pod is not tried: it would take others for the same room (upstream's gate of
//! pods that run a preemption).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::Queue;
use crate::pod::PodInfo;

/// Who waits for whose going, by uid.
#[derive(Default)]
pub struct Preempting {
    by_preemptor: HashMap<Arc<str>, Gate>,
    by_victim: HashMap<Arc<str>, HashSet<Arc<str>>>,
}

struct Gate {
    victims: HashSet<Arc<str>>,
    /// Something happened meanwhile that may help it.
    woken: bool,
}

impl Preempting {
    fn begin(&mut self, preemptor: &Arc<str>, victims: &[Arc<PodInfo>]) {
        self.forget(preemptor);
        if victims.is_empty() {
            return;
        }
        let victims: HashSet<Arc<str>> = victims.iter().map(|victim| victim.uid.clone()).collect();
        for victim in &victims {
            let preemptors = self.by_victim.entry(victim.clone()).or_default();
            preemptors.insert(preemptor.clone());
        }
        let gate = Gate { victims, woken: false };
        self.by_preemptor.insert(preemptor.clone(), gate);
    }

    /// Whether the pod is to be left alone; it is tried when it is not any more.
    pub(super) fn holds(&mut self, preemptor: &str) -> bool {
        let gate = self.by_preemptor.get_mut(preemptor);
        gate.map(|gate| gate.woken = true).is_some()
    }

    /// A pod is seen going; those whose last victim it was and that are to be tried.
    fn goes(&mut self, victim: &str) -> Vec<Arc<str>> {
        let preemptors = self.by_victim.remove(victim).unwrap_or_default();
        let mut open = |preemptor: &Arc<str>| {
            let gate = self.by_preemptor.get_mut(preemptor)?;
            gate.victims.remove(victim);
            if !gate.victims.is_empty() {
                return None;
            }
            Some(self.by_preemptor.remove(preemptor)?.woken)
        };
        let mut preemptors: Vec<_> = preemptors.into_iter().collect();
        preemptors.retain(|preemptor| open(preemptor) == Some(true));
        preemptors
    }

    /// Its victims are no matter any more.
    pub(super) fn forget(&mut self, preemptor: &str) {
        let gate = self.by_preemptor.remove(preemptor);
        for victim in gate.into_iter().flat_map(|gate| gate.victims) {
            if let Some(preemptors) = self.by_victim.get_mut(&victim) {
                preemptors.remove(preemptor);
                if preemptors.is_empty() {
                    self.by_victim.remove(&victim);
                }
            }
        }
    }
}

impl Queue {
    /// The pod, which has just been tried, is not tried again before these have been seen going.
    pub fn await_victims(&mut self, pod: &Arc<str>, victims: &[Arc<PodInfo>]) {
        self.preempting.begin(pod, victims);
    }

    /// Whatever it waited for to go, it may be tried.
    pub fn forget_victims(&mut self, uid: &str) {
        self.preempting.forget(uid);
    }

    /// A pod is seen going: who pushed it away may be tried when all of its victims are.
    pub fn victim_goes(&mut self, victim: &str, now: Instant) {
        for preemptor in self.preempting.goes(victim) {
            self.retry(&preemptor, now);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::cluster::Kins;

    fn pod(uid: &str, labels: serde_json::Value) -> Arc<PodInfo> {
        let pod = json!({"metadata": {"uid": uid, "labels": labels}, "spec": {"containers": []}});
        Arc::new(PodInfo::new(
            &serde_json::from_value(pod).unwrap(),
            &mut Kins::default(),
        ))
    }

    /// Each has been tried, and waits for its victims.
    fn preempting(all: &[(&str, &[&str])]) -> Queue {
        let mut queue = Queue::default();
        for (uid, victims) in all {
            let preemptor = pod(uid, json!({}));
            let victims: Vec<_> = victims.iter().map(|victim| pod(victim, json!({}))).collect();
            queue.add(preemptor.clone(), Instant::now());
            queue.pop().unwrap();
            queue.await_victims(&preemptor.uid, &victims);
            queue.unschedulable(uid, 1, Instant::now());
        }
        queue
    }

    #[test]
    fn nothing_has_it_tried_before_its_victims_go() {
        let now = Instant::now();
        let ways: [fn(&mut Queue, Instant); 3] = [
            |queue, now| queue.wake(|_, _| true, now),
            |queue, now| queue.retry("p", now),
            |queue, now| queue.add(pod("p", json!({"app": "other"})), now),
        ];
        for way in ways {
            let mut queue = preempting(&[("p", &["v", "w"])]);
            way(&mut queue, now);
            queue.victim_goes("v", now);
            assert!(!queue.has_next());
            queue.victim_goes("w", now);
            assert!(queue.has_next());
        }
        let mut queue = preempting(&[("p", &["v"])]);
        queue.victim_goes("v", now);
        assert!(!queue.has_next(), "nothing has helped it yet");
    }

    #[test]
    fn one_victim_is_of_all_who_chose_it() {
        let now = Instant::now();
        let mut queue = preempting(&[("p", &["v"]), ("q", &["v"])]);
        queue.wake(|_, _| true, now);
        queue.forget_victims("p");
        queue.remove("p");
        assert!(!queue.has_next());
        queue.victim_goes("v", now);
        assert!(queue.has_next(), "q is told, whatever became of p");
        assert!(queue.preempting.by_preemptor.is_empty() && queue.preempting.by_victim.is_empty());
    }
}
