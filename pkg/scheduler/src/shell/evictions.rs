//! A preemption's victims go: each is told why by its condition, deleted with its grace, and an Event is written of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use mk8s_client::Api;
use serde_json::json;

use super::Scheduler;
use super::reports::Report;
use crate::framework::Write;
use crate::pod::PodInfo;
use crate::preemption::Victims;

/// Victims of one preemption on their way, or what plugins write for a pod beside its binding.
pub struct Eviction {
    pub pod: Arc<PodInfo>,
}

/// Pods whose victims have not all been seen going. Such a pod is not tried: it would take others for the same room (upstream's gate
/// of pods that run a preemption).
#[derive(Default)]
pub struct Preempting {
    /// By the preemptor's uid.
    waiting: HashMap<Arc<str>, Held>,
    /// The preemptor of each victim.
    victims: HashMap<Arc<str>, Arc<str>>,
}

struct Held {
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
        let each = victims.iter().map(|victim| (victim.clone(), preemptor.clone()));
        self.victims.extend(each);
        let held = Held { victims, woken: false };
        self.waiting.insert(preemptor.clone(), held);
    }

    /// Whether the pod is to be left alone; it is tried when it is not any more.
    pub fn holds(&mut self, preemptor: &str) -> bool {
        let held = self.waiting.get_mut(preemptor);
        held.map(|held| held.woken = true).is_some()
    }

    /// A pod is seen going; the preemptor whose last victim it was and that is to be tried.
    pub fn goes(&mut self, victim: &str) -> Option<Arc<str>> {
        let preemptor = self.victims.remove(victim)?;
        let held = self.waiting.get_mut(&preemptor)?;
        held.victims.remove(victim);
        if !held.victims.is_empty() {
            return None;
        }
        let woken = self.waiting.remove(&preemptor)?.woken;
        woken.then_some(preemptor)
    }

    /// Its victims are no matter any more.
    pub fn forget(&mut self, preemptor: &str) {
        for victim in self.waiting.remove(preemptor).into_iter().flat_map(|held| held.victims) {
            self.victims.remove(&victim);
        }
    }
}

impl Scheduler {
    /// Has the victims go; the pod is nominated to their node.
    pub(super) fn preempt(&mut self, pod: &Arc<PodInfo>, victims: Victims) -> Box<str> {
        let node = self.cluster.node(victims.node).name.clone();
        for other in victims.displaced {
            self.unnominate(&other.uid, None);
            self.queue.retry(&other.uid, std::time::Instant::now());
            self.reports.put(Report {
                pod: other,
                condition: None,
                nominated: Some("".into()),
            });
        }
        self.nominate(pod.clone(), &node);
        let going: Vec<_> = victims.pods.into_iter().filter(|victim| !victim.deleting).collect();
        self.preempting.begin(&pod.uid, &going);
        for victim in &going {
            let message = format!("Preempted by pod {} on node {node}", pod.uid);
            let what = ("Normal", "Preempted", "Preempting");
            self.recorders.event(pod, &victim.reference(), what, &message);
        }
        let (client, scheduler) = (self.client.clone(), pod.wishes().scheduler.clone());
        let eviction = Eviction { pod: pod.clone() };
        self.evictions.spawn("preemption", eviction, async move {
            let each = going.iter().map(|victim| evict(client.clone(), victim, &scheduler));
            // All are tried: the others' going is of use all the same.
            let ended = futures::future::join_all(each).await;
            ended.into_iter().collect()
        });
        (*node).into()
    }

    /// Writes what plugins want written for a pod, one after the other.
    pub(super) fn write_all(&mut self, pod: &Arc<PodInfo>, writes: Vec<Write>) {
        if writes.is_empty() {
            return;
        }
        let (client, eviction) = (self.client.clone(), Eviction { pod: pod.clone() });
        self.evictions.spawn("making room", eviction, async move {
            for write in writes {
                write.run(client.clone()).await?;
            }
            Ok(())
        });
    }

    /// All victims are told to go, or one could not be.
    pub(super) fn evicted(&mut self, eviction: &Eviction, result: Result<(), String>) {
        if let Err(error) = result {
            tracing::warn!(pod = eviction.pod.key(), error, "making room failed");
            self.preempting.forget(&eviction.pod.uid);
            self.queue.retry(&eviction.pod.uid, std::time::Instant::now());
        }
    }
}

async fn evict(client: Client, victim: &PodInfo, scheduler: &str) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client, victim.namespace());
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
        "lastProbeTime": null, "lastTransitionTime": Timestamp::from_second(Timestamp::now().as_second()).ok().map(|now| now.to_string()),
    });
    let patch = json!({"metadata": {"uid": &*victim.uid}, "status": {"conditions": [condition]}});
    let (how, patch) = (PatchParams::default(), Patch::Strategic(patch));
    let told = api.patch_status(&victim.name, &how, &patch);
    let delete = DeleteParams::default().preconditions(Preconditions {
        uid: Some((*victim.uid).to_owned()),
        resource_version: None,
    });
    let gone = match told.await {
        Ok(_) => api.delete(&victim.name, &delete).await,
        Err(error) => Err(error),
    };
    match gone {
        // Gone already, or another pod of that name by now.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other,
    }
}
