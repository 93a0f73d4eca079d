//! The one task that owns the scheduler's state: takes in events, decides, binds, reports.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Selector;
use kube::{Api, Client};
use mk8s_client::{Event, EventRecorder, Informers};
use tokio::task::JoinSet;

use crate::cache::Cache;
use crate::cycle::{self, Refusal};
use crate::filters::{ANY, Filter};
use crate::info::PodInfo;
use crate::queue::Queue;
use crate::spread::{Groups, Spread};

/// The scheduler can't go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A background request panicked.
    #[error("scheduler: background request: {0}")]
    Background(#[from] tokio::task::JoinError),
}

/// How a binding ended.
struct Bound {
    pod: Arc<PodInfo>,
    node: String,
    result: Result<(), kube::Error>,
}

struct Scheduler {
    client: Client,
    recorder: EventRecorder,
    cache: Cache,
    queue: Queue,
    groups: Groups,
    bindings: JoinSet<Bound>,
    reports: JoinSet<()>,
    start: usize,
}

/// Runs until dropped.
pub async fn run(client: Client, informers: Informers, recorder: EventRecorder) -> Result<(), Error> {
    let (pods, nodes, services) = (informers.of::<Pod>(), informers.of::<Node>(), informers.of::<Service>());
    let (replica_sets, stateful_sets) = (informers.of::<ReplicaSet>(), informers.of::<StatefulSet>());
    pods.wait_synced().await;
    nodes.wait_synced().await;
    services.wait_synced().await;
    replica_sets.wait_synced().await;
    stateful_sets.wait_synced().await;
    let (mut pods, mut nodes, mut services) = (pods.subscribe(), nodes.subscribe(), services.subscribe());
    let (mut replica_sets, mut stateful_sets) = (replica_sets.subscribe(), stateful_sets.subscribe());

    let mut state = Scheduler::new(client, recorder);
    // What exists already comes first, whole: a decision on half the pods would overfill nodes.
    while let Some(event) = nodes.try_next() {
        state.node_event(event);
    }
    while let Some(event) = services.try_next() {
        state.service_event(event);
    }
    while let Some(event) = replica_sets.try_next() {
        state.owner_event(&event, |rs: &ReplicaSet| rs.spec.as_ref().map(|s| &s.selector));
    }
    while let Some(event) = stateful_sets.try_next() {
        state.owner_event(&event, |set: &StatefulSet| set.spec.as_ref().map(|s| &s.selector));
    }
    while let Some(event) = pods.try_next() {
        state.pod_event(event);
    }

    loop {
        let wake_at = state.queue.tick(Instant::now());
        tokio::select! {
            biased;
            event = nodes.next() => state.node_event(event),
            event = pods.next() => state.pod_event(event),
            event = services.next() => state.service_event(event),
            event = replica_sets.next() => {
                state.owner_event(&event, |rs: &ReplicaSet| rs.spec.as_ref().map(|s| &s.selector));
            }
            event = stateful_sets.next() => {
                state.owner_event(&event, |set: &StatefulSet| set.spec.as_ref().map(|s| &s.selector));
            }
            Some(bound) = state.bindings.join_next() => state.bound(bound?),
            Some(report) = state.reports.join_next() => report?,
            () = std::future::ready(()), if state.queue.has_active() => {
                state.schedule_next();
                // Never pending by itself: without this, nobody else would get this thread.
                tokio::task::yield_now().await;
            }
            () = sleep_until(wake_at) => {}
        }
    }
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
    fn new(client: Client, recorder: EventRecorder) -> Self {
        Scheduler {
            client,
            recorder,
            cache: Cache::default(),
            queue: Queue::default(),
            groups: Groups::default(),
            bindings: JoinSet::new(),
            reports: JoinSet::new(),
            start: 0,
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
                if let Some(old) = old {
                    if same(&old, &new) {
                        return;
                    }
                    if old.metadata.uid != new.metadata.uid {
                        self.pod_gone(&old);
                    }
                }
                self.pod_applied(new);
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
            self.cache.add_pod(Arc::new(PodInfo::new(pod)), &node);
        } else if pod.metadata.deletion_timestamp.is_some() {
            self.queue.remove(&uid);
        } else if is_ours(&pod) {
            self.queue.add(Arc::new(PodInfo::new(pod)), Instant::now());
        }
    }

    fn pod_gone(&mut self, pod: &Pod) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.queue.remove(uid);
        if self.cache.remove_pod(uid) {
            self.queue.wake(
                Filter::NodeResourcesFit as u32 | Filter::NodePorts as u32,
                Instant::now(),
            );
        }
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
        let spread = Spread::new(&pod.pod, &self.groups);
        self.cache.prepare(&spread);
        let decision = cycle::decide(&pod, &self.cache, &spread, self.start, |among| {
            rand::random_range(0..among)
        });
        self.start = decision.next_start;
        match decision.node {
            Ok(node) => self.bind(pod, node),
            Err(refusal) => {
                self.queue.unschedulable(pod.uid(), refusal.filters, Instant::now());
                self.report(&pod, "Unschedulable", refusal);
            }
        }
    }

    fn bind(&mut self, pod: Arc<PodInfo>, node: String) {
        self.cache.add_pod(pod.clone(), &node);
        let meta = &pod.pod.metadata;
        let (namespace, name) = (
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        );
        let binding = Binding {
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
        self.bindings.spawn(async move {
            let result = api
                .create_subresource::<_, serde_json::Value>("binding", &name, &PostParams::default(), &binding)
                .await
                .map(drop);
            Bound { pod, node, result }
        });
    }

    fn bound(&mut self, bound: Bound) {
        let Bound { pod, node, result } = bound;
        let Err(error) = result else {
            let message = format!("Successfully assigned {} to {node}", pod.key());
            self.recorder
                .event(&reference(&pod.pod), "Normal", "Scheduled", &message);
            return;
        };
        // Gone from the queue: deleted, or bound after all as an event has told since.
        if self.queue.get(pod.uid()).is_none() {
            return;
        }
        tracing::warn!(pod = pod.key(), node, %error, "binding failed");
        if self.cache.node_of(pod.uid()) == Some(node.as_str()) {
            self.cache.remove_pod(pod.uid());
        }
        self.queue.failed(pod.uid(), Instant::now());
        let gone = matches!(&error, kube::Error::Api(status) if status.code == 404);
        if !gone {
            self.report(
                &pod,
                "SchedulerError",
                Refusal {
                    message: format!("binding rejected: {error}"),
                    filters: 0,
                },
            );
        }
    }

    /// Tells why the pod waits: an Event each time, the pod's condition when that changes it.
    fn report(&mut self, pod: &Arc<PodInfo>, reason: &'static str, refusal: Refusal) {
        self.recorder
            .event(&reference(&pod.pod), "Warning", "FailedScheduling", &refusal.message);
        let known = pod
            .pod
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten())
            .find(|c| c.type_ == "PodScheduled");
        let unchanged = known.is_some_and(|c| {
            c.status == "False"
                && c.reason.as_deref() == Some(reason)
                && c.message.as_deref() == Some(refusal.message.as_str())
        });
        if unchanged {
            return;
        }
        let since = known
            .filter(|c| c.status == "False")
            .and_then(|c| c.last_transition_time.as_ref());
        let since = since.map_or_else(Timestamp::now, |t| t.0);
        let since = Timestamp::from_second(since.as_second()).unwrap_or(since);
        let condition = serde_json::json!({
            "type": "PodScheduled", "status": "False", "reason": reason, "message": refusal.message,
            "lastProbeTime": null, "lastTransitionTime": since.to_string(),
            "observedGeneration": pod.pod.metadata.generation,
        });
        let patch = serde_json::json!({
            "metadata": {"uid": pod.uid()},
            "status": {"conditions": [condition]},
        });
        let meta = &pod.pod.metadata;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default());
        let name = meta.name.clone().unwrap_or_default();
        self.reports.spawn(async move {
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
