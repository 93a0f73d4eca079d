//! The one task that owns the scheduler's state: takes in events, decides, binds, reports.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Binding as ApiBinding, Node, ObjectReference, Pod, PodCondition, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Selector;
use kube::{Api, Client};
use mk8s_client::{Event, Informers, SeriesRecorder};
use mk8s_supervisor::{JobError, Jobs, Supervisor, job};

use crate::cache::Cache;
use crate::cycle;
use crate::filters::{ANY, Filter};
use crate::info::PodInfo;
use crate::queue::Queue;
use crate::resources;
use crate::spread::{Groups, Spread};

/// Bindings under way; beyond, decisions wait.
const BINDINGS: usize = 512;
/// Conditions being written; beyond, the newest of each pod waits.
const REPORTS: usize = 64;

/// Why a pod was not bound.
#[derive(Debug, thiserror::Error)]
enum BindError {
    #[error("binding rejected: {0}")]
    Refused(#[from] kube::Error),
    #[error("binding failed: {0}")]
    Ended(#[from] JobError),
}

/// A binding under way.
struct Binding {
    pod: Arc<PodInfo>,
    node: String,
}

/// What a pod's condition is about to say.
struct Report {
    pod: Arc<PodInfo>,
    reason: &'static str,
    message: String,
}

struct Scheduler {
    client: Client,
    recorder: SeriesRecorder,
    cache: Cache,
    queue: Queue,
    groups: Groups,
    bindings: Jobs<Binding, Result<(), kube::Error>>,
    /// Pods (uid) that are counted on a node without an event that shows them there.
    assumed: HashSet<String>,
    reports: Jobs<(), ()>,
    /// Waiting for one of `reports` to end, by the pod's uid.
    unreported: HashMap<String, Report>,
    start: usize,
}

/// Runs until the scope ends. No decision is made then; those that were are bound, and told of.
pub async fn run(client: Client, informers: Informers, recorder: SeriesRecorder, scope: Supervisor) {
    let mut state = Scheduler::new(client, recorder);
    tokio::select! {
        biased;
        () = scope.token().cancelled() => {}
        () = state.decide(&informers) => {}
    }
    tokio::select! {
        () = state.finish() => {}
        () = scope.overdue().cancelled() => {
            let (bindings, reports) = (state.bindings.len(), state.reports.len() + state.unreported.len());
            tracing::warn!(bindings, reports, "dropped: they took too long to end");
        }
    }
    state.bindings.stop().await;
    state.reports.stop().await;
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn is_ours(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .and_then(|s| s.scheduler_name.as_deref())
        .is_none_or(|name| name.is_empty() || name == crate::NAME)
}

fn is_terminal(pod: &Pod) -> bool {
    matches!(
        pod.status.as_ref().and_then(|s| s.phase.as_deref()),
        Some("Succeeded" | "Failed")
    )
}

/// Does the scheduler see a difference between the two?
fn same(old: &Pod, new: &Pod) -> bool {
    old.metadata.uid == new.metadata.uid
        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
        && old.metadata.labels == new.metadata.labels
        && is_terminal(old) == is_terminal(new)
        && old.spec == new.spec
        // What its containers have, where that is not what they ask for.
        && resources::requests(old) == resources::requests(new)
}

fn has_node(pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
    node.is_some_and(|node| !node.is_empty())
}

/// Which filters a node's change may please.
fn helps(old: &Node, new: &Node) -> u32 {
    let taints = |n: &Node| n.spec.as_ref().and_then(|s| s.taints.clone());
    let cordoned = |n: &Node| n.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
    let allocatable = |n: &Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
    let mut filters = 0;
    for (changed, filter) in [
        (taints(old) != taints(new), Filter::TaintToleration),
        (cordoned(old) != cordoned(new), Filter::NodeUnschedulable),
        (old.metadata.labels != new.metadata.labels, Filter::NodeAffinity),
        (allocatable(old) != allocatable(new), Filter::NodeResourcesFit),
    ] {
        if changed {
            filters |= filter as u32;
        }
    }
    filters
}

impl Scheduler {
    fn new(client: Client, recorder: SeriesRecorder) -> Self {
        Scheduler {
            client,
            recorder,
            cache: Cache::default(),
            queue: Queue::default(),
            groups: Groups::default(),
            bindings: Jobs::default(),
            assumed: HashSet::new(),
            reports: Jobs::default(),
            unreported: HashMap::new(),
            start: 0,
        }
    }

    /// Takes in events and decides, for ever.
    async fn decide(&mut self, informers: &Informers) {
        let (pods, nodes, services) = (informers.of::<Pod>(), informers.of::<Node>(), informers.of::<Service>());
        let (replica_sets, stateful_sets) = (informers.of::<ReplicaSet>(), informers.of::<StatefulSet>());
        pods.wait_synced().await;
        nodes.wait_synced().await;
        services.wait_synced().await;
        replica_sets.wait_synced().await;
        stateful_sets.wait_synced().await;
        let (mut pods, mut nodes, mut services) = (pods.subscribe(), nodes.subscribe(), services.subscribe());
        let (mut replica_sets, mut stateful_sets) = (replica_sets.subscribe(), stateful_sets.subscribe());

        // What exists already comes first, whole: a decision on half the pods would overfill nodes.
        while let Some(event) = nodes.try_next() {
            self.node_event(event);
        }
        while let Some(event) = services.try_next() {
            self.service_event(event);
        }
        while let Some(event) = replica_sets.try_next() {
            self.owner_event(&event, |rs: &ReplicaSet| rs.spec.as_ref().map(|s| &s.selector));
        }
        while let Some(event) = stateful_sets.try_next() {
            self.owner_event(&event, |set: &StatefulSet| set.spec.as_ref().map(|s| &s.selector));
        }
        while let Some(event) = pods.try_next() {
            self.pod_event(event);
        }

        loop {
            let wake_at = self.queue.tick(Instant::now());
            tokio::select! {
                biased;
                event = nodes.next() => self.node_event(event),
                event = pods.next() => self.pod_event(event),
                event = services.next() => self.service_event(event),
                event = replica_sets.next() => {
                    self.owner_event(&event, |rs: &ReplicaSet| rs.spec.as_ref().map(|s| &s.selector));
                }
                event = stateful_sets.next() => {
                    self.owner_event(&event, |set: &StatefulSet| set.spec.as_ref().map(|s| &s.selector));
                }
                Some((binding, ended)) = self.bindings.next() => {
                    self.bound(binding, ended.map_err(BindError::from).and_then(|bound| Ok(bound?)));
                }
                // A report that panicked is logged where it was caught; the pod's next refusal reports again.
                Some(_) = self.reports.next() => self.report_next(),
                () = std::future::ready(()), if self.queue.has_active() && self.bindings.len() < BINDINGS => {
                    self.schedule_next();
                    // Never pending by itself: without this, nobody else would get this thread.
                    tokio::task::yield_now().await;
                }
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Waits for what is under way, and what follows from it.
    async fn finish(&mut self) {
        while !self.bindings.is_empty() || !self.reports.is_empty() {
            tokio::select! {
                Some((binding, ended)) = self.bindings.next() => {
                    self.bound(binding, ended.map_err(BindError::from).and_then(|bound| Ok(bound?)));
                }
                Some(_) = self.reports.next() => self.report_next(),
            }
        }
    }

    fn node_event(&mut self, event: Event<Node>) {
        let now = Instant::now();
        match event {
            Event::Applied { old, new } => {
                // Without a node before, every pod has a new chance.
                let filters = old.map_or(ANY, |old| helps(&old, &new));
                self.cache.set_node(new);
                if filters != 0 {
                    self.queue.wake(filters, now);
                }
            }
            Event::Deleted(old) => self.cache.remove_node(old.metadata.name.as_deref().unwrap_or_default()),
        }
    }

    fn pod_event(&mut self, event: Event<Pod>) {
        match event {
            Event::Applied { old, new } => {
                let mut gives_room = false;
                if let Some(old) = old {
                    if same(&old, &new) {
                        return;
                    }
                    if old.metadata.uid != new.metadata.uid {
                        self.pod_gone(&old);
                    }
                    // One that is nowhere yet has none to give.
                    gives_room = has_node(&old) && resources::gives_room(&old, &new);
                }
                self.pod_applied(new);
                if gives_room {
                    self.room_is_free();
                }
            }
            Event::Deleted(old) => self.pod_gone(&old),
        }
    }

    fn pod_applied(&mut self, pod: Arc<Pod>) {
        if is_terminal(&pod) {
            return self.pod_gone(&pod);
        }
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
        if !node.is_empty() {
            self.queue.remove(&uid);
            self.assumed.remove(&uid);
            self.cache.add_pod(&PodInfo::new(pod), &node);
        } else if pod.metadata.deletion_timestamp.is_some() {
            self.queue.remove(&uid);
        } else if is_ours(&pod) {
            self.queue.add(Arc::new(PodInfo::new(pod)), Instant::now());
        }
    }

    fn pod_gone(&mut self, pod: &Pod) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.queue.remove(uid);
        self.unreported.remove(uid);
        self.assumed.remove(uid);
        if self.cache.remove_pod(uid) {
            self.room_is_free();
        }
    }

    fn room_is_free(&mut self) {
        self.queue.wake(
            Filter::NodeResourcesFit as u32 | Filter::NodePorts as u32,
            Instant::now(),
        );
    }

    fn service_event(&mut self, event: Event<Service>) {
        match event {
            Event::Applied { new, .. } => self.groups.set_service(&new),
            Event::Deleted(old) => self.groups.remove_service(&old),
        }
    }

    fn owner_event<K: kube::Resource>(&mut self, event: &Event<K>, selector: fn(&K) -> Option<&LabelSelector>) {
        let uid = |owner: &K| owner.meta().uid.clone().unwrap_or_default();
        match event {
            Event::Applied { new, .. } => {
                let selector = selector(new).and_then(|s| Selector::try_from(s.clone()).ok());
                self.groups.set_owner(&uid(new), selector);
            }
            Event::Deleted(old) => self.groups.set_owner(&uid(old), None),
        }
    }

    fn schedule_next(&mut self) {
        let Some(pod) = self.queue.pop() else { return };
        // A pod that nothing can be decided about waits with back-off; the others go on.
        let decision = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let spread = Spread::new(&pod.pod, &self.groups);
            self.cache.prepare(&spread);
            let pick = |among| rand::random_range(0..among);
            cycle::decide(&pod, &self.cache, &spread, self.start, pick)
        }));
        let decision = match decision {
            Ok(decision) => decision,
            Err(panic) => {
                let cause = job::record_panic("scheduling cycle", panic.as_ref());
                tracing::error!(pod = pod.key(), cause, "no decision");
                return self.queue.failed(pod.uid(), Instant::now());
            }
        };
        self.start = decision.next_start;
        match decision.node {
            Ok(node) => self.bind(pod, node),
            Err(refusal) => {
                self.queue.unschedulable(pod.uid(), refusal.filters, Instant::now());
                self.report(&pod, "Unschedulable", refusal.message);
            }
        }
    }

    fn bind(&mut self, pod: Arc<PodInfo>, node: String) {
        self.cache.add_pod(&pod, &node);
        self.assumed.insert(pod.uid().to_owned());
        self.unreported.remove(pod.uid());
        let meta = &pod.pod.metadata;
        let (namespace, name) = (
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        );
        let binding = ApiBinding {
            metadata: ObjectMeta {
                name: meta.name.clone(),
                namespace: meta.namespace.clone(),
                uid: meta.uid.clone(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.clone()),
                ..ObjectReference::default()
            },
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        self.bindings.spawn("binding", Binding { pod, node }, async move {
            let params = PostParams::default();
            let bound = api.create_subresource::<_, serde_json::Value>("binding", &name, &params, &binding);
            bound.await.map(drop)
        });
    }

    fn bound(&mut self, binding: Binding, result: Result<(), BindError>) {
        let Binding { pod, node } = binding;
        let Err(error) = result else {
            self.assumed.remove(pod.uid());
            let message = format!("Successfully assigned {} to {node}", pod.key());
            self.recorder
                .event(&reference(&pod.pod), "Normal", "Scheduled", "Binding", &message);
            if let Some(field) = crate::unsupported::wish(&pod.pod) {
                let message = format!("{field}: not weighed in this version of mk8s");
                self.recorder
                    .event(&reference(&pod.pod), "Warning", "NotWeighed", "Binding", &message);
            }
            return;
        };
        // Bound after all, as an event has told since: the room is the pod's.
        if !self.assumed.remove(pod.uid()) {
            return;
        }
        self.cache.remove_pod(pod.uid());
        // Deleted meanwhile: it may stay for long yet, and nobody is to wait for its room.
        if self.queue.get(pod.uid()).is_none() {
            return self.room_is_free();
        }
        tracing::warn!(pod = pod.key(), node, %error, "binding failed");
        self.queue.failed(pod.uid(), Instant::now());
        let gone = matches!(&error, BindError::Refused(kube::Error::Api(status)) if status.code == 404);
        if !gone {
            self.report(&pod, "SchedulerError", error.to_string());
        }
    }

    /// Tells why the pod waits: an Event each time, the pod's condition when that changes it.
    fn report(&mut self, pod: &Arc<PodInfo>, reason: &'static str, message: String) {
        self.recorder.event(
            &reference(&pod.pod),
            "Warning",
            "FailedScheduling",
            "Scheduling",
            &message,
        );
        let unchanged = scheduled_condition(&pod.pod).is_some_and(|c| {
            c.status == "False" && c.reason.as_deref() == Some(reason) && c.message.as_deref() == Some(message.as_str())
        });
        if unchanged {
            return;
        }
        let pod = pod.clone();
        self.unreported
            .insert(pod.uid().to_owned(), Report { pod, reason, message });
        self.report_next();
    }

    /// Writes the conditions that wait, as many at once as may be.
    fn report_next(&mut self) {
        while self.reports.len() < REPORTS {
            let Some(uid) = self.unreported.keys().next().cloned() else {
                return;
            };
            let Some(report) = self.unreported.remove(&uid) else {
                return;
            };
            let meta = &report.pod.pod.metadata;
            let api: Api<Pod> = Api::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
            let name = meta.name.clone().unwrap_or_default();
            let patch = report.patch();
            self.reports.spawn("condition PodScheduled", (), async move {
                match api
                    .patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch))
                    .await
                {
                    Ok(_) => {}
                    // Deleted meanwhile, or another pod of that name by now.
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                    Err(error) => tracing::warn!(pod = name, %error, "updating condition PodScheduled failed"),
                }
            });
        }
    }
}

impl Report {
    /// The condition as a patch of the pod's status; its time changes only with its status.
    fn patch(&self) -> serde_json::Value {
        let known = scheduled_condition(&self.pod.pod).filter(|c| c.status == "False");
        let since = known.and_then(|c| c.last_transition_time.as_ref());
        let since = since.map_or_else(Timestamp::now, |t| t.0);
        let since = Timestamp::from_second(since.as_second()).unwrap_or(since);
        let condition = serde_json::json!({
            "type": "PodScheduled", "status": "False", "reason": self.reason, "message": self.message,
            "lastProbeTime": null, "lastTransitionTime": since.to_string(),
            "observedGeneration": self.pod.pod.metadata.generation,
        });
        serde_json::json!({
            "metadata": {"uid": self.pod.uid()},
            "status": {"conditions": [condition]},
        })
    }
}

fn scheduled_condition(pod: &Pod) -> Option<&PodCondition> {
    let mut conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.find(|c| c.type_ == "PodScheduled")
}

fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

#[cfg(test)]
mod tests;
