//! What the controller remembers of Jobs between reconciliations.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use mk8s_client::Seen;
use parking_lot::Mutex;

use super::backoff::Record;
use super::view::FINALIZER;
use crate::meta::{self, Key};
use crate::rests::Rests;

#[derive(Default)]
pub(super) struct Memory {
    /// Pods that were made, deleted or released.
    pub(super) pods_seen: Seen<Key>,
    /// Jobs whose status was written.
    pub(super) jobs_seen: Seen<Key>,
    /// With the uid of the Job they are of: the next Job of that name begins with none.
    records: Mutex<HashMap<Key, (String, Record)>>,
    /// Uids of pods that were released and counted. A pod that is being deleted goes with its finalizer, and what the API server
    /// answers then says nothing of when the informer will know: until it does, the pod is not to be counted again.
    released: Mutex<HashMap<Key, HashSet<String>>>,
    /// Of Jobs of many pods.
    pub(super) rests: Rests<Key>,
}

impl Memory {
    pub(super) fn record(&self, job: &Job) -> Record {
        let records = self.records.lock();
        let known = records.get(&Key::of(job)).filter(|(uid, _)| uid == meta::uid(job));
        known.map(|(_, record)| *record).unwrap_or_default()
    }

    pub(super) fn set_record(&self, job: &Job, record: Record) {
        let of = (meta::uid(job).to_owned(), record);
        self.records.lock().insert(Key::of(job), of);
    }

    /// The pod has its finalizer no more.
    pub(super) fn released(&self, key: &Key, pod: &Pod) {
        let uid = meta::uid(pod).to_owned();
        self.released.lock().entry(key.clone()).or_default().insert(uid);
    }

    /// Those of a Job's pods that only seem to have their finalizer.
    pub(super) fn released_of(&self, key: &Key, pods: &[Arc<Pod>]) -> HashSet<String> {
        let mut all = self.released.lock();
        let Some(released) = all.get_mut(key) else {
            return HashSet::new();
        };
        let held = pods.iter().filter(|pod| meta::has_finalizer(&***pod, FINALIZER));
        let held: HashSet<&str> = held.map(|pod| meta::uid(&**pod)).collect();
        released.retain(|uid| held.contains(uid.as_str()));
        if released.is_empty() {
            return all.remove(key).unwrap_or_default();
        }
        released.clone()
    }

    /// The Job has ended.
    pub(super) fn ended(&self, key: &Key) {
        self.records.lock().remove(key);
        self.released.lock().remove(key);
        self.rests.forget(key);
    }

    /// The Job is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.pods_seen.forget(key);
        self.jobs_seen.forget(key);
        self.ended(key);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_begins_without_the_memory_of_the_last_one_of_its_name() {
        let job = |uid: &str| -> Job {
            serde_json::from_value(json!({"metadata": {"namespace": "d", "name": "a", "uid": uid}})).unwrap()
        };
        let memory = Memory::default();
        let record = Record::default().after(&[], &[&Pod::default()]);
        assert_ne!(record, Record::default());
        memory.set_record(&job("1"), record);
        assert_eq!(memory.record(&job("1")), record);
        assert_eq!(memory.record(&job("2")), Record::default());
        memory.forget(&Key::new("d", "a"));
        assert_eq!(memory.record(&job("1")), Record::default());
    }

    #[test]
    fn a_pod_is_known_to_be_released_until_the_informer_knows() {
        let pod = |uid: &str, held: bool| -> Arc<Pod> {
            let finalizers = if held { json!([FINALIZER]) } else { json!([]) };
            Arc::new(serde_json::from_value(json!({"metadata": {"uid": uid, "finalizers": finalizers}})).unwrap())
        };
        let (memory, key) = (Memory::default(), Key::new("d", "a"));
        memory.released(&key, &pod("a", true));
        memory.released(&key, &pod("b", true));
        for (shown, expected) in [
            (vec![pod("a", true), pod("b", true), pod("c", true)], 2),
            // One has been seen without it.
            (vec![pod("a", false), pod("b", true), pod("c", true)], 1),
            (vec![pod("c", true)], 0),
            (vec![pod("b", true)], 0),
        ] {
            assert_eq!(memory.released_of(&key, &shown).len(), expected);
        }
    }
}
