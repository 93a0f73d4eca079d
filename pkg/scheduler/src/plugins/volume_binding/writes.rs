//! What is written so that a pod's claims get what was decided for them, and the wait until they have it.

use std::time::Duration;

use kube::Client;
use kube::api::{Patch, PatchParams};
use kube::core::Request;
use mk8s_client::storage::{BOUND_BY_CONTROLLER, SELECTED_NODE};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::NAME;
use crate::cluster::{Claim, Ended, Part, Volumes};
use crate::framework::StepError;

/// A change of a volume or a claim.
#[derive(Debug, PartialEq)]
pub struct Write {
    /// Where the API has its kind.
    path: String,
    name: Box<str>,
    /// With the revision that the decision saw: what changed since is a conflict.
    patch: Value,
}

/// What is to be written of a decision for a pod that goes to `node`.
pub fn writes(parts: &[Part], node: &str, volumes: &Volumes) -> Vec<Write> {
    let each = parts.iter().filter_map(|part| {
        let (before, claim) = (part.before.as_ref()?, volumes.claim(&part.claim)?);
        match &part.volume {
            Some(volume) => bind(&part.claim, claim, volume, before, volumes),
            None => Some(select(&part.claim, before, node)),
        }
    });
    each.collect()
}

/// The volume is for the claim.
fn bind(key: &str, claim: &Claim, volume: &str, before: &str, volumes: &Volumes) -> Option<Write> {
    let (namespace, name) = key.split_once('/')?;
    let mut patch = json!({
        "metadata": {"resourceVersion": before},
        "spec": {"claimRef": {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": name,
            "uid": &*claim.uid, "resourceVersion": &*claim.revision,
        }},
    });
    // One that its user named for the claim stays the claim's.
    let own = volumes.volume(volume)?.told_claim.as_ref();
    if !own.is_some_and(|own| own.names(key, claim)) {
        patch["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
    }
    Some(Write {
        path: "/api/v1/persistentvolumes".to_owned(),
        name: volume.into(),
        patch,
    })
}

/// A volume is to be made for the claim at this node.
fn select(key: &str, before: &str, node: &str) -> Write {
    let (namespace, name) = key.split_once('/').unwrap_or_default();
    Write {
        path: format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims"),
        name: name.into(),
        patch: json!({"metadata": {"resourceVersion": before, "annotations": {SELECTED_NODE: node}}}),
    }
}

impl Write {
    #[cfg(test)]
    pub fn patch(&self) -> &Value {
        &self.patch
    }

    async fn send(self, client: &Client) -> Result<(), StepError> {
        let what = format!("updating {}/{}", self.path, self.name);
        let patch = Patch::Merge(self.patch);
        let asked = Request::new(self.path).patch(&self.name, &PatchParams::default(), &patch);
        let asked = asked.map_err(|error| changed(format!("{what}: {error}")))?;
        let answer = client.request_text(asked).await;
        answer.map(drop).map_err(|source| StepError::Api {
            plugin: NAME,
            what,
            source,
        })
    }
}

fn changed(what: String) -> StepError {
    StepError::Changed { plugin: NAME, what }
}

/// Writes, and waits until all is bound.
pub async fn bound(
    writes: Vec<Write>,
    client: Client,
    mut ended: watch::Receiver<Ended>,
    limit: Duration,
) -> Result<(), StepError> {
    for write in writes {
        write.send(&client).await?;
    }
    let failed = |why: &str| changed(format!("binding volumes: {why}"));
    match tokio::time::timeout(limit, ended.wait_for(Option::is_some)).await {
        Ok(Ok(ended)) => match &*ended {
            Some(Err(why)) => Err(failed(why)),
            _ => Ok(()),
        },
        // It was given back.
        Ok(Err(_)) => Err(failed("context canceled")),
        Err(_) => Err(failed("context deadline exceeded")),
    }
}
