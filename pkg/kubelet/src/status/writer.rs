//! Sends what changed of a pod's status, and at the end removes the pod from the API.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use mk8s_client::Api;
use serde_json::Value;

use crate::agent::Agent;
use crate::pod;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such pod, or another of its name.
    #[error("the pod is gone from the API")]
    Gone,
    #[error(transparent)]
    Api(kube::Error),
}

fn api(agent: &Agent, pod: &Pod) -> Api<Pod> {
    Api::namespaced(agent.client.clone(), pod::namespace(pod))
}

pub async fn write(agent: &Agent, pod: &Pod, patch: Value) -> Result<Box<Pod>, Error> {
    let params = PatchParams::default();
    let written = api(agent, pod)
        .patch_status(pod::name(pod), &params, &Patch::Strategic(patch))
        .await;
    match written.and_then(|written| written.object()) {
        Ok(pod) => Ok(Box::new(pod)),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Err(Error::Gone),
        Err(error) => Err(Error::Api(error)),
    }
}

/// Tries until the API has taken it or has no such pod.
pub async fn delete(agent: &Agent, pod: &Pod) {
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let mut delay = Duration::from_millis(500);
    loop {
        match api(agent, pod).delete(pod::name(pod), &params).await {
            Ok(()) => return,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
            Err(error) => {
                tracing::warn!(pod = pod::display(pod), %error, "cannot remove a pod from the API, trying again");
            }
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(Duration::from_secs(30));
    }
}
