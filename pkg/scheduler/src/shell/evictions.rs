//! A preemption's victims go: each is told why by its condition, deleted with its grace, and an Event is written of it.

use std::sync::Arc;
use std::time::Instant;

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

/// Writes under way for a pod.
pub enum Eviction {
    /// Victims of one preemption are told to go.
    OfVictims(Arc<PodInfo>),
    /// What plugins write beside its binding.
    ByPlugins(Arc<PodInfo>),
}

impl Scheduler {
    /// Has the victims go; the pod is nominated to their node.
    pub(super) fn preempt(&mut self, pod: &Arc<PodInfo>, victims: Victims) -> Box<str> {
        let node = self.cluster.node(victims.node).name.clone();
        let going: Vec<_> = victims.pods.into_iter().filter(|victim| !victim.deleting).collect();
        // First: what follows would have the pod itself tried again.
        self.queue.await_victims(&pod.uid, &going);
        for other in victims.displaced {
            self.unnominate(&other.uid, None);
            self.queue.forget_victims(&other.uid);
            self.queue.retry(&other.uid, Instant::now());
            self.reports.put(Report {
                pod: other,
                condition: None,
                nominated: Some("".into()),
            });
        }
        self.nominate(pod.clone(), &node);
        for victim in &going {
            let message = format!("Preempted by pod {} on node {node}", pod.uid);
            let what = ("Normal", "Preempted", "Preempting");
            self.recorders.event(pod, &victim.reference(), what, &message);
        }
        let (client, scheduler) = (self.client.clone(), pod.wishes().scheduler.clone());
        let eviction = Eviction::OfVictims(pod.clone());
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
        let (client, eviction) = (self.client.clone(), Eviction::ByPlugins(pod.clone()));
        self.evictions.spawn("making room", eviction, async move {
            for write in writes {
                write.run(client.clone()).await?;
            }
            Ok(())
        });
    }

    /// All is written, or one write failed.
    pub(super) fn evicted(&mut self, eviction: &Eviction, result: Result<(), String>) {
        let Err(error) = result else { return };
        let (Eviction::OfVictims(pod) | Eviction::ByPlugins(pod)) = eviction;
        tracing::warn!(pod = pod.key(), error, "making room failed");
        if let Eviction::OfVictims(_) = eviction {
            self.queue.forget_victims(&pod.uid);
        }
        self.queue.retry(&pod.uid, Instant::now());
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
