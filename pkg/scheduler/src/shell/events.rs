//! What changes of objects do to the cluster and to those who wait.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use mk8s_client::Event;

use super::Scheduler;
use crate::change::Change;
use crate::pod::{PodInfo, node_of};

fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn revision(pod: &Pod) -> u64 {
    let revision = pod.metadata.resource_version.as_deref();
    revision.and_then(|own| own.parse().ok()).unwrap_or_default()
}

/// Whether decisions see a difference between what was known of a pod on a node and what is.
fn differs(before: &PodInfo, now: &PodInfo) -> bool {
    before.kin != now.kin || before.requests != now.requests
}

impl Scheduler {
    pub(super) fn node_event(&mut self, event: Event<Node>) {
        match event {
            Event::Applied { new, .. } => {
                let before = self.cluster.set_node(&new);
                let name = new.metadata.name.as_deref().unwrap_or_default();
                self.wake_for(|cluster| {
                    let node = cluster.find(name)?;
                    let before = before.as_deref();
                    Some(Change::Node { before, node })
                });
            }
            Event::Deleted(old) => {
                let name = old.metadata.name.as_deref().unwrap_or_default();
                if let Some(facts) = self.cluster.remove_node(name) {
                    self.wake_for(|_| Some(Change::NodeGone(&facts)));
                }
            }
        }
    }

    pub(super) fn namespace_event(&mut self, event: Event<Namespace>) {
        let name = event.object().metadata.name.clone().unwrap_or_default();
        let labels = match event {
            Event::Applied { new, .. } => Some(new.metadata.labels.clone().unwrap_or_default()),
            Event::Deleted(_) => None,
        };
        self.cluster.set_namespace(&name, labels);
    }

    pub(super) fn service_event(&mut self, event: Event<Service>) {
        match event {
            Event::Applied { new, .. } => self.cluster.groups.set_service(&new),
            Event::Deleted(old) => self.cluster.groups.remove_service(&old),
        }
    }

    pub(super) fn budget_event(&mut self, event: Event<PodDisruptionBudget>) {
        match event {
            Event::Applied { new, .. } => self.cluster.budgets.set(&new),
            Event::Deleted(old) => {
                let (namespace, name) = (&old.metadata.namespace, &old.metadata.name);
                self.cluster.budgets.remove(
                    namespace.as_deref().unwrap_or_default(),
                    name.as_deref().unwrap_or_default(),
                );
            }
        }
    }

    pub(super) fn pod_event(&mut self, event: Event<Pod>) {
        match event {
            Event::Applied { old, new } => {
                if let Some(old) = old.filter(|old| old.metadata.uid != new.metadata.uid) {
                    self.pod_gone(&old);
                }
                self.pod_applied(&new);
            }
            Event::Deleted(old) => self.pod_gone(&old),
        }
    }

    pub(super) fn pod_applied(&mut self, pod: &Pod) {
        if is_terminal(pod) {
            return self.pod_gone(pod);
        }
        let info = Arc::new(PodInfo::new(pod, &mut self.cluster.kins));
        if let Some(node) = node_of(pod) {
            self.placed(info, node);
        } else if info.deleting {
            self.forget_waiting(&info.uid, None);
            // One that has no node yet may be a victim too: its binding was under way.
            self.queue.victim_goes(&info.uid, Instant::now());
        } else if self.profile_of(&info).is_some() {
            self.waits(info, revision(pod));
        }
    }

    /// A pod has its node.
    fn placed(&mut self, pod: Arc<PodInfo>, node: &str) {
        let assumed = self.assumed.remove(&pod.uid);
        self.forget_waiting(&pod.uid, Some(node));
        self.reports.forget(&pod.uid);
        if pod.deleting {
            self.queue.victim_goes(&pod.uid, Instant::now());
        }
        let moves = self
            .cluster
            .place_of(&pod.uid)
            .is_some_and(|before| *before.name != *node);
        let before = self.cluster.place(pod.clone(), node);
        match before {
            Some(before) if moves => {
                self.wake_for(|_| Some(Change::PodGone(&before)));
                self.wake_for(|_| Some(Change::PodPlaced(&pod)));
            }
            // Whoever it helps that the pod is there was told when it was decided.
            Some(before) if assumed || !differs(&before, &pod) => {}
            Some(before) => self.wake_for(|_| {
                Some(Change::PodChanged {
                    before: &before,
                    now: &pod,
                })
            }),
            None => self.wake_for(|_| Some(Change::PodPlaced(&pod))),
        }
    }

    /// A pod of ours is without a node.
    fn waits(&mut self, pod: Arc<PodInfo>, revision: u64) {
        // It counts where it is assumed; that it is nominated there as well is for others to see.
        if self.assumed.contains(&pod.uid) {
            return self.queue.add(pod, Instant::now());
        }
        let shown = pod.wishes().nominated.clone().unwrap_or_default();
        let node = match self.reports.is_current(&pod.uid, &shown, revision) {
            true => Some(shown).filter(|node| !node.is_empty()),
            false => self.cluster.nominated.node_of(&pod.uid).map(Into::into),
        };
        match node {
            Some(node) => self.nominate(pod.clone(), &node),
            None => self.unnominate(&pod.uid, None),
        }
        match self.may_enqueue(&pod) {
            true => self.queue.add(pod, Instant::now()),
            false => self.queue.hold(pod, Instant::now()),
        }
    }

    /// Room on the node is the pod's.
    pub(super) fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        if self
            .cluster
            .nominated
            .node_of(&pod.uid)
            .is_some_and(|before| before != node)
        {
            self.unnominate(&pod.uid, None);
        }
        self.cluster.nominated.set(pod, node);
    }

    /// No room is the pod's any more; where it was, there is some, unless the pod itself takes it there.
    pub(super) fn unnominate(&mut self, uid: &str, takes: Option<&str>) {
        let there = takes.is_some() && self.cluster.nominated.node_of(uid) == takes;
        if let Some(pod) = self.cluster.nominated.remove(uid)
            && !there
        {
            self.wake_for(|_| Some(Change::PodGone(&pod)));
        }
    }

    fn forget_waiting(&mut self, uid: &Arc<str>, node: Option<&str>) {
        self.queue.remove(uid);
        self.unnominate(uid, node);
    }

    fn pod_gone(&mut self, pod: &Pod) {
        let uid: Arc<str> = pod.metadata.uid.as_deref().unwrap_or_default().into();
        self.forget_waiting(&uid, None);
        self.queue.victim_goes(&uid, Instant::now());
        self.reports.forget(&uid);
        self.assumed.remove(&uid);
        if let Some(gone) = self.cluster.remove(&uid) {
            self.wake_for(|_| Some(Change::PodGone(&gone)));
        }
    }

    /// Has those tried again whom a change may help.
    pub(super) fn wake_for<'c>(&'c mut self, change: impl FnOnce(&'c crate::cluster::Cluster) -> Option<Change<'c>>) {
        let (cluster, profiles) = (&self.cluster, &self.profiles);
        let Some(change) = change(cluster) else { return };
        let kinds = change.kinds();
        self.extending.note_change(kinds);
        if kinds == 0 || !self.queue.has_unschedulable() {
            return;
        }
        let helps = |pod: &PodInfo, rows| {
            let profile = profiles.of(pod);
            profile.is_some_and(|own| own.may_help(rows, kinds, |plugin| plugin.helps(pod, &change, cluster)))
        };
        self.queue.wake(helps, Instant::now());
    }
}
