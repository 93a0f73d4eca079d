//! "Has my write come back?": the one answer for every controller that decides from an informer what to write next. Until
//! the informer shows what the last reconcile of a key wrote, counting again would make everything twice.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use kube::Resource;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::informer::Informer;
use crate::kind::Kind;
use crate::subscription::Event;

/// When to look again first; then after as long as has been waited, up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(5);
/// What has not come in this time never will (a store put back to an older state): then counting again is right.
const PATIENCE: Duration = Duration::from_secs(300);

/// An object that was deleted.
struct Gone {
    namespace: Option<String>,
    name: String,
    uid: Option<String>,
}

struct Written {
    /// The newest revision written.
    revision: u64,
    /// Those of which no event has told yet.
    untold: Vec<u64>,
    /// A reconcile ended because these were missing.
    waited_for: bool,
    deleted: Vec<Gone>,
    since: Instant,
}

/// What the reconciles of each key wrote of one kind, until it has come back. `Q` is the controller's key.
pub struct Seen<Q> {
    written: Mutex<HashMap<Q, Written>>,
}

impl<Q> Default for Seen<Q> {
    fn default() -> Self {
        Seen {
            written: Mutex::new(HashMap::new()),
        }
    }
}

impl<Q: Clone + Eq + Hash> Seen<Q> {
    fn note(&self, key: &Q, note: impl FnOnce(&mut Written)) {
        let mut all = self.written.lock();
        let written = all.entry(key.clone()).or_insert_with(|| Written {
            revision: 0,
            untold: Vec::new(),
            waited_for: false,
            deleted: Vec::new(),
            since: Instant::now(),
        });
        written.since = Instant::now();
        note(written);
    }

    /// The API server answered a create, update or patch with an object of this revision.
    pub fn wrote(&self, key: &Q, revision: Option<u64>) {
        if let Some(revision) = revision {
            self.note(key, |written| {
                written.revision = written.revision.max(revision);
                written.untold.push(revision);
            });
        }
    }

    /// Whether anything was written for this key since its writes were last found to have come back: their events will bring the key
    /// back, unless what was made is gone at once.
    pub fn expects(&self, key: &Q) -> bool {
        self.written.lock().contains_key(key)
    }

    /// Whether a reconcile of this key ended because its writes were missing, and none has found them since.
    pub fn is_waited_for(&self, key: &Q) -> bool {
        self.written.lock().get(key).is_some_and(|written| written.waited_for)
    }

    /// Whether an event shows nothing but what this key's last reconcile wrote itself, so that another would find nothing to do. Not
    /// where a reconcile waits for it.
    pub fn is_echo<K: Kind>(&self, key: &Q, event: &Event<K>) -> bool {
        let Event::Applied { new, .. } = event else {
            return false;
        };
        let revision = new
            .meta()
            .resource_version
            .as_deref()
            .and_then(|text| text.parse::<u64>().ok());
        let mut all = self.written.lock();
        let (Some(revision), Some(written)) = (revision, all.get_mut(key)) else {
            return false;
        };
        let is_own = written.untold.contains(&revision);
        // What is older was overtaken: nothing will tell of it, or it is looked at once more.
        written.untold.retain(|own| *own > revision);
        let is_waited_for = written.waited_for;
        // The objects themselves have come: whoever asks for them now finds them.
        if !is_waited_for && written.untold.is_empty() && written.deleted.is_empty() {
            all.remove(key);
        }
        is_own && !is_waited_for
    }

