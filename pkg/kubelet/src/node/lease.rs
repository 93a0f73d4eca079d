//! The node's lease: a small object renewed every ten seconds by a task of its own, so that no other trouble looks like a
//! dead node.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use mk8s_client::Api;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;

const NAMESPACE: &str = "kube-node-lease";
const DURATION_SECONDS: i32 = 40;
const RENEW_EVERY: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

pub async fn renew(agent: Arc<Agent>, token: CancellationToken) {
    let api: Api<Lease> = Api::namespaced(agent.client.clone(), NAMESPACE);
    let name = agent.config.node_name.clone();
    let mut exists = false;
    loop {
        let done = if exists {
            patch(&api, &name).await
        } else {
            create(&api, &agent, &name).await
        };
        let delay = match done {
            Ok(()) => {
                exists = true;
                RENEW_EVERY
            }
            Err(kube::Error::Api(answer)) if answer.code == 404 => {
                // The lease was deleted, or its namespace is still to come.
                exists = false;
                RETRY
            }
            Err(error) => {
                tracing::debug!(%error, "cannot renew the node's lease, trying again");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = token.cancelled() => return,
        }
    }
}

async fn patch(api: &Api<Lease>, name: &str) -> Result<(), kube::Error> {
    let change = json!({"spec": {
        "holderIdentity": name,
        "leaseDurationSeconds": DURATION_SECONDS,
        "renewTime": MicroTime(Timestamp::now()),
    }});
    api.patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await
        .map(drop)
}

async fn create(api: &Api<Lease>, agent: &Agent, name: &str) -> Result<(), kube::Error> {
    let owner = agent.node().and_then(|node| {
        Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.to_owned(),
            uid: node.metadata.uid.clone()?,
            ..OwnerReference::default()
        }])
    });
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: owner,
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }),
    };
    match api.create(&PostParams::default(), &lease).await {
        Err(kube::Error::Api(answer)) if answer.code == 409 => patch(api, name).await,
        other => other.map(drop),
    }
}
