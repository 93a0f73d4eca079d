//! A claim stays while a pod that has a node names it: such a pod may be writing to what the claim holds.
//!
//! Watches claims and pods; writes the claims' finalizer. Never lets one go before every pod is seen that was given a node
//! when the claim was deleted.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, Volume};
use kube::api::ListParams;
use kube::{Api, Client};
use mk8s_client::{Event, Index};
use parking_lot::Mutex;

use super::{CLAIMS, Protected, Protector, key_of};
use crate::context::Context;
use crate::driver::Driver;
use crate::error::{Error, Tried};
use crate::meta::{self, Key};
use crate::pod;

/// A second one would list what the first has listed.
const WORKERS: usize = 1;

/// Runs the controller.
pub async fn run(ctx: Context) -> Result<(), Error> {
    let (claims, pods) = (CLAIMS.informer(&ctx), ctx.informers.of::<Pod>());
    let by_claim = pods.index("claim", |pod| claims_of(pod).map(|key| key.to_string()).collect());
    let mut driver = Driver::new("pvc-protection-controller", &ctx.scope);
    driver.watch(&claims, |event| key_of(event, &CLAIMS));
    driver.watch(&pods, |event| match event {
        Event::Deleted(pod) => claims_of(pod).collect(),
        Event::Applied { new, .. } if lets_go(new) => claims_of(new).collect(),
        Event::Applied { .. } => Vec::new(),
    });
    let users = Arc::new(Users {
        client: ctx.client.clone(),
        by_claim,
        live: Mutex::default(),
    });
    let in_use = move |claim: Arc<Protected>| -> BoxFuture<'static, Result<bool, Error>> {
        let users = users.clone();
        Box::pin(async move { users.any(&claim).await })
    };
    let protector = Protector {
        ctx,
        guarded: &CLAIMS,
        objects: claims,
        in_use: Box::new(in_use),
    };
    driver.run(WORKERS, protector).await
}

/// The pods that name claims.
struct Users {
    client: Client,
    by_claim: Index<Pod>,
    live: Mutex<Option<Live>>,
}

/// What a list of the pods of a namespace showed.
struct Live {
    namespace: String,
    revision: u64,
    pods: Vec<Pod>,
}

impl Users {
    /// Where no pod is known that does, all are read once more: the claim's deletion may have been heard of before a pod that
    /// was given a node earlier. A list in which nobody uses a claim counts for every claim that was deleted before it.
    async fn any(&self, claim: &Protected) -> Result<bool, Error> {
        let known = self.by_claim.get(&Key::of(claim).to_string());
        if known.iter().any(|pod| uses(pod, claim)) {
            return Ok(true);
        }
        if self.live.lock().as_ref().is_some_and(|live| live.clears(claim)) {
            return Ok(false);
        }
        let live = self.list(meta::namespace(claim)).await?;
        let used = live.pods.iter().any(|pod| uses(pod, claim));
        *self.live.lock() = Some(live);
        Ok(used)
    }

    async fn list(&self, namespace: &str) -> Result<Live, Error> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let listed = pods.list(&ListParams::default()).await;
        let listed = listed.tried(|| format!("list pods in {namespace}"))?;
        let naming = listed.items.into_iter().filter(|pod| claims_of(pod).next().is_some());
        Ok(Live {
            namespace: namespace.to_owned(),
            revision: revision(listed.metadata.resource_version.as_deref().unwrap_or_default()),
            pods: naming.collect(),
        })
    }
}

impl Live {
    fn clears(&self, claim: &Protected) -> bool {
        self.namespace == meta::namespace(claim)
            && self.revision >= revision(meta::revision(claim))
            && !self.pods.iter().any(|pod| uses(pod, claim))
    }
}

fn revision(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// The name of the claim that a volume is, or that is made for it.
fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(claim.claim_name.clone());
    }
    volume.ephemeral.as_ref()?;
    Some(format!("{}-{}", meta::name(pod), volume.name))
}

fn claims_of(pod: &Pod) -> impl Iterator<Item = Key> {
    let claims = volumes(pod).filter_map(|volume| claim_of(pod, volume));
    claims.map(|claim| Key::new(meta::namespace(pod), &claim))
}

/// Whether a pod that is there may be no hindrance any more.
fn lets_go(pod: &Pod) -> bool {
    pod::is_terminal(pod) || pod::node(pod).is_empty() || is_shut_down(pod)
}

/// Its node is done with it, or it was removed by force: what was made for it goes before it, should it wait for that.
fn is_shut_down(pod: &Pod) -> bool {
    meta::deleting(pod) && pod.metadata.deletion_grace_period_seconds == Some(0)
}

fn uses(pod: &Pod, claim: &Protected) -> bool {
    if pod::node(pod).is_empty() {
        return false;
    }
    let (name, namespace) = (meta::name(claim), meta::namespace(claim));
    volumes(pod).any(|volume| {
        let named = meta::namespace(pod) == namespace && claim_of(pod, volume).as_deref() == Some(name);
        let lasts = volume.persistent_volume_claim.is_some();
        named && (lasts || (!is_shut_down(pod) && meta::controlled_by(claim, meta::uid(pod))))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::super::tests::protected;
    use super::*;

    fn pod(node: &str, volumes: Value, metadata: &Value) -> Pod {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "a", "uid": "u"},
            "spec": {"nodeName": node, "containers": [], "volumes": volumes}});
        mk8s_api::patch::merge(&mut pod["metadata"], metadata).unwrap();
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_pod_with_a_node_holds_what_it_names() {
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]);
        let claim = |name: &str, owners: &Value| {
            protected(json!({"metadata": {"name": name, "namespace": "a", "ownerReferences": owners}}))
        };
        let named = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        let made = json!([{"name": "v", "ephemeral": {}}]);
        let gone = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0});
        let (none, there) = (json!([]), json!({}));
        for (pod, claim, expected) in [
            (pod("n", named.clone(), &there), claim("c", &none), true),
            (pod("n", named.clone(), &gone), claim("c", &none), true),
            (pod("", named.clone(), &there), claim("c", &none), false),
            (pod("n", named, &there), claim("d", &none), false),
            (pod("n", made.clone(), &there), claim("p-v", &owner), true),
            (pod("n", made.clone(), &there), claim("p-v", &none), false),
            (pod("n", made, &gone), claim("p-v", &owner), false),
        ] {
            assert_eq!(uses(&pod, &claim), expected, "{:?} {:?}", pod.spec, claim.metadata);
        }
    }
}
