//! What a controller that counts pods asks of its set: of ReplicaSets, and of ReplicationControllers, which came before them and
//! select by plain labels.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use mk8s_client::Kind;
use serde::Serialize;

/// A set of pods that are all the same, so many of them.
pub trait Set: Kind + Debug + Serialize + kube::Resource<Scope = NamespaceResourceScope> {
    /// The controller's name, and the source of its Events.
    const CONTROLLER: &'static str;
    /// Has the kind a place for the number of pods that are on their way out?
    const TELLS_TERMINATING: bool;

    /// None while there is no spec.
    fn selector(&self) -> Option<LabelSelector>;
    /// What its pods are made of.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// How many there are to be; one, where nothing is said.
    fn wanted(&self) -> usize;
    /// How long a pod has to be ready to count as available.
    fn min_ready_seconds(&self) -> i32;
    /// The status as ReplicaSets have it.
    fn status(&self) -> ReplicaSetStatus;
    /// Puts it in the place of the one there was.
    fn set_status(&mut self, status: ReplicaSetStatus);
}

fn wanted(replicas: Option<i32>) -> usize {
    usize::try_from(replicas.unwrap_or(1)).unwrap_or(0)
}

impl Set for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset-controller";
    const TELLS_TERMINATING: bool = true;

    fn selector(&self) -> Option<LabelSelector> {
        Some(self.spec.as_ref()?.selector.clone())
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn wanted(&self) -> usize {
        wanted(self.spec.as_ref().and_then(|s| s.replicas))
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }

    fn set_status(&mut self, status: ReplicaSetStatus) {
        self.status = Some(status);
    }
}

impl Set for ReplicationController {
    const CONTROLLER: &'static str = "replication-controller";
    const TELLS_TERMINATING: bool = false;

    fn selector(&self) -> Option<LabelSelector> {
        Some(LabelSelector {
            match_labels: self.spec.as_ref()?.selector.clone(),
            match_expressions: None,
        })
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn wanted(&self) -> usize {
        wanted(self.spec.as_ref().and_then(|s| s.replicas))
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn status(&self) -> ReplicaSetStatus {
        let status = self.status.clone().unwrap_or_default();
        let conditions = status.conditions.map(|all| {
            let same = |c: ReplicationControllerCondition| ReplicaSetCondition {
                type_: c.type_,
                status: c.status,
                reason: c.reason,
                message: c.message,
                last_transition_time: c.last_transition_time,
            };
            all.into_iter().map(same).collect()
        });
        ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            terminating_replicas: None,
            observed_generation: status.observed_generation,
            conditions,
        }
    }

    fn set_status(&mut self, status: ReplicaSetStatus) {
        let conditions = status.conditions.map(|all| {
            let same = |c: ReplicaSetCondition| ReplicationControllerCondition {
                type_: c.type_,
                status: c.status,
                reason: c.reason,
                message: c.message,
                last_transition_time: c.last_transition_time,
            };
            all.into_iter().map(same).collect()
        });
        self.status = Some(ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            conditions,
        });
    }
}
