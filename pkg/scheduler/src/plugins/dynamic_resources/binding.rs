//! What is written of claims: what a pod gets before it is bound, and what is given back.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};
use kube::Client;
use kube::api::{Patch, PatchParams, PostParams};
use mk8s_client::Api;
use serde_json::json;

use super::NAME;
use super::ask::key;
use super::claims::is_reserved_for;
use crate::cluster::claims::{Reserved, allocation};
use crate::framework::{PreBind, StepError, Write};
use crate::pod::PodInfo;

/// Who has devices cannot be deleted before they are given back.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Others may write a claim at the same time.
const TRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// For whom a claim is.
#[derive(Clone)]
struct Consumer {
    name: String,
    uid: Arc<str>,
}

/// Writes what each claim gets, and that the pod holds it.
pub fn bind(client: &Client, pod: &PodInfo, claims: Vec<Reserved>) -> PreBind {
    let (client, consumer) = (
        client.clone(),
        Consumer {
            name: (*pod.name).to_owned(),
            uid: pod.uid.clone(),
        },
    );
    async move {
        for reserved in claims {
            let written = bind_one(&client, &consumer, &reserved).await?;
            // Only this writes it.
            let _ = reserved.written.set(Arc::new(written));
        }
        Ok(())
    }
    .boxed()
}

fn api(client: &Client, claim: &ResourceClaim) -> Api<ResourceClaim> {
    Api::namespaced(client.clone(), claim.metadata.namespace.as_deref().unwrap_or_default())
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

async fn bind_one(client: &Client, consumer: &Consumer, reserved: &Reserved) -> Result<ResourceClaim, StepError> {
    let api = api(client, &reserved.claim);
    let mut claim = (*reserved.claim).clone();
    for _ in 1..TRIES {
        match write(&api, consumer, reserved, claim).await {
            Err(StepError::Api { source, .. }) if is_conflict(&source) => {}
            done => return done,
        }
        tokio::time::sleep(PAUSE).await;
        let what = || format!("get updated claim {} after conflict", key(&reserved.claim));
        let name = reserved.claim.metadata.name.as_deref().unwrap_or_default();
        claim = api.get(name).await.map_err(failed(what))?;
        if claim.metadata.uid != reserved.claim.metadata.uid {
            return Err(gone(&claim));
        }
    }
    write(&api, consumer, reserved, claim).await
}

fn failed(what: impl FnOnce() -> String) -> impl FnOnce(kube::Error) -> StepError {
    |source| StepError::Api {
        plugin: NAME,
        what: what(),
        source,
    }
}

fn changed(what: String) -> StepError {
    StepError::Changed { plugin: NAME, what }
}

/// It is going, or another one has its name.
fn gone(claim: &ResourceClaim) -> StepError {
    changed(format!("claim {} got deleted in the meantime", key(claim)))
}

/// First the finalizer, then the devices and the pod in one.
async fn write(
    api: &Api<ResourceClaim>,
    consumer: &Consumer,
    reserved: &Reserved,
    mut claim: ResourceClaim,
) -> Result<ResourceClaim, StepError> {
    let (name, key) = (claim.metadata.name.clone().unwrap_or_default(), key(&claim));
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(gone(&claim));
    }
    if let Some(given) = &reserved.allocation {
        if allocation(&claim).is_some() {
            return Err(changed(format!("claim {key} got allocated elsewhere in the meantime")));
        }
        let finalizers = claim.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|own| own == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
            let what = || format!("add finalizer to claim {key}");
            let answer = api.replace(&name, &PostParams::default(), &claim).await;
            claim = answer.and_then(|answer| answer.object()).map_err(failed(what))?;
        }
        claim.status.get_or_insert_default().allocation = Some((**given).clone());
    }
    let status = claim.status.get_or_insert_default();
    status
        .reserved_for
        .get_or_insert_default()
        .push(ResourceClaimConsumerReference {
            api_group: None,
            resource: "pods".to_owned(),
            name: consumer.name.clone(),
            uid: (*consumer.uid).to_owned(),
        });
    let what = || match reserved.allocation {
        Some(_) => format!("add allocation and reservation to claim {key}"),
        None => format!("add reservation to claim {key}"),
    };
    let written = api.replace_status(&name, &PostParams::default(), &claim).await;
    written.and_then(|answer| answer.object()).map_err(failed(what))
}

/// Takes away the devices of a claim that nobody else holds.
pub fn deallocate(claim: &Arc<ResourceClaim>) -> Write {
    let mut claim = (**claim).clone();
    if let Some(status) = &mut claim.status {
        status.allocation = None;
        status.reserved_for = None;
        status.devices = None;
    }
    Write::new(move |client| {
        async move {
            let name = claim.metadata.name.clone().unwrap_or_default();
            let api = api(&client, &claim);
            api.replace_status(&name, &PostParams::default(), &claim)
                .await
                .map(drop)
        }
        .boxed()
    })
}

/// The pod holds these claims no more. None: there are none.
pub fn release(pod: &PodInfo, claims: &[&Arc<ResourceClaim>]) -> Option<Write> {
    if claims.is_empty() {
        return None;
    }
    debug_assert!(claims.iter().all(|claim| is_reserved_for(claim, pod)));
    let claims: Vec<Arc<ResourceClaim>> = claims.iter().map(|claim| (*claim).clone()).collect();
    let pod = pod.uid.clone();
    Some(Write::new(move |client| {
        async move {
            for claim in &claims {
                let name = claim.metadata.name.as_deref().unwrap_or_default();
                let without = json!({"metadata": {"uid": claim.metadata.uid},
                    "status": {"reservedFor": [{"$patch": "delete", "uid": &*pod}]}});
                let api = api(&client, claim);
                api.patch_status(name, &PatchParams::default(), &Patch::Strategic(without))
                    .await?;
            }
            Ok(())
        }
        .boxed()
    }))
}
