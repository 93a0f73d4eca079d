//! From a decision to the pod on its node: what plugins need there is reserved and written, then the pod is bound. What fails is given
//! back, and the pod tried again.

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Binding as ApiBinding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use mk8s_client::{Api, words};
use mk8s_supervisor::JobError;

use super::Scheduler;
use crate::change::Change;
use crate::cluster::NodeId;
use crate::extender::ExtenderError;
use crate::framework::{PreBind, StepError, Write};
use crate::pod::PodInfo;
use crate::profile::Profile;

/// Why a pod was not bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("running Bind plugin \"DefaultBinder\": {}", words(.0))]
    Refused(#[from] kube::Error),
    #[error("running Reserve {0}")]
    Reserve(#[source] StepError),
    #[error("running PreBind {0}")]
    PreBind(#[source] StepError),
    #[error("{0}")]
    Extender(#[from] ExtenderError),
    #[error("binding failed: {0}")]
    Ended(#[from] JobError),
}

impl BindError {
    /// The pod may be bound all the same: nobody said that it is not.
    fn leaves_open(&self) -> bool {
        match self {
            // A server that failed, or that somebody waited for too long, may have written it.
            BindError::Refused(kube::Error::Api(status)) => status.code >= 500,
            BindError::Refused(_) => true,
            BindError::Reserve(_) | BindError::PreBind(_) => false,
            BindError::Extender(_) | BindError::Ended(_) => true,
        }
    }
}

/// A binding under way.
pub struct Binding {
    pub pod: Arc<PodInfo>,
    pub node: Arc<str>,
}

impl Scheduler {
    /// Gives the pod its node.
    pub(super) fn assign(&mut self, pod: Arc<PodInfo>, node: NodeId) {
        let name = self.cluster.node(node).name.clone();
        if let Err(error) = self.reserve(&pod, node) {
            return self.not_bound(&pod, &name, &BindError::Reserve(error));
        }
        self.unnominate(&pod.uid, Some(&name));
        self.cluster.place(pod.clone(), &name);
        self.assumed.insert(pod.uid.clone());
        self.wake_for(|_| Some(Change::PodPlaced(&pod)));
        let before = self.pre_binds(&pod, node);
        // It may take its time: who looks meanwhile sees where the pod is to go (KEP-5278).
        let nominated = (!before.is_empty()).then_some(&*name);
        let said = self.reports.conclude(&pod, nominated);
        let (client, binders) = (self.client.clone(), self.extending.binders(&pod));
        let binding = Binding {
            pod: pod.clone(),
            node: name.clone(),
        };
        self.bindings.spawn("binding", binding, async move {
            said.await;
            for step in before {
                step.await.map_err(BindError::PreBind)?;
            }
            for extender in binders {
                match extender.bind(&pod, &name).await {
                    Ok(()) => return Ok(()),
                    Err(error) if extender.ignorable => {
                        tracing::info!(pod = pod.key(), %error, "an extender that was to bind is passed over");
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(bind(client, &pod, &name).await?)
        });
    }

    fn reserve(&mut self, pod: &Arc<PodInfo>, node: NodeId) -> Result<(), StepError> {
        let Some(profile) = self.profiles.of(pod) else {
            return Ok(());
        };
        let reserved = profile
            .reserving()
            .try_for_each(|plugin| plugin.reserve(pod, node, &mut self.cluster));
        if reserved.is_err() {
            let writes = self.unreserve(pod);
            self.write_all(pod, writes);
        }
        reserved
    }

    /// Gives back what the pod was to have; what is to be written for that.
    fn unreserve(&mut self, pod: &PodInfo) -> Vec<Write> {
        let (profile, cluster) = (self.profiles.of(pod), &mut self.cluster);
        let plugins = profile.into_iter().flat_map(Profile::reserving);
        plugins.filter_map(|plugin| plugin.unreserve(pod, cluster)).collect()
    }

    fn pre_binds(&self, pod: &PodInfo, node: NodeId) -> Vec<PreBind> {
        let plugins = self.profiles.of(pod).into_iter().flat_map(Profile::reserving);
        plugins
            .filter_map(|plugin| plugin.pre_bind(pod, node, &self.cluster, &self.client))
            .collect()
    }

    /// A binding has ended.
    pub(super) fn bound(&mut self, binding: Binding, result: Result<(), BindError>) {
        let Binding { pod, node } = binding;
        let Err(error) = result else {
            self.assumed.remove(&pod.uid);
            self.reports.forget(&pod.uid);
            let message = format!("Successfully assigned {} to {node}", pod.key());
            let what = ("Normal", "Scheduled", "Binding");
            self.recorders.event(&pod, &pod.reference(), what, &message);
            return;
        };
        let mut writes = self.unreserve(&pod);
        if !writes.is_empty() && error.leaves_open() {
            writes = vec![unless_bound(pod.clone(), writes)];
        }
        let assumed = self.assumed.remove(&pod.uid);
        // Bound after all, as an event has told since: the room is the pod's, and so is what it was given.
        if !assumed && self.cluster.place_of(&pod.uid).is_some() {
            return;
        }
        self.write_all(&pod, writes);
        if !assumed {
            return;
        }
        self.cluster.remove(&pod.uid);
        // Deleted meanwhile: it may stay for long yet, and nobody is to wait for its room.
        if self.queue.get(&pod.uid).is_none() {
            return self.wake_for(|_| Some(Change::PodGone(&pod)));
        }
        self.not_bound(&pod, &node, &error);
        self.wake_for(|_| Some(Change::PodGone(&pod)));
    }

    fn not_bound(&mut self, pod: &Arc<PodInfo>, node: &str, error: &BindError) {
        tracing::warn!(pod = pod.key(), node, %error, "binding failed");
        self.queue.failed(&pod.uid, Instant::now());
        let pod = self.queue.get(&pod.uid).unwrap_or(pod).clone();
        match error {
            BindError::Refused(kube::Error::Api(status)) if status.code == 404 => {}
            // Somebody else bound it, as an event is about to tell: its condition is whose it is then.
            BindError::Refused(kube::Error::Api(status)) if status.code == 409 => {
                self.tell_of_failure(&pod, &error.to_string());
            }
            error => self.report(&pod, "SchedulerError", error.to_string(), Some("".into())),
        }
    }
}

/// Writes only if the pod has no node by now: what it was given is its own otherwise.
fn unless_bound(pod: Arc<PodInfo>, writes: Vec<Write>) -> Write {
    let write = async move |client: Client| {
        let api: Api<Pod> = Api::namespaced(client.clone(), pod.namespace());
        let found = api.get_opt(&pod.name).await?;
        let own = found.filter(|found| found.metadata.uid.as_deref() == Some(&*pod.uid));
        if own.and_then(|own| own.spec?.node_name).is_some() {
            return Ok(());
        }
        for write in writes {
            write.run(client.clone()).await?;
        }
        Ok(())
    };
    Write::new(|client| write(client).boxed())
}

async fn bind(client: Client, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
    let binding = ApiBinding {
        metadata: ObjectMeta {
            name: Some((*pod.name).to_owned()),
            namespace: Some(pod.namespace().to_owned()),
            uid: Some((*pod.uid).to_owned()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let api: Api<Pod> = Api::namespaced(client, pod.namespace());
    api.create_subresource("binding", &pod.name, &binding).await
}
