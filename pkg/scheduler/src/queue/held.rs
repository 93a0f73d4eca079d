//! Pods that are of no use to try yet, as a plugin says of them (upstream's PreEnqueue): they wait with those that have gates.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::Queue;
use crate::pod::{ClaimName, PodInfo};

type ByName = HashMap<Box<str>, HashSet<Arc<str>>>;

/// Their uids.
#[derive(Default)]
pub struct Held {
    all: HashSet<Arc<str>>,
    /// Those that name a claim which anyone may have made, by its namespace and name.
    by_claim: HashMap<Box<str>, ByName>,
}

/// The claims that a pod names which were not made for it.
fn named(pod: &PodInfo) -> impl Iterator<Item = &str> {
    let all = pod.wishes().claims.iter();
    all.filter_map(|own| match &own.claim {
        ClaimName::Given(name) => Some(&**name),
        _ => None,
    })
}

impl Held {
    fn insert(&mut self, pod: &PodInfo) {
        self.all.insert(pod.uid.clone());
        for name in named(pod) {
            let of_namespace = self.by_claim.entry(pod.namespace().into()).or_default();
            of_namespace.entry(name.into()).or_default().insert(pod.uid.clone());
        }
    }

    /// `pod` as it was when it was held.
    pub(super) fn remove(&mut self, pod: &PodInfo) {
        if !self.all.remove(&pod.uid) {
            return;
        }
        let Some(of_namespace) = self.by_claim.get_mut(pod.namespace()) else {
            return;
        };
        for name in named(pod) {
            if let Some(uids) = of_namespace.get_mut(name) {
                uids.remove(&pod.uid);
                if uids.is_empty() {
                    of_namespace.remove(name);
                }
            }
        }
        if of_namespace.is_empty() {
            self.by_claim.remove(pod.namespace());
        }
    }
}

impl Queue {
    /// A new pod, or a waiting one that changed, that is not to be tried before it is added again.
    pub fn hold(&mut self, pod: Arc<PodInfo>, now: Instant) {
        self.release(&pod.uid);
        self.held.insert(&pod);
        self.put(pod, true, now);
    }

    /// It is held no more.
    pub(super) fn release(&mut self, uid: &str) {
        if let Some(entry) = self.entries.get(uid) {
            self.held.remove(&entry.pod);
        }
    }

    /// Those that are held and name a claim, if it was not made for them.
    pub fn held_by(&self, namespace: &str, claim: &str) -> impl Iterator<Item = &Arc<PodInfo>> {
        let of_namespace = self.held.by_claim.get(namespace);
        let uids = of_namespace.and_then(|claims| claims.get(claim));
        uids.into_iter().flatten().filter_map(|uid| self.get(uid))
    }

    /// One of them, by its uid.
    pub fn held_one(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.get(self.held.all.get(uid)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::cluster::Kins;

    fn pod(uid: &str, gates: &[&str]) -> Arc<PodInfo> {
        naming(uid, gates, &[])
    }

    fn naming(uid: &str, gates: &[&str], claims: &[&str]) -> Arc<PodInfo> {
        let gates: Vec<_> = gates.iter().map(|name| json!({"name": name})).collect();
        let claims: Vec<_> = claims
            .iter()
            .map(|name| json!({"name": name, "resourceClaimName": name}))
            .collect();
        let pod = json!({"metadata": {"namespace": "d", "uid": uid},
            "spec": {"containers": [], "schedulingGates": gates, "resourceClaims": claims}});
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
        assert!(!queue.has_next() && queue.held.all.len() == 2 && queue.held_one("a").is_some());
        for (uid, gates) in [("a", &[][..]), ("b", &gated)] {
            queue.add(pod(uid, gates), now);
        }
        assert!(queue.held.all.is_empty() && queue.held_one("a").is_none());
        assert_eq!(queue.pop().map(|pod| pod.uid.to_string()), Some("a".to_owned()));
        assert!(queue.pop().is_none(), "its gate holds it");
        queue.hold(pod("c", &[]), now);
        queue.remove("c");
        assert!(queue.held.all.is_empty());
    }

    #[test]
    fn those_are_found_that_a_claim_holds() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let found = |queue: &Queue, claim: &str| {
            let mut found: Vec<_> = queue.held_by("d", claim).map(|pod| pod.uid.to_string()).collect();
            found.sort();
            found.join(" ")
        };
        queue.hold(naming("p", &[], &["a", "b"]), now);
        queue.hold(naming("q", &[], &["a"]), now);
        assert_eq!(["a", "b", "c"].map(|claim| found(&queue, claim)), ["p q", "p", ""]);
        assert_eq!(queue.held_by("e", "a").count(), 0);
        queue.hold(naming("p", &[], &["c"]), now);
        assert_eq!(["a", "b", "c"].map(|claim| found(&queue, claim)), ["q", "", "p"]);
        queue.add(naming("p", &[], &["b"]), now);
        queue.remove("q");
        assert!(queue.held.all.is_empty() && queue.held.by_claim.is_empty());
    }
}
