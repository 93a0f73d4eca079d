//! What is told of a pod that waits: an Event each time, and its condition and nomination when they change.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use mk8s_supervisor::Jobs;
use serde_json::{Value, json};

use crate::pod::PodInfo;

/// So many conditions are written at once; beyond, the newest of each pod waits.
const AT_ONCE: usize = 64;

/// What a pod's status is about to say.
#[derive(Debug)]
pub struct Report {
    pub pod: Arc<PodInfo>,
    /// Why it is not scheduled. None: that stays as it is.
    pub condition: Option<(&'static str, String)>,
    /// The node that it is nominated to, none if it is empty. None: that stays as it is.
    pub nominated: Option<Box<str>>,
}

/// Reports on their way.
pub struct Reports {
    client: Client,
    writing: Jobs<(), ()>,
    /// Waiting for one of `writing` to end, by the pod's uid.
    waiting: HashMap<Arc<str>, Report>,
    /// The reason and message of each pod's condition as it was reported last.
    told: HashMap<Arc<str>, (&'static str, String)>,
}

impl Reports {
    pub fn new(client: Client) -> Self {
        Reports {
            client,
            writing: Jobs::default(),
            waiting: HashMap::new(),
            told: HashMap::new(),
        }
    }

    /// Writes a report, if the pod's status does not say so already.
    pub fn put(&mut self, mut report: Report) {
        let uid = report.pod.uid.clone();
        let known = report
            .condition
            .as_ref()
            .is_some_and(|own| self.told.get(&uid) == Some(own));
        if known {
            report.condition = None;
        }
        let nominated = report.pod.wishes().nominated.as_deref().unwrap_or_default();
        report.nominated = report.nominated.filter(|node| **node != *nominated);
        if report.condition.is_none() && report.nominated.is_none() {
            return;
        }
        if let Some(condition) = &report.condition {
            self.told.insert(uid.clone(), condition.clone());
        }
        // What an older one says of what this one is silent about has not been written yet.
        if let Some(before) = self.waiting.remove(&uid) {
            report.condition = report.condition.or(before.condition);
            report.nominated = report.nominated.or(before.nominated);
        }
        self.waiting.insert(uid, report);
        self.write_next();
    }

    /// The pod is gone, or has its node.
    pub fn forget(&mut self, uid: &str) {
        self.waiting.remove(uid);
        self.told.remove(uid);
    }

    fn write_next(&mut self) {
        while self.writing.len() < AT_ONCE {
            let Some(uid) = self.waiting.keys().next().cloned() else {
                return;
            };
            let Some(report) = self.waiting.remove(&uid) else {
                return;
            };
            let api: Api<Pod> = Api::namespaced(self.client.clone(), report.pod.namespace());
            self.writing.spawn("condition PodScheduled", (), async move {
                let patch = Patch::Strategic(report.patch());
                let written = api
                    .patch_status(&report.pod.name, &PatchParams::default(), &patch)
                    .await;
                match written {
                    Ok(_) => {}
                    // Deleted meanwhile, or another pod of that name by now.
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                    Err(error) => {
                        tracing::warn!(pod = report.pod.key(), %error, "updating condition PodScheduled failed");
                    }
                }
            });
        }
    }

    /// Ends when one of the writes has ended; none if none is on its way. One that panicked is logged where it was caught; the
    /// pod's next refusal reports again.
    pub async fn written(&mut self) -> Option<()> {
        let _ = self.writing.next().await?;
        self.write_next();
        Some(())
    }

    /// How many are not written.
    pub fn len(&self) -> usize {
        self.writing.len() + self.waiting.len()
    }

    pub async fn stop(&mut self) {
        self.writing.stop().await;
    }
}

impl Report {
    /// As a patch of the pod's status; the condition's time changes only with its status.
    fn patch(&self) -> Value {
        let now = Timestamp::now().as_second();
        let since = Timestamp::from_second(self.pod.wishes().waits_since.unwrap_or(now));
        let since = since.unwrap_or_else(|_| Timestamp::now());
        let mut status = json!({});
        if let Some((reason, message)) = &self.condition {
            status["conditions"] = json!([{
                "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
                "lastProbeTime": null, "lastTransitionTime": since.to_string(),
                "observedGeneration": self.pod.wishes().generation,
            }]);
        }
        if let Some(node) = &self.nominated {
            let node: Option<&str> = Some(&**node).filter(|node| !node.is_empty());
            status["nominatedNodeName"] = json!(node);
        }
        json!({"metadata": {"uid": &*self.pod.uid}, "status": status})
    }
}
