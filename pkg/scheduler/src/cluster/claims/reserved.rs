//! What decisions gave away that the API server may not know of yet: until it does, nobody else may count on it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};

use super::{Claims, Found, revision};
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

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    /// By the pod's uid.
    of_pods: HashMap<Arc<str>, Vec<Reserved>>,
    /// The uids of the claims that are about to get something: of each one pod alone decides.
    pending: HashSet<Box<str>>,
}

impl Reserved {
    /// A claim that a decision gives to a pod; `holds`: the pod has it already, as the API server knows.
    pub fn new(claim: Arc<ResourceClaim>, allocation: Option<AllocationResult>, holds: bool) -> Self {
        let written = Written::default();
        if holds && allocation.is_none() {
            // Only this writes it.
            let _ = written.set(claim.clone());
        }
        Reserved {
            claim,
            allocation: allocation.map(Arc::new),
            written,
        }
    }

    fn pending(&self) -> Option<&str> {
        self.allocation.as_ref()?;
        Some(self.claim.metadata.uid.as_deref().unwrap_or_default())
    }
}

impl Claims {
    /// A pod is to have these claims.
    pub fn reserve(&mut self, pod: &PodInfo, claims: Vec<Reserved>) {
        // Of no use to who comes next.
        self.found = Found::default();
        for reserved in &claims {
            self.take(reserved.allocation.as_deref());
            let pending = reserved.pending().map(Box::from);
            self.reserved.pending.extend(pending);
        }
        self.reserved.of_pods.insert(pod.uid.clone(), claims);
    }

    /// The claims that are reserved for a pod, in the order in which it names them.
    pub fn reserved(&self, pod: &PodInfo) -> &[Reserved] {
        self.reserved.of_pods.get(&pod.uid).map_or(&[], Vec::as_slice)
    }

    /// The pod is not to have them after all. What has been written of them stands.
    pub fn unreserve(&mut self, pod: &PodInfo) -> Vec<Reserved> {
        let all = self.reserved.of_pods.remove(&pod.uid).unwrap_or_default();
        for reserved in &all {
            if let Some(written) = reserved.written.get()
                && self.is_known(written)
            {
                self.set(written.clone());
            }
            self.drop_reserved(reserved);
        }
        all
    }

    /// Whether a claim is about to get what it asks for.
    pub fn is_pending(&self, claim: &ResourceClaim) -> bool {
        let uid = claim.metadata.uid.as_deref().unwrap_or_default();
        self.reserved.pending.contains(uid)
    }

    fn drop_reserved(&mut self, reserved: &Reserved) {
        if let Some(uid) = reserved.pending() {
            self.reserved.pending.remove(uid);
        }
        self.give_back(reserved.allocation.as_deref());
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
            .of_pods
            .iter()
            .filter(|(_, claims)| claims.iter().all(told))
            .map(|(pod, _)| pod.clone())
            .collect();
        for pod in settled {
            for reserved in self.reserved.of_pods.remove(&pod).unwrap_or_default() {
                self.drop_reserved(&reserved);
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