    /// The API server took the deletion of this object. It has come back when the informer shows the object being deleted,
    /// or no more.
    pub fn deleted(&self, key: &Q, object: &impl Resource) {
        let meta = object.meta();
        let gone = Gone {
            namespace: meta.namespace.clone(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone(),
        };
        self.note(key, |written| written.deleted.push(gone));
    }

    /// None: everything that this key's reconciles wrote is in the informer (of all objects of the kind written). Else the
    /// time after which to look again if no event causes that sooner: what came and went at once causes none.
    pub fn missing<K: Kind>(&self, key: &Q, informer: &Informer<K>) -> Option<Duration> {
        let mut all = self.written.lock();
        let written = all.get_mut(key)?;
        let waited = written.since.elapsed();
        let reached = informer.revision().is_some_and(|reached| reached >= written.revision);
        written.deleted.retain(|gone| {
            let shown = informer.get(gone.namespace.as_deref(), &gone.name);
            shown.is_some_and(|shown| shown.meta().uid == gone.uid && shown.meta().deletion_timestamp.is_none())
        });
        if reached && written.deleted.is_empty() {
            all.remove(key);
            return None;
        }
        if waited > PATIENCE {
            tracing::warn!(kind = %K::kind(&()), "a write has not come back and is waited for no longer");
            all.remove(key);
            return None;
        }
        written.waited_for = true;
        Some(waited.clamp(SHORTEST, LONGEST))
    }

    /// The key's object is gone.
    pub fn forget(&self, key: &Q) {
        self.written.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::informer::tests::{Bench, object, pod, with_uid};

    const KEY: &str = "d/set";

    async fn synced(bench: &Bench, revision: u64) -> Informer<Pod> {
        let pods = bench.informers.of::<Pod>();
        bench.up_to(revision);
        pods.wait_reached(revision).await;
        pods
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_seen_when_the_informer_reaches_its_revision() {
        let bench = Bench::new();
        let pods = synced(&bench, 1).await;
        let seen = Seen::default();
        assert_eq!(seen.missing(&KEY, &pods), None);
        seen.wrote(&KEY, Some(5));
        seen.wrote(&KEY, Some(4));
        assert_eq!(seen.missing(&KEY, &pods), Some(SHORTEST));
        assert_eq!(seen.missing(&"d/another", &pods), None);
        bench.apply(pod("b", "1", 4));
        pods.wait_reached(4).await;
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(seen.missing(&KEY, &pods), Some(Duration::from_secs(2)));
        // What was made is gone again, and no event ever tells of it.
        bench.up_to(9);
        pods.wait_reached(9).await;
        assert_eq!(seen.missing(&KEY, &pods), None);
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_nobody_waits_for_is_an_echo() {
        let bench = Bench::new();
        let pods = synced(&bench, 1).await;
        let seen = Seen::default();
        let shown = |revision| Event::Applied {
            old: None,
            new: Arc::new(object(&pod("a", "1", revision))),
        };
        seen.wrote(&KEY, Some(5));
        seen.wrote(&KEY, Some(6));
        assert!(seen.expects(&KEY) && !seen.expects(&"d/another"));
        assert!(!seen.is_echo(&KEY, &shown(4)));
        assert!(!seen.is_echo(&"d/another", &shown(5)));
        assert!(!seen.is_echo(&KEY, &Event::Deleted(Arc::new(object(&pod("a", "1", 5))))));
        assert!(seen.is_echo(&KEY, &shown(5)));
        assert!(!seen.is_echo(&KEY, &shown(5)), "told twice");
        // It waits for the other.
        assert!(!seen.is_waited_for(&KEY));
        assert_eq!(seen.missing(&KEY, &pods), Some(SHORTEST));
        assert!(seen.is_waited_for(&KEY));
        assert!(!seen.is_echo(&KEY, &shown(6)));
        // What others wrote since is news.
        seen.wrote(&"d/c", Some(7));
        assert!(!seen.is_echo(&"d/c", &shown(8)));
        assert!(!seen.is_echo(&"d/c", &shown(7)));
        // All has come of which none was waited for.
        seen.wrote(&"d/b", Some(7));
        assert!(seen.is_echo(&"d/b", &shown(7)));
        assert_eq!(seen.missing(&"d/b", &pods), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_is_seen_when_that_very_object_goes() {
        let bench = Bench::new();
        bench.apply(pod("a", "1", 1));
        bench.apply(pod("b", "1", 2));
        let pods = synced(&bench, 2).await;
        let seen = Seen::default();
        seen.deleted(&KEY, &object(&pod("a", "1", 1)));
        seen.deleted(&KEY, &object(&pod("b", "1", 2)));
        assert!(seen.missing(&KEY, &pods).is_some());
        bench.delete(pod("a", "1", 1), 3);
        pods.wait_reached(3).await;
        assert!(seen.missing(&KEY, &pods).is_some());
        bench.apply(with_uid("b", "1", 4, "another"));
        pods.wait_reached(4).await;
        assert_eq!(seen.missing(&KEY, &pods), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_comes_is_not_waited_for_for_ever() {
        let bench = Bench::new();
        let pods = synced(&bench, 1).await;
        let seen = Seen::default();
        seen.wrote(&KEY, Some(5));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(seen.missing(&KEY, &pods), Some(LONGEST));
        tokio::time::advance(PATIENCE).await;
        assert_eq!(seen.missing(&KEY, &pods), None);
    }
}
