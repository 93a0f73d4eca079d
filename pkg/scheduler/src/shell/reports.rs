//! What is told of a pod that waits: an Event each time, and its condition and nomination when they change.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Patch, PatchParams};
use mk8s_client::Api;
use mk8s_supervisor::Jobs;
use serde_json::{Value, json};
use tokio::sync::watch;

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
    /// By the pod's uid; whether it was written.
    writing: Jobs<Arc<str>, bool>,
    /// The pods of `writing`: one write of a pod at a time, or the older could land last. Each ends when its write has.
    flying: HashMap<Arc<str>, watch::Receiver<()>>,
    /// Waiting for one of `writing` to end, by the pod's uid.
    waiting: HashMap<Arc<str>, Report>,
    told: HashMap<Arc<str>, Told>,
}

/// What was reported of a pod last.
#[derive(Default)]
struct Told {
    /// Reason and message.
    condition: Option<(&'static str, String)>,
    /// Its nomination, until an event shows it.
    nominated: Option<Box<str>>,
}

impl Reports {
    pub fn new(client: Client) -> Self {
        Reports {
            client,
            writing: Jobs::default(),
            flying: HashMap::new(),
            waiting: HashMap::new(),
            told: HashMap::new(),
        }
    }

    /// Writes a report, if the pod's status does not say so already.
    pub fn put(&mut self, mut report: Report) {
        let uid = report.pod.uid.clone();
        let told = self.told.entry(uid.clone()).or_default();
        report.condition = report.condition.filter(|own| told.condition.as_ref() != Some(own));
        let shown = report.pod.wishes().nominated.as_deref().unwrap_or_default();
        let known = told.nominated.as_deref().unwrap_or(shown);
        report.nominated = report.nominated.filter(|node| **node != *known);
        if report.condition.is_none() && report.nominated.is_none() {
            return;
        }
        told.condition = report.condition.clone().or(told.condition.take());
        told.nominated = report.nominated.clone().or(told.nominated.take());
        // What an older one says of what this one is silent about has not been written yet.
        if let Some(before) = self.waiting.remove(&uid) {
            report.condition = report.condition.or(before.condition);
            report.nominated = report.nominated.or(before.nominated);
        }
        self.waiting.insert(uid, report);
        self.write_next();
    }

    /// An event shows this nomination (empty: none). False: it was before what was reported since.
    pub fn is_current(&mut self, uid: &str, nominated: &str) -> bool {
        let told = self.told.get_mut(uid).filter(|told| told.nominated.is_some());
        let Some(told) = told else { return true };
        let current = told.nominated.as_deref() == Some(nominated);
        if current {
            told.nominated = None;
        }
        current
    }

    /// The pod is gone, has its node, or gets it: nothing more is written of it.
    pub fn forget(&mut self, uid: &str) {
        self.waiting.remove(uid);
        self.told.remove(uid);
    }

    /// The write of this pod that is under way: it ends when that has landed.
    pub fn landing(&self, uid: &str) -> Option<watch::Receiver<()>> {
        self.flying.get(uid).cloned()
    }

    fn write_next(&mut self) {
        while self.writing.len() < AT_ONCE {
            let free = self.waiting.keys().find(|uid| !self.flying.contains_key(*uid));
            let Some(report) = free.cloned().and_then(|uid| self.waiting.remove(&uid)) else {
                return;
            };
            let uid = report.pod.uid.clone();
            let (landed, landing) = watch::channel(());
            self.flying.insert(uid.clone(), landing);
            let api: Api<Pod> = Api::namespaced(self.client.clone(), report.pod.namespace());
            self.writing.spawn("condition PodScheduled", uid, async move {
                let written = write(&api, &report).await;
                drop(landed);
                written
            });
        }
    }

    /// Ends when one of the writes has ended; none if none is on its way. Of one that failed, or panicked, nothing is known any more:
    /// the pod's next refusal reports again.
    pub async fn written(&mut self) -> Option<()> {
        let (uid, ended) = self.writing.next().await?;
        self.flying.remove(&uid);
        if !ended.unwrap_or(false) {
            self.told.remove(&uid);
        }
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

/// Whether it was written.
async fn write(api: &Api<Pod>, report: &Report) -> bool {
    let (how, patch) = (PatchParams::default(), Patch::Strategic(report.patch()));
    match api.patch_status(&report.pod.name, &how, &patch).await {
        Ok(_) => true,
        // Deleted meanwhile, or another pod of that name by now.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => false,
        Err(error) => {
            tracing::warn!(pod = report.pod.key(), %error, "updating condition PodScheduled failed");
            false
        }
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
