//! How soon a pod that failed is deleted so that the next one takes its place. A node may turn each of them away at once, and pods
//! that are made one by one would come and go without end. The first goes at once, the next after a second, then twice as long.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::meta::{self, Key};

const FIRST: Duration = Duration::from_secs(1);

/// What is remembered of the failures of each set's pods.
pub struct FailedPods {
    longest: Duration,
    sets: Mutex<HashMap<Key, OfSet>>,
}

#[derive(Default)]
struct OfSet {
    uid: String,
    generation: i64,
    /// By the place that the pods have in the set: their ordinal, their node.
    places: HashMap<String, Place>,
}

struct Place {
    pause: Duration,
    since: Instant,
    /// The uid of the pod that was let go last.
    pod: String,
}

impl FailedPods {
    /// With this pause at most.
    pub fn new(longest: Duration) -> Self {
        FailedPods {
            longest,
            sets: Mutex::default(),
        }
    }

    /// How long the failed pod stays yet; none: it goes now. A set that was changed begins anew: it may have been mended.
    pub fn wait<S: kube::Resource>(&self, set: &S, place: &str, failed: &Pod, now: Instant) -> Option<Duration> {
        let mut sets = self.sets.lock();
        let known = sets.entry(Key::of(set)).or_default();
        let generation = set.meta().generation.unwrap_or(0);
        if known.uid != meta::uid(set) || known.generation != generation {
            *known = OfSet {
                uid: meta::uid(set).to_owned(),
                generation,
                places: HashMap::new(),
            };
        }
        let failed = meta::uid(failed);
        let Some(last) = known.places.get_mut(place) else {
            let first = Place {
                pause: FIRST,
                since: now,
                pod: failed.to_owned(),
            };
            known.places.insert(place.to_owned(), first);
            return None;
        };
        // It was let go, and is there still.
        if last.pod == failed {
            return None;
        }
        let passed = now.saturating_duration_since(last.since);
        if passed < last.pause {
            return Some(last.pause - passed);
        }
        let forgotten = passed > self.longest * 2;
        *last = Place {
            pause: if forgotten {
                FIRST
            } else {
                (last.pause * 2).min(self.longest)
            },
            since: now,
            pod: failed.to_owned(),
        };
        None
    }

    /// The set is gone.
    pub fn forget(&self, key: &Key) {
        self.sets.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::apps::v1::StatefulSet;
    use serde_json::json;

    use super::*;

    fn set(uid: &str, generation: i64) -> StatefulSet {
        serde_json::from_value(
            json!({"metadata": {"name": "a", "namespace": "d", "uid": uid, "generation": generation}}),
        )
        .unwrap()
    }

    fn pod(uid: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": uid}})).unwrap()
    }

    #[test]
    fn each_failure_waits_longer_than_the_one_before() {
        let failed = FailedPods::new(Duration::from_secs(8));
        let begin = Instant::now();
        let wait = |uid: &str, place: &str, second: u64| {
            let left = failed.wait(&set("s", 1), place, &pod(uid), begin + Duration::from_secs(second));
            left.map(|left| left.as_secs())
        };
        for (uid, second, left) in [
            ("1", 0, None),
            ("1", 0, None),
            ("2", 0, Some(1)),
            ("2", 1, None),
            ("3", 1, Some(2)),
            ("3", 2, Some(1)),
            ("3", 3, None),
            ("4", 5, Some(2)),
            ("4", 7, None),
            ("5", 7, Some(8)),
            ("5", 15, None),
            ("6", 15, Some(8)),
            // It ran for a long time.
            ("6", 40, None),
            ("7", 40, Some(1)),
        ] {
            assert_eq!(wait(uid, "0", second), left, "{uid} {second}");
        }
        assert_eq!(wait("8", "1", 40), None, "another place");
    }

    #[test]
    fn another_generation_and_another_set_begin_anew() {
        let failed = FailedPods::new(Duration::from_secs(300));
        let now = Instant::now();
        let wait =
            |uid: &str, generation: i64, failing: &str| failed.wait(&set(uid, generation), "0", &pod(failing), now);
        assert_eq!(wait("s", 1, "1"), None);
        assert!(wait("s", 1, "2").is_some());
        assert_eq!(wait("s", 2, "2"), None);
        assert_eq!(wait("t", 2, "3"), None);
        assert!(wait("t", 2, "4").is_some());
        failed.forget(&Key::new("d", "a"));
        assert_eq!(failed.wait(&set("t", 2), "0", &pod("4"), now), None);
    }
}
