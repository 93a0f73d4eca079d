//! What changes of claims and of devices do to the cluster and to those who wait for them.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use mk8s_client::Event;

use super::Scheduler;
use crate::change::Change;
use crate::pod::PodInfo;

impl Scheduler {
    pub(super) fn device_class_event(&mut self, event: Event<DeviceClass>) {
        match event {
            Event::Applied { new, .. } => {
                self.cluster.claims.set_class(new);
                self.wake_for(|_| Some(Change::DeviceClass));
            }
            Event::Deleted(old) => {
                let name = old.metadata.name.as_deref().unwrap_or_default();
                self.cluster.claims.remove_class(name);
            }
        }
    }

    pub(super) fn resource_slice_event(&mut self, event: Event<ResourceSlice>) {
        match event {
            Event::Applied { new, .. } => {
                self.cluster.claims.set_slice(&new);
                self.wake_for(|_| Some(Change::ResourceSlice));
            }
            Event::Deleted(old) => {
                let name = old.metadata.name.as_deref().unwrap_or_default();
                self.cluster.claims.remove_slice(name);
            }
        }
    }

    pub(super) fn resource_claim_event(&mut self, event: Event<ResourceClaim>) {
        match event {
            Event::Applied { old, new } => {
                self.cluster.claims.set(new.clone());
                self.release_held(&new);
                self.wake_for(|_| {
                    Some(Change::DeviceClaim {
                        before: old.as_deref(),
                        now: &new,
                    })
                });
            }
            Event::Deleted(old) => {
                self.cluster.claims.remove(&old);
                // That it gave back what it had may have gone by unseen.
                let mut bare = (*old).clone();
                bare.status = None;
                self.wake_for(|_| {
                    Some(Change::DeviceClaim {
                        before: Some(&old),
                        now: &bare,
                    })
                });
            }
        }
    }

    /// Whether it is of use to try the pod: its gates say so themselves.
    pub(super) fn may_enqueue(&self, pod: &PodInfo) -> bool {
        let profile = self.profile_of(pod);
        let mut rows = profile.into_iter().flat_map(|profile| &profile.rows);
        rows.all(|row| !row.filters || row.plugin.pre_enqueue(pod, &self.cluster))
    }

    /// A claim that was made for a pod concerns that one alone.
    fn release_held(&mut self, claim: &ResourceClaim) {
        let mut owners = claim.metadata.owner_references.iter().flatten();
        let owner = owners.find(|owner| owner.controller == Some(true) && owner.kind == "Pod");
        let held: Vec<Arc<PodInfo>> = match owner {
            Some(owner) => self.queue.held_one(&owner.uid).cloned().into_iter().collect(),
            None => {
                let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
                let name = claim.metadata.name.as_deref().unwrap_or_default();
                self.queue.held_by(namespace, name).cloned().collect()
            }
        };
        for pod in held {
            if self.may_enqueue(&pod) {
                self.queue.add(pod, Instant::now());
            }
        }
    }
}
