//! Which Jobs an event concerns.

use std::fmt;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use mk8s_client::{Event, Informer};

use super::view::{FINALIZER, end};
use crate::adoption::{self, manager};
use crate::index::Owned;
use crate::meta::{self, Key};
use crate::pod;
use crate::selecting::Selecting;

/// What is reconciled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Job(Key),
    /// A Job that somebody has ended, whatever its pods do.
    Ended(Key),
    /// A pod with the finalizer whose Job is gone or has ended.
    Orphan(Key),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Job(key) | Item::Ended(key) => key.fmt(f),
            Item::Orphan(key) => write!(f, "pod {key}"),
        }
    }
}

/// The Job of a Job's event, and the pods that it leaves behind.
pub(super) fn of_job(event: &Event<Job>, pods: &Owned<Pod>) -> Vec<Item> {
    // A deleted one too: what is remembered of its name is forgotten between two reconciliations, not under one.
    let key = Key::of(&**event.object());
    let mut items = vec![Item::Job(key.clone())];
    match event {
        Event::Deleted(old) => {
            let left = pods.by(&**old);
            let held = left.iter().filter(|pod| meta::has_finalizer(&***pod, FINALIZER));
            items.extend(held.map(|pod| Item::Orphan(Key::of(&**pod))));
        }
        Event::Applied { old: Some(old), new } if end(old).is_none() && end(new).is_some() => {
            items.push(Item::Ended(key));
        }
        Event::Applied { .. } => {}
    }
    items
}

/// Has the Job's spec changed, or whether it is to be at all? What it is told of its pods by its own status may wait.
pub(super) fn is_order(event: &Event<Job>) -> bool {
    let Event::Applied { old: Some(old), new } = event else {
        return true;
    };
    old.metadata.generation != new.metadata.generation
        || old.metadata.uid != new.metadata.uid
        || meta::deleting(&**old) != meta::deleting(&**new)
}

/// The Jobs of a pod's event, and the pod itself if nobody is left to release it.
pub(super) fn of_pod(event: &Event<Pod>, jobs: &Informer<Job>, owners: &Selecting<Job>) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    if changes_counts(event) {
        let keys = adoption::owners(event, owners);
        items.extend(keys.into_iter().map(Item::Job));
    }
    let Event::Applied { new, .. } = event else {
        return items;
    };
    let owner = meta::controller_of(&**new);
    let left_behind = || {
        owner.is_none_or(|owner| {
            let Some(key) = manager::<Job>(&**new) else {
                return false;
            };
            let job = jobs.get(key.ns(), &key.name);
            job.is_none_or(|job| meta::uid(&*job) != owner.uid || end(&job).is_some())
        })
    };
    if meta::has_finalizer(&**new, FINALIZER) && left_behind() {
        items.push(Item::Orphan(Key::of(&**new)));
    }
    items
}

/// Does it change what a Job counts, or whose the pod is? That it was bound, or has an address, is nothing to its Job.
fn changes_counts(event: &Event<Pod>) -> bool {
    let Event::Applied { old: Some(old), new } = event else {
        return true;
    };
    let counted = |pod: &Pod| {
        let owner = meta::controller_of(pod).map(|owner| owner.uid.clone());
        let held = meta::has_finalizer(pod, FINALIZER);
        let state = (pod::phase(pod).to_owned(), pod::is_ready(pod), meta::deleting(pod));
        (pod.metadata.uid.clone(), owner, held, state, pod::all_restarts(pod))
    };
    counted(old) != counted(new) || old.metadata.labels != new.metadata.labels
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn pod(change: &Value) -> Arc<Pod> {
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": true});
        let mut pod = json!({"metadata": {"name": "p", "uid": "p", "labels": {"a": "b"}, "finalizers": [FINALIZER],
            "ownerReferences": [owner]}, "spec": {"containers": []}, "status": {"phase": "Running"}});
        for (part, fields) in change.as_object().unwrap() {
            for (field, value) in fields.as_object().unwrap() {
                pod[part][field] = value.clone();
            }
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn only_what_a_job_counts_concerns_it() {
        let container = |restarts: i32| json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": restarts}]);
        for (change, concerns) in [
            (json!({"spec": {"nodeName": "n"}}), false),
            (
                json!({"status": {"podIP": "10.0.0.1", "containerStatuses": container(0)}}),
                false,
            ),
            (json!({"metadata": {"annotations": {"a": "b"}}}), false),
            (json!({"status": {"phase": "Succeeded"}}), true),
            (json!({"status": {"containerStatuses": container(1)}}), true),
            (json!({"status": {"initContainerStatuses": container(1)}}), true),
            (
                json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
                true,
            ),
            (json!({"metadata": {"finalizers": []}}), true),
            (json!({"metadata": {"deletionTimestamp": "2025-01-01T00:00:00Z"}}), true),
            (json!({"metadata": {"labels": {}}}), true),
            (json!({"metadata": {"ownerReferences": []}}), true),
            (json!({"metadata": {"uid": "q"}}), true),
        ] {
            let old = Some(pod(&json!({})));
            let event = Event::Applied { old, new: pod(&change) };
            assert_eq!(changes_counts(&event), concerns, "{change}");
        }
        let new = pod(&json!({}));
        assert!(changes_counts(&Event::Applied {
            old: None,
            new: new.clone()
        }));
        assert!(changes_counts(&Event::Deleted(new)));
    }

    #[test]
    fn a_job_s_own_status_is_no_order() {
        let job = |change: Value| -> Arc<Job> {
            let mut job = json!({"metadata": {"name": "j", "uid": "j", "generation": 1}, "status": {"active": 1}});
            for (field, value) in change.as_object().unwrap() {
                job["metadata"][field] = value.clone();
            }
            Arc::new(serde_json::from_value(job).unwrap())
        };
        for (change, order) in [
            (json!({"resourceVersion": "2"}), false),
            (json!({"generation": 2}), true),
            (json!({"uid": "k"}), true),
            (json!({"deletionTimestamp": "2025-01-01T00:00:00Z"}), true),
        ] {
            let event = Event::Applied {
                old: Some(job(json!({}))),
                new: job(change.clone()),
            };
            assert_eq!(is_order(&event), order, "{change}");
        }
        assert!(is_order(&Event::Deleted(job(json!({})))));
    }
}
