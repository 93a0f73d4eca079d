//! What decisions gave away that the API server may not know of yet: until it does, nobody else may count on it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};

use super::{Claims, revision};
use crate::pod::PodInfo;

/// The claim as the API server has it since it is reserved for the pod; empty: it is not yet.
pub type Written = Arc<OnceLock<Arc<ResourceClaim>>>;

/// A claim that is reserved for a pod.
#[derive(Debug, Clone)]
pub struct Reserved {
    /// As the decision saw it.
    pub claim: Arc<ResourceClaim>,
    /// What it is to have; none: it has something already.
    pub allocation: Option<Arc<AllocationResult>>,
    pub written: Written,
}

/// All of them, by the pod's uid.
pub(super) type Reservations = HashMap<Arc<str>, Vec<Reserved>>;

impl Claims {
    /// A pod is to have these claims.
    pub fn reserve(&mut self, pod: &PodInfo, claims: Vec<Reserved>) {
        for reserved in &claims {
            self.take(reserved.allocation.as_deref());
        }
        self.reserved.insert(pod.uid.clone(), claims);
    }

    /// The claims that are reserved for a pod, in the order in which it names them.
    pub fn reserved(&self, pod: &PodInfo) -> &[Reserved] {
        self.reserved.get(&pod.uid).map_or(&[], Vec::as_slice)
    }

    /// The pod is not to have them after all. What has been written of them stands.
    pub fn unreserve(&mut self, pod: &PodInfo) -> Vec<Reserved> {
        let all = self.reserved.remove(&pod.uid).unwrap_or_default();
        for reserved in &all {
            if let Some(written) = reserved.written.get()
                && self.is_known(written)
            {
                self.set(written.clone());
            }
            self.give_back(reserved.allocation.as_deref());
        }
        all
    }

    /// Whether a claim is about to get what it asks for.
    pub fn is_pending(&self, claim: &ResourceClaim) -> bool {
        let mut reserved = self.reserved.values().flatten();
        reserved.any(|own| own.allocation.is_some() && own.claim.metadata.uid == claim.metadata.uid)
    }

    /// Forgets what events have told of since.
    pub(super) fn settle(&mut self) {
        let known = |claim: &ResourceClaim| {
            let meta = &claim.metadata;
            let found = self.all.get(meta.namespace.as_deref()?)?.get(meta.name.as_deref()?);
            found.filter(|found| found.metadata.uid == meta.uid)
        };
        let told = |reserved: &Reserved| {
            let is_newer =
                |written: &Arc<ResourceClaim>| known(written).is_none_or(|found| revision(found) >= revision(written));
            reserved.written.get().is_some_and(is_newer)
        };
        let settled: Vec<Arc<str>> = self
            .reserved
            .iter()
            .filter(|(_, claims)| claims.iter().all(told))
            .map(|(pod, _)| pod.clone())
            .collect();
        for pod in settled {
            for reserved in self.reserved.remove(&pod).unwrap_or_default() {
                self.give_back(reserved.allocation.as_deref());
            }
        }
    }

    /// It may have been deleted since it was written.
    fn is_known(&self, claim: &ResourceClaim) -> bool {
        let meta = &claim.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let known = self.get(namespace, meta.name.as_deref().unwrap_or_default());
        known.is_some_and(|known| known.metadata.uid == meta.uid)
    }
}
