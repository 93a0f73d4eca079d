//! Pods that are of no use to try yet, as a plugin says of them (upstream's PreEnqueue): they wait with those that have gates.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::Queue;
use crate::pod::PodInfo;

/// Their uids.
pub type Held = HashSet<Arc<str>>;

impl Queue {
    /// A new pod, or a waiting one that changed, that is not to be tried before it is added again.
    pub fn hold(&mut self, pod: Arc<PodInfo>, now: Instant) {
        self.held.insert(pod.uid.clone());
        self.put(pod, true, now);
    }

    /// Those that are held.
    pub fn held(&self) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.held.iter().filter_map(|uid| self.get(uid))
    }

    /// One of them, by its uid.
    pub fn held_one(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.get(self.held.get(uid)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::cluster::Kins;

    fn pod(uid: &str, gates: &[&str]) -> Arc<PodInfo> {
        let gates: Vec<_> = gates.iter().map(|name| json!({"name": name})).collect();
        let pod = json!({"metadata": {"uid": uid}, "spec": {"containers": [], "schedulingGates": gates}});
        Arc::new(PodInfo::new(
            &serde_json::from_value(pod).unwrap(),
            &mut Kins::default(),
        ))
    }

    #[test]
    fn a_pod_that_is_held_waits_until_it_is_added_again() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let gated = ["g"];
        for (uid, gates) in [("a", &[][..]), ("b", &gated)] {
            queue.hold(pod(uid, gates), now);
            queue.hold(pod(uid, gates), now);
        }
        queue.wake(|_, _| true, now);
        queue.retry("a", now);
        assert!(!queue.has_next() && queue.held().count() == 2 && queue.held_one("a").is_some());
        for (uid, gates) in [("a", &[][..]), ("b", &gated)] {
            queue.add(pod(uid, gates), now);
        }
        assert!(queue.held().count() == 0 && queue.held_one("a").is_none());
        assert_eq!(queue.pop().map(|pod| pod.uid.to_string()), Some("a".to_owned()));
        assert!(queue.pop().is_none(), "its gate holds it");
        queue.hold(pod("c", &[]), now);
        queue.remove("c");
        assert_eq!(queue.held().count(), 0);
    }
}
