//! What is told of a pod that waits: an Event each time, and its condition and nomination when they change.

use std::collections::{BTreeMap, HashMap};
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
    /// By the pod's uid; the revision that it was written at, if it was.
    writing: Jobs<Arc<str>, Option<u64>>,
    /// The pods of `writing`: one write of a pod at a time, or the older could land last. Each ends when its write has.
    flying: HashMap<Arc<str>, watch::Receiver<()>>,
    /// Waiting for one of `writing` to end, by the pod's uid, each with its turn.
    waiting: HashMap<Arc<str>, (u64, Report)>,
    /// The pods of `waiting`, by turn.
    turns: BTreeMap<u64, Arc<str>>,
    last_turn: u64,
    told: HashMap<Arc<str>, Told>,
}

/// What was reported of a pod last.
#[derive(Default)]
struct Told {
    /// Reason and message.
    condition: Option<(&'static str, String)>,
    /// Its nomination, until an event shows it, or what came after.
    nominated: Option<Box<str>>,
    /// The revision that the nomination was written at.
    revision: Option<u64>,
}

impl Reports {
    pub fn new(client: Client) -> Self {
        Reports {
            client,
            writing: Jobs::default(),
            flying: HashMap::new(),
            waiting: HashMap::new(),
            turns: BTreeMap::new(),
            last_turn: 0,
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
        if report.nominated.is_some() {
            told.nominated.clone_from(&report.nominated);
            told.revision = None;
        }
        // What an older one says of what this one is silent about has not been written yet.
        let turn = match self.waiting.remove(&uid) {
            Some((turn, before)) => {
                report.condition = report.condition.or(before.condition);
                report.nominated = report.nominated.or(before.nominated);
                turn
            }
            None => {
                self.last_turn += 1;
                self.turns.insert(self.last_turn, uid.clone());
                self.last_turn
            }
        };
        self.waiting.insert(uid, (turn, report));
        self.write_next();
    }

    /// An event of this revision shows this nomination (empty: none). False: it was before what was reported since.
    pub fn is_current(&mut self, uid: &str, nominated: &str, revision: u64) -> bool {
        let told = self.told.get_mut(uid).filter(|told| told.nominated.is_some());
        let Some(told) = told else { return true };
        // What changes nothing is written at the revision of before, and no event tells of it.
        let is_later = told.revision.is_some_and(|written| written <= revision);
        let current = is_later || told.nominated.as_deref() == Some(nominated);
        if current {
            told.nominated = None;
        }
        current
    }

    /// The pod is gone, or has its node: nothing more is written of it.
    pub fn forget(&mut self, uid: &str) {
        if let Some((turn, _)) = self.waiting.remove(uid) {
            self.turns.remove(&turn);
        }
        self.told.remove(uid);
    }

    /// The pod gets its node: nothing more is written of it but where it goes, if it may take its time to get there. Ends when all that
    /// is written of it has landed: nothing of that may land after its binding.
    pub fn conclude(&mut self, pod: &Arc<PodInfo>, nominated: Option<&str>) -> impl Future<Output = ()> + use<> {
        self.forget(&pod.uid);
        let landing = self.flying.get(&pod.uid).cloned();
        let shown = pod.wishes().nominated.as_deref();
        let last = nominated.filter(|node| landing.is_some() || shown != Some(node));
        let last = last.map(|node| {
            let told = self.told.entry(pod.uid.clone()).or_default();
            told.nominated = Some(node.into());
            let report = Report {
                pod: pod.clone(),
                condition: None,
                nominated: Some(node.into()),
            };
            (self.api(pod), report)
        });
        async move {
            if let Some(mut landing) = landing {
                // An error: its other end is dropped.
                let _ = landing.changed().await;
            }
            if let Some((api, report)) = last {
                write(&api, &report).await;
            }
        }
    }

    fn api(&self, pod: &PodInfo) -> Api<Pod> {
        Api::namespaced(self.client.clone(), pod.namespace())
    }

    fn write_next(&mut self) {
        while self.writing.len() < AT_ONCE {
            let mut free = self.turns.values().filter(|uid| !self.flying.contains_key(*uid));
            let Some((uid, (turn, report))) = free.next().and_then(|uid| self.waiting.remove_entry(uid)) else {
                return;
            };
            self.turns.remove(&turn);
            let (landed, landing) = watch::channel(());
            self.flying.insert(uid.clone(), landing);
            let api = self.api(&report.pod);
            self.writing.spawn("condition PodScheduled", uid, async move {
                let written = write(&api, &report).await;
                drop(landed);
                written
            });
        }
    }

    /// Ends when one of the writes has ended; none if none is on its way. Of one that failed, or panicked, nothing is known any more:
    /// the pod's next refusal reports again. Of a pod that waits with a newer one, that tells.
    pub async fn written(&mut self) -> Option<()> {
        let (uid, ended) = self.writing.next().await?;
        self.flying.remove(&uid);
        if !self.waiting.contains_key(&uid) {
            match (ended.unwrap_or(None), self.told.get_mut(&uid)) {
                (None, _) => drop(self.told.remove(&uid)),
                (revision, Some(told)) => told.revision = revision,
                (_, None) => {}
            }
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

/// The revision that it was written at.
async fn write(api: &Api<Pod>, report: &Report) -> Option<u64> {
    let (how, patch) = (PatchParams::default(), Patch::Strategic(report.patch()));
    match api.patch_status(&report.pod.name, &how, &patch).await {
        Ok(written) => written.revision,
        // Deleted meanwhile, or another pod of that name by now.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => None,
        Err(error) => {
            tracing::warn!(pod = report.pod.key(), %error, "updating condition PodScheduled failed");
            None
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU16, Ordering};

    use super::*;
    use crate::cluster::Kins;

    fn pod() -> Arc<PodInfo> {
        let pod = json!({"metadata": {"namespace": "d", "name": "p", "uid": "p"}, "spec": {"containers": []}});
        Arc::new(PodInfo::new(
            &serde_json::from_value(pod).unwrap(),
            &mut Kins::default(),
        ))
    }

    fn nominated(node: &str) -> Report {
        Report {
            pod: pod(),
            condition: None,
            nominated: Some(node.into()),
        }
    }

    /// Each write is answered with the next of these codes, and revision 5.
    fn answering(codes: [u16; 2]) -> Reports {
        let codes = Arc::new(codes.map(AtomicU16::new));
        let serve = move |_| {
            let next = codes
                .iter()
                .map(|code| code.swap(0, Ordering::SeqCst))
                .find(|code| *code != 0);
            let text = json!({"metadata": {"name": "p", "resourceVersion": "5"}}).to_string();
            let answer = http::Response::builder()
                .status(next.unwrap())
                .body(kube::client::Body::from(text.into_bytes()));
            async { Ok::<_, std::convert::Infallible>(answer.unwrap()) }
        };
        Reports::new(Client::new(tower::service_fn(serve), "d"))
    }

    #[tokio::test]
    async fn an_event_after_what_was_written_counts_whatever_it_shows() {
        let mut reports = answering([200, 200]);
        reports.put(nominated("n"));
        assert!(!reports.is_current("p", "", 6), "nobody knows yet when it was written");
        reports.written().await.unwrap();
        assert!(!reports.is_current("p", "", 4));
        assert!(reports.is_current("p", "other", 6));
    }

    #[tokio::test]
    async fn nothing_stays_of_what_is_not_to_be_written_any_more() {
        let mut reports = answering([200, 200]);
        reports.put(nominated("n"));
        for _ in 0..3 {
            reports.put(nominated("m"));
            reports.forget("p");
        }
        assert_eq!((reports.len(), reports.turns.len()), (1, 0));
        reports.put(nominated("m"));
        reports.written().await.unwrap();
        reports.written().await.unwrap();
        assert!(reports.turns.is_empty() && reports.waiting.is_empty() && reports.flying.is_empty());
    }

    #[tokio::test]
    async fn a_write_that_failed_leaves_what_the_next_one_is_to_say() {
        let mut reports = answering([500, 200]);
        reports.put(nominated("n"));
        reports.put(nominated("m"));
        reports.written().await.unwrap();
        assert!(!reports.is_current("p", "", 4));
        reports.written().await.unwrap();
        assert!(reports.is_current("p", "m", 5));
    }
}
